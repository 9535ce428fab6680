//! One request of a command, and what its answer has to be.

use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, Request, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS};
use thiserror::Error;

use crate::client::Client;
pub use crate::client::{Answer, HttpError};
use crate::config::{Asking, Token};
use crate::domain::text::escaped;
use crate::domain::trust::Trust;

/// How long to wait for an answer.
const LIMIT: Duration = Duration::from_secs(30);

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

/// Asks for `path` (with its query, escaped) at `address`, as nobody in particular.
///
/// # Errors
/// [`HttpError`] names the address and what is in the way.
pub async fn get(address: &str, path: &str) -> Result<Answer, HttpError> {
    within(address, None, &Trust::default(), path, Method::GET).await
}

/// Asks for `path` (with its query, escaped).
///
/// # Errors
/// As [`get`].
pub async fn ask(asking: &Asking, path: &str) -> Result<Answer, HttpError> {
    within(&asking.address, asking.token.as_ref(), &asking.trust, path, Method::GET).await
}

/// The same, and asks for it to be deleted.
///
/// # Errors
/// As [`get`].
pub async fn delete(asking: &Asking, path: &str) -> Result<Answer, HttpError> {
    within(&asking.address, asking.token.as_ref(), &asking.trust, path, Method::DELETE).await
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

async fn within(
    address: &str,
    token: Option<&Token>,
    trust: &Trust,
    path: &str,
    method: Method,
) -> Result<Answer, HttpError> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("X-Nomad-Token", token.secret());
    }
    Client::new(address, trust.clone())?.ask(request, Bytes::new(), LIMIT).await
}
