//! The side table of sockets: what is seen of each, moved by every look, and moving no index.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::socket::{DirectoryEvents, Duplicate, IgnoredSocket, Searched, SocketStatus, WantedSocket};

/// What is seen of each socket, by path, and where they are looked for. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Sockets(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    watched: BTreeMap<Arc<Path>, SocketStatus>,
    ignored: Vec<IgnoredSocket>,
    /// Found, and not watched before somebody says what they are.
    held_back: Vec<IgnoredSocket>,
    searched: Vec<Searched>,
    duplicates: Vec<Duplicate>,
    events: DirectoryEvents,
}

impl Sockets {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        // Entries are replaced whole: a panic under the lock cannot have left half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the sources saw just now.
    pub fn put_search(&self, searched: Vec<Searched>, ignored: Vec<IgnoredSocket>) {
        let mut table = self.table();
        table.searched = searched;
        table.ignored = ignored;
    }

    /// Sockets that are not watched before somebody says what they are; all of them.
    pub fn put_held_back(&self, held_back: Vec<IgnoredSocket>) {
        self.table().held_back = held_back;
    }

    /// How changes are learnt of from now on.
    pub fn put_events(&self, events: DirectoryEvents) {
        self.table().events = events;
    }

    /// How changes are learnt of.
    #[must_use]
    pub fn events(&self) -> DirectoryEvents {
        self.table().events.clone()
    }

    /// Which sockets do not count beside others.
    pub fn put_duplicates(&self, duplicates: Vec<Duplicate>) {
        self.table().duplicates = duplicates;
    }

    /// Sockets that do not count beside others.
    #[must_use]
    pub fn duplicates(&self) -> Vec<Duplicate> {
        self.table().duplicates.clone()
    }

    /// Every place that is searched.
    #[must_use]
    pub fn searched(&self) -> Vec<Searched> {
        self.table().searched.clone()
    }

    /// What was seen just now.
    pub fn put(&self, path: Arc<Path>, status: SocketStatus) {
        self.table().watched.insert(path, status);
    }

    /// The socket is wanted no longer.
    pub fn remove(&self, path: &Path) {
        self.table().watched.remove(path);
    }

    /// All of them, by path, those that the sources left alone included.
    #[must_use]
    pub fn all(&self) -> Vec<SocketStatus> {
        let table = self.table();
        let ignored = table.ignored.iter().chain(&table.held_back);
        let ignored = ignored.filter(|ignored| !table.watched.contains_key(&*ignored.path));
        let mut all: BTreeMap<&Path, SocketStatus> =
            ignored.map(|ignored| (&*ignored.path, left_alone(ignored))).collect();
        all.extend(table.watched.iter().map(|(path, status)| (&**path, status.clone())));
        all.into_values().collect()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<SocketStatus> {
        self.table().watched.get(Path::new(path)).cloned()
    }
}

fn left_alone(ignored: &IgnoredSocket) -> SocketStatus {
    let wanted = WantedSocket::found(ignored.path.clone(), ignored.source);
    SocketStatus { reason: ignored.reason.as_str().into(), is_ignored: true, ..SocketStatus::new(&wanted) }
}
