//! What was typed, as Go's flag package takes it: one dash or two, `-name=value` or `-name value`.

use std::collections::BTreeMap;

use super::settings::{self, Command};
use super::values::Problems;
use crate::domain::text::escaped;

/// What was typed: flags by name, operands in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Typed {
    /// Values of flags, each in the order in which it was given.
    pub flags: BTreeMap<&'static str, Vec<String>>,
    /// What is no flag.
    pub operands: Vec<String>,
    /// Whether help was asked for.
    pub wants_help: bool,
}

/// Reads arguments as Go's flag package does: one dash or two, `-name=value` or `-name value`.
pub fn scan(command: Command, arguments: &[String], problems: &mut Problems) -> Typed {
    let mut typed = Typed::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            typed.operands.push(argument.clone());
            continue;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        if flag.is_empty() {
            typed.operands.extend(arguments.by_ref().cloned());
            break;
        }
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        if matches!(name, "help" | "h") {
            typed.wants_help = true;
            continue;
        }
        let Some(setting) = settings::of(command).find(|setting| setting.name == name) else {
            problems.0.push(unknown(command, name));
            continue;
        };
        let value = match (setting.value, value) {
            (_, Some(value)) => value,
            (None, None) => "true".to_owned(),
            (Some(what), None) => match arguments.next() {
                Some(value) => value.clone(),
                None => {
                    problems.0.push(format!("flag --{name} needs a value: --{name}={what}"));
                    continue;
                }
            },
        };
        typed.flags.entry(setting.name).or_default().push(value);
    }
    let allowed = if command == Command::Acl { usize::MAX } else { usize::from(command.operand().is_some()) };
    for operand in typed.operands.iter().skip(allowed) {
        problems.0.push(format!("unexpected argument `{}` after `{command}`", escaped(operand)));
    }
    typed
}

fn unknown(command: Command, name: &str) -> String {
    let name = &*escaped(name);
    let elsewhere: Vec<String> = settings::SETTINGS
        .iter()
        .filter(|setting| setting.name == name)
        .flat_map(|setting| setting.commands.iter().map(|command| format!("`{command}`")))
        .collect();
    if !elsewhere.is_empty() {
        return format!("flag --{name} does not belong to `{command}`, but to {}", elsewhere.join(", "));
    }
    match nearest(name, settings::of(command).map(|setting| setting.name)) {
        Some(near) => format!("unknown flag --{name} for `{command}`; did you mean --{near}?"),
        None => format!("unknown flag --{name} for `{command}`; `csi-gateway {command} --help` lists them"),
    }
}

/// The candidate that is most like a name, if one is.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}
