//! The side table of agents: which are there, since when, and of which release. It moves no index.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use crate::domain::id::HostId;
use crate::domain::time::Timestamp;

/// An agent that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// When it registered.
    pub since: Timestamp,
    /// Its release.
    pub version: Box<str>,
}

/// Agents by their hosts. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Agents(Arc<RwLock<BTreeMap<HostId, Agent>>>);

impl Agents {
    fn table(&self) -> RwLockWriteGuard<'_, BTreeMap<HostId, Agent>> {
        // Entries are replaced whole: a panic under the lock cannot have left half of one.
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are all there are.
    pub fn replace(&self, agents: BTreeMap<HostId, Agent>) {
        *self.table() = agents;
    }

    /// What is known of a host's agent from now on; `None`: it is not there.
    pub fn put(&self, host: HostId, agent: Option<Agent>) {
        match agent {
            Some(agent) => self.table().insert(host, agent),
            None => self.table().remove(&host),
        };
    }

    /// A host's agent; `None`: it is not there.
    #[must_use]
    pub fn of(&self, host: &str) -> Option<Agent> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }
}
