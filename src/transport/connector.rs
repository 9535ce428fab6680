//! One dial, one connection: a unix socket as a tonic channel whose end is an event.
//!
//! tonic's own connector for unix sockets reconnects unseen, hides the end of a connection, and cannot reach paths that
//! the kernel's address structure has no room for. This one connects once; a second attempt through the same channel is
//! refused, so whoever looks after a driver knows which process answered which call. "Connected" means that the peer sent
//! the beginning of an HTTP/2 settings frame: a process that accepts and says nothing is not a connection.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};

/// Bytes of a path that fit into the kernel's address structure; one of its 108 ends the text.
pub const LONGEST_DIRECT_PATH: usize = 107;

/// Pause before another try when the queue of connections not yet accepted is full.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// What may be in flight from the driver before we read it, in bytes. Answers are small, so is the window.
const WINDOW: u32 = 64 * 1024;

/// Longest list of headers taken, in bytes. A status message travels in a header, up to three bytes for one.
const HEADERS: u32 = 512 * 1024;

/// Calls that may queue in one channel. A poll makes one at a time.
const CALLS: usize = 4;

/// Who is at the other end of the socket, as the kernel recorded it when the peer began to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process id; absent if the peer lives in a process namespace that cannot be seen from here.
    pub pid: Option<i32>,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// Why no connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFailure {
    /// No such file, or a part of the path is no directory.
    Missing,
    /// There is a socket, and nobody listens behind it.
    Refused,
    /// The file, or a directory on the way, is closed to us.
    Denied,
    /// The path names something that is no socket.
    NotASocket,
    /// A socket, but not a stream: datagram or seqpacket.
    WrongType,
    /// The queue of connections not yet accepted stayed full until the limit.
    Busy,
    /// Too many symbolic links on the way.
    Loop,
    /// Accepted, or queued by the kernel, and nothing was said until the limit.
    Silent,
    /// Accepted and closed before anything was said.
    Closed,
    /// What came back does not begin like HTTP/2: TLS, HTTP/1.1, or something else.
    NotHttp2,
    /// Anything else; the source has it.
    Other,
}

/// A socket that could not be connected to.
#[derive(Debug)]
pub struct ConnectError {
    socket: PathBuf,
    failure: ConnectFailure,
    source: Option<io::Error>,
}

impl ConnectError {
    fn new(socket: &Path, failure: ConnectFailure) -> Self {
        Self { socket: socket.to_owned(), failure, source: None }
    }

    pub(crate) fn from_io(socket: &Path, source: io::Error) -> Self {
        let failure = match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR) => ConnectFailure::Missing,
            // A regular file answers like a socket without a listener.
            Some(Errno::CONNREFUSED) if !is_socket(socket) => ConnectFailure::NotASocket,
            Some(Errno::CONNREFUSED) => ConnectFailure::Refused,
            Some(Errno::ACCESS | Errno::PERM) => ConnectFailure::Denied,
            Some(Errno::NOTSOCK) => ConnectFailure::NotASocket,
            Some(Errno::PROTOTYPE) => ConnectFailure::WrongType,
            Some(Errno::AGAIN) => ConnectFailure::Busy,
            Some(Errno::LOOP) => ConnectFailure::Loop,
            Some(Errno::CONNRESET | Errno::PIPE) => ConnectFailure::Closed,
            _ => ConnectFailure::Other,
        };
        Self { socket: socket.to_owned(), failure, source: Some(source) }
    }

    /// What went wrong.
    pub fn failure(&self) -> ConnectFailure {
        self.failure
    }

    /// The path that was dialled.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The system's error, if it was the system that refused.
    pub fn system_error(&self) -> Option<&io::Error> {
        self.source.as_ref()
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = self.socket.display();
        match self.failure {
            ConnectFailure::Silent => write!(f, "`{socket}` accepted the connection and said nothing"),
            ConnectFailure::Closed => write!(f, "`{socket}` accepted the connection and closed it at once"),
            ConnectFailure::NotHttp2 => write!(f, "what answers at `{socket}` does not speak HTTP/2"),
            ConnectFailure::NotASocket => write!(f, "`{socket}` is not a socket"),
            ConnectFailure::WrongType => write!(f, "`{socket}` is a socket, but not a stream"),
            ConnectFailure::Busy => write!(f, "`{socket}` has a full queue and accepts nothing"),
            ConnectFailure::Missing
            | ConnectFailure::Refused
            | ConnectFailure::Denied
            | ConnectFailure::Loop
            | ConnectFailure::Other => write!(f, "cannot connect to `{socket}`"),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

/// An open connection: the channel for calls, and the link that knows when it is over.
#[derive(Debug)]
pub struct Connected {
    /// Takes calls; fails them all once the connection has ended.
    pub channel: Channel,
    /// Tells of the end.
    pub link: Link,
}

/// What is known of one connection from outside; cheap to clone.
#[derive(Debug, Clone)]
pub struct Link {
    peer: Peer,
    state: watch::Receiver<State>,
}

impl Link {
    /// The process at the other end.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Whether the connection is over, whoever ended it.
    pub fn has_ended(&self) -> bool {
        self.state.borrow().is_over() || self.state.has_changed().is_err()
    }

    /// Returns once the connection is over; at once if it already is.
    pub async fn ended(&self) {
        // hyper drops the stream, and the sender with it, without reading its end after the peer said goodbye (GOAWAY)
        // or broke the protocol: an error here is an end too.
        let _ = self.state.clone().wait_for(|state| state.is_over()).await;
    }
}

/// Opens a connection to `socket`; all of it, the peer's first words included, within `limit`.
///
/// # Errors
///
/// Says which of the many ways to fail it was; nothing is left open then.
pub async fn connect(socket: &Path, limit: Duration) -> Result<Connected, ConnectError> {
    // What to say if the limit ends it, depends on how far we came.
    let mut so_far = ConnectFailure::Busy;
    match timeout(limit, connect_unlimited(socket, &mut so_far)).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(ConnectError::new(socket, so_far)),
    }
}

async fn connect_unlimited(socket: &Path, so_far: &mut ConnectFailure) -> Result<Connected, ConnectError> {
    let stream = dial(socket).await?;
    *so_far = ConnectFailure::Silent;
    let peer = stream.peer_cred().map_err(|error| ConnectError::from_io(socket, error))?;
    let peer = Peer { pid: peer.pid(), uid: peer.uid(), gid: peer.gid() };
    let (announce, mut state) = watch::channel(State::Silent);
    let link = Link { peer, state: state.clone() };

    let mut once = Some(TokioIo::new(Watched { stream, opening: Opening::default(), announce }));
    let connector = tower::service_fn(move |_| {
        let stream = once.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(stream)
    });
    // Strict servers, those on Node.js first of all, reset streams whose authority is empty or a path.
    let channel = Endpoint::from_static("http://localhost")
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_max_header_list_size(HEADERS)
        .buffer_size(CALLS)
        .connect_with_connector(connector)
        .await
        .map_err(|error| ConnectError {
            socket: socket.to_owned(),
            failure: ConnectFailure::Closed,
            source: Some(io::Error::other(error)),
        })?;

    let verdict = match state.wait_for(|state| *state != State::Silent).await {
        Ok(state) => *state,
        Err(_stream_gone) => State::Over(Opening::Nothing),
    };
    match verdict {
        State::Speaking => Ok(Connected { channel, link }),
        State::Over(Opening::Foreign) => Err(ConnectError::new(socket, ConnectFailure::NotHttp2)),
        State::Silent | State::Over(_) => Err(ConnectError::new(socket, ConnectFailure::Closed)),
    }
}

/// Connects the stream, and waits while the peer's queue is full.
async fn dial(socket: &Path) -> Result<UnixStream, ConnectError> {
    let reach = Reach::new(socket).map_err(|error| ConnectError::from_io(socket, error))?;
    loop {
        match UnixStream::connect(&reach.path).await {
            Ok(stream) => return Ok(stream),
            // The kernel has no event for "the queue has room again".
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(BUSY_PAUSE).await,
            Err(error) => return Err(ConnectError::from_io(socket, reach.explain(error))),
        }
    }
}

fn is_socket(path: &Path) -> bool {
    // Unreadable: believe the system, which said "refused".
    std::fs::metadata(path).map_or(true, |metadata| metadata.file_type().is_socket())
}

/// A path that the kernel accepts for a socket, however long the original was.
pub(crate) struct Reach {
    path: PathBuf,
    /// Set for long paths, and to be kept until the dial is over: the path goes through this descriptor.
    directory: Option<OwnedFd>,
}

impl Reach {
    pub(crate) fn new(socket: &Path) -> io::Result<Self> {
        if socket.as_os_str().len() <= LONGEST_DIRECT_PATH {
            return Ok(Self { path: socket.to_owned(), directory: None });
        }
        let parent = socket.parent().ok_or_else(|| io::Error::from(Errno::NOENT))?;
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let name = socket.file_name().ok_or_else(|| io::Error::from(Errno::NOENT))?;
        let directory = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        if path.as_os_str().len() > LONGEST_DIRECT_PATH {
            return Err(Errno::NAMETOOLONG.into());
        }
        Ok(Self { path, directory: Some(directory) })
    }

    /// What to hand to the kernel, as long as this value lives.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Without a mounted `/proc` a long path looks missing although the file is there.
    fn explain(&self, error: io::Error) -> io::Error {
        let Some(directory) = &self.directory else { return error };
        let name = self.path.file_name().unwrap_or(OsStr::from_bytes(b"."));
        let is_there = rustix::fs::statat(directory, name, AtFlags::empty()).is_ok();
        if error.kind() == io::ErrorKind::NotFound && is_there {
            return io::Error::other("a path this long is reached through `/proc`, which is not mounted");
        }
        error
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Silent,
    Speaking,
    Over(Opening),
}

impl State {
    fn is_over(self) -> bool {
        matches!(self, Self::Over(_))
    }
}

/// What the first bytes of the peer were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Opening {
    /// None yet.
    #[default]
    Nothing,
    /// So many bytes of a frame header, all as they should be.
    Partial(usize),
    /// The header of a settings frame.
    Settings,
    /// Something else.
    Foreign,
}

impl Opening {
    /// Length of an HTTP/2 frame header: 3 bytes length, 1 type, 1 flags, 4 stream.
    const HEADER: usize = 9;

    /// Reads on in the frame header; the server's first frame must be SETTINGS on stream 0 (RFC 9113, section 3.4).
    fn read(self, bytes: &[u8]) -> Self {
        let mut position = match self {
            Self::Nothing => 0,
            Self::Partial(read) => read,
            Self::Settings | Self::Foreign => return self,
        };
        for byte in bytes {
            let fits = match position {
                3 => *byte == 4,
                5..Self::HEADER => *byte == 0,
                _ => true,
            };
            if !fits {
                return Self::Foreign;
            }
            position += 1;
            if position == Self::HEADER {
                return Self::Settings;
            }
        }
        if position == 0 { Self::Nothing } else { Self::Partial(position) }
    }
}

/// The stream, which tells of its first bytes and of its end.
struct Watched {
    stream: UnixStream,
    opening: Opening,
    announce: watch::Sender<State>,
}

impl Watched {
    fn heard(&mut self, bytes: &[u8]) {
        let before = self.opening;
        self.opening = before.read(bytes);
        match self.opening {
            Opening::Settings if before != Opening::Settings => {
                self.announce.send_replace(State::Speaking);
            }
            Opening::Foreign => self.over(),
            _ => {}
        }
    }

    fn over(&self) {
        let opening = self.opening;
        self.announce.send_if_modified(|state| {
            let news = !state.is_over();
            *state = State::Over(opening);
            news
        });
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let had_room = buffer.remaining() > 0;
        let outcome = Pin::new(&mut this.stream).poll_read(context, buffer);
        match &outcome {
            Poll::Ready(Ok(())) => match &buffer.filled()[before..] {
                [] if had_room => this.over(),
                [] => {}
                bytes => this.heard(bytes),
            },
            Poll::Ready(Err(_)) => this.over(),
            Poll::Pending => {}
        }
        outcome
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::Opening;

    #[test]
    fn a_settings_frame_is_recognised_in_one_piece_or_in_many() {
        let header = [0, 0, 18, 4, 0, 0, 0, 0, 0, 99, 99];
        assert_eq!(Opening::Nothing.read(&header), Opening::Settings);
        let in_pieces = header.iter().fold(Opening::Nothing, |opening, byte| opening.read(&[*byte]));
        assert_eq!(in_pieces, Opening::Settings);
    }

    #[test]
    fn what_is_not_a_settings_frame_is_foreign() {
        let a_tls_alert = [0x15, 3, 1, 0, 2, 2, 70];
        let a_ping_on_stream_zero = [0, 0, 8, 6, 0, 0, 0, 0, 0];
        let settings_on_a_stream = [0, 0, 0, 4, 0, 0, 0, 0, 1];
        for bytes in [&b"HTTP/1.1 400 Bad Request"[..], &a_tls_alert, &a_ping_on_stream_zero, &settings_on_a_stream] {
            assert_eq!(Opening::Nothing.read(bytes), Opening::Foreign, "{bytes:?}");
        }
        assert_eq!(Opening::Nothing.read(&[]), Opening::Nothing);
    }
}
