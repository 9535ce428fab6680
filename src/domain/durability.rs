//! Whether what was seen is on disk.

use std::sync::Arc;

/// Whether what was seen is on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Durability {
    /// Kept in memory by choice.
    #[default]
    Memory,
    /// Every published change is on disk.
    Durable,
    /// Published, and not on disk; why.
    NotDurable(Arc<str>),
}
