//! Scripted drivers on real sockets: what `demo` shows, and what all tests talk to.
//!
//! [`FakeDriver`] is a real gRPC server that answers from a script; [`OddSocket`] is everything else that can be found
//! where a driver should be. Nothing here touches storage.

pub mod driver;
pub mod fleet;
pub mod odd;
pub mod reply;
pub mod show;

pub use driver::{FakeDriver, ServedDriver, Unfinished, run_alone};
pub use odd::OddSocket;
pub use reply::Reply;
