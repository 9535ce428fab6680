//! The composition of the way of use that takes livenessprobe's place: a prober, the addresses that ask it, no state.

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{AppError, Parts, raise_descriptor_limit};
use crate::api::connections::Connections;
use crate::api::server::{self, Listener};
use crate::api::sidecar::Sidecar as Api;
use crate::config::Sidecar;
use crate::fingerprint::prober::{Prober, Probing, Settings};
use crate::metrics::calls::Calls;
use crate::systemd;

/// Connections of one client address. The original has no limit; here nobody who reaches the port can take all
/// descriptors, and with them the kubelet's answer.
const MOST_CONNECTIONS: u32 = 1000;

/// All parts, built and not yet running.
#[derive(Debug)]
pub struct Beside {
    listeners: Vec<(Listener, Api)>,
    prober: Prober,
    probing: Probing,
}

impl Beside {
    /// Binds every address.
    ///
    /// # Errors
    /// An address that cannot be used.
    pub async fn build(config: Sidecar) -> Result<Self, AppError> {
        raise_descriptor_limit();
        if !config.deprecated.is_empty() {
            let flags = config.deprecated.join(" ");
            warn!(flags, "deprecated flags; --http-endpoint takes the place of addresses, the others do nothing here");
        }
        let calls = Calls::default();
        let settings = Settings { limit: config.probe_timeout, max_age: config.max_age };
        let (prober, probing) = Prober::new(config.addresses, settings, calls.clone());
        let connections = Connections::at_most(MOST_CONNECTIONS);
        let mut listeners = Vec::new();
        for surface in config.surfaces {
            let listener = Listener::bind_as(&surface.endpoint, &config.socket).await?.limited_by(&connections);
            let prober = surface.has_health.then(|| prober.clone());
            listeners.push((listener, Api::new(prober, surface.metrics_path, calls.clone())));
        }
        Ok(Self { listeners, prober, probing })
    }

    /// Where it serves, as `curl` takes it.
    pub fn urls(&self) -> impl Iterator<Item = String> {
        self.listeners.iter().map(|(listener, _)| listener.url())
    }

    /// Answers until `stop`.
    ///
    /// # Errors
    /// A part that failed.
    pub async fn run(self, stop: CancellationToken) -> Result<(), AppError> {
        let sockets: Vec<String> = self.prober.sockets().map(|path| path.display().to_string()).collect();
        info!(version = env!("CARGO_PKG_VERSION"), sockets = sockets.join(" "), "csi-gateway starts beside a driver");
        let mut parts = Parts::default();
        // Answers are awaited until the end, and so is whoever gives them.
        let last = CancellationToken::new();
        let probing = tokio::spawn(self.probing.run(last.clone()));
        for (listener, api) in self.listeners {
            info!(address = listener.address(), "serving");
            parts.spawn(server::serve(listener, api, stop.clone()));
        }
        parts.spawn(systemd::tell(std::future::ready(()), stop.clone()));
        let ended = parts.ended(&stop).await;
        last.cancel();
        probing.await.map_err(AppError::Part)?;
        info!("csi-gateway ends");
        ended
    }
}
