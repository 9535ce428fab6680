//! What is not on disk yet: the latest state per key, and the transitions that led there.
//!
//! Batches add up. So what a full disk keeps waiting is bounded by the number of instances, not by the time it lasts.

use std::collections::{BTreeMap, VecDeque};

use crate::domain::catalog::RecordChange;
use crate::domain::history::Transition;
use crate::domain::id::{InstanceKey, PluginId};
use crate::domain::plugin::Dates;
use crate::domain::record::Record;
use crate::domain::time::Index;

/// What one transaction of an engine writes: all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Records as they are now; `None`: no longer known.
    pub records: BTreeMap<InstanceKey, Option<Box<Record>>>,
    /// Dates of plugins as they are now; `None`: the plugin counts no longer.
    pub dates: BTreeMap<PluginId, Option<Dates>>,
    /// What happened, oldest first.
    pub transitions: VecDeque<Transition>,
    /// New end of the reserved index range, if it is to be moved.
    pub reserved: Option<Index>,
}

impl Batch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.dates.is_empty() && self.transitions.is_empty() && self.reserved.is_none()
    }

    /// Adds what happened later. Of transitions the newest `limit` are kept: the rest would not outlive its ring.
    pub(super) fn add(
        &mut self,
        changes: Vec<RecordChange>,
        dates: Vec<(PluginId, Option<Dates>)>,
        transitions: Vec<Transition>,
        limit: usize,
    ) {
        for change in changes {
            match change {
                RecordChange::Put(record) => self.records.insert(record.key.clone(), Some(record)),
                RecordChange::Remove(key) => self.records.insert(key, None),
            };
        }
        self.dates.extend(dates);
        self.transitions.extend(transitions);
        self.forget_beyond(limit);
    }

    /// Adds a later batch.
    pub(super) fn then(&mut self, later: Self, limit: usize) {
        self.records.extend(later.records);
        self.dates.extend(later.dates);
        self.transitions.extend(later.transitions);
        self.reserved = later.reserved.or(self.reserved);
        self.forget_beyond(limit);
    }

    fn forget_beyond(&mut self, limit: usize) {
        let excess = self.transitions.len().saturating_sub(limit);
        self.transitions.drain(..excess);
    }
}
