//! Where drivers are looked for when nobody says where.

use std::path::{Path, PathBuf};

use super::{Kind, Place};
use crate::domain::address::under;

/// Where CSI sidecars expect their driver.
const SOCKET: &str = "/run/csi/socket";
/// Kubelets' roots: the usual one, k0s, microk8s, and k3s of old.
const KUBELETS: [&str; 4] = [
    "/var/lib/kubelet",
    "/var/lib/k0s/kubelet",
    "/var/snap/microk8s/common/var/lib/kubelet",
    "/var/lib/rancher/k3s/agent/kubelet",
];
/// Nomad clients' state directories: of the packages, and of configurations seen.
const NOMADS: [&str; 4] = ["/opt/nomad/data/client", "/opt/nomad/client", "/var/lib/nomad/client", "/var/nomad/client"];

/// The well-known places, whether they exist or not; `host_root` stands before each.
#[must_use]
pub fn well_known(host_root: Option<&Path>) -> Vec<Place> {
    let all = |kind, paths: &[&str]| -> Vec<Place> {
        paths.iter().map(|path| Place { kind, path: under(host_root, Path::new(path)) }).collect()
    };
    [all(Kind::Socket, &[SOCKET]), all(Kind::Kubelet, &KUBELETS), all(Kind::Nomad, &NOMADS)].concat()
}

/// The places that configuration names.
#[must_use]
pub fn named(kubelet: Option<&PathBuf>, nomad: Option<&PathBuf>, plugins: &[PathBuf]) -> Vec<Place> {
    let place = |kind| move |path: &PathBuf| Place { kind, path: path.clone() };
    let plugins = plugins.iter().map(place(Kind::PluginsDirectory));
    plugins.chain(nomad.map(place(Kind::Nomad))).chain(kubelet.map(place(Kind::Kubelet))).collect()
}
