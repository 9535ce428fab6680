//! What Nomad's clients and pages ask for beside plugins (`nomad-http.md` section 19), as far as it is true here: this
//! gateway is the one server of its region, and its own leader. What would have to be invented is not there.

use axum::http::{Response, StatusCode};

use super::content::Content;
use super::error::{ApiError, text_response};
use super::meta::Meta;
use super::query::Query;
use super::route::Target;
use super::wire::{cluster as wire, json};
use super::{State, json_response, plugins};
use crate::domain::time::Index;

/// Answers at once.
pub(super) fn answer(
    state: &State,
    target: Target,
    rest: &[u8],
    query: &Query<'_>,
) -> Result<Response<Content>, ApiError> {
    let settings = &state.settings;
    let (meta, body) = match target {
        Target::Leader => (None, json::compact(&settings.address)),
        Target::Peers => (None, json::compact(&[&settings.address])),
        Target::Regions => (None, json::compact(&[&settings.region])),
        Target::AgentHealth => return Ok(health(query)),
        Target::AgentSelf => (None, json::compact(&wire::AgentSelf::new(&settings.region, &settings.address))),
        Target::AgentMembers => (None, json::compact(&wire::Members::new(&settings.region, &settings.address))),
        Target::License => {
            let mut nothing = Response::new(Content::default());
            *nothing.status_mut() = StatusCode::NO_CONTENT;
            return Ok(nothing);
        }
        Target::Namespaces => {
            query.check(&settings.region)?;
            // At least one: a client that feeds zero back would never wait.
            let index = Index(state.reader.current().nomad_index().0.max(1));
            (Some(Meta::new(&state.reader, index)), json::compact(&[wire::Namespace::default_one()]))
        }
        Target::TokenSelf => {
            query.check(&settings.region)?;
            (Some(Meta::new(&state.reader, Index(0))), json::compact(&wire::Token::without_acls()))
        }
        Target::Policy => {
            plugins::id_of(rest)?;
            return Ok(text_response(StatusCode::BAD_REQUEST, "ACL support disabled"));
        }
        _ => return Err(ApiError::NoSuchRoute),
    };
    let body = if query.is_pretty() { json::indented(&body) } else { body };
    Ok(json_response(meta, body))
}

/// A server, and no client, that is well as long as it answers.
fn health(query: &Query<'_>) -> Response<Content> {
    let (is_server, is_client) = match query.first("type").unwrap_or_default() {
        b"client" => (false, true),
        _ => (true, false),
    };
    let body = json::compact(&wire::AgentHealth::new(is_server, is_client));
    if is_client {
        let text = String::from_utf8_lossy(&body).into_owned();
        return text_response(StatusCode::INTERNAL_SERVER_ERROR, text);
    }
    let body = if query.is_pretty() { json::indented(&body) } else { body };
    json_response(None, body)
}
