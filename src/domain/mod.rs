//! The words everything else is said in: identifiers, capabilities, fingerprints, records, plugins, the catalog.
//!
//! Pure values and pure functions. This module knows no runtime, no protocol and no file; where a time is needed it is
//! a parameter. The persistent maps of the catalog (`rpds`) are the one dependency beside serde, because "one change
//! costs the same among 100 and 100,000 instances" is a property of the data, not of whoever holds it.

pub mod address;
pub mod allocation;
pub mod capability;
pub mod catalog;
pub mod code;
pub mod durability;
pub mod duration;
pub mod expected;
pub mod fingerprint;
pub mod fleet;
pub mod history;
pub mod id;
pub mod overview;
pub mod plugin;
pub mod record;
pub mod socket;
pub mod text;
pub mod time;
pub mod topology;
pub mod trust;
