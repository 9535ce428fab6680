//! Which sockets should be watched, and which directory events concern them.
//!
//! A source says which sockets should exist; this module merges sources into one set and never dials. So far there is
//! one source, [`fixed`]: addresses named by configuration. Foreign directories are read, never written.

pub mod directory;
pub mod fixed;
