//! The only writer of the catalog: reports in, one batch at a time; durable first, visible second.
//!
//! Everything that waits is taken at once and becomes one step: one index, one transaction, one wake-up. A disk that
//! does not answer within a second does not hold the truth back: the step is published, and the standing says that it is
//! not durable. From then on nothing waits for the disk until it answers.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

use super::changes::{Changes, Step};
use super::commands::{self, Commands, Forget, ForgetError, Forgotten};
use super::history::History;
use super::reader::{Reader, Standing, Waiters};
use super::reporter::{self, Health, Observed, Report};
use super::retirement::{After, Retirement, is_dead};
use crate::domain::catalog::{Catalog, RecordChange};
use crate::domain::durability::Durability;
use crate::domain::expected::DeclaredCounts;
use crate::domain::history::{Change, Transition};
use crate::domain::id::{HostId, InstanceKey, PluginId};
use crate::domain::plugin::Dates;
use crate::domain::record::Record;
use crate::domain::time::{Index, Timestamp};
use crate::store::{Commit, Committing, Loaded, Store, StoreError};

/// How long a step waits for the disk before it is published all the same.
pub const COMMIT_LIMIT: Duration = Duration::from_secs(1);
/// Reports that may wait; whoever has more waits with them.
const QUEUE: usize = 1024;
/// Commands that may wait.
const COMMANDS: usize = 16;

/// What a publisher is reached by.
#[derive(Debug)]
pub struct Handles {
    /// The catalog.
    pub reader: Reader,
    /// What happened.
    pub history: History,
    /// Where reports go. The publisher ends when all senders are gone.
    pub reports: mpsc::Sender<Report>,
    /// Where commands go.
    pub commands: Commands,
}

/// The only writer of the catalog.
pub struct Publisher {
    catalog: watch::Sender<Arc<Catalog>>,
    standing: watch::Sender<Standing>,
    waiters: Arc<Waiters>,
    changes: Arc<Changes>,
    store: Store,
    durability: watch::Receiver<Durability>,
    reports: mpsc::Receiver<Report>,
    commands: mpsc::Receiver<Forget>,
    retirement: Retirement,
    /// Dates as they were loaded, of plugins without records too.
    stored: BTreeMap<PluginId, Dates>,
    /// Plugins whose dates the declaration of this start changed, and nobody has stored yet.
    undated: Vec<(PluginId, Option<Dates>)>,
    /// A commit that was not acknowledged in time; the newest, since they are acknowledged in order.
    late: Option<Committing>,
    clock: fn() -> Timestamp,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("standing", &*self.standing.borrow()).finish_non_exhaustive()
    }
}

/// What a batch of reports comes to, against the catalog as it is.
#[derive(Debug, Default)]
struct Stage {
    /// Instances that were touched; `None`: retired.
    records: BTreeMap<InstanceKey, Option<Box<Record>>>,
    transitions: Vec<Transition>,
    is_scanned: bool,
    marks: Vec<oneshot::Sender<()>>,
}

impl Stage {
    fn record<'a>(&'a self, catalog: &'a Catalog, key: &InstanceKey) -> Option<&'a Record> {
        match self.records.get(key) {
            Some(staged) => staged.as_deref(),
            None => catalog.record(key),
        }
    }

    fn take(&mut self, catalog: &Catalog, retirement: &Retirement, report: Report, now: Timestamp) {
        match report {
            // Its socket is still watched, and still nobody is there.
            Report::Seen(observed) if is_still_dead(&observed) && retirement.is_removed(&observed.key) => {}
            Report::Seen(observed) => {
                let previous = self.record(catalog, &observed.key);
                let next = reporter::fold(previous, *observed, now);
                self.put(catalog, Box::new(next), now);
            }
            Report::Retire(key) => self.remove(catalog, key, now),
            Report::Scanned => self.is_scanned = true,
            Report::Mark(mark) => self.marks.push(mark),
            Report::Feed(changes) => {
                for change in changes {
                    match change {
                        // Whoever feeds 100,000 records did not see them appear, and nobody wants to read that.
                        RecordChange::Put(record) if self.record(catalog, &record.key).is_none() => {
                            self.records.insert(record.key.clone(), Some(record));
                        }
                        RecordChange::Put(record) => self.put(catalog, record, now),
                        RecordChange::Remove(key) => self.remove(catalog, key, now),
                    }
                }
            }
        }
    }

    fn put(&mut self, catalog: &Catalog, next: Box<Record>, now: Timestamp) {
        let previous = self.record(catalog, &next.key);
        if previous == Some(&*next) {
            return;
        }
        let transition = |change| Transition {
            at: now,
            index: Index::default(),
            key: next.key.clone(),
            change,
            reason: next.reason.clone(),
        };
        let transitions: Vec<Transition> = reporter::transitions(previous, &next).into_iter().map(transition).collect();
        self.transitions.extend(transitions);
        self.records.insert(next.key.clone(), Some(next));
    }

    fn remove(&mut self, catalog: &Catalog, key: InstanceKey, now: Timestamp) {
        let Some(previous) = self.record(catalog, &key) else { return };
        let reason = previous.reason.clone();
        let index = Index::default();
        self.transitions.push(Transition { at: now, index, key: key.clone(), change: Change::Retired, reason });
        self.records.insert(key, None);
    }

    fn changes(&mut self) -> Vec<RecordChange> {
        let change = |(key, record): (InstanceKey, Option<Box<Record>>)| match record {
            Some(record) => RecordChange::Put(record),
            None => RecordChange::Remove(key),
        };
        std::mem::take(&mut self.records).into_iter().map(change).collect()
    }
}

impl Publisher {
    /// A publisher of what was loaded, and its handles. It does nothing before [`Publisher::run`].
    #[must_use]
    pub fn new(loaded: Loaded, store: Store) -> (Self, Handles) {
        let stored: BTreeMap<PluginId, Dates> = loaded.dates.into_iter().collect();
        let catalog = Catalog::load(loaded.start, loaded.records, stored.clone());
        let durability = store.durability();
        let standing = Standing { is_scanned: false, started: Instant::now(), durability: durability.borrow().clone() };
        let changes = Arc::new(Changes::after(catalog.index()));
        let catalog = watch::Sender::new(Arc::new(catalog));
        let standing = watch::Sender::new(standing);
        let waiters = Arc::new(Waiters::default());
        let (sender, reports) = mpsc::channel(QUEUE);
        let (commands_in, commands) = mpsc::channel(COMMANDS);
        let handles = Handles {
            reader: Reader::new(catalog.subscribe(), standing.subscribe(), Arc::clone(&waiters), Arc::clone(&changes)),
            history: History::new(store.clone()),
            reports: sender,
            commands: Commands(commands_in),
        };
        let publisher = Self {
            catalog,
            standing,
            waiters,
            changes,
            store,
            durability,
            reports,
            commands,
            retirement: Retirement::new(After::default()),
            stored,
            undated: Vec::new(),
            late: None,
            clock: Timestamp::now,
        };
        (publisher, handles)
    }

    /// With another wall clock, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> Timestamp) -> Self {
        self.clock = clock;
        self
    }

    /// Keeps what is dead for so long.
    #[must_use]
    pub fn retiring(mut self, after: After) -> Self {
        self.retirement = Retirement::new(after);
        self
    }

    /// Expects what an operator declares, and nothing that was declared before this start.
    #[must_use]
    pub fn declaring(mut self, declared: &BTreeMap<PluginId, DeclaredCounts>) -> Self {
        let current = Arc::clone(&self.catalog.borrow());
        let (next, touched) = current.declaring(declared, &self.stored, (self.clock)());
        self.undated = touched.into_iter().map(|touch| (touch.plugin, touch.dates)).collect();
        self.catalog.send_replace(Arc::new(next));
        self
    }

    /// Publishes until `shutdown`, or until nobody can report any more; then what is queued, and closes the store.
    ///
    /// # Errors
    /// What did not reach the disk in the end.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), StoreError> {
        tokio::pin!(shutdown);
        let mut batch = Vec::new();
        let loaded = Arc::clone(&self.catalog.borrow());
        self.retirement.load(loaded.records(), (self.clock)(), Instant::now());
        let index = loaded.index();
        drop(loaded);
        self.stored.clear();
        if !self.undated.is_empty() {
            let dates = std::mem::take(&mut self.undated);
            let committing = self.store.commit(Commit { index, changes: Vec::new(), dates, transitions: Vec::new() });
            self.await_disk(committing).await;
        }
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                taken = self.reports.recv_many(&mut batch, QUEUE) => {
                    if taken == 0 {
                        break;
                    }
                    self.take(batch.drain(..)).await;
                }
                Some(command) = self.commands.recv() => self.forget(command).await,
                () = reached(self.retirement.next()) => self.retire().await,
                () = answered(&mut self.late) => {
                    self.late = None;
                    self.tell_durability();
                }
                Ok(()) = self.durability.changed() => {
                    // While a commit is late, "durable" is about those before it.
                    if self.late.is_none() {
                        self.tell_durability();
                    }
                }
            }
        }
        self.reports.close();
        while self.reports.recv_many(&mut batch, QUEUE).await > 0 {
            self.take(batch.drain(..)).await;
        }
        self.store.close().await
    }

    async fn take(&mut self, reports: impl Iterator<Item = Report>) {
        let now = (self.clock)();
        let current = Arc::clone(&self.catalog.borrow());
        let mut stage = Stage::default();
        for report in reports {
            stage.take(&current, &self.retirement, report, now);
        }
        let is_scanned = stage.is_scanned;
        let marks = std::mem::take(&mut stage.marks);
        self.publish(&current, stage, now).await;
        if is_scanned {
            // After what the scan found is visible: nobody sees "scanned" and misses some of it.
            self.standing.send_if_modified(|standing| !std::mem::replace(&mut standing.is_scanned, true));
        }
        for mark in marks {
            // Whoever wanted to know may have gone.
            let _ = mark.send(());
        }
    }

    /// Removes what has been dead for long enough.
    async fn retire(&mut self) {
        let now = (self.clock)();
        let current = Arc::clone(&self.catalog.borrow());
        let mut stage = Stage::default();
        for key in self.retirement.due(Instant::now()) {
            if let Some(record) = current.record(&key) {
                info!(
                    plugin.id = %key.plugin, role = key.role.as_str(), host.id = %key.host, socket = %record.socket,
                    phase = %record.phase, "retired: it has been dead for long enough"
                );
            }
            stage.remove(&current, key.clone(), now);
            self.retirement.removed(key);
        }
        self.publish(&current, stage, now).await;
    }

    async fn forget(&mut self, command: Forget) {
        let Forget { plugin, host, answer } = command;
        let result = self.forgotten(&plugin, host.as_ref()).await;
        // Whoever asked may have gone; it is forgotten all the same.
        let _ = answer.send(result);
    }

    async fn forgotten(&mut self, plugin: &PluginId, host: Option<&HostId>) -> Result<Forgotten, ForgetError> {
        let current = Arc::clone(&self.catalog.borrow());
        let known = current.plugin(plugin.as_str()).ok_or(ForgetError::NoSuchPlugin)?;
        let records = commands::forgettable(known, host)?;
        let now = (self.clock)();
        let mut stage = Stage::default();
        for record in &records {
            stage.remove(&current, record.key.clone(), now);
            self.retirement.removed(record.key.clone());
        }
        self.publish(&current, stage, now).await;
        let next = self.catalog.borrow();
        let is_plugin_gone = next.plugin(plugin.as_str()).is_none();
        let durability = self.standing.borrow().durability.clone();
        Ok(Forgotten { records, is_plugin_gone, index: next.index(), durability })
    }

    async fn publish(&mut self, current: &Catalog, mut stage: Stage, now: Timestamp) {
        let changes = stage.changes();
        let index = current.index().next();
        let (next, touched) = current.with(&changes, index, now);
        let monotonic = Instant::now();
        for change in &changes {
            match change {
                RecordChange::Put(record) => self.retirement.seen(&record.key, record.phase, monotonic),
                RecordChange::Remove(key) => self.retirement.left(key),
            }
        }
        if touched.is_empty() {
            return;
        }
        let mut transitions = stage.transitions;
        let dates = touched.iter().filter(|touch| touch.is_shown_by_nomad);
        let dates = dates.map(|touch| (touch.plugin.clone(), touch.dates)).collect();
        for transition in &mut transitions {
            transition.index = index;
        }
        self.changes.count(&changes, &transitions);
        let step = Step::between(current, &next, &touched, &changes, &transitions);
        let committing = self.store.commit(Commit { index, changes, dates, transitions });
        self.await_disk(committing).await;
        self.waiters.wake_after(&touched, || {
            self.catalog.send_replace(Arc::new(next));
            self.changes.push(index, step);
        });
    }

    async fn await_disk(&mut self, mut committing: Committing) {
        if self.late.is_some() {
            self.late = Some(committing);
            return;
        }
        match tokio::time::timeout(COMMIT_LIMIT, &mut committing).await {
            // Good or bad, the store has said it in its `durability`, and perhaps something newer since.
            Ok(_) => self.tell_durability(),
            Err(_) => {
                self.late = Some(committing);
                let reason = format!("the disk has not answered for {} s", COMMIT_LIMIT.as_secs());
                self.tell(Durability::NotDurable(reason.into()));
            }
        }
    }

    fn tell_durability(&mut self) {
        let durability = self.durability.borrow_and_update().clone();
        self.tell(durability);
    }

    fn tell(&self, durability: Durability) {
        self.standing.send_if_modified(|standing| {
            let is_news = standing.durability != durability;
            standing.durability = durability;
            is_news
        });
    }
}

/// Whether a look found that nobody is there.
fn is_still_dead(observed: &Observed) -> bool {
    match observed.health {
        Health::Failed { phase, .. } | Health::Verbatim { phase, .. } => is_dead(phase),
        Health::Healthy | Health::Starting => false,
    }
}

/// Returns at this time; never, if there is none.
async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Returns when a late commit is answered; never, if none is late.
async fn answered(late: &mut Option<Committing>) {
    match late {
        Some(committing) => drop(committing.await),
        None => std::future::pending().await,
    }
}
