//! From what etcd holds to what is shown: a fold, without etcd and without a clock.
//!
//! What an aggregator shows is a function of the keys at one revision, so that all of them show the same under the same
//! index, whether they followed or have just read everything. Records of hosts that are not here are held back: under
//! their instances a lost host's silence is shown instead, and of one that never registered, nothing.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use super::etcd::Read;
use super::keys::{Alive, Expected, HostState, Key, Keys, PluginDates, Presence, Stub};
use crate::domain::allocation::Allocation;
use crate::domain::catalog::{Catalog, RecordChange};
use crate::domain::expected::{DeclaredCounts, HostPattern};
use crate::domain::history::Transition;
use crate::domain::id::{HostId, InstanceKey, PluginId, Role};
use crate::domain::plugin::Dates;
use crate::domain::record::{Phase, Reason, Record, SILENT_HOST};
use crate::domain::socket::HostSockets;
use crate::domain::time::{Index, Timestamp};
use crate::registry::agents::Agent;
use crate::registry::reporter;
use crate::store::record::Stored;

/// An instance on a known host.
type Local = (Role, PluginId);

/// One host.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// Whether an agent is bound to it.
    pub(super) is_alive: bool,
    /// What it was last declared to be, and at which revision.
    pub(super) state: Option<(HostState, i64)>,
    /// Its instances.
    instances: BTreeSet<Local>,
    /// Its records as its agent wrote them, while they are not shown.
    held: BTreeMap<Local, Box<Record>>,
}

impl Host {
    pub(super) fn is_here(&self) -> bool {
        self.state.is_some_and(|(state, _)| state.state == Presence::Here)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// The revision of its state; 0: it has none.
    pub(super) fn state_revision(&self) -> i64 {
        self.state.map_or(0, |(_, revision)| revision)
    }
}

/// One plugin.
#[derive(Debug, Default)]
pub(super) struct PluginEntry {
    /// `plugins/<id>`: created, moved, when.
    pub(super) dates: Option<(i64, i64, Timestamp)>,
    /// Largest revision of a state that concerned it.
    hosts_revision: i64,
    /// Instances in etcd, those that are not shown included.
    pub(super) instances: usize,
    expected: Option<(Expected, Option<HostPattern>)>,
    /// Known hosts that the pattern matches.
    matching: u32,
}

impl PluginEntry {
    fn declared(&self) -> DeclaredCounts {
        let Some((expected, pattern)) = &self.expected else { return DeclaredCounts::default() };
        let nodes = expected.nodes.or(pattern.as_ref().map(|_| self.matching));
        DeclaredCounts { nodes, controllers: expected.controllers }
    }

    fn tell(&self) -> (Option<Dates>, DeclaredCounts) {
        let declared = self.declared();
        let dates = self.dates.map(|(created, moved, time)| Dates {
            create_index: index(created),
            modify_index: index(moved.max(self.hosts_revision)),
            create_time: time,
            declared,
        });
        (dates, declared)
    }

    /// What is declared, as it stands in etcd.
    pub(super) fn expected(&self) -> Option<&Expected> {
        self.expected.as_ref().map(|(expected, _)| expected)
    }
}

/// What etcd holds.
#[derive(Debug)]
pub(super) struct View {
    keys: Keys,
    pub(super) hosts: BTreeMap<HostId, Host>,
    pub(super) plugins: BTreeMap<PluginId, PluginEntry>,
    index: i64,
    nomad_index: i64,
    /// Hosts by presence; counted as they change, since a change of one must not cost more where there are many.
    here: usize,
    lost: usize,
    /// Keys of values that could not be read, each said once.
    unreadable: BTreeSet<Vec<u8>>,
}

/// What a step shows.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) changes: Vec<RecordChange>,
    pub(super) affected: BTreeSet<PluginId>,
    pub(super) transitions: Vec<Transition>,
    /// Agents that came (`None`: went).
    pub(super) agents: Vec<(HostId, Option<Agent>)>,
    /// What is said of allocations, by their ids; `None`: nothing any more.
    pub(super) allocations: Vec<(Box<str>, Option<Allocation>)>,
    /// What is told of hosts' sockets; `None`: nothing any more.
    pub(super) sockets: Vec<(HostId, Option<HostSockets>)>,
    /// Hosts whose state or life moved, or that have fewer instances.
    pub(super) hosts: BTreeSet<HostId>,
    /// Plugins that may have no instance any more.
    pub(super) emptied: BTreeSet<PluginId>,
}

fn index(revision: i64) -> Index {
    // 0 makes Nomad's SDK spin.
    Index(u64::try_from(revision).unwrap_or_default().max(1))
}

impl View {
    pub(super) fn new(keys: Keys) -> Self {
        Self {
            keys,
            hosts: BTreeMap::new(),
            plugins: BTreeMap::new(),
            index: 0,
            nomad_index: 0,
            here: 0,
            lost: 0,
            unreadable: BTreeSet::new(),
        }
    }

    /// The fleet's indexes: of everything, and of what Nomad shows.
    pub(super) fn indexes(&self) -> (Index, Index) {
        (index(self.index), index(self.nomad_index))
    }

    /// The newest revision that moved the index; 0: none did.
    pub(super) fn moved(&self) -> i64 {
        self.index
    }

    /// Hosts by presence: here, lost.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.here, self.lost)
    }

    /// Plugins of which a host like this is expected to have one.
    pub(super) fn expecting(&self, host: &HostId) -> Vec<PluginId> {
        let matches = |entry: &PluginEntry| {
            entry.expected.as_ref().is_some_and(|(_, pattern)| pattern.as_ref().is_some_and(|p| p.matches(host)))
        };
        self.plugins.iter().filter(|(_, entry)| matches(entry)).map(|(id, _)| id.clone()).collect()
    }

    /// What is declared of a plugin, and its dates.
    pub(super) fn tell(&self, plugin: &PluginId) -> (Option<Dates>, DeclaredCounts) {
        self.plugins.get(plugin).map(PluginEntry::tell).unwrap_or_default()
    }

    /// The catalog after a step.
    pub(super) fn catalog(&self, current: &Catalog, step: &Step) -> (Catalog, Vec<crate::domain::catalog::Touched>) {
        current.following(&step.changes, &step.affected, self.indexes(), |plugin| self.tell(plugin))
    }

    /// Takes whole revisions in, in order. `current` is the catalog that showed those before.
    pub(super) fn apply(&mut self, current: &Catalog, events: impl IntoIterator<Item = (Read, bool)>) -> Step {
        let mut folding = Folding { current, raw: BTreeMap::new(), dirty: BTreeSet::new(), step: Step::default() };
        for (read, is_deleted) in events {
            self.take(&mut folding, read, is_deleted);
        }
        let Folding { mut raw, dirty, mut step, .. } = folding;
        for key in dirty {
            let host = self.hosts.get(&key.host);
            let shown = match host.and_then(|host| host.state.map(|(state, _)| (host, state))) {
                Some((_, HostState { state: Presence::Here, .. })) => match raw.remove(&key) {
                    Some(record) => record,
                    None => continue,
                },
                Some((host, HostState { state: Presence::Lost, since })) => {
                    let held = host.held.get(&(key.role, key.plugin.clone()));
                    held.map(|record| Box::new(silent(record, since)))
                }
                // Its agent is about to register.
                None => None,
            };
            let before = current.record(&key);
            let is_flip = before.map(|record| record.phase == Phase::Lost)
                != shown.as_ref().map(|record| record.phase == Phase::Lost);
            if let (Some(before), Some(next), true) = (before, &shown, is_flip) {
                // Its agent did not see this, so it tells of it nowhere.
                let (at, reason) = (next.since.max(before.since), next.reason.clone());
                step.transitions.extend(reporter::transitions(Some(before), next).into_iter().map(|change| {
                    Transition { at, index: index(self.index), key: key.clone(), change, reason: reason.clone() }
                }));
            }
            step.changes.push(match shown {
                Some(record) => RecordChange::Put(record),
                None => RecordChange::Remove(key),
            });
        }
        step
    }

    fn take(&mut self, folding: &mut Folding<'_>, read: Read, is_deleted: bool) {
        let key = self.keys.read(&read.key);
        match key {
            Key::Index => self.index = if is_deleted { self.index } else { read.mod_revision },
            Key::NomadIndex => self.nomad_index = if is_deleted { self.nomad_index } else { read.mod_revision },
            Key::Instance(key) => {
                let record = if is_deleted { None } else { self.decoded::<Record>(&read) };
                let is_there = record.is_some();
                // Under another's name it would count twice.
                let record = record.filter(|record| record.key == key);
                if is_there && record.is_none() {
                    self.complain(&read, "names another instance than its key");
                }
                self.instance(folding, key, record.map(Box::new));
            }
            Key::Alive(host) => {
                self.hosts.entry(host.clone()).or_default().is_alive = !is_deleted;
                let alive = if is_deleted { None } else { self.decoded::<Alive>(&read) };
                let agent = alive.map(|Alive { version, since, .. }| Agent { since, version });
                folding.step.agents.push((host.clone(), agent));
                folding.step.hosts.insert(host);
            }
            Key::State(host) => {
                let state = if is_deleted { None } else { self.decoded::<HostState>(&read) };
                self.state(folding, host, state.map(|state| (state, read.mod_revision)));
            }
            Key::Plugin(plugin) => {
                let dates = if is_deleted { None } else { self.decoded::<PluginDates>(&read) };
                let entry = self.plugins.entry(plugin.clone()).or_default();
                entry.dates = dates.map(|dates| (read.create_revision, read.mod_revision, dates.created));
                folding.step.emptied.insert(plugin.clone());
                folding.step.affected.insert(plugin);
            }
            Key::Expected(plugin) => {
                let expected = if is_deleted { None } else { self.decoded::<Expected>(&read) };
                let pattern = expected.as_ref().and_then(|expected| HostPattern::parse(expected.hosts.as_ref()?).ok());
                let known = self.hosts.iter().filter(|(_, host)| host.state.is_some());
                let matching = known.filter(|(id, _)| pattern.as_ref().is_some_and(|pattern| pattern.matches(id)));
                let revisions: Vec<i64> = matching.map(|(_, host)| host.state_revision()).collect();
                let entry = self.plugins.entry(plugin.clone()).or_default();
                entry.matching = u32::try_from(revisions.len()).unwrap_or(u32::MAX);
                entry.hosts_revision = revisions.into_iter().fold(entry.hosts_revision, i64::max);
                entry.expected = expected.map(|expected| (expected, pattern));
                folding.step.emptied.insert(plugin.clone());
                folding.step.affected.insert(plugin);
            }
            Key::History if !is_deleted => {
                if let Some(mut transition) = self.decoded::<Transition>(&read) {
                    transition.index = index(read.mod_revision);
                    folding.step.transitions.push(transition);
                }
            }
            Key::Stub(id) => {
                let stub = if is_deleted { None } else { self.decoded::<Stub>(&read) };
                let allocation = stub.map(|stub| stub.allocation(&id));
                folding.step.allocations.push((id, allocation));
            }
            Key::Sockets(host) => {
                let sockets = if is_deleted { None } else { self.decoded::<HostSockets>(&read) };
                folding.step.sockets.push((host, sockets));
            }
            Key::History | Key::Unknown => {}
        }
    }

    fn instance(&mut self, folding: &mut Folding<'_>, key: InstanceKey, record: Option<Box<Record>>) {
        let host = self.hosts.entry(key.host.clone()).or_default();
        let local = (key.role, key.plugin.clone());
        let entry = self.plugins.entry(key.plugin.clone()).or_default();
        match &record {
            Some(_) => entry.instances += usize::from(host.instances.insert(local.clone())),
            None => {
                entry.instances -= usize::from(host.instances.remove(&local));
                folding.step.emptied.insert(key.plugin.clone());
            }
        }
        // Whoever is not expected counts for nothing, and may go without a word.
        if record.as_ref().is_some_and(|record| record.is_expected()) {
            entry.hosts_revision = entry.hosts_revision.max(host.state_revision());
        }
        folding.step.hosts.insert(key.host.clone());
        if host.is_here() {
            folding.raw.insert(key.clone(), record);
        } else {
            match record {
                Some(record) => drop(host.held.insert(local, record)),
                None => drop(host.held.remove(&local)),
            }
        }
        folding.dirty.insert(key);
    }

    fn state(&mut self, folding: &mut Folding<'_>, id: HostId, state: Option<(HostState, i64)>) {
        let host = self.hosts.entry(id.clone()).or_default();
        let (was_here, was_known) = (host.is_here(), host.state.is_some());
        host.state = state;
        self.here = self.here + usize::from(host.is_here()) - usize::from(was_here);
        let is_lost = host.state.is_some() && !host.is_here();
        self.lost = self.lost + usize::from(is_lost) - usize::from(was_known && !was_here);
        let keys = host.instances.iter().map(|(role, plugin)| InstanceKey {
            plugin: plugin.clone(),
            role: *role,
            host: id.clone(),
        });
        let keys: Vec<InstanceKey> = keys.collect();
        match (was_here, host.is_here()) {
            (true, false) => {
                for key in &keys {
                    let staged =
                        folding.raw.remove(key).unwrap_or_else(|| folding.current.record(key).cloned().map(Box::new));
                    if let Some(record) = staged {
                        host.held.insert((key.role, key.plugin.clone()), record);
                    }
                }
            }
            (false, true) => {
                for ((role, plugin), record) in std::mem::take(&mut host.held) {
                    let key = InstanceKey { plugin, role, host: id.clone() };
                    folding.raw.insert(key, Some(record));
                }
            }
            _ => {}
        }
        let revision = host.state_revision();
        let is_known = host.state.is_some();
        for key in &keys {
            let record = match folding.raw.get(key) {
                Some(staged) => staged.as_deref(),
                None if host.is_here() => folding.current.record(key),
                None => host.held.get(&(key.role, key.plugin.clone())).map(|record| &**record),
            };
            if record.is_some_and(Record::is_expected) {
                let entry = self.plugins.entry(key.plugin.clone()).or_default();
                entry.hosts_revision = entry.hosts_revision.max(revision);
                folding.step.affected.insert(key.plugin.clone());
            }
        }
        for (plugin, entry) in &mut self.plugins {
            if entry.expected.as_ref().is_some_and(|(_, pattern)| pattern.as_ref().is_some_and(|p| p.matches(&id))) {
                // A host more or less is one more or less to be expected.
                match (was_known, is_known) {
                    (false, true) => entry.matching += 1,
                    (true, false) => entry.matching = entry.matching.saturating_sub(1),
                    _ => {}
                }
                entry.hosts_revision = entry.hosts_revision.max(revision);
                folding.step.affected.insert(plugin.clone());
            }
        }
        folding.dirty.extend(keys);
        folding.step.hosts.insert(id);
    }

    fn decoded<T: Stored>(&mut self, read: &Read) -> Option<T> {
        match T::from_stored(&read.value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.complain(read, &error.to_string());
                None
            }
        }
    }

    fn complain(&mut self, read: &Read, what: &str) {
        const MOST: usize = 1000;
        if self.unreadable.len() < MOST && self.unreadable.insert(read.key.clone()) {
            let key = String::from_utf8_lossy(&read.key);
            let key = crate::domain::text::escaped(&key);
            warn!(etcd.key = %key, reason = what, "left out: a value that this release cannot read");
        }
    }

    /// Drops what nothing is left of.
    pub(super) fn sweep(&mut self, step: &Step) {
        for id in &step.hosts {
            let is_over = |host: &Host| host.is_empty() && host.state.is_none() && !host.is_alive;
            if self.hosts.get(id).is_some_and(is_over) {
                self.hosts.remove(id);
            }
        }
        for id in &step.emptied {
            let is_over =
                |entry: &PluginEntry| entry.instances == 0 && entry.dates.is_none() && entry.expected.is_none();
            if self.plugins.get(id).is_some_and(is_over) {
                self.plugins.remove(id);
            }
        }
    }
}

struct Folding<'a> {
    current: &'a Catalog,
    /// Records of hosts that are here, as these events leave them.
    raw: BTreeMap<InstanceKey, Option<Box<Record>>>,
    dirty: BTreeSet<InstanceKey>,
    step: Step,
}

/// What is shown of an instance whose host is silent (case 82).
fn silent(record: &Record, since: Timestamp) -> Record {
    let time = jiff::Timestamp::from_nanosecond(i128::from(since.0)).unwrap_or_default();
    let time = jiff::Timestamp::from_second(time.as_second()).unwrap_or_default();
    Record {
        phase: Phase::Lost,
        reason: Reason {
            description: format!("host agent unreachable since {time}").into(),
            code: None,
            text: SILENT_HOST.into(),
        },
        since,
        update_time: since,
        ..record.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::demo::fleet::{host, plugin, record};
    use crate::domain::record::Job;
    use crate::fleet::etcd::Do;
    use crate::fleet::keys::Moved;
    use crate::fleet::outbox::{self, Shipped, Waiting};

    /// As much of an etcd as a fold can tell from a real one.
    #[derive(Default)]
    struct Store {
        pairs: BTreeMap<String, Read>,
        revision: i64,
    }

    impl Store {
        /// Commits a transaction; its events.
        fn commit(&mut self, steps: Vec<Do>) -> Vec<(Read, bool)> {
            self.revision += 1;
            let mut events = Vec::new();
            for step in steps {
                let (key, value, keeps) = match step {
                    Do::DeleteAll(prefix) => {
                        self.pairs.retain(|key, _| !key.starts_with(&prefix));
                        continue;
                    }
                    Do::Put(key, value) | Do::PutBound(key, value, _) => (key, value, false),
                    Do::Touch(key, value) => (key, value, true),
                    Do::Delete(key) => {
                        if let Some(old) = self.pairs.remove(&key) {
                            events.push((Read { mod_revision: self.revision, value: Vec::new(), ..old }, true));
                        }
                        continue;
                    }
                };
                let old = self.pairs.get(&key);
                let read = Read {
                    key: key.clone().into_bytes(),
                    value: old.filter(|_| keeps).map_or(value, |old| old.value.clone()),
                    create_revision: old.map_or(self.revision, |old| old.create_revision),
                    mod_revision: self.revision,
                    lease: 0,
                };
                self.pairs.insert(key, read.clone());
                events.push((read, false));
            }
            events
        }
    }

    /// A follower, without etcd.
    struct Followed {
        view: View,
        catalog: Catalog,
    }

    impl Followed {
        fn new(keys: &Keys) -> Self {
            Self { view: View::new(keys.clone()), catalog: Catalog::empty(Index(1)) }
        }

        fn take(&mut self, events: Vec<(Read, bool)>) -> Step {
            let step = self.view.apply(&self.catalog, events);
            self.catalog = self.view.catalog(&self.catalog, &step).0;
            self.view.sweep(&step);
            step
        }

        /// Reads everything, in the follower's order.
        fn load(keys: &Keys, store: &Store) -> Self {
            let mut loaded = Self::new(keys);
            for kind in ["hosts", "plugins", "expected", "instances"] {
                let prefix = keys.kind(kind);
                let pairs = store.pairs.iter().filter(|(key, _)| key.starts_with(&prefix));
                loaded.take(pairs.map(|(_, read)| (read.clone(), false)).collect());
            }
            let singles = [keys.index(), keys.nomad_index()];
            let singles = singles.iter().filter_map(|key| store.pairs.get(key));
            loaded.take(singles.map(|read| (read.clone(), false)).collect());
            let dated = Step { affected: loaded.view.plugins.keys().cloned().collect(), ..Step::default() };
            loaded.catalog = loaded.view.catalog(&loaded.catalog, &dated).0;
            loaded
        }

        /// Everything that anybody can be shown.
        fn shown(&self) -> String {
            let indexes = (self.catalog.index(), self.catalog.nomad_index());
            let mut text = format!("{indexes:?} {:?}\n", self.view.counts());
            for plugin in self.catalog.plugins() {
                text += &format!("{} {:?} {:?} {:?}\n", plugin.id, plugin.dates, plugin.declared, plugin.tally);
            }
            for record in self.catalog.records() {
                text += &format!("{} {} {:?} {:?}\n", record.key, record.phase, record.since, record.reason);
            }
            text
        }
    }

    /// As much of it as Nomad's shape prints.
    fn shown_by_nomad(catalog: &Catalog) -> String {
        let counts = |plugin: &crate::domain::plugin::Plugin| {
            [Role::Controller, Role::Node].map(|role| (plugin.count(role), plugin.expected(role)))
        };
        catalog.counting_plugins("").map(|plugin| format!("{} {:?}\n", plugin.id, counts(plugin))).collect()
    }

    fn moved(keys: &Keys) -> [Do; 2] {
        [keys.index(), keys.nomad_index()].map(|key| Do::Put(key, Moved {}.to_stored()))
    }

    fn state(presence: Presence, time: i64) -> Vec<u8> {
        HostState { state: presence, since: Timestamp(time) }.to_stored()
    }

    /// The steps that something random leads to: of an agent, or of an aggregator that sees `followed`.
    fn something(
        random: &mut fastrand::Rng,
        keys: &Keys,
        followed: &Followed,
        known: &mut [(Shipped, Vec<Record>)],
        time: i64,
    ) -> Vec<Vec<Do>> {
        let number = random.usize(..known.len());
        let id = host(u32::try_from(number).unwrap_or_default());
        let view = &followed.view;
        let presence = view.hosts.get(&id).and_then(|host| host.state).map(|(state, _)| state.state);
        match random.u8(..10) {
            0..5 => {
                let (shipped, records) = &mut known[number];
                let on = random.u32(..3);
                let role = if random.bool() { Role::Node } else { Role::Controller };
                let mut next = record(on, u32::try_from(number).unwrap_or_default(), role, Timestamp(time));
                if random.bool() {
                    let id = format!("job-{}", random.u8(..2)).into();
                    next.owner.job = Some(Arc::new(Job { namespace: "default".into(), id }));
                }
                let old = records.iter().position(|old| old.key == next.key);
                let was_healthy = old.is_some_and(|old| records[old].was_healthy);
                if random.bool() {
                    next.phase = Phase::Unhealthy;
                    next.was_healthy = was_healthy;
                    next.reason = Reason::plain("sick");
                }
                match old {
                    Some(old) if random.u8(..3) == 0 => drop(records.remove(old)),
                    Some(old) => records[old] = next,
                    None => records.push(next),
                }
                let (none, time) = (Waiting::new(), Timestamp(time));
                let batches = outbox::batches(keys, &id, shipped, records.iter(), &none, 32, time);
                let mut waiting = Waiting::new();
                batches
                    .into_iter()
                    .map(|mut batch| {
                        let steps = std::mem::take(&mut batch.steps);
                        batch.committed(shipped, &mut waiting);
                        steps
                    })
                    .collect()
            }
            5 if presence != Some(Presence::Here) => {
                let mut steps =
                    vec![Do::Put(keys.alive(&id), Vec::new()), Do::Put(keys.state(&id), state(Presence::Here, time))];
                steps.extend(moved(keys));
                vec![steps]
            }
            6 if presence == Some(Presence::Here) => {
                let mut lost = vec![Do::Put(keys.state(&id), state(Presence::Lost, time))];
                lost.extend(moved(keys));
                vec![vec![Do::Delete(keys.alive(&id))], lost]
            }
            7 => {
                let declared = plugin(random.u32(..3));
                let expected = Expected { nodes: None, hosts: Some("host-*".into()), controllers: Some(2) };
                let step = match random.bool() {
                    true => Do::Put(keys.expected(&declared), expected.to_stored()),
                    false => Do::Delete(keys.expected(&declared)),
                };
                let dates = PluginDates { created: Timestamp(time) }.to_stored();
                let mut steps = vec![step, Do::Touch(keys.plugin(&declared), dates)];
                steps.extend(moved(keys));
                vec![steps]
            }
            8 if presence == Some(Presence::Lost) => {
                // Forgotten: all of it, and then the host.
                let (shipped, _) = &mut known[number];
                let mut steps: Vec<Do> = shipped.records.keys().map(|key| Do::Delete(keys.instance(key))).collect();
                let plugins: BTreeSet<PluginId> = shipped.records.keys().map(|key| key.plugin.clone()).collect();
                let touch =
                    |id: &PluginId| Do::Touch(keys.plugin(id), PluginDates { created: Timestamp(time) }.to_stored());
                steps.extend(plugins.iter().map(touch));
                steps.extend(moved(keys));
                *shipped = Shipped::default();
                let mut gone = vec![Do::Delete(keys.state(&id))];
                gone.extend(view.expecting(&id).iter().map(touch));
                gone.extend(moved(keys));
                vec![steps, gone]
            }
            9 => {
                let is_over = |entry: &PluginEntry| entry.instances == 0 && entry.expected.is_none();
                let over = view.plugins.iter().find(|(_, entry)| is_over(entry) && entry.dates.is_some());
                over.map(|(id, _)| vec![Do::Delete(keys.plugin(id))]).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    #[test]
    fn whoever_followed_and_whoever_has_just_read_everything_show_the_same_and_no_index_falls() {
        let keys = Keys::new("/f/");
        for seed in 0..400 {
            let mut random = fastrand::Rng::with_seed(seed);
            // The first write to an etcd is its second revision.
            let mut store = Store { revision: 1, ..Store::default() };
            let mut followed = Followed::new(&keys);
            let mut known = vec![(Shipped::default(), Vec::new()); 3];
            for time in 1..40 {
                let before = (followed.catalog.index(), followed.catalog.nomad_index(), followed.shown());
                let printed = shown_by_nomad(&followed.catalog);
                let mut has_shown = false;
                for steps in something(&mut random, &keys, &followed, &mut known, time) {
                    let events = store.commit(steps);
                    has_shown |= !followed.take(events).changes.is_empty();
                }
                let loaded = Followed::load(&keys, &store);
                let known = followed.view.hosts.values().filter(|host| host.state.is_some());
                let here = known.clone().filter(|host| host.is_here()).count();
                assert_eq!(followed.view.counts(), (here, known.count() - here), "seed {seed}, time {time}");
                assert_eq!(followed.shown(), loaded.shown(), "seed {seed}, time {time}");
                let after = (followed.catalog.index(), followed.catalog.nomad_index());
                assert!(before.0 <= after.0 && before.1 <= after.1, "seed {seed}, time {time}");
                for plugin in followed.catalog.plugins() {
                    let dates = plugin.dates.unwrap_or(Dates {
                        modify_index: Index(1),
                        create_index: Index(1),
                        create_time: Timestamp(0),
                        declared: DeclaredCounts::default(),
                    });
                    assert!(dates.create_index <= dates.modify_index, "seed {seed}, time {time}: {dates:?}");
                    assert!(dates.modify_index <= after.1, "seed {seed}, time {time}: {dates:?} at {after:?}");
                }
                if has_shown && followed.shown() != before.2 {
                    assert!(after.0 > before.0, "seed {seed}, time {time}: something moved, and no index");
                }
                if shown_by_nomad(&followed.catalog) != printed {
                    let now = shown_by_nomad(&followed.catalog);
                    assert!(
                        after.1 > before.1,
                        "seed {seed}, time {time}: Nomad's shape moved, and its index did not:\n{printed}\n{now}"
                    );
                }
            }
        }
    }
}
