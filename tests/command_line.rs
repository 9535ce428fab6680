//! The command line as people and scripts meet it: messages, exit codes, and that nothing is left behind.

#[path = "command_line/configuration.rs"]
mod configuration;
#[path = "command_line/pages.rs"]
mod pages;
#[path = "command_line/peer.rs"]
mod peer;
mod support;
#[path = "command_line/terminal.rs"]
mod terminal;
#[path = "command_line/wait.rs"]
mod wait;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use csi_gateway::cli::{self, Invocation};
use csi_gateway::csi::Rpc;
use csi_gateway::demo::{FakeDriver, Reply};
use csi_gateway::domain::code::Code;
use rustix::process::Signal;
use support::process::{Serving, gateway, run, signal, until};

fn parse(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Invocation, String> {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    cli::parse(&arguments, &|name| variables.get(name).map(|&value| value.to_owned()))
        .map_err(|problems| problems.to_string())
}

#[test]
fn hosts_that_may_command_are_names_and_addresses_and_times_of_retirement_are_durations() {
    let Ok(Invocation::Serve(config)) = parse(
        &["serve", "--csi-address=/a", "--allowed-hosts=Gateway.Example.com,[::1]", "--allowed-hosts=10.0.0.1"],
        &[("CSI_GATEWAY_RETIRE_GONE", "2m"), ("CSI_GATEWAY_RETIRE_LOST", "36h")],
    ) else {
        panic!("it is right")
    };
    assert_eq!(config.allowed_hosts, ["gateway.example.com", "::1", "10.0.0.1"]);
    assert_eq!((config.retire_gone, config.retire_lost), (Duration::from_mins(2), Duration::from_hours(36)));
    let wrong = parse(
        &["serve", "--csi-address=/a", "--allowed-hosts=http://x,a:1", "--retire-gone=0s", "--retire-lost=never"],
        &[],
    );
    let expected = [
        "error: flag --retire-gone: `0s` is no duration above 0, such as 500ms, 30s or 1m30s",
        "error: flag --retire-lost: `never` is no duration above 0, such as 500ms, 30s or 1m30s",
        "error: flag --allowed-hosts: `http://x` is no name or address without scheme, port and path",
        "error: flag --allowed-hosts: `a:1` is no name or address without scheme, port and path",
    ];
    assert_eq!(wrong, Err(expected.join("\n")));
}

#[test]
fn flags_are_read_as_go_reads_them_and_win_over_variables() {
    let same = [
        parse(&["serve", "-csi-address=/csi/csi.sock", "-v=4", "-poll-interval", "1m"], &[]),
        parse(&["serve", "--csi-address", "unix:///csi/csi.sock", "--v", "4", "--poll-interval=60s"], &[]),
        parse(&["serve", "--v=4", "--poll-interval=1m0s"], &[("CSI_GATEWAY_CSI_ADDRESS", "unix://csi/csi.sock")]),
        parse(
            &["serve", "--poll-interval=5s", "--poll-interval=60s"],
            &[
                ("CSI_GATEWAY_POLL_INTERVAL", "7s"),
                ("CSI_GATEWAY_V", "4"),
                ("CSI_GATEWAY_CSI_ADDRESS", "/csi/csi.sock"),
            ],
        ),
    ];
    assert!(matches!(same[0], Ok(Invocation::Serve(_))), "{:?}", same[0]);
    for other in &same[1..] {
        assert_eq!(*other, same[0]);
    }
}

#[test]
fn a_source_that_is_given_switches_the_search_of_the_usual_places_off() {
    let endpoint = ("CSI_ENDPOINT", "unix://csi/csi.sock");
    let serve =
        |arguments: &[&str], variables: &[(&str, &str)]| match parse(&[&["serve"], arguments].concat(), variables) {
            Ok(Invocation::Serve(serve)) => serve,
            other => unreachable!("{arguments:?}: {other:?}"),
        };
    for source in ["--csi-address=/a", "--csi-plugins-dir=/a", "--kubelet-dir=/a", "--nomad-state-dir=/a"] {
        let config = serve(&[source], &[endpoint]);
        assert!(!config.sources.searches_well_known_places, "{source}");
        assert!(!config.sources.addresses.iter().any(|path| path.ends_with("csi/csi.sock")), "{source}");
    }
    let config = serve(&["--host-root=/host"], &[endpoint]);
    assert!(config.sources.searches_well_known_places);
    assert_eq!(config.sources.addresses, [std::path::PathBuf::from("/host/csi/csi.sock")]);
}

#[test]
fn help_lists_every_flag_with_its_variable_and_default() {
    for arguments in [&["--help"][..], &["help"], &[]] {
        let Ok(Invocation::Text(text)) = parse(arguments, &[]) else { unreachable!("help is no error") };
        for command in ["serve", "probe", "status", "demo", "version"] {
            assert!(text.contains(command), "{command} in {text}");
        }
    }
    for arguments in [&["serve", "--help"][..], &["help", "serve"], &["serve", "-h"]] {
        let Ok(Invocation::Text(text)) = parse(arguments, &[]) else { unreachable!("help is no error") };
        for part in ["--poll-interval <DURATION>", "CSI_GATEWAY_POLL_INTERVAL", "[default: 30s]", "csi-gateway serve"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[tokio::test]
async fn wrong_usage_exits_with_2_and_text_with_0() {
    let mut wrong = gateway();
    wrong.args(["serve", "--nonsense"]);
    let (code, out, err) = run(wrong).await;
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    assert!(err.starts_with("error: unknown flag --nonsense"), "{err}");
    let mut version = gateway();
    version.arg("version");
    let (code, out, _) = run(version).await;
    assert_eq!((code, out.trim()), (Some(0), concat!("csi-gateway ", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn a_probe_exits_with_0_if_the_driver_is_ready_and_with_4_and_a_reason_if_not() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let socket = folder.path().join("csi.sock");
    let driver = FakeDriver::node("node.example.com").serve(&socket).await.expect("a driver");
    let probe = |more: &[&str]| {
        let mut command = gateway();
        command.arg("probe").arg(&socket).args(more);
        run(command)
    };
    let (code, out, err) = probe(&[]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("ready: node.example.com 1.2.3\n") && out.contains("STAGE_UNSTAGE_VOLUME"), "{out}");
    let (_, out, _) = probe(&["--json"]).await;
    let found: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&found["Ready"], &found["NodeID"]), (&true.into(), &"n-1".into()));

    driver.set(Rpc::Probe, Reply::fail(Code::FailedPrecondition, "backend down"));
    let (code, out, err) = probe(&[]).await;
    assert_eq!((code, out.as_str()), (Some(4), ""));
    assert!(err.starts_with("not ready: ") && err.contains("backend down"), "{err}");
    driver.set(Rpc::Probe, Reply::hang());
    let (code, _, err) = probe(&["--probe-timeout=200ms"]).await;
    assert_eq!(code, Some(4), "{err}");
    driver.vanish().await;
    let (code, _, err) = probe(&[]).await;
    assert_eq!(code, Some(4), "{err}");
}

#[tokio::test]
async fn status_shows_the_table_one_plugin_or_why_not() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let arguments = ["demo", "--hosts=2", "--plugins=12", "--http-endpoint=127.0.0.1:0"];
    let serving = Serving::start(&arguments, &folder.path().join("log")).await;
    until("the fleet is there", async || match serving.json("/v1/plugins?type=csi").await.as_array().map(Vec::len) {
        Some(12) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let status = |more: &[&str]| {
        let mut command = gateway();
        command.args(["status", "-address", &serving.address]).args(more);
        run(command)
    };
    let (code, out, err) = status(&[]).await;
    assert_eq!((code, out.lines().count()), (Some(0), 14), "{err}");
    assert!(out.starts_with("Container Storage Interface\nID         Provider"), "{out}");
    assert!(out.contains("demo-0000  demo-0000.csi.example.com  1/1                           2/2"), "{out}");
    let (code, out, err) = status(&["demo-0003"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("Nodes Healthy        = 2") && out.contains("Version              = 1.0.0"), "{out}");
    let (code, out, err) = status(&["demo-001"]).await;
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        err.contains("demo-0010") && err.contains("demo-0011") && err.contains("matched multiple plugins"),
        "{err}"
    );
    let (code, _, err) = status(&["zzz"]).await;
    assert_eq!(code, Some(1));
    assert_eq!(err.trim(), "error: no plugins with prefix or ID \"zzz\" found");
    let mut nobody = gateway();
    nobody.args(["status", "--address=http://127.0.0.1:1"]);
    let (code, _, err) = run(nobody).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("is a gateway running there?"), "{err}");
}

#[tokio::test]
async fn a_blocked_reader_of_a_made_fleet_sees_one_instance_change_its_health() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let arguments = ["demo", "--hosts=3", "--plugins=2", "--flap=50ms", "--http-endpoint=127.0.0.1:0"];
    let serving = Serving::start(&arguments, &folder.path().join("log")).await;
    let path = "/v1/plugin/csi/demo-0000";
    until("the fleet is there", async || match serving.get(path).await.status.as_u16() {
        200 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    for _ in 0..5 {
        let before = serving.json(path).await["NodesHealthy"].clone();
        let index = serving.index(path).await;
        let after = serving.json(&format!("{path}?index={index}&wait=30s")).await;
        assert_eq!(after["NodesExpected"], 3);
        assert!(after["NodesHealthy"] == 2 || after["NodesHealthy"] == 3, "{before} then {after}");
        assert!(after["ModifyIndex"].as_u64().is_some_and(|modified| modified > index), "{index} then {after}");
    }
}

#[tokio::test]
async fn the_demo_serves_what_it_says_ends_by_ctrl_c_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let mut child = gateway()
        .args(["demo", "--http-endpoint=127.0.0.1:0"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut said = String::new();
    while !said.contains("Ctrl-C") {
        let mut buffer = [0; 4096];
        let read =
            tokio::time::timeout(Duration::from_secs(60), tokio::io::AsyncReadExt::read(&mut stdout, &mut buffer));
        let read = read.await.expect("it goes on").expect("readable");
        assert!(read > 0, "it ended: {said}");
        said.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(said.contains("block.demo.example.com") && said.contains("local.demo.example.com"), "{said}");
    let lines: Vec<&str> = said.lines().filter_map(|line| line.trim().strip_prefix("curl '")).collect();
    assert!(lines.len() >= 4, "{said}");
    for line in lines {
        let url = line.trim_end_matches('\'');
        let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("an address");
        let answer =
            csi_gateway::commands::http::get(&format!("http://{host}"), &format!("/{path}")).await.expect("served");
        assert_eq!(answer.status, 200, "{url}");
    }
    signal(&child, Signal::INT);
    let status = tokio::time::timeout(Duration::from_secs(60), child.wait()).await.expect("it ends").expect("it ran");
    assert_eq!(status.code(), Some(0));
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "something is left behind");
}
