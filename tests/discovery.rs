//! Drivers that nobody named: where they are found, what is left alone and why, and what a kubelet believes of them. The
//! numbers are those of the behaviour cases; 57, 68 (a path of more than 107 bytes) and 102 are checked where hosts are full.
//!
//! Done otherwise: 64 (datagram) is left alone by its entry in `/proc/net/unix`, so that it is not even dialled; 65 is told of
//! a socket that configuration names, and one that was only found in a closed directory is left alone with that reason; 104
//! is a verdict, and retires nothing (design, section 3); of 105, as of 92, the newest counts, where a kubelet takes the first.
//! 84, 89 and 90 are in `forget`, 72, 73 and 75 in `fingerprint`.

#[path = "support/churn.rs"]
mod churn;
#[path = "support/confined.rs"]
mod confined;
#[path = "support/parts.rs"]
mod parts;
mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use churn::Churn;
use confined::{can_be_confined, confined};
use csi_gateway::csi::Rpc;
use csi_gateway::demo::{FakeDriver, ServedDriver};
use csi_gateway::domain::id::Role;
use csi_gateway::domain::record::{Phase, Record, Registration};
use parts::{Part, skipped};
use rustix::process::Signal;
use serde_json::Value;
use support::gateway::{D0, HOST, LONG, TestGateway};
use support::host::{ALLOCATION, Full, Host, NOTIFY, file};
use support::process::{self, Serving, command, gateway, signal, until};

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

#[tokio::test]
async fn a_host_full_of_drivers_is_found_without_configuration() {
    let host = Host::new();
    let full = Full::lay(&host).await;
    let gateway = host.gateway_with(&[], &[]).await;
    full.is_shown(async |path| gateway.get(path).await).await;
    assert_eq!(gateway.reader.current().records().count(), full.instances(), "and nobody else");
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
    full.finish().await;
}

/// `serve` as people start it, told where the host's root is and nothing else; the port and the place of its state are the
/// test's own.
fn serve(host: &Host, mut command: tokio::process::Command, folder: &Path) -> tokio::process::Command {
    command
        .args(["serve", "--http-endpoint=127.0.0.1:0"])
        .arg(host.as_flag())
        .env("STATE_DIRECTORY", folder.join("state"));
    command
}

#[tokio::test]
async fn real_drivers_are_found_among_scripted_ones() {
    let (Some(driver), Some(registrar)) = (Part::HostpathDriver.find(), Part::NodeDriverRegistrar.find()) else {
        return;
    };
    let (host, folder) = (Host::new(), tempfile::tempdir().expect("a scratch directory"));
    let full = Full::lay(&host).await;
    let socket = host.kubelet("plugins/csi-hostpath/csi.sock");
    std::fs::create_dir_all(socket.parent().expect("below the root")).expect("can be made");
    std::fs::create_dir_all(folder.path().join("driver")).expect("can be made");
    let log = |name: &str| std::fs::File::create(folder.path().join(name)).expect("a log file");
    let _driver = command(driver)
        .arg("--drivername=hostpath.csi.k8s.io")
        .arg(format!("--endpoint=unix://{}", socket.display()))
        .arg("--nodeid=node-12345678")
        .arg(format!("--statedir={}", folder.path().join("driver").display()))
        .stderr(log("driver.log"))
        .spawn()
        .expect("the driver starts");
    let _registrar = command(registrar)
        .arg(format!("--csi-address={}", socket.display()))
        .arg("--kubelet-registration-path=/var/lib/kubelet/plugins/csi-hostpath/csi.sock")
        .arg(format!("--plugin-registration-path={}", host.kubelet("plugins_registry").display()))
        .stderr(log("registrar.log"))
        .spawn()
        .expect("the registrar starts");
    let gateway = Serving::run(serve(&host, gateway(), folder.path()), &folder.path().join("log")).await;
    full.is_shown(async |path| gateway.json(path).await).await;
    until("the real driver is registered and healthy", async || {
        let known = gateway.get("/v1/gateway/plugin/hostpath.csi.k8s.io").await;
        let plugin: Value = serde_json::from_slice(&known.body).map_err(|error| error.to_string())?;
        let node = plugin["Nodes"].as_object().and_then(|nodes| nodes.values().next()).cloned().unwrap_or_default();
        let is_so =
            node["Healthy"] == true && node["Registration"] == "ok" && plugin["Controllers"] == serde_json::json!({});
        if is_so { Ok(()) } else { Err(format!("{plugin:#}")) }
    })
    .await;
    full.finish().await;
}

const NO_INOTIFY: &str = "echo 0 > /proc/sys/user/max_inotify_instances";

#[tokio::test]
async fn without_directory_events_the_same_is_found_and_it_is_said() {
    if !can_be_confined(NO_INOTIFY).await {
        return;
    }
    let (host, folder) = (Host::new(), tempfile::tempdir().expect("a scratch directory"));
    let full = Full::lay(&host).await;
    let program = env!("CARGO_BIN_EXE_csi-gateway");
    let command = serve(&host, confined(NO_INOTIFY, &[program]), folder.path());
    let gateway = Serving::run(command, &folder.path().join("log")).await;
    full.is_shown(async |path| gateway.json(path).await).await;
    // What comes later is found by looking.
    let late = host.serve(FakeDriver::node(D0), &host.kubelet("plugins/late/csi.sock")).await;
    until("what came later is healthy", async || {
        let plugin = gateway.get(&format!("/v1/plugin/csi/{D0}")).await;
        if plugin.status.as_u16() == 200 { Ok(()) } else { Err(plugin.status.to_string()) }
    })
    .await;
    let itself = gateway.json("/v1/gateway").await;
    let events = &itself["DirectoryEvents"];
    assert_eq!(events["Watched"], 0, "{itself:#}");
    assert!(events["Problem"].as_str().is_some_and(|why| why.contains("gives no directory events")), "{itself:#}");
    let metrics = String::from_utf8(gateway.get("/metrics").await.body.to_vec()).expect("text");
    let polled = metrics.lines().find_map(|line| line.strip_prefix("csi_gateway_paths_polled ")).expect("the metric");
    assert!(polled.parse::<u64>().is_ok_and(|count| count > 10), "{metrics}");
    assert!(metrics.contains("\ncsi_gateway_paths_watched 0\n"), "{metrics}");

    let mut doctor = confined(NO_INOTIFY, &[program, "doctor"]);
    doctor.arg(host.as_flag());
    let (_, text, _) = process::run(doctor).await;
    assert!(text.starts_with("warning   directory events: the kernel gives none"), "{text}");
    assert!(text.contains("remedy: raise the sysctls fs.inotify.max_user_instances"), "{text}");
    late.finish().await.expect("as scripted");
    full.finish().await;
}

async fn can_be_traced() -> bool {
    match command("strace").args(["-qq", "-o", "/dev/null", "true"]).status().await {
        Ok(status) if status.success() => true,
        tried => skipped::<()>(&format!("`strace` cannot be run here: {tried:?}")).is_some(),
    }
}

/// Calls of the kernel that change what a path names, or open it to be changed.
fn changes(trace: &str, below: &Path) -> Vec<String> {
    const CHANGING: [&str; 18] = [
        "mkdir",
        "rmdir",
        "unlink",
        "rename",
        "link",
        "symlink",
        "chmod",
        "fchmod",
        "chown",
        "fchown",
        "lchown",
        "truncate",
        "ftruncate",
        "mknod",
        "utime",
        "setxattr",
        "bind",
        "creat",
    ];
    const OPENED: [&str; 5] = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND"];
    let is_changing = |line: &&str| {
        // PID CALL(ARGUMENTS) = RESULT
        let call = line.split_once(' ').map_or("", |(_, call)| call.trim_start());
        let name = call.split('(').next().unwrap_or_default();
        CHANGING.iter().any(|changing| name.starts_with(changing))
            || name.starts_with("open") && OPENED.iter().any(|flag| call.contains(flag))
    };
    let below = below.to_string_lossy();
    trace.lines().filter(|line| line.contains(&*below)).filter(is_changing).map(str::to_owned).collect()
}

#[test]
fn a_trace_shows_what_would_change_a_path() {
    let below = Path::new("/host");
    let trace = "7 openat(AT_FDCWD, \"/host/a\", O_RDONLY|O_CLOEXEC) = 3\n\
                 7 unlink(\"/elsewhere/a\") = 0\n\
                 8  statx(AT_FDCWD, \"/host/a\", 0, 0, 0) = 0\n";
    assert_eq!(changes(trace, below), Vec::<String>::new());
    for line in [
        "7 openat(AT_FDCWD, \"/host/a\", O_WRONLY|O_CREAT, 0644) = 3",
        "7 unlinkat(AT_FDCWD, \"/host/a\", 0) = 0",
        "7 openat(3</host>, \"a\", O_RDWR) = -1 EROFS (Read-only file system)",
    ] {
        assert_eq!(changes(line, below), [line]);
    }
}

#[tokio::test]
async fn nothing_foreign_is_written_not_even_where_it_could_be() {
    let (host, folder) = (Host::new(), tempfile::tempdir().expect("a scratch directory"));
    // For a gateway that may only read, and for one that is watched by the kernel's own account.
    let read_only = format!(
        "mount --bind '{0}' '{0}' && mount -o remount,ro,bind '{0}' && ! touch '{0}/file' 2>/dev/null",
        host.root().display()
    );
    let full = Full::lay(&host).await;
    if can_be_confined(&read_only).await {
        let command = serve(&host, confined(&read_only, &[env!("CARGO_BIN_EXE_csi-gateway")]), folder.path());
        let gateway = Serving::run(command, &folder.path().join("log")).await;
        full.is_shown(async |path| gateway.json(path).await).await;
        // The next one keeps its state in the same place.
        gateway.kill().await;
    }
    if can_be_traced().await {
        let trace = folder.path().join("trace");
        let mut traced = command("strace");
        // The tracer beside the gateway and not above it, so that a signal reaches the gateway.
        traced.args(["-D", "-f", "-y", "-qq", "--trace=%file,bind,fchmod,fchown,ftruncate", "-o"]).arg(&trace);
        traced.arg(env!("CARGO_BIN_EXE_csi-gateway"));
        let gateway = Serving::run(serve(&host, traced, folder.path()), &folder.path().join("log")).await;
        full.is_shown(async |path| gateway.json(path).await).await;
        let late = host.serve(FakeDriver::node(D0), &host.kubelet("plugins/late/csi.sock")).await;
        until("what came later is healthy", async || {
            let plugin = gateway.get(&format!("/v1/plugin/csi/{D0}")).await;
            if plugin.status.as_u16() == 200 { Ok(()) } else { Err(plugin.status.to_string()) }
        })
        .await;
        late.finish().await.expect("as scripted");
        let mut child = gateway.child;
        signal(&child, Signal::TERM);
        assert!(child.wait().await.expect("it ends").success());
        let trace = until("the trace is complete", async || {
            let text = std::fs::read_to_string(&trace).map_err(|error| error.to_string())?;
            if text.contains("state.redb") { Ok(text) } else { Err(format!("{} bytes", text.len())) }
        })
        .await;
        let read = host.kubelet("plugins_registry");
        assert!(trace.contains(&*read.to_string_lossy()), "the trace shows what is read");
        assert!(!changes(&trace, &folder.path().join("state")).is_empty(), "and what is written");
        assert_eq!(changes(&trace, host.root()), Vec::<String>::new());
        for secret in ["secret-id", "state.db"] {
            assert!(!trace.contains(secret), "{secret} is never touched");
        }
    }
    full.finish().await;
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
async fn case_65_a_directory_that_is_closed_to_us_is_permission_denied() {
    let (host, folder) = (Host::new(), tempfile::tempdir().expect("a scratch directory"));
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
    };
    let closed = host.at("d/closed");
    let driver = host.serve(FakeDriver::node(D0), &closed.join("csi.sock")).await;
    open(&closed, 0o000);
    for directory in [host.root(), folder.path()] {
        open(directory, 0o777);
    }
    let mut command = gateway();
    command.args(["serve", "--http-endpoint=127.0.0.1:0", "--probe-timeout=1s"]);
    command.arg(format!("--csi-address=unix://{}", closed.join("csi.sock").display()));
    command
        .arg(format!("--csi-plugins-dir={}", host.at("d").display()))
        .env("STATE_DIRECTORY", folder.path().join("state"));
    if rustix::process::getuid().is_root() {
        // Root may do everything, so somebody else has to look.
        command.uid(65534).gid(65534);
    }
    let gateway = Serving::run(command, &folder.path().join("log")).await;
    until("it is unhealthy because it may not be opened", async || {
        let view = gateway.json("/v1/gateway/sockets").await;
        let sockets = view["Sockets"].as_array().cloned().unwrap_or_default();
        let path = closed.join("csi.sock");
        let socket = sockets.iter().find(|socket| socket["Path"] == *path.to_string_lossy());
        let is_so = socket.is_some_and(|socket| {
            socket["Phase"] == "unhealthy"
                && socket["Reason"].as_str().is_some_and(|why| why.contains("permission denied"))
        });
        if is_so { Ok(()) } else { Err(format!("{view:#}")) }
    })
    .await;
    assert_eq!(driver.connections(), 0);
    drop(gateway);
    open(&closed, 0o700);
    driver.finish().await.expect("as scripted");
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

#[tokio::test]
async fn a_link_that_comes_and_goes_takes_no_driver_from_its_path() {
    let host = Host::new();
    let driver = host.serve(FakeDriver::node(D0), &host.at("d/m/csi.sock")).await;
    std::fs::create_dir_all(host.at("d/a")).expect("can be made");
    let gateway = TestGateway::seldom(&[&format!("--csi-plugins-dir={}", host.at("d").display())], &[]).await;
    healthy(&gateway, D0, Role::Node).await;
    let link = host.at("d/a/csi.sock");
    for round in 0..6 {
        let made =
            if round % 2 == 0 { std::fs::hard_link(driver.socket(), &link) } else { symlink(driver.socket(), &link) };
        made.expect("can be linked");
        left_alone(&gateway, &link, "the same socket as").await;
        std::fs::remove_file(&link).expect("can be removed");
        let begun = Instant::now();
        while gateway.socket(&link).await.is_some() {
            assert!(begun.elapsed() < LONG, "the link is still listed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(driver.connections(), 1);
    let record = healthy(&gateway, D0, Role::Node).await;
    assert_eq!(*record.socket, *driver.socket().to_string_lossy());
}

/// With looks so seldom that an event which is missed shows. `scripts/churn` does the same to a released binary for a
/// minute, and reads its memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_hundreds_of_changes_at_random_the_catalog_is_what_the_directories_are() {
    let host = Host::new();
    let mut churn = Churn::new(host.root(), 4);
    let arguments = churn.arguments();
    let gateway = TestGateway::seldom(&arguments.each_ref().map(String::as_str), &[("NODE_NAME", HOST)]).await;
    for _ in 0..3 {
        for _ in 0..120 {
            churn.step().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        churn.settle(gateway.address()).await;
    }
    gateway.stop().await;
}
