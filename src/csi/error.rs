//! A call that brought no usable answer: which call, at which socket, and whose fault it looks like.
//!
//! Three readers, three texts. `go_text` is what Nomad's client would have written, for the fields and tools that know
//! Nomad's words; `for_people` says the same plainly and with a remedy; `Display` and `source` are for logs.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use thiserror::Error;

use super::rpc::Rpc;
use crate::domain::code::Code;
use crate::domain::text::{DESCRIPTION_LIMIT, bounded};
use crate::transport::connector::{ConnectError, ConnectFailure};
use crate::transport::denied;

/// A call without a usable answer.
#[derive(Debug, Error)]
#[error("{} at `{}`", Doing(*.rpc), .socket.display())]
pub struct CallError {
    rpc: Option<Rpc>,
    socket: Arc<Path>,
    #[source]
    cause: Cause,
}

/// What went wrong.
#[derive(Debug, Error)]
pub(super) enum Cause {
    /// There was no connection to call over.
    #[error("there is no connection")]
    Connect(#[source] ConnectError),
    /// Our own timer ended the call.
    #[error("no answer within {}", Plain(*.0))]
    Deadline(Duration),
    /// The connection ended, and no status had come.
    #[error("the connection broke")]
    Broken(#[source] tonic::Status),
    /// The peer answered with an error, or with bytes that make no answer.
    #[error("{code}: {message}")]
    Status {
        /// The peer's code, or the one that says how its bytes are wrong.
        code: Code,
        /// Verbatim, unbounded.
        message: String,
    },
    /// `GetPluginInfo` answered without a name.
    #[error("the driver gives itself no name")]
    NoName,
    /// `NodeGetInfo` answered without a node id.
    #[error("the driver gives the node no id")]
    NoNodeId,
}

struct Doing(Option<Rpc>);

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(rpc) => write!(f, "`{rpc}` failed"),
            None => f.write_str("cannot connect to the driver"),
        }
    }
}

/// A duration as people write one.
struct Plain(Duration);

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.subsec_millis() == 0 {
            write!(f, "{} s", self.0.as_secs())
        } else {
            write!(f, "{} ms", self.0.as_millis())
        }
    }
}

impl CallError {
    pub(super) fn new(rpc: Option<Rpc>, socket: Arc<Path>, cause: Cause) -> Self {
        Self { rpc, socket, cause }
    }

    /// The call; `None` while connecting.
    #[must_use]
    pub fn rpc(&self) -> Option<Rpc> {
        self.rpc
    }

    /// The path that was dialled.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The peer's code, or the one that Go's client would have made of what happened. `Unknown` for an answer that was
    /// complete and useless, which in Go is no status at all.
    #[must_use]
    pub fn code(&self) -> Code {
        match &self.cause {
            Cause::Connect(error) if is_wait(error.failure()) => Code::DeadlineExceeded,
            Cause::Connect(_) | Cause::Broken(_) => Code::Unavailable,
            Cause::Deadline(_) => Code::DeadlineExceeded,
            Cause::Status { code, .. } => *code,
            Cause::NoName | Cause::NoNodeId => Code::Unknown,
        }
    }

    /// The peer says that it does not implement the call.
    #[must_use]
    pub fn is_unimplemented(&self) -> bool {
        matches!(self.cause, Cause::Status { code: Code::Unimplemented, .. })
    }

    /// A limit of ours passed, while connecting or while calling. What the peer sent never counts as one.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match &self.cause {
            Cause::Connect(error) => is_wait(error.failure()),
            Cause::Deadline(_) => true,
            Cause::Broken(_) | Cause::Status { .. } | Cause::NoName | Cause::NoNodeId => false,
        }
    }

    /// The connection broke or could not be opened, and no status came from the peer: worth one more dial. A limit that
    /// passed while connecting is not counted here, since a second wait would only double the delay.
    #[must_use]
    pub fn is_transport(&self) -> bool {
        match &self.cause {
            Cause::Connect(error) => !is_wait(error.failure()),
            Cause::Broken(_) => true,
            Cause::Deadline(_) | Cause::Status { .. } | Cause::NoName | Cause::NoNodeId => false,
        }
    }

    /// There is no socket file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.connect_failure() == Some(ConnectFailure::Missing)
    }

    /// There is a socket file, and nobody listens.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.connect_failure() == Some(ConnectFailure::Refused)
    }

    /// How connecting failed; `None` if a connection was there.
    #[must_use]
    pub fn connect_failure(&self) -> Option<ConnectFailure> {
        match &self.cause {
            Cause::Connect(error) => Some(error.failure()),
            _ => None,
        }
    }

    /// A whole look at a socket that came to no end within its limit.
    #[must_use]
    pub fn poll_timed_out(socket: &Path, limit: Duration) -> Self {
        Self { rpc: None, socket: socket.into(), cause: Cause::Deadline(limit) }
    }

    /// The error as Go prints it, which is what Nomad publishes. Raw: as long, and as odd, as what the peer sent.
    #[must_use]
    pub fn go_text(&self) -> String {
        let description = match &self.cause {
            Cause::NoName => return "PluginGetInfo: plugin returned empty name field".to_owned(),
            Cause::NoNodeId => return "plugin failed to return nodeid".to_owned(),
            Cause::Connect(error) => self.go_connect_text(error),
            Cause::Deadline(_) => "context deadline exceeded".to_owned(),
            Cause::Broken(_) => "error reading from server: EOF".to_owned(),
            Cause::Status { message, .. } => message.clone(),
        };
        format!("rpc error: code = {} desc = {description}", self.code())
    }

    fn go_connect_text(&self, error: &ConnectError) -> String {
        let reason = match error.failure() {
            ConnectFailure::Silent | ConnectFailure::Busy => return "context deadline exceeded".to_owned(),
            ConnectFailure::Closed => "error reading server preface: EOF".to_owned(),
            ConnectFailure::NotHttp2 => "error reading server preface: not HTTP/2".to_owned(),
            ConnectFailure::Missing
            | ConnectFailure::Refused
            | ConnectFailure::Denied
            | ConnectFailure::NotASocket
            | ConnectFailure::WrongType
            | ConnectFailure::Loop
            | ConnectFailure::Other => {
                let reason = error.system_error().map_or_else(|| "unknown error".to_owned(), go_errno);
                format!("transport: Error while dialing: dial unix {}: connect: {reason}", self.socket.display())
            }
        };
        format!("connection error: desc = {reason:?}")
    }

    /// What happened, in plain words and with what can be done about it. One line, bounded.
    #[must_use]
    pub fn for_people(&self) -> String {
        let call = self.rpc.map_or("the call", Rpc::name);
        let peer = if self.rpc == Some(Rpc::RegistrationInfo) { "the registrar" } else { "the driver" };
        let text = match &self.cause {
            Cause::Connect(error) => return self.connect_text(error),
            Cause::Deadline(limit) => {
                format!("{peer} did not answer {call} within {}: it hangs, or what it waits for does", Plain(*limit))
            }
            Cause::Broken(_) => format!("{peer} closed the connection before it answered {call}"),
            Cause::Status { code: Code::Unimplemented, message } => {
                format!("{peer} does not implement {call}: {message}")
            }
            Cause::Status { code, message } => format!("{call} failed with {code}: {message}"),
            Cause::NoName => {
                "PluginGetInfo: plugin returned empty name field: every driver must have a name; look into its \
                 configuration"
                    .to_owned()
            }
            Cause::NoNodeId => "the driver gives this node no id; look into its configuration".to_owned(),
        };
        bounded(&text, DESCRIPTION_LIMIT).into()
    }

    fn connect_text(&self, error: &ConnectError) -> String {
        let socket = self.socket.display();
        let text = match error.failure() {
            ConnectFailure::Missing => {
                format!("there is no socket `{socket}`: the driver has not started, or listens elsewhere")
            }
            ConnectFailure::Refused => {
                format!("connection refused at `{socket}`: the file is there, but no driver listens behind it")
            }
            ConnectFailure::Denied => denied::what_is_missing(&self.socket),
            ConnectFailure::NotASocket => format!("`{socket}` is not a socket"),
            ConnectFailure::WrongType => {
                format!("`{socket}` is not a stream socket: another kind of service listens there")
            }
            ConnectFailure::Busy => {
                format!("`{socket}` accepts no connections, its queue is full: the driver hangs or is stopped")
            }
            ConnectFailure::Loop => format!("too many symbolic links on the way to `{socket}`"),
            ConnectFailure::Silent => {
                format!("`{socket}` accepted the connection and said nothing: the driver hangs or is stopped")
            }
            ConnectFailure::Closed => {
                format!(
                    "`{socket}` accepted the connection and closed it at once: the driver is starting, stopping or broken"
                )
            }
            ConnectFailure::NotHttp2 => {
                format!("what answers at `{socket}` does not speak plain HTTP/2: it expects TLS, or is no driver")
            }
            ConnectFailure::Other => {
                let reason = error.system_error().map_or_else(|| "unknown error".to_owned(), go_errno);
                format!("cannot connect to `{socket}`: {reason}")
            }
        };
        bounded(&text, DESCRIPTION_LIMIT).into()
    }
}

/// Whether it was our limit that ended it. A stopped process is silent until its queue is full and busy from then on,
/// and must not look like a new kind of trouble then.
fn is_wait(failure: ConnectFailure) -> bool {
    matches!(failure, ConnectFailure::Silent | ConnectFailure::Busy)
}

/// The system's error in Go's words: those of the C library in lower case, without the number.
fn go_errno(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => "no such file or directory".to_owned(),
        Some(Errno::NOTDIR) => "not a directory".to_owned(),
        Some(Errno::CONNREFUSED) => "connection refused".to_owned(),
        Some(Errno::ACCESS) => "permission denied".to_owned(),
        Some(Errno::PERM) => "operation not permitted".to_owned(),
        Some(Errno::PROTOTYPE) => "protocol wrong type for socket".to_owned(),
        Some(Errno::LOOP) => "too many levels of symbolic links".to_owned(),
        Some(Errno::NAMETOOLONG) => "file name too long".to_owned(),
        _ => {
            let text = error.to_string();
            text.split(" (os error ").next().unwrap_or(&text).to_lowercase()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialled(errno: Errno) -> CallError {
        let socket: Arc<Path> = Path::new("/dev/null/csi.sock").into();
        let error = ConnectError::from_io(&socket, errno.into());
        CallError::new(None, socket, Cause::Connect(error))
    }

    /// Denial and a full queue need another user and luck with real sockets.
    #[test]
    fn what_the_system_says_becomes_gos_words() {
        for (errno, failure, words) in [
            (Errno::NOENT, ConnectFailure::Missing, "no such file or directory"),
            (Errno::NOTDIR, ConnectFailure::Missing, "not a directory"),
            (Errno::CONNREFUSED, ConnectFailure::Refused, "connection refused"),
            (Errno::ACCESS, ConnectFailure::Denied, "permission denied"),
            (Errno::PERM, ConnectFailure::Denied, "operation not permitted"),
            (Errno::PROTOTYPE, ConnectFailure::WrongType, "protocol wrong type for socket"),
            (Errno::LOOP, ConnectFailure::Loop, "too many levels of symbolic links"),
            (Errno::MFILE, ConnectFailure::Other, "too many open files"),
        ] {
            let error = dialled(errno);
            assert_eq!(error.connect_failure(), Some(failure));
            assert_eq!(
                error.go_text(),
                format!(
                    "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: \
                     dial unix /dev/null/csi.sock: connect: {words}\""
                ),
            );
            assert!(error.is_transport() && !error.is_timeout());
        }
        assert!(dialled(Errno::ACCESS).for_people().contains("search permission"));
        assert!(dialled(Errno::AGAIN).is_timeout());
    }
}
