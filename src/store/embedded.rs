//! redb: one file, `state.redb`, of which a commit leaves the old content or the new one, whenever the power goes.
//!
//! The file is made under another name and renamed when it is whole. So a file of the right name that is empty, cut or
//! strange is always damage, never a beginning, and is refused. One that is removed while it is open is written anew. It is verified at every start, not only after an unclean
//! stop: it is small, and a flipped bit is better found before it is served. The directory is locked, not only the file
//! (redb does that too): the lock also covers the time before there is a file, and while one is opened anew.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend, Table,
    TableDefinition, TableError, WriteTransaction,
};
use rustix::fs::FlockOperation;

use super::held::HeldFile;
use super::record::{self, FORMAT, Stored};
use super::{Batch, Cause, Content, Engine, Settings, StoreError};
use crate::domain::durability::Durability;
use crate::domain::history::Transition;
use crate::domain::id::PluginId;
use crate::domain::plugin::Dates;
use crate::domain::record::Record;
use crate::domain::time::Index;

/// Name of the state file in its directory.
pub const FILE_NAME: &str = "state.redb";
/// Name under which it is made.
const UNFINISHED_NAME: &str = "state.redb.new";

/// Bytes copied at a time.
const BLOCK: usize = 64 << 10;
/// redb's default is 1 GiB; a host's whole state fits into this.
const CACHE_BYTES: usize = 256 << 10;

/// Numbers about the file itself. Its name is what tells our files from others'.
const META: TableDefinition<&str, u64> = TableDefinition::new("csi-gateway");
/// Format of the file, in `META`.
const META_FORMAT: &str = "format";
/// First index beyond the reserved range, in `META`.
const META_RESERVED: &str = "reserved";

const RECORDS: TableDefinition<&str, &[u8]> = TableDefinition::new("records");
const DATES: TableDefinition<&str, &[u8]> = TableDefinition::new("dates");
/// Transitions, in the order in which they came.
const HISTORY: TableDefinition<u64, &[u8]> = TableDefinition::new("history");
/// Per instance, its keys in `HISTORY`, ascending, eight bytes each.
const RINGS: TableDefinition<&str, &[u8]> = TableDefinition::new("rings");

/// Puts something between redb and the file, for tests of what a disk can do.
pub type Wrap = Box<dyn Fn(FileBackend) -> Box<dyn StorageBackend> + Send>;

/// The state file of a directory.
pub struct Embedded {
    directory: PathBuf,
    path: PathBuf,
    per_instance: usize,
    total: u64,
    wrap: Wrap,
    lock: Option<File>,
    open: Option<Opened>,
    /// Whether the last batch failed: it may be there all the same, if only its last sync failed.
    is_in_doubt: bool,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("path", &self.path).finish_non_exhaustive()
    }
}

struct Opened {
    // Before the file: redb's last writes go through it.
    database: Database,
    file: HeldFile,
    /// Device and inode.
    identity: (u64, u64),
}

/// What can go wrong inside, before it is known where.
#[derive(Debug)]
enum Trouble {
    Io(Cause),
    Damaged(Cause),
    Foreign,
    Newer(u64),
}

impl Trouble {
    fn redb(err: impl Into<redb::Error>) -> Self {
        match err.into() {
            redb::Error::Io(err)
                if !matches!(err.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                Self::Io(err.into())
            }
            err @ (redb::Error::PreviousIo | redb::Error::DatabaseAlreadyOpen | redb::Error::DatabaseClosed) => {
                Self::Io(err.into())
            }
            redb::Error::UpgradeRequired(_) => Self::Foreign,
            err => Self::Damaged(err.into()),
        }
    }
}

/// Tables that are missing or hold something else: not what we wrote.
fn foreign(err: TableError) -> Trouble {
    match err {
        TableError::Storage(err) => Trouble::redb(err),
        _ => Trouble::Foreign,
    }
}

impl Embedded {
    /// The state file of a directory, which need not exist. Nothing is touched before [`Engine::open`].
    #[must_use]
    pub fn new(directory: &Path, settings: &Settings) -> Self {
        Self::through(directory, settings, Box::new(|file| Box::new(file)))
    }

    /// The same, with something between redb and the file.
    #[must_use]
    pub fn through(directory: &Path, settings: &Settings, wrap: Wrap) -> Self {
        Self {
            directory: directory.to_owned(),
            path: directory.join(FILE_NAME),
            per_instance: settings.history,
            total: u64::try_from(settings.history_total).unwrap_or(u64::MAX),
            wrap,
            lock: None,
            open: None,
            is_in_doubt: false,
        }
    }

    fn complain(&self, trouble: Trouble) -> StoreError {
        let path = self.path.clone();
        match trouble {
            Trouble::Io(source) => StoreError::Open { path, source },
            Trouble::Damaged(source) => StoreError::Damaged { path, source },
            Trouble::Foreign => StoreError::Foreign { path },
            Trouble::Newer(found) => StoreError::Newer { path, found, known: FORMAT },
        }
    }

    fn write_error(&self, err: impl Into<Cause>) -> StoreError {
        StoreError::Write { path: self.path.clone(), source: err.into() }
    }

    fn read_error(&self, err: impl Into<Cause>) -> StoreError {
        StoreError::Read { path: self.path.clone(), source: err.into() }
    }

    fn lock_directory(&self) -> Result<File, StoreError> {
        let fail = |source: io::Error| StoreError::Directory { path: self.directory.clone(), source };
        // Others may not read who runs which driver where.
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(fail)?;
        let directory = File::open(&self.directory).map_err(fail)?;
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse { path: self.directory.clone() }),
            // A file system without such locks: redb's own remains.
            Ok(()) | Err(_) => Ok(directory),
        }
    }

    /// Makes an empty state file, whole or not at all.
    fn create(&self, directory: &File) -> Result<(), StoreError> {
        let fail = |source: Cause| StoreError::Open { path: self.path.clone(), source };
        self.make(directory, |file| {
            let write = || -> Result<(), redb::Error> {
                let file = HeldFile::new((self.wrap)(FileBackend::new(file)?))?;
                file.release()?;
                let database = builder().create_with_backend(file)?;
                let transaction = begin(&database)?;
                {
                    transaction.open_table(META)?.insert(META_FORMAT, FORMAT)?;
                    transaction.open_table(RECORDS)?;
                    transaction.open_table(DATES)?;
                    transaction.open_table(HISTORY)?;
                    transaction.open_table(RINGS)?;
                }
                transaction.commit()?;
                database.close()?;
                Ok(())
            };
            write().map_err(Into::into)
        })
        .map_err(fail)
    }

    /// Opens the file and reads everything. Nothing is written to it.
    fn read(&self) -> Result<(Opened, Content), StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.path)
            .map_err(|err| self.complain(Trouble::Io(err.into())))?;
        // redb promises no panic on a damaged file that it verifies, but asserts a lot; and this is foreign input.
        catch_unwind(AssertUnwindSafe(|| self.understand(file)))
            .unwrap_or_else(|_| Err(Trouble::Damaged("it breaks the rules of its format".into())))
            .map_err(|trouble| self.complain(trouble))
    }

    /// Whether the open file is still the one in the directory. One that was removed, alone or with its directory, is put
    /// back with all that it holds: else the next start would find nothing, and nobody would have been told.
    fn keep_in_place(&mut self) -> Result<(), StoreError> {
        let Some(opened) = &self.open else { return Ok(()) };
        match std::fs::symlink_metadata(&self.path) {
            Ok(found) if identity(&found) == opened.identity => Ok(()),
            Ok(_) => Err(self.write_error("another file was put in its place; start csi-gateway again to use that")),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), "the state file was removed while it was in use, and is written anew");
                self.put_back()
            }
            // Whatever hides it will fail the write, too.
            Err(_) => Ok(()),
        }
    }

    fn put_back(&mut self) -> Result<(), StoreError> {
        let is_ours = |held: &File| {
            let (held, found) = (held.metadata().ok(), std::fs::metadata(&self.directory).ok());
            held.zip(found).is_some_and(|(held, found)| identity(&held) == identity(&found))
        };
        if !self.lock.as_ref().is_some_and(is_ours) {
            self.lock = Some(self.lock_directory()?);
        }
        let (Some(opened), Some(lock)) = (&self.open, &self.lock) else { return Ok(()) };
        let copied = self.make(lock, |mut copy| {
            let (mut at, end) = (0, opened.file.len()?);
            while at < end {
                let mut block = vec![0; usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK)];
                opened.file.read(at, &mut block)?;
                copy.write_all(&block)?;
                at += block.len() as u64;
            }
            Ok(copy.sync_all()?)
        });
        copied.map_err(|err| self.write_error(err))?;
        // Its last writes go to the file that has no name any more.
        self.open = None;
        self.opened()?.file.release().map_err(|err| self.write_error(err))
    }

    /// Makes the state file under another name, and gives it its own when it is whole.
    fn make(&self, directory: &File, fill: impl FnOnce(File) -> Result<(), Cause>) -> Result<(), Cause> {
        let unfinished = self.directory.join(UNFINISHED_NAME);
        // Left behind by a gateway that was killed right here; nothing is in it yet.
        if let Err(err) = std::fs::remove_file(&unfinished)
            && err.kind() != io::ErrorKind::NotFound
        {
            return Err(err.into());
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&unfinished)?;
        let made = fill(file).and_then(|()| {
            std::fs::rename(&unfinished, &self.path)?;
            Ok(directory.sync_all()?)
        });
        if made.is_err() {
            // The error is what matters; this file would be removed at the next start.
            let _ = std::fs::remove_file(&unfinished);
        }
        made
    }

    /// The open file; opened anew after a failure.
    fn opened(&mut self) -> Result<&Opened, StoreError> {
        if self.open.is_none() {
            let (opened, _) = self.read()?;
            self.open = Some(opened);
        }
        self.open.as_ref().ok_or(StoreError::Closed)
    }

    fn understand(&self, mut file: File) -> Result<(Opened, Content), Trouble> {
        use io::Read;
        const MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";
        let io = |err: io::Error| Trouble::Io(err.into());
        let mut beginning = Vec::with_capacity(MAGIC.len());
        (&mut file).take(MAGIC.len() as u64).read_to_end(&mut beginning).map_err(io)?;
        if beginning != MAGIC {
            // We never leave an empty or unfinished file, but a file system may, after a power cut.
            let is_rest = beginning.iter().all(|byte| *byte == 0) || MAGIC.starts_with(&beginning);
            return Err(if is_rest { Trouble::Damaged("its beginning is missing".into()) } else { Trouble::Foreign });
        }
        let identity = file.metadata().map(|data| identity(&data)).map_err(io)?;
        let file = FileBackend::new(file).map_err(Trouble::redb)?;
        let file = HeldFile::new((self.wrap)(file)).map_err(io)?;
        let database = builder().create_with_backend(file.clone()).map_err(|err| match err {
            DatabaseError::DatabaseAlreadyOpen => Trouble::Io(err.into()),
            err => Trouble::redb(err),
        })?;
        let opened = Opened { database, file, identity };
        let transaction = opened.database.begin_read().map_err(Trouble::redb)?;

        let meta = transaction.open_table(META).map_err(foreign)?;
        let number = |name| meta.get(name).map(|value| value.map(|value| value.value())).map_err(Trouble::redb);
        match number(META_FORMAT)? {
            Some(format) if format > FORMAT => return Err(Trouble::Newer(format)),
            Some(_) => {}
            None => return Err(Trouble::Foreign),
        }
        let reserved = Index(number(META_RESERVED)?.unwrap_or(0));

        let damaged = |err: record::Unreadable| Trouble::Damaged(err.into());
        let mut records = Vec::new();
        for row in transaction.open_table(RECORDS).map_err(foreign)?.iter().map_err(Trouble::redb)? {
            let (_, value) = row.map_err(Trouble::redb)?;
            records.push(Record::from_stored(value.value()).map_err(damaged)?);
        }
        let mut dates = Vec::new();
        for row in transaction.open_table(DATES).map_err(foreign)?.iter().map_err(Trouble::redb)? {
            let (key, value) = row.map_err(Trouble::redb)?;
            let plugin = PluginId::parse(key.value()).map_err(|err| Trouble::Damaged(err.into()))?;
            dates.push((plugin, Dates::from_stored(value.value()).map_err(damaged)?));
        }
        transaction.open_table(HISTORY).map_err(foreign)?;
        transaction.open_table(RINGS).map_err(foreign)?;
        drop((meta, transaction));
        Ok((opened, Content { records, dates, reserved }))
    }

    fn write(&self, database: &Database, batch: &Batch) -> Result<(), Cause> {
        let transaction = begin(database)?;
        if let Some(reserved) = batch.reserved {
            transaction.open_table(META)?.insert(META_RESERVED, reserved.0)?;
        }
        if !batch.records.is_empty() {
            let mut table = transaction.open_table(RECORDS)?;
            for (key, record) in &batch.records {
                let key = record::instance_key(key);
                match record {
                    Some(record) => table.insert(key.as_str(), record.to_stored().as_slice())?,
                    None => table.remove(key.as_str())?,
                };
            }
        }
        if !batch.dates.is_empty() {
            let mut table = transaction.open_table(DATES)?;
            for (plugin, dates) in &batch.dates {
                match dates {
                    Some(dates) => table.insert(plugin.as_str(), dates.to_stored().as_slice())?,
                    None => table.remove(plugin.as_str())?,
                };
            }
        }
        if !batch.transitions.is_empty() {
            self.write_transitions(&transaction, batch)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn write_transitions(&self, transaction: &WriteTransaction, batch: &Batch) -> Result<(), Cause> {
        let mut history = transaction.open_table(HISTORY)?;
        let mut rings = transaction.open_table(RINGS)?;
        let first = history.last()?.map_or(0, |(number, _)| number.value().saturating_add(1));
        let known = if self.is_in_doubt { already_there(&history, batch)? } else { 0 };
        for (number, transition) in (first..).zip(batch.transitions.iter().skip(known)) {
            let key = record::instance_key(&transition.key);
            let mut ring: Vec<u8> = rings.get(key.as_str())?.map(|ring| ring.value().to_vec()).unwrap_or_default();
            ring.extend(number.to_le_bytes());
            let excess = (ring.len() / 8).saturating_sub(self.per_instance) * 8;
            for oldest in numbers(&ring[..excess]) {
                history.remove(oldest)?;
            }
            rings.insert(key.as_str(), &ring[excess..])?;
            history.insert(number, transition.to_stored().as_slice())?;
        }
        while history.len()? > self.total {
            let oldest = history.pop_first()?.map(|(_, value)| Transition::from_stored(value.value()));
            let Some(oldest) = oldest.transpose()? else { break };
            let key = record::instance_key(&oldest.key);
            // The oldest of all is the oldest of its instance.
            let rest: Option<Vec<u8>> = rings.get(key.as_str())?.map(|ring| ring.value()[8..].to_vec());
            match rest.as_deref() {
                None | Some([]) => rings.remove(key.as_str())?,
                Some(rest) => rings.insert(key.as_str(), rest)?,
            };
        }
        Ok(())
    }

    fn read_history(database: &Database, plugin: Option<&PluginId>, limit: usize) -> Result<Vec<Transition>, Cause> {
        let transaction = database.begin_read()?;
        let history = transaction.open_table(HISTORY)?;
        let mut newest = Vec::new();
        let Some(plugin) = plugin else {
            for row in history.iter()?.rev().take(limit) {
                newest.push(Transition::from_stored(row?.1.value())?);
            }
            return Ok(newest);
        };
        let (first, end) = record::plugin_keys(plugin.as_str());
        let mut kept: Vec<u64> = Vec::new();
        for row in transaction.open_table(RINGS)?.range(first.as_str()..end.as_str())? {
            kept.extend(numbers(row?.1.value()));
        }
        kept.sort_unstable_by(|a, b| b.cmp(a));
        for number in kept.into_iter().take(limit) {
            if let Some(transition) = history.get(number)? {
                newest.push(Transition::from_stored(transition.value())?);
            }
        }
        Ok(newest)
    }
}

/// How many of the batch's transitions are in history already. Records can be written twice, transitions not.
fn already_there(history: &Table<'_, u64, &[u8]>, batch: &Batch) -> Result<usize, Cause> {
    let Some((_, newest)) = history.last()? else { return Ok(0) };
    let newest = Transition::from_stored(newest.value())?;
    Ok(batch.transitions.iter().rposition(|transition| *transition == newest).map_or(0, |position| position + 1))
}

fn numbers(ring: &[u8]) -> impl Iterator<Item = u64> + '_ {
    ring.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
}

fn identity(data: &Metadata) -> (u64, u64) {
    (data.dev(), data.ino())
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    // A commit that is acknowledged is then valid whatever the checksums of a torn one happen to be.
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}

impl Engine for Embedded {
    fn open(&mut self) -> Result<Content, StoreError> {
        let lock = self.lock_directory()?;
        match std::fs::symlink_metadata(&self.path) {
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::NotFound => self.create(&lock)?,
            Err(err) => return Err(self.complain(Trouble::Io(err.into()))),
        }
        let (opened, content) = self.read()?;
        self.open = Some(opened);
        self.lock = Some(lock);
        Ok(content)
    }

    fn ready(&mut self) -> Result<(), StoreError> {
        self.opened()?.file.release().map_err(|err| self.write_error(err))
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.keep_in_place()?;
        let Some(opened) = &self.open else { return Err(StoreError::Closed) };
        let result = self.write(&opened.database, batch).map_err(|err| self.write_error(err));
        self.is_in_doubt = result.is_err();
        if result.is_err() {
            // After an I/O error redb refuses everything until the file is opened anew.
            self.open = None;
        }
        result
    }

    fn history(&mut self, plugin: Option<&PluginId>, limit: usize) -> Result<Vec<Transition>, StoreError> {
        // After a full disk, too: that is when people ask what happened.
        let opened = self.opened()?;
        Self::read_history(&opened.database, plugin, limit).map_err(|err| self.read_error(err))
    }

    fn close(&mut self) -> Result<(), StoreError> {
        let kept = self.keep_in_place();
        let closed = match self.open.take() {
            Some(opened) => opened.database.close().map_err(|err| self.write_error(err)),
            None => Ok(()),
        };
        self.lock = None;
        kept.and(closed)
    }

    fn durability(&self) -> Durability {
        Durability::Durable
    }
}
