//! What calls to drivers came to, by driver, method and code, as the CSI sidecars count them.
//!
//! Each socket counts for itself and is forgotten with whoever looks after it, so that the series of a driver that is gone
//! are gone with it. Before a driver has told its name it is `unknown-driver`, as in the sidecars' library.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::histogram::{Bounds, Histogram};

/// What a driver is called that has not told its name.
pub const UNKNOWN_DRIVER: &str = "unknown-driver";

/// Bounds of the sidecars' library.
pub const SIDECAR_BOUNDS: Bounds = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0];
/// Ours: a call on the same machine takes a millisecond.
pub const FINE_BOUNDS: Bounds = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Both, since each call is counted once.
const BOUNDS: Bounds = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 30.0, 50.0, 120.0, 300.0,
    600.0,
];

/// What asking a driver for its health came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// It is ready.
    Ready,
    /// It says that it is not.
    NotReady,
    /// It could not be asked, or answered with an error.
    Error,
    /// It did not answer in time.
    Timeout,
}

impl Probed {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::Ready, Self::NotReady, Self::Error, Self::Timeout];

    /// As a label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotReady => "not_ready",
            Self::Error => "error",
            Self::Timeout => "timeout",
        }
    }
}

#[derive(Debug, Default)]
struct Numbers {
    calls: BTreeMap<(&'static str, &'static str), Histogram>,
    probed: [u64; 4],
}

impl Numbers {
    fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.probed == [0; 4]
    }
}

#[derive(Debug, Default)]
struct OfDriver {
    /// Empty until it is told.
    name: Box<str>,
    named: Numbers,
    /// What was counted before.
    unnamed: Numbers,
}

impl OfDriver {
    fn numbers(&mut self) -> &mut Numbers {
        if self.name.is_empty() { &mut self.unnamed } else { &mut self.named }
    }
}

/// The calls to the driver behind one socket. Clones count together.
#[derive(Debug, Clone)]
pub struct DriverCalls(Arc<Mutex<OfDriver>>);

impl DriverCalls {
    fn lock(&self) -> MutexGuard<'_, OfDriver> {
        // Numbers are whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the driver is called from now on. Under another name the count begins anew.
    pub fn rename(&self, name: &str) {
        let mut of = self.lock();
        if *of.name != *name {
            of.name = name.into();
            of.named = Numbers::default();
        }
    }

    /// A call ended.
    pub fn called(&self, method: &'static str, code: &'static str, took: Duration) {
        let mut of = self.lock();
        of.numbers().calls.entry((method, code)).or_insert_with(|| Histogram::new(BOUNDS)).observe(took);
    }

    /// It was asked for its health, or could not be.
    pub fn probed(&self, result: Probed) {
        self.lock().numbers().probed[result as usize] += 1;
    }
}

/// All sockets' calls. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<Mutex<Vec<Weak<Mutex<OfDriver>>>>>);

/// What was counted, by driver.
#[derive(Debug, Default)]
pub struct Counted {
    /// By driver, method and code.
    pub calls: BTreeMap<(Box<str>, &'static str, &'static str), Histogram>,
    /// By driver, in the order of [`Probed::ALL`].
    pub probed: BTreeMap<Box<str>, [u64; 4]>,
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Mutex<OfDriver>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts for one more socket, as long as somebody holds what is returned.
    #[must_use]
    pub fn of_driver(&self) -> DriverCalls {
        let calls = Arc::new(Mutex::default());
        let mut all = self.lock();
        all.retain(|of| of.strong_count() > 0);
        all.push(Arc::downgrade(&calls));
        DriverCalls(calls)
    }

    /// Everything, that of sockets with one driver added up.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let mut counted = Counted::default();
        let all: Vec<_> = self.lock().iter().filter_map(Weak::upgrade).map(DriverCalls).collect();
        for calls in &all {
            let of = calls.lock();
            for (name, numbers) in [(&*of.name, &of.named), (UNKNOWN_DRIVER, &of.unnamed)] {
                if numbers.is_empty() {
                    continue;
                }
                for ((method, code), histogram) in &numbers.calls {
                    let sum = counted.calls.entry((name.into(), method, code));
                    sum.or_insert_with(|| Histogram::new(BOUNDS)).add(histogram);
                }
                let sum = counted.probed.entry(name.into()).or_default();
                sum.iter_mut().zip(numbers.probed).for_each(|(sum, one)| *sum += one);
            }
        }
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_count_under_the_drivers_name_and_go_with_the_socket() {
        let calls = Calls::default();
        let (one, other) = (calls.of_driver(), calls.of_driver());
        one.called("/a", "OK", Duration::from_millis(1));
        for of in [&one, &other] {
            of.rename("drv");
            of.called("/a", "OK", Duration::from_millis(1));
            of.probed(Probed::NotReady);
        }
        let counted = calls.counted();
        let counts: Vec<_> = counted.calls.iter().map(|((name, ..), calls)| (&**name, calls.count())).collect();
        assert_eq!(counts, [("drv", 2), (UNKNOWN_DRIVER, 1)]);
        assert_eq!(counted.probed["drv"], [0, 2, 0, 0]);
        drop(one);
        other.rename("another");
        other.probed(Probed::Ready);
        let counted = calls.counted();
        assert!(counted.calls.is_empty(), "{counted:?}");
        assert_eq!(counted.probed.into_iter().collect::<Vec<_>>(), [("another".into(), [1, 0, 0, 0])]);
    }

    #[test]
    fn every_bound_of_both_histograms_is_counted_exactly() {
        for bound in SIDECAR_BOUNDS.iter().chain(FINE_BOUNDS) {
            assert!(BOUNDS.contains(bound), "{bound}");
        }
        assert!(BOUNDS.is_sorted());
    }
}
