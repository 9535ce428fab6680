//! Values written down: as a file that says the same (`config show`), and as the example file with every default.

use super::file::Block;
use super::load::{Origin, shown};
use super::settings::{self, Setting};

/// Widest comment, in characters.
const WIDTH: usize = 110;
/// Where origins stand, unless a value is longer.
const COLUMN: usize = 44;

/// Every setting with its values and their origin, then the blocks. It reads as a configuration file.
pub(super) fn text(all: &[(&Setting, Vec<(String, Origin)>)], blocks: &[Block]) -> String {
    let mut out = String::new();
    for (setting, values) in all {
        let (line, origin) = match values.as_slice() {
            [] if setting.is_repeatable => (format!("{} = []", setting.key()), "not set".to_owned()),
            [] => (format!("# {}", setting.key()), "not set".to_owned()),
            [(_, origin), ..] => (assignment(setting, values.iter().map(|(value, _)| value.as_str())), told(origin)),
        };
        out.push_str(&format!("{line:<COLUMN$} # {origin}\n"));
    }
    for block in blocks {
        out.push_str(&format!("\nplugin {} {{ # {}\n", quoted(&block.label), block.place));
        for entry in &block.entries {
            let value = entry.values.first().map_or("", |(value, _)| value);
            let value = if entry.key.ends_with("_expected") { value.to_owned() } else { quoted(value) };
            out.push_str(&format!("  {} = {value}\n", entry.key));
        }
        out.push_str("}\n");
    }
    out
}

/// An origin, without the key that stands on the line already.
fn told(origin: &Origin) -> String {
    match origin {
        Origin::File { place, .. } => place.to_string(),
        other => other.to_string(),
    }
}

fn assignment<'a>(setting: &Setting, values: impl Iterator<Item = &'a str>) -> String {
    let mut values: Vec<String> = values.map(|value| literal(setting, value)).collect();
    let value =
        if setting.is_repeatable { format!("[{}]", values.join(", ")) } else { values.pop().unwrap_or_default() };
    format!("{} = {value}", setting.key())
}

fn literal(setting: &Setting, value: &str) -> String {
    let is_bare = match setting.value {
        None => matches!(value, "true" | "false"),
        Some("COUNT" | "LEVEL") => value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty(),
        Some(_) => false,
    };
    if is_bare { value.to_owned() } else { quoted(&hidden(value)) }
}

/// The value without the password of an URL; everything else as it is.
fn hidden(value: &str) -> String {
    if value.contains("://") && value.contains('@') { shown(value) } else { value.to_owned() }
}

/// A text as HCL writes it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '$' | '%' if rest.peek() == Some(&'{') => out.extend([character, character]),
            character if character.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            character => out.push(character),
        }
    }
    out.push('"');
    out
}

/// The example file: every key of the table with its default, and what it means.
#[must_use]
pub fn example() -> String {
    let mut out = String::from(EXAMPLE_HEAD);
    for setting in settings::keys() {
        out.push('\n');
        comment(&mut out, setting.help);
        match setting.default {
            Some(default) => out.push_str(&assignment(setting, std::iter::once(default))),
            None => {
                let what = setting.value.map_or("true", |what| what);
                out.push_str("# ");
                out.push_str(&assignment(setting, std::iter::once(what)));
            }
        }
        out.push('\n');
    }
    out.push_str(EXAMPLE_PLUGIN);
    out
}

fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + word.len() >= WIDTH {
            out.push_str(&line);
            out.push('\n');
            "#".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

const EXAMPLE_HEAD: &str = "\
# Configuration of `csi-gateway serve --config=FILE`, with every key and its default. What has none is a comment.
# `csi-gateway config check --config=FILE` says what is wrong, `config show` what counts and where it comes from.
# A variable (CSI_GATEWAY_POLL_INTERVAL) wins over a key (poll_interval), a flag (--poll-interval) over both.
# Durations are Go's: 500ms, 30s, 1m30s. JSON with the same keys does as well.
";

const EXAMPLE_PLUGIN: &str = "
# What should be there, whatever is found: how many nodes and controllers of a plugin, or on which hosts (a pattern
# of `*` and `?`) a node should run. A socket is watched as one of --csi-address is, under this id.
#
# plugin \"ebs\" {
#   socket               = \"unix:///run/csi/ebs.sock\"
#   type                 = \"node\" # controller, node, monolith or auto
#   nodes_expected       = 5
#   controllers_expected = 2
# }
#
# plugin \"nfs\" {
#   host_selector = \"storage-*\"
# }
";
