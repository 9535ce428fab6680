//! The client side, and how any command ends.

pub mod acl;
pub mod completion;
pub mod doctor;
pub mod forget;
pub mod healthcheck;
pub mod history;
pub mod http;
pub mod probe;
pub mod status;
mod table;
mod terminal;
pub mod wait;

use std::io::Write;

use crate::telemetry::Chain;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Done,
    /// It asked, and the answer is "not well".
    NotReady,
    /// It waited in vain; for what.
    Late(String),
    /// It could not do what it was told to; why.
    Failed(String),
}

impl Outcome {
    /// A failure with all its sources.
    #[must_use]
    pub fn failed(error: &dyn std::error::Error) -> Self {
        Self::Failed(Chain(error).to_string())
    }
}

/// Prints text and a line's end. That nobody reads it (a closed pipe) is no error of ours.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush());
}

/// Prints a complaint to standard error.
pub fn complain(text: &str) {
    // Nobody left to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}
