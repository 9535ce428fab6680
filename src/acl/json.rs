//! JSON as HCL 1 reads it, into the tree of `syntax`.
//!
//! It is not quite JSON: a trailing comma is fine, what follows the outermost brace is not looked at, and escapes are
//! Go's. Nested objects become blocks with several names, so that `{"namespace": {"apps": {…}}}` means the same as
//! `namespace "apps" {…}`.

use super::error::Complaint;
use super::syntax::{DEEPEST, Item, Kind, Literal, Value};

/// Whether a text is read as JSON.
pub(super) fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// Reads the object that a text begins with.
pub(super) fn parse(text: &str) -> Result<Vec<Item>, Complaint> {
    let mut parser = Parser { text, at: 0, line: 1, token: Token::End, depth: 0 };
    parser.next()?;
    if parser.token != Token::Sign('{') {
        return Err(parser.complaint("the outermost value is no object"));
    }
    Ok(flattened(parser.object()?))
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    End,
    Text(String),
    /// A number.
    Plain(String),
    Boolean(String),
    Null,
    Sign(char),
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    /// The last one that was read.
    token: Token,
    depth: usize,
}

impl Parser<'_> {
    fn complaint(&self, what: &str) -> Complaint {
        Complaint::at(self.line, what)
    }

    /// What follows an opening brace. Whatever stands where a comma could ends it.
    fn object(&mut self) -> Result<Vec<Item>, Complaint> {
        self.enter()?;
        let mut items = Vec::new();
        while let Some(item) = self.item()? {
            items.push(item);
            if *self.next()? != Token::Sign(',') {
                break;
            }
        }
        self.depth -= 1;
        Ok(items)
    }

    /// `None`: the object ends here.
    fn item(&mut self) -> Result<Option<Item>, Complaint> {
        let mut keys = Vec::new();
        loop {
            match self.next()? {
                Token::Text(raw) => keys.push(text(raw.clone())),
                Token::Sign(':') if !keys.is_empty() => break,
                Token::End | Token::Sign('}') => return Ok(None),
                _ => return Err(self.complaint("a name in quotes and a colon should stand here")),
            }
        }
        let value = match self.next()?.clone() {
            Token::Text(raw) => Value::Literal(text(raw)),
            Token::Plain(raw) | Token::Boolean(raw) => Value::Literal(Literal { kind: Kind::Bare, raw }),
            Token::Null => Value::Literal(text(String::new())),
            Token::Sign('{') => Value::Object(self.object()?),
            Token::Sign('[') => match self.list()? {
                Some(values) => Value::List(values),
                None => return Ok(None),
            },
            Token::End => return Ok(None),
            // HCL 1 forgets a missing value at a closing brace, and what began it.
            Token::Sign('}') => return Ok(None),
            Token::Sign(_) => return Err(self.complaint("a value should stand here")),
        };
        Ok(Some(Item { keys, value }))
    }

    /// What follows an opening bracket. Commas mean nothing here, and so do truth values and lists. `None`: a brace came,
    /// at which the object around it ends.
    fn list(&mut self) -> Result<Option<Vec<Value>>, Complaint> {
        self.enter()?;
        let mut values = Vec::new();
        loop {
            match self.next()?.clone() {
                Token::Text(raw) => values.push(Value::Literal(text(raw))),
                Token::Plain(raw) => values.push(Value::Literal(Literal { kind: Kind::Bare, raw })),
                Token::Sign('{') => values.push(Value::Object(self.object()?)),
                Token::Sign(',' | '[') | Token::Boolean(_) => {}
                Token::Sign(']') => {
                    self.depth -= 1;
                    return Ok(Some(values));
                }
                Token::Sign('}') => {
                    self.depth -= 1;
                    return Ok(None);
                }
                Token::Null | Token::End | Token::Sign(_) => {
                    return Err(self.complaint("an element or `]` should stand here"));
                }
            }
        }
    }

    fn enter(&mut self) -> Result<(), Complaint> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.complaint(&format!("more than {DEEPEST} levels of braces and brackets")));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<&Token, Complaint> {
        let rest = &self.text[self.at..];
        let space = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
        self.line += rest[..space].matches('\n').count();
        let rest = &rest[space..];
        let (token, length) = match rest.chars().next() {
            None => (Token::End, 0),
            Some('"') => {
                let raw = self.quoted(rest)?;
                let length = raw.len() + 2;
                (Token::Text(raw), length)
            }
            Some('0'..='9' | '-') | Some('.') if !is_lone_point(rest) => {
                let length = self.number(rest)?;
                (Token::Plain(rest[..length].to_owned()), length)
            }
            Some(sign @ ('{' | '}' | '[' | ']' | ',' | ':' | '.')) => (Token::Sign(sign), 1),
            Some(_) => {
                let is_part = |next: char| next.is_alphanumeric() || next == '_' || next == '-';
                let length = rest.find(|next| !is_part(next)).unwrap_or(rest.len());
                match &rest[..length] {
                    word @ ("true" | "false") => (Token::Boolean(word.to_owned()), length),
                    "null" => (Token::Null, length),
                    _ => return Err(self.complaint("a word without quotes, or a sign that means nothing")),
                }
            }
        };
        self.at += space + length;
        self.token = token;
        Ok(&self.token)
    }

    fn quoted(&self, rest: &str) -> Result<String, Complaint> {
        let unfinished = || self.complaint("a text in quotes that never ends");
        let strange = || self.complaint("an escape that means nothing");
        let mut characters = rest.char_indices().skip(1).peekable();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => return Ok(rest[1..at].to_owned()),
                '\n' | '\0' => return Err(unfinished()),
                '\\' => {
                    let (_, escape) = characters.next().ok_or_else(unfinished)?;
                    let (radix, digits) = match escape {
                        'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' | '"' => (8, 0),
                        '0'..='7' => (8, 2),
                        'x' => (16, 2),
                        'u' => (16, 4),
                        'U' => (16, 8),
                        _ => return Err(strange()),
                    };
                    for _ in 0..digits {
                        characters.next_if(|(_, next)| next.is_digit(radix)).ok_or_else(strange)?;
                    }
                }
                _ => {}
            }
        }
        Err(unfinished())
    }

    fn number(&self, rest: &str) -> Result<usize, Complaint> {
        let digits = |text: &str| text.len() - text.trim_start_matches(|next: char| next.is_ascii_digit()).len();
        let sign = usize::from(rest.starts_with('-'));
        let whole = digits(&rest[sign..]);
        let begins_with_point = rest.starts_with('.');
        let mut length = sign + whole;
        let mut is_whole = true;
        if rest[length..].starts_with('.') {
            is_whole = false;
            length += 1;
            length += digits(&rest[length..]);
        }
        if rest[length..].starts_with(['e', 'E']) {
            is_whole = false;
            length += 1;
            length += usize::from(rest[length..].starts_with(['+', '-']));
            length += digits(&rest[length..]);
        }
        if whole == 0 && !begins_with_point || is_whole && whole > 1 && rest[sign..].starts_with('0') {
            return Err(self.complaint("this is no number"));
        }
        Ok(length)
    }
}

/// Whether this is a point, and not a number that begins with one.
fn is_lone_point(rest: &str) -> bool {
    rest.strip_prefix('.').is_some_and(|after| !after.starts_with(|next: char| next.is_ascii_digit()))
}

fn text(raw: String) -> Literal {
    Literal { kind: Kind::QuotedJson, raw }
}

/// Objects that hold nothing but objects become several items with more keys each; lists of objects become several items.
fn flattened(items: Vec<Item>) -> Vec<Item> {
    let mut flat = Vec::new();
    for Item { keys, value } in items {
        match value {
            Value::Object(inner)
                if !inner.is_empty() && inner.iter().all(|item| matches!(item.value, Value::Object(_))) =>
            {
                let longer = inner.into_iter().map(|item| Item { keys: [keys.clone(), item.keys].concat(), ..item });
                flat.extend(flattened(longer.collect()));
            }
            Value::List(values)
                if !values.is_empty() && values.iter().all(|value| matches!(value, Value::Object(_))) =>
            {
                let each = values.into_iter().map(|value| Item { keys: keys.clone(), value });
                flat.extend(flattened(each.collect()));
            }
            Value::Object(inner) => flat.push(Item { keys, value: Value::Object(flattened(inner)) }),
            Value::List(values) => {
                let inside = values.into_iter().map(|value| match value {
                    Value::Object(inner) => Value::Object(flattened(inner)),
                    other => other,
                });
                flat.push(Item { keys, value: Value::List(inside.collect()) });
            }
            literal @ Value::Literal(_) => flat.push(Item { keys, value: literal }),
        }
    }
    flat
}
