//! Transitions, read on demand from the store: nobody holds them in memory for the rare reader.

use crate::domain::history::Transition;
use crate::domain::id::PluginId;
use crate::store::{Store, StoreError};

/// Why history cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the history")]
pub struct HistoryError(#[source] StoreError);

/// What happened. Cheap to clone.
#[derive(Debug, Clone)]
pub struct History {
    store: Store,
}

impl History {
    /// The history that a store keeps.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The newest transitions, newest first, of one plugin or of all.
    ///
    /// # Errors
    /// [`HistoryError`] if the store does not answer.
    pub async fn newest(&self, plugin: Option<PluginId>, limit: usize) -> Result<Vec<Transition>, HistoryError> {
        self.store.history(plugin, limit).await.map_err(HistoryError)
    }
}
