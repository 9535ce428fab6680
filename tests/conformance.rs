//! The conformance cases of `nomad-http.md` section 23 by number, on its fixture; over TCP where bytes matter.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use csi_gateway::api::Settings;
use csi_gateway::domain::allocation::Allocation;
use csi_gateway::domain::capability::{CapabilitySet, ControllerCapability, NodeCapability, PluginService};
use csi_gateway::domain::fingerprint::{Fingerprint, NodeFacts, Product};
use csi_gateway::domain::id::Role;
use csi_gateway::domain::record::Record;
use csi_gateway::domain::time::Timestamp;
use csi_gateway::domain::topology::{Pairs, Topology};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use support::client::{
    Answer, JSON, NO_META, Served, T, Wire, assert_between, assert_empty_ok, assert_not_found, assert_text, call, get,
    get_as, ids, keys, meanwhile, send, timed, within,
};
use support::fixture::{Fixture, node, put};

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
    // Without an orchestrator no namespace has allocations; with one, see below.
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
async fn cases_29_and_30_allocations() {
    let fixture = Fixture::conformance().with_allocations();
    let shown = |answer: &Answer| -> Option<Vec<String>> {
        let allocations = answer.json()["Allocations"].as_array()?.clone();
        Some(allocations.iter().map(|one| one["ID"].as_str().expect("text").to_owned()).collect())
    };
    let none = get(&fixture, "/v1/plugin/csi/ebs-prod?namespace=nope").await;
    assert!(none.body.contains(r#"{"Allocations":null,"ControllerJobs":"#), "30: {}", none.body);
    for (case, query, ids) in [
        ("29", "", &["a2", "a1"][..]),
        ("29", "?namespace=", &["a2", "a1"]),
        ("30", "?namespace=*", &["a2", "a3", "a1"]),
        ("30", "?namespace=apps", &["a3"]),
    ] {
        let target = format!("/v1/plugin/csi/ebs-prod{query}");
        let answer = get(&fixture, &target).await;
        assert_eq!(shown(&answer).expect("allocations"), ids, "{case}: {query}");
        let mut body = answer.json();
        body["Allocations"] = Value::Null;
        assert_eq!(body, none.json(), "{case}: the rest is everybody's");
        assert_eq!(answer.meta(), none.meta(), "{case}");
        for accepted in ["gzip", "deflate", "gzip"] {
            let packed = get_as(&fixture, &target, accepted).await;
            assert_eq!(packed.header("content-encoding"), Some(accepted), "{case}");
            assert_eq!(packed.body, answer.body, "{case}: {query} as {accepted}");
        }
        let separator = if query.is_empty() { "?" } else { "&" };
        let pretty = get(&fixture, &format!("{target}{separator}pretty")).await;
        assert_eq!(pretty.json(), answer.json(), "{case}: {query} indented");
        assert!(pretty.body.starts_with("{\n    \"Allocations\": [\n        {\n"), "{case}: {}", pretty.body);
    }
    assert_eq!(shown(&get(&fixture, "/v1/plugin/csi/nfs?namespace=*").await), None, "its allocation is not known");
    fixture.allocations.replace([]);
    assert_eq!(get(&fixture, "/v1/plugin/csi/ebs-prod?namespace=*").await, none);
}

#[tokio::test]
async fn cases_42_to_46_compression() {
    let fixture = Fixture::conformance();
    let list = get(&fixture, "/v1/plugins?type=csi").await;
    let packed = get_as(&fixture, "/v1/plugins?type=csi", "gzip").await;
    assert_eq!(packed.header("content-encoding"), Some("gzip"), "42");
    assert_eq!(packed.header("vary"), Some("Accept-Encoding"), "42");
    assert_eq!((packed.body.as_str(), packed.meta()), (list.body.as_str(), list.meta()), "42");
    assert!(packed.length < list.length, "42");

    let empty = get_as(&fixture, "/v1/plugins?type=host", "gzip").await;
    assert_eq!((empty.header("content-encoding"), &*empty.body), (Some("gzip"), ""), "43");
    assert_eq!(empty.header("content-type"), None, "43");
    assert!((20..=23).contains(&empty.length), "43: {}", empty.length);

    let missing = get_as(&fixture, "/v1/plugin/csi/missing", "gzip").await;
    assert_eq!(missing.header("content-encoding"), Some("gzip"), "44");
    assert_not_found("44", &missing);

    for accepted in ["gzip;q=1.0", "GZIP", "*", "br"] {
        assert_eq!(get_as(&fixture, "/v1/plugins?type=csi", accepted).await, list, "45: {accepted}");
    }
    let raw = get_as(&fixture, "/v1/plugins?type=csi", "br, deflate, gzip").await;
    assert_eq!((raw.header("content-encoding"), &raw.body), (Some("deflate"), &list.body), "46");
}

#[tokio::test]
async fn every_answer_from_behind_the_router_is_compressed_for_those_who_ask() {
    let fixture = Fixture::conformance();
    for target in [
        "/v1/plugins",
        "/v1/plugins?type=csi",
        "/v1/plugins?type=csi&pretty",
        "/v1/plugins?type=csi&prefix=nfs",
        "/v1/plugins?type=csi&index=abc",
        "/v1/plugins?type=csi&region=mars",
        "/v1//plugins",
        "/v1/nope",
        "/v1/plugin/csi/",
        "/v1/plugin/csi/ebs-prod",
        "/v1/plugin/csi/ebs-prod?pretty",
        "/v1/plugin/csi/ebs-prod?shape=documented",
        "/v1/plugin/csi/ebs-prod?shape=documented&pretty",
        "/v1/plugin/csi/a/b/c",
        "/v1/gateway/plugin/ebs-prod",
        "/livez",
    ] {
        let plain = get(&fixture, target).await;
        // Twice: what is kept is what was made.
        for accepted in ["gzip", "deflate", "deflate", "gzip"] {
            let packed = get_as(&fixture, target, accepted).await;
            assert_eq!(packed.header("content-encoding"), Some(accepted), "{target}");
            assert_eq!((packed.status, &packed.body), (plain.status, &plain.body), "{target} as {accepted}");
            assert_eq!(packed.header("content-type"), plain.header("content-type"), "{target}");
            assert_eq!(packed.meta(), plain.meta(), "{target}");
        }
        assert_eq!(get(&fixture, target).await, plain, "{target}");
    }
    let below = get_as(&fixture, "/v1/plugin/csi/%zz", "gzip").await;
    assert_eq!((below.header("content-encoding"), below.header("vary")), (None, None));
    let upgrade = Request::get("/v1/plugins?type=csi").header("Accept-Encoding", "gzip").header("Upgrade", "websocket");
    let answer = send(&fixture, upgrade.body(Body::empty()).expect("legal")).await;
    assert_eq!(answer, get(&fixture, "/v1/plugins?type=csi").await);
}

#[tokio::test]
async fn a_compressed_body_is_made_anew_when_its_plugin_changes() {
    let fixture = Fixture::conformance();
    let before = get_as(&fixture, "/v1/plugin/csi/nfs", "gzip").await;
    let list_before = get_as(&fixture, "/v1/plugins?type=csi", "gzip").await;
    fixture.apply([put(node("nfs", "host-0003"))]);
    let after = get_as(&fixture, "/v1/plugin/csi/nfs", "gzip").await;
    assert_ne!(after.body, before.body);
    assert_eq!(after.body, get(&fixture, "/v1/plugin/csi/nfs").await.body);
    let list = get_as(&fixture, "/v1/plugins?type=csi", "gzip").await;
    assert_ne!(list.body, list_before.body);
    assert_eq!(list.body, get(&fixture, "/v1/plugins?type=csi").await.body);
}

#[tokio::test]
async fn bodies_above_two_kibibytes_on_the_wire_come_in_chunks() {
    let served = Served::start().await;
    let read = "/v1/plugin/csi/ebs-prod";
    let plain = get(&served.fixture, read).await;
    assert!(plain.length > 2048, "the case needs a large body");
    let wire = served.ask("GET", read, "").await;
    assert_eq!((wire.header("Transfer-Encoding"), wire.header("Content-Length")), (Some("chunked"), None));
    assert_eq!(wire.plain(), plain.body);
    // What counts are the bytes that are sent.
    let packed = served.ask("GET", read, "Accept-Encoding: gzip\r\n").await;
    assert_eq!(packed.header("Transfer-Encoding"), None);
    assert_eq!(packed.header("Content-Length"), Some(&*packed.body.len().to_string()));
    assert_eq!(packed.plain(), plain.body);
    let old = served.bytes(format!("GET {read} HTTP/1.0\r\n\r\n").as_bytes()).await;
    let old = Wire::parse(&old);
    assert_eq!((old.header("Transfer-Encoding"), old.header("Content-Length")), (None, None));
    assert_eq!(old.plain(), plain.body);
    let head = served.ask("HEAD", "/v1/plugins", "Accept-Encoding: gzip\r\n").await;
    assert_eq!((head.status, head.header("Content-Encoding"), head.body.len()), (405, Some("gzip"), 0));
    // Exactly at the border: the largest list that has a length.
    let small = get(&served.fixture, "/v1/plugins?type=csi").await;
    let wire = served.ask("GET", "/v1/plugins?type=csi", "").await;
    assert_eq!(wire.header("Content-Length"), Some(&*small.length.to_string()));
}

#[tokio::test]
async fn cases_85_and_86_what_clients_ask_for_beside_plugins() {
    let settings = Settings { address: "127.0.0.1:4649".to_owned(), ..Settings::default() };
    let fixture = Fixture::conformance_with(settings);
    for (case, target, body) in [
        ("85", "/v1/status/leader", json!("127.0.0.1:4649")),
        ("85", "/v1/status/peers", json!(["127.0.0.1:4649"])),
        ("85", "/v1/regions", json!(["global"])),
        ("19", "/v1/agent/health", json!({ "server": { "message": "ok", "ok": true } })),
    ] {
        let answer = get(&fixture, target).await;
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, JSON), "{case}: {target}");
        assert_eq!((answer.json(), answer.meta()), (body, NO_META), "{case}: {target}");
        assert_text(case, &call(&fixture, Method::POST, target).await, 405, "Invalid method");
    }
    let client = get(&fixture, "/v1/agent/health?type=client").await;
    assert_text("19", &client, 500, r#"{"client":{"message":"client not enabled","ok":false}}"#);

    let token = get(&fixture, "/v1/acl/token/self").await;
    assert_eq!((token.status, &token.json()["AccessorID"]), (StatusCode::OK, &json!("acls-disabled")), "86");
    assert_eq!(token.json()["Name"], "ACLs disabled token", "86");
    assert_text("19", &get(&fixture, "/v1/acl/policy/anonymous").await, 400, "ACL support disabled");

    let license = get_as(&fixture, "/v1/operator/license", "gzip").await;
    assert_eq!((license.status.as_u16(), license.length), (204, 0), "19");
    assert_eq!(license.header("content-encoding"), Some("gzip"), "6: it has the header and no body");
    let namespaces = get(&fixture, "/v1/namespaces").await;
    assert_eq!((&namespaces.json()[0]["Name"], namespaces.index()), (&json!("default"), Some(T)), "19");
    let agent = get(&fixture, "/v1/agent/self").await.json();
    assert_eq!(agent["config"]["Version"]["Version"], env!("CARGO_PKG_VERSION"), "17");
    assert_eq!(agent["config"]["ACL"]["Enabled"], false, "17");
    assert_eq!((&agent["member"]["Addr"], &agent["member"]["Port"]), (&json!("127.0.0.1"), &json!(4649)), "19");
    assert_eq!(get(&fixture, "/v1/agent/members").await.json()["ServerRegion"], "global", "17");
    // What only an orchestrator knows is not there.
    for target in ["/v1/allocation/0f6a3c9e-1111-2222-3333-444455556666", "/v1/node/host-0001", "/v1/job/x", "/v1/jobs"]
    {
        assert_text("19", &get(&fixture, target).await, 404, "");
    }
}

async fn search(fixture: &Fixture, method: Method, target: &str, body: &'static str) -> Answer {
    let request = Request::builder().method(method).uri(target).body(Body::from(body)).expect("legal");
    send(fixture, request).await
}

#[tokio::test]
async fn cases_87_and_88_search() {
    let fixture = Fixture::conformance();
    let put = |body: &'static str| search(&fixture, Method::PUT, "/v1/search", body);
    let found = put(r#"{"Prefix":"ebs","Context":"plugins"}"#).await;
    assert_eq!(found.meta(), [Some("0"), Some("true"), Some("0")], "87");
    assert_eq!(
        found.body,
        r#"{"Index":0,"KnownLeader":true,"LastContact":0,"Matches":{"plugins":["ebs-prod","ebs-prod-2"]},"NextToken":"","Truncations":{"plugins":false}}"#,
        "87"
    );
    let none = put(r#"{"prefix":"zz","CONTEXT":"plugins","AllowStale":true}"#).await.json();
    assert_eq!((&none["Matches"]["plugins"], &none["Truncations"]["plugins"]), (&Value::Null, &json!(false)), "87");
    let all = put(r#"{"Prefix":"nfs","Context":"all"}"#).await;
    assert_eq!((&all.json()["Matches"]["plugins"], all.index()), (&json!(["nfs"]), Some(T)), "15: `nomad status`");
    assert_eq!(put(r#"{"Context":"plugins"}"#).await.json()["Matches"]["plugins"].as_array().map(Vec::len), Some(3));
    assert_text("88", &get(&fixture, "/v1/search").await, 405, "Invalid method");
    assert_text("88", &call(&fixture, Method::DELETE, "/v1/search").await, 405, "Invalid method");
    assert_text("19", &put("").await, 400, "Request body is empty");
    assert_eq!(put("{").await.status, 400, "19");
    assert_eq!(put("[]").await.status, 400, "19");
    let context = put(r#"{"Context":"x"}"#).await;
    assert_eq!(context.status, 500, "19");
    assert!(context.body.starts_with("context must be one of ["), "19: {}", context.body);
    assert!(context.body.ends_with(r#"] or 'all' for all contexts; got "x""#), "19: {}", context.body);
    let bad = search(&fixture, Method::POST, "/v1/search?index=abc", r#"{"Context":"plugins"}"#).await;
    assert_text("4", &bad, 400, "Invalid index");

    let fuzzy = |body: &'static str| search(&fixture, Method::POST, "/v1/search/fuzzy", body);
    let found = fuzzy(r#"{"Text":"PROD","Context":"plugins","Namespace":"*"}"#).await.json();
    assert_eq!(found["Matches"]["plugins"], json!([{ "ID": "ebs-prod" }, { "ID": "ebs-prod-2" }]), "19");
    assert_eq!(fuzzy(r#"{"Text":"de","Context":"namespaces"}"#).await.status, 200, "17: shows the search box");
    let short = fuzzy(r#"{"Text":"e","Context":"plugins"}"#).await;
    assert_text("19", &short, 500, "fuzzy search query must be at least 2 characters, got 1");
}

#[tokio::test]
async fn case_94_one_connection_too_many() {
    let served = Served::limited(Fixture::conformance(), 100).await;
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut stream = served.connect().await;
        // Its answer shows that it was let in.
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it reads");
        let mut answer = [0; 15];
        within(stream.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        held.push(stream);
    }
    let refused = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nContent-Length: 81\r\n\
        Connection: close\r\n\r\n\
        Your IP is issuing too many concurrent connections, please rate limit your calls\n";
    let request = b"GET /v1/plugins HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(served.raw(request).await, refused, "94");
    assert_eq!(served.raw(b"").await, refused, "94: nothing needs to be asked");
    held.pop();
    loop {
        let answer = served.raw(request).await;
        if answer.starts_with("HTTP/1.1 200 OK") {
            break;
        }
        assert!(answer == refused || answer.is_empty(), "until the server has seen that one went: {answer}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Sections 15 to 17: what the command line, the Terraform provider and the web pages send, in their order.
#[tokio::test]
async fn nomad_s_own_clients_get_what_they_need() {
    let served = Served::start().await;
    let go = "Accept-Encoding: gzip\r\nUser-Agent: Go-http-client/1.1\r\n";
    let page = "Accept: application/json\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nX-Nomad-Token: \r\n";
    let list = ["ebs-prod", "ebs-prod-2", "nfs"];
    let ids = |body: &Value| -> Vec<String> {
        let stubs = body.as_array().expect("a list").iter();
        stubs.map(|stub| stub["ID"].as_str().expect("text").to_owned()).collect()
    };
    for (client, headers, method, target, status, check) in [
        ("CLI, no argument", go, "GET", "/v1/plugins?type=csi", 200, Some(json!(list))),
        ("CLI, an id", go, "GET", "/v1/plugins?prefix=ebs-prod&type=csi", 200, Some(json!(["ebs-prod", "ebs-prod-2"]))),
        ("CLI, an id", go, "GET", "/v1/plugin/csi/ebs-prod", 200, None),
        ("CLI, namespace and region", go, "GET", "/v1/plugin/csi/nfs?namespace=default&region=global", 200, None),
        ("CLI, nothing", go, "GET", "/v1/plugins?prefix=zzz&type=csi", 200, Some(json!([]))),
        ("SDK, stale", go, "GET", "/v1/plugins?index=1&stale=&type=csi&wait=5000ms", 200, Some(json!(list))),
        ("operator api, piped", go, "POST", "/v1/plugins?type=csi", 405, None),
        ("Terraform, gone", go, "GET", "/v1/plugin/csi/gone", 404, None),
        ("page, start", page, "GET", "/v1/regions", 200, None),
        ("page, start", page, "GET", "/v1/acl/token/self", 200, None),
        ("page, start", page, "GET", "/v1/acl/policy/anonymous", 400, None),
        ("page, start", page, "GET", "/v1/operator/license", 204, None),
        ("page, start", page, "GET", "/v1/agent/members", 200, None),
        ("page, start", page, "GET", "/v1/agent/self", 200, None),
        ("page, start", page, "GET", "/v1/namespaces", 200, None),
        ("page, list", page, "GET", "/v1/plugins?type=csi", 200, Some(json!(list))),
        ("page, list's watch", page, "GET", "/v1/plugins?type=host&index=1", 200, None),
        ("page, detail", page, "GET", "/v1/plugin/csi/ebs%2Dprod", 200, None),
        ("page, detail's watch", page, "GET", "/v1/plugin/csi/nfs?index=1", 200, None),
        ("page, a row", page, "GET", "/v1/allocation/0f6a3c9e-1111-2222-3333-444455556666", 404, None),
    ] {
        let wire = within(served.ask(method, target, headers)).await;
        assert_eq!(wire.status, status, "{client}: {target}");
        assert_eq!(wire.header("Content-Encoding"), Some("gzip"), "{client}: {target}");
        if let Some(wanted) = check {
            let body: Value = serde_json::from_str(&wire.plain()).expect("JSON");
            assert_eq!(json!(ids(&body)), wanted, "{client}: {target}");
        }
    }
    // The CLI dereferences these unseen, and cuts host ids to eight bytes.
    let body: Value =
        serde_json::from_str(&served.ask("GET", "/v1/plugin/csi/ebs-prod", go).await.plain()).expect("JSON");
    for (side, info) in [("Controllers", "ControllerInfo"), ("Nodes", "NodeInfo")] {
        for (host, record) in body[side].as_object().expect("a map") {
            assert!(host.len() >= 8 && record[info].is_object(), "{side} {host}: {record}");
        }
    }
    // Terraform waits until both are equal.
    let body: Value = serde_json::from_str(&served.ask("GET", "/v1/plugin/csi/nfs", go).await.plain()).expect("JSON");
    assert_eq!(
        (&body["NodesExpected"], &body["ControllersExpected"]),
        (&body["NodesHealthy"], &body["ControllersHealthy"])
    );
}

/// What a running Nomad answered, and what it was asked.
struct Recorded {
    asked: Value,
    body: Option<String>,
}

fn recordings() -> Vec<Recorded> {
    let lines = include_str!("golden/nomad-http.jsonl").lines();
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let body_of = |case: &Value| text(&lines.iter().find(|line| line["case"] == *case).expect("a case")["body"]);
    let recorded = |line: &Value| {
        let body = if line["body_of"].is_null() { text(&line["body"]) } else { body_of(&line["body_of"]) };
        Recorded { asked: line.clone(), body }
    };
    lines.iter().map(recorded).collect()
}

/// A gateway that knows the recorded plugin.
fn recorded_plugin(body: &str) -> Fixture {
    let plugin: Value = serde_json::from_str(body).expect("the recorded read");
    let nanos = |time: &Value| {
        let time: jiff::Timestamp = time.as_str().expect("a time").parse().expect("RFC 3339");
        Timestamp(i64::try_from(time.as_nanosecond()).expect("our century"))
    };
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let product = |role: Role| Product {
        provider: text(&plugin["Provider"]).into(),
        version: text(&plugin["Version"]).into(),
        manifest: Pairs::default(),
        services: [PluginService::Controller, PluginService::VolumeAccessibilityConstraints].into_iter().collect(),
        expansion: CapabilitySet::default(),
        controller: (role == Role::Controller).then(|| {
            use ControllerCapability as C;
            let can = [C::CloneVolume, C::VolumeCondition, C::CreateDeleteVolume, C::CreateDeleteSnapshot];
            let more = [C::ExpandVolume, C::GetVolume, C::GetCapacity, C::ListSnapshots, C::ListVolumes];
            can.into_iter().chain(more).collect()
        }),
        node: (role == Role::Node).then(|| {
            use NodeCapability as N;
            [N::StageUnstageVolume, N::VolumeCondition, N::ExpandVolume, N::GetVolumeStats].into_iter().collect()
        }),
        group: None,
    };
    let record = |role: Role, side: &str| {
        let (host, shown) = plugin[side].as_object().expect("a map").iter().next().expect("one host");
        let facts = &shown["NodeInfo"];
        let mut record = node("hostpath0", host);
        record.key.role = role;
        record.update_time = nanos(&shown["UpdateTime"]);
        record.owner.alloc_id = text(&shown["AllocID"]).into();
        record.fingerprint = Some(Fingerprint {
            product: Arc::new(product(role)),
            node: (role == Role::Node).then(|| {
                let segments = facts["AccessibleTopology"]["Segments"].as_object().expect("segments");
                let segments = segments.iter().map(|(key, value)| (key.as_str(), value.as_str().expect("text")));
                Box::new(NodeFacts {
                    id: text(&facts["ID"]).into(),
                    max_volumes: facts["MaxVolumes"].as_i64().expect("a number"),
                    topology: Some(Topology { segments: Some(segments.collect()) }),
                })
            }),
            warnings: Box::default(),
        });
        record
    };
    let index = |key: &str| plugin[key].as_u64().expect("an index");
    let created = Timestamp(plugin["CreateTime"].as_i64().expect("nanoseconds"));
    let fixture = Fixture::empty(Settings::default());
    fixture.apply_dated(index("CreateIndex"), created, [put(record(Role::Controller, "Controllers"))]);
    fixture.apply_dated(index("ModifyIndex"), created, [put(record(Role::Node, "Nodes"))]);
    // As it came: cut out of the body, since a parsed object forgets the order of its keys.
    let stubs = body.split_once("\"Allocations\":[").expect("allocations").1;
    let stub = stubs.split_once("],\"ControllerJobs\"").expect("their end").0;
    let shown = &plugin["Allocations"][0];
    fixture.allocations.replace([Allocation {
        id: text(&shown["ID"]).into(),
        namespace: text(&shown["Namespace"]).into(),
        modify_index: shown["ModifyIndex"].as_u64().expect("an index"),
        stub: stub.as_bytes().into(),
    }]);
    fixture
}

/// The recorded body as ours has to be: with the one key more, and without jobs, which only an orchestrator knows.
fn ours(recorded: &str) -> String {
    let compact = r#"{"default":{"hostpath":{"Expected":1,"ID":"hostpath","Namespace":"default"}}}"#;
    let indented = "{
        \"default\": {
            \"hostpath\": {
                \"Expected\": 1,
                \"ID\": \"hostpath\",
                \"Namespace\": \"default\"
            }
        }
    }";
    let without_jobs = recorded.replace(compact, "{}").replace(indented, "{}");
    // The key of a plugin, not of a stub in the list, which has nothing after its index but its id.
    without_jobs
        .replace(r#""CreateIndex":11,"CreateTime""#, r#""ControllersRequired":true,"CreateIndex":11,"CreateTime""#)
        .replace(
            "    \"CreateIndex\": 11,\n    \"CreateTime\"",
            "    \"ControllersRequired\": true,\n    \"CreateIndex\": 11,\n    \"CreateTime\"",
        )
}

/// Every request of `golden/nomad-http.jsonl` over a connection of its own: the same status, headers and body.
#[tokio::test]
async fn what_a_running_nomad_answered_is_what_we_answer() {
    let recordings = recordings();
    assert_eq!(recordings.len(), 64);
    let read = recordings.iter().find(|recorded| recorded.asked["case"] == "read").expect("the read");
    let served = Arc::new(Served::of(recorded_plugin(read.body.as_deref().expect("its body"))).await);
    let mut replies = tokio::task::JoinSet::new();
    let mut blocks = None;
    for recorded in recordings {
        let text = |key: &str| recorded.asked[key].as_str().expect("text").to_owned();
        let (method, path) = (text("method"), text("path"));
        let mut headers = String::new();
        for (name, value) in recorded.asked["request_headers"].as_object().into_iter().flatten() {
            writeln!(headers, "{name}: {}\r", value.as_str().expect("text")).expect("into memory");
        }
        let served = Arc::clone(&served);
        let reply = async move { served.ask(&method, &path, &headers).await };
        if recorded.asked["blocks"] == true {
            blocks = Some(tokio::spawn(reply));
        } else {
            replies.spawn(async move { (recorded, timed(reply).await) });
        }
    }
    let mut differing = Vec::new();
    while let Some(reply) = replies.join_next().await {
        let (Recorded { asked, body }, (wire, took)) = reply.expect("no panic");
        let case = asked["case"].as_str().expect("text");
        let mut wanted: BTreeMap<String, String> = serde_json::from_value(asked["headers"].clone()).expect("headers");
        let body = body.map(|body| ours(&body));
        if let (Some(length), "GET") = (wanted.get_mut("Content-Length"), asked["method"].as_str().expect("text")) {
            // Another compressor, a key more: the length is that of what is sent.
            *length = if body.is_some() && wire.header("Content-Encoding").is_none() {
                body.as_ref().map_or(0, String::len).to_string()
            } else {
                wire.body.len().to_string()
            };
        }
        wanted.insert("Connection".to_owned(), "close".to_owned());
        let headers: BTreeMap<String, String> = wire.headers.iter().cloned().collect();
        let seconds = asked["seconds"].as_f64().map_or(0.0, f64::floor);
        let is_same = u64::from(wire.status) == asked["status"] && headers == wanted && took >= seconds;
        let plain = wire.plain();
        if !is_same || body.as_ref().is_some_and(|body| *body != plain) {
            differing.push(format!("{case}: {wire:?}\n{plain}\nwanted {asked}, {wanted:?}\n{body:?}"));
        }
        if case == "list-gzip" {
            assert!(plain.starts_with(r#"[{"ControllerRequired":true,"#), "{plain}");
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n\n"));
    let blocks = blocks.expect("one request waits");
    assert!(!blocks.is_finished(), "a negative wait waits as long as none");
    served.fixture.shutdown.cancel();
    assert_eq!(within(blocks).await.expect("no panic").status, 200);
}
