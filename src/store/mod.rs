//! What survives a crash: records, dates of plugins, transitions, and how far the index may have come.
//!
//! One thread owns the engine, because its calls block. Everyone else holds a [`Store`]: committing adds to a batch under
//! a lock and wakes the thread, so changes that arrive while the disk is busy go to it together, and changes that it does
//! not take wait as the latest state per instance, not as a queue. An engine knows transactions and nothing of this.
//! (The obvious alternative, `spawn_blocking` per commit, has no order and no bound.)

mod batch;
pub mod embedded;
mod error;
mod held;
pub mod memory;
pub mod record;
mod worker;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

pub use self::batch::Batch;
pub use self::error::{Cause, StoreError};
use self::worker::{Question, Shared};
use crate::domain::catalog::RecordChange;
use crate::domain::durability::Durability;
use crate::domain::history::Transition;
use crate::domain::id::PluginId;
use crate::domain::plugin::Dates;
use crate::domain::record::Record;
use crate::domain::time::Index;
use crate::metrics::operations::Operations;

/// How many indexes are reserved at a time. At one batch a millisecond they last 17 minutes.
pub const INDEX_RANGE: u64 = 1 << 20;

/// What a store is told at its start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Transitions kept per instance (`--history`).
    pub history: usize,
    /// Transitions kept in all, oldest dropped first. What is retired keeps its transitions, since "where has it gone?"
    /// is what history is asked most; so this is what bounds the file when hosts and ids come and go.
    pub history_total: usize,
    /// How long to wait before writing again what could not be written.
    pub retry: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { history: 32, history_total: 16_384, retry: Duration::from_secs(1) }
    }
}

/// What was stored, and where the index starts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// Every record.
    pub records: Vec<Record>,
    /// Dates of the plugins that count.
    pub dates: Vec<(PluginId, Dates)>,
    /// An index that nobody has seen a larger one of.
    pub start: Index,
}

/// One step of the catalog.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Commit {
    /// The index of the catalog after it.
    pub index: Index,
    /// Records that differ.
    pub changes: Vec<RecordChange>,
    /// Dates that differ; `None`: the plugin counts no longer.
    pub dates: Vec<(PluginId, Option<Dates>)>,
    /// What happened, oldest first.
    pub transitions: Vec<Transition>,
}

/// What an engine holds when it is opened.
#[derive(Debug, Default)]
pub struct Content {
    /// Every record.
    pub records: Vec<Record>,
    /// Dates of plugins.
    pub dates: Vec<(PluginId, Dates)>,
    /// First index beyond the reserved range; zero if none was ever reserved.
    pub reserved: Index,
}

/// Where batches are kept. Calls may block; one thread makes them all.
pub trait Engine: Send + 'static {
    /// Reads everything, and changes nothing of what it reads.
    ///
    /// # Errors
    /// Why it cannot be used.
    fn open(&mut self) -> Result<Content, StoreError>;

    /// Makes it ready for [`Engine::apply`], after opening and after each failure. Costs nothing while it is ready.
    ///
    /// # Errors
    /// Why it cannot be written now.
    fn ready(&mut self) -> Result<(), StoreError>;

    /// Writes a batch, all of it or nothing. It is durable when this returns.
    ///
    /// # Errors
    /// Why it was not written; [`Engine::ready`] comes before the next attempt.
    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError>;

    /// The newest transitions, of one plugin or of all, newest first.
    ///
    /// # Errors
    /// Why they cannot be read.
    fn history(&mut self, plugin: Option<&PluginId>, limit: usize) -> Result<Vec<Transition>, StoreError>;

    /// Closes in good order.
    ///
    /// # Errors
    /// What did not reach the disk.
    fn close(&mut self) -> Result<(), StoreError>;

    /// What a written batch is.
    fn durability(&self) -> Durability;
}

/// Resolves when a commit is durable, or with the reason why it is not. The change itself is kept either way, and
/// written when that becomes possible; whoever drops this loses nothing but the news.
#[derive(Debug)]
pub struct Committing(oneshot::Receiver<Result<(), Arc<str>>>);

impl Future for Committing {
    type Output = Result<(), Arc<str>>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| match answer {
            Ok(result) => result,
            Err(_) => Err("the store is closed".into()),
        })
    }
}

/// The store. Cheap to clone; its thread ends when the last clone is gone, or by [`Store::close`].
#[derive(Debug, Clone)]
pub struct Store(Arc<Owner>);

/// Ends the thread when nobody can reach it any more.
#[derive(Debug)]
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.begin_closing(None);
    }
}

impl Store {
    /// Opens the state file in a directory; both are made if they do not exist.
    ///
    /// # Errors
    /// [`StoreError`] says what is wrong and what to do; nothing was changed then.
    pub fn open(directory: &Path, settings: Settings) -> Result<(Self, Loaded), StoreError> {
        let engine = embedded::Embedded::new(directory, &settings);
        Self::start(engine, settings)
    }

    /// A store that keeps nothing but transitions, and those in memory and fewer.
    ///
    /// # Errors
    /// [`StoreError::Thread`].
    pub fn memory(mut settings: Settings) -> Result<(Self, Loaded), StoreError> {
        settings.history_total = settings.history_total.min(memory::HISTORY_LIMIT);
        let engine = memory::Memory::new(&settings);
        Self::start(engine, settings)
    }

    /// Opens an engine on its own thread, and reserves the first range of indexes.
    ///
    /// # Errors
    /// Those of [`Engine::open`]. That it cannot be written is none: that is [`Durability::NotDurable`].
    pub fn start(engine: impl Engine, settings: Settings) -> Result<(Self, Loaded), StoreError> {
        let shared = Arc::new(Shared::new(settings));
        let loaded = worker::spawn(Box::new(engine), Arc::clone(&shared))?;
        Ok((Self(Arc::new(Owner(shared))), loaded))
    }

    /// Hands over a step. Steps are written in the order of these calls, whether or not the result is awaited.
    #[must_use = "what is returned says when it is durable"]
    pub fn commit(&self, commit: Commit) -> Committing {
        let (answer, committing) = oneshot::channel();
        self.0.0.commit(commit, answer);
        Committing(committing)
    }

    /// What it did so far.
    #[must_use]
    pub fn operations(&self) -> Operations {
        self.0.0.operations()
    }

    /// Whether everything committed is on disk.
    #[must_use]
    pub fn durability(&self) -> watch::Receiver<Durability> {
        self.0.0.durability()
    }

    /// The newest transitions, newest first, of one plugin or of all; those included that are not on disk yet.
    ///
    /// # Errors
    /// [`StoreError::Read`], or [`StoreError::Closed`].
    pub async fn history(&self, plugin: Option<PluginId>, limit: usize) -> Result<Vec<Transition>, StoreError> {
        let (answer, transitions) = oneshot::channel();
        self.0.0.ask(Question { plugin, limit, answer });
        transitions.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Writes what is still to be written, closes the file in good order, and ends the thread.
    ///
    /// # Errors
    /// What did not reach the disk; [`StoreError::Closed`] if it was closed before.
    pub async fn close(&self) -> Result<(), StoreError> {
        let (answer, closed) = oneshot::channel();
        self.0.0.begin_closing(Some(answer));
        closed.await.unwrap_or(Err(StoreError::Closed))
    }
}
