//! JSON: the only place that knows its names.
//!
//! `nomad` holds the shapes of Nomad's servers, `documented` that of its public page, `gateway` our own, `json` how
//! values become bytes.

pub(super) mod cluster;
pub(super) mod documented;
pub(super) mod gateway;
pub(super) mod json;
pub mod nomad;
