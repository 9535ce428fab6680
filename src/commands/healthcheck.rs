//! `healthcheck`: asks the gateway of this machine how it is, for images without a shell.

use hyper::StatusCode;

use super::{Outcome, complain, http, say};
use crate::config::Healthcheck;
use crate::domain::text::escaped;
use crate::telemetry::Chain;

/// Runs the command.
pub async fn run(config: &Healthcheck) -> Outcome {
    let path = if config.is_ready { "/readyz" } else { "/livez" };
    let reason = match tokio::time::timeout(config.timeout, http::ask(&config.asking, path)).await {
        Ok(Ok(answer)) if answer.status == StatusCode::OK => {
            say(&escaped(answer.text().trim()));
            return Outcome::Done;
        }
        Ok(Ok(answer)) => format!("{path} answers {}: {}", answer.status, escaped(answer.text().trim())),
        Ok(Err(error)) => Chain(&error).to_string(),
        Err(_) => format!("no answer from `{}` within {:?}", config.asking.address, config.timeout),
    };
    complain(&format!("not well: {reason}"));
    Outcome::NotReady
}
