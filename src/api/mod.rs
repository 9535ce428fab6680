//! HTTP: Nomad's Plugins API to the letter, and the gateway's own.
//!
//! [`Api`] is pure: everything it answers comes from the handles in [`State`], and no handler calls a driver or the
//! store. axum is the outermost shell only; routes are matched as Go's router matches them (`route`), parameters read
//! as Nomad reads them (`query`), and only `wire` knows JSON names. A panic while a request is answered becomes a 500
//! for that request alone; its connection and all others go on.

mod blocking;
mod bodies;
mod cluster;
pub mod connections;
mod content;
mod error;
mod events;
mod feed;
mod forget;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gateway;
mod health;
mod meta;
mod metrics;
mod ownership;
mod plugins;
mod query;
mod right;
mod route;
mod search;
pub mod server;
pub mod sidecar;
mod stream;
mod ui;
pub mod wire;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION};
use axum::http::{Method, Response, StatusCode, Uri};
use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::acl::{Access, Secret};
use crate::domain::catalog::Catalog;
use crate::domain::fleet::FleetStanding;
use crate::domain::history::Transition;
use crate::domain::id::{HostId, PluginId};
use crate::domain::record::{Phase, SILENT_HOST};
use crate::domain::socket::{Duplicate, HostSockets};
use crate::metrics::Counters;
use crate::registry::agents::{Agent, Agents};
use crate::registry::allocations::Allocations;
use crate::registry::commands::Commands;
use crate::registry::history;
use crate::registry::reader::Reader;
use crate::registry::sockets::Sockets;
use crate::tls::server::Tls;
use bodies::Bodies;
use content::{Coding, Content, finish};
use error::ApiError;
use forget::Caller;
use meta::Meta;
use query::Query;
use right::{Refusals, Right, Visitor};
use route::{Resolved, Target};

pub use forget::names_of;
pub use query::WAIT_LIMIT;
pub use right::documented as rights;

/// OpenAPI 3.1 of everything that is served. Tests hold every reply to it.
const DESCRIPTION: &str = include_str!("openapi.json");

/// Why something behind a handle failed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Transitions, read on demand: newest first, of one plugin or of all, at most `limit`.
pub trait History: Send + Sync + 'static {
    /// Reads them.
    fn history(
        &self,
        plugin: Option<PluginId>,
        limit: usize,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<Transition>, BoxError>> + Send + '_>>;
}

impl History for history::History {
    fn history(
        &self,
        plugin: Option<PluginId>,
        limit: usize,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<Transition>, BoxError>> + Send + '_>> {
        Box::pin(async move { self.newest(plugin, limit).await.map_err(Into::into) })
    }
}

/// In which shape a plugin is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ReadShape {
    /// What Nomad's servers send and its clients read.
    #[default]
    Nomad,
    /// What Nomad's public page shows.
    Documented,
}

impl ReadShape {
    /// The shape by its name in flags and queries.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "nomad" => Some(Self::Nomad),
            "documented" => Some(Self::Documented),
            _ => None,
        }
    }
}

/// What the API is told once, at the start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The only region that is served.
    pub region: String,
    /// The shape of a read that does not ask for one.
    pub read_shape: ReadShape,
    /// Where this gateway is reached, `HOST:PORT`; empty where only a unix socket is.
    pub address: String,
    /// What this process is, for `/v1/gateway`: `standalone`, `agent`, `aggregator`.
    pub role: &'static str,
    /// Hosts that a command may name: names in lower case, addresses as Rust prints them.
    pub allowed_hosts: Vec<String>,
    /// Whether metrics are open to all where ACLs are on.
    pub is_metrics_open: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            region: "global".to_owned(),
            read_shape: ReadShape::Nomad,
            address: String::new(),
            role: "standalone",
            allowed_hosts: names_of([]),
            is_metrics_open: false,
        }
    }
}

/// Everything the API answers from.
pub struct State {
    reader: Reader,
    history: Arc<dyn History>,
    sockets: Sockets,
    settings: Settings,
    shutdown: CancellationToken,
    bodies: Bodies,
    /// `None`: no command is taken.
    commands: Option<Commands>,
    /// `None`: nobody says who runs a driver.
    allocations: Option<Allocations>,
    agents: Option<Agents>,
    /// `None`: ACLs are off.
    access: Option<Access>,
    /// `None`: plain HTTP is spoken.
    tls: Option<Tls>,
    /// `None`: a host of its own.
    fleet: Option<watch::Receiver<FleetStanding>>,
    refusals: Refusals,
    counters: Counters,
}

impl State {
    /// From handles. `shutdown` ends every wait with an answer.
    #[must_use]
    pub fn new(
        reader: Reader,
        history: Arc<dyn History>,
        sockets: Sockets,
        settings: Settings,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            reader,
            history,
            sockets,
            settings,
            shutdown,
            bodies: Bodies::default(),
            commands: None,
            allocations: None,
            agents: None,
            access: None,
            tls: None,
            fleet: None,
            refusals: Refusals::default(),
            counters: Counters::default(),
        }
    }

    /// Shows what these count, and counts requests there.
    #[must_use]
    pub fn with_counters(mut self, counters: Counters) -> Self {
        self.counters = counters;
        self
    }

    /// Takes commands, too.
    #[must_use]
    pub fn with_commands(mut self, commands: Commands) -> Self {
        self.commands = Some(commands);
        self
    }

    /// Shows allocations, too.
    #[must_use]
    pub fn with_allocations(mut self, allocations: Allocations) -> Self {
        self.allocations = Some(allocations);
        self
    }

    /// Asks everybody for their rights.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    fn agent(&self, host: &str) -> Option<Agent> {
        self.agents.as_ref()?.of(host)
    }

    /// How many sockets are known.
    fn count_of_sockets(&self) -> usize {
        self.agents.as_ref().map_or_else(|| self.sockets.all().len(), Agents::count_of_sockets)
    }

    /// Sockets that do not count beside others, on all hosts.
    fn duplicates(&self) -> Vec<Duplicate> {
        self.agents.as_ref().map_or_else(|| self.sockets.duplicates(), Agents::duplicates)
    }

    /// What is known of the sockets of one host, or of all.
    fn sockets_of(&self, host: Option<&HostId>, catalog: &Catalog) -> Vec<(HostId, HostSockets)> {
        if let Some(own) = self.sockets.host() {
            let is_asked = host.is_none_or(|host| host == own);
            return is_asked.then(|| (own.clone(), self.sockets.everything())).into_iter().collect();
        }
        let Some(agents) = &self.agents else { return Vec::new() };
        let mut all = agents.sockets(host);
        for (host, HostSockets { sockets, .. }) in &mut all {
            let is_silent = agents.of(host.as_str()).is_none();
            for status in sockets {
                if is_silent {
                    (status.phase, status.reason) = (Phase::Lost, SILENT_HOST.into());
                }
                status.complete(|role, plugin| {
                    let instance = catalog.plugin(plugin.as_str())?.instance(role, host.as_str())?;
                    Some(&instance.record)
                });
            }
        }
        all
    }

    /// Shows the agents of hosts, too.
    #[must_use]
    pub fn with_agents(mut self, agents: Agents) -> Self {
        self.agents = Some(agents);
        self
    }

    /// Says how it stands with its fleet's etcd, too.
    #[must_use]
    pub fn with_fleet(mut self, fleet: watch::Receiver<FleetStanding>) -> Self {
        self.fleet = Some(fleet);
        self
    }

    /// Says how TLS stands, too.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }
}

/// The whole API. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<State>);

impl Api {
    /// What answers from this.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self(Arc::new(state))
    }

    /// As a service of axum's, for whoever asks without a connection.
    pub fn router(&self) -> axum::Router {
        let api = self.clone();
        axum::Router::new().fallback(move |request: Request| async move { api.answer(request).await })
    }

    /// Answers one request. Connections come here without a router above: there is one route for axum, and finding it
    /// costs each of them more than answering it.
    async fn answer<B>(self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Self(state) = self;
        let (parts, body) = request.into_parts();
        let begun = Instant::now();
        // A body that nobody reads goes now. What is kept while a query waits is kept ten thousand times, so the headers go,
        // too.
        let body = (parts.method == Method::PUT || parts.method == Method::POST).then(|| Body::new(body));
        let caller = (parts.method == Method::DELETE).then(|| Caller::of(&parts, &state.settings.allowed_hosts));
        let coding = Coding::asked_for(&parts.headers);
        let visitor = Visitor::of(state.access.as_ref(), &parts.headers);
        let resolved = route::resolve(&parts.method, &parts.uri);
        // Kept for the one route that tells whoever knows it.
        let secret = matches!(resolved, Resolved::Route(Target::TokenSelf, _))
            .then(|| right::secret(&parts.headers).map(Box::new));
        // Nobody else has two.
        let is_metrics = parts.uri.path().ends_with("metrics");
        let format = if is_metrics { metrics::Format::asked_for(&parts.headers) } else { metrics::Format::Text };
        let (method, uri) = (parts.method, parts.uri);
        let resolved = route::resolve(&method, &uri);
        let route = match &resolved {
            Resolved::Route(target, _) => *target as usize,
            _ => route::TARGETS,
        };
        let told = Told { method: method.clone(), route };
        if let Resolved::Route(Target::Page, file) = &resolved {
            let response = ui::answer(&state, &method, file, &visitor, &parts.headers, coding);
            return told.count(&state, response, begun.elapsed());
        }
        drop(parts.headers);
        drop(parts.extensions);
        let (target, rest) = match resolved {
            Resolved::Route(target, rest) => (target, rest),
            Resolved::Redirect(location) => {
                return told.count(&state, finish(redirect(&method, &location), coding), begun.elapsed());
            }
            Resolved::Nothing => {
                let response = finish(ApiError::NoSuchRoute.into_response(), coding);
                return told.count(&state, response, begun.elapsed());
            }
            Resolved::Malformed => {
                // From below Nomad's router: it depends on nothing that was asked for.
                let mut response = Response::new(Body::from("400 Bad Request"));
                *response.status_mut() = StatusCode::BAD_REQUEST;
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                return told.count(&state, response, begun.elapsed());
            }
            Resolved::Server => return told.count(&state, Response::default(), begun.elapsed()),
        };
        let asking = Asking { method, uri, visitor, secret: secret.flatten(), caller, body, coding, format };
        let mut answering = std::pin::pin!(serve(&state, asking, target, rest));
        // Only the time in which something is done counts: between two polls it waits.
        let mut spent = begun.elapsed();
        let caught = std::future::poll_fn(|context| {
            let polled = Instant::now();
            let polling = catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(context)));
            spent += polled.elapsed();
            match polling {
                Ok(poll) => poll.map(Ok),
                Err(_) => Poll::Ready(Err("a handler panicked; see the message before this one")),
            }
        });
        let response = match caught.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => error.into_response(),
            Err(panic) => ApiError::Internal(panic.into()).into_response(),
        };
        let answered = Instant::now();
        let response = finish(response, coding);
        told.count(&state, response, spent + answered.elapsed())
    }
}

/// What of a request is counted with its answer.
struct Told {
    method: Method,
    route: usize,
}

impl Told {
    fn count(&self, state: &State, response: Response<Body>, spent: Duration) -> Response<Body> {
        let (method, code) = (self.method.as_str(), response.status().as_u16());
        state.counters.requests.answered(route::TARGETS + 1, self.route, method, code, spent);
        response
    }
}

/// What of a request its answer depends on.
struct Asking {
    method: Method,
    uri: Uri,
    visitor: Visitor,
    /// What was shown, for whoever asks about that.
    secret: Option<Box<Secret>>,
    /// `None`: it changes nothing, so nobody asks who it is.
    caller: Option<Caller>,
    /// `None`: it is not one that is read.
    body: Option<Body>,
    coding: Coding,
    /// How metrics would be written.
    format: metrics::Format,
}

async fn serve(
    state: &Arc<State>,
    asking: Asking,
    target: Target,
    rest: Vec<u8>,
) -> Result<Response<Content>, ApiError> {
    let Asking { method, uri, visitor, secret, caller, body, coding, format } = asking;
    let right = target.right(&method);
    match target {
        Target::Live | Target::Ready | Target::Metrics => {
            if method != Method::GET && method != Method::HEAD {
                return Err(ApiError::InvalidMethod);
            }
            visitor.check(state, target, right)?;
            return Ok(match target {
                Target::Live => health::live(),
                Target::Ready => health::ready(state),
                _ => metrics::answer(state, format),
            });
        }
        Target::GatewayPlugin if method == Method::DELETE => {
            let query = Query::parse(uri.query());
            // In a box of its own: what waits here is kept ten thousand times, and never for this.
            return Box::pin(forget::answer(state, &visitor, caller, &rest, &query)).await;
        }
        Target::Search | Target::FuzzySearch if method == Method::PUT || method == Method::POST => {
            let how = if target == Target::Search { search::How::Prefix } else { search::How::Fuzzy };
            let query = Query::parse(uri.query());
            return Box::pin(search::answer(state, how, body, &query, &visitor)).await;
        }
        Target::Search | Target::FuzzySearch => return Err(ApiError::InvalidMethod),
        _ if method != Method::GET => return Err(ApiError::InvalidMethod),
        _ => {}
    }
    drop((method, body));
    match target {
        Target::List => match plugins::List::parse(state, &Query::parse(uri.query()), &visitor)? {
            plugins::Listing::Trivial(response) => Ok(response),
            plugins::Listing::Asked(list) => {
                drop((uri, visitor));
                Ok(list.answer(state, coding).await)
            }
        },
        Target::Read => {
            let read = plugins::Read::parse(state, &rest, &Query::parse(uri.query()), visitor)?;
            drop((uri, rest));
            read.answer(state, coding).await
        }
        Target::Gateway
        | Target::GatewayPlugins
        | Target::GatewayPlugin
        | Target::GatewayHosts
        | Target::GatewayHost
        | Target::GatewaySockets
        | Target::GatewayHistory => {
            let asked = gateway::Asked::parse(state, target, &rest, &Query::parse(uri.query()))?;
            visitor.check(state, target, right)?;
            drop((uri, rest, visitor));
            asked.answer(state).await
        }
        Target::Description => Ok(json_response(None, DESCRIPTION)),
        Target::GatewayStream => feed::answer(state, &Query::parse(uri.query()), &visitor),
        Target::EventStream => events::answer(state, &Query::parse(uri.query()), &visitor),
        Target::Leader
        | Target::Peers
        | Target::Regions
        | Target::AgentHealth
        | Target::AgentSelf
        | Target::AgentMembers
        | Target::Namespaces
        | Target::TokenSelf
        | Target::Policy
        | Target::License => {
            cluster::answer(state, target, &rest, &Query::parse(uri.query()), &visitor, secret.as_deref())
        }
        Target::Page | Target::Live | Target::Ready | Target::Metrics | Target::Search | Target::FuzzySearch => {
            Err(ApiError::NoSuchRoute)
        }
    }
}

/// A JSON body with its meta headers.
fn json_response(meta: Option<Meta>, body: impl Into<Content>) -> Response<Content> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(meta) = meta {
        meta.write(response.headers_mut());
    }
    response
}

/// What Go's router sends; 307 since Go 1.26, so since Nomad 2.0.
fn redirect(method: &Method, location: &str) -> Response<Content> {
    let Ok(header) = HeaderValue::from_str(location) else { return ApiError::NoSuchRoute.into_response() };
    let body = if *method == Method::GET {
        let escaped = location.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let escaped = escaped.replace('"', "&#34;").replace('\'', "&#39;");
        format!("<a href=\"{escaped}\">Temporary Redirect</a>.\n\n").into()
    } else {
        Content::default()
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, header);
    if *method == Method::GET || *method == Method::HEAD {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    }
    response
}
