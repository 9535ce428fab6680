//! The shape of Nomad's public page: an array with one object, `ControllersRequired`, a flat topology, and the keys of
//! its sample in its order. No server of Nomad's sends this, and no client of Nomad's reads it; people who wrote their
//! own client from the page do (`nomad-http.md` section 21).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use super::json::{compact, time};
use super::nomad;
use crate::domain::id::Role;
use crate::domain::plugin::Plugin;
use crate::domain::record::Record;
use crate::domain::topology::Pairs;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ReadPlugin<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    provider: &'a str,
    version: &'a str,
    controllers_required: bool,
    controllers_healthy: u32,
    controllers: BTreeMap<&'a str, InstanceRecord<'a>>,
    nodes_healthy: u32,
    nodes: BTreeMap<&'a str, InstanceRecord<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InstanceRecord<'a> {
    #[serde(rename = "PluginID")]
    plugin_id: &'a str,
    provider: &'a str,
    provider_version: &'a str,
    #[serde(rename = "AllocID")]
    alloc_id: &'a str,
    healthy: bool,
    health_description: &'a str,
    update_time: Option<String>,
    requires_controller_plugin: bool,
    requires_topologies: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    controller_info: Option<ControllerInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_info: Option<NodeInfo<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_excessive_bools, reason = "four flags are what the page shows")]
struct ControllerInfo {
    supports_read_only_attach: bool,
    supports_attach_detach: bool,
    supports_list_volumes: bool,
    supports_list_volumes_attached_nodes: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NodeInfo<'a> {
    #[serde(rename = "ID")]
    id: Cow<'a, str>,
    max_volumes: i64,
    accessible_topology: Option<Cow<'a, Pairs>>,
    requires_node_stage_volume: bool,
}

impl<'a> From<&'a Record> for InstanceRecord<'a> {
    fn from(record: &'a Record) -> Self {
        let product = record.fingerprint.as_ref().map(|fingerprint| &*fingerprint.product);
        Self {
            plugin_id: record.key.plugin.as_str(),
            provider: product.map_or("", |product| &product.provider),
            provider_version: product.map_or("", |product| &product.version),
            alloc_id: &record.owner.alloc_id,
            healthy: record.phase.is_healthy(),
            health_description: &record.reason.description,
            update_time: time(record.update_time),
            requires_controller_plugin: product.is_some_and(|product| product.requires_controller()),
            requires_topologies: product.is_some_and(|product| product.requires_topologies()),
            controller_info: (record.key.role == Role::Controller).then(|| nomad::ControllerInfo::from(record).into()),
            node_info: (record.key.role == Role::Node).then(|| nomad::NodeInfo::from(record).into()),
        }
    }
}

impl From<nomad::ControllerInfo> for ControllerInfo {
    fn from(info: nomad::ControllerInfo) -> Self {
        Self {
            supports_read_only_attach: info.supports_read_only_attach,
            supports_attach_detach: info.supports_attach_detach,
            supports_list_volumes: info.supports_list_volumes,
            supports_list_volumes_attached_nodes: info.supports_list_volumes_attached_nodes,
        }
    }
}

impl<'a> From<nomad::NodeInfo<'a>> for NodeInfo<'a> {
    fn from(info: nomad::NodeInfo<'a>) -> Self {
        Self {
            id: info.id,
            max_volumes: info.max_volumes,
            // Flat, a topology without segments is an empty object.
            accessible_topology: info.accessible_topology.map(|topology| topology.segments.unwrap_or_default()),
            requires_node_stage_volume: info.requires_node_stage_volume,
        }
    }
}

/// The read body in the page's shape.
pub(in crate::api) fn read_body(plugin: &Plugin) -> Vec<u8> {
    let instances = |role| {
        plugin
            .counting(role)
            .map(|instance| (instance.record.key.host.as_str(), InstanceRecord::from(&instance.record)))
            .collect()
    };
    compact(&[ReadPlugin {
        id: plugin.id.as_str(),
        provider: plugin.provider(),
        version: plugin.version(),
        controllers_required: plugin.requires_controller(),
        controllers_healthy: plugin.count(Role::Controller).healthy,
        controllers: instances(Role::Controller),
        nodes_healthy: plugin.count(Role::Node).healthy,
        nodes: instances(Role::Node),
    }])
}
