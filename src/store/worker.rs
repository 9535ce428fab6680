//! The thread that owns the engine, and what it shares with the handles.
//!
//! It sleeps on a condition, so an idle store costs nothing. After a failure it tries again at once (the file is opened
//! anew; many failures are over by then), and then at an interval, until what is missing is written.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{oneshot, watch};

use super::error::chain;
use super::{Batch, Commit, Content, Engine, INDEX_RANGE, Loaded, Settings, StoreError};
use crate::domain::durability::Durability;
use crate::domain::history::Transition;
use crate::domain::id::PluginId;
use crate::domain::time::Index;
use crate::metrics::operations::{Operation, Operations};

type Answer = oneshot::Sender<Result<(), Arc<str>>>;

/// A request for transitions.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) plugin: Option<PluginId>,
    pub(super) limit: usize,
    pub(super) answer: oneshot::Sender<Result<Vec<Transition>, StoreError>>,
}

#[derive(Debug, Default)]
struct State {
    /// What is to be written.
    pending: Batch,
    /// Who waits for it.
    waiting: Vec<Answer>,
    questions: Vec<Question>,
    /// End of the index range that is reserved, or will be with `pending`.
    reserved: Index,
    /// Why the last attempt failed, until one succeeds.
    failure: Option<Arc<str>>,
    is_closing: bool,
    closing: Vec<oneshot::Sender<Result<(), StoreError>>>,
    /// The thread takes nothing any more.
    is_closed: bool,
}

/// What handles and thread share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    durability: watch::Sender<Durability>,
    settings: Settings,
    operations: Operations,
}

impl Shared {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            durability: watch::Sender::new(Durability::Memory),
            settings,
            operations: Operations::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn durability(&self) -> watch::Receiver<Durability> {
        self.durability.subscribe()
    }

    pub(super) fn operations(&self) -> Operations {
        self.operations.clone()
    }

    pub(super) fn commit(&self, commit: Commit, answer: Answer) {
        let mut state = self.state();
        if state.is_closed {
            return;
        }
        if commit.index.0.saturating_add(INDEX_RANGE / 2) >= state.reserved.0 {
            state.reserved = Index(commit.index.0.saturating_add(INDEX_RANGE));
            state.pending.reserved = Some(state.reserved);
        }
        state.pending.add(commit.changes, commit.dates, commit.transitions, self.settings.history_total);
        if let Some(reason) = &state.failure {
            // The thread is on its own clock now; nobody waits for it.
            let _ = answer.send(Err(Arc::clone(reason)));
            return;
        }
        state.waiting.push(answer);
        drop(state);
        self.wake.notify_one();
    }

    pub(super) fn ask(&self, question: Question) {
        let mut state = self.state();
        if state.is_closed {
            return;
        }
        // A disk that hangs collects no questions of those who have gone.
        state.questions.retain(|question| !question.answer.is_closed());
        state.questions.push(question);
        drop(state);
        self.wake.notify_one();
    }

    pub(super) fn begin_closing(&self, answer: Option<oneshot::Sender<Result<(), StoreError>>>) {
        let mut state = self.state();
        if state.is_closed {
            return;
        }
        state.is_closing = true;
        state.closing.extend(answer);
        drop(state);
        self.wake.notify_one();
    }

    fn tell(&self, durability: Durability) {
        self.durability.send_if_modified(|now| {
            match (&*now, &durability) {
                (Durability::NotDurable(_), Durability::Durable) => {
                    tracing::info!("the state file is written again, and everything published is on disk");
                }
                (Durability::Durable, Durability::NotDurable(reason)) => {
                    tracing::warn!(error = %reason, "what is published is not on disk; it is kept and written when that is possible");
                }
                _ => {}
            }
            let is_news = *now != durability;
            *now = durability;
            is_news
        });
    }
}

/// Starts the thread, and waits until it has opened the engine.
pub(super) fn spawn(engine: Box<dyn Engine>, shared: Arc<Shared>) -> Result<Loaded, StoreError> {
    let (answer, opened) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("store".to_owned())
        .spawn(move || {
            let mut worker = Worker { engine, shared, retry_at: None, last_error: None };
            match worker.open() {
                Ok(loaded) => {
                    if answer.send(Ok(loaded)).is_ok() {
                        worker.run();
                    }
                }
                Err(err) => {
                    let _ = answer.send(Err(err));
                }
            }
        })
        .map_err(StoreError::Thread)?;
    opened.recv().unwrap_or(Err(StoreError::Closed))
}

struct Worker {
    engine: Box<dyn Engine>,
    shared: Arc<Shared>,
    /// When to try again, after a failure.
    retry_at: Option<Instant>,
    /// That failure.
    last_error: Option<StoreError>,
}

/// What the thread woke up for.
struct Work {
    questions: Vec<Question>,
    /// A batch and who waits for it; `None` if it is not time to write.
    batch: Option<(Batch, Vec<Answer>)>,
    is_closing: bool,
}

impl Worker {
    fn open(&mut self) -> Result<Loaded, StoreError> {
        let begun = Instant::now();
        let Content { records, dates, reserved } = self.engine.open()?;
        self.shared.operations.ended(Operation::Open, true, begun.elapsed());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let start = Index(u64::try_from(now).unwrap_or(u64::MAX)).max(reserved);
        {
            let mut state = self.shared.state();
            state.reserved = Index(start.0.saturating_add(INDEX_RANGE));
            state.pending.reserved = Some(state.reserved);
        }
        self.shared.tell(self.engine.durability());
        // Reserved before anyone sees an index of the range.
        let first = std::mem::take(&mut self.shared.state().pending);
        self.write(first, Vec::new());
        Ok(Loaded { records, dates, start })
    }

    fn run(&mut self) {
        loop {
            let work = self.next();
            if let Some((batch, waiting)) = work.batch {
                self.write(batch, waiting);
            }
            for question in work.questions {
                let begun = Instant::now();
                let transitions = self.history(question.plugin.as_ref(), question.limit);
                self.shared.operations.ended(Operation::History, transitions.is_ok(), begun.elapsed());
                let _ = question.answer.send(transitions);
            }
            if work.is_closing {
                self.write_once_more();
                return;
            }
        }
    }

    /// Sleeps until there is something to do.
    fn next(&mut self) -> Work {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        loop {
            let now = Instant::now();
            let is_due = match self.retry_at {
                None => !state.pending.is_empty() || !state.waiting.is_empty(),
                Some(at) => at <= now || state.is_closing,
            };
            if is_due || state.is_closing || !state.questions.is_empty() {
                return Work {
                    questions: std::mem::take(&mut state.questions),
                    batch: is_due.then(|| (std::mem::take(&mut state.pending), std::mem::take(&mut state.waiting))),
                    is_closing: state.is_closing,
                };
            }
            state = match self.retry_at {
                None => shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let (state, _) = shared
                        .wake
                        .wait_timeout(state, at.saturating_duration_since(now))
                        .unwrap_or_else(PoisonError::into_inner);
                    state
                }
            };
        }
    }

    /// The attempt that would come at once, were the store not closing.
    fn write_once_more(&mut self) {
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            let batch = std::mem::take(&mut self.shared.state().pending);
            self.write(batch, Vec::new());
        }
    }

    fn write(&mut self, batch: Batch, waiting: Vec<Answer>) {
        let begun = Instant::now();
        let result =
            self.engine.ready().and_then(|()| if batch.is_empty() { Ok(()) } else { self.engine.apply(&batch) });
        self.shared.operations.ended(Operation::Commit, result.is_ok(), begun.elapsed());
        match result {
            Ok(()) => {
                self.retry_at = None;
                self.last_error = None;
                let owes = {
                    let mut state = self.shared.state();
                    // Changes that came meanwhile were answered "not durable", and are not.
                    state.failure.take().is_some() && !state.pending.is_empty()
                };
                if !owes {
                    self.shared.tell(self.engine.durability());
                }
                for answer in waiting {
                    let _ = answer.send(Ok(()));
                }
            }
            Err(err) => self.keep(batch, waiting, err),
        }
    }

    /// Keeps what could not be written, beneath what came meanwhile.
    fn keep(&mut self, mut batch: Batch, mut waiting: Vec<Answer>, err: StoreError) {
        let reason = chain(&err);
        self.last_error = Some(err);
        let mut state = self.shared.state();
        let later = std::mem::take(&mut state.pending);
        batch.then(later, self.shared.settings.history_total);
        state.pending = batch;
        waiting.append(&mut state.waiting);
        let is_first = state.failure.replace(Arc::clone(&reason)).is_none();
        drop(state);
        let now = Instant::now();
        self.retry_at = Some(if is_first { now } else { now + self.shared.settings.retry });
        self.shared.tell(Durability::NotDurable(Arc::clone(&reason)));
        for answer in waiting {
            let _ = answer.send(Err(Arc::clone(&reason)));
        }
    }

    /// What is not on disk yet is the newest part of history.
    fn history(&mut self, plugin: Option<&PluginId>, limit: usize) -> Result<Vec<Transition>, StoreError> {
        let mut newest: Vec<Transition> = {
            let state = self.shared.state();
            let of_plugin = |transition: &&Transition| plugin.is_none_or(|plugin| transition.key.plugin == *plugin);
            state.pending.transitions.iter().rev().filter(of_plugin).take(limit).cloned().collect()
        };
        if newest.len() < limit {
            newest.extend(self.engine.history(plugin, limit - newest.len())?);
        }
        Ok(newest)
    }
}

impl Drop for Worker {
    /// Also after a panic in an engine: whoever waits learns that nobody will answer.
    fn drop(&mut self) {
        let is_panicking = std::thread::panicking();
        let closed = if is_panicking { Err(StoreError::Closed) } else { self.engine.close() };
        // What was never written matters more than how closing went.
        let mut result = self.last_error.take().map_or(closed, Err);
        if is_panicking {
            self.shared.tell(Durability::NotDurable("the thread of the store has ended".into()));
        }
        let State { closing, .. } =
            std::mem::replace(&mut *self.shared.state(), State { is_closed: true, ..State::default() });
        for answer in closing {
            let _ = answer.send(std::mem::replace(&mut result, Err(StoreError::Closed)));
        }
    }
}
