//! Values as bytes: Go's escaping, Go's times, and indenting what is already compact.

use std::io;

use jiff::Timestamp as Instant;
use serde::Serialize;
use serde_json::ser::Formatter;

use crate::domain::time::Timestamp;

/// Compact, with the two separators escaped that Go escapes beside what JSON demands (`nomad-http.md` section 11).
struct Compact;

impl Formatter for Compact {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['\u{2028}', '\u{2029}']) {
            let (before, separator) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            writer.write_all(if separator.starts_with('\u{2028}') { b"\\u2028" } else { b"\\u2029" })?;
            rest = &separator['\u{2028}'.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Appends a value.
pub(in crate::api) fn append(out: &mut Vec<u8>, value: &impl Serialize) {
    let mut serializer = serde_json::Serializer::with_formatter(out, Compact);
    value.serialize(&mut serializer).expect("wire types have text keys and go into memory, so nothing can fail");
}

/// A value by itself.
pub(in crate::api) fn compact(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    append(&mut out, value);
    out
}

/// What `?pretty` makes of a compact body: four spaces a level, empty containers closed at once, a newline at the end.
pub(in crate::api) fn indented(compact: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(compact.len() * 2);
    let mut depth = 0_usize;
    let (mut is_text, mut is_escaped) = (false, false);
    let mut bytes = compact.iter().copied().peekable();
    let break_line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 4 * depth, b' ');
    };
    while let Some(byte) = bytes.next() {
        if is_text {
            out.push(byte);
            (is_text, is_escaped) = (byte != b'"' || is_escaped, byte == b'\\' && !is_escaped);
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                if let Some(end) = bytes.next_if(|next| matches!(next, b'}' | b']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                break_line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                is_text = byte == b'"';
                out.push(byte);
            }
        }
    }
    out.push(b'\n');
    out
}

/// A time as Go prints it: RFC 3339, UTC, as many fraction digits as it has; `None`, so `null`, for the zero time.
pub(in crate::api) fn time(at: Timestamp) -> Option<String> {
    if at == Timestamp::default() {
        return None;
    }
    Instant::from_nanosecond(at.0.into()).ok().map(|instant| instant.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn text_is_escaped_as_go_escapes_it() {
        let text = "\"\\/<>&\u{8}\u{c}\n\r\t\u{1}\u{1f}\u{7f}\u{2028}\u{2029}é\u{2027}\u{1f600}";
        let wanted = "\"\\\"\\\\/<>&\\b\\f\\n\\r\\t\\u0001\\u001f\u{7f}\\u2028\\u2029é\u{2027}\u{1f600}\"";
        assert_eq!(String::from_utf8(compact(&text)).expect("text"), wanted);
    }

    #[test]
    fn times_have_the_digits_they_need_and_the_zero_time_is_null() {
        let whole = 1_767_323_045_000_000_000;
        assert_eq!(time(Timestamp(whole)).as_deref(), Some("2026-01-02T03:04:05Z"));
        assert_eq!(time(Timestamp(whole + 120_000_000)).as_deref(), Some("2026-01-02T03:04:05.12Z"));
        assert_eq!(time(Timestamp(whole + 1)).as_deref(), Some("2026-01-02T03:04:05.000000001Z"));
        assert_eq!(time(Timestamp(0)), None);
        assert!(time(Timestamp(i64::MIN)).is_some());
        assert!(time(Timestamp(i64::MAX)).is_some());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[\\PC\"\\\\{}\\[\\],:\n]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[\\PC\"\\\\{},:]{0,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn indenting_changes_nothing_but_white_space(value in any_json()) {
            let compact = serde_json::to_vec(&value).expect("plain data");
            let mut wanted = Vec::new();
            let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut wanted, formatter)).expect("plain data");
            wanted.push(b'\n');
            prop_assert_eq!(indented(&compact), wanted);
        }

        #[test]
        fn compact_json_is_the_same_value(value in any_json()) {
            prop_assert_eq!(serde_json::from_slice::<Value>(&compact(&value)).expect("JSON"), value);
        }
    }
}
