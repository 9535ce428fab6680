//! Instructions of the way from a look at a driver to what a reader gets, among few and among many instances.
//!
//! Counted, not timed (callgrind through gungraun), since two shared cores make no steady clock. `scripts/bench-ratio`
//! runs this and fails where a case among 100,000 costs more than 1.3 times the one among 1,000.

// The macros of gungraun write items that cannot carry a doc comment.
#![allow(missing_docs, unreachable_pub, reason = "written by gungraun's macros")]

use std::future::Future;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use csi_gateway::api::{self, BoxError, History, Settings, State};
use csi_gateway::config::Fleet;
use csi_gateway::demo::fleet;
use csi_gateway::domain::catalog::{Catalog, RecordChange};
use csi_gateway::domain::durability::Durability;
use csi_gateway::domain::history::Transition;
use csi_gateway::domain::id::{PluginId, Role};
use csi_gateway::domain::record::{Phase, Reason, Record};
use csi_gateway::domain::time::{Index, Timestamp};
use csi_gateway::registry::changes::{Changes, Step};
use csi_gateway::registry::reader::{Reader, Standing, Waiters};
use csi_gateway::registry::reporter::{Health, Observed, fold};
use csi_gateway::registry::sockets::Sockets;
use gungraun::prelude::*;
use http_body_util::BodyExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// The node instance of a made plugin on a made host.
fn node(plugin: u32, host: u32, phase: Phase) -> Record {
    let reason = if phase.is_healthy() { "healthy" } else { "the driver did not answer" };
    Record { phase, reason: Reason::plain(reason), ..fleet::record(plugin, host, Role::Node, Timestamp(1)) }
}

/// A catalog of `plugins` on `hosts` each.
///
/// It has seen changes before: malloc sorts at the next requests what loading has freed, and that is loading's cost.
fn catalog(plugins: u32, hosts: u32) -> Catalog {
    let records = fleet::records(Fleet { plugins, hosts, flap: None }, Timestamp(1)).collect();
    let mut catalog = Catalog::load(Index(1), records, []);
    for at in 0..100 {
        for phase in [Phase::Unhealthy, Phase::Healthy] {
            let record = node(at % plugins, at / plugins % hosts, phase);
            catalog = catalog.with(&[RecordChange::Put(Box::new(record))], Index(1), Timestamp(1)).0;
        }
    }
    catalog
}

/// Records that are applied one after another, so that malloc's occasional tidying is spread as it is in a long run.
const RECORDS: u32 = 32;

/// A catalog, and instances all over it that turn unhealthy, and healthy again where there are too few.
fn catalog_and_changes(plugins: u32, hosts: u32) -> (Catalog, Vec<RecordChange>) {
    let count = plugins * hosts;
    let change = |step: u32| {
        let (round, place) = (step / count, step % count);
        let phase = if round.is_multiple_of(2) { Phase::Unhealthy } else { Phase::Healthy };
        RecordChange::Put(Box::new(node(place / hosts, place % hosts, phase)))
    };
    let changes = (0..RECORDS).map(|number| change(number * (count / RECORDS).max(1))).collect();
    (catalog(plugins, hosts), changes)
}

// The old catalog is dropped inside: whoever publishes pays for that too.
#[library_benchmark]
#[bench::among_10(args = (1, 10), setup = catalog_and_changes)]
#[bench::among_1_000(args = (10, 100), setup = catalog_and_changes)]
#[bench::among_100_000(args = (1_000, 100), setup = catalog_and_changes)]
#[bench::among_100_000_of_few_plugins(args = (10, 10_000), setup = catalog_and_changes)]
fn apply_32_one_by_one((mut catalog, changes): (Catalog, Vec<RecordChange>)) -> (Catalog, Vec<RecordChange>) {
    let mut index = Index(2);
    for change in black_box(&changes) {
        let (next, touched) = catalog.with(std::slice::from_ref(change), index, Timestamp(2));
        index = index.next();
        catalog = next;
        black_box(touched);
    }
    black_box((catalog, changes))
}

/// Nobody asks for transitions here.
struct NoHistory;

impl History for NoHistory {
    fn history(
        &self,
        _plugin: Option<PluginId>,
        _limit: usize,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<Transition>, BoxError>> + Send + '_>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

/// A served catalog, and what a look at one driver found.
struct Served {
    catalog: watch::Sender<Arc<Catalog>>,
    waiters: Arc<Waiters>,
    changes: Arc<Changes>,
    router: Router,
    observed: Observed,
    request: Request<Body>,
}

/// As many hosts for each plugin in every case: the body of one plugin is as long as its instances are many.
fn served(plugins: u32) -> Served {
    let (catalog, catalogs) = watch::channel(Arc::new(catalog(plugins, 10)));
    let (_, standing) =
        watch::channel(Standing { is_scanned: true, started: Instant::now(), durability: Durability::Memory });
    let waiters = Arc::new(Waiters::default());
    let changes = Arc::new(Changes::after(Index(1)));
    let reader = Reader::new(catalogs, standing, Arc::clone(&waiters), Arc::clone(&changes));
    let state =
        State::new(reader, Arc::new(NoHistory), Sockets::default(), Settings::default(), CancellationToken::new());
    let Record { key, fingerprint, owner, socket, is_configured, .. } = node(plugins / 2, 5, Phase::Healthy);
    let health = Health::Verbatim { phase: Phase::Unhealthy, description: "the driver did not answer".to_owned() };
    let request = Request::get(format!("/v1/plugin/csi/{}", key.plugin)).body(Body::empty()).expect("a request");
    let observed = Observed { key, health, fingerprint, owner, socket, is_configured, registration: None };
    Served { catalog, waiters, changes, router: api::Api::new(state).router(), observed, request }
}

/// The value of a future that has nothing to wait for.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("the request does not ask to wait"),
    }
}

#[library_benchmark]
#[bench::among_10(args = (1), setup = served)]
#[bench::among_1_000(args = (100), setup = served)]
#[bench::among_100_000(args = (10_000), setup = served)]
fn look_to_body(served: Served) -> (watch::Sender<Arc<Catalog>>, Router, Bytes) {
    let Served { catalog, waiters, changes, router, observed, request } = black_box(served);
    let current = Arc::clone(&catalog.borrow());
    let record = fold(current.record(&observed.key), observed, Timestamp(2));
    let put = [RecordChange::Put(Box::new(record))];
    let (next, touched) = current.with(&put, Index(2), Timestamp(2));
    let step = Step::between(&current, &next, &touched, &put, &[]);
    catalog.send_replace(Arc::new(next));
    changes.push(Index(2), step);
    waiters.wake(&touched);
    let response = at_once(router.clone().oneshot(request)).expect("a router does not fail");
    assert!(response.status().is_success());
    let body = at_once(response.into_body().collect()).expect("a whole body").to_bytes();
    black_box((catalog, router, body))
}

library_benchmark_group!(name = one_record, benchmarks = [apply_32_one_by_one, look_to_body]);
main!(library_benchmark_groups = one_record);
