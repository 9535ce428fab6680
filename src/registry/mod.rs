//! What is known: records folded from reports, the one writer of the catalog, and its readers.

pub mod agents;
pub mod allocations;
pub mod changes;
pub mod commands;
pub mod history;
pub mod mirror;
pub mod publisher;
pub mod reader;
pub mod reporter;
pub mod retirement;
pub mod sockets;
