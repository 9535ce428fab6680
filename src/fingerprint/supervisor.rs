//! Sockets that should be watched against tasks that run: one task each, whatever happened in between.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch as channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Settings;
use super::claims::Claims;
use super::dials::Dials;
use super::watch::{Places, Shared, Watch};
use crate::domain::id::HostId;
use crate::domain::record::{Phase, Record};
use crate::domain::socket::{Announced, Touch, WantedSocket, nomad_allocation};
use crate::metrics::calls::Calls;
use crate::registry::reader::Reader;
use crate::registry::reporter::{Health, Observed, Report};
use crate::registry::sockets::Sockets;

/// After this the stored answers count as confirmed, whatever is still missing (it stays `new`).
const SCAN_LIMIT: Duration = Duration::from_secs(10);
/// Pause before the task of a socket that broke off is started again.
const AFTER_A_FAULT: Duration = Duration::from_secs(1);

/// Where a supervisor gets its work.
#[derive(Debug)]
pub struct Sources {
    /// Sockets that should be watched.
    pub wanted: channel::Receiver<Arc<BTreeSet<WantedSocket>>>,
    /// Whether every source was listed once: before that, what is not wanted may only not be found yet.
    pub listed: channel::Receiver<bool>,
    /// Directory events.
    pub touches: mpsc::Receiver<Touch>,
}

/// Whom it tells.
#[derive(Debug)]
pub struct Sinks {
    /// The registry.
    pub reports: mpsc::Sender<Report>,
    /// The side table.
    pub sockets: Sockets,
    /// What is stored, to know what a silent socket used to be.
    pub reader: Reader,
}

struct Running {
    /// Which task of all there were.
    number: u64,
    announced: channel::Sender<Announced>,
    touched: Arc<Notify>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Keeps one task for each socket that should be watched.
pub struct Supervisor {
    shared: Shared,
    sources: Sources,
    reader: Reader,
    is_listed: bool,
    is_scanned: bool,
    verdicts: mpsc::UnboundedReceiver<Arc<Path>>,
    /// Tasks that ended, told or not.
    ended_in: mpsc::UnboundedSender<(u64, WantedSocket)>,
    ended: mpsc::UnboundedReceiver<(u64, WantedSocket)>,
    started: u64,
    running: BTreeMap<WantedSocket, Running>,
    unseen: BTreeSet<Arc<Path>>,
}

impl Supervisor {
    /// Starts nothing yet.
    #[must_use]
    pub fn new(host: HostId, settings: Settings, sources: Sources, sinks: Sinks) -> Self {
        let (verdicts_in, verdicts) = mpsc::unbounded_channel();
        let (ended_in, ended) = mpsc::unbounded_channel();
        Self {
            shared: Shared {
                host,
                settings,
                places: Arc::new(Places::default()),
                dials: Dials::default(),
                reports: sinks.reports,
                claims: Claims::new(sinks.sockets.clone()),
                sockets: sinks.sockets,
                verdicts: verdicts_in,
                calls: Calls::default(),
            },
            sources,
            reader: sinks.reader,
            is_listed: false,
            is_scanned: false,
            verdicts,
            ended_in,
            ended,
            started: 0,
            running: BTreeMap::new(),
            unseen: BTreeSet::new(),
        }
    }

    /// Counts calls there.
    #[must_use]
    pub fn counted_by(mut self, calls: Calls) -> Self {
        self.shared.calls = calls;
        self
    }

    /// Runs until told to stop; then ends every task.
    pub async fn run(mut self, stop: CancellationToken) {
        self.reconcile().await;
        let deadline = tokio::time::sleep(SCAN_LIMIT);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.sources.wanted.changed() => {
                    if changed.is_err() { break }
                    self.reconcile().await;
                }
                changed = self.sources.listed.changed(), if !self.is_listed => {
                    if changed.is_err() { break }
                    // What was found is wanted before it is called complete.
                    self.reconcile().await;
                }
                Some(touch) = self.sources.touches.recv() => self.touch(&touch),
                Some(path) = self.verdicts.recv() => {
                    self.unseen.remove(&path);
                    self.complete_scan(false).await;
                }
                Some((number, socket)) = self.ended.recv() => self.look_after(number, &socket).await,
                () = &mut deadline, if !self.is_scanned => self.complete_scan(true).await,
            }
        }
        let running: Vec<WantedSocket> = self.running.keys().cloned().collect();
        for socket in running {
            self.ensure_no(&socket).await;
        }
    }

    async fn reconcile(&mut self) {
        self.is_listed |= *self.sources.listed.borrow();
        let wanted = Arc::clone(&self.sources.wanted.borrow_and_update());
        // What a kubelet was told changes while a driver runs, and is no reason to dial it anew.
        let tasks: BTreeSet<WantedSocket> = wanted.iter().map(unannounced).collect();
        let excess: Vec<WantedSocket> =
            self.running.keys().filter(|socket| !tasks.contains(*socket)).cloned().collect();
        for socket in &excess {
            self.ensure_no(socket).await;
        }
        if !excess.is_empty() {
            self.all_is_published().await;
        }
        for socket in wanted.iter() {
            self.ensure(socket);
        }
        if self.is_listed {
            self.settle_unwanted(&wanted).await;
        }
        self.complete_scan(false).await;
    }

    fn ensure(&mut self, socket: &WantedSocket) {
        self.ensure_after(socket, Duration::ZERO);
    }

    fn ensure_after(&mut self, socket: &WantedSocket, pause: Duration) {
        let task = unannounced(socket);
        if let Some(running) = self.running.get(&task) {
            running.announced.send_if_modified(|announced| {
                let is_news = *announced != socket.announced;
                announced.clone_from(&socket.announced);
                is_news
            });
            return;
        }
        let catalog = self.reader.current();
        let path = socket.path.to_string_lossy();
        let records: Vec<Record> = catalog
            .records()
            .filter(|record| record.key.host == self.shared.host && *record.socket == *path)
            .cloned()
            .collect();
        if !self.is_scanned {
            self.unseen.insert(Arc::clone(&socket.path));
        }
        let touched = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        let (announced_in, announced) = channel::channel(socket.announced.clone());
        let mut watch = Watch::new(socket.clone(), announced, self.shared.clone(), Arc::clone(&touched), &records);
        if self.is_scanned {
            watch.expect_listener();
        }
        self.started += 1;
        let number = self.started;
        let end = End { number, socket: task.clone(), ended: self.ended_in.clone() };
        let running = tokio::spawn({
            let stop = stop.clone();
            async move {
                let _end = end;
                if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
                    watch.run(stop).await;
                }
            }
        });
        self.running.insert(task, Running { number, announced: announced_in, touched, stop, task: running });
    }

    async fn ensure_no(&mut self, socket: &WantedSocket) {
        if let Some(running) = self.running.remove(socket) {
            running.stop.cancel();
            if let Err(error) = running.task.await {
                warn!(socket = %socket.path.display(), %error, "the task of a socket did not end well");
                // What it would have done in the end.
                self.shared.sockets.remove(&socket.path);
                for observed in self.shared.claims.withdraw(&socket.path) {
                    // The registry has gone only when everything stops.
                    let _ = self.shared.reports.send(Report::Seen(Box::new(observed))).await;
                }
            }
        }
        self.unseen.remove(&socket.path);
    }

    /// A task ended. One that nobody told to has a fault of ours: the socket is watched anew, by a task that knows what
    /// is stored and nothing else.
    async fn look_after(&mut self, number: u64, socket: &WantedSocket) {
        // One that was told to is taken out first, and perhaps another runs by now.
        let Some(running) = self.running.get(socket).filter(|running| running.number == number) else { return };
        let announced = running.announced.borrow().clone();
        self.ensure_no(socket).await;
        self.all_is_published().await;
        self.ensure_after(&WantedSocket { announced, ..socket.clone() }, AFTER_A_FAULT);
    }

    /// Waits until the catalog shows what was reported so far: of tasks that ended nobody but the catalog knows what
    /// their instances were.
    async fn all_is_published(&self) {
        let (mark, reached) = oneshot::channel();
        if self.shared.reports.send(Report::Mark(mark)).await.is_ok() {
            // The registry has gone only when everything stops.
            let _ = reached.await;
        }
    }

    /// Instances of this host whose socket nobody wants: gone, or retired if their address was taken out of the
    /// configuration, which is deliberate.
    async fn settle_unwanted(&self, wanted: &BTreeSet<WantedSocket>) {
        let catalog = self.reader.current();
        for record in catalog.records().filter(|record| record.key.host == self.shared.host) {
            // The instance may be another socket's by now, which says so itself.
            let is_wanted = self.shared.claims.has(&record.key)
                || wanted.iter().any(|socket| socket.covers(record) && socket.path.to_string_lossy() == *record.socket);
            if is_wanted {
                continue;
            }
            let report = if record.is_configured {
                info!(plugin.id = %record.key.plugin, socket = %record.socket, "retired: its address is configured no longer");
                Report::Retire(record.key.clone())
            } else if is_stopped_for_good(Path::new(&*record.socket)).await {
                info!(plugin.id = %record.key.plugin, socket = %record.socket, "retired: Nomad removed its allocation");
                Report::Retire(record.key.clone())
            } else {
                Report::Seen(Box::new(Observed {
                    key: record.key.clone(),
                    health: Health::Failed {
                        phase: Phase::Gone,
                        error: "no source of sockets names it any more".to_owned(),
                        code: None,
                        text: "its socket is not among those that were found".to_owned(),
                    },
                    fingerprint: None,
                    owner: record.owner.clone(),
                    socket: Arc::clone(&record.socket),
                    is_configured: false,
                    registration: None,
                }))
            };
            // The registry has gone only when everything stops.
            let _ = self.shared.reports.send(report).await;
        }
    }

    fn touch(&self, touch: &Touch) {
        for (socket, running) in &self.running {
            if matches!(touch, Touch::Everything) || matches!(touch, Touch::Socket(path) if *path == socket.path) {
                running.touched.notify_one();
            }
        }
    }

    async fn complete_scan(&mut self, is_overdue: bool) {
        let is_complete = self.is_listed && self.unseen.is_empty();
        if self.is_scanned || !(is_complete || is_overdue) {
            return;
        }
        if is_overdue {
            warn!(sockets = self.unseen.len(), "the first scan took too long; what is missing stays `new`");
        }
        self.is_scanned = true;
        self.unseen.clear();
        // The registry has gone only when everything stops.
        let _ = self.shared.reports.send(Report::Scanned).await;
    }
}

/// Says that a task ended, however it did.
struct End {
    number: u64,
    socket: WantedSocket,
    ended: mpsc::UnboundedSender<(u64, WantedSocket)>,
}

impl Drop for End {
    fn drop(&mut self) {
        // The supervisor has gone only when everything stops.
        let _ = self.ended.send((self.number, self.socket.clone()));
    }
}

/// What tells the tasks of sockets apart.
fn unannounced(socket: &WantedSocket) -> WantedSocket {
    WantedSocket { announced: Announced::Nothing, ..socket.clone() }
}

/// Nomad removes the directory of an allocation when its task is stopped for good, and not before (case 87). That the
/// directory of all of them is there tells this from a disk that is not mounted.
async fn is_stopped_for_good(socket: &Path) -> bool {
    if nomad_allocation(socket).is_none() {
        return false;
    }
    let (Some(own), Some(all)) = (socket.parent(), socket.ancestors().nth(2)) else { return false };
    let is_missing =
        tokio::fs::symlink_metadata(own).await.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    is_missing && tokio::fs::symlink_metadata(all).await.is_ok()
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::FakeDriver;
    use crate::registry::publisher::Publisher;
    use crate::store::{self, Store};

    const LIMIT: Duration = Duration::from_secs(30);

    struct Stage {
        supervisor: Supervisor,
        wanted: channel::Sender<Arc<BTreeSet<WantedSocket>>>,
        reader: Reader,
        sockets: Sockets,
        publisher: Publisher,
        // Kept open.
        _touches: mpsc::Sender<Touch>,
        _listed: channel::Sender<bool>,
    }

    impl Stage {
        fn new(sockets: impl IntoIterator<Item = WantedSocket>) -> Self {
            let (store, loaded) = Store::memory(store::Settings::default()).expect("memory can be had");
            let (publisher, handles) = Publisher::new(loaded, store);
            let (wanted_in, wanted) = channel::channel(Arc::new(sockets.into_iter().collect()));
            let (listed_in, listed) = channel::channel(true);
            let (touches_in, touches) = mpsc::channel(1);
            let host = HostId::parse("host-aaaa").expect("legal");
            let (reader, sockets) = (handles.reader.clone(), Sockets::default());
            let supervisor = Supervisor::new(
                host,
                Settings { poll_interval: Duration::from_millis(50), ..Settings::default() },
                Sources { wanted, listed, touches },
                Sinks { reports: handles.reports, sockets: sockets.clone(), reader: handles.reader },
            );
            Self { supervisor, wanted: wanted_in, reader, sockets, publisher, _touches: touches_in, _listed: listed_in }
        }
    }

    async fn until(what: &str, is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
    }

    #[tokio::test]
    async fn a_task_that_broke_off_is_started_again() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let driver = FakeDriver::node("drv.example.com").serve(directory.path().join("s")).await.expect("binds");
        let mut stage = Stage::new([WantedSocket::configured(driver.socket())]);
        stage.supervisor.reconcile().await;
        tokio::spawn(stage.publisher.run(std::future::pending()));
        until("it is watched", || stage.reader.current().records().any(|record| record.phase == Phase::Healthy)).await;
        let running = stage.supervisor.running.values().next().expect("one runs");
        running.task.abort();
        let supervisor = tokio::spawn(stage.supervisor.run(CancellationToken::new()));
        until("it is dialled again", || driver.connections() == 2).await;
        driver.vanish().await;
        let is_gone = || stage.reader.current().records().all(|record| record.phase == Phase::Gone);
        until("it is watched again", is_gone).await;
        supervisor.abort();
    }

    /// The record of a driver that came and went within one step of the publisher once stayed healthy for ever.
    #[tokio::test]
    async fn an_instance_that_was_published_after_its_socket_went_is_gone_all_the_same() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let driver = FakeDriver::node("drv.example.com").serve(directory.path().join("s")).await.expect("binds");
        let mut stage = Stage::new([WantedSocket::found(driver.socket(), crate::domain::socket::Source::Nomad)]);
        stage.supervisor.reconcile().await;
        // Nothing is published yet, so its report waits.
        driver.wait_for_calls(crate::csi::Rpc::Probe, 2).await;
        stage.wanted.send_replace(Arc::default());
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(stage.supervisor.run(stop.clone()));
        until("nobody watches it", || stage.sockets.all().is_empty()).await;
        tokio::spawn(stage.publisher.run(std::future::pending()));
        let phases = || stage.reader.current().records().map(|record| record.phase).collect::<Vec<_>>();
        until("it is gone", || phases() == [Phase::Gone]).await;
        stop.cancel();
        supervisor.await.expect("it ends well");
    }
}
