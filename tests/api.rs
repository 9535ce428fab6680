//! The API as its clients see it: golden bodies, our own endpoints, and what only a real connection shows. Nomad's
//! conformance cases are in `conformance.rs`.

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use csi_gateway::api::server::{BindError, Listener, serve};
use csi_gateway::api::wire::nomad::{ListStub, ReadPlugin};
use csi_gateway::api::{ReadShape, Settings};
use csi_gateway::domain::catalog::RecordChange;
use csi_gateway::domain::history::{Change, Transition};
use csi_gateway::domain::id::Role;
use csi_gateway::domain::record::{Phase, Reason, Record};
use csi_gateway::domain::socket::SocketStatus;
use csi_gateway::domain::time::{Index, Timestamp};
use csi_gateway::domain::topology::Topology;
use csi_gateway::registry::reader::{Durability, Standing};
use csi_gateway::ui::FILES;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use support::client::{
    JSON, Lines, Served, T, assert_between, assert_not_found, assert_text, call, get, head_of, ids, meanwhile, send,
    timed, until, within,
};
use support::fixture::{Fixture, SOME_TIME, controller, node, plugin_id, put, unhealthy};
use support::schema::Description;

#[tokio::test(start_paused = true)]
async fn a_plugin_deleted_while_it_is_read_is_a_404_at_the_limit_or_itself_when_it_is_back() {
    let fixture = Fixture::conformance();
    let remove = || RecordChange::Remove(node("ebs-prod-2", "host-0001").key);
    let wait = get(&fixture, "/v1/plugin/csi/ebs-prod-2?index=103&wait=4s");
    let (answer, took) = meanwhile(wait, 1.0, || fixture.apply_at(104, [remove()])).await;
    assert_not_found("deleted", &answer);
    assert_between("deleted", took, 4.0, 4.26);

    fixture.apply_at(105, [put(node("ebs-prod-2", "host-0001"))]);
    let wait = get(&fixture, "/v1/plugin/csi/ebs-prod-2?index=105&wait=60s");
    let gone_and_back = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        fixture.apply_at(106, [remove()]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        fixture.apply_at(107, [put(node("ebs-prod-2", "host-0001"))]);
    };
    let ((answer, took), ()) = tokio::join!(timed(wait), gone_and_back);
    assert_eq!((answer.status, answer.index()), (StatusCode::OK, Some(107)));
    assert_eq!(answer.json()["CreateIndex"], 107);
    assert_between("back", took, 2.0, 2.01);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_answers_those_who_wait() {
    let fixture = Fixture::conformance();
    let list = get(&fixture, "/v1/plugins?type=csi").await;
    let waits = async {
        tokio::join!(
            get(&fixture, "/v1/plugins?type=csi&index=103"),
            get(&fixture, "/v1/plugin/csi/missing?index=103"),
            get(&fixture, "/v1/gateway?index=103"),
        )
    };
    let ((one, two, three), took) = meanwhile(waits, 1.0, || fixture.shutdown.cancel()).await;
    assert_eq!(one, list);
    assert_not_found("at shutdown", &two);
    assert_eq!(three.index(), Some(T));
    assert_between("at shutdown", took, 1.0, 1.01);
}

#[tokio::test]
async fn a_driver_s_topology_has_three_states() {
    let fixture = Fixture::empty(Settings::default());
    let with = |host: &str, topology: Option<Topology>| {
        let mut record = node("nfs", host);
        let fingerprint = record.fingerprint.as_mut().expect("a node with a fingerprint");
        fingerprint.node.as_mut().expect("a node's facts").topology = topology;
        put(record)
    };
    let segments = [("z", "2"), ("a", "1")].into_iter().collect();
    fixture.apply([
        with("host-none", None),
        with("host-null", Some(Topology { segments: None })),
        with("host-some", Some(Topology { segments: Some(segments) })),
    ]);
    let nodes = get(&fixture, "/v1/plugin/csi/nfs").await.json()["Nodes"].clone();
    let shown = |host: &str| nodes[host]["NodeInfo"]["AccessibleTopology"].clone();
    assert_eq!(shown("host-none"), Value::Null);
    assert_eq!(shown("host-null"), json!({ "Segments": null }));
    assert_eq!(shown("host-some"), json!({ "Segments": { "a": "1", "z": "2" } }));
    let nodes = get(&fixture, "/v1/plugin/csi/nfs?shape=documented").await.json()[0]["Nodes"].clone();
    let shown = |host: &str| nodes[host]["NodeInfo"]["AccessibleTopology"].clone();
    assert_eq!(shown("host-none"), Value::Null);
    assert_eq!(shown("host-null"), json!({}));
    assert_eq!(shown("host-some"), json!({ "a": "1", "z": "2" }));
}

fn golden(name: &str, body: &str) {
    insta::with_settings!(
        { snapshot_path => "golden", prepend_module_to_snapshot => false, omit_expression => true },
        { insta::assert_snapshot!(name, body) }
    );
}

#[tokio::test]
async fn bodies_are_golden() {
    let fixture = Fixture::conformance();
    fixture.sockets.put(std::path::Path::new("/run/csi/nfs.sock").into(), socket());
    *fixture.history.0.lock().expect("not poisoned") = transitions();
    for (name, target) in [
        ("list", "/v1/plugins?type=csi"),
        ("list_pretty", "/v1/plugins?type=csi&pretty"),
        ("read", "/v1/plugin/csi/ebs-prod"),
        ("read_pretty", "/v1/plugin/csi/ebs-prod?pretty"),
        ("read_documented", "/v1/plugin/csi/ebs-prod?shape=documented&pretty"),
        ("gateway_plugins", "/v1/gateway/plugins?pretty"),
        ("gateway_plugin", "/v1/gateway/plugin/ebs-prod?pretty"),
        ("gateway_plugin_nfs", "/v1/gateway/plugin/nfs?pretty"),
        ("gateway_hosts", "/v1/gateway/hosts?pretty"),
        ("gateway_sockets", "/v1/gateway/sockets?pretty"),
        ("gateway_history", "/v1/gateway/history?pretty"),
    ] {
        let answer = get(&fixture, target).await;
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, JSON), "{target}");
        assert_eq!(answer.meta(), [Some("103"), Some("true"), Some("0")], "{target}");
        golden(name, &answer.body);
    }
}

/// The history endpoint showed what the store had taken in and not yet written; a kill took it back.
#[tokio::test]
async fn a_change_is_in_history_no_sooner_than_in_the_catalog() {
    let fixture = Fixture::conformance();
    let next = Transition { index: Index(104), ..transitions().remove(0) };
    fixture.history.0.lock().expect("not poisoned").push(next);
    assert_eq!(get(&fixture, "/v1/gateway/history").await.body, "[]");
    fixture.apply([put(node("nfs", "host-0003"))]);
    let shown: Value = serde_json::from_str(&get(&fixture, "/v1/gateway/history").await.body).expect("JSON");
    assert_eq!(shown[0]["Index"], 104);
}

fn socket() -> SocketStatus {
    SocketStatus {
        path: "/run/csi/nfs.sock".into(),
        phase: Phase::Healthy,
        role: "auto".into(),
        source: "address".into(),
        device: Some(64),
        inode: Some(4711),
        pid: Some(42),
        provider: Some("nfs.csi.example.com".into()),
        plugin: Some(plugin_id("nfs")),
        roles: vec![Role::Node],
        reason: Box::default(),
        is_ignored: false,
        last_probe_time: Some(Timestamp(SOME_TIME.0 + 1_000_000_000)),
        last_ok_time: Some(SOME_TIME),
        last_poll: Some(Duration::from_millis(12)),
    }
}

fn transitions() -> Vec<Transition> {
    let of = |index: u64, change: Change| Transition {
        at: SOME_TIME,
        index: Index(index),
        key: node("nfs", "host-0001").key,
        change,
        reason: Reason::plain("healthy"),
    };
    let topology = Topology { segments: Some([("zone", "z1")].into_iter().collect()) };
    vec![
        Transition { key: controller("ebs-prod", "host-0001").key, ..of(9, Change::Retired) },
        of(8, Change::Identity { from: "a".into(), to: "b".into() }),
        of(7, Change::NodeId { from: "n1".into(), to: "n2".into() }),
        of(6, Change::Topology { from: None, to: Some(topology) }),
        of(5, Change::Capabilities { gained: vec!["LIST_VOLUMES".into()], lost: vec!["controller:99".into()] }),
        of(4, Change::Version { from: "1".into(), to: "2".into() }),
        of(3, Change::Reason),
        of(2, Change::Phase { from: Phase::Starting, to: Phase::Healthy }),
        of(1, Change::Appeared { to: Phase::Starting }),
    ]
}

#[tokio::test]
async fn a_body_is_made_anew_when_its_plugin_changes_and_only_then() {
    let fixture = Fixture::conformance();
    let before = get(&fixture, "/v1/plugin/csi/nfs").await;
    assert_eq!(get(&fixture, "/v1/plugin/csi/nfs").await, before);
    fixture.apply([put(unhealthy(node("nfs", "host-0002")))]);
    let after = get(&fixture, "/v1/plugin/csi/nfs").await.json();
    assert_eq!((&after["NodesHealthy"], &after["ModifyIndex"]), (&json!(1), &json!(104)));
    assert_eq!(after["Nodes"]["host-0001"], before.json()["Nodes"]["host-0001"]);
    assert_eq!(after["Nodes"]["host-0002"]["Healthy"], false);
    let list = get(&fixture, "/v1/plugins?type=csi").await;
    assert_eq!((&list.json()[2]["NodesHealthy"], list.index()), (&json!(1), Some(104)));
}

#[tokio::test]
async fn nomad_s_own_types_read_our_bodies() {
    let fixture = Fixture::conformance();
    let list = get(&fixture, "/v1/plugins?type=csi").await.body;
    let stubs: Vec<nomad_api_types::CsiPluginListStub> = serde_json::from_str(&list).expect("Nomad's list");
    assert_eq!(stubs[0].id, "ebs-prod");
    assert_eq!((stubs[0].controllers_expected, stubs[0].nodes_healthy, stubs[0].modify_index), (2, 3, 102));
    let ours: Vec<ListStub<'_>> = serde_json::from_str(&list).expect("our list");
    assert_eq!((&*ours[0].id, ours[0].nodes_healthy), ("ebs-prod", 3));

    let read = get(&fixture, "/v1/plugin/csi/ebs-prod").await.body;
    let plugin: nomad_api_types::CsiPlugin = serde_json::from_str(&read).expect("Nomad's plugin");
    assert!(plugin.controller_required);
    assert_eq!((plugin.controllers_healthy, plugin.nodes_healthy), (1, 3));
    let info = plugin.controllers["host-0001"].controller_info.as_ref().expect("a controller");
    assert!(info.supports_attach_detach && info.supports_list_volumes && !info.supports_clone);
    let info = plugin.nodes["host-0003"].node_info.as_ref().expect("a node");
    assert_eq!((&*info.id, info.max_volumes), ("csi-host-0003", i64::MAX));
    let topology = info.accessible_topology.as_ref().expect("a topology");
    assert_eq!(topology.segments["topology.example.com/zone"], "z1");
    // What commands read with is what the server writes.
    let ours: ReadPlugin = serde_json::from_str(&read).expect("our plugin");
    assert_eq!((ours.controllers.len(), ours.nodes.len(), &*ours.version), (2, 3, "1.2.3"));
    assert_eq!(ours.create_time, SOME_TIME.0);
    let record = serde_json::to_value(&ours.nodes["host-0003"]).expect("plain data");
    assert_eq!(record, serde_json::from_str::<Value>(&read).expect("JSON")["Nodes"]["host-0003"]);
}

#[tokio::test]
async fn the_documented_shape_can_be_everybody_s() {
    let settings = Settings { read_shape: ReadShape::Documented, ..Settings::default() };
    let fixture = Fixture::conformance_with(settings);
    let page = get(&fixture, "/v1/plugin/csi/ebs-prod").await;
    assert_eq!(page.json()[0]["ControllersRequired"], true);
    assert_eq!(page.json()[0].get("ControllerRequired"), None);
    assert_eq!(page, get(&Fixture::conformance(), "/v1/plugin/csi/ebs-prod?shape=documented").await);
    let servers = get(&fixture, "/v1/plugin/csi/ebs-prod?shape=nomad").await;
    assert_eq!(servers, get(&Fixture::conformance(), "/v1/plugin/csi/ebs-prod?shape=whatever").await);
    assert_not_found("documented", &get(&fixture, "/v1/plugin/csi/missing").await);
}

#[tokio::test]
async fn instances_that_do_not_count_are_shown_by_the_gateway_alone() {
    let fixture = Fixture::conformance();
    let new = Record { was_healthy: false, phase: Phase::Starting, ..node("fresh", "host-0009") };
    let index = fixture.apply([put(new)]);
    let list = get(&fixture, "/v1/plugins?type=csi").await;
    assert_eq!((ids(&list).len(), list.index()), (3, Some(T)));
    assert_not_found("does not count", &get(&fixture, "/v1/plugin/csi/fresh").await);
    let all = get(&fixture, "/v1/gateway/plugins").await;
    assert_eq!(
        (ids(&all), all.index()),
        (["ebs-prod", "ebs-prod-2", "fresh", "nfs"].map(str::to_owned).into(), Some(index))
    );
    assert_eq!(ids(&get(&fixture, "/v1/gateway/plugins?prefix=fr").await), ["fresh"]);
    let fresh = get(&fixture, "/v1/gateway/plugin/fresh").await.json();
    assert_eq!(fresh["Counts"], false);
    assert_eq!(fresh["Phases"], json!({ "starting": 1 }));
    assert_eq!(fresh["Nodes"]["host-0009"]["Counts"], false);
    assert_eq!(fresh["Nodes"]["host-0009"]["Phase"], "starting");
    let hosts = get(&fixture, "/v1/gateway/hosts").await.json();
    assert_eq!(hosts.as_array().expect("an array").last().expect("hosts")["ID"], "host-0009");
}

#[tokio::test(start_paused = true)]
async fn the_gateway_s_own_endpoints_wait_for_whatever_they_can_show() {
    let fixture = Fixture::conformance();
    let new = || put(Record { was_healthy: false, phase: Phase::Starting, ..node("fresh", "host-0009") });
    let wait = get(&fixture, "/v1/gateway/plugins?index=103&wait=10s");
    let (answer, took) = meanwhile(wait, 1.0, || fixture.apply_at(104, [new()])).await;
    assert_eq!(answer.index(), Some(104));
    assert_between("gateway", took, 1.0, 1.01);
    let (_, took) = timed(get(&fixture, "/v1/gateway/history?index=104&wait=1s")).await;
    assert_between("gateway", took, 1.0, 1.07);
    let list = get(&fixture, "/v1/plugins?type=csi&index=103&wait=2s");
    let (answer, took) =
        meanwhile(list, 1.0, || fixture.apply_at(105, [RecordChange::Remove(node("fresh", "host-0009").key)])).await;
    assert_eq!(answer.index(), Some(103), "Nomad's shape shows nothing of it");
    assert_between("list", took, 2.0, 2.13);
}

#[tokio::test]
async fn the_gateway_tells_of_itself_and_fails_in_nomad_s_manner() {
    let fixture = Fixture::conformance();
    let gateway = get(&fixture, "/v1/gateway").await.json();
    assert_eq!((&gateway["Index"], &gateway["NomadIndex"]), (&json!(103), &json!(103)));
    assert_eq!((&gateway["Plugins"], &gateway["Instances"]), (&json!(3), &json!(8)));
    assert_eq!((&gateway["Durability"], &gateway["Scanned"]), (&json!("memory"), &json!(true)));
    assert_eq!((&gateway["Role"], &gateway["Version"]), (&json!("standalone"), &json!(env!("CARGO_PKG_VERSION"))));

    *fixture.history.0.lock().expect("not poisoned") = transitions();
    let history =
        |target: &'static str| async { get(&fixture, target).await.json().as_array().expect("an array").len() };
    assert_eq!(history("/v1/gateway/history").await, 9);
    assert_eq!(history("/v1/gateway/history?limit=2").await, 2);
    assert_eq!(history("/v1/gateway/history?plugin=ebs-prod").await, 1);
    for (target, status, text) in [
        ("/v1/gateway/history?limit=0", 400, "Expect a positive number for `limit` query string parameter"),
        ("/v1/gateway/history?limit=x", 400, "Expect a positive number for `limit` query string parameter"),
        ("/v1/gateway/history?plugin=a/b", 400, "Expect a plugin ID for `plugin` query string parameter"),
        ("/v1/gateway/history?plugin=fails", 500, "internal error"),
        ("/v1/gateway/plugins?index=abc", 400, "Invalid index"),
        ("/v1/gateway/plugin/", 500, "missing plugin ID"),
        ("/v1/gateway/plugin/a/b/c", 404, "resource not found"),
        ("/v1/gateway/plugins/", 404, ""),
    ] {
        assert_text(target, &get(&fixture, target).await, status, text);
    }
    let missing = get(&fixture, "/v1/gateway/plugin/missing").await;
    assert_eq!((missing.status.as_u16(), &*missing.body), (404, "plugin not found"));
    assert_text("POST", &call(&fixture, Method::POST, "/v1/gateway").await, 405, "Invalid method");
}

#[tokio::test]
async fn readiness_waits_for_the_first_scan_and_for_nothing_else() {
    let fixture = Fixture::conformance();
    let unscanned = fixture.standing.borrow().clone();
    fixture.standing.send_replace(Standing { is_scanned: false, ..unscanned.clone() });
    assert_text("/readyz", &get(&fixture, "/readyz").await, 500, "the first scan is not complete");
    for path in ["/livez", "/healthz"] {
        assert_text(path, &get(&fixture, path).await, 200, "ok");
    }
    let list = get(&fixture, "/v1/plugins?type=csi").await;
    assert_eq!(list.header("x-nomad-knownleader"), Some("false"));
    assert!(list.header("x-nomad-lastcontact").is_some_and(|millis| millis.parse::<u64>().is_ok()));
    let durability = Durability::NotDurable("No space left on device".into());
    fixture.standing.send_replace(Standing { durability, ..unscanned });
    let ready = get(&fixture, "/readyz").await;
    assert_text("/readyz", &ready, 200, "ok\nnot durable: No space left on device");
    let head = call(&fixture, Method::HEAD, "/livez").await;
    assert_eq!((head.status, &*head.body), (StatusCode::OK, ""));
    assert_text("POST", &call(&fixture, Method::POST, "/livez").await, 405, "Invalid method");
}

#[tokio::test]
async fn headers_are_written_as_go_writes_them() {
    let served = Served::start().await;
    let answer =
        served.raw(b"GET /v1/plugins?type=csi&prefix=zzz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let (status, headers) = head_of(&answer);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(
        headers,
        BTreeSet::from([
            "Connection: close",
            "Content-Length: 2",
            "Content-Type: application/json",
            "Vary: Accept-Encoding",
            "X-Nomad-Index: 103",
            "X-Nomad-Knownleader: true",
            "X-Nomad-Lastcontact: 0",
        ])
    );
    assert!(answer.contains("\r\nDate: "));
    let answer = served.raw(b"GET /v1/plugins?type=host HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let (_, headers) = head_of(&answer);
    assert_eq!(headers, BTreeSet::from(["Connection: close", "Content-Length: 0", "Vary: Accept-Encoding"]));
    let answer = served.raw(b"HEAD /v1/plugins HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let (status, headers) = head_of(&answer);
    assert_eq!(status, "HTTP/1.1 405 Method Not Allowed");
    assert!(headers.contains("Content-Length: 14"), "{headers:?}");
    assert!(answer.ends_with("\r\n\r\n"));
}

#[tokio::test]
async fn odd_request_lines_get_an_answer() {
    let served = Served::start().await;
    let long = format!("/v1/plugin/csi/{}", "x".repeat(12_000));
    let endless = format!("/v1/plugin/csi/{}", "x".repeat(300_000));
    for (target, status) in [
        ("//v1/plugins?type=csi", "HTTP/1.1 307"),
        ("/v1/plugin/csi/%zz", "HTTP/1.1 400"),
        ("/v1/plugin/csi/gr\u{f6}\u{df}e", "HTTP/1.1 404"),
        ("http://elsewhere/v1/plugins", "HTTP/1.1 200"),
        (&long, "HTTP/1.1 404"),
        (&endless, "HTTP/1.1 4"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut stream = served.connect().await;
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = [0; 12];
        within(stream.read_exact(&mut answer)).await.expect("an answer");
        assert!(answer.starts_with(status.as_bytes()), "{}", String::from_utf8_lossy(&answer));
    }
    let answer = served.raw(b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(head_of(&answer).0, "HTTP/1.1 200 OK");
    let answer = served.raw(b"GET /livez HTTP/1.0\r\n\r\n").await;
    assert_eq!(head_of(&answer).0, "HTTP/1.0 200 OK");
    let answer = served.raw(b"\x16\x03\x01 this is no HTTP\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    // A body sent with GET is ignored, and what follows it is a request.
    let two = b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(served.raw(two).await.matches("HTTP/1.1 200 OK").count(), 2);
}

#[tokio::test]
async fn a_panic_is_a_500_for_its_request_and_the_connection_goes_on() {
    let served = Served::start().await;
    let answer = served
        .raw(
            b"GET /v1/gateway/history?plugin=panics HTTP/1.1\r\nHost: x\r\n\r\n\
              GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    assert!(answer.contains("internal error"), "{answer}");
    assert!(answer.contains("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn the_gateway_s_plugins_are_filtered_and_come_in_pages() {
    let fixture = Fixture::conformance();
    fixture.apply([
        put(Record { was_healthy: false, phase: Phase::Starting, ..node("fresh", "host-0009") }),
        put(unhealthy(node("ebs-prod-2", "host-0001"))),
    ]);
    for (query, wanted) in [
        ("", &["ebs-prod", "ebs-prod-2", "fresh", "nfs"][..]),
        ("health=healthy", &["nfs"]),
        ("health=degraded", &["ebs-prod"]),
        ("health=unhealthy", &["ebs-prod-2", "fresh"]),
        ("host=host-0002", &["ebs-prod", "nfs"]),
        ("host=host-0009", &["fresh"]),
        ("host=elsewhere", &[]),
        ("provider=ebs-prod.csi.example.com", &["ebs-prod", "ebs-prod-2"]),
        ("prefix=ebs", &["ebs-prod", "ebs-prod-2"]),
        ("prefix=n%C3", &[]),
        ("prefix=ebs&health=unhealthy&host=host-0001", &["ebs-prod-2"]),
        ("health=&host=&provider=&prefix=&per_page=0", &["ebs-prod", "ebs-prod-2", "fresh", "nfs"]),
        ("per_page=-1", &["ebs-prod", "ebs-prod-2", "fresh", "nfs"]),
    ] {
        let answer = get(&fixture, &format!("/v1/gateway/plugins?{query}")).await;
        assert_eq!(ids(&answer), wanted, "{query}");
        assert_eq!(answer.header("x-nomad-nexttoken"), None, "{query}");
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = get(&fixture, &format!("/v1/gateway/plugins?per_page=3&next_token={token}")).await;
        assert!(ids(&page).len() <= 3);
        seen.extend(ids(&page));
        match page.header("x-nomad-nexttoken") {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["ebs-prod", "ebs-prod-2", "fresh", "nfs"]);
    for (query, text) in [
        ("health=ill", "Expect `healthy`, `degraded` or `unhealthy` for `health` query string parameter"),
        ("host=a/b", "Expect a host ID for `host` query string parameter"),
        ("per_page=x", "Expect a number for `per_page` query string parameter"),
    ] {
        assert_text(query, &get(&fixture, &format!("/v1/gateway/plugins?{query}")).await, 400, text);
    }
}

#[tokio::test]
async fn streams_end_with_their_readers() {
    let served = Served::start().await;
    let mut readers = Vec::new();
    for target in ["/v1/event/stream", "/v1/gateway/stream"] {
        let mut stream = served.connect().await;
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        readers.push(stream);
    }
    until("both wait for changes", || served.fixture.waiters.subjects() == 1).await;
    readers.remove(0);
    readers.remove(0);
    until("nobody waits", || served.fixture.waiters.subjects() == 0).await;
}

/// Index of a line of events, and the ids of its events.
fn events_of(line: &Value) -> (u64, Vec<&str>) {
    let events = line["Events"].as_array().expect("events");
    let ids = events.iter().map(|event| {
        assert_eq!((&event["Topic"], &event["Namespace"]), (&json!("CSIPlugin"), &json!("")));
        assert_eq!((&event["Index"], &event["FilterKeys"]), (&line["Index"], &json!([event["Key"]])));
        assert_eq!(event["Payload"]["Plugin"]["ID"], event["Key"]);
        event["Key"].as_str().expect("text")
    });
    (line["Index"].as_u64().expect("a number"), ids.collect())
}

#[tokio::test(start_paused = true)]
async fn the_event_stream_has_nomad_s_frame() {
    let fixture = Fixture::conformance();
    let mut stream = Lines::of(&fixture, "/v1/event/stream?topic=CSIPlugin").await;
    let header = |name: &str| stream.headers.get(name).map(|value| value.to_str().expect("ASCII").to_owned());
    assert_eq!(header("content-type").as_deref(), JSON);
    assert_eq!(header("cache-control").as_deref(), Some("no-cache"));
    assert_eq!(header("connection").as_deref(), Some("close"));
    assert_eq!(header("content-encoding"), None, "it is never compressed");
    assert_eq!(stream.next().await.as_deref(), Some("{}"), "at once");
    let line = stream.next().await.expect("a line");
    let read = get(&fixture, "/v1/plugin/csi/nfs").await.body;
    assert_eq!(
        line,
        format!(
            r#"{{"Events":[{{"FilterKeys":["nfs"],"Index":101,"Key":"nfs","Namespace":"","Payload":{{"Plugin":{read}}},"Topic":"CSIPlugin","Type":"NodeRegistration"}}],"Index":101}}"#
        )
    );
    assert_eq!(events_of(&stream.json().await), (102, vec!["ebs-prod"]));
    assert_eq!(events_of(&stream.json().await), (103, vec!["ebs-prod-2"]));
    let (beat, took) = timed(stream.next()).await;
    assert_eq!(beat.as_deref(), Some("{}"));
    assert_between("heartbeat", took, 29.9, 30.1);

    // What only the gateway shows is no event; one batch is one line, a deletion carries the last state.
    fixture.apply([put(Record { was_healthy: false, phase: Phase::Starting, ..node("fresh", "host-0009") })]);
    let remove = RecordChange::Remove(node("ebs-prod-2", "host-0001").key);
    let index = fixture.apply([put(node("nfs", "host-0003")), remove]);
    let line = stream.json().await;
    assert_eq!(events_of(&line), (index, vec!["ebs-prod-2", "nfs"]));
    assert_eq!(line["Events"][0]["Type"], "NodeDeregistration");
    assert_eq!(line["Events"][0]["Payload"]["Plugin"]["NodesHealthy"], 1);
    assert_eq!(line["Events"][1]["Type"], "NodeRegistration");
    assert_eq!(line["Events"][1]["Payload"]["Plugin"]["NodesHealthy"], 3);
    fixture.shutdown.cancel();
    assert_eq!(stream.next().await, None, "it ends with the gateway");
}

#[tokio::test(start_paused = true)]
async fn the_event_stream_begins_where_it_is_asked_to_and_is_filtered() {
    let fixture = Fixture::conformance();
    for (query, indexes) in [
        ("", &[101, 102, 103][..]),
        ("?index=0", &[101, 102, 103]),
        ("?index=1", &[101, 102, 103]),
        ("?index=102", &[102, 103]),
        ("?index=103", &[103]),
        ("?index=104", &[103]),
        ("?index=-1", &[103]),
        ("?index=1000000", &[103]),
        ("?topic=*", &[101, 102, 103]),
        ("?topic=CSIPlugin:nfs", &[101]),
        ("?topic=CSIPlugin:nfs&topic=CSIPlugin:ebs-prod", &[101, 102]),
        ("?topic=CSIPlugin:ebs", &[]),
        ("?topic=Node", &[]),
        ("?topic=Node&topic=*:nfs&index=102&namespace=*", &[]),
    ] {
        let mut stream = Lines::of(&fixture, &format!("/v1/event/stream{query}")).await;
        assert_eq!(stream.next().await.as_deref(), Some("{}"), "{query}");
        for index in indexes {
            assert_eq!(stream.json().await["Index"], *index, "{query}");
        }
        assert_eq!(timed(stream.next()).await.0.as_deref(), Some("{}"), "{query}: and then nothing");
    }
    for (target, status, text) in [
        ("?index=abc", 400, r#"Unable to parse index: strconv.Atoi: parsing "abc": invalid syntax"#),
        (
            "?index=9223372036854775808",
            400,
            "Unable to parse index: strconv.Atoi: parsing \"9223372036854775808\": value out of range",
        ),
        (
            "?topic=a:b:c",
            400,
            "Invalid topic query: error parsing topics: Invalid key value pair for topic, topic: a:b:c",
        ),
        ("?region=mars", 500, "No path to region"),
    ] {
        assert_text(target, &get(&fixture, &format!("/v1/event/stream{target}")).await, status, text);
    }
    assert_text("POST", &call(&fixture, Method::POST, "/v1/event/stream").await, 405, "Invalid method");
}

#[tokio::test(start_paused = true)]
async fn our_stream_begins_with_the_present_state_and_goes_on_with_every_change() {
    let fixture = Fixture::conformance();
    fixture.apply([put(Record { was_healthy: false, phase: Phase::Starting, ..node("fresh", "host-0009") })]);
    let mut stream = Lines::of(&fixture, "/v1/gateway/stream").await;
    let content_type = stream.headers.get("content-type").expect("a type");
    assert_eq!(content_type, "application/x-ndjson");
    let mut instances = 0;
    for id in ["ebs-prod", "ebs-prod-2", "fresh", "nfs"] {
        let line = stream.json().await;
        assert_eq!((&line["Index"], &line["Plugins"][0]["ID"]), (&json!(0), &json!(id)));
        instances += line["Instances"].as_array().expect("a list").len();
        let detail = get(&fixture, &format!("/v1/gateway/plugin/{id}")).await.json();
        for instance in line["Instances"].as_array().expect("a list") {
            let side = if instance["Role"] == "node" { "Nodes" } else { "Controllers" };
            assert_eq!(*instance, detail[side][instance["Host"].as_str().expect("text")]);
        }
    }
    assert_eq!(instances, 9);
    assert_eq!(stream.json().await, json!({ "IDs": ["ebs-prod", "ebs-prod-2", "fresh", "nfs"], "Index": 104 }));
    let (beat, took) = timed(stream.next()).await;
    assert_eq!(beat.as_deref(), Some("{}"));
    assert_between("heartbeat", took, 29.9, 30.1);

    let ill = Transition { key: node("nfs", "host-0001").key, ..transitions().remove(7) };
    let remove = |plugin: &str| RecordChange::Remove(node(plugin, "host-0009").key);
    fixture.apply_told(106, [put(unhealthy(node("nfs", "host-0001"))), remove("fresh")], [ill]);
    let line = stream.json().await;
    assert_eq!(line["Index"], 106);
    assert_eq!((&line["Plugins"][0]["ID"], &line["Plugins"][0]["NodesHealthy"]), (&json!("nfs"), &json!(1)));
    assert_eq!(line["Plugins"].as_array().expect("a list").len(), 1);
    assert_eq!(
        (&line["Instances"][0]["Host"], &line["Instances"][0]["Phase"]),
        (&json!("host-0001"), &json!("unhealthy"))
    );
    assert_eq!(line["RemovedPlugins"], json!(["fresh"]));
    assert_eq!(line["RemovedInstances"], json!([{ "Host": "host-0009", "PluginID": "fresh", "Role": "node" }]));
    assert_eq!((&line["Transitions"][0]["Kind"], &line["Transitions"][0]["Index"]), (&json!("phase"), &json!(106)));

    let mut resumed = Lines::of(&fixture, "/v1/gateway/stream?index=104").await;
    assert_eq!(resumed.json().await, line, "what was missed");
    fixture.apply_at(107, [put(node("nfs", "host-0001"))]);
    assert_eq!((&stream.json().await["Index"], &resumed.json().await["Index"]), (&json!(107), &json!(107)));
    let mut current = Lines::of(&fixture, "/v1/gateway/stream?index=107").await;
    fixture.apply_at(108, [put(node("nfs", "host-0003"))]);
    assert_eq!(current.json().await["Index"], 108);
    // From an index that was never given, and from one that lies too far back: everything.
    let mut ahead = Lines::of(&fixture, "/v1/gateway/stream?index=109").await;
    assert_eq!(ahead.json().await["Index"], 0);
    fixture.shutdown.cancel();
    assert_eq!(current.next().await, None, "it ends with the gateway");
    assert_text("index", &get(&fixture, "/v1/gateway/stream?index=x").await, 400, "Invalid index");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_falls_behind_the_buffer_begins_anew_or_ends() {
    let fixture = Fixture::conformance();
    let mut ours = Lines::of(&fixture, "/v1/gateway/stream?index=103").await;
    let mut nomads = Lines::of(&fixture, "/v1/event/stream?index=103").await;
    assert_eq!((nomads.next().await.as_deref(), &nomads.json().await["Index"]), (Some("{}"), &json!(103)));
    for number in 0..300 {
        let record = node("nfs", "host-0001");
        fixture.apply([put(if number % 2 == 0 { unhealthy(record) } else { record })]);
    }
    assert_eq!(ours.json().await["Index"], 0, "the present state");
    assert_eq!(ours.json().await["Index"], 0);
    assert_eq!(ours.json().await["Plugins"][0]["ID"], "nfs");
    assert_eq!(ours.json().await["Index"], 403);
    assert_eq!(nomads.next().await, None, "whoever comes again is told from the buffer's beginning");
    let mut again = Lines::of(&fixture, "/v1/event/stream?index=104").await;
    assert_eq!((again.next().await.as_deref(), &again.json().await["Index"]), (Some("{}"), &json!(148)));
}

/// Every path of the description is asked for, and what comes is held to it: status, type, and each key.
#[tokio::test(start_paused = true)]
async fn the_description_is_true_of_every_reply() {
    let fixture = Fixture::conformance().with_allocations();
    fixture.sockets.put(std::path::Path::new("/run/csi/nfs.sock").into(), socket());
    *fixture.history.0.lock().expect("not poisoned") = transitions();
    fixture.apply_told(105, [put(unhealthy(node("nfs", "host-0001")))], transitions());
    let description = Description(get(&fixture, "/openapi.json").await.json());
    let id = |path: &str| if path.contains("gateway") { "ebs-prod" } else { "nfs" };
    for (path, operations) in description.0["paths"].as_object().expect("paths") {
        for (method, operation) in
            operations.as_object().expect("operations").iter().filter(|(name, _)| *name != "delete")
        {
            let mut targets = vec![path.replace("{id}", id(path))];
            match path.as_str() {
                "/v1/plugins" => targets[0].push_str("?type=csi"),
                "/v1/plugin/csi/{id}" => targets.extend(
                    ["ebs-prod", "ebs-prod?namespace=*", "ebs-prod?shape=documented", "missing", "nfs?index=x"]
                        .map(|rest| format!("/v1/plugin/csi/{rest}")),
                ),
                "/v1/gateway/plugin/{id}" => {
                    targets.extend(["nfs", "missing"].map(|id| format!("/v1/gateway/plugin/{id}")));
                }
                "/v1/gateway/plugins" => targets.push("/v1/gateway/plugins?per_page=1".to_owned()),
                "/v1/gateway/host/{id}" => targets.push("/v1/gateway/host/host-0001".to_owned()),
                "/ui/{id}" => {
                    targets.extend(csi_gateway::ui::FILES.iter().map(|file| format!("/ui/{}", file.path)));
                    targets.push("/ui/storage/plugins/nfs".to_owned());
                }
                "/v1/agent/health" => targets.push("/v1/agent/health?type=client".to_owned()),
                "/v1/gateway/stream" | "/v1/event/stream" => {
                    targets.push(format!("{path}?index=104"));
                    for target in targets {
                        let schema = &operation["responses"]["200"]["content"];
                        let (kind, schema) = schema.as_object().expect("content").iter().next().expect("a type");
                        let mut lines = Lines::of(&fixture, &target).await;
                        assert_eq!(lines.headers["content-type"].to_str().expect("ASCII"), kind);
                        for _ in 0..if target.contains('?') { 2 } else { 4 } {
                            let line = lines.json().await;
                            let complaints = description.complaints(&schema["schema"], &line);
                            assert!(complaints.is_empty(), "{target}: {complaints:#?}");
                        }
                    }
                    continue;
                }
                _ => {}
            }
            for target in targets {
                let body = if path.contains("search") { r#"{"Text":"eb","Prefix":"eb","Context":"all"}"# } else { "" };
                let request = Request::builder().method(method.to_uppercase().as_str()).uri(&target);
                let answer = send(&fixture, request.body(Body::from(body)).expect("legal")).await;
                let described = &operation["responses"][answer.status.as_str()];
                assert!(!described.is_null(), "{method} {target}: {} is not described", answer.status);
                let Some(kind) = answer.header("content-type") else {
                    assert!(described["content"].is_null() && answer.body.is_empty(), "{target}");
                    continue;
                };
                let schema = &described["content"][kind]["schema"];
                assert!(!schema.is_null(), "{method} {target}: {kind} is not described");
                let headers =
                    answer.headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-nomad-"));
                for header in headers.filter(|_| answer.status == 200) {
                    let known = described["headers"].as_object().into_iter().flatten();
                    assert!(known.into_iter().any(|(name, _)| name.eq_ignore_ascii_case(header)), "{target}: {header}");
                }
                let value = if kind == "application/json" { answer.json() } else { Value::String(answer.body) };
                let complaints = description.complaints(schema, &value);
                assert!(complaints.is_empty(), "{method} {target}: {complaints:#?}");
            }
        }
    }
}

/// Room for the test's two ends of a thousand connections.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit is allowed");
}

async fn blocked_readers(served: &Served, count: usize) -> Vec<TcpStream> {
    let mut readers = Vec::with_capacity(count);
    for number in 0..count {
        let mut stream = served.connect().await;
        let request = format!("GET /v1/plugin/csi/made-up-{number}?index=1 HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        readers.push(stream);
    }
    until("every reader waits", || served.fixture.waiters.subjects() == count).await;
    readers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_blocked_readers_are_answered_within_a_second_of_the_shutdown() {
    raise_descriptor_limit();
    let served = Served::start().await;
    let readers = blocked_readers(&served, 1000).await;
    let idle = served.connect().await;
    let start = Instant::now();
    served.fixture.shutdown.cancel();
    within(served.server).await.expect("it stops");
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
    for mut reader in readers {
        let mut answer = String::new();
        within(reader.read_to_string(&mut answer)).await.expect("an answer, then the end");
        assert!(answer.starts_with("HTTP/1.1 404 Not Found"), "{answer}");
        assert!(answer.ends_with("plugin not found"), "{answer}");
    }
    drop(idle);
    assert_eq!(served.fixture.waiters.subjects(), 0);
    assert!(TcpStream::connect(&served.address).await.is_err(), "it listens no longer");
}

#[tokio::test]
async fn clients_that_go_leave_no_waiter_behind() {
    let served = Served::start().await;
    let mut readers = blocked_readers(&served, 20).await;
    let last = readers.pop();
    drop(readers);
    until("the others' waiters are gone", || served.fixture.waiters.subjects() == 1).await;
    drop(last);
    until("no waiter is left", || served.fixture.waiters.subjects() == 0).await;
}

#[tokio::test]
async fn one_commit_answers_every_reader_of_it() {
    let served = Served::start().await;
    let mut readers = blocked_readers(&served, 50).await;
    served.fixture.apply((0..50).map(|number| put(node(&format!("made-up-{number}"), "host-0001"))));
    for reader in &mut readers {
        let mut answer = [0; 12];
        within(reader.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    until("nobody waits", || served.fixture.waiters.subjects() == 0).await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = Listener::bind("127.0.0.1:0").await.expect("a free port");
    let error = Listener::bind(first.address()).await.expect_err("taken");
    assert!(matches!(error, BindError::InUse { .. }));
    assert_eq!(
        error.to_string(),
        format!("cannot listen on `{}`: another process does; stop it, or choose another address", first.address())
    );
    let error = Listener::bind("192.0.2.1:1").await.expect_err("not this machine's");
    assert_eq!(error.to_string(), "cannot listen on `192.0.2.1:1`, which is no address of this machine");
    assert!(std::error::Error::source(&error).is_some());
    assert!(matches!(Listener::bind("nonsense").await, Err(BindError::Tcp { .. })));
    let every = Listener::bind(":0").await.expect("every address of this machine");
    let port = every.address().rsplit_once(':').expect("a port").1.to_owned();
    TcpStream::connect(format!("127.0.0.1:{port}")).await.expect("IPv4, too");
}

#[tokio::test]
async fn a_unix_socket_is_replaced_only_if_nobody_listens() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("api.sock");
    let address = format!("unix://{}", path.display());
    // Left behind by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    assert!(path.exists());

    let fixture = Fixture::conformance();
    let listener = Listener::bind(&address).await.expect("the stale file is replaced");
    assert_eq!(listener.address(), address);
    let server = tokio::spawn(serve(listener, fixture.api.clone(), fixture.shutdown.clone()));
    let mut stream = UnixStream::connect(&path).await.expect("it listens");
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("it reads");
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.expect("an answer");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");

    assert!(matches!(Listener::bind(&address).await, Err(BindError::InUse { .. })));
    assert!(std::fs::symlink_metadata(&path).expect("still there").file_type().is_socket());
    fixture.shutdown.cancel();
    within(server).await.expect("it stops");
    assert!(!path.exists(), "our own file goes with us");

    std::fs::write(&path, "precious").expect("written");
    assert!(matches!(Listener::bind(&address).await, Err(BindError::NotASocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
    let nowhere = format!("unix://{}/no/such.sock", directory.path().display());
    assert!(matches!(Listener::bind(&nowhere).await, Err(BindError::Unix { .. })));
}

// The page for people ------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_page_is_sent_whole_tagged_and_under_a_policy_that_lets_it_load_nothing_else() {
    let fixture = Fixture::conformance();
    let mut bytes = 0;
    for file in FILES {
        let target = format!("/ui/{}", file.path);
        let request = |accepted: &str, known: &str| {
            let request = Request::get(&target).header("Accept-Encoding", accepted).header("If-None-Match", known);
            request.body(Body::empty()).expect("legal")
        };
        let plain = send(&fixture, request("identity", "W/\"other\"")).await;
        assert_eq!((plain.status, plain.body.as_bytes()), (StatusCode::OK, file.bytes), "{target}");
        assert_eq!(plain.header("content-type"), Some(file.content_type), "{target}");
        assert_eq!(plain.header("content-encoding"), None, "{target}");
        assert_eq!(plain.header("cache-control"), Some("no-cache"), "{target}");
        assert_eq!(plain.header("x-content-type-options"), Some("nosniff"), "{target}");
        let policy = plain.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        for refused in ["unsafe", "http:", "https:", "data:", "*"] {
            assert!(!policy.contains(refused), "{policy}");
        }
        let gzip = send(&fixture, request("gzip, deflate, br", "")).await;
        assert_eq!((gzip.header("content-encoding"), gzip.body.as_bytes()), (Some("gzip"), file.bytes), "{target}");
        let tag = plain.header("etag").expect("a tag");
        assert_eq!(gzip.header("etag"), Some(tag));
        for known in [tag.to_owned(), format!("\"x\", {}", &tag[2..]), "*".to_owned()] {
            let same = send(&fixture, request("gzip", &known)).await;
            assert_eq!((same.status, &*same.body), (StatusCode::NOT_MODIFIED, ""), "{target} {known}");
            assert_eq!((same.header("etag"), same.header("content-encoding")), (Some(tag), None));
        }
        bytes += file.bytes.len();
    }
    assert!(bytes < 300_000, "{bytes} bytes");
    assert_eq!(call(&fixture, Method::POST, "/ui/").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get(&fixture, "/ui/index.htm").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_page_is_at_most_100_kb_on_the_wire_and_a_304_has_no_body() {
    let served = Served::start().await;
    let mut bytes = 0;
    for file in FILES {
        let target = format!("/ui/{}", file.path);
        bytes += served.ask("GET", &target, "Accept-Encoding: gzip\r\n").await.body.len();
        let head = served.ask("HEAD", &target, "").await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{target}");
        let tag = head.header("Etag").expect("a tag").to_owned();
        let raw = format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nIf-None-Match: {tag}\r\nConnection: close\r\n\r\n"
        );
        let answer = served.raw(raw.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 304 Not Modified\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    }
    assert!(bytes <= 100_000, "{bytes} bytes compressed");
}

#[tokio::test]
async fn the_page_is_found_from_the_root_under_prefixes_and_from_nomad_s_addresses() {
    let fixture = Fixture::conformance();
    for (target, location) in [
        ("/", "/ui/"),
        ("/?a=b", "/ui/?a=b"),
        ("/ui", "ui/"),
        ("/ui/storage", "./#/plugins"),
        ("/ui/whatever", "./#/plugins"),
        ("/ui/what/ever/", "../../#/plugins"),
        ("/ui/hosts", "./#/hosts"),
        ("/ui/host/a.b/", "../../#/host/a%2Eb"),
        ("/ui/storage/plugins", "../#/plugins"),
        ("/ui/storage/plugins/ebs-prod", "../../#/plugin/ebs%2Dprod"),
        ("/ui/storage/plugins/ebs/allocations", "../../../#/plugin/ebs"),
        ("/ui/storage/plugins/%0d%0aX:%20y", "../../#/plugin/%0D%0AX%3A%20y"),
    ] {
        let answer = get(&fixture, target).await;
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT, "{target}");
        assert_eq!(answer.header("location"), Some(location), "{target}");
    }
}

/// What the page says of capabilities and phases is what the gateway says: a name that is added there must be added here.
#[test]
fn the_page_knows_every_capability_and_has_a_remedy_for_every_phase() {
    use csi_gateway::domain::capability as is;
    let text = |path: &str| {
        let file = FILES.iter().find(|file| file.path == path).expect("a file");
        std::str::from_utf8(file.bytes).expect("UTF-8")
    };
    fn names<C: is::Capability>() -> Vec<&'static str> {
        C::ALL.iter().map(|capability| capability.name()).collect()
    }
    let table = text("words.js").split_once("export const CAPABILITIES").expect("the table").1;
    for (service, names) in [
        ("VolumeExpansion", names::<is::VolumeExpansion>()),
        ("Plugin", names::<is::PluginService>()),
        ("Controller", names::<is::ControllerCapability>()),
        ("Node", names::<is::NodeCapability>()),
        ("GroupController", names::<is::GroupCapability>()),
    ] {
        let block = table.split_once(&format!("['{service}',")).expect("a service").1;
        let block = block.split_once("}]").expect("its end").0;
        let words = block.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).filter(|word| word.len() > 5);
        assert_eq!(words.collect::<BTreeSet<_>>(), names.into_iter().collect(), "{service}");
    }
    for phase in Phase::ALL.into_iter().filter(|phase| !phase.is_healthy()) {
        assert!(text("unhealthy.md").contains(&format!("\n| `{phase}` |")), "{phase}");
        assert!(text("words.js").contains(&format!("'{phase}'")), "{phase}");
    }
}

#[test]
fn the_page_names_no_other_place_and_makes_no_markup_from_text() {
    for file in FILES.iter().filter(|file| file.path != "unhealthy.md") {
        let text = std::str::from_utf8(file.bytes).expect("UTF-8");
        let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
        for refused in [
            "http://",
            "https://",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "style=",
            "=\"/",
        ] {
            assert!(!elsewhere.contains(refused), "{}: {refused}", file.path);
        }
    }
}

#[tokio::test]
async fn a_host_is_read_with_its_instances_alone() {
    let fixture = Fixture::conformance();
    fixture.apply_at(104, [put(unhealthy(node("nfs", "host-0001")))]);
    let host = get(&fixture, "/v1/gateway/host/host-0001").await.json();
    assert_eq!(host["ID"], "host-0001");
    let instances = host["Instances"].as_array().expect("an array");
    assert!(instances.len() > 1 && instances.iter().all(|one| one["Host"] == "host-0001"), "{host}");
    assert!(instances.iter().any(|one| one["PluginID"] == "nfs" && one["Phase"] == "unhealthy"), "{host}");
    assert_text("unknown", &get(&fixture, "/v1/gateway/host/host-9999").await, 404, "host not found");
    assert_text("none", &get(&fixture, "/v1/gateway/host/").await, 500, "missing host ID");
}

#[tokio::test]
async fn a_sum_says_who_is_not_well_and_why_the_longest_first_and_four_at_most() {
    let fixture = Fixture::empty(Settings::default());
    let ill = |at: i64| {
        let mut record = unhealthy(node("nfs", &format!("host-{at:04}")));
        record.since = Timestamp(at);
        put(record)
    };
    fixture.apply_at(101, [3, 1, 5, 2, 4].map(ill).into_iter().chain([put(node("nfs", "host-well"))]));
    let sum = get(&fixture, "/v1/gateway/plugins").await.json()[0].clone();
    let unwell = sum["Unwell"].as_array().expect("an array");
    let hosts: Vec<_> = unwell.iter().map(|one| one["Host"].as_str().expect("text")).collect();
    assert_eq!(hosts, ["host-0001", "host-0002", "host-0003", "host-0004"]);
    assert_eq!((&unwell[0]["Phase"], &unwell[0]["Role"]), (&json!("unhealthy"), &json!("node")));
    assert!(unwell[0]["Reason"]["Description"].as_str().is_some_and(|text| !text.is_empty()), "{sum}");
    assert!(sum["ChangedTime"].is_string(), "{sum}");
}
