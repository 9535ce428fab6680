//! `forget PLUGIN`: has a gateway forget what is dead.

use hyper::StatusCode;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;

use super::http::{self, ESCAPED};
use super::{Outcome, say};
use crate::config::Forget;
use crate::domain::text::escaped;

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
    let mut path = format!("/v1/gateway/plugin/{}", utf8_percent_encode(config.plugin.as_str(), ESCAPED));
    if let Some(host) = &config.host {
        path.push_str(&format!("?host={}", utf8_percent_encode(host.as_str(), ESCAPED)));
    }
    let answer = match http::delete(&config.asking, &path).await {
        Ok(answer) => answer,
        Err(error) => return Outcome::failed(&error),
    };
    if answer.status != StatusCode::OK {
        let reason = escaped(answer.text().trim()).into_owned();
        return Outcome::Failed(format!("cannot forget `{}`: {reason}", escaped(config.plugin.as_str())));
    }
    match serde_json::from_slice::<Forgotten>(&answer.body) {
        Ok(forgotten) => {
            say(&described(config.plugin.as_str(), &forgotten));
            Outcome::Done
        }
        Err(error) => Outcome::Failed(format!("`{}` is no gateway: {error}", config.asking.address)),
    }
}

fn described(plugin: &str, forgotten: &Forgotten) -> String {
    let mut lines = Vec::new();
    for Instance { host, phase, role, socket } in &forgotten.instances {
        lines.push(format!("forgotten: {role} of {plugin} on {host}, was {phase} at {socket}"));
    }
    if forgotten.plugin_gone {
        lines.push(format!("nothing is left of {plugin}"));
    }
    if forgotten.durability == "not durable" {
        lines.push("not on disk yet: the gateway cannot write its state now, and goes on trying".to_owned());
    }
    let lines: Vec<_> = lines.iter().map(|line| escaped(line)).collect();
    lines.join("\n")
}
