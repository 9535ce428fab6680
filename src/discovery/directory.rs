//! Directory events: which socket files came, changed or went, and whether discovery has something new to find.
//!
//! One inotify instance for the whole process, since hosts run out of them. A watch lies on the directory of a socket,
//! or, while that does not exist, on the nearest ancestor that does; and on the parent of that, because a directory that
//! is replaced may say nothing itself (its inode lives as long as somebody holds a socket that was bound in it). Watches
//! are by inode, so every event in an ancestor and every minute they are laid anew. Where no watch can be had, the socket
//! is touched every second: its task then compares the file itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::domain::socket::{DirectoryEvents, Touch, WantedSocket};

/// Watches get lost: directories are replaced, queues overflow.
const LAY_AGAIN: Duration = Duration::from_secs(60);
/// How often a socket without a watch is touched.
const WITHOUT_WATCH: Duration = Duration::from_secs(1);
/// How often laying a watch begins again because directories came meanwhile.
const ATTEMPTS: usize = 4;
/// Enough for some fifty events of ordinary names; more come with the next read.
const BUFFER: usize = 2048;

fn interesting() -> WatchMask {
    WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
}

/// A path below a watched directory. Several names may lead to one directory, so each path has its own.
struct Below {
    directory: PathBuf,
    path: Arc<Path>,
    concerns: Concerns,
}

/// Whose affair an event at a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Concerns {
    /// The task's of the socket.
    Socket,
    /// Discovery's: what it found may differ now.
    Discovery,
}

/// Tells which wanted sockets directory events concern.
pub struct Directories {
    wanted: watch::Receiver<Arc<BTreeSet<WantedSocket>>>,
    touches: mpsc::Sender<Touch>,
    /// Paths at which discovery would find something else after an event; `*` stands for all entries of a directory.
    places: watch::Receiver<Arc<BTreeSet<PathBuf>>>,
    /// Counts what happens there.
    noticed: watch::Sender<u64>,
    /// Told when it changes how changes are learnt of.
    told: Box<dyn Fn(DirectoryEvents) + Send + Sync>,
    laid: BTreeMap<i32, (WatchDescriptor, Vec<Below>)>,
    unwatched: Vec<(Arc<Path>, Concerns)>,
    state: DirectoryEvents,
}

/// Whether the kernel would tell of changes, by trying: hosts run out of instances and of watches.
///
/// # Errors
/// What it says.
pub fn try_events() -> std::io::Result<()> {
    let inotify = Inotify::init()?;
    inotify.watches().add("/", interesting()).map(|_| ())
}

impl Directories {
    /// Starts nothing yet.
    #[must_use]
    pub fn new(
        wanted: watch::Receiver<Arc<BTreeSet<WantedSocket>>>,
        touches: mpsc::Sender<Touch>,
        places: watch::Receiver<Arc<BTreeSet<PathBuf>>>,
        noticed: watch::Sender<u64>,
        told: Box<dyn Fn(DirectoryEvents) + Send + Sync>,
    ) -> Self {
        let (laid, unwatched, state) = (BTreeMap::new(), Vec::new(), DirectoryEvents::default());
        Self { wanted, touches, places, noticed, told, laid, unwatched, state }
    }

    /// Runs until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let stream = Inotify::init().and_then(|inotify| inotify.into_event_stream([0u8; BUFFER]));
        let mut events = stream.map_err(|error| error.to_string());
        let mut watches = watches_of(&events);
        self.lay(&mut watches);
        // What happened before the watch was laid has left no event.
        self.touch(Touch::Everything).await;
        let mut again = tokio::time::interval(LAY_AGAIN);
        again.tick().await;
        let mut blind = tokio::time::interval(WITHOUT_WATCH);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.wanted.changed() => {
                    if changed.is_err() { return }
                    self.lay(&mut watches);
                    self.touch(Touch::Everything).await;
                }
                Ok(()) = self.places.changed() => {
                    self.lay(&mut watches);
                    // What happened between the walk and the watch has left no event.
                    self.notice();
                }
                event = next(&mut events) => match event {
                    Ok(event) => self.handle(&event, &mut watches).await,
                    Err(error) => {
                        events = Err(error.to_string());
                        watches = watches_of(&events);
                        self.lay(&mut watches);
                    }
                },
                _ = again.tick() => {
                    self.lay(&mut watches);
                    self.touch(Touch::Everything).await;
                }
                _ = blind.tick(), if !self.unwatched.is_empty() => {
                    self.tell(self.unwatched.clone()).await;
                }
            }
        }
    }

    async fn touch(&self, touch: Touch) {
        // Whoever listens has gone only when everything stops.
        let _ = self.touches.send(touch).await;
    }

    /// Discovery has a reason to look again.
    fn notice(&self) {
        self.noticed.send_modify(|count| *count = count.wrapping_add(1));
    }

    async fn tell(&self, concerned: Vec<(Arc<Path>, Concerns)>) {
        if concerned.iter().any(|(_, concerns)| *concerns == Concerns::Discovery) {
            self.notice();
        }
        for (path, concerns) in concerned {
            if concerns == Concerns::Socket {
                self.touch(Touch::Socket(path)).await;
            }
        }
    }

    async fn handle(&mut self, event: &inotify::EventOwned, watches: &mut Result<Watches, String>) {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            self.lay(watches);
            self.notice();
            return self.touch(Touch::Everything).await;
        }
        let Some((_, below)) = self.laid.get(&event.wd.get_watch_descriptor_id()) else { return };
        let is_about_directory = event
            .mask
            .intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED | EventMask::UNMOUNT);
        let mut must_lay = is_about_directory;
        let mut concerned = Vec::new();
        for Below { directory, path, concerns } in below {
            let rest = path.strip_prefix(directory).unwrap_or(path);
            let next = rest.components().next().map(|component| component.as_os_str());
            let is_any = *concerns == Concerns::Discovery && next.is_some_and(|name| name == "*");
            if is_about_directory || is_any || next == event.name.as_deref() {
                must_lay |= rest.components().count() > 1;
                concerned.push((Arc::clone(path), *concerns));
            }
        }
        debug!(name = ?event.name, mask = ?event.mask, concerned = concerned.len(), "directory event");
        if must_lay {
            self.lay(watches);
        }
        self.tell(concerned).await;
    }

    /// Lays a watch for every path, takes away those that serve none any more, and tells how many could be had.
    fn lay(&mut self, watches: &mut Result<Watches, String>) {
        let mut wanted: Vec<(Arc<Path>, Concerns)> =
            self.wanted.borrow_and_update().iter().map(|s| (Arc::clone(&s.path), Concerns::Socket)).collect();
        let places = Arc::clone(&self.places.borrow_and_update());
        wanted.extend(places.iter().map(|path| (path.as_path().into(), Concerns::Discovery)));
        self.unwatched.clear();
        let before = std::mem::take(&mut self.laid);
        let mut state = DirectoryEvents { watched: wanted.len(), ..DirectoryEvents::default() };
        match watches {
            Ok(watches) => {
                for (path, concerns) in wanted {
                    if let Err(error) = self.lay_one(&path, concerns, watches) {
                        state.problem = format!("`{}` cannot be watched: {error}", path.display()).into();
                        self.unwatched.push((path, concerns));
                    }
                }
                for (id, (descriptor, _)) in before {
                    if !self.laid.contains_key(&id) {
                        // It may have gone with its directory.
                        let _ = watches.remove(descriptor);
                    }
                }
            }
            Err(why) => {
                state.problem = format!("the kernel gives no directory events: {why}").into();
                self.unwatched = wanted;
            }
        }
        state.polled = self.unwatched.len();
        state.watched -= state.polled;
        self.tell_state(state);
    }

    fn tell_state(&mut self, state: DirectoryEvents) {
        if state == self.state {
            return;
        }
        let (polled, problem) = (state.polled, &*state.problem);
        match (self.state.problem.is_empty(), problem.is_empty()) {
            (true, false) => warn!(polled, problem, "paths are looked at every second instead of being watched"),
            (false, true) => info!("every path is watched again"),
            _ => {}
        }
        (self.told)(state.clone());
        self.state = state;
    }

    fn lay_one(&mut self, path: &Arc<Path>, concerns: Concerns, watches: &mut Watches) -> std::io::Result<()> {
        for _ in 0..ATTEMPTS {
            match self.lay_nearest(path, concerns, watches) {
                // A directory made just before an ancestor was watched has left no event.
                Ok(missing) if missing.is_some_and(Path::exists) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Err(std::io::Error::other("its directories change too fast"))
    }

    /// Watches the nearest directory there is, and its parent. Returns the directory below, which there is not.
    fn lay_nearest<'a>(
        &mut self,
        path: &'a Arc<Path>,
        concerns: Concerns,
        watches: &mut Watches,
    ) -> std::io::Result<Option<&'a Path>> {
        let mut missing = None;
        for directory in path.ancestors().skip(1) {
            match self.watch(directory, path, concerns, watches) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => missing = Some(directory),
                Err(error) => return Err(error),
                Ok(()) => {
                    if let Some(parent) = directory.parent()
                        && let Err(error) = self.watch(parent, path, concerns, watches)
                    {
                        // What it would tell, the next minute does.
                        debug!(directory = %parent.display(), %error, "cannot be watched");
                    }
                    return Ok(missing);
                }
            }
        }
        Err(std::io::ErrorKind::NotFound.into())
    }

    fn watch(
        &mut self,
        directory: &Path,
        path: &Arc<Path>,
        concerns: Concerns,
        watches: &mut Watches,
    ) -> std::io::Result<()> {
        let descriptor = watches.add(directory, interesting())?;
        let id = descriptor.get_watch_descriptor_id();
        let (_, below) = self.laid.entry(id).or_insert_with(|| (descriptor, Vec::new()));
        below.push(Below { directory: directory.to_owned(), path: Arc::clone(path), concerns });
        Ok(())
    }
}

impl std::fmt::Debug for Directories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directories").field("laid", &self.laid.len()).finish_non_exhaustive()
    }
}

/// What events are read from, or why there is nothing.
type Events = Result<EventStream<[u8; BUFFER]>, String>;

fn watches_of(events: &Events) -> Result<Watches, String> {
    events.as_ref().map(EventStream::watches).map_err(String::clone)
}

/// The next event; for ever none where there is no stream.
async fn next(events: &mut Events) -> std::io::Result<inotify::EventOwned> {
    match events {
        Ok(events) => match events.next().await {
            Some(event) => event,
            None => Err(std::io::Error::other("the event stream ended")),
        },
        Err(_) => std::future::pending().await,
    }
}
