//! Values written down: as a file that says the same (`config show`), and as the example file with every default.

use super::file::Block;
use super::settings::{self, Command, Setting};
use super::values::{Origin, shown};

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

/// The reference of everything that can be set, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(REFERENCE_HEAD);
    for command in Command::ALL.into_iter().filter(|command| *command != Command::Config) {
        let settings: Vec<&Setting> = settings::of(command).collect();
        if settings.is_empty() {
            continue;
        }
        let has_keys = command == Command::Serve;
        let operand = command.operand().map_or(String::new(), |(name, _)| format!(" {name}"));
        out.push_str(&format!("\n## `{command}{operand}`\n\n{}.\n\n", command.about()));
        if let Some((name, help)) = command.operand() {
            out.push_str(&format!("`{name}`: {}.\n\n", cell(help)));
        }
        let key = if has_keys { " Key |" } else { "" };
        let line = if has_keys { " --- |" } else { "" };
        out.push_str(&format!("| Flag | Variable |{key} Default | Meaning |\n| --- | --- |{line} --- | --- |\n"));
        for setting in settings {
            let value = setting.value.map_or(String::new(), |what| format!("={what}"));
            let key = match (has_keys, setting.name) {
                (false, _) => String::new(),
                (true, "config") => " |".to_owned(),
                (true, _) => format!(" `{}` |", setting.key()),
            };
            let default = setting.default.map_or(String::new(), |default| format!(" `{default}`"));
            out.push_str(&format!(
                "| `--{}{value}` | `{}` |{key}{default} | {} |\n",
                setting.name,
                setting.variable(),
                cell(setting.help)
            ));
        }
    }
    out.push_str(REFERENCE_PLUGIN);
    out
}

/// Text in a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

const REFERENCE_HEAD: &str = "\
# Everything that can be set

This page is written by a test from the table in `src/config/settings.rs`.

A value is looked for in this order, and the first one counts; lists do not add up:

1. the flag, `--poll-interval=10s` (one dash or two; `--name value` does as well);
2. its variable, `CSI_GATEWAY_POLL_INTERVAL` (an empty one is none; several values with commas);
3. its key in the file that `--config` or `CSI_GATEWAY_CONFIG` names, `poll_interval = \"10s\"`;
4. the default.

A file configures the service: `serve`, and `doctor`, `healthcheck` and `config`, which ask what `serve` would do. It is HCL, or JSON with the
same keys; texts stand in quotes, nothing is interpolated. `deploy/csi-gateway.hcl` has every key with its default. Flags of the other
commands are no keys.

`csi-gateway config check` (with the flags of `serve`) names everything that is wrong, with file and line, and exits with 2 then; `csi-gateway config show`
prints every value with its origin, as a file that says the same. Secrets are never values: flags and keys name the files that hold them.

Durations are Go's: `500ms`, `30s`, `1m30s`.
";

const REFERENCE_PLUGIN: &str = "
## The block `plugin \"ID\" { … }`

In a file only. In JSON: `{\"plugin\": {\"ID\": { … }}}`.

| Key | Value | Meaning |
| --- | --- | --- |
| `socket` | address | a driver's socket, watched as one of `--csi-address` is, under this id |
| `type` | `controller`, `node`, `monolith`, `auto` | what is expected to answer there; default `auto` |
| `nodes_expected` | number | nodes there should be, instead of those that were seen |
| `controllers_expected` | number | the same of controllers |
| `host_selector` | pattern on host ids: `*` is any text, `?` one character | a node is expected on each of these hosts; not beside `nodes_expected`. A single host expects one if it is meant, and has nothing to say if not |

A plugin with a declared number is listed from the start, with nothing up as well; `ExpectedSource` in `/v1/gateway/plugin/ID` is `declared` then.
";
