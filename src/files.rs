//! Files that somebody else may change while we run, followed by what tells one from another.
//!
//! What is compared is what a path leads to: an editor's new file under the old name, a link that leads elsewhere (as in
//! what Kubernetes mounts) and a file written in place are all changes. Directory events make it quick; a look every
//! second makes it sure, where there are none (network file systems, no inotify left) or they tell too little (a link
//! into another directory).

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inotify::{EventStream, Inotify, WatchMask};
use tokio_stream::StreamExt;

/// How often somebody looks, events or not.
const LOOK: Duration = Duration::from_secs(1);
/// How long files stay as they are before they are taken for written.
const SETTLE: Duration = Duration::from_millis(50);
/// How often that is looked at before whatever is there is taken.
const SETTLING: usize = 40;
/// Room for one event with the longest name, and some more.
const BUFFER: usize = 4096;

/// A file as it is told from others: device, inode, size, times of change. `None`: there is none to be seen.
type Stamp = Option<(u64, u64, u64, [i64; 4])>;

/// What files are at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamps(Vec<Stamp>);

impl Stamps {
    /// Now. Whoever reads files takes these first, so that a change in between is a change.
    #[must_use]
    pub fn of(paths: &[PathBuf]) -> Self {
        let stamp = |path: &PathBuf| {
            let found = std::fs::metadata(path).ok()?;
            let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
            Some((found.dev(), found.ino(), found.size(), times))
        };
        Self(paths.iter().map(stamp).collect())
    }
}

/// Tells when one of some files has become another one.
pub struct Follower {
    paths: Vec<PathBuf>,
    seen: Stamps,
    /// `None`: the kernel has none to give.
    events: Option<EventStream<[u8; BUFFER]>>,
}

impl Follower {
    /// Follows files from what they were on.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, seen: Stamps) -> Self {
        let events = events(&paths);
        Self { paths, seen, events }
    }

    /// Resolves once a file is another one, and all have stayed as they are for a moment. Nothing is missed if this is
    /// dropped and asked again.
    pub async fn changed(&mut self) {
        loop {
            self.event().await;
            let now = self.look().await;
            if now != self.seen {
                self.seen = self.settled(now).await;
                // A directory may be another one, too.
                self.events = events(&self.paths);
                return;
            }
        }
    }

    /// Something happened beside the files, or it is time to look.
    async fn event(&mut self) {
        let Some(events) = &mut self.events else { return tokio::time::sleep(LOOK).await };
        if let Ok(ended) = tokio::time::timeout(LOOK, events.next()).await.map(|event| event.is_none()) {
            // A directory in which others write often is looked at a few times a second, not once for each of theirs.
            tokio::time::sleep(SETTLE).await;
            while let Ok(Some(_)) = tokio::time::timeout(Duration::ZERO, events.next()).await {}
            if ended {
                self.events = None;
            }
        }
    }

    async fn settled(&self, mut last: Stamps) -> Stamps {
        for _ in 0..SETTLING {
            tokio::time::sleep(SETTLE).await;
            let now = self.look().await;
            if now == last {
                break;
            }
            last = now;
        }
        last
    }

    async fn look(&self) -> Stamps {
        let paths = self.paths.clone();
        // A look may hang where a server of files does.
        tokio::task::spawn_blocking(move || Stamps::of(&paths)).await.unwrap_or_default()
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("paths", &self.paths).finish_non_exhaustive()
    }
}

/// Events of the directories that the files are in, by their names; those that links lead to are looked at only.
fn events(paths: &[PathBuf]) -> Option<EventStream<[u8; BUFFER]>> {
    let inotify = Inotify::init().ok()?;
    let directories: BTreeSet<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
    let kinds = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE | WatchMask::ATTRIB;
    for directory in directories {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        // One that cannot be watched is looked at.
        let _ = inotify.watches().add(directory, kinds);
    }
    inotify.into_event_stream([0; BUFFER]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long enough for whatever the machine does besides; it only turns a hang into a failure.
    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn whatever_a_path_leads_to_is_followed() {
        let folder = tempfile::tempdir().expect("a directory");
        let at = |name: &str| folder.path().join(name);
        for (name, text) in [("one", "1"), ("two", "2")] {
            std::fs::create_dir(at(name)).expect("made");
            std::fs::write(at(name).join("file"), text).expect("written");
        }
        let link = |to: &str| {
            std::os::unix::fs::symlink(to, at("..new")).expect("linked");
            std::fs::rename(at("..new"), at("..data")).expect("renamed");
        };
        link("one");
        std::os::unix::fs::symlink("..data/file", at("file")).expect("linked");
        let paths = vec![at("file")];
        let mut follower = Follower::new(paths.clone(), Stamps::of(&paths));
        let mut next = async |what: &str| {
            tokio::time::timeout(LONG, follower.changed()).await.unwrap_or_else(|_| unreachable!("not seen: {what}"));
        };
        link("two");
        next("another directory behind the link").await;
        std::fs::write(at("two").join("file"), "in place, and no event of the link's directory").expect("written");
        next("a file written in place").await;
        std::fs::remove_file(at("two").join("file")).expect("removed");
        next("a file that is gone").await;
        std::fs::write(at("two").join("file"), "3").expect("written");
        next("a file that is back").await;
    }

    #[tokio::test]
    async fn what_happened_before_it_was_asked_is_told() {
        let folder = tempfile::tempdir().expect("a directory");
        let paths = vec![folder.path().join("file")];
        let before = Stamps::of(&paths);
        std::fs::write(&paths[0], "x").expect("written");
        let mut follower = Follower::new(paths, before);
        tokio::time::timeout(LONG, follower.changed()).await.expect("told");
        let again = tokio::time::timeout(Duration::from_millis(10), follower.changed()).await;
        assert!(again.is_err(), "told once");
    }
}
