//! csi-gateway: finds the CSI drivers of a host, watches their health, and serves what it learnt in the shapes of
//! Nomad's Plugins API.
//!
//! A map, in the direction in which facts travel:
//!
//! - `domain`: the words everything else is said in; pure values, no I/O.
//! - `transport`: one unix socket as a stream whose end is an event; the generated protocol code.
//! - `csi`: one driver behind one socket, a deadline for every call, protobuf turned into domain values.
//! - `discovery`: which sockets should be watched, and which directory events concern them.
//! - `fingerprint`: when to look at a socket, and what a look means.
//! - `registry`: what differs from what was known; the one writer of the catalog; its readers.
//! - `store`: records, transitions and the index on disk.
//! - `fleet`: one view of many hosts, over etcd: an agent ships, an aggregator follows.
//! - `acl`: policies, tokens and identities in Nomad's words, and what they allow.
//! - `api`: HTTP, from handles only; `ui`: the page for people, as static files.
//! - `config`, `cli`, `app`: from arguments to running parts, and in order back again; `shutdown`,
//!   `files`, `systemd`, `telemetry` and `metrics` are leaves.
//! - `tls`, `client`: certificates and streams; HTTP as a client, for commands and whoever asks an orchestrator.
//! - `commands`, `demo`: the client side; scripted drivers, made fleets.

pub mod acl;
pub mod api;
pub mod app;
pub mod cli;
pub mod client;
pub mod commands;
pub mod config;
pub mod csi;
pub mod demo;
pub mod discovery;
pub mod domain;
pub mod files;
pub mod fingerprint;
pub mod fleet;
pub mod metrics;
pub mod owner;
pub mod registry;
pub mod shutdown;
pub mod store;
pub mod systemd;
pub mod telemetry;
pub mod tls;
pub mod transport;
pub mod ui;
