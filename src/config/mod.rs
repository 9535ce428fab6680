//! Configuration: checked, immutable, with the origin of every problem.
//!
//! [`settings`] is the one table of what can be set; flags, variables, help and documentation come from it. [`load`]
//! merges defaults, environment and flags, and lists all problems at once.

pub mod host;
pub mod load;
pub mod settings;

use std::path::PathBuf;
use std::time::Duration;

use crate::domain::id::{HostId, PluginId};
use crate::domain::socket::RoleChoice;

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
    /// This host's id, if it was given.
    pub host: Option<HostId>,
    /// From one look at a socket to the next.
    pub poll_interval: Duration,
    /// Limit of `Probe`.
    pub probe_timeout: Duration,
    /// Limit of other calls; `NodeGetInfo` has three times that.
    pub timeout: Duration,
    /// Addresses to listen on.
    pub endpoints: Vec<String>,
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
    /// Logs.
    pub logging: Logging,
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

/// What `status` runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// A gateway's or a Nomad server's address.
    pub address: String,
    /// One plugin, by id or by the beginning of one.
    pub plugin: Option<String>,
}

/// What `forget` runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forget {
    /// A gateway's address.
    pub address: String,
    /// The plugin's whole id.
    pub plugin: String,
    /// The only host, if one was given.
    pub host: Option<HostId>,
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
