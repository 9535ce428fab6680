//! Parse, load, build, run; print what went wrong and exit with its code.

use std::process::ExitCode;

use csi_gateway::app::sidecar::Beside;
use csi_gateway::app::{self, AppError, Gateway, Plan};
use csi_gateway::cli::{self, Invocation};
use csi_gateway::commands::{self, Outcome, complain, say};
use csi_gateway::config::load::Variables;
use csi_gateway::config::{Serve, Sidecar};
use csi_gateway::systemd::Handed;
use csi_gateway::{demo, shutdown, systemd, telemetry};

/// Wrong usage or configuration.
const USAGE: u8 = 2;
/// What was waited for did not come.
const LATE: u8 = 3;
/// Whoever was asked about is not well.
const NOT_READY: u8 = 4;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let variable = |name: &str| std::env::var(name).ok();
    let invocation = match cli::parse(&arguments, &variable) {
        Ok(invocation) => invocation,
        Err(problems) => {
            complain(&problems.to_string());
            return ExitCode::from(USAGE);
        }
    };
    // Before there is a second thread: what is handed over is told by the environment, and cleared from it.
    let handed = match systemd::handed_over() {
        Ok(handed) => handed,
        Err(error) => {
            complain(&format!("error: a socket that was handed over cannot be used: {error}"));
            return ExitCode::FAILURE;
        }
    };
    // Two workers serve ten thousand readers; blocking threads only look at files.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(4).enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(invocation, handed, &variable)),
        Err(error) => Outcome::failed(&error),
    };
    match outcome {
        Outcome::Done => ExitCode::SUCCESS,
        Outcome::NotReady => ExitCode::from(NOT_READY),
        Outcome::Late(reason) => {
            complain(&format!("error: {reason}"));
            ExitCode::from(LATE)
        }
        Outcome::Failed(reason) => {
            complain(&format!("error: {reason}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(invocation: Invocation, handed: Vec<Handed>, variable: Variables<'_>) -> Outcome {
    match invocation {
        Invocation::Text(text) => {
            say(&text);
            Outcome::Done
        }
        Invocation::Probe(config) => commands::probe::run(&config).await,
        Invocation::Status(config) => commands::status::run(&config).await,
        Invocation::Wait(config) => commands::wait::run(&config).await,
        Invocation::Doctor(config) => {
            let places = app::searched(&config.sources);
            commands::doctor::run(config, places).await
        }
        Invocation::History(config) => commands::history::run(&config).await,
        Invocation::Forget(config) => commands::forget::run(&config).await,
        Invocation::Healthcheck(config) => commands::healthcheck::run(&config).await,
        Invocation::Acl(config) => commands::acl::run(&config),
        Invocation::Completion(config) => commands::completion::run(&config).await,
        Invocation::Serve(config) => match serve(&config, handed, variable).await {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::failed(&error),
        },
        Invocation::Sidecar(config) => match sidecar(config).await {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::failed(&error),
        },
        Invocation::Demo(config) => {
            telemetry::start(config.logging.verbosity, config.logging.is_json);
            match shutdown::on_signal() {
                Ok(stop) => demo::show::run(&config, stop).await,
                Err(error) => Outcome::failed(&error),
            }
        }
    }
}

async fn serve(config: &Serve, handed: Vec<Handed>, variable: Variables<'_>) -> Result<(), AppError> {
    telemetry::start(config.logging.verbosity, config.logging.is_json);
    let stop = shutdown::on_signal().map_err(AppError::Signals)?;
    let gateway = Gateway::build(Plan::serve(config, variable).with_handed(handed)).await?;
    for url in gateway.urls() {
        say(&format!("listening on {url}"));
    }
    gateway.run(stop).await
}

async fn sidecar(config: Sidecar) -> Result<(), AppError> {
    telemetry::start(config.logging.verbosity, config.logging.is_json);
    let stop = shutdown::on_signal().map_err(AppError::Signals)?;
    let beside = Beside::build(config).await?;
    for url in beside.urls() {
        say(&format!("listening on {url}"));
    }
    beside.run(stop).await
}
