//! A host's root directory, laid out as kubelets and Nomad do it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use csi_gateway::demo::{FakeDriver, ServedDriver};
use serde_json::Value;
use tempfile::TempDir;

use super::gateway::{HOST, LONG, TestGateway};

/// The call that would tell a registrar of a registration that did not happen.
pub const NOTIFY: &str = "/pluginregistration.Registration/NotifyRegistrationStatus";
/// An allocation of Nomad's.
pub const ALLOCATION: &str = "b1946ac9-2492-d234-7c62-35e5b5a5c0aa";
const POD: &str = "0f6a3c9e-1111-2222-3333-444455556666";
/// What Nomad calls the host.
const CLIENT: &str = "5f9ba2d0-aaaa-bbbb-cccc-ddddeeeeffff";

/// An empty file, and the directories above it.
pub fn file(path: &Path) {
    std::fs::create_dir_all(path.parent().expect("below the root")).expect("can be made");
    std::fs::write(path, "").expect("can be written");
}

/// A host's root directory, and a gateway that was told nothing else.
pub struct Host {
    root: TempDir,
}

impl Host {
    pub fn new() -> Self {
        Self { root: TempDir::new().expect("a scratch directory") }
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// As `serve` and `doctor` are told of it.
    pub fn as_flag(&self) -> String {
        format!("--host-root={}", self.root.path().display())
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub fn kubelet(&self, path: &str) -> PathBuf {
        self.at("var/lib/kubelet").join(path)
    }

    pub fn nomad(&self, path: &str) -> PathBuf {
        self.at("opt/nomad/data/client").join(path)
    }

    pub async fn serve(&self, driver: FakeDriver, path: &Path) -> ServedDriver {
        driver.serve(path).await.expect("binds")
    }

    /// A registrar of a driver whose path is the host's.
    pub async fn register(&self, name: &str, endpoint: &str) -> ServedDriver {
        let path = self.kubelet("plugins_registry").join(format!("{name}-reg.sock"));
        self.serve(FakeDriver::registrar("CSIPlugin", name, endpoint), &path).await
    }

    pub async fn gateway(&self) -> TestGateway {
        self.gateway_with(&[], &[("NODE_NAME", HOST)]).await
    }

    pub async fn gateway_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> TestGateway {
        TestGateway::serving(&[&[self.as_flag().as_str()], arguments].concat(), variables).await
    }
}

/// An instance that should be found.
struct Expected {
    id: &'static str,
    role: &'static str,
    alloc: &'static str,
    source: &'static str,
    registration: Option<&'static str>,
}

/// A host full of drivers, and of what is none.
pub struct Full {
    answering: Vec<ServedDriver>,
    silent: Vec<ServedDriver>,
    expected: Vec<Expected>,
    ignored: Vec<(PathBuf, &'static str)>,
}

impl Full {
    /// Lays it out.
    pub async fn lay(host: &Host) -> Self {
        file(&host.nomad("secret-id"));
        std::fs::write(host.nomad("client-id"), format!("{CLIENT}\n")).expect("can be written");
        let volume = host.kubelet(&format!("pods/{POD}/volumes/kubernetes.io~empty-dir/socket-dir/csi.sock"));
        assert!(volume.as_os_str().len() > 107, "longer than the kernel's addresses");
        let hidden = host.kubelet("plugins_registry/.new-reg.sock");
        let dra = "/var/lib/kubelet/plugins/dra/dra";
        let registrar = host.register("reg.example.com", "/var/lib/kubelet/plugins/a/csi.sock").await;
        let add_on = host.serve(FakeDriver::registrar("x", "x", ""), &host.kubelet("plugins/b/csi-addons.sock")).await;
        let gpu = FakeDriver::registrar("DevicePlugin", "gpu.example.com", "");
        let gpu = host.serve(gpu, &host.kubelet("plugins_registry/gpu/gpu.sock")).await;
        let dra = FakeDriver::registrar("DRAPlugin", "dra.example.com", dra);
        let dra = host.serve(dra, &host.kubelet("plugins_registry/dra.sock")).await;
        let ignored = vec![
            (registrar.socket().to_owned(), "announces \"reg.example.com\""),
            (add_on.socket().to_owned(), "does not implement GetPluginInfo"),
            (gpu.socket().to_owned(), "registers \"gpu.example.com\" as \"DevicePlugin\""),
            (dra.socket().to_owned(), "registers \"dra.example.com\" as \"DRAPlugin\""),
            (hidden.clone(), "begins with a dot"),
            (host.kubelet("plugins/kubernetes.io"), "never looked into"),
        ];
        let mut answering = vec![registrar, add_on, gpu, dra];
        for (driver, path) in [
            (FakeDriver::monolith("reg.example.com"), host.kubelet("plugins/a/csi.sock")),
            (FakeDriver::monolith("plain.example.com"), host.kubelet("plugins/b/csi.sock")),
            (FakeDriver::node("old.example.com"), host.kubelet("csi-plugins/old/csi.sock")),
            (FakeDriver::monolith("reg.example.com"), volume),
            (FakeDriver::monolith("vendor.example.com"), host.nomad(&format!("csi/plugins/{ALLOCATION}/csi.sock"))),
            (FakeDriver::node("usual.example.com"), host.at("run/csi/socket")),
        ] {
            answering.push(host.serve(driver, &path).await);
        }
        let mut silent = Vec::new();
        for (driver, path) in [
            (FakeDriver::registrar("CSIPlugin", "hidden", ""), hidden),
            (FakeDriver::node("mount.example.com"), host.kubelet("plugins/kubernetes.io/csi.sock")),
            (FakeDriver::node("staging.example.com"), host.nomad("csi/monolith/ebs-prod/staging/vol/csi.sock")),
        ] {
            silent.push(host.serve(driver, &path).await);
        }
        let expected = [
            ("reg.example.com", "Nodes", "", "kubelet registration", Some("ok")),
            ("reg.example.com", "Controllers", POD, "empty-dir", None),
            ("plain.example.com", "Nodes", "", "kubelet plugins", Some("unregistered")),
            ("old.example.com", "Nodes", "", "kubelet plugins", Some("unregistered")),
            ("ebs-prod", "Controllers", ALLOCATION, "nomad", None),
            ("ebs-prod", "Nodes", ALLOCATION, "nomad", None),
            ("usual.example.com", "Nodes", "", "well-known", None),
        ];
        let expected = expected.into_iter().map(|(id, role, alloc, source, registration)| Expected {
            id,
            role,
            alloc,
            source,
            registration,
        });
        Self { answering, silent, expected: expected.collect(), ignored }
    }

    /// How many instances there are.
    pub fn instances(&self) -> usize {
        self.expected.len()
    }

    /// Waits until a gateway shows all of it.
    pub async fn is_shown(&self, get: impl AsyncFn(&str) -> Value) {
        let begun = Instant::now();
        loop {
            let lacks = self.lacks(&get).await;
            if lacks.is_empty() {
                return;
            }
            assert!(begun.elapsed() < LONG, "not within {LONG:?}:\n{}", lacks.join("\n"));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn lacks(&self, get: &impl AsyncFn(&str) -> Value) -> Vec<String> {
        let mut lacks = Vec::new();
        let plugins = get("/v1/gateway/plugins").await;
        let known: Vec<&str> =
            plugins.as_array().into_iter().flatten().filter_map(|plugin| plugin["ID"].as_str()).collect();
        let view = get("/v1/gateway/sockets").await;
        let sockets: Vec<&Value> = view["Sockets"].as_array().into_iter().flatten().collect();
        for Expected { id, role, alloc, source, registration } in &self.expected {
            if !known.contains(id) {
                lacks.push(format!("{id} is not known"));
                continue;
            }
            let plugin = get(&format!("/v1/gateway/plugin/{id}")).await;
            let instance = &plugin[role][CLIENT];
            let source_of =
                sockets.iter().find(|socket| socket["Path"] == instance["Socket"]).map(|socket| &socket["Source"]);
            let is_as_expected = instance["Healthy"] == true
                && instance["AllocID"] == *alloc
                && instance["Registration"].as_str() == registration.filter(|verdict| !verdict.is_empty())
                && source_of.is_some_and(|found| found == source);
            if !is_as_expected {
                lacks.push(format!("{role} of {id} in {source}: {instance:#}"));
            }
        }
        for (path, why) in &self.ignored {
            let entry = sockets.iter().find(|socket| socket["Path"] == *path.to_string_lossy());
            let is_so = entry.is_some_and(|socket| {
                socket["Ignored"] == true && socket["Reason"].as_str().is_some_and(|reason| reason.contains(why))
            });
            if !is_so {
                lacks.push(format!("{} is left alone because {why:?}: {entry:?}", path.display()));
            }
        }
        lacks
    }

    /// Ends it: what lies in mounts was never asked anything, and nobody was told of a registration (case 102).
    pub async fn finish(self) {
        for silent in &self.silent {
            assert_eq!(silent.connections(), 0, "{silent}");
        }
        for driver in self.answering {
            assert_eq!(driver.calls_at(NOTIFY), 0, "{driver}");
            driver.finish().await.expect("as scripted");
        }
    }
}
