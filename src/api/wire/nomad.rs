//! The shapes of Nomad's servers (`nomad-http.md` sections 12 and 13): keys in byte order, all of them always there.
//!
//! `ControllersRequired` in the read body is the one key that Nomad does not send: its public page spells the key so,
//! and its clients ignore it. Allocations and jobs belong to an orchestrator; without one they are empty. A job's number is
//! that of the hosts that are seen here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::json::{append, time};
use crate::domain::allocation::Allocation;
use crate::domain::capability::{Capability, CapabilitySet, ControllerCapability, NodeCapability};
use crate::domain::id::Role;
use crate::domain::plugin::{Instance, Plugin};
use crate::domain::record::Record;
use crate::domain::time::Index;
use crate::domain::topology::{Pairs, Topology};

/// One element of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_docs, reason = "Nomad's keys, described in nomad-http.md section 12")]
pub struct ListStub<'a> {
    pub controller_required: bool,
    pub controllers_expected: i64,
    pub controllers_healthy: i64,
    pub create_index: u64,
    #[serde(rename = "ID")]
    pub id: Cow<'a, str>,
    pub modify_index: u64,
    pub nodes_expected: i64,
    pub nodes_healthy: i64,
    pub provider: Cow<'a, str>,
}

impl<'a> From<&'a Plugin> for ListStub<'a> {
    fn from(plugin: &'a Plugin) -> Self {
        Self {
            controller_required: plugin.requires_controller(),
            controllers_expected: plugin.expected(Role::Controller).into(),
            controllers_healthy: plugin.count(Role::Controller).healthy.into(),
            create_index: plugin.dates.map_or(0, |dates| dates.create_index.0),
            id: plugin.id.as_str().into(),
            modify_index: plugin.dates.map_or(0, |dates| dates.modify_index.0),
            nodes_expected: plugin.expected(Role::Node).into(),
            nodes_healthy: plugin.count(Role::Node).healthy.into(),
            provider: plugin.provider().into(),
        }
    }
}

/// The read body as a client takes it in; keys that are missing or unknown do no harm. The server writes the same keys
/// with `read_body`, from fragments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_docs, reason = "Nomad's keys, described in nomad-http.md section 13")]
pub struct ReadPlugin {
    pub controller_required: bool,
    pub controllers: BTreeMap<String, InstanceRecord<'static>>,
    pub controllers_expected: i64,
    pub controllers_healthy: i64,
    pub create_index: u64,
    pub create_time: i64,
    #[serde(rename = "ID")]
    pub id: String,
    pub modify_index: u64,
    pub modify_time: i64,
    pub nodes: BTreeMap<String, InstanceRecord<'static>>,
    pub nodes_expected: i64,
    pub nodes_healthy: i64,
    pub provider: String,
    pub version: String,
}

/// What is known of one instance: a value of `Controllers` or `Nodes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_docs, reason = "Nomad's keys, described in nomad-http.md section 13")]
pub struct InstanceRecord<'a> {
    #[serde(rename = "AllocID")]
    pub alloc_id: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_info: Option<ControllerInfo>,
    pub health_description: Cow<'a, str>,
    pub healthy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_info: Option<NodeInfo<'a>>,
    #[serde(rename = "PluginID")]
    pub plugin_id: Cow<'a, str>,
    pub provider: Cow<'a, str>,
    pub provider_version: Cow<'a, str>,
    pub requires_controller_plugin: bool,
    pub requires_topologies: bool,
    pub update_time: Option<String>,
}

/// What a controller can do, as far as Nomad tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_docs, reason = "Nomad's keys, described in fingerprinting.md 2.1")]
#[expect(clippy::struct_excessive_bools, reason = "twelve flags are what Nomad sends")]
pub struct ControllerInfo {
    pub supports_attach_detach: bool,
    pub supports_clone: bool,
    pub supports_condition: bool,
    pub supports_create_delete: bool,
    pub supports_create_delete_snapshot: bool,
    pub supports_expand: bool,
    pub supports_get: bool,
    pub supports_get_capacity: bool,
    pub supports_list_snapshots: bool,
    pub supports_list_volumes: bool,
    pub supports_list_volumes_attached_nodes: bool,
    pub supports_read_only_attach: bool,
}

/// What a node is and can do, as far as Nomad tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_docs, reason = "Nomad's keys, described in fingerprinting.md section 3")]
pub struct NodeInfo<'a> {
    pub accessible_topology: Option<AccessibleTopology<'a>>,
    #[serde(rename = "ID")]
    pub id: Cow<'a, str>,
    pub max_volumes: i64,
    pub requires_node_stage_volume: bool,
    pub supports_condition: bool,
    pub supports_expand: bool,
    pub supports_stats: bool,
}

/// Where a node is; its driver may have sent a topology without segments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_docs, reason = "one key, described in fingerprinting.md section 3")]
pub struct AccessibleTopology<'a> {
    pub segments: Option<Cow<'a, Pairs>>,
}

impl<'a> From<&'a Topology> for AccessibleTopology<'a> {
    fn from(topology: &'a Topology) -> Self {
        Self { segments: topology.segments.as_ref().map(Cow::Borrowed) }
    }
}

/// Whether a service says so; one that does not answer says nothing.
pub(in crate::api) fn says<C: Capability>(set: Option<&CapabilitySet<C>>, capability: C) -> bool {
    set.is_some_and(|set| set.has(capability))
}

impl From<&Record> for ControllerInfo {
    fn from(record: &Record) -> Self {
        let set = record.fingerprint.as_ref().and_then(|fingerprint| fingerprint.product.controller.as_ref());
        let says = |capability| says(set, capability);
        Self {
            supports_attach_detach: says(ControllerCapability::PublishUnpublishVolume),
            supports_clone: says(ControllerCapability::CloneVolume),
            supports_condition: says(ControllerCapability::VolumeCondition),
            supports_create_delete: says(ControllerCapability::CreateDeleteVolume),
            supports_create_delete_snapshot: says(ControllerCapability::CreateDeleteSnapshot),
            supports_expand: says(ControllerCapability::ExpandVolume),
            supports_get: says(ControllerCapability::GetVolume),
            supports_get_capacity: says(ControllerCapability::GetCapacity),
            supports_list_snapshots: says(ControllerCapability::ListSnapshots),
            supports_list_volumes: says(ControllerCapability::ListVolumes),
            supports_list_volumes_attached_nodes: says(ControllerCapability::ListVolumesPublishedNodes),
            supports_read_only_attach: says(ControllerCapability::PublishReadonly),
        }
    }
}

impl<'a> From<&'a Record> for NodeInfo<'a> {
    fn from(record: &'a Record) -> Self {
        let fingerprint = record.fingerprint.as_ref();
        let set = fingerprint.and_then(|fingerprint| fingerprint.product.node.as_ref());
        let facts = fingerprint.and_then(|fingerprint| fingerprint.node.as_deref());
        let says = |capability| says(set, capability);
        Self {
            accessible_topology: facts.and_then(|facts| facts.topology.as_ref()).map(Into::into),
            id: facts.map_or("", |facts| &facts.id).into(),
            max_volumes: facts.map_or(0, |facts| facts.max_volumes),
            requires_node_stage_volume: says(NodeCapability::StageUnstageVolume),
            supports_condition: says(NodeCapability::VolumeCondition),
            supports_expand: says(NodeCapability::ExpandVolume),
            supports_stats: says(NodeCapability::GetVolumeStats),
        }
    }
}

impl<'a> From<&'a Record> for InstanceRecord<'a> {
    fn from(record: &'a Record) -> Self {
        let product = record.fingerprint.as_ref().map(|fingerprint| &*fingerprint.product);
        Self {
            alloc_id: (&*record.owner.alloc_id).into(),
            // Always an object on its own side: Nomad's command line dereferences it unseen.
            controller_info: (record.key.role == Role::Controller).then(|| record.into()),
            health_description: (&*record.reason.description).into(),
            healthy: record.phase.is_healthy(),
            node_info: (record.key.role == Role::Node).then(|| record.into()),
            plugin_id: record.key.plugin.as_str().into(),
            provider: product.map_or("", |product| &product.provider).into(),
            provider_version: product.map_or("", |product| &product.version).into(),
            requires_controller_plugin: product.is_some_and(|product| product.requires_controller()),
            requires_topologies: product.is_some_and(|product| product.requires_topologies()),
            update_time: time(record.update_time),
        }
    }
}

/// The list body: every stub as it was rendered once.
pub(in crate::api) fn list_body<'a>(plugins: impl Iterator<Item = &'a Plugin>) -> Vec<u8> {
    let mut out = vec![b'['];
    for (position, plugin) in plugins.enumerate() {
        if position > 0 {
            out.push(b',');
        }
        out.extend_from_slice(plugin.stub(|plugin| super::json::compact(&ListStub::from(plugin)).into()));
    }
    out.push(b']');
    out
}

/// Keys between `Allocations` and `Controllers`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Head<'a> {
    controller_jobs: JobMap<'a>,
    controller_required: bool,
}

/// Jobs by namespace and id.
type JobMap<'a> = BTreeMap<&'a str, BTreeMap<&'a str, JobDescription<'a>>>;

/// How many instances a job wants to run.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct JobDescription<'a> {
    expected: u32,
    #[serde(rename = "ID")]
    id: &'a str,
    namespace: &'a str,
}

fn jobs(plugin: &Plugin, role: Role) -> JobMap<'_> {
    let mut map = JobMap::new();
    for (job, expected) in plugin.jobs(role).iter() {
        let described = JobDescription { expected, id: &job.id, namespace: &job.namespace };
        map.entry(&job.namespace).or_default().insert(&job.id, described);
    }
    map
}

/// Keys between `Controllers` and `Nodes`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Middle<'a> {
    controllers_expected: u32,
    controllers_healthy: u32,
    controllers_required: bool,
    create_index: u64,
    create_time: i64,
    #[serde(rename = "ID")]
    id: &'a str,
    modify_index: u64,
    // Set at creation and never again, as Nomad does it.
    modify_time: i64,
    node_jobs: JobMap<'a>,
}

/// Keys after `Nodes`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tail<'a> {
    nodes_expected: u32,
    nodes_healthy: u32,
    provider: &'a str,
    version: &'a str,
}

/// One line of the event stream: all events of an index (`nomad-http.md` section 20).
pub(in crate::api) struct EventLine {
    out: Vec<u8>,
    index: u64,
    is_empty: bool,
}

/// Keys of an event before its payload.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EventHead<'a> {
    filter_keys: [&'a str; 1],
    index: u64,
    key: &'a str,
    // Plugins belong to none.
    namespace: &'static str,
}

/// Keys after it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EventTail<'a> {
    topic: &'static str,
    #[serde(rename = "Type")]
    kind: &'a str,
}

impl EventLine {
    pub(in crate::api) fn new(index: Index) -> Self {
        Self { out: b"{\"Events\":[".to_vec(), index: index.0, is_empty: true }
    }

    /// Adds an event with a plugin's read body.
    pub(in crate::api) fn push(&mut self, id: &str, kind: &str, body: &[u8]) {
        if !std::mem::replace(&mut self.is_empty, false) {
            self.out.push(b',');
        }
        append(&mut self.out, &EventHead { filter_keys: [id], index: self.index, key: id, namespace: "" });
        reopen(&mut self.out);
        self.out.extend_from_slice(b"\"Payload\":{\"Plugin\":");
        self.out.extend_from_slice(body);
        self.out.extend_from_slice(b"}}");
        append_fields(&mut self.out, &EventTail { topic: "CSIPlugin", kind });
    }

    /// The line with its end; `None` without events.
    pub(in crate::api) fn finish(mut self) -> Option<Vec<u8>> {
        if self.is_empty {
            return None;
        }
        self.out.extend_from_slice(b"],\"Index\":");
        append(&mut self.out, &self.index);
        self.out.extend_from_slice(b"}\n");
        Some(self.out)
    }
}

/// What a read body begins with where no allocation is shown.
pub(in crate::api) const NO_ALLOCATIONS: &[u8] = b"{\"Allocations\":null";

/// What it begins with for a reader who is shown these.
pub(in crate::api) fn allocations(shown: &[Arc<Allocation>]) -> Vec<u8> {
    let mut out = b"{\"Allocations\":[".to_vec();
    for (position, allocation) in shown.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&allocation.stub);
    }
    out.push(b']');
    out
}

/// The read body: the instances as each was rendered once, between what belongs to the plugin.
pub(in crate::api) fn read_body(plugin: &Plugin) -> Vec<u8> {
    let dates = plugin.dates;
    let create_time = dates.map_or(0, |dates| dates.create_time.0);
    let (controllers, nodes) = (plugin.count(Role::Controller), plugin.count(Role::Node));
    // No larger than it has to be: an allocator keeps a large body's place for the next one of its size, and whoever asks for
    // more than it then gives back has every page mapped anew with each change. Each instance has quotes, a colon and a comma.
    let instances = [Role::Controller, Role::Node].into_iter().flat_map(|role| plugin.counting(role));
    let size = instances.map(|instance| instance.record.key.host.as_str().len() + rendered(instance).len() + 4);
    let mut out = Vec::with_capacity(1024 + size.sum::<usize>());
    out.extend_from_slice(NO_ALLOCATIONS);
    out.push(b'}');
    append_fields(
        &mut out,
        &Head { controller_jobs: jobs(plugin, Role::Controller), controller_required: plugin.requires_controller() },
    );
    append_instances(&mut out, "Controllers", plugin, Role::Controller);
    append_fields(
        &mut out,
        &Middle {
            controllers_expected: plugin.expected(Role::Controller),
            controllers_healthy: controllers.healthy,
            controllers_required: plugin.requires_controller(),
            create_index: dates.map_or(0, |dates| dates.create_index.0),
            create_time,
            id: plugin.id.as_str(),
            modify_index: dates.map_or(0, |dates| dates.modify_index.0),
            modify_time: create_time,
            node_jobs: jobs(plugin, Role::Node),
        },
    );
    append_instances(&mut out, "Nodes", plugin, Role::Node);
    append_fields(
        &mut out,
        &Tail {
            nodes_expected: plugin.expected(Role::Node),
            nodes_healthy: nodes.healthy,
            provider: plugin.provider(),
            version: plugin.version(),
        },
    );
    out
}

/// Goes on with the object that `out` ends with: a comma in place of its brace.
fn reopen(out: &mut Vec<u8>) {
    out.pop();
    out.push(b',');
}

/// Adds the fields of an object to the object that `out` ends with.
fn append_fields(out: &mut Vec<u8>, fields: &impl Serialize) {
    reopen(out);
    let brace = out.len();
    append(out, fields);
    out.remove(brace); // a few hundred bytes at most follow it
}

/// An instance as it is in the read body.
fn rendered(instance: &Instance) -> &[u8] {
    instance.rendered(|record| super::json::compact(&InstanceRecord::from(record)).into_boxed_slice())
}

/// Adds a map of instances by host to the object that `out` ends with.
fn append_instances(out: &mut Vec<u8>, name: &str, plugin: &Plugin, role: Role) {
    reopen(out);
    append(out, &name);
    out.extend_from_slice(b":{");
    for (position, instance) in plugin.counting(role).enumerate() {
        if position > 0 {
            out.push(b',');
        }
        append(out, &instance.record.key.host.as_str());
        out.push(b':');
        out.extend_from_slice(rendered(instance));
    }
    out.extend_from_slice(b"}}");
}
