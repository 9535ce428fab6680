//! One set of sockets from what all sources found.
//!
//! One socket found twice is one: by its path, and by its file where links or two roots lead to it. Configuration has the
//! first word, then the sources in their order. A socket that its source no longer shows goes on to be watched while its
//! file is there (a registration that goes retires nothing), and for half an hour after that where an instance lived
//! behind it, so that its return is seen at once. Only Nomad says that one is gone for good, by removing its directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::walk::{Found, Listing};
use super::{Kind, Place, nomad};
use crate::domain::socket::{Announced, FileIdentity, IgnoredSocket, Searched, Source, WantedSocket};

/// How long a socket without a file is still watched; shorter than what retires its instance.
const LINGERS: Duration = Duration::from_mins(30);

/// What is searched, and what each search brought last.
#[derive(Debug)]
struct Search {
    place: Place,
    listing: Option<Listing>,
    hangs: bool,
}

/// A socket that was found, now or before.
#[derive(Debug)]
struct Held {
    wanted: WantedSocket,
    missing_since: Option<Instant>,
}

/// What all sources come to.
#[derive(Debug)]
pub(super) struct Merged {
    pub wanted: BTreeSet<WantedSocket>,
    pub ignored: Vec<IgnoredSocket>,
    pub searched: Vec<Searched>,
    pub events: BTreeSet<PathBuf>,
    /// Whether every place was walked at least once.
    pub is_complete: bool,
}

/// Merges, and remembers what was found before.
#[derive(Debug)]
pub(super) struct Merge {
    fixed: BTreeSet<WantedSocket>,
    searches: Vec<Search>,
    /// Files of the sockets that are watched already.
    attended: Option<BTreeMap<Arc<Path>, FileIdentity>>,
    held: BTreeMap<Arc<Path>, Held>,
    /// What was watched last.
    settled: BTreeSet<Arc<Path>>,
}

impl Merge {
    pub(super) fn new(fixed: BTreeSet<WantedSocket>, places: Vec<Place>) -> Self {
        let searches = places.into_iter().map(|place| Search { place, listing: None, hangs: false }).collect();
        Self { fixed, searches, attended: None, held: BTreeMap::new(), settled: BTreeSet::new() }
    }

    /// What a walk brought; a number that is no place's stands for the sockets that are watched already.
    pub(super) fn put(&mut self, number: usize, listing: Listing) {
        match self.searches.get_mut(number) {
            Some(search) => {
                search.listing = Some(listing);
                search.hangs = false;
            }
            None => {
                let files = listing.sockets.into_iter();
                self.attended = Some(files.filter_map(|found| Some((found.wanted.path, found.file?))).collect());
            }
        }
    }

    /// The walk of a place does not come back.
    pub(super) fn hangs(&mut self, number: usize) {
        if let Some(search) = self.searches.get_mut(number) {
            search.hangs = true;
        }
    }

    pub(super) fn merge(&mut self, is_instance: &dyn Fn(&Path) -> bool) -> Merged {
        let (fresh, files) = self.fresh();
        self.hold(fresh, &files, is_instance);
        let mut ignored: Vec<IgnoredSocket> =
            self.listings().flat_map(|listing| listing.ignored.iter().cloned()).collect();
        let wanted = self.settle(&files, &mut ignored);
        self.settled = wanted.iter().map(|socket| Arc::clone(&socket.path)).collect();
        ignored.retain(|ignored| !wanted.iter().any(|socket| *socket.path == *ignored.path));
        ignored.sort_by(|left, right| left.path.cmp(&right.path));
        ignored.dedup_by(|left, right| left.path == right.path);
        Merged {
            wanted,
            ignored,
            searched: self.searches.iter().map(searched).collect(),
            events: self.listings().flat_map(|listing| listing.events.iter().cloned()).collect(),
            is_complete: self.attended.is_some() && self.searches.iter().all(|search| search.listing.is_some()),
        }
    }

    fn listings(&self) -> impl Iterator<Item = &Listing> {
        self.searches.iter().filter_map(|search| search.listing.as_ref())
    }

    /// What the sources show now, by path, and the files that are known.
    fn fresh(&self) -> (BTreeMap<Arc<Path>, WantedSocket>, BTreeMap<Arc<Path>, FileIdentity>) {
        let mut files = self.attended.clone().unwrap_or_default();
        let mut fresh = BTreeMap::<Arc<Path>, WantedSocket>::new();
        for Found { wanted, file } in self.listings().flat_map(|listing| &listing.sockets) {
            if let Some(file) = file {
                files.insert(Arc::clone(&wanted.path), *file);
            }
            match fresh.get_mut(&wanted.path) {
                Some(known) => *known = united(known, wanted),
                None => {
                    fresh.insert(Arc::clone(&wanted.path), wanted.clone());
                }
            }
        }
        (fresh, files)
    }

    fn hold(
        &mut self,
        fresh: BTreeMap<Arc<Path>, WantedSocket>,
        files: &BTreeMap<Arc<Path>, FileIdentity>,
        is_instance: &dyn Fn(&Path) -> bool,
    ) {
        let mut held = std::mem::take(&mut self.held);
        held.retain(|path, held| {
            if fresh.contains_key(path) {
                return true;
            }
            if self.is_stopped(path) {
                return false;
            }
            if held.wanted.source == Source::Registration && held.wanted.announced != Announced::Nothing {
                held.wanted.announced = Announced::Nobody;
            }
            if files.contains_key(path) {
                held.missing_since = None;
                return true;
            }
            let since = *held.missing_since.get_or_insert_with(Instant::now);
            since.elapsed() < LINGERS && is_instance(path)
        });
        for (path, wanted) in fresh {
            match held.get_mut(&path) {
                // Whoever was told more about it before has not learnt less since: a driver is not dialled anew because
                // its registration went.
                Some(held) if held.wanted.source < wanted.source => held.wanted.announced = wanted.announced,
                Some(held) => held.wanted = wanted,
                None => {
                    held.insert(path, Held { wanted, missing_since: None });
                }
            }
        }
        self.held = held;
    }

    fn is_stopped(&self, path: &Path) -> bool {
        self.searches.iter().filter(|search| search.place.kind == Kind::Nomad).any(|search| {
            let allocations = search.listing.as_ref().and_then(|listing| listing.allocations.as_ref());
            allocations.is_some_and(|allocations| nomad::is_stopped(path, allocations, &search.place.path))
        })
    }

    /// Configured sockets and found ones, each once.
    fn settle(
        &self,
        files: &BTreeMap<Arc<Path>, FileIdentity>,
        ignored: &mut Vec<IgnoredSocket>,
    ) -> BTreeSet<WantedSocket> {
        let mut all: Vec<WantedSocket> = self.fixed.iter().cloned().collect();
        all.extend(self.held.values().map(|held| held.wanted.clone()));
        // Of several names of one file the one that is watched already: a link that comes is no reason to dial anew.
        let order = |socket: &WantedSocket| {
            (socket.source, socket.rank, !self.settled.contains(&socket.path), Arc::clone(&socket.path))
        };
        all.sort_by_cached_key(order);
        let mut settled = Vec::<WantedSocket>::new();
        let (mut by_path, mut by_file) = (BTreeMap::new(), BTreeMap::new());
        for socket in all {
            let file = files.get(&socket.path).map(|file| (file.device, file.inode));
            let known = by_path.get(&socket.path).or_else(|| by_file.get(&file?)).copied();
            let Some(known) = known.and_then(|number: usize| settled.get_mut(number)) else {
                by_path.insert(Arc::clone(&socket.path), settled.len());
                by_file.extend(file.map(|file| (file, settled.len())));
                settled.push(socket);
                continue;
            };
            *known = united(known, &socket);
            if known.path != socket.path {
                ignored.push(IgnoredSocket {
                    path: socket.path.to_path_buf(),
                    source: socket.source,
                    reason: format!("the same socket as `{}`", known.path.display()),
                });
            }
        }
        settled.into_iter().collect()
    }
}

/// One socket that two sources know. The first of them has the word, and takes from the other what it does not know.
fn united(one: &WantedSocket, other: &WantedSocket) -> WantedSocket {
    let (first, second) =
        if (one.source, one.rank) <= (other.source, other.rank) { (one, other) } else { (other, one) };
    let mut united = first.clone();
    if united.owner.alloc_id.is_empty() {
        united.owner.clone_from(&second.owner);
    }
    // `As` is the largest, and `Nothing` the smallest.
    united.announced = first.announced.clone().max(second.announced.clone());
    united
}

fn searched(search: &Search) -> Searched {
    let listing = search.listing.as_ref();
    let problem = if search.hangs {
        "looking into it does not come back: a mount that hangs?"
    } else {
        listing.map_or("", |listing| &listing.problem)
    };
    Searched {
        place: search.place.path.clone(),
        what: search.place.kind.what().into(),
        is_searched: listing.is_some(),
        exists: listing.is_some_and(|listing| listing.exists),
        found: listing.map_or(0, |listing| {
            let paths: BTreeSet<&Path> = listing.sockets.iter().map(|found| &*found.wanted.path).collect();
            paths.len()
        }),
        ignored: listing.map_or(0, |listing| listing.ignored.len()),
        problem: problem.into(),
    }
}
