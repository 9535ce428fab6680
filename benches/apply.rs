//! Instructions to apply one record, among few and among many instances.
//!
//! Counted, not timed (callgrind through gungraun), since two shared cores make no steady clock. `scripts/bench-ratio`
//! runs this and fails where a case among 100,000 costs more than 1.5 times the one among 1,000.

// The macros of gungraun write items that cannot carry a doc comment.
#![allow(missing_docs, unreachable_pub, reason = "written by gungraun's macros")]

use std::hint::black_box;
use std::sync::Arc;

use csi_gateway::domain::capability::{ControllerCapability, NodeCapability, PluginService};
use csi_gateway::domain::catalog::{Catalog, RecordChange, Touched};
use csi_gateway::domain::fingerprint::{Fingerprint, NodeFacts, Product};
use csi_gateway::domain::id::{HostId, InstanceKey, PluginId, Role};
use csi_gateway::domain::record::{Owner, Phase, Reason, Record};
use csi_gateway::domain::time::{Index, Timestamp};
use csi_gateway::domain::topology::{Pairs, Topology};
use gungraun::prelude::*;

/// A node instance as a driver with topology leaves it.
fn record(plugin: usize, host: usize, phase: Phase) -> Record {
    let product = Product {
        provider: "made.csi.example".into(),
        version: "1.2.3".into(),
        manifest: Pairs::default(),
        services: [PluginService::Controller, PluginService::VolumeAccessibilityConstraints].into_iter().collect(),
        expansion: [].into_iter().collect(),
        controller: Some([ControllerCapability::CreateDeleteVolume].into_iter().collect()),
        node: Some([NodeCapability::StageUnstageVolume, NodeCapability::GetVolumeStats].into_iter().collect()),
        group: None,
    };
    let segments = [("topology.example/host", format!("host-{host:06}"))].into_iter().collect();
    Record {
        key: InstanceKey {
            plugin: PluginId::parse(&format!("made-{plugin:06}")).expect("legal"),
            role: Role::Node,
            host: HostId::parse(&format!("host-{host:06}")).expect("legal"),
        },
        phase,
        reason: Reason::plain(if phase.is_healthy() { "healthy" } else { "the driver did not answer" }),
        since: Timestamp(1),
        update_time: Timestamp(1),
        was_healthy: true,
        has_answered: true,
        fingerprint: Some(Fingerprint {
            product: Arc::new(product),
            node: Some(Box::new(NodeFacts {
                id: format!("node-{host:06}").into(),
                max_volumes: 64,
                topology: Some(Topology { segments: Some(segments) }),
            })),
            warnings: Box::default(),
        }),
        owner: Owner::default(),
        socket: "/run/made/csi.sock".into(),
        is_configured: true,
        registration: None,
    }
}

/// A catalog of `plugins` on `hosts` each, and one instance in its middle that turns unhealthy.
///
/// It has seen changes before: malloc sorts at the next requests what loading has freed, and that is loading's cost.
fn fleet(plugins: usize, hosts: usize) -> (Catalog, [RecordChange; 1]) {
    let change = |at: usize, phase| [RecordChange::Put(Box::new(record(at % plugins, at / plugins % hosts, phase)))];
    let records =
        (0..plugins).flat_map(|plugin| (0..hosts).map(move |host| record(plugin, host, Phase::Healthy))).collect();
    let mut catalog = Catalog::load(Index(1), records, []);
    for at in 0..100 {
        for phase in [Phase::Unhealthy, Phase::Healthy] {
            catalog = catalog.with(&change(at, phase), Index(1), Timestamp(1)).0;
        }
    }
    (catalog, change(plugins * hosts / 2, Phase::Unhealthy))
}

// The old catalog is dropped inside: whoever publishes pays for that too.
#[library_benchmark]
#[bench::among_10(args = (1, 10), setup = fleet)]
#[bench::among_1_000(args = (10, 100), setup = fleet)]
#[bench::among_100_000(args = (1_000, 100), setup = fleet)]
#[bench::among_100_000_of_few_plugins(args = (10, 10_000), setup = fleet)]
fn apply((catalog, change): (Catalog, [RecordChange; 1])) -> (Catalog, Vec<Touched>) {
    black_box(black_box(catalog).with(black_box(&change), Index(2), Timestamp(2)))
}

library_benchmark_group!(name = one_record, benchmarks = apply);
main!(library_benchmark_groups = one_record);
