//! `status`: the table and the block of `nomad plugin status`, from any gateway or Nomad server.

use comfy_table::{Table, presets};
use hyper::StatusCode;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Deserialize;

use super::http::{self, Answer, HttpError};
use super::{Outcome, complain, say};
use crate::config::Status;

/// What a query value and a path segment must not contain as it is.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b'/')
    .add(b';')
    .add(b'<')
    .add(b'>')
    .add(b'?');

/// What a list shows of a plugin. Nomad's keys, and no others are needed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stub {
    #[serde(rename = "ID")]
    id: String,
    provider: String,
    controllers_healthy: u64,
    controllers_expected: u64,
    nodes_healthy: u64,
    nodes_expected: u64,
}

/// What a read shows besides.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Plugin {
    #[serde(flatten)]
    stub: Stub,
    version: String,
}

/// Text from a driver on its way to a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Plugins as Nomad prints them.
fn table(plugins: &[Stub]) -> String {
    let header = ["ID", "Provider", "Controllers Healthy/Expected", "Nodes Healthy/Expected"].map(str::to_owned);
    let rows = plugins.iter().map(|plugin| {
        [
            plain(&plugin.id),
            plain(&plugin.provider),
            format!("{}/{}", plugin.controllers_healthy, plugin.controllers_expected),
            format!("{}/{}", plugin.nodes_healthy, plugin.nodes_expected),
        ]
    });
    let mut table = Table::new();
    table.load_style(presets::NOTHING).add_row(header).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    // Nothing stands at a line's end.
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// One plugin as Nomad prints it.
fn block(plugin: &Plugin) -> String {
    let stub = &plugin.stub;
    let rows = [
        ("ID", plain(&stub.id)),
        ("Provider", plain(&stub.provider)),
        ("Version", plain(&plugin.version)),
        ("Controllers Healthy", stub.controllers_healthy.to_string()),
        ("Controllers Expected", stub.controllers_expected.to_string()),
        ("Nodes Healthy", stub.nodes_healthy.to_string()),
        ("Nodes Expected", stub.nodes_expected.to_string()),
    ];
    rows.map(|(name, value)| format!("{name:<20} = {value}")).join("\n")
}

/// The table of all plugins that an address lists.
///
/// # Errors
/// Nobody there, or no list.
pub async fn all(address: &str) -> Result<String, StatusError> {
    let plugins: Vec<Stub> = ask(address, "/v1/plugins?type=csi").await?;
    Ok(if plugins.is_empty() { "No CSI plugins".to_owned() } else { table(&plugins) })
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No answer.
    #[error("cannot list plugins")]
    Http(#[from] HttpError),
    /// The answer is an error.
    #[error("`{address}` answers {status}: {body}")]
    Refused {
        /// Who was asked.
        address: String,
        /// Its status.
        status: StatusCode,
        /// Its text.
        body: String,
    },
    /// The answer is none of Nomad's shapes.
    #[error("`{address}` answers something else than plugins")]
    Shape {
        /// Who was asked.
        address: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

async fn ask<T: serde::de::DeserializeOwned>(address: &str, path: &str) -> Result<T, StatusError> {
    let Answer { status, body, .. } = http::get(address, path).await?;
    if status != StatusCode::OK {
        let body = plain(String::from_utf8_lossy(&body).trim());
        return Err(StatusError::Refused { address: address.to_owned(), status, body });
    }
    serde_json::from_slice(&body).map_err(|source| StatusError::Shape { address: address.to_owned(), source })
}

/// Runs the command.
pub async fn run(config: &Status) -> Outcome {
    let shown = match &config.plugin {
        None => all(&config.address).await.map(|table| {
            say(&table);
            Outcome::Done
        }),
        Some(id) => one(&config.address, id).await,
    };
    shown.unwrap_or_else(|error| Outcome::failed(&error))
}

/// One plugin, by its id or by the beginning of one, as Nomad's command line chooses it.
async fn one(address: &str, id: &str) -> Result<Outcome, StatusError> {
    let escaped = utf8_percent_encode(id, ESCAPED);
    let mut found: Vec<Stub> = ask(address, &format!("/v1/plugins?type=csi&prefix={escaped}")).await?;
    if let Some(exact) = found.iter().position(|plugin| plugin.id == id) {
        found = vec![found.swap_remove(exact)];
    }
    match found.as_slice() {
        [] => Ok(Outcome::Failed(format!("no plugins with prefix or ID \"{}\" found", plain(id)))),
        [plugin] => {
            let escaped = utf8_percent_encode(&plugin.id, ESCAPED);
            let plugin: Plugin = ask(address, &format!("/v1/plugin/csi/{escaped}?shape=nomad")).await?;
            say(&block(&plugin));
            Ok(Outcome::Done)
        }
        several => {
            complain(&table(several));
            Ok(Outcome::Failed(format!("prefix \"{}\" matched multiple plugins", plain(id))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_carries_no_control_characters() {
        let plugin = |id: &str| Stub {
            id: id.into(),
            provider: "ebs\u{1b}[31m".into(),
            controllers_healthy: 1,
            controllers_expected: 1,
            nodes_healthy: 2,
            nodes_expected: 3,
        };
        let shown = table(&[plugin("a"), plugin("a-longer-one")]);
        assert_eq!(
            shown,
            "ID            Provider  Controllers Healthy/Expected  Nodes Healthy/Expected\n\
             a             ebs [31m  1/1                           2/3\n\
             a-longer-one  ebs [31m  1/1                           2/3"
        );
    }
}
