//! A kubelet's root directory, and its registration protocol as a bystander (`fingerprinting.md` 5.2, 5.3).
//!
//! Whoever registers serves, and the kubelet calls. `GetInfo` only reads. `NotifyRegistrationStatus` would tell a
//! registrar of a registration that did not happen, upon which it ends: nothing here can make that call.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::walk::{Found, Listing, Walk};
use crate::csi::{Announcement, CallError, Driver, Limits};
use crate::domain::address;
use crate::domain::record::Owner;
use crate::domain::socket::{Announced, FileIdentity, IgnoredSocket, RoleChoice, Source, WantedSocket};
use crate::domain::text::bounded;

/// Limit of connecting, and again of the call; a kubelet has 10 s, a registrar's own liveness check 1 s.
const LIMIT: Duration = Duration::from_secs(1);
/// How long an answer holds while its connection lives: a registrar that hangs says nothing, either.
const HOLDS: Duration = Duration::from_secs(30);
/// How long a failure does, and an answer whose connection ended.
const ENDED_HOLDS: Duration = Duration::from_secs(1);
/// A registrar makes its file a moment before it listens: so often, and so long apart, a new one is tried again.
const NEW_ATTEMPTS: usize = 5;
const NEW_PAUSE: Duration = Duration::from_millis(20);
/// Registrars asked at the same time.
const AT_ONCE: usize = 16;
/// Longest name and path that are quoted, in bytes.
const QUOTED: usize = 256;

/// Walks a kubelet's root.
pub(super) fn walk(root: &Path, walk: &mut Walk<'_>) {
    let plugins = root.join("plugins");
    walk.listing.events.insert(plugins.join("*"));
    for (name, directory) in walk.entries(&plugins) {
        if name == "kubernetes.io" {
            let reason = "the kubelet's own mounts, which may hang: never looked into";
            walk.ignore(&directory, Source::KubeletPlugins, reason);
            continue;
        }
        if !walk.is_directory(&directory, Source::KubeletPlugins) {
            continue;
        }
        walk.listing.events.insert(directory.join("*"));
        for (_, path) in walk.entries(&directory) {
            if path.extension().is_some_and(|extension| extension == "sock") {
                walk.take(&path, Source::KubeletPlugins);
            }
        }
    }

    let old = root.join("csi-plugins");
    walk.listing.events.insert(old.join("*"));
    for (_, directory) in walk.directories(&old, Source::KubeletPlugins) {
        let socket = directory.join("csi.sock");
        walk.listing.events.insert(socket.clone());
        walk.take(&socket, Source::KubeletPlugins);
    }

    let registry = root.join("plugins_registry");
    walk.listing.events.insert(registry.join("*"));
    walk.listing.has_registry = walk.is_directory(&registry, Source::Registration);
    for (_, path) in walk.entries(&registry) {
        if !is_hidden(&path) && walk.is_directory(&path, Source::Registration) {
            walk.listing.events.insert(path.join("*"));
            for (_, path) in walk.entries(&path) {
                registrar(&path, walk);
            }
        } else {
            registrar(&path, walk);
        }
    }

    let pods = root.join("pods");
    walk.listing.events.insert(pods.join("*"));
    for (pod, directory) in walk.directories(&pods, Source::EmptyDirectory) {
        let volumes = directory.join("volumes/kubernetes.io~empty-dir");
        walk.listing.events.insert(volumes.join("*"));
        for (_, volume) in walk.directories(&volumes, Source::EmptyDirectory) {
            let socket = volume.join("csi.sock");
            // This name alone: what else a pod does in its volume is its own affair.
            walk.listing.events.insert(socket.clone());
            if let Some(wanted) = walk.take(&socket, Source::EmptyDirectory) {
                wanted.owner = Owner::allocation(&pod.to_string_lossy());
            }
        }
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn registrar(path: &Path, walk: &mut Walk<'_>) {
    if is_hidden(path) {
        return walk.ignore(
            path,
            Source::Registration,
            "its name begins with a dot: a kubelet does not look at it, either",
        );
    }
    if let Some(file) = walk.socket(path, Source::Registration) {
        walk.listing.registrars.push((path.to_owned(), file));
    }
}

/// What a registrar said, or why it said nothing.
#[derive(Debug)]
struct Asked {
    file: FileIdentity,
    at: Instant,
    answer: Result<Announcement, String>,
    /// What it said before it fell silent, about the same file: the kubelet still believes in that.
    believed: Option<Announcement>,
    /// The connection, kept for its end, which is how a registrar that is killed shows.
    kept: Option<Driver>,
}

impl Asked {
    /// When it is to be asked again.
    fn due(&self) -> Instant {
        let is_alive = self.kept.as_ref().is_some_and(|kept| !kept.has_ended());
        self.at + if is_alive { HOLDS } else { ENDED_HOLDS }
    }
}

/// The registrars of one kubelet, and what they said.
#[derive(Debug, Default)]
pub(super) struct Registrars {
    asked: BTreeMap<PathBuf, Asked>,
}

impl Registrars {
    /// Asks those that are due, and adds to a listing what all of them announce. `host_root` stands before announced
    /// paths, which are the host's.
    pub(super) async fn complete(&mut self, listing: &mut Listing, host_root: Option<&Path>) {
        let registrars = std::mem::take(&mut listing.registrars);
        self.asked.retain(|path, asked| {
            registrars.iter().any(|(known, file)| {
                // Another mode or link may be why it can be reached now, and is no news of one that was.
                known == path && (*file == asked.file || (asked.answer.is_ok() && file.is_still(&asked.file)))
            })
        });
        let mut asking = JoinSet::new();
        let places = Arc::new(Semaphore::new(AT_ONCE));
        for (path, file) in &registrars {
            let before = self.asked.get(path);
            if before.is_some_and(|asked| Instant::now() < asked.due()) {
                continue;
            }
            let attempts = if before.is_none() { NEW_ATTEMPTS } else { 1 };
            let (path, file, places) = (path.clone(), *file, Arc::clone(&places));
            asking.spawn(async move {
                let _place = places.acquire_owned().await;
                let answer = ask(&path, attempts).await;
                (path, file, answer)
            });
        }
        while let Some(asked) = asking.join_next().await {
            let Ok((path, file, answer)) = asked else { continue };
            let before = self.asked.remove(&path);
            let believed = before.and_then(|before| before.answer.ok().or(before.believed));
            let (answer, kept) = match answer {
                Ok((info, kept)) => (Ok(info), Some(kept)),
                Err(why) => (Err(why), None),
            };
            let asked = Asked { file, at: Instant::now(), answer, believed, kept };
            self.asked.insert(path, asked);
        }
        // Without a registry there is no kubelet that could be expected to know anything.
        let is_expected = listing.has_registry;
        for found in &mut listing.sockets {
            if found.wanted.source == Source::KubeletPlugins && is_expected {
                found.wanted.announced = Announced::Nobody;
            }
        }
        for (path, file) in registrars {
            if let Some(asked) = self.asked.get(&path) {
                announce(&path, file, asked, host_root, listing);
            }
        }
    }
}

impl Registrars {
    /// Returns when a registrar that answered is to be asked again, because its connection ended.
    pub(super) async fn ended(&self) {
        let end = |asked: &Asked| {
            let kept = asked.kept.clone()?;
            let earliest = asked.at + ENDED_HOLDS;
            Some(Box::pin(async move {
                kept.ended().await;
                tokio::time::sleep_until(earliest.into()).await;
            }))
        };
        let mut ends: Vec<_> = self.asked.values().filter_map(end).collect();
        std::future::poll_fn(|context| {
            let is_over = ends.iter_mut().any(|end| end.as_mut().poll(context).is_ready());
            if is_over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// What one registrar announces.
fn announce(path: &Path, file: FileIdentity, asked: &Asked, host_root: Option<&Path>, listing: &mut Listing) {
    let mut ignore = |reason: String| {
        listing.ignored.push(IgnoredSocket { path: path.to_owned(), source: Source::Registration, reason });
    };
    let (info, is_alive) = match (&asked.answer, &asked.believed) {
        (Ok(info), _) => (info, true),
        (Err(why), Some(info)) => {
            let name = bounded(&info.name, QUOTED);
            ignore(format!("a registration socket whose registrar of {name:?} is dead or hung: {why}"));
            (info, false)
        }
        (Err(why), None) => return ignore(format!("a registration socket that says nothing: {why}")),
    };
    let (kind, name) = (bounded(&info.kind, QUOTED), bounded(&info.name, QUOTED));
    if info.kind != "CSIPlugin" {
        return ignore(format!("registers {name:?} as {kind:?}: no CSI driver"));
    }
    let announced = Announced::As { name: info.name.as_str().into(), is_alive };
    let (endpoint, file) = if info.endpoint.is_empty() {
        (path.to_owned(), Some(file))
    } else {
        let endpoint = bounded(&info.endpoint, QUOTED);
        match address::parse(&info.endpoint) {
            Ok(endpoint) => {
                let endpoint = address::under(host_root, &endpoint);
                if is_alive {
                    ignore(format!("a registration socket, which announces {name:?} at `{}`", endpoint.display()));
                }
                (endpoint, None)
            }
            Err(error) => return ignore(format!("registers {name:?} at `{endpoint}`, which {error}")),
        }
    };
    let role = RoleChoice::Node;
    let wanted = WantedSocket { role, announced, ..WantedSocket::found(endpoint, Source::Registration) };
    listing.events.insert(wanted.path.to_path_buf());
    listing.sockets.push(Found { wanted, file });
}

/// What a registration socket announces.
///
/// # Errors
/// Why it says nothing, in words.
pub async fn announcement(socket: &Path) -> Result<Announcement, String> {
    ask(socket, 1).await.map(|(announcement, _)| announcement)
}

/// `GetInfo`. An error in words.
async fn ask(socket: &Path, attempts: usize) -> Result<(Announcement, Driver), String> {
    let limits = Limits { connect: LIMIT, call: LIMIT, ..Limits::default() };
    let words = |error: CallError| {
        if error.is_refused() { "nobody listens there".to_owned() } else { error.for_people() }
    };
    let mut attempt = 1;
    let registrar = loop {
        match Driver::connect(socket, limits).await {
            Err(error) if error.is_refused() && attempt < attempts => {
                attempt += 1;
                tokio::time::sleep(NEW_PAUSE).await;
            }
            connected => break connected.map_err(words)?,
        }
    };
    let announcement = registrar.announcement().await.map_err(words)?;
    Ok((announcement, registrar))
}
