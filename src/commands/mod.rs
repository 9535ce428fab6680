//! The client side, and what `main` runs.

pub mod http;
mod probe;
pub mod status;

use std::io::Write;

use crate::app::{Gateway, Plan};
use crate::cli::Invocation;
use crate::config::load::Variables;
use crate::config::{Logging, Serve};
use crate::telemetry::{self, Chain};
use crate::{demo, shutdown};

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Done,
    /// It asked, and the answer is "not well".
    NotReady,
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
pub(crate) fn complain(text: &str) {
    // Nobody left to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Runs a command to its end.
pub async fn run(invocation: Invocation, variable: Variables<'_>) -> Outcome {
    match invocation {
        Invocation::Text(text) => {
            say(&text);
            Outcome::Done
        }
        Invocation::Serve(config) => serve(&config, variable).await,
        Invocation::Probe(config) => probe::run(&config).await,
        Invocation::Status(config) => status::run(&config).await,
        Invocation::Demo(config) => demo::show::run(&config).await,
    }
}

/// Starts logging as configured.
pub(crate) fn log(logging: &Logging) {
    telemetry::start(logging.verbosity, logging.is_json);
}

async fn serve(config: &Serve, variable: Variables<'_>) -> Outcome {
    log(&config.logging);
    let stop = match shutdown::on_signal() {
        Ok(stop) => stop,
        Err(error) => return Outcome::failed(&error),
    };
    let gateway = match Gateway::build(Plan::serve(config, variable)).await {
        Ok(gateway) => gateway,
        Err(error) => return Outcome::failed(&error),
    };
    for address in gateway.addresses() {
        say(&format!("listening on {}", url(address)));
    }
    match gateway.run(stop).await {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::failed(&error),
    }
}

/// An address as `curl` takes it.
pub(crate) fn url(address: &str) -> String {
    if address.starts_with("unix:") { address.to_owned() } else { format!("http://{address}") }
}
