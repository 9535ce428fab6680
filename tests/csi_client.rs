//! The connector and the client against scripted drivers, odd sockets, and a server made from generated code.
//!
//! Each guards a way in which a driver, or what stands in its place, could make the gateway wait, crash, or say something
//! untrue.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use csi_gateway::csi::{CallError, Driver, Limits, Readiness, Rpc};
use csi_gateway::demo::{FakeDriver, OddSocket, Reply};
use csi_gateway::domain::capability::{
    CapabilitySet, ControllerCapability, GroupCapability, NodeCapability, PluginService, VolumeExpansion,
};
use csi_gateway::domain::code::Code;
use csi_gateway::transport::connector::ConnectFailure;
use csi_gateway::transport::pb::csi as pb;
use tempfile::TempDir;
use tokio::time::timeout;

/// Longer than anything here takes; it only turns a hang into a failure.
const LONG: Duration = Duration::from_secs(30);

fn short_limits() -> Limits {
    let limit = Duration::from_millis(150);
    Limits { connect: limit, probe: limit, call: limit, node_info: limit }
}

fn scratch() -> (TempDir, PathBuf) {
    let directory = TempDir::new().expect("a scratch directory");
    let socket = directory.path().join("csi.sock");
    (directory, socket)
}

async fn connect(socket: &Path) -> Driver {
    Driver::connect(socket, Limits::default()).await.expect("the driver is there")
}

async fn refusal(socket: &Path) -> CallError {
    timeout(LONG, Driver::connect(socket, short_limits())).await.expect("bounded").expect_err("nobody is there")
}

#[tokio::test]
async fn a_driver_is_asked_for_all_that_it_can_say() {
    let (_directory, socket) = scratch();
    let fake = FakeDriver::monolith("drv.example.com")
        .manifest([("a", "b")])
        .plugin_capabilities([1, 2, 3, 77])
        .volume_expansion([1, 2])
        .controller_capabilities([1, 12, 99, 0, 1])
        .node_capabilities([1, 6])
        .group_capabilities([1])
        .node_info("n-7", 5)
        .topology([("zone", "z1"), ("rack", "r2")])
        .serve(&socket)
        .await
        .expect("binds");
    let driver = connect(&socket).await;

    assert_eq!(driver.probe().await.expect("answers"), Readiness::Ready);
    let info = driver.plugin_info().await.expect("answers");
    assert_eq!((info.name.as_str(), info.vendor_version.as_str()), ("drv.example.com", "1.2.3"));
    assert_eq!(info.manifest.get("a"), Some("b"));
    assert!(info.warnings.is_empty(), "{:?}", info.warnings);
    let capabilities = driver.plugin_capabilities().await.expect("answers");
    let services =
        [PluginService::Controller, PluginService::VolumeAccessibilityConstraints, PluginService::GroupController];
    assert_eq!(capabilities.services, CapabilitySet::new(services, [77]));
    assert_eq!(capabilities.expansion, [VolumeExpansion::Online, VolumeExpansion::Offline].into_iter().collect());
    assert_eq!(
        driver.controller_capabilities().await.expect("answers"),
        CapabilitySet::new([ControllerCapability::CreateDeleteVolume, ControllerCapability::GetVolume], [99]),
    );
    assert_eq!(
        driver.node_capabilities().await.expect("answers"),
        [NodeCapability::StageUnstageVolume, NodeCapability::VolumeMountGroup].into_iter().collect(),
    );
    assert_eq!(
        driver.group_controller_capabilities().await.expect("answers"),
        [GroupCapability::CreateDeleteGetVolumeGroupSnapshot].into_iter().collect(),
    );
    let node = driver.node_info().await.expect("answers").facts;
    assert_eq!((&*node.id, node.max_volumes), ("n-7", 5));
    let segments = node.topology.expect("sent").segments.expect("not empty");
    assert_eq!(segments.iter().collect::<Vec<_>>(), [("rack", "r2"), ("zone", "z1")]);

    assert_eq!(fake.connections(), 1, "one dial, one connection");
    assert_eq!(fake.authorities().into_iter().collect::<Vec<_>>(), ["localhost"]);
    let peer = driver.peer();
    assert_eq!(peer.pid, Some(i32::try_from(std::process::id()).expect("pids are small")));
    fake.finish().await.expect("used up");
}

#[tokio::test]
async fn ready_has_three_states_on_the_wire() {
    let (_directory, socket) = scratch();
    let fake = FakeDriver::node("drv.example.com")
        .probe([
            Reply::bytes(&b"\x0a\x00"[..]),
            Reply::bytes(&b"\x0a\x02\x08\x01"[..]),
            Reply::bytes(&b""[..]),
            Reply::starting(),
            Reply::silent_on_ready(),
        ])
        .serve(&socket)
        .await
        .expect("binds");
    let driver = connect(&socket).await;
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(driver.probe().await.expect("answers"));
    }
    use Readiness::{Ready, Starting};
    assert_eq!(seen, [Starting, Ready, Ready, Starting, Ready, Ready]);
    fake.finish().await.expect("used up");
}

#[tokio::test]
async fn every_code_arrives_in_gos_spelling_with_the_drivers_words() {
    let (_directory, socket) = scratch();
    let fake = FakeDriver::node("drv.example.com").serve(&socket).await.expect("binds");
    let driver = connect(&socket).await;
    for code in Code::ALL {
        fake.set_probe(Reply::fail(*code, "backend down"));
        let error = driver.probe().await.expect_err("it fails");
        assert_eq!(error.code(), *code);
        assert_eq!(error.go_text(), format!("rpc error: code = {code} desc = backend down"));
        assert_eq!(error.rpc(), Some(Rpc::Probe));
        assert_eq!(error.is_unimplemented(), *code == Code::Unimplemented);
        assert!(!error.is_timeout() && !error.is_transport(), "{code} is the driver's own word");
    }
    assert!(!driver.has_ended());
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unimplemented() {
    let (_directory, socket) = scratch();
    let _fake = FakeDriver::node("drv.example.com").serve(&socket).await.expect("binds");
    let driver = connect(&socket).await;
    assert!(driver.controller_capabilities().await.expect_err("node only").is_unimplemented());
    assert!(driver.group_controller_capabilities().await.expect_err("node only").is_unimplemented());

    let (_directory, socket) = scratch();
    let registrar = FakeDriver::registrar("CSIPlugin", "drv.example.com", "/x").serve(&socket).await.expect("binds");
    let driver = connect(&socket).await;
    assert!(driver.plugin_info().await.expect_err("no driver").is_unimplemented());
    assert_eq!(registrar.calls_at("/pluginregistration.Registration/NotifyRegistrationStatus"), 0);
    assert_eq!(registrar.calls(Rpc::PluginInfo), 1);
}

#[tokio::test]
async fn a_call_that_hangs_is_ended_by_our_own_timer_and_the_connection_lives_on() {
    let (_directory, socket) = scratch();
    let fake = FakeDriver::node("drv.example.com").probe([Reply::hang()]).serve(&socket).await.expect("binds");
    let limits = Limits { probe: Duration::from_millis(150), ..Limits::default() };
    let driver = Driver::connect(&socket, limits).await.expect("the driver is there");
    let error = timeout(LONG, driver.probe()).await.expect("bounded").expect_err("it hangs");
    assert_eq!(error.go_text(), "rpc error: code = DeadlineExceeded desc = context deadline exceeded");
    assert!(error.is_timeout() && !error.is_transport());
    assert!(error.for_people().contains("150 ms"), "{}", error.for_people());
    assert_eq!(driver.plugin_info().await.expect("answers").name, "drv.example.com");
    assert_eq!(fake.connections(), 1);
    fake.finish().await.expect("used up");
}

#[tokio::test]
async fn a_slow_answer_within_the_limit_is_an_answer() {
    let (_directory, socket) = scratch();
    let _fake = FakeDriver::node("drv.example.com")
        .probe([Reply::starting().after(Duration::from_millis(200))])
        .serve(&socket)
        .await
        .expect("binds");
    assert_eq!(connect(&socket).await.probe().await.expect("answers"), Readiness::Starting);
}

#[tokio::test]
async fn a_driver_that_says_canceled_has_not_run_into_our_limit() {
    let (_directory, socket) = scratch();
    let fake = FakeDriver::node("drv.example.com").serve(&socket).await.expect("binds");
    fake.set_probe(Reply::fail(Code::Canceled, "Timeout expired"));
    let error = connect(&socket).await.probe().await.expect_err("it fails");
    assert_eq!(error.go_text(), "rpc error: code = Canceled desc = Timeout expired");
    assert!(!error.is_timeout());
}

#[tokio::test]
async fn a_missing_socket_and_a_dead_one_are_told_apart_in_gos_words() {
    let (directory, socket) = scratch();
    let path = socket.display();
    let error = refusal(&socket).await;
    assert!(error.is_missing() && error.is_transport() && !error.is_refused());
    assert_eq!(
        error.go_text(),
        format!(
            "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: \
             dial unix {path}: connect: no such file or directory\""
        ),
    );

    let fake = FakeDriver::node("drv.example.com").serve(&socket).await.expect("binds");
    fake.leave_dead().await;
    let error = refusal(&socket).await;
    assert!(error.is_refused() && error.is_transport() && !error.is_missing());
    let words = format!("dial unix {path}: connect: connection refused\"");
    assert!(error.go_text().ends_with(&words), "{}", error.go_text());

    let beneath_a_file = socket.join("csi.sock");
    assert!(refusal(&beneath_a_file).await.is_missing());

    let plain = directory.path().join("plain.sock");
    std::fs::write(&plain, "").expect("a plain file");
    assert_eq!(refusal(&plain).await.connect_failure(), Some(ConnectFailure::NotASocket));

    let round = directory.path().join("round.sock");
    std::os::unix::fs::symlink(&round, &round).expect("a link to itself");
    let error = refusal(&round).await;
    assert_eq!(error.connect_failure(), Some(ConnectFailure::Loop));
    assert!(error.go_text().contains("connect: too many levels of symbolic links"), "{}", error.go_text());
}

#[tokio::test]
async fn a_datagram_socket_is_named_as_what_it_is() {
    let (_directory, socket) = scratch();
    let _odd = OddSocket::datagram(&socket).expect("binds");
    let error = refusal(&socket).await;
    assert_eq!(error.connect_failure(), Some(ConnectFailure::WrongType));
    assert!(error.go_text().contains("connect: protocol wrong type for socket"), "{}", error.go_text());
}

#[tokio::test]
async fn who_says_nothing_costs_the_connect_limit_and_no_more() {
    let (directory, _) = scratch();
    let at = |name: &str| directory.path().join(name);
    let silent = [
        OddSocket::never_accepts(at("a.sock")).expect("binds"),
        OddSocket::accepts_and_is_silent(at("b.sock")).expect("binds"),
        OddSocket::has_a_full_queue(at("c.sock")).await.expect("binds"),
    ];
    for (odd, failure) in silent.iter().zip([ConnectFailure::Silent, ConnectFailure::Silent, ConnectFailure::Busy]) {
        let began = Instant::now();
        let error = refusal(odd.socket()).await;
        assert!(began.elapsed() >= short_limits().connect, "the driver had its time");
        assert_eq!(error.connect_failure(), Some(failure));
        assert!(error.is_timeout() && !error.is_transport());
        assert_eq!(error.go_text(), "rpc error: code = DeadlineExceeded desc = context deadline exceeded");
    }
}

#[tokio::test]
async fn who_closes_at_once_or_speaks_something_else_is_noticed_at_once() {
    let (directory, _) = scratch();
    let at = |name: &str| directory.path().join(name);
    let limits = Limits { connect: LONG * 2, ..Limits::default() };
    let closing = OddSocket::accepts_and_closes(at("a.sock")).expect("binds");
    let outcome = timeout(LONG, Driver::connect(closing.socket(), limits)).await;
    let error = outcome.expect("not left to the limit").expect_err("closed");
    assert_eq!(error.connect_failure(), Some(ConnectFailure::Closed));
    assert!(error.is_transport() && error.code() == Code::Unavailable);
    assert_eq!(closing.connections(), 1, "one dial, one connection");

    let http = OddSocket::speaks_garbage(at("b.sock"), b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("binds");
    let tls = OddSocket::speaks_garbage(at("c.sock"), b"\x15\x03\x01\x00\x02\x02\x46\x00\x00").expect("binds");
    for odd in [http, tls] {
        let outcome = timeout(LONG, Driver::connect(odd.socket(), limits)).await;
        let error = outcome.expect("not left to the limit").expect_err("no HTTP/2");
        assert_eq!(error.connect_failure(), Some(ConnectFailure::NotHttp2));
        assert_eq!(odd.connections(), 1);
    }
}

#[tokio::test]
async fn a_path_longer_than_the_kernel_takes_is_reached_through_its_directory() {
    let (directory, _) = scratch();
    let mut socket = directory.path().to_owned();
    socket.push("d".repeat(110 - socket.as_os_str().len() - "//csi.sock".len()));
    socket.push("csi.sock");
    assert_eq!(socket.as_os_str().len(), 110);
    assert!(refusal(&socket).await.is_missing());

    let fake = FakeDriver::node("drv.example.com").serve(&socket).await.expect("binds");
    assert_eq!(connect(&socket).await.probe().await.expect("answers"), Readiness::Ready);
    fake.leave_dead().await;
    let error = refusal(&socket).await;
    assert!(error.is_refused() && error.go_text().contains(&*socket.to_string_lossy()), "{}", error.go_text());

    let hopeless = directory.path().join(format!("{}.sock", "n".repeat(100)));
    assert_eq!(refusal(&hopeless).await.connect_failure(), Some(ConnectFailure::Other));
}

#[tokio::test]
async fn the_end_of_a_driver_is_an_event() {
    let (_directory, socket) = scratch();
    for _ in 0..10 {
        let fake = FakeDriver::node("drv.example.com").serve(&socket).await.expect("binds");
        let driver = connect(&socket).await;
        driver.probe().await.expect("answers");
        assert!(!driver.has_ended());
        let other = driver.clone();
        let waiter = tokio::spawn(async move {
            other.ended().await;
            Instant::now()
        });
        let began = Instant::now();
        fake.leave_dead().await;
        let seen = timeout(LONG, waiter).await.expect("it is noticed").expect("no panic");
        assert!(seen - began < Duration::from_millis(100), "noticed after {:?}", seen - began);
        assert!(driver.has_ended());

        let error = driver.probe().await.expect_err("it is gone");
        assert!(error.is_transport() && !error.is_timeout());
        assert_eq!(error.code(), Code::Unavailable);
        assert_eq!(fake.connections(), 1, "no dial behind our back");
    }
}

#[tokio::test]
async fn a_connection_closed_in_good_order_has_ended_too() {
    let (_directory, socket) = scratch();
    let fake = FakeDriver::node("drv.example.com").serve(&socket).await.expect("binds");
    let driver = connect(&socket).await;
    driver.probe().await.expect("answers");
    fake.say_goodbye();
    timeout(LONG, driver.ended()).await.expect("it is noticed");
    assert!(driver.probe().await.expect_err("it is over").is_transport());
    assert_eq!(connect(&socket).await.probe().await.expect("still there"), Readiness::Ready);
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_of_a_call_is_not_the_drivers_word() {
    let (_directory, socket) = scratch();
    let fake = FakeDriver::node("drv.example.com")
        .probe([Reply::drop_connection(), Reply::fail(Code::Unavailable, "x")])
        .serve(&socket)
        .await
        .expect("binds");
    let broken = connect(&socket).await.probe().await.expect_err("it breaks");
    assert!(broken.is_transport() && broken.code() == Code::Unavailable);
    assert_eq!(broken.go_text(), "rpc error: code = Unavailable desc = error reading from server: EOF");

    let said = connect(&socket).await.probe().await.expect_err("it fails");
    assert!(!said.is_transport() && said.code() == Code::Unavailable);
    assert_eq!(fake.connections(), 2);
    fake.finish().await.expect("used up");
}

#[tokio::test]
async fn a_replaced_driver_lives_on_in_old_connections_only() {
    let (_directory, socket) = scratch();
    let old = FakeDriver::node("drv.example.com").serve(&socket).await.expect("binds");
    let to_old = connect(&socket).await;
    to_old.probe().await.expect("answers");
    let new = old.replace(FakeDriver::node("drv.example.com").version("2.0")).await.expect("binds");
    let to_new = connect(&socket).await;
    assert_eq!(to_new.plugin_info().await.expect("answers").vendor_version, "2.0");
    assert_eq!(to_old.plugin_info().await.expect("answers").vendor_version, "1.2.3");
    assert!(!to_old.has_ended());
    old.finish().await.expect("used up");
    assert!(socket.exists(), "the old one does not remove the new one's socket");
    timeout(LONG, to_old.ended()).await.expect("now it is over");
    new.finish().await.expect("used up");
    assert!(!socket.exists());
}

#[tokio::test]
async fn an_empty_name_and_an_empty_node_id_are_errors_in_nomads_words() {
    let (_directory, socket) = scratch();
    let fake = FakeDriver::node("").node_info("", 0).serve(&socket).await.expect("binds");
    let driver = connect(&socket).await;
    let error = driver.plugin_info().await.expect_err("no name");
    assert_eq!(error.go_text(), "PluginGetInfo: plugin returned empty name field");
    let error = driver.node_info().await.expect_err("no id");
    assert_eq!(error.go_text(), "plugin failed to return nodeid");
    assert!(!error.is_transport() && !error.is_timeout() && !error.is_unimplemented());
    fake.set_name("bad/name");
    assert_eq!(driver.plugin_info().await.expect("odd, but a name").name, "bad/name");
}

#[tokio::test]
async fn bytes_that_make_no_message_are_an_internal_error_of_the_driver() {
    let (_directory, socket) = scratch();
    let fake = FakeDriver::node("drv.example.com").serve(&socket).await.expect("binds");
    let driver = connect(&socket).await;
    fake.set(Rpc::PluginInfo, Reply::bytes(&b"\x0a\x02\xff\xfe"[..]));
    let error = driver.plugin_info().await.expect_err("not UTF-8");
    assert_eq!(error.code(), Code::Internal);
    assert!(!error.is_transport());
    fake.set(Rpc::PluginInfo, Reply::bytes(&b"\xff\xff\xff"[..]));
    assert_eq!(driver.plugin_info().await.expect_err("not protobuf").code(), Code::Internal);
    fake.set(Rpc::PluginInfo, Reply::usual());
    assert_eq!(driver.plugin_info().await.expect("answers").name, "drv.example.com");
}

#[tokio::test]
async fn an_answer_of_eight_mebibytes_is_refused_and_the_connection_survives() {
    let (_directory, socket) = scratch();
    let huge = pb::GetPluginInfoResponse { name: "n".repeat(8 << 20), ..Default::default() };
    let fake = FakeDriver::node("drv.example.com")
        .on(Rpc::PluginInfo, [Reply::message(&huge)])
        .serve(&socket)
        .await
        .expect("binds");
    let driver = connect(&socket).await;
    let error = driver.plugin_info().await.expect_err("too large");
    assert!(!error.is_transport() && !error.is_timeout(), "{error:?}");
    assert!(error.go_text().contains("8388"), "{}", error.go_text());
    assert_eq!(driver.probe().await.expect("answers"), Readiness::Ready);
    fake.finish().await.expect("used up");
}

#[tokio::test]
async fn a_status_text_of_100_kib_with_broken_utf8_keeps_its_code_and_what_is_text() {
    let (_directory, socket) = scratch();
    let mut message = b"line\n".repeat(20 * 1024);
    message.extend_from_slice(b"\xff\xfe end");
    let fake = FakeDriver::node("drv.example.com").serve(&socket).await.expect("binds");
    fake.set_probe(Reply::fail(Code::FailedPrecondition, &message));
    let driver = connect(&socket).await;
    let error = driver.probe().await.expect_err("it fails");
    assert_eq!(error.code(), Code::FailedPrecondition);
    let text = error.go_text();
    assert!(text.len() > 100 * 1024 && text.ends_with("line\n\u{fffd}\u{fffd} end"), "{} bytes", text.len());
    assert!(error.for_people().len() <= 1024 && !error.for_people().contains('\n'));

    fake.set_probe(Reply::fail(Code::FailedPrecondition, vec![0xff; 100 * 1024]));
    assert_eq!(driver.probe().await.expect_err("it fails").code(), Code::FailedPrecondition);
    assert!(!driver.has_ended());
}

/// tonic panics on details that are not base64: one header of a driver would have ended the task that watches it.
#[tokio::test]
async fn status_details_that_are_not_base64_do_no_harm() {
    let (_directory, socket) = scratch();
    let fake = FakeDriver::node("drv.example.com").serve(&socket).await.expect("binds");
    let driver = connect(&socket).await;
    fake.set_probe(Reply::fail(Code::Aborted, "x").with_header("grpc-status-details-bin", "!!"));
    assert_eq!(driver.probe().await.expect_err("it fails").code(), Code::Aborted);
    fake.set_probe(Reply::starting().with_header("grpc-status-details-bin", "!!"));
    assert_eq!(driver.probe().await.expect("details do not matter"), Readiness::Starting);
}

#[tokio::test]
async fn the_socket_of_a_scripted_driver_goes_and_comes_back() {
    let (_directory, socket) = scratch();
    let fake = FakeDriver::controller("drv.example.com").serve(&socket).await.expect("binds");
    fake.vanish().await;
    assert!(!socket.exists());
    fake.come_back().await.expect("binds");
    let driver = connect(&socket).await;
    driver.probe().await.expect("answers");
    fake.leave_dead().await;
    assert!(socket.exists());
    timeout(LONG, driver.ended()).await.expect("it is noticed");
    fake.set_version("1.2.4");
    fake.come_back().await.expect("binds");
    assert_eq!(connect(&socket).await.plugin_info().await.expect("answers").vendor_version, "1.2.4");
    assert_eq!(fake.methods(), ["Probe", "GetPluginInfo"]);
    drop(fake);
    assert!(!socket.exists(), "nothing is left behind");
}

#[tokio::test]
async fn a_script_that_is_not_used_up_does_not_finish() {
    let (_directory, socket) = scratch();
    let fake = FakeDriver::node("drv.example.com").probe([Reply::ready()]).serve(&socket).await.expect("binds");
    assert_eq!(fake.replies_left(), 1);
    let complaint = fake.finish().await.expect_err("one is left").to_string();
    assert!(complaint.contains("1 replies to `Probe` are left over"), "{complaint}");
}

/// The scripted driver writes its own HTTP; a server by somebody else keeps it, and the client, honest.
#[tokio::test]
async fn a_server_of_generated_code_is_read_as_the_scripted_one_is() {
    use pb::identity_server::{Identity, IdentityServer};
    use tonic::{Request, Response, Status};

    struct Generated;

    #[tonic::async_trait]
    impl Identity for Generated {
        async fn get_plugin_info(
            &self,
            _: Request<pb::GetPluginInfoRequest>,
        ) -> Result<Response<pb::GetPluginInfoResponse>, Status> {
            let name = "drv.example.com".to_owned();
            let vendor_version = "1.2.3".to_owned();
            Ok(Response::new(pb::GetPluginInfoResponse { name, vendor_version, ..Default::default() }))
        }

        async fn get_plugin_capabilities(
            &self,
            _: Request<pb::GetPluginCapabilitiesRequest>,
        ) -> Result<Response<pb::GetPluginCapabilitiesResponse>, Status> {
            Err(Status::failed_precondition("50% <ü>"))
        }

        async fn probe(&self, _: Request<pb::ProbeRequest>) -> Result<Response<pb::ProbeResponse>, Status> {
            Ok(Response::new(pb::ProbeResponse { ready: Some(false) }))
        }
    }

    let (_directory, socket) = scratch();
    let listener = tokio::net::UnixListener::bind(&socket).expect("binds");
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(IdentityServer::new(Generated));
    let server = tokio::spawn(server.serve_with_incoming(incoming));

    let driver = connect(&socket).await;
    assert_eq!(driver.probe().await.expect("answers"), Readiness::Starting);
    let there = driver.plugin_info().await.expect("answers");
    let error = driver.plugin_capabilities().await.expect_err("it fails");
    assert_eq!(error.go_text(), "rpc error: code = FailedPrecondition desc = 50% <ü>");
    assert!(driver.node_info().await.expect_err("not served").is_unimplemented());
    server.abort();

    let (_directory, socket) = scratch();
    let _fake = FakeDriver::node("drv.example.com").serve(&socket).await.expect("binds");
    assert_eq!(connect(&socket).await.plugin_info().await.expect("answers"), there);
}
