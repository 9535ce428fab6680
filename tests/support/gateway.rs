//! The real gateway, in this process: built from a plan, with short intervals, read over HTTP.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use csi_gateway::app::{Gateway, Keep, Plan};
use csi_gateway::cli::{self, Invocation};
use csi_gateway::commands::http;
use csi_gateway::demo::{FakeDriver, ServedDriver};
use csi_gateway::domain::catalog::Catalog;
use csi_gateway::domain::id::{HostId, PluginId};
use csi_gateway::domain::socket::{RoleChoice, WantedSocket};
use csi_gateway::fingerprint;
use csi_gateway::registry::reader::Reader;
use csi_gateway::registry::reporter::Report;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The host that every test gateway is on.
pub const HOST: &str = "host-aaaa";
/// The name of the driver D0.
pub const D0: &str = "drv.example.com";
/// Longer than anything takes; it only turns a hang into a failure.
pub const LONG: Duration = Duration::from_secs(30);
/// Between two looks at a value that is waited for.
const AGAIN: Duration = Duration::from_millis(5);

/// Settings of the tests: looks at short intervals, limits as long as they usually are.
pub fn quick() -> fingerprint::Settings {
    fingerprint::Settings { poll_interval: Duration::from_millis(100), ..Default::default() }
}

/// A socket with a declared role.
pub fn wanted(path: &Path, role: RoleChoice) -> WantedSocket {
    WantedSocket { role, ..WantedSocket::configured(path) }
}

/// The same with a plugin id.
pub fn named(path: &Path, role: RoleChoice, id: &str) -> WantedSocket {
    WantedSocket { plugin: Some(PluginId::parse(id).expect("a legal id")), ..wanted(path, role) }
}

/// A gateway that runs until it is stopped or dropped.
pub struct TestGateway {
    pub reader: Reader,
    pub feed: mpsc::Sender<Report>,
    address: String,
    stop: CancellationToken,
    run: Option<JoinHandle<()>>,
}

impl TestGateway {
    /// Watches these sockets, and keeps what it sees in memory.
    pub async fn watching(
        sockets: impl IntoIterator<Item = WantedSocket>,
        settings: fingerprint::Settings,
    ) -> TestGateway {
        Self::keeping(Keep::Memory, sockets, settings).await
    }

    /// The same, and says where state is kept.
    pub async fn keeping(
        keep: Keep,
        sockets: impl IntoIterator<Item = WantedSocket>,
        settings: fingerprint::Settings,
    ) -> TestGateway {
        let host = HostId::parse(HOST).expect("a legal host id");
        let sockets: BTreeSet<WantedSocket> = sockets.into_iter().collect();
        let mut plan = Plan::new(host, keep, Some(sockets), vec!["127.0.0.1:0".to_owned()]);
        plan.fingerprint = settings;
        Self::of(plan).await
    }

    /// What a command line makes, with short intervals.
    pub async fn serving(arguments: &[&str], variables: &[(&str, &str)]) -> TestGateway {
        let mut plan = Self::plan(arguments, variables);
        plan.fingerprint.poll_interval = quick().poll_interval;
        Self::of(plan).await
    }

    /// The same with intervals as long as they usually are, so that an event which is missed shows.
    pub async fn seldom(arguments: &[&str], variables: &[(&str, &str)]) -> TestGateway {
        Self::of(Self::plan(arguments, variables)).await
    }

    fn plan(arguments: &[&str], variables: &[(&str, &str)]) -> Plan {
        let arguments = [&["serve", "--http-endpoint=127.0.0.1:0"], arguments].concat();
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let config = match cli::parse(&arguments, &variable) {
            Ok(Invocation::Serve(config)) => config,
            other => panic!("{arguments:?} is {other:?}"),
        };
        let mut plan = Plan::serve(&config, &variable);
        plan.keep = Keep::Memory;
        plan
    }

    /// A gateway of any plan that listens somewhere over TCP first.
    pub async fn of(plan: Plan) -> TestGateway {
        let gateway = Gateway::build(plan).await.expect("a scratch gateway can be built");
        let address = gateway.addresses().next().expect("one address was asked for").to_owned();
        let (reader, feed) = (gateway.reader(), gateway.feed());
        let stop = CancellationToken::new();
        let run = tokio::spawn({
            let stop = stop.clone();
            async move { gateway.run(stop).await.expect("the gateway ends well") }
        });
        Self { reader, feed, address: format!("http://{address}"), stop, run: Some(run) }
    }

    /// Where it serves: `http://HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends it in order.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(run) = self.run.take() {
            tokio::time::timeout(LONG, run).await.expect("it ends when it is told to").expect("nothing panicked");
        }
    }

    /// The body at a path; `None` for a 404.
    pub async fn find(&self, path: &str) -> Option<Value> {
        let answer = http::get(&self.address, path).await.expect("the gateway answers");
        match answer.status.as_u16() {
            404 => None,
            200 => Some(serde_json::from_slice(&answer.body).expect("a body of JSON")),
            status => panic!("{path} answers {status}: {}", String::from_utf8_lossy(&answer.body)),
        }
    }

    /// The body at a path that must be there.
    pub async fn get(&self, path: &str) -> Value {
        self.find(path).await.unwrap_or_else(|| panic!("nothing at {path}"))
    }

    /// The same as text, for what JSON parsers round.
    pub async fn text(&self, path: &str) -> String {
        let answer = http::get(&self.address, path).await.expect("the gateway answers");
        String::from_utf8(answer.body.to_vec()).expect("UTF-8")
    }

    /// A plugin in Nomad's shape; `None` while it does not count.
    pub async fn plugin(&self, id: &str) -> Option<Value> {
        self.find(&format!("/v1/plugin/csi/{id}")).await
    }

    /// Waits until a plugin counts and is as wanted, and returns it.
    pub async fn plugin_until(&self, what: &str, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let plugin = self.plugin(id).await.unwrap_or_default();
            if !plugin.is_null() && is_so(&plugin) {
                return plugin;
            }
            assert!(begun.elapsed() < LONG, "not within {LONG:?}: {what}\n{plugin:#}");
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Nomad's list.
    pub async fn list(&self) -> Value {
        self.get("/v1/plugins?type=csi").await
    }

    /// Everything known of an instance; `None` while nothing is.
    pub async fn detail(&self, id: &str, role: &str) -> Option<Value> {
        let plugin = self.find(&format!("/v1/gateway/plugin/{id}")).await?;
        let instance = &plugin[if role == "node" { "Nodes" } else { "Controllers" }][HOST];
        (!instance.is_null()).then(|| instance.clone())
    }

    /// The entry of a socket.
    pub async fn socket(&self, path: &Path) -> Option<Value> {
        let sockets = self.get("/v1/gateway/sockets").await;
        let path = path.to_string_lossy();
        sockets["Sockets"].as_array().expect("a list").iter().find(|socket| socket["Path"] == *path).cloned()
    }

    /// Transitions of a plugin, the oldest first.
    pub async fn history(&self, id: &str) -> Vec<Value> {
        let Value::Array(mut history) = self.get(&format!("/v1/gateway/history?plugin={id}")).await else {
            panic!("history is a list")
        };
        history.reverse();
        history
    }

    /// `X-Nomad-Index`, and the index of everything.
    pub fn indexes(&self) -> (u64, u64) {
        let catalog = self.reader.current();
        (catalog.nomad_index().0, catalog.index().0)
    }

    /// Waits until the catalog is as wanted.
    pub async fn wait_until(&self, what: &str, is_so: impl Fn(&Catalog) -> bool) {
        let begun = Instant::now();
        while !is_so(&self.reader.current()) {
            if begun.elapsed() > LONG {
                let mut known = String::new();
                for record in self.reader.current().records() {
                    writeln!(known, "{record:?}").expect("text grows");
                }
                panic!(
                    "not within {LONG:?}: {what}\nrecords:\n{known}sockets: {:#}",
                    self.get("/v1/gateway/sockets").await
                );
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Waits until an instance is as wanted, and returns what is known of it.
    pub async fn instance_until(&self, what: &str, id: &str, role: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let instance = self.detail(id, role).await.unwrap_or_default();
            if !instance.is_null() && is_so(&instance) {
                return instance;
            }
            if begun.elapsed() > LONG {
                let sockets = self.get("/v1/gateway/sockets").await;
                panic!("not within {LONG:?}: {what}\n{role} of {id}: {instance:#}\nsockets: {sockets:#}");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Waits until a socket is as wanted, and returns its entry.
    pub async fn socket_until(&self, what: &str, path: &Path, is_so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let socket = self.socket(path).await.unwrap_or_default();
            if !socket.is_null() && is_so(&socket) {
                return socket;
            }
            assert!(begun.elapsed() < LONG, "not within {LONG:?}: {what}\n{socket:#}");
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One driver and a gateway that watches it.
pub struct Scene {
    // Dropped in this order: the driver removes its socket before the directory goes.
    pub gateway: TestGateway,
    pub driver: ServedDriver,
    pub path: PathBuf,
    pub directory: TempDir,
    role: &'static str,
}

impl Scene {
    /// A driver with a declared role, looked at every 100 ms.
    pub async fn new(role: RoleChoice, driver: FakeDriver) -> Self {
        Self::with(role, driver, quick()).await
    }

    /// The same with other settings.
    pub async fn with(role: RoleChoice, driver: FakeDriver, settings: fingerprint::Settings) -> Self {
        Self::of(|path| wanted(path, role), driver, settings).await
    }

    /// The same with anything else that can be declared.
    pub async fn of(
        wanted: impl FnOnce(&Path) -> WantedSocket,
        driver: FakeDriver,
        settings: fingerprint::Settings,
    ) -> Self {
        let directory = TempDir::new().expect("a scratch directory");
        let path = directory.path().join("csi.sock");
        let wanted = wanted(&path);
        let role = if wanted.role == RoleChoice::Controller { "controller" } else { "node" };
        let driver = driver.serve(&path).await.expect("binds");
        let gateway = TestGateway::watching([wanted], settings).await;
        Self { gateway, driver, path, directory, role }
    }

    /// Waits until the instance of D0 is as wanted.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.gateway.instance_until(what, D0, self.role, is_so).await
    }

    /// Waits until D0 is healthy.
    pub async fn healthy(&self) -> Value {
        self.until("the driver is healthy", |instance| instance["Healthy"] == true).await
    }

    /// The inode of the socket file, as it was seen when D0 was healthy.
    pub async fn healthy_inode(&self) -> u64 {
        let is_healthy = |socket: &Value| socket["Phase"] == "healthy";
        let socket = self.gateway.socket_until("the socket is healthy", &self.path, is_healthy).await;
        socket["Inode"].as_u64().expect("a file has an inode")
    }

    /// Waits until D0 is known and not healthy.
    pub async fn unhealthy(&self) -> Value {
        self.until("the driver is unhealthy", |instance| instance["Healthy"] == false).await
    }

    /// Waits until a whole look has passed since this call, its report included.
    pub async fn one_more_look(&self) {
        // The first that ends may have begun before this call, and each is told a moment before its report.
        for _ in 0..3 {
            let before = self.gateway.socket(&self.path).await.expect("watched")["LastProbeTime"].clone();
            let moved = |socket: &Value| socket["LastProbeTime"] != before;
            self.gateway.socket_until("a look ended", &self.path, moved).await;
        }
    }

    /// The record of D0 in Nomad's shape; its plugin must count.
    pub async fn record(&self) -> Value {
        let plugin = self.gateway.plugin(D0).await.expect("the plugin counts");
        plugin[if self.role == "node" { "Nodes" } else { "Controllers" }][HOST].clone()
    }
}
