//! What changed, step by step, as far back as there is room: what streams resume from.
//!
//! A reader that comes with an index gets every later step, or learns that it comes from too far back. Streams take from
//! here at their own pace, so a slow one costs nothing but its place; nobody who only reads the catalog comes here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::catalog::{Catalog, RecordChange, Touched};
use crate::domain::history::{Change, Transition};
use crate::domain::id::{InstanceKey, PluginId};
use crate::domain::plugin::Plugin;
use crate::domain::time::Index;

/// Steps kept at most.
const STEPS: usize = 256;
/// Plugins and instances of all steps together at most: each may keep something alive that the catalog has forgotten.
const WEIGHT: usize = 2048;

/// A plugin that a step changed.
#[derive(Debug, Clone)]
pub struct PluginStep {
    /// Its id.
    pub id: PluginId,
    /// As the step left it; `None`: nothing of it is left.
    pub after: Option<Arc<Plugin>>,
    /// What Nomad's shape shows of the change: the plugin, or its last state if it is gone. `None`: nothing.
    pub shown_by_nomad: Option<Arc<Plugin>>,
    /// Whether Nomad's shape shows it no longer.
    pub is_gone_from_nomad: bool,
}

/// Everything that one index changed.
#[derive(Debug)]
pub struct Step {
    /// The index.
    pub index: Index,
    /// The plugins, by id.
    pub plugins: Vec<PluginStep>,
    /// Instances that changed, came, or went.
    pub instances: Vec<InstanceKey>,
    /// What happened to them.
    pub transitions: Vec<Transition>,
}

impl Step {
    /// What happened between two catalogs; `None`: nothing, or so much that it is not kept as a step.
    #[must_use]
    pub fn between(
        before: &Catalog,
        after: &Catalog,
        touched: &[Touched],
        changes: &[RecordChange],
        transitions: &[Transition],
    ) -> Option<Self> {
        if touched.is_empty() || touched.len() + changes.len() + transitions.len() > WEIGHT {
            return None;
        }
        let plugin = |touch: &Touched| {
            let id = touch.plugin.as_str();
            let after = after.plugin(id).map(Arc::clone);
            let shown = if touch.dates.is_some() { after.clone() } else { before.counting_plugin(id).map(Arc::clone) };
            PluginStep {
                id: touch.plugin.clone(),
                after,
                shown_by_nomad: shown.filter(|_| touch.is_shown_by_nomad),
                is_gone_from_nomad: touch.is_shown_by_nomad && touch.dates.is_none(),
            }
        };
        Some(Self {
            index: after.index(),
            plugins: touched.iter().map(plugin).collect(),
            instances: changes.iter().map(|change| change.key().clone()).collect(),
            transitions: transitions.to_vec(),
        })
    }

    fn weight(&self) -> usize {
        self.plugins.len() + self.instances.len() + self.transitions.len()
    }
}

/// The newest steps.
#[derive(Debug)]
pub struct Changes(Mutex<Ring>, Mutex<Flips>);

/// How often an instance became healthy or ceased to be; none: never.
pub type Flips = BTreeMap<InstanceKey, u64>;

#[derive(Debug)]
struct Ring {
    steps: VecDeque<Arc<Step>>,
    weight: usize,
    /// Whoever has seen this, or more, misses nothing.
    complete_after: Index,
}

impl Changes {
    /// None yet, after `start`.
    #[must_use]
    pub fn after(start: Index) -> Self {
        Self(Mutex::new(Ring { steps: VecDeque::new(), weight: 0, complete_after: start }), Mutex::default())
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing under the lock can panic half way; at worst a stream begins anew.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what happened, and forgets what is no longer known.
    pub fn count(&self, changes: &[RecordChange], transitions: &[Transition]) {
        let mut flips = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        for transition in transitions {
            if let Change::Phase { from, to } = &transition.change
                && from.is_healthy() != to.is_healthy()
            {
                *flips.entry(transition.key.clone()).or_default() += 1;
            }
        }
        for change in changes {
            if let RecordChange::Remove(key) = change {
                flips.remove(key);
            }
        }
    }

    /// How often each instance became healthy or ceased to be.
    #[must_use]
    pub fn flips(&self) -> Flips {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps a step; `None`: one that is too large, so whoever has not seen `index` begins anew. The catalog must be
    /// visible before, and those who wait be woken after.
    pub fn push(&self, index: Index, step: Option<Step>) {
        let mut ring = self.ring();
        let Some(step) = step else {
            *ring = Ring { steps: VecDeque::new(), weight: 0, complete_after: index };
            return;
        };
        ring.weight += step.weight();
        ring.steps.push_back(Arc::new(step));
        while ring.steps.len() > STEPS || ring.weight > WEIGHT {
            let Some(oldest) = ring.steps.pop_front() else { return };
            ring.weight -= oldest.weight();
            ring.complete_after = oldest.index;
        }
    }

    /// The steps after `seen`, in order; `None`: some of them are no longer kept.
    #[must_use]
    pub fn since(&self, seen: Index) -> Option<Vec<Arc<Step>>> {
        let ring = self.ring();
        if seen < ring.complete_after {
            return None;
        }
        let from = ring.steps.partition_point(|step| step.index <= seen);
        Some(ring.steps.range(from..).cloned().collect())
    }

    /// Every step that is kept, in order, and the index after which the next one comes.
    #[must_use]
    pub fn all(&self) -> (Vec<Arc<Step>>, Index) {
        let ring = self.ring();
        // Not the catalog's index: a step is visible a moment before it is here.
        let last = ring.steps.back().map_or(ring.complete_after, |step| step.index);
        (ring.steps.iter().cloned().collect(), last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(index: u64, weight: usize) -> Option<Step> {
        let key = || InstanceKey {
            plugin: PluginId::parse("nfs").expect("legal"),
            role: crate::domain::id::Role::Node,
            host: crate::domain::id::HostId::parse("host-0001").expect("legal"),
        };
        let instances = (0..weight).map(|_| key()).collect();
        Some(Step { index: Index(index), plugins: Vec::new(), instances, transitions: Vec::new() })
    }

    fn since(changes: &Changes, seen: u64) -> Option<Vec<u64>> {
        Some(changes.since(Index(seen))?.iter().map(|step| step.index.0).collect())
    }

    #[test]
    fn whoever_comes_from_too_far_back_learns_it() {
        let changes = Changes::after(Index(100));
        assert_eq!(since(&changes, 99), None);
        assert_eq!(since(&changes, 100), Some(vec![]));
        for index in [101, 105, 109] {
            changes.push(Index(index), step(index, 1));
        }
        assert_eq!(since(&changes, 100), Some(vec![101, 105, 109]));
        assert_eq!(since(&changes, 104), Some(vec![105, 109]));
        assert_eq!(since(&changes, 109), Some(vec![]));
        assert_eq!(since(&changes, 99), None);
        changes.push(Index(110), None);
        assert_eq!(since(&changes, 109), None);
        assert_eq!(since(&changes, 110), Some(vec![]));
    }

    #[test]
    fn what_is_kept_is_bounded_in_steps_and_in_what_they_hold() {
        let changes = Changes::after(Index(0));
        for index in 1..=1000 {
            changes.push(Index(index), step(index, 1));
        }
        assert_eq!((changes.all().0.len(), changes.all().1), (STEPS, Index(1000)));
        assert_eq!(since(&changes, 1000 - STEPS as u64 - 1), None);
        assert_eq!(since(&changes, 1000 - STEPS as u64).expect("complete").len(), STEPS);
        changes.push(Index(1001), step(1001, WEIGHT));
        assert_eq!(since(&changes, 1000), Some(vec![1001]));
        assert_eq!(since(&changes, 999), None);
        changes.push(Index(1002), step(1002, 1));
        assert_eq!(since(&changes, 1001), Some(vec![1002]));
        assert_eq!(changes.ring().weight, 1);
    }
}
