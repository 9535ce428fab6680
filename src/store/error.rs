//! Why a store cannot be opened, read or written.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

/// The cause below, whatever library it comes from.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Why a store cannot be opened, read or written. Whatever is refused was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made or opened.
    #[error("cannot use the state directory `{}`, which this user must be able to make and write; give another with --state-dir", .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another gateway holds it.
    #[error("the state directory `{}` is in use by another csi-gateway; stop that one, or choose another directory", .path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// The file cannot be opened or read.
    #[error("cannot open the state file `{}`, which this user must be able to read and write; see who owns it", .path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Cause,
    },
    /// The file is not what was written.
    #[error("the state file `{}` is damaged and was left as it is; put a backup in its place, or move it away to start with an empty one", .path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: Cause,
    },
    /// The file is not ours.
    #[error("`{}` is not a state file of csi-gateway and was left as it is; choose another directory, or move the file away", .path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
    },
    /// A later release wrote it.
    #[error("the state file `{}` was written by a newer csi-gateway (format {found}, this release knows {known}) and was left as it is; use that release, or move the file away to start with an empty one", .path.display())]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The newest format that this release knows.
        known: u64,
    },
    /// A change did not reach the disk; it is kept and tried again.
    #[error("cannot write the state file `{}`; make room on its disk, or see why that takes nothing", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Cause,
    },
    /// Something stored cannot be read.
    #[error("cannot read the state file `{}`", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Cause,
    },
    /// The thread cannot be started.
    #[error("cannot start the thread of the store")]
    Thread(#[source] std::io::Error),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// An error with all its sources, on one line: the reason that people see while a change is not durable.
pub(super) fn chain(error: &dyn Error) -> Arc<str> {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // redb prints its source in its own text too.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.into()
}
