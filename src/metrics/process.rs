//! This process as `/proc` shows it. What cannot be read is left out.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// What the standard process metrics are made of.
#[derive(Debug, Default)]
pub struct Process {
    /// Seconds on a core since the start.
    pub cpu_seconds: Option<f64>,
    /// Bytes in memory.
    pub resident_bytes: Option<u64>,
    /// Open descriptors.
    pub open_descriptors: Option<usize>,
    /// The most that may be open.
    pub most_descriptors: Option<u64>,
    /// Seconds from 1970 to the start.
    pub start_seconds: Option<f64>,
}

impl Process {
    /// As it is now.
    #[must_use]
    pub fn now() -> Self {
        let ticks = ticks_per_second();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // Behind the name, which may contain anything: the third field and those that follow.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        let field = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<f64>().ok();
        let booted = fs::read_to_string("/proc/stat").unwrap_or_default();
        let booted = booted.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
        Self {
            cpu_seconds: field(14).zip(field(15)).map(|(user, system)| (user + system) / ticks),
            resident_bytes: pages.map(|pages| pages.saturating_mul(page_size())),
            // One of them is the directory that is being read.
            open_descriptors: fs::read_dir("/proc/self/fd").ok().map(|open| open.count().saturating_sub(1)),
            most_descriptors: getrlimit(Resource::Nofile).current,
            start_seconds: field(22).zip(booted).map(|(since, booted)| booted + since / ticks),
        }
    }
}

fn ticks_per_second() -> f64 {
    // A hundred on all machines of this century.
    u32::try_from(rustix::param::clock_ticks_per_second()).map_or(100.0, f64::from)
}

fn page_size() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}
