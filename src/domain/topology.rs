//! Where a node is, as its driver says: segments, copied verbatim.

use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Makes equal texts one.
pub(super) fn share(mine: &mut Arc<str>, theirs: &Arc<str>) {
    if mine == theirs {
        *mine = Arc::clone(theirs);
    }
}

/// Pairs of text, sorted by key, keys unique. Smaller than a tree, and there is one per host and plugin. Keys are shared
/// text: they are the same on all hosts of a plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Pairs(Box<[(Arc<str>, Box<str>)]>);

impl Pairs {
    /// The pairs in the order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.0[found].1)
    }

    /// Takes the keys that others have too from there.
    pub(super) fn share(&mut self, other: &Self) {
        for ((mine, _), (theirs, _)) in self.0.iter_mut().zip(&other.0) {
            share(mine, theirs);
        }
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many pairs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<K: Into<Arc<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Pairs {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let sorted: std::collections::BTreeMap<Arc<str>, Box<str>> =
            pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self(sorted.into_iter().collect())
    }
}

impl Serialize for Pairs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = std::collections::BTreeMap::<String, String>::deserialize(deserializer)?;
        Ok(map.into_iter().collect())
    }
}

/// `accessible_topology` as a driver sent it. Nomad tells three states apart: no topology, a topology without segments
/// (`None` here, `{"Segments": null}` there), and segments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Keys and values; `None` when the driver sent an empty topology.
    pub segments: Option<Pairs>,
}
