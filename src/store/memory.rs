//! An engine that keeps transitions in memory, and nothing else: what is published is already there, in the catalog.

use std::collections::{BTreeMap, VecDeque};

use super::{Batch, Content, Engine, Settings, StoreError};
use crate::domain::durability::Durability;
use crate::domain::history::Transition;
use crate::domain::id::{InstanceKey, PluginId};

/// Transitions kept at most: about a megabyte, whatever a made fleet of 100,000 instances does.
pub const HISTORY_LIMIT: usize = 4_096;

/// Transitions in memory, bounded per instance and in all.
#[derive(Debug)]
pub struct Memory {
    per_instance: usize,
    total: usize,
    next: u64,
    transitions: BTreeMap<u64, Transition>,
    rings: BTreeMap<InstanceKey, VecDeque<u64>>,
}

impl Memory {
    /// An empty one.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            per_instance: settings.history,
            total: settings.history_total,
            next: 0,
            transitions: BTreeMap::new(),
            rings: BTreeMap::new(),
        }
    }

    fn remember(&mut self, transition: &Transition) {
        let ring = self.rings.entry(transition.key.clone()).or_default();
        ring.push_back(self.next);
        while ring.len() > self.per_instance {
            ring.pop_front().map(|oldest| self.transitions.remove(&oldest));
        }
        self.transitions.insert(self.next, transition.clone());
        self.next += 1;
        while self.transitions.len() > self.total {
            let Some((_, oldest)) = self.transitions.pop_first() else { break };
            if let Some(ring) = self.rings.get_mut(&oldest.key) {
                // The oldest of all is the oldest of its instance.
                ring.pop_front();
                if ring.is_empty() {
                    self.rings.remove(&oldest.key);
                }
            }
        }
    }
}

impl Engine for Memory {
    fn open(&mut self) -> Result<Content, StoreError> {
        Ok(Content::default())
    }

    fn ready(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        for transition in &batch.transitions {
            self.remember(transition);
        }
        Ok(())
    }

    fn history(&mut self, plugin: Option<&PluginId>, limit: usize) -> Result<Vec<Transition>, StoreError> {
        let newest = self.transitions.values().rev();
        Ok(newest.filter(|t| plugin.is_none_or(|plugin| t.key.plugin == *plugin)).take(limit).cloned().collect())
    }

    fn close(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }
}
