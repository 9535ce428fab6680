//! The three headers that tell a client how fresh an answer is.

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, HeaderValue};

use crate::domain::time::Index;
use crate::registry::reader::Reader;

const INDEX: HeaderName = HeaderName::from_static("x-nomad-index");
const KNOWN_LEADER: HeaderName = HeaderName::from_static("x-nomad-knownleader");
const LAST_CONTACT: HeaderName = HeaderName::from_static("x-nomad-lastcontact");

/// How fresh an answer is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    index: Index,
    is_leader_known: bool,
    last_contact_millis: u64,
}

impl Meta {
    /// The index of the answer, and the reader's contact as it is now.
    pub(super) fn new(reader: &Reader, index: Index) -> Self {
        let (is_leader_known, last_contact_millis) = reader.contact();
        Self { index, is_leader_known, last_contact_millis }
    }

    /// The index of an answer, and the reader's contact from before it was made.
    pub(super) fn of(index: Index, (is_leader_known, last_contact_millis): (bool, u64)) -> Self {
        Self { index, is_leader_known, last_contact_millis }
    }

    /// The same where the asker has seen more elsewhere than this shows: then this is not current, whoever says so.
    pub(super) fn behind(self, is_behind: bool) -> Self {
        Self { is_leader_known: self.is_leader_known && !is_behind, ..self }
    }

    /// The same for a body: index, whether the leader is known, milliseconds since the last contact.
    pub(super) fn facts(self) -> (u64, bool, u64) {
        (self.index.0, self.is_leader_known, self.last_contact_millis)
    }

    /// Adds the headers. hyper writes them with capitals, as Go does.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        headers.insert(INDEX, self.index.0.into());
        headers.insert(KNOWN_LEADER, HeaderValue::from_static(if self.is_leader_known { "true" } else { "false" }));
        // Nearly always; and it costs no allocation.
        let now = HeaderValue::from_static("0");
        let millis = self.last_contact_millis;
        headers.insert(LAST_CONTACT, if millis == 0 { now } else { millis.into() });
    }
}
