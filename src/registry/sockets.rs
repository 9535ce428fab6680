//! The side table of this host's sockets: what is seen of each, moved by every look, and moving no index.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::id::HostId;
use crate::domain::socket::{
    DirectoryEvents, Duplicate, HostSockets, IgnoredSocket, Searched, SocketStatus, WantedSocket,
};

/// What is seen of each socket, by path, and where they are looked for. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Sockets(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// `None`: no host's, as at an aggregator, which looks at none.
    host: Option<HostId>,
    table: Mutex<Table>,
    moved: Notify,
}

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
    /// Those of a host.
    #[must_use]
    pub fn of(host: HostId) -> Self {
        Self(Arc::new(Shared { host: Some(host), ..Shared::default() }))
    }

    /// Whose they are.
    #[must_use]
    pub fn host(&self) -> Option<&HostId> {
        self.0.host.as_ref()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Entries are replaced whole: a panic under the lock cannot have left half of one.
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes this a part of the table, and says so where it was another.
    fn replace<T: PartialEq>(&self, part: fn(&mut Table) -> &mut T, next: T) {
        let mut table = self.table();
        let held = part(&mut table);
        if *held != next {
            *held = next;
            self.0.moved.notify_waiters();
        }
    }

    /// What the sources saw just now.
    pub fn put_search(&self, searched: Vec<Searched>, ignored: Vec<IgnoredSocket>) {
        self.replace(|table| &mut table.searched, searched);
        self.replace(|table| &mut table.ignored, ignored);
    }

    /// Sockets that are not watched before somebody says what they are; all of them.
    pub fn put_held_back(&self, held_back: Vec<IgnoredSocket>) {
        self.replace(|table| &mut table.held_back, held_back);
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
        self.replace(|table| &mut table.duplicates, duplicates);
    }

    /// Sockets that do not count beside others.
    #[must_use]
    pub fn duplicates(&self) -> Vec<Duplicate> {
        self.table().duplicates.clone()
    }

    /// What was seen just now.
    pub fn put(&self, path: Arc<Path>, status: SocketStatus) {
        let told = status.told();
        let before = self.table().watched.insert(path, status);
        if before.is_none_or(|before| before.told() != told) {
            self.0.moved.notify_waiters();
        }
    }

    /// The socket is wanted no longer.
    pub fn remove(&self, path: &Path) {
        if self.table().watched.remove(path).is_some() {
            self.0.moved.notify_waiters();
        }
    }

    /// Everything about them.
    #[must_use]
    pub fn everything(&self) -> HostSockets {
        let sockets = self.all();
        let table = self.table();
        let (searched, duplicates) = (table.searched.clone(), table.duplicates.clone());
        HostSockets { searched, sockets, duplicates, left_out: 0 }
    }

    /// Resolves after the next change of what is told of them elsewhere; it counts from this call, not from the first poll.
    pub fn moved(&self) -> impl Future<Output = ()> + Send + '_ {
        self.0.moved.notified()
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
