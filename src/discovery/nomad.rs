//! A Nomad client's state directory (`fingerprinting.md` 5.1).
//!
//! `csi/plugins/ALLOCATION/csi.sock` since Nomad 1.3, `csi/TYPE/PLUGIN/csi.sock` before. Whatever else lies under a plugin's
//! directory are mounts, which may hang and are never looked into. `secret-id` and `state.db` are never opened.

use std::collections::BTreeSet;
use std::path::Path;

use super::walk::Walk;
use crate::domain::id::{HostId, PluginId};
use crate::domain::record::Owner;
use crate::domain::socket::{RoleChoice, Source, is_uuid, nomad_allocation};

const TYPES: [(&str, RoleChoice); 3] =
    [("controller", RoleChoice::Controller), ("node", RoleChoice::Node), ("monolith", RoleChoice::Monolith)];

/// Walks a state directory.
pub(super) fn walk(root: &Path, walk: &mut Walk<'_>) {
    let mut known = BTreeSet::<(PluginId, RoleChoice)>::new();
    for (name, role) in TYPES {
        let of_type = root.join("csi").join(name);
        walk.listing.events.insert(of_type.join("*"));
        for (name, directory) in walk.directories(&of_type, Source::Nomad) {
            let Some(plugin) = name.to_str().and_then(|name| PluginId::parse(name).ok()) else { continue };
            let socket = directory.join("csi.sock");
            walk.listing.events.insert(socket.clone());
            if let Some(wanted) = walk.take(&socket, Source::Nomad) {
                wanted.plugin = Some(plugin.clone());
                wanted.role = role;
            }
            known.insert((plugin, role));
        }
    }
    // Directories of old plugins are left behind, so more than one tells nothing.
    let plugins: BTreeSet<&PluginId> = known.iter().map(|(plugin, _)| plugin).collect();
    let plugin = plugins.first().filter(|_| plugins.len() == 1).map(|plugin| (*plugin).clone());
    let role = known.first().filter(|_| known.len() == 1).map_or(RoleChoice::Auto, |(_, role)| *role);

    let allocations = root.join("csi/plugins");
    walk.listing.events.insert(allocations.join("*"));
    let can_be_listed = walk.is_directory(&allocations, Source::Nomad) && walk.listing.problem.is_empty();
    let mut directories = BTreeSet::new();
    for (name, directory) in walk.directories(&allocations, Source::Nomad) {
        let socket = directory.join("csi.sock");
        walk.listing.events.insert(socket.clone());
        if let Some(wanted) = walk.take(&socket, Source::Nomad) {
            wanted.plugin.clone_from(&plugin);
            wanted.role = role;
            let allocation = name.to_str().filter(|name| is_uuid(name)).unwrap_or_default();
            wanted.owner = Owner::allocation(allocation);
        }
        directories.insert(directory);
    }
    walk.listing.allocations = (can_be_listed && walk.listing.problem.is_empty()).then_some(directories);
}

/// Whether a listing says that the allocation of a socket was stopped for good: its directory is gone, and not all are.
pub(super) fn is_stopped(socket: &Path, allocations: &BTreeSet<std::path::PathBuf>, root: &Path) -> bool {
    let own = socket.parent().filter(|_| nomad_allocation(socket).is_some());
    own.is_some_and(|own| own.parent() == Some(&*root.join("csi/plugins")) && !allocations.contains(own))
}

/// The id that Nomad gave this host, from the first of its state directories that has one.
#[must_use]
pub fn host_id<'a>(roots: impl IntoIterator<Item = &'a Path>) -> Option<HostId> {
    let read = |root: &Path| std::fs::read_to_string(root.join("client-id")).ok();
    roots.into_iter().filter_map(read).find_map(|text| HostId::parse(text.trim()).ok())
}
