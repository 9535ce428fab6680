//! What a policy's text is made of, before anybody asks what it means: items with keys, and values.
//!
//! It is the tree of HCL 1, which HCL and JSON are both read into. Quoted texts stay as they were written until somebody
//! reads them, since Nomad, too, minds a strange escape only in what it uses.

use super::error::Complaint;

/// How deep objects and lists may nest. Nomad knows no limit; no policy needs more than five.
pub(super) const DEEPEST: usize = 32;

/// `key key { … }` or `key = value`.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) keys: Vec<Literal>,
    pub(super) value: Value,
}

/// What an item holds.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Literal(Literal),
    Object(Vec<Item>),
    List(Vec<Value>),
}

/// A text as it was written.
#[derive(Debug, Clone)]
pub(super) struct Literal {
    pub(super) kind: Kind,
    /// Quoted ones without their quotes.
    pub(super) raw: String,
}

/// How a text was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A word, a number, `true`: it means itself.
    Bare,
    /// Between quotes in HCL, where `${…}` is left alone.
    Quoted,
    /// Between quotes in JSON.
    QuotedJson,
}

impl Literal {
    /// What it means.
    pub(super) fn text(&self) -> Result<String, Complaint> {
        match self.kind {
            Kind::Bare => Ok(self.raw.clone()),
            Kind::Quoted => unquoted(&self.raw, true),
            Kind::QuotedJson => unquoted(&self.raw, false),
        }
    }
}

/// Reads escapes as Go does, in JSON, too. `${…}` stands for itself where it is kept.
fn unquoted(raw: &str, keeps_interpolation: bool) -> Result<String, Complaint> {
    let strange = || Complaint::new(format!("`\"{raw}\"` is no text: it holds an escape that means nothing"));
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(next) = rest.chars().next() {
        if keeps_interpolation && rest.starts_with("${") {
            let length = interpolation(rest).ok_or_else(strange)?;
            bytes.extend_from_slice(&rest.as_bytes()[..length]);
            rest = &rest[length..];
            continue;
        }
        rest = &rest[next.len_utf8()..];
        if next == '\n' {
            return Err(strange());
        }
        if next != '\\' {
            bytes.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = rest.chars().next().ok_or_else(strange)?;
        rest = &rest[escape.len_utf8()..];
        let digits = |text: &mut &str, count: usize, radix: u32| {
            let number = text.get(..count).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
            let number = number.and_then(|digits| u32::from_str_radix(digits, radix).ok()).ok_or_else(strange)?;
            *text = &text[count..];
            Ok::<u32, Complaint>(number)
        };
        match escape {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            '\\' | '"' => bytes.push(u8::try_from(escape).unwrap_or(b'"')),
            'x' => bytes.push(u8::try_from(digits(&mut rest, 2, 16)?).unwrap_or_default()),
            '0'..='7' => {
                let high = escape.to_digit(8).unwrap_or_default() << 6;
                let number = high | digits(&mut rest, 2, 8)?;
                bytes.push(u8::try_from(number).map_err(|_| strange())?);
            }
            'u' | 'U' => {
                let number = digits(&mut rest, if escape == 'u' { 4 } else { 8 }, 16)?;
                let character = match char::from_u32(number) {
                    Some(character) => character,
                    // Half of a pair: HCL's own reader writes the mark for it, Go's refuses it.
                    None if keeps_interpolation && number < 0x11_0000 => char::REPLACEMENT_CHARACTER,
                    None => return Err(strange()),
                };
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return Err(strange()),
        }
    }
    // A name of bytes that are no text matches no rule, with the mark in their place just as well.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// How long the `${…}` at the beginning is.
fn interpolation(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(at + 1),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// An item as it is looked at from outside: some of its keys may have been used.
#[derive(Debug, Clone)]
pub(super) struct Entry<'a> {
    pub(super) keys: &'a [Literal],
    pub(super) node: Node<'a>,
}

/// A value as it is looked at.
#[derive(Debug, Clone)]
pub(super) enum Node<'a> {
    Literal(&'a Literal),
    Object(Vec<Entry<'a>>),
    List(&'a [Value]),
}

/// All items of an object.
pub(super) fn entries(items: &[Item]) -> Vec<Entry<'_>> {
    items.iter().map(|item| Entry { keys: &item.keys, node: node(&item.value) }).collect()
}

fn node(value: &Value) -> Node<'_> {
    match value {
        Value::Literal(literal) => Node::Literal(literal),
        Value::Object(items) => Node::Object(entries(items)),
        Value::List(values) => Node::List(values),
    }
}

/// Those whose first key is `name`, in any case, without that key.
pub(super) fn named<'a>(entries: &[Entry<'a>], name: &str) -> Result<Vec<Entry<'a>>, Complaint> {
    let mut found = Vec::new();
    for entry in entries {
        if let Some((first, keys)) = entry.keys.split_first()
            && is_same(&first.text()?, name)
        {
            found.push(Entry { keys, node: entry.node.clone() });
        }
    }
    Ok(found)
}

/// Equal but for case, as Go folds it: two letters beyond ASCII are `k` and `s`, too.
pub(super) fn is_same(left: &str, right: &str) -> bool {
    let folded = |text: &str| -> String {
        let plain = text.chars().map(|character| match character {
            '\u{212a}' => 'k',
            '\u{17f}' => 's',
            other => other.to_ascii_lowercase(),
        });
        plain.collect()
    };
    folded(left) == folded(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &str, kind: Kind) -> Option<String> {
        Literal { kind, raw: raw.to_owned() }.text().ok()
    }

    #[test]
    fn escapes_are_those_of_go() {
        for (raw, meant) in [
            ("read", Some("read")),
            (r"\x72\145\u0061\U00000064", Some("read")),
            (r#"a\"b\\"#, Some(r#"a"b\"#)),
            (r"\400", None),
            (r"\U00110000", None),
            (r"\'", None),
            (r"\x4", None),
            ("\\", None),
        ] {
            assert_eq!(read(raw, Kind::Quoted).as_deref(), meant, "{raw}");
            assert_eq!(read(raw, Kind::QuotedJson).as_deref(), meant, "{raw}");
        }
        assert_eq!(read(r"\ud800", Kind::Quoted).as_deref(), Some("\u{fffd}"));
        assert_eq!(read(r"\ud800", Kind::QuotedJson), None);
    }

    #[test]
    fn interpolations_are_left_alone_in_hcl() {
        assert_eq!(read(r#"a${b "\q" {}}c"#, Kind::Quoted).as_deref(), Some(r#"a${b "\q" {}}c"#));
        assert_eq!(read(r"${\q}", Kind::QuotedJson), None);
        assert_eq!(read("${never", Kind::Quoted), None);
    }
}
