//! One node of a real Kubernetes: etcd, API server, containerd and kubelet as processes on loopback. No image can be had,
//! so there are no pods; a driver and its registrar run as processes, too.
//!
//! All live in a mount namespace of their own, in which `/var/lib`, `/var/log` and `/run` are empty. So everything is at its
//! usual place, a gateway beside them needs no configuration, and what they write and mount ends with them.

#![allow(dead_code, unreachable_pub, reason = "each test binary that takes this in uses its own part of it")]

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::parts::{Part, skipped};
use crate::support::daemon::{Process, missing_program, with_the_test};
use crate::support::process::{self, until};

/// What the node is called.
pub const NODE: &str = "node-12345678";
/// The kubelet's root.
pub const KUBELET: &str = "/var/lib/kubelet";
/// Programs that every Debian has, and that a test of a whole host needs.
const TOOLS: [&str; 5] = ["curl", "mount", "nsenter", "setpriv", "unshare"];
/// Kernel settings that a kubelet makes its own: in the namespace they are copies.
const SETTINGS: &str = "vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
                        kernel/keys/root_maxkeys kernel/keys/root_maxbytes";
/// Where containerd listens.
const RUNTIME: &str = "/run/containerd/containerd.sock";
const TOKEN: &str = "let-me-in";

/// A mount namespace: this machine, but for some directories.
#[derive(Debug)]
struct Host {
    /// Keeps the namespace; it does nothing else.
    holder: Process,
    logs: PathBuf,
}

impl Host {
    /// `None` where this machine allows no such thing, which has been said.
    async fn new(logs: &Path) -> Option<Self> {
        let script = format!(
            "for directory in /var/lib /var/log /run; do mount -t tmpfs none $directory; done
             for setting in {SETTINGS}; do
                 copy=/run/$(basename $setting)
                 cat /proc/sys/$setting >$copy
                 mount --bind $copy /proc/sys/$setting
             done
             touch /run/is-ready
             exec sleep infinity"
        );
        let mut command = with_the_test("unshare");
        command.args(["--mount", "sh", "-euc", &script]);
        let mut host = Self { holder: Process::start(command, logs.join("host.log")), logs: logs.to_owned() };
        let is_ready = until("there is a mount namespace", async || {
            let is_ready = host.path("/run/is-ready").exists();
            if is_ready || host.holder.has_ended() { Ok(is_ready) } else { Err(host.holder.log()) }
        })
        .await;
        if is_ready { Some(host) } else { skipped(&format!("no mount namespace: {}", host.holder.log().trim())) }
    }

    /// Where its file system is, seen from outside.
    fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.holder.id()))
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = with_the_test("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg(program);
        command
    }

    fn start(&self, name: &str, program: &Path, arguments: &[String]) -> Process {
        let mut command = self.command(program);
        command.args(arguments);
        Process::start(command, self.logs.join(format!("{name}.log")))
    }
}

/// The programs of a node.
#[derive(Debug)]
struct Programs {
    etcd: PathBuf,
    api_server: PathBuf,
    containerd: PathBuf,
    kubelet: PathBuf,
    driver: PathBuf,
    registrar: PathBuf,
}

impl Programs {
    fn find() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return skipped("only root can run a kubelet");
        }
        if let Some(missing) = missing_program(&TOOLS) {
            return skipped(&format!("there is no `{missing}`"));
        }
        Some(Self {
            etcd: Part::Etcd.find()?,
            api_server: Part::KubeApiServer.find()?,
            containerd: Part::Containerd.find()?,
            kubelet: Part::Kubelet.find()?,
            driver: Part::HostpathDriver.find()?,
            registrar: Part::NodeDriverRegistrar.find()?,
        })
    }
}

/// A node that runs. What stands first ends first.
#[derive(Debug)]
pub struct Node {
    /// The kubelet.
    pub kubelet: Process,
    _others: [Process; 3],
    host: Host,
    programs: Programs,
    ports: Ports,
    folder: TempDir,
}

/// Ports on loopback.
#[derive(Debug)]
struct Ports {
    etcd: u16,
    etcd_peer: u16,
    api: u16,
    kubelet: u16,
    /// Where the kubelet tells its metrics to everybody.
    kubelet_open: u16,
}

impl Ports {
    fn free() -> Self {
        // All at the same time, so that they differ.
        let listeners = [(); 5].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [etcd, etcd_peer, api, kubelet, kubelet_open] =
            listeners.map(|listener| listener.local_addr().expect("it is bound").port());
        Self { etcd, etcd_peer, api, kubelet, kubelet_open }
    }
}

impl Node {
    /// Starts one and waits until it is registered. `None` where this machine cannot, which has been said.
    pub async fn start() -> Option<Self> {
        let programs = Programs::find()?;
        let folder = tempfile::tempdir().expect("a scratch folder");
        let host = Host::new(folder.path()).await?;
        let ports = Ports::free();
        let configuration = Configuration::write(folder.path(), &ports);
        let etcd = host.start("etcd", &programs.etcd, &etcd(&ports));
        let containerd = host.start("containerd", &programs.containerd, &[configuration.of("--config", "containerd")]);
        let api_server = host.start("api-server", &programs.api_server, &api_server(&ports, &configuration));
        // A kubelet that finds no runtime ends.
        let socket = host.path(RUNTIME);
        until("containerd listens", async || UnixStream::connect(&socket).map(drop).map_err(|error| error.to_string()))
            .await;
        let kubelet = host.start("kubelet", &programs.kubelet, &kubelet(&configuration));
        let node = Self { kubelet, _others: [api_server, containerd, etcd], host, programs, ports, folder };
        until("the kubelet registers its node", async || node.registered().await).await;
        Some(node)
    }

    /// The folder of logs, outside the host.
    pub fn logs(&self) -> &Path {
        self.folder.path()
    }

    /// The host's root directory as it is seen from outside.
    pub fn root(&self) -> PathBuf {
        self.host.root()
    }

    /// A path of the host as it is seen from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        self.host.path(path)
    }

    /// A command that runs on the host.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.host.command(program)
    }

    /// Kills the kubelet and starts it again, as a service manager does.
    pub fn restart_kubelet(&mut self) {
        self.kubelet.kill();
        let configuration = Configuration { folder: self.folder.path().to_owned() };
        self.kubelet = self.host.start("kubelet", &self.programs.kubelet, &kubelet(&configuration));
    }

    /// Starts the hostpath driver.
    pub fn start_driver(&self) -> Process {
        let arguments = [
            "--drivername=hostpath.csi.k8s.io".to_owned(),
            format!("--endpoint=unix://{KUBELET}/plugins/csi-hostpath/csi.sock"),
            format!("--nodeid={NODE}"),
            "--statedir=/var/lib/csi-hostpath-data".to_owned(),
        ];
        std::fs::create_dir_all(self.path(KUBELET).join("plugins/csi-hostpath")).expect("a folder of the driver");
        self.host.start("driver", &self.programs.driver, &arguments)
    }

    /// Starts the registrar of the hostpath driver, which answers already.
    pub fn start_registrar(&self) -> Process {
        let socket = format!("{KUBELET}/plugins/csi-hostpath/csi.sock");
        let arguments = [
            format!("--csi-address={socket}"),
            format!("--kubelet-registration-path={socket}"),
            format!("--plugin-registration-path={KUBELET}/plugins_registry"),
        ];
        self.host.start("registrar", &self.programs.registrar, &arguments)
    }

    /// What the API server has at a path.
    pub async fn api(&self, path: &str) -> Result<Value, String> {
        let header = format!("Authorization: Bearer {TOKEN}");
        let url = format!("https://127.0.0.1:{}{path}", self.ports.api);
        let text = curl(&["--insecure", "--header", &header, &url]).await?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// The drivers that the kubelet says are registered, as they stand in its CSINode.
    pub async fn registered(&self) -> Result<Vec<Value>, String> {
        let node = self.api(&format!("/apis/storage.k8s.io/v1/csinodes/{NODE}")).await?;
        Ok(node["spec"]["drivers"].as_array().cloned().unwrap_or_default())
    }

    /// The kubelet's metrics, as Prometheus reads them.
    pub async fn kubelet_metrics(&self) -> Result<String, String> {
        curl(&[&format!("http://127.0.0.1:{}/metrics", self.ports.kubelet_open)]).await
    }
}

/// The body of an answer; an error in words.
async fn curl(arguments: &[&str]) -> Result<String, String> {
    let mut command = process::command("curl");
    command.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "10"]).args(arguments);
    let (code, out, err) = process::run(command).await;
    if code == Some(0) { Ok(out) } else { Err(err) }
}

fn etcd(ports: &Ports) -> [String; 6] {
    let [client, peer] = [ports.etcd, ports.etcd_peer].map(|port| format!("http://127.0.0.1:{port}"));
    [
        "--data-dir=/var/lib/etcd".to_owned(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
    ]
}

fn api_server(ports: &Ports, configuration: &Configuration) -> [String; 11] {
    // It makes itself a key for TLS before it looks for one to sign with.
    let key = "/var/lib/kubernetes/apiserver.key";
    [
        format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd),
        "--bind-address=127.0.0.1".to_owned(),
        // Of no use to anybody, but without a route to anywhere it finds no address by itself.
        "--advertise-address=192.0.2.1".to_owned(),
        format!("--secure-port={}", ports.api),
        "--cert-dir=/var/lib/kubernetes".to_owned(),
        "--service-account-issuer=https://kubernetes.example".to_owned(),
        format!("--service-account-signing-key-file={key}"),
        format!("--service-account-key-file={key}"),
        "--service-cluster-ip-range=10.1.0.0/24".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        configuration.of("--token-auth-file", "tokens"),
    ]
}

fn kubelet(configuration: &Configuration) -> [String; 5] {
    [
        configuration.of("--config", "kubelet"),
        configuration.of("--kubeconfig", "kubeconfig"),
        format!("--hostname-override={NODE}"),
        "--node-ip=127.0.0.1".to_owned(),
        // From here on it logs each registration and its end.
        "--v=5".to_owned(),
    ]
}

/// The files that the programs read.
#[derive(Debug)]
struct Configuration {
    folder: PathBuf,
}

impl Configuration {
    fn write(folder: &Path, ports: &Ports) -> Self {
        let configuration = Self { folder: folder.to_owned() };
        let containerd = "version = 2\n\
            disabled_plugins = [\"io.containerd.internal.v1.opt\"]\n\
            [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
            snapshotter = \"native\"\n";
        let kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "address": "127.0.0.1", "port": ports.kubelet, "readOnlyPort": ports.kubelet_open, "healthzPort": 0,
            "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": format!("unix://{RUNTIME}"),
            "volumePluginDir": "/var/lib/kubelet-volume-plugins",
            // Pods would need these; a machine that runs tests may not have them.
            "cgroupDriver": "cgroupfs", "cgroupsPerQOS": false, "enforceNodeAllocatable": [], "failCgroupV1": false,
            "failSwapOn": false, "localStorageCapacityIsolation": false, "makeIPTablesUtilChains": false
        });
        let cluster = json!({"server": format!("https://127.0.0.1:{}", ports.api), "insecure-skip-tls-verify": true});
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}]
        });
        for (name, text) in [
            ("containerd", containerd.to_owned()),
            ("tokens", format!("{TOKEN},admin,1,\"system:masters\"\n")),
            ("kubelet", kubelet.to_string()),
            ("kubeconfig", kubeconfig.to_string()),
        ] {
            std::fs::write(configuration.path(name), text).expect("a file in the scratch folder");
        }
        configuration
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.configuration"))
    }

    fn of(&self, flag: &str, name: &str) -> String {
        format!("{flag}={}", self.path(name).display())
    }
}
