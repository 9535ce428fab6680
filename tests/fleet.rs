//! Fleets over a real etcd, with the built binary as every agent and aggregator.

#[path = "tls/authority.rs"]
#[allow(dead_code, reason = "a binary uses its own part of it")]
mod authority;
#[path = "fleet/in_process.rs"]
mod in_process;
mod support;
#[path = "fleet/troubles.rs"]
mod troubles;

use std::path::Path;
use std::time::{Duration, Instant};

use csi_gateway::commands::http::{self, Answer};
use csi_gateway::csi::Rpc;
use csi_gateway::demo::{FakeDriver, Reply, ServedDriver};
use csi_gateway::domain::code::Code;
use csi_gateway::transport::pb::csi;
use serde_json::Value;
use support::etcd::{EtcdServer, Proxy, Wire, program};
use support::process::{Serving, gateway, run, until};
use tempfile::TempDir;

/// The plugin that every host has.
const PLUGIN: &str = "drv.example.com";
/// How long an agent may be silent here.
const TTL: Duration = Duration::from_secs(3);

/// A host: its driver and its agent.
struct Host {
    driver: ServedDriver,
    agent: Option<Serving>,
    arguments: Vec<String>,
    folder: TempDir,
}

impl Host {
    async fn new(id: &str, servers: &str, driver: FakeDriver, more: &[&str]) -> Self {
        let folder = TempDir::new().expect("a scratch folder");
        let socket = folder.path().join("csi.sock");
        let driver = driver.serve(&socket).await.expect("binds");
        let mut arguments = vec![
            "serve".to_owned(),
            "--role=agent".to_owned(),
            "--http-endpoint=127.0.0.1:0".to_owned(),
            format!("--host-id={id}"),
            format!("--etcd-servers={servers}"),
            format!("--host-ttl={}s", TTL.as_secs()),
            "--poll-interval=100ms".to_owned(),
            format!("--csi-address={}", socket.display()),
            format!("--state-dir={}", folder.path().join("state").display()),
        ];
        arguments.extend(more.iter().map(|&flag| flag.to_owned()));
        let mut host = Self { driver, agent: None, arguments, folder };
        host.start().await;
        host
    }

    async fn start(&mut self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.agent = Some(Serving::start(&arguments, &self.folder.path().join("agent.log")).await);
    }

    fn agent(&self) -> &Serving {
        self.agent.as_ref().expect("the agent runs")
    }

    async fn kill(&mut self) {
        self.agent.take().expect("the agent runs").kill().await;
    }

    fn sicken(&self) {
        self.driver.set(Rpc::Probe, Reply::fail(Code::Internal, "sick"));
    }

    fn heal(&self) {
        self.driver.set(Rpc::Probe, Reply::ready());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("agent.log")).unwrap_or_default()
    }
}

async fn aggregator(servers: &str, log: &Path, more: &[&str]) -> Serving {
    let servers = format!("--etcd-servers={servers}");
    let ttl = format!("--host-ttl={}s", TTL.as_secs());
    let arguments = [&["serve", "--role=aggregator", "--http-endpoint=127.0.0.1:0", &servers, &ttl], more].concat();
    Serving::start(&arguments, log).await
}

async fn plugin(of: &Serving) -> Option<(Value, u64)> {
    let answer = http::get(&of.address, &format!("/v1/plugin/csi/{PLUGIN}")).await.ok()?;
    let index = answer.index()?;
    (answer.status == 200).then(|| (serde_json::from_slice(&answer.body).unwrap_or_default(), index))
}

/// Waits until the plugin is as wanted.
async fn plugin_until(of: &Serving, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    until(what, async || match plugin(of).await {
        Some((plugin, _)) if is_so(&plugin) => Ok(plugin),
        other => Err(format!("{other:?}")),
    })
    .await
}

fn nodes(healthy: u64, expected: u64) -> impl Fn(&Value) -> bool {
    move |plugin| plugin["NodesHealthy"] == healthy && plugin["NodesExpected"] == expected
}

fn is_current(answer: &Answer) -> bool {
    answer.headers.get("X-Nomad-KnownLeader").is_some_and(|value| value == "true")
}

/// Body and index of what an aggregator shows of everything, once it is current.
async fn all(of: &Serving) -> (String, u64) {
    until("it is current", async || {
        let answer = of.get("/v1/gateway/plugins").await;
        if !is_current(&answer) {
            return Err(format!("{answer:?}"));
        }
        Ok((answer.text().into_owned(), answer.index().unwrap_or_default()))
    })
    .await
}

/// Waits until two aggregators show the same under the same index.
async fn equal(first: &Serving, second: &Serving) -> u64 {
    until("both show the same under the same index", async || {
        let (one, two) = (all(first).await, all(second).await);
        let details = format!("/v1/plugin/csi/{PLUGIN}");
        let (a, b) = (first.get(&details).await, second.get(&details).await);
        if one == two && a.body == b.body && a.index() == b.index() {
            Ok(one.1)
        } else {
            Err(format!("{one:?}\n{two:?}"))
        }
    })
    .await
}

struct Fleet {
    hosts: Vec<Host>,
    aggregators: Vec<Serving>,
    folder: TempDir,
    etcd: EtcdServer,
}

impl Fleet {
    /// Three hosts, of which the first has a controller, too, and two aggregators.
    async fn new(program: &Path) -> Self {
        let etcd = EtcdServer::start(program, &[]).await;
        let folder = TempDir::new().expect("a scratch folder");
        let servers = etcd.url();
        let mut hosts = Vec::new();
        for id in ["host-aaaa", "host-bbbb", "host-cccc"] {
            let (driver, kind) = if id == "host-aaaa" {
                (FakeDriver::monolith(PLUGIN), "--plugin-type=monolith")
            } else {
                (FakeDriver::node(PLUGIN), "--plugin-type=node")
            };
            hosts.push(Host::new(id, &servers, driver, &[kind]).await);
        }
        let mut aggregators = Vec::new();
        for number in 0..2 {
            aggregators.push(aggregator(&servers, &folder.path().join(format!("aggregator-{number}.log")), &[]).await);
        }
        Self { hosts, aggregators, folder, etcd }
    }

    async fn on_both(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        plugin_until(&self.aggregators[0], what, &is_so).await;
        plugin_until(&self.aggregators[1], what, &is_so).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hosts_are_one_plugin_in_two_aggregators_and_a_silent_one_is_lost_until_it_is_back() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::new(&program).await;
    // Case 76.
    let known = fleet.on_both("all three are healthy", nodes(3, 3)).await;
    assert_eq!((&known["ControllersHealthy"], &known["ControllersExpected"]), (&1.into(), &1.into()));
    assert_eq!(known["ControllerRequired"], true);
    equal(&fleet.aggregators[0], &fleet.aggregators[1]).await;

    // Cases 79 to 81: an index moves once each way, and not while nothing changes.
    fleet.hosts[1].sicken();
    let sick = fleet.on_both("one is sick", nodes(2, 3)).await;
    assert_eq!(sick["Nodes"].as_object().map(serde_json::Map::len), Some(3));
    assert!(sick["ModifyIndex"].as_u64() > known["ModifyIndex"].as_u64());
    let before = equal(&fleet.aggregators[0], &fleet.aggregators[1]).await;
    let revision = fleet.etcd.owner().revision().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(fleet.etcd.owner().revision().await, revision, "five polls with the same result wrote something");
    assert_eq!(equal(&fleet.aggregators[0], &fleet.aggregators[1]).await, before);
    fleet.hosts[1].heal();
    fleet.on_both("it is healthy again", nodes(3, 3)).await;

    // Case 82.
    fleet.hosts[2].kill().await;
    let silent = Instant::now();
    let lost = fleet.on_both("the silent host is lost", nodes(2, 3)).await;
    assert!(silent.elapsed() < TTL + Duration::from_secs(1), "lost only after {:?}", silent.elapsed());
    // Both saw it, and one wrote it: the agent when it came was the first to write this key.
    let states = fleet.etcd.owner().list("/csi-gateway/v1/hosts/host-cccc/state").await;
    assert_eq!(states.iter().map(|pair| pair.version).collect::<Vec<_>>(), [2]);
    let description = lost["Nodes"]["host-cccc"]["HealthDescription"].as_str().unwrap_or_default();
    assert!(description.starts_with("host agent unreachable since 2"), "{description}");
    equal(&fleet.aggregators[0], &fleet.aggregators[1]).await;
    let detail = fleet.aggregators[0].json(&format!("/v1/gateway/plugin/{PLUGIN}")).await;
    assert_eq!(detail["Nodes"]["host-cccc"]["Phase"], "lost");
    let hosts = fleet.aggregators[1].json("/v1/gateway/hosts").await;
    let agent = |host: usize| &hosts[host]["Agent"];
    assert!(agent(0)["Since"].is_string() && agent(0)["Version"] == env!("CARGO_PKG_VERSION"), "{hosts}");
    assert!(agent(1)["Since"].is_string() && agent(2).is_null(), "{hosts}");

    // Case 83, and a new aggregator shows the same.
    fleet.hosts[2].start().await;
    let back = fleet.on_both("it is back", nodes(3, 3)).await;
    assert_eq!(back["CreateIndex"], known["CreateIndex"]);
    let newcomer = aggregator(&fleet.etcd.url(), &fleet.folder.path().join("newcomer.log"), &[]).await;
    equal(&newcomer, &fleet.aggregators[0]).await;
    assert_eq!(plugin(&newcomer).await.map(|(plugin, _)| plugin), Some(back));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_agents_see_of_their_sockets_is_shown_by_aggregators_and_written_when_it_is_another() {
    let Some(program) = program() else { return };
    let (etcd, folder) = (EtcdServer::start(&program, &[]).await, TempDir::new().expect("a scratch folder"));
    let (other, twin) = (folder.path().join("other.sock"), folder.path().join("twin.sock"));
    let more = [&other, &twin].map(|path| format!("--csi-address={}", path.display()));
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let mut first = Host::new("host-aaaa", &etcd.url(), FakeDriver::monolith(PLUGIN), &more).await;
    let second = Host::new("host-bbbb", &etcd.url(), FakeDriver::node(PLUGIN), &[]).await;
    let shown = aggregator(&etcd.url(), &folder.path().join("aggregator.log"), &[]).await;
    let sockets = async |query: &str| {
        let body = shown.json(&format!("/v1/gateway/sockets{query}")).await;
        let all = body["Sockets"].as_array().expect("a list").clone();
        let text = |socket: &Value, key: &str| socket[key].as_str().unwrap_or_default().to_owned();
        let of = |socket: &Value| ["Host", "Path", "Phase", "Reason"].map(|key| text(socket, key));
        (all.iter().map(of).collect::<Vec<_>>(), body)
    };
    let until_shown = async |what: &str, query: &str, is_so: &dyn Fn(&[[String; 4]]) -> bool| {
        until(what, async || {
            let (all, body) = sockets(query).await;
            if is_so(&all) { Ok(body) } else { Err(format!("{all:?}")) }
        })
        .await
    };
    let phases = |all: &[[String; 4]]| all.iter().map(|socket| socket[2].clone()).collect::<Vec<_>>();
    let known = until_shown("both hosts' sockets are shown", "", &|all| {
        let mut phases = phases(all);
        phases.sort();
        phases == ["gone", "gone", "healthy", "healthy"]
    })
    .await;
    let own = first.agent().json("/v1/gateway/sockets").await;
    let of_first = sockets("?host=host-aaaa").await.1;
    assert_eq!((&own["Searched"], &own["LeftOut"]), (&of_first["Searched"], &0.into()));
    for (own, told) in
        own["Sockets"].as_array().expect("a list").iter().zip(of_first["Sockets"].as_array().expect("a list"))
    {
        for key in
            ["Host", "Path", "Phase", "PID", "PluginID", "Provider", "Reason", "Role", "Roles", "Source", "Inode"]
        {
            assert_eq!(own[key], told[key], "{key}: {own}\n{told}");
        }
        assert!(told["LastProbeTime"].is_null(), "{told}");
    }
    assert_eq!(shown.json("/v1/gateway").await["Sockets"], 4);
    assert_eq!(known["Sockets"].as_array().map(Vec::len), Some(4));

    // Health is the instances' matter: it is told with them, at once, and the table is not written again.
    let written = async || {
        let table = etcd.owner().list("/csi-gateway/v1/sockets/").await;
        table.iter().map(|pair| pair.version).collect::<Vec<_>>()
    };
    let before = written().await;
    second.sicken();
    let sick = ["host-bbbb", "unhealthy", "Probe failed with Internal: sick"];
    until_shown("the second is sick", "?host=host-bbbb", &|all| {
        all.len() == 1 && [&*all[0][0], &*all[0][2], &*all[0][3]] == sick
    })
    .await;
    second.heal();
    until_shown("it is healthy again", "?host=host-bbbb", &|all| phases(all) == ["healthy"]).await;
    let index = all(&shown).await.1;
    let twin = FakeDriver::node(PLUGIN).serve(&twin).await.expect("binds");
    until_shown("the same driver a second time", "?host=host-aaaa", &|all| {
        phases(all).iter().filter(|phase| *phase == "healthy").count() == 2
    })
    .await;
    let host = shown.json("/v1/gateway/host/host-aaaa").await;
    assert_eq!(host["Duplicates"], first.agent().json("/v1/gateway/host/host-aaaa").await["Duplicates"], "{host}");
    assert_eq!(host["Duplicates"].as_array().map(Vec::len), Some(1), "{host}");
    assert_eq!(all(&shown).await.1, index, "a side table moves no index");
    let after = written().await;
    assert!(after[0] > before[0] && after[1] == before[1], "{before:?} {after:?}");

    // Nobody knows any more what is there, and in the end nothing is told of it.
    first.kill().await;
    until_shown("the first is lost", "?host=host-aaaa", &|all| {
        all.iter().all(|[_, _, phase, reason]| phase == "lost" && reason.starts_with("the host, its network or"))
    })
    .await;
    drop(twin);
    let mut forget = gateway();
    forget.args(["forget", PLUGIN, "--host=host-aaaa", &format!("--address={}", shown.address)]);
    let (code, _, error) = run(forget).await;
    assert_eq!(code, Some(0), "{error}");
    until_shown("what is left", "", &|all| all.len() == 1 && all[0][0] == "host-bbbb").await;
    assert_eq!(written().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_counted_over_hosts_a_restart_takes_nothing_away_and_a_plugin_may_move() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::new(&program).await;
    fleet.on_both("all three are healthy", nodes(3, 3)).await;
    // Case 85.
    for host in &fleet.hosts[1..] {
        let info = csi::GetPluginInfoResponse {
            name: PLUGIN.to_owned(),
            vendor_version: "2.0.0".to_owned(),
            manifest: std::collections::BTreeMap::default(),
        };
        host.driver.set(Rpc::PluginInfo, Reply::message(&info));
    }
    let versions = |plugin: &Value| plugin["Version"] == "2.0.0";
    fleet.on_both("most have the new version", versions).await;
    let detail = fleet.aggregators[1].json(&format!("/v1/gateway/plugin/{PLUGIN}")).await;
    assert_eq!(detail["Versions"], serde_json::json!({"1.2.3": 2, "2.0.0": 2}), "{detail}");

    // Case 86: an agent that is back and has not looked at everything yet takes nothing away.
    fleet.hosts[1].kill().await;
    fleet.hosts[1].driver.set(Rpc::Probe, Reply::hang());
    fleet.hosts[1].start().await;
    let seen = fleet.aggregators[0].json(&format!("/v1/plugin/csi/{PLUGIN}")).await;
    assert!(seen["Nodes"]["host-bbbb"].is_object(), "{seen}");
    fleet.hosts[1].heal();
    fleet.on_both("it is as it was", nodes(3, 3)).await;

    // Case 88: from the second host to a fourth one.
    let stop = tokio_util::sync::CancellationToken::new();
    let watching = tokio::spawn({
        let (address, stop) = (fleet.aggregators[0].address.clone(), stop.clone());
        async move {
            let mut most = 0;
            while !stop.is_cancelled() {
                let answer = http::get(&address, &format!("/v1/plugin/csi/{PLUGIN}")).await.expect("it answers");
                let plugin: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                most = most.max(plugin["Nodes"].as_object().map_or(0, serde_json::Map::len));
                assert!(plugin["NodesHealthy"].as_u64() <= plugin["NodesExpected"].as_u64(), "{plugin}");
            }
            most
        }
    });
    let moved = Host::new("host-dddd", &fleet.etcd.url(), FakeDriver::node(PLUGIN), &["--plugin-type=node"]).await;
    fleet.on_both("it is on both", nodes(4, 4)).await;
    fleet.hosts[1].kill().await;
    fleet.on_both("the old one is lost", nodes(3, 4)).await;
    let mut forget = gateway();
    let address = format!("--address={}", fleet.aggregators[1].address);
    forget.args(["forget", PLUGIN, "--host=host-bbbb", &address]);
    let (code, _, error) = run(forget).await;
    assert_eq!(code, Some(0), "{error}");
    let after = fleet.on_both("the old one is gone", nodes(3, 3)).await;
    assert!(after["Nodes"]["host-dddd"]["Healthy"] == true && after["Nodes"]["host-bbbb"].is_null(), "{after}");
    stop.cancel();
    assert_eq!(watching.await.expect("it ends"), 4);
    drop(moved);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reply_that_counts_as_current_shows_a_host_healthy_that_has_been_silent_for_too_long() {
    let Some(program) = program() else { return };
    let mut members = EtcdServer::cluster::<3>(&program, &[]).await;
    let servers: Vec<String> = members.iter().map(EtcdServer::url).collect();
    let servers = servers.join(",");
    let folder = TempDir::new().expect("a scratch folder");
    let mut host = Host::new("host-aaaa", &servers, FakeDriver::node(PLUGIN), &["--plugin-type=node"]).await;
    let mut aggregators = Vec::new();
    for number in 0..2 {
        aggregators.push(aggregator(&servers, &folder.path().join(format!("{number}.log")), &[]).await);
    }
    for round in 0..6 {
        for one in &aggregators {
            plugin_until(one, "it is healthy", nodes(1, 1)).await;
        }
        let kills_member = round % 2 == 1;
        if kills_member {
            members[round % 3].kill().await;
        }
        host.kill().await;
        let silent = Instant::now();
        // It may have been the leader, and then every lease is as good as new once.
        let allowed = TTL * if kills_member { 2 } else { 1 } + Duration::from_secs(1);
        let mut is_lost = [false; 2];
        while is_lost != [true; 2] {
            for (one, is_lost) in aggregators.iter().zip(&mut is_lost) {
                let asked = silent.elapsed();
                let answer = one.get(&format!("/v1/plugin/csi/{PLUGIN}")).await;
                let plugin: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let is_healthy = plugin["Nodes"]["host-aaaa"]["Healthy"] == true;
                assert!(!(is_current(&answer) && is_healthy && asked > allowed), "healthy after {asked:?}: {answer:?}");
                *is_lost = !is_healthy;
            }
            assert!(silent.elapsed() < support::process::PATIENCE, "it is never lost");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        host.start().await;
        if kills_member {
            members[round % 3].resume().await;
            members[round % 3].until_ready().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_a_member_that_is_cut_off_from_the_others_is_not_taken_in() {
    let Some(program) = program() else { return };
    // Less time than it takes a member to notice.
    let (short, ttl) = ("--host-ttl=2s", Duration::from_secs(2));
    let (members, network) = EtcdServer::divisible_cluster::<3>(&program).await;
    let mut lonely = 0;
    // A new leader would give every lease its whole time again.
    while members[lonely].owner().is_leader().await {
        lonely += 1;
    }
    let others: Vec<String> = (0..3).filter(|number| *number != lonely).map(|number| members[number].url()).collect();
    let (others, alone) = (others.join(","), members[lonely].url());
    let folder = TempDir::new().expect("a scratch folder");
    let mut host = Host::new("host-aaaa", &others, FakeDriver::node(PLUGIN), &["--plugin-type=node", short]).await;
    let cut = Host::new("host-bbbb", &alone, FakeDriver::node(PLUGIN), &["--plugin-type=node", short]).await;
    let with_them = aggregator(&others, &folder.path().join("with.log"), &[short]).await;
    let with_it = aggregator(&alone, &folder.path().join("alone.log"), &[short]).await;
    plugin_until(&with_them, "both are healthy", nodes(2, 2)).await;
    let before = equal(&with_them, &with_it).await;

    network.cut_off(lonely);
    host.kill().await;
    let silent = Instant::now();
    let (mut is_lost, mut is_honest) = (false, false);
    while !is_lost || !is_honest || silent.elapsed() < ttl + Duration::from_secs(2) {
        for one in [&with_them, &with_it] {
            let asked = silent.elapsed();
            let answer = one.get(&format!("/v1/plugin/csi/{PLUGIN}")).await;
            let plugin: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let is_healthy = plugin["Nodes"]["host-aaaa"]["Healthy"] == true;
            let is_late = asked > ttl + Duration::from_secs(1);
            assert!(!(is_current(&answer) && is_healthy && is_late), "healthy after {asked:?}: {answer:?}");
            is_lost |= std::ptr::eq(one, &with_them) && plugin["NodesHealthy"] == 0;
            is_honest |= std::ptr::eq(one, &with_it) && !is_current(&answer);
        }
        assert!(silent.elapsed() < support::process::PATIENCE, "lost: {is_lost}, honest: {is_honest}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Whoever speaks to it is silent for the others, and knows about its own host all the same.
    plugin_until(cut.agent(), "its own view is what it was", nodes(1, 1)).await;
    assert!(is_current(&cut.agent().get("/v1/plugins?type=csi").await));
    // A reader that comes from the others is not shown less as current.
    let seen = with_them.index("/v1/plugins?type=csi").await;
    assert!(seen > before);
    assert!(!is_current(&with_it.get(&format!("/v1/plugins?type=csi&index={seen}&wait=100ms")).await));

    network.join();
    plugin_until(&with_them, "the one that was cut off is back", nodes(1, 2)).await;
    assert!(equal(&with_them, &with_it).await > seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_etcd_is_away_agents_tell_the_truth_and_aggregators_say_that_they_cannot() {
    let Some(program) = program() else { return };
    let mut fleet = Fleet::new(&program).await;
    fleet.on_both("all three are healthy", nodes(3, 3)).await;
    let before = equal(&fleet.aggregators[0], &fleet.aggregators[1]).await;
    fleet.etcd.kill().await;
    fleet.hosts[0].sicken();
    plugin_until(fleet.hosts[0].agent(), "the agent knows", |plugin| plugin["NodesHealthy"] == 0).await;
    assert!(is_current(&fleet.hosts[0].agent().get("/v1/plugins?type=csi").await));
    let answer = until("the aggregator no longer vouches", async || {
        let answer = fleet.aggregators[0].get("/v1/plugins?type=csi").await;
        if is_current(&answer) { Err(format!("{answer:?}")) } else { Ok(answer) }
    })
    .await;
    assert_eq!(answer.status, 200);
    let contact: u64 = answer.headers["X-Nomad-LastContact"].to_str().expect("text").parse().expect("a number");
    assert!(contact >= 1000, "{contact}");
    assert!(answer.text().contains(PLUGIN), "the last catalog is served");
    for (of, what) in [(fleet.hosts[0].agent(), "changes wait for it"), (&fleet.aggregators[1], "etcd")] {
        until("its trouble is told", async || {
            let ready = of.get("/readyz").await;
            assert_eq!(ready.status, 200);
            let text = ready.text().into_owned();
            if text.contains("etcd cannot be reached") && text.contains(what) { Ok(()) } else { Err(text) }
        })
        .await;
        let metrics = of.get("/metrics").await.text().into_owned();
        assert!(metrics.contains("csi_gateway_fleet_trouble{kind=\"away\"} 1"), "{metrics}");
        assert!(metrics.contains("csi_gateway_fleet_in_step 0"), "{metrics}");
    }
    fleet.etcd.resume().await;
    fleet.on_both("what happened meanwhile is told", nodes(2, 3)).await;
    assert!(equal(&fleet.aggregators[0], &fleet.aggregators[1]).await > before);
    let ready = until("nothing is wrong any more", async || {
        let text = fleet.hosts[0].agent().get("/readyz").await.text().into_owned();
        if text.trim() == "ok" { Ok(text) } else { Err(text) }
    });
    ready.await;
    assert!(fleet.hosts[0].log().contains("in step with etcd again"), "{}", fleet.hosts[0].log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_cut_off_is_lost_and_back_and_a_lost_answer_loses_and_doubles_nothing() {
    let Some(program) = program() else { return };
    let etcd = EtcdServer::start(&program, &[]).await;
    let folder = TempDir::new().expect("a scratch folder");
    let wire = Proxy::to(etcd.address()).await;
    let host = Host::new("host-aaaa", &wire.url(), FakeDriver::node(PLUGIN), &["--plugin-type=node"]).await;
    let aggregator = aggregator(&etcd.url(), &folder.path().join("aggregator.log"), &[]).await;
    plugin_until(&aggregator, "it is healthy", nodes(1, 1)).await;

    // What is sent arrives, and no answer comes back.
    for round in 0..4 {
        let written = etcd.owner().revision().await;
        wire.set(Wire::Mute);
        if round % 2 == 0 {
            host.sicken()
        } else {
            host.heal()
        }
        until("it is written", async || match etcd.owner().revision().await {
            revision if revision > written => Ok(()),
            revision => Err(revision.to_string()),
        })
        .await;
        wire.set(Wire::Whole);
        let healthy = u64::from(round % 2 == 1);
        plugin_until(&aggregator, "it is shown", nodes(healthy, 1)).await;
        until("the agent is in step", async || {
            let view = host.agent().json("/v1/gateway").await;
            if view["Fleet"]["InStep"] == true { Ok(()) } else { Err(view.to_string()) }
        })
        .await;
    }
    // Each change is told once: that it appeared, perhaps a look before the first answer, and four changes.
    let mine: Vec<Value> = host.agent().json("/v1/gateway/history").await.as_array().expect("a list").clone();
    let changes = |list: &[Value]| {
        let of = |entry: &Value| format!("{} {} {}", entry["At"], entry["Kind"], entry["To"]);
        let mut all: Vec<String> =
            list.iter().filter(|entry| entry["From"] != "lost" && entry["To"] != "lost").map(of).collect();
        all.sort();
        all
    };
    let shown = until("all of them are told", async || {
        let shown = aggregator.json("/v1/gateway/history").await.as_array().expect("a list").clone();
        if changes(&shown) == changes(&mine) { Ok(shown) } else { Err(format!("{shown:#?}\n{mine:#?}")) }
    })
    .await;
    assert!(shown.len() >= 5);

    wire.set(Wire::Cut);
    plugin_until(&aggregator, "it is lost", |plugin| {
        plugin["Nodes"]["host-aaaa"]["HealthDescription"].as_str().is_some_and(|text| text.contains("unreachable"))
    })
    .await;
    plugin_until(host.agent(), "its own view is what it was", nodes(1, 1)).await;
    wire.set(Wire::Whole);
    let begun = Instant::now();
    plugin_until(&aggregator, "it is back", nodes(1, 1)).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "back only after {:?}", begun.elapsed());
    assert_eq!(etcd.owner().list("/csi-gateway/v1/instances/").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregator_that_is_behind_does_not_present_it_as_current_and_catches_up_after_a_compaction() {
    let Some(program) = program() else { return };
    let etcd = EtcdServer::start(&program, &[]).await;
    let folder = TempDir::new().expect("a scratch folder");
    let wire = Proxy::to(etcd.address()).await;
    let host = Host::new("host-aaaa", &etcd.url(), FakeDriver::node(PLUGIN), &["--plugin-type=node"]).await;
    let ahead = aggregator(&etcd.url(), &folder.path().join("ahead.log"), &[]).await;
    let behind = aggregator(&wire.url(), &folder.path().join("behind.log"), &[]).await;
    plugin_until(&ahead, "it is healthy", nodes(1, 1)).await;
    equal(&ahead, &behind).await;
    wire.set(Wire::Dead);
    host.sicken();
    plugin_until(&ahead, "it is sick", nodes(0, 1)).await;
    let seen = ahead.index("/v1/plugins?type=csi").await;
    let moved = behind.get(&format!("/v1/plugins?type=csi&index={seen}&wait=100ms")).await;
    assert!(!is_current(&moved), "{moved:?}");
    // Whoever waits long enough gets what it should have.
    let waiting = tokio::spawn({
        let address = behind.address.clone();
        async move { http::get(&address, &format!("/v1/plugins?type=csi&index={seen}&wait=1m")).await }
    });
    for _ in 0..3 {
        host.heal();
        plugin_until(&ahead, "it is healthy", nodes(1, 1)).await;
        host.sicken();
        plugin_until(&ahead, "it is sick", nodes(0, 1)).await;
    }
    etcd.owner().compact().await;
    wire.set(Wire::Whole);
    equal(&ahead, &behind).await;
    let answer = waiting.await.expect("it ends").expect("it answers");
    assert!(answer.index() > Some(seen) || !is_current(&answer), "{answer:?}");
    let log = std::fs::read_to_string(folder.path().join("behind.log")).unwrap_or_default();
    assert!(log.contains("reading the fleet anew"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_declared_lost_and_forgotten_is_the_same_for_all_aggregators() {
    let Some(program) = program() else { return };
    let etcd = EtcdServer::start(&program, &[]).await;
    let folder = TempDir::new().expect("a scratch folder");
    let config = folder.path().join("fleet.hcl");
    let text = format!(
        "plugin \"{PLUGIN}\" {{\n  nodes_expected = 5\n}}\nplugin \"other\" {{\n  host_selector = \"host-*\"\n}}\n"
    );
    std::fs::write(&config, text).expect("a configuration");
    let declaring =
        aggregator(&etcd.url(), &folder.path().join("one.log"), &[&format!("--config={}", config.display())]).await;
    // Case 91, with nothing up.
    plugin_until(&declaring, "it is expected", nodes(0, 5)).await;
    let mut host = Host::new("host-aaaa", &etcd.url(), FakeDriver::node(PLUGIN), &["--plugin-type=node"]).await;
    plugin_until(&declaring, "one of five is healthy", nodes(1, 5)).await;
    until("the selector counts hosts that are there", async || {
        let other = declaring.json("/v1/plugin/csi/other").await;
        if other["NodesExpected"] == 1 { Ok(()) } else { Err(other.to_string()) }
    })
    .await;
    // One that declares nothing has no say while it runs beside; it was started last, so it has.
    let forget = |address: &str| {
        let mut command = gateway();
        command.args(["forget", PLUGIN, "--host=host-aaaa", &format!("--address={address}")]);
        command
    };
    let (code, _, error) = run(forget(&declaring.address)).await;
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("still alive"), "{error}");
    host.kill().await;
    plugin_until(&declaring, "its host is lost", |plugin| plugin["NodesHealthy"] == 0).await;
    let (code, out, error) = run(forget(&declaring.address)).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("forgotten: node of drv.example.com on host-aaaa, was lost"), "{out}");
    let gone = |plugin: &Value| plugin["Nodes"].as_object().is_some_and(serde_json::Map::is_empty);
    plugin_until(&declaring, "the instance is gone", gone).await;
    until("nothing is left of the host", async || {
        let left = etcd.owner().list("/csi-gateway/v1/hosts/").await.len();
        if left == 0 { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
    // Forgotten is not banned.
    host.start().await;
    plugin_until(&declaring, "it is back", nodes(1, 5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_instances_of_a_host_that_stays_lost_are_retired_and_the_plugin_goes_with_the_last_of_them() {
    let Some(program) = program() else { return };
    let etcd = EtcdServer::start(&program, &[]).await;
    let folder = TempDir::new().expect("a scratch folder");
    let mut host = Host::new("host-aaaa", &etcd.url(), FakeDriver::node(PLUGIN), &["--plugin-type=node"]).await;
    let aggregator = aggregator(&etcd.url(), &folder.path().join("one.log"), &["--retire-lost=1s"]).await;
    let first = plugin_until(&aggregator, "it is healthy", nodes(1, 1)).await;
    let seen = aggregator.index("/v1/plugins?type=csi").await;
    host.kill().await;
    // Cases 84, 89.
    until("nothing is left", async || {
        let left = etcd.owner().list("/csi-gateway/v1/").await;
        let left: Vec<_> = left.iter().map(|pair| String::from_utf8_lossy(&pair.key).into_owned()).collect();
        let is_side = |key: &String| key.ends_with("/index") || key.ends_with("/nomad-index");
        if left.iter().all(is_side) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let answer = aggregator.get(&format!("/v1/plugins?type=csi&index={seen}&wait=10s")).await;
    assert!(answer.index() > Some(seen), "{answer:?}");
    assert_eq!(answer.text().trim(), "[]");
    // Case 90.
    let gone = aggregator.index("/v1/plugins?type=csi").await;
    host.start().await;
    let again = plugin_until(&aggregator, "it is there again", nodes(1, 1)).await;
    assert!(again["CreateIndex"].as_u64() > Some(gone) && again["CreateIndex"] != first["CreateIndex"], "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_lost_everything_is_filled_again_by_the_agents_and_the_fall_of_its_index_is_told() {
    let Some(program) = program() else { return };
    let folder = TempDir::new().expect("a scratch folder");
    let mut etcd = EtcdServer::start(&program, &[]).await;
    let host = Host::new("host-aaaa", &etcd.url(), FakeDriver::node(PLUGIN), &["--plugin-type=node"]).await;
    let aggregator = aggregator(&etcd.url(), &folder.path().join("one.log"), &[]).await;
    plugin_until(&aggregator, "it is healthy", nodes(1, 1)).await;
    for _ in 0..20 {
        etcd.owner().put("/csi-gateway/v1/index", "\u{1}{}").await.expect("etcd answers");
    }
    let seen = until("its index is high", async || match aggregator.index("/v1/gateway/plugins").await {
        index if index > 20 => Ok(index),
        index => Err(index.to_string()),
    })
    .await;
    etcd.kill().await;
    etcd.wipe();
    etcd.resume().await;
    etcd.until_ready().await;
    ready_until(&aggregator, 200, "etcd's revision has fallen").await;
    plugin_until(&aggregator, "its agent has told it again", nodes(1, 1)).await;
    // Whoever has seen more is not told that this is current.
    let answer = aggregator.get(&format!("/v1/plugins?type=csi&index={seen}&wait=100ms")).await;
    assert!(!is_current(&answer), "{answer:?}");
    let answer = aggregator.get("/v1/plugins?type=csi").await;
    assert!(answer.text().contains(PLUGIN), "{answer:?}");
    for _ in 0..40 {
        etcd.owner().put("/csi-gateway/v1/index", "\u{1}{}").await.expect("etcd answers");
    }
    host.sicken();
    plugin_until(&aggregator, "it is sick", nodes(0, 1)).await;
    let answer = aggregator.get(&format!("/v1/plugins?type=csi&index={seen}&wait=10s")).await;
    assert!(is_current(&answer) && answer.index() > Some(seen), "{answer:?}");
    until("nothing is wrong any more", async || {
        let text = aggregator.get("/readyz").await.text().into_owned();
        if text.trim() == "ok" { Ok(()) } else { Err(text) }
    })
    .await;
}

/// Waits until `/readyz` answers this.
async fn ready_until(of: &Serving, status: u16, text: &str) {
    until(text, async || {
        let ready = of.get("/readyz").await;
        let told = ready.text().into_owned();
        if ready.status == status && told.contains(text) { Ok(()) } else { Err(format!("{} {told}", ready.status)) }
    })
    .await;
}

/// What a reader that moves between aggregators sees, and whether that is a history at all.
async fn moving_reader(addresses: Vec<String>, stop: tokio_util::sync::CancellationToken) -> (u64, Vec<String>) {
    let (mut seen, mut replies, mut complaints, mut turn) = (0, 0, Vec::new(), 0_usize);
    while !stop.is_cancelled() {
        turn += 1;
        let address = &addresses[turn % addresses.len()];
        let path = format!("/v1/plugin/csi/{PLUGIN}?index={seen}&wait=150ms");
        // An aggregator that is dead just now is no reply.
        let Ok(answer) = http::get(address, &path).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let index = answer.index().unwrap_or_default();
        if !is_current(&answer) || answer.status != 200 {
            continue;
        }
        replies += 1;
        if index < seen {
            complaints.push(format!("{address} showed {index} as current after {seen}"));
        }
        let plugin: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if plugin["ModifyIndex"].as_u64() > Some(index) {
            complaints.push(format!("{address} showed ModifyIndex {} at {index}", plugin["ModifyIndex"]));
        }
        seen = seen.max(index);
    }
    (replies, complaints)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_killed_member_by_member_and_every_part_beside_it_loses_nothing_and_shows_one_order() {
    let Some(program) = program() else { return };
    let mut members = EtcdServer::cluster::<3>(&program, &[]).await;
    let urls: Vec<String> = members.iter().map(EtcdServer::url).collect();
    let servers = urls.join(",");
    let folder = TempDir::new().expect("a scratch folder");
    let mut hosts = Vec::new();
    for id in ["host-aaaa", "host-bbbb", "host-cccc"] {
        hosts.push(Host::new(id, &servers, FakeDriver::node(PLUGIN), &["--plugin-type=node", "--history=1000"]).await);
    }
    let mut aggregators = Vec::new();
    for number in 0..2 {
        // On a fixed port, so that readers find it again.
        let [port] = support::etcd::free_ports();
        let endpoint = format!("--http-endpoint=127.0.0.1:{port}");
        let arguments =
            ["serve".to_owned(), "--role=aggregator".to_owned(), endpoint, format!("--etcd-servers={servers}")];
        let log = folder.path().join(format!("aggregator-{number}.log"));
        let serving = Serving::start(&arguments.each_ref().map(String::as_str), &log).await;
        aggregators.push((serving, arguments, log));
    }
    for (serving, ..) in &aggregators {
        plugin_until(serving, "all are healthy", nodes(3, 3)).await;
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let addresses: Vec<String> = aggregators.iter().map(|(serving, ..)| serving.address.clone()).collect();
    let readers: Vec<_> = (0..4).map(|_| tokio::spawn(moving_reader(addresses.clone(), stop.clone()))).collect();
    for round in 0..9 {
        let member = round % 3;
        // Whoever stands still goes on later with what it had taken, which must not undo what happened since.
        let is_pause = round % 2 == 0;
        if is_pause {
            members[member].pause()
        } else {
            members[member].kill().await
        }
        for step in 0..6 {
            let host = &hosts[step % 3];
            if (round + step) % 2 == 0 {
                host.sicken()
            } else {
                host.heal()
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        if round % 3 == 1 {
            let host = &mut hosts[round / 3];
            host.kill().await;
            host.start().await;
        }
        if round % 3 == 2 {
            let (serving, arguments, log) = aggregators.remove(0);
            serving.kill().await;
            let serving = Serving::start(&arguments.each_ref().map(String::as_str), &log).await;
            aggregators.push((serving, arguments, log));
        }
        if is_pause {
            members[member].go_on()
        } else {
            members[member].resume().await
        }
        members[member].until_ready().await;
    }
    for host in &hosts {
        host.heal();
    }
    for (serving, ..) in &aggregators {
        plugin_until(serving, "all are healthy in the end", nodes(3, 3)).await;
    }
    equal(&aggregators[0].0, &aggregators[1].0).await;
    stop.cancel();
    for reader in readers {
        let (replies, complaints) = reader.await.expect("a reader ends");
        assert!(complaints.is_empty(), "{complaints:#?}");
        assert!(replies > 20, "only {replies} current replies");
    }
    // No transition of any agent is missing, and none is there twice.
    let told = |entry: &Value| format!("{} {} {} {}", entry["Host"], entry["At"], entry["Kind"], entry["To"]);
    let mut own = Vec::new();
    for host in &hosts {
        let history = host.agent().json("/v1/gateway/history?limit=10000").await;
        own.extend(history.as_array().expect("a list").iter().map(told));
    }
    own.sort();
    assert!(own.len() > 30, "{own:#?}");
    for (serving, ..) in &aggregators {
        until("every transition is told once", async || {
            let history = serving.json("/v1/gateway/history?limit=10000").await;
            let entries = history.as_array().expect("a list");
            let is_own = |entry: &&Value| entry["From"] != "lost" && entry["To"] != "lost";
            let mut shown: Vec<String> = entries.iter().filter(is_own).map(told).collect();
            shown.sort();
            let missing: Vec<&String> = own.iter().filter(|one| !shown.contains(one)).collect();
            let strange: Vec<&String> = shown.iter().filter(|one| !own.contains(one)).collect();
            let counts = (shown.len(), own.len());
            if shown == own { Ok(()) } else { Err(format!("{counts:?}, missing {missing:?}, strange {strange:?}")) }
        })
        .await;
    }
}
