//! `doctor`: what each layer of a socket says, what is wrong, and the remedy, as people read it. The texts are golden:
//! somebody follows them at night.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use csi_gateway::csi::Rpc;
use csi_gateway::demo::{FakeDriver, OddSocket, Reply};
use csi_gateway::domain::code::Code;
use serde_json::Value;
use support::process::{gateway, run};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

const NAME: &str = "drv.example.com";

/// A short directory, so that paths are.
fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("doc").tempdir().expect("a scratch directory")
}

/// What people read, with this run's own numbers and paths taken out.
fn redacted(text: &str, directory: &Path) -> String {
    let mut text = text.replace(&*directory.to_string_lossy(), "DIR");
    for (before, number) in [
        ("process ", std::process::id()),
        ("user ", rustix::process::getuid().as_raw()),
        ("group ", rustix::process::getgid().as_raw()),
    ] {
        text = text.replace(&format!("{before}{number}"), &format!("{before}N"));
    }
    // What the umask of whoever runs the tests makes of it.
    let mut parts = text.split("mode ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| format!("{text}mode MODE{}", part.trim_start_matches(|c: char| c.is_ascii_digit())))
}

fn golden(name: &str, text: &str) {
    insta::with_settings!(
        { snapshot_path => "golden", prepend_module_to_snapshot => false, omit_expression => true },
        { insta::assert_snapshot!(format!("doctor_{name}"), text) }
    );
}

/// Runs it; the code must be 0 if it is well and 4 otherwise, and the text golden.
async fn examined(name: &str, is_well: bool, directory: &Path, arguments: &[&str]) {
    let mut command = gateway();
    command.arg("doctor").args(arguments);
    let (code, out, err) = run(command).await;
    assert_eq!((code, err.as_str()), (Some(if is_well { 0 } else { 4 }), ""), "{name}:\n{out}");
    golden(name, &redacted(&out, directory));
}

/// One socket, with limits that a test can wait for.
async fn one(name: &str, is_well: bool, directory: &Path, socket: &Path) {
    let socket = socket.to_string_lossy();
    examined(name, is_well, directory, &[&socket, "--probe-timeout=300ms", "--timeout=300ms"]).await;
}

#[tokio::test]
async fn a_driver_that_is_well_is_well_at_every_layer() {
    let directory = scratch();
    let path = directory.path().join("csi.sock");
    let driver = FakeDriver::monolith(NAME).topology([("zone", "z1")]);
    let driver = driver.serve(&path).await.expect("binds");
    one("well", true, directory.path(), &path).await;
    let only_reads = driver.methods();
    assert!(only_reads.iter().all(|method| Rpc::ALL.iter().any(|rpc| rpc.name() == method)), "{only_reads:?}");
}

#[tokio::test]
async fn what_is_wrong_with_the_path_and_the_file_is_said() {
    let directory = scratch();
    let folder = directory.path();
    let path = folder.join("csi.sock");
    one("no_file", false, folder, &path).await;
    one("no_directory", false, folder, &folder.join("nothing/csi.sock")).await;
    std::fs::write(folder.join("file"), "").expect("a file");
    std::fs::set_permissions(folder.join("file"), PermissionsExt::from_mode(0o644)).expect("ours");
    one("regular_file", false, folder, &folder.join("file")).await;
    one("file_for_directory", false, folder, &folder.join("file/csi.sock")).await;
    std::fs::create_dir(folder.join("dir")).expect("a directory");
    std::fs::set_permissions(folder.join("dir"), PermissionsExt::from_mode(0o755)).expect("ours");
    one("directory", false, folder, &folder.join("dir")).await;
    std::os::unix::fs::symlink("nowhere", folder.join("link")).expect("a link");
    one("dangling_link", false, folder, &folder.join("link")).await;
}

#[tokio::test]
async fn what_is_wrong_with_whoever_listens_is_said() {
    let directory = scratch();
    let folder = directory.path();
    let path = folder.join("csi.sock");
    let driver = FakeDriver::node(NAME).serve(&path).await.expect("binds");
    driver.leave_dead().await;
    one("nobody_listens", false, folder, &path).await;
    drop(driver);
    let _ = std::fs::remove_file(&path);
    {
        let _odd = OddSocket::datagram(&path).expect("binds");
        one("not_a_stream", false, folder, &path).await;
    }
    {
        let _odd = OddSocket::has_a_full_queue(&path).await.expect("binds");
        one("full_queue", false, folder, &path).await;
    }
    {
        let _odd = OddSocket::never_accepts(&path).expect("binds");
        one("silent", false, folder, &path).await;
    }
    {
        let _odd = OddSocket::accepts_and_closes(&path).expect("binds");
        one("closes", false, folder, &path).await;
    }
    {
        let _odd = OddSocket::speaks_garbage(&path, b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("binds");
        one("http1", false, folder, &path).await;
    }
    {
        let _odd = OddSocket::speaks_garbage(&path, b"\x15\x03\x01\x00\x02\x02\x46...").expect("binds");
        one("tls", false, folder, &path).await;
    }
    {
        let _odd = OddSocket::speaks_garbage(&path, b"220 mail.example.com").expect("binds");
        one("garbage", false, folder, &path).await;
    }
}

#[tokio::test]
async fn what_a_driver_says_is_wrong_is_said() {
    let directory = scratch();
    let folder = directory.path();
    let path = folder.join("csi.sock");
    let refusal = Reply::fail(Code::FailedPrecondition, "backend down");
    let node = || FakeDriver::node(NAME);
    for (name, driver) in [
        ("starting", node().always(Rpc::Probe, Reply::starting())),
        ("probe_fails", node().always(Rpc::Probe, refusal)),
        ("probe_hangs", node().always(Rpc::Probe, Reply::hang())),
        ("nameless", FakeDriver::node("")),
        ("not_csi", node().always(Rpc::PluginInfo, Reply::unimplemented())),
        ("registration_socket", FakeDriver::registrar("CSIPlugin", NAME, folder.to_string_lossy())),
        ("registration_without_driver", FakeDriver::registrar("CSIPlugin", NAME, "/csi/nothing.sock")),
        ("no_role", node().always(Rpc::NodeCapabilities, Reply::unimplemented())),
        ("node_info_fails", node().always(Rpc::NodeInfo, Reply::fail(Code::Unavailable, "no metadata"))),
    ] {
        let driver = driver.serve(&path).await.expect("binds");
        one(name, false, folder, &path).await;
        assert_eq!(driver.calls_at("/pluginregistration.Registration/NotifyRegistrationStatus"), 0);
        driver.vanish().await;
    }
    let driver = FakeDriver::controller(NAME).serve(&path).await.expect("binds");
    let socket = path.to_string_lossy();
    examined("role_not_served", false, folder, &[&socket, "--plugin-type=node"]).await;
    drop(driver);
    let driver = node().always(Rpc::NodeInfo, Reply::unimplemented()).serve(&path).await.expect("binds");
    one("no_node_info", true, folder, &path).await;
    drop(driver);
}

/// Resets every stream with `PROTOCOL_ERROR`, as servers do that refuse the authority.
async fn resets(listener: UnixListener) {
    const PREFACE: usize = 24;
    const HEADER: usize = 9;
    while let Ok((mut stream, _)) = listener.accept().await {
        // Empty settings.
        let _ = stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await;
        let (mut read, mut at) = (Vec::new(), PREFACE);
        while stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
            while let Some([high, middle, low, kind, _, id @ ..]) = read.get(at..at + HEADER) {
                at += HEADER + usize::from(*high) * 65_536 + usize::from(*middle) * 256 + usize::from(*low);
                if *kind == 1 {
                    let reset = [&b"\0\0\x04\x03\0"[..], id, b"\0\0\0\x01"].concat();
                    let _ = stream.write_all(&reset).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_refuses_the_authority_is_recognised() {
    let directory = scratch();
    let path = directory.path().join("csi.sock");
    let server = tokio::spawn(resets(UnixListener::bind(&path).expect("binds")));
    one("authority", false, directory.path(), &path).await;
    server.abort();
}

#[tokio::test]
async fn a_path_that_is_too_long_for_others_is_well_and_said() {
    let directory = scratch();
    let folder = directory.path().join("x".repeat(130 - directory.path().as_os_str().len()));
    let path = folder.join("csi.sock");
    let driver = FakeDriver::node(NAME).serve(&path).await.expect("binds");
    one("long_path", true, &folder, &path).await;
    drop(driver);
}

#[tokio::test]
async fn a_link_is_followed_and_said() {
    let directory = scratch();
    let folder = directory.path();
    let driver = FakeDriver::node(NAME).serve(folder.join("real.sock")).await.expect("binds");
    std::os::unix::fs::symlink(folder.join("real.sock"), folder.join("csi.sock")).expect("a link");
    one("link", true, folder, &folder.join("csi.sock")).await;
    drop(driver);
}

#[tokio::test]
async fn registrations_beside_a_driver_are_compared() {
    let directory = scratch();
    let folder = directory.path();
    let path = folder.join("plugins/drv/csi.sock");
    std::fs::create_dir(folder.join("plugins_registry")).expect("a directory");
    let driver = FakeDriver::node(NAME).serve(&path).await.expect("binds");
    one("unregistered", false, folder, &path).await;
    let registrar = |name: &str, file: &str, endpoint: &Path| {
        let served = FakeDriver::registrar("CSIPlugin", name, endpoint.to_string_lossy());
        served.serve(folder.join("plugins_registry").join(file))
    };
    {
        let _other = registrar(NAME, "drv-reg.sock", Path::new("/csi/other.sock")).await.expect("binds");
        one("registered_elsewhere", false, folder, &path).await;
    }
    {
        let _other = registrar("old.example.com", "drv-reg.sock", &path).await.expect("binds");
        one("registered_by_another_name", false, folder, &path).await;
    }
    let first = registrar(NAME, "drv-reg.sock", &path).await.expect("binds");
    one("registered", true, folder, &path).await;
    let second = registrar(NAME, "drv2-reg.sock", Path::new("/csi/other.sock")).await.expect("binds");
    one("registered_twice", false, folder, &path).await;
    for registrar in [first, second] {
        assert_eq!(registrar.calls_at("/pluginregistration.Registration/NotifyRegistrationStatus"), 0);
    }
    drop(driver);
}

#[tokio::test]
async fn another_user_is_told_which_step_is_closed() {
    let directory = scratch();
    let folder = directory.path();
    let path = folder.join("csi.sock");
    let driver = FakeDriver::node(NAME).serve(&path).await.expect("binds");
    let examined = async |name: &str| {
        let mut command = gateway();
        command.arg("doctor").arg(&path);
        if rustix::process::getuid().is_root() {
            // Root may do everything, so somebody else has to look.
            command.uid(65534).gid(65534);
        }
        let (code, out, _) = run(command).await;
        assert_eq!(code, Some(4), "{out}");
        golden(name, &redacted(&out, folder));
    };
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).expect("ours");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o500)).expect("ours");
    examined("socket_denied").await;
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o600)).expect("ours");
    examined("directory_denied").await;
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o700)).expect("ours");
    drop(driver);
}

#[tokio::test]
async fn without_a_socket_the_sources_of_serve_are_examined() {
    let directory = scratch();
    let folder = directory.path();
    let driver = FakeDriver::node(NAME).serve(folder.join("a.sock")).await.expect("binds");
    let flag = |name: &str| format!("--csi-address=unix://{}", folder.join(name).display());
    examined("several", false, folder, &[&flag("a.sock"), &flag("b.sock")]).await;
    let mut command = gateway();
    command.arg("doctor").arg("--json").env("CSI_ENDPOINT", folder.join("a.sock"));
    let (code, out, _) = run(command).await;
    assert_eq!(code, Some(0));
    let found: Value = serde_json::from_str(&out).expect("JSON");
    let sockets = found["Sockets"].as_array().expect("a list");
    let identity = &sockets[0]["Layers"][5];
    assert_eq!((sockets.len(), &sockets[0]["Well"], &sockets[0]["Source"]), (1, &true.into(), &"configured".into()));
    assert_eq!((&identity["Layer"], &identity["State"]), (&"identity".into(), &"ok".into()));
    let searched = found["Searched"].as_array().expect("a list");
    assert!(searched.iter().any(|place| place["Place"] == "/var/lib/kubelet" && place["What"] == "kubelet"));
    drop(driver);
}

/// Directory events may lack where the tests run, which is no affair of this test.
fn without_events(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.contains("directory events"));
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn without_configuration_it_says_where_it_searched_and_what_it_found() {
    let directory = scratch();
    let folder = directory.path();
    let host_root = format!("--host-root={}", folder.display());
    let examined = async |name: &str| {
        let mut command = gateway();
        command.args(["doctor", &host_root, "--probe-timeout=300ms", "--timeout=300ms"]);
        let (code, out, err) = run(command).await;
        assert_eq!((code, err.as_str()), (Some(4), ""), "{out}");
        golden(name, &without_events(&redacted(&out, folder)));
    };
    examined("nothing_found").await;
    let at = |path: &str| folder.join("var/lib/kubelet").join(path);
    std::fs::create_dir_all(at("plugins/kubernetes.io")).expect("a directory");
    std::fs::create_dir_all(at("plugins/file")).expect("a directory");
    std::fs::write(at("plugins/file/csi.sock"), "").expect("a file");
    let one = FakeDriver::node(NAME).serve(at("plugins/a/csi.sock")).await.expect("binds");
    let same = FakeDriver::node(NAME).serve(at("plugins/b/csi.sock")).await.expect("binds");
    let registrar = |name: &str, endpoint: &str| {
        let served = FakeDriver::registrar("CSIPlugin", name, endpoint);
        served.serve(at("plugins_registry").join(format!("{name}-reg.sock")))
    };
    let registered = registrar(NAME, "/var/lib/kubelet/plugins/a/csi.sock").await.expect("binds");
    let dead = registrar("dead.example.com", "/var/lib/kubelet/plugins/dead/csi.sock").await.expect("binds");
    examined("search").await;
    for driver in [one, same, registered, dead] {
        driver.finish().await.expect("as scripted");
    }
}
