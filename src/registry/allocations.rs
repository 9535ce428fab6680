//! The side table of allocations: what the orchestrator says of those that run drivers. It moves no index.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::domain::allocation::{Allocation, Orchestrator};
use crate::domain::id::Role;
use crate::domain::plugin::Plugin;

/// Allocations by id, and how their orchestrator is reached. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Allocations(Arc<RwLock<Table>>);

#[derive(Debug, Default)]
struct Table {
    allocations: BTreeMap<Box<str>, Arc<Allocation>>,
    orchestrator: Option<Orchestrator>,
    unnamed: usize,
}

impl Allocations {
    /// What is known from now on, all of it.
    pub fn replace(&self, allocations: impl IntoIterator<Item = Allocation>) {
        let allocations = allocations.into_iter().map(|one| (one.id.clone(), Arc::new(one))).collect();
        // Replaced whole: a panic under the lock cannot have left half of it.
        self.0.write().unwrap_or_else(PoisonError::into_inner).allocations = allocations;
    }

    /// How their orchestrator is reached from now on.
    pub fn put_orchestrator(&self, orchestrator: Orchestrator) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).orchestrator = Some(orchestrator);
    }

    /// Of how many sockets it says nothing from now on.
    pub fn put_unnamed(&self, unnamed: usize) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).unnamed = unnamed;
    }

    /// How their orchestrator is reached; `None`: nobody asks it.
    #[must_use]
    pub fn orchestrator(&self) -> Option<Orchestrator> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.orchestrator.clone().map(|known| Orchestrator { unnamed: table.unnamed, ..known })
    }

    /// The allocations that run a plugin's instances and are in `namespace` (`*`: in any), newest change first.
    #[must_use]
    pub fn of(&self, plugin: &Plugin, namespace: &str) -> Vec<Arc<Allocation>> {
        let table = &self.0.read().unwrap_or_else(PoisonError::into_inner).allocations;
        if table.is_empty() {
            return Vec::new();
        }
        let instances = [Role::Controller, Role::Node].into_iter().flat_map(|role| plugin.counting(role));
        let mut ids: Vec<&str> = instances.map(|instance| &*instance.record.owner.alloc_id).collect();
        ids.sort_unstable();
        ids.dedup();
        let known = ids.into_iter().filter_map(|id| table.get(id));
        let mut shown: Vec<_> =
            known.filter(|one| namespace == "*" || *one.namespace == *namespace).map(Arc::clone).collect();
        shown.sort_by_key(|one| std::cmp::Reverse(one.modify_index));
        shown
    }
}
