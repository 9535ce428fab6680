//! Names for the sockets that were found: whose a socket is, its orchestrator knows, not its driver.
//!
//! A socket of an allocation of which nothing is known is held back: under the name that its driver gives itself it would be
//! another plugin, and would have to be taken back. One that is known already (its instances are stored) keeps its name.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::warn;

use super::{Known, Runs};
use crate::domain::id::{PluginId, Role};
use crate::domain::record::Record;
use crate::domain::socket::{IgnoredSocket, RoleChoice, WantedSocket};

/// Why a socket is held back before the first answer.
const NOT_YET: &str = "Nomad has not said yet which plugin this allocation is";
/// Why one is held back after it. Servers leave out what a token may not see, and call that an answer.
const SAYS_NOTHING: &str =
    "Nomad says nothing of this allocation; may the token of --nomad-addr `read-job` in the namespace of its job?";
/// A directory is there a little before its allocation is told of: how long that is no trouble.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sockets that should be watched.
pub type Wanted = Arc<BTreeSet<WantedSocket>>;

/// Looks up what is stored of an allocation.
pub type RecordsOf = dyn Fn(&str) -> Vec<Record> + Send;

/// What is known, what was found, and who is told.
pub struct Naming {
    /// What the orchestrator says.
    pub known: watch::Receiver<Arc<Known>>,
    /// Sockets as they were found.
    pub found: watch::Receiver<Wanted>,
    /// Whether every place was searched once.
    pub searched: watch::Receiver<bool>,
    /// Sockets with their names.
    pub wanted: watch::Sender<Wanted>,
    /// Whether all of them are there that can be.
    pub listed: watch::Sender<bool>,
    /// Sockets that wait for a name, and of how many of them the orchestrator says nothing though it was asked.
    pub held_back: Box<dyn Fn(Vec<IgnoredSocket>, usize) + Send>,
    /// Instances of an allocation that are stored.
    pub records: Box<RecordsOf>,
}

impl Naming {
    /// Runs until whoever tells it has gone.
    pub async fn run(mut self) {
        // Of which it was said that nothing is said, and for how many that may have to be.
        let (mut told, mut unnamed) = (0, self.name());
        loop {
            let goes_on = tokio::select! {
                changed = self.known.changed() => changed,
                changed = self.found.changed() => changed,
                changed = self.searched.changed() => changed,
                () = tokio::time::sleep(PATIENCE), if unnamed > told => {
                    told = unnamed;
                    warn!(sockets = unnamed, "{SAYS_NOTHING}");
                    continue;
                }
            };
            if goes_on.is_err() {
                return;
            }
            unnamed = self.name();
            told = told.min(unnamed);
        }
    }

    /// Names what can be named; returns of how many sockets the orchestrator says nothing.
    fn name(&mut self) -> usize {
        // In this order: what is complete was found before, and a name that comes later is looked at again.
        let is_searched = *self.searched.borrow_and_update();
        let found = Arc::clone(&self.found.borrow_and_update());
        let known = Arc::clone(&self.known.borrow_and_update());
        let reason = if known.is_answered { SAYS_NOTHING } else { NOT_YET };
        let mut held_back = Vec::new();
        let named = found.iter().filter_map(|socket| {
            let named = self.named(socket, &known);
            if named.is_none() {
                held_back.push(IgnoredSocket {
                    path: socket.path.to_path_buf(),
                    source: socket.source,
                    reason: reason.to_owned(),
                });
            }
            named
        });
        let named: Wanted = Arc::new(named.collect());
        let count = if known.is_answered { held_back.len() } else { 0 };
        (self.held_back)(held_back, count);
        self.wanted.send_if_modified(|before| {
            let is_news = *before != named;
            *before = named;
            is_news
        });
        let is_listed = is_searched && known.is_asked;
        self.listed.send_if_modified(|listed| is_listed && !std::mem::replace(listed, true));
        count
    }

    fn named(&self, socket: &WantedSocket, known: &Known) -> Option<WantedSocket> {
        let allocation = &*socket.owner.alloc_id;
        if !socket.is_allocation() {
            return Some(socket.clone());
        }
        let told = known.allocations.get(allocation).cloned();
        let Runs { plugin, role, job } = told.or_else(|| remembered(&(self.records)(allocation)))?;
        let mut named = WantedSocket { plugin: Some(plugin), role, ..socket.clone() };
        named.owner.job = job;
        Some(named)
    }
}

/// What an allocation runs, from what is stored of it.
fn remembered(records: &[Record]) -> Option<Runs> {
    let first = records.first()?;
    let has = |role| records.iter().any(|record| record.key.role == role);
    let role = match (has(Role::Controller), has(Role::Node)) {
        (true, true) => RoleChoice::Monolith,
        (true, false) => RoleChoice::Controller,
        _ => RoleChoice::Node,
    };
    let job = records.iter().find_map(|record| record.owner.job.clone());
    Some(Runs { plugin: PluginId::clone(&first.key.plugin), role, job })
}
