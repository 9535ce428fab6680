//! One view of many hosts, over etcd (`design.md` section 6).
//!
//! An agent's [`shipper`] keeps etcd equal to what its own registry knows; an aggregator's [`follower`] makes a catalog of
//! what etcd holds. etcd orders, stores and tells: nothing here agrees, elects or replicates. `etcd` is the only one that
//! speaks its protocol, `keys` says where what lies, and `view` is the pure fold from keys to what is shown.
//!
//! The crate `etcd-client` would do what `etcd` does. Its build calls `protoc`, which whoever builds this would need; its
//! TLS chooses a second crypto library; and most of it administers an etcd, which nothing here may be able to do.

mod dial;
pub mod error;
pub mod etcd;
pub mod follower;
pub mod keys;
mod outbox;
pub mod shipper;
mod view;

use std::path::PathBuf;
use std::time::Duration;

use tracing::{info, warn};

use crate::domain::fleet::{EtcdServer, FleetStanding};
use crate::domain::trust::Trust;

/// How a fleet's etcd is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its members; at least one.
    pub servers: Vec<EtcdServer>,
    /// What the fleet's keys begin with.
    pub prefix: String,
    /// How it is known over TLS.
    pub trust: Trust,
    /// As whom to act, and the file of the password.
    pub user: Option<(String, PathBuf)>,
    /// How long an agent may be silent; whole seconds.
    pub host_ttl: Duration,
}

/// The shortest lease that etcd grants.
const SHORTEST_LEASE: Duration = Duration::from_secs(2);

/// How long a lease has to be for its host to be shown as lost a second after `ttl` at the latest. etcd takes up to half a
/// second to see that a lease has run out, and an aggregator that is cut off just then [`current_for`] to know that it is.
fn leased(ttl: Duration) -> Duration {
    ttl.saturating_sub(Duration::from_secs(1)).max(SHORTEST_LEASE)
}

/// How long an aggregator counts as current from etcd's last word on; shorter where no second can be saved on the lease.
fn current_for(ttl: Duration) -> Duration {
    if leased(ttl) < ttl { Duration::from_secs(1) } else { Duration::from_millis(500) }
}

/// Times between attempts: short at first, never long, and never two processes in step.
#[derive(Debug)]
struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    /// An agent that was cut off is back soon after it can be: whoever waits for it waits at most this long.
    const MOST: Duration = Duration::from_secs(1);
    /// Where an etcd answers, and too late: ten thousand agents that come back every second would keep it from ever
    /// answering one of them in time.
    const MOST_WHERE_BUSY: Duration = Duration::from_secs(15);

    fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// How long to wait now; twice as long the next time. From a half to all of it, at random.
    fn wait(&mut self, is_busy: bool) -> Duration {
        let now = self.next.min(if is_busy { Self::MOST_WHERE_BUSY } else { Self::MOST });
        self.next = now * 2;
        now.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    fn reset(&mut self) {
        self.next = Self::FIRST;
    }
}

/// Says when trouble begins, becomes another one, and ends.
fn log_change(before: &FleetStanding, now: &FleetStanding) {
    let kind = |standing: &FleetStanding| standing.trouble.as_ref().map(|trouble| trouble.kind);
    match &now.trouble {
        Some(trouble) if kind(before) != kind(now) => warn!(etcd.trouble = trouble.kind, "{}", trouble.text),
        None if before.trouble.is_some() => info!("in step with etcd again"),
        _ => {}
    }
}
