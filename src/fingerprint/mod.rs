//! When to look at a socket, and what a look means.
//!
//! `observe` asks a driver everything once; `assess` turns the answers, whatever they are, into what its instances
//! are; `claims` settles which socket an instance is; `watch` is the task of one socket, which decides when to look again;
//! `dials` holds it back where links and moves would make it dial one driver again and again; [`supervisor`] keeps one such
//! task for each socket that should be watched. [`prober`] asks afresh, for `/healthz`. Trouble of a driver is data here, never an error.

mod assess;
mod claims;
mod dials;
mod observe;
pub mod prober;
pub mod supervisor;
mod watch;

use std::time::Duration;

use crate::csi::Limits;

/// When to look, and how long to wait for answers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// From the start of one look at a socket to the start of the next (30 s).
    pub poll_interval: Duration,
    /// How long `NodeGetInfo` is trusted (10 min).
    pub node_info_age: Duration,
    /// Longest time for one look (30 s).
    pub poll_limit: Duration,
    /// Limits of single calls.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(30),
            node_info_age: Duration::from_mins(10),
            poll_limit: Duration::from_secs(30),
            limits: Limits::default(),
        }
    }
}
