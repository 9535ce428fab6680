//! The side table of allocations: what orchestrators say of those that run drivers. It moves no index.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::Notify;

use crate::domain::allocation::{Allocation, Orchestrator};
use crate::domain::id::Role;
use crate::domain::plugin::Plugin;

/// Allocations by id, and how their orchestrator is reached. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Allocations(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    table: RwLock<Table>,
    moved: Notify,
}

#[derive(Debug, Default)]
struct Table {
    allocations: BTreeMap<Box<str>, Arc<Allocation>>,
    is_told: bool,
    orchestrator: Option<Orchestrator>,
    unnamed: usize,
}

impl Allocations {
    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.0.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        // Entries are replaced whole: a panic under the lock cannot have left half of one.
        change(&mut self.0.table.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// What is known from now on, all of it.
    pub fn replace(&self, allocations: impl IntoIterator<Item = Allocation>) {
        let allocations = allocations.into_iter().map(|one| (one.id.clone(), Arc::new(one))).collect();
        self.change(|table| (table.allocations, table.is_told) = (allocations, true));
        self.0.moved.notify_waiters();
    }

    /// This is what is known of one from now on.
    pub fn put(&self, allocation: Allocation) {
        self.change(|table| drop(table.allocations.insert(allocation.id.clone(), Arc::new(allocation))));
    }

    /// Nothing is known of this one any more.
    pub fn remove(&self, id: &str) {
        self.change(|table| drop(table.allocations.remove(id)));
    }

    /// All that are known; `None` before anybody has said which there are.
    #[must_use]
    pub fn all(&self) -> Option<Vec<Arc<Allocation>>> {
        let table = self.table();
        table.is_told.then(|| table.allocations.values().cloned().collect())
    }

    /// Resolves after the next [`Allocations::replace`]; it counts from this call, not from the first poll.
    pub fn replaced(&self) -> impl Future<Output = ()> + Send + '_ {
        self.0.moved.notified()
    }

    /// How their orchestrator is reached from now on.
    pub fn put_orchestrator(&self, orchestrator: Orchestrator) {
        self.change(|table| table.orchestrator = Some(orchestrator));
    }

    /// Of how many sockets it says nothing from now on.
    pub fn put_unnamed(&self, unnamed: usize) {
        self.change(|table| table.unnamed = unnamed);
    }

    /// How their orchestrator is reached; `None`: nobody asks it.
    #[must_use]
    pub fn orchestrator(&self) -> Option<Orchestrator> {
        let table = self.table();
        table.orchestrator.clone().map(|known| Orchestrator { unnamed: table.unnamed, ..known })
    }

    /// The allocations that run a plugin's instances and are in `namespace` (`*`: in any), newest change first.
    #[must_use]
    pub fn of(&self, plugin: &Plugin, namespace: &str) -> Vec<Arc<Allocation>> {
        let table = &self.table().allocations;
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
