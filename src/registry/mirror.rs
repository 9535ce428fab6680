//! A catalog that somebody else makes: what a follower of a fleet publishes, with the same readers as everywhere.
//!
//! It decides nothing, neither what changes nor under which index; it only makes each step visible in the right order:
//! the catalog first, then the step, then those who wait. It also keeps the pulse: when whoever makes the catalog was
//! last known to be in step with its source.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::changes::{Changes, Step};
use super::reader::{Reader, Standing, Waiters};
use crate::domain::catalog::{Catalog, RecordChange, Touched};
use crate::domain::durability::Durability;
use crate::domain::history::Transition;

/// As of when the source last said that nothing is missing, and whether something is known to be missing all the same.
#[derive(Debug)]
pub struct Pulse {
    beat: Mutex<Beat>,
    /// How old that word may be while what is shown counts as current.
    fresh: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Beat {
    last: Option<Instant>,
    is_behind: bool,
}

impl Pulse {
    fn state(&self) -> std::sync::MutexGuard<'_, Beat> {
        // A copy is taken or put under the lock, and nothing else.
        self.beat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source said that nothing is missing of what there was at this moment.
    pub fn beat(&self, at: Instant) {
        self.state().last = Some(at);
    }

    /// Whether something is known that cannot be shown yet.
    pub fn behind(&self, is_behind: bool) {
        self.state().is_behind = is_behind;
    }

    /// Whether what is shown is current, and the milliseconds since the last word.
    #[must_use]
    pub fn contact(&self, started: Instant) -> (bool, u64) {
        let Beat { last, is_behind } = *self.state();
        let age = last.unwrap_or(started).elapsed();
        if last.is_some() && !is_behind && age <= self.fresh {
            return (true, 0);
        }
        (false, u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The writing side.
#[derive(Debug)]
pub struct Mirror {
    catalog: watch::Sender<Arc<Catalog>>,
    standing: watch::Sender<Standing>,
    waiters: Arc<Waiters>,
    changes: Arc<Changes>,
    pulse: Arc<Pulse>,
}

impl Mirror {
    /// One that shows `catalog`, and its reader. What is shown counts as current while the source's last word is no older
    /// than `fresh`. Short, since that adds to the time for which something may be shown that is over by whoever is cut
    /// off in the wrong moment.
    #[must_use]
    pub fn new(catalog: Catalog, fresh: Duration) -> (Self, Reader) {
        let changes = Arc::new(Changes::after(catalog.index()));
        let standing = Standing { is_scanned: false, started: Instant::now(), durability: Durability::Memory };
        let mirror = Self {
            catalog: watch::Sender::new(Arc::new(catalog)),
            standing: watch::Sender::new(standing),
            waiters: Arc::new(Waiters::default()),
            changes,
            pulse: Arc::new(Pulse { beat: Mutex::default(), fresh }),
        };
        let (waiters, changes) = (Arc::clone(&mirror.waiters), Arc::clone(&mirror.changes));
        let reader = Reader::new(mirror.catalog.subscribe(), mirror.standing.subscribe(), waiters, changes);
        let reader = reader.with_pulse(Arc::clone(&mirror.pulse));
        (mirror, reader)
    }

    /// The catalog as it is.
    #[must_use]
    pub fn current(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.borrow())
    }

    /// The pulse.
    #[must_use]
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Shows a step.
    pub fn publish(&self, next: Catalog, touched: &[Touched], changes: &[RecordChange], transitions: &[Transition]) {
        let current = self.current();
        let index = next.index();
        let is_empty = touched.is_empty();
        // Where the source fell back, nothing that was kept leads to what is now.
        let has_fallen = index < current.index();
        let step = Step::between(&current, &next, touched, changes, transitions).filter(|_| !has_fallen);
        drop(current);
        self.waiters.wake_after(touched, || {
            self.catalog.send_replace(Arc::new(next));
            // An index that moves with nothing to show takes nobody anything.
            if !is_empty {
                self.changes.push(index, step);
            }
        });
    }

    /// Everything that there is has been read once.
    pub fn scanned(&self) {
        self.standing.send_if_modified(|standing| !std::mem::replace(&mut standing.is_scanned, true));
    }
}
