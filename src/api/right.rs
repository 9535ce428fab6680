//! Which right each route needs: the one table, from which checks, tests and the README's table come; and who asks.
//!
//! Nomad's routes need what they need in Nomad (`nomad-http.md` sections 10 and 19), with its words for whoever lacks it.
//! With ACLs off nobody is asked for anything, and a request costs one comparison more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};
use tracing::info;

use super::State;
use super::error::ApiError;
use super::route::{self, Target};
use crate::acl::{Access, Asker, Changes, Denial, Secret};
use crate::domain::time::Timestamp;

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// Nothing, not even that its token is one.
    Open,
    /// To list plugins.
    ListPlugins,
    /// To read plugins.
    ReadPlugins,
    /// To read the agent.
    ReadAgent,
    /// To read hosts.
    ReadNodes,
    /// As [`Self::ReadAgent`], or nothing, as the operator chose.
    Metrics,
    /// That jobs may be read in the namespace that is asked for.
    Events,
    /// As much as it shows: contexts of a search.
    Contexts,
    /// As much as it shows: namespaces.
    Namespaces,
    /// To be oneself.
    Own,
    /// Everything.
    Management,
}

impl Right {
    /// As the documentation says it.
    fn described(self) -> &'static str {
        match self {
            Self::Open => "nothing",
            Self::ListPlugins => "`plugin` `list` or `read`",
            Self::ReadPlugins => "`plugin` `read`",
            Self::ReadAgent => "`agent` `read`",
            Self::ReadNodes => "`node` `read`",
            Self::Metrics => "`agent` `read`; nothing with `--acl-metrics=open`",
            Self::Events => "`read-job` in the namespace asked for; topic `*` or none: a management token",
            Self::Contexts => "context `plugins`: `plugin` `list` or `read`; `namespaces`: any right in one",
            Self::Namespaces => "a valid token or none; any right in a namespace shows it",
            Self::Own => "a valid token or none; what is its own",
            Self::Management => "a management token",
        }
    }

    /// What a policy would have to say, for logs and for our own refusals.
    fn rule(self) -> &'static str {
        match self {
            Self::Open | Self::Namespaces | Self::Own => "a valid token, or none",
            Self::ListPlugins | Self::Contexts => "plugin { policy = \"list\" } or \"read\"",
            Self::ReadPlugins => "plugin { policy = \"read\" }",
            Self::ReadAgent | Self::Metrics => "agent { policy = \"read\" }",
            Self::ReadNodes => "node { policy = \"read\" }",
            Self::Events => "namespace \"…\" { capabilities = [\"read-job\"] }, or a management token for all topics",
            Self::Management => "a management token",
        }
    }
}

impl Target {
    /// What a request for it needs.
    pub(super) fn right(self, method: &Method) -> Right {
        match self {
            Self::List => Right::ListPlugins,
            Self::GatewayPlugin if method == Method::DELETE => Right::Management,
            Self::Read
            | Self::Gateway
            | Self::GatewayPlugins
            | Self::GatewayPlugin
            | Self::GatewayHosts
            | Self::GatewaySockets
            | Self::GatewayHistory
            | Self::GatewayStream
            | Self::GatewayHost => Right::ReadPlugins,
            Self::EventStream => Right::Events,
            Self::Search | Self::FuzzySearch => Right::Contexts,
            Self::AgentSelf => Right::ReadAgent,
            Self::AgentMembers => Right::ReadNodes,
            Self::Namespaces => Right::Namespaces,
            Self::TokenSelf | Self::Policy => Right::Own,
            Self::Metrics => Right::Metrics,
            Self::Leader
            | Self::Peers
            | Self::Regions
            | Self::AgentHealth
            | Self::License
            // Files that are the same for everybody; what they show, they ask for with the reader's own token.
            | Self::Page
            | Self::Description
            | Self::Live
            | Self::Ready => Right::Open,
        }
    }

    /// Whether the route is ours, and not Nomad's: then a refusal says what is missing.
    fn is_ours(self) -> bool {
        match self {
            Self::Gateway
            | Self::GatewayPlugins
            | Self::GatewayPlugin
            | Self::GatewayHosts
            | Self::GatewaySockets
            | Self::GatewayHistory
            | Self::GatewayStream
            | Self::GatewayHost
            | Self::Page
            | Self::Description
            | Self::Live
            | Self::Ready
            | Self::Metrics => true,
            Self::List
            | Self::Read
            | Self::EventStream
            | Self::Search
            | Self::FuzzySearch
            | Self::Leader
            | Self::Peers
            | Self::Regions
            | Self::AgentHealth
            | Self::AgentSelf
            | Self::AgentMembers
            | Self::Namespaces
            | Self::TokenSelf
            | Self::Policy
            | Self::License => false,
        }
    }
}

/// A route as it is documented: method, path, what it needs.
#[must_use]
pub fn documented() -> Vec<(&'static str, String, &'static str)> {
    let mut rows = Vec::new();
    for (path, target) in route::all() {
        let methods: &[Method] = match target {
            Target::Search | Target::FuzzySearch => &[Method::PUT],
            Target::GatewayPlugin => &[Method::GET, Method::DELETE],
            _ => &[Method::GET],
        };
        for method in methods {
            let name = match *method {
                Method::PUT => "PUT",
                Method::DELETE => "DELETE",
                _ => "GET",
            };
            rows.push((name, path.clone(), target.right(method).described()));
        }
    }
    rows
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) enum Visitor {
    /// ACLs are off: it does not matter.
    Anybody,
    /// Somebody with rights, perhaps none.
    Known(Arc<Asker>),
    /// Somebody with a token that is none.
    Nobody(Denial),
}

impl Visitor {
    /// From what comes with a request.
    pub(super) fn of(access: Option<&Access>, headers: &HeaderMap) -> Self {
        let Some(access) = access else { return Self::Anybody };
        match access.resolve(shown(headers), Timestamp::now()) {
            Ok(asker) => Self::Known(asker),
            Err(denial) => Self::Nobody(denial),
        }
    }

    /// Whether it may, with no word about it.
    pub(super) fn has(&self, state: &State, right: Right) -> bool {
        let rights = match self {
            Self::Anybody => return true,
            Self::Nobody(_) => return self.is_open(state, right),
            Self::Known(asker) => &asker.rights,
        };
        match right {
            Right::Open | Right::Namespaces | Right::Own => true,
            Right::ListPlugins | Right::Contexts => rights.may_list_plugins(),
            Right::ReadPlugins => rights.may_read_plugins(),
            Right::ReadAgent => rights.may_read_agent(),
            Right::ReadNodes => rights.may_read_nodes(),
            Right::Metrics => self.is_open(state, right) || rights.may_read_agent(),
            Right::Events | Right::Management => rights.is_management(),
        }
    }

    fn is_open(&self, state: &State, right: Right) -> bool {
        right == Right::Open || right == Right::Metrics && state.settings.is_metrics_open
    }

    /// Whether it may.
    ///
    /// # Errors
    /// It may not, which is logged.
    pub(super) fn check(&self, state: &State, target: Target, right: Right) -> Result<(), ApiError> {
        if self.has(state, right) { Ok(()) } else { Err(self.refused(state, target, right)) }
    }

    /// A refusal, logged.
    pub(super) fn refused(&self, state: &State, target: Target, right: Right) -> ApiError {
        let (accessor, why) = match self {
            Self::Nobody(denial) => ("none".to_owned(), denial.as_str()),
            Self::Known(asker) => (asker.accessor(), "no policy allows it"),
            Self::Anybody => ("none".to_owned(), "ACLs are off"),
        };
        if let Some(silent) = state.refusals.may_tell(Instant::now()) {
            // The route as the table has it: what a client wrote may hold a secret.
            let path = route::all().into_iter().find(|(_, found)| *found == target).map(|(path, _)| path);
            info!(
                route = path.unwrap_or_default(),
                token.accessor = accessor,
                needs = %right.rule(),
                refusals.silent = silent,
                "refused: {why}"
            );
        }
        if target.is_ours() { ApiError::Lacking(right.rule()) } else { ApiError::Denied }
    }

    /// Whether jobs of a namespace may be read; `*`: of any.
    pub(super) fn may_read_jobs(&self, namespace: &str) -> bool {
        match self {
            Self::Anybody => true,
            Self::Known(asker) => asker.rights.may_read_jobs(namespace),
            Self::Nobody(_) => false,
        }
    }

    /// Whether a namespace is shown.
    pub(super) fn sees_namespace(&self, namespace: &str) -> bool {
        match self {
            Self::Anybody => true,
            Self::Known(asker) => asker.rights.sees_namespace(namespace),
            Self::Nobody(_) => false,
        }
    }

    /// Keeps watch, for an answer that goes on, over whether it still may.
    pub(super) fn guard(&self, access: Option<&Access>) -> Guard {
        Guard(match (self, access) {
            (Self::Known(asker), Some(access)) => {
                Some(Box::new(Watched { changes: access.changes(), access: access.clone(), asker: Arc::clone(asker) }))
            }
            _ => None,
        })
    }
}

/// The token that a request shows (`nomad-http.md` section 10.1).
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let token = headers.get("x-nomad-token").map(|value| value.as_bytes().trim_ascii());
    if let Some(token) = token.filter(|token| !token.is_empty()) {
        return Some(token);
    }
    let authorization = headers.get(AUTHORIZATION)?.as_bytes();
    let mut words = authorization.split(|byte| *byte == b' ');
    let scheme = words.next()?;
    let token = words.find(|word| !word.is_empty())?;
    scheme.eq_ignore_ascii_case(b"bearer").then_some(token)
}

/// The secret that a request shows, if it could be one.
pub(super) fn secret(headers: &HeaderMap) -> Option<Secret> {
    shown(headers).and_then(Secret::parse)
}

/// Watches over an answer that goes on.
pub(super) struct Guard(Option<Box<Watched>>);

struct Watched {
    changes: Changes,
    access: Access,
    asker: Arc<Asker>,
}

impl Guard {
    /// Resolves once the right is lost: the token was revoked or has expired, or its policies allow something else.
    pub(super) async fn lost(&mut self) {
        let Some(Watched { changes, access, asker }) = self.0.as_deref_mut() else {
            return std::future::pending().await;
        };
        loop {
            let now = Timestamp::now();
            if !access.is_in_force(asker, now) {
                return;
            }
            match asker.left(now) {
                Some(left) => tokio::select! {
                    () = changes.next() => {}
                    () = tokio::time::sleep(left) => {}
                },
                None => changes.next().await,
            }
        }
    }
}

/// Refusals that are logged: not all of thousands.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// Since when `count` counts.
    since: Option<Instant>,
    count: u32,
    silent: u64,
}

impl Refusals {
    /// Refusals logged in a [`Self::WHILE`].
    const MOST: u32 = 10;
    const WHILE: Duration = Duration::from_secs(10);

    /// How many were passed over in silence before this one, if it may be told.
    fn may_tell(&self, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.since.is_none_or(|since| now.duration_since(since) >= Self::WHILE) {
            (told.since, told.count) = (Some(now), 0);
        }
        if told.count < Self::MOST {
            told.count += 1;
            Some(std::mem::take(&mut told.silent))
        } else {
            told.silent += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &str)]) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("legal"));
        }
        shown(&map).map(|token| String::from_utf8_lossy(token).into_owned())
    }

    #[test]
    fn the_token_is_where_nomad_looks_for_it() {
        for (headers, token) in [
            (&[][..], None),
            (&[("x-nomad-token", "a")], Some("a")),
            (&[("x-nomad-token", "  a\t")], Some("a")),
            (&[("x-nomad-token", "a"), ("x-nomad-token", "b")], Some("a")),
            (&[("x-nomad-token", ""), ("authorization", "Bearer b")], Some("b")),
            (&[("x-nomad-token", "a"), ("authorization", "Bearer b")], Some("a")),
            (&[("authorization", "BEARER  b c")], Some("b")),
            (&[("authorization", "Basic b")], None),
            (&[("authorization", "b")], None),
            (&[("authorization", "Bearer")], None),
        ] {
            assert_eq!(of(headers).as_deref(), token, "{headers:?}");
        }
    }

    #[test]
    fn of_many_refusals_a_few_are_told_and_the_rest_counted() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let told = (0..100).filter(|_| refusals.may_tell(start).is_some()).count();
        assert_eq!(told, 10);
        assert_eq!(refusals.may_tell(start + Refusals::WHILE), Some(90));
        assert_eq!(refusals.may_tell(start + Refusals::WHILE), Some(0));
    }
}
