//! The side tables of agents: which are there, since when, of which release, and what they tell of their sockets. They move
//! no index.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use crate::domain::id::HostId;
use crate::domain::socket::{Duplicate, HostSockets};
use crate::domain::time::Timestamp;

/// An agent that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// When it registered.
    pub since: Timestamp,
    /// Its release.
    pub version: Box<str>,
}

/// Agents, and what they tell, by their hosts. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Agents(Arc<RwLock<Table>>);

#[derive(Debug, Default)]
struct Table {
    agents: BTreeMap<HostId, Agent>,
    sockets: BTreeMap<HostId, Arc<Told>>,
}

/// What is told of a host's sockets. Of a large fleet that is tens of MiB which are seldom asked for and all alike, so most
/// of it is kept deflated.
#[derive(Debug)]
struct Told {
    /// How many there are.
    count: usize,
    duplicates: Vec<Duplicate>,
    rest: Box<[u8]>,
}

impl Told {
    fn new(mut sockets: HostSockets) -> Self {
        let duplicates = std::mem::take(&mut sockets.duplicates);
        let json = serde_json::to_vec(&sockets).expect("text and numbers");
        let mut deflated = DeflateEncoder::new(Vec::new(), Compression::fast());
        deflated.write_all(&json).expect("a vector takes every write");
        let rest = deflated.finish().expect("a vector takes every write").into();
        Self { count: sockets.sockets.len() + sockets.left_out, duplicates, rest }
    }

    fn sockets(&self) -> HostSockets {
        let mut json = Vec::new();
        DeflateDecoder::new(&*self.rest).read_to_end(&mut json).expect("it was deflated here");
        let sockets = serde_json::from_slice(&json).expect("it was written here");
        HostSockets { duplicates: self.duplicates.clone(), ..sockets }
    }
}

impl Agents {
    // Entries are replaced whole: a panic under the lock cannot have left half of one.
    fn change(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in `other`'s tables is all there is.
    pub fn replace(&self, other: Self) {
        *self.change() = std::mem::take(&mut *other.change());
    }

    /// What is known of a host's agent from now on; `None`: it is not there.
    pub fn put(&self, host: HostId, agent: Option<Agent>) {
        match agent {
            Some(agent) => self.change().agents.insert(host, agent),
            None => self.change().agents.remove(&host),
        };
    }

    /// What is told of a host's sockets from now on; `None`: nothing any more.
    pub fn put_sockets(&self, host: HostId, sockets: Option<HostSockets>) {
        match sockets.map(Told::new) {
            Some(told) => self.change().sockets.insert(host, Arc::new(told)),
            None => self.change().sockets.remove(&host),
        };
    }

    /// A host's agent; `None`: it is not there.
    #[must_use]
    pub fn of(&self, host: &str) -> Option<Agent> {
        self.table().agents.get(host).cloned()
    }

    /// What is told of the sockets of one host, or of all.
    #[must_use]
    pub fn sockets(&self, host: Option<&HostId>) -> Vec<(HostId, HostSockets)> {
        let table = self.table();
        let asked = table.sockets.iter().filter(|(id, _)| host.is_none_or(|host| host == *id));
        let told: Vec<_> = asked.map(|(id, told)| (id.clone(), Arc::clone(told))).collect();
        drop(table);
        // Whoever follows the fleet does not wait for this.
        told.into_iter().map(|(id, told)| (id, told.sockets())).collect()
    }

    /// How many sockets there are on all hosts.
    #[must_use]
    pub fn count_of_sockets(&self) -> usize {
        self.table().sockets.values().map(|told| told.count).sum()
    }

    /// Sockets that do not count beside others, on all hosts.
    #[must_use]
    pub fn duplicates(&self) -> Vec<Duplicate> {
        self.table().sockets.values().flat_map(|told| told.duplicates.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::PluginId;
    use crate::domain::socket::{SocketStatus, WantedSocket};

    #[test]
    fn what_was_told_comes_back_in_a_tenth_of_the_room() {
        let agents = Agents::default();
        let host = HostId::parse("host-a").expect("legal");
        let of = |number: u32| {
            let path = format!("/var/lib/kubelet/plugins/driver-{number}/csi.sock");
            let plugin = PluginId::parse(&format!("driver-{number}")).ok();
            SocketStatus { plugin, inode: Some(number.into()), ..SocketStatus::new(&WantedSocket::configured(path)) }
        };
        let told = HostSockets { sockets: (0..100).map(of).collect(), left_out: 3, ..HostSockets::default() };
        agents.put_sockets(host.clone(), Some(told.clone()));
        assert_eq!(agents.sockets(Some(&host)), [(host.clone(), told.clone())]);
        assert_eq!(agents.count_of_sockets(), 103);
        let size = serde_json::to_vec(&told).expect("JSON").len();
        let kept = agents.table().sockets[&host].rest.len();
        assert!(kept * 8 < size, "{kept} of {size}");
        let other = HostId::parse("host-b").expect("legal");
        assert!(agents.sockets(Some(&other)).is_empty());
        agents.put_sockets(host, None);
        assert!(agents.sockets(None).is_empty());
    }
}
