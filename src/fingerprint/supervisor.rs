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
use super::watch::{Places, Shared, Watch};
use crate::domain::id::HostId;
use crate::domain::record::{Phase, Record};
use crate::domain::socket::{Touch, WantedSocket};
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
    touched: Arc<Notify>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Keeps one task for each socket that should be watched.
pub struct Supervisor {
    shared: Shared,
    sources: Sources,
    reader: Reader,
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
                sockets: sinks.sockets,
                verdicts: verdicts_in,
            },
            sources,
            reader: sinks.reader,
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
        let wanted = Arc::clone(&self.sources.wanted.borrow_and_update());
        let excess: Vec<WantedSocket> =
            self.running.keys().filter(|socket| !wanted.contains(*socket)).cloned().collect();
        for socket in &excess {
            self.ensure_no(socket).await;
        }
        for socket in wanted.iter() {
            self.ensure(socket);
        }
        self.settle_unwanted(&wanted).await;
        self.complete_scan(false).await;
    }

    fn ensure(&mut self, socket: &WantedSocket) {
        if self.running.contains_key(socket) {
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
        let watch = Watch::new(socket.clone(), self.shared.clone(), Arc::clone(&touched), &records);
        let task = tokio::spawn(watch.run(stop.clone()));
        self.running.insert(socket.clone(), Running { touched, stop, task });
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
        for record in catalog.records().filter(|record| record.key.host == self.shared.host) {
            let is_wanted =
                wanted.iter().any(|socket| socket.covers(record) && socket.path.to_string_lossy() == *record.socket);
            if is_wanted {
                continue;
            }
            let report = if record.is_configured {
                info!(plugin.id = %record.key.plugin, socket = %record.socket, "retired: its address is configured no longer");
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
        if self.is_scanned || (!self.unseen.is_empty() && !is_overdue) {
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

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("running", &self.running.len()).finish_non_exhaustive()
    }
}
