//! From a request target to what serves it, as Go's router does it (`nomad-http.md` section 1).
//!
//! axum's own router compares undecoded paths, knows no cleaning redirects and sends `Allow`; Nomad's peers see other
//! bytes. So there is one table here, and axum calls one handler.

use std::borrow::Cow;

use axum::http::{Method, Uri};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What a route is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Nomad's list.
    List,
    /// Nomad's read.
    Read,
    /// The gateway itself.
    Gateway,
    /// All that is known, by plugin.
    GatewayPlugins,
    /// All that is known of one plugin.
    GatewayPlugin,
    /// By host.
    GatewayHosts,
    /// By socket.
    GatewaySockets,
    /// Transitions.
    GatewayHistory,
    /// Every change as it comes.
    GatewayStream,
    /// One host and what runs there.
    GatewayHost,
    /// The page for people, file by file.
    Page,
    /// Nomad's event stream.
    EventStream,
    /// Nomad's search by prefix.
    Search,
    /// Nomad's search by any part.
    FuzzySearch,
    /// The leader's address.
    Leader,
    /// All servers' addresses.
    Peers,
    /// All regions.
    Regions,
    /// How the agent is.
    AgentHealth,
    /// What the agent is.
    AgentSelf,
    /// All servers.
    AgentMembers,
    /// All namespaces.
    Namespaces,
    /// The asker's token.
    TokenSelf,
    /// One policy.
    Policy,
    /// The licence.
    License,
    /// The description of all of this.
    Description,
    /// Whether the process lives.
    Live,
    /// Whether the first scan is complete.
    Ready,
    /// Numbers for Prometheus.
    Metrics,
}

struct Route {
    segments: &'static [&'static str],
    has_subtree: bool,
    target: Target,
}

const fn exact(segments: &'static [&'static str], target: Target) -> Route {
    Route { segments, has_subtree: false, target }
}

const fn subtree(segments: &'static [&'static str], target: Target) -> Route {
    Route { segments, has_subtree: true, target }
}

/// Every route there is.
const ROUTES: &[Route] = &[
    exact(&["v1", "plugins"], Target::List),
    subtree(&["v1", "plugin", "csi"], Target::Read),
    exact(&["v1", "gateway"], Target::Gateway),
    exact(&["v1", "gateway", "plugins"], Target::GatewayPlugins),
    subtree(&["v1", "gateway", "plugin"], Target::GatewayPlugin),
    exact(&["v1", "gateway", "hosts"], Target::GatewayHosts),
    subtree(&["v1", "gateway", "host"], Target::GatewayHost),
    exact(&["v1", "gateway", "sockets"], Target::GatewaySockets),
    exact(&["v1", "gateway", "history"], Target::GatewayHistory),
    exact(&["v1", "gateway", "stream"], Target::GatewayStream),
    exact(&["v1", "event", "stream"], Target::EventStream),
    exact(&["v1", "search"], Target::Search),
    exact(&["v1", "search", "fuzzy"], Target::FuzzySearch),
    exact(&["v1", "status", "leader"], Target::Leader),
    exact(&["v1", "status", "peers"], Target::Peers),
    exact(&["v1", "regions"], Target::Regions),
    exact(&["v1", "agent", "health"], Target::AgentHealth),
    exact(&["v1", "agent", "self"], Target::AgentSelf),
    exact(&["v1", "agent", "members"], Target::AgentMembers),
    exact(&["v1", "namespaces"], Target::Namespaces),
    exact(&["v1", "acl", "token", "self"], Target::TokenSelf),
    subtree(&["v1", "acl", "policy"], Target::Policy),
    exact(&["v1", "operator", "license"], Target::License),
    subtree(&["ui"], Target::Page),
    exact(&["openapi.json"], Target::Description),
    exact(&["livez"], Target::Live),
    exact(&["healthz"], Target::Live),
    exact(&["readyz"], Target::Ready),
    exact(&["metrics"], Target::Metrics),
];

/// Every route as it is written, and what it is about.
pub(super) fn all() -> Vec<(String, Target)> {
    let written = |route: &Route| {
        let mut path = route.segments.iter().map(|segment| format!("/{segment}")).collect::<String>();
        if route.has_subtree {
            path.push_str(match route.target {
                Target::Policy => "/:name",
                Target::Page => "/:file",
                _ => "/:id",
            });
        }
        (path, route.target)
    };
    ROUTES.iter().map(written).collect()
}

/// Each target's number is the place of its label, the first of its routes; the last one is for everything else.
pub(super) fn labels() -> Vec<String> {
    let mut labels: Vec<String> = vec![String::new(); TARGETS];
    for (path, target) in all() {
        let label = &mut labels[target as usize];
        if label.is_empty() {
            *label = path;
        }
    }
    labels.push("other".to_owned());
    labels
}

/// How many targets there are.
pub(super) const TARGETS: usize = Target::Metrics as usize + 1;

/// What becomes of a request target.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    /// A route, and what follows it in the decoded path (routes with a subtree only).
    Route(Target, Vec<u8>),
    /// The same thing at another place.
    Redirect(String),
    /// No such route.
    Nothing,
    /// No path at all, or one with a broken escape.
    Malformed,
    /// `OPTIONS *`.
    Server,
}

/// Finds the route of a request.
pub(super) fn resolve(method: &Method, uri: &Uri) -> Resolved {
    let path = uri.path();
    if path == "*" && *method == Method::OPTIONS {
        return Resolved::Server;
    }
    if !path.starts_with('/') || !has_whole_escapes(path) {
        return Resolved::Malformed;
    }
    let clean = if *method == Method::CONNECT { Cow::Borrowed(path) } else { cleaned(path) };
    let found = ROUTES.iter().find_map(|route| Some((route, follow(route, &clean)?)));
    match found {
        // The page, as Nomad does it.
        None if clean == "/" => Resolved::Redirect(location("/ui/", uri.query())),
        // Relative: behind a proxy there may be a prefix before it that only the client knows. An unclean path leads
        // elsewhere from where it is, so it is told the whole way.
        Some((route, None)) if route.target == Target::Page && clean == path => {
            Resolved::Redirect(location("ui/", uri.query()))
        }
        // The subtree's root without its slash.
        Some((route, None)) if route.has_subtree => {
            Resolved::Redirect(location(&format!("/{}/", route.segments.join("/")), uri.query()))
        }
        _ if clean != path => Resolved::Redirect(location(&clean, uri.query())),
        Some((route, rest)) => {
            Resolved::Route(route.target, rest.map_or_else(Vec::new, |rest| percent_decode_str(rest).collect()))
        }
        None => Resolved::Nothing,
    }
}

/// Where Go's router sends whoever asks for an unclean path; `None`: it is clean.
pub(super) fn tidied(uri: &Uri) -> Option<String> {
    let path = uri.path();
    let clean = cleaned(path);
    (path.starts_with('/') && clean != path).then(|| location(&clean, uri.query()))
}

/// Whether a path is a route's: what follows its last slash, `Some(None)` where nothing follows, not even a slash.
fn follow<'a>(route: &Route, path: &'a str) -> Option<Option<&'a str>> {
    let mut rest = path.strip_prefix('/')?;
    for (position, wanted) in route.segments.iter().enumerate() {
        let (segment, after) = match rest.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (rest, None),
        };
        // `%2F` is no separator here: each segment is decoded by itself.
        if segment != *wanted && !percent_decode_str(segment).eq(wanted.bytes()) {
            return None;
        }
        match after {
            None if position + 1 == route.segments.len() => return Some(None),
            None => return None,
            Some(after) => rest = after,
        }
    }
    route.has_subtree.then_some(Some(rest))
}

fn has_whole_escapes(path: &str) -> bool {
    let bytes = path.as_bytes();
    let is_hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    bytes.iter().enumerate().all(|(at, byte)| *byte != b'%' || is_hex(at + 1) && is_hex(at + 2))
}

/// The path without empty, `.` and `..` segments; a slash at its end stays.
fn cleaned(path: &str) -> Cow<'_, str> {
    if !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let end = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    Cow::Owned(format!("/{}{end}", segments.join("/")))
}

/// Controls cannot be in a parsed target, what is not ASCII is escaped in any case.
const BEYOND_ASCII: &AsciiSet = CONTROLS;

fn location(path: &str, query: Option<&str>) -> String {
    let whole = match query {
        Some(query) if !query.is_empty() => format!("{path}?{query}"),
        _ => path.to_owned(),
    };
    utf8_percent_encode(&whole, BEYOND_ASCII).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolved(target: &str) -> Resolved {
        resolve(&Method::GET, &target.parse().expect("a legal target"))
    }

    fn read(rest: &str) -> Resolved {
        Resolved::Route(Target::Read, rest.as_bytes().to_vec())
    }

    #[test]
    fn the_fixed_part_is_compared_after_decoding_each_segment() {
        assert_eq!(resolved("/v1/%70lugins?type=csi"), Resolved::Route(Target::List, Vec::new()));
        assert_eq!(resolved("/v1/plugin%2Fcsi/nfs"), Resolved::Nothing);
        for nothing in
            ["/v1/plugins/", "/v1/plugins/x", "/v1/plugin", "/v1/plugin/", "/v1/plugin/host/x", "/v1/Plugins"]
        {
            assert_eq!(resolved(nothing), Resolved::Nothing, "{nothing}");
        }
    }

    #[test]
    fn what_follows_is_decoded_once_and_as_a_whole() {
        assert_eq!(resolved("/v1/plugin/csi/foo%2Fbar"), read("foo/bar"));
        assert_eq!(resolved("/v1/plugin/csi/a+b%20c%2526;d%3F"), read("a+b c%26;d?"));
        assert_eq!(resolved("/v1/plugin/csi/"), read(""));
        assert_eq!(resolved("/v1/plugin/csi/%zz"), Resolved::Malformed);
        assert_eq!(resolved("/v1/plugin/csi/%2"), Resolved::Malformed);
    }

    #[test]
    fn unclean_paths_are_redirected_with_their_query() {
        let to = |text: &str| Resolved::Redirect(text.to_owned());
        assert_eq!(resolved("/v1//plugins?type=csi"), to("/v1/plugins?type=csi"));
        assert_eq!(resolved("//v1/plugins"), to("/v1/plugins"));
        assert_eq!(resolved("/v1/x/../plugins?type=csi"), to("/v1/plugins?type=csi"));
        assert_eq!(resolved("/v1/./plugin/csi?"), to("/v1/plugin/csi/"));
        assert_eq!(resolved("/v1/plugin/csi?x=1"), to("/v1/plugin/csi/?x=1"));
        assert_eq!(resolved("/v1/plugin/csi/x/.."), to("/v1/plugin/csi/"));
        assert_eq!(resolved("/v1//plugin/csi/"), to("/v1/plugin/csi/"));
        assert_eq!(resolved("/../../"), to("/ui/"));
        assert_eq!(resolved("/?x=1"), to("/ui/?x=1"));
        assert_eq!(resolved("/ui?x=1"), to("ui/?x=1"));
        for unclean in ["//ui?x=1", "/ui/.?x=1", "/v1/../ui?x=1"] {
            assert_eq!(resolved(unclean), to("/ui/?x=1"), "{unclean}");
        }
        assert_eq!(resolved("/ui/"), Resolved::Route(Target::Page, Vec::new()));
        assert_eq!(resolved("/v1//nope/%C3"), to("/v1/nope/%C3"));
        assert_eq!(resolved("/v1/plugin/csi/%2e%2e"), read(".."));
        assert_eq!(resolved("/v1/plugin/csi/..%2Fx"), read("../x"));
        assert_eq!(resolved("/v1/plugin/csi/.x"), read(".x"));
    }

    #[test]
    fn the_description_has_every_route_and_no_other() {
        let description: serde_json::Value = serde_json::from_str(super::super::DESCRIPTION).expect("JSON");
        assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
        let described = description["paths"].as_object().expect("paths").keys().cloned();
        let path = |route: &Route| {
            let below = if route.has_subtree { "/{id}" } else { "" };
            format!("/{}{below}", route.segments.join("/"))
        };
        let routes: std::collections::BTreeSet<String> = ROUTES.iter().map(path).collect();
        assert_eq!(described.collect::<std::collections::BTreeSet<_>>(), routes);
    }

    #[test]
    fn options_of_the_whole_server_is_no_path() {
        assert_eq!(resolve(&Method::OPTIONS, &"*".parse().expect("legal")), Resolved::Server);
        assert_eq!(resolve(&Method::GET, &"*".parse().expect("legal")), Resolved::Malformed);
    }

    proptest! {
        #[test]
        fn no_path_makes_the_router_panic_and_redirects_end(path in "/[a-z/.%0-9é]{0,40}") {
            if let Ok(uri) = path.parse::<Uri>()
                && let Resolved::Redirect(to) = resolve(&Method::GET, &uri)
            {
                let to = if to.starts_with('/') { to } else { format!("/{to}") };
                let again = resolve(&Method::GET, &to.parse().expect("a location is a legal target"));
                prop_assert!(!matches!(again, Resolved::Redirect(_)), "{path} -> {to} -> {again:?}");
            }
        }
    }
}
