//! An aggregator's side: makes a catalog of what etcd holds, and follows it.
//!
//! It reads everything at one revision, then watches from the next one on; a watch that breaks is taken up where it was,
//! and one that etcd has compacted away begins with reading again, of which readers notice only what differs. It keeps
//! nothing. The little that it has to write is in `writes`.

mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::writes::{About, Written};
use super::error::{EtcdError, Fault};
use super::etcd::{Etcd, Read, Session, Told, Word};
use super::keys::Keys;
use super::view::{Step, View};
use super::{Backoff, Settings};
use crate::domain::catalog::{Catalog, RecordChange};
use crate::domain::expected::Declaration;
use crate::domain::fleet::FleetStanding;
use crate::domain::history::Transition;
use crate::domain::id::{HostId, PluginId};
use crate::domain::record::Phase;
use crate::domain::time::{Index, Timestamp};
use crate::registry::agents::Agents;
use crate::registry::allocations::Allocations;
use crate::registry::commands::{Commands, Forget, ForgetError};
use crate::registry::history::{History, Recent};
use crate::registry::mirror::Mirror;
use crate::registry::reader::Reader;
use crate::registry::retirement::{After, Retirement};
use crate::store::record::Stored;

/// How often etcd is asked how far it is. Its answer is what makes a reply current, so it has to be well below the time
/// for which an answer counts.
const ASK: Duration = Duration::from_millis(200);
/// Silence after which a member is given up.
const SILENCE: Duration = Duration::from_secs(3);
/// Revisions behind which everything is read rather than what happened: for each look etcd reads all that is to be told, and
/// with more of it than this that takes longer than [`SILENCE`], so that nothing would ever be told.
const FAR: i64 = 5_000;
/// How long it may take to write that a host is lost while what is shown, on which it is not, still counts as current.
const UNSHOWN: Duration = Duration::from_millis(300);
/// From a reading of the history that failed to the next one.
const HISTORY_AGAIN: Duration = Duration::from_secs(5);
/// Transitions held.
const RECENT: usize = 4096;
/// Commands that may wait.
const COMMANDS: usize = 16;

/// What a follower is reached by.
#[derive(Debug)]
pub struct Handles {
    /// The catalog.
    pub reader: Reader,
    /// What happened.
    pub history: History,
    /// What orchestrators say of allocations.
    pub allocations: Allocations,
    /// Which agents are there.
    pub agents: Agents,
    /// Where commands go.
    pub commands: Commands,
    /// How it stands with etcd.
    pub standing: watch::Receiver<FleetStanding>,
}

/// Follows a fleet.
#[derive(Debug)]
pub struct Follower {
    etcd: Etcd,
    keys: Keys,
    mirror: Mirror,
    recent: Recent,
    allocations: Allocations,
    agents: Agents,
    standing: watch::Sender<FleetStanding>,
    commands: mpsc::Receiver<Forget>,
    view: View,
    /// The newest revision that is shown; 0: nothing was read yet.
    revision: i64,
    /// What happened since is too much to be told, or forgotten.
    is_far: bool,
    cluster: u64,
    retirement: Retirement,
    clock: fn() -> Timestamp,
    declared: BTreeMap<PluginId, Declaration>,
    /// When what is declared is to be written; `None`: it is.
    declare_at: Option<Instant>,
    /// Hosts that seem to be lost, and when that is to be written.
    silent: BTreeMap<HostId, Instant>,
    /// Hosts that are shown as they were though their agents are silent, and since when that is known.
    unshown: BTreeMap<HostId, Instant>,
    /// What has to be shown for it to be current.
    word: Option<Word>,
    writes: JoinSet<Written>,
    /// Until where history was not read yet.
    unread: Option<i64>,
    /// The reading of it.
    reading: JoinSet<Result<Vec<Transition>, EtcdError>>,
    /// Hosts and plugins that something is being written about.
    busy: BTreeSet<About>,
    /// The last write that failed, until one succeeds.
    unwritten: Option<EtcdError>,
    /// What it had shown before its etcd fell back, until that is passed again.
    fell: Option<i64>,
}

impl Follower {
    /// Follows what settings name; expects what is `declared`, and forgets silent hosts after a time. It does nothing
    /// before [`Follower::run`].
    #[must_use]
    pub fn new(
        etcd: Etcd,
        settings: &Settings,
        retire_lost: Duration,
        declared: BTreeMap<PluginId, Declaration>,
    ) -> (Self, Handles) {
        let keys = Keys::new(&settings.prefix);
        let (mirror, reader) = Mirror::new(Catalog::empty(Index(1)), super::current_for(settings.host_ttl));
        let recent = Recent::new(RECENT);
        let (standing, told) = watch::channel(FleetStanding::default());
        let (commands_in, commands) = Commands::channel(COMMANDS);
        let (allocations, agents) = (Allocations::default(), Agents::default());
        let handles = Handles {
            reader,
            history: History::recent(recent.clone()),
            allocations: allocations.clone(),
            agents: agents.clone(),
            commands: commands_in,
            standing: told,
        };
        let follower = Self {
            etcd,
            view: View::new(keys.clone()),
            keys,
            mirror,
            recent,
            allocations,
            agents,
            standing,
            commands,
            revision: 0,
            is_far: false,
            cluster: 0,
            // What is gone on a host that is there is its agent's to retire.
            retirement: Retirement::new(After { lost: retire_lost, ..After::default() }),
            clock: Timestamp::now,
            declared,
            declare_at: Some(Instant::now()),
            silent: BTreeMap::new(),
            unshown: BTreeMap::new(),
            word: None,
            writes: JoinSet::new(),
            unread: None,
            reading: JoinSet::new(),
            busy: BTreeSet::new(),
            unwritten: None,
            fell: None,
        };
        (follower, handles)
    }

    /// With another wall clock, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> Timestamp) -> Self {
        self.clock = clock;
        self
    }

    /// Follows until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new();
        loop {
            let ended = stop.run_until_cancelled(self.session(&mut backoff)).await;
            let Some(error) = ended else { return };
            if matches!(error.fault(), Fault::NoLeader | Fault::Slow) {
                self.etcd.turn();
            }
            self.writes.shutdown().await;
            self.reading.shutdown().await;
            self.busy.clear();
            if error.fault() == Fault::Compacted {
                info!(reason = %crate::telemetry::Chain(&error), "reading the fleet anew");
                self.is_far = true;
            }
            self.tell(Some(&error));
            let pause = tokio::time::sleep(backoff.wait(false));
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = &mut pause => break,
                    // Whoever asked may have gone.
                    Some(command) = self.commands.recv() => drop(command.answer.send(Err(ForgetError::Unwritten))),
                }
            }
        }
    }

    async fn session(&mut self, backoff: &mut Backoff) -> EtcdError {
        match self.followed(backoff).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn followed(&mut self, backoff: &mut Backoff) -> Result<Infallible, EtcdError> {
        let session = self.etcd.open().await?;
        let word = session.word(&self.keys.index()).await?;
        let Word { revision, cluster, .. } = word;
        let has_fallen = word.moved < self.view.moved();
        if self.revision > 0
            && (revision < self.revision || has_fallen || (self.cluster != cluster && self.cluster != 0))
        {
            if revision < self.revision {
                self.fell = self.fell.max(Some(self.revision));
                self.recent.clear();
            }
            self.revision = 0;
            self.declare_at = Some(Instant::now());
            if has_fallen && revision >= self.view.moved() {
                self.raise(&session, word.moved).await?;
            }
        }
        self.cluster = cluster;
        if self.revision == 0 || self.is_far || revision - self.revision > FAR {
            self.load(&session).await?;
            self.is_far = false;
        }
        // From the last one that is shown, and not from the next: about a revision that is yet to come etcd answers no
        // question, and on a quiet day the next one is hours away.
        let mut watch = session.watch(self.keys.prefix(), self.revision).await?;
        self.look_after(&session, None);
        self.tell(None);
        self.word = None;
        self.read_history(&session, Duration::ZERO);
        let asked = asked(&session, self.keys.index(), Duration::ZERO);
        tokio::pin!(asked);
        let mut heard = Instant::now();
        loop {
            let due = self.due();
            tokio::select! {
                told = watch.next() => {
                    heard = Instant::now();
                    self.take(&session, told?)?;
                    backoff.reset();
                }
                word = &mut asked => {
                    let word = word?;
                    self.word = Some(word);
                    if heard.elapsed() > SILENCE {
                        self.is_far = word.revision > self.revision;
                        return Err(EtcdError::state(Fault::Slow, "the watch says nothing any more"));
                    }
                    watch.ask();
                    asked.set(self::asked(&session, self.keys.index(), ASK));
                }
                Some(Ok(read)) = self.reading.join_next() => match read {
                    Ok(read) => {
                        self.recent.merge(read);
                        self.unread = None;
                    }
                    // Compacted meanwhile, say. Nothing else depends on it.
                    Err(error) => {
                        info!(reason = %crate::telemetry::Chain(&error), "reading the history anew");
                        self.read_history(&session, HISTORY_AGAIN);
                    }
                },
                Some(written) = self.writes.join_next() => {
                    if let Ok(written) = written {
                        self.written(&session, written)?;
                    }
                }
                () = reached(due) => {
                    self.catch_up(&session);
                    self.declare_if_due(&session).await?;
                }
                Some(command) = self.commands.recv() => self.forget(&session, command).await,
            }
        }
    }

    /// Takes in what a watch says.
    fn take(&mut self, session: &Session, told: Told) -> Result<(), EtcdError> {
        match told {
            Told::Begun { cluster, revision } => {
                if revision < self.revision || (cluster != self.cluster && cluster != 0) {
                    return Err(EtcdError::state(Fault::Restored, "another etcd answers under the same address"));
                }
            }
            Told::Progress { revision } => {
                if revision < self.revision {
                    return Err(EtcdError::state(Fault::Restored, "its revision fell"));
                }
                // That alone is not enough: a member that is cut off from the others says so for seconds, and before 3.4.25
                // and 3.5.8 any may say so while events up to there are still on their way.
                let is_shown = |word: &Word| revision >= word.revision && self.view.moved() >= word.moved;
                if let Some(word) = self.word.take_if(|word| is_shown(word)) {
                    self.mirror.pulse().behind(self.unshown.values().any(|since| since.elapsed() > UNSHOWN));
                    self.mirror.pulse().beat(word.asked.into_std());
                    self.mirror.scanned();
                    if !self.standing.borrow().is_in_step {
                        self.tell(None);
                    }
                }
            }
            Told::Events { revision, events } => {
                let current = self.mirror.current();
                let shown = self.revision;
                let events = events.into_iter().filter(|(read, _)| read.mod_revision > shown);
                let mut step = self.view.apply(&current, events);
                for (host, agent) in step.agents.drain(..) {
                    self.agents.put(host, agent);
                }
                for (host, sockets) in step.sockets.drain(..) {
                    self.agents.put_sockets(host, sockets);
                }
                for (id, allocation) in step.allocations.drain(..) {
                    match allocation {
                        Some(allocation) => self.allocations.put(allocation),
                        None => self.allocations.remove(&id),
                    }
                }
                self.show(&current, &step);
                self.revision = self.revision.max(revision);
                self.look_after(session, Some(&step));
                self.view.sweep(&step);
                if !step.hosts.is_empty() {
                    self.tell(None);
                }
            }
        }
        Ok(())
    }

    fn show(&mut self, current: &Catalog, step: &Step) {
        let (next, touched) = self.view.catalog(current, step);
        let now = std::time::Instant::now();
        for change in &step.changes {
            match change {
                RecordChange::Put(record) if record.phase == Phase::Lost => {
                    self.retirement.seen(&record.key, Phase::Lost, now);
                }
                change => self.retirement.left(change.key()),
            }
        }
        self.recent.push(step.transitions.iter().cloned());
        self.mirror.publish(next, &touched, &step.changes, &step.transitions);
    }

    /// Reads everything at one revision, and shows what differs from what is shown.
    async fn load(&mut self, session: &Session) -> Result<(), EtcdError> {
        let begun = Instant::now();
        let mut view = View::new(self.keys.clone());
        let mut catalog = Catalog::empty(Index(1));
        let mut all = Step::default();
        let (mut allocations, agents) = (Vec::new(), Agents::default());
        let mut at = 0;
        // Hosts first: whether a record is shown depends on its host.
        let single = [self.keys.index(), self.keys.nomad_index()];
        let kinds = ["hosts", "plugins", "expected", "instances", "stubs", "sockets"].map(|kind| self.keys.kind(kind));
        for prefix in kinds.iter().chain(&single) {
            let mut take = |page: super::etcd::Page| {
                let events = page.pairs.into_iter().map(|read| (read, false));
                let step = view.apply(&catalog, events);
                let (next, _) = view.catalog(&catalog, &step);
                catalog = next;
                all.affected.extend(step.affected);
                all.hosts.extend(step.hosts);
                all.emptied.extend(step.emptied);
                step.agents.into_iter().for_each(|(host, agent)| agents.put(host, agent));
                step.sockets.into_iter().for_each(|(host, sockets)| agents.put_sockets(host, sockets));
                allocations.extend(step.allocations.into_iter().filter_map(|(_, allocation)| allocation));
            };
            at = session.list(prefix, at, false, &mut take).await?;
        }
        // Dates may depend on what was read after them.
        let dated = Step { affected: view.plugins.keys().cloned().collect(), ..Step::default() };
        let (loaded, _) = view.catalog(&catalog, &dated);
        let current = self.mirror.current();
        let mut changes = Vec::new();
        for record in loaded.records().filter(|record| current.record(&record.key) != Some(record)) {
            changes.push(RecordChange::Put(Box::new(record.clone())));
        }
        for record in current.records().filter(|record| loaded.record(&record.key).is_none()) {
            changes.push(RecordChange::Remove(record.key.clone()));
        }
        all.affected.extend(view.plugins.keys().cloned());
        all.affected.extend(current.plugins().map(|plugin| plugin.id.clone()));
        drop((catalog, loaded));
        all.changes = changes;
        self.view = view;
        self.silent.clear();
        self.unshown.clear();
        self.retirement.load(
            all.changes.iter().filter_map(|change| match change {
                RecordChange::Put(record) if record.phase == Phase::Lost => Some(&**record),
                _ => None,
            }),
            (self.clock)(),
            std::time::Instant::now(),
        );
        self.allocations.replace(allocations);
        self.agents.replace(agents);
        self.show(&current, &all);
        self.view.sweep(&all);
        self.revision = at;
        self.unread = Some(at);
        info!(
            instances = self.mirror.current().records().count(),
            hosts = self.view.hosts.len(),
            etcd.revision = at,
            duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "read the fleet"
        );
        Ok(())
    }

    /// Reads the history after a pause, if there is one that was not read.
    fn read_history(&mut self, session: &Session, pause: Duration) {
        let Some(until) = self.unread else { return };
        let reading = read_history(session.clone(), self.keys.clone(), until);
        self.reading.spawn(async move {
            tokio::time::sleep(pause).await;
            reading.await
        });
    }

    fn tell(&mut self, error: Option<&EtcdError>) {
        let (hosts_here, hosts_lost) = self.view.counts();
        self.fell = self.fell.filter(|from| self.revision <= *from);
        let is_in_step = error.is_none() && self.revision > 0;
        let error = error.or(self.unwritten.as_ref());
        let trouble = error.map(EtcdError::trouble).or_else(|| {
            let what = format!("indexes up to {} were shown before", self.fell?);
            Some(EtcdError::state(Fault::Restored, what).trouble())
        });
        let next = FleetStanding { is_in_step, trouble, waiting: 0, hosts_here, hosts_lost };
        self.standing.send_if_modified(|standing| {
            super::log_change(standing, &next);
            let is_news = *standing != next;
            *standing = next;
            is_news
        });
    }
}

/// The newest of what happened until a revision; what happened since is told by the watch. There may be hundreds of times
/// as much, so it is read page by page, and beside everything else.
async fn read_history(session: Session, keys: Keys, until: i64) -> Result<Vec<Transition>, EtcdError> {
    let mut newest: BTreeMap<(i64, Vec<u8>), Vec<u8>> = BTreeMap::new();
    let take = |page: super::etcd::Page| {
        for Read { key, value, mod_revision, .. } in page.pairs {
            if mod_revision <= until {
                newest.insert((mod_revision, key), value);
            }
        }
        while newest.len() > RECENT {
            newest.pop_first();
        }
    };
    session.list(&keys.history(None), 0, false, take).await?;
    let decoded = newest.into_iter().filter_map(|((revision, _), value)| {
        let transition = Transition::from_stored(&value).ok()?;
        Some(Transition { index: Index(u64::try_from(revision).ok()?), ..transition })
    });
    Ok(decoded.collect())
}

/// etcd's word after a pause.
async fn asked(session: &Session, key: String, pause: Duration) -> Result<Word, EtcdError> {
    tokio::time::sleep(pause).await;
    let late = || EtcdError::state(Fault::Slow, "no answer to how far it is");
    tokio::time::timeout(SILENCE, session.word(&key)).await.unwrap_or_else(|_| Err(late()))
}

/// Returns at this time; never, if there is none.
async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
