//! The behaviour cases of `fingerprinting.md` section 7, by number: a scripted driver on a real socket, the real gateway
//! in this process, and what is seen over HTTP.
//!
//! Looks come every 100 ms instead of every 30 s. Where a case names a time that would make the test wait, its test says
//! what stands for it. A reply that hangs at the end of a script freezes what was seen before it.

mod support;

use std::time::{Duration, Instant};

use csi_gateway::csi::{Limits, Rpc};
use csi_gateway::demo::{FakeDriver, OddSocket, Reply};
use csi_gateway::domain::code::Code;
use csi_gateway::domain::socket::RoleChoice::{Auto, Controller, Monolith, Node};
use csi_gateway::fingerprint::Settings;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use support::gateway::{D0, HOST, LONG, Scene, TestGateway, named, quick, wanted};

/// Nomad's way of saying that the driver leaves the number of volumes open.
const MAX: i64 = i64::MAX;

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn node() -> FakeDriver {
    FakeDriver::node(D0)
}

fn controller() -> FakeDriver {
    FakeDriver::controller(D0)
}

/// The usual settings with other limits.
fn with_limits(change: impl FnOnce(&mut Limits)) -> Settings {
    let mut settings = quick();
    change(&mut settings.limits);
    settings
}

/// Looks that hardly ever happen by themselves.
fn seldom() -> Settings {
    Settings { poll_interval: Duration::from_secs(30), ..quick() }
}

fn description(instance: &Value) -> &str {
    instance["HealthDescription"].as_str().expect("text")
}

fn warnings(instance: &Value) -> String {
    instance["Warnings"].to_string()
}

/// Names of the flags of an object that are true.
fn raised(object: &Value) -> Vec<&str> {
    let object = object.as_object().expect("an object");
    object.iter().filter(|(_, value)| **value == json!(true)).map(|(name, _)| name.as_str()).collect()
}

async fn calls(scene: &Scene, rpc: Rpc, count: usize) {
    timeout(LONG, scene.driver.wait_for_calls(rpc, count)).await.unwrap_or_else(|_| panic!("{count} calls of {rpc}"));
}

/// What case 1 says of the driver D0 as a node.
async fn assert_is_the_healthy_node(scene: &Scene) {
    scene.healthy().await;
    let record = scene.record().await;
    let time = record["UpdateTime"].as_str().expect("a time").to_owned();
    assert_eq!(
        record,
        json!({
            "AllocID": "", "HealthDescription": "healthy", "Healthy": true,
            "NodeInfo": {
                "AccessibleTopology": null, "ID": "n-1", "MaxVolumes": MAX, "RequiresNodeStageVolume": true,
                "SupportsCondition": false, "SupportsExpand": false, "SupportsStats": false,
            },
            "PluginID": D0, "Provider": D0, "ProviderVersion": "1.2.3", "RequiresControllerPlugin": true,
            "RequiresTopologies": false, "UpdateTime": time,
        })
    );
    assert!(time.ends_with('Z'), "{time}");
}

// Probe and health

#[tokio::test]
async fn case_01_a_node_driver_is_healthy_and_shown_with_all_that_it_said() {
    let scene = Scene::new(Node, node()).await;
    assert_is_the_healthy_node(&scene).await;
    let plugin = scene.gateway.plugin(D0).await.expect("counts");
    assert_eq!((&plugin["ID"], &plugin["Provider"], &plugin["Version"]), (&json!(D0), &json!(D0), &json!("1.2.3")));
    assert_eq!((&plugin["NodesHealthy"], &plugin["NodesExpected"]), (&json!(1), &json!(1)));
    assert_eq!(plugin["Controllers"], json!({}));
}

#[tokio::test]
async fn case_02_a_controller_driver_is_healthy_and_asked_nothing_of_nodes() {
    let scene = Scene::new(Controller, controller()).await;
    scene.healthy().await;
    let record = scene.record().await;
    assert_eq!((&record["Healthy"], &record["HealthDescription"]), (&json!(true), &json!("healthy")));
    assert_eq!(record["ControllerInfo"].as_object().expect("an object").len(), 12);
    assert_eq!(raised(&record["ControllerInfo"]), ["SupportsCreateDelete"]);
    assert_eq!(record.get("NodeInfo"), None);
    assert_eq!(scene.driver.calls(Rpc::NodeInfo) + scene.driver.calls(Rpc::NodeCapabilities), 0);
}

#[tokio::test]
async fn case_03_a_monolith_is_two_records_of_one_plugin() {
    let scene = Scene::new(Monolith, FakeDriver::monolith(D0)).await;
    scene.gateway.instance_until("the controller is healthy", D0, "controller", |i| i["Healthy"] == true).await;
    scene.healthy().await;
    let plugin = scene.gateway.plugin(D0).await.expect("counts");
    let (controller, node) = (&plugin["Controllers"][HOST], &plugin["Nodes"][HOST]);
    assert_eq!((&controller["PluginID"], &node["PluginID"]), (&json!(D0), &json!(D0)));
    assert_eq!(controller["AllocID"], node["AllocID"]);
    assert!(controller.get("NodeInfo").is_none() && node.get("ControllerInfo").is_none());
    assert_eq!((&plugin["ControllersHealthy"], &plugin["NodesHealthy"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn case_04_a_probe_that_does_not_say_ready_means_ready() {
    let scene = Scene::new(Node, node().always(Rpc::Probe, Reply::silent_on_ready())).await;
    assert_is_the_healthy_node(&scene).await;
}

#[tokio::test]
async fn case_05_a_probe_with_an_empty_wrapper_means_not_ready() {
    let scene = Scene::new(Node, node().always(Rpc::Probe, Reply::bytes(&b"\x0a\x00"[..]))).await;
    let instance = scene.unhealthy().await;
    assert_eq!((description(&instance), &instance["Phase"]), ("unhealthy", &json!("starting")));
    scene.one_more_look().await;
    assert_eq!(scene.gateway.plugin(D0).await, None, "not created");
    assert_eq!(scene.gateway.list().await, json!([]));
}

#[tokio::test]
async fn case_06_a_probe_with_true_in_its_wrapper_means_ready() {
    let scene = Scene::new(Node, node().always(Rpc::Probe, Reply::bytes(&b"\x0a\x02\x08\x01"[..]))).await;
    assert_is_the_healthy_node(&scene).await;
}

#[tokio::test]
async fn case_07_a_driver_that_starts_is_unhealthy_until_it_says_that_it_is_ready() {
    let replies = [Reply::starting(), Reply::starting(), Reply::ready().after(millis(500)), Reply::hang()];
    let scene = Scene::with(Node, node().probe(replies), with_limits(|limits| limits.probe = LONG)).await;
    calls(&scene, Rpc::Probe, 3).await;
    let instance = scene.unhealthy().await;
    assert_eq!((description(&instance), &instance["Phase"]), ("unhealthy", &json!("starting")));
    assert_eq!(scene.gateway.plugin(D0).await, None, "not before it was healthy");
    assert_is_the_healthy_node(&scene).await;
    assert!(scene.driver.calls(Rpc::Probe) <= 4, "the third look found it healthy, the fourth hangs");
    let history = scene.gateway.history(D0).await;
    let steps: Vec<_> = history.iter().map(|step| (&step["Kind"], &step["From"], &step["To"])).collect();
    assert_eq!(
        steps,
        [(&json!("appeared"), &Value::Null, &json!("starting")), (&json!("phase"), &json!("starting"), &json!("healthy"))]
    );
}

#[tokio::test]
async fn case_08_a_driver_that_was_never_well_fails_its_initial_fingerprint() {
    let down = Reply::fail(Code::FailedPrecondition, "backend down");
    let scene = Scene::new(Node, node().always(Rpc::Probe, down)).await;
    let instance = scene.unhealthy().await;
    assert_eq!(
        description(&instance),
        "failed initial fingerprint with err: rpc error: code = FailedPrecondition desc = backend down"
    );
    scene.one_more_look().await;
    assert_eq!(scene.unhealthy().await["HealthDescription"], instance["HealthDescription"]);
    assert_eq!(scene.gateway.plugin(D0).await, None);
}

#[tokio::test]
async fn case_09_a_driver_that_was_well_keeps_its_capabilities_when_it_fails() {
    let scene = Scene::new(Node, node()).await;
    scene.healthy().await;
    let before = scene.record().await;
    scene.driver.set_probe(Reply::fail(Code::FailedPrecondition, "backend down"));
    scene.unhealthy().await;
    let after = scene.record().await;
    assert_eq!(
        description(&after),
        "failed fingerprinting with error: rpc error: code = FailedPrecondition desc = backend down"
    );
    assert_eq!(after["NodeInfo"], before["NodeInfo"]);
    assert_eq!(after["RequiresControllerPlugin"], json!(true));
    let plugin = scene.gateway.plugin(D0).await.expect("still counts");
    assert_eq!((&plugin["NodesHealthy"], &plugin["NodesExpected"]), (&json!(0), &json!(1)));
}

#[tokio::test]
async fn case_10_an_outage_of_one_look_is_two_transitions() {
    let gasp = Reply::fail(Code::Unavailable, "x");
    let replies = [Reply::ready(), gasp, Reply::ready().after(millis(700)), Reply::hang()];
    let scene = Scene::with(Controller, controller().probe(replies), with_limits(|limits| limits.probe = LONG)).await;
    let first = scene.healthy().await["UpdateTime"].clone();
    scene.unhealthy().await;
    let ill = scene.record().await;
    assert_eq!(description(&ill), "failed fingerprinting with error: rpc error: code = Unavailable desc = x");
    assert_eq!(raised(&ill["ControllerInfo"]), ["SupportsCreateDelete"]);
    let last = scene.healthy().await["UpdateTime"].clone();
    assert!(first != ill["UpdateTime"] && ill["UpdateTime"] != last && first != last);
    assert!(scene.driver.calls(Rpc::Probe) <= 4, "the driver's own words are no reason to ask twice");
    assert_eq!(scene.driver.connections(), 1);
    let history = scene.gateway.history(D0).await;
    let steps: Vec<_> = history.iter().filter(|step| step["Kind"] == "phase").map(|step| &step["To"]).collect();
    assert_eq!(steps, [&json!("unhealthy"), &json!("healthy")]);
}

#[tokio::test]
async fn case_11_a_probe_that_is_not_implemented_is_unhealthy() {
    let scene = Scene::new(Node, node().always(Rpc::Probe, Reply::unimplemented())).await;
    let instance = scene.unhealthy().await;
    assert!(description(&instance).ends_with("code = Unimplemented desc = not served here"), "{instance}");
}

#[tokio::test]
async fn case_12_every_code_is_unhealthy_in_gos_spelling() {
    let scene = Scene::new(Node, node()).await;
    scene.healthy().await;
    assert_eq!(Code::ALL.len(), 16);
    for code in Code::ALL {
        scene.driver.set_probe(Reply::fail(*code, "so it is"));
        let expected = format!("failed fingerprinting with error: rpc error: code = {code} desc = so it is");
        let instance = scene.until(code.as_str(), |instance| instance["HealthDescription"] == expected).await;
        assert_eq!((&instance["Healthy"], &instance["Reason"]["Code"]), (&json!(false), &json!(code.as_str())));
    }
    assert_eq!(scene.driver.connections(), 1);
}

/// 150 ms stand for the probe limit of 3 s.
#[tokio::test]
async fn case_13_a_probe_that_hangs_is_a_deadline_and_delays_nobody_else() {
    let directory = TempDir::new().expect("a scratch directory");
    let (hung_path, other_path) = (directory.path().join("hung.sock"), directory.path().join("other.sock"));
    let hung = node().always(Rpc::Probe, Reply::hang()).serve(&hung_path).await.expect("binds");
    let other = FakeDriver::node("other.example.com").serve(&other_path).await.expect("binds");
    let settings = with_limits(|limits| limits.probe = millis(150));
    let gateway = TestGateway::watching([wanted(&hung_path, Node), wanted(&other_path, Node)], settings).await;
    let instance = gateway.instance_until("it is unhealthy", D0, "node", |i| i["Healthy"] == false).await;
    assert!(
        description(&instance).ends_with("code = DeadlineExceeded desc = context deadline exceeded"),
        "{instance}"
    );
    let (begun, before) = (Instant::now(), hung.calls(Rpc::Probe));
    let others_before = other.calls(Rpc::Probe);
    timeout(LONG, hung.wait_for_calls(Rpc::Probe, before + 4)).await.expect("it is asked again and again");
    // Each call ended before the next began.
    assert!(begun.elapsed() >= millis(3 * 150), "{:?} for four calls", begun.elapsed());
    assert!(other.calls(Rpc::Probe) >= others_before + 2, "the other one is looked at meanwhile");
    let other = gateway.detail("other.example.com", "node").await.expect("known");
    assert_eq!(other["Healthy"], true);
}

/// 400 ms stand for 2 s.
#[tokio::test]
async fn case_14_a_probe_that_takes_its_time_within_the_limit_is_healthy() {
    let scene = Scene::new(Node, node().always(Rpc::Probe, Reply::ready().after(millis(400)))).await;
    assert_is_the_healthy_node(&scene).await;
}

#[tokio::test]
async fn case_15_a_driver_that_starts_may_fail_elsewhere_and_keeps_its_capabilities() {
    let scene = Scene::new(Node, node()).await;
    scene.healthy().await;
    let before = scene.record().await;
    scene.driver.set_probe(Reply::starting());
    scene.driver.set(Rpc::NodeCapabilities, Reply::fail(Code::Internal, "not yet"));
    scene.unhealthy().await;
    scene.one_more_look().await;
    let after = scene.record().await;
    assert_eq!(description(&after), "unhealthy");
    assert_eq!(after["NodeInfo"], before["NodeInfo"]);
}

#[tokio::test]
async fn case_16_a_huge_message_in_broken_text_is_cut_and_made_harmless() {
    let mut message = b"first\nsecond\x07\xff\xfe".to_vec();
    message.resize(100 * 1024, b'x');
    message.extend_from_slice(b"\xc3");
    let scene = Scene::new(Node, node().always(Rpc::Probe, Reply::fail(Code::Internal, &message))).await;
    let instance = scene.unhealthy().await;
    let description = description(&instance);
    assert!(description.len() <= 1024, "{} bytes", description.len());
    assert!(!description.chars().any(char::is_control), "{description:?}");
    assert_eq!(instance["Healthy"], false);
    let text = instance["Reason"]["Text"].as_str().expect("text");
    assert!(text.len() <= 1024 && !text.chars().any(char::is_control), "{text:?}");
}

#[tokio::test]
async fn case_17_ten_equal_looks_change_nothing_but_the_time_of_the_last() {
    let scene = Scene::new(Node, node()).await;
    let first = scene.healthy().await;
    let before = scene.gateway.indexes();
    calls(&scene, Rpc::Probe, 11).await;
    let last = scene.healthy().await;
    assert_eq!(last["UpdateTime"], first["UpdateTime"]);
    assert_eq!(scene.gateway.indexes(), before);
    assert_ne!(last["LastProbeTime"], first["LastProbeTime"]);
    assert_eq!(scene.driver.calls(Rpc::NodeInfo), 1);
    assert_eq!(scene.driver.connections(), 1);
    let (probes, infos) = (scene.driver.calls(Rpc::Probe), scene.driver.calls(Rpc::PluginInfo));
    assert!(infos == probes || infos + 1 == probes, "one Probe a look: {probes}, {infos}");
}
