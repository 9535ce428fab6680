//! In livenessprobe's place: its arguments, paths, texts and codes; and side by side with the original.

#![allow(clippy::panic, reason = "a test that waited in vain has nothing else to do")]

#[path = "sidecar/metrics.rs"]
mod metrics;
#[path = "support/parts.rs"]
mod parts;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use csi_gateway::cli::{self, Invocation};
use csi_gateway::commands::http::{self, Answer};
use csi_gateway::config::{Sidecar, Surface};
use csi_gateway::csi::Rpc;
use csi_gateway::demo::{FakeDriver, Reply, ServedDriver};
use csi_gateway::domain::code::Code;
use parts::Part;
use rustix::process::Signal;
use support::process::{Serving, command, gateway, run, signal, until};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;
use tokio::task::JoinSet;

const NAME: &str = "drv.example.com";

fn parse(arguments: &[&str]) -> Result<Sidecar, String> {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    match cli::parse(&arguments, &|_| None) {
        Ok(Invocation::Sidecar(config)) => Ok(config),
        Ok(other) => panic!("{arguments:?} is {other:?}"),
        Err(problems) => Err(problems.to_string()),
    }
}

fn surface(endpoint: &str, has_health: bool, metrics_path: Option<&str>) -> Surface {
    Surface { endpoint: endpoint.to_owned(), has_health, metrics_path: metrics_path.map(str::to_owned) }
}

/// As in the drivers' own manifests, variables expanded by the kubelet.
#[test]
fn arguments_of_the_nfs_hostpath_and_ebs_drivers_containers_mean_what_they_meant() {
    let nfs = ["--csi-address=/csi/csi.sock", "--probe-timeout=3s", "--http-endpoint=localhost:29653", "--v=2"];
    let config = parse(&nfs).expect("right");
    assert_eq!(config.surfaces, [surface("localhost:29653", true, Some("/metrics"))]);
    assert_eq!((config.addresses, config.deprecated), (vec![PathBuf::from("/csi/csi.sock")], Vec::<String>::new()));
    let older = ["--csi-address=/csi/csi.sock", "--probe-timeout=3s", "--health-port=29653", "--v=2"];
    let config = parse(&older).expect("right");
    assert_eq!(config.surfaces, [surface(":29653", true, None)]);
    assert_eq!(config.deprecated, ["--health-port"]);
    let hostpath = ["--csi-address=/csi/csi.sock", "--health-port=9898"];
    assert_eq!(parse(&hostpath).expect("right").surfaces, [surface(":9898", true, None)]);
    let ebs = parse(&["--csi-address=/csi/csi.sock"]).expect("right");
    assert_eq!(ebs.surfaces, [surface(":9808", true, None)]);
    assert_eq!((ebs.probe_timeout, ebs.max_age), (Duration::from_secs(3), Duration::from_secs(1)));
    let ebs = ["--csi-address=unix:/csi/csi.sock", "--logging-format=json", "-v", "5", "-probe-timeout", "10s"];
    let config = parse(&ebs).expect("right");
    assert_eq!((config.logging.is_json, config.logging.verbosity), (true, 5));
    assert_eq!(config.addresses, [PathBuf::from("/csi/csi.sock")]);
    let nothing = parse(&["--v=5"]).expect("right");
    assert_eq!(nothing.addresses, [PathBuf::from("/run/csi/socket")], "as the sidecars");
}

#[test]
fn flags_that_have_no_effect_are_taken_and_those_that_cannot_be_fulfilled_are_refused_with_a_hint() {
    let config = parse(&[
        "--automaxprocs",
        "--log-flush-frequency=5s",
        "--vmodule",
        "main=5",
        "--connection-timeout=3s",
        "-logtostderr=true",
        "--metrics-address=:8080",
        "--metrics-path=/m",
        "--health-port=9808",
    ])
    .expect("right");
    assert_eq!(config.surfaces, [surface(":9808", true, None), surface(":8080", false, Some("/m"))]);
    let deprecated = ["--health-port", "--metrics-address", "--connection-timeout", "--logtostderr"];
    assert_eq!(config.deprecated, deprecated);
    for (arguments, problem) in [
        (&["--leader-election"][..], "nothing to elect"),
        (&["--leader-election-namespace=x"], "nothing to elect"),
        (&["--kube-api-qps=5"], "Kubernetes' API"),
        (&["--kubeconfig=/x"], "Kubernetes' API"),
        (&["--kubelet-registration-path=/x"], "node-driver-registrar"),
        (&["--http-endpoint=:1", "--health-port=2"], "--health-port and --http-endpoint exclude each other"),
        (&["--http-endpoint=:1", "--metrics-address=:2"], "--metrics-address and --http-endpoint exclude each other"),
        (&["--http-endpoint=nowhere"], "is no address"),
        (&["--metrics-path=metrics"], "does not begin with a slash"),
        (&["--metrics-path=/healthz"], "is where health is"),
        (&["--healthz-max-age=soon"], "is no duration"),
        (&["--csi-adress=/x"], "did you mean --csi-address?"),
        (&["--poll-interval=1s"], "does not belong to `sidecar`, but to `serve`"),
    ] {
        let problems = parse(arguments).expect_err("wrong");
        assert!(problems.contains(problem), "{arguments:?}: {problems}");
    }
    let same = parse(&["--http-endpoint=:1", "--health-port=9808"]).expect("the default excludes nothing, as there");
    assert_eq!(same.surfaces, [surface(":1", true, Some("/metrics"))]);
}

/// A driver, a sidecar beside it, and room for more.
struct Scene {
    driver: ServedDriver,
    sidecar: Serving,
    folder: TempDir,
}

impl Scene {
    async fn new(driver: FakeDriver, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let driver = driver.serve(folder.path().join("csi.sock")).await.expect("binds");
        let sidecar = beside(driver.socket(), more, &folder.path().join("log")).await;
        Self { driver, sidecar, folder }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("a log")
    }
}

async fn beside(socket: &Path, more: &[&str], log: &Path) -> Serving {
    let address = format!("--csi-address={}", socket.display());
    Serving::start(&[&[&*address, "--http-endpoint=127.0.0.1:0"], more].concat(), log).await
}

async fn health(address: &str) -> (u16, String) {
    let answer = http::get(address, "/healthz").await.expect("it answers");
    (answer.status.as_u16(), answer.text().into_owned())
}

fn ok() -> (u16, String) {
    (200, "ok".to_owned())
}

const FRESH: &str = "--healthz-max-age=0";

#[tokio::test]
async fn health_is_the_drivers_and_nothing_but_health_and_metrics_is_served() {
    let scene = Scene::new(FakeDriver::node(NAME), &[FRESH]).await;
    let address = &scene.sidecar.address;
    assert_eq!(health(address).await, ok());
    scene.driver.set_probe(Reply::starting());
    assert_eq!(health(address).await, (500, "driver responded but is not ready".to_owned()));
    scene.driver.set_probe(Reply::fail(Code::FailedPrecondition, "backend down"));
    let (status, why) = health(address).await;
    let gos = "rpc error: code = FailedPrecondition desc = backend down";
    assert!(status == 500 && why.contains(gos), "{why}");
    scene.driver.set_probe(Reply::silent_on_ready());
    assert_eq!(health(address).await, ok(), "saying nothing means ready");

    for path in
        ["/", "/livez", "/readyz", "/v1/plugins", "/v1/gateway", "/healthz/", "/metrics/", "/ui/", "/debug/pprof"]
    {
        let answer = scene.sidecar.get(path).await;
        let unknown = (answer.status.as_u16(), &*answer.text(), header(&answer, "x-content-type-options"));
        assert_eq!(unknown, (404, "404 page not found\n", "nosniff"), "{path}");
    }
    let answer = scene.sidecar.get("//healthz?x=1").await;
    assert_eq!((answer.status.as_u16(), header(&answer, "location")), (307, "/healthz?x=1"));
    let raw = |request: &'static str| {
        let address = address.trim_start_matches("http://").to_owned();
        async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
            let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("asks");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("answers");
            answer
        }
    };
    let answer = raw("POST /healthz").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
    let answer = raw("HEAD /healthz").await;
    assert!(answer.contains("Content-Length: 2\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
}

#[tokio::test]
async fn before_a_driver_has_ever_answered_health_is_500_with_the_reason_and_then_it_is_the_drivers() {
    let folder = tempfile::tempdir().expect("a scratch directory");
    let socket = folder.path().join("csi.sock");
    let sidecar = beside(&socket, &[FRESH], &folder.path().join("log")).await;
    let (status, why) = health(&sidecar.address).await;
    assert!(status == 500 && why.contains("there is no socket") && why.contains("has not started"), "{why}");
    let driver = FakeDriver::node(NAME).always(Rpc::PluginInfo, Reply::fail(Code::Internal, "not yet"));
    let driver = driver.serve(&socket).await.expect("binds");
    let (status, why) = health(&sidecar.address).await;
    assert!(status == 500 && why.contains("not yet"), "{why}");
    assert_eq!(driver.calls(Rpc::Probe), 0, "who has no name is asked for that first, as there");
    driver.set(Rpc::PluginInfo, Reply::ready());
    assert_eq!(health(&sidecar.address).await, ok());
    let asked = driver.calls(Rpc::PluginInfo);
    assert_eq!(health(&sidecar.address).await, ok());
    assert_eq!(driver.calls(Rpc::PluginInfo), asked, "and only once");
    signal(&sidecar.child, Signal::TERM);
    let mut child = sidecar.child;
    assert!(child.wait().await.expect("it ends").success());
    let left: BTreeSet<String> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(left.into_iter().collect::<Vec<_>>(), ["csi.sock", "log"], "nothing is kept");
}

#[tokio::test]
async fn a_driver_that_hangs_is_told_in_time_and_asked_once_however_many_ask() {
    let scene = Scene::new(FakeDriver::node(NAME), &["--probe-timeout=500ms"]).await;
    assert_eq!(health(&scene.sidecar.address).await, ok());
    scene.driver.set_probe(Reply::hang());
    scene.driver.cut_connections();
    until("it hangs", async || match health(&scene.sidecar.address).await {
        (500, why) if why.contains("did not answer Probe within 500 ms") && why.contains("DeadlineExceeded") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let asked = scene.driver.calls(Rpc::Probe);
    let mut asking = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..50 {
        let address = scene.sidecar.address.clone();
        asking.spawn(async move { health(&address).await });
    }
    for (status, why) in asking.join_all().await {
        assert_eq!(status, 500, "{why}");
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "each by its own deadline, and all together: {took:?}");
    let more = scene.driver.calls(Rpc::Probe) - asked;
    assert!(more <= 1 + usize::try_from(took.as_millis() / 500).expect("few") + 1, "{more} probes in {took:?}");
}

#[tokio::test]
async fn who_asks_joins_a_probe_that_began_lately_or_one_that_begins_after_he_asked() {
    let scene = Scene::new(FakeDriver::node(NAME), &["--healthz-max-age=1h"]).await;
    for _ in 0..5 {
        assert_eq!(health(&scene.sidecar.address).await, ok());
    }
    assert_eq!(scene.driver.calls(Rpc::Probe), 1, "the first one, at the start, answers all");
    scene.driver.set_probe(Reply::starting());
    assert_eq!(health(&scene.sidecar.address).await, ok(), "it is as old as it may be");
    scene.driver.cut_connections();
    until("its end ends what was said", async || match health(&scene.sidecar.address).await {
        (500, _) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    let slow = Reply::ready().after(Duration::from_millis(300));
    let scene = Scene::new(FakeDriver::node(NAME).always(Rpc::Probe, slow), &[FRESH]).await;
    assert_eq!(health(&scene.sidecar.address).await, ok());
    let asked = scene.driver.calls(Rpc::Probe);
    let address = scene.sidecar.address.clone();
    let first = tokio::spawn(async move { health(&address).await });
    scene.driver.wait_for_calls(Rpc::Probe, asked + 1).await;
    // In flight: what this one says of later times is nothing.
    scene.driver.set_probe(Reply::starting());
    assert_eq!(health(&scene.sidecar.address).await.0, 500);
    assert_eq!(first.await.expect("asked"), ok());
    assert_eq!(scene.driver.calls(Rpc::Probe), asked + 2);
}

#[tokio::test]
async fn of_several_drivers_all_have_to_be_ready_and_those_are_named_that_are_not() {
    let folder = tempfile::tempdir().expect("a scratch directory");
    let (one, other) = (folder.path().join("one.sock"), folder.path().join("other.sock"));
    let first = FakeDriver::node("one.example.com").serve(&one).await.expect("binds");
    let second = FakeDriver::node("other.example.com").serve(&other).await.expect("binds");
    let more = format!("--csi-address={}", other.display());
    let sidecar = beside(&one, &[&more, FRESH], &folder.path().join("log")).await;
    assert_eq!(health(&sidecar.address).await, ok());
    second.set_probe(Reply::starting());
    let expected = (500, format!("{}: driver responded but is not ready", other.display()));
    assert_eq!(health(&sidecar.address).await, expected);
    first.vanish().await;
    let (status, why) = health(&sidecar.address).await;
    let lines: Vec<&str> = why.lines().collect();
    assert!(status == 500 && lines.len() == 2, "{why}");
    for (line, socket) in lines.into_iter().zip([&one, &other]) {
        assert!(line.starts_with(&format!("{}: ", socket.display())), "{why}");
    }
}

#[tokio::test]
async fn pods_without_a_free_port_ask_over_a_unix_socket_or_by_a_command() {
    let folder = tempfile::tempdir().expect("a scratch directory");
    let socket = folder.path().join("csi.sock");
    let driver = FakeDriver::node(NAME).serve(&socket).await.expect("binds");
    let endpoint = format!("unix://{}", folder.path().join("health.sock").display());
    let arguments =
        [format!("--csi-address={}", socket.display()), format!("--http-endpoint={endpoint}"), FRESH.into()];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let sidecar = Serving::start(&arguments, &folder.path().join("log")).await;
    assert_eq!(sidecar.address, endpoint);
    assert_eq!(health(&endpoint).await, ok());
    let check = || {
        let mut command = gateway();
        command.arg("healthcheck").arg(format!("--http-endpoint={endpoint}"));
        run(command)
    };
    assert_eq!(check().await, (Some(0), "ok\n".to_owned(), String::new()));
    driver.set_probe(Reply::starting());
    let (code, _, complaint) = check().await;
    assert!(code == Some(4) && complaint.contains("/healthz answers 500"), "{complaint}");
    let mut probe = gateway();
    probe.arg("probe").arg(format!("--csi-address=unix://{}", socket.display()));
    assert_eq!(run(probe).await.0, Some(4));
}

#[tokio::test]
async fn a_sidecar_says_what_changes_once_and_which_flags_are_no_longer_meant() {
    let scene = Scene::new(FakeDriver::node(NAME), &[FRESH, "--connection-timeout=1s", "--logging-format=json"]).await;
    for _ in 0..20 {
        assert_eq!(health(&scene.sidecar.address).await, ok());
    }
    scene.driver.vanish().await;
    for _ in 0..20 {
        assert_eq!(health(&scene.sidecar.address).await.0, 500);
    }
    let lines: Vec<serde_json::Value> =
        scene.log().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |message: &str| lines.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    assert_eq!((of("driver is healthy").len(), of("driver is gone").len()), (1, 1), "{lines:?}");
    let gone = of("driver is gone")[0];
    assert_eq!((&gone["level"], &gone["from"], &gone["to"]), (&"WARN".into(), &"healthy".into(), &"gone".into()));
    assert_eq!((&gone["provider"], gone["socket"].as_str()), (&NAME.into(), scene.driver.socket().to_str()));
    let deprecated = lines.iter().filter(|line| line["flags"] == "--connection-timeout").count();
    assert_eq!((deprecated, lines.len()), (1, 5), "{lines:?}");
}

/// Sidecars count from 0 to 5, and `RUST_LOG` wins.
#[tokio::test]
async fn how_much_is_logged_is_said_by_v_or_by_rust_log() {
    let folder = tempfile::tempdir().expect("a scratch directory");
    let driver = FakeDriver::node(NAME).serve(folder.path().join("csi.sock")).await.expect("binds");
    let logged = async |level: &str, variable: &str| {
        let log = folder.path().join("log");
        let mut command = gateway();
        command.arg(format!("--csi-address={}", driver.socket().display())).arg(level);
        command.args(["--http-endpoint=127.0.0.1:0", "--logging-format=json", FRESH]);
        if !variable.is_empty() {
            command.env("RUST_LOG", variable);
        }
        let sidecar = Serving::run(command, &log).await;
        for _ in 0..3 {
            assert_eq!(health(&sidecar.address).await, ok());
        }
        sidecar.kill().await;
        let text = std::fs::read_to_string(&log).expect("a log");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let count = |message: &str| lines.iter().filter(|line| line["message"] == message).count();
        (lines.len(), count("looked at a driver") >= 3, count("a call ended") >= 3)
    };
    for quiet in ["--v=0", "--v=2", "--v=3"] {
        assert_eq!(logged(quiet, "").await, (3, false, false), "{quiet}");
    }
    let (_, has_looks, has_calls) = logged("--v=4", "").await;
    assert!(has_looks && !has_calls);
    let (_, has_looks, has_calls) = logged("--v=5", "").await;
    assert!(has_looks && has_calls);
    assert_eq!(logged("--v=5", "csi_gateway=warn").await, (0, false, false));
    let (_, has_looks, has_calls) = logged("--v=0", "csi_gateway=trace").await;
    assert!(has_looks && has_calls);
}

#[tokio::test]
async fn restarts_of_the_driver_leave_nothing_behind() {
    let scene = Scene::new(FakeDriver::node(NAME), &[FRESH]).await;
    let pid = scene.sidecar.child.id().expect("it runs");
    let descriptors = || std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
    let mut early = 0;
    for round in 0..60 {
        scene.driver.leave_dead().await;
        let (status, why) = health(&scene.sidecar.address).await;
        assert_eq!(status, 500, "{why}");
        scene.driver.come_back().await.expect("binds");
        assert_eq!(health(&scene.sidecar.address).await, ok());
        if round == 10 {
            early = descriptors();
        }
    }
    assert!(descriptors() <= early + 2, "{early} descriptors became {}", descriptors());
}

// Side by side ---------------------------------------------------------------------------------------------------------

/// The original, and where it serves.
struct Original {
    _child: Child,
    address: String,
}

impl Original {
    fn start(binary: &Path, socket: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound").port();
        let mut command = command(binary);
        command.arg(format!("--csi-address={}", socket.display()));
        command.arg(format!("--http-endpoint=127.0.0.1:{port}")).arg("--probe-timeout=1s");
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        Self { _child: child, address: format!("http://127.0.0.1:{port}") }
    }
}

#[tokio::test]
async fn side_by_side_with_the_original_every_status_is_the_same() {
    let Some(binary) = Part::LivenessProbe.find() else { return };
    let folder = tempfile::tempdir().expect("a scratch directory");
    let socket = folder.path().join("csi.sock");
    let driver = FakeDriver::node(NAME).serve(&socket).await.expect("binds");
    let original = Original::start(&binary, &socket);
    until("the original serves", async || http::get(&original.address, "/healthz").await.map_err(|e| e.to_string()))
        .await;
    let fresh = beside(&socket, &[FRESH, "--probe-timeout=1s"], &folder.path().join("fresh")).await;
    let usual = beside(&socket, &["--probe-timeout=1s"], &folder.path().join("usual")).await;
    let same = async |what: &str, wanted: u16| {
        let (theirs, ours) = (health(&original.address).await, health(&fresh.address).await);
        assert_eq!((theirs.0, ours.0), (wanted, wanted), "{what}: {theirs:?}, {ours:?}");
        if wanted == 200 || theirs.1 == "driver responded but is not ready" {
            assert_eq!(theirs, ours, "{what}");
        }
        // What is a second old may differ, and not longer.
        until(what, async || match health(&usual.address).await {
            usual if usual.0 == theirs.0 => Ok(()),
            usual => Err(format!("{usual:?}")),
        })
        .await;
    };
    same("healthy", 200).await;
    driver.set_probe(Reply::starting());
    same("not ready", 500).await;
    driver.set_probe(Reply::silent_on_ready());
    same("says nothing of readiness", 200).await;
    driver.set_probe(Reply::fail(Code::FailedPrecondition, "backend down"));
    same("an error", 500).await;
    driver.set_probe(Reply::fail(Code::Unimplemented, "no Probe"));
    same("no Probe", 500).await;
    driver.set_probe(Reply::hang());
    same("hung", 500).await;
    driver.set_probe(Reply::ready());
    same("well again", 200).await;
    driver.leave_dead().await;
    same("killed", 500).await;
    driver.come_back().await.expect("binds");
    same("restarted", 200).await;
    std::fs::rename(&socket, folder.path().join("elsewhere")).expect("it is there");
    same("its socket is removed, and it goes on", 500).await;
    std::fs::rename(folder.path().join("elsewhere"), &socket).expect("it is there");
    same("the socket is back", 200).await;
    driver.vanish().await;
    same("gone", 500).await;
    driver.come_back().await.expect("binds");
    same("restarted once more", 200).await;

    for path in ["/", "/livez", "/healthz/", "/metrics/x", "//healthz", "//nope", "/a/../healthz", "/%68ealthz"] {
        let theirs = http::get(&original.address, path).await.expect("it answers");
        let ours = http::get(&fresh.address, path).await.expect("it answers");
        let all = |answer: &Answer| {
            let headers =
                ["content-type", "location", "x-content-type-options"].map(|name| header(answer, name).to_owned());
            (answer.status, answer.text().into_owned(), headers)
        };
        assert_eq!(all(&theirs), all(&ours), "{path}");
    }
}

#[tokio::test]
async fn at_a_wrong_path_the_original_refuses_connections_and_we_say_why() {
    let Some(binary) = Part::LivenessProbe.find() else { return };
    let folder = tempfile::tempdir().expect("a scratch directory");
    let wrong = folder.path().join("wrong.sock");
    let original = Original::start(&binary, &wrong);
    let ours = beside(&wrong, &[], &folder.path().join("log")).await;
    let (status, why) = health(&ours.address).await;
    assert!(status == 500 && why.contains("there is no socket"), "{why}");
    assert!(http::get(&original.address, "/healthz").await.is_err());
}

/// Series without their values, of the metrics that the sidecars have.
fn series(text: &str) -> BTreeMap<String, String> {
    let is_theirs = |line: &&str| line.starts_with("csi_sidecar_") || line.starts_with("process_start_time_seconds");
    let lines = text.lines().filter(is_theirs);
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn metrics_have_the_names_labels_and_bounds_of_the_originals() {
    let Some(binary) = Part::LivenessProbe.find() else { return };
    let scene = Scene::new(FakeDriver::node(NAME), &[FRESH]).await;
    let original = Original::start(&binary, scene.driver.socket());
    until("the original serves", async || http::get(&original.address, "/healthz").await.map_err(|e| e.to_string()))
        .await;
    for reply in [Reply::ready(), Reply::starting(), Reply::fail(Code::Unavailable, "down")] {
        scene.driver.set_probe(reply);
        health(&scene.sidecar.address).await;
        health(&original.address).await;
    }
    let theirs = http::get(&original.address, "/metrics").await.expect("it answers");
    let ours = scene.sidecar.get("/metrics").await;
    let (theirs, ours) = (series(&theirs.text()), series(&ours.text()));
    assert!(theirs.len() > 40, "{theirs:?}");
    assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>());
}

#[tokio::test]
async fn metrics_are_where_they_were_asked_for_and_as_they_were_asked_for() {
    let folder = tempfile::tempdir().expect("a scratch directory");
    let driver = FakeDriver::node(NAME).serve(folder.path().join("csi.sock")).await.expect("binds");
    let address = format!("--csi-address={}", driver.socket().display());
    let metrics = folder.path().join("metrics.sock");
    let metrics = format!("--metrics-address=unix://{}", metrics.display());
    let arguments = [&*address, "--health-port=0", &*metrics, "--metrics-path=/m", FRESH];
    let sidecar = Serving::start(&arguments, &folder.path().join("log")).await;
    let port = sidecar.address.rsplit(':').next().expect("a port");
    let health_at = format!("http://127.0.0.1:{port}");
    assert_eq!(health(&health_at).await, ok());
    let metrics_at = metrics.trim_start_matches("--metrics-address=");
    assert_eq!(http::get(&health_at, "/m").await.expect("it answers").status, 404, "as there");
    assert_eq!(http::get(metrics_at, "/healthz").await.expect("it answers").status, 404, "as there");
    let answer = http::get(metrics_at, "/m").await.expect("it answers");
    let text = answer.text();
    let probes = format!("csi_gateway_probes_total{{driver_name=\"{NAME}\",result=\"ready\"}} ");
    assert!(text.contains(&probes) && text.contains("\nprocess_resident_memory_bytes "), "{text}");
    assert!(!text.contains("csi_gateway_instance"), "{text}");
}
