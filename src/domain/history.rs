//! Transitions: what changed about an instance, when, and why.

use serde::{Deserialize, Serialize};

use super::id::InstanceKey;
use super::record::{Phase, Reason, Registration};
use super::time::{Index, Timestamp};
use super::topology::Topology;

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// The instance is known from now on.
    Appeared {
        /// Its first phase.
        to: Phase,
    },
    /// It went from one phase to another.
    Phase {
        /// Before.
        from: Phase,
        /// After.
        to: Phase,
    },
    /// The same phase for another reason (another gRPC code).
    Reason,
    /// The vendor's version changed.
    Version {
        /// Before.
        from: Box<str>,
        /// After.
        to: Box<str>,
    },
    /// Capabilities came or went, by their names in the specification.
    Capabilities {
        /// Those that came.
        gained: Vec<String>,
        /// Those that went.
        lost: Vec<String>,
    },
    /// The node's place changed.
    Topology {
        /// Before.
        from: Option<Topology>,
        /// After.
        to: Option<Topology>,
    },
    /// The CSI node id changed.
    NodeId {
        /// Before.
        from: Box<str>,
        /// After.
        to: Box<str>,
    },
    /// The driver calls itself something else.
    Identity {
        /// Before.
        from: Box<str>,
        /// After.
        to: Box<str>,
    },
    /// What a kubelet believes of it, compared with what it is; `None`: no kubelet is concerned.
    Registration {
        /// Before.
        from: Option<Registration>,
        /// After.
        to: Option<Registration>,
    },
    /// The instance is no longer known.
    Retired,
}

/// One change of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// When, by the wall clock.
    pub at: Timestamp,
    /// The catalog's index that carries it; zero until it is committed.
    #[serde(default)]
    pub index: Index,
    /// Which instance.
    pub key: InstanceKey,
    /// What changed.
    pub change: Change,
    /// Why the instance is as it is after the change.
    pub reason: Reason,
}
