//! Configuration: checked, immutable, with the origin of every problem.
//!
//! [`settings`] is the one table of what can be set; flags, variables, keys, help and documentation come from it.
//! [`arguments`] and [`mod@file`] read; `values` merges defaults, file, environment and flags, and lists all problems at
//! once; [`load`] makes each command's configuration of that; [`show`] writes values down.

pub mod arguments;
pub mod file;
pub mod host;
pub mod load;
mod member;
mod plugins;
pub mod settings;
pub mod show;
mod values;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::expected::Declaration;
use crate::domain::fleet::EtcdServer;
use crate::domain::id::{HostId, PluginId};
use crate::domain::socket::{RoleChoice, SocketFile};
use crate::domain::trust::{ClientAuth, Trust};

/// How much is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// As the sidecars count: 0 to 3 what an operator wants to know, 4 each look, 5 and more everything.
    pub verbosity: u8,
    /// JSON instead of text.
    pub is_json: bool,
}

/// Where drivers are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Sockets named by configuration.
    pub addresses: Vec<PathBuf>,
    /// Directories of `*/csi.sock`.
    pub plugins_directories: Vec<PathBuf>,
    /// A kubelet's root directory.
    pub kubelet_directory: Option<PathBuf>,
    /// A Nomad client's state directory.
    pub nomad_directory: Option<PathBuf>,
    /// Whether sockets are looked for where drivers usually are: no flag says where they are.
    pub searches_well_known_places: bool,
    /// Where the host's root directory is seen, if not at `/`.
    pub host_root: Option<PathBuf>,
}

impl Sources {
    /// Whether directories are named, in which there may be any number of drivers.
    #[must_use]
    pub fn has_directories(&self) -> bool {
        !self.plugins_directories.is_empty() || self.kubelet_directory.is_some() || self.nomad_directory.is_some()
    }
}

/// What `serve` runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serve {
    /// Where drivers are looked for.
    pub sources: Sources,
    /// The plugin id of the only address.
    pub plugin: Option<PluginId>,
    /// What the addresses are taken for.
    pub role: RoleChoice,
    /// Plugins that the file declares, by id.
    pub plugins: Vec<Declared>,
    /// This host's id, if it was given.
    pub host: Option<HostId>,
    /// Whom to ask who runs the drivers of a Nomad client; `None`: nobody.
    pub nomad: Option<Nomad>,
    /// From one look at a socket to the next.
    pub poll_interval: Duration,
    /// Limit of `Probe`.
    pub probe_timeout: Duration,
    /// Limit of other calls; `NodeGetInfo` has three times that.
    pub timeout: Duration,
    /// Addresses to listen on.
    pub endpoints: Vec<String>,
    /// Whose unix sockets among them are, and who may connect.
    pub socket: SocketFile,
    /// What is spoken over TCP; `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// Where state is kept, if it was given.
    pub state_directory: Option<PathBuf>,
    /// Whether a plugin is read in the shape of Nomad's public page.
    pub is_documented_shape: bool,
    /// The region that is served.
    pub region: String,
    /// Transitions kept of each instance.
    pub history: usize,
    /// Connections of one client address; zero: as many as it likes.
    pub max_connections_per_client: u32,
    /// How long an instance is kept whose socket is gone or dead.
    pub retire_gone: Duration,
    /// How long the instances of a silent host are kept. Accepted for fleets; a single host has no use for it.
    pub retire_lost: Duration,
    /// `Host` headers that commands are taken from; empty: those that belong to the addresses.
    pub allowed_hosts: Vec<String>,
    /// Whose tokens and policies count; `None`: nobody is asked for any.
    pub access: Option<Access>,
    /// Its part in a fleet; `None`: a host of its own.
    pub member: Option<Member>,
    /// Logs.
    pub logging: Logging,
}

/// What a member of a fleet does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberRole {
    /// Watches its host, and keeps etcd equal to what it knows.
    Agent,
    /// Follows etcd, and serves the whole fleet.
    Aggregator,
}

/// A part in a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which part.
    pub role: MemberRole,
    /// Where the fleet's etcd is; at least one.
    pub servers: Vec<EtcdServer>,
    /// What the fleet's keys begin with; ends with a slash.
    pub prefix: String,
    /// How etcd is known over TLS.
    pub trust: Trust,
    /// As whom to act, and the file of the password.
    pub user: Option<(String, PathBuf)>,
    /// How long an agent may be silent; whole seconds.
    pub host_ttl: Duration,
}

/// What runs in livenessprobe's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// Sockets of drivers.
    pub addresses: Vec<PathBuf>,
    /// Limit of connecting and `Probe` together.
    pub probe_timeout: Duration,
    /// How long ago a probe may have begun that still answers; zero: not before it was asked for.
    pub max_age: Duration,
    /// Addresses to listen on.
    pub surfaces: Vec<Surface>,
    /// Whose the unix sockets among them are.
    pub socket: SocketFile,
    /// Flags that were given, work, and should not be given any more.
    pub deprecated: Vec<String>,
    /// Logs.
    pub logging: Logging,
}

/// One address of a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surface {
    /// `HOST:PORT`, `:PORT` or `unix:///PATH`.
    pub endpoint: String,
    /// Whether `/healthz` is there.
    pub has_health: bool,
    /// Where metrics are; `None`: nowhere.
    pub metrics_path: Option<String>,
}

/// Whom to ask about the allocations of a Nomad client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nomad {
    /// A server's or client's address.
    pub address: String,
    /// The file with the token.
    pub token_file: Option<PathBuf>,
    /// The token itself, if there is no file.
    pub token: Option<Token>,
    /// How the server is known.
    pub trust: Trust,
}

/// Files of TLS on the listening side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate's.
    pub certificate: PathBuf,
    /// Its key's.
    pub key: PathBuf,
    /// That of clients' authorities.
    pub authorities: Option<PathBuf>,
    /// Whether clients have to show a certificate.
    pub client_auth: ClientAuth,
}

/// Who may what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// A directory of policies.
    pub policy_directory: Option<PathBuf>,
    /// The file of tokens.
    pub tokens_file: Option<PathBuf>,
    /// Keys of Nomad's identities: a file, or `http://…`.
    pub keys: Option<String>,
    /// Whom identities have to be for.
    pub audiences: Vec<String>,
    /// Whether metrics are open to all.
    pub is_metrics_open: bool,
}

/// What `acl` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acl {
    /// A new token.
    Create {
        /// The file of tokens.
        file: PathBuf,
        /// Its policies.
        policies: Vec<String>,
        /// Whether it may do everything.
        is_management: bool,
        /// Its name, for people.
        name: String,
        /// How long it lives; `None`: until it is revoked.
        ttl: Option<Duration>,
        /// Where its policies should be, if that is known.
        policy_directory: Option<PathBuf>,
        /// Whether the answer is JSON.
        is_json: bool,
    },
    /// All tokens, without secrets.
    List {
        /// The file of tokens.
        file: PathBuf,
        /// Whether the answer is JSON.
        is_json: bool,
    },
    /// The end of a token.
    Revoke {
        /// The file of tokens.
        file: PathBuf,
        /// Which one.
        accessor: String,
    },
    /// Whether policies are valid.
    Check {
        /// Their files.
        files: Vec<PathBuf>,
    },
}

/// What `probe` runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The socket.
    pub address: PathBuf,
    /// What it is taken for.
    pub role: RoleChoice,
    /// Limit of `Probe`.
    pub probe_timeout: Duration,
    /// Limit of other calls.
    pub timeout: Duration,
    /// Whether the answer is JSON.
    pub is_json: bool,
}

/// A plugin that the configuration file declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its id.
    pub id: PluginId,
    /// The socket of its driver on this host, if there is one to be watched.
    pub socket: Option<PathBuf>,
    /// What the socket is taken for.
    pub role: RoleChoice,
    /// How many instances there should be.
    pub expected: Declaration,
}

/// A secret that opens an API. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// Longest token, in bytes: a JWT with many claims is shorter.
    const LONGEST: usize = 16 << 10;

    /// The token that a text holds, with space around it; `None` if it cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_legal = (1..=Self::LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_legal.then(|| Self(text.into()))
    }

    /// The secret, for a header.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Whom the client side asks, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    /// A gateway's or a Nomad server's address.
    pub address: String,
    /// What opens it, if anything does.
    pub token: Option<Token>,
    /// How it is known over TLS.
    pub trust: Trust,
}

impl Asking {
    /// An address that needs no token.
    #[must_use]
    pub fn at(address: &str) -> Self {
        Self { address: address.to_owned(), token: None, trust: Trust::default() }
    }
}

/// What `status` runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Status {
    /// Whom to ask.
    pub asking: Asking,
    /// One plugin, by id or by the beginning of one.
    pub plugin: Option<String>,
    /// Whether to go on, and show each change.
    pub is_watch: bool,
    /// Whether the answer is JSON, as it was sent.
    pub is_json: bool,
    /// Whether capabilities, topologies and whole ids are shown.
    pub is_verbose: bool,
    /// Whether the exit code tells how the plugins are.
    pub is_check: bool,
}

/// How many are enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enough {
    /// All that are known or expected, and at least one.
    All,
    /// So many.
    AtLeast(u32),
}

/// What `wait` runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Whom to ask.
    pub asking: Asking,
    /// For which plugin.
    pub plugin: PluginId,
    /// Nodes that have to be healthy; `None`: all there are.
    pub nodes: Option<Enough>,
    /// Controllers that have to be; `None`: all there are.
    pub controllers: Option<Enough>,
    /// Whether a node counts only once a kubelet knows it.
    pub is_registered: bool,
    /// How long to wait.
    pub timeout: Duration,
}

/// What `history` runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Whom to ask.
    pub asking: Asking,
    /// Of which plugin; `None`: of all.
    pub plugin: Option<PluginId>,
    /// So many of the newest transitions.
    pub limit: u32,
    /// Whether the answer is JSON, as it was sent.
    pub is_json: bool,
}

/// What `forget` runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forget {
    /// Whom to ask.
    pub asking: Asking,
    /// The plugin's whole id.
    pub plugin: PluginId,
    /// The only host, if one was given.
    pub host: Option<HostId>,
}

/// What `healthcheck` runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// Where the gateway of this configuration can be asked, and how it is known.
    pub asking: Asking,
    /// Whether it has to have looked at every driver, too.
    pub is_ready: bool,
    /// How long to wait for the answer.
    pub timeout: Duration,
}

/// What `completion` runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// Whom to ask for plugin ids.
    pub asking: Asking,
    /// The shell.
    pub shell: Shell,
    /// The line up to the cursor, of which the last word may be completed; `None`: the shell's script is asked for.
    pub line: Option<String>,
}

/// A shell that can be told how to complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// The Z shell.
    Zsh,
    /// fish.
    Fish,
}

impl Shell {
    /// Every shell, by name.
    pub const ALL: [(&'static str, Self); 3] = [("bash", Self::Bash), ("zsh", Self::Zsh), ("fish", Self::Fish)];
}

/// What `doctor` runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doctor {
    /// Sockets to look into, or the only one that was asked about.
    pub sources: Sources,
    /// What they are taken for.
    pub role: RoleChoice,
    /// Limit of `Probe`.
    pub probe_timeout: Duration,
    /// Limit of other calls.
    pub timeout: Duration,
    /// Whether the findings are JSON.
    pub is_json: bool,
}

/// What `demo` runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demo {
    /// Addresses to listen on.
    pub endpoints: Vec<String>,
    /// Whose unix sockets among them are, and who may connect.
    pub socket: SocketFile,
    /// A made fleet of so many hosts and plugins instead of three scripted drivers.
    pub fleet: Option<Fleet>,
    /// One scripted driver on this socket, and nothing else.
    pub driver_only: Option<PathBuf>,
    /// Logs.
    pub logging: Logging,
}

/// A made fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fleet {
    /// Made hosts.
    pub hosts: u32,
    /// Made plugins, each on every host.
    pub plugins: u32,
    /// How often one instance of the first plugin changes its health; `None`: never.
    pub flap: Option<Duration>,
}
