//! Our own endpoints under `/v1/gateway`: everything that is known. They take the parameters, wait and fail in Nomad's
//! manner; their index is that of anything they can show, which moves more often than Nomad's.

use axum::http::Response;
use serde::Serialize;

use super::content::Content;
use super::error::{ApiError, Complaint};
use super::meta::Meta;
use super::query::{Blocking, Query};
use super::route::Target;
use super::wire::{gateway as wire, json};
use super::{State, blocking, json_response, plugins};
use crate::domain::catalog::Catalog;
use crate::domain::id::PluginId;
use crate::domain::time::Index;
use crate::registry::reader::Subject;

/// Transitions that may be stored and not yet visible, so that hiding them does not shorten an answer.
const IN_FLIGHT: usize = 256;
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
    Plugins { prefix: String },
    Plugin { id: String },
    Hosts,
    Sockets,
    History { plugin: Option<PluginId>, limit: usize },
}

impl Asked {
    /// Checks a request.
    pub(super) fn parse(state: &State, target: Target, rest: &[u8], query: &Query<'_>) -> Result<Self, ApiError> {
        let id = plugins::id_of(rest)?;
        let blocking = query.check(&state.settings.region)?;
        let about = match target {
            Target::GatewayPlugins => About::Plugins { prefix: query.prefix().text },
            Target::GatewayPlugin if id.is_empty() => return Err(ApiError::MissingPluginId),
            Target::GatewayPlugin => About::Plugin { id: String::from_utf8_lossy(id).into_owned() },
            Target::GatewayHosts => About::Hosts,
            Target::GatewaySockets => About::Sockets,
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
        let (index, catalog) = blocking::newer(
            &state.reader,
            &state.shutdown,
            || Subject::Everything,
            self.blocking,
            |catalog| (catalog.index(), catalog),
        )
        .await;
        let meta = Meta::new(&state.reader, index);
        let compact = self.body(state, &catalog, index).await?;
        let body = if self.is_pretty { json::indented(&compact) } else { compact };
        Ok(json_response(Some(meta), body))
    }

    async fn body(&self, state: &State, catalog: &Catalog, index: Index) -> Result<Vec<u8>, ApiError> {
        Ok(match &self.about {
            About::Gateway => {
                let standing = state.reader.standing();
                let sockets = state.sockets.all().len();
                let settings = &state.settings;
                json::compact(&wire::Gateway::new(catalog, &standing, sockets, settings.role, &settings.region))
            }
            About::Plugins { prefix } => {
                let under = catalog.plugins().filter(|plugin| plugin.id.as_str().starts_with(prefix.as_str()));
                each(under.map(|plugin| wire::PluginSum::from(&**plugin)))
            }
            About::Plugin { id } => {
                let Some(plugin) = catalog.plugin(id) else {
                    return Err(ApiError::NoSuchPlugin(Meta::new(&state.reader, index)));
                };
                json::compact(&wire::PluginDetail::new(plugin, |path| state.sockets.get(path)))
            }
            About::Hosts => json::compact(&wire::hosts(catalog, &state.sockets.duplicates())),
            About::Sockets => json::compact(&wire::SocketsView::new(&state.sockets.searched(), &state.sockets.all())),
            About::History { plugin, limit } => {
                let transitions =
                    state.history.history(plugin.clone(), limit + IN_FLIGHT).await.map_err(ApiError::Internal)?;
                // The store knows of a change before it is on disk, and a crash may still take that back.
                let visible = transitions.iter().filter(|transition| transition.index <= index);
                each(visible.take(*limit).map(wire::HistoryEntry::from))
            }
        })
    }
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
