//! Metrics: each of the table is served with its labels, and none beside; what is gone is gone from them; what is made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use csi_gateway::csi::Rpc;
use csi_gateway::demo::{FakeDriver, Reply};
use csi_gateway::domain::socket::RoleChoice;
use csi_gateway::metrics::{self, FAMILIES, Family, Kind};

use super::support::gateway::{D0, Scene, TestGateway, quick, wanted};
use super::support::process::{Serving, until};
use super::{NAME, parse};

/// Labels by name.
type Labels = BTreeMap<String, String>;

/// A sample: its name, its labels, its value.
fn samples(text: &str) -> Vec<(String, Labels, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| sample(line).unwrap_or_else(|| panic!("no sample: {line}"))).collect()
}

fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        let mut characters = inside.char_indices();
        let (mut label, mut value, mut is_quoted) = (String::new(), String::new(), false);
        let end = loop {
            let (place, character) = characters.next()?;
            match (is_quoted, character) {
                (false, '}') => break place,
                (false, '=' | ',') => {}
                (false, '"') => is_quoted = true,
                (false, character) => label.push(character),
                (true, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (true, '"') => {
                    is_quoted = false;
                    labels.insert(std::mem::take(&mut label), std::mem::take(&mut value));
                }
                (true, character) => value.push(character),
            }
        };
        rest = &inside[end + 1..];
    }
    Some((name.to_owned(), labels, rest.trim().parse().ok()?))
}

fn family(sample: &str) -> Option<&'static Family> {
    let is_of = |family: &&Family| match family.kind {
        Kind::Histogram => {
            sample.strip_prefix(family.name).is_some_and(|end| matches!(end, "_bucket" | "_sum" | "_count"))
        }
        _ => family.name == sample,
    };
    FAMILIES.iter().find(is_of)
}

/// The value of the only sample of this name.
fn value(text: &str, name: &str) -> Option<f64> {
    samples(text).into_iter().find(|(known, ..)| known == name).map(|(.., value)| value)
}

#[tokio::test]
async fn every_metric_of_the_table_is_served_with_its_labels_and_no_other() {
    let scene = Scene::new(RoleChoice::Node, FakeDriver::node(D0).node_info("n-1", 16)).await;
    scene.healthy().await;
    scene.gateway.get("/v1/gateway/history").await;
    let mut seen = BTreeSet::new();
    let text = scene.gateway.text("/metrics").await;
    let elsewhere =
        TestGateway::serving(&[&format!("--csi-plugins-dir={}", scene.directory.path().display())], &[]).await;
    let found = super::until("it searched", async || {
        let text = elsewhere.text("/metrics").await;
        if text.contains("csi_gateway_discovery_errors_total") { Ok(text) } else { Err(text) }
    })
    .await;
    for (name, mut labels, _) in samples(&text).into_iter().chain(samples(&found)) {
        let family = family(&name).unwrap_or_else(|| panic!("{name} is in no table"));
        labels.remove("le");
        let expected: BTreeSet<&str> = family.labels.iter().copied().collect();
        assert_eq!(labels.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected, "{name}");
        seen.insert(family.name);
    }
    // Only with a kubelet, only with TLS, only in a fleet, only where an orchestrator is asked.
    let seldom = |name: &&str| {
        name.contains("_tls_")
            || name.contains("_fleet_")
            || ["csi_gateway_instance_registered", "csi_gateway_orchestrator_up"].contains(name)
    };
    let missing: Vec<&str> =
        FAMILIES.iter().map(|family| family.name).filter(|name| !seen.contains(name) && !seldom(name)).collect();
    assert!(missing.is_empty(), "{missing:?} in {text}");
}

#[tokio::test]
async fn what_a_driver_does_is_counted_and_goes_with_it() {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let path = directory.path().join("csi.sock");
    let driver = FakeDriver::node(D0).serve(&path).await.expect("binds");
    let gateway = TestGateway::watching([wanted(&path, RoleChoice::Node)], quick()).await;
    let is_healthy = |wanted: bool| move |instance: &serde_json::Value| instance["Healthy"] == wanted;
    gateway.instance_until("healthy", D0, "node", is_healthy(true)).await;
    for _ in 0..2 {
        driver.set_probe(Reply::starting());
        gateway.instance_until("not healthy", D0, "node", is_healthy(false)).await;
        driver.set_probe(Reply::ready());
        gateway.instance_until("healthy", D0, "node", is_healthy(true)).await;
    }
    let text = gateway.text("/metrics").await;
    assert_eq!(value(&text, "csi_gateway_instance_health_transitions_total"), Some(4.0), "{text}");
    assert_eq!(value(&text, "csi_gateway_instance_healthy"), Some(1.0));
    assert_eq!(value(&text, "csi_gateway_host_alive"), Some(1.0));
    for result in ["ready", "not_ready"] {
        let counted = samples(&text).into_iter().find(|(name, labels, _)| {
            name == "csi_gateway_probes_total" && labels["result"] == result && labels["driver_name"] == D0
        });
        assert!(counted.is_some_and(|(.., count)| count >= 2.0), "{result}: {text}");
    }
    driver.vanish().await;
    gateway.instance_until("gone", D0, "node", |instance| instance["Phase"] == "gone").await;
    let asking = csi_gateway::config::Asking::at(gateway.address());
    let path = format!("/v1/gateway/plugin/{D0}");
    let answer = csi_gateway::commands::http::delete(&asking, &path).await.expect("it answers");
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = gateway.text("/metrics").await;
    let left: Vec<_> = samples(&text)
        .into_iter()
        .filter(|(name, labels, _)| {
            labels.contains_key("plugin_id") || labels.contains_key("host_id") || name.contains("_instance_")
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Whatever a driver says of itself becomes one label, of bounded length, without a line's end.
#[tokio::test]
async fn no_text_of_a_drivers_leaves_its_label_or_is_endless() {
    let version = format!("1\"}} 1\nevil{{x=\"\\{}", "v".repeat(5000));
    let scene = Scene::new(RoleChoice::Node, FakeDriver::node(D0).version(&version)).await;
    scene.healthy().await;
    let text = scene.gateway.text("/metrics").await;
    let all = samples(&text);
    assert!(all.iter().all(|(name, ..)| family(name).is_some()), "{text}");
    for (name, labels, _) in &all {
        assert!(labels.values().all(|value| value.len() <= 256 && !value.contains('\n')), "{name} {labels:?}");
    }
    let (_, info, _) = all.iter().find(|(name, ..)| name == "csi_gateway_instance_info").expect("it is served");
    assert!(info["version"].starts_with("1\"} 1 evil{x=\"\\vvv"), "{info:?}");
}

#[tokio::test]
async fn a_path_that_a_client_made_up_makes_no_series() {
    let scene = Scene::new(RoleChoice::Node, FakeDriver::node(D0)).await;
    for number in 0..50 {
        scene.gateway.find(&format!("/made/up/{number}")).await;
        scene.gateway.find(&format!("/v1/plugin/csi/made-up-{number}")).await;
    }
    let text = scene.gateway.text("/metrics").await;
    assert!(!text.contains("made"), "{text}");
    let requests: BTreeMap<String, f64> = samples(&text)
        .into_iter()
        .filter(|(name, labels, _)| name == "csi_gateway_http_requests_total" && labels["code"] == "404")
        .map(|(_, labels, count)| (labels["route"].clone(), count))
        .collect();
    let expected = [("/v1/plugin/csi/:id".to_owned(), 50.0), ("other".to_owned(), 50.0)];
    assert_eq!(requests.into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn openmetrics_is_for_whoever_asks_for_it() {
    let scene = Scene::new(RoleChoice::Node, FakeDriver::node(D0)).await;
    scene.healthy().await;
    let address = scene.gateway.address().trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: application/openmetrics-text;version=1.0.0\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.expect("asks");
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.expect("answers");
    assert!(
        answer.contains("Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{answer}"
    );
    assert!(answer.contains("\n# TYPE csi_gateway_probes counter\n") && answer.contains("\n# EOF\n"), "{answer}");
}

#[tokio::test]
async fn a_gateway_with_a_well_driver_and_a_sidecar_that_is_asked_log_nothing() {
    let folder = tempfile::tempdir().expect("a scratch directory");
    let driver = FakeDriver::node(NAME).serve(folder.path().join("csi.sock")).await.expect("binds");
    let address = format!("--csi-address={}", driver.socket().display());
    let (log, beside_log) = (folder.path().join("log"), folder.path().join("beside"));
    let arguments =
        ["serve", &address, "--http-endpoint=127.0.0.1:0", "--poll-interval=10ms", "--host-id=host-12345678"];
    let gateway = Serving::start(&arguments, &log).await;
    let sidecar = Serving::start(&[&address, "--http-endpoint=127.0.0.1:0", "--healthz-max-age=0"], &beside_log).await;
    assert!(parse(&[&address]).is_ok());
    driver.wait_for_calls(Rpc::Probe, 20).await;
    until("it is ready", async || match gateway.get("/readyz").await.status.as_u16() {
        200 if super::health(&sidecar.address).await.0 == 200 => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
    let length = |path: &Path| std::fs::metadata(path).expect("a log").len();
    let before = (length(&log), length(&beside_log));
    // As many looks as in an hour.
    let looks = driver.calls(Rpc::Probe) + 120;
    while driver.calls(Rpc::Probe) < looks {
        gateway.get("/metrics").await;
        sidecar.get("/metrics").await;
        assert_eq!(super::health(&sidecar.address).await.0, 200);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!((length(&log), length(&beside_log)), before, "{}", std::fs::read_to_string(&log).unwrap_or_default());
}

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap_or_default()
}

#[test]
fn the_page_of_metrics_is_what_the_table_says() {
    let path = "docs/metrics.md";
    let text = metrics::reference();
    if std::env::var("INSTA_UPDATE").is_ok_and(|value| value == "always") {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), &text).expect("it can be written");
    }
    assert_eq!(page(path), text, "{path} is not what the table of metrics says; see CONTRIBUTING.md");
}

#[test]
fn each_alert_has_cases_and_a_section_of_the_runbook() {
    let (alerts, cases, runbook) =
        (page("deploy/prometheus/alerts.yaml"), page("deploy/prometheus/alerts_test.yaml"), page("docs/runbook.md"));
    let names: BTreeSet<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 14, "{names:?}");
    for name in &names {
        let (fires, is_quiet) = (
            format!("alertname: {name}\n        exp_alerts:\n"),
            format!("alertname: {name}\n        exp_alerts: []\n"),
        );
        assert!(
            cases.contains(&fires) && cases.contains(&is_quiet),
            "{name} needs a case in which it fires, and one in which not"
        );
        assert!(alerts.contains(&format!("runbook_url: docs/runbook.md#{}\n", name.to_lowercase())), "{name}");
    }
    let sections: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections, names);
}

#[test]
fn dashboards_and_alerts_ask_for_metrics_of_the_table_only() {
    for name in ["deploy/grafana/overview.json", "deploy/grafana/gateway.json", "deploy/prometheus/alerts.yaml"] {
        let text = page(name);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metrics: BTreeSet<&str> = words
            .filter(|word| {
                word.starts_with("csi_gateway_") || word.starts_with("csi_sidecar_") || word.starts_with("process_")
            })
            .collect();
        assert!(metrics.len() > 5, "{name}: {metrics:?}");
        for metric in metrics {
            assert!(family(metric).is_some(), "{name} asks for {metric}");
        }
    }
    for name in ["overview", "gateway"] {
        let dashboard: serde_json::Value =
            serde_json::from_str(&page(&format!("deploy/grafana/{name}.json"))).expect("JSON");
        assert_eq!(dashboard["uid"], format!("csi-gateway-{name}"));
        assert_eq!(dashboard["tags"], serde_json::json!(["csi-gateway"]));
    }
}
