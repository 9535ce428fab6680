//! Sockets named by configuration (`--csi-address`).

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::domain::id::PluginId;
use crate::domain::socket::{RoleChoice, WantedSocket};

/// The sockets that configuration names. `plugin` and `role` hold for a single address.
#[must_use]
pub fn sockets(addresses: &[PathBuf], plugin: Option<&PluginId>, role: RoleChoice) -> BTreeSet<WantedSocket> {
    addresses
        .iter()
        .zip(0..)
        .map(|(path, rank)| WantedSocket {
            plugin: plugin.cloned(),
            role,
            rank,
            ..WantedSocket::configured(path.clone())
        })
        .collect()
}
