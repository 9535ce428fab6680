//! A made fleet: records of hosts that do not exist, fed to the real gateway.
//!
//! What many hosts mean for reads, waiters and memory can be tried long before a fleet exists. Every plugin is on every
//! host; its first host runs a controller, too.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Fleet;
use crate::domain::capability::{ControllerCapability, NodeCapability, PluginService};
use crate::domain::catalog::RecordChange;
use crate::domain::code::Code;
use crate::domain::fingerprint::{Fingerprint, NodeFacts, Product};
use crate::domain::id::{HostId, InstanceKey, PluginId, Role};
use crate::domain::record::{Owner, Phase, Reason, Record};
use crate::domain::time::Timestamp;
use crate::domain::topology::{Pairs, Topology};
use crate::registry::reporter::Report;

/// Records in one batch: enough to be quick, few enough to leave readers their turn.
const BATCH: usize = 1000;

/// The id of a made plugin.
///
/// # Panics
/// Never: the text is a legal id.
#[must_use]
pub fn plugin(number: u32) -> PluginId {
    PluginId::parse(&format!("demo-{number:04}")).expect("a legal plugin id")
}

/// The id of a made host.
///
/// # Panics
/// Never: the text is a legal id.
#[must_use]
pub fn host(number: u32) -> HostId {
    HostId::parse(&format!("host-{number:06}")).expect("a legal host id")
}

/// The record of a made instance, healthy at `now`.
#[must_use]
pub fn record(number: u32, on: u32, role: Role, now: Timestamp) -> Record {
    let product = Product {
        provider: format!("demo-{number:04}.csi.example.com").into(),
        version: "1.0.0".into(),
        manifest: Pairs::default(),
        services: [PluginService::Controller, PluginService::VolumeAccessibilityConstraints].into_iter().collect(),
        expansion: [].into_iter().collect(),
        controller: (role == Role::Controller).then(|| {
            [ControllerCapability::CreateDeleteVolume, ControllerCapability::PublishUnpublishVolume]
                .into_iter()
                .collect()
        }),
        node: (role == Role::Node).then(|| [NodeCapability::StageUnstageVolume].into_iter().collect()),
        group: None,
    };
    let facts = || NodeFacts {
        id: format!("node-{on:06}").into(),
        max_volumes: 128,
        topology: Some(Topology {
            segments: Some([("topology.example.com/zone", format!("z{}", on % 3))].into_iter().collect()),
        }),
    };
    Record {
        key: InstanceKey { plugin: plugin(number), role, host: host(on) },
        phase: Phase::Healthy,
        reason: Reason::plain("healthy"),
        since: now,
        update_time: now,
        was_healthy: true,
        has_answered: true,
        fingerprint: Some(Fingerprint {
            product: Arc::new(product),
            node: (role == Role::Node).then(|| Box::new(facts())),
            warnings: Box::default(),
        }),
        owner: Owner::default(),
        socket: format!("/var/lib/kubelet/plugins/demo-{number:04}/csi.sock").into(),
        is_configured: false,
        registration: None,
    }
}

/// Every record of a fleet, plugin by plugin.
pub fn records(fleet: Fleet, now: Timestamp) -> impl Iterator<Item = Record> {
    (0..fleet.plugins).flat_map(move |number| {
        let controller = std::iter::once((0, Role::Controller));
        let nodes = (0..fleet.hosts).map(|on| (on, Role::Node));
        controller.chain(nodes).map(move |(on, role)| record(number, on, role, now))
    })
}

/// Feeds a fleet, then changes the health of one instance each `flap` until `stop`.
pub async fn feed(fleet: Fleet, reports: mpsc::Sender<Report>, stop: CancellationToken) {
    let now = Timestamp::now();
    let mut records = records(fleet, now).map(|record| aged(record, fleet)).peekable();
    while records.peek().is_some() {
        let batch = records.by_ref().take(BATCH).map(|record| RecordChange::Put(Box::new(record))).collect();
        if reports.send(Report::Feed(batch)).await.is_err() {
            return;
        }
        // A batch at a time: a queue of a thousand batches would be a second fleet in memory.
        while reports.capacity() < reports.max_capacity() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    if reports.send(Report::Scanned).await.is_err() {
        return;
    }
    let Some(interval) = fleet.flap else {
        // Whoever is the last to report ends the store by going.
        stop.cancelled().await;
        return;
    };
    let mut is_healthy = true;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval.max(Duration::from_millis(1))) => {}
        }
        is_healthy = !is_healthy;
        if reports.send(Report::Feed(vec![RecordChange::Put(Box::new(flapped(is_healthy)))])).await.is_err() {
            return;
        }
    }
}

/// One plugin is being upgraded: its last host still runs the version before.
fn aged(mut record: Record, fleet: Fleet) -> Record {
    let is_last = fleet.hosts > 1 && record.key.host == host(fleet.hosts - 1);
    if is_last
        && record.key.plugin == plugin(1)
        && let Some(fingerprint) = &mut record.fingerprint
    {
        Arc::make_mut(&mut fingerprint.product).version = "0.9.0".into();
    }
    record
}

/// The one instance that changes.
fn flapped(is_healthy: bool) -> Record {
    let now = Timestamp::now();
    let mut record = record(0, 0, Role::Node, now);
    if !is_healthy {
        record.phase = Phase::Unhealthy;
        record.reason = Reason {
            description: "failed fingerprinting with error: rpc error: code = Unavailable desc = made for the demo"
                .into(),
            code: Some(Code::Unavailable),
            text: "made for the demo".into(),
        };
    }
    record
}
