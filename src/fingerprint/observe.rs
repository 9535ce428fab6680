//! One pass over one driver: the calls, in their order, and their answers as they came.
//!
//! Probe comes first once the identity is known, so that a hang shows at the cheapest call (rules G1, G4). A pass stops
//! where going on could tell nothing more; it judges nothing.

use crate::csi::{CallError, Driver, NodeInfo, PluginCapabilities, PluginInfo, Readiness};
use crate::domain::capability::{CapabilitySet, ControllerCapability, GroupCapability, NodeCapability, PluginService};
use crate::domain::id::Role;
use crate::domain::socket::RoleChoice;

/// What came of asking; `None`: not asked.
pub(super) type Asked<T> = Option<Result<T, CallError>>;

/// What to ask.
#[derive(Debug, Clone)]
pub(super) struct Questions {
    /// Whose calls are made.
    pub role: RoleChoice,
    /// Name and version under which the driver answered last, if it ever did.
    pub known: Option<(String, String)>,
    /// Whether `NodeGetInfo` is due, name and version being the same.
    pub wants_node_info: bool,
}

/// The answers of one pass.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub readiness: Asked<Readiness>,
    pub identity: Asked<PluginInfo>,
    pub capabilities: Asked<PluginCapabilities>,
    pub controller: Asked<CapabilitySet<ControllerCapability>>,
    pub node: Asked<CapabilitySet<NodeCapability>>,
    pub node_info: Asked<NodeInfo>,
    pub group: Asked<CapabilitySet<GroupCapability>>,
}

impl Answers {
    /// Whether a call found the connection broken: worth asking once more on a new one.
    pub(super) fn is_broken(&self) -> bool {
        self.errors().into_iter().flatten().any(CallError::is_transport)
    }

    /// Whether a call ran into its limit.
    pub(super) fn is_hung(&self) -> bool {
        self.errors().into_iter().flatten().any(CallError::is_timeout)
    }

    fn errors(&self) -> [Option<&CallError>; 7] {
        fn error<T>(asked: &Asked<T>) -> Option<&CallError> {
            asked.as_ref()?.as_ref().err()
        }
        [
            error(&self.identity),
            error(&self.readiness),
            error(&self.capabilities),
            error(&self.controller),
            error(&self.node),
            error(&self.node_info),
            error(&self.group),
        ]
    }
}

/// Asks everything once.
pub(super) async fn observe(driver: &Driver, questions: &Questions) -> Answers {
    let mut answers = Answers::default();
    if questions.known.is_none() {
        answers.identity = Some(driver.plugin_info().await);
        // Not a CSI driver at all, or none that can be named: Probe would tell nothing (case 52).
        if matches!(answers.identity, Some(Err(_))) {
            return answers;
        }
    }
    answers.readiness = Some(driver.probe().await);
    if matches!(answers.readiness, Some(Err(_))) {
        return answers;
    }
    if questions.known.is_some() {
        answers.identity = Some(driver.plugin_info().await);
        if matches!(answers.identity, Some(Err(_))) {
            return answers;
        }
    }
    answers.capabilities = Some(driver.plugin_capabilities().await);
    if questions.role.asks(Role::Controller) {
        answers.controller = Some(driver.controller_capabilities().await);
    }
    if questions.role.asks(Role::Node) {
        answers.node = Some(driver.node_capabilities().await);
        // A socket without a Node service has no node info to give; asking would only make it log an error.
        let serves_node = !matches!(&answers.node, Some(Err(error)) if error.is_unimplemented());
        let is_other = match (&answers.identity, &questions.known) {
            (Some(Ok(now)), Some((name, version))) => (&now.name, &now.vendor_version) != (name, version),
            _ => true,
        };
        if (questions.wants_node_info || is_other) && serves_node {
            answers.node_info = Some(driver.node_info().await);
        }
    }
    if let Some(Ok(capabilities)) = &answers.capabilities
        && capabilities.services.has(PluginService::GroupController)
    {
        answers.group = Some(driver.group_controller_capabilities().await);
    }
    answers
}
