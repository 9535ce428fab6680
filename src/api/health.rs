//! Our own life, never a driver's: an orchestrator that asks here restarts us, and that would cure no driver.

use axum::http::{Response, StatusCode};

use super::State;
use super::content::Content;
use super::error::text_response;
use crate::domain::fleet::FleetStanding;
use crate::registry::allocations::Allocations;
use crate::registry::reader::Durability;

/// The process answers.
pub(super) fn live() -> Response<Content> {
    text_response(StatusCode::OK, "ok")
}

/// Whether what is served was seen by this process. Troubles after that are told, and do not make it unready.
pub(super) fn ready(state: &State) -> Response<Content> {
    let standing = state.reader.standing();
    let fleet = state.fleet.as_ref().map(|fleet| fleet.borrow().clone());
    if !standing.is_scanned {
        let text = match fleet.filter(|_| state.reader.is_follower()) {
            None => "the first scan is not complete".to_owned(),
            Some(FleetStanding { trouble: Some(trouble), .. }) => {
                format!("the fleet was not read yet: {}", trouble.text)
            }
            Some(_) => "the fleet was not read yet".to_owned(),
        };
        return text_response(StatusCode::INTERNAL_SERVER_ERROR, text);
    }
    let mut text = String::from("ok");
    if let Durability::NotDurable(reason) = standing.durability {
        text.push_str(&format!("\nnot durable: {reason}"));
    }
    if let Some(FleetStanding { trouble: Some(trouble), waiting, .. }) = fleet {
        text.push_str(&format!("\nfleet: {}", trouble.text));
        if waiting > 0 {
            text.push_str(&format!("; {waiting} changes wait for it"));
        }
    }
    if let Some(trouble) = state.tls.as_ref().and_then(|tls| tls.standing().trouble) {
        text.push_str(&format!("\nTLS: {trouble}"));
    }
    let orchestrator = state.allocations.as_ref().and_then(Allocations::orchestrator);
    if let Some(trouble) = orchestrator.and_then(|asked| asked.trouble()) {
        text.push_str(&format!("\nNomad: {trouble}"));
    }
    text_response(StatusCode::OK, text)
}
