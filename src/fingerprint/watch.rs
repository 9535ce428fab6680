//! The task of one socket: when to look, and whom to tell.
//!
//! It looks at intervals, and at once when something happened: the connection ended (death is an event, confirmed by
//! one dial), or the file changed (return is quick: while a dial is refused, it is tried again within milliseconds,
//! since nothing announces that a server listens). What it sees goes to the registry and to the side table of sockets.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Settings;
use super::assess::{Assessment, Known, assess, unreachable};
use super::claims::{Claim, Claims};
use super::dials::{Dial, Dials};
use super::observe::{Answers, Questions, observe};
use crate::csi::{CallError, Driver, NodeInfo, Readiness};
use crate::domain::fingerprint::NodeFacts;
use crate::domain::id::{HostId, InstanceKey, PluginId, Role};
use crate::domain::record::{Phase, Record, Registration};
use crate::domain::socket::{Announced, FileIdentity, FileKey, SocketStatus, WantedSocket};
use crate::domain::time::Timestamp;
use crate::metrics::calls::{Calls, DriverCalls, Probed};
use crate::registry::reporter::{Health, Observed, Report};
use crate::registry::sockets::Sockets;

/// While a dial is refused after something happened, it is tried again after these, the last one repeated.
const EAGER_DELAYS: [Duration; 4] =
    [Duration::from_millis(10), Duration::from_millis(20), Duration::from_millis(40), Duration::from_millis(50)];
/// For how long.
const EAGER_FOR: Duration = Duration::from_secs(5);
/// How long a dying process may still take connections.
const LAST_GASP: Duration = Duration::from_millis(10);
/// Looks after a failed one (rule G3), the last one repeated; never above the interval.
const BACK_OFF: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(10), Duration::from_secs(20), Duration::from_secs(30)];
/// At most one look caused by an event in this time, as long as the file is the same.
const EVENT_SPACING: Duration = Duration::from_secs(1);
/// How long a socket that is no driver's is left alone, unless its file changes.
const IGNORED_FOR: Duration = Duration::from_mins(10);

/// Changes of one socket that are logged one by one in [`LOG_SPAN`]; of the others, how many there were. A driver that
/// crashes ten times a second must not fill a disk with it; history has them all.
const LOG_LIMIT: u32 = 20;
/// See [`LOG_LIMIT`].
const LOG_SPAN: Duration = Duration::from_mins(1);

/// Who may look at the same time. Sockets whose last call timed out share a few places, so that they do not cost the
/// others theirs.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    hung: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(64)), hung: Arc::new(Semaphore::new(4)) }
    }
}

/// Held while a socket is looked at. Absent permits: everything stops.
type Place = [Option<OwnedSemaphorePermit>; 2];

impl Places {
    fn take(&self, is_hung: bool) -> impl Future<Output = Place> + use<> {
        let (all, hung) = (Arc::clone(&self.all), Arc::clone(&self.hung));
        async move {
            // The scarce place first: whoever waits for it must not hold one that a healthy socket could use.
            let hung = if is_hung { hung.acquire_owned().await.ok() } else { None };
            [hung, all.acquire_owned().await.ok()]
        }
    }
}

/// What every socket's task shares.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub host: HostId,
    pub settings: Settings,
    pub places: Arc<Places>,
    pub dials: Dials,
    pub reports: mpsc::Sender<Report>,
    pub sockets: Sockets,
    pub claims: Claims,
    /// Told once per socket, after its first look.
    pub verdicts: mpsc::UnboundedSender<Arc<Path>>,
    pub calls: Calls,
}

/// Who was asked last, to tell a new process from an old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    file: Option<FileKey>,
    pid: Option<i32>,
}

/// The task of one socket.
pub(super) struct Watch {
    wanted: WantedSocket,
    /// What a kubelet was told of it, which may change.
    announced: watch::Receiver<Announced>,
    shared: Shared,
    touched: Arc<Notify>,
    known: Known,
    driver: Option<Driver>,
    file: Option<FileIdentity>,
    node_info_asked: Option<(Instant, Process)>,
    /// Looks that failed in a row.
    failures: usize,
    /// Dials in a row since something happened, and until when to go on with them.
    eager: Option<(usize, Instant)>,
    last_event: Option<(Instant, Option<FileKey>)>,
    is_hung: bool,
    status: SocketStatus,
    told: Told,
    calls: DriverCalls,
}

/// What was logged of a socket's changes.
#[derive(Debug)]
pub(super) struct Told {
    since: Instant,
    changes: u32,
    omitted: u32,
}

impl Told {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), changes: 0, omitted: 0 }
    }

    /// Begins a new span if the last one is over; how many changes were not logged in that.
    pub(super) fn omitted(&mut self) -> Option<u32> {
        if self.since.elapsed() < LOG_SPAN {
            return None;
        }
        let omitted = std::mem::replace(self, Self::new()).omitted;
        Some(omitted).filter(|count| *count > 0)
    }

    /// Whether one more change is logged.
    pub(super) fn may_tell(&mut self) -> bool {
        self.changes += 1;
        let may = self.changes <= LOG_LIMIT;
        self.omitted += u32::from(!may);
        may
    }
}

impl Watch {
    /// A socket that should be watched; `records` is what is stored of the instances behind it.
    pub(super) fn new(
        wanted: WantedSocket,
        announced: watch::Receiver<Announced>,
        shared: Shared,
        touched: Arc<Notify>,
        records: &[Record],
    ) -> Self {
        let mut known = remembered(&wanted, records);
        if let Announced::As { name, .. } = &wanted.announced
            && known.plugin.is_none()
            && let Ok(plugin) = PluginId::parse(name)
        {
            // Whoever answers under another name is then somebody else than expected (case 98), and nobody is an
            // instance that does not answer (case 101).
            known.plugin = Some(plugin);
            known.provider = Some(name.to_string());
            known.roles.insert(Role::Node);
        }
        let status = SocketStatus::new(&wanted);
        Self {
            calls: shared.calls.of_driver(),
            known,
            wanted,
            announced,
            shared,
            touched,
            driver: None,
            file: None,
            node_info_asked: None,
            failures: 0,
            eager: None,
            last_event: None,
            is_hung: false,
            status,
            told: Told::new(),
        }
    }

    /// A socket that came just now: its file is made a moment before anybody listens, and nothing announces that.
    pub(super) fn expect_listener(&mut self) {
        self.eager = Some((0, Instant::now() + EAGER_FOR));
    }

    /// Looks until it is told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut announced = self.announced.clone();
        self.shared.sockets.put(Arc::clone(&self.wanted.path), self.status.clone());
        let mut is_first = true;
        loop {
            let started = Instant::now();
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.look() => {}
            }
            if is_first {
                is_first = false;
                // The supervisor has gone only when everything stops.
                let _ = self.shared.verdicts.send(Arc::clone(&self.wanted.path));
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.wait(started) => {}
                Ok(()) = announced.changed() => {}
            }
        }
        self.shared.sockets.remove(&self.wanted.path);
        for observed in self.shared.claims.withdraw(&self.wanted.path) {
            // The registry has gone only when everything stops.
            let _ = self.shared.reports.send(Report::Seen(Box::new(observed))).await;
        }
    }

    /// Waits for a reason to look again.
    async fn wait(&mut self, started: Instant) {
        let due = started + self.delay();
        let touched = Arc::clone(&self.touched);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => return,
                () = ended(self.driver.as_ref()) => {
                    let pause = self.confirm_death().await;
                    return tokio::time::sleep(pause).await;
                }
                () = touched.notified() => {
                    if self.is_replaced().await {
                        return;
                    }
                }
            }
        }
    }

    /// Waits until this socket may be looked at. What happens meanwhile is seen at once, as in [`Watch::wait`]: among
    /// many hung sockets it may be minutes.
    async fn place(&mut self) -> Place {
        let places = Arc::clone(&self.shared.places);
        let touched = Arc::clone(&self.touched);
        let mut taking = Box::pin(places.take(self.is_hung));
        // One dial a look: a server that hangs up again and again must not make us dial without end.
        let mut may_confirm = true;
        loop {
            let was_hung = self.is_hung;
            tokio::select! {
                place = &mut taking => return place,
                () = ended(self.driver.as_ref()), if may_confirm => {
                    may_confirm = false;
                    self.confirm_death().await;
                }
                () = touched.notified() => {
                    self.is_replaced().await;
                }
            }
            if was_hung && !self.is_hung {
                taking = Box::pin(places.take(false));
            }
        }
    }

    /// Something happened in the directory: whether it happened to the socket file.
    async fn is_replaced(&mut self) -> bool {
        let file = identify(&self.wanted.path).await;
        if self.is_still(file) {
            self.file = file;
            return false;
        }
        debug!(socket = %self.status.path, "the socket file changed");
        // Whoever answered on the old connection, or did not, is not who listens now (`fingerprinting.md` section 6,
        // item 5).
        self.driver = None;
        self.is_hung = false;
        self.eager = Some((0, Instant::now() + EAGER_FOR));
        true
    }

    /// Whether a file is the one that was looked at last. While a connection to that is open, a link to it or another mode
    /// changes nothing; otherwise either may be why it could not be reached.
    fn is_still(&self, file: Option<FileIdentity>) -> bool {
        let is_open = self.driver.as_ref().is_some_and(|driver| !driver.has_ended());
        match (file, self.file) {
            // There are several ways not to be there: a link to itself that is removed leaves nothing.
            (None, None) => self.status.phase == Phase::Gone,
            (Some(file), Some(last)) => file == last || (is_open && file.is_still(&last)),
            _ => false,
        }
    }

    /// The connection ended. One dial tells death from a server that merely closed an idle connection. Returns how long
    /// to wait before the next look.
    async fn confirm_death(&mut self) -> Duration {
        debug!(socket = %self.status.path, "the connection ended");
        self.driver = None;
        self.is_hung = false;
        match self.dial(Dial::AfterAnEnd).await {
            Ok(driver) => {
                let file = self.file.map(|file| file.key());
                self.driver = Some(driver);
                // A server that hangs up again and again does not get more than one look a second; one that was
                // replaced has another file, and is looked at right away.
                match self.last_event.replace((Instant::now(), file)) {
                    Some((last, of)) if of == file => EVENT_SPACING.saturating_sub(last.elapsed()),
                    _ => Duration::ZERO,
                }
            }
            Err(error) => {
                let assessment = unreachable(&self.wanted, &self.known, &error);
                self.eager = Some((0, Instant::now() + EAGER_FOR));
                self.failures += 1;
                self.report(assessment, None).await;
                Duration::ZERO
            }
        }
    }

    /// Connects. A process that dies still takes connections for a moment, which then end before a word is said, so a
    /// connection that closes at once is tried a second time.
    async fn dial(&mut self, reason: Dial) -> Result<Driver, CallError> {
        let file = self.turn(reason).await;
        let limits = self.shared.settings.limits;
        let path = &self.wanted.path;
        let dials = self.shared.dials.clone();
        // News from a kubelet may break it off, just when both it and the driver end: the look that follows must not wait.
        let broken_off = file.filter(|_| reason == Dial::AfterAnEnd).map(|file| dials.unless_kept(file));
        let dialled = match Driver::connect(path, limits).await {
            Err(error) if error.is_transport() && !error.is_missing() && !error.is_refused() => {
                tokio::time::sleep(LAST_GASP).await;
                Driver::connect(path, limits).await
            }
            dialled => dialled,
        };
        let dialled = dialled.map(|driver| driver.counted_by(self.calls.clone()));
        if let Some(turn) = broken_off {
            turn.keep();
        }
        match (&dialled, file) {
            // Nobody listens there any more: what comes back has another file, or was not dialled for a while.
            (Err(error), Some(file)) if error.is_refused() => dials.forget(file),
            (Err(_), Some(file)) => dials.failed(file),
            (Err(_), None) => {}
            (Ok(_), _) => {
                let found = identify(path).await;
                if let Some(key) = found.map(|found| found.key()).filter(|key| Some(*key) != file) {
                    // Replaced meanwhile: it may be this one that was dialled, and certainly is if there was none before.
                    dials.count(key);
                    self.file = self.file.or(found);
                }
            }
        }
        dialled
    }

    /// Waits until the file that is there may be dialled, and takes note of it. Another file that comes meanwhile has a turn
    /// of its own.
    async fn turn(&mut self, mut reason: Dial) -> Option<FileKey> {
        let touched = Arc::clone(&self.touched);
        loop {
            let found = identify(&self.wanted.path).await;
            let key = found.map(|file| file.key());
            if key != self.file.map(|file| file.key()) {
                self.is_hung = false;
                reason = Dial::Fresh;
            }
            self.file = found;
            let Err(wait) = self.shared.dials.take(key?, reason, Instant::now()) else { return key };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = touched.notified() => self.eager = Some((0, Instant::now() + EAGER_FOR)),
            }
        }
    }

    /// How long after the start of the last look the next one is due.
    fn delay(&mut self) -> Duration {
        // A driver that answers, and be it "not ready", is not dialled but asked, in its time.
        if let Some((attempt, until)) = self.eager
            && matches!(self.status.phase, Phase::Gone | Phase::Stale)
            && Instant::now() < until
        {
            self.eager = Some((attempt + 1, until));
            return EAGER_DELAYS[attempt.min(EAGER_DELAYS.len() - 1)];
        }
        if self.eager.take().is_some() {
            // Dozens of dials in five seconds were one attempt.
            self.failures = self.failures.min(1);
        }
        let interval = self.shared.settings.poll_interval;
        if self.status.is_ignored {
            return interval.max(IGNORED_FOR);
        }
        let delay = match self.failures {
            0 => interval,
            failed => BACK_OFF[(failed - 1).min(BACK_OFF.len() - 1)].min(interval),
        };
        // Hosts that came up together after a power cut must not poll a storage back end in step.
        delay.mul_f64(1.0 - fastrand::f64() / 10.0)
    }

    /// One look: connect if need be, ask, judge, report.
    async fn look(&mut self) {
        let _place = self.place().await;
        let started = Instant::now();
        let limit = self.shared.settings.poll_limit;
        let asked = match tokio::time::timeout(limit, self.ask()).await {
            Ok(asked) => asked,
            Err(_) => Err(CallError::poll_timed_out(&self.wanted.path, limit)),
        };
        self.calls.probed(probed(&asked));
        let assessment = match asked {
            Ok(answers) => assess(&self.wanted, &mut self.known, answers),
            Err(error) => unreachable(&self.wanted, &self.known, &error),
        };
        let took = started.elapsed();
        debug!(
            socket = self.status.path, phase = %phase_of(&assessment), duration_ms = took.as_secs_f64() * 1e3,
            reason = assessment.reason, "looked at a driver"
        );
        self.is_hung = assessment.is_hung;
        if assessment.is_well() {
            self.failures = 0;
            self.eager = None;
        } else if !assessment.is_ignored {
            self.failures += 1;
        }
        self.report(assessment, Some(took)).await;
    }

    /// Asks on the connection there is, else on a new one; once more on a new one if the connection broke meanwhile
    /// and no answer came from the driver (`fingerprinting.md` 1.6, Unavailable).
    async fn ask(&mut self) -> Result<Answers, CallError> {
        let file = identify(&self.wanted.path).await;
        if !self.is_still(file) {
            self.driver = None;
        }
        self.file = file;
        let driver = match self.driver.take().filter(|driver| !driver.has_ended()) {
            Some(driver) => driver,
            None => self.dial(Dial::Fresh).await?,
        };
        let answers = self.question(&driver).await;
        if !answers.is_broken() {
            self.driver = Some(driver);
            return Ok(answers);
        }
        let driver = self.dial(Dial::AfterAnEnd).await?;
        let answers = self.question(&driver).await;
        self.driver = Some(driver).filter(|_| !answers.is_broken());
        Ok(answers)
    }

    async fn question(&mut self, driver: &Driver) -> Answers {
        let process = Process { file: self.file.map(|file| file.key()), pid: driver.peer().pid };
        self.status.pid = process.pid;
        let age = self.shared.settings.node_info_age;
        let is_asked = self.node_info_asked.is_some_and(|(at, of)| of == process && at.elapsed() < age);
        let questions = Questions {
            role: self.wanted.role,
            known: self.known.provider.clone().zip(self.known.version.clone()),
            wants_node_info: self.known.node_info.is_none() || !is_asked,
        };
        let answers = observe(driver, &questions).await;
        // Asked over a connection that broke is not asked.
        if answers.node_info.is_some() && !answers.is_broken() {
            self.node_info_asked = Some((Instant::now(), process));
        }
        answers
    }

    /// Logs a change, as long as there are not too many.
    fn log(&mut self, phase: Phase, reason: &str) {
        let socket = self.status.path.as_str();
        if let Some(omitted) = self.told.omitted() {
            warn!(socket, omitted, now = %phase, "driver changed more often than was logged");
        }
        if phase == self.status.phase {
            return;
        }
        if !self.told.may_tell() {
            if self.told.omitted == 1 {
                warn!(socket, "driver changes too often; for a minute its changes are counted, not logged");
            }
            return;
        }
        let plugin = self.known.plugin.as_ref().map(ToString::to_string).unwrap_or_default();
        let from = self.status.phase;
        match phase {
            Phase::Healthy | Phase::Starting => {
                info!(socket, plugin.id = plugin, %from, to = %phase, "driver is {phase}");
            }
            _ => warn!(socket, plugin.id = plugin, %from, to = %phase, reason, "driver is {phase}"),
        }
    }

    /// Passes on what was seen. `took` is absent where only a dial was made.
    async fn report(&mut self, assessment: Assessment, took: Option<Duration>) {
        let now = Timestamp::now();
        let phase = phase_of(&assessment);
        self.log(phase, &assessment.reason);
        self.status.phase = phase;
        self.status.device = self.file.map(|file| file.device);
        self.status.inode = self.file.map(|file| file.inode);
        self.status.provider = self.known.provider.as_deref().map(Into::into);
        self.status.plugin = self.known.plugin.clone().or_else(|| self.wanted.plugin.clone());
        self.status.roles = self.known.roles.iter().copied().collect();
        self.status.is_ignored = assessment.is_ignored;
        self.status.reason = assessment.reason.as_str().into();
        if let Some(took) = took {
            self.status.last_probe_time = Some(now);
            self.status.last_poll = Some(took);
        }
        if phase == Phase::Healthy {
            self.status.last_ok_time = Some(now);
        }
        self.shared.sockets.put(Arc::clone(&self.wanted.path), self.status.clone());
        let socket: Arc<str> = self.status.path.as_str().into();
        let mut claims = Vec::new();
        for verdict in assessment.displaced.into_iter().chain(assessment.verdicts) {
            let registration = self.registration(verdict.role, &verdict.plugin, &verdict.health);
            let observed = Observed {
                key: InstanceKey { plugin: verdict.plugin, role: verdict.role, host: self.shared.host.clone() },
                health: verdict.health,
                fingerprint: verdict.fingerprint,
                owner: self.wanted.owner.clone(),
                socket: Arc::clone(&socket),
                is_configured: self.wanted.is_configured(),
                registration,
            };
            let made = self.file.map_or(0, |file| file.made());
            claims.push(Claim { observed, rank: self.wanted.rank, made });
        }
        let reports = self.shared.claims.make(&self.wanted.path, claims);
        for observed in reports {
            // The registry has gone only when everything stops.
            let _ = self.shared.reports.send(Report::Seen(Box::new(observed))).await;
        }
    }

    /// What a kubelet believes of an instance, compared with what was just seen of it.
    fn registration(&self, role: Role, plugin: &PluginId, health: &Health) -> Option<Registration> {
        // Kubelets know of nodes only.
        if role != Role::Node {
            return None;
        }
        let phase = phase_of_health(health);
        let is_there = !matches!(phase, Phase::Gone | Phase::Stale);
        match &*self.announced.borrow() {
            Announced::Nothing => None,
            Announced::Nobody => is_there.then_some(Registration::Unregistered),
            Announced::As { name, is_alive } => Some(match &self.known.provider {
                Some(provider) if **provider != **name => Registration::NameDiffers,
                _ if is_there && *is_alive => Registration::Ok,
                None if plugin.as_str() != &**name => Registration::NameDiffers,
                _ => Registration::OrphanSocket,
            }),
        }
    }
}

/// What asking for health came to.
fn probed(asked: &Result<Answers, CallError>) -> Probed {
    let error = match asked {
        Ok(Answers { readiness: Some(Ok(Readiness::Ready)), .. }) => return Probed::Ready,
        Ok(Answers { readiness: Some(Ok(Readiness::Starting)), .. }) => return Probed::NotReady,
        Ok(Answers { readiness: Some(Err(error)), .. } | Answers { identity: Some(Err(error)), .. }) | Err(error) => {
            error
        }
        Ok(_) => return Probed::Error,
    };
    if error.is_timeout() { Probed::Timeout } else { Probed::Error }
}

/// How a socket is: as its worst instance, or as the reason that it has none.
fn phase_of(assessment: &Assessment) -> Phase {
    let phases = assessment.verdicts.iter().map(|verdict| phase_of_health(&verdict.health));
    phases.max().unwrap_or(assessment.phase)
}

fn phase_of_health(health: &Health) -> Phase {
    match health {
        Health::Healthy => Phase::Healthy,
        Health::Starting => Phase::Starting,
        Health::Failed { phase, .. } | Health::Verbatim { phase, .. } => *phase,
    }
}

/// What the store remembers of a socket. Where it was more than one plugin's, the last one's: it is followed, and what is
/// stored of the others was said when they went.
fn remembered(wanted: &WantedSocket, records: &[Record]) -> Known {
    let mut known = Known { plugin: wanted.plugin.clone(), ..Known::default() };
    let asked: Vec<&Record> = records.iter().filter(|record| wanted.covers(record)).collect();
    let Some(last) = asked.iter().max_by_key(|record| (record.phase.is_healthy(), record.since)) else { return known };
    for record in asked.iter().filter(|record| record.key.plugin == last.key.plugin) {
        known.plugin = Some(record.key.plugin.clone());
        known.roles.insert(record.key.role);
        if let Some(fingerprint) = &record.fingerprint {
            known.provider = Some((&*fingerprint.product.provider).into());
            known.version = Some((&*fingerprint.product.version).into());
            if let Some(facts) = &fingerprint.node {
                known.node_info = Some(NodeInfo { facts: NodeFacts::clone(facts), warnings: Vec::new() });
            }
        }
    }
    known
}

/// Returns when the connection is over; never where there is none.
async fn ended(driver: Option<&Driver>) {
    match driver {
        Some(driver) => driver.ended().await,
        None => std::future::pending().await,
    }
}

/// The socket file; `None` where there is none, or it cannot be seen.
async fn identify(path: &Path) -> Option<FileIdentity> {
    tokio::fs::metadata(path).await.ok().as_ref().map(FileIdentity::of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_beyond_the_limit_are_counted_and_told_when_the_span_is_over() {
        let mut told = Told::new();
        assert_eq!((0..100).filter(|_| told.may_tell()).count(), 20);
        assert_eq!(told.omitted(), None);
        told.since = told.since.checked_sub(LOG_SPAN).expect("the machine is up for a minute");
        assert_eq!(told.omitted(), Some(80));
        assert!(told.may_tell());
        assert_eq!(told.omitted(), None);
    }
}
