//! Our own endpoints under `/v1/gateway`: everything that is known. They take the parameters, wait and fail in Nomad's
//! manner; their index is that of anything they can show, which moves more often than Nomad's.

use axum::http::Response;
use axum::http::header::{HeaderName, HeaderValue};
use serde::Serialize;

use super::content::Content;
use super::error::{ApiError, Complaint};
use super::meta::Meta;
use super::query::{Blocking, Prefix, Query};
use super::route::Target;
use super::wire::{gateway as wire, json};
use super::{State, blocking, json_response, plugins};
use crate::domain::catalog::Catalog;
use crate::domain::id::{HostId, PluginId, Role};
use crate::domain::plugin::Plugin;
use crate::registry::allocations::Allocations;
use crate::registry::reader::Subject;
use crate::tls::server::Tls;

/// Transitions that may be stored and not yet visible, so that hiding them does not shorten an answer.
const IN_FLIGHT: usize = 256;
/// Where the next page begins.
const NEXT_TOKEN: HeaderName = HeaderName::from_static("x-nomad-nexttoken");
/// Transitions shown where the query does not say.
const USUAL_HISTORY: usize = 100;
/// Transitions shown at most.
const MOST_HISTORY: usize = 10_000;

/// A checked request.
pub(super) struct Asked {
    about: About,
    blocking: Blocking,
    is_pretty: bool,
}

enum About {
    Gateway,
    Plugins(Box<Filter>),
    Plugin { id: String },
    Hosts,
    Host { id: String },
    Sockets { host: Option<HostId> },
    History { plugin: Option<PluginId>, limit: usize },
}

impl Asked {
    /// Checks a request.
    pub(super) fn parse(state: &State, target: Target, rest: &[u8], query: &Query<'_>) -> Result<Self, ApiError> {
        let id = plugins::id_of(rest)?;
        let blocking = query.check(&state.settings.region)?;
        let about = match target {
            Target::GatewayPlugins => About::Plugins(Box::new(Filter::parse(query)?)),
            Target::GatewayPlugin if id.is_empty() => return Err(ApiError::MissingPluginId),
            Target::GatewayPlugin => About::Plugin { id: String::from_utf8_lossy(id).into_owned() },
            Target::GatewayHosts => About::Hosts,
            Target::GatewayHost if id.is_empty() => return Err(ApiError::MissingHostId),
            Target::GatewayHost => About::Host { id: String::from_utf8_lossy(id).into_owned() },
            Target::GatewaySockets => About::Sockets { host: host_of(query)? },
            Target::GatewayHistory => {
                About::History { plugin: plugin_of(query)?, limit: query.limit(USUAL_HISTORY, MOST_HISTORY)? }
            }
            // The router sends nothing else here.
            _ => About::Gateway,
        };
        Ok(Self { about, blocking, is_pretty: query.is_pretty() })
    }

    /// Waits and answers.
    pub(super) async fn answer(self, state: &State) -> Result<Response<Content>, ApiError> {
        let (meta, catalog) = blocking::newer(
            &state.reader,
            &state.shutdown,
            || Subject::Everything,
            self.blocking,
            |catalog| (catalog.index(), catalog),
        )
        .await;
        let (compact, next) = match &self.about {
            About::Plugins(filter) => filter.page(&catalog),
            about => (about.body(state, &catalog, meta).await?, None),
        };
        let body = if self.is_pretty { json::indented(&compact) } else { compact };
        let mut response = json_response(Some(meta), body);
        if let Some(next) = next.and_then(|id| HeaderValue::from_bytes(id.as_bytes()).ok()) {
            response.headers_mut().insert(NEXT_TOKEN, next);
        }
        Ok(response)
    }
}

impl About {
    async fn body(&self, state: &State, catalog: &Catalog, meta: Meta) -> Result<Vec<u8>, ApiError> {
        Ok(match self {
            About::Gateway => {
                let standing = state.reader.standing();
                let sockets = state.count_of_sockets();
                let events = state.sockets.events();
                let acl = state.access.as_ref().map(crate::acl::Access::standing);
                let orchestrator = state.allocations.as_ref().and_then(Allocations::orchestrator);
                let parts = wire::Parts {
                    acl: acl.as_ref(),
                    tls: state.tls.as_ref().map(Tls::standing),
                    orchestrator: orchestrator.as_ref(),
                    fleet: state.fleet.as_ref().map(|fleet| fleet.borrow().clone()),
                };
                json::compact(&wire::Gateway::new(catalog, &standing, sockets, &events, &state.settings, parts))
            }
            About::Plugins(filter) => filter.page(catalog).0,
            About::Plugin { id } => {
                let Some(plugin) = catalog.plugin(id) else {
                    return Err(ApiError::NoSuchPlugin(meta));
                };
                json::compact(&wire::PluginDetail::new(plugin, |path| state.sockets.get(path)))
            }
            About::Hosts => json::compact(&wire::hosts(catalog, &state.duplicates(), |host| state.agent(host))),
            About::Host { id } => {
                let duplicates = state.duplicates();
                let socket = |path: &str| state.sockets.get(path);
                let Some(host) = wire::HostDetail::new(catalog, id, &duplicates, state.agent(id), socket) else {
                    return Err(ApiError::NoSuchHost);
                };
                json::compact(&host)
            }
            About::Sockets { host } => {
                json::compact(&wire::SocketsView::new(&state.sockets_of(host.as_ref(), catalog)))
            }
            About::History { plugin, limit } => {
                let transitions =
                    state.history.history(plugin.clone(), limit + IN_FLIGHT).await.map_err(ApiError::Internal)?;
                // The store knows of a change before it is on disk, and a crash may still take that back.
                let visible = transitions.iter().filter(|transition| transition.index <= catalog.index());
                each(visible.take(*limit).map(wire::HistoryEntry::from))
            }
        })
    }
}

/// Which plugins are shown, and how many at once.
#[derive(Debug, Default)]
struct Filter {
    prefix: Prefix,
    health: Option<Health>,
    host: Option<HostId>,
    provider: Option<String>,
    /// The first id of the page.
    from: String,
    /// Zero: all.
    per_page: usize,
}

/// How a plugin is, as far as its instances add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    /// All of those that are expected are healthy.
    Healthy,
    /// Some of them are.
    Degraded,
    /// None is.
    Unhealthy,
}

impl Health {
    fn parse(value: &[u8]) -> Option<Self> {
        match value {
            b"healthy" => Some(Self::Healthy),
            b"degraded" => Some(Self::Degraded),
            b"unhealthy" => Some(Self::Unhealthy),
            _ => None,
        }
    }

    fn of(plugin: &Plugin) -> Self {
        let sum = |count: fn(&Plugin, Role) -> u32| count(plugin, Role::Controller) + count(plugin, Role::Node);
        match sum(|plugin, role| plugin.count(role).healthy) {
            0 => Self::Unhealthy,
            healthy if healthy >= sum(Plugin::expected) => Self::Healthy,
            _ => Self::Degraded,
        }
    }
}

impl Filter {
    fn parse(query: &Query<'_>) -> Result<Self, ApiError> {
        let text = |name: &str| query.filled(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let health = match query.filled("health") {
            Some(value) => Some(Health::parse(value).ok_or(ApiError::BadQuery(Complaint::Health))?),
            None => None,
        };
        let host = host_of(query)?;
        let from = text("next_token").unwrap_or_default();
        Ok(Self { prefix: query.prefix(), health, host, provider: text("provider"), from, per_page: query.per_page() })
    }

    fn shows(&self, plugin: &Plugin) -> bool {
        let id = plugin.id.as_str();
        id.starts_with(&self.prefix.text)
            && self.prefix.goes_on_in(id)
            && self.health.is_none_or(|health| health == Health::of(plugin))
            && self.provider.as_deref().is_none_or(|provider| provider == plugin.provider())
            && self.host.as_ref().is_none_or(|host| {
                [Role::Controller, Role::Node].into_iter().any(|role| plugin.instance(role, host.as_str()).is_some())
            })
    }

    /// A page, and the first id of the next one.
    fn page(&self, catalog: &Catalog) -> (Vec<u8>, Option<String>) {
        let mut shown = catalog.plugins().filter(|plugin| plugin.id.as_str() >= &*self.from && self.shows(plugin));
        let most = if self.per_page == 0 { usize::MAX } else { self.per_page };
        let page = each(shown.by_ref().take(most).map(|plugin| wire::PluginSum::from(&**plugin)));
        (page, shown.next().map(|plugin| plugin.id.to_string()))
    }
}

/// The host that is asked about; all where the query names none.
fn host_of(query: &Query<'_>) -> Result<Option<HostId>, ApiError> {
    let Some(value) = query.filled("host") else { return Ok(None) };
    HostId::parse(&String::from_utf8_lossy(value)).map(Some).map_err(|_| ApiError::BadQuery(Complaint::Host))
}

/// The plugin that history is asked of; all where the query names none.
fn plugin_of(query: &Query<'_>) -> Result<Option<PluginId>, ApiError> {
    let Some(value) = query.first("plugin").filter(|value| !value.is_empty()) else { return Ok(None) };
    let id = std::str::from_utf8(value).ok().and_then(|text| PluginId::parse(text).ok());
    id.map(Some).ok_or(ApiError::BadQuery(Complaint::Plugin))
}

fn each<T: Serialize>(elements: impl Iterator<Item = T>) -> Vec<u8> {
    json::compact(&elements.collect::<Vec<_>>())
}
