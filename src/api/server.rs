//! Listening, accepting, and stopping in order.
//!
//! Our own loop rather than `axum::serve`, for what that does not let us choose: header names as Go writes them, small
//! buffers (ten thousand readers may wait here), unix sockets and TCP alike, and a stop that ends idle connections at
//! once and waits for those that are being answered. HTTP/1.1 only, as Nomad. Where TLS is spoken, hands are shaken in the
//! connection's own task, so nobody who is slow at it holds up others.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Method, Response};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Api;
use super::connections::{Connections, Entry, Place, refuse};
use super::ownership;
use super::sidecar::Sidecar;
use crate::domain::socket;
use crate::systemd::Handed;
use crate::tls::Stream;
use crate::tls::server::Tls;

/// Longest request line and headers, in bytes. Nomad takes 1 MiB, which would be 10 GiB from ten thousand readers;
/// what is longer is answered with 431.
const HEAD_LIMIT: usize = 32 << 10;
/// Connections below which nobody looks which of them have ended.
const FEW: usize = 64;
/// How long a stop waits for connections that are being answered.
const GRACE: Duration = Duration::from_secs(5);
/// Connections that wait to be accepted, as many as the standard library lets wait.
const BACKLOG: u32 = 1024;
/// Pause after an error of `accept` that concerns us and not one client, such as no free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why an address cannot be listened on.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process listens there.
    #[error("cannot listen on `{address}`: another process does; stop it, or choose another address")]
    InUse {
        /// As it was given.
        address: String,
    },
    /// The address is none, or not this machine's, or we may not.
    #[error("cannot listen on `{address}`{}", hint(.source))]
    Tcp {
        /// As it was given.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The path holds something that is no socket, which is left alone.
    #[error("cannot listen on `{}`: there is a file that is no socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A user or group that this host does not know.
    #[error(
        "cannot give the unix socket `{}` to `{name}`: neither /etc/passwd nor /etc/group knows that name; a number needs no knowing",
        path.display()
    )]
    NobodyKnown {
        /// The path.
        path: PathBuf,
        /// As it was given.
        name: String,
    },
    /// A unix socket that cannot be given away.
    #[error("cannot set mode and owner of the unix socket `{}`", path.display())]
    Owner {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A unix socket cannot be made.
    #[error("cannot listen on the unix socket `{}`", path.display())]
    Unix {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What is most likely wrong with an address.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => ", which is no address of this machine",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need root, or the capability CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    accepting: Accepting,
    address: String,
    connections: Connections,
    /// Spoken over TCP; `None`: plain HTTP is.
    tls: Option<Tls>,
    /// Removed when this is dropped.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A socket file of ours, removed with the listener, unless another process has replaced it meanwhile.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    fn identity(path: &Path) -> Option<(u64, u64)> {
        std::fs::symlink_metadata(path).ok().map(|data| (data.dev(), data.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && Self::identity(&self.path) == self.identity {
            // Nothing depends on it: a file left behind is replaced at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Binds `HOST:PORT` (port 0 picks one, no host means every address of this machine) or `unix:///PATH`.
    ///
    /// # Errors
    /// [`BindError`] names the address and what is in the way.
    pub async fn bind(address: &str) -> Result<Self, BindError> {
        Self::bind_as(address, &socket::SocketFile::default()).await
    }

    /// The same; a unix socket with this mode and owner.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub async fn bind_as(address: &str, file: &socket::SocketFile) -> Result<Self, BindError> {
        match address.strip_prefix("unix:") {
            // `unix:///run/x`, `unix:/run/x`, `unix:x`.
            Some(path) => Self::bind_unix(Path::new(path.strip_prefix("//").unwrap_or(path)), file).await,
            None => Self::bind_tcp(address).await,
        }
    }

    async fn bind_tcp(address: &str) -> Result<Self, BindError> {
        let bound = match address.strip_prefix(':') {
            // As Go: IPv6 with IPv4 mapped, else IPv4 alone.
            Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    TcpListener::bind(format!("0.0.0.0:{port}")).await
                }
                bound => bound,
            },
            None => TcpListener::bind(address).await,
        };
        let listener = bound.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address: address.to_owned() },
            _ => BindError::Tcp { address: address.to_owned(), source },
        })?;
        let local = listener.local_addr().map_err(|source| BindError::Tcp { address: address.to_owned(), source })?;
        Ok(Self {
            accepting: Accepting::Tcp(listener),
            address: local.to_string(),
            connections: Connections::at_most(0),
            tls: None,
            _file: None,
        })
    }

    async fn bind_unix(path: &Path, wanted: &socket::SocketFile) -> Result<Self, BindError> {
        let owner = ownership::find(wanted).map_err(|name| BindError::NobodyKnown { path: path.to_owned(), name })?;
        let failed = |source| BindError::Unix { path: path.to_owned(), source };
        match std::fs::symlink_metadata(path) {
            Ok(data) if !data.file_type().is_socket() => {
                return Err(BindError::NotASocket { path: path.to_owned() });
            }
            // A socket file outlives its process: whether it is in use only a connection tells.
            Ok(_) => match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(failed)?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) if source.kind() != io::ErrorKind::WouldBlock => return Err(failed(source)),
                // Connected, or its queue is full: somebody listens.
                Ok(_) | Err(_) => {
                    return Err(BindError::InUse { address: format!("unix://{}", path.display()) });
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed(source)),
        }
        let socket = UnixSocket::new_stream().map_err(failed)?;
        socket.bind(path).map_err(failed)?;
        let file = SocketFile { path: path.to_owned(), identity: SocketFile::identity(path) };
        // Before anybody can connect: until it listens, whoever tries is refused.
        ownership::give(path, wanted.mode, owner)
            .map_err(|source| BindError::Owner { path: path.to_owned(), source })?;
        let listener = socket.listen(BACKLOG).map_err(failed)?;
        Ok(Self {
            accepting: Accepting::Unix(listener),
            address: format!("unix://{}", path.display()),
            connections: Connections::at_most(0),
            tls: None,
            _file: Some(file),
        })
    }

    /// With a limit of connections for each client address, which other listeners may share. Unix sockets have none: who
    /// may connect there is the file's business.
    #[must_use]
    pub fn limited_by(mut self, connections: &Connections) -> Self {
        self.connections = connections.clone();
        self
    }

    /// Speaks TLS, if this is TCP. On a unix socket nobody is on the way, and who may connect is the file's business.
    #[must_use]
    pub fn speaking(mut self, tls: Option<&Tls>) -> Self {
        if let Accepting::Tcp(_) = self.accepting {
            self.tls = tls.cloned();
        }
        self
    }

    /// From a socket that was bound by somebody else, whose file, if it has one, is not ours to remove.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn handed(handed: Handed) -> io::Result<Self> {
        let (accepting, address) = match handed {
            Handed::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?.to_string();
                (Accepting::Tcp(TcpListener::from_std(listener)?), address)
            }
            Handed::Unix(listener) => {
                listener.set_nonblocking(true)?;
                let path = listener.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default();
                (Accepting::Unix(UnixListener::from_std(listener)?), format!("unix://{}", path.display()))
            }
        };
        Ok(Self { accepting, address, connections: Connections::at_most(0), tls: None, _file: None })
    }

    /// What was bound: `HOST:PORT` with the port that was picked, or `unix:///PATH`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The same as `curl` takes it.
    #[must_use]
    pub fn url(&self) -> String {
        match (&self.accepting, &self.tls) {
            (Accepting::Unix(_), _) => self.address.clone(),
            (Accepting::Tcp(_), None) => format!("http://{}", self.address),
            (Accepting::Tcp(_), Some(_)) => format!("https://{}", self.address),
        }
    }

    /// Whether processes of other machines can connect, as far as the address tells.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        match &self.accepting {
            Accepting::Tcp(listener) => {
                listener.local_addr().is_ok_and(|address| !address.ip().to_canonical().is_loopback())
            }
            Accepting::Unix(_) => false,
        }
    }
}

/// What answers at a listener.
#[derive(Clone)]
pub enum Served {
    /// The whole API.
    Api(Api),
    /// What a sidecar has to say.
    Sidecar(Sidecar),
}

impl From<Api> for Served {
    fn from(api: Api) -> Self {
        Self::Api(api)
    }
}

impl From<Sidecar> for Served {
    fn from(sidecar: Sidecar) -> Self {
        Self::Sidecar(sidecar)
    }
}

/// Serves until `shutdown`, then stops in order: no new connection, idle ones are closed, those that are being
/// answered get their answer, at most five seconds long. Waiting queries answer by themselves at `shutdown`.
pub async fn serve(listener: Listener, served: impl Into<Served>, shutdown: CancellationToken) {
    let served = served.into();
    let conversations = TaskTracker::new();
    // One per connection, dropped together at the stop. Not the token: each poll of a wait for it takes a lock that all
    // connections share, and a connection is polled with every request.
    let mut stops: Vec<oneshot::Sender<()>> = Vec::new();
    let mut look_again_at = FEW;
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept(&listener.accepting) => accepted,
        };
        if stops.len() >= look_again_at {
            stops.retain(|stop| !stop.is_closed());
            look_again_at = FEW.max(2 * stops.len());
        }
        let (stop_in, stop) = oneshot::channel();
        match accepted {
            Ok(Accepted::Tcp(stream, address)) => match listener.connections.enter(address, Instant::now()) {
                Entry::Served(place) => {
                    stops.push(stop_in);
                    let introducing = Introducing { served: served.clone(), client: Client::of(address) };
                    match &listener.tls {
                        None => conversations.spawn(converse(Stream::Tcp(stream), introducing, place, stop)),
                        Some(tls) => conversations.spawn(secured(stream, tls.clone(), introducing, place, stop)),
                    };
                }
                Entry::Told => drop(conversations.spawn(refuse(stream))),
                Entry::Closed => {}
            },
            Ok(Accepted::Unix(stream, client)) => {
                stops.push(stop_in);
                let introducing = Introducing { served: served.clone(), client };
                conversations.spawn(converse(Stream::Unix(stream), introducing, None, stop));
            }
            Err(error) => {
                // Said once, not ten times a second; whatever is short may stay short for long.
                if !is_failing {
                    warn!(address = %listener.address, %error, "cannot accept connections");
                }
                is_failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        }
        if is_failing {
            is_failing = false;
            warn!(address = %listener.address, "accepts connections again");
        }
    }
    drop(listener);
    drop(stops);
    conversations.close();
    if tokio::time::timeout(GRACE, conversations.wait()).await.is_err() {
        warn!(connections = conversations.len(), "gave up waiting for connections at the stop");
    }
}

enum Accepted {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream, Client),
}

/// Who is at the other end of a connection, as far as commands care. Reads are the same to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// A process on a unix socket, with its user id where the kernel knows it.
    Unix(Option<u32>),
    /// A process on this machine (or in this network namespace).
    Loopback,
    /// Anybody.
    Remote,
}

impl Client {
    fn of(address: IpAddr) -> Self {
        if address.to_canonical().is_loopback() { Self::Loopback } else { Self::Remote }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(Some(uid)) => write!(f, "unix socket, user {uid}"),
            Self::Unix(None) => f.write_str("unix socket"),
            Self::Loopback => f.write_str("loopback"),
            Self::Remote => f.write_str("remote"),
        }
    }
}

/// The API, told who asks where it makes a difference: a request that only reads carries nothing more than before,
/// since ten thousand of them may wait.
struct Introducing {
    served: Served,
    client: Client,
}

impl Service<Request<Incoming>> for Introducing {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if request.method() == Method::DELETE {
            request.extensions_mut().insert(self.client);
        }
        match &self.served {
            Served::Api(api) => {
                let answering = api.clone().answer(request);
                Box::pin(async move { Ok(answering.await) })
            }
            Served::Sidecar(sidecar) => {
                let answering = sidecar.clone().answer(request);
                Box::pin(async move { Ok(answering.await) })
            }
        }
    }
}

async fn accept(listener: &Accepting) -> io::Result<Accepted> {
    loop {
        let accepted = match listener {
            Accepting::Tcp(listener) => listener.accept().await.map(|(stream, address)| {
                // A short answer must not wait for the acknowledgement of the one before; where this fails, it waits.
                let _ = stream.set_nodelay(true);
                Accepted::Tcp(stream, address.ip())
            }),
            Accepting::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                let user = stream.peer_cred().ok().map(|peer| peer.uid());
                Accepted::Unix(stream, Client::Unix(user))
            }),
        };
        match accepted {
            // The client went before we came: its trouble, not ours.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            accepted => return accepted,
        }
    }
}

/// The same over TLS. Who has not shaken hands yet is owed no answer at the stop.
async fn secured(
    stream: TcpStream,
    tls: Tls,
    service: Introducing,
    place: Option<Place>,
    mut stop: oneshot::Receiver<()>,
) {
    // In a box that goes when hands are shaken: what it holds is needed once, and a connection may last for days.
    let shaking = Box::pin(async move { tls.accept(stream).await });
    let shaken = tokio::select! {
        shaken = shaking => shaken,
        _ = &mut stop => None,
    };
    if let Some(stream) = shaken {
        converse(stream, service, place, stop).await;
    }
}

/// One connection, until its client goes or the stop.
async fn converse(stream: Stream, service: Introducing, _place: Option<Place>, stop: oneshot::Receiver<()>) {
    let connection = http1::Builder::new()
        .title_case_headers(true)
        .max_buf_size(HEAD_LIMIT)
        // Nomad sets no limit here, and with one hyper would close idle connections, too.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended in disorder");
    }
}
