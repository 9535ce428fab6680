//! What a request can fail with, and what the client is told: Nomad's words where Nomad has some.

use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Response, StatusCode};
use tracing::error;

use super::content::Content;
use super::meta::Meta;
use crate::domain::id::InstanceKey;

/// What is wrong with a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Complaint {
    /// `stale` is neither true nor false.
    Stale,
    /// `per_page` is no number.
    PerPage,
    /// `wait` is no Go duration.
    Wait,
    /// `index` is no unsigned number.
    Index,
    /// `limit` is no positive number (ours).
    Limit,
    /// `plugin` cannot be a plugin's id (ours).
    Plugin,
    /// `host` cannot be a host's id (ours).
    Host,
    /// `health` is none of its words (ours).
    Health,
}

impl Complaint {
    fn text(self) -> &'static str {
        match self {
            Self::Stale => "Expect `true` or `false` for `stale` query string parameter",
            Self::PerPage => "Expect a number for `per_page` query string parameter",
            Self::Wait => "Invalid wait time",
            Self::Index => "Invalid index",
            Self::Limit => "Expect a positive number for `limit` query string parameter",
            Self::Plugin => "Expect a plugin ID for `plugin` query string parameter",
            Self::Health => "Expect `healthy`, `degraded` or `unhealthy` for `health` query string parameter",
            Self::Host => "Expect a host ID for `host` query string parameter",
        }
    }
}

/// Why a request is not answered with a body.
#[derive(Debug)]
pub(super) enum ApiError {
    /// A parameter is malformed.
    BadQuery(Complaint),
    /// A stream that cannot be: why.
    BadStream(String),
    /// Another method than the route takes.
    InvalidMethod,
    /// No such route; Nomad's router says nothing at all.
    NoSuchRoute,
    /// A path with too many segments below a plugin.
    NoSuchResource,
    /// No plugin of that id; the only error with `X-Nomad-*`.
    NoSuchPlugin(Meta),
    /// The plugin is known, and not on the host that was named (ours).
    NoSuchInstance,
    /// No host of that id has an instance (ours).
    NoSuchHost,
    /// What should be forgotten is alive (ours): these.
    Alive(Vec<InstanceKey>),
    /// What should be forgotten is another agent's to forget (ours): these.
    OnLiveHosts(Vec<InstanceKey>),
    /// A command from another machine (ours).
    OnlyFromHere,
    /// A command that names a host that we are not (ours).
    StrangeHost,
    /// A read without an id.
    MissingPluginId,
    /// A read of a host without an id (ours).
    MissingHostId,
    /// Whoever asks may not, in Nomad's words.
    Denied,
    /// Whoever asks may not, and this is what is missing (ours).
    Lacking(&'static str),
    /// A token that was one; only where a token is asked about itself.
    TokenExpired,
    /// An identity that is not believed, and why; only there, too.
    NoIdentity(&'static str),
    /// An identity, where a token is asked for.
    NoSuchToken,
    /// No policy of that name.
    NoSuchPolicy,
    /// A region that is not ours.
    NoPathToRegion,
    /// Our own trouble: told to the log, not to the client.
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

impl ApiError {
    /// The answer to the client.
    pub(super) fn into_response(self) -> Response<Content> {
        let (status, text, meta) = match self {
            Self::BadQuery(complaint) => (StatusCode::BAD_REQUEST, complaint.text(), None),
            Self::BadStream(text) => return text_response(StatusCode::BAD_REQUEST, text),
            Self::InvalidMethod => (StatusCode::METHOD_NOT_ALLOWED, "Invalid method", None),
            Self::NoSuchRoute => (StatusCode::NOT_FOUND, "", None),
            Self::NoSuchResource => (StatusCode::NOT_FOUND, "resource not found", None),
            Self::NoSuchPlugin(meta) => (StatusCode::NOT_FOUND, "plugin not found", Some(meta)),
            Self::NoSuchInstance => (StatusCode::NOT_FOUND, "the plugin has no instance on this host", None),
            Self::NoSuchHost => (StatusCode::NOT_FOUND, "host not found", None),
            Self::Alive(keys) => return text_response(StatusCode::CONFLICT, alive_text(&keys)),
            Self::OnLiveHosts(keys) => return text_response(StatusCode::CONFLICT, live_hosts_text(&keys)),
            Self::OnlyFromHere => (
                StatusCode::FORBIDDEN,
                "Permission denied: this is taken over loopback or a unix socket only; ask on the gateway's own machine",
                None,
            ),
            Self::StrangeHost => (
                StatusCode::FORBIDDEN,
                "Permission denied: the Host header names no host of this gateway; see its --allowed-hosts",
                None,
            ),
            Self::Denied => (StatusCode::FORBIDDEN, "Permission denied", None),
            Self::Lacking(rule) => {
                return text_response(StatusCode::FORBIDDEN, format!("Permission denied: this needs {rule}"));
            }
            Self::TokenExpired => (StatusCode::INTERNAL_SERVER_ERROR, "ACL token expired", None),
            Self::NoIdentity(why) => (StatusCode::INTERNAL_SERVER_ERROR, why, None),
            Self::NoSuchToken => (StatusCode::NOT_FOUND, "ACL token not found", None),
            Self::NoSuchPolicy => (StatusCode::NOT_FOUND, "ACL policy not found", None),
            Self::MissingPluginId => (StatusCode::INTERNAL_SERVER_ERROR, "missing plugin ID", None),
            Self::MissingHostId => (StatusCode::INTERNAL_SERVER_ERROR, "missing host ID", None),
            Self::NoPathToRegion => (StatusCode::INTERNAL_SERVER_ERROR, "No path to region", None),
            Self::Internal(cause) => {
                error!(error = %chain(&*cause), "a request failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "internal error", None)
            }
        };
        let mut response = text_response(status, text);
        if let Some(meta) = meta {
            meta.write(response.headers_mut());
        }
        response
    }
}

/// A plain text, or nothing at all, without a type then.
pub(super) fn text_response(status: StatusCode, text: impl Into<Content> + AsRef<str>) -> Response<Content> {
    let is_empty = text.as_ref().is_empty();
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    if !is_empty {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    response
}

/// Names instances that are alive, not all of thousands.
/// Why an aggregator does not forget it, and who would.
fn live_hosts_text(keys: &[InstanceKey]) -> String {
    let mut hosts: Vec<&str> = keys.iter().map(|key| key.host.as_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let shown: Vec<&str> = hosts.iter().take(5).copied().collect();
    let more = if hosts.len() > shown.len() { ", …" } else { "" };
    format!(
        "not forgotten: the agents of {}{more} are there and would tell of it again; ask them, or wait until it is retired",
        shown.join(", ")
    )
}

fn alive_text(keys: &[InstanceKey]) -> String {
    const NAMED: usize = 10;
    let names = keys.iter().take(NAMED).map(|key| format!("{} on {}", key.role.as_str(), key.host));
    let mut names: Vec<String> = names.collect();
    if keys.len() > NAMED {
        names.push(format!("{} more", keys.len() - NAMED));
    }
    format!("still alive: {}; only what is dead can be forgotten", names.join(", "))
}

/// An error and its sources, joined.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
