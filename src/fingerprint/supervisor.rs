//! Sockets that should be watched against tasks that run: one task each, whatever happened in between.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch as channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Settings;
use super::claims::Claims;
use super::watch::{Places, Shared, Watch};
use crate::domain::id::HostId;
use crate::domain::record::{Phase, Record};
use crate::domain::socket::{Announced, Touch, WantedSocket, nomad_allocation};
use crate::registry::reader::Reader;
use crate::registry::reporter::{Health, Observed, Report};
use crate::registry::sockets::Sockets;

/// After this the stored answers count as confirmed, whatever is still missing (it stays `new`).
const SCAN_LIMIT: Duration = Duration::from_secs(10);

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
    running: BTreeMap<WantedSocket, Running>,
    unseen: BTreeSet<Arc<Path>>,
}

impl Supervisor {
    /// Starts nothing yet.
    #[must_use]
    pub fn new(host: HostId, settings: Settings, sources: Sources, sinks: Sinks) -> Self {
        let (verdicts_in, verdicts) = mpsc::unbounded_channel();
        Self {
            shared: Shared {
                host,
                settings,
                places: Arc::new(Places::default()),
                reports: sinks.reports,
                claims: Claims::new(sinks.sockets.clone()),
                sockets: sinks.sockets,
                verdicts: verdicts_in,
            },
            sources,
            reader: sinks.reader,
            is_listed: false,
            is_scanned: false,
            verdicts,
            running: BTreeMap::new(),
            unseen: BTreeSet::new(),
        }
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
        for socket in wanted.iter() {
            self.ensure(socket);
        }
        if self.is_listed {
            self.settle_unwanted(&wanted).await;
        }
        self.complete_scan(false).await;
    }

    fn ensure(&mut self, socket: &WantedSocket) {
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
        let running = tokio::spawn(watch.run(stop.clone()));
        self.running.insert(task, Running { announced: announced_in, touched, stop, task: running });
    }

    async fn ensure_no(&mut self, socket: &WantedSocket) {
        if let Some(running) = self.running.remove(socket) {
            running.stop.cancel();
            if let Err(error) = running.task.await {
                warn!(socket = %socket.path.display(), %error, "the task of a socket did not end well");
            }
        }
        self.unseen.remove(&socket.path);
    }

    /// Instances of this host whose socket nobody wants: gone, or retired if their address was taken out of the
    /// configuration, which is deliberate.
    async fn settle_unwanted(&self, wanted: &BTreeSet<WantedSocket>) {
        let catalog = self.reader.current();
        for record in catalog.records().filter(|record| record.key.host != self.shared.host) {
            // What this store holds is one host's. Under its former id nobody would ever look at it again.
            info!(plugin.id = %record.key.plugin, host.id = %record.key.host, "retired: this host has another id now");
            // The registry has gone only when everything stops.
            let _ = self.shared.reports.send(Report::Retire(record.key.clone())).await;
        }
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
