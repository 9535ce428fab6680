//! What is known: records folded from reports, the one writer of the catalog, and its readers.

pub mod reader;
pub mod sockets;
