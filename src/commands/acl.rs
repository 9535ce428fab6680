//! `acl`: tokens in a file, and whether policies are valid. It asks no gateway; the one that reads the files notices.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::table::columns;
use super::{Outcome, complain, say};
use crate::acl::{AclError, Kind, PolicyFile, Token, read_policy, token};
use crate::config::Acl;
use crate::domain::text::escaped;
use crate::domain::time::Timestamp;
use crate::telemetry::Chain;

/// Runs the command.
pub fn run(config: &Acl) -> Outcome {
    match config {
        Acl::Create { file, policies, is_management, name, ttl, policy_directory, is_json } => {
            warn_of_missing(policies, policy_directory.as_deref());
            let kind = if *is_management { Kind::Management } else { Kind::Client };
            outcome(create(file, kind, name, policies, *ttl, *is_json))
        }
        Acl::List { file, is_json } => outcome(list(file, *is_json)),
        Acl::Revoke { file, accessor } => outcome(token::revoke(file, accessor).map(|token| {
            say(&format!("revoked: {}", told(&token)));
        })),
        Acl::Check { files } => check(files),
    }
}

fn outcome(result: Result<(), AclError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::failed(&error),
    }
}

/// A token as JSON shows it, in Nomad's words.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'a> {
    #[serde(rename = "AccessorID")]
    accessor_id: &'a str,
    /// Once, and only to who made it.
    #[serde(rename = "SecretID", skip_serializing_if = "Option::is_none")]
    secret_id: Option<String>,
    name: &'a str,
    #[serde(rename = "Type")]
    kind: &'static str,
    policies: &'a [String],
    create_time: &'a str,
    expiration_time: Option<&'a str>,
}

impl<'a> Shown<'a> {
    fn new(token: &'a Token, secret_id: Option<String>) -> Self {
        Self {
            accessor_id: &token.accessor_id,
            secret_id,
            name: &token.name,
            kind: token.kind.as_str(),
            policies: &token.policies,
            create_time: &token.create_time,
            expiration_time: token.expiration_time.as_deref(),
        }
    }
}

fn json(value: &impl Serialize) -> String {
    // Keys and texts only: there is nothing in it that JSON cannot hold.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn create(
    file: &Path,
    kind: Kind,
    name: &str,
    policies: &[String],
    ttl: Option<Duration>,
    is_json: bool,
) -> Result<(), AclError> {
    let now = Timestamp::now();
    let end = |ttl: Duration| Timestamp(now.0.saturating_add(i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX)));
    let (token, secret) = Token::create(kind, name.to_owned(), policies.to_vec(), now, ttl.map(end))?;
    token::add(file, token.clone())?;
    // Only now: a secret that is shown is one that opens.
    if is_json {
        say(&json(&Shown::new(&token, Some(secret.reveal()))));
    } else {
        complain(&format!("created: {}; its secret is shown this once:", told(&token)));
        say(&secret.reveal());
    }
    Ok(())
}

fn list(file: &Path, is_json: bool) -> Result<(), AclError> {
    let tokens = token::read(file)?.unwrap_or_default();
    if is_json {
        say(&json(&tokens.iter().map(|token| Shown::new(token, None)).collect::<Vec<_>>()));
        return Ok(());
    }
    if tokens.is_empty() {
        say("No tokens");
        return Ok(());
    }
    let header = ["Name", "Type", "Accessor ID", "Policies", "Expires"].map(str::to_owned);
    let now = Timestamp::now();
    let rows = tokens.iter().map(|token| {
        let expires = match (&token.expiration_time, token.expires()) {
            (Some(time), Some(end)) if end <= now => format!("{time} (over)"),
            (Some(time), _) => time.clone(),
            (None, _) => "never".to_owned(),
        };
        let policies = token.policies.join(", ");
        [token.name.clone(), token.kind.as_str().to_owned(), token.accessor_id.clone(), policies, expires]
    });
    say(&columns(std::iter::once(header).chain(rows)));
    Ok(())
}

/// A token in one line.
fn told(token: &Token) -> String {
    let name = if token.name.is_empty() { String::new() } else { format!(" `{}`", escaped(&token.name)) };
    let may = match token.kind {
        Kind::Management => "may do everything".to_owned(),
        Kind::Client => format!("policies {}", escaped(&token.policies.join(", "))),
    };
    let until = token.expiration_time.as_ref().map(|time| format!(", until {time}")).unwrap_or_default();
    format!("token{name} with accessor id {}, {may}{until}", token.accessor_id)
}

fn warn_of_missing(policies: &[String], directory: Option<&Path>) {
    let Some(directory) = directory else { return };
    for name in policies {
        let is_there = ["hcl", "json"].iter().any(|ending| directory.join(format!("{name}.{ending}")).is_file());
        if !is_there {
            let (name, directory) = (escaped(name), directory.display());
            complain(&format!("warning: `{directory}` has no policy `{name}` yet; until then it allows nothing"));
        }
    }
}

fn check(files: &[PathBuf]) -> Outcome {
    let mut wrong = 0;
    for file in files {
        match read_policy(file) {
            Ok((name, PolicyFile::Rules(_, policy))) => {
                say(&format!("{name}: valid; it allows {}", escaped(&policy.summary())));
            }
            Ok((name, PolicyFile::Attachment(attachment))) => {
                say(&format!("{name}: valid; it is attached to {}", escaped(&attachment.summary())));
            }
            Err(error) => {
                wrong += 1;
                complain(&format!("error: {}", escaped(&Chain(&error).to_string())));
            }
        }
    }
    match wrong {
        0 => Outcome::Done,
        1 => Outcome::Failed("one policy cannot be used".to_owned()),
        wrong => Outcome::Failed(format!("{wrong} policies cannot be used")),
    }
}
