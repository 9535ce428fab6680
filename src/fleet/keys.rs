//! Where what lies under a fleet's prefix, and how it is written.
//!
//! Records and transitions have the form that they have on disk (`store::record`); what only a fleet has is JSON behind
//! the same byte that says which form. Values of a later release are read with what this one does not know left out; what
//! cannot be read at all is left out whole, and said once.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::allocation::Allocation;
use crate::domain::expected::DeclaredCounts;
use crate::domain::id::{HostId, InstanceKey, PluginId, Role};
use crate::domain::socket::{HostSockets, is_uuid};
use crate::domain::time::{Index, Timestamp};
use crate::store::record::Stored;

/// A bound agent: `hosts/<host>/alive`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Alive {
    /// Which process it is; another one has another.
    pub(super) agent: Box<str>,
    /// Its release.
    #[serde(default)]
    pub(super) version: Box<str>,
    /// When it registered.
    #[serde(default)]
    pub(super) since: Timestamp,
}

/// Whether a host's agent is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Presence {
    /// It is.
    Here,
    /// It was silent for too long.
    Lost,
}

/// `hosts/<host>/state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HostState {
    pub(super) state: Presence,
    /// Since when.
    pub(super) since: Timestamp,
}

/// `plugins/<id>`: the revisions of this key are the plugin's indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PluginDates {
    /// When it first counted.
    pub(super) created: Timestamp,
}

/// `expected/<id>`: what operators declare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Expected {
    /// Nodes that there should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) nodes: Option<u32>,
    /// Or one on each host like this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hosts: Option<Box<str>>,
    /// Controllers that there should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) controllers: Option<u32>,
}

/// `stubs/<host>/<allocation>`: what an orchestrator says of an allocation that runs a driver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stub {
    pub(super) namespace: Box<str>,
    pub(super) modify_index: u64,
    /// Passed on as it came.
    pub(super) stub: Box<RawValue>,
}

impl Stub {
    /// `None` where what is to be shown is no JSON, which would spoil everything around it.
    pub(super) fn new(allocation: &Allocation) -> Option<Self> {
        let text = String::from_utf8(allocation.stub.to_vec()).ok()?;
        let stub = RawValue::from_string(text).ok()?;
        Some(Self { namespace: allocation.namespace.clone(), modify_index: allocation.modify_index, stub })
    }

    pub(super) fn allocation(self, id: &str) -> Allocation {
        let Self { namespace, modify_index, stub } = self;
        Allocation { id: id.into(), namespace, modify_index, stub: stub.get().as_bytes().into() }
    }
}

/// Nothing: keys whose revision is all there is to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moved {}

impl Stored for Alive {}
impl Stored for HostState {}
impl Stored for PluginDates {}
impl Stored for Expected {}
impl Stored for Stub {}
impl Stored for Moved {}
impl Stored for DeclaredCounts {}
impl Stored for HostSockets {}

/// The keys of one fleet.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: Box<str>,
}

/// What a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Instance(InstanceKey),
    Alive(HostId),
    State(HostId),
    Plugin(PluginId),
    Expected(PluginId),
    Index,
    NomadIndex,
    History,
    /// An allocation, by its id.
    Stub(Box<str>),
    Sockets(HostId),
    /// Of a later release, or nobody's.
    Unknown,
}

/// One transition's place in its host's history: the index that it had there, and which of that index and instance it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) index: Index,
    pub(super) number: u32,
    pub(super) role: Role,
    pub(super) plugin: PluginId,
}

impl Keys {
    /// `prefix` ends with a slash.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn under(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// Moves with everything that any of our own shapes can show.
    pub(super) fn index(&self) -> String {
        self.under("index")
    }

    /// Moves with what Nomad's shape shows.
    pub(super) fn nomad_index(&self) -> String {
        self.under("nomad-index")
    }

    pub(super) fn alive(&self, host: &HostId) -> String {
        self.under(&format!("hosts/{host}/alive"))
    }

    pub(super) fn state(&self, host: &HostId) -> String {
        self.under(&format!("hosts/{host}/state"))
    }

    /// Moves when an agent begins anew, so that what an earlier session of it has on its way arrives nowhere.
    pub(super) fn session(&self, host: &HostId) -> String {
        self.under(&format!("hosts/{host}/session"))
    }

    pub(super) fn plugin(&self, plugin: &PluginId) -> String {
        self.under(&format!("plugins/{plugin}"))
    }

    pub(super) fn expected(&self, plugin: &PluginId) -> String {
        self.under(&format!("expected/{plugin}"))
    }

    pub(super) fn instance(&self, key: &InstanceKey) -> String {
        self.under(&format!("instances/{}/{}/{}", key.host, key.role, key.plugin))
    }

    /// All instances; of one host if there is one.
    pub(super) fn instances(&self, host: Option<&HostId>) -> String {
        match host {
            Some(host) => self.under(&format!("instances/{host}/")),
            None => self.under("instances/"),
        }
    }

    /// All of one kind.
    pub(super) fn kind(&self, kind: &str) -> String {
        self.under(&format!("{kind}/"))
    }

    /// A host's history, or all.
    pub(super) fn history(&self, host: Option<&HostId>) -> String {
        match host {
            Some(host) => self.under(&format!("history/{host}/")),
            None => self.under("history/"),
        }
    }

    pub(super) fn stub(&self, host: &HostId, allocation: &str) -> String {
        format!("{}{allocation}", self.stubs(host))
    }

    /// What is said of a host's allocations.
    pub(super) fn stubs(&self, host: &HostId) -> String {
        self.under(&format!("stubs/{host}/"))
    }

    /// What is told of a host's sockets.
    pub(super) fn sockets(&self, host: &HostId) -> String {
        self.under(&format!("sockets/{host}"))
    }

    pub(super) fn transition(&self, host: &HostId, place: &Place) -> String {
        let Place { index, number, role, plugin } = place;
        self.under(&format!("history/{host}/{:020}.{number:02}/{role}/{plugin}", index.0))
    }

    /// The place that a key of a host's history names.
    pub(super) fn place(&self, host: &HostId, key: &[u8]) -> Option<Place> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.history(Some(host)))?;
        let mut parts = rest.split('/');
        let (index, number) = parts.next()?.split_once('.')?;
        let (role, plugin) = (role(parts.next()?)?, PluginId::parse(parts.next()?).ok()?);
        Some(Place { index: Index(index.parse().ok()?), number: number.parse().ok()?, role, plugin })
    }

    /// What a key is.
    pub(super) fn read(&self, key: &[u8]) -> Key {
        self.known(key).unwrap_or(Key::Unknown)
    }

    fn known(&self, key: &[u8]) -> Option<Key> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&*self.prefix)?;
        let mut parts = rest.split('/');
        let kind = parts.next()?;
        let found = match kind {
            "index" => Key::Index,
            "nomad-index" => Key::NomadIndex,
            "history" => return Some(Key::History),
            "plugins" => Key::Plugin(PluginId::parse(parts.next()?).ok()?),
            "expected" => Key::Expected(PluginId::parse(parts.next()?).ok()?),
            "hosts" => {
                let host = HostId::parse(parts.next()?).ok()?;
                match parts.next()? {
                    "alive" => Key::Alive(host),
                    "state" => Key::State(host),
                    _ => return None,
                }
            }
            "sockets" => Key::Sockets(HostId::parse(parts.next()?).ok()?),
            "stubs" => {
                HostId::parse(parts.next()?).ok()?;
                Key::Stub(parts.next().filter(|id| is_uuid(id))?.into())
            }
            "instances" => {
                let host = HostId::parse(parts.next()?).ok()?;
                let role = role(parts.next()?)?;
                Key::Instance(InstanceKey { host, role, plugin: PluginId::parse(parts.next()?).ok()? })
            }
            _ => return None,
        };
        // What a later release keeps below one of these is not that one.
        if parts.next().is_some() { None } else { Some(found) }
    }
}

fn role(text: &str) -> Option<Role> {
    match text {
        "controller" => Some(Role::Controller),
        "node" => Some(Role::Node),
        _ => None,
    }
}

/// First key behind all that begin with `prefix`.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // UTF-8 has no byte 0xff, so the last one can always be one more.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> (HostId, PluginId) {
        (HostId::parse("host-a\"ä").expect("legal"), PluginId::parse("a<&b:1").expect("legal"))
    }

    #[test]
    fn a_key_says_what_it_is_and_nobody_elses_is_taken_for_it() {
        let keys = Keys::new("/csi-gateway/v1/");
        let (host, plugin) = ids();
        let instance = InstanceKey { host: host.clone(), role: Role::Node, plugin: plugin.clone() };
        assert_eq!(keys.read(keys.instance(&instance).as_bytes()), Key::Instance(instance));
        assert_eq!(keys.read(keys.alive(&host).as_bytes()), Key::Alive(host.clone()));
        assert_eq!(keys.read(keys.state(&host).as_bytes()), Key::State(host.clone()));
        assert_eq!(keys.read(keys.plugin(&plugin).as_bytes()), Key::Plugin(plugin.clone()));
        assert_eq!(keys.read(keys.expected(&plugin).as_bytes()), Key::Expected(plugin.clone()));
        assert_eq!(keys.read(keys.index().as_bytes()), Key::Index);
        assert_eq!(keys.read(keys.nomad_index().as_bytes()), Key::NomadIndex);
        let place = Place { index: Index(7), number: 1, role: Role::Node, plugin };
        let key = keys.transition(&host, &place);
        assert_eq!(keys.read(key.as_bytes()), Key::History);
        assert_eq!(keys.place(&host, key.as_bytes()), Some(place));
        let allocation = "8b0e0c3c-6b1e-4d5c-9d0a-1f2e3d4c5b6a";
        assert_eq!(keys.read(keys.stub(&host, allocation).as_bytes()), Key::Stub(allocation.into()));
        assert_eq!(keys.read(keys.sockets(&host).as_bytes()), Key::Sockets(host));
        for other in
            ["/csi-gateway/v1/later/x", "/csi-gateway/v1/plugins/a/b", "/other/index", "/csi-gateway/v1/hosts/a/x"]
        {
            assert_eq!(keys.read(other.as_bytes()), Key::Unknown, "{other}");
        }
        assert_eq!(keys.read(b"/csi-gateway/v1/plugins/\xff"), Key::Unknown);
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_all_of_it() {
        let end = end_of("/a/");
        assert!(b"/a/\xf4\x8f\xbf\xbf".as_slice() < end.as_slice() && b"/b".as_slice() > end.as_slice());
    }
}
