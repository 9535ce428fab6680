//! How many instances of a plugin an operator declares (`design.md` section 4).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::{HOST_ID_LIMIT, HostId, Role};

/// What is declared of one plugin; what is not is observed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declaration {
    /// Nodes that there should be.
    pub nodes: Option<DeclaredNodes>,
    /// Controllers that there should be.
    pub controllers: Option<u32>,
}

impl Declaration {
    /// What it comes to where `host` is the only host.
    #[must_use]
    pub fn on(&self, host: &HostId) -> DeclaredCounts {
        let nodes = self.nodes.as_ref().and_then(|nodes| match nodes {
            DeclaredNodes::Count(count) => Some(*count),
            // Expected elsewhere: nothing to say here, and no plugin of no nodes in the list.
            DeclaredNodes::On(hosts) => hosts.matches(host).then_some(1),
        });
        DeclaredCounts { nodes, controllers: self.controllers }
    }
}

/// Declared numbers; `None` where instances are counted instead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredCounts {
    /// Nodes that there should be.
    pub nodes: Option<u32>,
    /// Controllers that there should be.
    pub controllers: Option<u32>,
}

impl DeclaredCounts {
    /// Whether nothing is declared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The number of a role.
    #[must_use]
    pub fn of(self, role: Role) -> Option<u32> {
        match role {
            Role::Controller => self.controllers,
            Role::Node => self.nodes,
        }
    }
}

/// How many nodes there should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeclaredNodes {
    /// So many.
    Count(u32),
    /// One on each of these hosts.
    On(HostPattern),
}

/// Which hosts: `*` stands for any text, `?` for one character, everything else for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(Box<str>);

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidPattern {
    /// Nothing there.
    Empty,
    /// Longer than any host id.
    TooLong,
    /// A sign that other globs know and this one does not, or that no host id has.
    Forbidden(char),
}

impl fmt::Display for InvalidPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("must not be empty; `*` means every host"),
            Self::TooLong => write!(f, "must have at most {HOST_ID_LIMIT} bytes"),
            Self::Forbidden(character) => {
                write!(f, "must not contain `{}`: `*` and `?` are all the signs there are", character.escape_default())
            }
        }
    }
}

impl std::error::Error for InvalidPattern {}

impl HostPattern {
    /// Checks the text and keeps it as it is.
    ///
    /// # Errors
    /// [`InvalidPattern`] names what is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        if text.is_empty() {
            return Err(InvalidPattern::Empty);
        }
        if text.len() > HOST_ID_LIMIT {
            return Err(InvalidPattern::TooLong);
        }
        // Brackets, braces and a leading `!` would quietly match nothing, which is not what was meant.
        let is_forbidden = |c: &char| {
            c.is_control() || c.is_whitespace() || matches!(c, '[' | ']' | '{' | '}' | '!' | '/' | '#' | '%')
        };
        match text.chars().find(is_forbidden) {
            Some(character) => Err(InvalidPattern::Forbidden(character)),
            None => Ok(Self(text.into())),
        }
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a host is one of these. Takes at most as many steps as the product of both lengths.
    #[must_use]
    pub fn matches(&self, host: &HostId) -> bool {
        let pattern: Vec<char> = self.0.chars().collect();
        let text: Vec<char> = host.as_str().chars().collect();
        let (mut p, mut t) = (0, 0);
        // The last star, and how much of the text it stands for so far.
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some('*') => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(sign) if *sign == '?' || *sign == text[t] => (p, t) = (p + 1, t + 1),
                _ => match star {
                    Some((at, taken)) => {
                        star = Some((at, taken + 1));
                        (p, t) = (at + 1, taken + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|sign| *sign == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_and_a_question_mark_one_character() {
        let does = |pattern: &str, host: &str| {
            HostPattern::parse(pattern).expect("a pattern").matches(&HostId::parse(host).expect("a host"))
        };
        for (pattern, host) in [
            ("*", "a"),
            ("storage-*", "storage-1"),
            ("*-a-*", "x-a-b-a-c"),
            ("node-??", "node-0é"),
            ("a", "a"),
            ("*a*b", "aabab"),
        ] {
            assert!(does(pattern, host), "{pattern} {host}");
        }
        for (pattern, host) in [("storage-*", "xstorage-1"), ("node-??", "node-1"), ("*a*b", "aba"), ("a", "ab")] {
            assert!(!does(pattern, host), "{pattern} {host}");
        }
    }

    #[test]
    fn signs_of_other_globs_are_refused_by_name() {
        assert_eq!(HostPattern::parse(""), Err(InvalidPattern::Empty));
        assert_eq!(HostPattern::parse("node-[0-9]"), Err(InvalidPattern::Forbidden('[')));
        assert_eq!(HostPattern::parse(&"x".repeat(254)), Err(InvalidPattern::TooLong));
    }
}
