//! The built binary beside a real driver, csi-driver-host-path. What is checked here a scripted driver cannot show: that
//! what a running Nomad answered for this driver is what we answer, and that a real process dies, hangs and comes back.
//!
//! How quickly it shows is measured by `scripts/load --only detection`, not here; here it must only not need a poll.

#[path = "support/parts.rs"]
mod parts;
mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use csi_gateway::csi::{Driver, Limits, Readiness};
use parts::Part;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::process::{Serving, command, run, signal, until};
use tokio::process::Child;

/// What an event shows is there long before the next poll, which is 30 s away.
const BY_EVENT: Duration = Duration::from_secs(5);

struct Hostpath {
    program: PathBuf,
    folder: PathBuf,
}

impl Hostpath {
    fn socket(&self) -> PathBuf {
        self.folder.join("csi.sock")
    }

    fn address(&self) -> String {
        format!("--csi-address=unix://{}", self.socket().display())
    }

    fn start(&self) -> Child {
        let sink = std::fs::File::create(self.folder.join("driver.log")).expect("a log file");
        command(&self.program)
            .arg("--drivername=hostpath.csi.k8s.io")
            .arg(format!("--endpoint=unix://{}", self.socket().display()))
            .arg("--nodeid=node-12345678")
            .arg(format!("--statedir={}", self.folder.join("state").display()))
            .stdout(std::process::Stdio::null())
            .stderr(sink)
            .spawn()
            .expect("the driver starts")
    }

    async fn answers(&self) -> Instant {
        until("the driver answers", async || {
            let driver = Driver::connect(&self.socket(), Limits::default()).await.map_err(|error| error.to_string())?;
            match driver.probe().await {
                Ok(Readiness::Ready) => Ok(Instant::now()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }
}

fn hostpath(folder: &Path) -> Option<Hostpath> {
    let program = Part::HostpathDriver.find()?;
    std::fs::create_dir_all(folder.join("state")).expect("a state folder");
    Some(Hostpath { program, folder: folder.to_owned() })
}

async fn serve(driver: &Hostpath, more: &[&str]) -> Serving {
    let address = driver.address();
    let mut arguments = vec![
        "serve",
        &address,
        "--plugin-id=hostpath0",
        "--plugin-type=monolith",
        "--host-id=host-12345678",
        "--http-endpoint=127.0.0.1:0",
    ];
    arguments.extend(more);
    Serving::start(&arguments, &driver.folder.join("gateway.log")).await
}

/// Waits until both instances are as wanted; gives the read body and the time.
async fn healthy(gateway: &Serving, wanted: bool) -> (Value, Instant) {
    until(if wanted { "it is healthy" } else { "it is unhealthy" }, async || {
        let answer = gateway.get("/v1/gateway/plugin/hostpath0").await;
        let body: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        let is_as_wanted = ["Controllers", "Nodes"].iter().all(|role| body[role]["host-12345678"]["Healthy"] == wanted);
        if is_as_wanted { Ok((body, Instant::now())) } else { Err(body.to_string()) }
    })
    .await
}

/// Times and indexes are asserted to be some, then replaced.
fn redacted(mut value: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    match key.as_str() {
                        "CreateIndex" | "ModifyIndex" | "CreateTime" | "ModifyTime" => {
                            assert!(value.as_u64().is_some_and(|number| number > 1_000_000_000_000), "{key}: {value}");
                            *value = json!(0);
                        }
                        "UpdateTime" => {
                            let text = value.as_str().expect("a time");
                            assert!(text.parse::<jiff::Timestamp>().is_ok(), "{text}");
                            *value = json!("time");
                        }
                        _ => walk(value),
                    }
                }
            }
            Value::Array(list) => list.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut value);
    value
}

/// The keys of a compact JSON object in the order of the text.
fn outer_keys(text: &str) -> Vec<String> {
    let (mut keys, mut depth) = (Vec::new(), 0);
    for (place, piece) in text.split('"').enumerate() {
        if place % 2 == 0 {
            depth += piece.matches(['{', '[']).count();
            depth -= piece.matches(['}', ']']).count();
        } else if depth == 1 && text.contains(&format!("\"{piece}\":")) {
            keys.push(piece.to_owned());
        }
    }
    // Values of the outer object that are text stand at the same depth as keys.
    keys.retain(|key| key != "hostpath0");
    keys
}

#[tokio::test]
async fn a_real_driver_is_shown_as_a_running_nomad_showed_it() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let Some(driver) = hostpath(folder.path()) else { return };
    let _process = driver.start();
    driver.answers().await;
    let gateway = serve(&driver, &[]).await;
    healthy(&gateway, true).await;

    let list = redacted(gateway.json("/v1/plugins?type=csi").await);
    let expected = json!([{
        "ControllerRequired": true, "ControllersExpected": 1, "ControllersHealthy": 1, "CreateIndex": 0, "ID": "hostpath0",
        "ModifyIndex": 0, "NodesExpected": 1, "NodesHealthy": 1, "Provider": "hostpath.csi.k8s.io"
    }]);
    assert_eq!(list, expected);

    let read = redacted(gateway.json("/v1/plugin/csi/hostpath0").await);
    let common = |mut own: Value| {
        let shared = json!({
            "AllocID": "", "HealthDescription": "healthy", "Healthy": true, "PluginID": "hostpath0",
            "Provider": "hostpath.csi.k8s.io", "ProviderVersion": "v1.17.0", "RequiresControllerPlugin": true,
            "RequiresTopologies": true, "UpdateTime": "time"
        });
        own.as_object_mut().expect("an object").extend(shared.as_object().expect("an object").clone());
        own
    };
    let controller = common(json!({"ControllerInfo": {
        "SupportsAttachDetach": false, "SupportsClone": true, "SupportsCondition": true, "SupportsCreateDelete": true,
        "SupportsCreateDeleteSnapshot": true, "SupportsExpand": true, "SupportsGet": true, "SupportsGetCapacity": true,
        "SupportsListSnapshots": true, "SupportsListVolumes": true, "SupportsListVolumesAttachedNodes": false,
        "SupportsReadOnlyAttach": false
    }}));
    let node = common(json!({"NodeInfo": {
        "AccessibleTopology": {"Segments": {"topology.hostpath.csi/node": "node-12345678"}}, "ID": "node-12345678",
        "MaxVolumes": i64::MAX, "RequiresNodeStageVolume": true, "SupportsCondition": true, "SupportsExpand": true,
        "SupportsStats": true
    }}));
    let expected = json!({
        "Allocations": null, "ControllerJobs": {}, "ControllerRequired": true,
        "Controllers": {"host-12345678": controller}, "ControllersExpected": 1, "ControllersHealthy": 1,
        "ControllersRequired": true, "CreateIndex": 0, "CreateTime": 0, "ID": "hostpath0", "ModifyIndex": 0,
        "ModifyTime": 0, "NodeJobs": {}, "Nodes": {"host-12345678": node}, "NodesExpected": 1, "NodesHealthy": 1,
        "Provider": "hostpath.csi.k8s.io", "Version": "v1.17.0"
    });
    assert_eq!(read, expected);

    // Keys in byte order, as Nomad writes them, whatever a map of ours does with them.
    let text = String::from_utf8(gateway.get("/v1/plugin/csi/hostpath0").await.body.to_vec()).expect("text");
    let keys: Vec<String> = expected.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(outer_keys(&text), keys, "{text}");

    let documented = gateway.json("/v1/plugin/csi/hostpath0?shape=documented").await;
    assert_eq!(documented[0]["ControllersRequired"], true);
    let place = &documented[0]["Nodes"]["host-12345678"]["NodeInfo"]["AccessibleTopology"];
    assert_eq!(*place, json!({"topology.hostpath.csi/node": "node-12345678"}));
}

#[tokio::test]
async fn a_real_driver_that_is_killed_is_unhealthy_and_healthy_again_without_a_poll_ten_times() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let Some(driver) = hostpath(folder.path()) else { return };
    let mut process = driver.start();
    driver.answers().await;
    let gateway = serve(&driver, &[]).await;
    healthy(&gateway, true).await;
    for round in 1..=10 {
        let killed = Instant::now();
        process.kill().await.expect("it was running");
        let (body, shown) = healthy(&gateway, false).await;
        assert!(shown - killed < BY_EVENT, "round {round}: {:?}", shown - killed);
        let node = &body["Nodes"]["host-12345678"];
        assert_eq!(node["NodeInfo"]["RequiresNodeStageVolume"], true, "capabilities are kept: {node}");

        process = driver.start();
        let back = driver.answers().await;
        let (_, shown) = healthy(&gateway, true).await;
        assert!(shown.saturating_duration_since(back) < BY_EVENT, "round {round}: {:?}", shown - back);
    }
}

#[tokio::test]
async fn a_real_driver_that_is_stopped_is_unhealthy_with_its_capabilities_and_a_reason() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let Some(driver) = hostpath(folder.path()) else { return };
    let process = driver.start();
    driver.answers().await;
    let gateway = serve(&driver, &["--poll-interval=2s", "--probe-timeout=1s"]).await;
    healthy(&gateway, true).await;
    signal(&process, Signal::STOP);
    let (body, _) = healthy(&gateway, false).await;
    signal(&process, Signal::CONT);
    let controller = &body["Controllers"]["host-12345678"];
    assert_eq!(controller["ControllerInfo"]["SupportsCreateDelete"], true);
    let description = controller["HealthDescription"].as_str().expect("text");
    assert!(description.ends_with("code = DeadlineExceeded desc = context deadline exceeded"), "{description}");
    let reason = controller["Reason"]["Text"].as_str().expect("text");
    assert!(reason.contains("1s") || reason.contains("1 s"), "says how long it waited: {reason}");
    healthy(&gateway, true).await;
}

#[tokio::test]
async fn the_scripted_driver_passes_the_conformance_test_of_identity() {
    let Some(sanity) = Part::Sanity.find() else { return };
    let folder = tempfile::tempdir().expect("a scratch folder");
    let socket = folder.path().join("csi.sock");
    let _driver = support::process::gateway()
        .args(["demo", &format!("--driver-only=unix://{}", socket.display())])
        .spawn()
        .expect("the binary starts");
    until("the scripted driver listens", async || {
        Driver::connect(&socket, Limits::default()).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    let mut test = command(sanity);
    test.arg(format!("--csi.endpoint=unix://{}", socket.display())).arg("--ginkgo.focus=Identity");
    let (code, out, err) = run(test).await;
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(out.contains("0 Failed") && !out.contains("Ran 0 of"), "{out}");
}
