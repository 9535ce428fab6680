//! Which sockets should be watched, and which directory events concern them.
//!
//! A source says which sockets there are: [`fixed`] addresses of configuration, directories of `*/csi.sock`, a kubelet's
//! root, a Nomad client's state directory. Each place is followed by a task of its own, which walks it when something
//! happens there and every minute, so that one that hangs does not hold up the others; `merge` makes one set of what they
//! found. Nobody here speaks CSI; registration sockets are asked what they announce (`kubelet`). Foreign directories are
//! read, never written.

pub mod directory;
pub mod fixed;
mod kubelet;
mod merge;
mod nomad;
pub mod places;
mod walk;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use kubelet::announcement;
pub use nomad::host_id;

use crate::domain::socket::{IgnoredSocket, Searched, WantedSocket};
use crate::metrics::scans::Scans;
use merge::Merge;
use walk::Listing;

/// From one walk to the next where nothing happens: events get lost.
const AGAIN: Duration = Duration::from_secs(60);
/// Events come in bunches: so long one is waited for others.
const BUNCH: Duration = Duration::from_millis(10);
/// At most one walk of a place in this time.
const SPACING: Duration = Duration::from_millis(100);
/// A walk that takes longer is said to hang.
const LONG_WALK: Duration = Duration::from_secs(5);

/// How a place is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is a socket.
    Socket,
    /// `*/csi.sock`.
    PluginsDirectory,
    /// A kubelet's root directory.
    Kubelet,
    /// A Nomad client's state directory.
    Nomad,
}

impl Kind {
    fn what(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::PluginsDirectory => "csi-plugins-dir",
            Self::Kubelet => "kubelet",
            Self::Nomad => "nomad",
        }
    }
}

/// A place where sockets are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// How.
    pub kind: Kind,
    /// Where.
    pub path: PathBuf,
}

/// What is searched.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Places, those that do not exist yet included.
    pub places: Vec<Place>,
    /// Stands before paths that drivers announce, which are the host's; `None`: we see the host as it sees itself.
    pub host_root: Option<PathBuf>,
}

/// Whom discovery tells.
pub struct Sinks {
    /// The sockets that should be watched.
    pub wanted: watch::Sender<Arc<BTreeSet<WantedSocket>>>,
    /// Whether every place was walked once.
    pub listed: watch::Sender<bool>,
    /// Paths at which events would change what is found; `*` for all entries of a directory.
    pub events: watch::Sender<Arc<BTreeSet<PathBuf>>>,
    /// What was seen at each place, and what was left alone there.
    pub seen: Box<dyn Fn(Vec<Searched>, Vec<IgnoredSocket>) + Send>,
    /// Whether an instance lives behind this socket, as far as is known: it is watched for a while after it is gone.
    pub is_instance: Box<dyn Fn(&Path) -> bool + Send>,
}

/// What the task of a place tells.
enum News {
    Listed(Listing),
    Hangs,
}

/// What one search found.
#[derive(Debug, Clone, Default)]
pub struct Once {
    /// Sockets that `serve` would watch.
    pub wanted: Arc<BTreeSet<WantedSocket>>,
    /// Places, those that do not exist included.
    pub searched: Vec<Searched>,
    /// What was left alone.
    pub ignored: Vec<IgnoredSocket>,
}

/// Searches once: until every place was listed, at most `limit` long.
pub async fn once(fixed: BTreeSet<WantedSocket>, settings: Settings, limit: Duration) -> Once {
    let (wanted_in, wanted) = watch::channel(Arc::new(fixed.clone()));
    let (listed_in, mut listed) = watch::channel(false);
    let (seen_in, seen) = watch::channel((Vec::new(), Vec::new()));
    let sinks = Sinks {
        wanted: wanted_in,
        listed: listed_in,
        events: watch::Sender::new(Arc::default()),
        seen: Box::new(move |searched, ignored| drop(seen_in.send_replace((searched, ignored)))),
        is_instance: Box::new(|_| false),
    };
    let (_noticed_in, noticed) = watch::channel(0);
    let discovery = Discovery::new(fixed, settings, sinks, noticed);
    tokio::select! {
        () = discovery.run(CancellationToken::new()) => {}
        // Whichever place hangs shows as one that was not searched.
        _ = tokio::time::timeout(limit, listed.wait_for(|listed| *listed)) => {}
    }
    let (searched, ignored) = seen.borrow().clone();
    Once { wanted: Arc::clone(&wanted.borrow()), searched, ignored }
}

/// Finds sockets.
pub struct Discovery {
    settings: Settings,
    sinks: Sinks,
    /// Counts directory events.
    noticed: watch::Receiver<u64>,
    merge: Merge,
    /// Paths whose files are looked at in each round.
    attended: watch::Sender<Arc<BTreeSet<PathBuf>>>,
    told: Vec<(Searched, Vec<IgnoredSocket>)>,
    scans: Scans,
}

impl Discovery {
    /// Starts nothing yet. `fixed` are the sockets that configuration names.
    #[must_use]
    pub fn new(fixed: BTreeSet<WantedSocket>, settings: Settings, sinks: Sinks, noticed: watch::Receiver<u64>) -> Self {
        let attended = fixed.iter().map(|socket| socket.path.to_path_buf()).collect();
        let merge = Merge::new(fixed, settings.places.clone());
        Self {
            settings,
            sinks,
            noticed,
            merge,
            attended: watch::Sender::new(Arc::new(attended)),
            told: Vec::new(),
            scans: Scans::default(),
        }
    }

    /// Counts searches there.
    #[must_use]
    pub fn counted_by(self, scans: Scans) -> Self {
        Self { scans, ..self }
    }

    /// Runs until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let (news_in, mut news) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        for (number, place) in self.settings.places.iter().enumerate() {
            let walks = Walks {
                what: What::Place { place: place.clone(), places: self.settings.places.clone().into() },
                number,
                news: news_in.clone(),
            };
            tasks.spawn(walks.run(self.noticed.clone(), self.settings.host_root.clone()));
        }
        let attended = Walks { what: What::Attended(self.attended.subscribe()), number: usize::MAX, news: news_in };
        tasks.spawn(attended.run(self.noticed.clone(), None));
        loop {
            let (number, told) = tokio::select! {
                () = stop.cancelled() => return,
                told = news.recv() => match told {
                    Some(told) => told,
                    None => return,
                },
            };
            self.take(number, told);
            while let Ok((number, told)) = news.try_recv() {
                self.take(number, told);
            }
            self.tell();
        }
    }

    fn take(&mut self, number: usize, told: News) {
        // Files that are attended to are no place that is searched.
        let source = self.settings.places.get(number).map(|place| place.kind.what());
        match told {
            News::Listed(listing) => {
                source.into_iter().for_each(|source| self.scans.ended(source, listing.problem.is_empty()));
                self.merge.put(number, listing);
            }
            News::Hangs => {
                source.into_iter().for_each(|source| self.scans.hangs(source));
                self.merge.hangs(number);
            }
        }
    }

    fn tell(&mut self) {
        let merged = self.merge.merge(&*self.sinks.is_instance);
        let attended = merged.wanted.iter().map(|socket| socket.path.to_path_buf()).collect();
        self.attended.send_if_modified(|before| replace(before, attended));
        self.sinks.events.send_if_modified(|before| replace(before, merged.events));
        (self.sinks.seen)(merged.searched.clone(), merged.ignored.clone());
        self.log(&merged.searched, &merged.ignored);
        let sockets = merged.wanted.len();
        self.sinks.wanted.send_if_modified(|before| replace(before, merged.wanted));
        if merged.is_complete && self.sinks.listed.send_if_modified(|listed| !std::mem::replace(listed, true)) {
            let absent = merged.searched.iter().filter(|place| !place.exists);
            let absent: Vec<String> = absent.map(|place| place.place.display().to_string()).collect();
            let places = merged.searched.len();
            info!(places, sockets, absent = absent.join(" "), "every place was searched; what is absent is waited for");
        }
    }

    /// Says what differs from what was said before.
    fn log(&mut self, searched: &[Searched], ignored: &[IgnoredSocket]) {
        let mut next = Vec::new();
        for (number, seen) in searched.iter().enumerate() {
            let before = self.told.get(number);
            let of_place: Vec<IgnoredSocket> =
                ignored.iter().filter(|ignored| ignored.path.starts_with(&seen.place)).cloned().collect();
            let Searched { place, what, exists, found, ignored, problem, .. } = seen;
            let (place, what) = (place.display(), what.as_ref());
            if before.is_none_or(|(before, _)| before.problem != *problem) && !problem.is_empty() {
                warn!(%place, what, "{problem}");
            } else if before.map_or((false, 0), |(before, _)| (before.exists, before.found)) != (*exists, *found) {
                info!(%place, what, exists, found, ignored, "searched");
            }
            for ignored in &of_place {
                if before.is_none_or(|(_, before)| !before.contains(ignored)) {
                    info!(path = %ignored.path.display(), reason = ignored.reason, "left alone");
                }
            }
            next.push((seen.clone(), of_place));
        }
        self.told = next;
    }
}

fn replace<T: PartialEq>(before: &mut Arc<T>, after: T) -> bool {
    let is_news = **before != after;
    if is_news {
        *before = Arc::new(after);
    }
    is_news
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Discovery").field("settings", &self.settings).finish_non_exhaustive()
    }
}

enum What {
    Place { place: Place, places: Arc<[Place]> },
    Attended(watch::Receiver<Arc<BTreeSet<PathBuf>>>),
}

/// The walks of one place, one after the other.
struct Walks {
    what: What,
    number: usize,
    news: mpsc::Sender<(usize, News)>,
}

impl Walks {
    async fn run(mut self, mut noticed: watch::Receiver<u64>, host_root: Option<PathBuf>) {
        let mut registrars = kubelet::Registrars::default();
        loop {
            noticed.mark_unchanged();
            let Some(mut listing) = self.walk().await else { return };
            registrars.complete(&mut listing, host_root.as_deref()).await;
            if self.news.send((self.number, News::Listed(listing))).await.is_err() {
                return;
            }
            tokio::time::sleep(SPACING).await;
            let is_attended_changed = async {
                match &mut self.what {
                    What::Attended(paths) => paths.changed().await.is_ok(),
                    What::Place { .. } => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = registrars.ended() => {}
                // Nobody notices anything any more: what is left is to look every minute.
                () = async { if noticed.changed().await.is_err() { std::future::pending().await } } => {
                    tokio::time::sleep(BUNCH).await;
                }
                is_open = is_attended_changed => if !is_open { return },
            }
        }
    }

    /// One walk, on a thread of its own. `None`: there is nobody left to tell.
    async fn walk(&mut self) -> Option<Listing> {
        let (done, mut walked) = oneshot::channel();
        let walk: Box<dyn FnOnce() -> Listing + Send> = match &mut self.what {
            What::Place { place, places } => {
                let (place, places) = (place.clone(), Arc::clone(places));
                Box::new(move || walk::walk(&place, &walk::roots(&places)))
            }
            What::Attended(paths) => {
                let paths = Arc::clone(&paths.borrow_and_update());
                Box::new(move || walk::identify(&paths))
            }
        };
        // Not one of the runtime's: a walk that hangs would keep it from everybody else for good.
        let thread = std::thread::Builder::new().name("csi-gateway-walk".to_owned()).spawn(move || {
            // Whoever waits has gone only when everything stops.
            let _ = done.send(walk());
        });
        if let Err(error) = thread {
            warn!(%error, "no thread for looking into directories");
        }
        if let Ok(listing) = tokio::time::timeout(LONG_WALK, &mut walked).await {
            // No thread, or one that broke off: the place is looked at again in a minute.
            return Some(listing.unwrap_or_default());
        }
        self.news.send((self.number, News::Hangs)).await.ok()?;
        Some(walked.await.unwrap_or_default())
    }
}
