//! One request, over TCP or a unix socket.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::http::request::Builder;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, CONTROLS};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{Asking, Token};
use crate::domain::text::escaped;

/// How long to wait for an answer.
const LIMIT: Duration = Duration::from_secs(30);
/// Longest answer that is read: more than a list of a hundred thousand plugins.
const LONGEST: usize = 64 << 20;

/// What a query value and a path segment must not contain as it is.
pub const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b'/')
    .add(b';')
    .add(b'<')
    .add(b'>')
    .add(b'?');

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The address is none.
    #[error("`{address}` is no address: http://HOST:PORT or unix:///PATH")]
    Address {
        /// As it was given.
        address: String,
    },
    /// Nobody listens there.
    #[error("cannot connect to `{address}`; is a gateway running there?")]
    Connect {
        /// As it was given.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Whoever listens there speaks no HTTP.
    #[error("cannot ask `{address}`")]
    Exchange {
        /// As it was given.
        address: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("no answer from `{address}` within {} s", LIMIT.as_secs())]
    Timeout {
        /// As it was given.
        address: String,
    },
}

/// An answer.
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

/// Asks for `path` (with its query, escaped) at `address`, as nobody in particular.
///
/// # Errors
/// [`HttpError`] names the address and what is in the way.
pub async fn get(address: &str, path: &str) -> Result<Answer, HttpError> {
    within(address, None, path, Method::GET).await
}

/// Asks for `path` (with its query, escaped).
///
/// # Errors
/// As [`get`].
pub async fn ask(asking: &Asking, path: &str) -> Result<Answer, HttpError> {
    within(&asking.address, asking.token.as_ref(), path, Method::GET).await
}

/// The same, and asks for it to be deleted.
///
/// # Errors
/// As [`get`].
pub async fn delete(asking: &Asking, path: &str) -> Result<Answer, HttpError> {
    within(&asking.address, asking.token.as_ref(), path, Method::DELETE).await
}

/// An answer's JSON.
///
/// # Errors
/// The answer is an error, or something else than what was asked for.
pub fn json<'a, T: serde::Deserialize<'a>>(address: &str, answer: &'a Answer) -> Result<T, AnswerError> {
    if answer.status != StatusCode::OK {
        let body = escaped(answer.text().trim()).into_owned();
        return Err(AnswerError::Refused { address: address.to_owned(), status: answer.status, body });
    }
    serde_json::from_slice(&answer.body).map_err(|source| AnswerError::Shape { address: address.to_owned(), source })
}

/// Why an answer is of no use.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// It is an error.
    #[error("`{address}` answers {status}: {body}")]
    Refused {
        /// Who was asked.
        address: String,
        /// Its status.
        status: StatusCode,
        /// Its text.
        body: String,
    },
    /// It is none of the shapes that were asked for.
    #[error("`{address}` answers something else than plugins")]
    Shape {
        /// Who was asked.
        address: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

async fn within(address: &str, token: Option<&Token>, path: &str, method: Method) -> Result<Answer, HttpError> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("X-Nomad-Token", token.secret());
    }
    tokio::time::timeout(LIMIT, exchange(address, request))
        .await
        .unwrap_or_else(|_| Err(HttpError::Timeout { address: address.to_owned() }))
}

/// TLS of the client side would wrap the stream here, by the address's scheme.
async fn exchange(address: &str, request: Builder) -> Result<Answer, HttpError> {
    let connect = |source| HttpError::Connect { address: address.to_owned(), source };
    if let Some(socket) = address.strip_prefix("unix:") {
        let socket = Path::new(socket.strip_prefix("//").unwrap_or(socket));
        let stream = UnixStream::connect(socket).await.map_err(connect)?;
        return converse(stream, address, "localhost", request).await;
    }
    let Some(host) = address.strip_prefix("http://").map(|rest| rest.trim_end_matches('/')).filter(|h| !h.is_empty())
    else {
        return Err(HttpError::Address { address: address.to_owned() });
    };
    let stream = TcpStream::connect(host).await.map_err(connect)?;
    converse(stream, address, host, request).await
}

async fn converse<S>(stream: S, address: &str, host: &str, request: Builder) -> Result<Answer, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |source| HttpError::Exchange { address: address.to_owned(), source };
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.into()))?;
    let driving = tokio::spawn(connection);
    let request = request.header("Host", host).body(Empty::<Bytes>::new()).map_err(|error| failed(error.into()))?;
    let response = sender.send_request(request).await.map_err(|error| failed(error.into()))?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, LONGEST).collect().await.map_err(failed)?.to_bytes();
    driving.abort();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}
