//! Catalogs made from records, and an API that serves them: the store, the publisher and the drivers are played by
//! the test.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use csi_gateway::acl::Access;
use csi_gateway::api::{self, BoxError, History, Settings};
use csi_gateway::domain::allocation::Allocation;
use csi_gateway::domain::capability::{
    CapabilitySet, ControllerCapability, GroupCapability, NodeCapability, PluginService, VolumeExpansion,
};
use csi_gateway::domain::catalog::{Catalog, RecordChange};
use csi_gateway::domain::code::Code;
use csi_gateway::domain::fingerprint::{Fingerprint, NodeFacts, Product};
use csi_gateway::domain::history::Transition;
use csi_gateway::domain::id::{HostId, InstanceKey, PluginId, Role};
use csi_gateway::domain::record::{Owner, Phase, Reason, Record};
use csi_gateway::domain::time::{Index, Timestamp};
use csi_gateway::domain::topology::Topology;
use csi_gateway::registry::allocations::Allocations;
use csi_gateway::registry::changes::{Changes, Step};
use csi_gateway::registry::reader::{Durability, Reader, Standing, Waiters};
use csi_gateway::registry::sockets::Sockets;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// 2026-01-02T03:04:05.12Z.
pub const SOME_TIME: Timestamp = Timestamp(1_767_323_045_120_000_000);

pub fn plugin_id(text: &str) -> PluginId {
    PluginId::parse(text).expect("a legal plugin id")
}

/// A healthy instance of a driver that can do a bit of everything.
pub fn instance(plugin: &str, role: Role, host: &str) -> Record {
    let product = Product {
        provider: format!("{}.csi.example.com", plugin.trim_end_matches("-2")).into(),
        version: "1.2.3".into(),
        manifest: [("build", "7")].into_iter().collect(),
        services: CapabilitySet::new(
            [PluginService::VolumeAccessibilityConstraints]
                .into_iter()
                .chain((plugin != "nfs").then_some(PluginService::Controller)),
            [],
        ),
        expansion: [VolumeExpansion::Online].into_iter().collect(),
        controller: (role == Role::Controller).then(|| {
            CapabilitySet::new(
                [
                    ControllerCapability::CreateDeleteVolume,
                    ControllerCapability::PublishUnpublishVolume,
                    ControllerCapability::ListVolumes,
                    ControllerCapability::ModifyVolume,
                ],
                [99],
            )
        }),
        node: (role == Role::Node)
            .then(|| [NodeCapability::StageUnstageVolume, NodeCapability::VolumeMountGroup].into_iter().collect()),
        group: (role == Role::Controller)
            .then(|| [GroupCapability::CreateDeleteGetVolumeGroupSnapshot].into_iter().collect()),
    };
    let node = (role == Role::Node).then(|| {
        Box::new(NodeFacts {
            id: format!("csi-{host}").into(),
            max_volumes: i64::MAX,
            topology: Some(Topology { segments: Some([("topology.example.com/zone", "z1")].into_iter().collect()) }),
        })
    });
    Record {
        key: InstanceKey { plugin: plugin_id(plugin), role, host: HostId::parse(host).expect("a legal host id") },
        phase: Phase::Healthy,
        reason: Reason::plain("healthy"),
        since: SOME_TIME,
        update_time: SOME_TIME,
        was_healthy: true,
        has_answered: true,
        fingerprint: Some(Fingerprint { product: Arc::new(product), node, warnings: Box::default() }),
        owner: Owner::allocation("0f6a3c9e-1111-2222-3333-444455556666"),
        socket: format!("/run/csi/{plugin}.sock").into(),
        is_configured: true,
        registration: None,
    }
}

/// An allocation, with as much of a stub as tells it from others.
pub fn allocation(id: &str, namespace: &str, modify_index: u64) -> Allocation {
    let stub = format!(r#"{{"ID":"{id}","ModifyIndex":{modify_index},"Namespace":"{namespace}"}}"#);
    Allocation { id: id.into(), namespace: namespace.into(), modify_index, stub: stub.into_bytes().into() }
}

pub fn node(plugin: &str, host: &str) -> Record {
    instance(plugin, Role::Node, host)
}

pub fn controller(plugin: &str, host: &str) -> Record {
    instance(plugin, Role::Controller, host)
}

/// The same instance, ill.
pub fn unhealthy(record: Record) -> Record {
    Record {
        phase: Phase::Unhealthy,
        reason: Reason {
            description: "rpc error: code = DeadlineExceeded desc = context deadline exceeded".into(),
            code: Some(Code::DeadlineExceeded),
            text: "the driver did not answer within 3 s".into(),
        },
        ..record
    }
}

pub fn put(record: Record) -> RecordChange {
    RecordChange::Put(Box::new(record))
}

/// Transitions as the test says.
#[derive(Default)]
pub struct Told(pub Mutex<Vec<Transition>>);

impl History for Told {
    #[expect(clippy::panic, reason = "what a handler does when it panics is a test's subject")]
    fn history(
        &self,
        plugin: Option<PluginId>,
        limit: usize,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<Transition>, BoxError>> + Send + '_>> {
        Box::pin(async move {
            // Two ways in which a part behind a handle can fail.
            match plugin.as_ref().map(PluginId::as_str) {
                Some("panics") => panic!("the test told it to"),
                Some("fails") => return Err("the disk is on fire".into()),
                _ => {}
            }
            let told = self.0.lock().expect("nobody panics while holding it");
            let asked = |transition: &&Transition| plugin.as_ref().is_none_or(|id| *id == transition.key.plugin);
            Ok(told.iter().filter(asked).take(limit).cloned().collect())
        })
    }
}

/// An API, and all that stands behind it.
pub struct Fixture {
    pub api: api::Api,
    pub changes: Arc<Changes>,
    pub waiters: Arc<Waiters>,
    pub sockets: Sockets,
    pub allocations: Allocations,
    pub history: Arc<Told>,
    pub shutdown: CancellationToken,
    pub standing: watch::Sender<Standing>,
    catalog: watch::Sender<Arc<Catalog>>,
}

impl Fixture {
    /// Nothing known yet, everything scanned.
    pub fn empty(settings: Settings) -> Self {
        Self::guarded(settings, None)
    }

    /// The same for those who may.
    pub fn guarded(settings: Settings, access: Option<Access>) -> Self {
        let (catalog, catalogs) = watch::channel(Arc::new(Catalog::default()));
        let (standing, standings) =
            watch::channel(Standing { is_scanned: true, started: Instant::now(), durability: Durability::Memory });
        let waiters = Arc::new(Waiters::default());
        let history = Arc::new(Told::default());
        let (sockets, shutdown) = (Sockets::of(HostId::parse("host-one").expect("legal")), CancellationToken::new());
        let changes = Arc::new(Changes::after(Index(0)));
        let reader = Reader::new(catalogs, standings, Arc::clone(&waiters), Arc::clone(&changes));
        let handle: Arc<dyn History> = Arc::clone(&history) as _;
        let allocations = Allocations::default();
        let state = api::State::new(reader, handle, sockets.clone(), settings, shutdown.clone());
        let mut state = state.with_allocations(allocations.clone());
        if let Some(access) = access {
            state = state.with_access(access);
        }
        Self { api: api::Api::new(state), changes, waiters, sockets, allocations, history, shutdown, standing, catalog }
    }

    /// The fixture of `nomad-http.md` section 23, without allocations; its index is 103.
    pub fn conformance() -> Self {
        Self::conformance_with(Settings::default())
    }

    pub fn conformance_with(settings: Settings) -> Self {
        Self::conformance_for(settings, None)
    }

    /// The same for those who may.
    pub fn conformance_for(settings: Settings, access: Option<Access>) -> Self {
        let fixture = Self::guarded(settings, access);
        fixture.apply_at(101, [node("nfs", "host-0001"), node("nfs", "host-0002")].map(put));
        fixture.apply_at(
            102,
            [
                controller("ebs-prod", "host-0001"),
                unhealthy(controller("ebs-prod", "host-0002")),
                node("ebs-prod", "host-0001"),
                node("ebs-prod", "host-0002"),
                node("ebs-prod", "host-0003"),
            ]
            .map(put),
        );
        fixture.apply_at(103, [put(node("ebs-prod-2", "host-0001"))]);
        fixture
    }

    /// The allocations of the conformance fixture's `ebs-prod`: two in `default`, one in `apps`.
    pub fn with_allocations(self) -> Self {
        let of = |host: &str, alloc: &str| Record { owner: Owner::allocation(alloc), ..node("ebs-prod", host) };
        self.apply_at(104, [of("host-0001", "a1"), of("host-0002", "a2"), of("host-0003", "a3")].map(put));
        self.allocations.replace([
            allocation("a1", "default", 40),
            allocation("a2", "default", 60),
            allocation("a3", "apps", 50),
            allocation("a4", "default", 70),
        ]);
        self
    }

    /// Publishes a batch, as the publisher does: visible first, then the waiters.
    pub fn apply_at(&self, index: u64, changes: impl IntoIterator<Item = RecordChange>) {
        self.apply_dated(index, SOME_TIME, changes);
    }

    /// The same with transitions, which get the index.
    pub fn apply_told(
        &self,
        index: u64,
        changes: impl IntoIterator<Item = RecordChange>,
        transitions: impl IntoIterator<Item = Transition>,
    ) {
        self.step(index, SOME_TIME, changes, transitions);
    }

    /// The same at another time.
    pub fn apply_dated(&self, index: u64, now: Timestamp, changes: impl IntoIterator<Item = RecordChange>) {
        self.step(index, now, changes, []);
    }

    fn step(
        &self,
        index: u64,
        now: Timestamp,
        changes: impl IntoIterator<Item = RecordChange>,
        transitions: impl IntoIterator<Item = Transition>,
    ) {
        let changes: Vec<RecordChange> = changes.into_iter().collect();
        let current = Arc::clone(&self.catalog.borrow());
        let (next, touched) = current.with(&changes, Index(index), now);
        let transitions = transitions.into_iter().map(|one| Transition { index: Index(index), ..one });
        let transitions: Vec<Transition> = transitions.collect();
        let step = Step::between(&current, &next, &touched, &changes, &transitions);
        self.catalog.send_replace(Arc::new(next));
        self.changes.push(Index(index), step);
        self.waiters.wake(&touched);
    }

    /// Publishes a batch at the next index.
    pub fn apply(&self, changes: impl IntoIterator<Item = RecordChange>) -> u64 {
        let next = self.catalog.borrow().index().next();
        self.apply_at(next.0, changes);
        next.0
    }
}
