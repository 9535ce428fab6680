//! Our own life, never a driver's: an orchestrator that asks here restarts us, and that would cure no driver.

use axum::http::{Response, StatusCode};

use super::content::Content;
use super::error::text_response;
use crate::registry::reader::{Durability, Reader};

/// The process answers.
pub(super) fn live() -> Response<Content> {
    text_response(StatusCode::OK, "ok")
}

/// Whether what is served was seen by this process. Troubles after that are told, and do not make it unready.
pub(super) fn ready(reader: &Reader) -> Response<Content> {
    let standing = reader.standing();
    if !standing.is_scanned {
        return text_response(StatusCode::INTERNAL_SERVER_ERROR, "the first scan is not complete");
    }
    match standing.durability {
        Durability::Memory | Durability::Durable => text_response(StatusCode::OK, "ok"),
        Durability::NotDurable(reason) => text_response(StatusCode::OK, format!("ok\nnot durable: {reason}")),
    }
}
