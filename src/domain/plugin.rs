//! The plugin: the aggregate that users see. Everything about it is derived from its records.
//!
//! [`contribution`] is the only place that counts. The publisher keeps a tally by adding the new contribution of a
//! record and taking away the old one; a property test holds that against a recount. (Nomad's counters, kept by hand in
//! many places, have been reported wrong, stuck and negative for years.)

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use rpds::RedBlackTreeMapSync;

use super::expected::DeclaredCounts;
use super::id::{HostId, PluginId, Role};
use super::overview::Overview;
use super::record::{Job, Record};
use super::time::{Index, Timestamp};

/// How many there are of one role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Instances that should be there: those that were healthy once, and those that an orchestrator's job wants to run.
    pub expected: u32,
    /// Instances that were healthy once (rule A2).
    pub known: u32,
    /// Those that are healthy now.
    pub healthy: u32,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.expected += other.expected;
        self.known += other.known;
        self.healthy += other.healthy;
    }

    fn take(&mut self, other: Self) {
        self.expected -= other.expected;
        self.known -= other.known;
        self.healthy -= other.healthy;
    }
}

/// A multiset of names: which are there, and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Votes(BTreeMap<Arc<str>, Count>);

impl Votes {
    fn add(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            self.0.entry(Arc::clone(name)).or_default().add(*count);
        }
    }

    fn take(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            if let Some(held) = self.0.get_mut(name) {
                held.take(*count);
                if *held == Count::default() {
                    self.0.remove(name);
                }
            }
        }
    }

    /// The name of most healthy instances; where none is healthy, of most known ones; ties go to the larger text (A8).
    #[must_use]
    pub fn winner(&self) -> Option<&Arc<str>> {
        self.0.iter().max_by_key(|(name, count)| (count.healthy, count.known, Arc::clone(name))).map(|(name, _)| name)
    }

    /// Names and how many known instances bear them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.0.iter().map(|(name, count)| (&**name, count.known))
    }
}

/// Jobs, and how many instances each wants to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Jobs(BTreeMap<Arc<Job>, u32>);

impl Jobs {
    fn add(&mut self, other: &Self) {
        for (job, count) in &other.0 {
            *self.0.entry(Arc::clone(job)).or_default() += count;
        }
    }

    fn take(&mut self, other: &Self) {
        for (job, count) in &other.0 {
            if let Some(held) = self.0.get_mut(job) {
                *held -= count;
                if *held == 0 {
                    self.0.remove(job);
                }
            }
        }
    }

    /// Whether no job wants any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Jobs by namespace and id.
    pub fn iter(&self) -> impl Iterator<Item = (&Job, u32)> {
        self.0.iter().map(|(job, count)| (&**job, *count))
    }
}

/// What the records of one plugin add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Controller instances.
    pub controllers: Count,
    /// Node instances.
    pub nodes: Count,
    /// Who wants controller instances to run.
    pub controller_jobs: Jobs,
    /// Who wants node instances to run.
    pub node_jobs: Jobs,
    /// Known instances that say a controller is required (rule A7).
    pub requiring_controller: u32,
    /// Names that drivers give themselves.
    pub providers: Votes,
    /// Versions that run.
    pub versions: Votes,
}

impl Tally {
    /// Adds what one record contributes.
    pub fn add(&mut self, other: &Self) {
        self.controllers.add(other.controllers);
        self.nodes.add(other.nodes);
        self.controller_jobs.add(&other.controller_jobs);
        self.node_jobs.add(&other.node_jobs);
        self.requiring_controller += other.requiring_controller;
        self.providers.add(&other.providers);
        self.versions.add(&other.versions);
    }

    /// Takes away what one record contributed.
    pub fn take(&mut self, other: &Self) {
        self.controllers.take(other.controllers);
        self.nodes.take(other.nodes);
        self.controller_jobs.take(&other.controller_jobs);
        self.node_jobs.take(&other.node_jobs);
        self.requiring_controller -= other.requiring_controller;
        self.providers.take(&other.providers);
        self.versions.take(&other.versions);
    }

    /// Instances that count, of both roles.
    #[must_use]
    pub fn known(&self) -> u32 {
        self.controllers.known + self.nodes.known
    }

    /// Instances that should be there, of both roles.
    #[must_use]
    pub fn expected(&self) -> u32 {
        self.controllers.expected + self.nodes.expected
    }
}

/// What one record adds to its plugin: nothing before it was healthy once (rule A2), unless a job wants it to run. Then it
/// is expected from the beginning, as Nomad expects what a job asks for.
#[must_use]
pub fn contribution(record: &Record) -> Tally {
    let mut tally = Tally::default();
    if !record.is_expected() {
        return tally;
    }
    let count = Count { expected: 1, known: record.was_healthy.into(), healthy: record.phase.is_healthy().into() };
    let (counts, jobs) = match record.key.role {
        Role::Controller => (&mut tally.controllers, &mut tally.controller_jobs),
        Role::Node => (&mut tally.nodes, &mut tally.node_jobs),
    };
    *counts = count;
    jobs.0.extend(record.owner.job.iter().map(|job| (Arc::clone(job), 1)));
    if !record.was_healthy {
        return tally;
    }
    if let Some(fingerprint) = &record.fingerprint {
        let product = &fingerprint.product;
        tally.requiring_controller = product.requires_controller().into();
        tally.providers.0.insert(Arc::clone(&product.provider), count);
        tally.versions.0.insert(Arc::clone(&product.version), count);
    }
    tally
}

/// One record in the catalog, and its JSON once somebody asked for it.
#[derive(Debug)]
pub struct Instance {
    /// What is known.
    pub record: Record,
    rendered: OnceLock<Box<[u8]>>,
}

impl Instance {
    /// Wraps a record.
    #[must_use]
    pub fn new(record: Record) -> Self {
        Self { record, rendered: OnceLock::new() }
    }

    /// The record's JSON, made by `render` the first time and kept as long as the record stays as it is.
    pub fn rendered(&self, render: impl FnOnce(&Record) -> Box<[u8]>) -> &[u8] {
        self.rendered.get_or_init(|| render(&self.record))
    }
}

/// Indexes and time of an aggregate: all of it that cannot be derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Dates {
    /// Index of its creation.
    pub create_index: Index,
    /// Index of the last change that Nomad's shape shows.
    pub modify_index: Index,
    /// Time of its creation.
    pub create_time: Timestamp,
    /// What was declared of it then: a start with another declaration is a change.
    #[serde(default, skip_serializing_if = "DeclaredCounts::is_empty")]
    pub declared: DeclaredCounts,
}

/// All instances of one id.
#[derive(Debug)]
pub struct Plugin {
    /// Its id.
    pub id: PluginId,
    /// What its records add up to.
    pub tally: Tally,
    /// What all of them add up to, for people.
    pub overview: Overview,
    /// `Some` from the moment it counts (an instance was healthy, or a job wants one), until none is left; always, if it is
    /// declared.
    pub dates: Option<Dates>,
    /// What an operator declares of it.
    pub declared: DeclaredCounts,
    pub(super) controllers: RedBlackTreeMapSync<HostId, Arc<Instance>>,
    pub(super) nodes: RedBlackTreeMapSync<HostId, Arc<Instance>>,
    /// The instance of each role most recently put, with which others share what they have in common.
    pub(super) models: [Option<Arc<Instance>>; 2],
    stub: OnceLock<Box<[u8]>>,
}

impl Plugin {
    pub(super) fn new(id: PluginId) -> Self {
        Self {
            id,
            tally: Tally::default(),
            overview: Overview::default(),
            dates: None,
            declared: DeclaredCounts::default(),
            controllers: RedBlackTreeMapSync::default(),
            nodes: RedBlackTreeMapSync::default(),
            models: [None, None],
            stub: OnceLock::new(),
        }
    }

    /// The same plugin, to be changed; the maps are shared, not copied.
    pub(super) fn successor(&self) -> Self {
        Self {
            id: self.id.clone(),
            tally: self.tally.clone(),
            overview: self.overview.clone(),
            dates: self.dates,
            declared: self.declared,
            controllers: self.controllers.clone(),
            nodes: self.nodes.clone(),
            models: self.models.clone(),
            stub: OnceLock::new(),
        }
    }

    fn of(&self, role: Role) -> &RedBlackTreeMapSync<HostId, Arc<Instance>> {
        match role {
            Role::Controller => &self.controllers,
            Role::Node => &self.nodes,
        }
    }

    /// Every instance of a role, by host, those included that never were healthy.
    pub fn instances(&self, role: Role) -> impl Iterator<Item = &Arc<Instance>> {
        self.of(role).values()
    }

    /// Every record, those of controllers first, by host.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.controllers.values().chain(self.nodes.values()).map(|instance| &instance.record)
    }

    /// The instances of a role that count, by host (rule A2).
    pub fn counting(&self, role: Role) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances(role).filter(|instance| instance.record.was_healthy)
    }

    /// One instance.
    #[must_use]
    pub fn instance(&self, role: Role, host: &str) -> Option<&Arc<Instance>> {
        self.of(role).get(host)
    }

    /// How many of a role are healthy and known.
    #[must_use]
    pub fn count(&self, role: Role) -> Count {
        match role {
            Role::Controller => self.tally.controllers,
            Role::Node => self.tally.nodes,
        }
    }

    /// How many of a role there should be: what is declared, else those that jobs want or that were observed (rule A3).
    #[must_use]
    pub fn expected(&self, role: Role) -> u32 {
        self.declared.of(role).unwrap_or(self.count(role).expected)
    }

    /// Who wants instances of a role to run.
    #[must_use]
    pub fn jobs(&self, role: Role) -> &Jobs {
        match role {
            Role::Controller => &self.tally.controller_jobs,
            Role::Node => &self.tally.node_jobs,
        }
    }

    /// Where [`Plugin::expected`] comes from, in our JSON: `declared`, `orchestrator` or `observed`.
    #[must_use]
    pub fn expected_source(&self) -> &'static str {
        let has_jobs = [Role::Controller, Role::Node].into_iter().any(|role| !self.jobs(role).is_empty());
        match (self.declared.is_empty(), has_jobs) {
            (false, _) => "declared",
            (true, true) => "orchestrator",
            (true, false) => "observed",
        }
    }

    /// Whether anybody should know of it: an instance was healthy, a job wants one, or it is declared (case 91).
    pub(super) fn counts(&self) -> bool {
        self.tally.expected() > 0 || !self.declared.is_empty()
    }

    /// Whether there is nothing left to say of it.
    pub(super) fn is_over(&self) -> bool {
        self.controllers.is_empty() && self.nodes.is_empty() && self.declared.is_empty()
    }

    /// Nomad's `ControllerRequired` (rule A7).
    #[must_use]
    pub fn requires_controller(&self) -> bool {
        self.tally.requiring_controller > 0
    }

    /// Nomad's `Provider`; empty while nothing is known.
    #[must_use]
    pub fn provider(&self) -> &str {
        self.tally.providers.winner().map_or("", |name| name)
    }

    /// Nomad's `Version`; empty while nothing is known.
    #[must_use]
    pub fn version(&self) -> &str {
        self.tally.versions.winner().map_or("", |name| name)
    }

    /// Its JSON in a list, made by `render` the first time and kept as long as the plugin stays as it is.
    pub fn stub(&self, render: impl FnOnce(&Self) -> Box<[u8]>) -> &[u8] {
        self.stub.get_or_init(|| render(self))
    }
}
