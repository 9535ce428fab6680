//! Our own shapes: everything that is known, in Nomad's style of naming. Fields that extend Nomad's keep the names of
//! `fingerprinting.md` 2.2.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::json::time;
use super::nomad::{self, AccessibleTopology, says};
use crate::api::Settings;
use crate::domain::allocation::Orchestrator;
use crate::domain::capability::{
    Capability, CapabilitySet, ControllerCapability, GroupCapability, NodeCapability, PluginService, VolumeExpansion,
};
use crate::domain::catalog::Catalog;
use crate::domain::fingerprint::Product;
use crate::domain::fleet::FleetStanding;
use crate::domain::history::{Change, Transition};
use crate::domain::id::{HostId, Role};
use crate::domain::plugin::{Plugin, Votes};
use crate::domain::record::{self, Record, Registration};
use crate::domain::socket::{DirectoryEvents, Duplicate, HostSockets, Searched, SocketStatus};
use crate::domain::time::Index;
use crate::domain::topology::{Pairs, Topology};
use crate::registry::agents::Agent;
use crate::registry::changes::{PluginStep, Step};
use crate::registry::commands;
use crate::registry::reader::{Durability, Standing};

/// The gateway itself.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Gateway<'a> {
    #[serde(rename = "ACL")]
    acl: AclView<'a>,
    directory_events: DirectoryEventsView<'a>,
    durability: &'static str,
    durability_reason: &'a str,
    fleet: Option<FleetView>,
    index: u64,
    instances: usize,
    nomad_index: u64,
    /// Who is asked about allocations; `null`: nobody.
    orchestrator: Option<OrchestratorView<'a>>,
    plugins: usize,
    region: &'a str,
    role: &'a str,
    scanned: bool,
    sockets: usize,
    #[serde(rename = "TLS")]
    tls: TlsView,
    uptime_seconds: u64,
    version: &'static str,
}

impl<'a> Gateway<'a> {
    pub(in crate::api) fn new(
        catalog: &Catalog,
        standing: &'a Standing,
        sockets: usize,
        events: &'a DirectoryEvents,
        settings: &'a Settings,
        Parts { acl, tls, orchestrator, fleet }: Parts<'a>,
    ) -> Self {
        let (durability, durability_reason) = durability(&standing.durability);
        Self {
            acl: AclView {
                enabled: acl.is_some(),
                keys: acl.map_or(0, |acl| acl.keys),
                policies: acl.map_or(0, |acl| acl.policies),
                problem: acl.and_then(|acl| acl.trouble.as_deref()).unwrap_or_default(),
                tokens: acl.map_or(0, |acl| acl.tokens),
            },
            directory_events: DirectoryEventsView {
                polled: events.polled,
                problem: &events.problem,
                watched: events.watched,
            },
            durability,
            durability_reason,
            fleet: fleet.map(FleetView::from),
            index: catalog.index().0,
            instances: catalog.records().count(),
            nomad_index: catalog.nomad_index().0,
            orchestrator: orchestrator.map(|asked| OrchestratorView {
                address: &asked.address,
                allocations: asked.allocations,
                problem: asked.trouble().unwrap_or_default(),
                since: time(asked.since),
            }),
            plugins: catalog.plugins().count(),
            region: &settings.region,
            role: settings.role,
            scanned: standing.is_scanned,
            sockets,
            tls: TlsView {
                client_auth: tls.as_ref().map_or("none", |tls| tls.client_auth.as_str()),
                enabled: tls.is_some(),
                not_after: tls.as_ref().and_then(|tls| time(tls.not_after)),
                problem: tls.and_then(|tls| tls.trouble).unwrap_or_default(),
            },
            uptime_seconds: standing.started.elapsed().as_secs(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// How those parts stand that are not always there.
#[derive(Default)]
pub(in crate::api) struct Parts<'a> {
    pub(in crate::api) acl: Option<&'a crate::acl::Standing>,
    pub(in crate::api) tls: Option<crate::tls::server::Standing>,
    pub(in crate::api) orchestrator: Option<&'a Orchestrator>,
    pub(in crate::api) fleet: Option<FleetStanding>,
}

/// Who is asked about allocations, how many of this host run drivers, and what is wrong.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct OrchestratorView<'a> {
    address: &'a str,
    allocations: usize,
    problem: String,
    since: Option<String>,
}

/// Whether rights are asked for, and what is wrong with the files that say which there are.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AclView<'a> {
    enabled: bool,
    keys: usize,
    policies: usize,
    problem: &'a str,
    tokens: usize,
}

/// How it stands with the fleet's etcd.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct FleetView {
    hosts_here: usize,
    hosts_lost: usize,
    in_step: bool,
    problem: String,
    waiting: usize,
}

impl From<FleetStanding> for FleetView {
    fn from(standing: FleetStanding) -> Self {
        let FleetStanding { is_in_step, trouble, waiting, hosts_here, hosts_lost } = standing;
        let problem = trouble.map(|trouble| trouble.text.to_string()).unwrap_or_default();
        Self { hosts_here, hosts_lost, in_step: is_in_step, problem, waiting }
    }
}

/// Whether TLS is spoken over TCP, with whom, until when the certificate is valid, and what is wrong with its files.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TlsView {
    client_auth: &'static str,
    enabled: bool,
    not_after: Option<String>,
    problem: String,
}

/// How changes in directories are learnt of.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DirectoryEventsView<'a> {
    polled: usize,
    problem: &'a str,
    watched: usize,
}

/// In a word, and why not.
fn durability(durability: &Durability) -> (&'static str, &str) {
    match durability {
        Durability::Memory => ("memory", ""),
        Durability::Durable => ("durable", ""),
        Durability::NotDurable(reason) => ("not durable", reason),
    }
}

/// A plugin, as far as its instances add up.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct PluginSum<'a> {
    /// When an instance last went to another phase.
    changed_time: Option<String>,
    controller_required: bool,
    controllers_expected: u32,
    controllers_healthy: u32,
    /// Whether Nomad's shapes show it: an instance was healthy once.
    counts: bool,
    create_index: u64,
    create_time: Option<String>,
    expected_source: &'static str,
    hosts: usize,
    #[serde(rename = "ID")]
    id: &'a str,
    instances: u32,
    modify_index: u64,
    nodes_expected: u32,
    nodes_healthy: u32,
    phases: BTreeMap<&'static str, u32>,
    provider: &'a str,
    providers: BTreeMap<&'a str, u32>,
    /// Some of those that are not healthy, the longest first.
    unwell: Vec<Unwell<'a>>,
    version: &'a str,
    versions: BTreeMap<&'a str, u32>,
    warnings: BTreeSet<&'a str>,
}

/// How many instances that are not healthy a sum names: enough to say what is wrong, whatever the size of the fleet.
const UNWELL: usize = 4;

/// An instance that is not healthy.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Unwell<'a> {
    host: &'a str,
    phase: &'static str,
    reason: Reason<'a>,
    role: &'static str,
    since: Option<String>,
    socket: &'a str,
}

impl<'a> From<&'a Record> for Unwell<'a> {
    fn from(record: &'a Record) -> Self {
        Self {
            host: record.key.host.as_str(),
            phase: record.phase.as_str(),
            reason: (&record.reason).into(),
            role: record.key.role.as_str(),
            since: time(record.since),
            socket: &record.socket,
        }
    }
}

impl<'a> From<&'a Plugin> for PluginSum<'a> {
    fn from(plugin: &'a Plugin) -> Self {
        fn by_name(votes: &Votes) -> BTreeMap<&str, u32> {
            votes.iter().collect()
        }
        let overview = &plugin.overview;
        let unwell = overview.unwell().take(UNWELL);
        let unwell = unwell.filter_map(|(role, host)| Some(&plugin.instance(role, host.as_str())?.record));
        Self {
            changed_time: overview.changed().and_then(time),
            controller_required: plugin.requires_controller(),
            controllers_expected: plugin.expected(Role::Controller),
            controllers_healthy: plugin.count(Role::Controller).healthy,
            counts: plugin.dates.is_some(),
            create_index: plugin.dates.map_or(0, |dates| dates.create_index.0),
            create_time: plugin.dates.and_then(|dates| time(dates.create_time)),
            expected_source: plugin.expected_source(),
            hosts: overview.hosts(),
            id: plugin.id.as_str(),
            instances: overview.instances(),
            modify_index: plugin.dates.map_or(0, |dates| dates.modify_index.0),
            nodes_expected: plugin.expected(Role::Node),
            nodes_healthy: plugin.count(Role::Node).healthy,
            phases: overview.phases().map(|(phase, count)| (phase.as_str(), count)).collect(),
            provider: plugin.provider(),
            providers: by_name(&plugin.tally.providers),
            unwell: unwell.map(Unwell::from).collect(),
            version: plugin.version(),
            versions: by_name(&plugin.tally.versions),
            warnings: overview.warnings().collect(),
        }
    }
}

/// A plugin and everything that is known of its instances, by role and host.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct PluginDetail<'a> {
    controllers: BTreeMap<&'a str, InstanceDetail<'a>>,
    nodes: BTreeMap<&'a str, InstanceDetail<'a>>,
    #[serde(flatten)]
    sum: PluginSum<'a>,
}

impl<'a> PluginDetail<'a> {
    /// `socket` finds the side table's entry by path.
    pub(in crate::api) fn new(plugin: &'a Plugin, socket: impl Fn(&str) -> Option<SocketStatus>) -> Self {
        let of = |role| {
            plugin
                .instances(role)
                .map(|instance| {
                    let record = &instance.record;
                    (record.key.host.as_str(), InstanceDetail::new(record, socket(&record.socket).as_ref()))
                })
                .collect()
        };
        Self { controllers: of(Role::Controller), nodes: of(Role::Node), sum: plugin.into() }
    }
}

/// Everything that is known of one instance.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the JSON")]
struct InstanceDetail<'a> {
    #[serde(rename = "AllocID")]
    alloc_id: &'a str,
    capabilities: Capabilities,
    #[serde(skip_serializing_if = "Option::is_none")]
    controller_info: Option<ControllerDetail>,
    /// Whether Nomad's shapes show it: it was healthy once.
    counts: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_controller_info: Option<GroupDetail>,
    health_description: &'a str,
    healthy: bool,
    host: &'a str,
    /// Which job wants it to run; `null` where no orchestrator said so.
    job: Option<JobDetail<'a>>,
    last_ok_time: Option<String>,
    last_probe_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_info: Option<NodeDetail<'a>>,
    phase: &'static str,
    #[serde(rename = "PluginID")]
    plugin_id: &'a str,
    provider: &'a str,
    provider_manifest: Option<&'a Pairs>,
    provider_version: &'a str,
    reason: Reason<'a>,
    /// What a kubelet believes of it; `null` where none is concerned.
    registration: Option<&'static str>,
    requires_controller_plugin: bool,
    requires_topologies: bool,
    role: &'static str,
    serves_controller: bool,
    serves_group_controller: bool,
    serves_node: bool,
    since: Option<String>,
    socket: &'a str,
    supports_group_controller: bool,
    supports_offline_expand: bool,
    supports_online_expand: bool,
    supports_snapshot_metadata: bool,
    unknown_capabilities: BTreeSet<String>,
    update_time: Option<String>,
    warnings: Vec<&'a str>,
}

impl<'a> InstanceDetail<'a> {
    fn new(record: &'a Record, socket: Option<&SocketStatus>) -> Self {
        let fingerprint = record.fingerprint.as_ref();
        let product = fingerprint.map(|fingerprint| &*fingerprint.product);
        let services = product.map(|product| &product.services);
        let expansion = product.map(|product| &product.expansion);
        Self {
            alloc_id: &record.owner.alloc_id,
            capabilities: product.map(Capabilities::from).unwrap_or_default(),
            controller_info: (record.key.role == Role::Controller).then(|| ControllerDetail::new(record)),
            counts: record.was_healthy,
            group_controller_info: product.and_then(|product| product.group.as_ref()).map(GroupDetail::from),
            health_description: &record.reason.description,
            healthy: record.phase.is_healthy(),
            host: record.key.host.as_str(),
            job: record.owner.job.as_deref().map(|job| JobDetail { id: &job.id, namespace: &job.namespace }),
            last_ok_time: socket.and_then(|socket| time(socket.last_ok_time?)),
            last_probe_time: socket.and_then(|socket| time(socket.last_probe_time?)),
            node_info: (record.key.role == Role::Node).then(|| NodeDetail::new(record)),
            phase: record.phase.as_str(),
            plugin_id: record.key.plugin.as_str(),
            provider: product.map_or("", |product| &product.provider),
            provider_manifest: product.map(|product| &product.manifest),
            provider_version: product.map_or("", |product| &product.version),
            reason: (&record.reason).into(),
            registration: record.registration.map(Registration::as_str),
            requires_controller_plugin: product.is_some_and(Product::requires_controller),
            requires_topologies: product.is_some_and(Product::requires_topologies),
            role: record.key.role.as_str(),
            serves_controller: product.is_some_and(|product| product.controller.is_some()),
            serves_group_controller: product.is_some_and(|product| product.group.is_some()),
            serves_node: product.is_some_and(|product| product.node.is_some()),
            since: time(record.since),
            socket: &record.socket,
            supports_group_controller: says(services, PluginService::GroupController),
            supports_offline_expand: says(expansion, VolumeExpansion::Offline),
            supports_online_expand: says(expansion, VolumeExpansion::Online),
            supports_snapshot_metadata: says(services, PluginService::SnapshotMetadata),
            unknown_capabilities: product.map(unknown).unwrap_or_default(),
            update_time: time(record.update_time),
            warnings: fingerprint.iter().flat_map(|f| &f.warnings).map(|text| &**text).collect(),
        }
    }
}

/// A job of an orchestrator.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct JobDetail<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    namespace: &'a str,
}

/// Why an instance is as it is.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reason<'a> {
    code: Option<&'static str>,
    description: &'a str,
    text: &'a str,
}

impl<'a> From<&'a record::Reason> for Reason<'a> {
    fn from(reason: &'a record::Reason) -> Self {
        Self {
            code: reason.code.map(crate::domain::code::Code::as_str),
            description: &reason.description,
            text: &reason.text,
        }
    }
}

/// Every capability by its name in the specification; `null` where a service does not answer.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Capabilities {
    controller: Option<Vec<String>>,
    group_controller: Option<Vec<String>>,
    node: Option<Vec<String>>,
    plugin: Vec<String>,
    volume_expansion: Vec<String>,
}

fn names<C: Capability>(set: &CapabilitySet<C>) -> Vec<String> {
    set.names().collect()
}

impl From<&Product> for Capabilities {
    fn from(product: &Product) -> Self {
        Self {
            controller: product.controller.as_ref().map(names),
            group_controller: product.group.as_ref().map(names),
            node: product.node.as_ref().map(names),
            plugin: names(&product.services),
            volume_expansion: names(&product.expansion),
        }
    }
}

fn unknown(product: &Product) -> BTreeSet<String> {
    let services = product.services.unknown().chain(product.expansion.unknown());
    services
        .chain(product.controller.iter().flat_map(CapabilitySet::unknown))
        .chain(product.node.iter().flat_map(CapabilitySet::unknown))
        .chain(product.group.iter().flat_map(CapabilitySet::unknown))
        .collect()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ControllerDetail {
    #[serde(flatten)]
    nomad: nomad::ControllerInfo,
    supports_get_snapshot: bool,
    supports_modify: bool,
    supports_single_node_multi_writer: bool,
}

impl ControllerDetail {
    fn new(record: &Record) -> Self {
        let set = record.fingerprint.as_ref().and_then(|fingerprint| fingerprint.product.controller.as_ref());
        Self {
            nomad: record.into(),
            supports_get_snapshot: says(set, ControllerCapability::GetSnapshot),
            supports_modify: says(set, ControllerCapability::ModifyVolume),
            supports_single_node_multi_writer: says(set, ControllerCapability::SingleNodeMultiWriter),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NodeDetail<'a> {
    #[serde(flatten)]
    nomad: nomad::NodeInfo<'a>,
    supports_mount_group: bool,
    supports_single_node_multi_writer: bool,
}

impl<'a> NodeDetail<'a> {
    fn new(record: &'a Record) -> Self {
        let set = record.fingerprint.as_ref().and_then(|fingerprint| fingerprint.product.node.as_ref());
        Self {
            nomad: record.into(),
            supports_mount_group: says(set, NodeCapability::VolumeMountGroup),
            supports_single_node_multi_writer: says(set, NodeCapability::SingleNodeMultiWriter),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GroupDetail {
    supports_create_delete_get_group_snapshot: bool,
}

impl From<&CapabilitySet<GroupCapability>> for GroupDetail {
    fn from(set: &CapabilitySet<GroupCapability>) -> Self {
        Self { supports_create_delete_get_group_snapshot: set.has(GroupCapability::CreateDeleteGetVolumeGroupSnapshot) }
    }
}

/// A host and how its instances are.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Host<'a> {
    agent: Option<AgentView>,
    duplicates: Vec<DuplicateSocket>,
    healthy: usize,
    #[serde(rename = "ID")]
    id: &'a str,
    instances: usize,
    phases: BTreeMap<&'static str, usize>,
    plugins: BTreeSet<&'a str>,
}

/// A host's agent, as an aggregator knows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AgentView {
    /// When it registered.
    since: Option<String>,
    version: Box<str>,
}

impl From<Agent> for AgentView {
    fn from(Agent { since, version }: Agent) -> Self {
        Self { since: time(since), version }
    }
}

/// A socket that would be an instance of the host, were another one not preferred.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DuplicateSocket {
    /// The socket that counts.
    counts: String,
    #[serde(rename = "PluginID")]
    plugin_id: String,
    role: &'static str,
    socket: String,
}

impl From<&Duplicate> for DuplicateSocket {
    fn from(duplicate: &Duplicate) -> Self {
        Self {
            counts: duplicate.counts.to_string_lossy().into_owned(),
            plugin_id: duplicate.key.plugin.to_string(),
            role: duplicate.key.role.as_str(),
            socket: duplicate.socket.to_string_lossy().into_owned(),
        }
    }
}

/// Every host that has an instance, by id. `agent` finds the side table's entry by host.
pub(in crate::api) fn hosts<'a>(
    catalog: &'a Catalog,
    duplicates: &[Duplicate],
    agent: impl Fn(&str) -> Option<Agent>,
) -> Vec<Host<'a>> {
    let mut hosts = BTreeMap::<&str, Host<'_>>::new();
    for record in catalog.records() {
        let id = record.key.host.as_str();
        let host = hosts.entry(id).or_insert_with(|| Host {
            agent: agent(id).map(AgentView::from),
            duplicates: Vec::new(),
            healthy: 0,
            id,
            instances: 0,
            phases: BTreeMap::new(),
            plugins: BTreeSet::new(),
        });
        host.instances += 1;
        host.healthy += usize::from(record.phase.is_healthy());
        *host.phases.entry(record.phase.as_str()).or_default() += 1;
        host.plugins.insert(record.key.plugin.as_str());
    }
    for duplicate in duplicates {
        let Some(host) = hosts.get_mut(duplicate.key.host.as_str()) else { continue };
        host.duplicates.push(duplicate.into());
    }
    hosts.into_values().collect()
}

/// A host and everything that is known of its instances.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct HostDetail<'a> {
    agent: Option<AgentView>,
    duplicates: Vec<DuplicateSocket>,
    #[serde(rename = "ID")]
    id: &'a str,
    instances: Vec<InstanceDetail<'a>>,
}

impl<'a> HostDetail<'a> {
    /// `None` where nothing is known of such a host. `socket` finds the side table's entry by path.
    pub(in crate::api) fn new(
        catalog: &'a Catalog,
        id: &'a str,
        duplicates: &[Duplicate],
        agent: Option<Agent>,
        socket: impl Fn(&str) -> Option<SocketStatus>,
    ) -> Option<Self> {
        let of = |plugin: &'a Plugin| {
            [Role::Controller, Role::Node].into_iter().filter_map(|role| plugin.instance(role, id))
        };
        let records = catalog.plugins().flat_map(|plugin| of(plugin)).map(|instance| &instance.record);
        let instances: Vec<_> =
            records.map(|record| InstanceDetail::new(record, socket(&record.socket).as_ref())).collect();
        let duplicates = duplicates.iter().filter(|duplicate| duplicate.key.host.as_str() == id);
        let duplicates: Vec<_> = duplicates.map(DuplicateSocket::from).collect();
        (!instances.is_empty()).then_some(Self { agent: agent.map(AgentView::from), duplicates, id, instances })
    }
}

/// What was forgotten.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Forgotten<'a> {
    durability: &'static str,
    index: u64,
    instances: Vec<ForgottenInstance<'a>>,
    /// Whether the plugin is gone with them.
    plugin_gone: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ForgottenInstance<'a> {
    host: &'a str,
    phase: &'static str,
    #[serde(rename = "PluginID")]
    plugin_id: &'a str,
    role: &'static str,
    since: Option<String>,
    socket: &'a str,
}

impl<'a> From<&'a commands::Forgotten> for Forgotten<'a> {
    fn from(forgotten: &'a commands::Forgotten) -> Self {
        let instances = forgotten.records.iter().map(|record| ForgottenInstance {
            host: record.key.host.as_str(),
            phase: record.phase.as_str(),
            plugin_id: record.key.plugin.as_str(),
            role: record.key.role.as_str(),
            since: time(record.since),
            socket: &record.socket,
        });
        Self {
            durability: durability(&forgotten.durability).0,
            index: forgotten.index.0,
            instances: instances.collect(),
            plugin_gone: forgotten.is_plugin_gone,
        }
    }
}

/// All that is known of sockets: those that are watched or left alone, and the places where they are looked for.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct SocketsView<'a> {
    /// Sockets that an agent did not tell its fleet, since there are too many.
    left_out: usize,
    searched: Vec<SearchedPlace<'a>>,
    sockets: Vec<Socket<'a>>,
}

impl<'a> SocketsView<'a> {
    pub(in crate::api) fn new(all: &'a [(HostId, HostSockets)]) -> Self {
        let mut view = Self { left_out: 0, searched: Vec::new(), sockets: Vec::new() };
        for (host, HostSockets { searched, sockets, left_out, .. }) in all {
            view.left_out += left_out;
            view.searched.extend(searched.iter().map(|place| SearchedPlace::new(host, place)));
            view.sockets.extend(sockets.iter().map(|socket| Socket::new(host, socket)));
        }
        view
    }
}

/// A place where sockets are looked for.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SearchedPlace<'a> {
    exists: bool,
    found: usize,
    host: &'a str,
    ignored: usize,
    place: std::borrow::Cow<'a, str>,
    problem: &'a str,
    searched: bool,
    what: &'a str,
}

impl<'a> SearchedPlace<'a> {
    fn new(host: &'a HostId, searched: &'a Searched) -> Self {
        Self {
            exists: searched.exists,
            found: searched.found,
            host: host.as_str(),
            ignored: searched.ignored,
            place: searched.place.to_string_lossy(),
            problem: &searched.problem,
            searched: searched.is_searched,
            what: &searched.what,
        }
    }
}

/// A socket and what answers there.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Socket<'a> {
    device: Option<u64>,
    host: &'a str,
    ignored: bool,
    inode: Option<u64>,
    last_ok_time: Option<String>,
    last_poll_seconds: Option<f64>,
    last_probe_time: Option<String>,
    path: &'a str,
    phase: &'static str,
    #[serde(rename = "PID")]
    pid: Option<i32>,
    #[serde(rename = "PluginID")]
    plugin_id: Option<&'a str>,
    provider: Option<&'a str>,
    reason: &'a str,
    role: &'a str,
    roles: Vec<&'static str>,
    source: &'a str,
}

impl<'a> Socket<'a> {
    fn new(host: &'a HostId, status: &'a SocketStatus) -> Self {
        Self {
            device: status.device,
            host: host.as_str(),
            ignored: status.is_ignored,
            inode: status.inode,
            last_ok_time: status.last_ok_time.and_then(time),
            last_poll_seconds: status.last_poll.map(|took| took.as_secs_f64()),
            last_probe_time: status.last_probe_time.and_then(time),
            path: &status.path,
            phase: status.phase.as_str(),
            pid: status.pid,
            plugin_id: status.plugin.as_ref().map(|id| id.as_str()),
            provider: status.provider.as_deref(),
            reason: &status.reason,
            role: &status.role,
            roles: status.roles.iter().map(|role| role.as_str()).collect(),
            source: &status.source,
        }
    }
}

/// One line of our stream: what one index changed, or (index zero) one plugin of the present state.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Line<'a> {
    index: u64,
    /// As they are after the step.
    instances: Vec<InstanceDetail<'a>>,
    plugins: Vec<PluginSum<'a>>,
    /// No longer known.
    removed_instances: Vec<RemovedInstance<'a>>,
    removed_plugins: Vec<&'a str>,
    transitions: Vec<HistoryEntry<'a>>,
}

/// Which instance is no longer known.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RemovedInstance<'a> {
    host: &'a str,
    #[serde(rename = "PluginID")]
    plugin_id: &'a str,
    role: &'static str,
}

impl<'a> Line<'a> {
    /// A plugin and all its instances, as they are.
    pub(in crate::api) fn present(plugin: &'a Plugin, socket: impl Fn(&str) -> Option<SocketStatus>) -> Self {
        let instance = |record: &'a Record| InstanceDetail::new(record, socket(&record.socket).as_ref());
        Self {
            index: 0,
            instances: plugin.records().map(instance).collect(),
            plugins: vec![plugin.into()],
            removed_instances: Vec::new(),
            removed_plugins: Vec::new(),
            transitions: Vec::new(),
        }
    }

    /// What a step changed.
    pub(in crate::api) fn step(step: &'a Step, socket: impl Fn(&str) -> Option<SocketStatus>) -> Self {
        let mut line = Self {
            index: step.index.0,
            instances: Vec::new(),
            plugins: step.plugins.iter().filter_map(|plugin| plugin.after.as_deref()).map(Into::into).collect(),
            removed_instances: Vec::new(),
            removed_plugins: Vec::new(),
            transitions: step.transitions.iter().map(Into::into).collect(),
        };
        let is_gone = |plugin: &&PluginStep| plugin.after.is_none();
        line.removed_plugins = step.plugins.iter().filter(is_gone).map(|plugin| plugin.id.as_str()).collect();
        for key in &step.instances {
            // Plugins are in order; one that is not there was given the same record again.
            let Ok(at) = step.plugins.binary_search_by(|plugin| plugin.id.cmp(&key.plugin)) else { continue };
            let plugin = step.plugins[at].after.as_deref();
            match plugin.and_then(|plugin| plugin.instance(key.role, key.host.as_str())) {
                Some(instance) => {
                    let record = &instance.record;
                    line.instances.push(InstanceDetail::new(record, socket(&record.socket).as_ref()));
                }
                None => line.removed_instances.push(RemovedInstance {
                    host: key.host.as_str(),
                    plugin_id: key.plugin.as_str(),
                    role: key.role.as_str(),
                }),
            }
        }
        line
    }
}

/// The end of the present state: whoever has read so far knows all of it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Complete<'a> {
    #[serde(rename = "IDs")]
    ids: Vec<&'a str>,
    index: u64,
}

impl<'a> Complete<'a> {
    pub(in crate::api) fn new(index: Index, ids: Vec<&'a str>) -> Self {
        Self { ids, index: index.0 }
    }
}

/// A transition.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct HistoryEntry<'a> {
    at: Option<String>,
    from: Option<Side<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gained: Option<&'a [String]>,
    host: &'a str,
    index: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<&'a [String]>,
    #[serde(rename = "PluginID")]
    plugin_id: &'a str,
    reason: Reason<'a>,
    role: &'static str,
    to: Option<Side<'a>>,
}

/// What was before a transition, or after.
#[derive(Serialize)]
#[serde(untagged)]
enum Side<'a> {
    Text(&'a str),
    Topology(AccessibleTopology<'a>),
}

impl<'a> From<&'a Transition> for HistoryEntry<'a> {
    fn from(transition: &'a Transition) -> Self {
        let mut entry = Self {
            at: time(transition.at),
            from: None,
            gained: None,
            host: transition.key.host.as_str(),
            index: transition.index.0,
            kind: "",
            lost: None,
            plugin_id: transition.key.plugin.as_str(),
            reason: (&transition.reason).into(),
            role: transition.key.role.as_str(),
            to: None,
        };
        let text = |text: &'a str| Some(Side::Text(text));
        (entry.kind, entry.from, entry.to) = match &transition.change {
            Change::Appeared { to } => ("appeared", None, text(to.as_str())),
            Change::Phase { from, to } => ("phase", text(from.as_str()), text(to.as_str())),
            Change::Reason => ("reason", None, None),
            Change::Version { from, to } => ("version", text(from), text(to)),
            Change::Capabilities { gained, lost } => {
                (entry.gained, entry.lost) = (Some(&**gained), Some(&**lost));
                ("capabilities", None, None)
            }
            Change::Topology { from, to } => {
                let side = |topology: &'a Option<Topology>| topology.as_ref().map(|t| Side::Topology(t.into()));
                ("topology", side(from), side(to))
            }
            Change::NodeId { from, to } => ("node id", text(from), text(to)),
            Change::Identity { from, to } => ("identity", text(from), text(to)),
            Change::Registration { from, to } => {
                let side = |verdict: &Option<Registration>| verdict.map(|verdict| Side::Text(verdict.as_str()));
                ("registration", side(from), side(to))
            }
            Change::Retired => ("retired", None, None),
        };
        entry
    }
}
