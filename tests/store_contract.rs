//! What the store promises, against both engines where both can keep it; and the publisher on top of it.
//!
//! A crash is a copy of the state file, taken while the store is open, and opened elsewhere: that is what a killed
//! process leaves. (Killing a real one is another test's.)

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use csi_gateway::domain::capability::{CapabilitySet, NodeCapability, PluginService};
use csi_gateway::domain::catalog::{Catalog, RecordChange};
use csi_gateway::domain::durability::Durability;
use csi_gateway::domain::expected::DeclaredCounts;
use csi_gateway::domain::fingerprint::{Fingerprint, NodeFacts, Product};
use csi_gateway::domain::history::{Change, Transition};
use csi_gateway::domain::id::{HostId, InstanceKey, PluginId, Role};
use csi_gateway::domain::overview::Overview;
use csi_gateway::domain::plugin::{Dates, Tally, contribution};
use csi_gateway::domain::record::{Owner, Phase, Reason, Record};
use csi_gateway::domain::time::{Index, Timestamp};
use csi_gateway::domain::topology::{Pairs, Topology};
use csi_gateway::registry::publisher::{Handles, Publisher};
use csi_gateway::registry::reader::{Reader, Subject};
use csi_gateway::registry::reporter::{Health, Observed, Report};
use csi_gateway::store::embedded::{Embedded, FILE_NAME};
use csi_gateway::store::{Batch, Commit, Engine, INDEX_RANGE, Loaded, Settings, Store, StoreError};
use proptest::prelude::*;
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend, TableDefinition};
use tempfile::TempDir;

// ---- values ----------------------------------------------------------------------------------------------------------

fn plugin(id: &str) -> PluginId {
    PluginId::parse(id).expect("legal")
}

fn key(id: &str, role: Role, host: &str) -> InstanceKey {
    InstanceKey { plugin: plugin(id), role, host: HostId::parse(host).expect("legal") }
}

fn fingerprint(version: &str) -> Fingerprint {
    let product = Product {
        provider: "drv.example.com".into(),
        version: version.into(),
        manifest: [("a", "b")].into_iter().collect(),
        services: CapabilitySet::new([PluginService::Controller], [77]),
        expansion: CapabilitySet::default(),
        controller: None,
        node: Some(CapabilitySet::new([NodeCapability::StageUnstageVolume], [])),
        group: None,
    };
    let segments: Pairs = [("zone", "z1")].into_iter().collect();
    let topology = Some(Topology { segments: Some(segments) });
    let node = NodeFacts { id: "n-1".into(), max_volumes: i64::MAX, topology };
    Fingerprint { product: Arc::new(product), node: Some(Box::new(node)), warnings: ["odd".into()].into() }
}

fn record(key: InstanceKey, phase: Phase, version: &str) -> Record {
    Record {
        key,
        phase,
        reason: Reason::plain(phase.as_str()),
        since: Timestamp(5),
        update_time: Timestamp(6),
        was_healthy: phase == Phase::Healthy,
        has_answered: true,
        fingerprint: Some(fingerprint(version)),
        owner: Owner::default(),
        socket: "/run/csi/socket".into(),
        is_configured: true,
        registration: None,
    }
}

fn put(record: Record) -> RecordChange {
    RecordChange::Put(Box::new(record))
}

fn dates(index: Index) -> Dates {
    Dates { create_index: index, modify_index: index, create_time: Timestamp(9), declared: DeclaredCounts::default() }
}

fn transition(key: &InstanceKey, number: u64) -> Transition {
    Transition {
        at: Timestamp(i64::try_from(number).expect("small")),
        index: Index(number),
        key: key.clone(),
        change: Change::Phase { from: Phase::Healthy, to: Phase::Unhealthy },
        reason: Reason::plain("x"),
    }
}

fn settings() -> Settings {
    Settings { retry: Duration::from_millis(20), ..Settings::default() }
}

fn numbers(transitions: &[Transition]) -> Vec<u64> {
    transitions.iter().map(|transition| transition.index.0).collect()
}

// ---- places ----------------------------------------------------------------------------------------------------------

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn open(directory: &Path) -> (Store, Loaded) {
    Store::open(directory, settings()).expect("opens")
}

/// What a process that is killed now would leave.
fn crashed(directory: &Path) -> TempDir {
    let copy = self::directory();
    std::fs::copy(directory.join(FILE_NAME), copy.path().join(FILE_NAME)).expect("copied");
    copy
}

fn file(directory: &Path) -> PathBuf {
    directory.join(FILE_NAME)
}

/// A store with a record and one transition, closed.
async fn filled(directory: &Path) -> Loaded {
    let (store, loaded) = open(directory);
    let key = key("ebs", Role::Node, "host-aaaa");
    let index = loaded.start.next();
    let commit = Commit {
        index,
        changes: vec![put(record(key.clone(), Phase::Healthy, "1"))],
        dates: vec![(plugin("ebs"), Some(dates(index)))],
        transitions: vec![transition(&key, 1)],
    };
    store.commit(commit).await.expect("durable");
    store.close().await.expect("closed");
    loaded
}

/// Waits for a value, not for time.
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

// ---- a disk that can be full, or hang --------------------------------------------------------------------------------

#[derive(Debug, Default)]
struct Disk {
    is_full: AtomicBool,
    hangs: AtomicBool,
    writes: AtomicUsize,
    /// Fails once, after so many steps; 0: never.
    fails_after: AtomicUsize,
}

impl Disk {
    fn fill(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::SeqCst);
    }

    fn hang(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::SeqCst);
    }

    fn step(&self) -> io::Result<()> {
        let count = |left: usize| left.checked_sub(1);
        match self.fails_after.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count) {
            Ok(1) => Err(io::Error::other("a bad moment")),
            _ => Ok(()),
        }
    }

    fn touch(&self) -> io::Result<()> {
        while self.hangs.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.step()?;
        if self.is_full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

#[derive(Debug)]
struct OnDisk(FileBackend, Arc<Disk>);

impl StorageBackend for OnDisk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.touch()?;
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.step()?;
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.1.touch()?;
        self.0.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }
}

fn open_on(directory: &Path, disk: &Arc<Disk>) -> (Store, Loaded) {
    let disk = Arc::clone(disk);
    let wrap = Box::new(move |file| Box::new(OnDisk(file, Arc::clone(&disk))) as Box<dyn StorageBackend>);
    Store::start(Embedded::through(directory, &settings(), wrap), settings()).expect("opens")
}

// ---- the contract of both engines ------------------------------------------------------------------------------------

/// Runs the same history against both engines.
async fn on_both<F: Future<Output = ()>>(history: impl Fn(Store, Loaded) -> F, settings: Settings) {
    let directory = directory();
    let (store, loaded) = Store::open(directory.path(), settings.clone()).expect("opens");
    history(store, loaded).await;
    let (store, loaded) = Store::memory(settings).expect("opens");
    history(store, loaded).await;
}

#[tokio::test]
async fn transitions_come_back_newest_first_of_one_plugin_or_of_all() {
    let history = async |store: Store, loaded: Loaded| {
        let (ebs, nfs) = (key("ebs", Role::Node, "host-aaaa"), key("nfs", Role::Node, "host-aaaa"));
        let of_ebs_controller = key("ebs", Role::Controller, "host-bbbb");
        for (number, key) in (1..).zip([&ebs, &nfs, &of_ebs_controller, &ebs]) {
            let transitions = vec![transition(key, number)];
            let commit = Commit { index: loaded.start.next(), transitions, ..Commit::default() };
            store.commit(commit).await.expect("kept");
        }
        let all = store.history(None, 100).await.expect("readable");
        assert_eq!(numbers(&all), [4, 3, 2, 1]);
        let of_ebs = store.history(Some(plugin("ebs")), 2).await.expect("readable");
        assert_eq!(numbers(&of_ebs), [4, 3]);
        assert_eq!(of_ebs[0], transition(&ebs, 4));
        assert_eq!(store.history(Some(plugin("eb")), 100).await.expect("readable"), []);
        store.close().await.expect("closed");
    };
    on_both(history, settings()).await;
}

#[tokio::test]
async fn an_instance_keeps_its_newest_transitions_and_does_not_push_out_those_of_others() {
    let history = async |store: Store, loaded: Loaded| {
        let (flaps, rests) = (key("ebs", Role::Node, "host-aaaa"), key("ebs", Role::Node, "host-bbbb"));
        let commit = |transitions| Commit { index: loaded.start.next(), transitions, ..Commit::default() };
        store.commit(commit(vec![transition(&rests, 1)])).await.expect("kept");
        for number in 2..=10 {
            store.commit(commit(vec![transition(&flaps, number)])).await.expect("kept");
        }
        assert_eq!(numbers(&store.history(None, 100).await.expect("readable")), [10, 9, 8, 1]);
        store.close().await.expect("closed");
    };
    on_both(history, Settings { history: 3, ..settings() }).await;
}

#[tokio::test]
async fn all_transitions_together_are_bounded_and_those_of_what_is_gone_go_last_to_first() {
    let history = async |store: Store, loaded: Loaded| {
        for number in 1..=10 {
            let key = key("ebs", Role::Node, &format!("host-{number:04}"));
            let commit = Commit {
                index: loaded.start.next(),
                changes: vec![RecordChange::Remove(key.clone())],
                transitions: vec![transition(&key, number), transition(&key, number)],
                ..Commit::default()
            };
            store.commit(commit).await.expect("kept");
        }
        let expected = [10, 10, 9, 9, 8];
        assert_eq!(numbers(&store.history(None, 100).await.expect("readable")), expected);
        assert_eq!(numbers(&store.history(Some(plugin("ebs")), 100).await.expect("readable")), expected);
        store.close().await.expect("closed");
    };
    on_both(history, Settings { history_total: 5, ..settings() }).await;
}

#[tokio::test]
async fn a_closed_store_answers_that_it_is_closed() {
    let history = async |store: Store, loaded: Loaded| {
        let other = store.clone();
        store.close().await.expect("closed");
        let late = Commit { index: loaded.start.next(), ..Commit::default() };
        other.commit(late).await.expect_err("closed");
        assert!(matches!(other.history(None, 1).await, Err(StoreError::Closed)));
        assert!(matches!(other.close().await, Err(StoreError::Closed)));
    };
    on_both(history, settings()).await;
}

// ---- what survives ---------------------------------------------------------------------------------------------------

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash_and_after_a_close() {
    let place = directory();
    let (store, loaded) = open(place.path());
    let (first, second) = (key("ebs", Role::Node, "host-aaaa"), key("ebs", Role::Controller, "host-aaaa"));
    let gone = key("nfs", Role::Node, "host-aaaa");
    let index = loaded.start.next();
    let commit = Commit {
        index,
        changes: [&first, &second, &gone].map(|key| put(record(key.clone(), Phase::Healthy, "1"))).into(),
        dates: vec![(plugin("ebs"), Some(dates(index))), (plugin("nfs"), Some(dates(index)))],
        transitions: vec![transition(&first, 1)],
    };
    store.commit(commit).await.expect("durable");
    let commit = Commit {
        index: index.next(),
        changes: vec![put(record(first.clone(), Phase::Unhealthy, "1")), RecordChange::Remove(gone)],
        dates: vec![(plugin("nfs"), None)],
        transitions: vec![transition(&first, 2)],
    };
    store.commit(commit).await.expect("durable");
    assert_eq!(*store.durability().borrow(), Durability::Durable);

    let crash = crashed(place.path());
    store.close().await.expect("closed");
    for place in [crash.path(), place.path()] {
        let (store, again) = open(place);
        let mut records = again.records;
        records.sort_by(|a, b| a.key.cmp(&b.key));
        let expected = [record(second.clone(), Phase::Healthy, "1"), record(first.clone(), Phase::Unhealthy, "1")];
        assert_eq!(records, expected);
        assert_eq!(again.dates, [(plugin("ebs"), dates(index))]);
        assert_eq!(numbers(&store.history(None, 9).await.expect("readable")), [2, 1]);
        assert!(again.start > index.next());
        store.close().await.expect("closed");
    }
}

#[tokio::test]
async fn case_96_the_index_does_not_fall_also_where_the_file_is_lost_or_the_clock_is_behind() {
    let place = directory();
    let first = filled(place.path()).await;
    let (store, second) = open(place.path());
    assert!(second.start.0 >= first.start.0 + INDEX_RANGE, "beyond all that was reserved");
    // As after a thousand years of indexes: far ahead of the clock.
    let far = Index(second.start.0 + (1 << 45));
    store.commit(Commit { index: far, ..Commit::default() }).await.expect("durable");
    let crash = crashed(place.path());
    let (other, third) = open(crash.path());
    assert!(third.start > far);
    other.close().await.expect("closed");
    store.close().await.expect("closed");

    std::fs::remove_file(file(crash.path())).expect("removed");
    let (store, lost) = open(crash.path());
    assert!(lost.start > first.start, "from the clock");
    assert_eq!(lost.records, []);
    store.close().await.expect("closed");
}

#[tokio::test]
async fn every_index_is_within_the_range_reserved_before_it() {
    let place = directory();
    let (store, loaded) = open(place.path());
    let mut index = loaded.start;
    for _ in 0..6 {
        index = Index(index.0 + INDEX_RANGE / 3);
        store.commit(Commit { index, ..Commit::default() }).await.expect("durable");
        let (copy, again) = open(crashed(place.path()).path());
        assert!(again.start > index, "{} is seen, and a crash would start at {}", index, again.start);
        copy.close().await.expect("closed");
    }
    store.close().await.expect("closed");
}

#[tokio::test]
async fn an_idle_store_writes_nothing() {
    let (place, disk) = (directory(), Arc::new(Disk::default()));
    let (store, loaded) = open_on(place.path(), &disk);
    let writes = disk.writes.load(Ordering::SeqCst);
    // An index within the reserved range is nothing to write.
    store.commit(Commit { index: loaded.start.next(), ..Commit::default() }).await.expect("durable");
    assert_eq!(disk.writes.load(Ordering::SeqCst), writes);
    store.close().await.expect("closed");
}

// ---- what is refused -------------------------------------------------------------------------------------------------

/// Opening fails, says so with the path, and leaves everything as it was.
fn refused(directory: &Path) -> StoreError {
    let content = |directory: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = std::fs::read_dir(directory).expect("readable");
        let paths = entries.map(|entry| entry.expect("readable").path());
        paths.map(|path| (path.clone(), std::fs::read(&path).expect("readable"))).collect()
    };
    let before = content(directory);
    let err = Store::open(directory, settings()).expect_err("refused");
    assert_eq!(content(directory), before, "left as it is");
    assert!(err.to_string().contains(&*file(directory).to_string_lossy()), "{err}");
    err
}

#[tokio::test]
async fn a_file_that_is_cut_short_empty_or_garbage_is_refused_and_left_as_it_is() {
    let place = directory();
    filled(place.path()).await;
    let whole = std::fs::read(file(place.path())).expect("readable");
    for length in [0, 1, 9, 64, 320, 4096, whole.len() / 2, whole.len() - 1] {
        std::fs::write(file(place.path()), &whole[..length]).expect("written");
        let err = refused(place.path());
        assert!(matches!(err, StoreError::Damaged { .. }), "{length} bytes: {err}");
    }
    std::fs::write(file(place.path()), vec![0; whole.len()]).expect("written");
    assert!(matches!(refused(place.path()), StoreError::Damaged { .. }));
    std::fs::write(file(place.path()), "not a database at all\n".repeat(1000)).expect("written");
    assert!(matches!(refused(place.path()), StoreError::Foreign { .. }));
    // Whole again, it is accepted again.
    std::fs::write(file(place.path()), &whole).expect("written");
    let (store, loaded) = open(place.path());
    assert_eq!(loaded.records.len(), 1);
    store.close().await.expect("closed");
}

#[tokio::test]
async fn a_file_with_a_flipped_byte_is_refused_as_it_is_or_was_not_hurt_by_it() {
    let place = directory();
    filled(place.path()).await;
    for source in [place.path().to_owned(), crashed(place.path()).keep()] {
        let whole = std::fs::read(file(&source)).expect("readable");
        // A sample of the header, and of the rest.
        let mut refusals = 0;
        for at in (0..320).step_by(3).chain((320..whole.len()).step_by(211)) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            std::fs::write(file(&source), &bytes).expect("written");
            match Store::open(&source, settings()) {
                Ok((store, loaded)) => {
                    assert_eq!(loaded.records, [record(key("ebs", Role::Node, "host-aaaa"), Phase::Healthy, "1")]);
                    store.close().await.expect("closed");
                }
                Err(_) => {
                    refused(&source);
                    refusals += 1;
                }
            }
        }
        assert!(refusals > 10, "only {refusals} refused");
        std::fs::remove_dir_all(&source).expect("removed");
        std::fs::create_dir(&source).expect("made");
    }
}

#[tokio::test]
async fn a_file_of_a_newer_release_or_of_another_program_is_refused_and_left_as_it_is() {
    const META: TableDefinition<&str, u64> = TableDefinition::new("csi-gateway");
    let place = directory();
    filled(place.path()).await;
    let database = redb::Database::open(file(place.path())).expect("redb");
    let transaction = database.begin_write().expect("redb");
    transaction.open_table(META).expect("redb").insert("format", 2).expect("redb");
    transaction.commit().expect("redb");
    database.close().expect("redb");
    let err = refused(place.path());
    assert!(matches!(err, StoreError::Newer { found: 2, known: 1, .. }), "{err}");

    let place = directory();
    let database = redb::Database::create(file(place.path())).expect("redb");
    let transaction = database.begin_write().expect("redb");
    transaction.open_table(TableDefinition::<u64, u64>::new("theirs")).expect("redb");
    transaction.commit().expect("redb");
    database.close().expect("redb");
    let err = refused(place.path());
    assert!(matches!(err, StoreError::Foreign { .. }), "{err}");
}

#[tokio::test]
async fn a_value_that_this_release_cannot_read_is_damage() {
    const RECORDS: TableDefinition<&str, &[u8]> = TableDefinition::new("records");
    let place = directory();
    filled(place.path()).await;
    let database = redb::Database::open(file(place.path())).expect("redb");
    let transaction = database.begin_write().expect("redb");
    let value: &[u8] = b"\x01{}";
    transaction.open_table(RECORDS).expect("redb").insert("x\0node\0y", value).expect("redb");
    transaction.commit().expect("redb");
    database.close().expect("redb");
    let err = refused(place.path());
    assert!(matches!(err, StoreError::Damaged { .. }), "{err}");
}

#[tokio::test]
async fn a_second_gateway_on_a_directory_is_told_so() {
    let place = directory();
    let (store, _) = open(place.path());
    let err = Store::open(place.path(), settings()).expect_err("in use");
    assert!(matches!(err, StoreError::InUse { .. }), "{err}");
    assert!(err.to_string().contains(&*place.path().to_string_lossy()));
    store.close().await.expect("closed");
    open(place.path()).0.close().await.expect("closed");
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_that_names_it() {
    let place = directory();
    let blocked = place.path().join("file");
    std::fs::write(&blocked, "").expect("written");
    let err = Store::open(&blocked.join("state"), settings()).expect_err("no directory");
    assert!(matches!(err, StoreError::Directory { .. }), "{err}");
    assert!(err.to_string().contains("file/state"), "{err}");
}

#[tokio::test]
async fn others_may_not_read_what_is_kept_and_what_a_killed_start_left_is_no_obstacle() {
    let place = directory();
    let state = place.path().join("a/b");
    open(&state).0.close().await.expect("closed");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&file(&state))), (0o700, 0o600));

    std::fs::remove_file(file(&state)).expect("removed");
    std::fs::write(state.join("state.redb.new"), "half").expect("written");
    open(&state).0.close().await.expect("closed");
    let entries = std::fs::read_dir(&state).expect("readable");
    let names: Vec<_> = entries.map(|entry| entry.expect("readable").file_name()).collect();
    assert_eq!(names, [FILE_NAME]);
}

/// Releases whose state files are kept. Each release adds its own (`INSTA_UPDATE=always cargo test --test store_contract`)
/// and none is ever written again.
const RELEASES: [&str; 1] = ["0.1.0"];

#[tokio::test]
async fn a_state_file_of_every_release_opens() {
    use std::io::Read;
    assert_eq!(RELEASES.last(), Some(&env!("CARGO_PKG_VERSION")), "a release keeps a state file of its own");
    let (ebs, nfs) = (key("ebs", Role::Node, "host-aaaa"), key("nfs", Role::Controller, "host-aaaa"));
    let records = || [record(ebs.clone(), Phase::Healthy, "1"), record(nfs.clone(), Phase::Gone, "2")];
    for release in RELEASES {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/state-{release}.redb.gz"));
        if !kept.exists() && std::env::var("INSTA_UPDATE").is_ok_and(|value| value == "always") {
            let place = directory();
            let (store, loaded) = open(place.path());
            let commit = Commit {
                index: loaded.start,
                changes: records().map(put).into(),
                dates: vec![(plugin("ebs"), Some(dates(Index(7))))],
                transitions: vec![transition(&ebs, 1), transition(&nfs, 2)],
            };
            store.commit(commit).await.expect("durable");
            store.close().await.expect("closed");
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            io::Write::write_all(&mut packed, &std::fs::read(file(place.path())).expect("there")).expect("memory");
            std::fs::write(&kept, packed.finish().expect("memory")).expect("written");
        }
        let place = directory();
        let packed = std::fs::File::open(&kept).expect("it is kept");
        let mut state = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut state).expect("it is whole");
        std::fs::write(file(place.path()), state).expect("written");
        let (store, loaded) = open(place.path());
        assert_eq!(loaded.records, records(), "{release}");
        assert_eq!(loaded.dates, [(plugin("ebs"), dates(Index(7)))], "{release}");
        assert_eq!(numbers(&store.history(None, 10).await.expect("read")), [2, 1], "{release}");
        store.close().await.expect("closed");
    }
}

#[tokio::test]
async fn a_state_file_that_is_removed_in_use_is_written_anew_with_all_that_it_held() {
    let place = directory();
    let state = place.path().join("state");
    let (store, loaded) = open(&state);
    let (ebs, nfs) = (key("ebs", Role::Node, "host-aaaa"), key("nfs", Role::Node, "host-aaaa"));
    let commit = |number: u64, key: &InstanceKey| Commit {
        index: Index(loaded.start.0 + number),
        changes: vec![put(record(key.clone(), Phase::Healthy, "1"))],
        dates: Vec::new(),
        transitions: vec![transition(key, number)],
    };
    store.commit(commit(1, &ebs)).await.expect("durable");
    std::fs::remove_dir_all(&state).expect("removed");
    store.commit(commit(2, &nfs)).await.expect("durable again");
    std::fs::remove_file(file(&state)).expect("removed once more");
    store.close().await.expect("closed");
    let (store, loaded) = open(&state);
    assert_eq!(loaded.records.iter().map(|record| &record.key).collect::<Vec<_>>(), [&ebs, &nfs]);
    assert_eq!(numbers(&store.history(None, 10).await.expect("read")), [2, 1]);
    store.close().await.expect("closed");
}

#[tokio::test]
async fn a_file_that_was_put_in_its_place_is_left_alone_and_said() {
    let place = directory();
    let (store, loaded) = open(place.path());
    let commit = |number: u64| Commit {
        index: Index(loaded.start.0 + number),
        changes: vec![put(record(key("ebs", Role::Node, "host-aaaa"), Phase::Healthy, "1"))],
        dates: Vec::new(),
        transitions: Vec::new(),
    };
    std::fs::remove_file(file(place.path())).expect("removed");
    std::fs::write(file(place.path()), "a backup, perhaps").expect("written");
    let reason = store.commit(commit(1)).await.expect_err("not durable");
    assert!(reason.contains("another file was put in its place"), "{reason}");
    store.close().await.expect_err("what is lost is said");
    assert_eq!(std::fs::read(file(place.path())).expect("there"), b"a backup, perhaps");
}

// ---- a disk that fails -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_full_disk_loses_nothing_and_when_it_has_room_again_everything_is_written() {
    let (place, disk) = (directory(), Arc::new(Disk::default()));
    let (store, loaded) = open_on(place.path(), &disk);
    let (ebs, nfs) = (key("ebs", Role::Node, "host-aaaa"), key("nfs", Role::Node, "host-aaaa"));
    let commit = |number: u64, key: &InstanceKey, phase| Commit {
        index: Index(loaded.start.0 + number),
        changes: vec![put(record(key.clone(), phase, "1"))],
        dates: Vec::new(),
        transitions: vec![transition(key, number)],
    };
    store.commit(commit(1, &ebs, Phase::Healthy)).await.expect("durable");
    disk.fill(true);
    store.commit(commit(2, &ebs, Phase::Unhealthy)).await.expect_err("full");
    store.commit(commit(3, &nfs, Phase::Unhealthy)).await.expect_err("full");
    let reason = store.commit(commit(4, &nfs, Phase::Healthy)).await.expect_err("full");
    assert!(reason.contains(&*file(place.path()).to_string_lossy()), "{reason}");
    assert_eq!(*store.durability().borrow(), Durability::NotDurable(reason));
    // Still readable, with what is not written yet.
    assert_eq!(numbers(&store.history(None, 9).await.expect("readable")), [4, 3, 2, 1]);
    let crash = crashed(place.path());
    let (copy, kept) = open(crash.path());
    assert_eq!(kept.records, [record(ebs.clone(), Phase::Healthy, "1")], "what was acknowledged is there");
    copy.close().await.expect("closed");

    disk.fill(false);
    let durability = store.durability();
    until("durable again", || (*durability.borrow() == Durability::Durable).then_some(())).await;
    store.commit(commit(5, &ebs, Phase::Healthy)).await.expect("durable");
    let (copy, kept) = open(crashed(place.path()).path());
    let records: BTreeMap<_, _> = kept.records.into_iter().map(|record| (record.key.clone(), record.phase)).collect();
    assert_eq!(records, [(ebs, Phase::Healthy), (nfs, Phase::Healthy)].into());
    assert_eq!(numbers(&copy.history(None, 9).await.expect("readable")), [5, 4, 3, 2, 1]);
    copy.close().await.expect("closed");
    store.close().await.expect("closed");
}

/// History was an internal error while a disk was full: after a commit that failed, the file stayed closed.
#[test]
fn history_can_be_read_after_a_commit_that_failed() {
    let (place, disk) = (directory(), Arc::new(Disk::default()));
    let wrap = Arc::clone(&disk);
    let wrap = Box::new(move |file| Box::new(OnDisk(file, Arc::clone(&wrap))) as Box<dyn StorageBackend>);
    let mut engine = Embedded::through(place.path(), &settings(), wrap);
    let ebs = key("ebs", Role::Node, "host-aaaa");
    let batch = |number| Batch { transitions: [transition(&ebs, number)].into(), ..Batch::default() };
    engine.open().expect("opens");
    engine.ready().expect("ready");
    engine.apply(&batch(1)).expect("written");
    disk.fill(true);
    engine.apply(&batch(2)).expect_err("full");
    assert_eq!(numbers(&engine.history(None, 9).expect("readable")), [1]);
    disk.fill(false);
    engine.ready().expect("ready");
    engine.apply(&batch(2)).expect("written");
    assert_eq!(numbers(&engine.history(None, 9).expect("readable")), [2, 1]);
}

#[tokio::test]
async fn wherever_in_a_commit_the_disk_fails_nothing_is_lost_and_nothing_is_told_twice() {
    let mut failures = 0;
    for step in 1.. {
        let (place, disk) = (directory(), Arc::new(Disk::default()));
        let (store, loaded) = open_on(place.path(), &disk);
        let ebs = key("ebs", Role::Node, "host-aaaa");
        let commit = |number: u64, phase| Commit {
            index: Index(loaded.start.0 + number),
            changes: vec![put(record(ebs.clone(), phase, "1"))],
            dates: Vec::new(),
            transitions: vec![transition(&ebs, number)],
        };
        store.commit(commit(1, Phase::Healthy)).await.expect("durable");
        disk.fails_after.store(step, Ordering::SeqCst);
        let result = store.commit(commit(2, Phase::Unhealthy)).await;
        let is_beyond = disk.fails_after.swap(0, Ordering::SeqCst) > 0;
        failures += usize::from(result.is_err());
        let durability = store.durability();
        until("durable", || (*durability.borrow() == Durability::Durable).then_some(())).await;
        let (copy, kept) = open(crashed(place.path()).path());
        assert_eq!(kept.records, [record(ebs.clone(), Phase::Unhealthy, "1")], "failed at step {step}");
        assert_eq!(numbers(&copy.history(None, 9).await.expect("readable")), [2, 1], "failed at step {step}");
        copy.close().await.expect("closed");
        store.close().await.expect("closed");
        if is_beyond {
            break;
        }
    }
    assert!(failures > 4, "only {failures} failed");
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_start_is_served_from_and_written_later() {
    let (place, disk) = (directory(), Arc::new(Disk::default()));
    filled(place.path()).await;
    disk.fill(true);
    let (store, loaded) = open_on(place.path(), &disk);
    assert_eq!(loaded.records.len(), 1);
    assert!(matches!(*store.durability().borrow(), Durability::NotDurable(_)));
    disk.fill(false);
    let durability = store.durability();
    until("durable", || (*durability.borrow() == Durability::Durable).then_some(())).await;
    let (copy, again) = open(crashed(place.path()).path());
    assert!(again.start.0 >= loaded.start.0 + INDEX_RANGE, "the range was reserved belatedly");
    copy.close().await.expect("closed");
    store.close().await.expect("closed");
}

#[tokio::test]
async fn a_store_that_closes_on_a_full_disk_says_what_is_lost() {
    let (place, disk) = (directory(), Arc::new(Disk::default()));
    let (store, loaded) = open_on(place.path(), &disk);
    disk.fill(true);
    let changes = vec![put(record(key("ebs", Role::Node, "host-aaaa"), Phase::Healthy, "1"))];
    let commit = Commit { index: loaded.start.next(), changes, ..Commit::default() };
    store.commit(commit).await.expect_err("full");
    let err = store.close().await.expect_err("lost");
    assert!(matches!(err, StoreError::Write { .. }), "{err}");
}

// ---- the publisher ---------------------------------------------------------------------------------------------------

struct Running {
    handles: Handles,
    task: tokio::task::JoinHandle<Result<(), StoreError>>,
}

fn run(opened: (Store, Loaded)) -> Running {
    declaring(opened, &[])
}

/// The same, where so many nodes and controllers of these plugins are declared.
fn declaring((store, loaded): (Store, Loaded), declared: &[(&str, Option<u32>, Option<u32>)]) -> Running {
    let counts = |&(id, nodes, controllers): &(&str, _, _)| (plugin(id), DeclaredCounts { nodes, controllers });
    let (publisher, handles) = Publisher::new(loaded, store);
    let publisher = publisher.declaring(&declared.iter().map(counts).collect());
    Running { handles, task: tokio::spawn(publisher.run(pending())) }
}

fn seen(key: InstanceKey, health: Health, fingerprint: Option<Fingerprint>) -> Report {
    Report::Seen(Box::new(Observed {
        key,
        health,
        fingerprint,
        owner: Owner::default(),
        socket: "/run/csi/socket".into(),
        is_configured: true,
        registration: None,
    }))
}

fn healthy(id: &str, host: &str) -> Report {
    seen(key(id, Role::Node, host), Health::Healthy, Some(fingerprint("1")))
}

fn down(id: &str, host: &str) -> Report {
    let health = Health::Failed {
        phase: Phase::Unhealthy,
        error: "rpc error: code = Unavailable desc = x".into(),
        code: None,
        text: "it is down".into(),
    };
    seen(key(id, Role::Node, host), health, None)
}

impl Running {
    fn reader(&self) -> &Reader {
        &self.handles.reader
    }

    async fn send(&self, report: Report) {
        self.handles.reports.send(report).await.expect("it runs");
    }

    /// Waits until everything that was sent before is published: a marker, seen and retired again.
    async fn settle(&self) -> Arc<Catalog> {
        self.send(Report::Feed(vec![put(record(key("marker", Role::Node, "host-zzzz"), Phase::New, "1"))])).await;
        self.until("the marker is seen", |catalog| catalog.plugin("marker").is_some()).await;
        self.send(Report::Retire(key("marker", Role::Node, "host-zzzz"))).await;
        self.until("the marker is gone", |catalog| catalog.plugin("marker").is_none()).await
    }

    async fn until(&self, what: &str, is_true: impl Fn(&Catalog) -> bool) -> Arc<Catalog> {
        until(what, || Some(self.reader().current()).filter(|catalog| is_true(catalog))).await
    }

    async fn stop(self) -> Result<(), StoreError> {
        drop(self.handles);
        self.task.await.expect("no panic")
    }
}

fn known(catalog: &Catalog, id: &str) -> Option<(u32, u32)> {
    catalog.counting_plugin(id).map(|plugin| (plugin.tally.nodes.healthy, plugin.tally.nodes.known))
}

#[tokio::test]
async fn cases_17_and_80_what_is_reported_again_moves_nothing_and_writes_nothing() {
    let (place, disk) = (directory(), Arc::new(Disk::default()));
    let gateway = run(open_on(place.path(), &disk));
    gateway.send(healthy("ebs", "host-aaaa")).await;
    gateway.until("healthy", |catalog| known(catalog, "ebs") == Some((1, 1))).await;
    gateway.send(down("ebs", "host-aaaa")).await;
    let before = gateway.until("down", |catalog| known(catalog, "ebs") == Some((0, 1))).await;
    let writes = disk.writes.load(Ordering::SeqCst);
    for _ in 0..10 {
        gateway.send(down("ebs", "host-aaaa")).await;
    }
    gateway.send(Report::Retire(key("never-seen", Role::Node, "host-aaaa"))).await;
    gateway.send(Report::Scanned).await;
    until("all were taken", || gateway.reader().standing().is_scanned.then_some(())).await;
    let after = gateway.reader().current();
    assert!(Arc::ptr_eq(&before, &after), "not even another catalog");
    assert_eq!(disk.writes.load(Ordering::SeqCst), writes);
    gateway.stop().await.expect("closed");
}

#[tokio::test]
async fn case_24_a_capability_that_comes_moves_the_plugin_and_is_remembered() {
    let gateway = run(Store::memory(settings()).expect("opens"));
    gateway.send(healthy("ebs", "host-aaaa")).await;
    let before = gateway.until("healthy", |catalog| known(catalog, "ebs") == Some((1, 1))).await;
    let mut more = fingerprint("1");
    let product = Arc::make_mut(&mut more.product);
    product.node = Some([NodeCapability::StageUnstageVolume, NodeCapability::ExpandVolume].into_iter().collect());
    gateway.send(seen(key("ebs", Role::Node, "host-aaaa"), Health::Healthy, Some(more))).await;
    let after = gateway.until("it moved", |catalog| catalog.index() > before.index()).await;
    let dates = |catalog: &Catalog| catalog.counting_plugin("ebs").and_then(|plugin| plugin.dates).expect("it counts");
    assert_eq!(dates(&after).create_index, dates(&before).create_index);
    assert_eq!(dates(&after).modify_index, after.nomad_index());
    let transitions = gateway.handles.history.newest(Some(plugin("ebs")), 9).await.expect("readable");
    let gained = vec!["EXPAND_VOLUME".to_owned()];
    assert_eq!(transitions[0].change, Change::Capabilities { gained, lost: Vec::new() });
    assert_eq!(transitions[0].index, after.index());
    assert_eq!(transitions[1].change, Change::Appeared { to: Phase::Healthy });
    gateway.stop().await.expect("closed");
}

#[tokio::test]
async fn cases_77_and_78_nodes_alone_say_whether_a_controller_is_required_once_they_were_healthy() {
    let gateway = run(Store::memory(settings()).expect("opens"));
    gateway.send(down("ebs", "host-aaaa")).await;
    let catalog = gateway.until("seen", |catalog| catalog.plugin("ebs").is_some()).await;
    assert_eq!(known(&catalog, "ebs"), None, "not created by an unhealthy report");
    assert!(catalog.index() > catalog.nomad_index());
    gateway.send(healthy("ebs", "host-aaaa")).await;
    let catalog = gateway.until("healthy", |catalog| known(catalog, "ebs") == Some((1, 1))).await;
    assert!(catalog.plugin("ebs").expect("there").requires_controller());
    gateway.stop().await.expect("closed");
}

#[tokio::test]
async fn case_95_two_records_of_one_batch_move_the_index_once() {
    let (store, loaded) = Store::memory(settings()).expect("opens");
    let start = loaded.start;
    let (publisher, handles) = Publisher::new(loaded, store);
    // Both wait before anybody takes them.
    handles.reports.send(healthy("ebs", "host-aaaa")).await.expect("room");
    handles.reports.send(healthy("nfs", "host-aaaa")).await.expect("room");
    let gateway = Running { handles, task: tokio::spawn(publisher.run(pending())) };
    let catalog = gateway.until("both", |catalog| catalog.plugins().count() == 2).await;
    assert_eq!(catalog.index(), start.next());
    for plugin in catalog.plugins() {
        assert_eq!(plugin.dates.map(|dates| dates.modify_index), Some(start.next()));
    }
    gateway.stop().await.expect("closed");
}

#[tokio::test]
async fn case_96_a_gateway_that_crashed_serves_at_once_what_it_knew_under_no_lower_index() {
    let place = directory();
    let gateway = run(open(place.path()));
    gateway.send(healthy("ebs", "host-aaaa")).await;
    gateway.send(down("ebs", "host-aaaa")).await;
    let before = gateway.until("down", |catalog| known(catalog, "ebs") == Some((0, 1))).await;

    let crash = crashed(place.path());
    let again = run(open(crash.path()));
    let after = again.reader().current();
    assert!(after.index() > before.index());
    assert!(after.records().eq(before.records()));
    let dates = |catalog: &Catalog| catalog.plugin("ebs").and_then(|plugin| plugin.dates);
    assert_eq!(dates(&after), dates(&before));
    assert!(!again.reader().standing().is_scanned);
    assert_eq!(again.reader().standing().durability, Durability::Durable);
    again.stop().await.expect("closed");
    gateway.stop().await.expect("closed");
}

#[tokio::test]
async fn cases_89_and_90_a_plugin_that_is_retired_and_comes_back_is_a_new_one() {
    let gateway = run(Store::memory(settings()).expect("opens"));
    gateway.send(healthy("ebs", "host-aaaa")).await;
    let first = gateway.until("healthy", |catalog| known(catalog, "ebs").is_some()).await;
    let waiting = gateway.reader().waiting(Subject::Plugin("ebs".into()));
    let changed = waiting.changed();
    gateway.send(Report::Retire(key("ebs", Role::Node, "host-aaaa"))).await;
    tokio::time::timeout(Duration::from_secs(30), changed).await.expect("a deletion wakes");
    let gone = gateway.reader().current();
    assert_eq!(known(&gone, "ebs"), None);
    assert!(gone.nomad_index() > first.nomad_index());
    gateway.send(healthy("ebs", "host-aaaa")).await;
    let again = gateway.until("healthy", |catalog| known(catalog, "ebs").is_some()).await;
    let created = again.plugin("ebs").and_then(|plugin| plugin.dates).map(|dates| dates.create_index);
    assert!(created > Some(gone.index()));
    let transitions = gateway.handles.history.newest(None, 9).await.expect("readable");
    let changes: Vec<_> = transitions.into_iter().map(|transition| transition.change).collect();
    let appeared = Change::Appeared { to: Phase::Healthy };
    assert_eq!(changes, [appeared.clone(), Change::Retired, appeared]);
    gateway.stop().await.expect("closed");
}

/// Healthy and expected nodes, expected controllers, and the dates.
fn expected(catalog: &Catalog, id: &str) -> Option<(u32, u32, u32, Dates)> {
    let plugin = catalog.counting_plugin(id)?;
    let (nodes, controllers) = (plugin.expected(Role::Node), plugin.expected(Role::Controller));
    Some((plugin.tally.nodes.healthy, nodes, controllers, plugin.dates?))
}

#[tokio::test]
async fn case_91_what_is_declared_is_expected_and_exists_with_nothing_up() {
    let gateway = declaring(Store::memory(settings()).expect("opens"), &[("ebs", Some(5), None)]);
    let start = gateway.reader().current();
    let (healthy_nodes, nodes, controllers, dates) = expected(&start, "ebs").expect("it exists");
    assert_eq!((healthy_nodes, nodes, controllers), (0, 5, 0));
    assert_eq!((dates.create_index, dates.modify_index), (start.index(), start.index()));
    for host in ["host-aaaa", "host-bbbb", "host-cccc"] {
        gateway.send(healthy("ebs", host)).await;
    }
    let three = gateway.until("three", |catalog| known(catalog, "ebs") == Some((3, 3))).await;
    let (healthy_nodes, nodes, _, modified) = expected(&three, "ebs").expect("it exists");
    assert_eq!((healthy_nodes, nodes), (3, 5));
    assert!(modified.modify_index > dates.modify_index && modified.create_index == dates.create_index);
    for host in ["host-aaaa", "host-bbbb", "host-cccc"] {
        gateway.send(Report::Retire(key("ebs", Role::Node, host))).await;
    }
    let none = gateway.until("none", |catalog| known(catalog, "ebs") == Some((0, 0))).await;
    assert_eq!(expected(&none, "ebs").map(|(healthy, nodes, ..)| (healthy, nodes)), Some((0, 5)));
    gateway.stop().await.expect("closed");
}

#[tokio::test]
async fn a_declaration_keeps_its_dates_over_starts_moves_them_when_it_changes_and_goes_when_it_is_taken_back() {
    let place = directory();
    let mut dates = Vec::new();
    for declared in [&[("ebs", Some(5), None)][..], &[("ebs", Some(5), None)], &[("ebs", Some(6), Some(1))]] {
        let gateway = declaring(open(place.path()), declared);
        dates.push(expected(&gateway.reader().current(), "ebs").expect("it exists").3);
        gateway.stop().await.expect("closed");
    }
    assert_eq!(dates[1], dates[0]);
    assert!(dates[2].modify_index > dates[1].modify_index && dates[2].create_index == dates[1].create_index);
    // Gone for this start and for the next, and new when it is declared again.
    for _ in 0..2 {
        let gateway = run(open(place.path()));
        assert_eq!(expected(&gateway.reader().current(), "ebs"), None);
        gateway.stop().await.expect("closed");
    }
    let gateway = declaring(open(place.path()), &[("ebs", Some(6), Some(1))]);
    let again = expected(&gateway.reader().current(), "ebs").expect("it exists").3;
    assert!(again.create_index > dates[2].create_index);
    gateway.stop().await.expect("closed");
}

#[tokio::test]
async fn what_the_disk_does_not_take_is_published_all_the_same_and_said_to_be_not_durable() {
    let (place, disk) = (directory(), Arc::new(Disk::default()));
    let gateway = run(open_on(place.path(), &disk));
    disk.fill(true);
    gateway.send(healthy("ebs", "host-aaaa")).await;
    gateway.until("published", |catalog| known(catalog, "ebs") == Some((1, 1))).await;
    assert!(matches!(gateway.reader().standing().durability, Durability::NotDurable(_)));
    disk.fill(false);
    let standing = || gateway.reader().standing().durability;
    until("durable again", || (standing() == Durability::Durable).then_some(())).await;
    gateway.stop().await.expect("closed");
    assert_eq!(open(place.path()).1.records.len(), 1);
}

#[tokio::test]
async fn a_disk_that_hangs_holds_the_first_step_back_for_a_second_and_later_ones_not_at_all() {
    let (place, disk) = (directory(), Arc::new(Disk::default()));
    let gateway = run(open_on(place.path(), &disk));
    disk.hang(true);
    gateway.send(healthy("ebs", "host-aaaa")).await;
    gateway.until("published", |catalog| known(catalog, "ebs") == Some((1, 1))).await;
    let standing = || gateway.reader().standing().durability;
    assert!(matches!(standing(), Durability::NotDurable(_)));
    let since = std::time::Instant::now();
    for number in 0..20 {
        gateway.send(healthy("ebs", &format!("host-{number:04}"))).await;
        gateway.until("published", |catalog| known(catalog, "ebs") == Some((number + 2, number + 2))).await;
    }
    assert!(since.elapsed() < Duration::from_secs(10), "twenty steps that each waited would take longer");
    disk.hang(false);
    until("durable again", || (standing() == Durability::Durable).then_some(())).await;
    let (store, loaded) = open(crashed(place.path()).path());
    assert_eq!(loaded.records.len(), 21);
    store.close().await.expect("closed");
    gateway.stop().await.expect("closed");
}

#[tokio::test]
async fn what_is_queued_at_the_end_is_still_written() {
    let place = directory();
    let (store, loaded) = open(place.path());
    let (publisher, handles) = Publisher::new(loaded, store);
    for number in 0..100 {
        handles.reports.send(healthy("ebs", &format!("host-{number:04}"))).await.expect("room");
    }
    publisher.run(std::future::ready(())).await.expect("closed");
    assert_eq!(open(place.path()).1.records.len(), 100);
}

#[tokio::test]
async fn a_scan_is_complete_only_after_what_it_found_is_visible() {
    let gateway = run(Store::memory(settings()).expect("opens"));
    assert!(!gateway.reader().contact().0);
    let Running { handles, task } = gateway;
    handles.reports.send(healthy("ebs", "host-aaaa")).await.expect("it runs");
    handles.reports.send(Report::Scanned).await.expect("the publisher runs");
    let reader = handles.reader.clone();
    until("scanned", || reader.contact().0.then_some(())).await;
    assert_eq!(known(&reader.current(), "ebs"), Some((1, 1)));
    assert_eq!(reader.contact(), (true, 0));
    drop(handles.reports);
    task.await.expect("no panic").expect("closed");
}

#[tokio::test]
async fn a_fed_fleet_leaves_no_history_of_its_appearance_but_of_its_changes() {
    let gateway = run(Store::memory(settings()).expect("opens"));
    let hosts = || (0..50).map(|number| key("ebs", Role::Node, &format!("host-{number:04}")));
    gateway.send(Report::Feed(hosts().map(|key| put(record(key, Phase::Healthy, "1"))).collect())).await;
    let mut ill = record(key("ebs", Role::Node, "host-0007"), Phase::Unhealthy, "1");
    ill.was_healthy = true;
    gateway.send(Report::Feed(vec![put(ill)])).await;
    gateway.settle().await;
    let transitions = gateway.handles.history.newest(Some(plugin("ebs")), 99).await.expect("readable");
    let changes: Vec<_> = transitions.into_iter().map(|transition| transition.change).collect();
    assert_eq!(changes, [Change::Phase { from: Phase::Healthy, to: Phase::Unhealthy }]);
    gateway.stop().await.expect("closed");
}

// ---- properties ------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    Put { plugin: u8, host: u8, is_controller: bool, is_healthy: bool, version: u8 },
    Remove { plugin: u8, host: u8, is_controller: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let names = (0_u8..3, 0_u8..4, any::<bool>());
    prop_oneof![
        4 => (names.clone(), any::<bool>(), 0_u8..3).prop_map(|((plugin, host, is_controller), is_healthy, version)| {
            Step::Put { plugin, host, is_controller, is_healthy, version }
        }),
        1 => names.prop_map(|(plugin, host, is_controller)| Step::Remove { plugin, host, is_controller }),
    ]
}

fn change(catalog: &Catalog, step: &Step) -> RecordChange {
    let key = |plugin: u8, host: u8, is_controller: bool| {
        let role = if is_controller { Role::Controller } else { Role::Node };
        key(&format!("plugin-{plugin}"), role, &format!("host-{host}"))
    };
    match *step {
        Step::Remove { plugin, host, is_controller } => RecordChange::Remove(key(plugin, host, is_controller)),
        Step::Put { plugin, host, is_controller, is_healthy, version } => {
            let key = key(plugin, host, is_controller);
            let phase = if is_healthy { Phase::Healthy } else { Phase::Unhealthy };
            let mut record = record(key, phase, &version.to_string());
            record.was_healthy |= catalog.record(&record.key).is_some_and(|old| old.was_healthy);
            // Back and forth: what was last may become earlier.
            record.since = Timestamp(i64::from(version));
            put(record)
        }
    }
}

proptest! {
    #[test]
    fn tallies_kept_by_difference_equal_a_recount_and_no_index_falls(
        batches in proptest::collection::vec(proptest::collection::vec(step(), 0..4), 0..30),
    ) {
        let mut catalog = Catalog::load(Index(100), Vec::new(), []);
        for batch in batches {
            let changes: Vec<RecordChange> = batch.iter().map(|step| change(&catalog, step)).collect();
            let (next, touched) = catalog.with(&changes, catalog.index().next(), Timestamp(1));
            prop_assert!(next.index() >= catalog.index() && next.nomad_index() >= catalog.nomad_index());
            prop_assert!(next.index() == catalog.index() || !touched.is_empty());
            for plugin in next.plugins() {
                let mut recount = Tally::default();
                for role in [Role::Controller, Role::Node] {
                    plugin.instances(role).for_each(|instance| recount.add(&contribution(&instance.record)));
                }
                prop_assert_eq!(&plugin.tally, &recount);
                prop_assert_eq!(&plugin.overview, &Overview::of(plugin));
                prop_assert_eq!(plugin.dates.is_some(), recount.known() > 0);
            }
            catalog = next;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn what_was_acknowledged_is_there_however_often_the_process_dies(
        runs in proptest::collection::vec(proptest::collection::vec((step(), any::<bool>()), 0..8), 1..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut place = directory();
            let mut expected = BTreeMap::new();
            let mut newest = Index(0);
            for run in runs {
                let disk = Arc::new(Disk::default());
                let (store, loaded) = open_on(place.path(), &disk);
                let records: BTreeMap<_, _> = loaded.records.into_iter().map(|r| (r.key.clone(), r)).collect();
                assert_eq!(records, expected);
                assert!(loaded.start > newest);
                newest = loaded.start;
                let mut catalog = Catalog::load(loaded.start, records.into_values().collect(), loaded.dates);
                let mut unwritten = false;
                for (step, is_full) in run {
                    disk.fill(is_full);
                    let change = change(&catalog, &step);
                    newest = newest.next();
                    catalog = catalog.with(std::slice::from_ref(&change), newest, Timestamp(1)).0;
                    let commit = Commit { index: newest, changes: vec![change], ..Commit::default() };
                    unwritten = store.commit(commit).await.is_err();
                }
                if unwritten {
                    disk.fill(false);
                    let durability = store.durability();
                    until("durable", || (*durability.borrow() == Durability::Durable).then_some(())).await;
                }
                expected = catalog.records().map(|record| (record.key.clone(), record.clone())).collect();
                place = crashed(place.path());
            }
        });
    }
}
