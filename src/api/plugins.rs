//! Nomad's two endpoints: parse, wait, project. The order of checks is Nomad's (`nomad-http.md` section 3).

use std::sync::Arc;

use axum::http::Response;

use super::bodies::Form;
use super::content::{Coding, Content};
use super::error::ApiError;
use super::query::{Blocking, Prefix, Query};
use super::route::Target;
use super::wire::{json, nomad};
use super::{Right, State, Visitor, blocking, json_response};
use crate::domain::catalog::Catalog;
use crate::domain::plugin::Plugin;
use crate::domain::time::Index;
use crate::registry::reader::Subject;

/// A checked request for the list.
pub(super) struct List {
    blocking: Blocking,
    prefix: Prefix,
    is_pretty: bool,
}

/// What a request for the list comes to.
pub(super) enum Listing {
    /// Not about CSI plugins: answered without looking at anything else.
    Trivial(Response<Content>),
    /// To be answered from the catalog.
    Asked(List),
}

impl List {
    /// Checks a request.
    pub(super) fn parse(state: &State, query: &Query<'_>, visitor: &Visitor) -> Result<Listing, ApiError> {
        match query.first("type") {
            None => {
                let body = if query.is_pretty() { "[]\n" } else { "[]" };
                return Ok(Listing::Trivial(json_response(None, body)));
            }
            // Nomad answers nothing at all: no type, no body.
            Some(other) if other != b"csi" => return Ok(Listing::Trivial(Response::default())),
            Some(_) => {}
        }
        let blocking = query.check(&state.settings.region)?;
        visitor.check(state, Target::List, Right::ListPlugins)?;
        Ok(Listing::Asked(Self { blocking, prefix: query.prefix(), is_pretty: query.is_pretty() }))
    }

    /// Waits and answers.
    pub(super) async fn answer(self, state: &State, coding: Coding) -> Response<Content> {
        let subject = || Subject::List(self.prefix.text.clone());
        let (meta, catalog) = blocking::newer(&state.reader, &state.shutdown, subject, self.blocking, |catalog| {
            (catalog.nomad_index(), catalog)
        })
        .await;
        json_response(Some(meta), self.body(state, &catalog, coding))
    }

    fn body(&self, state: &State, catalog: &Catalog, coding: Coding) -> Content {
        if self.prefix.is_empty() && !self.is_pretty {
            return state.bodies.list(catalog, coding);
        }
        let under = catalog.counting_plugins(&self.prefix.text).map(|plugin| &**plugin);
        let compact = nomad::list_body(under.filter(|plugin| self.prefix.goes_on_in(plugin.id.as_str())));
        if self.is_pretty { json::indented(&compact).into() } else { compact.into() }
    }
}

/// A checked request for one plugin.
pub(super) struct Read {
    blocking: Blocking,
    /// `None` where it is no text, and so no plugin's.
    id: Option<String>,
    form: Form,
    /// Whose allocations are shown; `None` where there are none to show, or none that may be.
    namespace: Option<Box<str>>,
    visitor: Visitor,
}

/// The id in what follows a subtree's root: the first of one or two segments, whatever the second is.
pub(super) fn id_of(rest: &[u8]) -> Result<&[u8], ApiError> {
    let mut segments = rest.split(|byte| *byte == b'/');
    let id = segments.next().unwrap_or_default();
    if segments.nth(1).is_some() { Err(ApiError::NoSuchResource) } else { Ok(id) }
}

impl Read {
    /// Checks a request.
    pub(super) fn parse(state: &State, rest: &[u8], query: &Query<'_>, visitor: Visitor) -> Result<Self, ApiError> {
        let id = id_of(rest)?;
        let blocking = query.check(&state.settings.region)?;
        visitor.check(state, Target::Read, Right::ReadPlugins)?;
        if id.is_empty() {
            return Err(ApiError::MissingPluginId);
        }
        let form = Form { shape: query.shape().unwrap_or(state.settings.read_shape), is_pretty: query.is_pretty() };
        let namespace = state.allocations.as_ref().map(|_| query.namespace());
        // Asked once, as in Nomad: a token that is revoked meanwhile still gets its answer.
        let namespace = namespace.filter(|namespace| visitor.may_read_jobs(namespace));
        Ok(Self { blocking, id: String::from_utf8(id.to_vec()).ok(), form, namespace, visitor })
    }

    /// Waits and answers.
    pub(super) async fn answer(self, state: &State, coding: Coding) -> Result<Response<Content>, ApiError> {
        let subject = || Subject::Plugin(self.id.clone().unwrap_or_default());
        let (meta, plugin) = blocking::newer(&state.reader, &state.shutdown, subject, self.blocking, |catalog| {
            let plugin = self.id.as_deref().and_then(|id| catalog.counting_plugin(id)).map(Arc::clone);
            (if plugin.is_some() { catalog.nomad_index() } else { Index(0) }, plugin)
        })
        .await;
        match plugin {
            Some(plugin) => Ok(json_response(Some(meta), self.body(state, &plugin, coding))),
            None => Err(ApiError::NoSuchPlugin(meta)),
        }
    }

    fn body(&self, state: &State, plugin: &Arc<Plugin>, coding: Coding) -> Content {
        let (Some(allocations), Some(namespace)) = (&state.allocations, &self.namespace) else {
            return state.bodies.read(plugin, self.form, coding);
        };
        let mut shown = allocations.of(plugin, namespace);
        shown.retain(|one| self.visitor.may_read_jobs(&one.namespace));
        state.bodies.read_with(plugin, self.form, coding, &shown)
    }
}
