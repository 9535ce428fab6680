//! `/metrics`: the catalog, the sockets and the gateway itself, as Prometheus reads them.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, Response};

use super::State;
use super::content::Content;
use super::route;
use crate::domain::catalog::Catalog;
use crate::domain::durability::Durability;
use crate::domain::id::Role;
use crate::domain::plugin::{Instance, Plugin};
use crate::domain::record::{Phase, Registration};
use crate::domain::socket::SocketStatus;
use crate::domain::text::bounded;
use crate::domain::time::Timestamp;
pub(super) use crate::metrics::Format;
use crate::metrics::calls::{Calls, FINE_BOUNDS, Probed, SIDECAR_BOUNDS, UNKNOWN_DRIVER};
use crate::metrics::operations::{self, Operation};
use crate::metrics::process::Process;
use crate::metrics::{self as all, Exposition, Family, Labels, requests};
use crate::registry::allocations::Allocations;
use crate::tls::server::Tls;

const ROLES: [Role; 2] = [Role::Controller, Role::Node];
/// Longest text of a driver's that becomes a label, in bytes.
const LABEL_LIMIT: usize = 256;

impl Format {
    /// What a scraper asks for: the first of the two that it names without refusing it.
    pub(super) fn asked_for(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let wanted = |(kind, parameters): (&str, &str)| {
            let quality = parameters.split(';').find_map(|one| one.trim().strip_prefix("q=")?.parse::<f32>().ok());
            let format = match kind.trim() {
                "application/openmetrics-text" => Self::OpenMetrics,
                "text/plain" => Self::Text,
                _ => return None,
            };
            Some((quality.unwrap_or(1.0), format)).filter(|(quality, _)| *quality > 0.0)
        };
        let parts = accepted.flat_map(|value| value.split(','));
        let wanted = parts.filter_map(|part| wanted(part.split_once(';').unwrap_or((part, ""))));
        // Of several that are liked as well, the first.
        wanted.reduce(|best, next| if next.0 > best.0 { next } else { best }).map_or(Self::Text, |(_, format)| format)
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        })
    }
}

/// All of them.
pub(super) fn answer(state: &State, format: Format) -> Response<Content> {
    let mut text = Exposition::new(format);
    let catalog = state.reader.current();
    let sockets = state.sockets.all();
    build(&mut text);
    // Where an aggregator gathers what agents tell, each number is exported by one of them only.
    if state.settings.role != "aggregator" {
        instances(&mut text, state, &catalog, &sockets);
    }
    if state.settings.role != "agent" {
        plugins(&mut text, &catalog);
        hosts(&mut text, &catalog, &sockets);
    }
    found(&mut text, state, &sockets);
    calls(&mut text, &state.counters.calls);
    store(&mut text, state);
    text.sample(&all::CATALOG_INDEX, &[], catalog.nomad_index().0);
    if let Some(tls) = state.tls.as_ref().map(Tls::standing) {
        text.sample(&all::TLS_CERTIFICATE_EXPIRY, &[], tls.not_after.0.div_euclid(1_000_000_000));
        text.sample(&all::TLS_FILES_VALID, &[], u8::from(tls.trouble.is_none()));
        text.sample(&all::TLS_FAILED_HANDSHAKES, &[], tls.failed_handshakes);
    }
    if let Some(fleet) = state.fleet.as_ref().map(|fleet| fleet.borrow().clone()) {
        text.sample(&all::FLEET_IN_STEP, &[], u8::from(fleet.is_in_step));
        if let Some(trouble) = &fleet.trouble {
            text.sample(&all::FLEET_TROUBLE, &[("kind", trouble.kind)], 1);
        }
        if state.reader.is_follower() {
            text.sample(&all::FLEET_HOSTS, &[("state", "here")], fleet.hosts_here);
            text.sample(&all::FLEET_HOSTS, &[("state", "lost")], fleet.hosts_lost);
        } else {
            text.sample(&all::FLEET_WAITING, &[], fleet.waiting);
        }
    }
    if let Some(asked) = state.allocations.as_ref().and_then(Allocations::orchestrator) {
        text.sample(&all::ORCHESTRATOR_UP, &[], u8::from(asked.trouble().is_none()));
    }
    requested(&mut text, state);
    process(&mut text);
    respond(text, format)
}

/// Those of a sidecar.
pub(super) fn of_calls(counted: &Calls, format: Format) -> Response<Content> {
    let mut text = Exposition::new(format);
    build(&mut text);
    calls(&mut text, counted);
    process(&mut text);
    respond(text, format)
}

fn respond(text: Exposition, format: Format) -> Response<Content> {
    let mut response = Response::new(Content::from(text.finish()));
    response.headers_mut().insert(CONTENT_TYPE, format.content_type());
    response
}

fn build(text: &mut Exposition) {
    let revision = option_env!("CSI_GATEWAY_REVISION").unwrap_or("unknown");
    text.sample(&all::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION")), ("revision", revision)], 1);
}

fn instances(text: &mut Exposition, state: &State, catalog: &Catalog, sockets: &[SocketStatus]) {
    let mut shown: Vec<(&Instance, Labels)> = Vec::new();
    for plugin in catalog.plugins() {
        for role in ROLES {
            for instance in plugin.instances(role) {
                let own = instance.record.fingerprint.as_ref().map(|fingerprint| &*fingerprint.product.provider);
                let name = named(own.unwrap_or_else(|| plugin.provider()));
                let host = instance.record.key.host.as_str();
                let (id, role) = (plugin.id.as_str(), role.as_str());
                let labels =
                    Labels::of(&[("plugin_id", id), ("driver_name", &name), ("role", role), ("host_id", host)]);
                shown.push((instance, labels));
            }
        }
    }
    for (instance, labels) in &shown {
        text.labelled(&all::INSTANCE_HEALTHY, labels, u8::from(instance.record.phase.is_healthy()));
    }
    for (Instance { record, .. }, labels) in &shown {
        let mut labels = labels.clone();
        let fingerprint = record.fingerprint.as_ref();
        let version = fingerprint.map(|fingerprint| &*fingerprint.product.version).unwrap_or_default();
        let node = fingerprint.and_then(|fingerprint| fingerprint.node.as_deref());
        labels.push("version", &bounded(version, LABEL_LIMIT));
        labels.push("alloc_id", &bounded(&record.owner.alloc_id, LABEL_LIMIT));
        labels.push("csi_node_id", &bounded(node.map(|node| &*node.id).unwrap_or_default(), LABEL_LIMIT));
        text.labelled(&all::INSTANCE_INFO, &labels, 1);
    }
    for (instance, labels) in &shown {
        if let Some(registration) = instance.record.registration {
            text.labelled(&all::INSTANCE_REGISTERED, labels, u8::from(registration == Registration::Ok));
        }
    }
    for (instance, labels) in &shown {
        let node = instance.record.fingerprint.as_ref().and_then(|fingerprint| fingerprint.node.as_ref());
        if let Some(most) = node.map(|node| node.max_volumes).filter(|most| *most != i64::MAX) {
            text.labelled(&all::INSTANCE_MAX_VOLUMES, labels, most);
        }
    }
    let flips = state.reader.changes().flips();
    for (instance, labels) in &shown {
        text.labelled(&all::INSTANCE_TRANSITIONS, labels, flips.get(&instance.record.key).copied().unwrap_or_default());
    }
    let asked: BTreeMap<&str, Timestamp> =
        sockets.iter().filter_map(|socket| Some((&*socket.path, socket.last_probe_time?))).collect();
    for (instance, labels) in &shown {
        if let Some(at) = asked.get(&*instance.record.socket) {
            text.labelled(&all::INSTANCE_LAST_PROBE, labels, seconds(*at));
        }
    }
    for (instance, labels) in &shown {
        text.labelled(&all::INSTANCE_LAST_CHANGE, labels, seconds(instance.record.since));
    }
}

fn plugins(text: &mut Exposition, catalog: &Catalog) {
    let mut each = |family: &Family, number: &dyn Fn(&Plugin) -> u32| {
        for plugin in catalog.plugins() {
            let labels = [("plugin_id", plugin.id.as_str()), ("driver_name", &*named(plugin.provider()))];
            text.sample(family, &labels, number(plugin));
        }
    };
    each(&all::CONTROLLERS_HEALTHY, &|plugin| plugin.count(Role::Controller).healthy);
    each(&all::CONTROLLERS_EXPECTED, &|plugin| plugin.expected(Role::Controller));
    each(&all::NODES_HEALTHY, &|plugin| plugin.count(Role::Node).healthy);
    each(&all::NODES_EXPECTED, &|plugin| plugin.expected(Role::Node));
    for plugin in catalog.plugins() {
        let (name, version) = (named(plugin.provider()), bounded(plugin.version(), LABEL_LIMIT));
        let required = if plugin.requires_controller() { "true" } else { "false" };
        let labels = [
            ("plugin_id", plugin.id.as_str()),
            ("driver_name", &*name),
            ("version", &*version),
            ("controller_required", required),
        ];
        text.sample(&all::PLUGIN_INFO, &labels, 1);
    }
}

fn hosts(text: &mut Exposition, catalog: &Catalog, sockets: &[SocketStatus]) {
    // Whether it is lost, and when something was heard of it.
    let mut hosts = BTreeMap::<&str, (bool, Timestamp)>::new();
    let asked: BTreeMap<&str, Timestamp> =
        sockets.iter().filter_map(|socket| Some((&*socket.path, socket.last_probe_time?))).collect();
    for record in catalog.records() {
        let (is_lost, last) = hosts.entry(record.key.host.as_str()).or_insert((false, record.since));
        *is_lost |= record.phase == Phase::Lost;
        let heard = asked.get(&*record.socket).copied().unwrap_or(record.since);
        *last = (*last).max(record.since.max(record.update_time)).max(heard);
    }
    let silent = hosts.values().filter(|(is_lost, _)| *is_lost).count();
    text.sample(&all::HOSTS, &[("state", "alive")], hosts.len() - silent);
    text.sample(&all::HOSTS, &[("state", "silent")], silent);
    for (host, (is_lost, _)) in &hosts {
        text.sample(&all::HOST_ALIVE, &[("host_id", host)], u8::from(!is_lost));
    }
    for (host, (_, last)) in &hosts {
        text.sample(&all::HOST_LAST_REPORT, &[("host_id", host)], seconds(*last));
    }
}

fn found(text: &mut Exposition, state: &State, sockets: &[SocketStatus]) {
    let duplicates = state.sockets.duplicates();
    let mut counted = BTreeMap::<(&str, &str), usize>::new();
    for socket in sockets {
        let is_duplicate = || duplicates.iter().any(|one| *one.socket.to_string_lossy() == *socket.path);
        let state = match socket.phase {
            _ if socket.is_ignored => "not_csi",
            _ if is_duplicate() => "duplicate",
            Phase::New | Phase::Lost => "new",
            Phase::Starting | Phase::Healthy | Phase::Unhealthy => "connected",
            Phase::Stale => "refused",
            Phase::Gone => "missing",
        };
        *counted.entry((source(&socket.source), state)).or_default() += 1;
    }
    for ((source, state), count) in counted {
        text.sample(&all::SOCKETS, &[("source", source), ("state", state)], count);
    }
    let scans = state.counters.scans.all();
    for (kind, scan) in &scans {
        text.sample(&all::DISCOVERY_ERRORS, &[("source", source(kind))], scan.errors);
    }
    for (kind, scan) in &scans {
        if let Some(since) = scan.last.and_then(|last| last.duration_since(UNIX_EPOCH).ok()) {
            text.sample(&all::DISCOVERY_LAST_SCAN, &[("source", source(kind))], since.as_secs_f64());
        }
    }
    let events = state.sockets.events();
    text.sample(&all::PATHS_WATCHED, &[], events.watched);
    text.sample(&all::PATHS_POLLED, &[], events.polled);
}

/// A source of sockets, or a kind of place, as a label.
fn source(source: &str) -> &'static str {
    match source {
        "configured" | "socket" => "flag",
        "csi-plugins-dir" => "directory",
        "nomad" => "nomad",
        "well-known" => "well_known",
        _ => "kubelet",
    }
}

fn calls(text: &mut Exposition, counted: &Calls) {
    let counted = counted.counted();
    let probed = |name: &str| bounded(name, LABEL_LIMIT);
    for (name, results) in &counted.probed {
        for (result, count) in Probed::ALL.iter().zip(results) {
            text.sample(&all::PROBES, &[("driver_name", &probed(name)), ("result", result.as_str())], count);
        }
    }
    for (family, bounds) in [(&all::SIDECAR_OPERATIONS, SIDECAR_BOUNDS), (&all::RPC_DURATION, FINE_BOUNDS)] {
        for ((name, method, code), durations) in &counted.calls {
            let name = probed(name);
            let labels = [("driver_name", &*name), ("grpc_status_code", *code), ("method_name", *method)];
            text.histogram(family, &labels, bounds, durations);
        }
    }
}

fn store(text: &mut Exposition, state: &State) {
    let (name, is_up) = match state.reader.standing().durability {
        Durability::Memory => ("memory", true),
        Durability::Durable => ("embedded", true),
        Durability::NotDurable(_) => ("embedded", false),
    };
    text.sample(&all::STORE_UP, &[("store", name)], u8::from(is_up));
    for operation in Operation::ALL {
        for (result, is_well) in [("ok", true), ("error", false)] {
            let durations = state.counters.operations.of(operation, is_well);
            if durations.count() > 0 {
                let labels = [("store", name), ("operation", operation.as_str()), ("result", result)];
                text.histogram(&all::STORE_DURATION, &labels, operations::BOUNDS, durations);
            }
        }
    }
}

fn requested(text: &mut Exposition, state: &State) {
    let routes = route::labels();
    let label = |number: usize| routes.get(number).map_or("other", String::as_str);
    state.counters.requests.each(|route, method, code, durations| {
        let labels = [("route", label(route)), ("method", method), ("code", code)];
        text.sample(&all::HTTP_REQUESTS, &labels, durations.count());
    });
    state.counters.requests.each(|route, method, code, durations| {
        let labels = [("route", label(route)), ("method", method), ("code", code)];
        text.histogram(&all::HTTP_DURATION, &labels, requests::BOUNDS, durations);
    });
    text.sample(&all::BLOCKING_QUERIES, &[], state.reader.blocked());
}

fn process(text: &mut Exposition) {
    let process = Process::now();
    process.cpu_seconds.into_iter().for_each(|seconds| text.sample(&all::PROCESS_CPU, &[], seconds));
    process.resident_bytes.into_iter().for_each(|bytes| text.sample(&all::PROCESS_RESIDENT, &[], bytes));
    process.open_descriptors.into_iter().for_each(|count| text.sample(&all::PROCESS_OPEN, &[], count));
    process.most_descriptors.into_iter().for_each(|count| text.sample(&all::PROCESS_MOST, &[], count));
    process.start_seconds.into_iter().for_each(|seconds| text.sample(&all::PROCESS_START, &[], seconds));
}

/// As the sidecars label a driver whose name they do not know yet.
fn named(provider: &str) -> Box<str> {
    if provider.is_empty() { UNKNOWN_DRIVER.into() } else { bounded(provider, LABEL_LIMIT) }
}

fn seconds(at: Timestamp) -> f64 {
    Duration::from_nanos(u64::try_from(at.0).unwrap_or_default()).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_like_it_as_much() {
        for (accepted, format) in [
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.4", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("*/*", Format::Text),
            ("", Format::Text),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accepted.parse().expect("a legal header"));
            assert_eq!(Format::asked_for(&headers), format, "{accepted}");
        }
    }
}
