//! `/metrics`: the catalog, the sockets and the gateway itself, as Prometheus reads them.

use std::collections::BTreeMap;

use axum::http::Response;
use axum::http::header::{CONTENT_TYPE, HeaderValue};

use super::State;
use super::content::Content;
use crate::domain::catalog::Catalog;
use crate::domain::id::Role;
use crate::domain::plugin::Plugin;
use crate::metrics::{
    BLOCKING_QUERIES, BUILD_INFO, CATALOG_INDEX, CONTROLLERS_EXPECTED, CONTROLLERS_HEALTHY, Exposition, Family,
    INSTANCE_HEALTHY, NODES_EXPECTED, NODES_HEALTHY, PATHS_POLLED, PATHS_WATCHED, SOCKETS, TLS_CERTIFICATE_EXPIRY,
    TLS_FAILED_HANDSHAKES, TLS_FILES_VALID,
};
use crate::tls::server::Tls;

const ROLES: [Role; 2] = [Role::Controller, Role::Node];

/// All of them.
pub(super) fn answer(state: &State) -> Response<Content> {
    let mut text = Exposition::default();
    let catalog = state.reader.current();
    text.sample(&BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.sample(&CATALOG_INDEX, &[], catalog.nomad_index().0);
    text.sample(&BLOCKING_QUERIES, &[], state.reader.blocked());
    let events = state.sockets.events();
    text.sample(&PATHS_WATCHED, &[], events.watched);
    text.sample(&PATHS_POLLED, &[], events.polled);
    if let Some(tls) = state.tls.as_ref().map(Tls::standing) {
        text.sample(&TLS_CERTIFICATE_EXPIRY, &[], tls.not_after.0.div_euclid(1_000_000_000));
        text.sample(&TLS_FILES_VALID, &[], u8::from(tls.trouble.is_none()));
        text.sample(&TLS_FAILED_HANDSHAKES, &[], tls.failed_handshakes);
    }
    sockets(&mut text, state);
    instances(&mut text, &catalog);
    for (role, expected, healthy) in
        [(Role::Controller, CONTROLLERS_EXPECTED, CONTROLLERS_HEALTHY), (Role::Node, NODES_EXPECTED, NODES_HEALTHY)]
    {
        plugins(&mut text, &catalog, &expected, |plugin| plugin.expected(role));
        plugins(&mut text, &catalog, &healthy, |plugin| plugin.count(role).healthy);
    }
    let mut response = Response::new(Content::from(text.finish()));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn sockets(text: &mut Exposition, state: &State) {
    let mut counted = BTreeMap::<(&str, &str), usize>::new();
    for socket in state.sockets.all() {
        let state = if socket.is_ignored { "ignored" } else { socket.phase.as_str() };
        *counted.entry((socket.source, state)).or_default() += 1;
    }
    for ((source, state), count) in counted {
        text.sample(&SOCKETS, &[("source", source), ("state", state)], count);
    }
}

fn instances(text: &mut Exposition, catalog: &Catalog) {
    for plugin in catalog.plugins() {
        for role in ROLES {
            for instance in plugin.instances(role) {
                let labels = [
                    ("plugin_id", plugin.id.as_str()),
                    ("driver_name", named(plugin.provider())),
                    ("role", role.as_str()),
                    ("host_id", instance.record.key.host.as_str()),
                ];
                text.sample(&INSTANCE_HEALTHY, &labels, u8::from(instance.record.phase.is_healthy()));
            }
        }
    }
}

fn plugins(text: &mut Exposition, catalog: &Catalog, family: &Family, number: impl Fn(&Plugin) -> u32) {
    for plugin in catalog.plugins() {
        let labels = [("plugin_id", plugin.id.as_str()), ("driver_name", named(plugin.provider()))];
        text.sample(family, &labels, number(plugin));
    }
}

/// As the sidecars label a driver whose name they do not know yet.
fn named(provider: &str) -> &str {
    if provider.is_empty() { "unknown-driver" } else { provider }
}
