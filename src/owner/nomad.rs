//! What Nomad's servers say of the allocations of one of their clients (`design.md` section 7).
//!
//! One blocking query, `/v1/node/NODE/allocations`, tells everything: an allocation comes with its job, whose task says
//! which plugin it is and of which type, and with all that its stub in a plugin's `Allocations` consists of. The token
//! needs `node:read`, and `read-job` in the namespaces of those jobs. A server that does not answer changes nothing that
//! is known.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::mem::Discriminant;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Known, Runs};
use crate::client::{Answer, Client, Connection, HttpError};
use crate::domain::allocation::{Allocation, Orchestrator};
use crate::domain::id::PluginId;
use crate::domain::record::Job;
use crate::domain::socket::RoleChoice;
use crate::domain::text::bounded;
use crate::domain::time::Timestamp;
use crate::telemetry::Chain;

/// How long a query waits for news. Nomad adds up to a sixteenth.
const WAIT: Duration = Duration::from_secs(300);
/// How long an answer may take beyond that.
const SLACK: Duration = Duration::from_secs(15);
/// Limit of a query that does not wait.
const AT_ONCE: Duration = Duration::from_secs(20);
/// Pause after a failure; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// News come in bunches, one for each step of a task: so long one is waited for others.
const BUNCH: Duration = Duration::from_millis(100);
/// Longest part of an error's text that is repeated.
const TEXT: usize = 200;
/// Longest token, in bytes: a JWT with many claims is shorter.
const LONGEST_TOKEN: u64 = 16 << 10;

/// Keys of the stub in a plugin's `Allocations` that an allocation has, too, and what Nomad leaves out of an allocation and not
/// out of its stub. The rest of the stub is its job's.
const STUB: [(&str, &str); 24] = [
    ("ClientDescription", "null"),
    ("ClientStatus", "null"),
    ("CreateIndex", "null"),
    ("CreateTime", "null"),
    ("DeploymentStatus", "null"),
    ("DesiredDescription", r#""""#),
    ("DesiredStatus", "null"),
    (
        "DesiredTransition",
        r#"{"ForceReschedule":null,"Migrate":null,"MigrateDisablePlacement":null,"NoShutdownDelay":null,"Reschedule":null}"#,
    ),
    ("EvalID", "null"),
    ("FollowupEvalID", r#""""#),
    ("ID", "null"),
    ("JobID", "null"),
    ("ModifyIndex", "null"),
    ("ModifyTime", "null"),
    ("Name", "null"),
    ("Namespace", "null"),
    ("NextAllocation", r#""""#),
    ("NodeID", "null"),
    ("NodeName", "null"),
    ("PreemptedAllocations", "null"),
    ("PreemptedByAllocation", r#""""#),
    ("RescheduleTracker", "null"),
    ("TaskGroup", "null"),
    ("TaskStates", "null"),
];

/// Where the secret comes from that opens Nomad's API.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Token {
    /// None is needed.
    #[default]
    None,
    /// Read before each query: whoever renews it need not tell us.
    File(PathBuf),
    /// Known from the start.
    Secret(Box<str>),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Secret(_) => f.write_str("Secret(…)"),
        }
    }
}

/// Whom the follower tells.
pub struct Sinks {
    /// What allocations run.
    pub known: watch::Sender<Arc<Known>>,
    /// Their stubs, all of them.
    pub allocations: Box<dyn Fn(Vec<Allocation>) + Send>,
    /// How it stands.
    pub standing: Box<dyn Fn(Orchestrator) + Send>,
}

/// Follows the allocations of a client.
pub struct Follower {
    client: Client,
    token: Token,
    /// The id of the client, as it is read from its state directory; there is none before its first start.
    node: Box<dyn Fn() -> Option<Box<str>> + Send>,
    sinks: Sinks,
    standing: Orchestrator,
    /// What kind of trouble was said last.
    trouble: Option<(Discriminant<Failure>, Option<StatusCode>)>,
}

/// Why nothing was learnt.
#[derive(Debug, Error)]
enum Failure {
    #[error(
        "no state directory of a Nomad client has its `client-id`: has the client been started, and is --nomad-state-dir its state directory?"
    )]
    NoNode,
    #[error("the token cannot be read from `{}`", file.display())]
    Token { file: PathBuf, source: std::io::Error },
    #[error("`{}` holds no token: letters, digits and signs in one line", file.display())]
    NoToken { file: PathBuf },
    #[error("nobody answers at `{address}`: is a Nomad server or client running there?")]
    Nobody { address: String, source: std::io::Error },
    #[error(
        "Nomad does not answer; over TLS it is known by NOMAD_CACERT, and we are by NOMAD_CLIENT_CERT and NOMAD_CLIENT_KEY"
    )]
    Http(#[source] HttpError),
    #[error("Nomad answered {status} to what runs on this node: {text}{}", hint(*.status))]
    Status { status: StatusCode, text: String },
    #[error("Nomad's answer to what runs on this node is not what its API describes")]
    Body(#[source] serde_json::Error),
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Connect { address, source } => Self::Nobody { address, source },
            other => Self::Http(other),
        }
    }
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
            "; its token (--nomad-token-file, NOMAD_TOKEN) needs `node { policy = \"read\" }` and `read-job` in the namespaces of the drivers' jobs"
        }
        StatusCode::NOT_FOUND => "; is this the region of the node, and has its client joined?",
        _ => "",
    }
}

impl Follower {
    /// Asks nobody yet.
    pub fn new(client: Client, token: Token, node: Box<dyn Fn() -> Option<Box<str>> + Send>, sinks: Sinks) -> Self {
        let address = client.address().into();
        let standing = Orchestrator {
            address,
            problem: "not asked yet".into(),
            since: Timestamp::now(),
            allocations: 0,
            unnamed: 0,
        };
        (sinks.standing)(standing.clone());
        Self { client, token, node, sinks, standing, trouble: None }
    }

    /// Follows for ever.
    pub async fn run(mut self) {
        let mut index = 0;
        let mut pause = FIRST_PAUSE;
        let mut connection = None;
        loop {
            let begun = Instant::now();
            match self.ask(&mut connection, index).await {
                Ok(answer) => {
                    let next = answer.index().unwrap_or_default();
                    if next == index.max(1) && begun.elapsed() < WAIT / 2 || next == 0 {
                        // Whoever is between leaves out the wait or the index: then this asks by the clock.
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    } else {
                        pause = FIRST_PAUSE;
                        tokio::time::sleep(BUNCH).await;
                    }
                    // Smaller after servers were restored from a backup: everything may be news. Never 0, which does not wait.
                    index = if next < index { 0 } else { next.max(1) };
                }
                Err(failure) => {
                    connection = None;
                    // A server that came back may be another one.
                    index = 0;
                    self.fails(&failure);
                    self.is_asked();
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn ask(&mut self, connection: &mut Option<Connection>, index: u64) -> Result<Answer, Failure> {
        let node = (self.node)().ok_or(Failure::NoNode)?;
        let mut request = Request::get(if index == 0 {
            format!("/v1/node/{node}/allocations")
        } else {
            format!("/v1/node/{node}/allocations?index={index}&wait={}s", WAIT.as_secs())
        });
        if let Some(token) = self.token.secret().await? {
            request = request.header("X-Nomad-Token", &*token);
        }
        let limit = if index == 0 { AT_ONCE } else { WAIT + WAIT / 16 + SLACK };
        let asking = async {
            // One conversation for all queries, as long as the other side keeps it.
            let open = match connection.take().filter(|connection| !connection.is_closed()) {
                Some(open) => open,
                None => self.client.connect().await?,
            };
            let open = connection.insert(open);
            open.ask(request, Bytes::new()).await
        };
        let late = || HttpError::Timeout { address: self.client.address().to_owned(), limit };
        let answer = tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| Err(late()))?;
        if answer.status != StatusCode::OK {
            let text = bounded(answer.text().trim(), TEXT).into();
            return Err(Failure::Status { status: answer.status, text });
        }
        self.learn(&answer.body).map_err(Failure::Body)?;
        Ok(answer)
    }

    fn learn(&mut self, body: &[u8]) -> Result<(), serde_json::Error> {
        // Go writes an empty list as `null`.
        let all: Option<Vec<&RawValue>> = serde_json::from_slice(body)?;
        let (mut stubs, mut runs) = (Vec::new(), BTreeMap::new());
        for text in all.iter().flatten() {
            let told: Told<'_> = serde_json::from_str(text.get())?;
            let Some(found) = told.runs() else { continue };
            stubs.push(Allocation {
                id: told.id.as_ref().into(),
                namespace: told.namespace.as_ref().into(),
                modify_index: told.modify_index,
                stub: told.stub(text)?,
            });
            runs.insert(told.id.as_ref().into(), found);
        }
        self.standing.allocations = runs.len();
        self.is_well();
        (self.sinks.allocations)(stubs);
        self.sinks.known.send_if_modified(|known| {
            let is_news = !known.is_answered || known.allocations != runs;
            *known = Arc::new(Known { is_asked: true, is_answered: true, allocations: runs });
            is_news
        });
        Ok(())
    }

    fn is_asked(&self) {
        self.sinks.known.send_if_modified(|known| {
            let is_news = !known.is_asked;
            if is_news {
                *known = Arc::new(Known { is_asked: true, ..Known::clone(known) });
            }
            is_news
        });
    }

    /// Says it once for each kind of trouble: texts have addresses of ports and servers in them that differ each time.
    fn fails(&mut self, failure: &Failure) {
        let status = if let Failure::Status { status, .. } = failure { Some(*status) } else { None };
        let kind = Some((std::mem::discriminant(failure), status));
        let problem = Chain(failure).to_string();
        if self.trouble != kind {
            self.trouble = kind;
            self.standing.since = Timestamp::now();
            warn!(address = %self.standing.address, problem, "what is known of allocations stays as it is");
        }
        self.standing.problem = problem.into();
        (self.sinks.standing)(self.standing.clone());
    }

    fn is_well(&mut self) {
        if !self.standing.problem.is_empty() {
            self.standing.since = Timestamp::now();
            self.standing.problem = Box::default();
            info!(address = %self.standing.address, allocations = self.standing.allocations, "Nomad says who runs the drivers");
        }
        self.trouble = None;
        (self.sinks.standing)(self.standing.clone());
    }
}

impl Token {
    async fn secret(&self) -> Result<Option<Cow<'_, str>>, Failure> {
        let file = match self {
            Self::None => return Ok(None),
            Self::Secret(secret) => return Ok(Some((&**secret).into())),
            Self::File(file) => file,
        };
        let unreadable = |source| Failure::Token { file: file.clone(), source };
        let length = tokio::fs::metadata(file).await.map_err(unreadable)?.len();
        let text = if length > LONGEST_TOKEN {
            String::new()
        } else {
            tokio::fs::read_to_string(file).await.map_err(unreadable)?
        };
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::NoToken { file: file.clone() });
        }
        Ok(Some(text.to_owned().into()))
    }
}

/// An allocation, as far as it says what it runs.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told<'a> {
    #[serde(borrow, rename = "ID")]
    id: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow, rename = "JobID")]
    job_id: Cow<'a, str>,
    #[serde(borrow)]
    task_group: Cow<'a, str>,
    modify_index: u64,
    #[serde(borrow)]
    job: Option<ToldJob<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ToldJob<'a> {
    #[serde(borrow, rename = "Type")]
    kind: &'a RawValue,
    #[serde(borrow)]
    version: &'a RawValue,
    #[serde(borrow)]
    task_groups: Option<Vec<ToldGroup<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ToldGroup<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    tasks: Option<Vec<ToldTask<'a>>>,
}

#[derive(Deserialize)]
struct ToldTask<'a> {
    #[serde(borrow, default, rename = "CSIPluginConfig")]
    plugin: Option<ToldPlugin<'a>>,
}

#[derive(Deserialize)]
struct ToldPlugin<'a> {
    #[serde(borrow, rename = "ID")]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "Type")]
    kind: Cow<'a, str>,
}

impl Told<'_> {
    /// The driver that it runs; `None`: none, or one of whose kind nobody here has heard.
    fn runs(&self) -> Option<Runs> {
        let groups = self.job.as_ref()?.task_groups.as_deref().unwrap_or_default();
        let group = groups.iter().find(|group| group.name == self.task_group)?;
        // All tasks of an allocation share its directory, so there is room for one driver.
        let plugin = group.tasks.iter().flatten().find_map(|task| task.plugin.as_ref())?;
        let role = match &*plugin.kind {
            "controller" => RoleChoice::Controller,
            "node" => RoleChoice::Node,
            "monolith" => RoleChoice::Monolith,
            _ => return None,
        };
        let job = Job { namespace: self.namespace.as_ref().into(), id: self.job_id.as_ref().into() };
        Some(Runs { plugin: PluginId::parse(&plugin.id).ok()?, role, job: Some(Arc::new(job)) })
    }

    /// Its stub: the values as they came, under Nomad's keys in Nomad's order.
    fn stub(&self, text: &RawValue) -> Result<Box<[u8]>, serde_json::Error> {
        let mut all: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text.get())?;
        all.retain(|key, _| STUB.iter().any(|(known, _)| known == key));
        for (key, left_out) in STUB {
            if !all.contains_key(key) {
                all.insert(key.into(), serde_json::from_str(left_out)?);
            }
        }
        if let Some(job) = &self.job {
            all.insert("JobType".into(), job.kind);
            all.insert("JobVersion".into(), job.version);
        }
        serde_json::to_vec(&all).map(Vec::into_boxed_slice)
    }
}
