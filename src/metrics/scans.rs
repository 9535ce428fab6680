//! Walks of the places where sockets are looked for, by the kind of place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// What walks of one kind of place came to.
#[derive(Debug, Clone, Copy)]
pub struct Scan {
    /// Walks that could not be made, or hung.
    pub errors: u64,
    /// When one ended last; `None`: none did.
    pub last: Option<SystemTime>,
}

/// By kind of place. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Scans(Arc<Mutex<BTreeMap<&'static str, Scan>>>);

impl Scans {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Scan>> {
        // Entries are whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A walk ended, well or not.
    pub fn ended(&self, source: &'static str, is_well: bool) {
        let mut scans = self.lock();
        let scan = scans.entry(source).or_insert(Scan { errors: 0, last: None });
        scan.errors += u64::from(!is_well);
        scan.last = Some(SystemTime::now());
    }

    /// A walk does not end.
    pub fn hangs(&self, source: &'static str) {
        self.lock().entry(source).or_insert(Scan { errors: 0, last: None }).errors += 1;
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> BTreeMap<&'static str, Scan> {
        self.lock().clone()
    }
}
