//! Real programs for tests: where they are, and what happens where they are not.
//!
//! `CSI_GATEWAY_TEST_BIN` is a folder with real drivers and sidecars, `CSI_GATEWAY_TEST_KUBERNETES` one with what a node of
//! Kubernetes needs, `CSI_GATEWAY_TEST_NOMAD` one with Nomad, `CSI_GATEWAY_TEST_SANITY` the conformance test's binary.
//! Without them a test prints `skipped: …` and passes, so that `cargo test` needs nothing; `CSI_GATEWAY_TEST_STRICT=1` turns
//! skipping into failure, so that CI cannot pass by missing a part.

#![allow(dead_code, unreachable_pub, reason = "each test binary that takes this in uses its own part of it")]

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

/// A program that a test would like to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The hostpath driver: a controller and node that needs no cluster.
    HostpathDriver,
    /// The sidecar whose place we take.
    LivenessProbe,
    /// The sidecar that registers a driver with the kubelet.
    NodeDriverRegistrar,
    /// The conformance test of CSI.
    Sanity,
    /// Where Kubernetes keeps its objects.
    Etcd,
    /// Kubernetes' API.
    KubeApiServer,
    /// The runtime without which no kubelet starts.
    Containerd,
    /// Kubernetes' agent on a node, with which drivers are registered.
    Kubelet,
    /// Nomad: server, client and command line.
    Nomad,
}

impl Part {
    /// The part's path; `None` where it is not there, which has been said. Call it first in a test and return on `None`.
    ///
    /// # Panics
    /// If the part is missing and `CSI_GATEWAY_TEST_STRICT` is set.
    pub fn find(self) -> Option<PathBuf> {
        let (variable, _) = self.place();
        match self.look_up(value_of(variable)) {
            Ok(path) => Some(path),
            Err(why) => skipped(&why),
        }
    }

    fn look_up(self, value: Option<OsString>) -> Result<PathBuf, String> {
        let (variable, name) = self.place();
        let value = PathBuf::from(value.ok_or_else(|| format!("`{variable}` does not say where {self:?} is"))?);
        let path = name.map_or_else(|| value.clone(), |name| value.join(name));
        if path.is_file() { Ok(path) } else { Err(format!("there is no `{}`", path.display())) }
    }

    /// Its variable, and its name in the folder that the variable names; `None`: that names the program itself.
    fn place(self) -> (&'static str, Option<&'static str>) {
        const BIN: &str = "CSI_GATEWAY_TEST_BIN";
        const KUBERNETES: &str = "CSI_GATEWAY_TEST_KUBERNETES";
        match self {
            Self::HostpathDriver => (BIN, Some("hostpathplugin")),
            Self::LivenessProbe => (BIN, Some("livenessprobe")),
            Self::NodeDriverRegistrar => (BIN, Some("csi-node-driver-registrar")),
            Self::Sanity => ("CSI_GATEWAY_TEST_SANITY", None),
            Self::Etcd => (KUBERNETES, Some("etcd")),
            Self::KubeApiServer => (KUBERNETES, Some("kube-apiserver")),
            Self::Containerd => (KUBERNETES, Some("containerd")),
            Self::Kubelet => (KUBERNETES, Some("kubelet")),
            Self::Nomad => ("CSI_GATEWAY_TEST_NOMAD", Some("nomad")),
        }
    }
}

fn value_of(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Says why a test cannot be run here: the `None` to return with.
///
/// # Panics
/// If `CSI_GATEWAY_TEST_STRICT` is set.
pub fn skipped<T>(why: &str) -> Option<T> {
    assert!(value_of("CSI_GATEWAY_TEST_STRICT").is_none(), "a real part is missing: {why}");
    // Not by a macro: what those print is kept back where a test passes.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
    None
}

#[test]
fn a_missing_part_says_why_it_is_missing() {
    assert!(Part::Sanity.look_up(None).is_err_and(|why| why.contains("CSI_GATEWAY_TEST_SANITY")));
    assert!(Part::HostpathDriver.look_up(None).is_err_and(|why| why.contains("CSI_GATEWAY_TEST_BIN")));
    assert!(Part::Kubelet.look_up(None).is_err_and(|why| why.contains("CSI_GATEWAY_TEST_KUBERNETES")));
    let folder = tempfile::tempdir().expect("a scratch folder");
    let found = Part::LivenessProbe.look_up(Some(folder.path().into()));
    assert!(found.is_err_and(|why| why.ends_with("livenessprobe`")));
    let path = folder.path().join("hostpathplugin");
    std::fs::write(&path, "").expect("a file in it");
    assert_eq!(Part::HostpathDriver.look_up(Some(folder.path().into())), Ok(path));
}
