//! A socket: a path that should be watched, and what is seen there.
//!
//! Sockets are a side table: what is seen of them moves no index and is not stored.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::id::{PluginId, Role};
use super::record::{Owner, Phase, Record};
use super::time::Timestamp;

/// Which roles a socket is taken for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleChoice {
    /// Controller calls are expected.
    Controller,
    /// Node calls are expected.
    Node,
    /// Both are.
    Monolith,
    /// Whatever answers.
    #[default]
    Auto,
}

impl RoleChoice {
    /// Whether calls of this role are made.
    #[must_use]
    pub fn asks(self, role: Role) -> bool {
        match self {
            Self::Controller => role == Role::Controller,
            Self::Node => role == Role::Node,
            Self::Monolith | Self::Auto => true,
        }
    }

    /// The choice in Nomad's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Node => "node",
            Self::Monolith => "monolith",
            Self::Auto => "auto",
        }
    }
}

/// A socket that should be watched, and what is known of it beforehand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WantedSocket {
    /// Where it is or will be.
    pub path: Arc<Path>,
    /// The plugin id an operator gave it; the provider's name otherwise.
    pub plugin: Option<PluginId>,
    /// What it is taken for.
    pub role: RoleChoice,
    /// Whether configuration names it, as against discovery.
    pub is_configured: bool,
    /// Who runs it, where the path says so.
    pub owner: Owner,
}

impl WantedSocket {
    /// A socket named by configuration, about which nothing else is known.
    #[must_use]
    pub fn configured(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into().into(),
            plugin: None,
            role: RoleChoice::Auto,
            is_configured: true,
            owner: Owner::default(),
        }
    }

    /// Whether an instance that was seen behind this path is one that this socket is taken for.
    #[must_use]
    pub fn covers(&self, record: &Record) -> bool {
        self.role.asks(record.key.role) && self.plugin.as_ref().is_none_or(|id| *id == record.key.plugin)
    }
}

/// What identifies a socket file: not its inode alone, which kernels reuse (`fingerprinting.md` section 6, item 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Change time, nanoseconds since 1970.
    pub changed: i64,
}

/// What is seen of a socket, for `/v1/gateway/sockets`.
#[derive(Debug, Clone, PartialEq)]
pub struct SocketStatus {
    /// Path of the socket file.
    pub path: String,
    /// How it is.
    pub phase: Phase,
    /// What it is taken for.
    pub role: &'static str,
    /// Where we know it from.
    pub source: &'static str,
    /// Device and inode of the file, where there is one.
    pub device: Option<u64>,
    /// See `device`.
    pub inode: Option<u64>,
    /// Process id of the listener; 0 outside our pid namespace.
    pub pid: Option<i32>,
    /// The name the driver gives itself, once it answered.
    pub provider: Option<Box<str>>,
    /// The plugin it counts as; `None` while unknown or ignored.
    pub plugin: Option<PluginId>,
    /// Roles that count.
    pub roles: Vec<Role>,
    /// Why the socket is not counted, or not healthy; empty otherwise.
    pub reason: Box<str>,
    /// Whether the socket is no CSI driver's and is left alone.
    pub is_ignored: bool,
    /// When it was last asked.
    pub last_probe_time: Option<Timestamp>,
    /// When it last answered as it should.
    pub last_ok_time: Option<Timestamp>,
    /// How long the last look took.
    pub last_poll: Option<Duration>,
}

/// A directory event that concerns sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touch {
    /// This socket's file changed, came or went.
    Socket(Arc<Path>),
    /// Events may have been lost: look at everything.
    Everything,
}
