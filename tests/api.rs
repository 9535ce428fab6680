//! The API as its clients see it: the conformance cases of `nomad-http.md` section 23 by number, golden bodies, and
//! what only a real connection shows.

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
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
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tower::ServiceExt;

use support::fixture::{Fixture, SOME_TIME, controller, node, plugin_id, put, unhealthy};

/// The index of the conformance fixture.
const T: u64 = 103;

/// Every header that may ever be sent.
const HEADERS: [&str; 8] = [
    "content-type",
    "content-length",
    "vary",
    "location",
    "connection",
    "x-nomad-index",
    "x-nomad-knownleader",
    "x-nomad-lastcontact",
];

#[derive(Debug, Clone, PartialEq)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a JSON body")
    }

    fn index(&self) -> Option<u64> {
        self.header("x-nomad-index").map(|text| text.parse().expect("a number"))
    }

    fn meta(&self) -> [Option<&str>; 3] {
        ["x-nomad-index", "x-nomad-knownleader", "x-nomad-lastcontact"].map(|name| self.header(name))
    }
}

async fn send(fixture: &Fixture, request: Request<Body>) -> Answer {
    let response = fixture.router.clone().oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    for name in parts.headers.keys() {
        assert!(HEADERS.contains(&name.as_str()), "unexpected header {name}");
    }
    let body = body.collect().await.expect("bodies are in memory").to_bytes();
    let body = String::from_utf8(body.to_vec()).expect("UTF-8");
    Answer { status: parts.status, headers: parts.headers, body }
}

async fn call(fixture: &Fixture, method: Method, target: &str) -> Answer {
    send(fixture, Request::builder().method(method).uri(target).body(Body::empty()).expect("a legal request")).await
}

async fn get(fixture: &Fixture, target: &str) -> Answer {
    call(fixture, Method::GET, target).await
}

const NO_META: [Option<&str>; 3] = [None; 3];
const TEXT: Option<&str> = Some("text/plain; charset=utf-8");
const JSON: Option<&str> = Some("application/json");

#[track_caller]
fn assert_text(case: &str, answer: &Answer, status: u16, text: &str) {
    assert_eq!(answer.status, status, "{case}: {answer:?}");
    assert_eq!(answer.body, text, "{case}");
    assert_eq!(answer.header("content-type"), if text.is_empty() { None } else { TEXT }, "{case}");
    assert_eq!(answer.header("vary"), Some("Accept-Encoding"), "{case}");
    assert_eq!(answer.meta(), NO_META, "{case}");
}

#[track_caller]
fn assert_not_found(case: &str, answer: &Answer) {
    assert_eq!(answer.status, 404, "{case}: {answer:?}");
    assert_eq!(answer.body, "plugin not found", "{case}");
    assert_eq!(answer.header("content-type"), TEXT, "{case}");
    assert_eq!(answer.meta(), [Some("0"), Some("true"), Some("0")], "{case}");
}

#[track_caller]
fn assert_empty_ok(case: &str, answer: &Answer) {
    assert_text(case, answer, 200, "");
    assert_eq!(answer.header("content-length"), Some("0"), "{case}");
}

fn ids(answer: &Answer) -> Vec<String> {
    let list = answer.json();
    let id = |stub: &Value| stub["ID"].as_str().expect("text").to_owned();
    list.as_array().expect("an array").iter().map(id).collect()
}

#[tokio::test]
async fn cases_1_to_28_the_list() {
    let fixture = Fixture::conformance();
    let list = get(&fixture, "/v1/plugins?type=csi").await;
    assert_eq!(list.status, 200, "1");
    assert_eq!(list.header("content-type"), JSON, "1");
    assert_eq!(list.meta(), [Some("103"), Some("true"), Some("0")], "1");
    assert_eq!(list.header("vary"), Some("Accept-Encoding"), "1");
    assert_eq!(ids(&list), ["ebs-prod", "ebs-prod-2", "nfs"], "1");
    assert_eq!(
        list.json()[0],
        json!({
            "ControllerRequired": true, "ControllersExpected": 2, "ControllersHealthy": 1, "CreateIndex": 102,
            "ID": "ebs-prod", "ModifyIndex": 102, "NodesExpected": 3, "NodesHealthy": 3,
            "Provider": "ebs-prod.csi.example.com"
        }),
        "1: exactly nine keys"
    );

    let no_type = get(&fixture, "/v1/plugins").await;
    for (case, target) in [
        ("2", "/v1/plugins"),
        ("7", "/v1/plugins?Type=csi"),
        ("8", "/v1/plugins?type=csi;pretty"),
        ("10", "/v1/plugins?index=abc&wait=abc"),
    ] {
        let answer = get(&fixture, target).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, "[]"), "{case}");
        assert_eq!(answer.header("content-type"), JSON, "{case}");
        assert_eq!(answer.meta(), NO_META, "{case}");
        assert_eq!(answer, no_type, "{case}");
    }
    for (case, target) in [
        ("3", "/v1/plugins?type=host"),
        ("4", "/v1/plugins?type=host&index=1&pretty"),
        ("5", "/v1/plugins?type="),
        ("5", "/v1/plugins?type"),
        ("5", "/v1/plugins?type=CSI"),
        ("6", "/v1/plugins?type=host&type=csi"),
    ] {
        assert_empty_ok(case, &get(&fixture, target).await);
    }
    for (case, rest) in [
        ("6", "&type=host"),
        ("9", "&x=%zz"),
        ("17", "&per_page=1&next_token=zzz&reverse=true&filter=)("),
        ("19", "&stale"),
        ("19", "&stale=false"),
        ("19", "&consistent"),
        ("20", "&namespace=does-not-exist"),
        ("21", "&region=global"),
        ("47", "&index=102"),
        ("51", "&index=0&wait=10s"),
        ("52", "&wait=10s"),
    ] {
        assert_eq!(get(&fixture, &format!("/v1/plugins?type=csi{rest}")).await, list, "{case}");
    }
    let stale = "Expect `true` or `false` for `stale` query string parameter";
    let per_page = "Expect a number for `per_page` query string parameter";
    for (case, rest, text) in [
        ("11", "index=abc", "Invalid index"),
        ("12", "index=-1", "Invalid index"),
        ("12", "index=18446744073709551616", "Invalid index"),
        ("12", "index=%2B1", "Invalid index"),
        ("12", "index=+1", "Invalid index"),
        ("12", "index=1e3", "Invalid index"),
        ("12", "index=1_0", "Invalid index"),
        ("13", "wait=5", "Invalid wait time"),
        ("14", "wait=abc&index=abc", "Invalid wait time"),
        ("15", "stale=maybe&per_page=x", stale),
        ("16", "per_page=x&wait=abc", per_page),
        ("16", "per_page=2147483648", per_page),
    ] {
        assert_text(case, &get(&fixture, &format!("/v1/plugins?type=csi&{rest}")).await, 400, text);
    }
    for (prefix, count) in [("ebs", 2), ("EBS", 0), ("ebs-prod-2", 1), ("", 3), ("nfs%00", 0), ("n%C3", 0)] {
        let answer = get(&fixture, &format!("/v1/plugins?type=csi&prefix={prefix}")).await;
        assert_eq!(ids(&answer).len(), count, "18: {prefix}");
        assert_eq!(answer.index(), Some(T), "18: {prefix}");
    }
    let mars = get(&fixture, "/v1/plugins?type=csi&region=mars").await;
    assert_text("21", &mars, 500, "No path to region");
    for pretty in ["pretty", "pretty=false", "pretty=1"] {
        let answer = get(&fixture, &format!("/v1/plugins?type=csi&{pretty}")).await;
        assert!(answer.body.starts_with("[\n    {\n        \"ControllerRequired\": true,\n"), "22: {pretty}");
        assert!(answer.body.ends_with("\n]\n"), "22: {pretty}");
        assert_eq!(answer.json(), list.json(), "22: {pretty}");
    }
    assert_eq!(get(&fixture, "/v1/plugins?type=csi&pretty=0").await, list, "22");
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"] {
        let method: Method = method.parse().expect("a legal method");
        assert_text("23", &call(&fixture, method, "/v1/plugins").await, 405, "Invalid method");
    }
    let head = call(&fixture, Method::HEAD, "/v1/plugins?type=csi").await;
    assert_text("24", &Answer { body: "Invalid method".into(), ..head.clone() }, 405, "Invalid method");
    assert_eq!((&*head.body, head.header("content-length")), ("", Some("14")), "24");
    let preflight = Request::options("/v1/plugins")
        .header("Origin", "http://x")
        .header("Access-Control-Request-Method", "GET")
        .body(Body::empty())
        .expect("legal");
    assert_text("25", &send(&fixture, preflight).await, 405, "Invalid method");
    assert_text("26", &get(&fixture, "/v1/plugins/?type=csi").await, 404, "");
    for (case, target, location) in [
        ("27", "/v1//plugins?type=csi", "/v1/plugins?type=csi"),
        ("27", "/v1/x/../plugins?type=csi&a=b", "/v1/plugins?type=csi&a=b"),
        ("28", "/v1/plugin/csi?x=1", "/v1/plugin/csi/?x=1"),
    ] {
        let answer = get(&fixture, target).await;
        assert_eq!(answer.status, 307, "{case}");
        assert_eq!(answer.header("location"), Some(location), "{case}");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{case}");
        let escaped = location.replace('&', "&amp;");
        assert_eq!(answer.body, format!("<a href=\"{escaped}\">Temporary Redirect</a>.\n\n"), "{case}");
        assert_eq!((answer.header("vary"), answer.meta()), (Some("Accept-Encoding"), NO_META), "{case}");
        let post = call(&fixture, Method::POST, target).await;
        assert_eq!((post.status, &*post.body), (StatusCode::TEMPORARY_REDIRECT, ""), "{case}");
        assert_eq!(post.header("content-type"), None, "{case}");
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[tokio::test]
async fn cases_29_to_41_the_read() {
    let fixture = Fixture::conformance();
    let ebs = get(&fixture, "/v1/plugin/csi/ebs-prod").await;
    assert_eq!((ebs.status, ebs.header("content-type")), (StatusCode::OK, JSON), "29");
    assert_eq!(ebs.meta(), [Some("103"), Some("true"), Some("0")], "29");
    let body = ebs.json();
    assert_eq!(
        keys(&body).into_iter().filter(|key| *key != "ControllersRequired").collect::<Vec<_>>(),
        [
            "Allocations",
            "ControllerJobs",
            "ControllerRequired",
            "Controllers",
            "ControllersExpected",
            "ControllersHealthy",
            "CreateIndex",
            "CreateTime",
            "ID",
            "ModifyIndex",
            "ModifyTime",
            "NodeJobs",
            "Nodes",
            "NodesExpected",
            "NodesHealthy",
            "Provider",
            "Version"
        ],
        "29"
    );
    assert_eq!(body["ControllerRequired"], true, "29");
    assert_eq!(body["ControllersRequired"], true, "29");
    // 30: without an orchestrator no namespace has allocations.
    assert_eq!(body["Allocations"], Value::Null, "30");
    for namespace in ["*", "apps", "nope"] {
        assert_eq!(get(&fixture, &format!("/v1/plugin/csi/ebs-prod?namespace={namespace}")).await, ebs, "30");
    }
    let nfs = get(&fixture, "/v1/plugin/csi/nfs").await;
    let body = nfs.json();
    assert_eq!(body["Controllers"], json!({}), "31");
    assert_eq!(body["ControllerRequired"], false, "31");
    assert_eq!(keys(&body["Nodes"]), ["host-0001", "host-0002"], "31");
    for record in body["Nodes"].as_object().expect("an object").values() {
        assert_eq!(keys(&record["NodeInfo"]).len(), 7, "31");
        assert_eq!(record.get("ControllerInfo"), None, "31");
    }
    for record in ebs.json()["Controllers"].as_object().expect("an object").values() {
        let info = record["ControllerInfo"].as_object().expect("an object");
        assert_eq!(info.len(), 12, "32");
        assert!(info.values().all(Value::is_boolean), "32");
        assert_eq!(record.get("NodeInfo"), None, "32");
    }
    for (case, id) in [("33", "missing"), ("34", "EBS-PROD"), ("34", "ebs"), ("33", "%FF"), ("33", "%20nfs")] {
        assert_not_found(case, &get(&fixture, &format!("/v1/plugin/csi/{id}")).await);
    }
    for rest in ["", "%2F"] {
        assert_text("35", &get(&fixture, &format!("/v1/plugin/csi/{rest}")).await, 500, "missing plugin ID");
    }
    for rest in ["nfs/", "nfs/anything", "nfs%2Fx", "%6efs", "nfs?type=host&prefix=zzz"] {
        assert_eq!(get(&fixture, &format!("/v1/plugin/csi/{rest}")).await, nfs, "36, 38: {rest}");
    }
    for rest in ["nfs/a/b", "nfs/a/", "nfs%2Fa%2Fb", "nfs/a/b?index=abc"] {
        assert_text("37", &get(&fixture, &format!("/v1/plugin/csi/{rest}")).await, 404, "resource not found");
    }
    let broken = get(&fixture, "/v1/plugin/csi/%zz").await;
    assert_eq!((broken.status.as_u16(), &*broken.body), (400, "400 Bad Request"), "39");
    assert_eq!((broken.header("vary"), broken.header("connection")), (None, Some("close")), "39");
    for target in ["/v1/plugin/host/nfs", "/v1/plugin/", "/v1/nope", "/v2/plugins", "/v1/gateway/nope"] {
        assert_text("40", &get(&fixture, target).await, 404, "");
    }
    assert_text("41", &call(&fixture, Method::DELETE, "/v1/plugin/csi/nfs").await, 405, "Invalid method");
    assert_text("41", &call(&fixture, Method::DELETE, "/v1/plugin/csi/a/b/c").await, 405, "Invalid method");
    let bad = get(&fixture, "/v1/plugin/csi/nfs?index=abc").await;
    assert_text("3, order of checks", &bad, 400, "Invalid index");
    assert_text("3", &get(&fixture, "/v1/plugin/csi/?region=mars").await, 500, "No path to region");
}

/// How long something takes by the paused clock.
async fn timed<T>(future: impl Future<Output = T>) -> (T, f64) {
    let start = Instant::now();
    let result = future.await;
    (result, start.elapsed().as_secs_f64())
}

/// Does `action` after `delay` while `future` runs.
async fn meanwhile<T>(future: impl Future<Output = T>, delay: f64, action: impl FnOnce()) -> (T, f64) {
    let late = async {
        tokio::time::sleep(Duration::from_secs_f64(delay)).await;
        action();
    };
    let ((result, took), ()) = tokio::join!(timed(future), late);
    (result, took)
}

#[track_caller]
fn assert_between(case: &str, took: f64, least: f64, most: f64) {
    assert!(took >= least && took <= most, "{case}: took {took} s, not {least} to {most} s");
}

#[tokio::test(start_paused = true)]
async fn cases_47_to_54_a_waiting_list() {
    let fixture = Fixture::conformance();
    let list = get(&fixture, "/v1/plugins?type=csi").await;
    for (case, rest) in
        [("47", "index=102"), ("51", "index=0&wait=10s"), ("52", "wait=10s"), ("54", "index=103&wait=1ns")]
    {
        let (answer, took) = timed(get(&fixture, &format!("/v1/plugins?type=csi&{rest}"))).await;
        assert_eq!(answer, list, "{case}");
        assert_between(case, took, 0.0, 0.01);
    }
    let (answer, took) = timed(get(&fixture, "/v1/plugins?type=csi&index=103&wait=2s")).await;
    assert_eq!(answer, list, "48");
    assert_between("48", took, 2.0, 2.13);
    let (answer, took) = timed(get(&fixture, "/v1/plugins?type=csi&index=1103&wait=1s")).await;
    assert_eq!(answer, list, "50");
    assert_between("50", took, 1.0, 1.07);
    let (answer, took) = timed(get(&fixture, "/v1/plugins?type=csi&prefix=nfs&index=103&wait=1s")).await;
    assert_eq!((ids(&answer), answer.index()), (vec!["nfs".to_owned()], Some(T)), "59");
    assert_between("59", took, 1.0, 1.07);
    let (_, took) = timed(get(&fixture, "/v1/plugins?type=csi&index=18446744073709551615&wait=999h")).await;
    assert_between("a wait is capped", took, 300.0, 318.76);
    let wait = get(&fixture, "/v1/plugins?type=csi&index=103&wait=2s");
    let (answer, took) = meanwhile(wait, 1.0, || fixture.apply_at(110, [put(node("nfs", "host-0003"))])).await;
    assert_eq!((answer.index(), &answer.json()[2]["NodesHealthy"]), (Some(110), &json!(3)), "49");
    assert_between("49", took, 1.0, 1.01);
    for wait in ["wait=-1s", "wait=0", ""] {
        let (_, took) = timed(get(&fixture, &format!("/v1/plugins?type=csi&index=110&{wait}"))).await;
        assert_between("53", took, 300.0, 318.76);
    }
    assert_eq!(fixture.waiters.subjects(), 0, "nobody waits any more");
}

#[tokio::test(start_paused = true)]
async fn cases_55_to_58_a_waiting_read() {
    let fixture = Fixture::conformance();
    let nfs = get(&fixture, "/v1/plugin/csi/nfs").await;
    let (answer, took) = timed(get(&fixture, "/v1/plugin/csi/missing?index=1&wait=1s")).await;
    assert_not_found("55", &answer);
    assert_between("55", took, 1.0, 1.07);
    let wait = get(&fixture, "/v1/plugin/csi/missing?index=1&wait=10s");
    let (answer, took) = meanwhile(wait, 1.0, || fixture.apply_at(104, [put(node("missing", "host-0001"))])).await;
    assert_eq!((answer.status, answer.index()), (StatusCode::OK, Some(104)), "56");
    assert_between("56", took, 1.0, 1.01);
    let wait = get(&fixture, "/v1/plugin/csi/nfs?index=104&wait=2s");
    let (answer, took) = meanwhile(wait, 1.0, || fixture.apply_at(105, [put(node("missing", "host-0002"))])).await;
    assert_eq!((answer.index(), &answer.body), (Some(104), &nfs.body), "57: another plugin changes");
    assert_between("57", took, 2.0, 2.13);
    let (answer, took) = timed(get(&fixture, "/v1/plugin/csi/nfs?index=104")).await;
    assert_eq!((answer.index(), &answer.body), (Some(105), &nfs.body), "58");
    assert_between("58", took, 0.0, 0.01);
}

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
async fn cases_91_to_93_odd_names_times_and_an_empty_list() {
    let fixture = Fixture::empty(Settings::default());
    let empty = get(&fixture, "/v1/plugins?type=csi").await;
    assert_eq!((&*empty.body, empty.index()), ("[]", Some(0)), "93");
    assert_not_found("93", &get(&fixture, "/v1/plugin/csi/nfs").await);

    let name = "a<&>\"ü\u{2028}";
    let at = |update_time: i64, host: &str| Record { update_time: Timestamp(update_time), ..node(name, host) };
    let whole = 1_767_323_045_000_000_000;
    let records = [at(whole, "whole-00"), at(whole + 120_000_000, "fraction"), at(0, "never-00")];
    let index = fixture.apply(records.map(put));
    let list = get(&fixture, "/v1/plugins?type=csi").await;
    assert!(list.body.contains(r#""ID":"a<&>\"ü\u2028""#), "91: {}", list.body);
    let read = get(&fixture, "/v1/plugin/csi/a%3C%26%3E%22%C3%BC%E2%80%A8").await;
    assert_eq!((read.status, read.index()), (StatusCode::OK, Some(index)), "91");
    assert!(read.body.contains(r#""PluginID":"a<&>\"ü\u2028""#), "91: {}", read.body);
    let body = read.json();
    assert_eq!(body["ID"], name, "91");
    assert_eq!(body["Nodes"]["whole-00"]["UpdateTime"], "2026-01-02T03:04:05Z", "92");
    assert_eq!(body["Nodes"]["fraction"]["UpdateTime"], "2026-01-02T03:04:05.12Z", "92");
    assert_eq!(body["Nodes"]["never-00"]["UpdateTime"], Value::Null, "92");
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
        role: "auto",
        source: "address",
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

/// A fixture on a real port.
struct Served {
    fixture: Fixture,
    address: String,
    server: tokio::task::JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        let fixture = Fixture::conformance();
        let listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.address().to_owned();
        let server = tokio::spawn(serve(listener, fixture.router.clone(), fixture.shutdown.clone()));
        Self { fixture, address, server }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.expect("it listens")
    }

    /// Everything that is answered to raw bytes until the connection ends.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.expect("it reads");
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer)).await.expect("it answers and closes");
        String::from_utf8(answer).expect("UTF-8")
    }
}

/// A limit so long that only what would hang forever meets it.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("comes to an end")
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn head_of(answer: &str) -> (&str, BTreeSet<&str>) {
    let (head, _) = answer.split_once("\r\n\r\n").expect("a head");
    let (status, headers) = head.split_once("\r\n").expect("headers");
    (status, headers.split("\r\n").filter(|line| !line.starts_with("Date: ")).collect())
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
    let server = tokio::spawn(serve(listener, fixture.router.clone(), fixture.shutdown.clone()));
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
