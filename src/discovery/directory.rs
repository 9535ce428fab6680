//! Directory events: which socket files came, changed or went.
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
use tracing::{debug, warn};

use crate::domain::socket::{Touch, WantedSocket};

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

/// A socket below a watched directory. Several names may lead to one directory, so each socket has its own.
struct Below {
    directory: PathBuf,
    socket: Arc<Path>,
}

/// Tells which wanted sockets directory events concern.
pub struct Directories {
    wanted: watch::Receiver<Arc<BTreeSet<WantedSocket>>>,
    touches: mpsc::Sender<Touch>,
    laid: BTreeMap<i32, (WatchDescriptor, Vec<Below>)>,
    unwatched: Vec<Arc<Path>>,
}

impl Directories {
    /// Starts nothing yet.
    #[must_use]
    pub fn new(wanted: watch::Receiver<Arc<BTreeSet<WantedSocket>>>, touches: mpsc::Sender<Touch>) -> Self {
        Self { wanted, touches, laid: BTreeMap::new(), unwatched: Vec::new() }
    }

    /// Runs until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let stream = Inotify::init().and_then(|inotify| inotify.into_event_stream([0u8; BUFFER]));
        let mut events = match stream {
            Ok(events) => Some(events),
            Err(error) => {
                warn!(%error, "no directory events can be had, so sockets are looked at every second instead");
                None
            }
        };
        let mut watches = events.as_ref().map(EventStream::watches);
        self.lay(watches.as_mut());
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
                    self.lay(watches.as_mut());
                    self.touch(Touch::Everything).await;
                }
                event = next(&mut events) => match event {
                    Ok(event) => self.handle(&event, watches.as_mut()).await,
                    Err(error) => {
                        warn!(%error, "directory events stopped, so sockets are looked at every second instead");
                        (events, watches) = (None, None);
                        self.lay(None);
                    }
                },
                _ = again.tick() => {
                    self.lay(watches.as_mut());
                    self.touch(Touch::Everything).await;
                }
                _ = blind.tick(), if !self.unwatched.is_empty() => {
                    for path in self.unwatched.clone() {
                        self.touch(Touch::Socket(path)).await;
                    }
                }
            }
        }
    }

    async fn touch(&self, touch: Touch) {
        // Whoever listens has gone only when everything stops.
        let _ = self.touches.send(touch).await;
    }

    async fn handle(&mut self, event: &inotify::EventOwned, watches: Option<&mut Watches>) {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            self.lay(watches);
            return self.touch(Touch::Everything).await;
        }
        let Some((_, below)) = self.laid.get(&event.wd.get_watch_descriptor_id()) else { return };
        let is_about_directory = event
            .mask
            .intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED | EventMask::UNMOUNT);
        let mut must_lay = is_about_directory;
        let mut concerned = Vec::new();
        for Below { directory, socket } in below {
            let rest = socket.strip_prefix(directory).unwrap_or(socket);
            let next = rest.components().next().map(|component| component.as_os_str());
            if is_about_directory || next == event.name.as_deref() {
                must_lay |= rest.components().count() > 1;
                concerned.push(Arc::clone(socket));
            }
        }
        debug!(name = ?event.name, mask = ?event.mask, sockets = concerned.len(), "directory event");
        if must_lay {
            self.lay(watches);
        }
        for socket in concerned {
            self.touch(Touch::Socket(socket)).await;
        }
    }

    /// Lays a watch for every wanted socket, and takes away those that serve none any more.
    fn lay(&mut self, watches: Option<&mut Watches>) {
        let wanted: Vec<Arc<Path>> = self.wanted.borrow_and_update().iter().map(|s| Arc::clone(&s.path)).collect();
        self.unwatched.clear();
        let Some(watches) = watches else {
            self.laid.clear();
            self.unwatched = wanted;
            return;
        };
        let before = std::mem::take(&mut self.laid);
        for socket in wanted {
            if !self.lay_one(&socket, watches) {
                self.unwatched.push(socket);
            }
        }
        for (id, (descriptor, _)) in before {
            if !self.laid.contains_key(&id) {
                // It may have gone with its directory.
                let _ = watches.remove(descriptor);
            }
        }
    }

    fn lay_one(&mut self, socket: &Arc<Path>, watches: &mut Watches) -> bool {
        for _ in 0..ATTEMPTS {
            match self.lay_nearest(socket, watches) {
                // A directory made just before an ancestor was watched has left no event.
                Ok(missing) if missing.is_some_and(Path::exists) => {}
                Ok(_) => return true,
                Err(error) => {
                    debug!(socket = %socket.display(), %error, "cannot be watched");
                    return false;
                }
            }
        }
        false
    }

    /// Watches the nearest directory there is, and its parent. Returns the directory below, which there is not.
    fn lay_nearest<'a>(&mut self, socket: &'a Arc<Path>, watches: &mut Watches) -> std::io::Result<Option<&'a Path>> {
        let mut missing = None;
        for directory in socket.ancestors().skip(1) {
            match self.watch(directory, socket, watches) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => missing = Some(directory),
                Err(error) => return Err(error),
                Ok(()) => {
                    if let Some(parent) = directory.parent()
                        && let Err(error) = self.watch(parent, socket, watches)
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

    fn watch(&mut self, directory: &Path, socket: &Arc<Path>, watches: &mut Watches) -> std::io::Result<()> {
        let descriptor = watches.add(directory, interesting())?;
        let id = descriptor.get_watch_descriptor_id();
        let (_, below) = self.laid.entry(id).or_insert_with(|| (descriptor, Vec::new()));
        below.push(Below { directory: directory.to_owned(), socket: Arc::clone(socket) });
        Ok(())
    }
}

impl std::fmt::Debug for Directories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directories").field("laid", &self.laid.len()).finish_non_exhaustive()
    }
}

/// The next event; for ever none where there is no stream.
async fn next(events: &mut Option<EventStream<[u8; BUFFER]>>) -> std::io::Result<inotify::EventOwned> {
    match events {
        Some(events) => match events.next().await {
            Some(event) => event,
            None => Err(std::io::Error::other("the event stream ended")),
        },
        None => std::future::pending().await,
    }
}
