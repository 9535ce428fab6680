//! Defaults < environment < flags, and every problem in one report.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::settings::{self, Command, Setting};
use super::{Demo, Doctor, Fleet, Forget, Logging, Probe, Serve, Sources, Status};
use crate::domain::id::{HostId, PluginId};
use crate::domain::socket::RoleChoice;
use crate::domain::{address, duration};

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody gave one.
    Default,
    /// This environment variable.
    Variable(String),
    /// This flag.
    Flag(String),
    /// This operand.
    Operand(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
            Self::Operand(name) => write!(f, "argument {name}"),
        }
    }
}

/// Everything that is wrong with an invocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.0.iter().enumerate() {
            if place > 0 {
                writeln!(f)?;
            }
            write!(f, "error: {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

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
    let allowed = usize::from(command.operand().is_some());
    for operand in typed.operands.iter().skip(allowed) {
        problems.0.push(format!("unexpected argument `{operand}` after `{command}`"));
    }
    typed
}

fn unknown(command: Command, name: &str) -> String {
    let elsewhere = settings::SETTINGS.iter().find(|setting| setting.name == name);
    if let Some(setting) = elsewhere {
        let commands: Vec<String> = setting.commands.iter().map(|command| format!("`{command}`")).collect();
        return format!("flag --{name} does not belong to `{command}`, but to {}", commands.join(", "));
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

/// Values with their origins, and the problems met while reading them.
struct Values<'a> {
    command: Command,
    typed: &'a Typed,
    variable: &'a dyn Fn(&str) -> Option<String>,
    problems: Problems,
}

impl Values<'_> {
    /// The values of a setting: flags win over the variable, which wins over the default.
    fn all(&self, name: &str) -> Vec<(String, Origin)> {
        let Some(setting) = settings::of(self.command).find(|setting| setting.name == name) else { return Vec::new() };
        if let Some(values) = self.typed.flags.get(name) {
            // As in Go, the last one counts where only one can.
            let first = if setting.is_repeatable { 0 } else { values.len().saturating_sub(1) };
            return values[first..].iter().map(|value| (value.clone(), Origin::Flag(name.to_owned()))).collect();
        }
        let variable = setting.variable();
        match (self.variable)(&variable).filter(|value| !value.is_empty()) {
            Some(value) if setting.is_repeatable => {
                value.split(',').map(|value| (value.trim().to_owned(), Origin::Variable(variable.clone()))).collect()
            }
            Some(value) => vec![(value, Origin::Variable(variable))],
            None => default(setting),
        }
    }

    fn wrong(&mut self, origin: &Origin, value: &str, what: impl fmt::Display) {
        self.problems.0.push(format!("{origin}: `{value}` {what}"));
    }

    fn parse<T>(&mut self, name: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (value, origin) = self.all(name).pop()?;
        match read(&value) {
            Ok(value) => Some(value),
            Err(what) => {
                self.wrong(&origin, &value, what);
                None
            }
        }
    }

    fn duration(&mut self, name: &str) -> Duration {
        self.parse(name, positive).unwrap_or_default()
    }

    fn count(&mut self, name: &str, smallest: u32, largest: u32) -> Option<u32> {
        self.parse(name, |text| match text.parse() {
            Ok(count) if (smallest..=largest).contains(&count) => Ok(count),
            _ => Err(format!("is no number from {smallest} to {largest}")),
        })
    }

    fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        self.parse(name, |text| match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                Err(format!("is none of {}", words.join(", ")))
            }
        })
    }

    fn role(&mut self) -> RoleChoice {
        let roles = [RoleChoice::Controller, RoleChoice::Node, RoleChoice::Monolith, RoleChoice::Auto];
        self.word("plugin-type", &roles.map(|role| (role.as_str(), role))).unwrap_or_default()
    }

    fn logging(&mut self) -> Logging {
        let verbosity = self.count("v", 0, 10).and_then(|level| u8::try_from(level).ok()).unwrap_or_default();
        let is_json = self.word("logging-format", &[("text", false), ("json", true)]).unwrap_or_default();
        Logging { verbosity, is_json }
    }

    fn endpoints(&mut self) -> Vec<String> {
        let mut endpoints = Vec::new();
        for (value, origin) in self.all("http-endpoint") {
            let is_unix = value.strip_prefix("unix:").is_some_and(|path| path.contains('/'));
            let is_tcp = value.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            if is_unix || is_tcp {
                endpoints.push(value);
            } else {
                self.wrong(&origin, &value, "is no address: HOST:PORT, :PORT or unix:///PATH");
            }
        }
        endpoints
    }

    /// Whom to ask.
    fn address(&mut self) -> String {
        let (address, origin) = self.all("address").pop().unwrap_or_else(|| (String::new(), Origin::Default));
        if !address.starts_with("http://") && !address.starts_with("unix:") {
            self.wrong(&origin, &address, "is no address: http://HOST:PORT or unix:///PATH");
        }
        address
    }

    /// Names and addresses without port, as they are compared.
    fn hosts(&mut self) -> Vec<String> {
        let mut hosts = Vec::new();
        for (value, origin) in self.all("allowed-hosts") {
            // Several in one flag, too.
            for name in value.split(',').map(str::trim) {
                match host_name(name) {
                    Some(name) => hosts.push(name),
                    None => self.wrong(&origin, name, "is no name or address without scheme, port and path"),
                }
            }
        }
        hosts
    }

    fn finish<T>(self, value: T) -> Result<T, Problems> {
        if self.problems.0.is_empty() { Ok(value) } else { Err(self.problems) }
    }
}

/// A host name in lower case, or an IP address, an IPv6 one with or without brackets.
fn host_name(text: &str) -> Option<String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<std::net::IpAddr>() {
        return Some(address.to_string());
    }
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!text.is_empty() && text.chars().all(is_legal)).then(|| text.trim_end_matches('.').to_ascii_lowercase())
}

fn default(setting: &Setting) -> Vec<(String, Origin)> {
    setting.default.map(|value| (value.to_owned(), Origin::Default)).into_iter().collect()
}

fn positive(text: &str) -> Result<Duration, String> {
    match duration::parse(text).and_then(|nanos| u64::try_from(nanos).ok()) {
        Some(nanos) if nanos > 0 => Ok(Duration::from_nanos(nanos)),
        _ => Err("is no duration above 0, such as 500ms, 30s or 1m30s".to_owned()),
    }
}

fn values<'a>(
    command: Command,
    typed: &'a Typed,
    variable: &'a dyn Fn(&str) -> Option<String>,
    problems: Problems,
) -> Values<'a> {
    Values { command, typed, variable, problems }
}

/// Where to look variables up: the process's environment, or a made one in tests.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where drivers are looked for.
fn sources(values: &mut Values<'_>) -> Sources {
    let mut sources = Sources::default();
    let directory = |text: &str| match std::path::absolute(text) {
        Ok(path) if !text.is_empty() => Ok(path),
        _ => Err("is no directory".to_owned()),
    };
    sources.kubelet_directory = values.parse("kubelet-dir", directory);
    sources.nomad_directory = values.parse("nomad-state-dir", directory);
    sources.host_root = values.parse("host-root", directory);
    for (value, origin) in values.all("csi-plugins-dir") {
        match directory(&value) {
            Ok(path) => sources.plugins_directories.push(path),
            Err(what) => values.wrong(&origin, &value, what),
        }
    }
    let given = values.all("csi-address");
    let is_told = !given.is_empty()
        || ["csi-plugins-dir", "kubelet-dir", "nomad-state-dir"].iter().any(|name| !values.all(name).is_empty());
    sources.searches_well_known_places = !is_told;
    for (value, origin) in given {
        match address::parse(&value) {
            Ok(path) if sources.addresses.contains(&path) => {}
            Ok(path) => sources.addresses.push(path),
            Err(error) => values.wrong(&origin, &value, error),
        }
    }
    // What drivers and some sidecars read; Nomad sets it in the tasks of its plugins.
    if let Some(value) = (values.variable)(ENDPOINT).filter(|value| !is_told && !value.is_empty()) {
        match address::parse(&value) {
            Ok(path) => sources.addresses.push(match &sources.host_root {
                Some(root) => root.join(path.strip_prefix("/").unwrap_or(&path)),
                None => path,
            }),
            Err(error) => values.wrong(&Origin::Variable(ENDPOINT.to_owned()), &value, error),
        }
    }
    sources
}

/// What `serve` runs with.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn serve(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Serve, Problems> {
    let mut values = values(Command::Serve, typed, variable, problems);
    let before = values.problems.0.len();
    let sources = sources(&mut values);
    // A wrong address is an address, too: nobody is told to give one who did.
    let count = sources.addresses.len() + values.problems.0.len() - before;
    let plugin = values.parse("plugin-id", |text| PluginId::parse(text).map_err(|error| error.to_string()));
    let role = values.role();
    if count != 1 {
        for name in ["plugin-id", "plugin-type"] {
            if let Some((value, origin)) = values.all(name).into_iter().find(|(_, origin)| *origin != Origin::Default) {
                values.wrong(&origin, &value, format!("needs exactly one --csi-address, and there are {count}"));
            }
        }
    }
    let config =
        Serve {
            sources,
            plugin,
            role,
            host: values.parse("host-id", |text| HostId::parse(text).map_err(|error| error.to_string())),
            poll_interval: values.duration("poll-interval"),
            probe_timeout: values.duration("probe-timeout"),
            timeout: values.duration("timeout"),
            endpoints: values.endpoints(),
            state_directory: values.parse("state-dir", |text| Ok(PathBuf::from(text))),
            is_documented_shape: values
                .word("api-read-shape", &[("nomad", false), ("documented", true)])
                .unwrap_or_default(),
            region: values
                .parse("region", |text| {
                    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
                })
                .unwrap_or_default(),
            max_connections_per_client: values.count("max-conns-per-client", 0, u32::MAX).unwrap_or_default(),
            history: values.count("history", 0, 10_000).unwrap_or_default() as usize,
            retire_gone: values.duration("retire-gone"),
            retire_lost: values.duration("retire-lost"),
            allowed_hosts: values.hosts(),
            logging: values.logging(),
        };
    values.finish(config)
}

/// What `probe` runs with. The socket is the operand, `--csi-address`, or what the sidecars take without a flag.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn probe(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Probe, Problems> {
    let mut values = values(Command::Probe, typed, variable, problems);
    let mut given = values.all("csi-address");
    if let Some(value) = typed.operands.first() {
        // A variable, set for `serve` perhaps, is no second socket.
        given.retain(|(_, origin)| matches!(origin, Origin::Flag(_)));
        given.push((value.clone(), Origin::Operand("SOCKET")));
    }
    if given.len() > 1 {
        values.problems.0.push(format!("one socket can be probed at a time, and {} are given", given.len()));
    }
    let (value, origin) = given.pop().unwrap_or_else(|| (DEFAULT_ADDRESS.to_owned(), Origin::Default));
    let socket = match address::parse(&value) {
        Ok(path) => path,
        Err(error) => {
            values.wrong(&origin, &value, error);
            PathBuf::new()
        }
    };
    let config = Probe {
        address: socket,
        role: values.role(),
        probe_timeout: values.duration("probe-timeout"),
        timeout: values.duration("timeout"),
        is_json: values.parse("json", boolean).unwrap_or_default(),
    };
    values.finish(config)
}

/// Where a CSI driver finds the socket that it is to listen on.
const ENDPOINT: &str = "CSI_ENDPOINT";
/// The address that every CSI sidecar takes without a flag.
const DEFAULT_ADDRESS: &str = "/run/csi/socket";

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

/// What `status` runs with.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn status(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Status, Problems> {
    let mut values = values(Command::Status, typed, variable, problems);
    let config = Status { address: values.address(), plugin: typed.operands.first().cloned() };
    values.finish(config)
}

/// What `forget` runs with.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn forget(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Forget, Problems> {
    let mut values = values(Command::Forget, typed, variable, problems);
    let plugin = typed.operands.first().cloned().unwrap_or_default();
    if plugin.is_empty() {
        values.problems.0.push("no plugin to forget: give its id, `csi-gateway forget PLUGIN`".to_owned());
    }
    let host = values.parse("host", |text| HostId::parse(text).map_err(|error| error.to_string()));
    let config = Forget { address: values.address(), plugin, host };
    values.finish(config)
}

/// What `doctor` runs with: the operand, or what `serve` would watch, or what the sidecars take without a flag.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn doctor(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Doctor, Problems> {
    let mut values = values(Command::Doctor, typed, variable, problems);
    let sources = match typed.operands.first() {
        Some(operand) => match address::parse(operand) {
            Ok(path) => Sources { addresses: vec![path], ..Sources::default() },
            Err(error) => {
                values.problems.0.push(format!("socket `{operand}` {error}"));
                Sources::default()
            }
        },
        None => sources(&mut values),
    };
    let config = Doctor {
        sources,
        role: values.role(),
        probe_timeout: values.duration("probe-timeout"),
        timeout: values.duration("timeout"),
        is_json: values.parse("json", boolean).unwrap_or_default(),
    };
    values.finish(config)
}

/// What `demo` runs with.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn demo(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Demo, Problems> {
    let mut values = values(Command::Demo, typed, variable, problems);
    let (hosts, plugins) = (values.count("hosts", 1, 100_000), values.count("plugins", 1, 100_000));
    let flap = values.parse("flap", positive);
    if hosts.is_none() && plugins.is_none() && flap.is_some() {
        values.problems.0.push("flag --flap needs a made fleet: --hosts=COUNT, --plugins=COUNT or both".to_owned());
    }
    let fleet = (hosts.is_some() || plugins.is_some()).then(|| Fleet {
        hosts: hosts.unwrap_or(1),
        plugins: plugins.unwrap_or(1),
        flap,
    });
    let driver_only = values.parse("driver-only", |text| address::parse(text).map_err(|error| error.to_string()));
    let config = Demo { endpoints: values.endpoints(), fleet, driver_only, logging: values.logging() };
    values.finish(config)
}
