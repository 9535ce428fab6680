//! What all instances of one plugin add up to for people: those included that count for nothing in Nomad's word.
//!
//! Kept as records change, like the tally: whoever follows `/v1/gateway/stream` is told a plugin's sum with each of its
//! changes, and walking ten thousand hosts for one of them would cost more than everything else about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rpds::RedBlackTreeSetSync;

use super::id::{HostId, Role};
use super::plugin::Plugin;
use super::record::{Phase, Record};
use super::time::Timestamp;

/// An instance that is not healthy, by how long.
type Unwell = (Timestamp, Role, HostId);

/// The sums. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Overview {
    phases: [u32; Phase::ALL.len()],
    hosts: usize,
    warnings: BTreeMap<Arc<str>, u32>,
    unwell: RedBlackTreeSetSync<Unwell>,
    changed: Option<Timestamp>,
}

impl Overview {
    /// Counts anew: what the sums have to be.
    #[must_use]
    pub fn of(plugin: &Plugin) -> Self {
        let mut overview = Self::default();
        for record in plugin.records() {
            let key = &record.key;
            let is_new = key.role == Role::Controller || plugin.instance(Role::Controller, key.host.as_str()).is_none();
            overview.add(record, is_new);
        }
        overview
    }

    /// Adds a record; `is_new_host`: no other instance is on its host.
    pub(super) fn add(&mut self, record: &Record, is_new_host: bool) {
        self.phases[record.phase as usize] += 1;
        self.hosts += usize::from(is_new_host);
        for text in warnings(record) {
            match self.warnings.get_mut(text) {
                Some(count) => *count += 1,
                None => drop(self.warnings.insert(text.into(), 1)),
            }
        }
        if !record.phase.is_healthy() {
            self.unwell.insert_mut(unwell(record));
        }
        self.changed = self.changed.max(Some(record.since));
    }

    /// Takes one away. Whether an earlier record is now the one that changed last is not seen here; see
    /// [`Overview::may_have_lost_the_last`].
    pub(super) fn take(&mut self, record: &Record, was_last_on_host: bool) {
        self.phases[record.phase as usize] -= 1;
        self.hosts -= usize::from(was_last_on_host);
        for text in warnings(record) {
            if let Some(count) = self.warnings.get_mut(text) {
                *count -= 1;
                if *count == 0 {
                    self.warnings.remove(text);
                }
            }
        }
        if !record.phase.is_healthy() {
            self.unwell.remove_mut(&unwell(record));
        }
    }

    /// Whether, with this record gone and `next` in its place, all have to be looked at for the one that changed last. That
    /// is rare: what takes a record's place has changed later.
    pub(super) fn may_have_lost_the_last(&self, record: &Record, next: Option<&Record>) -> bool {
        self.changed == Some(record.since) && next.is_none_or(|next| next.since < record.since)
    }

    /// When the one that was found changed.
    pub(super) fn found_the_last(&mut self, changed: Option<Timestamp>) {
        self.changed = changed;
    }

    /// Phases that instances are in, and how many are in each.
    pub fn phases(&self) -> impl Iterator<Item = (Phase, u32)> {
        Phase::ALL.into_iter().map(|phase| (phase, self.phases[phase as usize])).filter(|(_, count)| *count > 0)
    }

    /// Instances of both roles.
    #[must_use]
    pub fn instances(&self) -> u32 {
        self.phases.iter().sum()
    }

    /// Hosts that have one.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.hosts
    }

    /// What drivers were warned of, each once, ascending.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.warnings.keys().map(|text| &**text)
    }

    /// Those that are not healthy, the longest first.
    pub fn unwell(&self) -> impl Iterator<Item = (Role, &HostId)> {
        self.unwell.iter().map(|(_, role, host)| (*role, host))
    }

    /// When one last went to another phase; `None`: there is none.
    #[must_use]
    pub fn changed(&self) -> Option<Timestamp> {
        self.changed
    }
}

impl PartialEq for Overview {
    fn eq(&self, other: &Self) -> bool {
        let rest = |one: &Self| (one.phases, one.hosts, one.changed);
        rest(self) == rest(other) && self.warnings == other.warnings && self.unwell.iter().eq(other.unwell.iter())
    }
}

fn warnings(record: &Record) -> impl Iterator<Item = &str> {
    record.fingerprint.iter().flat_map(|fingerprint| &fingerprint.warnings).map(|text| &**text)
}

fn unwell(record: &Record) -> Unwell {
    (record.since, record.key.role, record.key.host.clone())
}
