//! Which instances have been dead for so long that they are known no longer (rule A6).
//!
//! Ages are measured on a monotonic clock. What was dead before this process started has an age by the wall clock alone,
//! which may have jumped and which went on while the machine was off; so that age shortens the time and never ends it:
//! what comes up with the machine gets a few minutes. Times are parameters, and there is one timer, the publisher's, and
//! only while something is due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::domain::id::InstanceKey;
use crate::domain::record::{Phase, Record};
use crate::domain::time::Timestamp;

/// How long what is dead is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    /// Whose socket is gone, or has nobody listening.
    pub gone: Duration,
    /// Whose host is silent.
    pub lost: Duration,
}

/// One hour, and one day.
impl Default for After {
    fn default() -> Self {
        Self { gone: Duration::from_hours(1), lost: Duration::from_hours(24) }
    }
}

impl After {
    fn of(self, phase: Phase) -> Option<Duration> {
        match phase {
            // From gone to stale and back is one death: a driver that never gets to listen makes both in turn.
            Phase::Gone | Phase::Stale => Some(self.gone),
            Phase::Lost => Some(self.lost),
            Phase::New | Phase::Starting | Phase::Healthy | Phase::Unhealthy => None,
        }
    }
}

/// How long what is dead at the start is kept at least, unless it would not be kept that long anyway.
const SETTLING: Duration = Duration::from_mins(5);
/// Removed instances that are remembered while their sockets go on to be looked at. Of one that is forgotten here, a dead
/// socket makes a dead instance once more.
const MOST_REMOVED: usize = 4096;

/// Whether a phase means that nothing runs there any more.
#[must_use]
pub fn is_dead(phase: Phase) -> bool {
    After::default().of(phase).is_some()
}

#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    after: Duration,
}

/// When what is dead is removed.
#[derive(Debug)]
pub struct Retirement {
    after: After,
    due: BTreeSet<(Instant, InstanceKey)>,
    /// The same by instance.
    by_key: BTreeMap<InstanceKey, Due>,
    /// Removed, and dead since: that a look still finds nobody there is no news.
    removed: BTreeSet<InstanceKey>,
}

impl Retirement {
    /// Removes after these times.
    #[must_use]
    pub fn new(after: After) -> Self {
        Self { after, due: BTreeSet::new(), by_key: BTreeMap::new(), removed: BTreeSet::new() }
    }

    /// Instances as they were stored.
    pub fn load<'a>(&mut self, records: impl Iterator<Item = &'a Record>, wall: Timestamp, now: Instant) {
        for record in records {
            let Some(after) = self.after.of(record.phase) else { continue };
            let age = u64::try_from(wall.0.saturating_sub(record.since.0)).map_or(Duration::ZERO, Duration::from_nanos);
            let left = after.saturating_sub(age).max(after.min(SETTLING));
            self.set(&record.key, Due { at: now + left, after });
        }
    }

    /// An instance is in this phase now, whatever it was in before.
    pub fn seen(&mut self, key: &InstanceKey, phase: Phase, now: Instant) {
        match self.after.of(phase) {
            None => {
                self.clear(key);
                self.removed.remove(key);
            }
            // The same death as before.
            Some(after) if self.by_key.get(key).is_some_and(|due| due.after == after) => {}
            Some(after) => self.set(key, Due { at: now + after, after }),
        }
    }

    /// An instance that is due is looked at again at this time, if it is still dead then.
    pub fn postpone(&mut self, key: &InstanceKey, at: Instant) {
        if let Some(due) = self.by_key.get(key).copied() {
            self.set(key, Due { at, ..due });
        }
    }

    /// An instance is known no longer.
    pub fn left(&mut self, key: &InstanceKey) {
        self.clear(key);
    }

    /// An instance is known no longer, though its socket may still be looked at.
    pub fn removed(&mut self, key: InstanceKey) {
        self.clear(&key);
        if self.removed.len() >= MOST_REMOVED {
            self.removed.pop_first();
        }
        self.removed.insert(key);
    }

    /// Whether a look that found nobody would only bring a removed instance back.
    #[must_use]
    pub fn is_removed(&self, key: &InstanceKey) -> bool {
        self.removed.contains(key)
    }

    /// When the next one is due; `None`: nothing is dead.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Those that are due.
    #[must_use]
    pub fn due(&self, now: Instant) -> Vec<InstanceKey> {
        self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| key.clone()).collect()
    }

    fn set(&mut self, key: &InstanceKey, due: Due) {
        self.clear(key);
        self.by_key.insert(key.clone(), due);
        self.due.insert((due.at, key.clone()));
    }

    fn clear(&mut self, key: &InstanceKey) {
        if let Some((key, Due { at, .. })) = self.by_key.remove_entry(key) {
            self.due.remove(&(at, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{HostId, PluginId, Role};
    use crate::domain::record::{Owner, Reason};

    const HOUR: Duration = Duration::from_hours(1);
    const MINUTE: Duration = Duration::from_mins(1);

    fn key(plugin: &str) -> InstanceKey {
        InstanceKey {
            plugin: PluginId::parse(plugin).expect("legal"),
            role: Role::Node,
            host: HostId::parse("host-aaaa").expect("legal"),
        }
    }

    fn stored(plugin: &str, phase: Phase, since: Timestamp) -> Record {
        Record {
            key: key(plugin),
            phase,
            reason: Reason::plain("x"),
            since,
            update_time: since,
            was_healthy: true,
            has_answered: true,
            fingerprint: None,
            owner: Owner::default(),
            socket: "/run/csi.sock".into(),
            is_configured: false,
            registration: None,
        }
    }

    #[test]
    fn what_is_dead_for_an_hour_is_due_and_what_is_ill_never_is() {
        let (mut retirement, start) = (Retirement::new(After::default()), Instant::now());
        retirement.seen(&key("ill"), Phase::Unhealthy, start);
        assert_eq!(retirement.next(), None);
        retirement.seen(&key("dead"), Phase::Stale, start);
        assert_eq!(retirement.next(), Some(start + HOUR));
        assert_eq!(retirement.due(start + HOUR - MINUTE), []);
        assert_eq!(retirement.due(start + HOUR), [key("dead")]);
    }

    #[test]
    fn from_stale_to_gone_is_one_death_and_an_answer_ends_it() {
        let (mut retirement, start) = (Retirement::new(After::default()), Instant::now());
        retirement.seen(&key("a"), Phase::Stale, start);
        retirement.seen(&key("a"), Phase::Gone, start + MINUTE);
        assert_eq!(retirement.next(), Some(start + HOUR));
        retirement.seen(&key("a"), Phase::Starting, start + 2 * MINUTE);
        assert_eq!(retirement.next(), None);
        retirement.seen(&key("a"), Phase::Gone, start + 3 * MINUTE);
        assert_eq!(retirement.next(), Some(start + 3 * MINUTE + HOUR));
    }

    #[test]
    fn what_a_silent_host_had_is_kept_for_a_day() {
        let (mut retirement, start) = (Retirement::new(After::default()), Instant::now());
        retirement.seen(&key("a"), Phase::Lost, start);
        assert_eq!(retirement.next(), Some(start + 24 * HOUR));
        // Its host is back, and says that the socket is gone: that is another matter, and another time.
        retirement.seen(&key("a"), Phase::Gone, start + 23 * HOUR);
        assert_eq!(retirement.next(), Some(start + 24 * HOUR));
        retirement.seen(&key("a"), Phase::Healthy, start + 23 * HOUR);
        assert_eq!(retirement.next(), None);
    }

    #[test]
    fn what_was_stored_has_its_age_by_the_wall_clock_within_bounds() {
        let (start, wall) = (Instant::now(), Timestamp(1_767_323_045_000_000_000));
        let left = |phase, since: i64| {
            let mut retirement = Retirement::new(After::default());
            retirement.load([stored("a", phase, Timestamp(since))].iter(), wall, start);
            retirement.next().map(|at| at - start)
        };
        let minutes = |count: i64| wall.0 - count * 60_000_000_000;
        assert_eq!(left(Phase::Gone, minutes(20)), Some(40 * MINUTE));
        // Older than an hour, or seen by a clock that was years behind: time enough to come up with the machine.
        assert_eq!(left(Phase::Stale, minutes(3000)), Some(5 * MINUTE));
        assert_eq!(left(Phase::Gone, i64::MIN), Some(5 * MINUTE));
        // Seen by a clock that was ahead.
        assert_eq!(left(Phase::Gone, minutes(-3000)), Some(HOUR));
        assert_eq!(left(Phase::Healthy, minutes(3000)), None);
    }

    #[test]
    fn a_removed_instance_stays_away_until_somebody_answers() {
        let (mut retirement, start) = (Retirement::new(After::default()), Instant::now());
        retirement.seen(&key("a"), Phase::Gone, start);
        retirement.removed(key("a"));
        assert_eq!(retirement.next(), None);
        assert!(retirement.is_removed(&key("a")));
        retirement.seen(&key("a"), Phase::Healthy, start + HOUR);
        assert!(!retirement.is_removed(&key("a")));
    }

    #[test]
    fn what_is_remembered_of_the_removed_is_bounded() {
        let mut retirement = Retirement::new(After::default());
        for number in 0..MOST_REMOVED + 10 {
            retirement.removed(key(&format!("p{number}")));
        }
        assert_eq!(retirement.removed.len(), MOST_REMOVED);
    }
}
