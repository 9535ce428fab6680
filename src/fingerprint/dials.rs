//! How often a driver that answers may be dialled: once a second, and once more after a connection's end, which may be a
//! death and must be seen at once.
//!
//! Counted by socket file and for the whole host: links, moves and changed modes bring up one file under ever new paths,
//! each watched by a task of its own. A dial that nobody answers is not counted; return has to be quick.

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

    /// Waits until this file may be dialled.
    pub(super) async fn turn(&self, file: FileKey, reason: Dial) {
        // Asked again afterwards: two paths may lead to the file.
        while let Some(wait) = self.wait(file, reason, Instant::now()) {
            tokio::time::sleep(wait).await;
        }
    }

    /// It was dialled just now, and somebody answered.
    pub(super) fn answered(&self, file: FileKey) {
        self.count(file, Instant::now());
    }

    fn wait(&self, file: FileKey, reason: Dial, now: Instant) -> Option<Duration> {
        let free = *self.free().get(&file)?;
        let ahead = match reason {
            Dial::Fresh => Duration::ZERO,
            Dial::AfterAnEnd => SPACING,
        };
        Some(free.saturating_duration_since(now).saturating_sub(ahead)).filter(|wait| !wait.is_zero())
    }

    fn count(&self, file: FileKey, now: Instant) {
        let mut free = self.free();
        if free.len() >= MANY {
            free.retain(|_, at| *at > now);
        }
        let at = free.entry(file).or_insert(now);
        *at = (*at).max(now) + SPACING;
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
        assert_eq!(dials.wait(FILE, Dial::Fresh, start), None);
        dials.count(FILE, start);
        assert_eq!(dials.wait(FILE, Dial::Fresh, start + millis(300)), Some(millis(700)));
        assert_eq!(dials.wait(FILE, Dial::Fresh, start + millis(1000)), None);
        assert_eq!(dials.wait(FILE, Dial::AfterAnEnd, start + millis(300)), None);
        assert_eq!(dials.wait((1, 2, 4), Dial::Fresh, start), None, "another file");
    }

    #[test]
    fn a_server_that_hangs_up_again_and_again_is_dialled_once_a_second() {
        let (dials, start) = (Dials::default(), Instant::now());
        let (mut now, mut dialled) = (start, 0);
        while now < start + SPACING * 10 {
            match dials.wait(FILE, Dial::AfterAnEnd, now) {
                Some(wait) => now += wait,
                None => {
                    dials.count(FILE, now);
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
            dials.count((1, number, 0), start + millis(number * 10));
        }
        assert!(dials.free().len() <= MANY);
    }
}
