//! The block `plugin "ID" { … }` of a file: what an operator declares of a plugin.

use super::arguments::nearest;
use super::file::Block;
use super::values::{Origin, ROLES, Values, number, one_of};
use super::{Declared, Sources};
use crate::domain::address;
use crate::domain::expected::{Declaration, DeclaredNodes, HostPattern};
use crate::domain::id::PluginId;
use crate::domain::text::escaped;

/// Keys of a `plugin` block.
const PLUGIN_KEYS: [&str; 5] = ["socket", "type", "nodes_expected", "controllers_expected", "host_selector"];
/// More instances than any fleet has.
pub(super) const MOST_EXPECTED: u32 = 1_000_000;

/// Plugins that the file declares.
pub(super) fn plugins(values: &mut Values<'_>, sources: &Sources) -> Vec<Declared> {
    let blocks = std::mem::take(&mut values.file.blocks);
    let mut declared: Vec<(Declared, &Block)> = Vec::new();
    for block in &blocks {
        let Some(plugin) = plugin(values, block) else { continue };
        let name = |block: &Block| Origin::File { place: block.place.clone(), key: "plugin".to_owned() };
        if let Some((_, first)) = declared.iter().find(|(known, _)| known.id == plugin.id) {
            values.wrong(&name(block), &block.label, format!("is declared twice, first in line {}", first.place.line));
            continue;
        }
        if let Some(socket) = &plugin.socket {
            let other = declared.iter().find(|(known, _)| known.socket.as_ref() == Some(socket));
            if let Some((other, _)) = other {
                let what = format!(
                    "has the same socket as plugin \"{}\"; one driver is one plugin",
                    escaped(other.id.as_str())
                );
                values.wrong(&name(block), &block.label, what);
            } else if sources.addresses.contains(socket) {
                values.wrong(&name(block), &block.label, "has a socket that --csi-address names, too; say it once");
            }
        }
        declared.push((plugin, block));
    }
    let plugins = declared.into_iter().map(|(plugin, _)| plugin).collect();
    values.file.blocks = blocks;
    plugins
}

/// What one block says; `None` if it cannot be used at all.
fn plugin(values: &mut Values<'_>, block: &Block) -> Option<Declared> {
    if block.kind != "plugin" {
        let kind = escaped(&block.kind);
        values.problems.0.push(format!("{}: unknown block {kind}; the only one is plugin \"ID\" {{ … }}", block.place));
        return None;
    }
    let before = values.problems.0.len();
    let name = Origin::File { place: block.place.clone(), key: "plugin".to_owned() };
    let id = PluginId::parse(&block.label).map_err(|error| values.wrong(&name, &block.label, error)).ok();
    for entry in &block.entries {
        let key = escaped(&entry.key);
        let what = match PLUGIN_KEYS.iter().find(|known| **known == entry.key) {
            Some(_) if entry.is_list => {
                format!("plugin \"{}\": {key}: takes one value, and no list", escaped(&block.label))
            }
            Some(_) => continue,
            None => match nearest(&entry.key, PLUGIN_KEYS.into_iter()) {
                Some(near) => {
                    format!("unknown key {key} of plugin \"{}\"; did you mean {near}?", escaped(&block.label))
                }
                None => format!(
                    "unknown key {key} of plugin \"{}\"; there are {}",
                    escaped(&block.label),
                    PLUGIN_KEYS.join(", ")
                ),
            },
        };
        values.problems.0.push(format!("{}: {what}", entry.place));
    }
    let get = |key: &'static str| {
        let entry = block.entries.iter().find(|entry| entry.key == key && !entry.is_list)?;
        let (value, place) = entry.values.first()?;
        let key = format!("plugin \"{}\": {key}", escaped(&block.label));
        Some((value.as_str(), Origin::File { place: place.clone(), key }))
    };
    let (socket, role) = (get("socket"), get("type"));
    let (nodes, controllers, hosts) = (get("nodes_expected"), get("controllers_expected"), get("host_selector"));
    if let (Some((value, origin)), None) = (&role, &socket) {
        values.wrong(origin, value, "needs a socket beside it");
    }
    if let (Some(_), Some((value, origin))) = (&nodes, &hosts) {
        values.wrong(origin, value, "and nodes_expected say the same twice; give one of them");
    }
    if block.entries.is_empty() {
        values.wrong(&name, &block.label, format!("says nothing; give one of {}", PLUGIN_KEYS.join(", ")));
    }
    let socket = read(values, socket, |text| address::parse(text).map_err(|error| error.to_string()));
    let role = read(values, role, |text| one_of(text, &ROLES)).unwrap_or_default();
    let count = |text: &str| number(text, 0, MOST_EXPECTED);
    let nodes = read(values, nodes, count).map(DeclaredNodes::Count);
    let controllers = read(values, controllers, count);
    let hosts = read(values, hosts, |text| HostPattern::parse(text).map_err(|error| error.to_string()));
    let expected = Declaration { nodes: nodes.or(hosts.map(DeclaredNodes::On)), controllers };
    let is_right = values.problems.0.len() == before;
    id.filter(|_| is_right).map(|id| Declared { id, socket, role, expected })
}

fn read<T>(
    values: &mut Values<'_>,
    given: Option<(&str, Origin)>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let (value, origin) = given?;
    read(value).map_err(|what| values.wrong(&origin, value, what)).ok()
}
