//! What is known of one instance: the form that is stored, and from which everything shown is derived.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::code::Code;
use super::fingerprint::Fingerprint;
use super::id::{InstanceKey, Role};
use super::time::Timestamp;
use super::topology::share;

/// Why an instance, or a socket, on a host without its agent is [`Phase::Lost`].
pub const SILENT_HOST: &str =
    "the host, its network or its csi-gateway agent is down; what is known of the driver is from before";

/// How an instance is, in our words; Nomad's boolean is [`Phase::is_healthy`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// No answer yet.
    #[default]
    New,
    /// The driver says that it is not ready (`ready=false`).
    Starting,
    /// Everything that was asked was answered.
    Healthy,
    /// An answer says so, or a deadline passed.
    Unhealthy,
    /// The socket file is there and nobody listens.
    Stale,
    /// The socket file is not there.
    Gone,
    /// The host's agent is silent.
    Lost,
}

impl Phase {
    /// Every phase, in the order in which they are shown.
    pub const ALL: [Self; 7] =
        [Self::New, Self::Starting, Self::Healthy, Self::Unhealthy, Self::Stale, Self::Gone, Self::Lost];

    /// Nomad's `Healthy`.
    #[must_use]
    pub fn is_healthy(self) -> bool {
        self == Self::Healthy
    }

    /// The phase in JSON, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Stale => "stale",
            Self::Gone => "gone",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How what a kubelet believes of a node's driver compares with the driver. Registered is not available: a kubelet asks a
/// driver once, and believes in it until the registration socket goes or the kubelet starts anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    /// It is announced under its name, and somebody listens at both sockets. Whether the kubelet has followed yet only the
    /// kubelet knows; a registrar that it refuses ends.
    Ok,
    /// The driver is there, and no registration socket names it.
    Unregistered,
    /// The registration is there without its driver, or without its registrar.
    OrphanSocket,
    /// It is registered under another name than it gives itself.
    NameDiffers,
}

impl Registration {
    /// The verdict in JSON and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unregistered => "unregistered",
            Self::OrphanSocket => "orphan socket",
            Self::NameDiffers => "name differs",
        }
    }
}

/// Why an instance is in its phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Nomad's `HealthDescription`, in its templates (`fingerprinting.md` 1.6, G8, G9).
    pub description: Arc<str>,
    /// The code behind it, where one is.
    #[serde(default)]
    pub code: Option<Code>,
    /// What happened and what to do, for a person; empty when there is nothing to say.
    #[serde(default)]
    pub text: Box<str>,
}

impl Reason {
    /// A description that explains itself.
    #[must_use]
    pub fn plain(description: &str) -> Self {
        Self { description: description.into(), code: None, text: Box::default() }
    }
}

/// A job of an orchestrator, of whose allocations some run drivers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Job {
    /// The namespace it is in.
    pub namespace: Box<str>,
    /// Its id there.
    pub id: Box<str>,
}

/// Who runs the instance, as far as is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// Nomad's allocation id, or a pod's UID; empty if unknown.
    #[serde(default)]
    pub alloc_id: Box<str>,
    /// The job that wants it to run; `None` where no orchestrator said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Arc<Job>>,
}

impl Owner {
    /// Who runs an instance of which nothing but the allocation is known.
    #[must_use]
    pub fn allocation(id: &str) -> Self {
        Self { alloc_id: id.into(), job: None }
    }
}

/// What is stored of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which instance.
    pub key: InstanceKey,
    /// How it is.
    pub phase: Phase,
    /// Why.
    pub reason: Reason,
    /// Since when it has been in this phase.
    pub since: Timestamp,
    /// When a field that Nomad's shape shows last changed (rule G10).
    pub update_time: Timestamp,
    /// Whether it was healthy once: from then on it counts (rule A2).
    pub was_healthy: bool,
    /// Whether it was healthy or starting once: from then on failures are no longer "initial" (rule G8).
    pub has_answered: bool,
    /// The last complete fingerprint, kept over failures (rule G6); `None` until there was one.
    pub fingerprint: Option<Fingerprint>,
    /// Who runs it.
    #[serde(default)]
    pub owner: Owner,
    /// Path of the socket behind which it lives.
    pub socket: Arc<str>,
    /// Whether the socket was named by configuration: such an instance is retired when its address is taken out.
    #[serde(default)]
    pub is_configured: bool,
    /// What a kubelet believes of it; `None` where no kubelet is concerned.
    #[serde(default)]
    pub registration: Option<Registration>,
}

impl Record {
    /// Takes what another instance of the plugin has too from there: of a hundred thousand records, most is the same.
    pub(super) fn share(&mut self, other: &Self) {
        share(&mut self.socket, &other.socket);
        share(&mut self.reason.description, &other.reason.description);
        if self.owner.job == other.owner.job {
            self.owner.job.clone_from(&other.owner.job);
        }
        let (Some(mine), Some(theirs)) = (&mut self.fingerprint, &other.fingerprint) else { return };
        if mine.product == theirs.product {
            mine.product = Arc::clone(&theirs.product);
        }
        if let (Some(mine), Some(theirs)) = (&mut mine.node, &theirs.node)
            && let (Some(mine), Some(theirs)) = (&mut mine.topology, &theirs.topology)
            && let (Some(mine), Some(theirs)) = (&mut mine.segments, &theirs.segments)
        {
            mine.share(theirs);
        }
    }

    /// Whether it should be there: it was healthy once (rule A2), or a job wants it to run.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        self.was_healthy || self.owner.job.is_some()
    }

    /// Whether Nomad's shape shows the step from one to the next; `None`: it is not there.
    #[must_use]
    pub fn is_step_shown_by_nomad(old: Option<&Self>, new: Option<&Self>) -> bool {
        match (old, new) {
            (Some(old), Some(new)) => (old.is_expected() || new.is_expected()) && !old.is_alike_to_nomad(new),
            (Some(one), None) | (None, Some(one)) => one.is_expected(),
            (None, None) => false,
        }
    }

    /// Whether Nomad's shape would print the same record, its `UpdateTime` apart.
    #[must_use]
    pub fn is_alike_to_nomad(&self, other: &Self) -> bool {
        if !self.was_healthy && !other.was_healthy {
            // Neither is printed; what they are to their jobs is.
            return self.owner.job == other.owner.job;
        }
        fn shown(record: &Record) -> impl PartialEq + '_ {
            let fingerprint = record.fingerprint.as_ref();
            let product = fingerprint.map(|f| &*f.product);
            (
                record.was_healthy,
                record.phase.is_healthy(),
                &record.reason.description,
                &record.owner,
                product.map(|p| (&p.provider, &p.version, p.requires_controller(), p.requires_topologies())),
                product.and_then(|p| p.controller.as_ref()).filter(|_| record.key.role == Role::Controller),
                product.and_then(|p| p.node.as_ref()).filter(|_| record.key.role == Role::Node),
                fingerprint.and_then(|f| f.node.as_deref()),
            )
        }
        shown(self) == shown(other)
    }
}
