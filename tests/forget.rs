//! What is dead goes: by itself after a time, or at once because an operator says so. Guards against plugins that
//! haunt the list for ever (Nomad has no way to remove one), and against anybody else removing what is alive.
//!
//! Behaviour cases 57, 84, 89 and 90 of `fingerprinting.md`; 87 is `discovery`'s.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use csi_gateway::app::{Keep, Plan};
use csi_gateway::commands::http::{self, Answer};
use csi_gateway::config::Asking;
use csi_gateway::demo::{FakeDriver, ServedDriver, fleet};
use csi_gateway::domain::catalog::RecordChange;
use csi_gateway::domain::id::{HostId, Role};
use csi_gateway::domain::record::Phase;
use csi_gateway::domain::socket::{RoleChoice, WantedSocket};
use csi_gateway::domain::time::Timestamp;
use csi_gateway::registry::reporter::Report;
use serde_json::Value;
use support::gateway::{D0, HOST, LONG, TestGateway, named, quick, wanted};
use support::process::{gateway, run};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn plan(keep: Keep, sockets: impl IntoIterator<Item = WantedSocket>) -> Plan {
    let sockets: BTreeSet<WantedSocket> = sockets.into_iter().collect();
    let host = HostId::parse(HOST).expect("a legal host id");
    let mut plan = Plan::new(host, keep, Some(sockets), vec!["127.0.0.1:0".to_owned()]);
    plan.fingerprint = quick();
    plan
}

/// A gateway, and its only driver, which was healthy.
struct Scene {
    gateway: TestGateway,
    driver: ServedDriver,
    directory: TempDir,
}

impl Scene {
    async fn new(change: impl FnOnce(&mut Plan, &Path)) -> Self {
        let directory = TempDir::new().expect("a scratch directory");
        let path = directory.path().join("csi.sock");
        let driver = FakeDriver::node(D0).serve(&path).await.expect("binds");
        let mut plan = plan(Keep::Memory, [wanted(&path, RoleChoice::Node)]);
        change(&mut plan, directory.path());
        let gateway = TestGateway::of(plan).await;
        healthy(&gateway).await;
        Self { gateway, driver, directory }
    }

    async fn gone(&self) {
        self.driver.vanish().await;
        phase(&self.gateway, "gone").await;
    }
}

async fn healthy(gateway: &TestGateway) {
    phase(gateway, "healthy").await;
}

async fn phase(gateway: &TestGateway, phase: &str) {
    gateway.instance_until(phase, D0, "node", |instance| instance["Phase"] == phase).await;
}

async fn forget(gateway: &TestGateway, rest: &str) -> Answer {
    let path = format!("/v1/gateway/plugin/{rest}");
    http::delete(&Asking::at(gateway.address()), &path).await.expect("the gateway answers")
}

fn text(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), String::from_utf8(answer.body.to_vec()).expect("UTF-8"))
}

/// The status of a request with these headers.
async fn raw(gateway: &TestGateway, head: &str) -> String {
    let address = gateway.address().strip_prefix("http://").expect("TCP");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!("{head}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    answer
}

fn create_index(plugin: &Value) -> u64 {
    plugin["CreateIndex"].as_u64().expect("an index")
}

#[tokio::test]
async fn cases_57_89_and_90_what_is_gone_is_retired_and_comes_back_as_something_new() {
    let scene = Scene::new(|plan, _| plan.retire.gone = Duration::from_secs(2)).await;
    let gateway = &scene.gateway;
    let before = create_index(&gateway.plugin(D0).await.expect("it counts"));
    // Case 57: at first the entry is kept.
    scene.gone().await;
    let plugin = gateway.plugin(D0).await.expect("kept");
    assert_eq!((&plugin["NodesHealthy"], &plugin["NodesExpected"]), (&0.into(), &1.into()));
    let (index, _) = gateway.indexes();
    // Case 89: whoever waits for the list is told.
    let waiting = gateway.get("/v1/plugins?type=csi&index=0").await;
    assert_eq!(waiting.as_array().map(Vec::len), Some(1));
    let path = format!("/v1/plugins?type=csi&index={index}&wait=60s");
    let list = tokio::time::timeout(LONG, gateway.get(&path)).await.expect("it is woken before its wait is over");
    assert_eq!(list, Value::Array(Vec::new()));
    assert!(gateway.indexes().0 > index);
    assert_eq!(gateway.plugin(D0).await, None);
    assert_eq!(gateway.find(&format!("/v1/gateway/plugin/{D0}")).await, None);
    let history = gateway.history(D0).await;
    assert_eq!(history.last().map(|last| &last["Kind"]), Some(&"retired".into()));
    // Its socket is still looked at, and that nobody is there is no news.
    let path = scene.driver.socket().to_owned();
    for _ in 0..3 {
        let last = gateway.socket(&path).await.expect("watched")["LastProbeTime"].clone();
        gateway.socket_until("another look", &path, |socket| socket["LastProbeTime"] != last).await;
    }
    assert_eq!(gateway.find(&format!("/v1/gateway/plugin/{D0}")).await, None);
    let retired = gateway.indexes().0;
    // Case 90.
    scene.driver.come_back().await.expect("binds");
    healthy(gateway).await;
    let plugin = gateway.plugin(D0).await.expect("it counts again");
    assert!(create_index(&plugin) > retired && create_index(&plugin) > before);
    assert_eq!(plugin["Nodes"][HOST]["NodeInfo"]["ID"], "n-1");
}

#[tokio::test]
async fn what_is_alive_is_not_forgotten_and_named() {
    let scene = Scene::new(|_, _| {}).await;
    let (status, said) = text(&forget(&scene.gateway, D0).await);
    assert_eq!(status, 409);
    assert_eq!(said, format!("still alive: node on {HOST}; only what is dead can be forgotten"));
    assert!(scene.gateway.plugin(D0).await.is_some());
}

#[tokio::test]
async fn what_is_gone_is_forgotten_and_its_readers_are_told() {
    let scene = Scene::new(|_, _| {}).await;
    scene.gone().await;
    let gateway = &scene.gateway;
    let (index, _) = gateway.indexes();
    let path = format!("/v1/plugins?type=csi&index={index}&wait=60s");
    let mut waiting = std::pin::pin!(gateway.get(&path));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err(), "nothing happened yet");
    let answer = forget(gateway, &format!("{D0}?host={HOST}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json");
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!((&body["Durability"], &body["PluginGone"]), (&"memory".into(), &true.into()));
    assert_eq!(answer.headers["x-nomad-index"].to_str().ok(), Some(body["Index"].to_string().as_str()));
    let instance = &body["Instances"][0];
    assert_eq!((&instance["Host"], &instance["Role"]), (&HOST.into(), &"node".into()));
    assert_eq!((&instance["Phase"], &instance["PluginID"]), (&"gone".into(), &D0.into()));
    assert_eq!(tokio::time::timeout(LONG, waiting).await.expect("woken"), Value::Array(Vec::new()));
    assert_eq!(text(&forget(gateway, D0).await), (404, "plugin not found".to_owned()));
    // Forgetting is no ban.
    scene.driver.come_back().await.expect("binds");
    healthy(gateway).await;
    assert!(gateway.plugin(D0).await.is_some());
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_cannot_be_is_400() {
    let scene = Scene::new(|_, _| {}).await;
    let gateway = &scene.gateway;
    assert_eq!(text(&forget(gateway, "nothing").await), (404, "plugin not found".to_owned()));
    assert_eq!(text(&forget(gateway, ".hidden").await), (404, "plugin not found".to_owned()));
    let elsewhere = forget(gateway, &format!("{D0}?host=host-zzzz")).await;
    assert_eq!(text(&elsewhere), (404, "the plugin has no instance on this host".to_owned()));
    assert_eq!(forget(gateway, &format!("{D0}?host=a%2Fb")).await.status, 400);
    assert_eq!(forget(gateway, "").await.status, 500);
    assert_eq!(forget(gateway, &format!("{D0}/x/y")).await.status, 404);
    // Nothing else can be deleted.
    for path in [format!("/v1/plugin/csi/{D0}"), "/v1/gateway/plugins".to_owned(), "/v1/plugins".to_owned()] {
        let answer = http::delete(&Asking::at(gateway.address()), &path).await.expect("the gateway answers");
        assert_eq!(text(&answer), (405, "Invalid method".to_owned()), "{path}");
    }
    assert!(gateway.plugin(D0).await.is_some());
}

#[tokio::test]
async fn a_web_page_under_another_name_forgets_nothing() {
    let scene = Scene::new(|_, _| {}).await;
    scene.gone().await;
    for head in [
        format!("DELETE /v1/gateway/plugin/{D0} HTTP/1.1\r\nHost: evil.example.com"),
        format!("DELETE /v1/gateway/plugin/{D0} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example.com"),
        format!("DELETE /v1/gateway/plugin/{D0} HTTP/1.0"),
    ] {
        let answer = raw(&scene.gateway, &head).await;
        assert!(answer.contains(" 403 ") && answer.ends_with("see its --allowed-hosts"), "{head}\n{answer}");
    }
    assert!(scene.gateway.plugin(D0).await.is_some());
    // Reading is open to it, as it always was.
    let answer = raw(&scene.gateway, "GET /v1/plugins?type=csi HTTP/1.1\r\nHost: evil.example.com").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn hosts_that_are_allowed_replace_those_that_are_known() {
    let scene = Scene::new(|plan, _| plan.api.allowed_hosts = vec!["storage.example.com".to_owned()]).await;
    scene.gone().await;
    assert_eq!(forget(&scene.gateway, D0).await.status, 403);
    let head = format!("DELETE /v1/gateway/plugin/{D0} HTTP/1.1\r\nHost: Storage.example.com:4649");
    let answer = raw(&scene.gateway, &head).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn over_a_unix_socket_the_command_line_forgets_and_says_what() {
    let scene =
        Scene::new(|plan, folder| plan.endpoints.push(format!("unix://{}", folder.join("http.sock").display()))).await;
    let flag = format!("--address=unix://{}", scene.directory.path().join("http.sock").display());
    let command = |arguments: &[&str]| {
        let mut command = gateway();
        command.arg("forget").args(arguments).arg(&flag);
        run(command)
    };
    let (code, _, err) = command(&[D0]).await;
    assert_eq!(code, Some(1));
    assert_eq!(
        err.trim_end(),
        format!("error: cannot forget `{D0}`: still alive: node on {HOST}; only what is dead can be forgotten")
    );
    scene.gone().await;
    let host = format!("--host={HOST}");
    let (code, out, err) = command(&[D0, &host]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let socket = scene.driver.socket().display();
    assert_eq!(out, format!("forgotten: node of {D0} on {HOST}, was gone at {socket}\nnothing is left of {D0}\n"));
    assert_eq!(command(&[D0]).await.0, Some(1));
    assert_eq!(command(&[]).await.0, Some(2));
}

#[tokio::test]
async fn what_is_forgotten_is_durable_before_the_answer() {
    let directory = TempDir::new().expect("a scratch directory");
    let state = directory.path().join("state");
    let path = directory.path().join("csi.sock");
    let driver = FakeDriver::node(D0).serve(&path).await.expect("binds");
    let watched = || [wanted(&path, RoleChoice::Node)];
    let first = TestGateway::of(plan(Keep::In(state.clone()), watched())).await;
    healthy(&first).await;
    driver.vanish().await;
    phase(&first, "gone").await;
    let answer = forget(&first, D0).await;
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(body["Durability"], "durable");
    // A copy of the state as it is in this moment: what a power cut would leave.
    let copy = directory.path().join("copy");
    std::fs::create_dir(&copy).expect("a directory");
    for entry in std::fs::read_dir(&state).expect("readable") {
        let entry = entry.expect("readable");
        std::fs::copy(entry.path(), copy.join(entry.file_name())).expect("copied");
    }
    first.stop().await;
    for kept in [copy, state] {
        let again = TestGateway::of(plan(Keep::In(kept), watched())).await;
        assert_eq!(again.reader.current().records().count(), 0);
        assert!(again.indexes().1 >= body["Index"].as_u64().expect("an index"));
        assert_eq!(again.history(D0).await.last().map(|last| last["Kind"].clone()), Some("retired".into()));
        again.stop().await;
    }
}

#[tokio::test]
async fn a_socket_that_never_had_anybody_is_shown_until_it_is_retired() {
    let directory = TempDir::new().expect("a scratch directory");
    let path = directory.path().join("csi.sock");
    let mut plan = plan(Keep::Memory, [named(&path, RoleChoice::Node, "ebs")]);
    plan.retire.gone = Duration::from_millis(400);
    let gateway = TestGateway::of(plan).await;
    gateway.instance_until("gone", "ebs", "node", |instance| instance["Phase"] == "gone").await;
    gateway.wait_until("nothing is left", |catalog| catalog.records().count() == 0).await;
    let driver = FakeDriver::node(D0).serve(&path).await.expect("binds");
    gateway.instance_until("healthy", "ebs", "node", |instance| instance["Healthy"] == true).await;
    driver.finish().await.expect("nothing was scripted");
}

#[tokio::test]
async fn what_a_host_had_under_its_former_id_is_retired() {
    let directory = TempDir::new().expect("a scratch directory");
    let path = directory.path().join("csi.sock");
    let _driver = FakeDriver::node(D0).serve(&path).await.expect("binds");
    let keep = || Keep::In(directory.path().join("state"));
    let first = TestGateway::of(plan(keep(), [wanted(&path, RoleChoice::Node)])).await;
    healthy(&first).await;
    first.stop().await;
    let mut renamed = plan(keep(), [wanted(&path, RoleChoice::Node)]);
    renamed.host = HostId::parse("another-host").expect("legal");
    let second = TestGateway::of(renamed).await;
    second
        .wait_until("only the new id is known", |catalog| {
            let mut hosts = catalog.records().map(|record| record.key.host.as_str());
            hosts.next() == Some("another-host") && hosts.next().is_none()
        })
        .await;
}

/// Three hosts, of which one has been silent for longer than it is kept: what remains is what the others have.
#[tokio::test]
async fn case_84_what_a_silent_host_had_is_retired_after_its_time() {
    let mut plan = Plan::new(HostId::parse(HOST).expect("legal"), Keep::Memory, None, vec!["127.0.0.1:0".to_owned()]);
    plan.retire.lost = Duration::from_millis(400);
    let gateway = TestGateway::of(plan).await;
    let hosts = ["host-aaaa", "host-bbbb", "host-cccc"];
    let of = |host: &str, phase: Phase| {
        let mut record = fleet::record(0, 0, Role::Node, Timestamp(1));
        record.key.host = HostId::parse(host).expect("legal");
        record.phase = phase;
        RecordChange::Put(Box::new(record))
    };
    let feed = async |changes: Vec<RecordChange>| gateway.feed.send(Report::Feed(changes)).await.expect("it runs");
    feed(hosts.map(|host| of(host, Phase::Healthy)).into()).await;
    let id = "demo-0000";
    let expected = |count: u64| move |plugin: &Value| plugin["NodesExpected"] == count;
    gateway.plugin_until("three are there", id, expected(3)).await;
    feed(vec![of("host-cccc", Phase::Lost)]).await;
    let plugin = gateway.plugin_until("one is silent", id, |plugin| plugin["NodesHealthy"] == 2).await;
    assert_eq!(plugin["NodesExpected"], 3, "and still expected");
    let plugin = gateway.plugin_until("it is given up", id, expected(2)).await;
    assert_eq!(plugin["NodesHealthy"], 2);
    let history = gateway.history(id).await;
    let last = history.last().expect("it changed");
    assert_eq!((&last["Kind"], &last["Host"]), (&"retired".into(), &"host-cccc".into()));
}
