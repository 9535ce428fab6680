//! `probe SOCKET`: one look at one driver, for people and for exec probes. No port, no state.

use serde::Serialize;

use super::{Outcome, complain, say};
use crate::config::Probe;
use crate::csi::{CallError, Driver, Limits, PluginInfo, Readiness};
use crate::domain::capability::PluginService;
use crate::domain::id::Role;
use crate::domain::socket::RoleChoice;
use crate::domain::text::{DESCRIPTION_LIMIT, bounded};

/// What a look found.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Found {
    socket: String,
    ready: bool,
    reason: String,
    provider: Option<String>,
    provider_version: Option<String>,
    plugin_capabilities: Vec<String>,
    controller_capabilities: Option<Vec<String>>,
    node_capabilities: Option<Vec<String>>,
    group_controller_capabilities: Option<Vec<String>>,
    #[serde(rename = "NodeID")]
    node_id: Option<String>,
    max_volumes: Option<i64>,
    topology: Option<std::collections::BTreeMap<String, String>>,
}

/// Runs the command.
pub async fn run(config: &Probe) -> Outcome {
    let limits = Limits::new(config.probe_timeout, config.timeout);
    let mut found = Found { socket: config.address.display().to_string(), ..Found::default() };
    let looked = look(config, limits, &mut found).await;
    if let Err(reason) = looked {
        found.reason = reason;
    }
    if config.is_json {
        say(&serde_json::to_string_pretty(&found).unwrap_or_default());
    } else if found.ready {
        say(&described(&found));
    } else {
        complain(&format!("not ready: {}", found.reason));
    }
    if found.ready { Outcome::Done } else { Outcome::NotReady }
}

async fn look(config: &Probe, limits: Limits, found: &mut Found) -> Result<(), String> {
    let people = |error: CallError| error.for_people();
    let driver = Driver::connect(&config.address, limits).await.map_err(people)?;
    let PluginInfo { name, vendor_version, .. } = driver.plugin_info().await.map_err(people)?;
    found.provider = Some(name);
    found.provider_version = Some(vendor_version);
    if driver.probe().await.map_err(people)? == Readiness::Starting {
        return Err("the driver says that it is not ready (Probe: ready=false)".to_owned());
    }
    let capabilities = driver.plugin_capabilities().await.map_err(people)?;
    found.plugin_capabilities = capabilities.services.names().chain(capabilities.expansion.names()).collect();
    if config.role.asks(Role::Controller) {
        let answer = driver.controller_capabilities().await;
        found.controller_capabilities = served(config.role, answer)?.map(|set| set.names().collect());
    }
    if config.role.asks(Role::Node) {
        let answer = driver.node_capabilities().await;
        found.node_capabilities = served(config.role, answer)?.map(|set| set.names().collect());
        if found.node_capabilities.is_some() {
            // Legal for a node-only driver not to have it.
            if let Some(info) = served(RoleChoice::Auto, driver.node_info().await)? {
                found.node_id = Some(info.facts.id.into());
                found.max_volumes = Some(info.facts.max_volumes);
                let segments = info.facts.topology.and_then(|topology| topology.segments);
                found.topology =
                    segments.map(|pairs| pairs.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
            }
        }
    }
    if capabilities.services.has(PluginService::GroupController) {
        let answer = driver.group_controller_capabilities().await;
        found.group_controller_capabilities = served(RoleChoice::Auto, answer)?.map(|set| set.names().collect());
    }
    found.ready = true;
    Ok(())
}

/// The answer of a service; where no role is declared, "Unimplemented" means that the service is not served here.
fn served<T>(role: RoleChoice, answer: Result<T, CallError>) -> Result<Option<T>, String> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_unimplemented() && role == RoleChoice::Auto => Ok(None),
        Err(error) => Err(error.for_people()),
    }
}

fn described(found: &Found) -> String {
    let safe = |text: &Option<String>| bounded(text.as_deref().unwrap_or_default(), DESCRIPTION_LIMIT).into_string();
    let mut lines = vec![format!("ready: {} {}", safe(&found.provider), safe(&found.provider_version))];
    let mut line = |name: &str, value: String| lines.push(format!("{name:<12} {}", bounded(&value, DESCRIPTION_LIMIT)));
    line("plugin", found.plugin_capabilities.join(" "));
    if let Some(names) = &found.controller_capabilities {
        line("controller", names.join(" "));
    }
    if let Some(names) = &found.node_capabilities {
        line("node", names.join(" "));
    }
    if let Some(names) = &found.group_controller_capabilities {
        line("group", names.join(" "));
    }
    if let Some(id) = &found.node_id {
        line("node id", id.clone());
    }
    match found.max_volumes {
        Some(i64::MAX) => line("max volumes", "not limited by the driver".to_owned()),
        Some(volumes) => line("max volumes", volumes.to_string()),
        None => {}
    }
    if let Some(topology) = &found.topology {
        line("topology", topology.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "));
    }
    lines.join("\n")
}
