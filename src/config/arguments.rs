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
    /// Names of flags that other programs take and that do nothing here.
    pub idle: Vec<&'static str>,
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
        if command == Command::Sidecar
            && let Some(idle) = IDLE.iter().find(|idle| idle.name == name)
        {
            if idle.has_value && value.is_none() {
                arguments.next();
            }
            if idle.is_deprecated {
                typed.idle.push(idle.name);
            }
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

/// A flag that livenessprobe takes, or once took, and that has nothing to do here.
struct Idle {
    name: &'static str,
    has_value: bool,
    /// Gone from livenessprobe itself.
    is_deprecated: bool,
}

const fn idle(name: &'static str, has_value: bool, is_deprecated: bool) -> Idle {
    Idle { name, has_value, is_deprecated }
}

const IDLE: &[Idle] = &[
    idle("automaxprocs", false, false),
    idle("feature-gates", true, false),
    idle("log-flush-frequency", true, false),
    idle("log-json-info-buffer-size", true, false),
    idle("log-json-split-stream", false, false),
    idle("log-text-info-buffer-size", true, false),
    idle("log-text-split-stream", false, false),
    idle("vmodule", true, false),
    idle("connection-timeout", true, true),
    idle("add_dir_header", false, true),
    idle("alsologtostderr", false, true),
    idle("log_backtrace_at", true, true),
    idle("log_dir", true, true),
    idle("log_file", true, true),
    idle("log_file_max_size", true, true),
    idle("logtostderr", false, true),
    idle("one_output", false, true),
    idle("skip_headers", false, true),
    idle("skip_log_headers", false, true),
    idle("stderrthreshold", true, true),
];

/// Why a flag of another sidecar is no flag of ours.
fn foreign(name: &str) -> Option<&'static str> {
    if name.starts_with("leader-election") || name.starts_with("kube-api-") || name == "kubeconfig" {
        return Some(
            "nothing here talks to Kubernetes' API, so there is nothing to elect or to log in to; leave it out",
        );
    }
    match name {
        "kubelet-registration-path" | "plugin-registration-path" => {
            Some("a driver is registered by node-driver-registrar, whose place this does not take; keep that container")
        }
        "worker-threads" | "retry-interval-start" | "retry-interval-max" | "resync" => {
            Some("it belongs to a controller of volumes, whose place this does not take; keep that container")
        }
        "enable-pprof" => Some("it belongs to Go's runtime; --http-endpoint has metrics"),
        _ => None,
    }
}

fn unknown(command: Command, name: &str) -> String {
    if let Some(hint) = foreign(name) {
        return format!("flag --{name} cannot be fulfilled: {hint}");
    }
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
