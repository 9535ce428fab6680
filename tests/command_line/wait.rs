//! `wait` and its kin in scripts, against real gateways that come late, go, and come back.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use csi_gateway::csi::Rpc;
use csi_gateway::demo::{FakeDriver, Reply, ServedDriver};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::peer::Peer;
use crate::support::process::{PATIENCE, Serving, gateway, run, until};

const ID: &str = "node.example.com";

struct Scene {
    folder: tempfile::TempDir,
    driver: ServedDriver,
}

impl Scene {
    /// A driver that says that it is starting.
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let driver = FakeDriver::node(ID).serve(folder.path().join("csi.sock")).await.expect("a driver");
        driver.set(Rpc::Probe, Reply::starting());
        Self { folder, driver }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn address(&self) -> String {
        format!("unix://{}", self.path("gateway.sock"))
    }

    async fn gateway(&self) -> Serving {
        let (driver, endpoint) =
            (format!("--csi-address={}", self.path("csi.sock")), format!("--http-endpoint={}", self.address()));
        let arguments = ["serve", &driver, &endpoint, "--poll-interval=50ms", "--host-id=host-aaaa"];
        Serving::start(&arguments, Path::new(&self.path("log"))).await
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = gateway();
        command.args(arguments).args(["--address", &self.address()]);
        command
    }
}

/// Waits until the gateway has looked, and found the driver so.
async fn phase(gateway: &Serving, wanted: &str) {
    until(wanted, async || {
        let answer = gateway.get(&format!("/v1/gateway/plugin/{ID}")).await;
        let text = answer.text().into_owned();
        let is_so = answer.is_current() && text.contains(&format!("\"Phase\":\"{wanted}\""));
        if is_so { Ok(()) } else { Err(text) }
    })
    .await;
}

/// A child that waits, and what it says.
struct Waiting {
    child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStderr>>,
}

impl Waiting {
    fn new(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        Self { child, lines }
    }

    /// Reads on until it says so.
    async fn until(&mut self, part: &str) {
        let reading = async {
            while let Some(line) = self.lines.next_line().await.expect("text") {
                if line.contains(part) {
                    return true;
                }
            }
            false
        };
        assert!(tokio::time::timeout(PATIENCE, reading).await.expect("it says something"), "it never said: {part}");
    }

    async fn code(mut self) -> Option<i32> {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("it ran").code()
    }
}

#[tokio::test]
async fn it_ends_once_the_plugin_is_healthy_though_the_gateway_starts_later_and_is_killed_meanwhile() {
    let scene = Scene::new().await;
    let mut waiting = Waiting::new(scene.command(&["wait", ID]));
    waiting.until("cannot connect").await;
    let first = scene.gateway().await;
    waiting.until("is starting").await;
    first.kill().await;
    waiting.until("cannot connect").await;
    let _second = scene.gateway().await;
    waiting.until("is starting").await;
    scene.driver.set(Rpc::Probe, Reply::ready());
    assert_eq!(waiting.code().await, Some(0));
}

#[tokio::test]
async fn it_ends_within_50_milliseconds_of_the_plugin_becoming_healthy() {
    let scene = Scene::new().await;
    let gateway = scene.gateway().await;
    let path = format!("/v1/gateway/plugin/{ID}");
    // Waits as the command does, and returns as soon as the gateway tells it.
    let told = async |text: &str| {
        let mut index = 0;
        loop {
            let answer = gateway.get(&format!("{path}?index={index}&wait=30s")).await;
            if answer.text().contains(text) {
                return;
            }
            index = if answer.is_current() { answer.index().expect("an index") } else { 0 };
        }
    };
    let mut took = Vec::new();
    // The best of several: a busy machine is no fault, and one that asks again and again never comes near.
    for _ in 0..8 {
        scene.driver.set(Rpc::Probe, Reply::starting());
        told("\"Phase\":\"starting\"").await;
        let mut waiting = Waiting::new(scene.command(&["wait", ID]));
        waiting.until("is starting").await;
        scene.driver.set(Rpc::Probe, Reply::ready());
        told("\"Phase\":\"healthy\"").await;
        let healthy = Instant::now();
        assert_eq!(waiting.code().await, Some(0));
        took.push(healthy.elapsed());
        if took.last().is_some_and(|took| *took < Duration::from_millis(50)) {
            return;
        }
    }
    unreachable!("{took:?}");
}

#[tokio::test]
async fn who_is_not_healthy_in_time_is_named_with_the_reason() {
    let scene = Scene::new().await;
    let gateway = scene.gateway().await;
    phase(&gateway, "starting").await;
    let (code, out, err) = run(scene.command(&["wait", ID, "--timeout=1s"])).await;
    assert_eq!((code, out.as_str()), (Some(3), ""), "{err}");
    let last: Vec<&str> = err.lines().skip_while(|line| !line.starts_with("error: ")).collect();
    assert_eq!(last[0], "error: `node.example.com` is not healthy after 1 s: nodes 0/1, controllers 0/0");
    assert!(last[1].starts_with("  node on host-aaaa is starting since 20"), "{last:?}");

    scene.driver.set(Rpc::Probe, Reply::ready());
    let (code, out, err) = run(scene.command(&["wait", ID])).await;
    assert_eq!((code, out.as_str()), (Some(0), "node.example.com is healthy: nodes 1/1, controllers 0/0\n"), "{err}");
    // One more node than there is.
    let (code, _, err) = run(scene.command(&["wait", ID, "--nodes=2", "--timeout=1s"])).await;
    assert_eq!(code, Some(3));
    assert!(err.contains("nodes 1/2") && err.contains("1 of 2 nodes are not known at all"), "{err}");
    let (code, _, err) = run(scene.command(&["wait", ID, "--registered", "--timeout=1s"])).await;
    assert_eq!(code, Some(3));
    assert!(err.contains("no kubelet that is watched knows it"), "{err}");
    let (code, _, err) = run(scene.command(&["wait", "nobody", "--timeout=1s"])).await;
    assert_eq!(code, Some(3));
    assert!(err.contains("no instance of it is known"), "{err}");
}

#[tokio::test]
async fn a_plugin_that_the_file_declares_is_expected_and_waited_for() {
    let scene = Scene::new().await;
    scene.driver.set(Rpc::Probe, Reply::ready());
    let file = format!(
        "plugin \"mine\" {{\n  socket = \"{}\"\n  type = \"node\"\n  nodes_expected = 2\n}}\nplugin \"here\" {{\n  host_selector = \"host-*\"\n}}\nplugin \"there\" {{\n  host_selector = \"storage-*\"\n}}\n",
        scene.path("csi.sock")
    );
    std::fs::write(scene.path("conf.hcl"), file).expect("a file");
    let (config, endpoint) =
        (format!("--config={}", scene.path("conf.hcl")), format!("--http-endpoint={}", scene.address()));
    let arguments = ["serve", &config, &endpoint, "--host-id=host-aaaa"];
    let gateway = Serving::start(&arguments, Path::new(&scene.path("log"))).await;
    let (code, _, err) = run(scene.command(&["wait", "mine", "--nodes=1"])).await;
    assert_eq!(code, Some(0), "{err}");
    let list = gateway.json("/v1/plugins?type=csi").await;
    let nodes = |id: &str| {
        let plugin =
            list.as_array().into_iter().flatten().find(|plugin| plugin["ID"] == id).cloned().unwrap_or_default();
        (plugin["NodesHealthy"].as_u64(), plugin["NodesExpected"].as_u64())
    };
    assert_eq!(nodes("mine"), (Some(1), Some(2)), "{list}");
    assert_eq!((nodes("here"), nodes("there")), ((Some(0), Some(1)), (None, None)), "{list}");
    assert_eq!(gateway.json("/v1/gateway/plugin/mine").await["ExpectedSource"], "declared");
    let (code, _, err) = run(scene.command(&["wait", "mine", "--timeout=1s"])).await;
    assert_eq!(code, Some(3));
    assert!(err.contains("nodes 1/2") && err.contains("1 of 2 nodes are not known at all"), "{err}");
}

#[tokio::test]
async fn a_server_that_is_no_gateway_ends_the_wait_at_once() {
    let peer = Peer::serve([("/v1/plugins", json!([]))]).await;
    let mut command = gateway();
    command.args(["wait", ID, "--address", &peer.address]);
    let (code, _, err) = run(command).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("is no gateway: it has no /v1/gateway"), "{err}");
}

#[tokio::test]
async fn history_is_a_table_with_the_newest_last() {
    let scene = Scene::new().await;
    let gateway = scene.gateway().await;
    phase(&gateway, "starting").await;
    scene.driver.set(Rpc::Probe, Reply::ready());
    phase(&gateway, "healthy").await;
    let (code, out, err) = run(scene.command(&["history", ID])).await;
    assert_eq!(code, Some(0), "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("Time") && lines[0].ends_with("What"), "{out}");
    assert!(lines.last().is_some_and(|line| line.contains("host-aaaa  starting -> healthy")), "{out}");
    let (_, out, _) = run(scene.command(&["history", "--json", "--limit=1"])).await;
    let shown: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((shown.as_array().map(Vec::len), &shown[0]["To"]), (Some(1), &"healthy".into()));
    let (code, out, err) = run(scene.command(&["history", "nobody"])).await;
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", "nothing happened to nobody that is remembered\n"));
}

#[tokio::test]
async fn a_healthcheck_asks_where_the_same_configuration_serves() {
    let scene = Scene::new().await;
    std::fs::write(scene.path("conf.hcl"), format!("http_endpoint = [\"{}\"]\n", scene.address())).expect("a file");
    let check = |more: &[&str]| {
        let mut command = gateway();
        command.args(["healthcheck", "--config", &scene.path("conf.hcl")]).args(more);
        run(command)
    };
    let (code, out, err) = check(&[]).await;
    assert_eq!((code, out.as_str()), (Some(4), ""));
    assert!(err.starts_with("not well: cannot connect"), "{err}");
    let _gateway = scene.gateway().await;
    // A driver that is not well is none of its business.
    for more in [&[][..], &["--ready"]] {
        until("well", async || match check(more).await {
            (Some(0), _, _) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
}

#[tokio::test]
async fn bash_completes_commands_and_the_ids_of_the_moment() {
    let scene = Scene::new().await;
    let gateway = scene.gateway().await;
    scene.driver.set(Rpc::Probe, Reply::ready());
    until("listed", async || match gateway.json("/v1/plugins?type=csi").await.as_array().map(Vec::len) {
        Some(1) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    if !Path::new("/bin/bash").exists() {
        csi_gateway::commands::complain("skipped: no bash");
        return;
    }
    let program = env!("CARGO_BIN_EXE_csi-gateway");
    for (line, expected) in [
        (format!("{program} hea"), "healthcheck"),
        (format!("{program} wait --address={} no", scene.address()), ID),
        (format!("{program} serve --plugin-type=mo"), "monolith"),
    ] {
        let script = format!(
            "source <({program} completion bash); COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; _csi_gateway {program}; echo \"${{COMPREPLY[*]}}\""
        );
        // The ids are asked for, and a machine that is too busy for the answer is no fault.
        until("completed", async || {
            let mut bash = crate::support::process::command("/bin/bash");
            bash.args(["-c", &script]);
            match run(bash).await {
                (Some(0), out, _) if out.trim() == expected => Ok(()),
                other => Err(format!("{line}: {other:?}")),
            }
        })
        .await;
    }
}
