//! Protobuf to domain: the only reader of protocol enums.
//!
//! Enums are open. Zero and a member that is not set say nothing and are skipped; a number that we do not know comes from
//! a newer driver and is kept for display. What strays from the specification is kept as well, with a warning in words:
//! the gateway shows what is there and refuses only what cannot be used. Sizes are bounded here.

use std::collections::BTreeMap;

use crate::domain::capability::{
    Capability, CapabilitySet, ControllerCapability, GroupCapability, NodeCapability, PluginService, VolumeExpansion,
};
use crate::domain::code::Code;
use crate::domain::fingerprint::NodeFacts;
use crate::domain::text::bounded;
use crate::domain::topology::{Pairs, Topology};
use crate::transport::pb::{csi as pb, registration};

/// Entries of a capability list that are read.
const LONGEST_LIST: usize = 1024;
/// Bytes of a map, keys and values together, that are kept; the specification allows 4 KiB.
const LARGEST_MAP: usize = 64 * 1024;
/// Bytes of a map that the specification allows.
const MAP_RULE: usize = 4 * 1024;
/// Bytes of a text field, unless its description says otherwise.
const TEXT_RULE: usize = 128;
/// Characters of a provider's name.
const NAME_RULE: usize = 63;
/// Bytes of a node id.
const NODE_ID_RULE: usize = 256;
/// Characters of a topology key's name, of its prefix, and of a value.
const SEGMENT_RULE: usize = 63;
/// Bytes of a driver's text that are quoted in a warning.
const QUOTED: usize = 64;

/// What `Probe` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It can work.
    Ready,
    /// It is well, and still starting.
    Starting,
}

/// What `GetPluginInfo` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginInfo {
    /// The driver's name for itself, verbatim: never empty, otherwise as odd as the driver likes.
    pub name: String,
    /// The vendor's version, opaque; may be empty.
    pub vendor_version: String,
    /// Opaque pairs, of which at most 64 KiB are kept.
    pub manifest: Pairs,
    /// Where this strays from the specification.
    pub warnings: Vec<Box<str>>,
}

/// What `GetPluginCapabilities` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginCapabilities {
    /// Services of the product as a whole.
    pub services: CapabilitySet<PluginService>,
    /// How volumes may grow.
    pub expansion: CapabilitySet<VolumeExpansion>,
}

/// What `NodeGetInfo` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// The facts, `max_volumes` as Nomad shows it.
    pub facts: NodeFacts,
    /// Where the answer strays from the specification.
    pub warnings: Vec<Box<str>>,
}

/// What is announced to a kubelet, verbatim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// `CSIPlugin`, or what else registers in the same directory.
    pub kind: String,
    /// The driver's name.
    pub name: String,
    /// Path of the CSI socket as the kubelet's host sees it; empty: the registration socket itself.
    pub endpoint: String,
}

pub(super) fn announcement(answer: registration::PluginInfo) -> Announcement {
    Announcement { kind: answer.r#type, name: answer.name, endpoint: answer.endpoint }
}

pub(super) fn readiness(answer: &pb::ProbeResponse) -> Readiness {
    match answer.ready {
        None | Some(true) => Readiness::Ready,
        Some(false) => Readiness::Starting,
    }
}

/// `None` if the name is empty.
pub(super) fn plugin_info(answer: pb::GetPluginInfoResponse) -> Option<PluginInfo> {
    let pb::GetPluginInfoResponse { name, vendor_version, manifest } = answer;
    if name.is_empty() {
        return None;
    }
    let mut warnings = Vec::new();
    let length = name.chars().count();
    if length > NAME_RULE {
        warnings.push(format!("the name has {length} characters; the specification allows {NAME_RULE}").into());
    } else if !is_framed(&name, |character| matches!(character, '-' | '.')) {
        warnings.push("the name is not in domain-name notation".into());
    }
    match vendor_version.len() {
        0 => warnings.push("the version is empty".into()),
        1..=TEXT_RULE => {}
        length => warnings.push(format!("the version has {length} bytes; the specification allows {TEXT_RULE}").into()),
    }
    let manifest = pairs(manifest, "the manifest", &mut warnings);
    Some(PluginInfo { name, vendor_version, manifest, warnings })
}

pub(super) fn plugin_capabilities(list: &[pb::PluginCapability]) -> PluginCapabilities {
    use pb::plugin_capability::{Type, service, volume_expansion};
    let (mut services, mut expansion) = (Numbers::default(), Numbers::default());
    for entry in list.iter().take(LONGEST_LIST) {
        match &entry.r#type {
            Some(Type::Service(entry)) => services.add(entry.r#type, |number| {
                Some(match service::Type::try_from(number).ok()? {
                    service::Type::Unknown => return None,
                    service::Type::ControllerService => PluginService::Controller,
                    service::Type::VolumeAccessibilityConstraints => PluginService::VolumeAccessibilityConstraints,
                    service::Type::GroupControllerService => PluginService::GroupController,
                    service::Type::SnapshotMetadataService => PluginService::SnapshotMetadata,
                })
            }),
            Some(Type::VolumeExpansion(entry)) => expansion.add(entry.r#type, |number| {
                Some(match volume_expansion::Type::try_from(number).ok()? {
                    volume_expansion::Type::Unknown => return None,
                    volume_expansion::Type::Online => VolumeExpansion::Online,
                    volume_expansion::Type::Offline => VolumeExpansion::Offline,
                })
            }),
            None => {}
        }
    }
    PluginCapabilities { services: services.into(), expansion: expansion.into() }
}

pub(super) fn controller_capabilities(list: &[pb::ControllerServiceCapability]) -> CapabilitySet<ControllerCapability> {
    use pb::controller_service_capability::{Type as Member, rpc::Type};
    let mut set = Numbers::default();
    for entry in list.iter().take(LONGEST_LIST) {
        let Some(Member::Rpc(entry)) = &entry.r#type else { continue };
        set.add(entry.r#type, |number| {
            Some(match Type::try_from(number).ok()? {
                Type::Unknown => return None,
                Type::CreateDeleteVolume => ControllerCapability::CreateDeleteVolume,
                Type::PublishUnpublishVolume => ControllerCapability::PublishUnpublishVolume,
                Type::ListVolumes => ControllerCapability::ListVolumes,
                Type::GetCapacity => ControllerCapability::GetCapacity,
                Type::CreateDeleteSnapshot => ControllerCapability::CreateDeleteSnapshot,
                Type::ListSnapshots => ControllerCapability::ListSnapshots,
                Type::CloneVolume => ControllerCapability::CloneVolume,
                Type::PublishReadonly => ControllerCapability::PublishReadonly,
                Type::ExpandVolume => ControllerCapability::ExpandVolume,
                Type::ListVolumesPublishedNodes => ControllerCapability::ListVolumesPublishedNodes,
                Type::VolumeCondition => ControllerCapability::VolumeCondition,
                Type::GetVolume => ControllerCapability::GetVolume,
                Type::SingleNodeMultiWriter => ControllerCapability::SingleNodeMultiWriter,
                Type::ModifyVolume => ControllerCapability::ModifyVolume,
                Type::GetSnapshot => ControllerCapability::GetSnapshot,
            })
        });
    }
    set.into()
}

pub(super) fn node_capabilities(list: &[pb::NodeServiceCapability]) -> CapabilitySet<NodeCapability> {
    use pb::node_service_capability::{Type as Member, rpc::Type};
    let mut set = Numbers::default();
    for entry in list.iter().take(LONGEST_LIST) {
        let Some(Member::Rpc(entry)) = &entry.r#type else { continue };
        set.add(entry.r#type, |number| {
            Some(match Type::try_from(number).ok()? {
                Type::Unknown => return None,
                Type::StageUnstageVolume => NodeCapability::StageUnstageVolume,
                Type::GetVolumeStats => NodeCapability::GetVolumeStats,
                Type::ExpandVolume => NodeCapability::ExpandVolume,
                Type::VolumeCondition => NodeCapability::VolumeCondition,
                Type::SingleNodeMultiWriter => NodeCapability::SingleNodeMultiWriter,
                Type::VolumeMountGroup => NodeCapability::VolumeMountGroup,
            })
        });
    }
    set.into()
}

pub(super) fn group_capabilities(list: &[pb::GroupControllerServiceCapability]) -> CapabilitySet<GroupCapability> {
    use pb::group_controller_service_capability::{Type as Member, rpc::Type};
    let mut set = Numbers::default();
    for entry in list.iter().take(LONGEST_LIST) {
        let Some(Member::Rpc(entry)) = &entry.r#type else { continue };
        set.add(entry.r#type, |number| {
            Some(match Type::try_from(number).ok()? {
                Type::Unknown => return None,
                Type::CreateDeleteGetVolumeGroupSnapshot => GroupCapability::CreateDeleteGetVolumeGroupSnapshot,
            })
        });
    }
    set.into()
}

/// `None` if the node id is empty.
pub(super) fn node_info(answer: pb::NodeGetInfoResponse) -> Option<NodeInfo> {
    let pb::NodeGetInfoResponse { node_id, max_volumes_per_node, accessible_topology } = answer;
    if node_id.is_empty() {
        return None;
    }
    let mut warnings = Vec::new();
    if node_id.len() > NODE_ID_RULE {
        let length = node_id.len();
        warnings.push(format!("the node id has {length} bytes; the specification allows {NODE_ID_RULE}").into());
    }
    if max_volumes_per_node < 0 {
        warnings.push(
            format!("max_volumes_per_node is {max_volumes_per_node}, which the specification forbids; taken as unset")
                .into(),
        );
    }
    // Nomad shows "the orchestrator decides" as the largest number there is.
    let max_volumes = if max_volumes_per_node > 0 { max_volumes_per_node } else { i64::MAX };
    let topology = accessible_topology.map(|topology| {
        if topology.segments.is_empty() {
            return Topology { segments: None };
        }
        judge_segments(&topology.segments, &mut warnings);
        Topology { segments: Some(pairs(topology.segments, "the topology", &mut warnings)) }
    });
    Some(NodeInfo { facts: NodeFacts { id: node_id.into(), max_volumes, topology }, warnings })
}

/// The domain's code for tonic's. OK is no error, and a peer that sends it where an error was told means nothing known.
pub(super) fn code(code: tonic::Code) -> Code {
    match code {
        tonic::Code::Cancelled => Code::Canceled,
        tonic::Code::Ok | tonic::Code::Unknown => Code::Unknown,
        tonic::Code::InvalidArgument => Code::InvalidArgument,
        tonic::Code::DeadlineExceeded => Code::DeadlineExceeded,
        tonic::Code::NotFound => Code::NotFound,
        tonic::Code::AlreadyExists => Code::AlreadyExists,
        tonic::Code::PermissionDenied => Code::PermissionDenied,
        tonic::Code::ResourceExhausted => Code::ResourceExhausted,
        tonic::Code::FailedPrecondition => Code::FailedPrecondition,
        tonic::Code::Aborted => Code::Aborted,
        tonic::Code::OutOfRange => Code::OutOfRange,
        tonic::Code::Unimplemented => Code::Unimplemented,
        tonic::Code::Internal => Code::Internal,
        tonic::Code::Unavailable => Code::Unavailable,
        tonic::Code::DataLoss => Code::DataLoss,
        tonic::Code::Unauthenticated => Code::Unauthenticated,
    }
}

/// A capability list as it is read.
struct Numbers<C> {
    known: Vec<C>,
    unknown: Vec<i32>,
}

impl<C> Default for Numbers<C> {
    fn default() -> Self {
        Self { known: Vec::new(), unknown: Vec::new() }
    }
}

impl<C> Numbers<C> {
    fn add(&mut self, number: i32, read: impl FnOnce(i32) -> Option<C>) {
        match read(number) {
            Some(capability) => self.known.push(capability),
            None if number != 0 => self.unknown.push(number),
            None => {}
        }
    }
}

impl<C: Capability> From<Numbers<C>> for CapabilitySet<C> {
    fn from(numbers: Numbers<C>) -> Self {
        Self::new(numbers.known, numbers.unknown)
    }
}

/// Keeps what fits, in the order of the keys, and warns of what is over the rule.
fn pairs(map: BTreeMap<String, String>, what: &str, warnings: &mut Vec<Box<str>>) -> Pairs {
    let size: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > LARGEST_MAP {
        warnings.push(format!("{what} has {size} bytes, of which {LARGEST_MAP} are kept").into());
    } else if size > MAP_RULE {
        warnings.push(format!("{what} has {size} bytes; the specification allows {MAP_RULE}").into());
    }
    let mut room = LARGEST_MAP;
    map.into_iter()
        .take_while(|(key, value)| match room.checked_sub(key.len() + value.len()) {
            Some(rest) => {
                room = rest;
                true
            }
            None => false,
        })
        .collect()
}

/// Warns of keys and values that the specification forbids, once for each kind, with an example.
fn judge_segments(segments: &BTreeMap<String, String>, warnings: &mut Vec<Box<str>>) {
    let mut warn = |what: &str, example: Option<&str>| {
        if let Some(example) = example {
            warnings.push(format!("{what}: `{}`", bounded(example, QUOTED)).into());
        }
    };
    let mut folded = BTreeMap::new();
    let doubled = segments.keys().find(|key| folded.insert(key.to_lowercase(), ()).is_some());
    warn("topology keys differ only in case", doubled.map(String::as_str));
    let ill = segments.keys().find(|key| !is_topology_key(key));
    warn("a topology key is not well-formed", ill.map(String::as_str));
    let ill = segments.iter().find(|(_, value)| !is_topology_name(value));
    warn("the value of a topology key is not well-formed", ill.map(|(key, _)| key.as_str()));
    let mut prefixes = segments.keys().filter_map(|key| key.split_once('/')).map(|(prefix, _)| prefix);
    let first = prefixes.next();
    warn("topology keys have different prefixes", prefixes.find(|prefix| Some(*prefix) != first));
}

fn is_topology_key(key: &str) -> bool {
    let Some((prefix, name)) = key.split_once('/') else { return is_topology_name(key) };
    let is_prefix = prefix.len() <= SEGMENT_RULE
        && is_framed(prefix, |character| matches!(character, '-' | '.'))
        && !prefix.contains(|character: char| character.is_ascii_uppercase());
    is_prefix && is_topology_name(name)
}

fn is_topology_name(name: &str) -> bool {
    name.len() <= SEGMENT_RULE && is_framed(name, |character| matches!(character, '-' | '_' | '.'))
}

/// ASCII letters and digits, at the ends nothing else, in between also what `inside` allows.
fn is_framed(text: &str, inside: impl Fn(char) -> bool) -> bool {
    let framed = |end: Option<char>| end.is_some_and(|character| character.is_ascii_alphanumeric());
    framed(text.chars().next())
        && framed(text.chars().next_back())
        && text.chars().all(|character| character.is_ascii_alphanumeric() || inside(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn node(answer: pb::NodeGetInfoResponse) -> NodeInfo {
        node_info(answer).expect("there is an id")
    }

    #[test]
    fn every_number_of_the_specification_has_a_name_of_its_own() {
        let list: Vec<_> = (0..=16).map(|number| entry(Some(number))).collect();
        let set = controller_capabilities(&list);
        assert_eq!(set.iter().count(), 15);
        assert_eq!(set.unknown().collect::<Vec<_>>(), ["controller:16"]);
        for (position, capability) in ControllerCapability::ALL.iter().enumerate() {
            let number = i32::try_from(position).expect("few") + 1;
            assert!(controller_capabilities(&[entry(Some(number))]).has(*capability), "{number} is {capability:?}");
        }
    }

    #[test]
    fn a_newer_number_is_kept_and_nothing_is_read_into_zero_or_an_unset_member() {
        let set = controller_capabilities(&[entry(Some(0)), entry(Some(99)), entry(None), entry(Some(-1))]);
        assert_eq!(set.names().collect::<Vec<_>>(), ["controller:-1", "controller:99"]);
    }

    #[test]
    fn a_list_is_read_to_its_thousand_and_twenty_fourth_entry() {
        let mut list = vec![entry(Some(1)); LONGEST_LIST];
        list.push(entry(Some(2)));
        let set = controller_capabilities(&list);
        assert_eq!(set.iter().collect::<Vec<_>>(), [ControllerCapability::CreateDeleteVolume]);
    }

    #[test]
    fn limits_of_a_node_are_shown_as_nomad_shows_them() {
        for (sent, shown, is_warned) in
            [(0, i64::MAX, false), (5, 5, false), (i64::MAX, i64::MAX, false), (-1, i64::MAX, true)]
        {
            let answer = pb::NodeGetInfoResponse {
                node_id: "n-1".to_owned(),
                max_volumes_per_node: sent,
                accessible_topology: None,
            };
            let info = node(answer);
            assert_eq!(info.facts.max_volumes, shown);
            assert_eq!(!info.warnings.is_empty(), is_warned, "{:?}", info.warnings);
        }
    }

    #[test]
    fn a_topology_is_absent_empty_or_a_map_and_is_copied_verbatim() {
        let topology = |topology| {
            let answer = pb::NodeGetInfoResponse {
                node_id: "n".repeat(300),
                max_volumes_per_node: 0,
                accessible_topology: topology,
            };
            node(answer)
        };
        assert_eq!(topology(None).facts.topology, None);
        let empty = Some(pb::Topology::default());
        assert_eq!(topology(empty).facts.topology, Some(Topology { segments: None }));

        let info = topology(Some(pb::Topology {
            segments: map(&[("Zone", "z 1"), ("zone", "z2"), ("a/b", "c"), ("d/b", "")]),
        }));
        let segments = info.facts.topology.expect("sent").segments.expect("not empty");
        assert_eq!(segments.iter().collect::<Vec<_>>(), [("Zone", "z 1"), ("a/b", "c"), ("d/b", ""), ("zone", "z2")]);
        for word in ["300 bytes", "case: `zone`", "value of a topology key is not well-formed: `Zone`", "prefixes: `d`"]
        {
            assert!(info.warnings.iter().any(|warning| warning.contains(word)), "{word}: {:?}", info.warnings);
        }
    }

    #[test]
    fn a_name_that_bends_the_rules_is_kept_with_a_warning() {
        for (name, version, warnings) in
            [("drv.example.com", "1", 0), ("bad/name", "1", 1), ("x", "", 1), (&*"n".repeat(64), "1", 1)]
        {
            let answer = pb::GetPluginInfoResponse {
                name: name.to_owned(),
                vendor_version: version.to_owned(),
                manifest: BTreeMap::new(),
            };
            let info = plugin_info(answer).expect("there is a name");
            assert_eq!(info.name, name);
            assert_eq!(info.warnings.len(), warnings, "{:?}", info.warnings);
        }
        assert_eq!(plugin_info(pb::GetPluginInfoResponse::default()), None);
    }

    #[test]
    fn a_manifest_is_cut_at_64_kib() {
        let manifest: BTreeMap<_, _> = (0..100).map(|n| (format!("{n:03}"), "v".repeat(1021))).collect();
        let answer = pb::GetPluginInfoResponse { name: "n".to_owned(), vendor_version: "1".to_owned(), manifest };
        let info = plugin_info(answer).expect("there is a name");
        assert_eq!(info.manifest.len(), 64);
        assert_eq!(info.warnings.len(), 1);
    }

    fn entry(number: Option<i32>) -> pb::ControllerServiceCapability {
        use pb::controller_service_capability::{Rpc, Type};
        pb::ControllerServiceCapability { r#type: number.map(|number| Type::Rpc(Rpc { r#type: number })) }
    }
}
