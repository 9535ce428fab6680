//! What etcd does not have yet, as transactions of a bounded size. Pure: from two states of one host to steps.
//!
//! What belongs to one plugin is written together; a transaction holds as many plugins as fit. The number of what waits
//! is bounded by what there is, since only the latest state of an instance counts, and by the ring of its transitions.

use std::collections::{BTreeMap, BTreeSet};

use super::etcd::Do;
use super::keys::{Keys, Moved, Place, PluginDates};
use crate::domain::history::Transition;
use crate::domain::id::{HostId, InstanceKey, PluginId};
use crate::domain::record::Record;
use crate::domain::time::{Index, Timestamp};
use crate::store::record::Stored;

/// Operations of one transaction; etcd allows 128.
const OPERATIONS: usize = 100;
/// Bytes of one transaction; etcd allows 1.5 MiB.
const BYTES: usize = 1 << 20;
/// The two indexes.
const INDEXES: usize = 2;
/// Transitions that go with their plugin's records; what is more follows.
const TOGETHER: usize = 16;

/// Transitions of one host that etcd keeps at most.
pub(super) const HOST_HISTORY: usize = 1024;

/// What etcd holds of one host.
#[derive(Debug, Clone, Default)]
pub(super) struct Shipped {
    pub(super) records: BTreeMap<InstanceKey, Record>,
    /// Places of transitions.
    pub(super) history: BTreeSet<Place>,
    /// What side tables hold.
    pub(super) side: Side,
}

/// What side tables hold of a host, by its keys, as it is written.
pub(super) type Side = BTreeMap<String, Vec<u8>>;

/// Transitions that are to be shipped, with their places.
pub(super) type Waiting = BTreeMap<Place, Transition>;

/// One transaction, and what holds once it is committed.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) steps: Vec<Do>,
    /// Records as they are then; `None`: none.
    records: Vec<(InstanceKey, Option<Record>)>,
    sent: Vec<Place>,
    trimmed: Vec<Place>,
    /// `None`: nothing any more.
    side: Vec<(String, Option<Vec<u8>>)>,
    is_shown_by_nomad: bool,
    size: usize,
}

impl Batch {
    fn add(&mut self, part: Self) {
        self.steps.extend(part.steps);
        self.records.extend(part.records);
        self.sent.extend(part.sent);
        self.trimmed.extend(part.trimmed);
        self.side.extend(part.side);
        self.is_shown_by_nomad |= part.is_shown_by_nomad;
        self.size += part.size;
    }

    fn push(&mut self, step: Do) {
        self.size += step.size();
        self.steps.push(step);
    }

    fn has_room_for(&self, part: &Self) -> bool {
        self.steps.len() + part.steps.len() + INDEXES <= OPERATIONS && self.size + part.size <= BYTES - (8 << 10)
    }

    /// Notes that it is committed.
    pub(super) fn committed(self, shipped: &mut Shipped, waiting: &mut Waiting) {
        for (key, record) in self.records {
            match record {
                Some(record) => shipped.records.insert(key, record),
                None => shipped.records.remove(&key),
            };
        }
        for place in self.sent {
            waiting.remove(&place);
            shipped.history.insert(place);
        }
        for place in self.trimmed {
            shipped.history.remove(&place);
        }
        for (key, value) in self.side {
            match value {
                Some(value) => shipped.side.insert(key, value),
                None => shipped.side.remove(&key),
            };
        }
    }
}

/// How many records differ.
pub(super) fn differing<'a>(shipped: &Shipped, now: impl Iterator<Item = &'a Record>) -> usize {
    let (mut known, mut differing) = (0, 0);
    for record in now {
        match shipped.records.get(&record.key) {
            Some(old) => {
                known += 1;
                differing += usize::from(old != record);
            }
            None => differing += 1,
        }
    }
    differing + shipped.records.len() - known
}

/// All transactions that make etcd equal to `now`.
pub(super) fn batches<'a>(
    keys: &Keys,
    host: &HostId,
    shipped: &Shipped,
    now: impl Iterator<Item = &'a Record>,
    waiting: &Waiting,
    ring: usize,
    time: Timestamp,
) -> Vec<Batch> {
    let mut plugins: BTreeMap<&PluginId, Batch> = BTreeMap::new();
    let mut there: BTreeSet<&InstanceKey> = BTreeSet::new();
    for record in now {
        there.insert(&record.key);
        let old = shipped.records.get(&record.key);
        if old == Some(record) {
            continue;
        }
        let part = plugins.entry(&record.key.plugin).or_default();
        part.push(Do::Put(keys.instance(&record.key), record.to_stored()));
        part.records.push((record.key.clone(), Some(record.clone())));
        // There and back again while nobody was told is a step, too, since Nomad's shape prints when it was.
        let has_moved = old.is_some_and(|old| record.was_healthy && old.update_time != record.update_time);
        part.is_shown_by_nomad |= has_moved || Record::is_step_shown_by_nomad(old, Some(record));
    }
    for (key, old) in shipped.records.iter().filter(|(key, _)| !there.contains(key)) {
        let part = plugins.entry(&key.plugin).or_default();
        part.push(Do::Delete(keys.instance(key)));
        part.records.push((key.clone(), None));
        part.is_shown_by_nomad |= Record::is_step_shown_by_nomad(Some(old), None);
    }
    for (plugin, part) in &mut plugins {
        if part.is_shown_by_nomad {
            part.push(Do::Touch(keys.plugin(plugin), PluginDates { created: time }.to_stored()));
        }
    }
    let mut alone = Vec::new();
    for (place, transition) in waiting {
        let step = Do::Put(keys.transition(host, place), transition.to_stored());
        let with = plugins.get_mut(&place.plugin).filter(|part| part.sent.len() < TOGETHER);
        let mut single = Batch::default();
        let part = with.unwrap_or(&mut single);
        part.push(step);
        part.sent.push(place.clone());
        if !single.steps.is_empty() {
            alone.push(single);
        }
    }
    let trims = excess(&shipped.history, waiting, ring).into_iter().map(|place| {
        let mut part = Batch::default();
        part.push(Do::Delete(keys.transition(host, &place)));
        part.trimmed.push(place);
        part
    });
    let mut batches = pack(plugins.into_values().chain(alone).chain(trims));
    for batch in &mut batches {
        // A batch that only trims shows nothing that was not shown.
        if batch.sent.is_empty() && batch.records.is_empty() {
            continue;
        }
        batch.push(Do::Put(keys.index(), Moved {}.to_stored()));
        if batch.is_shown_by_nomad {
            batch.push(Do::Put(keys.nomad_index(), Moved {}.to_stored()));
        }
    }
    batches
}

/// Transactions that make etcd equal to what side tables are to hold. They move no index.
pub(super) fn side_batches(shipped: &Side, now: &Side) -> Vec<Batch> {
    let gone = shipped.keys().filter(|key| !now.contains_key(*key)).map(|key| (key, None));
    let moved = now.iter().filter(|(key, value)| shipped.get(*key) != Some(value));
    let moved = moved.map(|(key, value)| (key, Some(value)));
    pack(gone.chain(moved).map(|(key, value)| {
        let mut part = Batch::default();
        part.push(value.map_or_else(|| Do::Delete(key.clone()), |value| Do::Put(key.clone(), value.clone())));
        part.side.push((key.clone(), value.cloned()));
        part
    }))
}

/// As few transactions as these parts fit into, in their order.
fn pack(parts: impl Iterator<Item = Batch>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for part in parts {
        match batches.last_mut().filter(|batch| batch.has_room_for(&part)) {
            Some(batch) => batch.add(part),
            None => batches.push(part),
        }
    }
    batches
}

/// What the ring of each instance, and that of the host, have no room for once `waiting` is there.
fn excess(history: &BTreeSet<Place>, waiting: &Waiting, ring: usize) -> Vec<Place> {
    let all: BTreeSet<&Place> = history.iter().chain(waiting.keys()).collect();
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    let mut kept = 0;
    let mut excess = Vec::new();
    for place in all.into_iter().rev() {
        let count = counts.entry((place.role, &place.plugin)).or_default();
        if *count < ring && kept < HOST_HISTORY {
            *count += 1;
            kept += 1;
        } else if history.contains(place) {
            excess.push(place.clone());
        }
    }
    excess
}

/// Drops those that the ring would drop at once.
pub(super) fn bound(waiting: &mut Waiting, ring: usize) {
    let all: BTreeSet<Place> = waiting.keys().cloned().collect();
    for place in excess(&all, &Waiting::new(), ring) {
        waiting.remove(&place);
    }
}

/// Transitions with their places, oldest first: those of one index and instance are numbered in their order.
pub(super) fn placed(transitions: impl IntoIterator<Item = Transition>) -> impl Iterator<Item = (Place, Transition)> {
    let mut numbers: BTreeMap<InstanceKey, (Index, u32)> = BTreeMap::new();
    transitions.into_iter().map(move |transition| {
        let last = numbers.entry(transition.key.clone()).or_insert((transition.index, 0));
        let number = if last.0 == transition.index { last.1 } else { 0 };
        *last = (transition.index, number + 1);
        let InstanceKey { plugin, role, .. } = transition.key.clone();
        (Place { index: transition.index, number, role, plugin }, transition)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::fleet::record;
    use crate::domain::history::Change;
    use crate::domain::id::Role;
    use crate::domain::record::{Phase, Reason};

    fn keys() -> Keys {
        Keys::new("/f/")
    }

    fn made(count: u32) -> Vec<Record> {
        (0..count).map(|number| record(number, 0, Role::Node, Timestamp(1))).collect()
    }

    fn host() -> HostId {
        crate::demo::fleet::host(0)
    }

    fn change(index: u64) -> Transition {
        let key = made(1)[0].key.clone();
        Transition { at: Timestamp(1), index: Index(index), key, change: Change::Reason, reason: Reason::plain("x") }
    }

    fn all(shipped: &Shipped, now: &[Record], waiting: &Waiting) -> Vec<Batch> {
        batches(&keys(), &host(), shipped, now.iter(), waiting, 32, Timestamp(9))
    }

    /// Commits all of it, until nothing is left.
    fn ship(shipped: &mut Shipped, now: &[Record], waiting: &mut Waiting) -> usize {
        let mut count = 0;
        loop {
            let batches = all(shipped, now, waiting);
            if batches.is_empty() {
                return count;
            }
            for batch in batches {
                count += 1;
                batch.committed(shipped, waiting);
            }
        }
    }

    #[test]
    fn case_94_what_etcd_has_is_not_written_again() {
        let mut shipped = Shipped::default();
        let now = made(3);
        assert_eq!(ship(&mut shipped, &now, &mut Waiting::new()), 1);
        assert_eq!(differing(&shipped, now.iter()), 0);
        assert!(all(&shipped, &now, &Waiting::new()).is_empty());
    }

    #[test]
    fn a_batch_has_at_most_a_hundred_operations_and_a_plugins_records_are_in_one() {
        let now: Vec<Record> = (0..200)
            .flat_map(|number| [Role::Controller, Role::Node].map(|role| record(number, 0, role, Timestamp(1))))
            .collect();
        let batches = all(&Shipped::default(), &now, &Waiting::new());
        assert!(batches.len() > 5);
        for batch in &batches {
            assert!(batch.steps.len() <= OPERATIONS, "{}", batch.steps.len());
            for (key, _) in &batch.records {
                let both = batch.records.iter().filter(|(other, _)| other.plugin == key.plugin).count();
                assert_eq!(both, 2, "{key}");
            }
        }
        assert_eq!(batches.iter().map(|batch| batch.records.len()).sum::<usize>(), 400);
    }

    #[test]
    fn a_batch_has_at_most_a_mebibyte_however_much_drivers_say_of_themselves() {
        let mut now = made(60);
        for record in &mut now {
            record.reason.text = "x".repeat(64 << 10).into();
        }
        let batches = all(&Shipped::default(), &now, &Waiting::new());
        assert!(batches.len() >= 4);
        for batch in &batches {
            let size: usize = batch.steps.iter().map(Do::size).sum();
            assert!(size <= BYTES, "{size}");
        }
        assert_eq!(batches.iter().map(|batch| batch.records.len()).sum::<usize>(), 60);
    }

    #[test]
    fn only_what_nomad_shows_touches_the_plugin() {
        let mut shipped = Shipped::default();
        let mut now = made(1);
        ship(&mut shipped, &now, &mut Waiting::new());
        now[0].reason.text = "another word".into();
        let quiet = all(&shipped, &now, &Waiting::new());
        let puts = |batch: &Batch, key: &str| {
            batch.steps.iter().any(|step| matches!(step, Do::Put(k, _) | Do::Touch(k, _) if k == key))
        };
        assert!(puts(&quiet[0], "/f/index") && !puts(&quiet[0], "/f/nomad-index"));
        assert!(!puts(&quiet[0], "/f/plugins/demo-0000"));
        let shows = |batch: &Batch| puts(batch, "/f/nomad-index") && puts(batch, "/f/plugins/demo-0000");
        let mut again = now.clone();
        again[0].update_time = Timestamp(2);
        assert!(shows(&all(&shipped, &again, &Waiting::new())[0]), "sick and healthy again while etcd was away");
        now[0].phase = Phase::Unhealthy;
        assert!(shows(&all(&shipped, &now, &Waiting::new())[0]));
    }

    #[test]
    fn the_ring_of_an_instance_is_kept_and_what_it_drops_is_deleted_and_never_sent() {
        let mut shipped = Shipped::default();
        let now = made(1);
        let mut waiting: Waiting = placed((1..=100).map(change)).collect();
        bound(&mut waiting, 32);
        assert_eq!(waiting.len(), 32);
        ship(&mut shipped, &now, &mut waiting);
        assert_eq!(shipped.history.first().map(|place| place.index), Some(Index(69)));
        let mut waiting: Waiting = placed([change(101), change(101)]).collect();
        assert_eq!(waiting.keys().map(|place| place.number).collect::<Vec<_>>(), [0, 1]);
        ship(&mut shipped, &now, &mut waiting);
        assert_eq!(shipped.history.len(), 32);
        assert_eq!(shipped.history.first().map(|place| place.index), Some(Index(71)));
    }
}
