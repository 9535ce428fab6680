//! What the answers of a pass mean: which instances a socket is, how each is, and what is known of it.
//!
//! Pure: no clock, no I/O. Here live rules G5–G8 of `fingerprinting.md` and the roles of its 5.4.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::observe::Answers;
use crate::csi::{CallError, NodeInfo, PluginInfo, Readiness};
use crate::domain::capability::{ControllerCapability, NodeCapability, PluginService, VolumeExpansion};
use crate::domain::fingerprint::{Fingerprint, NodeFacts, Product};
use crate::domain::id::{PLUGIN_ID_LIMIT, PluginId, Role};
use crate::domain::record::Phase;
use crate::domain::socket::{Announced, RoleChoice, WantedSocket};
use crate::domain::text::bounded;
use crate::registry::reporter::Health;

/// What is kept of a socket from one pass to the next.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The name under which the driver answered last.
    pub provider: Option<String>,
    /// The version it had.
    pub version: Option<String>,
    /// The plugin it counts as.
    pub plugin: Option<PluginId>,
    /// Roles it was seen in, or is declared to have.
    pub roles: BTreeSet<Role>,
    /// What `NodeGetInfo` said last.
    pub node_info: Option<NodeInfo>,
}

/// How one instance is, after a pass.
#[derive(Debug)]
pub(super) struct Verdict {
    pub plugin: PluginId,
    pub role: Role,
    pub health: Health,
    /// `Some` when everything was answered.
    pub fingerprint: Option<Fingerprint>,
}

/// What a pass came to.
#[derive(Debug, Default)]
pub(super) struct Assessment {
    pub verdicts: Vec<Verdict>,
    /// Instances that the socket was until somebody else answered. How the socket is they do not say.
    pub displaced: Vec<Verdict>,
    /// How the socket is where it is no instance.
    pub phase: Phase,
    /// Why the socket counts as nothing, or is not well; empty if all is well.
    pub reason: String,
    /// Whether this is no CSI driver's socket.
    pub is_ignored: bool,
    /// Whether a call ran into its limit.
    pub is_hung: bool,
}

impl Assessment {
    /// Whether every instance answered as it should, and there is one.
    pub(super) fn is_well(&self) -> bool {
        !self.verdicts.is_empty() && self.verdicts.iter().all(|verdict| matches!(verdict.health, Health::Healthy))
    }
}

/// How a socket is whose driver could not be asked.
pub(super) fn phase_of(error: &CallError) -> Phase {
    if error.is_missing() {
        Phase::Gone
    } else if error.is_refused() {
        Phase::Stale
    } else {
        Phase::Unhealthy
    }
}

/// A failure as the health of an instance.
pub(super) fn failed(error: &CallError) -> Health {
    Health::Failed {
        phase: phase_of(error),
        error: error.go_text(),
        code: Some(error.code()),
        text: error.for_people(),
    }
}

/// The same failure for every instance that is known, or declared.
pub(super) fn unreachable(wanted: &WantedSocket, known: &Known, error: &CallError) -> Assessment {
    let plugin = known.plugin.clone().or_else(|| wanted.plugin.clone());
    let mut roles = known.roles.clone();
    if wanted.role != RoleChoice::Auto {
        roles.extend([Role::Controller, Role::Node].into_iter().filter(|role| wanted.role.asks(*role)));
    }
    let verdicts = plugin
        .into_iter()
        .flat_map(|plugin| roles.iter().map(move |role| (plugin.clone(), *role)))
        .map(|(plugin, role)| Verdict { plugin, role, health: failed(error), fingerprint: None })
        .collect();
    Assessment {
        verdicts,
        phase: phase_of(error),
        reason: error.for_people(),
        is_hung: error.is_timeout(),
        ..Assessment::default()
    }
}

/// What a pass means. `known` moves on with what was learnt.
pub(super) fn assess(wanted: &WantedSocket, known: &mut Known, answers: Answers) -> Assessment {
    let is_hung = answers.is_hung();
    let identity = match answers.identity {
        Some(Ok(identity)) => Some(identity),
        Some(Err(error)) => {
            let is_ignored = error.is_unimplemented() && known.provider.is_none();
            if is_ignored {
                return Assessment {
                    reason: "no CSI driver: it does not implement GetPluginInfo".to_owned(),
                    is_ignored,
                    ..Assessment::default()
                };
            }
            return unreachable(wanted, known, &error);
        }
        None => None,
    };
    let mut displaced = Vec::new();
    if let Some(identity) = &identity {
        let (verdicts, named) = recognise(wanted, known, identity);
        if let Err(reason) = named {
            let displaced = verdicts;
            return Assessment { displaced, phase: Phase::Unhealthy, reason, is_hung, ..Assessment::default() };
        }
        displaced = verdicts;
    }
    let is_starting = match answers.readiness {
        Some(Ok(readiness)) => readiness == Readiness::Starting,
        Some(Err(error)) => {
            // Whoever was here before is not here any more, though nothing else is known of the new one.
            displaced.retain(|verdict| known.plugin.as_ref() != Some(&verdict.plugin));
            return Assessment { displaced, ..unreachable(wanted, known, &error) };
        }
        None => false,
    };
    let (Some(identity), Some(plugin)) = (identity, known.plugin.clone()) else {
        return Assessment { reason: "nothing was asked".to_owned(), ..Assessment::default() };
    };
    let phase = if is_starting { Phase::Starting } else { Phase::Unhealthy };
    let mut assessment = Assessment { phase, is_hung, ..Assessment::default() };
    if displaced.iter().any(|verdict| verdict.plugin == plugin) {
        // The id is an operator's and stays; that it is still the right one, the next pass confirms.
        assessment.verdicts = displaced;
        assessment.reason = format!("the driver now calls itself {:?}", identity.name);
        return assessment;
    }
    assessment.displaced = displaced;
    let mut warnings = identity.warnings.clone();
    let mut failures = Failures::default();

    let capabilities = failures.common(answers.capabilities);
    let controller = failures.of(Role::Controller, wanted, known, answers.controller);
    let node = failures.of(Role::Node, wanted, known, answers.node);
    if node.is_some() {
        failures.node_info(known, answers.node_info);
    }
    let group = match answers.group {
        Some(Err(error)) => {
            // Its code alone: a driver's words may be long, or new each time, and warnings are stored.
            warnings.push(
                format!("GROUP_CONTROLLER_SERVICE is announced, but its calls fail with {}", error.code()).into(),
            );
            None
        }
        answered => answered.and_then(Result::ok),
    };
    if wanted.role == RoleChoice::Auto && wanted.is_configured() && controller.is_some() && node.is_some() {
        warnings.push(
            "both Controller and Node answer, so both count; where every host's driver does that, declare --plugin-type"
                .into(),
        );
    }

    let serves_controller = controller.is_some() || failures.controller.is_some();
    let serves_node = node.is_some() || failures.node.is_some();
    let leaning = wanted.leaning().filter(|_| serves_controller && serves_node);
    for role in [Role::Controller, Role::Node] {
        let serves = match role {
            Role::Controller => serves_controller,
            Role::Node => serves_node,
        };
        // A role that counted before goes on to count: nobody would say any more how its instance is.
        let is_aside = leaning.is_some_and(|leaning| leaning != role) && !known.roles.contains(&role);
        if !wanted.role.asks(role) || !serves || is_aside {
            continue;
        }
        known.roles.insert(role);
        let own = match role {
            Role::Controller => &failures.controller,
            Role::Node => &failures.node,
        };
        let failure = failures.common.as_ref().or(own.as_ref());
        let fingerprint = match (failure, &capabilities) {
            (None, Some(capabilities)) => {
                let product = Product {
                    provider: Arc::from(&*identity.name),
                    version: Arc::from(&*identity.vendor_version),
                    manifest: identity.manifest.clone(),
                    services: capabilities.services.clone(),
                    expansion: capabilities.expansion.clone(),
                    controller: controller.clone(),
                    node: node.clone(),
                    group: group.clone(),
                };
                let info = known.node_info.as_ref().filter(|_| role == Role::Node);
                let mut all = warnings.clone();
                all.extend(consistency_warnings(&product, info.map(|info| &info.facts)));
                all.extend(info.into_iter().flat_map(|info| info.warnings.iter().cloned()));
                Some(Fingerprint {
                    product: Arc::new(product),
                    node: (role == Role::Node)
                        .then(|| Box::new(info.map_or_else(NodeFacts::unknown, |info| info.facts.clone()))),
                    warnings: all.into(),
                })
            }
            _ => None,
        };
        let health = match failure {
            // `ready=false` says why nothing else can be expected to work (G5).
            _ if is_starting => Health::Starting,
            Some(error) => failed(error),
            None => Health::Healthy,
        };
        assessment.verdicts.push(Verdict { plugin: plugin.clone(), role, health, fingerprint });
    }

    assessment.reason = match failures.all().next() {
        _ if is_starting => "the driver says that it is not ready (Probe: ready=false)".to_owned(),
        Some(error) => error.for_people(),
        None if assessment.verdicts.is_empty() => {
            "answers Identity calls only: neither Controller nor Node is served here".to_owned()
        }
        None => String::new(),
    };
    assessment
}

/// Failures of a pass: those that concern every instance of the socket, and those of one role.
#[derive(Debug, Default)]
struct Failures {
    common: Option<CallError>,
    controller: Option<CallError>,
    node: Option<CallError>,
}

impl Failures {
    fn common<T>(&mut self, asked: super::observe::Asked<T>) -> Option<T> {
        match asked? {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.common = Some(error);
                None
            }
        }
    }

    /// The answer of a service; a failure counts only where the role is declared or was seen before. "Unimplemented"
    /// from a socket whose role nobody declared means that the service is not served here (cases 23, 72, 73); from one
    /// that served it, that the instance is not well: it would stay healthy for ever if nobody said so.
    fn of<T>(
        &mut self,
        role: Role,
        wanted: &WantedSocket,
        known: &mut Known,
        asked: super::observe::Asked<T>,
    ) -> Option<T> {
        match asked? {
            Ok(answer) => Some(answer),
            Err(error) => {
                let is_declared = wanted.role != RoleChoice::Auto;
                if is_declared || known.roles.contains(&role) {
                    let own = match role {
                        Role::Controller => &mut self.controller,
                        Role::Node => &mut self.node,
                    };
                    *own = Some(error);
                }
                None
            }
        }
    }

    /// `NodeGetInfo`: Unimplemented is a legal answer of node-only drivers (G7); a failed refresh keeps what is known.
    fn node_info(&mut self, known: &mut Known, asked: super::observe::Asked<NodeInfo>) {
        match asked {
            Some(Ok(info)) => known.node_info = Some(info),
            Some(Err(error)) if error.is_unimplemented() => {
                known.node_info = Some(NodeInfo { facts: NodeFacts::unknown(), warnings: Vec::new() });
            }
            Some(Err(error)) if known.node_info.is_none() => self.node = Some(error),
            Some(Err(_)) | None => {}
        }
    }

    fn all(&self) -> impl Iterator<Item = &CallError> {
        [&self.common, &self.controller, &self.node].into_iter().flatten()
    }
}

/// Takes note of who answers: what it makes of the instances known so far if it is somebody else than before
/// (case 51), and which plugin it is, or why it can be none.
fn recognise(wanted: &WantedSocket, known: &mut Known, identity: &PluginInfo) -> (Vec<Verdict>, Result<(), String>) {
    let mut displaced = Vec::new();
    if let (Some(before), Some(plugin)) = (&known.provider, &known.plugin)
        && *before != identity.name
    {
        let description = format!("plugin identity changed: expected {before:?}, got {:?}", identity.name);
        // Under an id of its own it will not come back to this socket, and goes as all that is gone (rule A6). An operator's
        // id stays, and whom a registration announces is expected here for as long as it does.
        let is_expected =
            wanted.plugin.is_some() || matches!(&wanted.announced, Announced::As { name, .. } if **name == **before);
        let phase = if is_expected { Phase::Unhealthy } else { Phase::Gone };
        let verdict = |role| Verdict {
            plugin: plugin.clone(),
            role,
            health: Health::Verbatim { phase, description: description.clone() },
            fingerprint: None,
        };
        displaced.extend(known.roles.iter().copied().map(verdict));
    }
    let plugin = match &wanted.plugin {
        Some(configured) => configured.clone(),
        None => match PluginId::parse(&identity.name) {
            Ok(plugin) => plugin,
            Err(error) => {
                let name = bounded(&identity.name, PLUGIN_ID_LIMIT);
                let reason = format!(
                    "the driver calls itself {name:?}, which cannot be a plugin id: it {error}; give one with --plugin-id"
                );
                return (displaced, Err(reason));
            }
        },
    };
    if known.provider.as_ref().is_some_and(|before| *before != identity.name) {
        known.node_info = None;
        // Under another id, what the old driver did says nothing about the new one.
        if known.plugin.as_ref() != Some(&plugin) {
            known.roles.clear();
        }
    }
    known.provider = Some(identity.name.clone());
    known.version = Some(identity.vendor_version.clone());
    known.plugin = Some(plugin);
    (displaced, Ok(()))
}

/// Where capabilities contradict one another (`fingerprinting.md` 2.2); never a reason to be unhealthy.
fn consistency_warnings(product: &Product, node: Option<&NodeFacts>) -> Vec<Box<str>> {
    let mut warnings: Vec<Box<str>> = Vec::new();
    let controller = |capability| product.controller.as_ref().is_some_and(|set| set.has(capability));
    let node_grows = product.node.as_ref().is_some_and(|set| set.has(NodeCapability::ExpandVolume));
    if controller(ControllerCapability::ListVolumesPublishedNodes)
        && !controller(ControllerCapability::PublishUnpublishVolume)
    {
        warnings.push("LIST_VOLUMES_PUBLISHED_NODES needs PUBLISH_UNPUBLISH_VOLUME".into());
    }
    // Only where both services are seen: a node's socket does not show what its controller can do.
    if product.controller.is_some() && product.node.is_some() {
        let controller_grows = controller(ControllerCapability::ExpandVolume);
        if product.expansion.has(VolumeExpansion::Online) && !controller_grows && !node_grows {
            warnings.push("ONLINE volume expansion needs EXPAND_VOLUME on the controller or the node".into());
        }
        if product.expansion.has(VolumeExpansion::Offline) && !controller_grows {
            warnings.push("OFFLINE volume expansion needs EXPAND_VOLUME on the controller".into());
        }
    }
    if node.is_some_and(|node| node.topology.is_some())
        && !product.services.has(PluginService::VolumeAccessibilityConstraints)
    {
        warnings.push("a topology without VOLUME_ACCESSIBILITY_CONSTRAINTS".into());
    }
    warnings
}
