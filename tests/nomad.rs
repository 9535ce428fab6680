//! A real Nomad: its command line as a client of ours, and an agent beside which a gateway stands, so that what both answer
//! about the same drivers can be laid side by side.

#![allow(clippy::panic, reason = "a test that waited in vain has nothing else to do")]

#[path = "support/parts.rs"]
mod parts;
mod support;

#[path = "nomad/agent.rs"]
mod agent;
#[path = "nomad/command_line.rs"]
mod command_line;
#[path = "nomad/differential.rs"]
mod differential;
