//! Who runs the drivers of this host, as an orchestrator says.
//!
//! [`nomad`] follows what Nomad's servers say of a client's allocations; [`naming`] gives the sockets that were found the
//! plugin ids, roles and jobs that belong to them. What was learnt stays when the orchestrator is away.

pub mod naming;
pub mod nomad;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::id::PluginId;
use crate::domain::record::Job;
use crate::domain::socket::RoleChoice;

/// What an allocation runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs {
    /// The plugin id that its job gives the driver.
    pub plugin: PluginId,
    /// What the job takes the driver for.
    pub role: RoleChoice,
    /// The job; `None` where it was heard of before jobs were asked for.
    pub job: Option<Arc<Job>>,
}

/// What is known of allocations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Whether the orchestrator was asked once, with whatever result: until then a first scan waits for it.
    pub is_asked: bool,
    /// Whether it answered once.
    pub is_answered: bool,
    /// What they run, by id: all that were ever heard of and still matter.
    pub allocations: BTreeMap<Box<str>, Runs>,
}
