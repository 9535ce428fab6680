//! Defaults < file < environment < flags, and every problem in one report.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::arguments::{Typed, nearest};
use super::file::{self, Block, Entry, File, Place};
use super::settings::{self, Command, Setting};
use super::{
    Asking, Completion, Declared, Demo, Doctor, Enough, Fleet, Forget, Healthcheck, History, Logging, Probe, Serve,
    Shell, Sources, Status, Token, Wait,
};
use crate::domain::expected::{Declaration, DeclaredNodes, HostPattern};
use crate::domain::id::{HostId, PluginId};
use crate::domain::socket::RoleChoice;
use crate::domain::text::escaped;
use crate::domain::{address, duration};

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody gave one.
    Default,
    /// This key of the configuration file.
    File {
        /// Where it stands.
        place: Place,
        /// The key, after its block's name if it is in one.
        key: String,
    },
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
            Self::File { place, key } => write!(f, "{place}: {key}"),
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
            // Whatever went into it, it stays a line.
            write!(f, "error: {}", escaped(problem))?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Values with their origins, and the problems met while reading them.
struct Values<'a> {
    command: Command,
    typed: &'a Typed,
    variable: Variables<'a>,
    file: File,
    problems: Problems,
}

impl<'a> Values<'a> {
    fn new(command: Command, typed: &'a Typed, variable: Variables<'a>, problems: Problems) -> Self {
        let mut values = Self { command, typed, variable, file: File::default(), problems };
        if let Some((path, _)) = values.all("config").pop() {
            values.file = file::read(Path::new(&path), &mut values.problems);
            values.check_keys();
        }
        values
    }

    /// The values of a setting: flags win over the variable, which wins over the file, which wins over the default.
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
            None => self.of_file(setting).unwrap_or_else(|| default(setting)),
        }
    }

    fn of_file(&self, setting: &Setting) -> Option<Vec<(String, Origin)>> {
        let entry = self.file.entries.iter().find(|entry| setting.has_key(&entry.key))?;
        let origin = |place: &Place| Origin::File { place: place.clone(), key: entry.key.clone() };
        Some(entry.values.iter().map(|(value, place)| (value.clone(), origin(place))).collect())
    }

    /// Takes keys out that are none, or have several values where one is allowed, and says so.
    fn check_keys(&mut self) {
        let mut entries = std::mem::take(&mut self.file.entries);
        entries.retain(|entry| match settings::keys().find(|setting| setting.has_key(&entry.key)) {
            Some(setting) => self.has_right_number(entry, setting.is_repeatable),
            None => {
                self.problems.0.push(format!("{}: {}", entry.place, unknown_key(&entry.key)));
                false
            }
        });
        self.file.entries = entries;
    }

    fn has_right_number(&mut self, entry: &Entry, is_repeatable: bool) -> bool {
        let is_right = is_repeatable || !entry.is_list;
        if !is_right {
            self.problems.0.push(format!("{}: {}: takes one value, and no list", entry.place, entry.key));
        }
        is_right
    }

    fn wrong(&mut self, origin: &Origin, value: &str, what: impl fmt::Display) {
        self.problems.0.push(format!("{origin}: `{}` {what}", shown(value)));
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
        self.parse(name, |text| number(text, smallest, largest))
    }

    fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        self.parse(name, |text| one_of(text, words))
    }

    fn role(&mut self) -> RoleChoice {
        self.word("plugin-type", &ROLES).unwrap_or_default()
    }

    /// Blocks that declare plugins.
    fn plugins(&self) -> impl Iterator<Item = &Block> {
        self.file.blocks.iter().filter(|block| block.kind == "plugin")
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

    /// Whom to ask, and with which token.
    fn asking(&mut self) -> Asking {
        let (address, origin) = self.all("address").pop().unwrap_or_else(|| (String::new(), Origin::Default));
        let is_tcp = address.strip_prefix("http://").is_some_and(is_host_and_port);
        let is_unix = address.strip_prefix("unix:").is_some_and(|path| path.starts_with('/'));
        if address.starts_with("https:") {
            // TLS of the client side begins here, and in `commands::http`.
            self.wrong(
                &origin,
                &address,
                "asks for TLS, which this version does not speak: http://HOST:PORT or unix:///PATH",
            );
        } else if !is_tcp && !is_unix {
            self.wrong(&origin, &address, "is no address: http://HOST:PORT or unix:///PATH");
        }
        Asking { address, token: self.token() }
    }

    /// The token of a file, else of `NOMAD_TOKEN`. No text of an error holds it.
    fn token(&mut self) -> Option<Token> {
        let Some((path, origin)) = self.all("token-file").pop() else {
            let value = (self.variable)("NOMAD_TOKEN").filter(|value| !value.trim().is_empty())?;
            let token = Token::parse(&value);
            if token.is_none() {
                self.problems
                    .0
                    .push("variable NOMAD_TOKEN: is no token: letters, digits and signs in one line".to_owned());
            }
            return token;
        };
        match std::fs::read_to_string(&path).map(|text| Token::parse(&text)) {
            Ok(Some(token)) => Some(token),
            Ok(None) => {
                self.wrong(&origin, &path, "holds no token: letters, digits and signs in one line");
                None
            }
            Err(error) => {
                self.wrong(&origin, &path, format!("cannot be read: {error}"));
                None
            }
        }
    }

    /// The operand as a plugin's id; `what` is done with it.
    fn plugin(&mut self, what: &str) -> Option<PluginId> {
        let Some(text) = self.typed.operands.first() else {
            let command = self.command;
            self.problems.0.push(format!("no plugin to {what}: give its id, `csi-gateway {command} PLUGIN`"));
            return None;
        };
        match PluginId::parse(text) {
            Ok(id) => Some(id),
            Err(error) => {
                self.wrong(&Origin::Operand("PLUGIN"), text, error);
                None
            }
        }
    }

    fn is_on(&mut self, name: &str) -> bool {
        self.parse(name, boolean).unwrap_or_default()
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

    /// The same, of a value that is missing only where a problem says why.
    fn finish_some<T>(self, value: Option<T>) -> Result<T, Problems> {
        match value {
            Some(value) => self.finish(value),
            None => Err(self.problems),
        }
    }
}

/// A value as a message shows it: on one line, not endless, without the password of an URL.
pub(super) fn shown(value: &str) -> String {
    const LONGEST: usize = 200;
    let hidden = match value.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, rest)) => format!("{scheme}://…@{rest}"),
        None => value.to_owned(),
    };
    let mut text = escaped(&hidden).into_owned();
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// What is said of a key that the file must not have.
fn unknown_key(key: &str) -> String {
    let elsewhere = settings::SETTINGS.iter().find(|setting| setting.has_key(key));
    let key = escaped(key);
    if let Some(setting) = elsewhere {
        return match setting.name {
            "config" => "key config: a file cannot name another one".to_owned(),
            _ => format!("key {key} does not belong in a file, but as a flag to `{}`", setting.commands[0]),
        };
    }
    let keys: Vec<String> = settings::keys().map(Setting::key).collect();
    match nearest(&key.replace('-', "_"), keys.iter().map(String::as_str)) {
        Some(near) => format!("unknown key {key}; did you mean {near}?"),
        None => format!("unknown key {key}; `csi-gateway config show` lists them"),
    }
}

/// Whether a text is `HOST:PORT`.
fn is_host_and_port(text: &str) -> bool {
    text.trim_end_matches('/').rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
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

/// Where to look variables up: the process's environment, or a made one in tests.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Whether a flag, a variable or a key says where drivers are.
fn is_told(values: &Values<'_>) -> bool {
    let names = ["csi-address", "csi-plugins-dir", "kubelet-dir", "nomad-state-dir"];
    names.iter().any(|name| !values.all(name).is_empty())
        || values.plugins().any(|block| block.entries.iter().any(|entry| entry.key == "socket"))
}

/// What drivers and some sidecars read; Nomad sets it in the tasks of its plugins.
fn endpoint(values: &Values<'_>) -> Option<String> {
    (values.variable)(ENDPOINT).filter(|value| !value.is_empty())
}

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
    let is_told = is_told(values);
    sources.searches_well_known_places = !is_told;
    for (value, origin) in given {
        match address::parse(&value) {
            Ok(path) if sources.addresses.contains(&path) => {}
            Ok(path) => sources.addresses.push(path),
            Err(error) => values.wrong(&origin, &value, error),
        }
    }
    if let Some(value) = endpoint(values).filter(|_| !is_told) {
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

/// What `serve` runs with, or what `config` says that it would.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn serve(command: Command, typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Serve, Problems> {
    let mut values = Values::new(command, typed, variable, problems);
    let config = served(&mut values);
    values.finish(config)
}

/// Every value of `serve` with its origin, as a file that says the same.
///
/// # Errors
/// As [`serve`].
pub fn show(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<String, Problems> {
    let mut values = Values::new(Command::Config, typed, variable, problems);
    let config = served(&mut values);
    let all: Vec<_> = settings::keys().map(|setting| (setting, values.all(setting.name))).collect();
    let mut text = super::show::text(&all, &values.file.blocks);
    if let Some(endpoint) = endpoint(&values).filter(|_| !is_told(&values)) {
        text.push_str(&format!("\n# {ENDPOINT} names a socket that is watched, too: {}\n", shown(&endpoint)));
    }
    values.finish(config).map(|_| text)
}

/// The file that is read, if one is.
pub fn file_of(typed: &Typed, variable: Variables<'_>) -> Option<String> {
    let values =
        Values { command: Command::Config, typed, variable, file: File::default(), problems: Problems::default() };
    values.all("config").pop().map(|(path, _)| path)
}

fn served(values: &mut Values<'_>) -> Serve {
    let before = values.problems.0.len();
    let sources = sources(values);
    // A wrong address is an address, too: nobody is told to give one who did.
    let count = sources.addresses.len() + values.problems.0.len() - before;
    let plugin = values.parse("plugin-id", |text| PluginId::parse(text).map_err(|error| error.to_string()));
    let role = values.role();
    if count != 1 {
        // `auto` declares nothing, as the default does.
        let is_declared =
            |(value, origin): &(String, Origin)| *origin != Origin::Default && value != RoleChoice::Auto.as_str();
        for name in ["plugin-id", "plugin-type"] {
            if let Some((value, origin)) = values.all(name).into_iter().find(is_declared) {
                values.wrong(&origin, &value, format!("needs exactly one --csi-address, and there are {count}"));
            }
        }
    }
    let plugins = plugins(values, &sources);
    Serve {
        sources,
        plugin,
        role,
        plugins,
        host: values.parse("host-id", |text| HostId::parse(text).map_err(|error| error.to_string())),
        poll_interval: values.duration("poll-interval"),
        probe_timeout: values.duration("probe-timeout"),
        timeout: values.duration("timeout"),
        endpoints: values.endpoints(),
        state_directory: values.parse("state-dir", |text| Ok(PathBuf::from(not_empty(text)?))),
        is_documented_shape: values
            .word("api-read-shape", &[("nomad", false), ("documented", true)])
            .unwrap_or_default(),
        region: values.parse("region", not_empty).unwrap_or_default(),
        history: values.count("history", 0, 10_000).unwrap_or_default() as usize,
        retire_gone: values.duration("retire-gone"),
        retire_lost: values.duration("retire-lost"),
        allowed_hosts: values.hosts(),
        logging: values.logging(),
    }
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// Keys of a `plugin` block.
pub const PLUGIN_KEYS: [&str; 5] = ["socket", "type", "nodes_expected", "controllers_expected", "host_selector"];
/// More instances than any fleet has.
const MOST_EXPECTED: u32 = 1_000_000;

/// Plugins that the file declares.
fn plugins(values: &mut Values<'_>, sources: &Sources) -> Vec<Declared> {
    let blocks = std::mem::take(&mut values.file.blocks);
    let mut declared: Vec<(Declared, &Block)> = Vec::new();
    for block in &blocks {
        let Some(plugin) = plugin(values, block) else { continue };
        let name = |block: &Block| Origin::File { place: block.place.clone(), key: "plugin".to_owned() };
        if let Some((_, first)) = declared.iter().find(|(known, _)| known.id == plugin.id) {
            values.wrong(&name(block), &block.label, format!("is declared twice, first in line {}", first.place.line));
            continue;
        }
        if let Some(socket) = &plugin.socket {
            let other = declared.iter().find(|(known, _)| known.socket.as_ref() == Some(socket));
            if let Some((other, _)) = other {
                let what = format!(
                    "has the same socket as plugin \"{}\"; one driver is one plugin",
                    escaped(other.id.as_str())
                );
                values.wrong(&name(block), &block.label, what);
            } else if sources.addresses.contains(socket) {
                values.wrong(&name(block), &block.label, "has a socket that --csi-address names, too; say it once");
            }
        }
        declared.push((plugin, block));
    }
    let plugins = declared.into_iter().map(|(plugin, _)| plugin).collect();
    values.file.blocks = blocks;
    plugins
}

/// What one block says; `None` if it cannot be used at all.
fn plugin(values: &mut Values<'_>, block: &Block) -> Option<Declared> {
    if block.kind != "plugin" {
        let kind = escaped(&block.kind);
        values.problems.0.push(format!("{}: unknown block {kind}; the only one is plugin \"ID\" {{ … }}", block.place));
        return None;
    }
    let before = values.problems.0.len();
    let name = Origin::File { place: block.place.clone(), key: "plugin".to_owned() };
    let id = PluginId::parse(&block.label).map_err(|error| values.wrong(&name, &block.label, error)).ok();
    for entry in &block.entries {
        let key = escaped(&entry.key);
        let what = match PLUGIN_KEYS.iter().find(|known| **known == entry.key) {
            Some(_) if entry.is_list => {
                format!("plugin \"{}\": {key}: takes one value, and no list", escaped(&block.label))
            }
            Some(_) => continue,
            None => match nearest(&entry.key, PLUGIN_KEYS.into_iter()) {
                Some(near) => {
                    format!("unknown key {key} of plugin \"{}\"; did you mean {near}?", escaped(&block.label))
                }
                None => format!(
                    "unknown key {key} of plugin \"{}\"; there are {}",
                    escaped(&block.label),
                    PLUGIN_KEYS.join(", ")
                ),
            },
        };
        values.problems.0.push(format!("{}: {what}", entry.place));
    }
    let get = |key: &'static str| {
        let entry = block.entries.iter().find(|entry| entry.key == key && !entry.is_list)?;
        let (value, place) = entry.values.first()?;
        let key = format!("plugin \"{}\": {key}", escaped(&block.label));
        Some((value.as_str(), Origin::File { place: place.clone(), key }))
    };
    let (socket, role) = (get("socket"), get("type"));
    let (nodes, controllers, hosts) = (get("nodes_expected"), get("controllers_expected"), get("host_selector"));
    if let (Some((value, origin)), None) = (&role, &socket) {
        values.wrong(origin, value, "needs a socket beside it");
    }
    if let (Some(_), Some((value, origin))) = (&nodes, &hosts) {
        values.wrong(origin, value, "and nodes_expected say the same twice; give one of them");
    }
    if block.entries.is_empty() {
        values.wrong(&name, &block.label, format!("says nothing; give one of {}", PLUGIN_KEYS.join(", ")));
    }
    let socket = read(values, socket, |text| address::parse(text).map_err(|error| error.to_string()));
    let role = read(values, role, |text| one_of(text, &ROLES)).unwrap_or_default();
    let count = |text: &str| number(text, 0, MOST_EXPECTED);
    let nodes = read(values, nodes, count).map(DeclaredNodes::Count);
    let controllers = read(values, controllers, count);
    let hosts = read(values, hosts, |text| HostPattern::parse(text).map_err(|error| error.to_string()));
    let expected = Declaration { nodes: nodes.or(hosts.map(DeclaredNodes::On)), controllers };
    let is_right = values.problems.0.len() == before;
    id.filter(|_| is_right).map(|id| Declared { id, socket, role, expected })
}

fn read<T>(
    values: &mut Values<'_>,
    given: Option<(&str, Origin)>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let (value, origin) = given?;
    read(value).map_err(|what| values.wrong(&origin, value, what)).ok()
}

const ROLES: [(&str, RoleChoice); 4] = [
    ("controller", RoleChoice::Controller),
    ("node", RoleChoice::Node),
    ("monolith", RoleChoice::Monolith),
    ("auto", RoleChoice::Auto),
];

fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("is none of {}", words.join(", "))
    })
}

fn number(text: &str, smallest: u32, largest: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (smallest..=largest).contains(number));
    number.ok_or_else(|| format!("is no number from {smallest} to {largest}"))
}

/// What `probe` runs with. The socket is the operand, `--csi-address`, or what the sidecars take without a flag.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn probe(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Probe, Problems> {
    let mut values = Values::new(Command::Probe, typed, variable, problems);
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
        is_json: values.is_on("json"),
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
    let mut values = Values::new(Command::Status, typed, variable, problems);
    let config = Status {
        asking: values.asking(),
        plugin: typed.operands.first().cloned(),
        is_watch: values.is_on("watch"),
        is_json: values.is_on("json"),
        is_verbose: values.is_on("verbose"),
        is_check: values.is_on("check"),
    };
    if config.is_watch && config.is_check {
        values
            .problems
            .0
            .push("--watch never ends, so --check has no exit code to give; choose one of them".to_owned());
    }
    values.finish(config)
}

/// What `wait` runs with.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn wait(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Wait, Problems> {
    let mut values = Values::new(Command::Wait, typed, variable, problems);
    let plugin = values.plugin("wait for");
    let enough = |text: &str| match text {
        "all" => Ok(Enough::All),
        text => match number(text, 0, MOST_EXPECTED) {
            Ok(number) => Ok(Enough::AtLeast(number)),
            Err(what) => Err(format!("{what}, nor all")),
        },
    };
    let (nodes, controllers) = (values.parse("nodes", enough), values.parse("controllers", enough));
    let is_registered = values.is_on("registered");
    let none = Some(Enough::AtLeast(0));
    if nodes == none && controllers == none {
        values.problems.0.push("--nodes=0 and --controllers=0 leave nothing to wait for".to_owned());
    } else if nodes == none && is_registered {
        values.problems.0.push("--registered is about nodes, and --nodes=0 waits for none".to_owned());
    }
    let (asking, timeout) = (values.asking(), values.duration("timeout"));
    let config = plugin.map(|plugin| Wait { asking, plugin, nodes, controllers, is_registered, timeout });
    values.finish_some(config)
}

/// What `history` runs with.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn history(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<History, Problems> {
    let mut values = Values::new(Command::History, typed, variable, problems);
    let plugin = if typed.operands.is_empty() { None } else { values.plugin("show") };
    let config = History {
        asking: values.asking(),
        plugin,
        limit: values.count("limit", 1, 10_000).unwrap_or_default(),
        is_json: values.is_on("json"),
    };
    values.finish(config)
}

/// What `forget` runs with.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn forget(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Forget, Problems> {
    let mut values = Values::new(Command::Forget, typed, variable, problems);
    let plugin = values.plugin("forget");
    let host = values.parse("host", |text| HostId::parse(text).map_err(|error| error.to_string()));
    let asking = values.asking();
    values.finish_some(plugin.map(|plugin| Forget { asking, plugin, host }))
}

/// What `healthcheck` runs with: the first endpoint that the same configuration would have `serve` listen on.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn healthcheck(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Healthcheck, Problems> {
    let mut values = Values::new(Command::Healthcheck, typed, variable, problems);
    let endpoints = values.endpoints();
    let address = endpoints.first().map(|endpoint| reachable(endpoint)).unwrap_or_default();
    if address.ends_with(":0") {
        values
            .problems
            .0
            .push(format!("{}: port 0 is a new one at each start; give the one that is listened on", endpoints[0]));
    }
    let config = Healthcheck { address, is_ready: values.is_on("ready"), timeout: values.duration("timeout") };
    values.finish(config)
}

/// The address at which an endpoint can be asked from its own machine: nobody can connect to "all addresses".
fn reachable(endpoint: &str) -> String {
    if endpoint.starts_with("unix:") {
        return endpoint.to_owned();
    }
    let (host, port) = endpoint.rsplit_once(':').unwrap_or((endpoint, ""));
    match host {
        "" | "0.0.0.0" => format!("http://127.0.0.1:{port}"),
        "[::]" => format!("http://[::1]:{port}"),
        host => format!("http://{host}:{port}"),
    }
}

/// What `completion` runs with.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn completion(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Completion, Problems> {
    let mut values = Values::new(Command::Completion, typed, variable, problems);
    let shell = match typed.operands.first() {
        Some(text) => match one_of(text, &Shell::ALL) {
            Ok(shell) => Some(shell),
            Err(what) => {
                values.wrong(&Origin::Operand("SHELL"), text, what);
                None
            }
        },
        None => {
            values.problems.0.push("for which shell? `csi-gateway completion bash`, zsh or fish".to_owned());
            None
        }
    };
    let line = values.parse("line", |text| Ok(text.to_owned()));
    let asking = values.asking();
    values.finish_some(shell.map(|shell| Completion { asking, shell, line }))
}

/// What `doctor` runs with: the operand, or what `serve` would watch, or what the sidecars take without a flag.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn doctor(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Doctor, Problems> {
    let mut values = Values::new(Command::Doctor, typed, variable, problems);
    let sources = match typed.operands.first() {
        Some(operand) => match address::parse(operand) {
            Ok(path) => Sources { addresses: vec![path], ..Sources::default() },
            Err(error) => {
                values.problems.0.push(format!("socket `{operand}` {error}"));
                Sources::default()
            }
        },
        None => {
            let mut sources = sources(&mut values);
            let plugins = plugins(&mut values, &sources);
            sources.addresses.extend(plugins.into_iter().filter_map(|plugin| plugin.socket));
            sources
        }
    };
    let config = Doctor {
        sources,
        role: values.role(),
        probe_timeout: values.duration("probe-timeout"),
        timeout: values.duration("timeout"),
        is_json: values.is_on("json"),
    };
    values.finish(config)
}

/// What `demo` runs with.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn demo(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Demo, Problems> {
    let mut values = Values::new(Command::Demo, typed, variable, problems);
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
