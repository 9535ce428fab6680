//! The two sides of a fleet in one process, where a test can reach what no flag does: the wall clock, allocations, a
//! second agent of a host. The etcd between them is real.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use csi_gateway::demo::fleet::{host, plugin, record};
use csi_gateway::domain::allocation::Allocation;
use csi_gateway::domain::catalog::{Catalog, RecordChange};
use csi_gateway::domain::fleet::{EtcdServer as Server, FleetStanding};
use csi_gateway::domain::id::Role;
use csi_gateway::domain::record::{Owner, Phase, Reason, Record};
use csi_gateway::domain::time::{Index, Timestamp};
use csi_gateway::domain::trust::Trust;
use csi_gateway::fleet::Settings;
use csi_gateway::fleet::etcd::Etcd;
use csi_gateway::fleet::follower::{Follower, Handles};
use csi_gateway::fleet::shipper::Shipper;
use csi_gateway::registry::allocations::Allocations;
use csi_gateway::registry::mirror::Mirror;
use csi_gateway::registry::reader::{Reader, Subject};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::etcd::{EtcdServer, Proxy, Wire, program};
use crate::support::process::until;

const TTL: Duration = Duration::from_secs(3);
const HOUR: i64 = 3_600_000_000_000;
const ALLOCATION: &str = "8b0e0c3c-6b1e-4d5c-9d0a-1f2e3d4c5b6a";

fn settings(url: &str) -> Settings {
    Settings {
        servers: vec![Server::parse(url).expect("an address")],
        prefix: "/csi-gateway/v1/".to_owned(),
        trust: Trust::default(),
        user: None,
        host_ttl: TTL,
    }
}

/// The agent of the first made host, with one plugin.
struct Agent {
    mirror: Mirror,
    reader: Reader,
    allocations: Allocations,
    standing: watch::Receiver<FleetStanding>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Agent {
    fn start(etcd: &EtcdServer, clock: fn() -> Timestamp) -> Self {
        let (mirror, reader) = Mirror::new(Catalog::empty(Index(1)), Duration::from_secs(1));
        let (settings, stop) = (settings(&etcd.url()), CancellationToken::new());
        let (shipper, standing) = Shipper::new(Etcd::new(&settings), &settings, host(0), reader.clone(), None, 32);
        let allocations = Allocations::default();
        let shipper = shipper.with_clock(clock).with_allocations(allocations.clone());
        let agent =
            Self { mirror, reader, allocations, standing, stop: stop.clone(), task: tokio::spawn(shipper.run(stop)) };
        agent.put(healthy());
        agent.mirror.scanned();
        agent
    }

    fn put(&self, record: Record) {
        let current = self.reader.current();
        let changes = [RecordChange::Put(Box::new(record))];
        let (next, touched) = current.with(&changes, current.index().next(), Timestamp(0));
        self.mirror.publish(next, &touched, &changes, &[]);
    }

    /// Leaves its lease to run out, as a process does that is killed.
    async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("it ends");
    }
}

fn healthy() -> Record {
    let owner = Owner::allocation(ALLOCATION);
    Record { owner, ..record(0, 0, Role::Node, Timestamp(1)) }
}

fn sick() -> Record {
    Record { phase: Phase::Unhealthy, reason: Reason::plain("sick"), ..healthy() }
}

/// An aggregator.
struct Aggregator {
    handles: Handles,
    stop: CancellationToken,
}

impl Drop for Aggregator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Aggregator {
    fn start(etcd: &EtcdServer, clock: fn() -> Timestamp) -> Self {
        Self::following(&settings(&etcd.url()), clock)
    }

    fn following(settings: &Settings, clock: fn() -> Timestamp) -> Self {
        let stop = CancellationToken::new();
        let day = Duration::from_hours(24);
        let (follower, handles) = Follower::new(Etcd::new(settings), settings, day, Default::default());
        tokio::spawn(follower.with_clock(clock).run(stop.clone()));
        Self { handles, stop }
    }

    async fn is_current(&self) {
        until("it is current", async || match self.handles.reader.contact() {
            (true, _) => Ok(()),
            (false, millis) => Err(millis.to_string()),
        })
        .await;
    }

    fn phase(&self) -> Option<Phase> {
        self.handles.reader.current().record(&healthy().key).map(|record| record.phase)
    }

    async fn shows(&self, phase: Phase) {
        until("it is shown", async || match (self.phase(), self.handles.reader.contact()) {
            (Some(shown), (true, _)) if shown == phase => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// What it shows of allocations.
    fn stubs(&self) -> Vec<String> {
        let catalog = self.handles.reader.current();
        let Some(plugin) = catalog.plugin(plugin(0).as_str()) else { return Vec::new() };
        let shown = self.handles.allocations.of(plugin, "*");
        shown.iter().map(|one| String::from_utf8_lossy(&one.stub).into_owned()).collect()
    }

    async fn shows_stubs(&self, stubs: &[&str]) {
        until("allocations are shown", async || {
            let shown = self.stubs();
            if shown == stubs { Ok(()) } else { Err(format!("{shown:?}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_holds_several_fleets_and_an_empty_one_has_an_index_that_can_be_waited_for() {
    let Some(program) = program() else { return };
    let etcd = EtcdServer::start(&program, &[]).await;
    let agent = Agent::start(&etcd, Timestamp::now);
    let own = Aggregator::start(&etcd, Timestamp::now);
    // Not even one whose prefix begins like the other's.
    let others = Settings { prefix: "/csi-gateway/v1/other/".to_owned(), ..settings(&etcd.url()) };
    let other = Aggregator::following(&others, Timestamp::now);
    own.shows(Phase::Healthy).await;
    other.is_current().await;
    let catalog = other.handles.reader.current();
    assert_eq!((catalog.index(), catalog.nomad_index(), catalog.plugins().count()), (Index(1), Index(1), 0));
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_compaction_only_those_are_woken_whose_plugin_differs() {
    let Some(program) = program() else { return };
    let etcd = EtcdServer::start(&program, &[]).await;
    let wire = Proxy::to(etcd.address()).await;
    let agent = Agent::start(&etcd, Timestamp::now);
    agent.put(record(1, 0, Role::Node, Timestamp(1)));
    let behind = Aggregator::following(&settings(&wire.url()), Timestamp::now);
    let ahead = Aggregator::start(&etcd, Timestamp::now);
    for one in [&behind, &ahead] {
        one.shows(Phase::Healthy).await;
        let both = async || match one.handles.reader.current().counting_plugins("").count() {
            2 => Ok(()),
            count => Err(count.to_string()),
        };
        until("both plugins are shown", both).await;
    }
    wire.set(Wire::Cut);
    agent.put(sick());
    ahead.shows(Phase::Unhealthy).await;
    etcd.owner().put("/somebody/else", "").await.expect("etcd takes it");
    etcd.owner().compact().await;
    let waiting = [0, 1].map(|number| behind.handles.reader.waiting(Subject::Plugin(plugin(number).to_string())));
    let [differs, stays] = waiting.each_ref().map(|waiting| waiting.changed());
    wire.set(Wire::Whole);
    differs.await;
    behind.shows(Phase::Unhealthy).await;
    tokio::select! {
        biased;
        () = stays => panic!("its plugin is what it was"),
        () = std::future::ready(()) => {}
    }
    agent.end().await;
}

static AGENTS_CLOCK: AtomicI64 = AtomicI64::new(0);
static AGGREGATORS_CLOCK: AtomicI64 = AtomicI64::new(0);

fn agents_clock() -> Timestamp {
    Timestamp(Timestamp::now().0 + AGENTS_CLOCK.load(Ordering::SeqCst))
}

fn aggregators_clock() -> Timestamp {
    Timestamp(Timestamp::now().0 + AGGREGATORS_CLOCK.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_jump_by_an_hour_lose_no_host_keep_none_and_move_no_index() {
    let Some(program) = program() else { return };
    let etcd = EtcdServer::start(&program, &[]).await;
    let agent = Agent::start(&etcd, agents_clock);
    let aggregator = Aggregator::start(&etcd, aggregators_clock);
    aggregator.shows(Phase::Healthy).await;
    for (agents, aggregators) in [(HOUR, 0), (-HOUR, HOUR), (0, -HOUR)] {
        let revision = etcd.owner().revision().await;
        AGENTS_CLOCK.store(agents, Ordering::SeqCst);
        AGGREGATORS_CLOCK.store(aggregators, Ordering::SeqCst);
        // Longer than a lease: whoever measured by that clock would have given up, or not kept it.
        tokio::time::sleep(TTL).await;
        assert_eq!(etcd.owner().revision().await, revision, "a jump of a clock wrote something");
        assert_eq!((aggregator.phase(), aggregator.handles.reader.contact()), (Some(Phase::Healthy), (true, 0)));
        let before = aggregator.handles.reader.current().index();
        agent.put(sick());
        aggregator.shows(Phase::Unhealthy).await;
        agent.put(healthy());
        aggregator.shows(Phase::Healthy).await;
        let after = aggregator.handles.reader.current().index();
        assert!(after > before, "{before} {after}");
        // Whoever starts now has the same index.
        let newcomer = Aggregator::start(&etcd, Timestamp::now);
        newcomer.shows(Phase::Healthy).await;
        assert_eq!(newcomer.handles.reader.current().index(), after);
    }
    // An hour behind, a silent host is lost all the same, and since then by the clock of whoever says so.
    let silent = aggregators_clock();
    agent.end().await;
    aggregator.shows(Phase::Lost).await;
    let since = aggregator.handles.reader.current().record(&healthy().key).map(|record| record.since);
    assert!(since.is_some_and(|since| since >= silent && since <= aggregators_clock()), "{since:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_agents_with_one_host_id_the_later_one_counts_and_the_other_says_why_it_does_not() {
    let Some(program) = program() else { return };
    let etcd = EtcdServer::start(&program, &[]).await;
    let aggregator = Aggregator::start(&etcd, Timestamp::now);
    let first = Agent::start(&etcd, Timestamp::now);
    aggregator.shows(Phase::Healthy).await;
    let second = Agent::start(&etcd, Timestamp::now);
    second.put(sick());
    aggregator.shows(Phase::Unhealthy).await;
    until("the first one says what is wrong", async || {
        let standing = first.standing.borrow().clone();
        match standing.trouble {
            Some(trouble) if trouble.kind == "lease_lost" && trouble.text.contains("its own --host-id") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // They do not take turns.
    let revision = etcd.owner().revision().await;
    tokio::time::sleep(TTL + Duration::from_secs(1)).await;
    assert_eq!(etcd.owner().revision().await, revision);
    assert_eq!(aggregator.phase(), Some(Phase::Unhealthy));
    // And when the second one has gone, the first one is there.
    second.end().await;
    aggregator.shows(Phase::Healthy).await;
    until("nothing is wrong any more", async || {
        let standing = first.standing.borrow().clone();
        if standing.trouble.is_none() && standing.is_in_step { Ok(()) } else { Err(format!("{standing:?}")) }
    })
    .await;
    first.end().await;
}

fn allocation(modify_index: u64, stub: &str) -> Allocation {
    Allocation { id: ALLOCATION.into(), namespace: "default".into(), modify_index, stub: stub.as_bytes().into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_orchestrator_says_of_allocations_is_shown_by_aggregators_and_moves_no_index() {
    let Some(program) = program() else { return };
    let etcd = EtcdServer::start(&program, &[]).await;
    let aggregator = Aggregator::start(&etcd, Timestamp::now);
    let agent = Agent::start(&etcd, Timestamp::now);
    aggregator.shows(Phase::Healthy).await;
    let index = aggregator.handles.reader.current().index();
    agent.allocations.replace([allocation(7, r#"{"ID":"a","ClientStatus":"pending"}"#)]);
    aggregator.shows_stubs(&[r#"{"ID":"a","ClientStatus":"pending"}"#]).await;
    agent.allocations.replace([allocation(8, r#"{"ID":"a","ClientStatus":"running"}"#)]);
    let running = [r#"{"ID":"a","ClientStatus":"running"}"#];
    aggregator.shows_stubs(&running).await;
    assert_eq!(aggregator.handles.reader.current().index(), index);
    // The same once more is nothing new, and neither is an agent that has not asked anybody yet.
    let revision = etcd.owner().revision().await;
    agent.allocations.replace([allocation(8, running[0])]);
    agent.end().await;
    aggregator.shows(Phase::Lost).await;
    let agent = Agent::start(&etcd, Timestamp::now);
    aggregator.shows(Phase::Healthy).await;
    let newcomer = Aggregator::start(&etcd, Timestamp::now);
    newcomer.shows_stubs(&running).await;
    let stubs = etcd.owner().list("/csi-gateway/v1/stubs/").await;
    assert!(stubs.len() == 1 && stubs[0].mod_revision <= revision, "{stubs:?}");
    // What is no JSON object would spoil the body around it.
    agent.allocations.replace([allocation(9, "{\"ID\":")]);
    aggregator.shows_stubs(&[]).await;
    newcomer.shows_stubs(&[]).await;
    assert!(etcd.owner().list("/csi-gateway/v1/stubs/").await.is_empty());
    agent.end().await;
}

/// As `etcdutl snapshot restore --bump-revision` leaves it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_with_a_raised_revision_no_index_falls_though_nothing_differs() {
    let Some(program) = program() else { return };
    let mut etcd = EtcdServer::start(&program, &[]).await;
    let aggregator = Aggregator::start(&etcd, Timestamp::now);
    let agent = Agent::start(&etcd, Timestamp::now);
    aggregator.shows(Phase::Healthy).await;
    // Nobody is left who writes of his own accord.
    agent.end().await;
    aggregator.shows(Phase::Lost).await;
    let backup = etcd.owner().list("/csi-gateway/v1/").await;
    for _ in 0..50 {
        etcd.owner().put("/csi-gateway/v1/index", b"\x01{}".to_vec()).await.expect("etcd takes it");
    }
    etcd.owner().put("/csi-gateway/v1/nomad-index", b"\x01{}".to_vec()).await.expect("etcd takes it");
    etcd.owner()
        .put(&format!("/csi-gateway/v1/plugins/{}", plugin(0)), b"\x01{\"created\":1}".to_vec())
        .await
        .expect("etcd takes it");
    let told = |aggregator: &Aggregator| {
        let catalog = aggregator.handles.reader.current();
        let modified =
            catalog.plugin(plugin(0).as_str()).and_then(|plugin| plugin.dates).map(|dates| dates.modify_index);
        (catalog.index(), catalog.nomad_index(), modified.unwrap_or_default())
    };
    let revision = u64::try_from(etcd.owner().revision().await).expect("positive");
    until("all of it is shown", async || {
        let told = told(&aggregator);
        if told.2 == Index(revision) { Ok(()) } else { Err(format!("{told:?} at {revision}")) }
    })
    .await;
    let before = told(&aggregator);
    let reader = aggregator.handles.reader.clone();
    let watching = tokio::spawn(async move {
        let mut last = Index(0);
        while last <= before.0 {
            let now = reader.current().index();
            assert!(now >= last, "{now} after {last}");
            last = now;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    etcd.kill().await;
    etcd.wipe();
    // At another place first, where nobody looks at it half restored.
    let mut restored = EtcdServer::start(&program, &[]).await;
    for pair in backup {
        let key = String::from_utf8(pair.key).expect("text");
        restored.owner().put(&key, pair.value).await.expect("etcd takes it");
    }
    for _ in 0..200 {
        restored.owner().put("/somebody/else", "").await.expect("etcd takes it");
    }
    restored.kill().await;
    etcd.take_data_of(&restored);
    etcd.resume().await;
    etcd.until_ready().await;
    aggregator.shows(Phase::Lost).await;
    watching.await.expect("no index fell");
    let after = told(&aggregator);
    assert!(after.0 > before.0 && after.1 > before.1 && after.2 > before.2, "{before:?} {after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_keeps_under_the_prefix_disturbs_nobody_however_large_it_is() {
    let Some(program) = program() else { return };
    let etcd = EtcdServer::start(&program, &[]).await;
    let owner = etcd.owner();
    let (junk, small) = (vec![b'{'; 1_400_000], b"\x01{}".to_vec());
    // More in one page than an answer may have, at places where something of ours could be.
    for number in 0..20 {
        let key = format!("/csi-gateway/v1/instances/{}/node/junk-{number}", host(0));
        owner.put(&key, junk.clone()).await.expect("etcd takes it");
    }
    let odd = ["hosts/a/alive", "hosts/a/state", "plugins/p", "expected/p", "instances/a/node/p", "history/a/x/node/p"];
    for (rest, value) in odd.into_iter().flat_map(|rest| [(rest, &junk), (rest, &small)]) {
        owner.put(&format!("/csi-gateway/v1/{rest}"), value.clone()).await.expect("etcd takes it");
    }
    for rest in ["", "/", "later/thing", "instances/..//node/p", "stubs/a/no-uuid", "hosts/\u{1}/state"] {
        owner.put(&format!("/csi-gateway/v1/{rest}"), small.clone()).await.expect("etcd takes it");
    }
    owner.put(&format!("/csi-gateway/v1/stubs/{}/{ALLOCATION}", host(0)), junk.clone()).await.expect("etcd takes it");
    let early = Aggregator::start(&etcd, Timestamp::now);
    let agent = Agent::start(&etcd, Timestamp::now);
    early.shows(Phase::Healthy).await;
    let late = Aggregator::start(&etcd, Timestamp::now);
    late.shows(Phase::Healthy).await;
    // While they follow, too.
    for number in 0..20 {
        let key = format!("/csi-gateway/v1/history/{}/{number:020}.00/node/junk", host(0));
        owner.put(&key, junk.clone()).await.expect("etcd takes it");
    }
    agent.put(sick());
    for one in [&early, &late, &Aggregator::start(&etcd, Timestamp::now)] {
        one.shows(Phase::Unhealthy).await;
        let shown: Vec<Record> = one.handles.reader.current().records().cloned().collect();
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert!(one.stubs().is_empty());
    }
    agent.end().await;
}
