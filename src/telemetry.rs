//! Logs, and errors as one line.
//!
//! Logs go to standard error, in text or JSON. Changes are logged, looks are not: a gateway that watches a well host is
//! silent.

use std::error::Error;
use std::fmt;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt as format};

/// An error with all its sources, joined by colons.
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// Sets logging up, once per process. `RUST_LOG`, where it can be read, wins over the verbosity.
pub fn start(verbosity: u8, is_json: bool) {
    let level = match verbosity {
        0..=3 => LevelFilter::INFO,
        4 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // Libraries below are silent unless RUST_LOG names them: their frames are no operator's concern.
    let targets = match std::env::var("RUST_LOG").ok().map(|text| text.parse::<Targets>()) {
        Some(Ok(targets)) => targets,
        Some(Err(_)) | None => Targets::new().with_target("csi_gateway", level).with_default(LevelFilter::WARN),
    };
    let layer = if is_json {
        format::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
    } else {
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let has_colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        format::layer().with_ansi(has_colour).with_target(false).with_writer(std::io::stderr).boxed()
    };
    // A second call, as tests make, leaves the first one in force.
    let _ = tracing_subscriber::registry().with(layer.with_filter(targets)).try_init();
}
