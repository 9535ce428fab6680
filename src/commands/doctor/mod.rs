//! `doctor`: a socket layer by layer, what is wrong, and the remedy.
//!
//! Each layer is only looked at where the one below it is well, so the first "not ok" is the cause. It asks as `serve`
//! does, with calls that only read, and once.

mod driver;
mod file;
mod registration;

use std::path::Path;

use serde::Serialize;

use super::{Outcome, say};
use crate::config::Doctor;
use crate::csi::Limits;
use crate::domain::text::{DESCRIPTION_LIMIT, bounded};

/// How a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum State {
    #[serde(rename = "ok")]
    Ok,
    #[serde(rename = "not ok")]
    NotOk,
    #[serde(rename = "skipped")]
    Skipped,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotOk => "not ok",
            Self::Skipped => "skipped",
        }
    }
}

/// The layers, from the bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
enum Layer {
    #[serde(rename = "path")]
    Path,
    #[serde(rename = "file")]
    File,
    #[serde(rename = "permission")]
    Permission,
    #[serde(rename = "dial")]
    Dial,
    #[serde(rename = "http/2")]
    Http2,
    #[serde(rename = "identity")]
    Identity,
    #[serde(rename = "probe")]
    Probe,
    #[serde(rename = "roles")]
    Roles,
    #[serde(rename = "node")]
    Node,
    #[serde(rename = "registration")]
    Registration,
}

impl Layer {
    const ALL: [Self; 10] = [
        Self::Path,
        Self::File,
        Self::Permission,
        Self::Dial,
        Self::Http2,
        Self::Identity,
        Self::Probe,
        Self::Roles,
        Self::Node,
        Self::Registration,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::File => "file",
            Self::Permission => "permission",
            Self::Dial => "dial",
            Self::Http2 => "http/2",
            Self::Identity => "identity",
            Self::Probe => "probe",
            Self::Roles => "roles",
            Self::Node => "node",
            Self::Registration => "registration",
        }
    }
}

/// What was found at one layer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Finding {
    layer: Layer,
    state: State,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// What was found at one socket.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Findings {
    socket: String,
    well: bool,
    layers: Vec<Finding>,
}

/// Nothing above this layer makes sense.
struct Ended;

impl Findings {
    fn new(socket: &Path) -> Self {
        Self { socket: socket.display().to_string(), well: true, layers: Vec::new() }
    }

    fn add(&mut self, layer: Layer, state: State, text: &str, remedy: Option<&str>) {
        let safe = |text: &str| bounded(text, DESCRIPTION_LIMIT).into_string();
        self.well &= state != State::NotOk;
        self.layers.push(Finding { layer, state, text: safe(text), remedy: remedy.map(safe) });
    }

    fn ok(&mut self, layer: Layer, text: &str) {
        self.add(layer, State::Ok, text, None);
    }

    fn skipped(&mut self, layer: Layer, text: &str) {
        self.add(layer, State::Skipped, text, None);
    }

    fn not_ok(&mut self, layer: Layer, text: &str, remedy: &str) -> Ended {
        self.add(layer, State::NotOk, text, Some(remedy));
        Ended
    }

    /// Layers that were not come to.
    fn complete(&mut self) {
        for layer in Layer::ALL {
            if !self.layers.iter().any(|finding| finding.layer == layer) {
                self.skipped(layer, "not come to");
            }
        }
    }

    fn described(&self) -> String {
        let mut lines = vec![bounded(&self.socket, DESCRIPTION_LIMIT).into_string()];
        for Finding { layer, state, text, remedy } in &self.layers {
            lines.push(format!("  {:<8} {:<13} {text}", state.as_str(), layer.as_str()));
            lines.extend(remedy.iter().map(|remedy| format!("  {:<22} remedy: {remedy}", "")));
        }
        lines.join("\n")
    }
}

/// Runs the command.
pub async fn run(config: &Doctor) -> Outcome {
    let mut all = Vec::new();
    for address in &config.sources.addresses {
        all.push(examined(config, address).await);
    }
    if config.is_json {
        say(&serde_json::to_string_pretty(&all).unwrap_or_default());
    } else {
        let described: Vec<String> = all.iter().map(Findings::described).collect();
        say(&described.join("\n\n"));
    }
    if all.iter().all(|findings| findings.well) { Outcome::Done } else { Outcome::NotReady }
}

async fn examined(config: &Doctor, socket: &Path) -> Findings {
    let limits = Limits {
        connect: Limits::default().connect.min(config.probe_timeout),
        probe: config.probe_timeout,
        call: config.timeout,
        node_info: config.timeout.saturating_mul(3),
    };
    let mut findings = Findings::new(socket);
    if file::examine(socket, &mut findings).is_ok()
        && let Ok(answers) = driver::examine(socket, config.role, limits, &mut findings).await
    {
        registration::examine(socket, &answers, limits, &mut findings).await;
    }
    findings.complete();
    findings
}
