//! Who runs the drivers, as Nomad says: plugin ids, roles, jobs and allocations of a client's sockets (`design.md` section 7).
//!
//! Nomad is a scripted server here; a real one is `tests/nomad.rs`'s.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use csi_gateway::app::{Keep, NomadPlan, Plan};
use csi_gateway::demo::FakeDriver;
use csi_gateway::discovery::{self, Kind, Place};
use csi_gateway::domain::id::HostId;
use csi_gateway::domain::trust::Trust;
use csi_gateway::owner::nomad::Token;
use serde_json::{Value, json};
use support::gateway::{D0, TestGateway, quick};
use support::host::{ALLOCATION, Host};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const NODE: &str = "5f9ba2d0-aaaa-bbbb-cccc-ddddeeeeffff";
const SECRET: &str = "4f5e6d7c-0000-1111-2222-333344445555";
const ID: &str = "ebs-prod";

/// What the scripted server does next.
#[derive(Debug, Clone)]
struct Script {
    index: u64,
    allocations: Value,
    /// Instead of an answer.
    failure: Option<(StatusCode, &'static str)>,
    /// What has to be in the header.
    token: Option<&'static str>,
}

/// A scripted Nomad server: one endpoint, with blocking queries.
struct Nomad {
    script: watch::Sender<Script>,
    asked: Arc<Mutex<Vec<String>>>,
    address: String,
    serving: JoinHandle<()>,
}

impl Nomad {
    async fn start(allocations: Value) -> Self {
        Self::at("127.0.0.1:0", allocations).await
    }

    async fn at(address: &str, allocations: Value) -> Self {
        let (script, scripts) = watch::channel(Script { index: 10, allocations, failure: None, token: None });
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let listener = TcpListener::bind(address).await.expect("a port is free");
        let address = listener.local_addr().expect("bound").to_string();
        let router = Router::new().fallback(answer).with_state((scripts, Arc::clone(&asked)));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
        Self { script, asked, address, serving }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn change(&self, change: impl FnOnce(&mut Script)) {
        self.script.send_modify(change);
    }

    /// Goes away, and leaves the address for whoever comes next.
    async fn away(self) -> String {
        self.serving.abort();
        let _ = self.serving.await;
        self.address
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panicked").clone()
    }
}

type Served = (watch::Receiver<Script>, Arc<Mutex<Vec<String>>>);

async fn answer(State((mut scripts, asked)): State<Served>, request: Request) -> Response<Body> {
    let target = request.uri().to_string();
    asked.lock().expect("nobody panicked").push(target.clone());
    let token = request.headers().get("X-Nomad-Token").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let index: u64 = target
        .split_once("index=")
        .map_or(0, |(_, rest)| rest.split('&').next().and_then(|number| number.parse().ok()).expect("a number"));
    if index > 0 {
        assert!(target.contains("wait=300s"), "{target}");
        let is_news = |script: &Script| script.index != index || script.failure.is_some();
        let _ = tokio::time::timeout(Duration::from_secs(60), scripts.wait_for(is_news)).await;
    }
    let script = scripts.borrow().clone();
    let plain = |status: StatusCode, text: &'static str| {
        Response::builder().status(status).body(Body::from(text)).expect("a response")
    };
    if let Some((status, text)) = script.failure {
        return plain(status, text);
    }
    if script.token.is_some() && script.token != token.as_deref() {
        return plain(StatusCode::FORBIDDEN, "Permission denied");
    }
    if !target.starts_with(&format!("/v1/node/{NODE}/allocations")) {
        return plain(StatusCode::NOT_FOUND, "node not found");
    }
    let body = Body::from(script.allocations.to_string());
    Response::builder().header("X-Nomad-Index", script.index).body(body).expect("a response")
}

/// An allocation as `/v1/node/:id/allocations` shows it, as far as anybody reads it.
fn allocation(id: &str, job: &str, plugin: &str, kind: &str) -> Value {
    json!({
        "ID": id, "Namespace": "storage", "JobID": job, "Name": format!("{job}.csi[0]"), "NodeID": NODE, "NodeName": "n1",
        "TaskGroup": "csi", "ClientStatus": "running", "DesiredStatus": "run", "EvalID": "e1", "CreateIndex": 7,
        "ModifyIndex": 9, "CreateTime": 1_795_455_967_180_267_658_i64, "ModifyTime": 1, "ClientDescription": "<up & running>",
        "TaskStates": {"plugin": {"State": "running"}}, "AllocatedResources": {"Tasks": {}},
        "Job": {
            "ID": job, "Type": "system", "Version": 3, "TaskGroups": [
                {"Name": "other", "Tasks": [{"Name": "x", "CSIPluginConfig": {"ID": "another", "Type": "node"}}]},
                {"Name": "csi", "Tasks": [
                    {"Name": "log", "CSIPluginConfig": null},
                    {"Name": "plugin", "CSIPluginConfig": {"ID": plugin, "Type": kind, "MountDir": "/csi"}},
                ]},
            ],
        },
    })
}

/// A Nomad client's state directory.
fn client() -> Host {
    let host = Host::new();
    support::host::file(&host.nomad("client-id"));
    std::fs::write(host.nomad("client-id"), NODE).expect("can be written");
    std::fs::create_dir_all(host.nomad("csi/plugins").join(ALLOCATION)).expect("can be made");
    host
}

fn plan(host: &Host, nomad: &str, token: Token, keep: Keep) -> Plan {
    let id = HostId::parse(NODE).expect("a legal host id");
    let mut plan = Plan::new(id, keep, Some([].into()), vec!["127.0.0.1:0".to_owned()]);
    plan.fingerprint = quick();
    let directory = host.nomad("");
    plan.discovery =
        discovery::Settings { places: vec![Place { kind: Kind::Nomad, path: directory.clone() }], host_root: None };
    plan.nomad = Some(NomadPlan {
        address: nomad.to_owned(),
        token,
        trust: Trust::default(),
        state_directories: vec![directory],
    });
    plan
}

async fn gateway(host: &Host, nomad: &Nomad) -> TestGateway {
    TestGateway::of(plan(host, &nomad.url(), Token::None, Keep::Memory)).await
}

async fn problem(gateway: &TestGateway, what: &str) -> Value {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let asked = gateway.get("/v1/gateway").await["Orchestrator"].clone();
        let problem = asked["Problem"].as_str().expect("a text").to_owned();
        if if what.is_empty() { problem.is_empty() } else { problem.contains(what) } {
            return asked;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what:?}: {problem}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_allocations_driver_has_the_id_the_role_and_the_job_that_nomad_knows() {
    let host = client();
    let nomad = Nomad::start(json!([allocation(ALLOCATION, "storage-ebs", ID, "controller")])).await;
    // It answers to both, under a name of its own.
    let _driver =
        host.serve(FakeDriver::monolith(D0), &host.nomad("csi/plugins").join(ALLOCATION).join("csi.sock")).await;
    let gateway = gateway(&host, &nomad).await;
    let plugin = gateway.plugin_until("healthy", ID, |plugin| plugin["ControllersHealthy"] == 1).await;
    assert_eq!(plugin["Nodes"], json!({}), "its job takes it for a controller");
    let jobs = json!({"storage": {"storage-ebs": {"Expected": 1, "ID": "storage-ebs", "Namespace": "storage"}}});
    assert_eq!((&plugin["ControllerJobs"], &plugin["NodeJobs"]), (&jobs, &json!({})));
    assert_eq!(plugin["Controllers"][NODE]["AllocID"], ALLOCATION);
    assert_eq!(plugin["Allocations"], Value::Null, "none is in the namespace `default`");
    let shown = gateway.text(&format!("/v1/plugin/csi/{ID}?namespace=storage")).await;
    let stub = concat!(
        r#"{"Allocations":[{"ClientDescription":"<up & running>","ClientStatus":"running","CreateIndex":7,"#,
        r#""CreateTime":1795455967180267658,"DeploymentStatus":null,"DesiredDescription":"","DesiredStatus":"run","#,
        r#""DesiredTransition":{"ForceReschedule":null,"Migrate":null,"MigrateDisablePlacement":null,"#,
        r#""NoShutdownDelay":null,"Reschedule":null},"EvalID":"e1","FollowupEvalID":"","ID":"b1946ac9-2492-d234-7c62-35e5b5a5c0aa","#,
        r#""JobID":"storage-ebs","JobType":"system","JobVersion":3,"ModifyIndex":9,"ModifyTime":1,"Name":"storage-ebs.csi[0]","#,
        r#""Namespace":"storage","NextAllocation":"","NodeID":"5f9ba2d0-aaaa-bbbb-cccc-ddddeeeeffff","NodeName":"n1","#,
        r#""PreemptedAllocations":null,"PreemptedByAllocation":"","RescheduleTracker":null,"TaskGroup":"csi","#,
        r#""TaskStates":{"plugin":{"State":"running"}}}],"#,
    );
    assert!(shown.starts_with(stub), "{shown}");
    let sum = gateway.get(&format!("/v1/gateway/plugin/{ID}")).await;
    assert_eq!(sum["ExpectedSource"], "orchestrator");
    assert_eq!(sum["Controllers"][NODE]["Job"], json!({"ID": "storage-ebs", "Namespace": "storage"}));
    gateway.stop().await;
}

#[tokio::test]
async fn a_stub_that_changes_alone_moves_no_index_and_is_shown() {
    let host = client();
    let nomad = Nomad::start(json!([allocation(ALLOCATION, "j", ID, "node")])).await;
    let _driver = host.serve(FakeDriver::node(D0), &host.nomad("csi/plugins").join(ALLOCATION).join("csi.sock")).await;
    let gateway = gateway(&host, &nomad).await;
    gateway.plugin_until("healthy", ID, |plugin| plugin["NodesHealthy"] == 1).await;
    let before = gateway.indexes();
    nomad.change(|script| {
        script.index = 11;
        script.allocations[0]["ClientStatus"] = "unknown".into();
    });
    let path = format!("{ID}?namespace=*");
    gateway.plugin_until("the new status", &path, |plugin| plugin["Allocations"][0]["ClientStatus"] == "unknown").await;
    assert_eq!(gateway.indexes(), before);
    gateway.stop().await;
}

#[tokio::test]
async fn a_socket_waits_for_its_name_and_is_nobody_until_then() {
    let host = client();
    let nomad = Nomad::start(Value::Null).await;
    let socket = host.nomad("csi/plugins").join(ALLOCATION).join("csi.sock");
    let driver = host.serve(FakeDriver::node(D0), &socket).await;
    let gateway = gateway(&host, &nomad).await;
    let held = gateway.socket_until("it is held back", &socket, |socket| socket["Ignored"] == true).await;
    assert!(held.to_string().contains("Nomad "), "{held}");
    gateway.wait_until("scanned", |_| gateway.reader.standing().is_scanned).await;
    assert_eq!((gateway.list().await, driver.calls(csi_gateway::csi::Rpc::PluginInfo)), (json!([]), 0));
    // It has answered, and says nothing of it: as servers do to a token that may not see its job.
    problem(&gateway, "it says nothing of the allocations of 1 sockets; may the token `read-job`").await;
    assert!(gateway.text("/readyz").await.starts_with("ok\nNomad: it says nothing"));
    nomad.change(|script| {
        script.index = 12;
        script.allocations = json!([allocation(ALLOCATION, "j", ID, "node")]);
    });
    gateway.plugin_until("healthy", ID, |plugin| plugin["NodesHealthy"] == 1).await;
    gateway.socket_until("it is watched", &socket, |socket| socket["Ignored"] == false).await;
    gateway.stop().await;
}

#[tokio::test]
async fn what_a_job_wants_is_expected_before_it_was_ever_healthy() {
    let host = client();
    let nomad = Nomad::start(json!([allocation(ALLOCATION, "j", ID, "monolith")])).await;
    let socket = host.nomad("csi/plugins").join(ALLOCATION).join("csi.sock");
    let driver = host.serve(FakeDriver::monolith(D0), &socket).await;
    driver.vanish().await;
    support::host::file(&socket);
    std::fs::remove_file(&socket).expect("made just now");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("binds"));
    let gateway = gateway(&host, &nomad).await;
    let plugin = gateway.plugin_until("expected", ID, |plugin| plugin["NodesExpected"] == 1).await;
    assert_eq!((&plugin["NodesHealthy"], &plugin["ControllersExpected"]), (&json!(0), &json!(1)));
    assert_eq!(
        (&plugin["Nodes"], &plugin["Controllers"]),
        (&json!({}), &json!({})),
        "as in Nomad, once it was healthy"
    );
    assert_eq!(plugin["NodeJobs"]["storage"]["j"]["Expected"], 1);
    assert_eq!(gateway.list().await[0]["ID"], ID);
    gateway.stop().await;
}

#[tokio::test]
async fn a_nomad_that_is_away_changes_nothing_and_is_said() {
    let host = client();
    let nomad = Nomad::start(json!([allocation(ALLOCATION, "j", ID, "node")])).await;
    let socket = host.nomad("csi/plugins").join(ALLOCATION).join("csi.sock");
    let _driver = host.serve(FakeDriver::node(D0), &socket).await;
    let gateway = gateway(&host, &nomad).await;
    gateway.plugin_until("healthy", ID, |plugin| plugin["NodesHealthy"] == 1).await;
    assert_eq!(problem(&gateway, "").await["Allocations"], 1);
    assert!(gateway.text("/metrics").await.contains("csi_gateway_orchestrator_up 1\n"));

    nomad.change(|script| script.failure = Some((StatusCode::INTERNAL_SERVER_ERROR, "No cluster leader")));
    problem(&gateway, "No cluster leader").await;
    assert!(gateway.text("/readyz").await.contains("\nNomad: Nomad answered 500 Internal Server Error"));
    assert!(gateway.text("/metrics").await.contains("csi_gateway_orchestrator_up 0\n"));
    let path = format!("{ID}?namespace=*");
    let plugin = gateway.plugin(&path).await.expect("it is known");
    assert_eq!((&plugin["NodesHealthy"], &plugin["Allocations"][0]["ID"]), (&json!(1), &json!(ALLOCATION)));

    // Another server, restored from a backup: its index is smaller, and its answer counts all the same.
    let address = nomad.away().await;
    problem(&gateway, "refused").await;
    let restored = Nomad::at(&address, json!([allocation(ALLOCATION, "j", ID, "node")])).await;
    restored.change(|script| {
        script.index = 3;
        script.allocations[0]["ClientStatus"] = "restored".into();
    });
    gateway.plugin_until("what it says", &path, |plugin| plugin["Allocations"][0]["ClientStatus"] == "restored").await;
    problem(&gateway, "").await;
    restored.change(|script| {
        script.index = 1;
        script.allocations[0]["ClientStatus"] = "older".into();
    });
    gateway
        .plugin_until("an index that falls", &path, |plugin| plugin["Allocations"][0]["ClientStatus"] == "older")
        .await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_gateway_that_starts_while_nomad_is_away_knows_whose_its_sockets_are() {
    let host = client();
    let state = tempfile::TempDir::new().expect("a scratch directory");
    let keep = || Keep::In(state.path().to_owned());
    let nomad = Nomad::start(json!([allocation(ALLOCATION, "j", ID, "monolith")])).await;
    let socket = host.nomad("csi/plugins").join(ALLOCATION).join("csi.sock");
    let _driver = host.serve(FakeDriver::monolith(D0), &socket).await;
    let first = TestGateway::of(plan(&host, &nomad.url(), Token::None, keep())).await;
    first.plugin_until("healthy", ID, |plugin| plugin["NodesHealthy"] == 1 && plugin["ControllersHealthy"] == 1).await;
    first.stop().await;
    let url = format!("http://{}", nomad.away().await);
    let second = TestGateway::of(plan(&host, &url, Token::None, keep())).await;
    second.wait_until("scanned", |_| second.reader.standing().is_scanned).await;
    let plugin = second.plugin(ID).await.expect("it is known");
    assert_eq!((&plugin["NodesHealthy"], &plugin["ControllersHealthy"]), (&json!(1), &json!(1)));
    assert_eq!(plugin["ControllerJobs"]["storage"]["j"]["Expected"], 1);
    assert_eq!(second.list().await.as_array().expect("a list").len(), 1);
    second.stop().await;
}

#[tokio::test]
async fn what_was_known_before_nomad_was_asked_stays_while_it_is_away() {
    let host = client();
    let state = tempfile::TempDir::new().expect("a scratch directory");
    let keep = || Keep::In(state.path().to_owned());
    let socket = host.nomad("csi/plugins").join(ALLOCATION).join("csi.sock");
    let _driver = host.serve(FakeDriver::monolith(D0), &socket).await;
    let nobody = Nomad::start(Value::Null).await.away().await;
    let mut before = plan(&host, "", Token::None, keep());
    before.nomad = None;
    let first = TestGateway::of(before).await;
    first.plugin_until("healthy", D0, |plugin| plugin["NodesHealthy"] == 1 && plugin["ControllersHealthy"] == 1).await;
    first.stop().await;
    let second = TestGateway::of(plan(&host, &format!("http://{nobody}"), Token::None, keep())).await;
    second.wait_until("scanned", |_| second.reader.standing().is_scanned).await;
    problem(&second, "is a Nomad server or client running there?").await;
    let plugin = second.plugin(D0).await.expect("it is known");
    assert_eq!((&plugin["NodesHealthy"], &plugin["ControllersHealthy"]), (&json!(1), &json!(1)));
    second.stop().await;
}

#[tokio::test]
async fn a_server_that_does_not_wait_is_not_asked_all_the_time() {
    let host = client();
    let nomad = Nomad::start(json!([])).await;
    nomad.change(|script| script.index = 0);
    let gateway = gateway(&host, &nomad).await;
    problem(&gateway, "").await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!((2..=4).contains(&nomad.asked().len()), "{:?}", nomad.asked());
    gateway.stop().await;
}

#[tokio::test]
async fn a_tokens_file_is_read_again_and_its_secret_is_nowhere() {
    let host = client();
    let nomad = Nomad::start(json!([allocation(ALLOCATION, "j", ID, "node")])).await;
    nomad.change(|script| script.token = Some(SECRET));
    let socket = host.nomad("csi/plugins").join(ALLOCATION).join("csi.sock");
    let _driver = host.serve(FakeDriver::node(D0), &socket).await;
    let file = host.at("token");
    std::fs::write(&file, "deadbeef-of-yesterday\n").expect("can be written");
    let token = Token::File(file.clone());
    let gateway = TestGateway::of(plan(&host, &nomad.url(), token, Keep::Memory)).await;
    let asked = problem(&gateway, "403 Forbidden").await;
    assert!(asked["Problem"].as_str().expect("text").contains("`read-job`"), "{asked}");
    assert!(!asked.to_string().contains("deadbeef"));
    std::fs::write(&file, format!("{SECRET}\n")).expect("can be written");
    gateway.plugin_until("healthy", ID, |plugin| plugin["NodesHealthy"] == 1).await;
    assert!(!gateway.text("/v1/gateway").await.contains(SECRET));
    assert_eq!(format!("{:?}", Token::Secret(SECRET.into())), "Secret(…)");
    std::fs::write(&file, "two\nlines").expect("can be written");
    nomad.change(|script| script.index = 20);
    problem(&gateway, "holds no token").await;
    std::fs::remove_file(&file).expect("it is there");
    problem(&gateway, "the token cannot be read").await;
    assert!(nomad.asked().iter().all(|target| !target.contains(SECRET)));
    gateway.stop().await;
}

#[tokio::test]
async fn answers_that_are_none_are_said_and_change_nothing() {
    let host = client();
    let nomad = Nomad::start(json!([allocation(ALLOCATION, "j", ID, "node")])).await;
    let socket = host.nomad("csi/plugins").join(ALLOCATION).join("csi.sock");
    let _driver = host.serve(FakeDriver::node(D0), &socket).await;
    let gateway = gateway(&host, &nomad).await;
    gateway.plugin_until("healthy", ID, |plugin| plugin["NodesHealthy"] == 1).await;
    for (index, garbage) in [(30, json!({"ID": 1})), (31, json!([{"ID": "no-more"}])), (32, json!([[[[]]]]))] {
        nomad.change(|script| (script.index, script.allocations) = (index, garbage));
        problem(&gateway, "not what its API describes").await;
    }
    let path = format!("{ID}?namespace=*");
    let plugin = gateway.plugin(&path).await.expect("it is known");
    assert_eq!((&plugin["NodesHealthy"], &plugin["Allocations"][0]["ID"]), (&json!(1), &json!(ALLOCATION)));
    std::fs::remove_file(host.nomad("client-id")).expect("it is there");
    problem(&gateway, "`client-id`").await;
    gateway.stop().await;
}
