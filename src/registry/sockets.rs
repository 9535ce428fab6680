//! The side table of sockets: what is seen of each, moved by every look, and moving no index.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::socket::SocketStatus;

/// What is seen of each socket, by path. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Sockets(Arc<Mutex<BTreeMap<Arc<Path>, SocketStatus>>>);

impl Sockets {
    fn table(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<Path>, SocketStatus>> {
        // Entries are replaced whole: a panic under the lock cannot have left half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen just now.
    pub fn put(&self, path: Arc<Path>, status: SocketStatus) {
        self.table().insert(path, status);
    }

    /// The socket is wanted no longer.
    pub fn remove(&self, path: &Path) {
        self.table().remove(path);
    }

    /// All of them, by path.
    #[must_use]
    pub fn all(&self) -> Vec<SocketStatus> {
        self.table().values().cloned().collect()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<SocketStatus> {
        self.table().get(Path::new(path)).cloned()
    }
}
