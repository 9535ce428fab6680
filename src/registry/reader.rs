//! Reading the catalog, and waiting for what a query reads.
//!
//! A reader takes an `Arc` and never locks; only somebody who waits enters a list. Lists are per subject, so that a
//! change of one plugin wakes those who read it and nobody else. An entry lives as long as somebody waits under it:
//! nothing is kept by a name that a client made up.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use super::changes::Changes;
use super::mirror::Pulse;
use crate::domain::catalog::{Catalog, Touched};
pub use crate::domain::durability::Durability;

/// What a query reads, and so what it waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// One plugin in Nomad's shape, also one that does not exist yet.
    Plugin(String),
    /// Nomad's list of the plugins whose ids begin with this; empty: all of them.
    List(String),
    /// Anything that `/v1/gateway` can show.
    Everything,
}

/// Those who wait, by subject.
#[derive(Debug, Default)]
pub struct Waiters {
    by_subject: Mutex<BTreeMap<Subject, Arc<Notify>>>,
    /// Odd while a step is visible and not everybody who waits for it was woken.
    steps: AtomicU64,
}

impl Waiters {
    fn lists(&self) -> std::sync::MutexGuard<'_, BTreeMap<Subject, Arc<Notify>>> {
        // The map is whole at every step, so a panic elsewhere under the lock cannot have left it half changed.
        self.by_subject.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, subject: Subject) -> Waiting {
        let notify = Arc::clone(self.lists().entry(subject.clone()).or_default());
        Waiting { notify, subject, waiters: Arc::clone(self) }
    }

    /// Makes a step visible, then wakes those whose subject it touched.
    pub fn wake_after(&self, touched: &[Touched], show: impl FnOnce()) {
        self.steps.fetch_add(1, Ordering::SeqCst);
        show();
        self.wake(touched);
        self.steps.fetch_add(1, Ordering::SeqCst);
    }

    /// Wakes those whose subject is among what a batch touched. The catalog must be visible before.
    pub fn wake(&self, touched: &[Touched]) {
        if touched.is_empty() {
            return;
        }
        let mut woken = Vec::new();
        {
            let lists = self.lists();
            woken.extend(lists.get(&Subject::Everything).cloned());
            for touch in touched.iter().filter(|touch| touch.is_shown_by_nomad) {
                let id = touch.plugin.as_str();
                woken.extend(lists.get(&Subject::Plugin(id.to_owned())).cloned());
                // Prefixes of an id sort before it and are at most as many as it has characters.
                for end in id.char_indices().map(|(at, _)| at).chain([id.len()]) {
                    woken.extend(lists.get(&Subject::List(id[..end].to_owned())).cloned());
                }
            }
        }
        for notify in woken {
            notify.notify_waiters();
        }
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        // One of each is the list's own.
        self.lists().values().map(|notify| Arc::strong_count(notify).saturating_sub(1)).sum()
    }

    /// How many subjects somebody waits for.
    #[must_use]
    pub fn subjects(&self) -> usize {
        self.lists().len()
    }
}

/// A place in a waiter list, taken before the snapshot is read; so no change falls between.
#[derive(Debug)]
pub struct Waiting {
    notify: Arc<Notify>,
    subject: Subject,
    waiters: Arc<Waiters>,
}

impl Waiting {
    /// Resolves at the next change of the subject. Make it before reading the catalog: it counts from this call, not
    /// from the first poll.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + '_ {
        self.notify.notified()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut lists = self.waiters.lists();
        // The list's own and this one: nobody else is left.
        if Arc::strong_count(&self.notify) == 2 {
            lists.remove(&self.subject);
        }
    }
}

/// How far the gateway itself has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Whether every source was listed and every socket has a verdict.
    pub is_scanned: bool,
    /// Since when the catalog has been served, for `X-Nomad-LastContact` until it is scanned.
    pub started: Instant,
    /// Whether what was seen is on disk.
    pub durability: Durability,
}

/// The catalog for those who read it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    catalog: watch::Receiver<Arc<Catalog>>,
    standing: watch::Receiver<Standing>,
    waiters: Arc<Waiters>,
    changes: Arc<Changes>,
    /// `None`: whoever writes the catalog sees for itself.
    pulse: Option<Arc<Pulse>>,
}

impl Reader {
    /// A reader of what a publisher writes.
    #[must_use]
    pub fn new(
        catalog: watch::Receiver<Arc<Catalog>>,
        standing: watch::Receiver<Standing>,
        waiters: Arc<Waiters>,
        changes: Arc<Changes>,
    ) -> Self {
        Self { catalog, standing, waiters, changes, pulse: None }
    }

    /// The same where the catalog is told from elsewhere: as current as its pulse.
    #[must_use]
    pub fn with_pulse(mut self, pulse: Arc<Pulse>) -> Self {
        self.pulse = Some(pulse);
        self
    }

    /// Whether the catalog is told from elsewhere, so that it may be behind another gateway's.
    #[must_use]
    pub fn is_follower(&self) -> bool {
        self.pulse.is_some()
    }

    /// The newest catalog.
    #[must_use]
    pub fn current(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.borrow())
    }

    /// How far the gateway itself has come.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Nomad's `X-Nomad-KnownLeader` and `X-Nomad-LastContact` (milliseconds): until the first scan is complete the
    /// answers are those of the last run. A follower's are as current as its source's last word.
    #[must_use]
    pub fn contact(&self) -> (bool, u64) {
        let standing = self.standing.borrow();
        match &self.pulse {
            Some(pulse) if standing.is_scanned => return pulse.contact(standing.started),
            None if standing.is_scanned => return (true, 0),
            _ => {}
        }
        (false, u64::try_from(standing.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// What changed, step by step.
    #[must_use]
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Resolves once every driver was looked at.
    pub async fn scanned(&self) {
        // Its sender has gone only when everything stops.
        let _ = self.standing.clone().wait_for(|standing| standing.is_scanned).await;
    }

    /// How many queries wait for something to change.
    #[must_use]
    pub fn blocked(&self) -> usize {
        self.waiters.waiting()
    }

    /// The catalog, if what `changed` waits for has not changed in it; `None`: it has. Whoever gives up waiting asks here:
    /// between the moment when a step is visible and the one when it wakes, a catalog shows more than is known of.
    pub async fn unchanged(&self, mut changed: Pin<&mut impl Future<Output = ()>>) -> Option<Arc<Catalog>> {
        loop {
            let before = self.waiters.steps.load(Ordering::SeqCst);
            let catalog = self.current();
            // Asked once more anyway where a step falls between.
            if changed.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                return None;
            }
            if before.is_multiple_of(2) && self.waiters.steps.load(Ordering::SeqCst) == before {
                return Some(catalog);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Takes a place in the list of those who wait for `subject`.
    #[must_use]
    pub fn waiting(&self, subject: Subject) -> Waiting {
        self.waiters.enter(subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::PluginId;

    fn touch(id: &str, is_shown_by_nomad: bool) -> [Touched; 1] {
        [Touched { plugin: PluginId::parse(id).expect("legal"), is_shown_by_nomad, dates: None }]
    }

    #[tokio::test]
    async fn a_change_wakes_those_who_read_it_and_nobody_else() {
        let waiters = Arc::new(Waiters::default());
        let read = waiters.enter(Subject::Plugin("ebs".into()));
        let other = waiters.enter(Subject::Plugin("nfs".into()));
        let list = waiters.enter(Subject::List(String::new()));
        let prefix = waiters.enter(Subject::List("eb".into()));
        let (read, other) = (read.changed(), other.changed());
        let (list, prefix) = (list.changed(), prefix.changed());
        waiters.wake(&touch("ebs", true));
        read.await;
        list.await;
        prefix.await;
        tokio::select! {
            biased;
            () = other => panic!("nfs did not change"),
            () = std::future::ready(()) => {}
        }
    }

    #[tokio::test]
    async fn what_only_the_gateway_shows_wakes_no_reader_of_nomads_shape() {
        let waiters = Arc::new(Waiters::default());
        let list = waiters.enter(Subject::List(String::new()));
        let all = waiters.enter(Subject::Everything);
        let (list, all) = (list.changed(), all.changed());
        waiters.wake(&touch("ebs", false));
        all.await;
        tokio::select! {
            biased;
            () = list => panic!("the list shows nothing new"),
            () = std::future::ready(()) => {}
        }
    }

    #[test]
    fn nothing_is_kept_for_a_name_when_the_last_waiter_has_gone() {
        let waiters = Arc::new(Waiters::default());
        let first = waiters.enter(Subject::Plugin("made-up".into()));
        let second = waiters.enter(Subject::Plugin("made-up".into()));
        assert_eq!((waiters.waiting(), waiters.subjects()), (2, 1));
        drop(first);
        assert_eq!((waiters.waiting(), waiters.subjects()), (1, 1));
        drop(second);
        assert_eq!(waiters.subjects(), 0);
    }
}
