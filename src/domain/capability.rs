//! What CSI services say they can do.
//!
//! A set keeps what we know as bits and what we do not know as numbers: a newer driver is not an error, and its unknown
//! numbers are worth showing.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One kind of capability: a closed list of those this release knows.
pub trait Capability: Copy + Eq + fmt::Debug + 'static {
    /// Every one of them, in the order of their numbers in the specification.
    const ALL: &'static [Self];
    /// What the service is called where an unknown number is shown (`controller:99`).
    const SERVICE: &'static str;
    /// The name in the CSI specification.
    fn name(self) -> &'static str;
    /// Position in a set, less than 32.
    fn bit(self) -> u32;
}

macro_rules! capability {
    ($(#[$doc:meta])* $kind:ident, $service:literal, { $($name:ident = $spec:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $kind {
            $(#[doc = concat!("`", $spec, "`.")] $name),+
        }

        impl Capability for $kind {
            const ALL: &'static [Self] = &[$(Self::$name),+];
            const SERVICE: &'static str = $service;
            fn name(self) -> &'static str {
                match self { $(Self::$name => $spec),+ }
            }
            fn bit(self) -> u32 {
                self as u32
            }
        }
    };
}

capability! {
    /// What `GetPluginCapabilities` says of services.
    PluginService, "plugin", {
        Controller = "CONTROLLER_SERVICE",
        VolumeAccessibilityConstraints = "VOLUME_ACCESSIBILITY_CONSTRAINTS",
        GroupController = "GROUP_CONTROLLER_SERVICE",
        SnapshotMetadata = "SNAPSHOT_METADATA_SERVICE",
    }
}
capability! {
    /// What `GetPluginCapabilities` says of growing volumes.
    VolumeExpansion, "volume_expansion", {
        Online = "ONLINE",
        Offline = "OFFLINE",
    }
}
capability! {
    /// What `ControllerGetCapabilities` says.
    ControllerCapability, "controller", {
        CreateDeleteVolume = "CREATE_DELETE_VOLUME",
        PublishUnpublishVolume = "PUBLISH_UNPUBLISH_VOLUME",
        ListVolumes = "LIST_VOLUMES",
        GetCapacity = "GET_CAPACITY",
        CreateDeleteSnapshot = "CREATE_DELETE_SNAPSHOT",
        ListSnapshots = "LIST_SNAPSHOTS",
        CloneVolume = "CLONE_VOLUME",
        PublishReadonly = "PUBLISH_READONLY",
        ExpandVolume = "EXPAND_VOLUME",
        ListVolumesPublishedNodes = "LIST_VOLUMES_PUBLISHED_NODES",
        VolumeCondition = "VOLUME_CONDITION",
        GetVolume = "GET_VOLUME",
        SingleNodeMultiWriter = "SINGLE_NODE_MULTI_WRITER",
        ModifyVolume = "MODIFY_VOLUME",
        GetSnapshot = "GET_SNAPSHOT",
    }
}
capability! {
    /// What `NodeGetCapabilities` says.
    NodeCapability, "node", {
        StageUnstageVolume = "STAGE_UNSTAGE_VOLUME",
        GetVolumeStats = "GET_VOLUME_STATS",
        ExpandVolume = "EXPAND_VOLUME",
        VolumeCondition = "VOLUME_CONDITION",
        SingleNodeMultiWriter = "SINGLE_NODE_MULTI_WRITER",
        VolumeMountGroup = "VOLUME_MOUNT_GROUP",
    }
}
capability! {
    /// What `GroupControllerGetCapabilities` says.
    GroupCapability, "group_controller", {
        CreateDeleteGetVolumeGroupSnapshot = "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT",
    }
}

/// A set of capabilities of one kind.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CapabilitySet<C> {
    known: u32,
    unknown: Box<[i32]>,
    kind: PhantomData<C>,
}

impl<C> Default for CapabilitySet<C> {
    fn default() -> Self {
        Self { known: 0, unknown: Box::default(), kind: PhantomData }
    }
}

impl<C: Capability> CapabilitySet<C> {
    /// From what we know and from numbers that we do not.
    pub fn new(known: impl IntoIterator<Item = C>, unknown: impl IntoIterator<Item = i32>) -> Self {
        let known = known.into_iter().fold(0, |bits, capability| bits | 1 << capability.bit());
        let mut unknown: Vec<i32> = unknown.into_iter().collect();
        unknown.sort_unstable();
        unknown.dedup();
        Self { known, unknown: unknown.into(), kind: PhantomData }
    }

    /// Whether the service said so.
    #[must_use]
    pub fn has(&self, capability: C) -> bool {
        self.known & 1 << capability.bit() != 0
    }

    /// Those that we know, in the order of the specification.
    pub fn iter(&self) -> impl Iterator<Item = C> + '_ {
        C::ALL.iter().copied().filter(|capability| self.has(*capability))
    }

    /// Numbers that this release does not know, ascending, each as `service:number`.
    pub fn unknown(&self) -> impl Iterator<Item = String> + '_ {
        self.unknown.iter().map(|number| format!("{}:{number}", C::SERVICE))
    }

    /// Names of all members, unknown ones as `service:number`.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.iter().map(|capability| capability.name().to_owned()).chain(self.unknown())
    }
}

impl<C: Capability> FromIterator<C> for CapabilitySet<C> {
    fn from_iter<I: IntoIterator<Item = C>>(known: I) -> Self {
        Self::new(known, [])
    }
}

impl<C: Capability> fmt::Debug for CapabilitySet<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// Stored as names and, where we know none, numbers: `["LIST_VOLUMES", 99]`.
impl<C: Capability> Serialize for CapabilitySet<C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for capability in self.iter() {
            list.serialize_element(capability.name())?;
        }
        for number in &self.unknown {
            list.serialize_element(number)?;
        }
        list.end()
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Member {
    Number(i32),
    Name(String),
}

impl<'de, C: Capability> Deserialize<'de> for CapabilitySet<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<C>(PhantomData<C>);
        impl<'de, C: Capability> Visitor<'de> for Members<C> {
            type Value = CapabilitySet<C>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of capability names and numbers")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let (mut known, mut unknown) = (Vec::new(), Vec::new());
                while let Some(member) = list.next_element()? {
                    match member {
                        Member::Number(number) => unknown.push(number),
                        Member::Name(name) => match C::ALL.iter().find(|c| c.name() == name) {
                            Some(capability) => known.push(*capability),
                            None => return Err(A::Error::custom(format!("no capability `{name}`"))),
                        },
                    }
                }
                Ok(CapabilitySet::new(known, unknown))
            }
        }
        deserializer.deserialize_seq(Members(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_survives_its_stored_form() {
        let set =
            CapabilitySet::new([ControllerCapability::ListVolumes, ControllerCapability::GetSnapshot], [99, 42, 99]);
        let text = serde_json::to_string(&set).expect("plain data");
        assert_eq!(text, r#"["LIST_VOLUMES","GET_SNAPSHOT",42,99]"#);
        assert_eq!(serde_json::from_str::<CapabilitySet<_>>(&text).expect("just written"), set);
        assert_eq!(set.unknown().collect::<Vec<_>>(), ["controller:42", "controller:99"]);
    }
}
