//! Bodies made once per change and shared.
//!
//! A plugin's body is kept under its id together with the very value it was made from: another value, and the body is
//! made anew. Only plugins that exist are looked up here, so no client can fill this with names it made up. Bounded by
//! bytes; what was not asked for since the hand last came by goes first. Compressed bodies are entries of their own.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use bytes::Bytes;

use super::ReadShape;
use super::content::{Coding, Content, Packed};
use super::wire::{documented, json, nomad};
use crate::domain::allocation::Allocation;
use crate::domain::catalog::Catalog;
use crate::domain::id::PluginId;
use crate::domain::plugin::Plugin;
use crate::domain::time::Index;

/// Bytes of bodies kept at most.
const LIMIT: usize = 16 << 20;
/// What an entry costs beside its body: key, table slots, the allocation that the weak reference keeps.
const OVERHEAD: usize = 384;
/// Plugins whose bodies can be made at the same time, if no two fall on one place: more than a machine has cores.
const MAKING: usize = 32;

/// How a body is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Form {
    /// Whose shape.
    pub(super) shape: ReadShape,
    /// Indented.
    pub(super) is_pretty: bool,
}

impl Form {
    /// How much of a body may be another for another reader.
    fn beginning(self) -> usize {
        if self.shape == ReadShape::Nomad && !self.is_pretty { nomad::NO_ALLOCATIONS.len() } else { 0 }
    }
}

/// A form, and whether it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place(usize);

impl Place {
    /// How many there are.
    const COUNT: usize = 8;

    fn of(form: Form, is_packed: bool) -> Self {
        Self(4 * form.shape as usize + 2 * usize::from(form.is_pretty) + usize::from(is_packed))
    }
}

type Key = (PluginId, Place);

/// A body that is kept.
#[derive(Debug, Clone)]
enum Kept {
    Plain(Bytes),
    Packed(Packed),
}

impl Kept {
    fn len(&self) -> usize {
        match self {
            Self::Plain(body) => body.len(),
            Self::Packed(packed) => packed.len(),
        }
    }

    fn content(&self, coding: Coding) -> Content {
        match self {
            Self::Plain(body) => Content::Plain(body.clone()),
            Self::Packed(packed) => Content::Coded(packed.coded(coding)),
        }
    }
}

struct Entry {
    /// The allocation cannot be reused as long as this refers to it, so an equal address is the same value.
    plugin: Weak<Plugin>,
    body: Kept,
    was_used: AtomicBool,
}

impl Entry {
    fn cost(&self) -> usize {
        self.body.len() + OVERHEAD
    }
}

#[derive(Default)]
struct Table {
    /// By the place of their form, so that a look needs no key of its own: its id is shared by all readers.
    entries: [HashMap<PluginId, Entry>; Place::COUNT],
    /// Every key of `entries` once; the hand is at the front.
    clock: VecDeque<Key>,
    bytes: usize,
}

impl Table {
    fn find(&self, plugin: &Arc<Plugin>, place: Place) -> Option<&Kept> {
        let entry = self.entries[place.0].get(&plugin.id)?;
        if !std::ptr::eq(entry.plugin.as_ptr(), Arc::as_ptr(plugin)) {
            return None;
        }
        // Only the first use writes: readers on two cores share the line otherwise.
        if !entry.was_used.load(Ordering::Relaxed) {
            entry.was_used.store(true, Ordering::Relaxed);
        }
        Some(&entry.body)
    }

    fn put(&mut self, key: Key, entry: Entry, limit: usize) {
        if entry.cost() > limit {
            return;
        }
        self.bytes += entry.cost();
        match self.entries[key.1.0].insert(key.0.clone(), entry) {
            Some(old) => self.bytes -= old.cost(),
            None => self.clock.push_back(key),
        }
        while self.bytes > limit {
            let Some(key) = self.clock.pop_front() else { return };
            let entries = &mut self.entries[key.1.0];
            match entries.get_mut(&key.0) {
                Some(entry) if entry.was_used.load(Ordering::Relaxed) && entry.plugin.strong_count() > 0 => {
                    *entry.was_used.get_mut() = false;
                    self.clock.push_back(key);
                }
                _ => {
                    if let Some(gone) = entries.remove(&key.0) {
                        self.bytes -= gone.cost();
                    }
                }
            }
        }
    }
}

/// Bodies made once.
#[derive(Default)]
pub(super) struct Bodies {
    reads: RwLock<Table>,
    /// Held by whoever makes a plugin's body: all who were woken by one change ask for it in one moment.
    making: [Mutex<()>; MAKING],
    /// As it is, and compressed.
    lists: [RwLock<Option<(Index, Kept)>>; 2],
}

// A cache: whatever a panic left behind is at worst one body that is made again.
fn shared<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn exclusive<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Bodies {
    /// Until it is dropped, nobody else makes a body of this plugin. Never held across an await, so what waits is a thread,
    /// for as long as it would have made the same bytes.
    fn making(&self, plugin: &Arc<Plugin>) -> MutexGuard<'_, ()> {
        // Allocations lie apart by what a plugin needs, so not every bit of the address tells one from another.
        let address = Arc::as_ptr(plugin).addr();
        self.making[(address >> 6 ^ address >> 12) % MAKING].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The read body of a plugin.
    pub(super) fn read(&self, plugin: &Arc<Plugin>, form: Form, coding: Coding) -> Content {
        let is_packed = coding != Coding::Identity;
        let place = Place::of(form, is_packed);
        let kept = || Some(shared(&self.reads).find(plugin, place)?.content(coding));
        if let Some(content) = kept() {
            return content;
        }
        // Made outside the table's lock: nobody waits for another plugin's body.
        let _making = self.making(plugin);
        if let Some(content) = kept() {
            return content;
        }
        let body = if is_packed {
            // Whoever wants it compressed does not want it as it is, so that is used where it is, and not kept.
            let plain = self.kept(plugin, form).unwrap_or_else(|| made(plugin, form).into());
            let (beginning, rest) = plain.split_at(form.beginning());
            Kept::Packed(Packed::with_beginning(beginning, rest))
        } else {
            Kept::Plain(made(plugin, form).into())
        };
        let content = body.content(coding);
        let entry = Entry { plugin: Arc::downgrade(plugin), body, was_used: AtomicBool::new(false) };
        exclusive(&self.reads).put((plugin.id.clone(), place), entry, LIMIT);
        content
    }

    /// The read body for a reader who is shown allocations: they are its beginning, and the rest is everybody's.
    pub(super) fn read_with(
        &self,
        plugin: &Arc<Plugin>,
        form: Form,
        coding: Coding,
        shown: &[Arc<Allocation>],
    ) -> Content {
        if shown.is_empty() || form.shape == ReadShape::Documented {
            return self.read(plugin, form, coding);
        }
        let mut beginning = nomad::allocations(shown);
        if form.is_pretty {
            // Read by people: made for each of them.
            let form = Form { is_pretty: false, ..form };
            beginning.extend_from_slice(made(plugin, form).get(form.beginning()..).unwrap_or_default());
            return json::indented(&beginning).into();
        }
        // Makes it, if it is not kept; what is too large to be kept is made twice.
        let whole = self.read(plugin, form, coding);
        if let Some(Kept::Packed(packed)) = shared(&self.reads).find(plugin, Place::of(form, true))
            && coding != Coding::Identity
        {
            return Content::Parts(packed.behind(&beginning, coding));
        }
        let plain = match whole {
            Content::Plain(plain) => plain,
            _ => made(plugin, form).into(),
        };
        let rest = plain.slice(form.beginning().min(plain.len())..);
        if coding == Coding::Identity {
            return Content::Parts(vec![beginning.into(), rest]);
        }
        beginning.extend_from_slice(&rest);
        beginning.into()
    }

    /// The read body as it is, in Nomad's shape.
    pub(super) fn plain(&self, plugin: &Arc<Plugin>) -> Bytes {
        let form = Form { shape: ReadShape::Nomad, is_pretty: false };
        match self.read(plugin, form, Coding::Identity) {
            Content::Plain(body) => body,
            _ => made(plugin, form).into(),
        }
    }

    /// A body as it is, if it is kept.
    fn kept(&self, plugin: &Arc<Plugin>, form: Form) -> Option<Bytes> {
        match shared(&self.reads).find(plugin, Place::of(form, false))? {
            Kept::Plain(body) => Some(body.clone()),
            Kept::Packed(_) => None,
        }
    }

    /// The body of the whole list, compact.
    pub(super) fn list(&self, catalog: &Catalog, coding: Coding) -> Content {
        let index = catalog.nomad_index();
        let is_packed = coding != Coding::Identity;
        let place = &self.lists[usize::from(is_packed)];
        let kept = |place: &Option<(Index, Kept)>| match place {
            Some((made_at, body)) if *made_at == index => Some(body.content(coding)),
            _ => None,
        };
        if let Some(content) = kept(&shared(place)) {
            return content;
        }
        // Who waits here wants the very list that is being made, or one of another index.
        let mut place = exclusive(place);
        if let Some(content) = kept(&place) {
            return content;
        }
        let plain = nomad::list_body(catalog.counting_plugins("").map(|plugin| &**plugin));
        let body = if is_packed { Kept::Packed(Packed::new(&plain)) } else { Kept::Plain(plain.into()) };
        let content = body.content(coding);
        *place = Some((index, body));
        content
    }
}

/// A plugin's body, made now.
fn made(plugin: &Plugin, form: Form) -> Vec<u8> {
    let compact = match form.shape {
        ReadShape::Nomad => nomad::read_body(plugin),
        ReadShape::Documented => documented::read_body(plugin),
    };
    let mut body = if form.is_pretty { json::indented(&compact) } else { compact };
    // Not for little: an allocator that is given back a large body's last page maps the next one anew.
    if body.capacity() - body.len() > body.len() / 16 {
        body.shrink_to_fit();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::catalog::RecordChange;
    use crate::domain::id::{HostId, InstanceKey, Role};
    use crate::domain::record::{Owner, Phase, Reason, Record};
    use crate::domain::time::Timestamp;

    const PLACE: Place = Place(0);

    fn key(name: &str) -> Key {
        (PluginId::parse(name).expect("legal"), PLACE)
    }

    fn entry(plugin: &Arc<Plugin>, size: usize) -> Entry {
        let body = Kept::Plain(Bytes::from(vec![b'x'; size]));
        Entry { plugin: Arc::downgrade(plugin), body, was_used: AtomicBool::new(false) }
    }

    fn change(plugin: &str, host: &str) -> RecordChange {
        RecordChange::Put(Box::new(Record {
            key: InstanceKey {
                plugin: PluginId::parse(plugin).expect("legal"),
                role: Role::Node,
                host: HostId::parse(host).expect("legal"),
            },
            phase: Phase::Healthy,
            reason: Reason::plain("healthy"),
            since: Timestamp(1),
            update_time: Timestamp(1),
            was_healthy: true,
            has_answered: true,
            fingerprint: None,
            owner: Owner::default(),
            socket: "/x".into(),
            is_configured: true,
            registration: None,
        }))
    }

    fn plugins(count: usize) -> Vec<Arc<Plugin>> {
        let changes: Vec<_> = (0..count).map(|number| change(&format!("p{number}"), "host-one")).collect();
        let (catalog, _) = Catalog::default().with(&changes, Index(1), Timestamp(1));
        catalog.plugins().cloned().collect()
    }

    #[test]
    fn every_form_has_a_place_of_its_own() {
        let mut places = std::collections::BTreeSet::new();
        for shape in [ReadShape::Nomad, ReadShape::Documented] {
            for (is_pretty, is_packed) in [(false, false), (false, true), (true, false), (true, true)] {
                places.insert(Place::of(Form { shape, is_pretty }, is_packed).0);
            }
        }
        assert_eq!(places.into_iter().collect::<Vec<_>>(), (0..Place::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn readers_that_come_together_share_one_body() {
        let bodies = Bodies::default();
        let form = Form { shape: ReadShape::Nomad, is_pretty: false };
        let hosts: Vec<_> = (0..1_000).map(|host| change("nfs", &format!("host-{host}"))).collect();
        for (round, coding) in [Coding::Identity, Coding::Gzip].into_iter().cycle().take(10).enumerate() {
            let index = Index(1 + round as u64);
            let (catalog, _) = Catalog::default().with(&hosts, index, Timestamp(1));
            let plugin = catalog.plugins().next().expect("one");
            let barrier = std::sync::Barrier::new(4);
            let address = |content: Content| match content {
                Content::Plain(body) | Content::Coded(body) => body.as_ptr().addr(),
                other => panic!("{other:?}"),
            };
            let at_once = |read: &(dyn Fn() -> Content + Sync)| {
                std::thread::scope(|scope| {
                    let readers = [(); 4].map(|()| {
                        scope.spawn(|| {
                            barrier.wait();
                            read()
                        })
                    });
                    // Held until all have theirs, or one's could be where another's was.
                    let contents = readers.map(|reader| reader.join().expect("a body"));
                    contents.map(address)
                })
            };
            let reads = at_once(&|| bodies.read(plugin, form, coding));
            assert!(reads.iter().all(|address| *address == reads[0]), "{coding:?}: {reads:?}");
            let lists = at_once(&|| bodies.list(&catalog, coding));
            assert!(lists.iter().all(|address| *address == lists[0]), "{coding:?}: {lists:?}");
        }
    }

    #[test]
    fn a_body_made_from_another_value_is_not_found() {
        let (first, second) = (plugins(1).remove(0), plugins(1).remove(0));
        let mut table = Table::default();
        table.put(key("p0"), entry(&first, 10), 10_000);
        assert!(table.find(&first, PLACE).is_some());
        assert!(table.find(&second, PLACE).is_none());
        table.put(key("p0"), entry(&second, 20), 10_000);
        assert!(table.find(&first, PLACE).is_none());
        assert!(table.find(&second, PLACE).is_some());
        assert_eq!((table.entries[PLACE.0].len(), table.clock.len(), table.bytes), (1, 1, 20 + OVERHEAD));
    }

    #[test]
    fn the_table_stays_within_its_bytes_and_keeps_what_is_asked_for() {
        let limit = 20 * (100 + OVERHEAD);
        let plugins = plugins(100);
        let mut table = Table::default();
        for plugin in &plugins {
            let key = (plugin.id.clone(), PLACE);
            table.put(key, entry(plugin, 100), limit);
            assert!(table.bytes <= limit);
            // Asked for all the time, so it stays.
            assert!(table.find(&plugins[0], PLACE).is_some());
        }
        assert_eq!(table.entries[PLACE.0].len(), 20);
        assert_eq!(table.clock.len(), 20);
        table.put(key("p50"), entry(&plugins[50], limit), limit);
        assert!(table.bytes <= limit, "what is larger than everything is not kept");
    }
}
