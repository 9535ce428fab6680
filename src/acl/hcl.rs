//! HCL 1 as Nomad reads it, into the tree of `syntax`.
//!
//! hcl-rs and its kin read HCL 2, which refuses what policies contain (quoted names, several blocks on a line) and takes
//! what Nomad refuses (words without quotes). So this is a reader of its own, with HCL 1's corners where they decide
//! whether a policy is valid: an object that ends in the middle of an item, `key =` as the last words of a file.

use super::error::Complaint;
use super::syntax::{DEEPEST, Item, Kind, Literal, Value};

/// Reads a whole text.
pub(super) fn parse(text: &str) -> Result<Vec<Item>, Complaint> {
    let text = text.replace("\r\n", "\n");
    let mut parser =
        Parser { scanner: Scanner { text: &text, at: 0, line: 1 }, token: Token::End, is_unread: false, depth: 0 };
    if let Some(at) = text.find(['\0', '\u{e123}']) {
        let line = 1 + text[..at].matches('\n').count();
        return Err(Complaint::at(line, "a character that no policy may hold"));
    }
    match parser.items(false) {
        (items, None) => Ok(items),
        (_, Some(Fault::Wrong(complaint) | Fault::Fatal(complaint))) => Err(complaint),
        (_, Some(Fault::End)) => Err(parser.complaint("it ends too early")),
    }
}

/// One word or sign.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// The end of the text.
    End,
    /// A name.
    Name(String),
    /// A text between quotes, as it was written.
    Quoted(String),
    /// A number, `true`, `false`, or a text of several lines.
    Plain(String),
    Sign(char),
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::End => f.write_str("the end of the text"),
            Self::Name(name) => write!(f, "`{name}`"),
            Self::Quoted(text) => write!(f, "`\"{text}\"`"),
            Self::Plain(text) => write!(f, "`{}`", text.trim_end()),
            Self::Sign(sign) => write!(f, "`{sign}`"),
        }
    }
}

/// Why a part could not be read.
enum Fault {
    /// The text ended where a value or another item might have followed. HCL 1 takes it for the end of the items.
    End,
    /// The words make no sense. HCL 1 forgets it again if this happens at a closing brace.
    Wrong(Complaint),
    /// These are no words at all, or too many.
    Fatal(Complaint),
}

struct Parser<'a> {
    scanner: Scanner<'a>,
    /// The last one that was read.
    token: Token,
    /// Whether it is the next one, too.
    is_unread: bool,
    depth: usize,
}

impl Parser<'_> {
    fn complaint(&self, what: impl std::fmt::Display) -> Complaint {
        Complaint::at(self.scanner.line, what)
    }

    fn wrong(&self, what: impl std::fmt::Display) -> Fault {
        Fault::Wrong(self.complaint(what))
    }

    fn next(&mut self) -> Result<&Token, Fault> {
        if !std::mem::take(&mut self.is_unread) {
            self.token = self.scanner.next().map_err(Fault::Fatal)?;
        }
        Ok(&self.token)
    }

    fn peek(&mut self) -> Result<&Token, Fault> {
        self.next()?;
        self.is_unread = true;
        Ok(&self.token)
    }

    fn enter(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Fault::Fatal(self.complaint(format!("more than {DEEPEST} levels of braces and brackets"))));
        }
        Ok(())
    }

    /// Items up to a closing brace, or to the end. What was read before a fault is kept, as it may be forgotten.
    fn items(&mut self, is_object: bool) -> (Vec<Item>, Option<Fault>) {
        let mut items = Vec::new();
        loop {
            match self.maybe_item(is_object) {
                Ok(Some(item)) => items.push(item),
                Ok(None) | Err(Fault::End) => return (items, None),
                Err(fault) => return (items, Some(fault)),
            }
        }
    }

    fn maybe_item(&mut self, is_object: bool) -> Result<Option<Item>, Fault> {
        if is_object && *self.peek()? == Token::Sign('}') {
            return Ok(None);
        }
        let item = self.item()?;
        if *self.peek()? == Token::Sign(',') {
            self.is_unread = false;
        }
        Ok(Some(item))
    }

    fn item(&mut self) -> Result<Item, Fault> {
        let mut keys = Vec::new();
        loop {
            let (kind, raw) = match self.next()? {
                Token::Name(name) => (Kind::Bare, name.clone()),
                Token::Quoted(raw) => (Kind::Quoted, raw.clone()),
                Token::End if keys.is_empty() => return Err(Fault::End),
                Token::Sign('=') if keys.len() > 1 => return Err(self.wrong("`=` after more than one name")),
                Token::Sign('=' | '{') if !keys.is_empty() => break,
                Token::End | Token::Sign('}') if !keys.is_empty() => {
                    let fault = self.wrong(format!("{} follows a name; `{{` or `=` should", self.token));
                    self.token = Token::End;
                    return Err(fault);
                }
                other => {
                    let what = format!("{other} stands where a name should");
                    return Err(self.wrong(what));
                }
            };
            keys.push(Literal { kind, raw });
        }
        let value = if self.token == Token::Sign('=') { self.value()? } else { Value::Object(self.object()?) };
        Ok(Item { keys, value })
    }

    fn value(&mut self) -> Result<Value, Fault> {
        let literal = match self.next()? {
            Token::Plain(raw) => Literal { kind: Kind::Bare, raw: raw.clone() },
            Token::Quoted(raw) => Literal { kind: Kind::Quoted, raw: raw.clone() },
            Token::Sign('{') => return Ok(Value::Object(self.object()?)),
            Token::Sign('[') => return self.list(),
            Token::End => return Err(Fault::End),
            Token::Name(name) => {
                let what = format!("`{name}` needs quotes");
                return Err(self.wrong(what));
            }
            Token::Sign(sign) => {
                let what = format!("`{sign}` stands where a value should");
                return Err(self.wrong(what));
            }
        };
        Ok(Value::Literal(literal))
    }

    /// What follows an opening brace.
    fn object(&mut self) -> Result<Vec<Item>, Fault> {
        self.enter()?;
        let depth = self.depth;
        let (items, fault) = self.items(true);
        match fault {
            Some(Fault::Wrong(_)) if self.token == Token::Sign('}') => {}
            Some(fault) => return Err(fault),
            None => {}
        }
        if *self.next()? != Token::Sign('}') {
            let what = format!("{} stands where `}}` should", self.token);
            return Err(self.wrong(what));
        }
        // What a forgotten fault left open is closed.
        self.depth = depth - 1;
        Ok(items)
    }

    /// What follows an opening bracket.
    fn list(&mut self) -> Result<Value, Fault> {
        self.enter()?;
        let mut values = Vec::new();
        let mut needs_comma = false;
        loop {
            let token = self.next()?;
            let is_end = *token == Token::Sign(']');
            if needs_comma && !is_end && *token != Token::Sign(',') {
                let what = format!("{token} follows an element; `,` or `]` should");
                return Err(self.wrong(what));
            }
            match token {
                Token::Sign(']') => {
                    self.depth -= 1;
                    return Ok(Value::List(values));
                }
                Token::Sign(',') => {
                    needs_comma = false;
                    continue;
                }
                Token::Sign('[') => {
                    values.push(self.list()?);
                    continue;
                }
                Token::Sign('{') => {
                    let object = self.object()?;
                    values.push(Value::Object(object));
                }
                Token::Plain(raw) => {
                    values.push(Value::Literal(Literal { kind: Kind::Bare, raw: raw.clone() }));
                }
                Token::Quoted(raw) => {
                    values.push(Value::Literal(Literal { kind: Kind::Quoted, raw: raw.clone() }));
                }
                Token::Name(name) => {
                    let what = format!("`{name}` needs quotes");
                    return Err(self.wrong(what));
                }
                Token::Sign(_) | Token::End => {
                    let what = format!("{token} stands where an element should");
                    return Err(self.wrong(what));
                }
            }
            needs_comma = true;
        }
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Goes on by some bytes, whole characters.
    fn take(&mut self, length: usize) -> &'a str {
        let taken = &self.rest()[..length];
        self.at += length;
        self.line += taken.matches('\n').count();
        taken
    }

    fn complaint(&self, what: &str) -> Complaint {
        Complaint::at(self.line, what)
    }

    fn next(&mut self) -> Result<Token, Complaint> {
        loop {
            let rest = self.rest();
            let Some(first) = rest.chars().next() else { return Ok(Token::End) };
            return match first {
                ' ' | '\t' | '\n' | '\r' => {
                    self.take(rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len());
                    continue;
                }
                '#' | '/' => {
                    self.comment()?;
                    continue;
                }
                '"' => self.quoted(),
                '<' => self.lines(),
                '0'..='9' => self.number(0),
                '-' if rest[1..].starts_with(|next: char| next.is_ascii_digit()) => self.number(1),
                '.' if rest[1..].starts_with(|next: char| next.is_ascii_digit()) => self.number(0),
                '[' | ']' | '{' | '}' | ',' | '=' | '.' | '+' | '-' => {
                    self.take(1);
                    Ok(Token::Sign(first))
                }
                _ if is_letter(first) => {
                    let is_part = |next: char| is_letter(next) || is_digit(next) || next == '-' || next == '.';
                    let name = self.take(rest.find(|next| !is_part(next)).unwrap_or(rest.len())).to_owned();
                    Ok(if name == "true" || name == "false" { Token::Plain(name) } else { Token::Name(name) })
                }
                _ => Err(self.complaint(&format!("`{}` means nothing here", first.escape_debug()))),
            };
        }
    }

    fn comment(&mut self) -> Result<(), Complaint> {
        let rest = self.rest();
        let length = if rest.starts_with('#') || rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(inside) = rest.strip_prefix("/*") {
            inside.find("*/").ok_or_else(|| self.complaint("a comment that never ends"))? + 4
        } else {
            return Err(self.complaint("`/` begins no comment"));
        };
        self.take(length);
        Ok(())
    }

    /// Within `${…}` quotes and line ends are part of the text.
    fn quoted(&mut self) -> Result<Token, Complaint> {
        let unfinished = self.complaint("a text in quotes that never ends");
        let strange = self.complaint("an escape that means nothing");
        let rest = self.rest();
        let mut braces = 0_usize;
        let mut characters = rest.char_indices().skip(1).peekable();
        while let Some((at, character)) = characters.next() {
            match character {
                '\n' if braces == 0 => return Err(unfinished),
                '"' if braces == 0 => {
                    let raw = rest[1..at].to_owned();
                    self.take(at + 1);
                    return Ok(Token::Quoted(raw));
                }
                '$' if braces == 0 && characters.next_if(|(_, next)| *next == '{').is_some() => braces = 1,
                '{' if braces > 0 => braces += 1,
                '}' if braces > 0 => braces -= 1,
                '\\' => {
                    let (_, escape) = characters.next().ok_or_else(|| unfinished.clone())?;
                    let (radix, digits) = match escape {
                        'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' | '"' => (8, 0),
                        '0'..='7' => (8, 2),
                        'x' => (16, 2),
                        'u' => (16, 4),
                        'U' => (16, 8),
                        _ => return Err(strange),
                    };
                    for _ in 0..digits {
                        characters.next_if(|(_, next)| next.is_digit(radix)).ok_or_else(|| strange.clone())?;
                    }
                }
                _ => {}
            }
        }
        Err(unfinished)
    }

    /// `<<NAME`, lines, `NAME`. No rule has a value with a line's end, so it only has to be read over; without any line it
    /// is empty.
    fn lines(&mut self) -> Result<Token, Complaint> {
        let strange = self.complaint("`<` begins no text of lines: `<<NAME`, lines, `NAME`");
        let unfinished = self.complaint("a text of lines that never ends");
        let after = self.rest().strip_prefix("<<").ok_or_else(|| strange.clone())?;
        let (head, body) = after.split_once('\n').ok_or_else(|| unfinished.clone())?;
        let head = head.strip_suffix('\r').unwrap_or(head);
        let name = head.strip_prefix('-').unwrap_or(head);
        if name.is_empty() || !name.chars().all(|part| is_letter(part) || is_digit(part)) {
            return Err(strange);
        }
        let mut length = 0;
        for line in body.split_inclusive('\n') {
            let Some(whole) = line.strip_suffix('\n') else { break };
            let is_space = |character: char| matches!(character, ' ' | '\t' | '\r' | '\u{b}' | '\u{c}');
            // Counted with the hyphen of `<<-`: without indentation that ends no text.
            if whole.len() >= head.len() && whole.trim_end_matches('\r').trim_start_matches(is_space) == name {
                let text = body[..length].to_owned();
                let begin = after.len() - body.len();
                self.take(2 + begin + length + line.len());
                return Ok(Token::Plain(text));
            }
            length += line.len();
        }
        Err(unfinished)
    }

    /// A number after a sign of so many bytes. What it is worth does not matter, only what belongs to it.
    fn number(&mut self, sign: usize) -> Result<Token, Complaint> {
        let rest = &self.rest()[sign..];
        let digits = |text: &str| text.len() - text.trim_start_matches(|next: char| next.is_ascii_digit()).len();
        let exponent = |text: &str| match text.strip_prefix(['e', 'E']) {
            Some(after) => {
                let signed = after.strip_prefix(['+', '-']).unwrap_or(after);
                text.len() - signed.len() + digits(signed)
            }
            None => 0,
        };
        let length = if let Some(after) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let hexadecimal = after.len() - after.trim_start_matches(|next: char| next.is_ascii_hexdigit()).len();
            if hexadecimal == 0 {
                return Err(self.complaint("`0x` is no number"));
            }
            2 + hexadecimal
        } else {
            let whole = digits(rest);
            let after = &rest[whole..];
            let fraction = after.strip_prefix('.').map_or(0, |after| 1 + digits(after));
            let length = whole + fraction + exponent(&after[fraction..]);
            // HCL 1 looks at the digits after the second only.
            if length == whole && rest.starts_with('0') && rest[..whole].bytes().skip(2).any(|digit| digit > b'7') {
                return Err(self.complaint("a number that begins with 0 is octal"));
            }
            length
        };
        Ok(Token::Plain(self.take(sign + length).to_owned()))
    }
}

fn is_letter(character: char) -> bool {
    character == '_' || character.is_alphabetic()
}

fn is_digit(character: char) -> bool {
    character.is_ascii_digit() || !character.is_ascii() && character.is_numeric()
}
