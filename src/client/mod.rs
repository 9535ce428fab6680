//! HTTP as a client: over TCP, TLS or a unix socket, by the address's scheme.
//!
//! [`Client`] knows whom to ask and how to know him; a [`Connection`] is one conversation with him, for one request or for
//! many, one after the other. No pool and no retry: who asks knows when to ask again. Certificates are read for each
//! connection, so new files count from the next one on.

mod error;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::http::request::Builder;
use hyper::{HeaderMap, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::domain::trust::Trust;
use crate::tls::{Stream, trust};

pub use error::HttpError;

/// Longest answer that is read: more than a list of a hundred thousand plugins.
const LONGEST: usize = 64 << 20;

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The index that came with it.
    #[must_use]
    pub fn index(&self) -> Option<u64> {
        self.headers.get("X-Nomad-Index")?.to_str().ok()?.parse().ok()
    }

    /// Whether what was seen before a start is not shown as what is (`X-Nomad-KnownLeader`).
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.headers.get("X-Nomad-KnownLeader").is_none_or(|value| value == "true")
    }
}

/// Whom to ask.
#[derive(Debug, Clone)]
pub struct Client {
    address: String,
    target: Target,
    trust: Trust,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Unix(PathBuf),
    /// `HOST:PORT` to dial, and the host as it was given for the `Host` header.
    Tcp {
        dial: String,
        host: String,
        is_tls: bool,
    },
}

impl Client {
    /// Asks at `http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:///PATH`; `trust` counts for the second.
    ///
    /// # Errors
    /// The address is none. Nothing is read or dialled yet.
    pub fn new(address: &str, trust: Trust) -> Result<Self, HttpError> {
        let target = target(address).ok_or_else(|| HttpError::Address { address: address.to_owned() })?;
        Ok(Self { address: address.to_owned(), target, trust })
    }

    /// As it was given.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Begins a conversation.
    ///
    /// # Errors
    /// Nobody listens, or he is not who he should be, or does not know who we are.
    pub async fn connect(&self) -> Result<Connection, HttpError> {
        let refused = |source| HttpError::Connect { address: self.address.clone(), source };
        let (stream, host) = match &self.target {
            Target::Unix(path) => (Stream::Unix(UnixStream::connect(path).await.map_err(refused)?), "localhost"),
            Target::Tcp { dial, host, is_tls } => {
                let stream = TcpStream::connect(dial).await.map_err(refused)?;
                // A request is one write; where this fails, it may wait for an acknowledgement.
                let _ = stream.set_nodelay(true);
                let stream = if *is_tls { self.shake_hands(stream, dial).await? } else { Stream::Tcp(stream) };
                (stream, host.as_str())
            }
        };
        Connection::over(stream, &self.address, host).await
    }

    async fn shake_hands(&self, stream: TcpStream, dial: &str) -> Result<Stream, HttpError> {
        let unusable = |source| HttpError::Trust { address: self.address.clone(), source };
        let host = dial.rsplit_once(':').map_or(dial, |(host, _)| host);
        let name = trust::server_name(host, &self.trust).map_err(unusable)?;
        let settings = self.trust.clone();
        // Hundreds of the system's certificates may be read here.
        let config = tokio::task::spawn_blocking(move || trust::configuration(&settings)).await;
        let config = config.map_err(|error| HttpError::exchange(&self.address, error))?.map_err(unusable)?;
        let connected = TlsConnector::from(config).connect(name, stream).await;
        let stream = connected.map_err(|source| HttpError::Handshake { address: self.address.clone(), source })?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    /// One request on a connection of its own, within `limit` from dialling to the last byte.
    ///
    /// # Errors
    /// There is no whole answer in time.
    pub async fn ask(&self, request: Builder, body: Bytes, limit: Duration) -> Result<Answer, HttpError> {
        let asking = async { self.connect().await?.ask(request, body).await };
        let late = || HttpError::Timeout { address: self.address.clone(), limit };
        tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| Err(late()))
    }
}

/// A conversation. It ends when this is dropped.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// What carries it; `None` once its end was heard of.
    driving: Option<JoinHandle<Result<(), hyper::Error>>>,
    address: String,
    host: String,
}

impl Connection {
    async fn over(stream: Stream, address: &str, host: &str) -> Result<Self, HttpError> {
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| HttpError::exchange(address, error))?;
        let driving = Some(tokio::spawn(connection));
        Ok(Self { sender, driving, address: address.to_owned(), host: host.to_owned() })
    }

    /// Whether the other side has ended it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request whose URI is a path; the answer's body is read by whoever wants it, and before the next request.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn send(&mut self, request: Builder, body: Bytes) -> Result<Response<Incoming>, HttpError> {
        let request = request.header("Host", &self.host).body(Full::new(body));
        let request = request.map_err(|error| HttpError::exchange(&self.address, error))?;
        let sent = match self.sender.ready().await {
            Ok(()) => self.sender.send_request(request).await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(response) => Ok(response),
            Err(error) => {
                let reason = self.why(error).await;
                Err(HttpError::exchange(&self.address, reason))
            }
        }
    }

    /// What ended the connection, where a request only hears that it has ended: a server that does not accept our
    /// certificate may say so before the request is sent.
    async fn why(&mut self, error: hyper::Error) -> hyper::Error {
        match self.driving.take() {
            Some(driving) if error.is_closed() || error.is_canceled() => match driving.await {
                Ok(Err(reason)) => reason,
                Ok(Ok(())) | Err(_) => error,
            },
            _ => error,
        }
    }

    /// The same, and reads the answer.
    ///
    /// # Errors
    /// There is no whole answer, or it is longer than 64 MiB.
    pub async fn ask(&mut self, request: Builder, body: Bytes) -> Result<Answer, HttpError> {
        let (parts, body) = self.send(request, body).await?.into_parts();
        let body = Limited::new(body, LONGEST).collect().await;
        let body = body.map_err(|error| HttpError::Exchange { address: self.address.clone(), source: error })?;
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(driving) = &self.driving {
            driving.abort();
        }
    }
}

fn target(address: &str) -> Option<Target> {
    if let Some(path) = address.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return (!path.is_empty()).then(|| Target::Unix(PathBuf::from(path)));
    }
    let (rest, is_tls) = match address.strip_prefix("http://") {
        Some(rest) => (rest, false),
        None => (address.strip_prefix("https://")?, true),
    };
    let host = rest.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '@', '?', '#']) {
        return None;
    }
    // The last colon of `[::1]` is none of a port.
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let dial = if has_port { host.to_owned() } else { format!("{host}:{}", if is_tls { 443 } else { 80 }) };
    Some(Target::Tcp { dial, host: host.to_owned(), is_tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_how_to_get_there() {
        let tcp = |dial: &str, host: &str, is_tls| Some(Target::Tcp { dial: dial.into(), host: host.into(), is_tls });
        assert_eq!(target("http://127.0.0.1:4649/"), tcp("127.0.0.1:4649", "127.0.0.1:4649", false));
        assert_eq!(target("https://nomad.example.com"), tcp("nomad.example.com:443", "nomad.example.com", true));
        assert_eq!(target("https://[::1]:4646"), tcp("[::1]:4646", "[::1]:4646", true));
        assert_eq!(target("http://[::1]"), tcp("[::1]:80", "[::1]", false));
        assert_eq!(target("unix:///run/x.sock"), Some(Target::Unix("/run/x.sock".into())));
        assert_eq!(target("unix:/run/x.sock"), Some(Target::Unix("/run/x.sock".into())));
        for address in ["", "127.0.0.1:1", "ftp://x", "http://", "https:///", "http://a/b", "http://me:pw@a", "unix:"] {
            assert_eq!(target(address), None, "{address}");
        }
    }
}
