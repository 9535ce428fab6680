//! One complete observation of one instance.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::capability::{
    CapabilitySet, ControllerCapability, GroupCapability, NodeCapability, PluginService, VolumeExpansion,
};
use super::topology::{Pairs, Topology};

/// What a driver is, apart from where it runs. CSI demands that every instance of one version answers alike, so
/// instances share one of these (the publisher sees to it).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// The driver's name for itself, verbatim.
    pub provider: Arc<str>,
    /// The vendor's version, opaque; may be empty.
    pub version: Arc<str>,
    /// Opaque pairs of `GetPluginInfo`.
    #[serde(default)]
    pub manifest: Pairs,
    /// Services of the product as a whole, served by this socket or not.
    #[serde(default)]
    pub services: CapabilitySet<PluginService>,
    /// How volumes may grow.
    #[serde(default)]
    pub expansion: CapabilitySet<VolumeExpansion>,
    /// `ControllerGetCapabilities`; `None` where that service does not answer.
    #[serde(default)]
    pub controller: Option<CapabilitySet<ControllerCapability>>,
    /// `NodeGetCapabilities`; `None` where that service does not answer.
    #[serde(default)]
    pub node: Option<CapabilitySet<NodeCapability>>,
    /// `GroupControllerGetCapabilities`; `None` where that service was not asked or does not answer.
    #[serde(default)]
    pub group: Option<CapabilitySet<GroupCapability>>,
}

impl Product {
    /// Nomad's `RequiresControllerPlugin`.
    #[must_use]
    pub fn requires_controller(&self) -> bool {
        self.services.has(PluginService::Controller)
    }

    /// Nomad's `RequiresTopologies`.
    #[must_use]
    pub fn requires_topologies(&self) -> bool {
        self.services.has(PluginService::VolumeAccessibilityConstraints)
    }
}

/// What `NodeGetInfo` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// The CSI node id, verbatim; empty where the driver does not implement the call.
    pub id: Box<str>,
    /// Volumes this node takes; `i64::MAX` where the driver leaves it open, as Nomad shows it.
    pub max_volumes: i64,
    /// Where the node is; `None` if the driver did not say.
    pub topology: Option<Topology>,
}

impl NodeFacts {
    /// What stands for a node whose driver does not implement `NodeGetInfo`, which is legal for node-only drivers.
    #[must_use]
    pub fn unknown() -> Self {
        Self { id: "".into(), max_volumes: i64::MAX, topology: None }
    }
}

/// Everything known of one instance by asking its driver; health is not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Shared by all instances that answer alike.
    pub product: Arc<Product>,
    /// Of a node instance; `None` for a controller.
    #[serde(default)]
    pub node: Option<Box<NodeFacts>>,
    /// Where the driver strays from the specification, in words.
    #[serde(default)]
    pub warnings: Box<[Box<str>]>,
}
