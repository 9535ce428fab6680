//! A scripted CSI driver: a real gRPC server on a real unix socket.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use csi_gateway::csi::Rpc;
//! use csi_gateway::demo::{FakeDriver, Reply};
//!
//! let driver = FakeDriver::node("drv.example.com").probe([Reply::starting()]).serve("/tmp/x/csi.sock").await?;
//! // … the first probe says "starting", all others "ready" …
//! driver.set_version("1.2.4"); // an upgrade in place
//! driver.set_probe(Reply::hang());
//! driver.leave_dead().await; // killed: the file stays
//! driver.come_back().await?;
//! assert_eq!(driver.calls(Rpc::ControllerCapabilities), 0);
//! driver.finish().await?; // fails if the script was not used up
//! # Ok(())
//! # }
//! ```
//!
//! Calls are answered by their path from bytes, without generated code, so that a script can hold what generated code
//! would never send. Settings say what the driver is; a script per call says what it does instead: a queue of replies,
//! used once each, then a steady one, which is what the settings say unless another was set.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::reply::{Deed, Reply, ReplyBody};
use crate::csi::Rpc;
use crate::domain::code::Code;
use crate::transport::connector::Reach;
use crate::transport::pb::{csi as pb, registration};

/// Calls that are remembered one by one, the newest; a driver that was left running must not grow.
const LOG_LIMIT: usize = 4096;
/// Different paths that are counted, which are a client's to choose.
const PATHS_LIMIT: usize = 64;
/// Pause after a connection that could not be taken, for want of descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What the driver says of itself.
#[derive(Debug, Clone)]
struct Settings {
    name: String,
    version: String,
    manifest: BTreeMap<String, String>,
    services: Vec<i32>,
    expansion: Vec<i32>,
    /// `None`: the service is not there. So for the other two.
    controller: Option<Vec<i32>>,
    node: Option<Vec<i32>>,
    group: Option<Vec<i32>>,
    node_info: pb::NodeGetInfoResponse,
    /// Set where it answers a kubelet.
    registration: Option<registration::PluginInfo>,
    /// Whether it is a CSI driver at all.
    is_driver: bool,
}

/// One method of the builder and one of the running driver from each line.
macro_rules! settings {
    ($($(#[$doc:meta])* $build:ident, $set:ident ($($argument:ident: $kind:ty),*) |$settings:ident| $body:expr;)+) => {
        impl FakeDriver {
            $($(#[$doc])*
            #[must_use]
            pub fn $build(mut self, $($argument: $kind),*) -> Self {
                let $settings = &mut self.settings;
                $body;
                self
            })+
        }

        impl ServedDriver {
            $($(#[$doc])*
            ///
            /// Holds from the next call on.
            pub fn $set(&self, $($argument: $kind),*) {
                let mut state = self.shared.state();
                let $settings = &mut state.settings;
                $body;
            })+
        }
    };
}

settings! {
    /// The name it gives itself.
    name, set_name(name: impl Into<String>) |settings| settings.name = name.into();
    /// Its version.
    version, set_version(version: impl Into<String>) |settings| settings.version = version.into();
    /// Pairs of `GetPluginInfo`.
    manifest, set_manifest(pairs: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>)
        |settings| settings.manifest = owned(pairs);
    /// Numbers of services in `GetPluginCapabilities`.
    plugin_capabilities, set_plugin_capabilities(numbers: impl IntoIterator<Item = i32>)
        |settings| settings.services = numbers.into_iter().collect();
    /// Numbers of volume expansion in `GetPluginCapabilities`.
    volume_expansion, set_volume_expansion(numbers: impl IntoIterator<Item = i32>)
        |settings| settings.expansion = numbers.into_iter().collect();
    /// Numbers in `ControllerGetCapabilities`; gives it that service.
    controller_capabilities, set_controller_capabilities(numbers: impl IntoIterator<Item = i32>)
        |settings| settings.controller = Some(numbers.into_iter().collect());
    /// Numbers in `NodeGetCapabilities`; gives it that service.
    node_capabilities, set_node_capabilities(numbers: impl IntoIterator<Item = i32>)
        |settings| settings.node = Some(numbers.into_iter().collect());
    /// Numbers in `GroupControllerGetCapabilities`; gives it that service.
    group_capabilities, set_group_capabilities(numbers: impl IntoIterator<Item = i32>)
        |settings| settings.group = Some(numbers.into_iter().collect());
    /// The answer to `NodeGetInfo` without a topology.
    node_info, set_node_info(node_id: impl Into<String>, max_volumes: i64)
        |settings| {
            settings.node_info.node_id = node_id.into();
            settings.node_info.max_volumes_per_node = max_volumes;
        };
    /// Segments of `NodeGetInfo`; none at all make an empty topology, which is not the same as no topology.
    topology, set_topology(segments: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>)
        |settings| settings.node_info.accessible_topology = Some(pb::Topology { segments: owned(segments) });
    /// No topology, as a driver has from the start.
    no_topology, set_no_topology() |settings| settings.node_info.accessible_topology = None;
    /// Makes it answer a kubelet, too: `GetInfo` says this. An empty endpoint means "this very socket".
    registration, set_registration(kind: impl Into<String>, name: impl Into<String>, endpoint: impl Into<String>)
        |settings| settings.registration = Some(registration::PluginInfo {
            r#type: kind.into(),
            name: name.into(),
            endpoint: endpoint.into(),
            supported_versions: vec!["1.0.0".to_owned()],
        });
}

fn owned(pairs: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}

impl Settings {
    /// The driver D0 of the behaviour cases, without any role.
    fn base(name: String) -> Self {
        Self {
            name,
            version: "1.2.3".to_owned(),
            manifest: BTreeMap::new(),
            services: vec![1],
            expansion: Vec::new(),
            controller: None,
            node: None,
            group: None,
            node_info: pb::NodeGetInfoResponse { node_id: "n-1".to_owned(), ..Default::default() },
            registration: None,
            is_driver: true,
        }
    }

    fn reply(&self, path: &str) -> Reply {
        let known = Rpc::ALL.iter().find(|rpc| rpc.path() == path);
        known
            .and_then(|rpc| self.answer(*rpc))
            .unwrap_or_else(|| Reply::fail(Code::Unimplemented, format!("unknown method `{path}`")))
    }

    /// `None` where the service is not there.
    fn answer(&self, rpc: Rpc) -> Option<Reply> {
        if rpc == Rpc::RegistrationInfo {
            return self.registration.as_ref().map(Reply::message);
        }
        if !self.is_driver {
            return None;
        }
        Some(match rpc {
            Rpc::Probe => Reply::ready(),
            Rpc::PluginInfo => Reply::message(&pb::GetPluginInfoResponse {
                name: self.name.clone(),
                vendor_version: self.version.clone(),
                manifest: self.manifest.clone(),
            }),
            Rpc::PluginCapabilities => {
                use pb::plugin_capability::{Service, Type, VolumeExpansion};
                let services = self.services.iter().map(|number| Type::Service(Service { r#type: *number }));
                let expansion =
                    self.expansion.iter().map(|number| Type::VolumeExpansion(VolumeExpansion { r#type: *number }));
                let capabilities =
                    services.chain(expansion).map(|entry| pb::PluginCapability { r#type: Some(entry) }).collect();
                Reply::message(&pb::GetPluginCapabilitiesResponse { capabilities })
            }
            Rpc::ControllerCapabilities => {
                Reply::controller_entries(self.controller.as_ref()?.iter().copied().map(Some))
            }
            Rpc::NodeCapabilities => {
                use pb::node_service_capability::{Rpc, Type};
                let entry =
                    |number: &i32| pb::NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: *number })) };
                let capabilities = self.node.as_ref()?.iter().map(entry).collect();
                Reply::message(&pb::NodeGetCapabilitiesResponse { capabilities })
            }
            Rpc::NodeInfo => {
                self.node.as_ref()?;
                Reply::message(&self.node_info)
            }
            Rpc::GroupCapabilities => {
                use pb::group_controller_service_capability::{Rpc, Type};
                let entry = |number: &i32| pb::GroupControllerServiceCapability {
                    r#type: Some(Type::Rpc(Rpc { r#type: *number })),
                };
                let capabilities = self.group.as_ref()?.iter().map(entry).collect();
                Reply::message(&pb::GroupControllerGetCapabilitiesResponse { capabilities })
            }
            Rpc::RegistrationInfo => return None,
        })
    }
}

#[derive(Debug, Default)]
struct Script {
    queue: VecDeque<Reply>,
    /// `None`: as the settings say.
    steady: Option<Reply>,
}

/// A driver that is not served yet.
#[derive(Debug)]
pub struct FakeDriver {
    settings: Settings,
    scripts: HashMap<Rpc, Script>,
}

impl FakeDriver {
    fn base(name: impl Into<String>) -> Self {
        Self { settings: Settings::base(name.into()), scripts: HashMap::new() }
    }

    /// Version 1.2.3, ready, `CONTROLLER_SERVICE`; serves Controller with `CREATE_DELETE_VOLUME`, and no Node.
    #[must_use]
    pub fn controller(name: impl Into<String>) -> Self {
        Self::base(name).controller_capabilities([1])
    }

    /// As above, but serves Node with `STAGE_UNSTAGE_VOLUME` and the node id `n-1`, and no Controller.
    #[must_use]
    pub fn node(name: impl Into<String>) -> Self {
        Self::base(name).node_capabilities([1])
    }

    /// Both.
    #[must_use]
    pub fn monolith(name: impl Into<String>) -> Self {
        Self::controller(name).node_capabilities([1])
    }

    /// No driver, but a registration socket: answers a kubelet's `GetInfo`, and nothing of CSI.
    #[must_use]
    pub fn registrar(kind: impl Into<String>, name: impl Into<String>, endpoint: impl Into<String>) -> Self {
        let mut driver = Self::base("").registration(kind, name, endpoint);
        driver.settings.is_driver = false;
        driver
    }

    /// The next replies to a call, one each; after them the steady one.
    #[must_use]
    pub fn on(mut self, rpc: Rpc, replies: impl IntoIterator<Item = Reply>) -> Self {
        self.scripts.entry(rpc).or_default().queue.extend(replies);
        self
    }

    /// The steady reply to a call.
    #[must_use]
    pub fn always(mut self, rpc: Rpc, reply: Reply) -> Self {
        self.scripts.entry(rpc).or_default().steady = Some(reply);
        self
    }

    /// The next replies to `Probe`; after them it is ready.
    #[must_use]
    pub fn probe(self, replies: impl IntoIterator<Item = Reply>) -> Self {
        self.on(Rpc::Probe, replies)
    }

    /// Binds `socket` and serves, until told otherwise or dropped. A file that is there is replaced, a directory that is
    /// not there is made, and the path may be longer than the kernel's 107 bytes.
    ///
    /// # Errors
    ///
    /// Cannot make the directory or bind.
    pub async fn serve(self, socket: impl AsRef<Path>) -> io::Result<ServedDriver> {
        let shared = Shared {
            state: Mutex::new(State {
                settings: self.settings,
                scripts: self.scripts,
                calls: Calls::default(),
                connections: 0,
            }),
            news: watch::Sender::new(()),
            goodbye: watch::Sender::new(()),
            has_panicked: AtomicBool::new(false),
        };
        let driver =
            ServedDriver { socket: socket.as_ref().to_owned(), shared: Arc::new(shared), listening: Mutex::new(None) };
        driver.come_back().await?;
        Ok(driver)
    }
}

/// One call as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The path, `/csi.v1.Identity/Probe` for instance.
    pub path: String,
    /// The host the client named.
    pub authority: String,
    /// Which connection it came over, counted from 1.
    pub connection: usize,
}

/// What was called.
#[derive(Debug, Default)]
struct Calls {
    newest: VecDeque<Call>,
    counts: HashMap<String, usize>,
}

impl Calls {
    fn push(&mut self, call: Call) {
        if let Some(count) = self.counts.get_mut(&call.path) {
            *count += 1;
        } else if self.counts.len() < PATHS_LIMIT {
            self.counts.insert(call.path.clone(), 1);
        }
        if self.newest.len() == LOG_LIMIT {
            self.newest.pop_front();
        }
        self.newest.push_back(call);
    }
}

#[derive(Debug)]
struct State {
    settings: Settings,
    scripts: HashMap<Rpc, Script>,
    calls: Calls,
    connections: usize,
}

impl State {
    fn next_reply(&mut self, path: &str) -> Reply {
        let rpc = Rpc::ALL.iter().find(|rpc| rpc.path() == path);
        let script = rpc.and_then(|rpc| self.scripts.get_mut(rpc));
        let reply = script.and_then(|script| script.queue.pop_front().or_else(|| script.steady.clone()));
        match reply {
            Some(Reply { deed: Deed::Usual, delay, .. }) => self.settings.reply(path).after(delay),
            Some(reply) => reply,
            None => self.settings.reply(path),
        }
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Sent after each call and connection.
    news: watch::Sender<()>,
    goodbye: watch::Sender<()>,
    has_panicked: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The listener and the connections of one life at the socket.
#[derive(Debug)]
struct Life {
    /// Ends all of it, connections that are accepted at the same moment included.
    stop: CancellationToken,
    /// A child of it; replaced when all connections are cut and the listener goes on.
    connections: Arc<Mutex<CancellationToken>>,
    tasks: TaskTracker,
    /// Device and inode of the file we made.
    file: Option<(u64, u64)>,
}

impl Life {
    fn cut_connections(&self) {
        let mut token = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *token, self.stop.child_token()).cancel();
    }

    /// Removes the file, unless somebody has put another in its place.
    fn unlink(&self, socket: &Path) {
        if self.file.is_some() && identity(socket) == self.file {
            let _ = std::fs::remove_file(socket);
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn identity(socket: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(socket).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Why [`ServedDriver::finish`] fails.
#[derive(Debug, Error)]
#[error("the scripted driver at `{}` did not finish: {}", .socket.display(), .complaints.join(", "))]
pub struct Unfinished {
    socket: PathBuf,
    complaints: Vec<String>,
}

/// A driver that listens, or did. Dropped, it closes everything and removes its socket.
#[derive(Debug)]
pub struct ServedDriver {
    socket: PathBuf,
    shared: Arc<Shared>,
    listening: Mutex<Option<Life>>,
}

impl ServedDriver {
    /// Where it is served.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How often a call arrived, answered or not.
    #[must_use]
    pub fn calls(&self, rpc: Rpc) -> usize {
        self.calls_at(rpc.path())
    }

    /// The same for any path, for calls that the gateway must never make.
    #[must_use]
    pub fn calls_at(&self, path: &str) -> usize {
        self.shared.state().calls.counts.get(path).copied().unwrap_or_default()
    }

    /// The newest calls, in the order of their arrival.
    #[must_use]
    pub fn log(&self) -> Vec<Call> {
        self.shared.state().calls.newest.iter().cloned().collect()
    }

    /// The newest methods called, in the order of their arrival and without their services.
    #[must_use]
    pub fn methods(&self) -> Vec<String> {
        let name = |call: &Call| call.path.rsplit('/').next().unwrap_or_default().to_owned();
        self.shared.state().calls.newest.iter().map(name).collect()
    }

    /// Every authority that a client named lately.
    #[must_use]
    pub fn authorities(&self) -> BTreeSet<String> {
        self.shared.state().calls.newest.iter().map(|call| call.authority.clone()).collect()
    }

    /// How many connections were accepted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// Returns once a call has arrived `count` times. Waits for ever if it does not: put your own limit around it.
    pub async fn wait_for_calls(&self, rpc: Rpc, count: usize) {
        let mut news = self.shared.news.subscribe();
        while self.calls(rpc) < count {
            if news.changed().await.is_err() {
                return;
            }
        }
    }

    /// Replies left in queues.
    #[must_use]
    pub fn replies_left(&self) -> usize {
        self.shared.state().scripts.values().map(|script| script.queue.len()).sum()
    }

    /// The steady reply to `Probe`.
    pub fn set_probe(&self, reply: Reply) {
        self.set(Rpc::Probe, reply);
    }

    /// The steady reply to a call; [`Reply::usual`] goes back to the settings. Replies queued before come first.
    pub fn set(&self, rpc: Rpc, reply: Reply) {
        self.shared.state().scripts.entry(rpc).or_default().steady = Some(reply);
    }

    /// More replies for the queue of a call.
    pub fn queue(&self, rpc: Rpc, replies: impl IntoIterator<Item = Reply>) {
        self.shared.state().scripts.entry(rpc).or_default().queue.extend(replies);
    }

    /// Stops serving Controller: its calls are UNIMPLEMENTED from now on.
    pub fn drop_controller(&self) {
        self.shared.state().settings.controller = None;
    }

    /// Stops serving Node.
    pub fn drop_node(&self) {
        self.shared.state().settings.node = None;
    }

    /// Ends as a driver does that is stopped: the file is gone, then listener and connections.
    pub async fn vanish(&self) {
        if let Some(life) = self.take_life() {
            life.unlink(&self.socket);
            life.end().await;
        }
    }

    /// Ends as a driver does that is killed: listener and connections are gone, the file stays.
    pub async fn leave_dead(&self) {
        if let Some(life) = self.take_life() {
            life.end().await;
        }
    }

    /// Cuts every open connection; the listener goes on.
    pub fn cut_connections(&self) {
        if let Some(life) = &*self.listening() {
            life.cut_connections();
        }
    }

    /// Closes every open connection in good order, as servers do with idle ones; the listener goes on.
    pub fn say_goodbye(&self) {
        self.shared.goodbye.send_replace(());
    }

    /// Listens again, at the same path and with a new file. Does nothing while it is listening.
    ///
    /// # Errors
    ///
    /// Cannot bind.
    pub async fn come_back(&self) -> io::Result<()> {
        let mut listening = self.listening();
        if listening.is_some() {
            return Ok(());
        }
        if let Some(directory) = self.socket.parent() {
            std::fs::create_dir_all(directory)?;
        }
        match std::fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(Reach::new(&self.socket)?.path())?;
        let stop = CancellationToken::new();
        let life = Life {
            connections: Arc::new(Mutex::new(stop.child_token())),
            stop,
            tasks: TaskTracker::new(),
            file: identity(&self.socket),
        };
        life.tasks.spawn(accept(
            listener,
            life.stop.clone(),
            Arc::clone(&life.connections),
            life.tasks.clone(),
            Arc::clone(&self.shared),
        ));
        *listening = Some(life);
        Ok(())
    }

    /// Puts another driver in this one's place, as an upgrade does: new file, new listener, while connections to this one
    /// live on until it is dropped.
    ///
    /// # Errors
    ///
    /// Cannot bind.
    pub async fn replace(&self, with: FakeDriver) -> io::Result<Self> {
        with.serve(&self.socket).await
    }

    /// Stops, and says whether everything went as scripted.
    ///
    /// # Errors
    ///
    /// Replies are left over, or the server panicked.
    pub async fn finish(self) -> Result<(), Unfinished> {
        self.vanish().await;
        let mut complaints: Vec<String> = self
            .shared
            .state()
            .scripts
            .iter()
            .filter(|(_, script)| !script.queue.is_empty())
            .map(|(rpc, script)| format!("{} replies to `{rpc}` are left over", script.queue.len()))
            .collect();
        if self.shared.has_panicked.load(Ordering::Relaxed) {
            complaints.push("its server panicked".to_owned());
        }
        complaints.sort_unstable();
        if complaints.is_empty() {
            return Ok(());
        }
        Err(Unfinished { socket: self.socket.clone(), complaints })
    }

    fn listening(&self) -> MutexGuard<'_, Option<Life>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_life(&self) -> Option<Life> {
        self.listening().take()
    }
}

impl Drop for ServedDriver {
    fn drop(&mut self) {
        if let Some(life) = self.take_life() {
            life.unlink(&self.socket);
            life.stop.cancel();
        }
    }
}

/// Serves one driver with both roles and a topology at `socket` until `stop` is there: something to try clients and
/// conformance suites on.
///
/// # Errors
///
/// Cannot bind.
pub async fn run_alone(socket: &Path, stop: impl Future<Output = ()>) -> io::Result<()> {
    let driver = FakeDriver::monolith("demo.csi-gateway.example")
        .version(env!("CARGO_PKG_VERSION"))
        .manifest([("scripted", "true")])
        .plugin_capabilities([1, 2])
        .node_info("demo-node-0", 0)
        .topology([("topology.csi-gateway.example/zone", "z1")])
        .serve(socket)
        .await?;
    stop.await;
    driver.vanish().await;
    Ok(())
}

async fn accept(
    listener: UnixListener,
    stop: CancellationToken,
    connections: Arc<Mutex<CancellationToken>>,
    tasks: TaskTracker,
    shared: Arc<Shared>,
) {
    let _panic = PanicNote(Arc::clone(&shared));
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        // The client sees it, and its test says so.
        let Ok((stream, _)) = accepted else {
            stop.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await;
            continue;
        };
        let number = {
            let mut state = shared.state();
            state.connections += 1;
            state.connections
        };
        shared.news.send_replace(());
        let cut = connections.lock().unwrap_or_else(PoisonError::into_inner).child_token();
        tasks.spawn(serve_connection(stream, number, cut, Arc::clone(&shared)));
    }
}

async fn serve_connection(stream: UnixStream, number: usize, cut: CancellationToken, shared: Arc<Shared>) {
    let mut goodbye = shared.goodbye.subscribe();
    goodbye.mark_unchanged();
    let service = service_fn(|request| answer(request, number, cut.clone(), Arc::clone(&shared)));
    let mut connection =
        pin!(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
    loop {
        tokio::select! {
            // How a connection ended is the client's affair.
            _ = connection.as_mut() => return,
            () = cut.cancelled() => return,
            Ok(()) = goodbye.changed() => connection.as_mut().graceful_shutdown(),
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    connection: usize,
    cut: CancellationToken,
    shared: Arc<Shared>,
) -> Result<Response<ReplyBody>, Infallible> {
    let _panic = PanicNote(Arc::clone(&shared));
    let path = request.uri().path().to_owned();
    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let reply = {
        let mut state = shared.state();
        state.calls.push(Call { path: path.clone(), authority, connection });
        state.next_reply(&path)
    };
    shared.news.send_replace(());
    // A stream whose request was not read to its end is reset instead of closed.
    let _ = request.into_body().collect().await;
    tokio::time::sleep(reply.delay).await;
    if let Some(response) = reply.response() {
        return Ok(response);
    }
    if let Deed::DropConnection = reply.deed {
        cut.cancel();
    }
    std::future::pending().await
}

/// Remembers a panic in the task that holds it; tokio would swallow it.
struct PanicNote(Arc<Shared>);

impl Drop for PanicNote {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.has_panicked.store(true, Ordering::Relaxed);
        }
    }
}

impl fmt::Display for ServedDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scripted driver at `{}`", self.socket.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that was accepted while the driver ended was once cut by nobody, and the end waited for its client.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_driver_ends_whoever_connects_meanwhile() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let path = directory.path().join("csi.sock");
        for _ in 0..300 {
            let driver = FakeDriver::node("drv.example.com").serve(&path).await.expect("binds");
            let client = tokio::spawn({
                let path = path.clone();
                async move {
                    let mut kept = Vec::new();
                    while let Ok(stream) = UnixStream::connect(&path).await {
                        kept.push(stream);
                        tokio::task::yield_now().await;
                    }
                    kept
                }
            });
            let mut news = driver.shared.news.subscribe();
            news.changed().await.expect("the driver is there");
            let end = tokio::time::timeout(Duration::from_secs(30), driver.leave_dead()).await;
            end.expect("it ends, though its clients do not");
            drop(client.await.expect("does not panic"));
        }
    }

    #[test]
    fn of_many_calls_the_newest_are_kept_and_all_are_counted() {
        let mut calls = Calls::default();
        let call = |path: &str| Call { path: path.to_owned(), authority: String::new(), connection: 1 };
        calls.push(call("/old"));
        for _ in 0..LOG_LIMIT {
            calls.push(call("/new"));
        }
        assert_eq!((calls.newest.len(), calls.newest[0].path.as_str()), (LOG_LIMIT, "/new"));
        assert_eq!((calls.counts["/old"], calls.counts["/new"]), (1, LOG_LIMIT));
        for number in 0..PATHS_LIMIT {
            calls.push(call(&format!("/{number}")));
        }
        assert_eq!(calls.counts.len(), PATHS_LIMIT);
    }
}
