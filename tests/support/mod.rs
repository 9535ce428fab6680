//! What several test files share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of it")]
#![allow(clippy::panic, reason = "a test that waited in vain has nothing else to do")]

pub mod client;
pub mod daemon;
pub mod etcd;
pub mod fixture;
pub mod gateway;
pub mod host;
pub mod process;
pub mod schema;
