//! `DELETE /v1/gateway/plugin/:id`: forgets instances that are dead. The only request that changes anything.
//!
//! With ACLs it takes a management token, from wherever. Without them it is taken from this machine alone, over loopback or a unix socket, and only under a name of ours: a
//! web page whose name was made to point at this address (DNS rebinding) asks under its own.

use std::net::IpAddr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::{Response, request};
use tracing::{info, warn};

use super::content::Content;
use super::error::{ApiError, Complaint};
use super::meta::Meta;
use super::query::Query;
use super::right::{Right, Visitor};
use super::route::Target;
use super::server::Client;
use super::wire::{gateway as wire, json};
use super::{State, json_response, plugins};
use crate::domain::id::{HostId, PluginId};
use crate::domain::time::Index;
use crate::registry::commands::ForgetError;

/// Whether a command is taken from whoever sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// It is.
    Trusted(Client),
    /// It comes from another machine.
    Remote,
    /// It names a host that we are not.
    StrangeHost,
}

impl Caller {
    /// Judges a request by what comes with it. `allowed` are names and addresses as [`host_name`] gives them.
    pub(super) fn of(parts: &request::Parts, allowed: &[String]) -> Self {
        let client = parts.extensions.get::<Client>().copied().unwrap_or(Client::Remote);
        if client == Client::Remote {
            return Self::Remote;
        }
        let is_known = |authority: &str| host_name(authority).is_some_and(|name| allowed.contains(&name));
        let mut hosts = parts.headers.get_all(HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        let is_one = host.is_some() && hosts.next().is_none();
        let origin = match parts.headers.get(ORIGIN) {
            // Browsers say on whose behalf they ask; nobody else does.
            Some(origin) => origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host),
            None => host,
        };
        let target = parts.uri.authority().map(axum::http::uri::Authority::as_str).or(host);
        if is_one && [host, origin, target].into_iter().all(|name| name.is_some_and(is_known)) {
            Self::Trusted(client)
        } else {
            Self::StrangeHost
        }
    }
}

/// The name or address in `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`, in one spelling; `None` where there is none.
pub(super) fn host_name(authority: &str) -> Option<String> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let address: IpAddr = address.parse().ok()?;
        return (port.is_empty() || is_port(port.strip_prefix(':')?)).then(|| address.to_string());
    }
    let name = match authority.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return None,
        None => authority,
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

/// The names under which a gateway is known that listens on these addresses (`HOST:PORT`, `unix:///PATH`).
#[must_use]
pub fn names_of<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for name in addresses.into_iter().filter(|address| !address.starts_with("unix:")).filter_map(host_name) {
        let is_any = name.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
        if !is_any && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Answers the request.
pub(super) async fn answer(
    state: &State,
    visitor: &Visitor,
    caller: Option<Caller>,
    rest: &[u8],
    query: &Query<'_>,
) -> Result<Response<Content>, ApiError> {
    // An aggregator of another's hosts, or a test: there is nobody to tell.
    let Some(commands) = &state.commands else { return Err(ApiError::InvalidMethod) };
    let client = match (visitor, caller) {
        (Visitor::Anybody, Some(Caller::Trusted(client))) => client.to_string(),
        (Visitor::Anybody, Some(Caller::StrangeHost)) => return Err(ApiError::StrangeHost),
        (Visitor::Anybody, Some(Caller::Remote) | None) => return Err(ApiError::OnlyFromHere),
        // No page that was made to point here has a token, so it does not matter where it comes from.
        (Visitor::Known(asker), _) => {
            visitor.check(state, Target::GatewayPlugin, Right::Management)?;
            format!("token {}", asker.accessor())
        }
        (Visitor::Nobody(_), _) => return Err(visitor.refused(state, Target::GatewayPlugin, Right::Management)),
    };
    let id = plugins::id_of(rest)?;
    query.check(&state.settings.region)?;
    if id.is_empty() {
        return Err(ApiError::MissingPluginId);
    }
    let host = match query.first("host").filter(|value| !value.is_empty()) {
        Some(value) => Some(host_of(value).ok_or(ApiError::BadQuery(Complaint::Host))?),
        None => None,
    };
    let missing = || ApiError::NoSuchPlugin(Meta::new(&state.reader, Index(0)));
    let plugin = std::str::from_utf8(id).ok().and_then(|text| PluginId::parse(text).ok()).ok_or_else(missing)?;
    let forgotten = commands.forget(plugin.clone(), host).await;
    match forgotten {
        Ok(forgotten) => {
            for record in &forgotten.records {
                let key = &record.key;
                warn!(
                    plugin.id = %key.plugin, role = key.role.as_str(), host.id = %key.host, socket = %record.socket,
                    phase = %record.phase, client = %client, "forgotten by request"
                );
            }
            let meta = Meta::new(&state.reader, forgotten.index);
            let compact = json::compact(&wire::Forgotten::from(&forgotten));
            let body = if query.is_pretty() { json::indented(&compact) } else { compact };
            Ok(json_response(Some(meta), body))
        }
        Err(ForgetError::NoSuchPlugin) => Err(missing()),
        Err(ForgetError::NoSuchInstance) => Err(ApiError::NoSuchInstance),
        Err(ForgetError::Alive(alive)) => {
            info!(plugin.id = %plugin, alive = alive.len(), client = %client, "not forgotten: it is alive");
            Err(ApiError::Alive(alive))
        }
        Err(ForgetError::OnLiveHosts(keys)) => Err(ApiError::OnLiveHosts(keys)),
        Err(error @ (ForgetError::Stopping | ForgetError::Unwritten)) => Err(ApiError::Internal(error.into())),
    }
}

fn host_of(value: &[u8]) -> Option<HostId> {
    HostId::parse(std::str::from_utf8(value).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(client: Option<Client>, uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = axum::http::Request::delete(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).expect("a legal request").into_parts();
        parts.extensions.extend(
            client
                .map(|client| {
                    let mut extensions = axum::http::Extensions::new();
                    extensions.insert(client);
                    extensions
                })
                .unwrap_or_default(),
        );
        parts
    }

    fn judged(uri: &str, headers: &[(&str, &str)]) -> Caller {
        Caller::of(&parts(Some(Client::Loopback), uri, headers), &names_of(["10.1.2.3:4649", "[::]:80", "unix:///x"]))
    }

    #[test]
    fn only_names_of_ours_are_known_however_they_are_spelt() {
        let trusted = Caller::Trusted(Client::Loopback);
        for host in ["localhost", "LocalHost:4649", "localhost.", "127.0.0.1:1", "[::1]:4649", "[0:0::1]", "10.1.2.3"] {
            assert_eq!(judged("/x", &[("Host", host)]), trusted, "{host}");
        }
        for host in
            ["", "evil.example.com", "localhost.evil.example.com", "localhost:evil", "[::]", "::1", "0.0.0.0", "[::1]x"]
        {
            assert_eq!(judged("/x", &[("Host", host)]), Caller::StrangeHost, "{host}");
        }
        assert_eq!(judged("/x", &[]), Caller::StrangeHost);
    }

    #[test]
    fn every_name_that_a_request_gives_must_be_known() {
        let strange = Caller::StrangeHost;
        assert_eq!(judged("/x", &[("Host", "localhost"), ("Host", "localhost")]), strange);
        assert_eq!(judged("http://evil.example.com/x", &[("Host", "localhost")]), strange);
        assert_eq!(judged("/x", &[("Host", "localhost"), ("Origin", "http://evil.example.com")]), strange);
        assert_eq!(judged("/x", &[("Host", "localhost"), ("Origin", "null")]), strange);
        let own = judged("/x", &[("Host", "localhost:1"), ("Origin", "http://localhost:1")]);
        assert_eq!(own, Caller::Trusted(Client::Loopback));
    }

    #[test]
    fn whoever_comes_from_elsewhere_is_not_trusted_under_any_name() {
        let names = names_of([]);
        assert_eq!(Caller::of(&parts(Some(Client::Remote), "/x", &[("Host", "localhost")]), &names), Caller::Remote);
        assert_eq!(Caller::of(&parts(None, "/x", &[("Host", "localhost")]), &names), Caller::Remote);
    }
}
