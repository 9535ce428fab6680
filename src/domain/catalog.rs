//! All plugins at one index: an immutable value, from which the next one is made.
//!
//! Persistent maps, in the plugins too, so that one record costs the same among 100 and 100,000.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use super::expected::DeclaredCounts;
use super::id::{HostId, InstanceKey, PluginId, Role};
use super::plugin::{Dates, Instance, Plugin, contribution};
use super::record::Record;
use super::time::{Index, Timestamp};

/// One step from a record to the next.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordChange {
    /// The instance is like this now.
    Put(Box<Record>),
    /// The instance is no longer known.
    Remove(InstanceKey),
}

impl RecordChange {
    /// Which instance it is about.
    #[must_use]
    pub fn key(&self) -> &InstanceKey {
        match self {
            Self::Put(record) => &record.key,
            Self::Remove(key) => key,
        }
    }
}

/// A plugin that a step changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// Which.
    pub plugin: PluginId,
    /// Whether Nomad's shape shows it.
    pub is_shown_by_nomad: bool,
    /// Its dates after the step; `None`: it does not count (any more).
    pub dates: Option<Dates>,
}

/// All plugins at one index.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    index: Index,
    nomad_index: Index,
    plugins: RedBlackTreeMapSync<PluginId, Arc<Plugin>>,
    hosts: Hosts,
}

/// Hosts, and how many instances each has, which share its id.
#[derive(Debug, Clone, Default)]
struct Hosts(RedBlackTreeMapSync<HostId, u32>);

impl Hosts {
    /// The shared id of a host that has an instance more, or (`is_new` false) one that changed.
    fn arrived(&mut self, host: &HostId, is_new: bool) -> HostId {
        let (id, count) =
            self.0.get_key_value(host).map_or_else(|| (host.clone(), 0), |(id, count)| (id.clone(), *count));
        if is_new {
            self.0.insert_mut(id.clone(), count + 1);
        }
        id
    }

    /// A host has an instance less.
    fn left(&mut self, host: &HostId) {
        match self.0.get(host).map_or(0, |count| count.saturating_sub(1)) {
            0 => {
                self.0.remove_mut(host);
            }
            count => self.0.insert_mut(host.clone(), count),
        }
    }
}

impl Catalog {
    /// What was stored, served from `start` on: nobody can have seen a larger index.
    #[must_use]
    pub fn load(start: Index, records: Vec<Record>, dates: impl IntoIterator<Item = (PluginId, Dates)>) -> Self {
        let dates: BTreeMap<PluginId, Dates> = dates.into_iter().collect();
        let changes: Vec<RecordChange> = records.into_iter().map(|r| RecordChange::Put(Box::new(r))).collect();
        let (mut catalog, touched) = Self::default().with(&changes, start, Timestamp::default());
        for touch in touched {
            let (Some(stored), Some(plugin)) = (dates.get(&touch.plugin), catalog.plugins.get(&touch.plugin)) else {
                continue;
            };
            if plugin.dates.is_some() {
                let mut next = plugin.successor();
                next.dates = Some(*stored);
                catalog.plugins.insert_mut(touch.plugin, Arc::new(next));
            }
        }
        catalog.index = start;
        catalog.nomad_index = start;
        catalog
    }

    /// A loaded catalog with what an operator declares now, and the plugins whose dates that changes. `stored` are dates
    /// of plugins of which there is no record. Nobody has seen the catalog's index yet, so it stays.
    #[must_use]
    pub fn declaring(
        &self,
        declared: &BTreeMap<PluginId, DeclaredCounts>,
        stored: &BTreeMap<PluginId, Dates>,
        now: Timestamp,
    ) -> (Self, Vec<Touched>) {
        let mut next = self.clone();
        let mut report = Vec::new();
        let known = self.plugins().map(|plugin| plugin.id.clone());
        let ids: BTreeSet<PluginId> = known.chain(declared.keys().cloned()).chain(stored.keys().cloned()).collect();
        for id in ids {
            let old = self.plugins.get(&id);
            let mut plugin = old.map_or_else(|| Plugin::new(id.clone()), |plugin| plugin.successor());
            plugin.dates = plugin.dates.or_else(|| stored.get(&id).copied());
            plugin.declared = declared.get(&id).copied().unwrap_or_default();
            let before = plugin.dates;
            plugin.dates = plugin.counts().then(|| match before {
                Some(dates) if dates.declared == plugin.declared => dates,
                _ => changed(&plugin, self.index, now),
            });
            if before != plugin.dates {
                report.push(Touched { plugin: id.clone(), is_shown_by_nomad: true, dates: plugin.dates });
            }
            if plugin.is_over() {
                next.plugins.remove_mut(&id);
            } else if before != plugin.dates || old.is_none_or(|old| old.declared != plugin.declared) {
                next.plugins.insert_mut(id, Arc::new(plugin));
            }
        }
        (next, report)
    }

    /// The catalog after a batch of changes, which gets `index`, and the plugins that it touched.
    ///
    /// Changes that change nothing touch nothing. `now` dates plugins that begin to count.
    #[must_use]
    pub fn with(&self, changes: &[RecordChange], index: Index, now: Timestamp) -> (Self, Vec<Touched>) {
        let mut next = self.clone();
        let mut touched = BTreeMap::<PluginId, bool>::new();
        // A plugin that several changes of one batch concern is copied once.
        let mut open = BTreeMap::<PluginId, Plugin>::new();
        for change in changes {
            let key = change.key();
            let plugin = open.entry(key.plugin.clone()).or_insert_with(|| {
                self.plugins.get(&key.plugin).map_or_else(|| Plugin::new(key.plugin.clone()), |p| p.successor())
            });
            if let Some(is_shown_by_nomad) = step(plugin, &mut next.hosts, change) {
                *touched.entry(key.plugin.clone()).or_default() |= is_shown_by_nomad;
            }
        }
        let mut report = Vec::with_capacity(touched.len());
        for (id, is_shown_by_nomad) in touched {
            let Some(mut plugin) = open.remove(&id) else { continue };
            if is_shown_by_nomad {
                plugin.dates = plugin.counts().then(|| changed(&plugin, index, now));
                next.nomad_index = index;
            }
            report.push(Touched { plugin: id.clone(), is_shown_by_nomad, dates: plugin.dates });
            if plugin.is_over() {
                next.plugins.remove_mut(&id);
            } else {
                next.plugins.insert_mut(id, Arc::new(plugin));
            }
            next.index = index;
        }
        (next, report)
    }

    /// The same with dates, declarations and indexes as a fleet's store tells them, instead of counting them here: `tell`
    /// is asked for each plugin that the changes touch, and for those `affected` besides.
    #[must_use]
    pub fn following(
        &self,
        changes: &[RecordChange],
        affected: &BTreeSet<PluginId>,
        (index, nomad_index): (Index, Index),
        tell: impl Fn(&PluginId) -> (Option<Dates>, DeclaredCounts),
    ) -> (Self, Vec<Touched>) {
        let (mut next, touched) = self.with(changes, index, Timestamp::default());
        let mut shown: BTreeMap<PluginId, Option<bool>> = affected.iter().map(|id| (id.clone(), None)).collect();
        shown.extend(touched.into_iter().map(|touch| (touch.plugin, Some(touch.is_shown_by_nomad))));
        let mut report = Vec::with_capacity(shown.len());
        for (id, is_shown) in shown {
            let old = self.plugins.get(&id);
            let before = old.and_then(|plugin| plugin.dates);
            let (dates, declared) = tell(&id);
            let mut plugin = next.plugins.get(&id).map_or_else(|| Plugin::new(id.clone()), |plugin| plugin.successor());
            plugin.declared = declared;
            plugin.dates = plugin.counts().then(|| {
                let unknown =
                    Dates { create_index: index, modify_index: index, create_time: Timestamp::default(), declared };
                Dates { declared, ..dates.or(before).unwrap_or(unknown) }
            });
            let is_shown_by_nomad = is_shown == Some(true) || before != plugin.dates;
            if is_shown.is_none() && !is_shown_by_nomad && old.is_none_or(|old| old.declared == declared) {
                continue;
            }
            report.push(Touched { plugin: id.clone(), is_shown_by_nomad, dates: plugin.dates });
            if plugin.is_over() {
                next.plugins.remove_mut(&id);
            } else {
                next.plugins.insert_mut(id, Arc::new(plugin));
            }
        }
        (next.index, next.nomad_index) = (index, nomad_index);
        (next, report)
    }

    /// An empty catalog that was served from `start` on.
    #[must_use]
    pub fn empty(start: Index) -> Self {
        Self { index: start, nomad_index: start, ..Self::default() }
    }

    /// The ids of all hosts that have instances.
    pub fn hosts(&self) -> impl Iterator<Item = &HostId> {
        self.hosts.0.keys()
    }

    /// Index of the last change that anything of ours can show.
    #[must_use]
    pub fn index(&self) -> Index {
        self.index
    }

    /// Index of the last change that Nomad's shape shows: `X-Nomad-Index`.
    #[must_use]
    pub fn nomad_index(&self) -> Index {
        self.nomad_index
    }

    /// A plugin by its id, those included that do not count yet.
    #[must_use]
    pub fn plugin(&self, id: &str) -> Option<&Arc<Plugin>> {
        self.plugins.get(id)
    }

    /// All plugins by id, those included that do not count yet.
    pub fn plugins(&self) -> impl Iterator<Item = &Arc<Plugin>> {
        self.plugins.values()
    }

    /// A plugin that Nomad would know.
    #[must_use]
    pub fn counting_plugin(&self, id: &str) -> Option<&Arc<Plugin>> {
        self.plugin(id).filter(|plugin| plugin.dates.is_some())
    }

    /// The plugins that Nomad would list whose id begins with `prefix`, in byte order.
    pub fn counting_plugins<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Plugin>> {
        self.plugins
            .range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded))
            .map(|(_, plugin)| plugin)
            .take_while(move |plugin| plugin.id.as_str().starts_with(prefix))
            .filter(|plugin| plugin.dates.is_some())
    }

    /// One record.
    #[must_use]
    pub fn record(&self, key: &InstanceKey) -> Option<&Record> {
        self.plugin(key.plugin.as_str())?.instance(key.role, key.host.as_str()).map(|instance| &instance.record)
    }

    /// Every record.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.plugins().flat_map(|plugin| plugin.records())
    }
}

/// The dates of a plugin that changes at `index`.
fn changed(plugin: &Plugin, index: Index, now: Timestamp) -> Dates {
    let declared = plugin.declared;
    match plugin.dates {
        Some(dates) => Dates { modify_index: index, declared, ..dates },
        None => Dates { create_index: index, modify_index: index, create_time: now, declared },
    }
}

/// Applies one change to a plugin. `None`: nothing changed; else whether Nomad's shape shows it.
fn step(plugin: &mut Plugin, hosts: &mut Hosts, change: &RecordChange) -> Option<bool> {
    let key = change.key();
    let old = plugin.instance(key.role, key.host.as_str()).cloned();
    let old_record = old.as_ref().map(|instance| &instance.record);
    match change {
        RecordChange::Put(record) if old_record == Some(&**record) => return None,
        RecordChange::Remove(_) if old_record.is_none() => return None,
        _ => {}
    }
    let other_role = match key.role {
        Role::Controller => Role::Node,
        Role::Node => Role::Controller,
    };
    let is_alone = plugin.instance(other_role, key.host.as_str()).is_none();
    if let Some(old) = old_record {
        plugin.tally.take(&contribution(old));
        plugin.overview.take(old, is_alone);
    }
    let instances = match key.role {
        Role::Controller => &mut plugin.controllers,
        Role::Node => &mut plugin.nodes,
    };
    let is_shown = match change {
        RecordChange::Put(record) => {
            let mut record = (**record).clone();
            record.key.plugin = plugin.id.clone();
            record.key.host = hosts.arrived(&key.host, old.is_none());
            let model = &mut plugin.models[key.role as usize];
            for other in old.iter().chain(&*model) {
                record.share(&other.record);
            }
            plugin.tally.add(&contribution(&record));
            plugin.overview.add(&record, is_alone);
            let is_shown = Record::is_step_shown_by_nomad(old_record, Some(&record));
            let instance = Arc::new(Instance::new(record));
            instances.insert_mut(instance.record.key.host.clone(), Arc::clone(&instance));
            *model = Some(instance);
            is_shown
        }
        RecordChange::Remove(_) => {
            instances.remove_mut(key.host.as_str());
            hosts.left(&key.host);
            Record::is_step_shown_by_nomad(old_record, None)
        }
    };
    let now = plugin.instance(key.role, key.host.as_str()).map(|instance| &instance.record);
    if old_record.is_some_and(|old| plugin.overview.may_have_lost_the_last(old, now)) {
        let last = plugin.records().map(|record| record.since).max();
        plugin.overview.found_the_last(last);
    }
    Some(is_shown)
}
