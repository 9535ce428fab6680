//! One GET, over TCP or a unix socket.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// How long to wait for an answer.
const LIMIT: Duration = Duration::from_secs(30);
/// Longest answer that is read: more than a list of a hundred thousand plugins.
const LONGEST: usize = 64 << 20;

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

/// Asks for `path` (with its query, escaped) at `address`.
///
/// # Errors
/// [`HttpError`] names the address and what is in the way.
pub async fn get(address: &str, path: &str) -> Result<Answer, HttpError> {
    tokio::time::timeout(LIMIT, exchange(address, path))
        .await
        .unwrap_or_else(|_| Err(HttpError::Timeout { address: address.to_owned() }))
}

async fn exchange(address: &str, path: &str) -> Result<Answer, HttpError> {
    let connect = |source| HttpError::Connect { address: address.to_owned(), source };
    if let Some(socket) = address.strip_prefix("unix:") {
        let socket = Path::new(socket.strip_prefix("//").unwrap_or(socket));
        let stream = UnixStream::connect(socket).await.map_err(connect)?;
        return ask(stream, address, "localhost", path).await;
    }
    let Some(host) = address.strip_prefix("http://").map(|rest| rest.trim_end_matches('/')).filter(|h| !h.is_empty())
    else {
        return Err(HttpError::Address { address: address.to_owned() });
    };
    let stream = TcpStream::connect(host).await.map_err(connect)?;
    ask(stream, address, host, path).await
}

async fn ask<S>(stream: S, address: &str, host: &str, path: &str) -> Result<Answer, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |source| HttpError::Exchange { address: address.to_owned(), source };
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.into()))?;
    let driving = tokio::spawn(connection);
    let request =
        Request::get(path).header("Host", host).body(Empty::<Bytes>::new()).map_err(|error| failed(error.into()))?;
    let response = sender.send_request(request).await.map_err(|error| failed(error.into()))?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, LONGEST).collect().await.map_err(failed)?.to_bytes();
    driving.abort();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}
