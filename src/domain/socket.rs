//! A socket: a path that should be watched, and what is seen there.
//!
//! Sockets are a side table: what is seen of them moves no index and is not stored.

use std::borrow::Cow;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::id::{InstanceKey, PluginId, Role};
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

/// Where a socket is known from. Where several sources know one, the first of them in this order has the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An address that configuration names.
    Configured,
    /// A directory of `*/csi.sock` that configuration names.
    PluginsDirectory,
    /// A Nomad client's state directory.
    Nomad,
    /// A registration socket in a kubelet's `plugins_registry`.
    Registration,
    /// A kubelet's `plugins` or `csi-plugins`.
    KubeletPlugins,
    /// An emptyDir volume of a pod.
    EmptyDirectory,
    /// A place that drivers use without being told to.
    WellKnown,
}

impl Source {
    /// The source in JSON and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::PluginsDirectory => "csi-plugins-dir",
            Self::Nomad => "nomad",
            Self::Registration => "kubelet registration",
            Self::KubeletPlugins => "kubelet plugins",
            Self::EmptyDirectory => "empty-dir",
            Self::WellKnown => "well-known",
        }
    }
}

/// What a kubelet was told of a socket, as far as its registration sockets show.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Announced {
    /// No kubelet's business.
    #[default]
    Nothing,
    /// Nobody announces it, though it lies where announced drivers do.
    Nobody,
    /// A registration socket names it.
    As {
        /// The driver's name there.
        name: Box<str>,
        /// Whether the registrar answers; a killed one leaves its socket behind, and the kubelet believes in that.
        is_alive: bool,
    },
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
    /// Where we know it from.
    pub source: Source,
    /// Its place among the addresses that configuration names; the others come after them.
    pub rank: u32,
    /// Who runs it, where the path says so.
    pub owner: Owner,
    /// What a kubelet was told of it.
    pub announced: Announced,
}

impl WantedSocket {
    /// A socket named by configuration, about which nothing else is known.
    #[must_use]
    pub fn configured(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into().into(),
            plugin: None,
            role: RoleChoice::Auto,
            source: Source::Configured,
            rank: 0,
            owner: Owner::default(),
            announced: Announced::Nothing,
        }
    }

    /// Whether an instance that was seen behind this path is one that this socket is taken for.
    #[must_use]
    pub fn covers(&self, record: &Record) -> bool {
        self.role.asks(record.key.role) && self.plugin.as_ref().is_none_or(|id| *id == record.key.plugin)
    }

    /// A socket that a source found, about which nothing else is known.
    #[must_use]
    pub fn found(path: impl Into<PathBuf>, source: Source) -> Self {
        Self { source, rank: u32::MAX, ..Self::configured(path) }
    }

    /// Whether it is the socket of an allocation of Nomad's, found as such.
    #[must_use]
    pub fn is_allocation(&self) -> bool {
        self.source == Source::Nomad && !self.owner.alloc_id.is_empty()
    }

    /// Whether configuration names it, as against discovery.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.source == Source::Configured
    }

    /// The role that counts where both answer and none is declared: many drivers answer everything in every pod, so the
    /// place says which it is (`fingerprinting.md` 5.4, item 6). `None`: both.
    #[must_use]
    pub fn leaning(&self) -> Option<Role> {
        match (self.role, self.source) {
            (RoleChoice::Auto, Source::Registration | Source::KubeletPlugins) => Some(Role::Node),
            (RoleChoice::Auto, Source::EmptyDirectory) => Some(Role::Controller),
            _ => None,
        }
    }
}

/// The allocation that a path in a Nomad client's state directory belongs to: `…/csi/plugins/ALLOCATION/csi.sock`.
#[must_use]
pub fn nomad_allocation(socket: &Path) -> Option<&str> {
    let names: Vec<&str> = socket.iter().rev().take(4).filter_map(|name| name.to_str()).collect();
    match names[..] {
        ["csi.sock", allocation, "plugins", "csi"] if is_uuid(allocation) => Some(allocation),
        _ => None,
    }
}

/// Whether a text is a UUID in its usual spelling, as ids of allocations and pods are.
#[must_use]
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// How it is learnt that something happened in a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectoryEvents {
    /// Paths whose changes the kernel tells of.
    pub watched: usize,
    /// Paths that are looked at every second instead.
    pub polled: usize,
    /// Why those are; empty if there are none.
    pub problem: Box<str>,
}

/// What identifies a socket file: not its inode alone, which kernels reuse (`fingerprinting.md` section 6, item 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Change time, nanoseconds since 1970. A link to the file or another mode moves it.
    pub changed: i64,
    /// When it was made, nanoseconds since 1970; `None` where the file system does not keep that.
    pub born: Option<i64>,
}

/// What stays the same of a socket file as long as it is the same one, whatever its mode, its links and its name.
pub type FileKey = (u64, u64, i64);

impl FileIdentity {
    /// From what the system says of a file.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec()),
            born: born.and_then(|since| i64::try_from(since.as_nanos()).ok()),
        }
    }

    /// See [`FileKey`]. Where nobody knows when the file was made, whatever happens to it makes it another.
    #[must_use]
    pub fn key(&self) -> FileKey {
        (self.device, self.inode, self.made())
    }

    /// When it was made, or else changed last.
    #[must_use]
    pub fn made(&self) -> i64 {
        self.born.unwrap_or(self.changed)
    }

    /// Whether this is `other`, of which somebody holds a connection: as long as that is open, its inode is not reused.
    #[must_use]
    pub fn is_still(&self, other: &Self) -> bool {
        (self.device, self.inode, self.born) == (other.device, other.inode, other.born)
    }
}

/// What is seen of a socket, for `/v1/gateway/sockets`. Its serialized form is that of [`HostSockets`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SocketStatus {
    /// Path of the socket file.
    pub path: String,
    /// How it is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub phase: Phase,
    /// What it is taken for.
    pub role: Cow<'static, str>,
    /// Where we know it from.
    pub source: Cow<'static, str>,
    /// Device and inode of the file, where there is one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub device: Option<u64>,
    /// See `device`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub inode: Option<u64>,
    /// Process id of the listener; 0 outside our pid namespace.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pid: Option<i32>,
    /// The name the driver gives itself, once it answered.
    #[serde(default, skip_serializing_if = "is_default")]
    pub provider: Option<Box<str>>,
    /// The plugin it counts as; `None` while unknown or ignored.
    #[serde(default, skip_serializing_if = "is_default")]
    pub plugin: Option<PluginId>,
    /// Roles that count.
    #[serde(default, skip_serializing_if = "is_default")]
    pub roles: Vec<Role>,
    /// Why the socket is not counted, or not healthy; empty otherwise.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reason: Box<str>,
    /// Whether the socket is no CSI driver's and is left alone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_ignored: bool,
    /// When it was last asked.
    #[serde(skip)]
    pub last_probe_time: Option<Timestamp>,
    /// When it last answered as it should.
    #[serde(skip)]
    pub last_ok_time: Option<Timestamp>,
    /// How long the last look took.
    #[serde(skip)]
    pub last_poll: Option<Duration>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl SocketStatus {
    /// A socket that nobody looked at yet.
    #[must_use]
    pub fn new(wanted: &WantedSocket) -> Self {
        Self {
            path: wanted.path.to_string_lossy().into_owned(),
            phase: Phase::New,
            role: wanted.role.as_str().into(),
            source: wanted.source.as_str().into(),
            device: None,
            inode: None,
            pid: None,
            provider: None,
            plugin: wanted.plugin.clone(),
            roles: Vec::new(),
            reason: "not looked at yet".into(),
            is_ignored: false,
            last_probe_time: None,
            last_ok_time: None,
            last_poll: None,
        }
    }

    /// The instances that this socket counts as.
    fn instances(&self) -> impl Iterator<Item = (Role, &PluginId)> {
        self.roles.iter().filter_map(|role| Some((*role, self.plugin.as_ref()?)))
    }

    /// As it is told elsewhere: without what moves while nothing happens, and without what its instances say already.
    #[must_use]
    pub fn told(&self) -> Self {
        let mut told = Self { last_probe_time: None, last_ok_time: None, last_poll: None, ..self.clone() };
        if self.instances().next().is_some() {
            (told.phase, told.reason) = Default::default();
        }
        told
    }

    /// As it was before [`SocketStatus::told`], as far as its instances say it; `record` finds one.
    pub fn complete<'a>(&mut self, record: impl Fn(Role, &PluginId) -> Option<&'a Record>) {
        let records = self.instances().filter_map(|(role, plugin)| record(role, plugin));
        let worst = records.max_by_key(|record| (!record.phase.is_healthy(), record.phase));
        if let Some(Record { phase, reason, .. }) = worst {
            self.phase = *phase;
            self.reason = if phase.is_healthy() { "".into() } else { reason.text.as_ref().into() };
        }
    }
}

/// What is known of a host's sockets: where they are looked for, what was found, and which do not count.
///
/// Serialized, with [`SocketStatus::told`], it is what an agent tells its fleet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostSockets {
    /// Every place that is searched.
    pub searched: Vec<Searched>,
    /// By path.
    pub sockets: Vec<SocketStatus>,
    /// Those that do not count beside others.
    pub duplicates: Vec<Duplicate>,
    /// Sockets that are not among `sockets`, since there are too many.
    pub left_out: usize,
}

/// A path as text, since JSON has nothing else: what is no UTF-8 in it cannot be told.
mod lossy {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &impl AsRef<Path>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&path.as_ref().to_string_lossy())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, P: From<PathBuf>>(deserializer: D) -> Result<P, D::Error> {
        Ok(PathBuf::from(String::deserialize(deserializer)?).into())
    }
}

/// An instance that two sockets of a host claim to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicate {
    /// Which instance.
    pub key: InstanceKey,
    /// The socket that does not count.
    #[serde(with = "lossy")]
    pub socket: Arc<Path>,
    /// The socket that does.
    #[serde(with = "lossy")]
    pub counts: Arc<Path>,
}

/// Something that a source saw and left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredSocket {
    /// Where.
    pub path: PathBuf,
    /// Which source.
    pub source: Source,
    /// Why, for a person.
    pub reason: String,
}

/// A place that is searched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Searched {
    /// The directory or socket.
    #[serde(with = "lossy")]
    pub place: PathBuf,
    /// What is looked for there.
    pub what: Cow<'static, str>,
    /// Whether it was looked at, and exists.
    #[serde(default)]
    pub exists: bool,
    /// Whether it was looked at.
    #[serde(default)]
    pub is_searched: bool,
    /// Sockets found.
    #[serde(default)]
    pub found: usize,
    /// Entries left alone.
    #[serde(default)]
    pub ignored: usize,
    /// Why it cannot be searched; empty if it can.
    #[serde(default)]
    pub problem: Box<str>,
}

/// A directory event that concerns sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touch {
    /// This socket's file changed, came or went.
    Socket(Arc<Path>),
    /// Events may have been lost: look at everything.
    Everything,
}

/// Whose a socket file of ours is, and who may connect to it. The default is what the system does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketFile {
    /// Permissions; `None`: as the umask says.
    pub mode: Option<u32>,
    /// Its user, a name or a number.
    pub user: Option<String>,
    /// Its group, a name or a number.
    pub group: Option<String>,
}
