//! Looking into other people's directories: fixed depths, links followed only to where we look anyway, nothing but
//! sockets accepted.
//!
//! A walk blocks, on a dead network mount for minutes, so each runs on a thread of its own and never on the runtime's.
//! Foreign directories are read, never written.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::{Kind, Place, kubelet, nomad};
use crate::domain::socket::{FileIdentity, IgnoredSocket, Source, WantedSocket};

/// Entries of one directory that are read.
const MOST_ENTRIES: usize = 10_000;

/// A socket that a walk found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub wanted: WantedSocket,
    /// `None`: announced, and not there.
    pub file: Option<FileIdentity>,
}

/// What a walk found.
#[derive(Debug, Clone, Default)]
pub(super) struct Listing {
    pub sockets: Vec<Found>,
    /// Sockets that a kubelet would ask what they announce.
    pub registrars: Vec<(PathBuf, FileIdentity)>,
    pub ignored: Vec<IgnoredSocket>,
    /// Where events would change this listing: a path, or a directory and `*` for all of its entries.
    pub events: BTreeSet<PathBuf>,
    /// Directories of Nomad's allocations, where they could be listed.
    pub allocations: Option<BTreeSet<PathBuf>>,
    /// Whether a kubelet's registry is there, so that drivers can be expected in it.
    pub has_registry: bool,
    pub exists: bool,
    /// Why the place cannot be searched; empty if it can.
    pub problem: String,
}

/// A walk under way.
pub(super) struct Walk<'a> {
    /// Directories inside which links may lead.
    roots: &'a [PathBuf],
    /// Paths of sockets that are no streams, once they were needed.
    not_streams: Option<BTreeSet<PathBuf>>,
    pub listing: Listing,
}

/// Walks one place.
pub(super) fn walk(place: &Place, roots: &[PathBuf]) -> Listing {
    let mut walk = Walk { roots, not_streams: None, listing: Listing::default() };
    walk.listing.exists = match fs::metadata(&place.path) {
        Ok(_) => true,
        Err(error) => {
            walk.problem(&place.path, &error);
            false
        }
    };
    match place.kind {
        Kind::Socket => walk.single(&place.path),
        Kind::PluginsDirectory => walk.plugins_directory(&place.path),
        Kind::Kubelet => kubelet::walk(&place.path, &mut walk),
        Kind::Nomad => nomad::walk(&place.path, &mut walk),
    }
    walk.listing
}

/// Which of these paths are sockets, and which files they are.
pub(super) fn identify(paths: &BTreeSet<PathBuf>) -> Listing {
    let mut listing = Listing { exists: true, ..Listing::default() };
    for path in paths {
        let file = fs::metadata(path).ok().filter(|metadata| metadata.file_type().is_socket());
        if let Some(file) = file.as_ref().map(FileIdentity::of) {
            let wanted = WantedSocket::found(path.clone(), Source::WellKnown);
            listing.sockets.push(Found { wanted, file: Some(file) });
        }
    }
    listing
}

impl Walk<'_> {
    fn single(&mut self, path: &Path) {
        self.listing.events.insert(path.to_owned());
        self.take(path, Source::WellKnown);
    }

    fn plugins_directory(&mut self, directory: &Path) {
        self.listing.events.insert(directory.join("*"));
        for (_, path) in self.directories(directory, Source::PluginsDirectory) {
            self.listing.events.insert(path.join("csi.sock"));
            self.take(&path.join("csi.sock"), Source::PluginsDirectory);
        }
    }

    /// Entries by name; none where there is no such directory.
    pub(super) fn entries(&mut self, directory: &Path) -> Vec<(OsString, PathBuf)> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                self.problem(directory, &error);
                return Vec::new();
            }
        };
        let mut names: Vec<OsString> =
            entries.take(MOST_ENTRIES).filter_map(Result::ok).map(|entry| entry.file_name()).collect();
        names.sort_unstable();
        names.into_iter().map(|name| (name.clone(), directory.join(name))).collect()
    }

    /// Those entries that are directories, by name.
    pub(super) fn directories(&mut self, directory: &Path, source: Source) -> Vec<(OsString, PathBuf)> {
        let mut entries = self.entries(directory);
        entries.retain(|(_, path)| self.is_directory(path, source));
        entries
    }

    fn problem(&mut self, path: &Path, error: &io::Error) {
        let is_absent = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        if !is_absent && self.listing.problem.is_empty() {
            self.listing.problem = format!("cannot look into `{}`: {error}", path.display());
        }
    }

    pub(super) fn ignore(&mut self, path: &Path, source: Source, reason: impl Into<String>) {
        self.listing.ignored.push(IgnoredSocket { path: path.to_owned(), source, reason: reason.into() });
    }

    /// Whether a path is a directory that may be looked into.
    pub(super) fn is_directory(&mut self, path: &Path, source: Source) -> bool {
        self.look(path, source).is_some_and(|metadata| metadata.is_dir())
    }

    /// Takes a socket into the listing, if it is one.
    pub(super) fn take(&mut self, path: &Path, source: Source) -> Option<&mut WantedSocket> {
        let file = self.socket(path, source)?;
        let wanted = WantedSocket::found(path, source);
        self.listing.sockets.push(Found { wanted, file: Some(file) });
        self.listing.sockets.last_mut().map(|found| &mut found.wanted)
    }

    /// The file of a socket; everything else that is there is ignored with its reason, and nothing at all is nothing.
    pub(super) fn socket(&mut self, path: &Path, source: Source) -> Option<FileIdentity> {
        let metadata = self.look(path, source)?;
        let kind = metadata.file_type();
        if !kind.is_socket() {
            self.ignore(path, source, format!("{}, not a socket", name_of(kind)));
            return None;
        }
        if self.not_streams.get_or_insert_with(not_streams).contains(path) {
            self.ignore(path, source, "a socket, but not a stream: no gRPC server listens there");
            return None;
        }
        Some(FileIdentity::of(&metadata))
    }

    /// What a path is, links followed as far as they may be. `None`: nothing, or nothing that may be looked at.
    fn look(&mut self, path: &Path, source: Source) -> Option<Metadata> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => {
                if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                    self.ignore(path, source, format!("cannot be looked at: {error}"));
                }
                return None;
            }
        };
        if !metadata.is_symlink() {
            return Some(metadata);
        }
        match self.follow(path) {
            Ok(metadata) => Some(metadata),
            Err(reason) => {
                self.ignore(path, source, reason);
                None
            }
        }
    }

    fn follow(&self, link: &Path) -> Result<Metadata, String> {
        let unreadable = |error: io::Error| format!("a link that cannot be read: {error}");
        let target = fs::read_link(link).map_err(unreadable)?;
        let out = || format!("a link out of the directories that are searched, to `{}`", target.display());
        // By its text first: what lies elsewhere is not even touched, since it may be a dead mount.
        let text = lexically(&link.parent().unwrap_or(Path::new("/")).join(&target));
        if !self.is_inside(&text) {
            return Err(out());
        }
        match fs::canonicalize(link) {
            Ok(end) if self.is_inside(&end) => fs::metadata(&end).map_err(unreadable),
            Ok(_) => Err(out()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(format!("a link to `{}`, which does not exist", target.display()))
            }
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                Err("a link that leads to itself".to_owned())
            }
            Err(error) => Err(unreadable(error)),
        }
    }

    fn is_inside(&self, path: &Path) -> bool {
        self.roots.iter().any(|root| path.starts_with(root))
    }
}

/// The places as they are named and as they really lie: a link may lead to either.
pub(super) fn roots(places: &[Place]) -> Vec<PathBuf> {
    let mut roots = Vec::new();
    for place in places {
        let root = match place.kind {
            Kind::Socket => place.path.parent().unwrap_or(&place.path),
            Kind::PluginsDirectory | Kind::Kubelet | Kind::Nomad => &place.path,
        };
        roots.extend(fs::canonicalize(root).ok().filter(|real| real != root));
        roots.push(root.to_owned());
    }
    roots
}

/// Without `.` and `..`, and without asking the system.
fn lexically(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_file() {
        "a regular file"
    } else if kind.is_fifo() {
        "a pipe"
    } else {
        "a device"
    }
}

/// Sockets of the system that are datagram or seqpacket, by the path under which they were bound: as far as our network
/// namespace shows them. Others are told by the dial.
fn not_streams() -> BTreeSet<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    const STREAM: &[u8] = b"0001";
    let table = fs::read("/proc/net/unix").unwrap_or_default();
    let mut paths = BTreeSet::new();
    for line in table.split(|byte| *byte == b'\n').skip(1) {
        // Num RefCount Protocol Flags Type St Inode Path
        let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
        if fields.nth(4).is_some_and(|kind| kind != STREAM)
            && let Some(path) = fields.nth(2)
            && path.starts_with(b"/")
        {
            paths.insert(PathBuf::from(OsStr::from_bytes(path)));
        }
    }
    paths
}
