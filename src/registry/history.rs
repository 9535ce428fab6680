//! Transitions, read on demand from the store: nobody holds them in memory for the rare reader. An aggregator, which has no
//! store, holds the newest few thousand of its fleet.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::history::Transition;
use crate::domain::id::PluginId;
use crate::store::{Store, StoreError};

/// Why history cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the history")]
pub struct HistoryError(#[source] StoreError);

/// What happened. Cheap to clone.
#[derive(Debug, Clone)]
pub struct History(Source);

#[derive(Debug, Clone)]
enum Source {
    Store(Store),
    Recent(Recent),
}

/// The newest transitions of many hosts, in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recent {
    ring: Arc<Mutex<VecDeque<Transition>>>,
    most: usize,
}

impl Recent {
    /// None yet; at most so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { ring: Arc::default(), most }
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<Transition>> {
        // Each push is whole before the next one begins.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what happened after all that is there.
    pub fn push(&self, transitions: impl IntoIterator<Item = Transition>) {
        let mut ring = self.ring();
        ring.extend(transitions);
        let excess = ring.len().saturating_sub(self.most);
        ring.drain(..excess);
    }

    /// Adds what was read elsewhere, some of which may be there already.
    pub fn merge(&self, transitions: Vec<Transition>) {
        let mut ring = self.ring();
        let read: BTreeSet<_> = transitions.iter().map(|one| (one.index, one.key.clone())).collect();
        ring.retain(|one| !read.contains(&(one.index, one.key.clone())));
        ring.extend(transitions);
        ring.make_contiguous().sort_by_key(|one| one.index);
        let excess = ring.len().saturating_sub(self.most);
        ring.drain(..excess);
    }

    /// None of it is true any more.
    pub fn clear(&self) {
        self.ring().clear();
    }

    fn newest(&self, plugin: Option<&PluginId>, limit: usize) -> Vec<Transition> {
        let ring = self.ring();
        let asked = ring.iter().rev().filter(|transition| plugin.is_none_or(|id| transition.key.plugin == *id));
        asked.take(limit).cloned().collect()
    }
}

impl History {
    /// The history that a store keeps.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self(Source::Store(store))
    }

    /// The history of a fleet.
    #[must_use]
    pub fn recent(recent: Recent) -> Self {
        Self(Source::Recent(recent))
    }

    /// The newest transitions, newest first, of one plugin or of all.
    ///
    /// # Errors
    /// [`HistoryError`] if the store does not answer.
    pub async fn newest(&self, plugin: Option<PluginId>, limit: usize) -> Result<Vec<Transition>, HistoryError> {
        match &self.0 {
            Source::Store(store) => store.history(plugin, limit).await.map_err(HistoryError),
            Source::Recent(recent) => Ok(recent.newest(plugin.as_ref(), limit)),
        }
    }
}
