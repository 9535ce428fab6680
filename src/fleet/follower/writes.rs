//! What a follower writes, since nobody else can: that a host is lost, that the instances of a lost host are over, that
//! nothing is left of a plugin or a host, and what is declared. Every such write says what it has seen, so that of several
//! aggregators one does it, and none undoes what happened meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::Follower;
use crate::domain::durability::Durability;
use crate::domain::expected::DeclaredNodes;
use crate::domain::id::{HostId, InstanceKey, PluginId};
use crate::domain::record::Phase;
use crate::domain::time::Index;
use crate::fleet::error::EtcdError;
use crate::fleet::etcd::{Do, If, Session};
use crate::fleet::keys::{Expected, HostState, Moved, PluginDates, Presence};
use crate::fleet::view::{Host, Step};
use crate::registry::commands::{self, Forget, ForgetError, Forgotten};
use crate::store::record::Stored;

/// From an attempt to write what is declared to the next one.
const DECLARE_AGAIN: Duration = Duration::from_secs(2);
/// How long a host that never registered may have instances: its agent is about to register, or has died over it.
const REGISTERING: Duration = Duration::from_secs(10);
/// Writes in flight.
const WRITES: usize = 16;
/// From a write that failed to the next attempt.
const AGAIN: Duration = Duration::from_millis(300);
/// Operations of one transaction of instances, beside a few others.
const OPERATIONS: usize = 90;

/// What a write is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    /// That a host is lost, or that nothing is left of it.
    Host(HostId),
    /// That nothing is left of a plugin.
    Plugin(PluginId),
    /// Instances of lost hosts whose time is over.
    Retired,
}

/// How a write went.
#[derive(Debug)]
pub(super) struct Written {
    about: About,
    result: Result<bool, EtcdError>,
}

impl Follower {
    /// Moves indexes that a backup took back beyond those that were shown, before anybody sees them. (Where its revision
    /// was not raised, too, nothing can; see [`crate::fleet::error::Fault::Restored`].)
    pub(super) async fn raise(&self, session: &Session, moved: i64) -> Result<(), EtcdError> {
        let dates = PluginDates { created: (self.clock)() }.to_stored();
        let known = self.view.plugins.iter().filter(|(_, entry)| entry.dates.is_some());
        let mut steps: Vec<Do> = known.map(|(id, _)| Do::Touch(self.keys.plugin(id), dates.clone())).collect();
        while !steps.is_empty() {
            let rest = steps.split_off(steps.len().min(OPERATIONS));
            if rest.is_empty() {
                steps.extend(self.indexes());
            }
            // Of several aggregators one is the last.
            let is_unmoved = If::Unmoved(self.keys.index(), moved);
            match session.transact(vec![is_unmoved], std::mem::replace(&mut steps, rest)).await {
                Ok((true, _)) => {}
                Ok((false, _)) => return Ok(()),
                Err(error) if error.is_of_writes_only() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        warn!("etcd was restored from a backup: indexes are raised beyond those that were shown");
        Ok(())
    }

    /// Starts what a step makes necessary; `None`: looks at everything.
    pub(super) fn look_after(&mut self, session: &Session, step: Option<&Step>) {
        let now = Instant::now();
        let hosts: Vec<HostId> = match step {
            Some(step) => step.hosts.iter().cloned().collect(),
            None => self.view.hosts.keys().cloned().collect(),
        };
        for id in hosts {
            let Some(host) = self.view.hosts.get(&id) else {
                self.silent.remove(&id);
                self.unshown.remove(&id);
                continue;
            };
            if !host.is_alive && host.is_here() && !host.is_empty() {
                self.unshown.entry(id.clone()).or_insert(now);
            } else {
                self.unshown.remove(&id);
            }
            let presence = host.state.map(|(state, _)| state.state);
            match (host.is_alive, presence, host.is_empty()) {
                (false, Some(Presence::Here), _) => drop(self.silent.entry(id).or_insert(now)),
                (false, None, false) => drop(self.silent.entry(id).or_insert(now + REGISTERING)),
                // Nothing is left of it.
                (false, Some(Presence::Lost), true) => drop(self.silent.entry(id).or_insert(now)),
                _ => drop(self.silent.remove(&id)),
            }
        }
        let plugins: Vec<PluginId> = match step {
            Some(step) => step.emptied.iter().cloned().collect(),
            None => self.view.plugins.keys().cloned().collect(),
        };
        for id in plugins {
            let Some(entry) = self.view.plugins.get(&id) else { continue };
            if let (0, Some((_, moved, _)), None) = (entry.instances, entry.dates, entry.expected()) {
                let key = self.keys.plugin(&id);
                let conditions = vec![If::Unmoved(key.clone(), moved)];
                self.write(session, About::Plugin(id), conditions, vec![Do::Delete(key)]);
            }
        }
        self.catch_up(session);
    }

    /// When something is to be done by the clock.
    pub(super) fn due(&self) -> Option<Instant> {
        let is_free = self.writes.len() < WRITES;
        let silent = self.silent.values().min().copied().filter(|_| is_free);
        let retired =
            self.retirement.next().map(Instant::from_std).filter(|_| is_free && !self.busy.contains(&About::Retired));
        silent.into_iter().chain(retired).chain(self.declare_at).min()
    }

    /// Does what is due.
    pub(super) fn catch_up(&mut self, session: &Session) {
        let now = Instant::now();
        let due: Vec<HostId> = self.silent.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
        for id in due {
            if self.writes.len() >= WRITES {
                break;
            }
            self.silent.remove(&id);
            self.write_silence(session, &id);
        }
        let over = self.retirement.due(std::time::Instant::now());
        if !over.is_empty() && !self.busy.contains(&About::Retired) && self.writes.len() < WRITES {
            self.retire(session, over);
        }
    }

    /// Writes that a host is lost, or that nothing is left of it.
    fn write_silence(&mut self, session: &Session, id: &HostId) {
        let Some(host) = self.view.hosts.get(id).filter(|host| !host.is_alive) else { return };
        let state = self.keys.state(id);
        let conditions = vec![If::Unmoved(self.keys.alive(id), 0), If::Unmoved(state.clone(), host.state_revision())];
        let is_lost = host.state.is_some_and(|(state, _)| state.state == Presence::Lost);
        let mut steps = Vec::new();
        if is_lost && host.is_empty() {
            steps.extend([state, self.keys.session(id), self.keys.sockets(id)].map(Do::Delete));
            // Hosts come and go with new names: what they leave behind would be all there is in the end.
            steps.extend([self.keys.history(Some(id)), self.keys.stubs(id)].map(Do::DeleteAll));
            for plugin in self.view.expecting(id) {
                steps.push(Do::Touch(self.keys.plugin(&plugin), PluginDates { created: (self.clock)() }.to_stored()));
            }
            info!(host.id = %id, "nothing is left of a host");
        } else if !is_lost {
            let lost = HostState { state: Presence::Lost, since: (self.clock)() };
            steps.push(Do::Put(state, lost.to_stored()));
            warn!(host.id = %id, "lost: its agent is silent");
        } else {
            return;
        }
        steps.extend(self.indexes());
        self.write(session, About::Host(id.clone()), conditions, steps);
    }

    fn indexes(&self) -> [Do; 2] {
        [Do::Put(self.keys.index(), Moved {}.to_stored()), Do::Put(self.keys.nomad_index(), Moved {}.to_stored())]
    }

    fn write(&mut self, session: &Session, about: About, conditions: Vec<If>, steps: Vec<Do>) {
        if !self.busy.insert(about.clone()) {
            return;
        }
        let session = session.clone();
        self.writes.spawn(async move {
            let result = session.transact(conditions, steps).await.map(|(is_done, _)| is_done);
            Written { about, result }
        });
    }

    pub(super) fn written(&mut self, session: &Session, written: Written) -> Result<(), EtcdError> {
        let Written { about, result } = written;
        self.busy.remove(&about);
        match result {
            // Not done means that it happened otherwise meanwhile, which the watch tells.
            Ok(_) => {
                if self.unwritten.take().is_some() {
                    self.tell(None);
                }
                if about == About::Retired {
                    self.catch_up(session);
                }
                Ok(())
            }
            Err(error) if error.is_of_writes_only() => {
                if let About::Host(host) = about {
                    self.silent.insert(host, Instant::now() + AGAIN);
                }
                self.unwritten = Some(error);
                self.tell(None);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Removes instances of lost hosts, some at a time.
    fn retire(&mut self, session: &Session, over: Vec<InstanceKey>) {
        let now = std::time::Instant::now();
        let current = self.mirror.current();
        let mut host: Option<HostId> = None;
        let mut keys = Vec::new();
        for key in over {
            let is_lost = current.record(&key).is_some_and(|record| record.phase == Phase::Lost);
            if !is_lost {
                self.retirement.left(&key);
            } else if host.get_or_insert_with(|| key.host.clone()) == &key.host && keys.len() < OPERATIONS / 2 {
                keys.push(key);
            }
        }
        let Some(host) = host else { return };
        for key in &keys {
            info!(plugin.id = %key.plugin, role = key.role.as_str(), host.id = %host, "retired: its host has been lost for long enough");
            // Asked again in a minute if it is still there then.
            self.retirement.postpone(key, now + Duration::from_mins(1));
        }
        let (conditions, steps) = self.removal(&host, &keys);
        self.write(session, About::Retired, conditions, steps);
    }

    /// What removes instances of one lost host.
    fn removal(&self, host: &HostId, keys: &[InstanceKey]) -> (Vec<If>, Vec<Do>) {
        let revision = self.view.hosts.get(host).map_or(0, Host::state_revision);
        let conditions = vec![If::Unmoved(self.keys.state(host), revision)];
        let mut steps: Vec<Do> = keys.iter().map(|key| Do::Delete(self.keys.instance(key))).collect();
        let plugins: BTreeSet<&PluginId> = keys.iter().map(|key| &key.plugin).collect();
        for plugin in plugins {
            steps.push(Do::Touch(self.keys.plugin(plugin), PluginDates { created: (self.clock)() }.to_stored()));
        }
        steps.extend(self.indexes());
        (conditions, steps)
    }

    pub(super) async fn forget(&mut self, session: &Session, command: Forget) {
        let Forget { plugin, host, answer } = command;
        let result = self.forgotten(session, &plugin, host.as_ref()).await;
        // Whoever asked may have gone; it is forgotten all the same.
        let _ = answer.send(result);
    }

    async fn forgotten(
        &mut self,
        session: &Session,
        plugin: &PluginId,
        host: Option<&HostId>,
    ) -> Result<Forgotten, ForgetError> {
        let current = self.mirror.current();
        let known = current.plugin(plugin.as_str()).ok_or(ForgetError::NoSuchPlugin)?;
        let records = commands::forgettable(known, host)?;
        let elsewhere = records.iter().filter(|record| record.phase != Phase::Lost);
        let elsewhere: Vec<InstanceKey> = elsewhere.map(|record| record.key.clone()).collect();
        if !elsewhere.is_empty() {
            return Err(ForgetError::OnLiveHosts(elsewhere));
        }
        let mut by_host: BTreeMap<&HostId, Vec<InstanceKey>> = BTreeMap::new();
        for record in &records {
            by_host.entry(&record.key.host).or_default().push(record.key.clone());
        }
        let mut revision = 0;
        for (host, keys) in by_host {
            let (conditions, steps) = self.removal(host, &keys);
            match session.transact(conditions, steps).await {
                Ok((true, at)) => revision = at,
                // Its agent is back.
                Ok((false, _)) => return Err(ForgetError::OnLiveHosts(keys)),
                Err(_) => return Err(ForgetError::Unwritten),
            }
        }
        let is_plugin_gone = known.records().count() == records.len() && known.declared.is_empty();
        let index = Index(u64::try_from(revision).unwrap_or_default());
        Ok(Forgotten { records, is_plugin_gone, index, durability: Durability::Durable })
    }

    /// Writes what is declared if that is due. What is there can be followed, whether it succeeds or not.
    pub(super) async fn declare_if_due(&mut self, session: &Session) -> Result<(), EtcdError> {
        if self.declare_at.is_none_or(|at| at > Instant::now()) {
            return Ok(());
        }
        match self.declare(session).await {
            Ok(()) => self.declare_at = None,
            Err(error) if error.is_of_writes_only() => {
                self.declare_at = Some(Instant::now() + DECLARE_AGAIN);
                self.unwritten = Some(error);
                self.tell(None);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes what is declared here, once: whoever was started last has the last word.
    async fn declare(&self, session: &Session) -> Result<(), EtcdError> {
        let mut wanted: BTreeMap<&PluginId, Expected> = BTreeMap::new();
        for (id, declaration) in &self.declared {
            let (nodes, hosts) = match &declaration.nodes {
                Some(DeclaredNodes::Count(count)) => (Some(*count), None),
                Some(DeclaredNodes::On(hosts)) => (None, Some(hosts.as_str().into())),
                None => (None, None),
            };
            let expected = Expected { nodes, hosts, controllers: declaration.controllers };
            if expected.nodes.is_some() || expected.hosts.is_some() || expected.controllers.is_some() {
                wanted.insert(id, expected);
            }
        }
        let known = self.view.plugins.iter().filter_map(|(id, entry)| Some((id, entry.expected()?)));
        let known: BTreeMap<&PluginId, &Expected> = known.collect();
        let ids: BTreeSet<&PluginId> = wanted.keys().chain(known.keys()).copied().collect();
        for id in ids {
            let (now, before) = (wanted.get(id), known.get(id).copied());
            if now == before {
                continue;
            }
            let step = match now {
                Some(expected) => Do::Put(self.keys.expected(id), expected.to_stored()),
                None => Do::Delete(self.keys.expected(id)),
            };
            let dates = PluginDates { created: (self.clock)() }.to_stored();
            let mut steps = vec![step, Do::Touch(self.keys.plugin(id), dates)];
            steps.extend(self.indexes());
            session.transact(Vec::new(), steps).await?;
            info!(plugin.id = %id, "declared anew what is expected of it");
        }
        Ok(())
    }
}
