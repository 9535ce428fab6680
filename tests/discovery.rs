//! Drivers that nobody named: where they are found, what is left alone and why, and what a kubelet believes of them. The
//! numbers are those of the behaviour cases. Case 64 (datagram) is left alone by its entry in `/proc/net/unix`, so that it
//! is not even dialled; case 104 is a verdict, and retires nothing; case 65 is a dial's, see `fingerprint`.

mod support;

use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Instant;

use csi_gateway::csi::Rpc;
use csi_gateway::demo::{FakeDriver, ServedDriver};
use csi_gateway::domain::id::Role;
use csi_gateway::domain::record::{Phase, Record, Registration};
use serde_json::Value;
use support::gateway::{D0, HOST, LONG, TestGateway};
use tempfile::TempDir;

const NOTIFY: &str = "/pluginregistration.Registration/NotifyRegistrationStatus";
const POD: &str = "0f6a3c9e-1111-2222-3333-444455556666";
const ALLOCATION: &str = "b1946ac9-2492-d234-7c62-35e5b5a5c0aa";

/// A host's root directory, and a gateway that was told nothing else.
struct Host {
    root: TempDir,
}

impl Host {
    fn new() -> Self {
        Self { root: TempDir::new().expect("a scratch directory") }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn kubelet(&self, path: &str) -> PathBuf {
        self.at("var/lib/kubelet").join(path)
    }

    fn nomad(&self, path: &str) -> PathBuf {
        self.at("opt/nomad/data/client").join(path)
    }

    async fn serve(&self, driver: FakeDriver, path: &Path) -> ServedDriver {
        driver.serve(path).await.expect("binds")
    }

    /// A registrar of a driver whose path is the host's.
    async fn register(&self, name: &str, endpoint: &str) -> ServedDriver {
        let path = self.kubelet("plugins_registry").join(format!("{name}-reg.sock"));
        self.serve(FakeDriver::registrar("CSIPlugin", name, endpoint), &path).await
    }

    async fn gateway(&self) -> TestGateway {
        self.gateway_with(&[], &[("NODE_NAME", HOST)]).await
    }

    async fn gateway_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> TestGateway {
        let root = format!("--host-root={}", self.root.path().display());
        TestGateway::serving(&[&[root.as_str()], arguments].concat(), variables).await
    }
}

fn record(gateway: &TestGateway, id: &str, role: Role) -> Option<Record> {
    let catalog = gateway.reader.current();
    catalog.records().find(|record| record.key.plugin.as_str() == id && record.key.role == role).cloned()
}

async fn record_until(
    gateway: &TestGateway,
    what: &str,
    id: &str,
    role: Role,
    is_so: impl Fn(&Record) -> bool,
) -> Record {
    gateway
        .wait_until(what, |catalog| {
            catalog.records().any(|record| record.key.plugin.as_str() == id && record.key.role == role && is_so(record))
        })
        .await;
    record(gateway, id, role).expect("it was there just now")
}

async fn healthy(gateway: &TestGateway, id: &str, role: Role) -> Record {
    record_until(gateway, &format!("{id} is healthy"), id, role, |record| record.phase == Phase::Healthy).await
}

async fn verdict(gateway: &TestGateway, id: &str, wanted: Registration) -> Record {
    let is_so = |record: &Record| record.registration == Some(wanted);
    record_until(gateway, &format!("{id} is {}", wanted.as_str()), id, Role::Node, is_so).await
}

/// Waits until a path is left alone for this reason.
async fn left_alone(gateway: &TestGateway, path: &Path, why: &str) -> Value {
    let is_so = |socket: &Value| {
        socket["Ignored"] == true && socket["Reason"].as_str().is_some_and(|reason| reason.contains(why))
    };
    gateway.socket_until(&format!("{} is left alone: {why}", path.display()), path, is_so).await
}

/// Waits until a file that is made now is newer than this one, by the clock of the file system.
async fn until_newer_than(path: &Path) {
    let made = |path: &Path| {
        let metadata = std::fs::metadata(path).expect("is there");
        (metadata.ctime(), metadata.ctime_nsec())
    };
    while made(tempfile::NamedTempFile::new().expect("can be made").path()) <= made(path) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

async fn scanned(gateway: &TestGateway) {
    let begun = Instant::now();
    while !gateway.reader.standing().is_scanned {
        assert!(begun.elapsed() < LONG, "the first scan does not end");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn file(path: &Path) {
    std::fs::create_dir_all(path.parent().expect("below the root")).expect("can be made");
    std::fs::write(path, "").expect("can be written");
}

#[tokio::test]
async fn a_host_full_of_drivers_is_found_without_configuration() {
    let host = Host::new();
    file(&host.nomad("secret-id"));
    std::fs::write(host.nomad("client-id"), "5f9ba2d0-aaaa-bbbb-cccc-ddddeeeeffff\n").expect("can be written");
    let pod_volume = format!("pods/{POD}/volumes/kubernetes.io~empty-dir/socket-dir/csi.sock");
    assert!(host.kubelet(&pod_volume).as_os_str().len() > 107, "longer than the kernel's addresses");

    let registered = host.serve(FakeDriver::monolith("reg.example.com"), &host.kubelet("plugins/a/csi.sock")).await;
    let registrar = host.register("reg.example.com", "/var/lib/kubelet/plugins/a/csi.sock").await;
    let plain = host.serve(FakeDriver::monolith("plain.example.com"), &host.kubelet("plugins/b/csi.sock")).await;
    let add_on = host.serve(FakeDriver::registrar("x", "x", ""), &host.kubelet("plugins/b/csi-addons.sock")).await;
    let old = host.serve(FakeDriver::node("old.example.com"), &host.kubelet("csi-plugins/old/csi.sock")).await;
    let pod = host.serve(FakeDriver::monolith("reg.example.com"), &host.kubelet(&pod_volume)).await;
    let gpu = FakeDriver::registrar("DevicePlugin", "gpu.example.com", "");
    let gpu = host.serve(gpu, &host.kubelet("plugins_registry/gpu/gpu.sock")).await;
    let dra = FakeDriver::registrar("DRAPlugin", "dra.example.com", "/var/lib/kubelet/plugins/dra/dra");
    let dra = host.serve(dra, &host.kubelet("plugins_registry/dra.sock")).await;
    let hidden = host.kubelet("plugins_registry/.new-reg.sock");
    let hidden_registrar = host.serve(FakeDriver::registrar("CSIPlugin", "hidden", ""), &hidden).await;
    let mount =
        host.serve(FakeDriver::node("mount.example.com"), &host.kubelet("plugins/kubernetes.io/csi.sock")).await;
    let job = host.nomad(&format!("csi/plugins/{ALLOCATION}/csi.sock"));
    let job = host.serve(FakeDriver::monolith("vendor.example.com"), &job).await;
    let staging = host.nomad("csi/monolith/ebs-prod/staging/vol/csi.sock");
    let staging = host.serve(FakeDriver::node("staging.example.com"), &staging).await;
    let usual = host.serve(FakeDriver::node("usual.example.com"), &host.at("run/csi/socket")).await;

    let gateway = host.gateway_with(&[], &[]).await;
    for (id, role, alloc, source, registration) in [
        ("reg.example.com", Role::Node, "", "kubelet registration", Some(Registration::Ok)),
        ("reg.example.com", Role::Controller, POD, "empty-dir", None),
        ("plain.example.com", Role::Node, "", "kubelet plugins", Some(Registration::Unregistered)),
        ("old.example.com", Role::Node, "", "kubelet plugins", Some(Registration::Unregistered)),
        ("ebs-prod", Role::Controller, ALLOCATION, "nomad", None),
        ("ebs-prod", Role::Node, ALLOCATION, "nomad", None),
        ("usual.example.com", Role::Node, "", "well-known", None),
    ] {
        let record = healthy(&gateway, id, role).await;
        assert_eq!(record.key.host.as_str(), "5f9ba2d0-aaaa-bbbb-cccc-ddddeeeeffff", "{id}");
        assert_eq!((&*record.owner.alloc_id, record.registration), (alloc, registration), "{id}");
        let socket = gateway.socket(Path::new(&*record.socket)).await.expect("watched");
        assert_eq!(socket["Source"], source, "{id}");
    }
    let known = gateway.reader.current().records().count();
    assert_eq!(known, 7, "and nobody else");

    for (path, why) in [
        (registrar.socket(), "announces \"reg.example.com\""),
        (add_on.socket(), "does not implement GetPluginInfo"),
        (gpu.socket(), "registers \"gpu.example.com\" as \"DevicePlugin\""),
        (dra.socket(), "registers \"dra.example.com\" as \"DRAPlugin\""),
        (&hidden, "begins with a dot"),
        (&host.kubelet("plugins/kubernetes.io"), "never looked into"),
    ] {
        left_alone(&gateway, path, why).await;
    }
    scanned(&gateway).await;
    let view = gateway.get("/v1/gateway/sockets").await;
    let searched = view["Searched"].as_array().expect("a list");
    assert_eq!(searched.len(), 9, "every well-known place is named: {searched:#?}");
    let place = |path: PathBuf| {
        let found = searched.iter().find(|place| place["Place"] == *path.to_string_lossy());
        found.unwrap_or_else(|| panic!("{} was not searched", path.display()))
    };
    let kubelet = place(host.at("var/lib/kubelet"));
    assert_eq!((&kubelet["Exists"], &kubelet["Found"], &kubelet["Ignored"]), (&true.into(), &5.into(), &5.into()));
    let absent = place(host.at("var/lib/k0s/kubelet"));
    assert_eq!((&absent["Exists"], &absent["Problem"]), (&false.into(), &"".into()));
    // Never asked anything: what is hidden, and what lies in mounts.
    for silent in [&mount, &staging, &hidden_registrar] {
        assert_eq!(silent.connections(), 0, "{silent}");
    }
    for driver in [registered, registrar, plain, add_on, old, pod, gpu, dra, job, usual] {
        assert_eq!(driver.calls_at(NOTIFY), 0, "case 102: {driver}");
        driver.finish().await.expect("as scripted");
    }
}

#[tokio::test]
async fn places_that_come_to_exist_are_found_and_drivers_that_come_and_go_are_followed() {
    let host = Host::new();
    let gateway = host.gateway().await;
    scanned(&gateway).await;
    assert_eq!(gateway.reader.current().records().count(), 0);
    let driver = host.serve(FakeDriver::node(D0), &host.kubelet("plugins/a/csi.sock")).await;
    healthy(&gateway, D0, Role::Node).await;

    // Case 57.
    driver.vanish().await;
    let gone = record_until(&gateway, "gone", D0, Role::Node, |record| record.phase == Phase::Gone).await;
    assert!(gone.fingerprint.is_some() && gone.was_healthy);
    let plugin = gateway.plugin(D0).await.expect("the entry is kept");
    assert_eq!((&plugin["NodesHealthy"], &plugin["NodesExpected"]), (&0.into(), &1.into()));
    driver.come_back().await.expect("binds");
    healthy(&gateway, D0, Role::Node).await;

    // With its directory, as an uninstalled driver's.
    driver.vanish().await;
    std::fs::remove_dir_all(host.kubelet("plugins")).expect("can be removed");
    record_until(&gateway, "gone", D0, Role::Node, |record| record.phase == Phase::Gone).await;
    let elsewhere = host.serve(FakeDriver::node(D0), &host.kubelet("plugins/b/csi.sock")).await;
    let moved = healthy(&gateway, D0, Role::Node).await;
    assert_eq!(*moved.socket, *elsewhere.socket().to_string_lossy());
    let hosts = gateway.get("/v1/gateway/hosts").await;
    assert_eq!(hosts[0]["Duplicates"], serde_json::json!([]), "what is gone is no duplicate");
}

#[tokio::test]
async fn cases_63_64_66_and_67_what_is_no_socket_of_ours_is_left_alone_with_a_reason() {
    let host = Host::new();
    let driver = host.serve(FakeDriver::node(D0), &host.at("d/real/csi.sock")).await;
    let outside = host.serve(FakeDriver::node("outside.example.com"), &host.at("elsewhere/csi.sock")).await;
    let at = |name: &str| host.at("d").join(name).join("csi.sock");
    for name in ["datagram", "direct", "out", "dangling", "loop"] {
        std::fs::create_dir_all(host.at("d").join(name)).expect("can be made");
    }
    file(&at("regular"));
    std::fs::create_dir_all(at("directory")).expect("can be made");
    let _datagram = UnixDatagram::bind(at("datagram")).expect("binds");
    symlink(at("real"), at("direct")).expect("can be made");
    symlink(host.at("d/real"), host.at("d/whole")).expect("can be made");
    symlink(outside.socket(), at("out")).expect("can be made");
    symlink(host.at("d/nothing"), at("dangling")).expect("can be made");
    symlink(at("loop"), at("loop")).expect("can be made");
    let directory = format!("--csi-plugins-dir={}", host.at("d").display());
    let gateway = TestGateway::serving(&[&directory], &[("NODE_NAME", HOST)]).await;

    healthy(&gateway, D0, Role::Node).await;
    for (path, why) in [
        (at("regular"), "a regular file, not a socket"),
        (at("directory"), "a directory, not a socket"),
        (at("datagram"), "not a stream"),
        (at("out"), "a link out of the directories that are searched"),
        (at("dangling"), "which does not exist"),
        (at("loop"), "leads to itself"),
    ] {
        left_alone(&gateway, &path, why).await;
    }
    // One socket under three names is one.
    let sockets = gateway.get("/v1/gateway/sockets").await;
    let sockets = sockets["Sockets"].as_array().expect("a list").clone();
    let watched: Vec<&Value> = sockets.iter().filter(|socket| socket["Ignored"] == false).collect();
    assert_eq!(watched.len(), 1, "{watched:#?}");
    let same = sockets.iter().filter(|socket| socket["Reason"].as_str().is_some_and(|r| r.contains("the same socket")));
    assert_eq!(same.count(), 2);
    assert_eq!((driver.connections(), outside.connections()), (1, 0));
}

#[tokio::test]
async fn configuration_has_the_first_word_about_a_socket_that_is_found_too() {
    let host = Host::new();
    let socket = host.nomad(&format!("csi/plugins/{ALLOCATION}/csi.sock"));
    let _driver = host.serve(FakeDriver::monolith(D0), &socket).await;
    let state = format!("--nomad-state-dir={}", host.nomad("").display());
    let address = format!("--csi-address={}", socket.display());
    let arguments = [state.as_str(), &address, "--plugin-id=mine", "--plugin-type=controller"];
    let gateway = TestGateway::serving(&arguments, &[("NODE_NAME", HOST)]).await;
    let record = healthy(&gateway, "mine", Role::Controller).await;
    scanned(&gateway).await;
    assert!(record.is_configured);
    gateway
        .wait_until("what Nomad's directory tells is known", |catalog| {
            catalog.records().all(|record| &*record.owner.alloc_id == ALLOCATION)
        })
        .await;
    assert_eq!(gateway.reader.current().records().count(), 1);
}

#[tokio::test]
async fn case_87_an_allocation_that_was_stopped_for_good_is_retired_at_once() {
    let host = Host::new();
    let own = host.nomad(&format!("csi/plugins/{ALLOCATION}"));
    let driver = host.serve(FakeDriver::node(D0), &own.join("csi.sock")).await;
    let other = host.nomad("csi/plugins/c1946ac9-2492-d234-7c62-35e5b5a5c0aa/csi.sock");
    let other = host.serve(FakeDriver::node("other.example.com"), &other).await;
    let gateway = host.gateway().await;
    healthy(&gateway, D0, Role::Node).await;
    healthy(&gateway, "other.example.com", Role::Node).await;
    // A restart keeps the directory.
    other.vanish().await;
    driver.vanish().await;
    std::fs::remove_dir_all(own).expect("can be removed");
    gateway.wait_until("it is retired", |catalog| catalog.plugin(D0).is_none()).await;
    let is_gone = |record: &Record| record.phase == Phase::Gone;
    record_until(&gateway, "kept", "other.example.com", Role::Node, is_gone).await;
    let history = gateway.history(D0).await;
    assert_eq!(history.last().expect("was seen")["Kind"], "retired");
}

#[tokio::test]
async fn case_92_of_two_sockets_with_one_name_one_counts_and_the_other_is_listed() {
    let host = Host::new();
    let first = host.serve(FakeDriver::node(D0), &host.at("d/a/csi.sock")).await;
    until_newer_than(first.socket()).await;
    let second = host.serve(FakeDriver::node(D0).version("2.0"), &host.at("d/b/csi.sock")).await;
    let directory = format!("--csi-plugins-dir={}", host.at("d").display());
    let gateway = TestGateway::serving(&[&directory], &[("NODE_NAME", HOST)]).await;
    let newest = second.socket().to_string_lossy().into_owned();
    let is_newest = |record: &Record| *record.socket == *newest && record.phase == Phase::Healthy;
    record_until(&gateway, "the newest counts", D0, Role::Node, is_newest).await;
    let duplicates = async |loser: &ServedDriver, winner: &ServedDriver| {
        let (loser, winner) = (loser.socket().to_string_lossy(), winner.socket().to_string_lossy());
        let begun = Instant::now();
        loop {
            let hosts = gateway.get("/v1/gateway/hosts").await;
            let expected = serde_json::json!([
                { "Counts": winner, "PluginID": D0, "Role": "node", "Socket": loser }
            ]);
            if hosts[0]["Duplicates"] == expected {
                return;
            }
            assert!(begun.elapsed() < LONG, "expected {expected:#}: {hosts:#}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    duplicates(&first, &second).await;
    let plugin = gateway.plugin(D0).await.expect("it counts");
    assert_eq!((&plugin["NodesHealthy"], &plugin["NodesExpected"]), (&1.into(), &1.into()));
    assert_eq!(plugin["Version"], "2.0");
    // The healthy one before the newest.
    second.leave_dead().await;
    let is_first = |record: &Record| *record.socket == *first.socket().to_string_lossy();
    let record = record_until(&gateway, "the other one counts", D0, Role::Node, is_first).await;
    assert_eq!(record.phase, Phase::Healthy);
    duplicates(&second, &first).await;
    second.come_back().await.expect("binds");
    record_until(&gateway, "the newest counts again", D0, Role::Node, is_newest).await;
}

#[tokio::test]
async fn cases_74_97_and_104_what_a_kubelet_believes_is_compared_with_what_is() {
    let host = Host::new();
    let driver = host.serve(FakeDriver::monolith(D0), &host.kubelet("plugins/a/csi.sock")).await;
    let registrar = host.register(D0, "/var/lib/kubelet/plugins/a/csi.sock").await;
    let gateway = host.gateway().await;
    healthy(&gateway, D0, Role::Node).await;
    verdict(&gateway, D0, Registration::Ok).await;
    assert!(record(&gateway, D0, Role::Controller).is_none(), "case 74: a node only");
    let detail = gateway.detail(D0, "node").await.expect("known");
    assert_eq!(detail["Registration"], "ok");
    let connections = driver.connections();

    registrar.vanish().await;
    let record = verdict(&gateway, D0, Registration::Unregistered).await;
    assert_eq!(record.phase, Phase::Healthy, "case 104: nothing is retired");
    registrar.come_back().await.expect("binds");
    verdict(&gateway, D0, Registration::Ok).await;
    assert_eq!(driver.connections(), connections, "a driver is not dialled anew for that");

    // The kubelet goes on to believe in a driver that died.
    driver.leave_dead().await;
    let record = verdict(&gateway, D0, Registration::OrphanSocket).await;
    assert_eq!(record.phase, Phase::Stale);
    driver.come_back().await.expect("binds");
    verdict(&gateway, D0, Registration::Ok).await;

    let moves: Vec<(String, String)> = gateway
        .history(D0)
        .await
        .iter()
        .filter(|change| change["Kind"] == "registration")
        .map(|change| {
            let side = |side: &str| change[side].as_str().unwrap_or_default().to_owned();
            (side("From"), side("To"))
        })
        .collect();
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let expected = [
        pair("ok", "unregistered"),
        pair("unregistered", "ok"),
        pair("ok", "orphan socket"),
        pair("orphan socket", "ok"),
    ];
    assert_eq!(moves, expected);
    assert_eq!(registrar.calls_at(NOTIFY), 0);
}

#[tokio::test]
async fn a_registrar_that_is_killed_leaves_an_orphan_socket() {
    let host = Host::new();
    let _driver = host.serve(FakeDriver::node(D0), &host.kubelet("plugins/a/csi.sock")).await;
    let registrar = host.register(D0, "/var/lib/kubelet/plugins/a/csi.sock").await;
    let gateway = host.gateway().await;
    verdict(&gateway, D0, Registration::Ok).await;
    registrar.leave_dead().await;
    verdict(&gateway, D0, Registration::OrphanSocket).await;
    left_alone(&gateway, registrar.socket(), "dead or hung: nobody listens there").await;
    registrar.come_back().await.expect("binds");
    verdict(&gateway, D0, Registration::Ok).await;
}

#[tokio::test]
async fn case_98_a_driver_that_is_registered_under_another_name_is_not_who_was_expected() {
    let host = Host::new();
    let _driver = host.serve(FakeDriver::node("other.example.com"), &host.kubelet("plugins/a/csi.sock")).await;
    let _registrar = host.register(D0, "/var/lib/kubelet/plugins/a/csi.sock").await;
    let gateway = host.gateway().await;
    let expected = verdict(&gateway, D0, Registration::NameDiffers).await;
    assert_eq!(expected.phase, Phase::Unhealthy);
    let text = r#"plugin identity changed: expected "drv.example.com", got "other.example.com""#;
    assert_eq!(&*expected.reason.description, text);
    let answered = healthy(&gateway, "other.example.com", Role::Node).await;
    assert_eq!(answered.registration, Some(Registration::NameDiffers));
}

#[tokio::test]
async fn cases_99_100_and_103_registrations_by_their_kind_and_place() {
    let host = Host::new();
    let own = FakeDriver::node(D0).registration("CSIPlugin", D0, "");
    let own = host.serve(own, &host.kubelet("plugins_registry/own.sock")).await;
    let device = FakeDriver::registrar("DevicePlugin", "gpu", "/var/lib/kubelet/device-plugins/gpu.sock");
    let device = host.serve(device, &host.kubelet("plugins_registry/gpu-reg.sock")).await;
    let hidden = FakeDriver::registrar("CSIPlugin", "hidden", "");
    let hidden = host.serve(hidden, &host.kubelet("plugins_registry/.hidden-reg.sock")).await;
    let gateway = host.gateway().await;
    healthy(&gateway, D0, Role::Node).await;
    verdict(&gateway, D0, Registration::Ok).await;
    left_alone(&gateway, device.socket(), "DevicePlugin").await;
    left_alone(&gateway, hidden.socket(), "begins with a dot").await;
    assert_eq!(gateway.reader.current().records().count(), 1);
    assert_eq!((hidden.connections(), device.calls(Rpc::PluginInfo)), (0, 0));
    for registrar in [own, device, hidden] {
        assert_eq!(registrar.calls_at(NOTIFY), 0);
    }
}

#[tokio::test]
async fn case_101_an_endpoint_that_does_not_exist_is_an_instance_that_is_gone() {
    let host = Host::new();
    let _registrar = host.register(D0, "/var/lib/kubelet/plugins/a/csi.sock").await;
    let gateway = host.gateway().await;
    let record = verdict(&gateway, D0, Registration::OrphanSocket).await;
    assert_eq!((record.phase, record.was_healthy), (Phase::Gone, false));
    let driver = host.serve(FakeDriver::node(D0), &host.kubelet("plugins/a/csi.sock")).await;
    healthy(&gateway, D0, Role::Node).await;
    verdict(&gateway, D0, Registration::Ok).await;
    assert_eq!(driver.connections(), 1);
}

#[tokio::test]
async fn case_105_two_registrations_of_one_name_are_one_instance() {
    let host = Host::new();
    let first = host.serve(FakeDriver::node(D0), &host.kubelet("plugins/a/csi.sock")).await;
    until_newer_than(first.socket()).await;
    let second = host.serve(FakeDriver::node(D0), &host.kubelet("plugins/b/csi.sock")).await;
    let _one = host.register(D0, "/var/lib/kubelet/plugins/a/csi.sock").await;
    let other = FakeDriver::registrar("CSIPlugin", D0, "/var/lib/kubelet/plugins/b/csi.sock");
    let _other = host.serve(other, &host.kubelet("plugins_registry/again-reg.sock")).await;
    let gateway = host.gateway().await;
    let is_newest = |record: &Record| *record.socket == *second.socket().to_string_lossy();
    record_until(&gateway, "the newest counts", D0, Role::Node, is_newest).await;
    healthy(&gateway, D0, Role::Node).await;
    let begun = Instant::now();
    while gateway.get("/v1/gateway/hosts").await[0]["Duplicates"].as_array().is_none_or(|list| list.len() != 1) {
        assert!(begun.elapsed() < LONG, "the loser is not listed");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(gateway.plugin(D0).await.expect("it counts")["NodesExpected"], 1);
}

/// A driver of the churn: one file, made once, and who listens behind it.
struct Life {
    driver: ServedDriver,
    name: &'static str,
    file: (u64, u64),
    begun: Instant,
    is_alive: bool,
    is_cut: bool,
}

impl Life {
    /// No more than one dial a second, and one more where a connection ended.
    fn check_dials(&self) {
        let allowed = 1 + usize::from(self.is_cut) + usize::try_from(self.begun.elapsed().as_secs()).expect("short");
        let dialled = self.driver.connections();
        assert!(dialled <= allowed, "{}: {dialled} dials, at most {allowed}", self.driver);
    }
}

/// Directories in which sockets come, go and move at random.
struct Churn {
    random: fastrand::Rng,
    slots: Vec<PathBuf>,
    lives: Vec<Life>,
    past: Vec<String>,
}

impl Churn {
    const NAMES: [&str; 6] = ["a.example.com", "b.example.com", "c.example.com", "d.example.com", "e.example.com", "f"];

    fn file_at(path: &Path) -> Option<(u64, u64)> {
        std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
    }

    fn slot(&mut self) -> PathBuf {
        self.random.choice(&self.slots).expect("there are slots").clone()
    }

    fn life(&mut self) -> Option<&mut Life> {
        let alive: Vec<usize> = (0..self.lives.len()).filter(|number| self.lives[*number].is_alive).collect();
        self.random.choice(alive).map(|number| &mut self.lives[number])
    }

    /// Who made this file, the newest: kernels use inodes again.
    fn owner(&self, file: (u64, u64)) -> Option<&Life> {
        self.lives.iter().rev().find(|life| life.file == file)
    }

    async fn make(&mut self, path: &Path) {
        if path.is_dir() {
            return;
        }
        let name = self.random.choice(Self::NAMES).expect("there are names");
        let driver = FakeDriver::node(name).serve(path).await.expect("binds");
        let file = Self::file_at(path).expect("just made");
        self.lives.push(Life { driver, name, file, begun: Instant::now(), is_alive: true, is_cut: false });
    }

    async fn step(&mut self) {
        let (slot, other) = (self.slot(), self.slot());
        let parent = slot.parent().expect("below a root").to_owned();
        let kind = self.random.u8(..14);
        self.past.push(format!("{kind} {} {}", slot.display(), other.display()));
        match kind {
            // Made, or replaced beside an old process that lives on.
            0..=3 => self.make(&slot).await,
            // Replaced without a moment in which there is no file.
            4 => {
                let beside = parent.join("next");
                self.make(&beside).await;
                let _ = std::fs::create_dir_all(&parent);
                let _ = std::fs::rename(&beside, &slot);
            }
            // Killed, and stopped.
            5 | 6 => {
                if let Some(life) = self.life() {
                    life.is_alive = false;
                    let end =
                        async { if kind == 5 { life.driver.leave_dead().await } else { life.driver.vanish().await } };
                    tokio::time::timeout(LONG, end).await.expect("a driver ends when it is told to");
                }
            }
            7 => drop(std::fs::remove_file(&slot)),
            8 => drop(std::fs::remove_dir_all(&parent)),
            9 | 10 => {
                let _ = std::fs::create_dir_all(&parent);
                let _ = if kind == 9 { std::fs::hard_link(&other, &slot) } else { symlink(&other, &slot) };
            }
            11 => drop(std::fs::rename(&other, &slot)),
            12 => {
                use std::os::unix::fs::PermissionsExt;
                let _ =
                    std::fs::set_permissions(&slot, std::fs::Permissions::from_mode(0o600 | self.random.u32(..0o100)));
            }
            _ => {
                if let Some(life) = self.life() {
                    life.is_cut = true;
                    life.driver.cut_connections();
                }
            }
        }
    }

    /// What the directories are, against what the gateway says: the first difference.
    async fn difference(&self, gateway: &TestGateway) -> Option<String> {
        let sockets = gateway.get("/v1/gateway/sockets").await;
        let sockets = sockets["Sockets"].as_array().expect("a list");
        let mut by_file = std::collections::BTreeMap::<(u64, u64), Vec<&Path>>::new();
        for slot in &self.slots {
            let socket = sockets.iter().find(|socket| socket["Path"] == *slot.to_string_lossy());
            match Self::file_at(slot) {
                Some(file) => by_file.entry(file).or_default().push(slot),
                None if socket.is_none_or(|socket| socket["Phase"] == "gone" || socket["Ignored"] == true) => {}
                None => return Some(format!("{} is not there, and is {}", slot.display(), socket?)),
            }
        }
        let mut expected = std::collections::BTreeSet::new();
        for (file, paths) in &by_file {
            let owner = self.owner(*file);
            let known =
                sockets.iter().filter(|socket| paths.iter().any(|path| socket["Path"] == *path.to_string_lossy()));
            let (aside, watched): (Vec<&Value>, Vec<&Value>) = known.partition(|socket| socket["Ignored"] == true);
            let [watched] = watched[..] else {
                return Some(format!("of {paths:?} not one is watched: {watched:#?} {aside:#?}"));
            };
            if aside.len() + 1 != paths.len() {
                return Some(format!("of {paths:?} not all are listed: {watched:#} {aside:#?}"));
            }
            match owner.filter(|owner| owner.is_alive) {
                Some(owner) if watched["Phase"] == "healthy" && watched["Provider"] == owner.name => {
                    expected.insert(owner.name);
                }
                None if watched["Phase"] == "stale" => {}
                owner => return Some(format!("{:?} is {watched:#}", owner.map(|owner| owner.name))),
            }
        }
        let catalog = gateway.reader.current();
        let is_healthy = |record: &&Record| record.phase == Phase::Healthy;
        let healthy: std::collections::BTreeSet<&str> =
            catalog.records().filter(is_healthy).map(|record| record.key.plugin.as_str()).collect();
        if healthy != expected {
            return Some(format!("{healthy:?} are healthy, and {expected:?} listen"));
        }
        for record in catalog.records().filter(is_healthy) {
            let owner = Self::file_at(Path::new(&*record.socket)).and_then(|file| self.owner(file));
            if owner.is_none_or(|owner| owner.name != record.key.plugin.as_str()) {
                return Some(format!("{record:?} counts at a socket of {:?}", owner.map(|owner| owner.name)));
            }
        }
        let shown = gateway.get("/v1/gateway/plugins").await;
        let shown = shown.as_array().expect("a list").iter().filter(|plugin| plugin["NodesHealthy"] == 1);
        let shown: std::collections::BTreeSet<&str> = shown.filter_map(|plugin| plugin["ID"].as_str()).collect();
        (shown != expected).then(|| format!("{shown:?} are shown, and {expected:?} listen"))
    }

    /// Waits until the gateway says what the directories are.
    async fn settle(&self, gateway: &TestGateway) {
        let begun = Instant::now();
        while let Some(difference) = self.difference(gateway).await {
            assert!(begun.elapsed() < LONG, "{difference}\nafter\n{}", self.past.join("\n"));
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// With looks so seldom that an event which is missed shows. `scripts/churn` does the same to a released binary for a
/// minute, and reads its memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_hundreds_of_changes_at_random_the_catalog_is_what_the_directories_are() {
    let host = Host::new();
    let mut slots: Vec<PathBuf> = (0..6).map(|number| host.at(&format!("d/{number}/csi.sock"))).collect();
    slots.extend((0..4).map(|number| host.kubelet(&format!("plugins/{number}/csi.sock"))));
    let arguments = [
        format!("--csi-plugins-dir={}", host.at("d").display()),
        format!("--kubelet-dir={}", host.kubelet("").display()),
    ];
    let gateway = TestGateway::seldom(&arguments.each_ref().map(String::as_str), &[("NODE_NAME", HOST)]).await;
    let mut churn = Churn { random: fastrand::Rng::with_seed(4), slots, lives: Vec::new(), past: Vec::new() };
    for _ in 0..4 {
        for _ in 0..100 {
            churn.step().await;
            tokio::time::sleep(std::time::Duration::from_millis(churn.random.u64(..20))).await;
        }
        churn.settle(&gateway).await;
        churn.lives.iter().for_each(Life::check_dials);
    }
    gateway.stop().await;
}
