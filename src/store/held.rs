//! A file whose writes are held back until it is known to be whole.
//!
//! redb writes while it opens: it repairs after an unclean stop and marks the file as in use. A file that turns out to be
//! damaged, newer or somebody else's must stay as it is, byte for byte. So everything that opening writes goes into a
//! list first; the list is written out, in its order and with its syncs, when all was read and understood. That is as
//! safe against a crash as redb itself, whose writes those are.

use std::collections::VecDeque;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

/// One thing done to a file.
#[derive(Debug)]
enum Step {
    Write(u64, Box<[u8]>),
    SetLength(u64),
    Sync,
}

#[derive(Debug)]
enum Mode {
    /// Writes are kept back. The length is what it would be.
    Holding { steps: VecDeque<Step>, length: u64 },
    /// Writes go to the file.
    Through,
}

#[derive(Debug)]
struct File {
    file: Box<dyn StorageBackend>,
    mode: Mutex<Mode>,
}

/// The file, as redb's backend and as the handle that lets its writes through.
#[derive(Debug, Clone)]
pub(super) struct HeldFile(Arc<File>);

impl HeldFile {
    /// Takes a file, holding every write back.
    pub(super) fn new(file: Box<dyn StorageBackend>) -> io::Result<Self> {
        let length = file.len()?;
        Ok(Self(Arc::new(File { file, mode: Mutex::new(Mode::Holding { steps: VecDeque::new(), length }) })))
    }

    /// Writes what was held back, and lets everything through from now on.
    ///
    /// What could be written stays written when it fails, and the next call goes on from there.
    pub(super) fn release(&self) -> io::Result<()> {
        let mut mode = self.mode();
        let Mode::Holding { steps, .. } = &mut *mode else { return Ok(()) };
        while let Some(step) = steps.front() {
            match step {
                Step::Write(offset, data) => self.0.file.write(*offset, data)?,
                Step::SetLength(length) => self.0.file.set_len(*length)?,
                Step::Sync => self.0.file.sync_data()?,
            }
            steps.pop_front();
        }
        *mode = Mode::Through;
        Ok(())
    }

    fn mode(&self) -> MutexGuard<'_, Mode> {
        self.0.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of `out`, read at `offset`, that `data` at `at` covers: its range there, and its beginning in `data`.
fn overlap(offset: u64, out: usize, at: u64, data: usize) -> Option<(std::ops::Range<usize>, usize)> {
    let begin = offset.max(at);
    let end = (offset + out as u64).min(at + data as u64);
    let position = |of: u64, from: u64| usize::try_from(of - from).ok();
    (begin < end).then_some(())?;
    Some((position(begin, offset)?..position(end, offset)?, position(begin, at)?))
}

impl StorageBackend for HeldFile {
    fn len(&self) -> io::Result<u64> {
        match &*self.mode() {
            Mode::Holding { length, .. } => Ok(*length),
            Mode::Through => self.0.file.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mode = self.mode();
        let Mode::Holding { steps, length } = &*mode else {
            drop(mode);
            return self.0.file.read(offset, out);
        };
        if offset.saturating_add(out.len() as u64) > *length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let there = usize::try_from(self.0.file.len()?.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        self.0.file.read(offset, &mut out[..there])?;
        out[there..].fill(0);
        for step in steps {
            match step {
                Step::Write(at, data) => {
                    if let Some((range, begin)) = overlap(offset, out.len(), *at, data.len()) {
                        let covered = range.len();
                        out[range].copy_from_slice(&data[begin..begin + covered]);
                    }
                }
                Step::SetLength(length) => {
                    let kept = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
                    out[kept..].fill(0);
                }
                Step::Sync => {}
            }
        }
        Ok(())
    }

    fn set_len(&self, new: u64) -> io::Result<()> {
        match &mut *self.mode() {
            Mode::Holding { steps, length } => {
                steps.push_back(Step::SetLength(new));
                *length = new;
                Ok(())
            }
            Mode::Through => self.0.file.set_len(new),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        match &mut *self.mode() {
            Mode::Holding { steps, .. } => {
                steps.push_back(Step::Sync);
                Ok(())
            }
            Mode::Through => self.0.file.sync_data(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &mut *self.mode() {
            Mode::Holding { steps, length } => {
                steps.push_back(Step::Write(offset, data.into()));
                *length = (*length).max(offset.saturating_add(data.len() as u64));
                Ok(())
            }
            Mode::Through => self.0.file.write(offset, data),
        }
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;

    #[derive(Debug, Clone)]
    enum Action {
        Write(u64, Vec<u8>),
        SetLength(u64),
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            (0_u64..40, proptest::collection::vec(any::<u8>(), 1..12)).prop_map(|(at, data)| Action::Write(at, data)),
            (0_u64..64).prop_map(Action::SetLength),
        ]
    }

    fn content(file: &dyn StorageBackend) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.len().expect("in memory")).expect("small")];
        file.read(0, &mut bytes).expect("in memory");
        bytes
    }

    proptest! {
        #[test]
        fn a_held_file_reads_as_if_written_and_is_written_only_when_released(
            actions in proptest::collection::vec(action(), 0..12),
        ) {
            #[derive(Debug)]
            struct Shared(Arc<InMemoryBackend>);
            impl StorageBackend for Shared {
                fn len(&self) -> io::Result<u64> { self.0.len() }
                fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> { self.0.read(offset, out) }
                fn set_len(&self, len: u64) -> io::Result<()> { self.0.set_len(len) }
                fn sync_data(&self) -> io::Result<()> { self.0.sync_data() }
                fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> { self.0.write(offset, data) }
            }
            let (below, model) = (Arc::new(InMemoryBackend::new()), InMemoryBackend::new());
            for file in [&*below, &model] {
                file.set_len(20).expect("in memory");
                file.write(0, &[7; 20]).expect("in memory");
            }
            let held = HeldFile::new(Box::new(Shared(Arc::clone(&below)))).expect("in memory");
            for action in actions {
                match action {
                    // The file grows before it is written, as redb does it.
                    Action::Write(at, data) => {
                        let end = at + data.len() as u64;
                        for file in [&held as &dyn StorageBackend, &model] {
                            if file.len().expect("in memory") < end {
                                file.set_len(end).expect("in memory");
                            }
                            file.write(at, &data).expect("in memory");
                        }
                    }
                    Action::SetLength(length) => {
                        held.set_len(length).expect("in memory");
                        model.set_len(length).expect("in memory");
                    }
                }
                prop_assert_eq!(content(&held), content(&model));
                prop_assert_eq!(content(&*below), vec![7; 20]);
            }
            held.release().expect("in memory");
            prop_assert_eq!(content(&*below), content(&model));
        }
    }
}
