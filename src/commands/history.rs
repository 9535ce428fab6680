//! `history [PLUGIN]`: what happened, the newest last.

use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use serde_json::Value;

use super::http::{self, AnswerError, ESCAPED, HttpError};
use super::{Outcome, complain, say, table};
use crate::config::History;
use crate::domain::text::escaped;

/// A transition, as `/v1/gateway/history` tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Transition {
    at: Option<String>,
    #[serde(rename = "PluginID")]
    plugin: String,
    role: String,
    host: String,
    kind: String,
    from: Option<Value>,
    to: Option<Value>,
    #[serde(default)]
    gained: Vec<String>,
    #[serde(default)]
    lost: Vec<String>,
    reason: Reason,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reason {
    description: String,
    text: String,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
enum HistoryError {
    #[error("cannot read the history")]
    Http(#[from] HttpError),
    #[error("cannot read the history")]
    Answer(#[from] AnswerError),
}

/// Runs the command.
pub async fn run(config: &History) -> Outcome {
    match shown(config).await {
        Ok(Some(text)) => {
            say(&text);
            Outcome::Done
        }
        Ok(None) => {
            let of = config.plugin.as_ref().map_or(String::new(), |id| format!(" to {}", escaped(id.as_str())));
            complain(&format!("nothing happened{of} that is remembered"));
            Outcome::Done
        }
        Err(error) => Outcome::failed(&error),
    }
}

async fn shown(config: &History) -> Result<Option<String>, HistoryError> {
    let mut path = format!("/v1/gateway/history?limit={}", config.limit);
    if let Some(id) = &config.plugin {
        path.push_str(&format!("&plugin={}", utf8_percent_encode(id.as_str(), ESCAPED)));
    }
    if config.is_json {
        path.push_str("&pretty");
    }
    let answer = http::ask(&config.asking, &path).await?;
    let transitions: Vec<Transition> = http::json(&config.asking.address, &answer)?;
    if config.is_json {
        return Ok(Some(answer.text().into_owned()));
    }
    if transitions.is_empty() {
        return Ok(None);
    }
    let header = ["Time", "Plugin", "Role", "Host", "What"].map(str::to_owned);
    let rows = transitions.into_iter().rev().map(|transition| {
        let what = what(&transition);
        let Transition { at, plugin, role, host, .. } = transition;
        [at.unwrap_or_default(), plugin, role, host, what]
    });
    Ok(Some(table::columns(std::iter::once(header).chain(rows))))
}

/// What happened, in one line.
fn what(transition: &Transition) -> String {
    let Transition { kind, from, to, gained, lost, reason, .. } = transition;
    let reason = if reason.text.is_empty() { &reason.description } else { &reason.text };
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    match kind.as_str() {
        "appeared" => format!("appeared, {}{because}", side(to.as_ref())),
        "phase" => format!("{} -> {}{because}", side(from.as_ref()), side(to.as_ref())),
        "reason" => format!("reason{because}"),
        "capabilities" => {
            let gained = gained.iter().map(|name| format!(" +{name}"));
            let lost = lost.iter().map(|name| format!(" -{name}"));
            format!("capabilities{}", gained.chain(lost).collect::<String>())
        }
        kind if from.is_none() && to.is_none() => kind.to_owned(),
        kind => format!("{kind} {} -> {}", side(from.as_ref()), side(to.as_ref())),
    }
}

fn side(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(topology)) => {
            let segments = topology.get("Segments").and_then(Value::as_object).into_iter().flatten();
            segments
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect::<Vec<_>>()
                .join(",")
        }
        Some(other) => other.to_string(),
    }
}
