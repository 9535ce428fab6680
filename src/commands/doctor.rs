//! `doctor`.
use super::Outcome;
use crate::config::Doctor;

/// Runs the command.
pub async fn run(_config: &Doctor) -> Outcome {
    Outcome::Failed("not there yet".to_owned())
}
