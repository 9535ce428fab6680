//! What Nomad's clients and pages ask for beside plugins (`nomad-http.md` section 19), as far as it is true here: this
//! gateway is the one server of its region, and its own leader. What would have to be invented is not there.

use axum::http::{Method, Response, StatusCode};

use super::content::Content;
use super::error::{ApiError, text_response};
use super::meta::Meta;
use super::query::Query;
use super::right::Visitor;
use super::route::Target;
use super::wire::{cluster as wire, json};
use super::{State, json_response, plugins};
use crate::acl::{Denial, Secret, Who};
use crate::domain::time::Index;

/// Answers at once.
pub(super) fn answer(
    state: &State,
    target: Target,
    rest: &[u8],
    query: &Query<'_>,
    visitor: &Visitor,
    secret: Option<&Secret>,
) -> Result<Response<Content>, ApiError> {
    let settings = &state.settings;
    let (meta, body) = match target {
        Target::Leader => (None, json::compact(&settings.address)),
        Target::Peers => (None, json::compact(&[&settings.address])),
        Target::Regions => (None, json::compact(&[&settings.region])),
        Target::AgentHealth => return Ok(health(query)),
        Target::AgentSelf => {
            visitor.check(state, target, target.right(&Method::GET))?;
            let has_acls = state.access.is_some();
            (None, json::compact(&wire::AgentSelf::new(&settings.region, &settings.address, has_acls)))
        }
        Target::AgentMembers => {
            visitor.check(state, target, target.right(&Method::GET))?;
            (None, json::compact(&wire::Members::new(&settings.region, &settings.address)))
        }
        Target::License => {
            let mut nothing = Response::new(Content::default());
            *nothing.status_mut() = StatusCode::NO_CONTENT;
            return Ok(nothing);
        }
        Target::Namespaces => {
            query.check(&settings.region)?;
            visitor.check(state, target, target.right(&Method::GET))?;
            // At least one: a client that feeds zero back would never wait.
            let index = Index(state.reader.current().nomad_index().0.max(1));
            (Some(Meta::new(&state.reader, index)), json::compact(&namespaces(visitor)))
        }
        Target::TokenSelf => {
            query.check(&settings.region)?;
            let body = match visitor {
                Visitor::Anybody => json::compact(&wire::Token::without_acls()),
                Visitor::Known(asker) => match &asker.who {
                    Who::Token(token) => {
                        let secret = secret.map(Secret::reveal).unwrap_or_default();
                        json::compact(&wire::Token::of(token, &secret))
                    }
                    Who::Anonymous => json::compact(&wire::Token::anonymous()),
                    Who::Workload(..) => return Err(ApiError::NoSuchToken),
                },
                // The one place that says why a token is none.
                Visitor::Nobody(Denial::Expired) => return Err(ApiError::TokenExpired),
                Visitor::Nobody(Denial::Identity(fault)) => return Err(ApiError::NoIdentity(fault.as_nomads())),
                Visitor::Nobody(_) => return Err(visitor.refused(state, target, target.right(&Method::GET))),
            };
            (Some(Meta::new(&state.reader, Index(0))), body)
        }
        Target::Policy => {
            let name = String::from_utf8_lossy(plugins::id_of(rest)?);
            let Some(access) = &state.access else {
                return Ok(text_response(StatusCode::BAD_REQUEST, "ACL support disabled"));
            };
            query.check(&settings.region)?;
            let may = matches!(visitor, Visitor::Known(asker) if asker.has_policy(&name));
            if !may {
                return Err(visitor.refused(state, target, target.right(&Method::GET)));
            }
            let text = access.policy(&name).ok_or(ApiError::NoSuchPolicy)?;
            (Some(Meta::new(&state.reader, Index(0))), json::compact(&wire::Policy::new(&name, &text)))
        }
        _ => return Err(ApiError::NoSuchRoute),
    };
    let body = if query.is_pretty() { json::indented(&body) } else { body };
    Ok(json_response(meta, body))
}

/// Those that a visitor has any right in.
fn namespaces(visitor: &Visitor) -> Vec<wire::Namespace> {
    let one = wire::Namespace::default_one();
    if visitor.sees_namespace(one.name()) { vec![one] } else { Vec::new() }
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
