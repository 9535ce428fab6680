//! Values with their origins: defaults < file < environment < flags, and every problem on the way.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::arguments::{Typed, nearest};
use super::file::{self, Block, Entry, File, Place};
use super::settings::{self, Command, Setting};
use super::{Asking, Logging, Token};
use crate::domain::duration;
use crate::domain::id::PluginId;
use crate::domain::socket::{RoleChoice, SocketFile};
use crate::domain::text::escaped;
use crate::domain::trust::{Identity, Trust};

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
pub(super) struct Values<'a> {
    pub(super) command: Command,
    pub(super) typed: &'a Typed,
    pub(super) variable: Variables<'a>,
    pub(super) file: File,
    pub(super) problems: Problems,
}

impl<'a> Values<'a> {
    pub(super) fn new(command: Command, typed: &'a Typed, variable: Variables<'a>, problems: Problems) -> Self {
        let mut values = Self { command, typed, variable, file: File::default(), problems };
        if let Some((path, _)) = values.all("config").pop() {
            values.file = file::read(Path::new(&path), &mut values.problems);
            values.check_keys();
        }
        values
    }

    /// The values of a setting: flags win over the variable, which wins over the file, which wins over the default.
    pub(super) fn all(&self, name: &str) -> Vec<(String, Origin)> {
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
            Some(setting) => self.has_right_number(entry, setting),
            None => {
                self.problems.0.push(format!("{}: {}", entry.place, unknown_key(&entry.key)));
                false
            }
        });
        self.file.entries = entries;
    }

    fn has_right_number(&mut self, entry: &Entry, setting: &Setting) -> bool {
        let what = match entry {
            entry if entry.is_list && !setting.is_repeatable => "takes one value, and no list",
            entry if entry.values.is_empty() && setting.default.is_some() => "must not be an empty list",
            _ => return true,
        };
        self.problems.0.push(format!("{}: {}: {what}", entry.place, entry.key));
        false
    }

    pub(super) fn wrong(&mut self, origin: &Origin, value: &str, what: impl fmt::Display) {
        self.problems.0.push(format!("{origin}: `{}` {what}", shown(value)));
    }

    pub(super) fn parse<T>(&mut self, name: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (value, origin) = self.all(name).pop()?;
        match read(&value) {
            Ok(value) => Some(value),
            Err(what) => {
                self.wrong(&origin, &value, what);
                None
            }
        }
    }

    pub(super) fn duration(&mut self, name: &str) -> Duration {
        self.parse(name, positive).unwrap_or_default()
    }

    pub(super) fn count(&mut self, name: &str, smallest: u32, largest: u32) -> Option<u32> {
        self.parse(name, |text| number(text, smallest, largest))
    }

    pub(super) fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        self.parse(name, |text| one_of(text, words))
    }

    pub(super) fn role(&mut self) -> RoleChoice {
        self.word("plugin-type", &ROLES).unwrap_or_default()
    }

    /// Blocks that declare plugins.
    pub(super) fn plugins(&self) -> impl Iterator<Item = &Block> {
        self.file.blocks.iter().filter(|block| block.kind == "plugin")
    }

    pub(super) fn logging(&mut self) -> Logging {
        let verbosity = self.count("v", 0, 10).and_then(|level| u8::try_from(level).ok()).unwrap_or_default();
        let is_json = self.word("logging-format", &[("text", false), ("json", true)]).unwrap_or_default();
        Logging { verbosity, is_json }
    }

    pub(super) fn endpoints(&mut self) -> Vec<String> {
        let mut endpoints = Vec::new();
        for (value, origin) in self.all("http-endpoint") {
            match endpoint(&value) {
                Ok(endpoint) => endpoints.push(endpoint),
                Err(what) => self.wrong(&origin, &value, what),
            }
        }
        endpoints
    }

    /// One address to listen on.
    pub(super) fn address(&mut self, name: &str) -> Option<String> {
        self.parse(name, endpoint)
    }

    /// Whose unix sockets are.
    pub(super) fn socket_file(&mut self) -> SocketFile {
        let mode = self.parse("socket-mode", |text| {
            let mode = u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8).ok();
            mode.filter(|mode| *mode <= 0o777).ok_or_else(|| "is no mode in octal up to 0777, such as 0660".to_owned())
        });
        let owner = self.parse("socket-owner", |text| {
            let (user, group) = text.split_once(':').unwrap_or((text, ""));
            let part = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let is_legal = |text: &str| !text.contains([':', '/', ' ']) && !text.starts_with('-');
            match (part(user), part(group)) {
                (None, None) => Err("names neither user nor group: USER, USER:GROUP or :GROUP".to_owned()),
                _ if !is_legal(user) || !is_legal(group) => Err("is no owner: USER, USER:GROUP or :GROUP".to_owned()),
                owner => Ok(owner),
            }
        });
        let (user, group) = owner.unwrap_or_default();
        SocketFile { mode, user, group }
    }

    /// Whom to ask, and with which token.
    pub(super) fn asking(&mut self) -> Asking {
        let (address, origin) = self.all("address").pop().unwrap_or_else(|| (String::new(), Origin::Default));
        self.check_address(&origin, &address);
        Asking { address, token: self.token(), trust: self.trust() }
    }

    /// Says so if that is no address of a server.
    pub(super) fn check_address(&mut self, origin: &Origin, address: &str) {
        let is_tcp = address.strip_prefix("http://").is_some_and(is_host_and_port);
        // Port 443 needs no naming: servers stand behind those who end TLS for them.
        let is_tls = address.strip_prefix("https://").is_some_and(|rest| is_host_and_port(rest) || is_host(rest));
        let is_unix = address.strip_prefix("unix:").is_some_and(|path| path.starts_with('/'));
        if !is_tcp && !is_tls && !is_unix {
            self.wrong(origin, address, "is no address: http://HOST:PORT, https://HOST:PORT or unix:///PATH");
        }
    }

    /// How a server is known over TLS. Where none of our variables is set, those count that Nomad's command line reads.
    pub(super) fn trust(&mut self) -> Trust {
        let certificate = self.of_client("client-cert", "NOMAD_CLIENT_CERT");
        let key = self.of_client("client-key", "NOMAD_CLIENT_KEY");
        let identity = match (certificate, key) {
            (Some((certificate, _)), Some((key, _))) => {
                Some(Identity { certificate: certificate.into(), key: key.into() })
            }
            (None, None) => None,
            (Some((_, origin)), None) => {
                self.problems.0.push(format!("{origin}: a certificate is shown with its key: --client-key=FILE"));
                None
            }
            (None, Some((_, origin))) => {
                self.problems
                    .0
                    .push(format!("{origin}: a key is of no use without its certificate: --client-cert=FILE"));
                None
            }
        };
        let is_unverified = match self.of_client("tls-skip-verify", "NOMAD_SKIP_VERIFY") {
            None => false,
            Some((value, origin)) => boolean(&value).unwrap_or_else(|what| {
                self.wrong(&origin, &value, what);
                false
            }),
        };
        Trust {
            authorities: self.of_client("ca-cert", "NOMAD_CACERT").map(|(path, _)| path.into()),
            authorities_directory: self.of_client("ca-path", "NOMAD_CAPATH").map(|(path, _)| path.into()),
            identity,
            server_name: self.of_client("tls-server-name", "NOMAD_TLS_SERVER_NAME").map(|(name, _)| name),
            is_unverified,
        }
    }

    /// A setting of the client side, else what Nomad's command line would take from this variable.
    fn of_client(&self, name: &str, nomads: &str) -> Option<(String, Origin)> {
        let of_nomad = || Some(((self.variable)(nomads)?, Origin::Variable(nomads.to_owned())));
        self.all(name).pop().or_else(of_nomad).filter(|(value, _)| !value.is_empty())
    }

    /// The token of a file, else of `NOMAD_TOKEN`. No text of an error holds it.
    fn token(&mut self) -> Option<Token> {
        let Some((path, origin)) = self.all("token-file").pop() else {
            return self.nomad_token();
        };
        match std::fs::read_to_string(&path).map(|text| Token::parse(&text)) {
            Ok(Some(token)) => Some(token),
            // The path is not repeated: who gives the token itself in its place should not find it in a log.
            Ok(None) => {
                self.problems
                    .0
                    .push(format!("{origin}: the file holds no token: letters, digits and signs in one line"));
                None
            }
            Err(error) => {
                self.problems.0.push(format!("{origin}: the file cannot be read: {error}"));
                None
            }
        }
    }

    /// The token of `NOMAD_TOKEN`. No text of an error holds it.
    pub(super) fn nomad_token(&mut self) -> Option<Token> {
        let value = (self.variable)("NOMAD_TOKEN").filter(|value| !value.trim().is_empty())?;
        let token = Token::parse(&value);
        if token.is_none() {
            self.problems.0.push("variable NOMAD_TOKEN: is no token: letters, digits and signs in one line".to_owned());
        }
        token
    }

    /// The operand as a plugin's id; `what` is done with it.
    pub(super) fn plugin(&mut self, what: &str) -> Option<PluginId> {
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

    pub(super) fn is_on(&mut self, name: &str) -> bool {
        self.parse(name, boolean).unwrap_or_default()
    }

    /// Names and addresses without port, as they are compared.
    pub(super) fn hosts(&mut self) -> Vec<String> {
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

    pub(super) fn finish<T>(self, value: T) -> Result<T, Problems> {
        if self.problems.0.is_empty() { Ok(value) } else { Err(self.problems) }
    }

    /// The same, of a value that is missing only where a problem says why.
    pub(super) fn finish_some<T>(self, value: Option<T>) -> Result<T, Problems> {
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

/// Whether a text is `HOST`, without a port.
fn is_host(text: &str) -> bool {
    host_name(text.trim_end_matches('/')).is_some()
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

fn endpoint(value: &str) -> Result<String, String> {
    let is_unix = value.strip_prefix("unix:").is_some_and(|path| path.contains('/'));
    let is_tcp = value.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if is_unix || is_tcp {
        Ok(value.to_owned())
    } else {
        Err("is no address: HOST:PORT, :PORT or unix:///PATH".to_owned())
    }
}

/// A duration that may be none at all.
pub(super) fn not_negative(text: &str) -> Result<Duration, String> {
    let nanos = duration::parse(text).and_then(|nanos| u64::try_from(nanos).ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| "is no duration, such as 0, 500ms or 1s".to_owned())
}

pub(super) fn positive(text: &str) -> Result<Duration, String> {
    match duration::parse(text).and_then(|nanos| u64::try_from(nanos).ok()) {
        Some(nanos) if nanos > 0 => Ok(Duration::from_nanos(nanos)),
        _ => Err("is no duration above 0, such as 500ms, 30s or 1m30s".to_owned()),
    }
}

/// Where to look variables up: the process's environment, or a made one in tests.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(super) const ROLES: [(&str, RoleChoice); 4] = [
    ("controller", RoleChoice::Controller),
    ("node", RoleChoice::Node),
    ("monolith", RoleChoice::Monolith),
    ("auto", RoleChoice::Auto),
];

pub(super) fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("is none of {}", words.join(", "))
    })
}

pub(super) fn number(text: &str, smallest: u32, largest: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (smallest..=largest).contains(number));
    number.ok_or_else(|| format!("is no number from {smallest} to {largest}"))
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

pub(super) fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}
