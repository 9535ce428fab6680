//! Beside a real kubelet with a real driver, registered by the real node-driver-registrar. What no scripted peer can show:
//! that the verdicts are right about what this kubelet believes, as its CSINode says, and that it never notices us.

#[path = "support/kubernetes.rs"]
mod kubernetes;
#[path = "support/parts.rs"]
mod parts;
mod support;

use std::io::Write;
use std::time::{Duration, Instant};

use kubernetes::{KUBELET, NODE, Node};
use serde_json::{Value, json};
use support::daemon::{Process, with_the_test};
use support::process::{PATIENCE, Serving, until};

const GATEWAY: &str = env!("CARGO_BIN_EXE_csi-gateway");
const DRIVER: &str = "hostpath.csi.k8s.io";
/// What a death may take to show.
const SOON: Duration = Duration::from_millis(100);
/// What an event shows is there long before the next poll, which is 30 s away.
const BY_EVENT: Duration = Duration::from_secs(5);
/// What a registrar logs when it is told whether its driver is registered.
const NOTIFIED: &str = "Received NotifyRegistrationStatus";
/// A kubelet compares what it believes with what it sees every second.
const THREE_ROUNDS_OF_THE_KUBELET: Duration = Duration::from_secs(3);

/// A gateway on the node that was told nothing but where to listen.
async fn serve(node: &Node) -> Serving {
    let mut command = node.command(GATEWAY);
    command.args(["serve", "--http-endpoint=127.0.0.1:0"]);
    Serving::run(command.into(), &node.logs().join("gateway.log")).await
}

/// One that sees the node's root directory where a container would have it mounted.
async fn serve_in_a_container(node: &Node) -> Serving {
    let mut command = with_the_test(GATEWAY);
    command.args(["serve", "--http-endpoint=127.0.0.1:0"]);
    command.arg(format!("--host-root={}", node.root().display()));
    command.arg(format!("--state-dir={}", node.logs().join("state").display()));
    Serving::run(command.into(), &node.logs().join("gateway-in-a-container.log")).await
}

/// The driver's node instance; null while it is not known.
async fn instance(gateway: &Serving) -> Value {
    let answer = gateway.get(&format!("/v1/gateway/plugin/{DRIVER}")).await;
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let nodes = body["Nodes"].as_object();
    assert!(nodes.is_none_or(|nodes| nodes.len() == 1), "one host, one instance: {body}");
    nodes.and_then(|nodes| nodes.values().next().cloned()).unwrap_or_default()
}

async fn until_it_is(gateway: &Serving, is_healthy: bool, verdict: &str) -> Value {
    let begun = Instant::now();
    let shown = until(&format!("healthy: {is_healthy}, {verdict}"), async || {
        let instance = instance(gateway).await;
        let is_so = instance["Healthy"] == is_healthy && instance["Registration"] == verdict;
        if is_so { Ok(instance) } else { Err(instance.to_string()) }
    })
    .await;
    assert!(begun.elapsed() < BY_EVENT, "{verdict} took {:?}: no event showed it", begun.elapsed());
    shown
}

/// What the kubelet says of the driver in its CSINode; null: nothing.
async fn believed(node: &Node) -> Result<Value, String> {
    let drivers = node.registered().await?;
    Ok(drivers.into_iter().find(|driver| driver["name"] == DRIVER).unwrap_or_default())
}

async fn until_believed(node: &Node, is_believed: bool) -> Value {
    until(&format!("CSINode lists the driver: {is_believed}"), async || {
        let driver = believed(node).await?;
        if driver.is_null() != is_believed { Ok(driver) } else { Err(driver.to_string()) }
    })
    .await
}

/// Waits until the kubelet told a registrar more often than before what came of its registration.
async fn until_notified_again(registrar: &Process, before: usize) {
    let is_told = async || if registrar.logged(NOTIFIED) > before { Ok(()) } else { Err(registrar.log()) };
    until("the registrar is notified again", is_told).await;
}

/// Kills the driver: how long it takes to be shown as ill, and as what.
async fn death(gateway: &Serving, driver: &mut Process) -> (Duration, Value) {
    let begun = Instant::now();
    driver.kill();
    loop {
        let instance = instance(gateway).await;
        if instance["Healthy"] == false {
            return (begun.elapsed(), instance);
        }
        assert!(begun.elapsed() < PATIENCE, "its death is not seen: {instance}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Every verdict on the registration so far, the first one first.
async fn verdicts(gateway: &Serving) -> Vec<String> {
    let history = gateway.json(&format!("/v1/gateway/history?plugin={DRIVER}")).await;
    let entries = history.as_array().expect("a list").iter().rev();
    let changes = entries.filter(|entry| entry["Kind"] == "registration");
    changes.map(|entry| entry["To"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn beside_a_real_kubelet_every_verdict_is_right_and_the_kubelet_never_notices() {
    let Some(mut node) = Node::start().await else { return };
    let gateway = serve(&node).await;
    let mut driver = node.start_driver();
    until_it_is(&gateway, true, "unregistered").await;
    assert_eq!(believed(&node).await, Ok(Value::Null));

    let mut registrar = node.start_registrar();
    let shown = until_it_is(&gateway, true, "ok").await;
    let listed = until_believed(&node, true).await;
    assert_eq!(listed["nodeID"], NODE);
    assert_eq!(shown["NodeInfo"]["ID"], listed["nodeID"]);
    let segments = shown["NodeInfo"]["AccessibleTopology"]["Segments"].as_object().expect("a topology");
    assert_eq!(json!(segments.keys().collect::<Vec<_>>()), listed["topologyKeys"]);
    let in_a_container = serve_in_a_container(&node).await;
    until_it_is(&in_a_container, true, "ok").await;

    let mut took = Vec::new();
    for _ in 0..3 {
        let (time, shown) = death(&gateway, &mut driver).await;
        took.push(time);
        assert_eq!(shown["Registration"], "orphan socket", "the first word of its death says so: {shown}");
        let read = gateway.json(&format!("/v1/plugin/csi/{DRIVER}")).await;
        assert_eq!((&read["NodesHealthy"], &read["NodesExpected"]), (&json!(0), &json!(1)));
        until_it_is(&in_a_container, false, "orphan socket").await;
        // That it goes on believing is no event that could be waited for.
        tokio::time::sleep(THREE_ROUNDS_OF_THE_KUBELET).await;
        assert_eq!(believed(&node).await.as_ref(), Ok(&listed), "the kubelet knows better than was thought");
        driver = node.start_driver();
        until_it_is(&gateway, true, "ok").await;
    }
    // Not by a macro: what those print is kept back where a test passes.
    let _ = writeln!(std::io::stderr(), "a registered driver's death was shown after {took:?}");
    assert!(took.iter().any(|time| *time < SOON), "the best of three: {took:?}");

    registrar.kill();
    until_it_is(&gateway, true, "orphan socket").await;
    tokio::time::sleep(THREE_ROUNDS_OF_THE_KUBELET).await;
    assert_eq!(believed(&node).await.as_ref(), Ok(&listed));

    let socket = node.path(KUBELET).join(format!("plugins_registry/{DRIVER}-reg.sock"));
    std::fs::remove_file(&socket).expect("a dead registrar leaves its socket");
    until_it_is(&gateway, true, "unregistered").await;
    until_believed(&node, false).await;

    registrar = node.start_registrar();
    until_it_is(&gateway, true, "ok").await;
    until_believed(&node, true).await;

    let notified = registrar.logged(NOTIFIED);
    node.restart_kubelet();
    until_notified_again(&registrar, notified).await;
    assert_eq!(until_believed(&node, true).await, listed);
    until_it_is(&gateway, true, "ok").await;
    until_it_is(&in_a_container, true, "ok").await;

    // A kubelet that starts asks anew. What it says of a dead driver ends the registrar, and the socket of that stays.
    driver.kill();
    until_it_is(&gateway, false, "orphan socket").await;
    node.restart_kubelet();
    until("the registrar ends", async || registrar.has_ended().then_some(()).ok_or_else(|| registrar.log())).await;
    until_believed(&node, false).await;
    let _driver = node.start_driver();
    until_it_is(&gateway, true, "orphan socket").await;
    assert_eq!(believed(&node).await, Ok(Value::Null), "the driver is well, and nobody tells the kubelet");

    std::fs::remove_file(&socket).expect("a registrar that gives up leaves its socket");
    until_it_is(&gateway, true, "unregistered").await;
    let registrar = node.start_registrar();
    until_it_is(&gateway, true, "ok").await;
    until_it_is(&in_a_container, true, "ok").await;
    until_believed(&node, true).await;

    let expected = [
        ["ok"].as_slice(),
        &["orphan socket", "ok"].repeat(3),
        // A registrar is dead, its socket is gone, another is there; the kubelet's first restart is no change.
        &["orphan socket", "unregistered", "ok"].repeat(2),
    ]
    .concat();
    assert_eq!(verdicts(&gateway).await, expected);
    assert_eq!(verdicts(&in_a_container).await, expected[1..], "it came when all was well");
    it_was_not_noticed(&node, &registrar).await;
}

/// What the kubelet and the registrar did is what they would have done without us.
async fn it_was_not_noticed(node: &Node, registrar: &Process) {
    // How often it registers is its own affair, if a registrar comes while it tries.
    let registers = format!("Register new plugin with name: {DRIVER}");
    until("a registrar is told what came of each registration, and nothing else", async || {
        let (registered, notified) = (node.kubelet.logged(&registers), registrar.logged(NOTIFIED));
        if registered == notified { Ok(()) } else { Err(format!("{registered} {}", registrar.log())) }
    })
    .await;
    let refused = format!("{NOTIFIED} call\" status=\"error");
    assert_eq!(registrar.logged(&refused), 1, "only the one whose driver was dead: {}", registrar.log());
    assert_eq!(node.kubelet.logged("csi-gateway"), 0);
    let metrics = node.kubelet_metrics().await.expect("the kubelet tells its metrics");
    assert!(metrics.contains("kubelet_node_name"), "{metrics}");
    for served in ["kubelet_pod_resources_endpoint_requests_total{", "kubelet_device_plugin_registration_total{"] {
        assert!(!metrics.contains(served), "somebody called the kubelet: {served}");
    }
}
