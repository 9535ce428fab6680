//! The built binary killed and started again on one state directory. Guards against the loss of what was acknowledged:
//! a record, a transition, or an index that a client has seen.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use csi_gateway::csi::Rpc;
use csi_gateway::demo::{FakeDriver, Reply, ServedDriver};
use csi_gateway::domain::code::Code;
use rustix::process::Signal;
use support::process::{Serving, gateway, run, signal, until};

/// Kills of the gateway amid writes.
const KILLS: u32 = 200;
const NAMES: [&str; 3] = ["alpha.example.com", "beta.example.com", "gamma.example.com"];

async fn drivers(folder: &Path) -> Vec<ServedDriver> {
    let mut drivers = Vec::new();
    for name in NAMES {
        drivers.push(FakeDriver::node(name).serve(folder.join(name).join("csi.sock")).await.expect("a driver"));
    }
    drivers
}

fn arguments(folder: &Path, names: &[&str], more: &[&str]) -> Vec<String> {
    let mut arguments = vec!["serve".to_owned(), "--http-endpoint=127.0.0.1:0".to_owned()];
    arguments.push("--host-id=host-12345678".to_owned());
    arguments.push(format!("--state-dir={}", folder.join("state").display()));
    let address = |name: &&str| format!("--csi-address={}", folder.join(name).join("csi.sock").display());
    arguments.extend(names.iter().map(address));
    arguments.extend(more.iter().map(|&flag| flag.to_owned()));
    arguments
}

async fn start(folder: &Path, names: &[&str], more: &[&str]) -> Serving {
    let arguments = arguments(folder, names, more);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Serving::start(&arguments, &folder.join("gateway.log")).await
}

async fn listed(serving: &Serving) -> BTreeSet<String> {
    let list = serving.json("/v1/plugins?type=csi").await;
    list.as_array().expect("a list").iter().map(|stub| stub["ID"].as_str().expect("an id").to_owned()).collect()
}

async fn all_known(serving: &Serving) {
    until("all are known", async || match listed(serving).await {
        list if list == all() => Ok(()),
        list => Err(format!("{list:?}")),
    })
    .await;
}

fn all() -> BTreeSet<String> {
    NAMES.map(str::to_owned).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_amid_writes_it_loses_nothing_and_its_index_does_not_fall() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let drivers = drivers(folder.path()).await;
    // Moods change at every look, so that every look is a write.
    let moody = tokio::spawn(async move {
        loop {
            for (place, reply) in
                [Reply::ready(), Reply::fail(Code::Internal, "flap"), Reply::starting()].iter().enumerate()
            {
                drivers[place % drivers.len()].set(Rpc::Probe, reply.clone());
                drivers[(place + 1) % drivers.len()].set(Rpc::Probe, Reply::ready());
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
    });
    let serving = start(folder.path(), &NAMES, &["--poll-interval=5ms"]).await;
    all_known(&serving).await;
    serving.kill().await;

    let mut highest = 0;
    let mut newest_transition = 0;
    for round in 1..=KILLS {
        let serving = start(folder.path(), &NAMES, &["--poll-interval=5ms"]).await;
        // The very first read.
        let first = serving.get("/v1/plugins?type=csi").await;
        let index: u64 = first.headers["X-Nomad-Index"].to_str().expect("text").parse().expect("a number");
        assert!(index >= highest, "round {round}: the index fell from {highest} to {index}");
        let list: serde_json::Value = serde_json::from_slice(&first.body).expect("a list");
        assert_eq!(list.as_array().map(Vec::len), Some(NAMES.len()), "round {round}: {list}");
        let history = serving.json("/v1/gateway/history?limit=1").await;
        let transition = history[0]["Index"].as_u64().expect("a transition is there");
        assert!(transition >= newest_transition, "round {round}: {transition} after {newest_transition}");

        tokio::time::sleep(Duration::from_millis(u64::from(round % 23))).await;
        newest_transition = serving.json("/v1/gateway/history?limit=1").await[0]["Index"].as_u64().expect("an index");
        highest =
            highest.max(serving.index("/v1/gateway/plugins").await).max(serving.index("/v1/plugins?type=csi").await);
        serving.kill().await;
    }
    moody.abort();
}

#[tokio::test]
async fn until_every_driver_was_looked_at_stored_answers_say_that_they_are_old() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let drivers = drivers(folder.path()).await;
    let serving = start(folder.path(), &NAMES, &[]).await;
    all_known(&serving).await;
    serving.kill().await;

    drivers[0].set(Rpc::Probe, Reply::hang());
    let serving = start(folder.path(), &NAMES, &["--probe-timeout=2s"]).await;
    let answer = serving.get("/v1/plugins?type=csi").await;
    assert_eq!(answer.headers["X-Nomad-Knownleader"], "false");
    assert_eq!(listed(&serving).await, all(), "what is stored is served at once");
    assert_eq!(serving.get("/readyz").await.status, 500);
    until("the scan is complete", async || {
        let answer = serving.get("/v1/plugins?type=csi").await;
        if answer.headers["X-Nomad-Knownleader"] == "true" { Ok(()) } else { Err(format!("{:?}", answer.headers)) }
    })
    .await;
    assert_eq!(serving.get("/readyz").await.status, 200);
    let hung = serving.json("/v1/plugin/csi/alpha.example.com").await;
    assert_eq!(hung["NodesHealthy"], 0, "the scan found out: {hung}");
}

#[tokio::test]
async fn a_driver_whose_address_was_taken_out_is_retired_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let _drivers = drivers(folder.path()).await;
    let serving = start(folder.path(), &NAMES, &[]).await;
    all_known(&serving).await;
    let before = serving.index("/v1/plugins?type=csi").await;
    serving.kill().await;

    let serving = start(folder.path(), &NAMES[..2], &[]).await;
    until("the third is gone", async || match listed(&serving).await.len() {
        2 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    assert!(serving.index("/v1/plugins?type=csi").await > before);
    let history = serving.json("/v1/gateway/history?plugin=gamma.example.com&limit=1").await;
    assert!(history.to_string().to_lowercase().contains("retired"), "{history}");
}

#[tokio::test]
async fn a_signal_ends_it_within_a_second_and_whoever_waits_is_answered() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let _drivers = drivers(folder.path()).await;
    let mut serving = start(folder.path(), &NAMES, &[]).await;
    all_known(&serving).await;
    let index = serving.index("/v1/plugins?type=csi").await;
    let readers: Vec<_> = (0..50)
        .map(|_| {
            let (address, path) = (serving.address.clone(), format!("/v1/plugins?type=csi&index={index}&wait=60s"));
            tokio::spawn(async move { csi_gateway::commands::http::get(&address, &path).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let told = Instant::now();
    signal(&serving.child, Signal::TERM);
    for reader in readers {
        let answer = reader.await.expect("no panic").expect("an answer");
        assert_eq!(answer.status, 200);
    }
    let status = serving.child.wait().await.expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(5), "it took {:?}", told.elapsed());
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_used_ends_the_start_and_is_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let state = folder.path().join("state");
    std::fs::create_dir(&state).expect("a state folder");
    let file = state.join("state.redb");
    for content in [&b""[..], b"this is no state file", &[0; 8192]] {
        std::fs::write(&file, content).expect("a damaged file");
        let mut command = gateway();
        command.args(arguments(folder.path(), &NAMES, &[]));
        let (code, _, err) = run(command).await;
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains("state.redb") && err.contains("left as it is"), "{err}");
        assert_eq!(std::fs::read(&file).expect("still there"), content);
    }
    std::fs::remove_file(&file).expect("still there");

    let serving = start(folder.path(), &NAMES, &[]).await;
    let mut second = gateway();
    second.args(arguments(folder.path(), &NAMES, &[]));
    let (code, _, err) = run(second).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("in use by another csi-gateway"), "{err}");
    assert!(listed(&serving).await.is_empty(), "the first one goes on");
}
