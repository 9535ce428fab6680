//! A real etcd, started and killed by the test, what its owner would do to it, and a wire to it that can be cut.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use csi_gateway::transport::pb::etcd as pb;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

/// The program: what `CSI_GATEWAY_TEST_ETCD` names (CI's oldest peer), else the one that cargo brought; `None`: there is
/// none for this machine, which has been said.
///
/// # Panics
/// If there is none and `CSI_GATEWAY_TEST_STRICT` is set.
pub fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CSI_GATEWAY_TEST_ETCD").filter(|value| !value.is_empty()) {
        return Some(path.into());
    }
    let why = match etcd_bin_vendored::etcd_bin_path() {
        Ok(path) if path.is_file() => return Some(path.to_owned()),
        Ok(path) => format!("there is no `{}`", path.display()),
        Err(error) => error.to_string(),
    };
    assert!(std::env::var_os("CSI_GATEWAY_TEST_STRICT").is_none(), "a real part is missing: {why}");
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
    None
}

/// Ports that nobody listened on a moment ago.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

/// An etcd of one member, or one member of several.
pub struct EtcdServer {
    program: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
    port: u16,
    folder: Arc<TempDir>,
    name: String,
    /// By which it reaches the other members, where that is not directly.
    proxy: Option<SocketAddr>,
}

impl EtcdServer {
    /// One that is alone.
    pub async fn start(program: &Path, more: &[&str]) -> Self {
        let [client, peer] = free_ports();
        let cluster = format!("one=http://127.0.0.1:{peer}");
        let folder = Arc::new(TempDir::new().expect("a scratch folder"));
        let mut server = Self::member(program, &folder, "one", client, peer, &cluster, more);
        server.resume().await;
        server.until_ready().await;
        server
    }

    /// Several, as a cluster.
    pub async fn cluster<const N: usize>(program: &Path, more: &[&str]) -> Vec<Self> {
        let (clients, peers): ([u16; N], [u16; N]) = (free_ports(), free_ports());
        let names: Vec<String> = (0..N).map(|number| format!("m{number}")).collect();
        let urls: Vec<String> =
            names.iter().zip(peers).map(|(name, port)| format!("{name}=http://127.0.0.1:{port}")).collect();
        let cluster = urls.join(",");
        let folder = Arc::new(TempDir::new().expect("a scratch folder"));
        let mut servers = Vec::new();
        for ((name, client), peer) in names.iter().zip(clients).zip(peers) {
            let mut server = Self::member(program, &folder, name, client, peer, &cluster, more);
            server.resume().await;
            servers.push(server);
        }
        for server in &servers {
            server.until_ready().await;
        }
        servers
    }

    /// A cluster whose members can be cut off from each other.
    pub async fn divisible_cluster<const N: usize>(program: &Path) -> (Vec<Self>, Network) {
        let (clients, peers): ([u16; N], [u16; N]) = (free_ports(), free_ports());
        // Names that nobody knows: only who asks the network gets there.
        let urls: Vec<String> =
            peers.iter().enumerate().map(|(number, port)| format!("http://peer-{number}.invalid:{port}")).collect();
        let cluster: Vec<String> = urls.iter().enumerate().map(|(number, url)| format!("m{number}={url}")).collect();
        let (cluster, folder) = (cluster.join(","), Arc::new(TempDir::new().expect("a scratch folder")));
        let (network, proxies) = Network::between(&peers).await;
        let mut servers = Vec::new();
        for (number, proxy) in proxies.into_iter().enumerate() {
            let flag = format!("--initial-advertise-peer-urls={}", urls[number]);
            let name = format!("m{number}");
            let mut server = Self::member(program, &folder, &name, clients[number], peers[number], &cluster, &[&flag]);
            server.proxy = Some(proxy);
            server.resume().await;
            servers.push(server);
        }
        for server in &servers {
            server.until_ready().await;
        }
        (servers, network)
    }

    fn member(
        program: &Path,
        folder: &Arc<TempDir>,
        name: &str,
        client: u16,
        peer: u16,
        cluster: &str,
        more: &[&str],
    ) -> Self {
        let scheme = if more.iter().any(|flag| flag.starts_with("--cert-file")) { "https" } else { "http" };
        let mut arguments = vec![
            format!("--name={name}"),
            format!("--data-dir={}", folder.path().join(name).display()),
            format!("--listen-client-urls={scheme}://127.0.0.1:{client}"),
            format!("--advertise-client-urls={scheme}://127.0.0.1:{client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-cluster={cluster}"),
            "--log-level=error".to_owned(),
        ];
        arguments.extend(more.iter().map(|&flag| flag.to_owned()));
        let (program, folder) = (program.to_owned(), Arc::clone(folder));
        Self { program, arguments, child: None, port: client, folder, name: name.to_owned(), proxy: None }
    }

    /// Starts it (again).
    pub async fn resume(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("{}.log", self.name)))
            .expect("a log file");
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env("ETCD_UNSUPPORTED_ARCH", "arm64").kill_on_drop(true);
        if let Some(proxy) = self.proxy {
            command.env("HTTP_PROXY", format!("socks5://{proxy}")).env_remove("NO_PROXY").env_remove("no_proxy");
        }
        let sink = log.try_clone().expect("the log file twice");
        self.child = Some(command.stdin(Stdio::null()).stdout(sink).stderr(log).spawn().expect("etcd starts"));
    }

    /// Kills it as a power cut does.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("it was running");
        }
    }

    /// Has it stand still, with what it has taken and not done.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Has it go on.
    pub fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = self.child.as_ref().and_then(Child::id).and_then(|id| i32::try_from(id).ok());
        let pid = id.and_then(rustix::process::Pid::from_raw).expect("a running child");
        rustix::process::kill_process(pid, signal).expect("it is ours");
    }

    /// Takes its data away; it has to be killed before.
    pub fn wipe(&self) {
        let _ = std::fs::remove_dir_all(self.folder.path().join(&self.name));
    }

    /// Takes the place of another, as a restored backup takes that of what was lost; both have to be killed before.
    pub fn take_data_of(&self, other: &Self) {
        let (from, to) = (other.folder.path().join(&other.name), self.folder.path().join(&self.name));
        std::fs::rename(from, to).expect("the same file system");
    }

    /// Waits until it answers a write.
    ///
    /// # Panics
    /// If it does not in a minute; the text is its log.
    pub async fn until_ready(&self) {
        if self.url().starts_with("https") {
            // The test has no client with its certificate; whoever connects is proof enough that it listens.
            let end = Instant::now() + Duration::from_secs(60);
            while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                assert!(Instant::now() < end, "etcd does not listen: {}", self.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            return;
        }
        let end = Instant::now() + Duration::from_secs(60);
        while self.owner().put("ready", "").await.is_err() {
            assert!(Instant::now() < end, "etcd does not answer: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// Where clients reach it.
    pub fn url(&self) -> String {
        let scheme = if self.arguments.iter().any(|flag| flag.starts_with("--cert-file")) { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// What its owner does to it.
    pub fn owner(&self) -> Owner {
        let endpoint = Endpoint::from_shared(self.url()).expect("a legal address");
        Owner(endpoint.connect_lazy())
    }
}

/// What etcd's owner does, by calls that the gateway never makes; so they are described here.
#[derive(Clone)]
pub struct Owner(Channel);

/// Messages of etcd's that no part of the gateway needs.
mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Compact {
        #[prost(int64, tag = "1")]
        pub revision: i64,
        #[prost(bool, tag = "2")]
        pub physical: bool,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Empty {}
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Alarm {
        #[prost(int32, tag = "1")]
        pub action: i32,
        #[prost(uint64, tag = "2")]
        pub member: u64,
        #[prost(int32, tag = "3")]
        pub alarm: i32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Raised {
        #[prost(uint64, tag = "1")]
        pub member: u64,
        #[prost(int32, tag = "2")]
        pub alarm: i32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Alarms {
        #[prost(message, repeated, tag = "2")]
        pub raised: Vec<Raised>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Status {
        #[prost(message, optional, tag = "1")]
        pub header: Option<super::pb::ResponseHeader>,
        #[prost(uint64, tag = "4")]
        pub leader: u64,
        #[prost(int64, tag = "3")]
        pub size: i64,
        #[prost(int64, tag = "9")]
        pub in_use: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Named {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub second: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Permission {
        #[prost(int32, tag = "1")]
        pub kind: i32,
        #[prost(bytes = "vec", tag = "2")]
        pub key: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")]
        pub end: Vec<u8>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Grant {
        #[prost(string, tag = "1")]
        pub role: String,
        #[prost(message, optional, tag = "2")]
        pub permission: Option<Permission>,
    }
}

impl Owner {
    async fn call<Q, A>(&self, path: &'static str, message: Q) -> Result<A, tonic::Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let mut request = tonic::Request::new(message);
        request.set_timeout(Duration::from_secs(5));
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        Ok(grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
    }

    /// Writes a key; the revision after it.
    pub async fn put(&self, key: &str, value: impl Into<Vec<u8>>) -> Result<i64, tonic::Status> {
        let message = pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        let answer: pb::PutResponse = self.call("/etcdserverpb.KV/Put", message).await?;
        Ok(answer.header.unwrap_or_default().revision)
    }

    /// Everything under a prefix.
    pub async fn list(&self, prefix: &str) -> Vec<pb::KeyValue> {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().expect("a prefix") += 1;
        let message = pb::RangeRequest { key: prefix.into(), range_end: end, ..Default::default() };
        let answer: pb::RangeResponse = self.call("/etcdserverpb.KV/Range", message).await.expect("etcd answers");
        answer.kvs
    }

    /// The newest revision.
    pub async fn revision(&self) -> i64 {
        let message = pb::RangeRequest { key: b"x".to_vec(), ..Default::default() };
        let answer: pb::RangeResponse = self.call("/etcdserverpb.KV/Range", message).await.expect("etcd answers");
        answer.header.unwrap_or_default().revision
    }

    /// Forgets what was before the newest revision.
    pub async fn compact(&self) {
        let revision = self.revision().await;
        let message = wire::Compact { revision, physical: true };
        let _: wire::Empty = self.call("/etcdserverpb.KV/Compact", message).await.expect("etcd compacts");
    }

    /// Gives what was forgotten back to the file system.
    pub async fn defragment(&self) {
        let _: wire::Empty =
            self.call("/etcdserverpb.Maintenance/Defragment", wire::Empty {}).await.expect("etcd defragments");
    }

    /// Says that the database has room again.
    pub async fn disarm(&self) {
        let asked = wire::Alarm { action: 0, member: 0, alarm: 0 };
        let alarms: wire::Alarms =
            self.call("/etcdserverpb.Maintenance/Alarm", asked).await.expect("etcd tells its alarms");
        for wire::Raised { member, alarm } in alarms.raised {
            let done = wire::Alarm { action: 2, member, alarm };
            let _: wire::Alarms =
                self.call("/etcdserverpb.Maintenance/Alarm", done).await.expect("etcd takes an alarm back");
        }
    }

    /// Bytes of its database, and how many of them are in use.
    pub async fn size(&self) -> (i64, i64) {
        let status: wire::Status =
            self.call("/etcdserverpb.Maintenance/Status", wire::Empty {}).await.expect("etcd answers");
        (status.size, status.in_use)
    }

    /// Whether it leads the others.
    pub async fn is_leader(&self) -> bool {
        let status: wire::Status =
            self.call("/etcdserverpb.Maintenance/Status", wire::Empty {}).await.expect("etcd answers");
        status.leader != 0 && status.leader == status.header.unwrap_or_default().member_id
    }

    /// Makes users: `root`, and `name` who may read and write under `prefix`; then everybody has to log in.
    pub async fn enable_users(&self, name: &str, password: &str, prefix: &str) {
        let named = |name: &str, second: &str| wire::Named { name: name.into(), second: second.into() };
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().expect("a prefix") += 1;
        let permission = wire::Permission { kind: 2, key: prefix.into(), end };
        let grant = wire::Grant { role: "fleet".into(), permission: Some(permission) };
        let done: Result<(), tonic::Status> = async {
            let _: wire::Empty = self.call("/etcdserverpb.Auth/UserAdd", named("root", "secret")).await?;
            let _: wire::Empty = self.call("/etcdserverpb.Auth/RoleAdd", named("root", "")).await?;
            let _: wire::Empty = self.call("/etcdserverpb.Auth/UserGrantRole", named("root", "root")).await?;
            let _: wire::Empty = self.call("/etcdserverpb.Auth/UserAdd", named(name, password)).await?;
            let _: wire::Empty = self.call("/etcdserverpb.Auth/RoleAdd", named("fleet", "")).await?;
            let _: wire::Empty = self.call("/etcdserverpb.Auth/RoleGrantPermission", grant).await?;
            let _: wire::Empty = self.call("/etcdserverpb.Auth/UserGrantRole", named(name, "fleet")).await?;
            let _: wire::Empty = self.call("/etcdserverpb.Auth/AuthEnable", wire::Empty {}).await?;
            Ok(())
        }
        .await;
        done.expect("etcd takes users");
    }
}

/// What a wire does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// It carries everything.
    Whole = 0,
    /// It is cut: what was connected ends, and nothing connects.
    Cut = 1,
    /// What is sent arrives, and no answer comes back.
    Mute = 2,
    /// Nothing arrives, in either direction, and nobody is told.
    Dead = 3,
}

/// A wire to a server.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<AtomicU8>,
    turned: watch::Sender<u64>,
}

impl Proxy {
    /// A whole one to `server`.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(AtomicU8::new(0));
        let (turned, turns) = watch::channel(0);
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.load(Ordering::SeqCst) == Wire::Cut as u8 {
                    continue;
                }
                let (state, mut turns) = (Arc::clone(&shared), turns.clone());
                turns.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::select! {
                        () = carry(from_client, to_server, &state, [Wire::Dead, Wire::Dead]) => {}
                        () = carry(from_server, to_client, &state, [Wire::Dead, Wire::Mute]) => {}
                        // Cut: whatever is connected ends.
                        _ = turns.changed() => {}
                    }
                });
            }
        });
        Self { address, state, turned }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on; connections that are not whole never become whole again.
    pub fn set(&self, wire: Wire) {
        self.state.store(wire as u8, Ordering::SeqCst);
        if wire == Wire::Cut || wire == Wire::Whole {
            self.turned.send_modify(|turn| *turn += 1);
        }
    }
}

/// The wires between the members of a cluster.
pub struct Network {
    /// By who sends and who is sent to.
    wires: Arc<Vec<AtomicU8>>,
    members: usize,
    turned: watch::Sender<u64>,
}

impl Network {
    /// Whole ones between members that listen on these ports, and where each of them enters it: by SOCKS 5, which etcd's
    /// connections to its peers take where `HTTP_PROXY` says so.
    async fn between(ports: &[u16]) -> (Self, Vec<SocketAddr>) {
        let members = ports.len();
        let wires: Arc<Vec<AtomicU8>> = Arc::new((0..members * members).map(|_| AtomicU8::new(0)).collect());
        let (turned, turns) = watch::channel(0);
        let mut entries = Vec::new();
        for from in 0..members {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            entries.push(listener.local_addr().expect("an address"));
            let (wires, turns, ports) = (Arc::clone(&wires), turns.clone(), ports.to_vec());
            tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    let (wires, mut turns, ports) = (Arc::clone(&wires), turns.clone(), ports.clone());
                    turns.mark_unchanged();
                    tokio::spawn(async move {
                        let Ok((client, port)) = greeted(client).await else { return };
                        let Some(to) = ports.iter().position(|known| *known == port) else { return };
                        let wire = &wires[from * members + to];
                        let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                        let (from_client, to_client) = client.into_split();
                        let (from_server, to_server) = server.into_split();
                        tokio::select! {
                            () = carry(from_client, to_server, wire, [Wire::Dead, Wire::Cut]) => {}
                            () = carry(from_server, to_client, wire, [Wire::Dead, Wire::Cut]) => {}
                            _ = turns.changed() => {}
                        }
                    });
                }
            });
        }
        (Self { wires, members, turned }, entries)
    }

    /// From now on nothing gets from this member to the others, nor to it, and nobody is told.
    pub fn cut_off(&self, member: usize) {
        for other in 0..self.members {
            for wire in [member * self.members + other, other * self.members + member] {
                self.wires[wire].store(Wire::Dead as u8, Ordering::SeqCst);
            }
        }
    }

    /// All reach all again, over new connections.
    pub fn join(&self) {
        for wire in self.wires.iter() {
            wire.store(Wire::Whole as u8, Ordering::SeqCst);
        }
        self.turned.send_modify(|turn| *turn += 1);
    }
}

/// Answers what a client of SOCKS 5 says first, and reads the port that it wants to reach.
async fn greeted(mut client: TcpStream) -> std::io::Result<(TcpStream, u16)> {
    let mut head = [0; 2];
    client.read_exact(&mut head).await?;
    let mut methods = vec![0; head[1].into()];
    client.read_exact(&mut methods).await?;
    // Version 5, nobody has to log in.
    client.write_all(&[5, 0]).await?;
    let mut request = [0; 5];
    client.read_exact(&mut request).await?;
    // A name with its length before it, then the port.
    let mut name = vec![0; usize::from(request[4]) + 2];
    client.read_exact(&mut name).await?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    let port = name.split_off(name.len() - 2);
    Ok((client, u16::from_be_bytes([port[0], port[1]])))
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    state: &AtomicU8,
    held_back: [Wire; 2],
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(read) = from.read(&mut buffer).await else { return };
        if read == 0 {
            return;
        }
        let state = state.load(Ordering::SeqCst);
        if held_back.iter().any(|wire| *wire as u8 == state) {
            continue;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
