//! Durations by size: counted without a lock, read as Prometheus wants them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in seconds, in ascending order; what is longer than the last one has a place of its own.
pub type Bounds = &'static [f64];

/// How many durations fell between which bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: Bounds,
    /// One for each bound and one for what is longer.
    counts: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
}

impl Histogram {
    /// An empty one.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum_nanos: AtomicU64::new(0) }
    }

    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let place = self.bounds.iter().position(|bound| seconds <= *bound).unwrap_or(self.bounds.len());
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Adds what another one of the same bounds has counted.
    pub fn add(&self, other: &Self) {
        for (mine, theirs) in self.counts.iter().zip(&other.counts) {
            mine.fetch_add(theirs.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.sum_nanos.fetch_add(other.sum_nanos.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// How many were at most so long; exact for its own bounds.
    #[must_use]
    pub fn at_most(&self, seconds: f64) -> u64 {
        let counted = self.bounds.iter().zip(&self.counts).take_while(|(bound, _)| **bound <= seconds);
        counted.map(|(_, count)| count.load(Ordering::Relaxed)).sum()
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// How long they were together, in seconds.
    #[must_use]
    pub fn sum(&self) -> f64 {
        Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_for_every_bound_that_it_does_not_exceed() {
        let (one, other) = (Histogram::new(&[0.001, 0.1, 1.0]), Histogram::new(&[0.001, 0.1, 1.0]));
        for millis in [1, 50, 100, 5000] {
            one.observe(Duration::from_millis(millis));
        }
        assert_eq!([0.001, 0.1, 1.0].map(|bound| one.at_most(bound)), [1, 3, 3]);
        assert_eq!((one.count(), one.sum()), (4, 5.151));
        other.add(&one);
        other.add(&one);
        assert_eq!((other.at_most(0.1), other.count(), other.sum()), (6, 8, 10.302));
    }
}
