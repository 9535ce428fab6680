//! `doctor`: where drivers were looked for, each socket layer by layer, what is wrong, and the remedy.
//!
//! Each layer is only looked at where the one below it is well, so the first "not ok" is the cause. It searches and asks
//! as `serve` does, with calls that only read, and once.

mod driver;
mod file;
mod registration;
mod search;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Outcome, say};
use crate::config::Doctor;
use crate::csi::Limits;
use crate::discovery;
use crate::domain::socket::{Announced, RoleChoice, WantedSocket};
use crate::domain::text::{DESCRIPTION_LIMIT, bounded};

/// Sockets examined at the same time.
const AT_ONCE: usize = 16;

/// How a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum State {
    #[serde(rename = "ok")]
    Ok,
    #[serde(rename = "not ok")]
    NotOk,
    #[serde(rename = "skipped")]
    Skipped,
    /// Worth knowing, and nothing that is broken.
    #[serde(rename = "warning")]
    Warning,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotOk => "not ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
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
    source: &'static str,
    well: bool,
    layers: Vec<Finding>,
    #[serde(skip)]
    answers: Option<driver::Answers>,
}

/// Nothing above this layer makes sense.
struct Ended;

impl Findings {
    fn new(socket: &WantedSocket) -> Self {
        let (socket, source) = (socket.path.display().to_string(), socket.source.as_str());
        Self { socket, source, well: true, layers: Vec::new(), answers: None }
    }

    fn add(&mut self, layer: Layer, state: State, text: &str, remedy: Option<&str>) {
        self.well &= state != State::NotOk;
        // From the bottom, in whatever order they were looked at.
        let place = self.layers.partition_point(|finding| finding.layer <= layer);
        self.layers.insert(place, Finding { layer, state, text: safe(text), remedy: remedy.map(safe) });
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
        let mut lines = vec![format!("{} ({})", safe(&self.socket), self.source)];
        for Finding { layer, state, text, remedy } in &self.layers {
            lines.push(format!("  {:<8} {:<13} {text}", state.as_str(), layer.as_str()));
            lines.extend(remedy.iter().map(|remedy| format!("  {:<22} remedy: {remedy}", "")));
        }
        lines.join("\n")
    }
}

/// As text that a terminal can be shown, and not too much of it.
fn safe(text: &str) -> String {
    bounded(text, DESCRIPTION_LIMIT).into_string()
}

/// All that was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    #[serde(flatten)]
    search: Option<search::Search>,
    sockets: Vec<Findings>,
}

impl Report {
    fn is_well(&self) -> bool {
        self.search.as_ref().is_none_or(search::Search::is_well) && self.sockets.iter().all(|findings| findings.well)
    }

    fn described(&self) -> String {
        let search = self.search.iter().map(search::Search::described);
        search.chain(self.sockets.iter().map(Findings::described)).collect::<Vec<_>>().join("\n\n")
    }
}

/// Runs the command. `search` are the places that `serve` would search; none where one socket was asked about.
pub async fn run(config: Doctor, places: discovery::Settings) -> Outcome {
    let is_search = !places.places.is_empty();
    let host_root = places.host_root.clone();
    let (search, wanted) = search::run(&config.sources.addresses, places).await;
    let config = Arc::new(config);
    let mut sockets = examined(&config, wanted, host_root).await;
    search::compare(&mut sockets);
    let report = Report {
        search: is_search.then_some(search),
        sockets: sockets.into_iter().map(|(_, findings)| findings).collect(),
    };
    if config.is_json {
        say(&serde_json::to_string_pretty(&report).unwrap_or_default());
    } else {
        say(&report.described());
    }
    if report.is_well() { Outcome::Done } else { Outcome::NotReady }
}

/// Examines sockets, several at a time: one that hangs takes seconds.
async fn examined(
    config: &Arc<Doctor>,
    sockets: Vec<WantedSocket>,
    host_root: Option<PathBuf>,
) -> Vec<(WantedSocket, Findings)> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut examining = JoinSet::new();
    for (number, socket) in sockets.into_iter().enumerate() {
        let (config, places, host_root) = (Arc::clone(config), Arc::clone(&places), host_root.clone());
        examining.spawn(async move {
            let _place = places.acquire_owned().await;
            let findings = examine(&config, &socket, host_root.as_deref()).await;
            (number, socket, findings)
        });
    }
    let mut all = examining.join_all().await;
    all.sort_by_key(|(number, ..)| *number);
    all.into_iter().map(|(_, socket, findings)| (socket, findings)).collect()
}

async fn examine(config: &Doctor, wanted: &WantedSocket, host_root: Option<&Path>) -> Findings {
    let limits = Limits::new(config.probe_timeout, config.timeout);
    let socket = &*wanted.path;
    // What somebody says about all of them goes before what a place says about one.
    let role = if config.role == RoleChoice::Auto { wanted.role } else { config.role };
    let mut findings = Findings::new(wanted);
    if file::examine(socket, &mut findings).is_ok()
        && let Ok(answers) = driver::examine(socket, role, limits, &mut findings).await
    {
        registration::examine(socket, &answers, host_root, &mut findings).await;
        findings.answers = Some(answers);
    } else if let Announced::As { name, .. } = &wanted.announced {
        let text = format!("a registration socket announces {name} here, and its kubelet goes on believing in it");
        findings.not_ok(
            Layer::Registration,
            &text,
            "see that the driver runs; where it was removed on purpose, end its registrar, too",
        );
    }
    findings.complete();
    findings
}
