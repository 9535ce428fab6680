//! The configuration file as text: HCL, or the same as JSON. Which keys there are is none of its business.
//!
//! Every value keeps the line it stands on, since a person has to find it again. HCL's parser bounds nesting, `serde_json`
//! walks over values without recursion, and a file has a size; so no file makes this panic.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use hcl_edit::Span;
use hcl_edit::expr::{Expression, UnaryOperator};
use hcl_edit::structure::{Block as HclBlock, BlockLabel, Body, Structure};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::values::Problems;
use crate::domain::text::escaped;

/// Longest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The line, from one.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A key with its values, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where it stands.
    pub place: Place,
    /// Its values with their places; one, unless it is a list.
    pub values: Vec<(String, Place)>,
    /// Whether it is a list, however long.
    pub is_list: bool,
}

/// A block: `KIND "LABEL" { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The first word.
    pub kind: String,
    /// Its label.
    pub label: String,
    /// Where it begins.
    pub place: Place,
    /// What it holds.
    pub entries: Vec<Entry>,
}

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    /// Keys outside of blocks.
    pub entries: Vec<Entry>,
    /// Blocks.
    pub blocks: Vec<Block>,
}

/// Reads a file; what is wrong with it is added to `problems`, and what is right is returned.
#[must_use]
pub fn read(path: &Path, problems: &mut Problems) -> File {
    let name = escaped(&path.to_string_lossy()).into_owned();
    let mut text = String::new();
    let reading = std::fs::File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
    match reading {
        Ok(_) if text.len() as u64 > LONGEST => problems.0.push(format!("{name}: is larger than 1 MiB")),
        Ok(_) => return parse(&name, &text, problems),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => problems.0.push(format!("{name}: is no text")),
        Err(error) => problems.0.push(format!("{name}: cannot be read: {error}")),
    }
    File::default()
}

/// Reads a file's text; `name` stands for the file in problems and places.
#[must_use]
pub fn parse(name: &str, text: &str, problems: &mut Problems) -> File {
    let name: Arc<str> = name.into();
    // Some editors begin a file with a mark that nobody sees.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let ends = text.bytes().zip(0..).filter(|(byte, _)| *byte == b'\n').map(|(_, offset)| offset).collect();
    let mut reader = Reader { name: &name, text, ends, problems, file: File::default() };
    if text.trim_start().starts_with('{') || name.ends_with(".json") {
        reader.json();
    } else {
        reader.hcl();
    }
    reader.file
}

/// What a value may be.
const ALLOWED: &str = "must be a text in quotes, a number, true or false, or a list of those";
/// What an object of JSON has to be called to be blocks.
const KIND: &str = "plugin";
/// What a block looks like.
const BLOCK: &str = "is no block of a configuration file; the only one is plugin \"ID\" { … }";

struct Reader<'a> {
    name: &'a Arc<str>,
    text: &'a str,
    /// Where lines end.
    ends: Vec<usize>,
    problems: &'a mut Problems,
    file: File,
}

impl<'a> Reader<'a> {
    fn at(&self, offset: usize) -> Place {
        Place { file: Arc::clone(self.name), line: 1 + self.ends.partition_point(|end| *end < offset) }
    }

    fn of(&self, span: Option<std::ops::Range<usize>>) -> Place {
        self.at(span.map_or(0, |span| span.start))
    }

    fn wrong(&mut self, place: &Place, key: &str, what: &str) {
        self.problems.0.push(format!("{place}: {}: {what}", escaped(key)));
    }

    /// Adds a key, unless it is there already.
    fn put(&mut self, entries: &mut Vec<Entry>, entry: Entry) {
        match entries.iter().find(|known| known.key == entry.key) {
            Some(first) => {
                let what = format!("is given twice, first in line {}", first.place.line);
                self.wrong(&entry.place, &entry.key, &what);
            }
            None => entries.push(entry),
        }
    }

    // HCL -----------------------------------------------------------------------------------------------------------

    fn hcl(&mut self) {
        let body = match hcl_edit::parser::parse_body(self.text) {
            Ok(body) => body,
            Err(error) => {
                let (line, column) = (error.location().line(), error.location().column());
                let message = escaped(error.message()).into_owned();
                self.problems.0.push(format!("{}:{line}: is no HCL at column {column}: {message}", self.name));
                return;
            }
        };
        for structure in &body {
            match structure {
                Structure::Attribute(attribute) => {
                    let place = self.of(attribute.key.span());
                    let entry = self.hcl_entry(attribute.key.as_str(), place, &attribute.value);
                    self.put_here(entry);
                }
                Structure::Block(block) => self.hcl_block(block),
            }
        }
    }

    fn put_here(&mut self, entry: Option<Entry>) {
        let Some(entry) = entry else { return };
        let mut entries = std::mem::take(&mut self.file.entries);
        self.put(&mut entries, entry);
        self.file.entries = entries;
    }

    fn hcl_block(&mut self, block: &HclBlock) {
        let place = self.of(block.ident.span());
        let kind = block.ident.as_str();
        let label = match block.labels.as_slice() {
            [BlockLabel::String(label)] => label.as_str().to_owned(),
            [BlockLabel::Ident(label)] => label.as_str().to_owned(),
            _ => return self.wrong(&place, kind, BLOCK),
        };
        let entries = self.hcl_entries(&format!("{kind} \"{label}\""), &block.body);
        self.file.blocks.push(Block { kind: kind.to_owned(), label, place, entries });
    }

    fn hcl_entries(&mut self, inside: &str, body: &Body) -> Vec<Entry> {
        let mut entries = Vec::new();
        for structure in body {
            match structure {
                Structure::Attribute(attribute) => {
                    let place = self.of(attribute.key.span());
                    if let Some(entry) = self.hcl_entry(attribute.key.as_str(), place, &attribute.value) {
                        self.put(&mut entries, entry);
                    }
                }
                Structure::Block(block) => {
                    let place = self.of(block.ident.span());
                    self.wrong(&place, &format!("{inside}: {}", block.ident.as_str()), "no block is allowed here");
                }
            }
        }
        entries
    }

    fn hcl_entry(&mut self, key: &str, place: Place, value: &Expression) -> Option<Entry> {
        let mut values = Vec::new();
        let elements: Vec<&Expression> = match value {
            Expression::Array(array) => array.iter().collect(),
            other => vec![other],
        };
        for element in elements {
            let here = element.span().map_or_else(|| place.clone(), |span| self.at(span.start));
            match hcl_text(element) {
                Ok(text) => values.push((text, here)),
                Err(what) => {
                    self.wrong(&here, key, &what);
                    return None;
                }
            }
        }
        Some(Entry { key: key.to_owned(), place, values, is_list: matches!(value, Expression::Array(_)) })
    }

    // JSON ----------------------------------------------------------------------------------------------------------

    fn json(&mut self) {
        let Pairs(pairs) = match serde_json::from_str(self.text) {
            Ok(pairs) => pairs,
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                let text = error.to_string();
                let message = text.split(" at line ").next().unwrap_or_default();
                let problem = format!("{}:{line}: is no JSON object at column {column}: {message}", self.name);
                self.problems.0.push(problem);
                return;
            }
        };
        for (key, value) in pairs {
            if key == KIND && value.get().starts_with('{') {
                self.json_blocks(&key, value);
            } else {
                let entry = self.json_entry(&key, value);
                self.put_here(entry);
            }
        }
    }

    /// Where a value stands: it is a part of the text.
    fn json_place(&self, value: &RawValue) -> Place {
        let offset = (value.get().as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        self.at(offset)
    }

    fn json_blocks(&mut self, kind: &str, value: &'a RawValue) {
        let blocks = serde_json::from_str::<Pairs<'a>>(value.get()).map(|Pairs(pairs)| pairs).unwrap_or_default();
        for (label, value) in blocks {
            let place = self.json_place(value);
            let Ok(Pairs(pairs)) = serde_json::from_str::<Pairs<'a>>(value.get()) else {
                self.wrong(&place, &format!("{kind} \"{label}\""), "must be an object");
                continue;
            };
            let mut entries = Vec::new();
            for (key, value) in pairs {
                if let Some(entry) = self.json_entry(&key, value) {
                    self.put(&mut entries, entry);
                }
            }
            self.file.blocks.push(Block { kind: kind.to_owned(), label, place, entries });
        }
    }

    fn json_entry(&mut self, key: &str, value: &'a RawValue) -> Option<Entry> {
        let place = self.json_place(value);
        let list: Option<Vec<&'a RawValue>> =
            value.get().starts_with('[').then(|| serde_json::from_str(value.get()).unwrap_or_default());
        let mut values = Vec::new();
        for element in list.as_deref().unwrap_or(&[value]) {
            let here = self.json_place(element);
            let text = match element.get().as_bytes().first() {
                Some(b'"') => serde_json::from_str(element.get()).ok(),
                Some(b'{' | b'[' | b'n') | None => None,
                Some(_) => Some(element.get().to_owned()),
            };
            match text {
                Some(text) => values.push((text, here)),
                None => {
                    self.wrong(&here, key, ALLOWED);
                    return None;
                }
            }
        }
        Some(Entry { key: key.to_owned(), place, values, is_list: list.is_some() })
    }
}

/// A value as a flag would have it.
fn hcl_text(value: &Expression) -> Result<String, String> {
    match value {
        Expression::String(text) => Ok(text.as_str().to_owned()),
        Expression::Number(number) => Ok(number.value().to_string()),
        Expression::Bool(is_so) => Ok(is_so.value().to_string()),
        Expression::UnaryOp(operation) if *operation.operator.value() == UnaryOperator::Neg => {
            hcl_text(&operation.expr).map(|text| format!("-{text}"))
        }
        Expression::Variable(word) => Err(format!("a text needs quotes: \"{}\"", escaped(word.as_str()))),
        Expression::StringTemplate(_) | Expression::HeredocTemplate(_) => {
            Err("must be a plain text in quotes; write $${ and %%{ for ${ and %{".to_owned())
        }
        _ => Err(ALLOWED.to_owned()),
    }
}

/// An object's keys and values in order, with those that are there twice.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Reading).map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A key, its values, its line.
    type Said = (String, Vec<String>, usize);

    fn said(text: &str) -> (Vec<Said>, Vec<String>) {
        let mut problems = Problems::default();
        let file = parse("f", text, &mut problems);
        let entry = |entry: &Entry| {
            let values = entry.values.iter().map(|(value, _)| value.clone()).collect();
            (entry.key.clone(), values, entry.place.line)
        };
        let mut all: Vec<_> = file.entries.iter().map(entry).collect();
        for block in &file.blocks {
            all.push((format!("{} {}", block.kind, block.label), Vec::new(), block.place.line));
            all.extend(block.entries.iter().map(entry));
        }
        (all, problems.0)
    }

    #[test]
    fn hcl_and_json_say_the_same_with_the_line_of_each_value() {
        let hcl = "# what\na = \"x\"\nb = [\n  \"y\",\n  2,\n]\nc = -1\n\nplugin \"p\" {\n  d = true\n}\n";
        let json = "{\n\"a\": \"x\",\n\"b\": [\n\"y\",\n2\n],\n\"c\": -1,\n\"plugin\": {\n\"p\": {\n\"d\": true\n}}}";
        let (from_hcl, problems) = said(hcl);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(said(json), (from_hcl.clone(), Vec::new()));
        for (text, ends) in [(hcl, "\r\n"), (json, "\r\n"), (hcl, "\n"), (json, "\n")] {
            let marked = format!("\u{feff}{}", text.replace('\n', ends));
            assert_eq!(said(&marked), (from_hcl.clone(), Vec::new()), "{ends:?}");
        }
        assert_eq!(from_hcl[1], ("b".to_owned(), vec!["y".to_owned(), "2".to_owned()], 3));
        assert_eq!(from_hcl[3], ("plugin p".to_owned(), Vec::new(), 9));
    }

    #[test]
    fn what_nests_without_end_is_refused() {
        for open in ["a = [", "{\"a\":", "{\"plugin\":{\"a\":", "a = ", "b {\n"] {
            let text = open.to_owned() + &["[", "{\"a\":", "(", "b {\n"].map(|nest| nest.repeat(50_000)).concat();
            assert!(!said(&text).1.is_empty(), "{open}");
        }
        assert!(!said(&("a = ".to_owned() + &"-".repeat(100_000) + "1")).1.is_empty());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-z_\"{}\\[\\]=:,# \n$%0-9é-]|\\PC){0,80}") {
            said(&text);
            said(&format!("{{{text}"));
        }
    }
}
