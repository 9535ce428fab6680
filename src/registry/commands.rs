//! What an operator may tell the registry to do: forget what is dead. The only handle of the API that changes anything.

use tokio::sync::{mpsc, oneshot};

use crate::domain::durability::Durability;
use crate::domain::id::{HostId, InstanceKey, PluginId};
use crate::domain::plugin::Plugin;
use crate::domain::record::{Phase, Record};
use crate::domain::time::Index;

/// Why nothing was forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    /// No instance of it is known.
    #[error("plugin not found")]
    NoSuchPlugin,
    /// The plugin is known, and not on this host.
    #[error("the plugin has no instance on this host")]
    NoSuchInstance,
    /// These are healthy or starting.
    #[error("{} of its instances are alive", .0.len())]
    Alive(Vec<InstanceKey>),
    /// These are dead on hosts whose agents are there, and would be told again.
    #[error("{} of its instances are on hosts whose agents are there", .0.len())]
    OnLiveHosts(Vec<InstanceKey>),
    /// The fleet's etcd did not take it.
    #[error("etcd did not take it")]
    Unwritten,
    /// The gateway is about to end.
    #[error("the gateway is stopping")]
    Stopping,
}

/// What was forgotten.
#[derive(Debug, Clone, PartialEq)]
pub struct Forgotten {
    /// The instances as they were.
    pub records: Vec<Record>,
    /// Whether the plugin is gone with them.
    pub is_plugin_gone: bool,
    /// Index of the catalog without them.
    pub index: Index,
    /// Whether that is on disk.
    pub durability: Durability,
}

/// A command on its way to whoever carries it out.
#[derive(Debug)]
pub struct Forget {
    /// Instances of which plugin.
    pub plugin: PluginId,
    /// On which host; `None`: on all.
    pub host: Option<HostId>,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Forgotten, ForgetError>>,
}

/// Where commands go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Commands(pub(super) mpsc::Sender<Forget>);

impl Commands {
    /// For whoever carries them out: at most `most` wait.
    #[must_use]
    pub fn channel(most: usize) -> (Self, mpsc::Receiver<Forget>) {
        let (sender, receiver) = mpsc::channel(most);
        (Self(sender), receiver)
    }

    /// Forgets the instances of a plugin, of all hosts or of one. It returns when that is on disk, or cannot get there.
    ///
    /// # Errors
    /// [`ForgetError`]; nothing was changed then.
    pub async fn forget(&self, plugin: PluginId, host: Option<HostId>) -> Result<Forgotten, ForgetError> {
        let (answer, forgotten) = oneshot::channel();
        let sent = self.0.send(Forget { plugin, host, answer }).await;
        sent.map_err(|_| ForgetError::Stopping)?;
        forgotten.await.unwrap_or(Err(ForgetError::Stopping))
    }
}

/// What `forget` would remove of a plugin, on one host or on all: nothing that is alive.
///
/// # Errors
/// There is nothing, or something is alive.
pub(crate) fn forgettable(plugin: &Plugin, host: Option<&HostId>) -> Result<Vec<Record>, ForgetError> {
    let records = plugin.records().filter(|record| host.is_none_or(|host| record.key.host == *host));
    let records: Vec<Record> = records.cloned().collect();
    if records.is_empty() {
        return Err(ForgetError::NoSuchInstance);
    }
    let alive = records.iter().filter(|record| matches!(record.phase, Phase::Healthy | Phase::Starting));
    let alive: Vec<InstanceKey> = alive.map(|record| record.key.clone()).collect();
    if alive.is_empty() { Ok(records) } else { Err(ForgetError::Alive(alive)) }
}
