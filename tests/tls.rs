//! TLS on both sides, as the built binary speaks it: handshakes, client certificates, files that change under load, files
//! that are of no use, clients that are slow or speak something else; and unix sockets, which need none of it.

#![allow(clippy::panic, reason = "a test that waited in vain has nothing else to do")]

#[path = "tls/authority.rs"]
mod authority;
mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use authority::{Authority, LATER, OVER, Pair, VALID};
use bytes::Bytes;
use csi_gateway::client::{Answer, Client, HttpError};
use csi_gateway::csi::Rpc;
use csi_gateway::demo::{FakeDriver, Reply, ServedDriver};
use csi_gateway::domain::trust::{Identity, Trust};
use csi_gateway::tls::trust::configuration;
use hyper::Request;
use rustix::process::Signal;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion};
use support::process::{PATIENCE, Serving, command, gateway, run, signal, until};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

const NAME: &str = "drv.example.com";
const LIST: &str = "/v1/plugins?type=csi";

/// An authority, its certificate for a gateway, and a driver.
struct Scene {
    authority: Authority,
    identity: Identity,
    driver: ServedDriver,
    folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let authority = Authority::new("test authority", VALID);
        let identity = authority.local().write(&folder.path().join("server"));
        let driver = FakeDriver::node(NAME).serve(folder.path().join("csi.sock")).await.expect("binds");
        Self { authority, identity, driver, folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    fn trust(&self) -> Trust {
        self.authority.trusted(self.folder.path())
    }

    fn with_identity(&self, pair: &Pair, name: &str) -> Trust {
        Trust { identity: Some(pair.write(&self.at(name))), ..self.trust() }
    }

    /// Arguments of `serve` over TLS, at a port that is picked.
    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let mut arguments = vec![
            "serve".to_owned(),
            "--host-id=host-12345678".to_owned(),
            format!("--csi-address=unix://{}", self.driver.socket().display()),
            format!("--tls-cert-file={}", self.identity.certificate.display()),
            format!("--tls-key-file={}", self.identity.key.display()),
        ];
        if !more.iter().any(|flag| flag.starts_with("--http-endpoint")) {
            arguments.push("--http-endpoint=127.0.0.1:0".to_owned());
        }
        arguments.extend(more.iter().map(|&flag| flag.to_owned()));
        arguments
    }

    async fn serve(&self, more: &[&str]) -> Serving {
        let mut command = gateway();
        command.args(self.arguments(more));
        Serving::run(command, &self.at("log")).await
    }

    /// A start that is to fail.
    async fn refused(&self, more: &[&str]) -> String {
        let mut command = gateway();
        command.args(self.arguments(more));
        let (code, _, complaint) = run(command).await;
        assert_eq!(code, Some(1), "{complaint}");
        complaint
    }
}

async fn get(address: &str, trust: &Trust, path: &str) -> Result<Answer, HttpError> {
    let client = Client::new(address, trust.clone()).expect("an address");
    client.ask(Request::builder().uri(path), Bytes::new(), PATIENCE).await
}

async fn text(address: &str, trust: &Trust, path: &str) -> String {
    get(address, trust, path).await.expect("an answer").text().into_owned()
}

/// Where a gateway listens, without its scheme.
fn socket(address: &str) -> &str {
    address.strip_prefix("https://").expect("TLS is spoken there")
}

async fn shaken(address: &str, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(socket(address)).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn config(trust: &Trust) -> ClientConfig {
    (*configuration(trust).expect("a configuration")).clone()
}

/// The certificate that a new connection is shown.
async fn shown(address: &str, trust: &Trust) -> Vec<u8> {
    let stream = shaken(address, config(trust)).await.expect("hands are shaken");
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec()
}

async fn metric(address: &str, trust: &Trust, name: &str) -> u64 {
    let text = text(address, trust, "/metrics").await;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} is a number in {text}"))
}

async fn ready(gateway: &Serving, trust: &Trust) {
    until("it is ready", async || {
        let answer = get(&gateway.address, trust, "/readyz").await.map_err(|error| format!("{error:?}"))?;
        if answer.status.is_success() { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

#[tokio::test]
async fn over_tcp_tls_is_spoken_and_over_a_unix_socket_it_need_not_be() {
    let scene = Scene::new().await;
    let unix = format!("unix://{}", scene.at("api.sock").display());
    let endpoint = format!("--http-endpoint={unix}");
    let gateway = scene.serve(&["--http-endpoint=127.0.0.1:0", &endpoint]).await;
    let trust = scene.trust();
    ready(&gateway, &trust).await;
    let answer = get(&gateway.address, &trust, LIST).await.expect("over TLS");
    assert_eq!(answer.status, 200);
    let there = get(&unix, &Trust::default(), LIST).await.expect("over the unix socket");
    assert_eq!(answer.body, there.body);

    let mut offered = config(&trust);
    offered.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = shaken(&gateway.address, offered.clone()).await.expect("hands are shaken");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    offered.alpn_protocols = vec![b"h2".to_vec()];
    shaken(&gateway.address, offered).await.expect_err("HTTP/2 is not spoken");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut older = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("a version")
        .with_root_certificates(roots(&scene.authority))
        .with_no_client_auth();
    older.alpn_protocols = Vec::new();
    let stream = shaken(&gateway.address, older).await.expect("hands are shaken");
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_2));

    let described: serde_json::Value =
        serde_json::from_str(&text(&gateway.address, &trust, "/v1/gateway").await).expect("JSON");
    let expected = serde_json::json!(
        {"ClientAuth": "none", "Enabled": true, "NotAfter": "2120-01-01T00:00:00Z", "Problem": ""}
    );
    assert_eq!(described["TLS"], expected);
    let expiry = "csi_gateway_tls_certificate_expiry_timestamp_seconds";
    assert_eq!(metric(&gateway.address, &trust, expiry).await, 4_733_510_400);
    assert_eq!(metric(&gateway.address, &trust, "csi_gateway_tls_files_valid").await, 1);
    assert_eq!(metric(&gateway.address, &trust, "csi_gateway_tls_failed_handshakes_total").await, 1);
    assert_eq!(text(&gateway.address, &trust, "/readyz").await, "ok");
}

fn roots(authority: &Authority) -> rustls::RootCertStore {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    let certificate = rustls::pki_types::CertificateDer::from_pem_slice(authority.certificate.as_bytes());
    roots.add(certificate.expect("PEM")).expect("a certificate");
    roots
}

#[tokio::test]
async fn who_speaks_plain_http_where_tls_is_spoken_is_told_so_as_go_does() {
    let scene = Scene::new().await;
    let gateway = scene.serve(&[]).await;
    for request in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "P", "OPTIONS * HTTP/1.1\r\n"] {
        let mut stream = TcpStream::connect(socket(&gateway.address)).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("no reset");
        let expected = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        assert_eq!(answer, expected, "{request:?}");
    }
    // Our own commands pass that on.
    let plain = gateway.address.replace("https://", "http://");
    let mut command = gateway_command();
    command.args(["status", &format!("--address={plain}")]);
    let (code, _, complaint) = run(command).await;
    assert_eq!(code, Some(1));
    assert!(complaint.contains("Client sent an HTTP request to an HTTPS server."), "{complaint}");
    // What is neither ends, and others notice nothing.
    let mut stream = TcpStream::connect(socket(&gateway.address)).await.expect("connects");
    stream.write_all(&[0xff; 64]).await.expect("sent");
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it ends");
    assert_eq!(text(&gateway.address, &scene.trust(), "/livez").await, "ok");
}

/// A command of ours that asks, with nothing of Nomad's from outside.
fn gateway_command() -> tokio::process::Command {
    let mut command = gateway();
    for name in ["CACERT", "CAPATH", "CLIENT_CERT", "CLIENT_KEY", "TLS_SERVER_NAME", "SKIP_VERIFY", "TOKEN"] {
        command.env_remove(format!("NOMAD_{name}"));
    }
    command
}

#[tokio::test]
async fn clients_show_certificates_as_they_are_asked_to() {
    let scene = Scene::new().await;
    let clients = Authority::new("authority of clients", VALID);
    let file = clients.write(scene.folder.path(), "clients.pem");
    let file = format!("--tls-client-ca-file={}", file.display());
    let names = ["client"];
    let good = scene.with_identity(&clients.pair(&names, VALID), "good");
    let expired = scene.with_identity(&clients.pair(&names, OVER), "expired");
    let foreign = scene.with_identity(&scene.authority.pair(&names, VALID), "foreign");
    let none = scene.trust();
    for (how, expected) in [
        // Whether each is served: none, good, expired, foreign.
        (&["--tls-client-auth=none"][..], [true, true, true, true]),
        (&["--tls-client-auth=optional"][..], [true, true, false, false]),
        (&["--tls-client-auth=required"][..], [false, true, false, false]),
        (&[][..], [false, true, false, false]),
    ] {
        let gateway = scene.serve(&[&[file.as_str()], how].concat()).await;
        for (trust, is_served) in [&none, &good, &expired, &foreign].into_iter().zip(expected) {
            let answer = get(&gateway.address, trust, "/livez").await;
            assert_eq!(answer.is_ok(), is_served, "{how:?} {:?}: {answer:?}", trust.identity);
        }
        gateway.kill().await;
    }

    let gateway = scene.serve(&[&file]).await;
    let Trust { authorities, identity, .. } = &good;
    let (authority, identity) = (authorities.as_ref().expect("a file"), identity.as_ref().expect("files"));
    let asked = async |flags: &[String], variables: &[(&str, &Path)]| {
        let mut command = gateway_command();
        command.args(["status", &format!("--address={}", gateway.address)]).args(flags);
        command.envs(variables.iter().copied());
        run(command).await
    };
    until("the driver is listed", async || {
        let (code, out, complaint) = asked(
            &[
                format!("--ca-cert={}", authority.display()),
                format!("--client-cert={}", identity.certificate.display()),
                format!("--client-key={}", identity.key.display()),
            ],
            &[],
        )
        .await;
        if code == Some(0) && out.contains(NAME) { Ok(()) } else { Err(format!("{code:?} {out} {complaint}")) }
    })
    .await;
    let variables: [(&str, &Path); 3] = [
        ("NOMAD_CACERT", authority),
        ("NOMAD_CLIENT_CERT", &identity.certificate),
        ("NOMAD_CLIENT_KEY", &identity.key),
    ];
    let (code, out, complaint) = asked(&[], &variables).await;
    assert!(code == Some(0) && out.contains(NAME), "as Nomad's command line is told: {complaint}");
    let ours: Vec<_> = variables.iter().map(|(name, path)| (name.replace("NOMAD_", "CSI_GATEWAY_"), *path)).collect();
    let ours: Vec<_> = ours.iter().map(|(name, path)| (name.as_str(), *path)).collect();
    assert_eq!(asked(&[], &ours).await.0, Some(0));

    let (code, _, complaint) = asked(&[format!("--ca-cert={}", authority.display())], &[]).await;
    assert_eq!(code, Some(1));
    assert!(complaint.contains("--client-cert and --client-key show one"), "{complaint}");
}

#[tokio::test]
async fn a_server_that_is_not_who_it_should_be_is_not_asked() {
    let scene = Scene::new().await;
    let gateway = scene.serve(&[]).await;
    let token = "11111111-2222-3333-4444-555555555555";
    let asked = async |flags: &[&str], address: &str| {
        let mut command = gateway_command();
        command.args(["status", &format!("--address={address}")]).args(flags).env("NOMAD_TOKEN", token);
        run(command).await
    };
    let trusted = scene.authority.write(scene.folder.path(), "authority.pem");
    let trusted = format!("--ca-cert={}", trusted.display());
    ready(&gateway, &scene.trust()).await;
    let served = asked(&[&trusted], &gateway.address).await;
    assert!(served.0 == Some(0), "{served:?}");

    let (code, _, complaint) = asked(&[], &gateway.address).await;
    assert!(code == Some(1) && complaint.contains("--ca-cert names the file"), "{complaint}");
    let (code, _, complaint) = asked(&[&trusted, "--tls-server-name=other.example.com"], &gateway.address).await;
    assert!(code == Some(1) && complaint.contains("--tls-server-name"), "{complaint}");
    let (code, ..) = asked(&["--tls-skip-verify", "--tls-server-name=other.example.com"], &gateway.address).await;
    assert_eq!(code, Some(0));
    let (code, ..) = asked(&[&trusted, "--tls-server-name=localhost"], &gateway.address).await;
    assert_eq!(code, Some(0));
    let old = Authority::new("old authority", OVER).write(scene.folder.path(), "old.pem");
    let (code, _, complaint) = asked(&[&format!("--ca-cert={}", old.display())], &gateway.address).await;
    assert!(code == Some(1) && complaint.contains("expired at 2021-01-01"), "{complaint}");
    let (code, _, complaint) = asked(&["--ca-cert=/nowhere.pem"], &gateway.address).await;
    assert!(code == Some(1) && complaint.contains("cannot read `/nowhere.pem`"), "{complaint}");
    std::fs::create_dir(scene.at("authorities")).expect("made");
    std::fs::copy(scene.at("authority.pem"), scene.at("authorities/one.pem")).expect("copied");
    let (code, ..) = asked(&[&format!("--ca-path={}", scene.at("authorities").display())], &gateway.address).await;
    assert_eq!(code, Some(0));

    // Somebody who speaks plain HTTP.
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = format!("https://{}", plain.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let (code, _, complaint) = asked(&[&trusted], &address).await;
    assert!(code == Some(1) && complaint.contains("does it speak plain http?"), "{complaint}");

    let mut command = gateway_command();
    let endpoint = format!("--http-endpoint={}", socket(&gateway.address));
    command.args(["healthcheck", &endpoint, &format!("--tls-cert-file={}", scene.identity.certificate.display())]);
    let (code, out, complaint) = run(command).await;
    assert_eq!((code, out.trim()), (Some(0), "ok"), "its own gateway needs no authority: {complaint}");
}

/// A folder as Kubernetes mounts one: names lead through one link, which leads elsewhere from one moment to the next.
struct Mounted {
    folder: PathBuf,
    count: u32,
}

impl Mounted {
    fn new(folder: PathBuf, pair: &Pair) -> (Self, Identity) {
        std::fs::create_dir(&folder).expect("made");
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), folder.join(name)).expect("linked");
        }
        let identity = Identity { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
        let mut mounted = Self { folder, count: 0 };
        mounted.put(pair);
        (mounted, identity)
    }

    fn put(&mut self, pair: &Pair) {
        self.count += 1;
        let target = format!("..version-{}", self.count);
        pair.write(&self.folder.join(&target));
        symlink(&target, self.folder.join("..data_tmp")).expect("linked");
        std::fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data")).expect("renamed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_swapped_a_hundred_times_under_load_and_nobody_notices() {
    const SWAPS: u32 = 100;
    let mut scene = Scene::new().await;
    let (mut mounted, identity) = Mounted::new(scene.at("mounted"), &scene.authority.local());
    scene.identity = identity;
    let gateway = scene.serve(&[]).await;
    let trust = scene.trust();
    let read = format!("/v1/plugin/csi/{NAME}");
    let index = until("the driver is healthy", async || {
        let answer = get(&gateway.address, &trust, &read).await.map_err(|error| error.to_string())?;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if body["NodesHealthy"] == 1 { Ok(answer.index().expect("an index")) } else { Err(format!("{answer:?}")) }
    })
    .await;

    // Readers that wait all the while.
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let client = Client::new(&gateway.address, trust.clone()).expect("an address");
            let path = format!("{read}?index={index}&wait=10m");
            tokio::spawn(async move { client.ask(Request::builder().uri(path), Bytes::new(), 4 * PATIENCE).await })
        })
        .collect();
    // New connections, and one that stays.
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let asking: Vec<_> = (0..3)
        .map(|number| {
            let client = Client::new(&gateway.address, trust.clone()).expect("an address");
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            tokio::spawn(async move {
                let mut kept = client.connect().await?;
                while !stop.load(Ordering::Relaxed) {
                    let request = Request::builder().uri(LIST);
                    let answer = match number {
                        0 => kept.ask(request, Bytes::new()).await?,
                        _ => client.ask(request, Bytes::new(), PATIENCE).await?,
                    };
                    assert_eq!(answer.status, 200);
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, HttpError>(())
            })
        })
        .collect();

    let before = count.load(Ordering::Relaxed);
    for swap in 0..SWAPS {
        let pair = scene.authority.local();
        mounted.put(&pair);
        until(&format!("certificate {swap} is in force"), async || {
            if shown(&gateway.address, &trust).await == pair.der { Ok(()) } else { Err("the one before".to_owned()) }
        })
        .await;
        assert!(asking.iter().all(|asking| !asking.is_finished()), "after swap {swap} somebody was refused");
    }
    stop.store(true, Ordering::Relaxed);
    for asking in asking {
        asking.await.expect("nothing panicked").expect("no request failed");
    }
    let asked = count.load(Ordering::Relaxed) - before;
    assert!(asked > u64::from(SWAPS), "{asked} requests are no load");
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "who waits is left alone");
    scene.driver.set(Rpc::Probe, Reply::starting());
    scene.driver.cut_connections();
    for waiting in waiting {
        let answer = waiting.await.expect("nothing panicked").expect("an answer on the connection of the beginning");
        assert!(answer.status == 200 && answer.index() > Some(index), "{answer:?}");
    }
    assert!(!scene.log().contains("ERROR"), "{}", scene.log());
}

/// As editors do; who writes in place is seen half way, and that is another error.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(new, file).expect("renamed");
}

#[tokio::test]
async fn files_with_an_error_leave_the_certificate_in_force_and_say_so_once() {
    let scene = Scene::new().await;
    let clients = Authority::new("authority of clients", VALID).write(scene.folder.path(), "clients.pem");
    let clients_text = std::fs::read_to_string(&clients).expect("text");
    let flags = [&format!("--tls-client-ca-file={}", clients.display()), "--tls-client-auth=optional"];
    let gateway = scene.serve(&flags).await;
    let trust = scene.trust();
    ready(&gateway, &trust).await;
    let first = shown(&gateway.address, &trust).await;
    let (certificate, key) = (&scene.identity.certificate, &scene.identity.key);
    let good = scene.authority.local();
    let other = scene.authority.local();
    let half = &good.key[..good.key.len() / 2];
    let over = Authority::new("authority of old", OVER).certificate;
    let names = ["localhost"];
    let encrypted = good.key.replace(" PRIVATE", " ENCRYPTED PRIVATE");
    for (what, file, text, reason) in [
        ("a key of another certificate", key, other.key.as_str(), "does not belong to the certificate"),
        ("half a key", key, half, "is no PEM file, or not a whole one"),
        ("an empty key", key, "", "holds no private key"),
        ("an encrypted key", key, &encrypted, "`openssl pkey` writes it without"),
        ("something else", certificate, "hello", "holds no certificate"),
        ("a key in a certificate's place", certificate, &good.key, "holds no certificate"),
        ("rubbish", certificate, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no X.509"),
        ("an old one", certificate, &scene.authority.pair(&names, OVER).certificate, "expired at 2021-01-01T00:00:00Z"),
        ("an early one", certificate, &scene.authority.pair(&names, LATER).certificate, "not valid before 2110-01-01"),
        ("old authorities", &clients, &over, "expired at 2021-01-01"),
    ] {
        let (was, said_before) = (std::fs::read_to_string(file).expect("text"), scene.log().len());
        replace(file, text);
        until(what, async || {
            let text = self::text(&gateway.address, &trust, "/readyz").await;
            if text.starts_with("ok\nTLS: ") && text.contains(reason) { Ok(()) } else { Err(text) }
        })
        .await;
        assert_eq!(shown(&gateway.address, &trust).await, first, "{what}");
        assert_eq!(metric(&gateway.address, &trust, "csi_gateway_tls_files_valid").await, 0, "{what}");
        // Told again, it says nothing again.
        signal(&gateway.child, Signal::HUP);
        replace(file, &was);
        until("all is well again", async || {
            let text = self::text(&gateway.address, &trust, "/readyz").await;
            if text == "ok" { Ok(()) } else { Err(text) }
        })
        .await;
        let log = scene.log();
        let said: Vec<_> = log[said_before..].lines().filter(|line| line.contains("ERROR")).collect();
        assert!(said.len() == 1 && said[0].contains(reason), "{what}: {said:?}");
    }
    assert_eq!(shown(&gateway.address, &trust).await, first);
    good.write(&scene.at("server"));
    until("the new one is in force", async || {
        if shown(&gateway.address, &trust).await == good.der { Ok(()) } else { Err(scene.log()) }
    })
    .await;
    std::fs::remove_file(certificate).expect("removed");
    until("a file that is gone", async || {
        let text = self::text(&gateway.address, &trust, "/readyz").await;
        if text.contains("cannot read") { Ok(()) } else { Err(text) }
    })
    .await;
    let log = scene.log();
    let secret = good.key.lines().nth(1).expect("a line of the key");
    assert!(!log.contains(secret) && !log.contains("hello"), "{log}");
    assert_eq!(std::fs::read_to_string(&clients).expect("text"), clients_text);
}

#[tokio::test]
async fn files_that_are_of_no_use_at_the_start_are_an_error_with_the_reason() {
    let scene = Scene::new().await;
    let write = |name: &str, text: &str| {
        std::fs::write(scene.at(name), text).expect("written");
        scene.at(name)
    };
    let other = write("other.key", &scene.authority.local().key);
    let complaint = scene.refused(&[&format!("--tls-key-file={}", other.display())]).await;
    assert!(complaint.contains("cannot speak TLS: the key in"), "{complaint}");
    let complaint = scene.refused(&["--tls-cert-file=/nowhere.pem"]).await;
    assert!(complaint.contains("cannot read `/nowhere.pem`: No such file"), "{complaint}");
    let old = scene.authority.pair(&["localhost"], OVER).write(&scene.at("old"));
    let files =
        [format!("--tls-cert-file={}", old.certificate.display()), format!("--tls-key-file={}", old.key.display())];
    let complaint = scene.refused(&[&files[0], &files[1]]).await;
    assert!(complaint.contains("expired at 2021-01-01T00:00:00Z"), "{complaint}");
    let authorities = write("old.pem", &Authority::new("old", OVER).certificate);
    let complaint = scene.refused(&[&format!("--tls-client-ca-file={}", authorities.display())]).await;
    assert!(complaint.contains("old.pem` expired at"), "{complaint}");
    // Of several, those that are valid count.
    let both = format!("{}{}", Authority::new("old", OVER).certificate, scene.authority.certificate);
    let both = write("both.pem", &both);
    let gateway = scene.serve(&[&format!("--tls-client-ca-file={}", both.display())]).await;
    let trust = scene.with_identity(&scene.authority.local(), "client");
    assert_eq!(text(&gateway.address, &trust, "/livez").await, "ok");
}

#[tokio::test]
async fn a_key_that_everybody_can_read_is_warned_of() {
    let scene = Scene::new().await;
    let mode = |mode| {
        std::fs::set_permissions(&scene.identity.key, std::fs::Permissions::from_mode(mode)).expect("changed");
    };
    mode(0o640);
    scene.serve(&[]).await.kill().await;
    assert!(!scene.log().contains("WARN"), "{}", scene.log());
    mode(0o644);
    scene.serve(&[]).await.kill().await;
    assert!(scene.log().contains("everybody on this host can read the private key"), "{}", scene.log());
}

#[tokio::test]
async fn who_is_slow_to_shake_hands_holds_up_nobody_and_is_shown_out() {
    let scene = Scene::new().await;
    let gateway = scene.serve(&["--max-conns-per-client=60"]).await;
    let trust = scene.trust();
    let begun = Instant::now();
    let mut slow = Vec::new();
    for number in 0..40_u8 {
        let mut stream = TcpStream::connect(socket(&gateway.address)).await.expect("connects");
        // The beginning of a hello, or not even that.
        stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1][..usize::from(number % 9)]).await.expect("sent");
        slow.push(stream);
    }
    for _ in 0..20 {
        assert_eq!(text(&gateway.address, &trust, "/livez").await, "ok");
    }
    let answered = begun.elapsed();
    for mut stream in slow {
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("shown out");
    }
    assert!(begun.elapsed() >= Duration::from_secs(5), "not before five seconds");
    assert!(answered < Duration::from_secs(5), "{answered:?}: somebody waited for the slow ones");
    assert_eq!(metric(&gateway.address, &trust, "csi_gateway_tls_failed_handshakes_total").await, 40);
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_before_hands_are_shaken() {
    let scene = Scene::new().await;
    let gateway = scene.serve(&["--max-conns-per-client=2"]).await;
    let trust = scene.trust();
    let client = Client::new(&gateway.address, trust.clone()).expect("an address");
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(client.connect().await.expect("one of two"));
    }
    let mut stream = TcpStream::connect(socket(&gateway.address)).await.expect("connects");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("raw bytes, as Nomad sends them");
    assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{answer}");
    assert!(client.connect().await.is_err());
    drop(held);
    until("there is room again", async || client.connect().await.map(drop).map_err(|error| error.to_string())).await;
}

#[tokio::test]
async fn told_to_stop_it_answers_who_waits_over_tls_and_nobody_who_has_not_shaken_hands() {
    let scene = Scene::new().await;
    let gateway = scene.serve(&[]).await;
    let trust = scene.trust();
    ready(&gateway, &trust).await;
    let index = get(&gateway.address, &trust, LIST).await.expect("an answer").index().expect("an index");
    let client = Client::new(&gateway.address, trust.clone()).expect("an address");
    let path = format!("{LIST}&index={index}&wait=5m");
    let mut connection = client.connect().await.expect("hands are shaken");
    let waiting = tokio::spawn(async move { connection.ask(Request::builder().uri(path), Bytes::new()).await });
    until("it waits", async || match metric(&gateway.address, &trust, "csi_gateway_blocking_queries").await {
        1 => Ok(()),
        count => Err(count.to_string()),
    })
    .await;
    let _unshaken = TcpStream::connect(socket(&gateway.address)).await.expect("connects");
    let begun = Instant::now();
    signal(&gateway.child, Signal::TERM);
    let answer = waiting.await.expect("nothing panicked").expect("an answer");
    assert_eq!(answer.status, 200);
    let mut child = gateway.child;
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.expect("it ends").expect("it can be waited for");
    assert!(status.success() && begun.elapsed() < Duration::from_secs(4), "{status} after {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_socket_that_systemd_hands_over_speaks_tls_if_it_is_tcp() {
    let scene = Scene::new().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("bound").to_string();
    let mut command = command("sh");
    let script = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\" 3<&0 0</dev/null";
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_csi-gateway")]);
    command.args(scene.arguments(&["--http-endpoint=127.0.0.1:4649"]));
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)));
    let gateway = Serving::run(command, &scene.at("log")).await;
    assert_eq!(gateway.address, format!("https://{address}"));
    assert_eq!(text(&gateway.address, &scene.trust(), "/livez").await, "ok");
}

#[tokio::test]
async fn unix_sockets_have_the_mode_and_the_owner_that_they_are_given() {
    let scene = Scene::new().await;
    let path = scene.at("api.sock");
    let endpoint = format!("--http-endpoint=unix://{}", path.display());
    let ours = std::fs::metadata(scene.folder.path()).expect("there");
    let is_root = ours.uid() == 0;
    let owner = if is_root { "65534:nogroup".to_owned() } else { format!("{}:{}", ours.uid(), ours.gid()) };
    for mode in [0o600, 0o660, 0o666] {
        // One that was killed has left its file behind.
        let flags = [endpoint.as_str(), &format!("--socket-mode=0{mode:o}"), &format!("--socket-owner={owner}")];
        let gateway = scene.serve(&flags).await;
        let found = std::fs::metadata(&path).expect("there");
        assert_eq!(found.mode() & 0o7777, mode, "0{mode:o}");
        if is_root {
            assert_eq!((found.uid(), found.gid()), (65534, 65534));
        }
        assert_eq!(text(&gateway.address, &Trust::default(), "/livez").await, "ok");
        gateway.kill().await;
    }
    let gateway = scene.serve(&[&endpoint]).await;
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, "another's").expect("written");
    signal(&gateway.child, Signal::TERM);
    let mut child = gateway.child;
    assert!(child.wait().await.expect("it ends").success());
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), "another's");
    std::fs::remove_file(&path).expect("removed");
    let complaint = scene.refused(&[&endpoint, "--socket-owner=nobody-has-this-name"]).await;
    assert!(complaint.contains("`nobody-has-this-name`: neither /etc/passwd nor /etc/group knows"), "{complaint}");
}

#[tokio::test]
async fn an_open_door_is_warned_of_once_with_what_closes_it() {
    let scene = Scene::new().await;
    let warnings = async |flags: &[&str]| {
        let gateway = scene.serve(flags).await;
        signal(&gateway.child, Signal::TERM);
        let mut child = gateway.child;
        child.wait().await.expect("it ends");
        let log = scene.log();
        log.lines().filter(|line| line.contains("whoever can connect from elsewhere")).map(str::to_owned).collect()
    };
    let two: Vec<String> = warnings(&["--http-endpoint=0.0.0.0:0", "--http-endpoint=[::]:0"]).await;
    assert_eq!(two.len(), 1, "{two:?}");
    for closes in ["--acl-enabled", "--tls-client-ca-file", "--http-endpoint=127.0.0.1"] {
        assert!(two[0].contains(closes), "{two:?}");
    }
    let none: [&[&str]; 3] = [
        &["--http-endpoint=127.0.0.1:0"],
        &[
            "--http-endpoint=0.0.0.0:0",
            &format!("--tls-client-ca-file={}", scene.trust().authorities.expect("a file").display()),
        ],
        &[
            "--http-endpoint=0.0.0.0:0",
            "--acl-enabled",
            &format!("--acl-tokens-file={}", scene.at("tokens.json").display()),
        ],
    ];
    for flags in none {
        assert_eq!(warnings(flags).await, Vec::<String>::new(), "{flags:?}");
    }
}
