//! `forget PLUGIN`: has a gateway forget what is dead.

use hyper::StatusCode;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;

use super::status::{ESCAPED, plain};
use super::{Outcome, http, say};
use crate::config::Forget;

/// What the gateway says it did.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Forgotten {
    durability: String,
    instances: Vec<Instance>,
    plugin_gone: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    host: String,
    phase: String,
    role: String,
    socket: String,
}

/// Runs the command.
pub async fn run(config: &Forget) -> Outcome {
    let mut path = format!("/v1/gateway/plugin/{}", utf8_percent_encode(&config.plugin, ESCAPED));
    if let Some(host) = &config.host {
        path.push_str(&format!("?host={}", utf8_percent_encode(host.as_str(), ESCAPED)));
    }
    let answer = match http::delete(&config.address, &path).await {
        Ok(answer) => answer,
        Err(error) => return Outcome::failed(&error),
    };
    if answer.status != StatusCode::OK {
        let reason = plain(String::from_utf8_lossy(&answer.body).trim());
        return Outcome::Failed(format!("cannot forget `{}`: {reason}", plain(&config.plugin)));
    }
    match serde_json::from_slice::<Forgotten>(&answer.body) {
        Ok(forgotten) => {
            say(&described(&config.plugin, &forgotten));
            Outcome::Done
        }
        Err(error) => Outcome::Failed(format!("`{}` is no gateway: {error}", config.address)),
    }
}

fn described(plugin: &str, forgotten: &Forgotten) -> String {
    let mut lines = Vec::new();
    for Instance { host, phase, role, socket } in &forgotten.instances {
        lines.push(plain(&format!("forgotten: {role} of {plugin} on {host}, was {phase} at {socket}")));
    }
    if forgotten.plugin_gone {
        lines.push(plain(&format!("nothing is left of {plugin}")));
    }
    if forgotten.durability == "not durable" {
        lines.push("not on disk yet: the gateway cannot write its state now, and goes on trying".to_owned());
    }
    lines.join("\n")
}
