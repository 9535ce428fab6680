//! Where the keys of identities come from: a file, which is read with the others, or an address, which is asked again and
//! again. One that does not answer, or answers something else, leaves the last keys in force.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Request, StatusCode};
use thiserror::Error;

use crate::client::{Client, HttpError};
use crate::domain::trust::Trust;

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
    /// At `http://HOST[:PORT]/PATH`, or the same with `https`, by the authorities that the system trusts.
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
    /// Nobody answers.
    #[error("no answer")]
    Exchange(#[source] Box<HttpError>),
    /// An answer that is none.
    #[error("the answer is {0}")]
    Status(StatusCode),
    /// More than a set of keys can be.
    #[error("the answer is longer than {LARGEST} bytes")]
    TooLarge,
}

/// Asks an address once.
pub(super) async fn fetch(address: &str) -> Result<Bytes, FetchError> {
    let exchange = |error| FetchError::Exchange(Box::new(error));
    let host = address.find("://").map_or(0, |scheme| scheme + 3);
    let (server, path) = match address[host..].find('/') {
        Some(slash) => address.split_at(host + slash),
        None => (address, "/"),
    };
    let client = Client::new(server, Trust::default()).map_err(exchange)?;
    let answer = client.ask(Request::get(path), Bytes::new(), LIMIT).await.map_err(exchange)?;
    if !answer.status.is_success() {
        return Err(FetchError::Status(answer.status));
    }
    if answer.body.len() > LARGEST { Err(FetchError::TooLarge) } else { Ok(answer.body) }
}
