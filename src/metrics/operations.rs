//! What a store was asked to do, how long that took, and whether it worked.

use std::sync::Arc;
use std::time::Duration;

use super::histogram::{Bounds, Histogram};

/// A disk's flush takes milliseconds, and one that is ill takes seconds.
pub const BOUNDS: Bounds = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What can be asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// To read everything, at the start.
    Open,
    /// To write a batch.
    Commit,
    /// To read transitions.
    History,
}

impl Operation {
    /// All of them, in their order.
    pub const ALL: [Self; 3] = [Self::Open, Self::Commit, Self::History];

    /// As a label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Commit => "commit",
            Self::History => "history",
        }
    }
}

/// By operation and result. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Operations(Arc<[[Histogram; 2]; 3]>);

impl Default for Operations {
    fn default() -> Self {
        Self(Arc::new(Operation::ALL.map(|_| [Histogram::new(BOUNDS), Histogram::new(BOUNDS)])))
    }
}

impl Operations {
    /// One ended.
    pub fn ended(&self, operation: Operation, is_well: bool, took: Duration) {
        self.of(operation, is_well).observe(took);
    }

    /// Those that worked, or those that did not.
    #[must_use]
    pub fn of(&self, operation: Operation, is_well: bool) -> &Histogram {
        let [failed, worked] = &self.0[operation as usize];
        if is_well { worked } else { failed }
    }
}
