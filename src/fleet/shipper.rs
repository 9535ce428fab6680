//! An agent's side: keeps etcd equal to what this host's registry knows.
//!
//! Any wake-up compares the whole of one host, which is small, with what etcd is known to hold; so a change that is missed
//! costs nothing, and while etcd is away nothing piles up but transitions, as many as their rings hold. Whenever it is
//! not certain what etcd holds (a lease that ran out, an answer that was lost) it registers again: reads its own keys and
//! sends the difference. What the host itself is served never waits for any of this.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::etcd::{Do, Etcd, If, Read, Session};
use super::keys::{Alive, HostState, Keys, Moved, Presence, Stub};
use super::outbox::{self, HOST_HISTORY, Shipped, Side, Waiting};
use super::{Backoff, Settings};
use crate::domain::fleet::FleetStanding;
use crate::domain::history::Transition;
use crate::domain::id::HostId;
use crate::domain::record::Record;
use crate::domain::socket::{HostSockets, is_uuid};
use crate::domain::time::{Index, Timestamp};
use crate::fleet::error::{EtcdError, Fault};
use crate::registry::allocations::Allocations;
use crate::registry::history::History;
use crate::registry::reader::{Reader, Subject};
use crate::registry::sockets::Sockets;
use crate::store::record::Stored;

/// How long it may take to read the history that was not shipped, which the disk may hold up.
const HISTORY_LIMIT: Duration = Duration::from_secs(2);
/// Longest word of an orchestrator about one allocation that is passed on, in bytes; a usual one has a few thousand.
const LONGEST_STUB: usize = 256 << 10;
/// Longest word about a host's sockets, in bytes: some thousand of them. What is more is counted, and not told.
const LONGEST_SOCKETS: usize = 256 << 10;
/// From one look at what is to be told of sockets to the next.
const SOCKETS_AGAIN: Duration = Duration::from_secs(5);

/// Ships one host.
#[derive(Debug)]
pub struct Shipper {
    etcd: Etcd,
    keys: Keys,
    host: HostId,
    ttl: Duration,
    clock: fn() -> Timestamp,
    /// Transitions kept of each instance.
    ring: usize,
    reader: Reader,
    /// `None`: what happened before this process is not kept.
    history: Option<History>,
    /// What an orchestrator says of the host's allocations; `None`: nobody asks one.
    allocations: Option<Allocations>,
    /// `None`: nothing is told of sockets.
    sockets: Option<ToldSockets>,
    standing: watch::Sender<FleetStanding>,
    alive: Alive,
    lease: Option<(i64, Duration)>,
    /// What etcd holds, as far as is known.
    shipped: Shipped,
    waiting: Waiting,
    /// Index of the last step whose transitions are in `waiting` or shipped.
    seen: Index,
    /// Whether there are transitions in the store that were not seen.
    is_behind: bool,
    /// Whether this process has ever acted for the host.
    has_registered: bool,
}

/// The host's sockets, and what is to be told of them. They are told all at once, so one that comes and goes has them
/// looked at some time later.
#[derive(Debug)]
struct ToldSockets {
    table: Sockets,
    /// As it is written.
    stored: Vec<u8>,
    looked: Instant,
    /// When they are to be looked at; `None`: not before they move.
    due: Option<Instant>,
}

impl ToldSockets {
    fn moved(&mut self) {
        self.due.get_or_insert(self.looked + SOCKETS_AGAIN);
    }

    fn look(&mut self) {
        let now = Instant::now();
        if self.due.is_some_and(|due| due <= now) {
            (self.due, self.looked) = (None, now);
            self.stored = told(self.table.everything());
        }
    }
}

/// What is told of a host's sockets, as it is written.
fn told(mut sockets: HostSockets) -> Vec<u8> {
    for status in &mut sockets.sockets {
        *status = status.told();
    }
    let mut stored = sockets.to_stored();
    // What is nobody's goes first.
    sockets.sockets.sort_by_key(|status| status.is_ignored);
    while stored.len() > LONGEST_SOCKETS {
        let kept = sockets.sockets.len() / 2;
        sockets.left_out += sockets.sockets.drain(kept..).len();
        if kept == 0 {
            sockets = HostSockets { left_out: sockets.left_out, ..HostSockets::default() };
        }
        stored = sockets.to_stored();
    }
    stored
}

/// What was read of the own host.
struct Own {
    alive: Option<Read>,
    state: Option<Read>,
}

impl Own {
    fn revision(read: Option<&Read>) -> i64 {
        read.map_or(0, |read| read.mod_revision)
    }

    fn is_here(&self) -> bool {
        let state = self.state.as_ref().and_then(|read| HostState::from_stored(&read.value).ok());
        state.is_some_and(|state| state.state == Presence::Here)
    }
}

impl Shipper {
    /// Ships what `reader` shows of `host`, `ring` transitions of each instance. It does nothing before [`Shipper::run`].
    #[must_use]
    pub fn new(
        etcd: Etcd,
        settings: &Settings,
        host: HostId,
        reader: Reader,
        history: Option<History>,
        ring: usize,
    ) -> (Self, watch::Receiver<FleetStanding>) {
        let (standing, told) = watch::channel(FleetStanding::default());
        let alive = Alive {
            agent: format!("{:016x}", fastrand::u64(..)).into(),
            version: env!("CARGO_PKG_VERSION").into(),
            since: Timestamp::now(),
        };
        let shipper = Self {
            etcd,
            keys: Keys::new(&settings.prefix),
            host,
            ttl: settings.host_ttl,
            clock: Timestamp::now,
            ring,
            reader,
            history,
            allocations: None,
            sockets: None,
            standing,
            alive,
            lease: None,
            shipped: Shipped::default(),
            waiting: Waiting::new(),
            seen: Index::default(),
            is_behind: false,
            has_registered: false,
        };
        (shipper, told)
    }

    /// With another wall clock, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> Timestamp) -> Self {
        self.alive.since = clock();
        self.clock = clock;
        self
    }

    /// Ships what is said of the host's allocations, too.
    #[must_use]
    pub fn with_allocations(mut self, allocations: Allocations) -> Self {
        self.allocations = Some(allocations);
        self
    }

    /// Ships what is seen of the host's sockets, too.
    #[must_use]
    pub fn with_sockets(mut self, table: Sockets) -> Self {
        let now = Instant::now();
        self.sockets = Some(ToldSockets { table, stored: Vec::new(), looked: now, due: Some(now) });
        self
    }

    /// Ships until `stop`. The lease is left to run out by itself: an agent that is back before nobody misses.
    pub async fn run(mut self, stop: CancellationToken) {
        // Nothing before the first complete scan: half of what there is would look like the loss of the other half.
        if stop.run_until_cancelled(self.reader.scanned()).await.is_none() {
            return;
        }
        let mut backoff = Backoff::new();
        loop {
            let ended = stop.run_until_cancelled(self.session(&mut backoff)).await;
            let Some(error) = ended else { return };
            if error.fault() == Fault::NoLeader || error.fault() == Fault::Slow {
                self.etcd.turn();
            }
            self.tell(Some(&error));
            // A lease that ran out before the host was registered with it is late, too; one that ran out later found the times
            // short again.
            let is_busy = matches!(error.fault(), Fault::Slow | Fault::LeaseLost);
            if stop.run_until_cancelled(tokio::time::sleep(backoff.wait(is_busy))).await.is_none() {
                return;
            }
        }
    }

    /// Registers and ships until something fails.
    async fn session(&mut self, backoff: &mut Backoff) -> EtcdError {
        match self.registered(backoff).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn registered(&mut self, backoff: &mut Backoff) -> Result<std::convert::Infallible, EtcdError> {
        let session = self.etcd.open().await?;
        if let Some(lease) = self.lease.take() {
            let error = self.under(lease, &session, backoff).await;
            // Run out while nobody answered: with a new one the host is back at once.
            if error.fault() != Fault::LeaseLost {
                return Err(error);
            }
        }
        let lease = session.grant(super::leased(self.ttl)).await?;
        Err(self.under(lease, &session, backoff).await)
    }

    /// Registers and ships as long as this lease can be kept.
    async fn under(&mut self, (lease, ttl): (i64, Duration), session: &Session, backoff: &mut Backoff) -> EtcdError {
        let (kept, mut is_kept) = watch::channel(false);
        let keeping = async {
            let told = || {
                kept.send_if_modified(|kept| !std::mem::replace(kept, true));
            };
            session.keep(lease, ttl, told).await
        };
        tokio::pin!(keeping);
        let shipping = async {
            // Whether it still exists decides whether it can be used, so that comes first. Its sender ends with the future
            // that keeps it.
            let _ = is_kept.wait_for(|is_kept| *is_kept).await;
            match self.ship(session, lease, backoff).await {
                Ok(never) => match never {},
                Err(error) => error,
            }
        };
        let error = tokio::select! {
            error = &mut keeping => error,
            error = shipping => error,
        };
        // Kept for the next session: a connection that was lost is no reason for the lease to end.
        if error.fault() != Fault::LeaseLost {
            self.lease = Some((lease, ttl));
        }
        error
    }

    async fn ship(
        &mut self,
        session: &Session,
        lease: i64,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, EtcdError> {
        self.check_alone(session).await?;
        // A write that was not answered may still be on its way, by a member that was stopped for a while, say. What is
        // read below would not show it, and what is sent below it would undo.
        let mark = self.keys.session(&self.host);
        let (_, revision) = session.transact(Vec::new(), vec![Do::Put(mark.clone(), self.alive.to_stored())]).await?;
        let fence = If::Unmoved(mark, revision);
        let own = self.read_own(session).await?;
        self.collect_past().await;
        let seen_alive = If::Unmoved(self.keys.alive(&self.host), Own::revision(own.alive.as_ref()));
        let guards = [fence.clone(), seen_alive];
        self.send_difference(session, &guards).await?;
        self.register(session, &own, &guards, lease).await?;
        info!(host.id = %self.host, instances = self.shipped.records.len(), "registered with the fleet");
        self.tell(None);
        let guards = [fence, If::BoundTo(self.keys.alive(&self.host), lease)];
        let (reader, allocations) = (self.reader.clone(), self.allocations.clone());
        // What moved since the look that was shipped just now was not waited for.
        self.sockets.iter_mut().for_each(ToldSockets::moved);
        let sockets = self.sockets.as_ref().map(|sockets| sockets.table.clone());
        let waiting = reader.waiting(Subject::Everything);
        loop {
            // Made before the catalog is read: a change between the two is not missed.
            let changed = waiting.changed();
            let replaced = allocations.as_ref().map(Allocations::replaced);
            let moved = sockets.as_ref().map(Sockets::moved);
            self.collect();
            if self.is_behind {
                self.collect_past().await;
            }
            match self.send_difference(session, &guards).await {
                Ok(()) => {
                    backoff.reset();
                    self.tell(None);
                    let due = self.sockets.as_ref().and_then(|sockets| sockets.due);
                    tokio::select! {
                        () = changed => {}
                        () = either(replaced) => {}
                        () = either(moved) => self.sockets.iter_mut().for_each(ToldSockets::moved),
                        () = either(due.map(tokio::time::sleep_until)) => {}
                        // Whoever has nothing to tell learns only so that somebody else tells it.
                        () = tokio::time::sleep(self.ttl.mul_f64(0.5 + fastrand::f64() / 2.0)) => {
                            match self.transact(session, &guards, Vec::new()).await {
                                // 3.4 refuses even this then.
                                Err(error) if error.fault() != Fault::Full => return Err(error),
                                _ => {}
                            }
                        }
                    }
                }
                // The lease lives on, so nothing has to be read again.
                Err(error) if error.fault() == Fault::Full => {
                    self.tell(Some(&error));
                    tokio::time::sleep(backoff.wait(false)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what etcd holds of this host.
    async fn read_own(&mut self, session: &Session) -> Result<Own, EtcdError> {
        let (keys, host) = (&self.keys, &self.host);
        let mut shipped = Shipped::default();
        let alive = session.get(&keys.alive(host)).await?;
        let state = session.get(&keys.state(host)).await?;
        session
            .list(&keys.instances(Some(host)), 0, false, |page| {
                for read in page.pairs {
                    // What cannot be read, or is not where it says, is overwritten or stays for whoever wrote it.
                    if let Ok(record) = Record::from_stored(&read.value)
                        && keys.instance(&record.key).as_bytes() == read.key
                    {
                        shipped.records.insert(record.key.clone(), record);
                    }
                }
            })
            .await?;
        session
            .list(&keys.history(Some(host)), 0, true, |page| {
                shipped.history.extend(page.pairs.iter().filter_map(|read| keys.place(host, &read.key)));
            })
            .await?;
        let stubs = keys.stubs(host);
        session
            .list(&stubs, 0, false, |page| {
                let known = page.pairs.into_iter().filter_map(|read| {
                    let key = String::from_utf8(read.key).ok()?;
                    is_uuid(key.strip_prefix(&stubs)?).then_some((key, read.value))
                });
                shipped.side.extend(known);
            })
            .await?;
        let sockets = keys.sockets(host);
        if let Some(read) = session.get(&sockets).await? {
            shipped.side.insert(sockets, read.value);
        }
        // What was sent and not answered may have arrived.
        self.waiting.retain(|place, _| !shipped.history.contains(place));
        self.shipped = shipped;
        Ok(Own { alive, state })
    }

    /// Takes transitions in that are stored and etcd does not have.
    async fn collect_past(&mut self) {
        self.collect();
        self.is_behind = false;
        let Some(history) = &self.history else { return };
        let newest = match tokio::time::timeout(HISTORY_LIMIT, history.newest(None, HOST_HISTORY)).await {
            Ok(Ok(newest)) => newest,
            // They are told of as they happen; those of before come the next time.
            Ok(Err(_)) | Err(_) => return,
        };
        self.take_in(newest.into_iter().rev());
    }

    /// Takes transitions in that happened since the last time.
    fn collect(&mut self) {
        let current = self.reader.current().index();
        if let Some(steps) = self.reader.changes().since(self.seen) {
            for step in steps {
                self.seen = step.index;
                self.take_in(step.transitions.iter().cloned());
            }
        } else {
            // Too many at once, or the first time: the store has them.
            self.seen = current;
            self.is_behind = true;
        }
    }

    fn take_in(&mut self, transitions: impl IntoIterator<Item = Transition>) {
        let own = transitions.into_iter().filter(|transition| transition.key.host == self.host);
        // What etcd once had and dropped is older than all that it has.
        let oldest = self.shipped.history.first().map(|place| place.index);
        let is_full = self.shipped.history.len() >= HOST_HISTORY;
        for (place, transition) in outbox::placed(own) {
            let is_dropped = is_full && oldest.is_some_and(|oldest| place.index < oldest);
            if !self.shipped.history.contains(&place) && !is_dropped {
                self.waiting.insert(place, transition);
            }
        }
        outbox::bound(&mut self.waiting, self.ring);
    }

    /// Sends what differs, until nothing does.
    async fn send_difference(&mut self, session: &Session, guards: &[If]) -> Result<(), EtcdError> {
        loop {
            let catalog = self.reader.current();
            let now = catalog.records().filter(|record| record.key.host == self.host);
            let mut batches =
                outbox::batches(&self.keys, &self.host, &self.shipped, now, &self.waiting, self.ring, (self.clock)());
            if let Some(sockets) = &mut self.sockets {
                sockets.look();
            }
            batches.extend(outbox::side_batches(&self.shipped.side, &self.side()));
            if batches.is_empty() {
                return Ok(());
            }
            for mut batch in batches {
                let steps = std::mem::take(&mut batch.steps);
                self.transact(session, guards, steps).await?;
                batch.committed(&mut self.shipped, &mut self.waiting);
            }
            self.collect();
        }
    }

    /// All steps, if the host is still this agent's.
    async fn transact(&self, session: &Session, guards: &[If], steps: Vec<Do>) -> Result<(), EtcdError> {
        match session.transact(guards.to_vec(), steps).await? {
            (true, _) => Ok(()),
            (false, _) => Err(EtcdError::state(Fault::LeaseLost, "the lease is not this agent's any more")),
        }
    }

    /// What side tables are to hold.
    fn side(&self) -> Side {
        let (stubs, sockets) = (self.keys.stubs(&self.host), self.keys.sockets(&self.host));
        let mut side = match self.allocations.as_ref().and_then(Allocations::all) {
            Some(all) => {
                let stored = all.iter().filter_map(|one| Some((&one.id, Stub::new(one)?.to_stored())));
                let fitting = stored.filter(|(id, stub)| is_uuid(id) && stub.len() <= LONGEST_STUB);
                fitting.map(|(id, stub)| (self.keys.stub(&self.host, id), stub)).collect()
            }
            // Nobody has said anything yet, so what etcd has may still be so.
            None => {
                let held = self.shipped.side.iter().filter(|(key, _)| key.starts_with(&stubs));
                held.map(|(key, stub)| (key.clone(), stub.clone())).collect::<Side>()
            }
        };
        if let Some(told) = &self.sockets {
            side.insert(sockets, told.stored.clone());
        }
        side
    }

    /// Says that the host is here, all at once.
    async fn register(&mut self, session: &Session, own: &Own, guards: &[If], lease: i64) -> Result<(), EtcdError> {
        let is_bound = own.alive.as_ref().is_some_and(|read| read.lease == lease);
        if is_bound && own.is_here() {
            return Ok(());
        }
        let state_key = self.keys.state(&self.host);
        let mut steps = vec![Do::PutBound(self.keys.alive(&self.host), self.alive.to_stored(), lease)];
        if !own.is_here() {
            let here = HostState { state: Presence::Here, since: (self.clock)() };
            steps.push(Do::Put(state_key.clone(), here.to_stored()));
            if self.shipped.records.values().any(Record::is_expected) {
                steps.push(Do::Put(self.keys.nomad_index(), Moved {}.to_stored()));
            }
        }
        steps.push(Do::Put(self.keys.index(), Moved {}.to_stored()));
        let seen_state = If::Unmoved(state_key, Own::revision(own.state.as_ref()));
        let conditions = guards.iter().cloned().chain([seen_state]).collect();
        let (is_done, _) = session.transact(conditions, steps).await?;
        // Somebody else wrote one of them meanwhile: an aggregator that gave the host up, or another agent.
        if !is_done {
            return Err(EtcdError::state(Fault::LeaseLost, "the host's state moved meanwhile"));
        }
        self.has_registered = true;
        Ok(())
    }

    /// Whoever acts for this host now and came after this process keeps it: two that take turns would be worse than
    /// either. (Who came first is told by what this process did, not by a clock.)
    async fn check_alone(&mut self, session: &Session) -> Result<(), EtcdError> {
        let alive = session.get(&self.keys.alive(&self.host)).await?;
        let bound = alive.and_then(|read| Alive::from_stored(&read.value).ok());
        let Some(other) = bound.filter(|bound| self.has_registered && bound.agent != self.alive.agent) else {
            return Ok(());
        };
        let what = format!(
            "another agent, registered at {}, has the host id {}: give each host its own --host-id",
            text(other.since),
            self.host
        );
        let error = EtcdError::state(Fault::LeaseLost, what);
        self.tell(Some(&error));
        tokio::time::sleep(self.ttl).await;
        Err(error)
    }

    fn tell(&self, error: Option<&EtcdError>) {
        let catalog = self.reader.current();
        let now = catalog.records().filter(|record| record.key.host == self.host);
        let waiting = outbox::differing(&self.shipped, now) + self.waiting.len();
        let next = FleetStanding {
            is_in_step: error.is_none(),
            trouble: error.map(EtcdError::trouble),
            waiting,
            ..FleetStanding::default()
        };
        self.standing.send_if_modified(|standing| {
            super::log_change(standing, &next);
            let is_news = *standing != next;
            *standing = next;
            is_news
        });
    }
}

/// Returns when this does; never, if there is none.
async fn either(future: Option<impl Future<Output = ()>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// A time for people.
fn text(time: Timestamp) -> Arc<str> {
    jiff::Timestamp::from_nanosecond(i128::from(time.0)).unwrap_or_default().to_string().into()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::*;
    use crate::domain::id::{InstanceKey, PluginId, Role};
    use crate::domain::record::Phase;
    use crate::domain::socket::{Duplicate, SocketStatus, WantedSocket};

    fn socket(path: &str) -> SocketStatus {
        SocketStatus::new(&WantedSocket::configured(path))
    }

    #[test]
    fn of_too_many_sockets_those_that_are_nobodys_are_counted_and_not_told() {
        let counting = (0..200).map(|number| SocketStatus {
            plugin: PluginId::parse("nfs").ok(),
            roles: vec![Role::Node],
            ..socket(&format!("/run/z{number}"))
        });
        let ignored = (0..5_000).map(|number| SocketStatus { is_ignored: true, ..socket(&format!("/run/a{number}")) });
        let sockets = HostSockets { sockets: ignored.chain(counting).collect(), ..HostSockets::default() };
        let stored = told(sockets);
        assert!(stored.len() <= LONGEST_SOCKETS && stored.len() > LONGEST_SOCKETS / 3, "{}", stored.len());
        let read = HostSockets::from_stored(&stored).expect("what was written");
        assert_eq!(read.sockets.iter().filter(|status| !status.is_ignored).count(), 200);
        assert_eq!(read.sockets.len() + read.left_out, 5_200);
        let endless = SocketStatus { reason: "x".repeat(LONGEST_SOCKETS).into(), ..socket("/run/a") };
        let read = HostSockets::from_stored(&told(HostSockets { sockets: vec![endless], ..HostSockets::default() }));
        assert_eq!(read.expect("what was written"), HostSockets { left_out: 1, ..HostSockets::default() });
    }

    #[test]
    fn what_moves_with_every_look_is_not_told_and_a_path_need_not_be_text() {
        let path: Arc<Path> = Path::new(OsStr::from_bytes(b"/run/\xff/csi.sock")).into();
        let key = InstanceKey {
            plugin: PluginId::parse("nfs").expect("legal"),
            role: Role::Node,
            host: HostId::parse("host-a").expect("legal"),
        };
        let duplicate = Duplicate { key, socket: Arc::clone(&path), counts: path };
        let known = SocketStatus {
            plugin: PluginId::parse("nfs").ok(),
            roles: vec![Role::Node],
            phase: Phase::Healthy,
            last_ok_time: Some(Timestamp(1)),
            ..socket("/run/csi.sock")
        };
        let of = |status: SocketStatus| HostSockets {
            sockets: vec![status],
            duplicates: vec![duplicate.clone()],
            ..HostSockets::default()
        };
        let later = SocketStatus {
            phase: Phase::Unhealthy,
            reason: "sick".into(),
            last_ok_time: None,
            last_poll: Some(Duration::from_secs(1)),
            ..known.clone()
        };
        assert_eq!(told(of(known.clone())), told(of(later.clone())), "its instance says how it is");
        let unknown = |status| SocketStatus { plugin: None, roles: Vec::new(), ..status };
        assert_ne!(told(of(unknown(known.clone()))), told(of(unknown(later))), "nobody else says it");
        let read = HostSockets::from_stored(&told(of(known))).expect("what was written");
        assert_eq!(read.duplicates[0].socket.to_str(), Some("/run/\u{fffd}/csi.sock"));
    }
}
