//! Where the keys of identities come from: a file, which is read with the others, or an address, which is asked again and
//! again. One that does not answer, or answers something else, leaves the last keys in force.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

/// From one question to the next; Nomad asks for no less than a quarter of an hour between them, but a key that is new has
/// to be known before it is used.
pub(super) const EVERY: Duration = Duration::from_secs(300);
/// The same after a failure.
pub(super) const AGAIN: Duration = Duration::from_secs(10);
/// Least time between two, however many strangers show tokens of keys that are not known.
pub(super) const LEAST: Duration = Duration::from_secs(2);
/// How long an answer may take, from dialling to its end.
const LIMIT: Duration = Duration::from_secs(10);
/// Largest set of keys, in bytes.
pub(super) const LARGEST: usize = 1 << 20;

/// Where a set of keys is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// At `http://HOST[:PORT]/PATH`.
    Address(String),
}

impl KeySource {
    /// An address if it looks like one, else a file.
    #[must_use]
    pub fn of(text: &str) -> Self {
        if text.contains("://") { Self::Address(text.to_owned()) } else { Self::File(PathBuf::from(text)) }
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The address is none.
    #[error("the address is not http://HOST:PORT/PATH")]
    Address,
    /// Nobody listens there.
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    /// It is not HTTP that is spoken there.
    #[error("cannot ask")]
    Exchange(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An answer that is none.
    #[error("the answer is {0}")]
    Status(hyper::StatusCode),
    /// No answer in time.
    #[error("no answer within {} s", LIMIT.as_secs())]
    Timeout,
}

/// Asks an address once. TLS would wrap the stream here.
pub(super) async fn fetch(address: &str) -> Result<Bytes, FetchError> {
    tokio::time::timeout(LIMIT, exchange(address)).await.unwrap_or(Err(FetchError::Timeout))
}

async fn exchange(address: &str) -> Result<Bytes, FetchError> {
    let rest = address.strip_prefix("http://").ok_or(FetchError::Address)?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    // The last colon of `[::1]` is none of a port.
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let dial = if has_port { host.to_owned() } else { format!("{host}:80") };
    let failed = |error: hyper::Error| FetchError::Exchange(error.into());
    let stream = TcpStream::connect(dial).await.map_err(FetchError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let driving = tokio::spawn(connection);
    let request = Request::get(path).header("Host", host).body(Empty::<Bytes>::new());
    let answered = async {
        let request = request.map_err(|error| FetchError::Exchange(error.into()))?;
        let response = sender.send_request(request).await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(FetchError::Exchange)?;
        Ok(body.to_bytes())
    };
    let answer = answered.await;
    driving.abort();
    answer
}
