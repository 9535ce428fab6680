//! The built binary as a service of a host: what it says to systemd and takes from it, how it stops under load, and what it
//! does when the host runs out of disk or descriptors.

#![allow(clippy::panic, reason = "a test that waited in vain has nothing else to do")]

#[path = "support/confined.rs"]
mod confined;
#[path = "support/parts.rs"]
mod parts;
mod support;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use confined::{Held, can_be_confined};
use csi_gateway::commands::http;
use csi_gateway::csi::Rpc;
use csi_gateway::demo::{FakeDriver, Reply, ServedDriver};
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use support::process::{PATIENCE, Serving, command, gateway, signal, until};
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::process::Command;

const NAME: &str = "drv.example.com";

/// A driver, and room for a gateway beside it.
struct Scene {
    driver: ServedDriver,
    folder: TempDir,
}

impl Scene {
    async fn new(driver: FakeDriver) -> Self {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let driver = driver.serve(folder.path().join("csi.sock")).await.expect("binds");
        Self { driver, folder }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// `serve` of that driver by a command that ends in the program.
    fn serve(&self, mut command: Command) -> Command {
        command.args(["serve", "--host-id=host-12345678", "--plugin-type=node"]);
        command.arg(format!("--csi-address=unix://{}", self.driver.socket().display()));
        command
    }

    async fn run(&self, mut command: Command, more: &[&str]) -> Serving {
        command.args(more);
        Serving::run(command, &self.at("log")).await
    }
}

async fn healthy(gateway: &Serving, wanted: u64) {
    until(&format!("NodesHealthy is {wanted}"), async || {
        let answer = gateway.get(&format!("/v1/plugin/csi/{NAME}")).await;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if body["NodesHealthy"] == wanted { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

/// A metric's value; an error as long as so many connect that there is no room for one more.
async fn metric(gateway: &Serving, name: &str) -> Result<u64, String> {
    let answer = http::get(&gateway.address, "/metrics").await.map_err(|error| format!("{error:?}"))?;
    let text = answer.text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).ok_or_else(|| format!("{name} is no number in {text}"))
}

async fn ends_well(gateway: Serving) {
    let mut child = gateway.child;
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.expect("it ends").expect("it can be waited for");
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn systemd_is_told_when_it_is_ready_that_it_lives_and_that_it_stops() {
    // The first look does not end before it is told to.
    let scene = Scene::new(FakeDriver::node(NAME).always(Rpc::PluginInfo, Reply::hang())).await;
    let notified = UnixDatagram::bind(scene.at("notify")).expect("binds");
    let mut command = scene.serve(gateway());
    command.env("NOTIFY_SOCKET", scene.at("notify")).env("WATCHDOG_USEC", "100000");
    let gateway = scene.run(command, &["--http-endpoint=127.0.0.1:0", "--timeout=60s"]).await;
    let mut told = Vec::new();
    let hear = async |told: &mut Vec<String>| {
        let mut buffer = [0; 512];
        let heard = tokio::time::timeout(PATIENCE, notified.recv(&mut buffer)).await.expect("it says something");
        let text = String::from_utf8_lossy(&buffer[..heard.expect("a datagram")]).into_owned();
        told.extend(text.lines().map(str::to_owned));
    };
    let count = |told: &[String], what: &str| told.iter().filter(|line| *line == what).count();
    while count(&told, "WATCHDOG=1") < 4 {
        hear(&mut told).await;
    }
    assert_eq!(count(&told, "READY=1"), 0, "nobody was looked at yet: {told:?}");
    scene.driver.set(Rpc::PluginInfo, Reply::ready());
    scene.driver.cut_connections();
    while count(&told, "READY=1") == 0 {
        hear(&mut told).await;
    }
    signal(&gateway.child, Signal::TERM);
    while count(&told, "STOPPING=1") == 0 {
        hear(&mut told).await;
    }
    ends_well(gateway).await;
}

/// Runs the gateway with one descriptor handed over, as systemd does; told by its variables.
fn handing_over(listener: OwnedFd) -> Command {
    let mut command = command("sh");
    let script = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\" 3<&0 0</dev/null";
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_csi-gateway")]).stdin(Stdio::from(listener));
    command
}

#[tokio::test]
async fn sockets_that_systemd_opened_are_served_at_and_left_where_they_are() {
    let scene = Scene::new(FakeDriver::node(NAME)).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("bound").to_string();
    let gateway = scene.run(scene.serve(handing_over(listener.into())), &[]).await;
    assert_eq!(gateway.address, format!("http://{address}"), "and not the usual address");
    healthy(&gateway, 1).await;
    gateway.kill().await;

    let path = scene.at("gateway.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("binds");
    let gateway = scene.run(scene.serve(handing_over(listener.into())), &[]).await;
    assert_eq!(gateway.address, format!("unix://{}", path.display()));
    healthy(&gateway, 1).await;
    signal(&gateway.child, Signal::TERM);
    ends_well(gateway).await;
    assert!(path.exists(), "its file is systemd's");

    let file = std::fs::File::open(scene.folder.path()).expect("a directory");
    let mut command = scene.serve(handing_over(file.into()));
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().await.expect("it runs");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("handed over cannot be used"), "{complaint}");
}

/// Opens connections that each wait for a change that does not come.
fn blocked(socket: &Path, count: usize, index: u64) -> Vec<UnixStream> {
    let request = format!("GET /v1/plugin/csi/{NAME}?index={index}&wait=5m HTTP/1.1\r\nHost: x\r\n\r\n");
    (0..count)
        .map(|number| {
            let mut stream = UnixStream::connect(socket).unwrap_or_else(|error| panic!("reader {number}: {error}"));
            stream.write_all(request.as_bytes()).expect("its request is small");
            stream
        })
        .collect()
}

fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the hard limit anybody may");
}

#[tokio::test]
async fn told_to_stop_it_answers_thousands_who_wait_and_ends() {
    const READERS: usize = 5_000;
    raise_descriptor_limit();
    let scene = Scene::new(FakeDriver::node(NAME)).await;
    let socket = scene.at("gateway.sock");
    let endpoint = format!("--http-endpoint=unix://{}", socket.display());
    let gateway = scene.run(scene.serve(gateway()), &[&endpoint]).await;
    healthy(&gateway, 1).await;
    let index = gateway.index(&format!("/v1/plugin/csi/{NAME}")).await;
    let readers = tokio::task::spawn_blocking({
        let socket = socket.clone();
        move || blocked(&socket, READERS, index)
    });
    let readers = readers.await.expect("all connect");
    until("all of them wait", async || match metric(&gateway, "csi_gateway_blocking_queries").await {
        Ok(waiting) if waiting == READERS as u64 => Ok(()),
        waiting => Err(format!("{waiting:?}")),
    })
    .await;
    let begun = Instant::now();
    signal(&gateway.child, Signal::TERM);
    ends_well(gateway).await;
    // Far above what it takes, so that it fails only where something waits for what does not come.
    let took = begun.elapsed();
    let _ = writeln!(std::io::stderr(), "{READERS} readers were answered and it ended within {took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    for mut reader in readers {
        let mut answer = String::new();
        reader.read_to_string(&mut answer).expect("it was closed in good order");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with('}'), "{answer}");
    }
}

#[tokio::test]
async fn without_descriptors_it_goes_on_and_serves_again_when_there_are_some() {
    let scene = Scene::new(FakeDriver::node(NAME)).await;
    let mut limited = command("sh");
    limited.args(["-c", "ulimit -n 48 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_csi-gateway")]);
    let socket = scene.at("gateway.sock");
    let endpoint = format!("--http-endpoint=unix://{}", socket.display());
    let gateway = scene.run(scene.serve(limited), &[&endpoint, "--poll-interval=1s"]).await;
    healthy(&gateway, 1).await;
    let index = gateway.index(&format!("/v1/plugin/csi/{NAME}")).await;
    let readers = blocked(&socket, 100, index);
    until("it says that it cannot accept", async || {
        let log = std::fs::read_to_string(scene.at("log")).expect("a log");
        if log.contains("cannot accept connections") { Ok(()) } else { Err(log) }
    })
    .await;
    // The driver's connection is one that it has.
    scene.driver.set(Rpc::Probe, Reply::starting());
    drop(readers);
    healthy(&gateway, 0).await;
    scene.driver.set(Rpc::Probe, Reply::ready());
    healthy(&gateway, 1).await;
    let log = std::fs::read_to_string(scene.at("log")).expect("a log");
    assert!(log.contains("accepts connections again"), "{log}");
    assert!(log.lines().count() < 40, "a trouble that lasts is told once: {log}");
}

/// A gateway whose state lies on a file system of 1 MiB.
struct SmallDisk {
    scene: Scene,
    held: Held,
    state: std::path::PathBuf,
}

impl SmallDisk {
    /// `None`: not to be had here, which was said.
    async fn new() -> Option<Self> {
        let scene = Scene::new(FakeDriver::node(NAME)).await;
        let state = scene.at("state");
        std::fs::create_dir(&state).expect("a directory");
        let mount = format!("mount -t tmpfs -o size=1m,mode=0700 none '{}'", state.display());
        if !can_be_confined(&mount).await {
            return None;
        }
        Some(Self { held: Held::new(&mount).await, scene, state })
    }

    async fn serve(&self) -> Serving {
        let command = self.scene.serve(self.held.command(env!("CARGO_BIN_EXE_csi-gateway")));
        let state = format!("--state-dir={}", self.state.display());
        self.scene.run(command, &["--http-endpoint=127.0.0.1:0", &state, "--poll-interval=100ms"]).await
    }

    fn filler(&self) -> std::path::PathBuf {
        self.held.outside(&self.state).join("filler")
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).expect("room for a name");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("it is ours");
    }

    /// Waits until the driver is shown to be ready or not.
    async fn turns(&self, gateway: &Serving, is_ready: bool) {
        self.scene.driver.set(Rpc::Probe, if is_ready { Reply::ready() } else { Reply::starting() });
        healthy(gateway, u64::from(is_ready)).await;
    }
}

async fn durability(gateway: &Serving, wanted: &str) {
    until(&format!("it is {wanted}"), async || {
        let itself = gateway.json("/v1/gateway").await;
        if itself["Durability"] == wanted { Ok(()) } else { Err(format!("{itself:#}")) }
    })
    .await;
}

async fn index(gateway: &Serving) -> u64 {
    gateway.index(&format!("/v1/plugin/csi/{NAME}")).await
}

#[tokio::test]
async fn on_a_full_disk_it_serves_the_truth_and_stores_it_when_there_is_room() {
    let Some(disk) = SmallDisk::new().await else { return };
    let gateway = disk.serve().await;
    healthy(&gateway, 1).await;
    durability(&gateway, "durable").await;
    let before = index(&gateway).await;
    disk.fill();
    // Each change is a write. Pages that the file holds already may do for the first of them.
    until("it says that nothing is kept any more", async || {
        disk.turns(&gateway, false).await;
        disk.turns(&gateway, true).await;
        let itself = gateway.json("/v1/gateway").await;
        if itself["Durability"] == "not durable" { Ok(()) } else { Err(format!("{itself:#}")) }
    })
    .await;
    let ready = gateway.get("/readyz").await;
    let text = String::from_utf8_lossy(&ready.body).into_owned();
    assert!(ready.status.is_success() && text.contains("not durable"), "{text}");
    disk.turns(&gateway, false).await;
    let seen = index(&gateway).await;
    assert!(seen > before);

    // Killed while it is full, twice: what was committed last is there, and no index falls.
    gateway.kill().await;
    let gateway = disk.serve().await;
    assert!(index(&gateway).await >= seen);
    disk.turns(&gateway, true).await;
    let seen = index(&gateway).await;
    gateway.kill().await;
    let gateway = disk.serve().await;
    assert!(index(&gateway).await >= seen);
    disk.turns(&gateway, false).await;
    let seen = index(&gateway).await;

    disk.make_room();
    durability(&gateway, "durable").await;
    gateway.kill().await;
    disk.scene.driver.vanish().await;
    let gateway = disk.serve().await;
    assert!(index(&gateway).await >= seen);
    let history = gateway.json(&format!("/v1/gateway/history?plugin={NAME}")).await;
    let moves: Vec<&str> = history.as_array().expect("a list").iter().filter_map(|one| one["To"].as_str()).collect();
    let last = moves.iter().find(|to| **to != "gone");
    assert_eq!(last, Some(&"starting"), "the state from before there was room was stored: {history:#}");
}
