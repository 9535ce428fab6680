//! What is wrong with an etcd, told apart by what its owner has to do, and over when that is done.

use std::path::Path;
use std::time::Duration;

use csi_gateway::demo::FakeDriver;
use tempfile::TempDir;

use crate::authority::{Authority, OVER, VALID};
use crate::support::etcd::{EtcdServer, program};
use crate::support::process::{Serving, until};
use crate::{Host, PLUGIN, aggregator, is_current, nodes, plugin_until, ready_until};

/// Waits until this kind of trouble is told: in `/readyz`, metrics and log.
async fn trouble_until(of: &Serving, log: &Path, kind: &str, text: &str) {
    let metric = format!("csi_gateway_fleet_trouble{{kind=\"{kind}\"}} 1");
    until(kind, async || {
        let (ready, metrics) = (of.get("/readyz").await, of.get("/metrics").await);
        let log = std::fs::read_to_string(log).unwrap_or_default();
        let is_told = ready.text().contains(text) && metrics.text().contains(&metric) && log.contains(text);
        if is_told { Ok(()) } else { Err(format!("{}\n{log}", ready.text())) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_stands_still_has_no_leader_or_refuses_is_told_as_what_it_is() {
    let Some(program) = program() else { return };
    let folder = TempDir::new().expect("a scratch folder");
    let log = folder.path().join("one.log");
    let mut members = EtcdServer::cluster::<3>(&program, &[]).await;
    let host = Host::new("host-aaaa", &members[0].url(), FakeDriver::node(PLUGIN), &["--plugin-type=node"]).await;
    let one = aggregator(&members[0].url(), &log, &[]).await;
    plugin_until(&one, "it is healthy", nodes(1, 1)).await;
    let agents_log = host.folder.path().join("agent.log");

    members[0].pause();
    trouble_until(&one, &log, "slow", "etcd does not answer in time").await;
    trouble_until(host.agent(), &agents_log, "slow", "etcd does not answer in time").await;
    members[0].go_on();
    ready_until(&one, 200, "ok").await;
    ready_until(host.agent(), 200, "ok").await;

    members[1].kill().await;
    members[2].kill().await;
    trouble_until(&one, &log, "no_leader", "etcd has no leader").await;
    trouble_until(host.agent(), &agents_log, "no_leader", "etcd has no leader").await;
    plugin_until(host.agent(), "its own view is what it was", nodes(1, 1)).await;
    members[1].resume().await;
    ready_until(&one, 200, "ok").await;
    ready_until(host.agent(), 200, "ok").await;

    members[0].owner().enable_users("gateway", "open-sesame", "/other/").await;
    let password = folder.path().join("password");
    std::fs::write(&password, "open-sesame\n").expect("a password");
    let login = ["--etcd-username=gateway".to_owned(), format!("--etcd-password-file={}", password.display())];
    let (denied, log) = ([&*login[0], &*login[1]], folder.path().join("denied.log"));
    let stranger = aggregator(&members[0].url(), &log, &denied).await;
    trouble_until(&stranger, &log, "denied", "etcd's user may not do this").await;
    assert_eq!(stranger.get("/readyz").await.status, 500);
    let log = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(!log.contains("open-sesame"), "{log}");
    // Those that were there and now have no name are told so, too.
    trouble_until(host.agent(), &agents_log, "login", "etcd refuses the login").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_is_told_and_what_waits_for_it_is_written_when_its_owner_has_made_room() {
    let Some(program) = program() else { return };
    let folder = TempDir::new().expect("a scratch folder");
    let etcd = EtcdServer::start(&program, &["--quota-backend-bytes=2097152"]).await;
    let host = Host::new("host-aaaa", &etcd.url(), FakeDriver::node(PLUGIN), &["--plugin-type=node"]).await;
    let mut other = Host::new("host-bbbb", &etcd.url(), FakeDriver::node(PLUGIN), &["--plugin-type=node"]).await;
    let aggregator = aggregator(&etcd.url(), &folder.path().join("one.log"), &[]).await;
    plugin_until(&aggregator, "both are healthy", nodes(2, 2)).await;
    while etcd.owner().put("/somebody/else", vec![b'x'; 500_000]).await.is_ok() {}
    host.sicken();
    ready_until(host.agent(), 200, "etcd is full").await;
    ready_until(host.agent(), 200, "changes wait for it").await;
    plugin_until(host.agent(), "the agent knows", nodes(0, 1)).await;
    // Whoever starts now and cannot write what it declares serves what there is all the same.
    let config = folder.path().join("fleet.hcl");
    std::fs::write(&config, format!("plugin \"{PLUGIN}\" {{\n  nodes_expected = 5\n}}\n")).expect("a configuration");
    let config = format!("--config={}", config.display());
    let declaring = crate::aggregator(&etcd.url(), &folder.path().join("two.log"), &[&config]).await;
    ready_until(&declaring, 200, "etcd is full").await;
    plugin_until(&declaring, "it shows what there is", nodes(2, 2)).await;
    // A host that falls silent now cannot be written down: so nobody may take what is shown for the truth.
    other.kill().await;
    until("the aggregator no longer vouches", async || {
        let answer = aggregator.get("/v1/plugins?type=csi").await;
        if is_current(&answer) { Err(format!("{answer:?}")) } else { Ok(()) }
    })
    .await;
    ready_until(&aggregator, 200, "etcd is full").await;
    let owner = etcd.owner();
    owner.compact().await;
    owner.defragment().await;
    owner.disarm().await;
    plugin_until(&aggregator, "both are told of, and what is declared", nodes(0, 5)).await;
    ready_until(&declaring, 200, "ok").await;
    ready_until(&aggregator, 200, "ok").await;
    until("it vouches again", async || {
        let answer = aggregator.get("/v1/plugins?type=csi").await;
        if is_current(&answer) { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    until("nothing waits any more", async || {
        let text = host.agent().get("/readyz").await.text().into_owned();
        if text.trim() == "ok" { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told_and_a_right_one_taken_without_a_restart() {
    let Some(program) = program() else { return };
    let folder = TempDir::new().expect("a scratch folder");
    let etcd = EtcdServer::start(&program, &["--auth-token-ttl=1"]).await;
    etcd.owner().enable_users("gateway", "right", "/csi-gateway/v1/").await;
    let password = folder.path().join("password");
    std::fs::write(&password, "wrong\n").expect("a password");
    let login = ["--etcd-username=gateway".to_owned(), format!("--etcd-password-file={}", password.display())];
    let login: Vec<&str> = login.iter().map(String::as_str).collect();
    let aggregator = aggregator(&etcd.url(), &folder.path().join("one.log"), &login).await;
    ready_until(&aggregator, 500, "etcd refuses the login").await;
    std::fs::write(&password, "right\n").expect("a password");
    ready_until(&aggregator, 200, "ok").await;
    let more = [&login[..], &["--plugin-type=node"]].concat();
    let host = Host::new("host-aaaa", &etcd.url(), FakeDriver::node(PLUGIN), &more).await;
    plugin_until(&aggregator, "it is healthy", nodes(1, 1)).await;
    // A login that etcd forgot meanwhile is followed by the next one.
    tokio::time::sleep(Duration::from_secs(3)).await;
    host.sicken();
    plugin_until(&aggregator, "it is sick", nodes(0, 1)).await;
    ready_until(host.agent(), 200, "ok").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_told_and_a_new_one_taken_without_a_restart() {
    let Some(program) = program() else { return };
    let folder = TempDir::new().expect("a scratch folder");
    let authority = Authority::new("etcd", VALID);
    let ca = authority.write(folder.path(), "ca.pem");
    let server = authority.local().write(&folder.path().join("server"));
    let clients = folder.path().join("client");
    let client = authority.pair(&["localhost"], OVER).write(&clients);
    let flags = [
        format!("--cert-file={}", server.certificate.display()),
        format!("--key-file={}", server.key.display()),
        format!("--trusted-ca-file={}", ca.display()),
        "--client-cert-auth".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let etcd = EtcdServer::start(&program, &flags).await;
    let ours = [
        format!("--etcd-cafile={}", ca.display()),
        format!("--etcd-certfile={}", client.certificate.display()),
        format!("--etcd-keyfile={}", client.key.display()),
        "--plugin-type=node".to_owned(),
    ];
    let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
    let host = Host::new("host-aaaa", &etcd.url(), FakeDriver::node(PLUGIN), &ours).await;
    let aggregator = aggregator(&etcd.url(), &folder.path().join("one.log"), &ours[..3]).await;
    ready_until(host.agent(), 200, "TLS with etcd fails").await;
    ready_until(&aggregator, 500, "TLS with etcd fails").await;
    authority.pair(&["localhost"], VALID).write(&clients);
    plugin_until(&aggregator, "it is healthy", nodes(1, 1)).await;
    ready_until(&aggregator, 200, "ok").await;
}
