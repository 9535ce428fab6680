//! Identifiers, parsed once and then trusted.
//!
//! All of them are shared text: one hundred thousand records name a few hundred hosts and plugins.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest plugin id, in bytes. CSI bounds any string field by the same number.
pub const PLUGIN_ID_LIMIT: usize = 128;
/// Longest host id, in bytes: the longest hostname Linux allows is 64, a Kubernetes node name 253.
pub const HOST_ID_LIMIT: usize = 253;

/// Why a text cannot be an identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidId {
    /// Nothing there.
    Empty,
    /// Longer than `limit` bytes.
    TooLong {
        /// Bytes allowed.
        limit: usize,
    },
    /// Contains a character that would not survive a URL path or a log line.
    Forbidden(char),
    /// Begins with a dot.
    LeadingDot,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("must not be empty"),
            Self::TooLong { limit } => write!(f, "must have at most {limit} bytes"),
            Self::Forbidden(character) => {
                write!(f, "must not contain `{}`", character.escape_default())
            }
            Self::LeadingDot => f.write_str("must not begin with a dot"),
        }
    }
}

impl std::error::Error for InvalidId {}

fn check(text: &str, limit: usize, forbidden: &[char]) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty);
    }
    if text.len() > limit {
        return Err(InvalidId::TooLong { limit });
    }
    if text.starts_with('.') {
        return Err(InvalidId::LeadingDot);
    }
    match text.chars().find(|c| c.is_control() || forbidden.contains(c)) {
        Some(character) => Err(InvalidId::Forbidden(character)),
        None => Ok(()),
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $limit:expr, $forbidden:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text and keeps it as it is.
            ///
            /// # Errors
            /// [`InvalidId`] names what is wrong.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                check(text, $limit, $forbidden)?;
                Ok(Self(text.into()))
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }
    };
}

identifier!(
    /// The id users see: an operator's choice, else the provider's name. One path segment of Nomad's HTTP API, hence
    /// what it must not contain. Compared byte for byte.
    PluginId, PLUGIN_ID_LIMIT, &['/', '?', '#', '%']
);
identifier!(
    /// The machine: Nomad's client node, Kubernetes' node. Not what `NodeGetInfo` answers.
    HostId, HOST_ID_LIMIT, &['/', '?', '#', '%', ' ']
);

/// What one instance does. A plugin that does both on one host ("monolith" in Nomad) is two instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves Controller calls.
    Controller,
    /// Serves Node calls.
    Node,
}

impl Role {
    /// The role as Nomad and our JSON spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Node => "node",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names one instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceKey {
    /// The plugin it belongs to.
    pub plugin: PluginId,
    /// What it does.
    pub role: Role,
    /// Where it runs.
    pub host: HostId,
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} on {})", self.plugin, self.role, self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_a_url_path_cannot_carry_is_refused_by_name() {
        assert_eq!(PluginId::parse("bad/name"), Err(InvalidId::Forbidden('/')));
        assert_eq!(PluginId::parse(""), Err(InvalidId::Empty));
        assert_eq!(PluginId::parse(".x"), Err(InvalidId::LeadingDot));
        assert_eq!(PluginId::parse("a\nb"), Err(InvalidId::Forbidden('\n')));
        assert_eq!(PluginId::parse(&"x".repeat(129)), Err(InvalidId::TooLong { limit: PLUGIN_ID_LIMIT }));
    }

    #[test]
    fn odd_but_legal_ids_are_kept_byte_for_byte() {
        for text in ["a<&>\"b", "Größe", "csi.example.com:1", "x".repeat(128).as_str()] {
            assert_eq!(PluginId::parse(text).expect("legal").as_str(), text);
        }
    }
}
