//! The behaviour cases of `fingerprinting.md` section 7, by number: a scripted driver on a real socket, the real gateway
//! in this process, and what is seen over HTTP.
//!
//! Looks come every 100 ms instead of every 30 s. Where a case names a time that would make the test wait, its test says
//! what stands for it. A reply that hangs at the end of a script freezes what was seen before it.

#![allow(clippy::panic, reason = "a test that waited in vain has nothing else to do")]

mod support;

use std::time::{Duration, Instant};

use csi_gateway::csi::{Limits, Rpc};
use csi_gateway::demo::{FakeDriver, OddSocket, Reply};
use csi_gateway::domain::catalog::Catalog;
use csi_gateway::domain::code::Code;
use csi_gateway::domain::record::Record;
use csi_gateway::domain::socket::RoleChoice::{Auto, Controller, Monolith, Node};
use csi_gateway::fingerprint::Settings;
use csi_gateway::registry::reporter::Report;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use support::fixture::{self, put};
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
        [
            (&json!("appeared"), &Value::Null, &json!("starting")),
            (&json!("phase"), &json!("starting"), &json!("healthy"))
        ]
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
    assert!(description(&instance).ends_with("code = DeadlineExceeded desc = context deadline exceeded"), "{instance}");
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

// Capabilities

/// Nomad's flags of a controller, by the number of the capability, less one.
const CONTROLLER_FLAGS: [&str; 12] = [
    "SupportsCreateDelete",
    "SupportsAttachDetach",
    "SupportsListVolumes",
    "SupportsGetCapacity",
    "SupportsCreateDeleteSnapshot",
    "SupportsListSnapshots",
    "SupportsClone",
    "SupportsReadOnlyAttach",
    "SupportsExpand",
    "SupportsListVolumesAttachedNodes",
    "SupportsCondition",
    "SupportsGet",
];
/// The same of a node.
const NODE_FLAGS: [&str; 4] = ["RequiresNodeStageVolume", "SupportsStats", "SupportsExpand", "SupportsCondition"];

/// Waits until Nomad's record has these flags, and no other, under `place`.
async fn flags_become(scene: &Scene, place: &str, mut flags: Vec<&str>) {
    flags.sort_unstable();
    let what = format!("{place} has {flags:?}");
    // Our own flags of the same object are none of Nomad's.
    let ours = ["SupportsGetSnapshot", "SupportsModify", "SupportsMountGroup", "SupportsSingleNodeMultiWriter"];
    let is_so = |instance: &Value| {
        let object = if place.is_empty() { instance } else { &instance[place] };
        let raised: Vec<_> = raised(object).into_iter().filter(|flag| !ours.contains(flag)).collect();
        raised == flags
    };
    scene.until(&what, is_so).await;
    let record = scene.record().await;
    assert_eq!(raised(&record[place]), flags, "{what} in Nomad's shape");
}

#[tokio::test]
async fn case_18_each_controller_capability_is_one_flag() {
    let scene = Scene::new(Controller, controller().controller_capabilities(1..=12)).await;
    flags_become(&scene, "ControllerInfo", CONTROLLER_FLAGS.to_vec()).await;
    for (number, flag) in (1..).zip(CONTROLLER_FLAGS) {
        scene.driver.set_controller_capabilities([number]);
        flags_become(&scene, "ControllerInfo", vec![flag]).await;
    }
}

#[tokio::test]
async fn case_18_each_node_capability_is_one_flag() {
    let scene = Scene::new(Node, node()).await;
    for (number, flag) in (1..).zip(NODE_FLAGS) {
        scene.driver.set_node_capabilities([number]);
        flags_become(&scene, "NodeInfo", vec![flag]).await;
    }
}

#[tokio::test]
async fn case_18_each_of_two_plugin_capabilities_is_one_flag_of_both_kinds_of_records() {
    for (role, driver) in [(Controller, controller()), (Node, node())] {
        let scene = Scene::new(role, driver).await;
        for (numbers, controller, topologies) in
            [(vec![1], true, false), (vec![2], false, true), (vec![], false, false), (vec![2, 1, 2], true, true)]
        {
            scene.driver.set_plugin_capabilities(numbers.clone());
            let is_so = |instance: &Value| {
                instance["RequiresControllerPlugin"] == controller && instance["RequiresTopologies"] == topologies
            };
            scene.until(&format!("{numbers:?}"), is_so).await;
            let record = scene.record().await;
            assert!(is_so(&record), "{record}");
        }
    }
}

#[tokio::test]
async fn case_19_newer_controller_capabilities_are_ours_and_none_of_nomads() {
    let scene = Scene::new(Controller, controller().controller_capabilities([13, 14, 15])).await;
    let instance = scene.healthy().await;
    assert_eq!(
        raised(&instance["ControllerInfo"]),
        ["SupportsGetSnapshot", "SupportsModify", "SupportsSingleNodeMultiWriter"]
    );
    let record = scene.record().await;
    assert_eq!(record["ControllerInfo"].as_object().expect("an object").len(), 12, "Nomad's keys and no other");
    assert!(raised(&record["ControllerInfo"]).is_empty(), "{record}");
}

#[tokio::test]
async fn case_20_capabilities_that_say_nothing_we_know_are_no_error() {
    let entries = Reply::controller_entries([Some(0), Some(99), None]);
    let scene = Scene::new(Controller, controller().always(Rpc::ControllerCapabilities, entries)).await;
    let instance = scene.healthy().await;
    assert!(raised(&instance["ControllerInfo"]).is_empty(), "{instance}");
    assert_eq!(instance["UnknownCapabilities"], json!(["controller:99"]));
}

#[tokio::test]
async fn case_21_a_capability_said_three_times_is_said() {
    let scene = Scene::new(Controller, controller().controller_capabilities([1, 1, 1])).await;
    let instance = scene.healthy().await;
    assert_eq!(raised(&scene.record().await["ControllerInfo"]), ["SupportsCreateDelete"]);
    assert_eq!(instance["Capabilities"]["Controller"], json!(["CREATE_DELETE_VOLUME"]));
}

#[tokio::test]
async fn case_22_a_controller_without_capabilities_is_healthy() {
    let scene = Scene::new(Controller, controller().controller_capabilities([])).await;
    scene.healthy().await;
    let record = scene.record().await;
    assert_eq!(record["ControllerInfo"].as_object().expect("an object").len(), 12);
    assert!(raised(&record["ControllerInfo"]).is_empty(), "{record}");
}

#[tokio::test]
async fn case_23_a_declared_controller_that_does_not_answer_is_unhealthy() {
    let scene = Scene::new(Controller, node()).await;
    let instance = scene.unhealthy().await;
    assert!(description(&instance).starts_with("failed initial fingerprint with err: rpc error: code = Unimplemented"));
}

#[tokio::test]
async fn case_23_an_undeclared_controller_that_does_not_answer_is_none() {
    let scene = Scene::new(Auto, node()).await;
    scene.healthy().await;
    scene.one_more_look().await;
    assert_eq!(scene.gateway.plugin(D0).await.expect("counts")["Controllers"], json!({}));
    assert_eq!(scene.gateway.detail(D0, "controller").await, None);
}

#[tokio::test]
async fn case_24_a_capability_that_comes_later_is_followed() {
    let scene = Scene::new(Controller, controller()).await;
    scene.healthy().await;
    scene.one_more_look().await;
    let (before, plugin) = (scene.record().await, scene.gateway.plugin(D0).await.expect("counts"));
    scene.driver.set_controller_capabilities([1, 2]);
    flags_become(&scene, "ControllerInfo", vec!["SupportsCreateDelete", "SupportsAttachDetach"]).await;
    let (after, next) = (scene.record().await, scene.gateway.plugin(D0).await.expect("counts"));
    assert_ne!(after["UpdateTime"], before["UpdateTime"]);
    assert!(next["ModifyIndex"].as_u64() > plugin["ModifyIndex"].as_u64());
    assert_eq!(next["CreateIndex"], plugin["CreateIndex"]);
}

#[tokio::test]
async fn case_25_node_capabilities_are_nomads_four_and_two_of_ours() {
    let scene = Scene::new(Node, node().node_capabilities(1..=4)).await;
    flags_become(&scene, "NodeInfo", NODE_FLAGS.to_vec()).await;
    scene.driver.set_node_capabilities([5, 6]);
    flags_become(&scene, "NodeInfo", Vec::new()).await;
    let instance = scene.healthy().await;
    assert_eq!(raised(&instance["NodeInfo"]), ["SupportsMountGroup", "SupportsSingleNodeMultiWriter"]);
}

#[tokio::test]
async fn case_26_a_plugin_without_capabilities_is_healthy() {
    let scene = Scene::new(Node, node().plugin_capabilities([])).await;
    scene.healthy().await;
    let record = scene.record().await;
    assert_eq!((&record["RequiresControllerPlugin"], &record["RequiresTopologies"]), (&json!(false), &json!(false)));
    assert_eq!(scene.gateway.plugin(D0).await.expect("counts")["ControllerRequired"], false);
}

#[tokio::test]
async fn case_27_topologies_alone_are_required_alone() {
    let scene = Scene::new(Node, node().plugin_capabilities([2])).await;
    scene.healthy().await;
    let record = scene.record().await;
    assert_eq!((&record["RequiresControllerPlugin"], &record["RequiresTopologies"]), (&json!(false), &json!(true)));
}

#[tokio::test]
async fn case_28_what_nomad_does_not_show_of_a_plugin_is_ours() {
    let driver = node().plugin_capabilities([3, 4]).volume_expansion([1, 2]).group_capabilities([1]);
    let scene = Scene::new(Node, driver).await;
    let instance = scene.healthy().await;
    for flag in ["SupportsOnlineExpand", "SupportsOfflineExpand", "SupportsGroupController", "SupportsSnapshotMetadata"]
    {
        assert_eq!(instance[flag], true, "{flag}");
    }
    assert_eq!(instance["GroupControllerInfo"], json!({"SupportsCreateDeleteGetGroupSnapshot": true}));
    let record = scene.record().await;
    assert_eq!((&record["RequiresControllerPlugin"], &record["RequiresTopologies"]), (&json!(false), &json!(false)));
    assert_eq!(record.get("SupportsOnlineExpand"), None, "Nomad's replies keep Nomad's keys");
    assert!(scene.driver.calls(Rpc::GroupCapabilities) >= 1);
}

#[tokio::test]
async fn case_29_a_group_controller_that_does_not_answer_is_a_warning() {
    let scene = Scene::new(Node, node().plugin_capabilities([3])).await;
    let instance = scene.healthy().await;
    assert_eq!(instance.get("GroupControllerInfo"), None);
    assert!(warnings(&instance).contains("GROUP_CONTROLLER_SERVICE"), "{instance}");
}

/// A warning is part of what is stored: it must not be as long, or as new each time, as a driver's words.
#[tokio::test]
async fn a_group_controller_that_fails_in_other_words_each_time_changes_nothing() {
    let long = "x".repeat(50_000);
    let scene = Scene::new(
        Node,
        node().plugin_capabilities([3]).always(Rpc::GroupCapabilities, Reply::fail(Code::Internal, &long)),
    )
    .await;
    let instance = scene.healthy().await;
    assert!(warnings(&instance).len() < 2048, "{} bytes of warnings", warnings(&instance).len());
    let before = scene.gateway.indexes();
    scene.driver.set(Rpc::GroupCapabilities, Reply::fail(Code::Internal, "port 2"));
    scene.one_more_look().await;
    assert_eq!(scene.gateway.indexes(), before);
}

#[tokio::test]
async fn case_30_plugin_capabilities_that_fail_at_first_fail_the_initial_fingerprint() {
    let driver = node().on(Rpc::PluginCapabilities, [Reply::fail(Code::Internal, "boom")]);
    // The second look waits until it was seen what the first came to.
    let scene =
        Scene::with(Node, driver.on(Rpc::Probe, [Reply::ready(), Reply::ready().after(millis(500))]), quick()).await;
    let instance = scene.unhealthy().await;
    assert_eq!(description(&instance), "failed initial fingerprint with err: rpc error: code = Internal desc = boom");
    assert_eq!(scene.gateway.plugin(D0).await, None);
    assert_is_the_healthy_node(&scene).await;
    assert_eq!(scene.gateway.history(D0).await.len(), 2, "it appeared, and the next look found it healthy");
}

#[tokio::test]
async fn case_31_plugin_capabilities_that_fail_later_are_noticed_and_their_values_kept() {
    let scene = Scene::new(Node, node()).await;
    scene.healthy().await;
    scene.driver.set(Rpc::PluginCapabilities, Reply::fail(Code::Internal, "boom"));
    scene.unhealthy().await;
    let record = scene.record().await;
    assert_eq!(description(&record), "failed fingerprinting with error: rpc error: code = Internal desc = boom");
    assert_eq!(record["RequiresControllerPlugin"], true);
    assert_eq!(raised(&record["NodeInfo"]), ["RequiresNodeStageVolume"]);
}

#[tokio::test]
async fn case_32_a_node_driver_is_never_asked_for_what_a_controller_can() {
    let scene = Scene::new(Node, node().always(Rpc::ControllerCapabilities, Reply::hang())).await;
    scene.healthy().await;
    scene.one_more_look().await;
    assert_eq!(scene.driver.calls(Rpc::ControllerCapabilities), 0);
}

// NodeGetInfo

#[tokio::test]
async fn case_33_a_number_of_volumes_that_is_left_open_is_the_largest() {
    for (said, shown) in [(5, 5), (0, MAX), (-1, MAX)] {
        let scene = Scene::new(Node, node().node_info("n-1", said)).await;
        let instance = scene.healthy().await;
        assert_eq!(scene.record().await["NodeInfo"]["MaxVolumes"], json!(shown), "{said}");
        assert_eq!(warnings(&instance).contains("max_volumes_per_node"), said < 0, "{said}: {instance}");
    }
}

#[tokio::test]
async fn case_34_the_largest_number_of_volumes_is_exact() {
    let scene = Scene::new(Node, node().node_info("n-1", MAX)).await;
    scene.healthy().await;
    let text = scene.gateway.text(&format!("/v1/plugin/csi/{D0}")).await;
    assert!(text.contains(r#""MaxVolumes":9223372036854775807,"#), "{text}");
}

#[tokio::test]
async fn case_35_segments_are_nested_as_nomad_nests_them() {
    let driver = node().plugin_capabilities([1, 2]).topology([("zone", "z1"), ("rack", "r2")]);
    let scene = Scene::new(Node, driver).await;
    let instance = scene.healthy().await;
    let text = scene.gateway.text(&format!("/v1/plugin/csi/{D0}")).await;
    assert!(text.contains(r#""AccessibleTopology":{"Segments":{"rack":"r2","zone":"z1"}}"#), "{text}");
    assert_eq!(instance["Warnings"], json!([]));
}

#[tokio::test]
async fn case_36_an_empty_topology_has_no_segments() {
    let scene = Scene::new(Node, node().plugin_capabilities([1, 2]).topology([("", ""); 0])).await;
    scene.healthy().await;
    assert_eq!(scene.record().await["NodeInfo"]["AccessibleTopology"], json!({"Segments": null}));
}

#[tokio::test]
async fn case_37_no_topology_is_null() {
    let scene = Scene::new(Node, node()).await;
    scene.healthy().await;
    assert_eq!(scene.record().await["NodeInfo"].get("AccessibleTopology"), Some(&Value::Null));
}

#[tokio::test]
async fn case_38_keys_that_differ_in_case_are_kept_with_a_warning() {
    let driver = node().plugin_capabilities([1, 2]).topology([("Zone", "z1"), ("zone", "z2")]);
    let scene = Scene::new(Node, driver).await;
    let instance = scene.healthy().await;
    let segments = &scene.record().await["NodeInfo"]["AccessibleTopology"]["Segments"];
    assert_eq!(*segments, json!({"Zone": "z1", "zone": "z2"}));
    assert!(warnings(&instance).contains("differ only in case"), "{instance}");
}

#[tokio::test]
async fn case_39_a_topology_that_was_not_announced_is_kept_with_a_warning() {
    let scene = Scene::new(Node, node().topology([("zone", "z1")])).await;
    let instance = scene.healthy().await;
    let record = scene.record().await;
    assert_eq!(record["NodeInfo"]["AccessibleTopology"], json!({"Segments": {"zone": "z1"}}));
    assert_eq!(record["RequiresTopologies"], false);
    assert!(warnings(&instance).contains("VOLUME_ACCESSIBILITY_CONSTRAINTS"), "{instance}");
}

#[tokio::test]
async fn case_40_a_node_without_an_id_is_unhealthy() {
    let scene = Scene::new(Node, node().node_info("", 0)).await;
    let instance = scene.unhealthy().await;
    assert_eq!(description(&instance), "failed initial fingerprint with err: plugin failed to return nodeid");
    scene.one_more_look().await;
    assert_eq!(scene.gateway.plugin(D0).await, None);
}

#[tokio::test]
async fn case_41_a_long_node_id_is_kept_with_a_warning() {
    let id = "n".repeat(300);
    let scene = Scene::new(Node, node().node_info(&id, 0)).await;
    let instance = scene.healthy().await;
    assert_eq!(scene.record().await["NodeInfo"]["ID"], json!(id));
    assert!(warnings(&instance).contains("300 bytes"), "{instance}");
}

#[tokio::test]
async fn case_42_a_driver_that_does_not_implement_node_get_info_is_healthy() {
    let scene = Scene::new(Node, node().always(Rpc::NodeInfo, Reply::unimplemented())).await;
    scene.healthy().await;
    let info = &scene.record().await["NodeInfo"];
    assert_eq!((&info["ID"], &info["MaxVolumes"]), (&json!(""), &json!(MAX)));
    scene.one_more_look().await;
    assert_eq!(scene.driver.calls(Rpc::NodeInfo), 1, "an answer is an answer");
}

/// 600 ms stand for 10 s, and 300 ms for the limit of other calls.
#[tokio::test]
async fn case_43_node_get_info_has_more_time_than_other_calls() {
    let slow = Reply::usual().after(millis(600));
    let settings = with_limits(|limits| {
        limits.call = millis(300);
        limits.node_info = LONG;
    });
    let scene = Scene::with(Node, node().always(Rpc::NodeInfo, slow), settings).await;
    assert_is_the_healthy_node(&scene).await;
}

/// 300 ms stand for its limit of 15 s.
#[tokio::test]
async fn case_43_node_get_info_has_not_all_the_time_there_is() {
    let settings = with_limits(|limits| limits.node_info = millis(300));
    let scene = Scene::with(Node, node().always(Rpc::NodeInfo, Reply::hang()), settings).await;
    let instance = scene.unhealthy().await;
    assert_eq!(
        description(&instance),
        "failed initial fingerprint with err: rpc error: code = DeadlineExceeded desc = context deadline exceeded"
    );
}

/// 1.5 s stand for 10 min.
#[tokio::test]
async fn case_44_a_refresh_of_the_node_info_that_fails_changes_nothing() {
    let settings = Settings { node_info_age: millis(1500), ..quick() };
    let replies = [Reply::usual(), Reply::fail(Code::Internal, "metadata service away")];
    let scene = Scene::with(Node, node().on(Rpc::NodeInfo, replies), settings).await;
    scene.healthy().await;
    let before = scene.gateway.indexes();
    calls(&scene, Rpc::NodeInfo, 2).await;
    scene.one_more_look().await;
    assert_is_the_healthy_node(&scene).await;
    assert_eq!(scene.gateway.indexes(), before);
    assert_eq!(scene.driver.calls(Rpc::NodeInfo), 2, "asked again when the time has passed once more, not before");
}

/// 300 ms stand for 10 min.
#[tokio::test]
async fn case_45_a_node_id_that_changes_is_seen_at_the_next_refresh() {
    let settings = Settings { node_info_age: millis(300), ..quick() };
    let scene = Scene::with(Node, node(), settings).await;
    scene.healthy().await;
    scene.driver.set_node_info("n-2", 0);
    scene.until("the node id is n-2", |instance| instance["NodeInfo"]["ID"] == "n-2").await;
    let record = scene.record().await;
    assert_eq!((&record["NodeInfo"]["ID"], &record["Healthy"]), (&json!("n-2"), &json!(true)));
}

// Identity

#[tokio::test]
async fn case_46_a_driver_without_a_name_is_a_socket_with_a_reason() {
    let scene = Scene::new(Node, node().name("")).await;
    let socket = scene.gateway.socket_until("it was looked at", &scene.path, |s| s["Phase"] == "unhealthy").await;
    let reason = socket["Reason"].as_str().expect("text");
    assert!(reason.contains("PluginGetInfo: plugin returned empty name field"), "{reason}");
    scene.one_more_look().await;
    assert_eq!(scene.gateway.reader.current().records().count(), 0);
    assert_eq!(scene.gateway.list().await, json!([]));
}

#[tokio::test]
async fn case_47_a_name_that_is_too_long_is_an_id_with_a_warning() {
    let name = format!("{}.example.com", "d".repeat(52));
    assert_eq!(name.len(), 64);
    let scene = Scene::new(Node, FakeDriver::node(&name)).await;
    let instance = scene.gateway.instance_until("it is healthy", &name, "node", |i| i["Healthy"] == true).await;
    assert!(warnings(&instance).contains("64 characters"), "{instance}");
    assert_eq!(instance["Warnings"].as_array().expect("a list").len(), 1, "said once: {instance}");
    assert_eq!(scene.gateway.plugin(&name).await.expect("counts")["Provider"], json!(name));
}

#[tokio::test]
async fn case_48_a_name_that_cannot_be_an_id_needs_one() {
    let scene = Scene::new(Node, node().name("bad/name")).await;
    let socket = scene.gateway.socket_until("it was looked at", &scene.path, |s| s["Phase"] == "unhealthy").await;
    let reason = socket["Reason"].as_str().expect("text");
    assert!(reason.contains("bad/name") && reason.contains("--plugin-id"), "{reason}");
    assert_eq!(scene.gateway.reader.current().records().count(), 0);
}

#[tokio::test]
async fn case_48_a_name_that_cannot_be_an_id_is_shown_under_one() {
    let scene = Scene::of(|path| named(path, Node, "x"), node().name("bad/name"), quick()).await;
    scene.gateway.instance_until("it is healthy", "x", "node", |instance| instance["Healthy"] == true).await;
    let plugin = scene.gateway.plugin("x").await.expect("counts");
    assert_eq!((&plugin["ID"], &plugin["Provider"]), (&json!("x"), &json!("bad/name")));
    assert_eq!(plugin["Nodes"][HOST]["Provider"], "bad/name");
}

#[tokio::test]
async fn case_49_a_driver_without_a_version_is_healthy_with_a_warning() {
    let scene = Scene::new(Node, node().version("")).await;
    let instance = scene.healthy().await;
    assert_eq!(scene.record().await["ProviderVersion"], "");
    assert!(warnings(&instance).contains("version is empty"), "{instance}");
    assert_eq!(instance["Warnings"].as_array().expect("a list").len(), 1, "said once: {instance}");
}

#[tokio::test]
async fn case_50_an_upgrade_in_place_is_followed() {
    let scene = Scene::new(Node, node()).await;
    scene.healthy().await;
    let before = scene.gateway.plugin(D0).await.expect("counts");
    scene.driver.set_version("1.2.4");
    scene.until("the version is 1.2.4", |instance| instance["ProviderVersion"] == "1.2.4").await;
    let after = scene.gateway.plugin(D0).await.expect("counts");
    assert_eq!((&after["Version"], &after["Nodes"][HOST]["ProviderVersion"]), (&json!("1.2.4"), &json!("1.2.4")));
    assert_eq!(after["CreateIndex"], before["CreateIndex"]);
    assert!(after["ModifyIndex"].as_u64() > before["ModifyIndex"].as_u64());
    assert_eq!(scene.driver.calls(Rpc::NodeInfo), 2);
    assert_eq!(scene.driver.connections(), 1);
}

#[tokio::test]
async fn case_51_another_name_is_another_plugin() {
    let scene = Scene::new(Node, node()).await;
    scene.healthy().await;
    scene.driver.set_name("other.example.com");
    let old = scene.unhealthy().await;
    assert_eq!(description(&old), r#"plugin identity changed: expected "drv.example.com", got "other.example.com""#);
    assert_eq!(old["Provider"], D0, "its data are not the other one's");
    assert_eq!(old["Phase"], "gone", "and it is retired as what is gone");
    let is_healthy = |instance: &Value| instance["Healthy"] == true;
    let new = scene.gateway.instance_until("the other is healthy", "other.example.com", "node", is_healthy).await;
    assert_eq!(new["Provider"], "other.example.com");
    scene.one_more_look().await;
    assert_eq!(scene.unhealthy().await["HealthDescription"], old["HealthDescription"]);
    let list = scene.gateway.list().await;
    let healthy: Vec<_> = list.as_array().expect("a list").iter().map(|stub| &stub["NodesHealthy"]).collect();
    assert_eq!(healthy, [&json!(0), &json!(1)]);
}

/// Once it stayed healthy for ever.
#[tokio::test]
async fn case_51_a_plugin_is_unhealthy_too_when_the_other_name_can_be_no_id() {
    let scene = Scene::new(Node, node()).await;
    scene.healthy().await;
    scene.driver.set_name("bad/name");
    let old = scene.unhealthy().await;
    assert_eq!(description(&old), r#"plugin identity changed: expected "drv.example.com", got "bad/name""#);
    scene.driver.set_name(D0);
    assert_is_the_healthy_node(&scene).await;
}

#[tokio::test]
async fn case_52_what_is_no_driver_is_ignored() {
    let scene = Scene::new(Node, FakeDriver::registrar("CSIPlugin", D0, "")).await;
    let socket = scene.gateway.socket_until("it is ignored", &scene.path, |socket| socket["Ignored"] == true).await;
    assert!(socket["Reason"].as_str().expect("text").contains("GetPluginInfo"), "{socket}");
    assert_eq!(scene.gateway.reader.current().records().count(), 0);
    assert_eq!(scene.driver.methods(), ["GetPluginInfo"]);
}

#[tokio::test]
async fn case_53_a_manifest_is_shown_by_us_and_not_by_nomad() {
    let scene = Scene::new(Node, node().manifest([("a", "b")])).await;
    assert_eq!(scene.healthy().await["ProviderManifest"], json!({"a": "b"}));
    assert_is_the_healthy_node(&scene).await;
}

#[tokio::test]
async fn case_54_a_name_that_is_no_text_is_the_drivers_fault() {
    let scene = Scene::new(Node, node()).await;
    scene.healthy().await;
    scene.driver.set(Rpc::PluginInfo, Reply::bytes(&b"\x0a\x02\xff\xfe\x12\x051.2.3"[..]));
    let instance = scene.unhealthy().await;
    assert!(description(&instance).contains("code = Internal desc = "), "{instance}");
    scene.driver.set(Rpc::PluginInfo, Reply::usual());
    scene.healthy().await;
}

#[tokio::test]
async fn case_55_an_answer_of_eight_mebibytes_is_refused() {
    let huge = Reply::bytes([&b"\x0a\x80\x80\x80\x04"[..], &vec![b'x'; 8 << 20]].concat());
    let scene = Scene::of(|path| named(path, Node, D0), node().always(Rpc::PluginInfo, huge), quick()).await;
    let instance = scene.unhealthy().await;
    assert!(description(&instance).len() < 300, "{instance}");
    assert_eq!(instance["Reason"]["Code"], "OutOfRange", "refused by its length, before it is read");
    scene.driver.set(Rpc::PluginInfo, Reply::usual());
    scene.healthy().await;
}

// Socket life

/// 300 ms stand for 3 s.
#[tokio::test]
async fn case_56_a_driver_that_comes_late_is_healthy_within_a_second() {
    for has_directory in [true, false] {
        let directory = TempDir::new().expect("a scratch directory");
        let parent = directory.path().join("plugins/drv");
        let path = parent.join("csi.sock");
        if has_directory {
            std::fs::create_dir_all(&parent).expect("makes a directory");
        }
        let gateway = TestGateway::watching([wanted(&path, Node)], seldom()).await;
        gateway.socket_until("it was looked at", &path, |socket| socket["Phase"] == "gone").await;
        tokio::time::sleep(millis(300)).await;
        let _driver = node().serve(&path).await.expect("binds");
        let begun = Instant::now();
        gateway.instance_until("it is healthy", D0, "node", |instance| instance["Healthy"] == true).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?} (directory: {has_directory})", begun.elapsed());
    }
}

/// The next look by the clock is half a minute away.
#[tokio::test]
async fn case_57_a_socket_file_that_is_removed_is_gone_at_once() {
    let scene = Scene::with(Node, node(), seldom()).await;
    scene.healthy().await;
    std::fs::remove_file(&scene.path).expect("removes the file");
    let instance = scene.until("it is gone", |instance| instance["Phase"] == "gone").await;
    assert!(description(&instance).contains("no such file or directory"), "{instance}");
    let plugin = scene.gateway.plugin(D0).await.expect("still counts");
    assert_eq!((&plugin["NodesHealthy"], &plugin["NodesExpected"]), (&json!(0), &json!(1)));
    assert_eq!(plugin["Nodes"][HOST]["Healthy"], false);
}

#[tokio::test]
async fn case_58_a_dead_socket_is_refused_and_recovers() {
    let scene = Scene::with(Node, node(), seldom()).await;
    scene.healthy().await;
    scene.driver.leave_dead().await;
    let instance = scene.until("it is stale", |instance| instance["Phase"] == "stale").await;
    assert!(description(&instance).starts_with("failed fingerprinting with error: "), "{instance}");
    assert!(description(&instance).contains("connection refused"), "{instance}");
    scene.driver.come_back().await.expect("binds");
    assert_is_the_healthy_node(&scene).await;
}

#[tokio::test]
async fn case_59_a_process_that_takes_the_place_of_another_is_the_one_that_is_asked() {
    let scene = Scene::with(Node, node(), seldom()).await;
    scene.healthy().await;
    // The connection to the old one stays open.
    let new = scene.driver.replace(node().version("2.0")).await.expect("binds");
    scene.until("2.0 is seen", |instance| instance["ProviderVersion"] == "2.0").await;
    let before = scene.driver.log().len();
    new.set_version("2.1");
    new.cut_connections();
    scene.until("2.1 is seen", |instance| instance["ProviderVersion"] == "2.1").await;
    assert_eq!(scene.driver.log().len(), before, "the old process is asked nothing more");
    assert!(new.calls(Rpc::NodeInfo) >= 1, "another process, perhaps another node");
}

/// Most file systems give the number to the next file at once; on one that does not (tmpfs) this is case 59 without an
/// open connection.
#[tokio::test]
async fn case_60_a_new_process_is_asked_though_its_file_has_the_number_of_the_old_one() {
    let scene = Scene::with(Node, node(), seldom()).await;
    scene.healthy().await;
    let mut inodes = vec![scene.healthy_inode().await];
    for version in 1..=10 {
        scene.driver.vanish().await;
        let version = version.to_string();
        scene.driver.set_version(&version);
        scene.driver.come_back().await.expect("binds");
        scene.until("the new version is seen", |instance| instance["ProviderVersion"] == *version).await;
        inodes.push(scene.healthy_inode().await);
        if inodes[inodes.len() - 1] == inodes[inodes.len() - 2] {
            return;
        }
    }
}

/// 30 ms stand for 2 s.
#[tokio::test]
async fn case_61_a_socket_that_never_accepts_is_unhealthy_and_nothing_piles_up() {
    let directory = TempDir::new().expect("a scratch directory");
    let path = directory.path().join("csi.sock");
    let _odd = OddSocket::never_accepts(&path).expect("binds");
    let mut settings = with_limits(|limits| limits.connect = millis(30));
    settings.poll_interval = millis(30);
    let gateway = TestGateway::watching([named(&path, Node, D0)], settings).await;
    let instance = gateway.instance_until("it is unhealthy", D0, "node", |i| i["Healthy"] == false).await;
    assert!(description(&instance).ends_with("code = DeadlineExceeded desc = context deadline exceeded"), "{instance}");
    let runtime = tokio::runtime::Handle::current();
    let before = runtime.metrics().num_alive_tasks();
    let mut seen = Value::Null;
    for _ in 0..100 {
        let moved = |socket: &Value| socket["LastProbeTime"] != seen;
        seen = gateway.socket_until("another look", &path, moved).await["LastProbeTime"].clone();
    }
    let after = runtime.metrics().num_alive_tasks();
    assert!(after <= before + 4, "{before} tasks, and {after} a hundred looks later");
}

#[tokio::test]
async fn case_61_a_full_queue_looks_no_different() {
    let directory = TempDir::new().expect("a scratch directory");
    let path = directory.path().join("csi.sock");
    let _odd = OddSocket::has_a_full_queue(&path).await.expect("binds");
    let settings = with_limits(|limits| limits.connect = millis(50));
    let gateway = TestGateway::watching([named(&path, Node, D0)], settings).await;
    let instance = gateway.instance_until("it is unhealthy", D0, "node", |i| i["Healthy"] == false).await;
    assert!(description(&instance).ends_with("code = DeadlineExceeded desc = context deadline exceeded"), "{instance}");
}

#[tokio::test]
async fn case_62_a_socket_that_accepts_and_closes_is_unhealthy_after_two_dials() {
    let directory = TempDir::new().expect("a scratch directory");
    let path = directory.path().join("csi.sock");
    let odd = OddSocket::accepts_and_closes(&path).expect("binds");
    let gateway = TestGateway::watching([named(&path, Node, D0)], seldom()).await;
    let instance = gateway.instance_until("it is unhealthy", D0, "node", |i| i["Healthy"] == false).await;
    assert!(description(&instance).contains("code = Unavailable"), "{instance}");
    assert_eq!(instance["Phase"], "unhealthy");
    // Longer than all eager dials would need to come again; the next look is seconds away.
    tokio::time::sleep(millis(500)).await;
    assert!((1..=2).contains(&odd.connections()), "{} connects", odd.connections());
}

#[tokio::test]
async fn case_69_the_authority_is_localhost() {
    let scene =
        Scene::new(Monolith, FakeDriver::monolith(D0).plugin_capabilities([1, 3]).group_capabilities([1])).await;
    scene.healthy().await;
    let authorities: Vec<String> = scene.driver.authorities().into_iter().collect();
    assert_eq!(authorities, ["localhost"]);
}

#[tokio::test]
async fn case_70_a_connection_that_breaks_during_a_probe_is_opened_again_in_the_same_look() {
    let scene = Scene::new(Node, node()).await;
    scene.healthy().await;
    scene.one_more_look().await;
    let (before, time) = (scene.gateway.indexes(), scene.record().await["UpdateTime"].clone());
    scene.driver.queue(Rpc::Probe, [Reply::drop_connection()]);
    let probes = scene.driver.calls(Rpc::Probe);
    calls(&scene, Rpc::Probe, probes + 3).await;
    assert_eq!(scene.driver.replies_left(), 0);
    assert_is_the_healthy_node(&scene).await;
    assert_eq!((scene.gateway.indexes(), &scene.record().await["UpdateTime"]), (before, &time));
    assert_eq!(scene.driver.connections(), 2);
}

#[tokio::test]
async fn case_71_one_of_fifty_that_hangs_delays_no_other() {
    let directory = TempDir::new().expect("a scratch directory");
    let mut drivers = Vec::new();
    for number in 0..50 {
        let driver = FakeDriver::node(format!("drv-{number:02}.example.com"));
        let driver = if number == 25 { driver.always(Rpc::PluginInfo, Reply::hang()) } else { driver };
        drivers.push(driver.serve(directory.path().join(format!("{number}.sock"))).await.expect("binds"));
    }
    let sockets: Vec<_> = drivers.iter().map(|driver| wanted(driver.socket(), Node)).collect();
    // The one that hangs does so for longer than this test lives.
    let settings = Settings { poll_limit: LONG * 2, ..with_limits(|limits| limits.call = LONG * 2) };
    let gateway = TestGateway::watching(sockets, settings).await;
    for (number, driver) in drivers.iter().enumerate().filter(|(number, _)| *number != 25) {
        let arrived = timeout(LONG, driver.wait_for_calls(Rpc::Probe, 4)).await;
        arrived.unwrap_or_else(|_| panic!("driver {number} was probed {} times", driver.calls(Rpc::Probe)));
    }
    assert_eq!((drivers[25].calls(Rpc::PluginInfo), drivers[25].calls(Rpc::Probe)), (1, 0), "still in its first call");
    let list = gateway.list().await;
    let list = list.as_array().expect("a list");
    assert!(list.len() == 49 && list.iter().all(|stub| stub["NodesHealthy"] == 1), "{list:?}");
}

/// The same with more hung sockets than may be looked at at a time; once they kept everybody else out. 200 ms stand for
/// the probe limit.
#[tokio::test]
async fn case_71_a_hundred_that_hang_leave_room_for_one_that_does_not() {
    let directory = TempDir::new().expect("a scratch directory");
    let mut odd = Vec::new();
    for number in 0..100 {
        odd.push(OddSocket::accepts_and_is_silent(directory.path().join(format!("{number}.sock"))).expect("binds"));
    }
    let well = node().serve(directory.path().join("well.sock")).await.expect("binds");
    let mut sockets: Vec<_> = odd.iter().map(|odd| wanted(odd.socket(), Node)).collect();
    sockets.push(wanted(well.socket(), Node));
    let settings = with_limits(|limits| limits.connect = millis(200));
    let gateway = TestGateway::watching(sockets, settings).await;
    gateway.wait_until("all were looked at", |_| gateway.reader.standing().is_scanned).await;
    // A hundred of them, four at a time, 200 ms each: by then all would have had one more look.
    let begun = Instant::now();
    let probes = well.calls(Rpc::Probe);
    timeout(LONG, well.wait_for_calls(Rpc::Probe, probes + 10)).await.expect("it is looked at");
    assert!(begun.elapsed() < Duration::from_secs(4), "ten looks took {:?}", begun.elapsed());
    // One of them is replaced by a driver while it waits for its turn among the hung ones.
    let path = odd[50].socket().to_owned();
    std::fs::remove_file(&path).expect("removes the file");
    let begun = Instant::now();
    let _new = FakeDriver::node("new.example.com").serve(&path).await.expect("binds");
    let is_healthy = |instance: &Value| instance["Healthy"] == true;
    gateway.instance_until("the new one is healthy", "new.example.com", "node", is_healthy).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "seen after {:?}", begun.elapsed());
}

/// A driver that answers "not ready" after its return is asked at intervals; once it was asked every 50 ms for 5 s.
#[tokio::test]
async fn a_driver_that_starts_after_its_return_is_not_asked_all_the_time() {
    let scene = Scene::with(Node, node(), seldom()).await;
    scene.healthy().await;
    scene.driver.leave_dead().await;
    scene.unhealthy().await;
    scene.driver.set_probe(Reply::starting());
    let before = scene.driver.calls(Rpc::Probe);
    scene.driver.come_back().await.expect("binds");
    scene.until("it is starting", |instance| instance["Phase"] == "starting").await;
    tokio::time::sleep(millis(700)).await;
    let more = scene.driver.calls(Rpc::Probe) - before;
    assert!((1..=3).contains(&more), "{more} probes in less than a second");
}

/// The inode of the old directory lives as long as the old socket, so nothing tells that it went.
#[tokio::test]
async fn a_directory_that_is_replaced_under_an_old_process_is_noticed() {
    let directory = TempDir::new().expect("a scratch directory");
    let parent = directory.path().join("drv");
    let path = parent.join("csi.sock");
    let old = node().serve(&path).await.expect("binds");
    let gateway = TestGateway::watching([wanted(&path, Node)], seldom()).await;
    gateway.instance_until("it is healthy", D0, "node", |instance| instance["Healthy"] == true).await;
    std::fs::remove_dir_all(&parent).expect("removes the directory");
    gateway.instance_until("it is gone", D0, "node", |instance| instance["Phase"] == "gone").await;
    // All eager dials are over, the next look by the clock is seconds away.
    tokio::time::sleep(millis(5300)).await;
    let begun = Instant::now();
    let _new = node().version("2.0").serve(&path).await.expect("binds");
    gateway.instance_until("2.0 is seen", D0, "node", |instance| instance["ProviderVersion"] == "2.0").await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    drop(old);
}

/// Once the file that was dialled a moment ago was waited for, though nobody listened there and another came.
#[tokio::test]
async fn a_driver_that_dies_and_returns_within_a_second_is_seen_each_time() {
    let scene = Scene::with(Node, node(), seldom()).await;
    scene.healthy().await;
    let mut took = Vec::new();
    for _ in 0..6 {
        let begun = Instant::now();
        scene.driver.leave_dead().await;
        scene.unhealthy().await;
        scene.driver.come_back().await.expect("binds");
        scene.healthy().await;
        took.push(begun.elapsed());
    }
    // A machine that is busy with other things may make one round late; who waits for the wrong file is late in most.
    assert!(took.iter().filter(|took| **took > millis(700)).count() <= 1, "{took:?}");
}

/// What a hung socket costs is let go with each look; `scripts/load --only hung` has five hundred of them.
#[tokio::test]
async fn sockets_that_hang_cost_no_more_from_round_to_round() {
    let directory = TempDir::new().expect("a scratch directory");
    let mut odd = Vec::new();
    for number in 0..60 {
        odd.push(OddSocket::accepts_and_is_silent(directory.path().join(format!("{number}.sock"))).expect("binds"));
    }
    let well = node().serve(directory.path().join("well.sock")).await.expect("binds");
    let mut sockets: Vec<_> = odd.iter().map(|odd| wanted(odd.socket(), Node)).collect();
    sockets.push(wanted(well.socket(), Node));
    let gateway = TestGateway::watching(sockets, with_limits(|limits| limits.connect = millis(20))).await;
    let mut tasks = Vec::new();
    for round in 1..=10 {
        let begun = Instant::now();
        while odd.iter().any(|odd| odd.connections() < round) {
            assert!(begun.elapsed() < LONG, "round {round} does not end");
            tokio::time::sleep(millis(5)).await;
        }
        tasks.push(tokio::runtime::Handle::current().metrics().num_alive_tasks());
    }
    // A round leaves sixty behind, if it leaves any. A look has two tasks of its own, and up to 64 may be under way at first.
    let (first, later) = (tasks[1..4].iter().max(), tasks[4..].iter().max());
    assert!(later <= first.map(|first| first + 16).as_ref(), "{tasks:?}");
    let well = gateway.socket(well.socket()).await.expect("watched");
    assert_eq!(well["Phase"], "healthy");
    gateway.stop().await;
}

/// Neither has an inode, so that once the one was taken for the other.
#[tokio::test]
async fn a_link_to_itself_that_is_removed_is_noticed() {
    let scene = Scene::with(Node, node(), seldom()).await;
    scene.healthy().await;
    scene.driver.vanish().await;
    scene.until("it is gone", |instance| instance["Phase"] == "gone").await;
    std::os::unix::fs::symlink(&scene.path, &scene.path).expect("makes a link");
    scene.until("it leads nowhere", |instance| instance["Phase"] == "unhealthy").await;
    let begun = Instant::now();
    std::fs::remove_file(&scene.path).expect("removes the link");
    scene.until("it is gone again", |instance| instance["Phase"] == "gone").await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// A link to a socket moves its change time, and once every one cost a dial.
#[tokio::test]
async fn a_driver_whose_file_gets_links_other_modes_and_other_names_is_not_dialled_anew() {
    let scene = Scene::with(Node, node(), seldom()).await;
    scene.healthy().await;
    let begun = Instant::now();
    let aside = scene.directory.path().join("aside");
    for number in 0..200 {
        std::fs::hard_link(&scene.path, &aside).expect("makes a link");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600 | (number & 0o77));
        std::fs::set_permissions(&scene.path, mode).expect("sets the mode");
        std::fs::remove_file(&aside).expect("removes the link");
        tokio::time::sleep(millis(2)).await;
    }
    assert_eq!(scene.driver.connections(), 1, "links and modes");
    for _ in 0..50 {
        std::fs::rename(&scene.path, &aside).expect("moves it away");
        tokio::time::sleep(millis(20)).await;
        std::fs::rename(&aside, &scene.path).expect("moves it back");
        tokio::time::sleep(millis(20)).await;
    }
    scene.healthy().await;
    let (dialled, seconds) = (scene.driver.connections(), begun.elapsed().as_secs_f64());
    // One that was moved back between the look at what is there and the dial is not known before.
    assert!(dialled as f64 <= 2.0 + seconds, "{dialled} dials in {seconds:.1} s");
    // Its end is seen at once all the same.
    let begun = Instant::now();
    scene.driver.leave_dead().await;
    scene.unhealthy().await;
    assert!(begun.elapsed() < millis(500), "{:?}", begun.elapsed());
}

/// Both names lead to one inode, and so to one watch.
#[tokio::test]
async fn two_names_of_one_directory_are_both_watched() {
    let directory = TempDir::new().expect("a scratch directory");
    std::fs::create_dir(directory.path().join("run")).expect("makes a directory");
    std::os::unix::fs::symlink("run", directory.path().join("alias")).expect("makes a link");
    let names = ["run/a.sock", "alias/b.sock"].map(|name| directory.path().join(name));
    let gateway = TestGateway::watching(names.iter().map(|path| wanted(path, Node)), seldom()).await;
    for path in &names {
        gateway.socket_until("it was looked at", path, |socket| socket["Phase"] == "gone").await;
    }
    let begun = Instant::now();
    let mut drivers = Vec::new();
    for (path, id) in names.iter().zip(["a.example.com", "b.example.com"]) {
        drivers.push(FakeDriver::node(id).serve(path).await.expect("binds"));
        gateway.instance_until("it is healthy", id, "node", |instance| instance["Healthy"] == true).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

// Roles

#[tokio::test]
async fn case_72_only_controller_answers_so_it_is_one() {
    let scene = Scene::new(Auto, controller()).await;
    let is_healthy = |instance: &Value| instance["Healthy"] == true;
    scene.gateway.instance_until("it is healthy", D0, "controller", is_healthy).await;
    scene.one_more_look().await;
    assert_eq!(scene.gateway.plugin(D0).await.expect("counts")["Nodes"], json!({}));
}

#[tokio::test]
async fn case_73_only_node_answers_so_it_is_one() {
    let scene = Scene::new(Auto, node()).await;
    assert_is_the_healthy_node(&scene).await;
    assert_eq!(scene.gateway.plugin(D0).await.expect("counts")["ControllerRequired"], true);
    assert_eq!(scene.gateway.socket(&scene.path).await.expect("watched")["Roles"], json!(["node"]));
}

#[tokio::test]
async fn case_75_a_monolith_has_two_healths() {
    let driver = FakeDriver::monolith(D0).always(Rpc::NodeCapabilities, Reply::fail(Code::Internal, "no"));
    let scene = Scene::new(Monolith, driver).await;
    scene.unhealthy().await;
    let plugin = scene.gateway.plugin(D0).await.expect("counts");
    assert_eq!((&plugin["ControllersHealthy"], &plugin["NodesHealthy"]), (&json!(1), &json!(0)));
    assert_eq!(plugin["Controllers"][HOST]["Healthy"], true);
}

/// Once it stayed healthy for ever.
#[tokio::test]
async fn a_role_that_was_served_and_is_no_more_is_unhealthy() {
    let scene = Scene::new(Auto, FakeDriver::monolith(D0)).await;
    scene.healthy().await;
    scene.driver.drop_node();
    let instance = scene.unhealthy().await;
    assert!(description(&instance).contains("code = Unimplemented"), "{instance}");
    let plugin = scene.gateway.plugin(D0).await.expect("counts");
    assert_eq!((&plugin["ControllersHealthy"], &plugin["NodesHealthy"]), (&json!(1), &json!(0)));
}

// Aggregation

#[tokio::test]
async fn case_77_a_controller_is_required_although_none_is_there() {
    let scene = Scene::new(Node, node()).await;
    scene.healthy().await;
    assert_eq!(scene.gateway.list().await[0]["ControllerRequired"], true);
}

#[tokio::test]
async fn case_78_a_plugin_that_was_never_well_is_none_of_nomads() {
    let scene = Scene::new(Node, node().always(Rpc::Probe, Reply::fail(Code::Internal, "no"))).await;
    scene.unhealthy().await;
    assert_eq!((scene.gateway.list().await, scene.gateway.plugin(D0).await), (json!([]), None));
}

/// Records of other hosts, as another source would feed them.
async fn feed(gateway: &TestGateway, records: impl IntoIterator<Item = Record>) {
    let changes = records.into_iter().map(put).collect();
    gateway.feed.send(Report::Feed(changes)).await.expect("the registry takes it");
}

fn modify_index(plugin: &Value) -> u64 {
    plugin["ModifyIndex"].as_u64().expect("a number")
}

#[tokio::test]
async fn cases_76_79_and_81_counts_follow_the_hosts() {
    let gateway = TestGateway::watching([], quick()).await;
    let nodes = ["host-000a", "host-000b", "host-000c"].map(|host| fixture::node("ebs", host));
    feed(&gateway, nodes.iter().cloned().chain([fixture::controller("ebs", "host-000a")])).await;
    gateway.wait_until("all four are there", |catalog| catalog.records().count() == 4).await;
    let plugin = gateway.plugin("ebs").await.expect("counts");
    let counts = |plugin: &Value| {
        ["ControllersHealthy", "ControllersExpected", "NodesHealthy", "NodesExpected"].map(|key| plugin[key].clone())
    };
    assert_eq!(counts(&plugin), [1, 1, 3, 3].map(Value::from));
    assert_eq!(plugin["ControllerRequired"], true);

    let healthy =
        |count| move |catalog: &Catalog| catalog.plugin("ebs").is_some_and(|p| p.tally.nodes.healthy == count);
    feed(&gateway, [fixture::unhealthy(nodes[1].clone())]).await;
    gateway.wait_until("B is ill", healthy(2)).await;
    let ill = gateway.plugin("ebs").await.expect("counts");
    assert_eq!(counts(&ill), [1, 1, 2, 3].map(Value::from));
    assert_eq!(ill["Nodes"].as_object().expect("an object").len(), 3);
    assert_eq!(modify_index(&ill), modify_index(&plugin) + 1, "it moves once");

    feed(&gateway, [nodes[1].clone()]).await;
    gateway.wait_until("B is well", healthy(3)).await;
    assert_eq!(counts(&gateway.plugin("ebs").await.expect("counts")), [1, 1, 3, 3].map(Value::from));
}

#[tokio::test]
async fn case_95_two_plugins_of_one_batch_have_one_index() {
    let gateway = TestGateway::watching([], quick()).await;
    let before = gateway.indexes().0;
    feed(&gateway, ["ebs", "nfs"].map(|id| fixture::node(id, "host-000a"))).await;
    gateway.wait_until("both are there", |catalog| catalog.records().count() == 2).await;
    let (ebs, nfs) = (gateway.plugin("ebs").await.expect("counts"), gateway.plugin("nfs").await.expect("counts"));
    let after = gateway.indexes().0;
    assert_eq!((modify_index(&ebs), modify_index(&nfs)), (after, after));
    assert_eq!(after, before + 1);
}

#[tokio::test]
async fn case_80_the_same_trouble_again_moves_no_index() {
    let scene = Scene::new(Node, node()).await;
    scene.healthy().await;
    scene.driver.set_probe(Reply::fail(Code::Internal, "no"));
    scene.unhealthy().await;
    let before = scene.gateway.indexes();
    scene.one_more_look().await;
    assert_eq!(scene.gateway.indexes(), before);
}

#[tokio::test]
async fn case_96_a_restart_forgets_nothing_and_the_index_does_not_fall() {
    let directory = TempDir::new().expect("a scratch directory");
    let path = directory.path().join("csi.sock");
    let driver = node().serve(&path).await.expect("binds");
    let keep = || csi_gateway::app::Keep::In(directory.path().join("state"));
    let first = TestGateway::keeping(keep(), [wanted(&path, Node)], quick()).await;
    first.instance_until("it is healthy", D0, "node", |instance| instance["Healthy"] == true).await;
    let (index, before) = (first.indexes(), first.plugin(D0).await.expect("counts"));
    first.stop().await;
    driver.leave_dead().await;
    let second = TestGateway::keeping(keep(), [wanted(&path, Node)], quick()).await;
    assert!(second.indexes() >= index, "{:?} after {index:?}", second.indexes());
    let instance = second.instance_until("it is stale", D0, "node", |instance| instance["Phase"] == "stale").await;
    assert!(description(&instance).starts_with("failed fingerprinting with error: "), "no longer initial: {instance}");
    let after = second.plugin(D0).await.expect("counts at once");
    assert_eq!(after["Nodes"][HOST]["NodeInfo"], before["Nodes"][HOST]["NodeInfo"]);
    assert_eq!((&after["CreateIndex"], &after["CreateTime"]), (&before["CreateIndex"], &before["CreateTime"]));
    second.stop().await;
}

/// The store holds two plugins of one socket, and the one that is there dies while nobody looks. Once the other was
/// followed, and this one stayed healthy.
#[tokio::test]
async fn after_a_restart_the_plugin_that_was_there_last_is_followed() {
    let directory = TempDir::new().expect("a scratch directory");
    let path = directory.path().join("csi.sock");
    let driver = node().serve(&path).await.expect("binds");
    let keep = || csi_gateway::app::Keep::In(directory.path().join("state"));
    let first = TestGateway::keeping(keep(), [wanted(&path, Node)], quick()).await;
    first.instance_until("it is healthy", D0, "node", |instance| instance["Healthy"] == true).await;
    driver.set_name("a.example.com");
    first.instance_until("it is healthy", "a.example.com", "node", |instance| instance["Healthy"] == true).await;
    first.stop().await;
    driver.leave_dead().await;
    let second = TestGateway::keeping(keep(), [wanted(&path, Node)], quick()).await;
    second.instance_until("it is stale", "a.example.com", "node", |instance| instance["Phase"] == "stale").await;
    let old = second.detail(D0, "node").await.expect("kept");
    assert!(description(&old).starts_with("plugin identity changed"), "{old}");
    second.stop().await;
}
