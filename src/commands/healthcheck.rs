//! `healthcheck`: asks the gateway of this machine how it is, for images without a shell.

use hyper::StatusCode;

use super::{Outcome, complain, http, say};
use crate::config::Healthcheck;
use crate::domain::text::escaped;
use crate::telemetry::Chain;

/// Runs the command.
pub async fn run(config: &Healthcheck) -> Outcome {
    let path = if config.is_ready { "/readyz" } else { "/livez" };
    let asking = async {
        let answer = http::ask(&config.asking, path).await?;
        if answer.status != StatusCode::NOT_FOUND {
            return Ok((path, answer));
        }
        // A sidecar serves its driver's health, and nothing of its own life.
        http::ask(&config.asking, "/healthz").await.map(|answer| ("/healthz", answer))
    };
    let reason = match tokio::time::timeout(config.timeout, asking).await {
        Ok(Ok((_, answer))) if answer.status == StatusCode::OK => {
            say(&escaped(answer.text().trim()));
            return Outcome::Done;
        }
        Ok(Ok((path, answer))) => format!("{path} answers {}: {}", answer.status, escaped(answer.text().trim())),
        Ok::<Result<_, http::HttpError>, _>(Err(error)) => Chain(&error).to_string(),
        Err(_) => format!("no answer from `{}` within {:?}", config.asking.address, config.timeout),
    };
    complain(&format!("not well: {reason}"));
    Outcome::NotReady
}
