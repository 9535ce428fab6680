//! One driver behind one socket: one connection, a deadline for every call.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::http::uri::PathAndQuery;
use prost::Message;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;
use tracing::trace;

use super::convert::{self, Announcement, NodeInfo, PluginCapabilities, PluginInfo, Readiness};
use super::error::{CallError, Cause};
use super::rpc::Rpc;
use crate::domain::capability::{CapabilitySet, ControllerCapability, GroupCapability, NodeCapability};
use crate::domain::text::{DESCRIPTION_LIMIT, bounded};
use crate::metrics::calls::DriverCalls;
use crate::transport::connector::{self, Connected, Link, Peer};
use crate::transport::pb::{csi as pb, registration};
use crate::transport::status::Guarded;

/// Longest answer taken, in bytes; a longer one fails before it is read.
pub const LONGEST_ANSWER: usize = 1 << 20;

/// How long to wait, after an error that is none of the driver's words, for the connection's end to be noticed. A
/// server that says goodbye fails the call a moment before the connection is closed.
const END_GRACE: Duration = Duration::from_millis(50);

/// How long each step may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connecting, the exchange of HTTP/2 settings included.
    pub connect: Duration,
    /// `Probe`.
    pub probe: Duration,
    /// All other calls but `NodeGetInfo`.
    pub call: Duration,
    /// `NodeGetInfo`, which may ask a cloud's metadata service.
    pub node_info: Duration,
}

impl Limits {
    /// From the two that can be set: a connection gets no longer than a probe, and `NodeGetInfo` three times a call.
    #[must_use]
    pub fn new(probe: Duration, call: Duration) -> Self {
        Self { connect: Self::default().connect.min(probe), probe, call, node_info: call.saturating_mul(3) }
    }

    /// The same, and no step longer than this.
    #[must_use]
    pub fn at_most(self, limit: Duration) -> Self {
        Self {
            connect: self.connect.min(limit),
            probe: self.probe.min(limit),
            call: self.call.min(limit),
            node_info: self.node_info.min(limit),
        }
    }
}

/// 2 s, 3 s, 5 s and 15 s.
impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            probe: Duration::from_secs(3),
            call: Duration::from_secs(5),
            node_info: Duration::from_secs(15),
        }
    }
}

/// A connection to one driver. Clones share it; it closes with the last of them.
#[derive(Debug, Clone)]
pub struct Driver {
    channel: Guarded,
    link: Link,
    socket: Arc<Path>,
    limits: Limits,
    /// `None`: nobody counts.
    calls: Option<DriverCalls>,
}

impl Driver {
    /// Opens a connection; all further calls go over this one.
    ///
    /// # Errors
    ///
    /// Nobody there, nobody who speaks HTTP/2, or not within the limit.
    pub async fn connect(socket: &Path, limits: Limits) -> Result<Self, CallError> {
        let Connected { channel, link } = connector::connect(socket, limits.connect)
            .await
            .map_err(|error| CallError::new(None, socket.into(), Cause::Connect(error)))?;
        Ok(Self { channel: Guarded::new(channel), link, socket: socket.into(), limits, calls: None })
    }

    /// The same connection, whose calls are counted.
    #[must_use]
    pub fn counted_by(self, calls: DriverCalls) -> Self {
        Self { calls: Some(calls), ..self }
    }

    /// The same connection, no call on which takes longer than this.
    #[must_use]
    pub fn at_most(&self, limit: Duration) -> Self {
        Self { limits: self.limits.at_most(limit), ..self.clone() }
    }

    /// Whether the connection is over. All calls fail then; a new driver may listen at the same path.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.link.has_ended()
    }

    /// Returns once the connection is over. That the driver is dead is likely and not certain: it may have closed an
    /// idle connection in good order.
    pub async fn ended(&self) {
        self.link.ended().await;
    }

    /// The process that listens.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.link.peer()
    }

    /// `Probe`. An absent `ready` means ready.
    ///
    /// # Errors
    ///
    /// As all calls: the driver's status, a limit that passed, a connection that broke, an answer without meaning.
    pub async fn probe(&self) -> Result<Readiness, CallError> {
        let answer: pb::ProbeResponse = self.call(Rpc::Probe, self.limits.probe, pb::ProbeRequest {}).await?;
        Ok(convert::readiness(&answer))
    }

    /// `GetPluginInfo`.
    ///
    /// # Errors
    ///
    /// See [`probe`](Self::probe); an empty name is one.
    pub async fn plugin_info(&self) -> Result<PluginInfo, CallError> {
        let request = pb::GetPluginInfoRequest {};
        let answer = self.call(Rpc::PluginInfo, self.limits.call, request).await?;
        let info = convert::plugin_info(answer).ok_or_else(|| self.error(Rpc::PluginInfo, Cause::NoName))?;
        if let Some(calls) = &self.calls {
            calls.rename(&bounded(&info.name, DESCRIPTION_LIMIT));
        }
        Ok(info)
    }

    /// `GetPluginCapabilities`.
    ///
    /// # Errors
    ///
    /// See [`probe`](Self::probe).
    pub async fn plugin_capabilities(&self) -> Result<PluginCapabilities, CallError> {
        let request = pb::GetPluginCapabilitiesRequest {};
        let answer: pb::GetPluginCapabilitiesResponse =
            self.call(Rpc::PluginCapabilities, self.limits.call, request).await?;
        Ok(convert::plugin_capabilities(&answer.capabilities))
    }

    /// `ControllerGetCapabilities`.
    ///
    /// # Errors
    ///
    /// See [`probe`](Self::probe); `is_unimplemented` where this socket serves no controller.
    pub async fn controller_capabilities(&self) -> Result<CapabilitySet<ControllerCapability>, CallError> {
        let request = pb::ControllerGetCapabilitiesRequest {};
        let answer: pb::ControllerGetCapabilitiesResponse =
            self.call(Rpc::ControllerCapabilities, self.limits.call, request).await?;
        Ok(convert::controller_capabilities(&answer.capabilities))
    }

    /// `NodeGetCapabilities`.
    ///
    /// # Errors
    ///
    /// See [`probe`](Self::probe); `is_unimplemented` where this socket serves no node.
    pub async fn node_capabilities(&self) -> Result<CapabilitySet<NodeCapability>, CallError> {
        let request = pb::NodeGetCapabilitiesRequest {};
        let answer: pb::NodeGetCapabilitiesResponse =
            self.call(Rpc::NodeCapabilities, self.limits.call, request).await?;
        Ok(convert::node_capabilities(&answer.capabilities))
    }

    /// `NodeGetInfo`.
    ///
    /// # Errors
    ///
    /// See [`probe`](Self::probe); an empty node id is one, and so is `is_unimplemented`, legal for node-only drivers.
    pub async fn node_info(&self) -> Result<NodeInfo, CallError> {
        let answer = self.call(Rpc::NodeInfo, self.limits.node_info, pb::NodeGetInfoRequest {}).await?;
        convert::node_info(answer).ok_or_else(|| self.error(Rpc::NodeInfo, Cause::NoNodeId))
    }

    /// `GroupControllerGetCapabilities`.
    ///
    /// # Errors
    ///
    /// See [`probe`](Self::probe).
    pub async fn group_controller_capabilities(&self) -> Result<CapabilitySet<GroupCapability>, CallError> {
        let request = pb::GroupControllerGetCapabilitiesRequest {};
        let answer: pb::GroupControllerGetCapabilitiesResponse =
            self.call(Rpc::GroupCapabilities, self.limits.call, request).await?;
        Ok(convert::group_capabilities(&answer.capabilities))
    }

    /// What a registration socket announces to a kubelet: `GetInfo`, which only reads.
    ///
    /// # Errors
    ///
    /// See [`probe`](Self::probe); `is_unimplemented` where this is no registration socket.
    pub async fn announcement(&self) -> Result<Announcement, CallError> {
        let answer: registration::PluginInfo =
            self.call(Rpc::RegistrationInfo, self.limits.call, registration::InfoRequest {}).await?;
        Ok(convert::announcement(answer))
    }

    async fn call<Q, A>(&self, rpc: Rpc, limit: Duration, request: Q) -> Result<A, CallError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(LONGEST_ANSWER);
        let path = PathAndQuery::from_static(rpc.path());
        let exchange = async {
            grpc.ready().await.map_err(|error| tonic::Status::from_error(error.into()))?;
            grpc.unary(tonic::Request::new(request), path, ProstCodec::<Q, A>::default()).await
        };
        let started = Instant::now();
        // Dropping the exchange resets its stream, which cancels the work in drivers that listen for that.
        let answer = match timeout(limit, exchange).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.error(rpc, self.cause(status).await)),
            Err(_elapsed) => Err(self.error(rpc, Cause::Deadline(limit))),
        };
        let code = answer.as_ref().err().map_or("OK", |error: &CallError| error.code().as_str());
        let took = started.elapsed();
        // Never what was said: it may be anything, and long.
        trace!(socket = %self.socket.display(), csi.rpc = %rpc, csi.code = code, duration_ms = took.as_secs_f64() * 1e3, "a call ended");
        if let Some(calls) = &self.calls {
            calls.called(rpc.path(), code, took);
        }
        answer
    }

    /// What a status that is not OK says: the driver's own word, or tonic's for a connection that broke.
    async fn cause(&self, status: tonic::Status) -> Cause {
        // tonic gives a source to what it made up from an error below, and never to what was read from the wire.
        let is_ours = std::error::Error::source(&status).is_some();
        if is_ours && (self.has_ended() || timeout(END_GRACE, self.ended()).await.is_ok()) {
            return Cause::Broken(status);
        }
        Cause::Status { code: convert::code(status.code()), message: status.message().to_owned() }
    }

    fn error(&self, rpc: Rpc, cause: Cause) -> CallError {
        CallError::new(Some(rpc), Arc::clone(&self.socket), cause)
    }
}
