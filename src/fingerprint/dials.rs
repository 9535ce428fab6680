//! How often a driver that answers may be dialled: once a second, and once more after a connection's end, which may be a
//! death and must be seen at once.
//!
//! Counted by socket file and for the whole host: links, moves and changed modes bring up one file under ever new paths,
//! each watched by a task of its own. A dial that failed is not counted: return has to be quick.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::socket::FileKey;

/// From one dial to the next, on an average.
const SPACING: Duration = Duration::from_secs(1);
/// Entries from which on those that say nothing any more are taken out.
const MANY: usize = 256;

/// Why a socket is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dial {
    /// There was no connection.
    Fresh,
    /// A connection ended.
    AfterAnEnd,
}

/// When which socket file was dialled. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Dials {
    /// When the next fresh dial of a file may be made; the past says nothing.
    free: Arc<Mutex<HashMap<FileKey, Instant>>>,
}

impl Dials {
    fn free(&self) -> MutexGuard<'_, HashMap<FileKey, Instant>> {
        // Entries are replaced whole.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn that is given back when this is dropped.
    pub(super) fn unless_kept(&self, file: FileKey) -> Turn<'_> {
        Turn { dials: self, file: Some(file) }
    }

    /// The dial failed.
    pub(super) fn failed(&self, file: FileKey) {
        if let Some(at) = self.free().get_mut(&file) {
            *at = at.checked_sub(SPACING).unwrap_or(*at);
        }
    }

    /// Nobody listens behind this file.
    pub(super) fn forget(&self, file: FileKey) {
        self.free().remove(&file);
    }

    /// A dial that had no turn.
    pub(super) fn count(&self, file: FileKey) {
        let now = Instant::now();
        let mut free = self.free();
        let at = free.get(&file).map_or(now, |at| (*at).max(now));
        free.insert(file, at + SPACING);
    }

    /// Counts a dial now, also if it will be broken off, until it is said to have failed; or says how long to wait.
    pub(super) fn take(&self, file: FileKey, reason: Dial, now: Instant) -> Result<(), Duration> {
        let mut free = self.free();
        let ahead = match reason {
            Dial::Fresh => Duration::ZERO,
            Dial::AfterAnEnd => SPACING,
        };
        let at = free.get(&file).map_or(now, |at| (*at).max(now));
        let wait = at.duration_since(now).saturating_sub(ahead);
        if !wait.is_zero() {
            return Err(wait);
        }
        if free.len() >= MANY {
            free.retain(|_, at| *at > now);
        }
        free.insert(file, at + SPACING);
        Ok(())
    }
}

/// See [`Dials::unless_kept`].
#[derive(Debug)]
pub(super) struct Turn<'a> {
    dials: &'a Dials,
    file: Option<FileKey>,
}

impl Turn<'_> {
    /// The dial came to its end.
    pub(super) fn keep(mut self) {
        self.file = None;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.file {
            self.dials.failed(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileKey = (1, 2, 3);

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_driver_that_answered_is_dialled_a_second_later_and_an_end_is_confirmed_at_once() {
        let (dials, start) = (Dials::default(), Instant::now());
        assert_eq!(dials.take(FILE, Dial::Fresh, start), Ok(()));
        assert_eq!(dials.take(FILE, Dial::Fresh, start + millis(300)), Err(millis(700)));
        assert_eq!(dials.take(FILE, Dial::AfterAnEnd, start + millis(300)), Ok(()));
        assert_eq!(dials.take(FILE, Dial::Fresh, start + millis(1000)), Err(millis(1000)));
        assert_eq!(dials.take(FILE, Dial::Fresh, start + millis(2000)), Ok(()));
        assert_eq!(dials.take((1, 2, 4), Dial::Fresh, start), Ok(()), "another file");
    }

    #[test]
    fn a_dial_that_failed_holds_nobody_back() {
        let (dials, start) = (Dials::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(dials.take(FILE, Dial::Fresh, start), Ok(()));
            dials.failed(FILE);
        }
        drop(dials.unless_kept(FILE));
        assert_eq!(dials.take(FILE, Dial::Fresh, start), Ok(()));
        dials.unless_kept(FILE).keep();
        assert_eq!(dials.take(FILE, Dial::Fresh, start), Err(SPACING));
    }

    #[test]
    fn a_server_that_hangs_up_again_and_again_is_dialled_once_a_second() {
        let (dials, start) = (Dials::default(), Instant::now());
        let (mut now, mut dialled) = (start, 0);
        while now < start + SPACING * 10 {
            match dials.take(FILE, Dial::AfterAnEnd, now) {
                Err(wait) => now += wait,
                Ok(()) => {
                    dialled += 1;
                    now += millis(10);
                }
            }
        }
        assert_eq!(dialled, 11, "one a second, and one more");
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let (dials, start) = (Dials::default(), Instant::now());
        for number in 0..10_000 {
            assert_eq!(dials.take((1, number, 0), Dial::Fresh, start + millis(number * 10)), Ok(()));
        }
        assert!(dials.free().len() <= MANY);
    }
}
