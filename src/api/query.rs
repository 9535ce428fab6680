//! The query string, read as leniently as Nomad's servers read it (`nomad-http.md` section 4).
//!
//! Names and values are bytes: a broken escape drops its pair and nothing else, and a prefix need not be whole
//! characters. Checks run in Nomad's order, so the first complaint is the one that Nomad would make.

use std::borrow::Cow;
use std::time::Duration;

use super::ReadShape;
use super::error::{ApiError, Complaint};
use crate::domain::duration;
use crate::domain::time::Index;

/// Longest time a query waits, and how long it waits when it does not say: Nomad's five minutes.
pub const WAIT_LIMIT: Duration = Duration::from_secs(300);

/// The pairs of a query string that could be read.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(Bytes<'a>, Bytes<'a>)>);

/// A name or a value, its escapes undone.
type Bytes<'a> = Cow<'a, [u8]>;

/// When an answer is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blocking {
    /// The asker has seen this one; zero: do not wait.
    pub(super) seen: Index,
    /// How long to wait for a newer one, jitter apart.
    pub(super) limit: Duration,
}

impl<'a> Query<'a> {
    /// Reads what can be read.
    pub(super) fn parse(raw: Option<&'a str>) -> Self {
        let pairs = raw.unwrap_or("").split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
        Self(
            pairs
                .filter_map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    Some((unescape(name)?, unescape(value)?))
                })
                .collect(),
        )
    }

    /// The first value of a name.
    pub(super) fn first(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(key, _)| **key == *name.as_bytes()).map(|(_, value)| &**value)
    }

    /// Every value of a name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |(key, _)| **key == *name.as_bytes()).map(|(_, value)| &**value)
    }

    /// The first value of a name, unless it is empty.
    pub(super) fn filled(&self, name: &str) -> Option<&[u8]> {
        self.first(name).filter(|value| !value.is_empty())
    }

    /// The checks that every query passes, in Nomad's order, and what they say about waiting.
    pub(super) fn check(&self, region: &str) -> Result<Blocking, ApiError> {
        if self.filled("stale").is_some_and(|value| !is_bool(value)) {
            return Err(ApiError::BadQuery(Complaint::Stale));
        }
        if self.filled("per_page").is_some_and(|value| number::<i32>(value).is_none()) {
            return Err(ApiError::BadQuery(Complaint::PerPage));
        }
        let wait = match self.filled("wait") {
            Some(value) => {
                let parsed = std::str::from_utf8(value).ok().and_then(duration::parse);
                parsed.ok_or(ApiError::BadQuery(Complaint::Wait))?
            }
            None => 0,
        };
        let seen = match self.filled("index") {
            // Rust takes a plus sign, Go's ParseUint does not.
            Some(value) if value[0] == b'+' => None,
            Some(value) => number(value),
            None => Some(0),
        };
        let seen = Index(seen.ok_or(ApiError::BadQuery(Complaint::Index))?);
        self.check_region(region)?;
        let limit = match u64::try_from(wait) {
            Ok(0) | Err(_) => WAIT_LIMIT,
            Ok(nanos) => Duration::from_nanos(nanos).min(WAIT_LIMIT),
        };
        Ok(Blocking { seen, limit })
    }

    /// Whether the region asked for is ours.
    pub(super) fn check_region(&self, region: &str) -> Result<(), ApiError> {
        if self.filled("region").is_some_and(|asked| asked != region.as_bytes()) {
            return Err(ApiError::NoPathToRegion);
        }
        Ok(())
    }

    /// Whether the body should be indented. Anything but `0` says so, `false` too.
    pub(super) fn is_pretty(&self) -> bool {
        self.first("pretty").is_some_and(|value| value != b"0")
    }

    /// The shape asked for; `None` where the query does not name one.
    pub(super) fn shape(&self) -> Option<ReadShape> {
        self.first("shape").and_then(|value| ReadShape::parse(std::str::from_utf8(value).ok()?))
    }

    /// How many at most, between 1 and `most`; `usual` where the query does not say.
    pub(super) fn limit(&self, usual: usize, most: usize) -> Result<usize, ApiError> {
        match self.filled("limit") {
            None => Ok(usual),
            Some(value) => match number::<usize>(value) {
                Some(limit) if limit > 0 => Ok(limit.min(most)),
                _ => Err(ApiError::BadQuery(Complaint::Limit)),
            },
        }
    }

    /// How many on a page; zero where the query does not say, or does not mean it.
    pub(super) fn per_page(&self) -> usize {
        self.filled("per_page").and_then(number::<i32>).and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
    }

    /// The namespace whose allocations are shown; `*`: all.
    pub(super) fn namespace(&self) -> Box<str> {
        self.filled("namespace").map_or_else(|| "default".into(), |value| String::from_utf8_lossy(value).into())
    }

    /// What ids begin with.
    pub(super) fn prefix(&self) -> Prefix {
        let bytes = self.first("prefix").unwrap_or_default();
        let whole = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
        let (text, rest) = bytes.split_at(whole);
        Prefix { text: String::from_utf8_lossy(text).into_owned(), rest: rest.into() }
    }
}

/// The beginning of an id, in bytes: Nomad compares bytes, so the last character may be cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Prefix {
    /// As far as it is text.
    pub(super) text: String,
    /// The bytes after that, nearly always none.
    rest: Box<[u8]>,
}

impl Prefix {
    /// Whether everything begins with it.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.rest.is_empty()
    }

    /// Whether an id that begins with `text` begins with the rest too.
    pub(super) fn goes_on_in(&self, id: &str) -> bool {
        id.as_bytes().get(self.text.len()..).is_some_and(|after| after.starts_with(&self.rest))
    }
}

/// A query's escapes undone; `None` if one is broken.
fn unescape(text: &str) -> Option<Cow<'_, [u8]>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            other => other,
        });
    }
    Some(Cow::Owned(out))
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

fn number<N: std::str::FromStr>(value: &[u8]) -> Option<N> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn is_bool(value: &[u8]) -> bool {
    let words = ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"];
    words.iter().any(|word| word.as_bytes() == value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_that_cannot_be_read_are_dropped_and_the_rest_counts() {
        let query = Query::parse(Some("a;b=1&x=%zz&y=%4&type=csi&type=host&&=&p+q=%41+b&flag&z=1=2"));
        assert_eq!(query.first("a;b"), None);
        assert_eq!(query.first("x"), None);
        assert_eq!(query.first("y"), None);
        assert_eq!(query.first("type"), Some(&b"csi"[..]));
        assert_eq!(query.first("p q"), Some(&b"A b"[..]));
        assert_eq!(query.first("flag"), Some(&b""[..]));
        assert_eq!(query.first("z"), Some(&b"1=2"[..]));
    }

    #[test]
    fn a_prefix_may_end_within_a_character() {
        let prefix = Query::parse(Some("prefix=Gr%C3")).prefix();
        assert_eq!(prefix.text, "Gr");
        assert!(prefix.goes_on_in("Gr\u{f6}\u{df}e"));
        assert!(!prefix.goes_on_in("Grau"));
        assert!(!prefix.is_empty());
    }

    proptest! {
        #[test]
        fn no_query_makes_the_parser_panic(raw in "\\PC*") {
            let query = Query::parse(Some(&raw));
            let _ = query.check("global");
            let _ = (query.is_pretty(), query.shape(), query.prefix(), query.limit(1, 2));
        }

        #[test]
        fn no_parameter_makes_the_checks_panic(
            name in "stale|per_page|wait|index|region|limit|prefix",
            value in "[-+.%0-9a-fnsumhµ ]{0,24}",
        ) {
            let raw = format!("{name}={value}");
            let query = Query::parse(Some(&raw));
            let _ = (query.check("global"), query.prefix(), query.limit(1, 2));
        }

        #[test]
        fn every_escaped_value_reads_as_itself(value in "\\PC*") {
            let escaped: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let raw = format!("x={escaped}");
            let query = Query::parse(Some(&raw));
            prop_assert_eq!(query.first("x"), Some(value.as_bytes()));
        }
    }
}
