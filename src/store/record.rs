//! Stored form: one byte that says which form, then JSON.
//!
//! Fields that a later release adds are ignored here, and fields that an earlier release did not write take their
//! defaults. Whatever cannot be read that way gets a new form number here or, if old releases must keep their hands off
//! the whole file, a new [`FORMAT`].

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::history::Transition;
use crate::domain::id::{InstanceKey, Role};
use crate::domain::plugin::Dates;
use crate::domain::record::Record;

/// Number of the file format. A file with a larger one is refused.
pub const FORMAT: u64 = 1;

/// Number of the form of one value.
const FORM: u8 = 1;

/// Why a value cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Empty, or of a form that this release does not know.
    #[error("a stored value has the unknown form {0:?}")]
    Form(Option<u8>),
    /// Not what was written.
    #[error("a stored value is not what was written")]
    Json(#[source] serde_json::Error),
}

/// A value that has a stored form.
pub trait Stored: Serialize + DeserializeOwned {
    /// The stored form.
    fn to_stored(&self) -> Vec<u8> {
        let mut bytes = vec![FORM];
        serde_json::to_writer(&mut bytes, self).expect("maps have text as keys, and a vector takes every write");
        bytes
    }

    /// Reads the stored form of this or an earlier release.
    ///
    /// # Errors
    /// [`Unreadable`] if it is neither.
    fn from_stored(bytes: &[u8]) -> Result<Self, Unreadable> {
        match bytes.split_first() {
            Some((&FORM, json)) => serde_json::from_slice(json).map_err(Unreadable::Json),
            other => Err(Unreadable::Form(other.map(|(form, _)| *form))),
        }
    }
}

impl Stored for Record {}
impl Stored for Dates {}
impl Stored for Transition {}

/// The parts of a key are told apart by a byte that no identifier may contain.
const SEPARATOR: char = '\0';

/// An instance as key of a table.
#[must_use]
pub fn instance_key(key: &InstanceKey) -> String {
    let role = match key.role {
        Role::Controller => "controller",
        Role::Node => "node",
    };
    format!("{}{SEPARATOR}{role}{SEPARATOR}{}", key.plugin, key.host)
}

/// First key of a plugin's instances, and the first one after them.
#[must_use]
pub fn plugin_keys(plugin: &str) -> (String, String) {
    (format!("{plugin}{SEPARATOR}"), format!("{plugin}\u{1}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::Phase;

    /// As release 0.1 wrote it, with a field of some later release.
    const WRITTEN: &str = r#"{"key":{"plugin":"ebs","role":"node","host":"host-aaaa"},"phase":"unhealthy",
        "reason":{"description":"failed fingerprinting with error: x","code":"Unavailable","later":1},
        "since":5,"update_time":6,"was_healthy":true,"has_answered":true,"verdict":"ok",
        "fingerprint":{"product":{"provider":"ebs.csi.aws.com","version":"1.2","controller":["LIST_VOLUMES",99]},
        "node":{"id":"i-1","max_volumes":9223372036854775807,"topology":{"segments":null}},"warnings":[]},
        "socket":"/run/csi.sock"}"#;

    fn written() -> Vec<u8> {
        [&[FORM], WRITTEN.as_bytes()].concat()
    }

    #[test]
    fn a_record_of_another_release_is_read_with_unknown_fields_ignored_and_new_ones_defaulted() {
        let record = Record::from_stored(&written()).expect("readable");
        assert_eq!(record.phase, Phase::Unhealthy);
        assert_eq!(&*record.reason.text, "");
        assert_eq!(&*record.owner.alloc_id, "");
        assert!(!record.is_configured);
        let node = record.fingerprint.as_ref().and_then(|f| f.node.as_ref()).expect("a node");
        assert_eq!(node.max_volumes, i64::MAX);
        assert_eq!(node.topology, Some(crate::domain::topology::Topology { segments: None }));
    }

    #[test]
    fn a_record_survives_its_stored_form() {
        let record = Record::from_stored(&written()).expect("readable");
        assert_eq!(Record::from_stored(&record.to_stored()).expect("just written"), record);
    }

    #[test]
    fn a_value_of_an_unknown_form_is_not_guessed_at() {
        assert!(matches!(Record::from_stored(b"\x02{}"), Err(Unreadable::Form(Some(2)))));
        assert!(matches!(Record::from_stored(b""), Err(Unreadable::Form(None))));
        assert!(matches!(Record::from_stored(b"\x01{}"), Err(Unreadable::Json(_))));
    }

    #[test]
    fn the_keys_of_a_plugin_leave_out_those_whose_id_only_begins_alike() {
        let (first, end) = plugin_keys("ebs");
        let within = |key: &str| first.as_str() <= key && key < end.as_str();
        assert!(within("ebs\0node\0host"));
        assert!(!within("ebs-2\0node\0host"));
        assert!(!within("eb\0node\0host"));
    }
}
