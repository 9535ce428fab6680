//! One CSI driver behind one socket, and protobuf turned into domain values.
//!
//! A [`Driver`] is one connection: it never reconnects by itself, each call has a deadline of ours, and an answer is a
//! domain value or a [`CallError`] that knows where it came from. When to call, and what an answer means for health, is
//! decided elsewhere. Nothing here can change a volume: calls that do are not in the protocol files.

pub mod client;
mod convert;
pub mod error;
pub mod rpc;

pub use client::{Driver, Limits};
pub use convert::{Announcement, NodeInfo, PluginCapabilities, PluginInfo, Readiness};
pub use error::CallError;
pub use rpc::Rpc;

pub use crate::transport::connector::{ConnectFailure, LONGEST_DIRECT_PATH, Peer};
