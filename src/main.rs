//! Parse, load, build, run; print what went wrong and exit with its code.

use std::io::Write;
use std::process::ExitCode;

use csi_gateway::cli::{self, Invocation};
use csi_gateway::commands::{self, Outcome};

/// Wrong usage or configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let variable = |name: &str| std::env::var(name).ok();
    let invocation = match cli::parse(&arguments, &variable) {
        Ok(Invocation::Text(text)) => {
            commands::say(&text);
            return ExitCode::SUCCESS;
        }
        Ok(invocation) => invocation,
        Err(problems) => {
            // Nobody left to tell if standard error is closed.
            let _ = writeln!(std::io::stderr(), "{problems}");
            return ExitCode::from(USAGE);
        }
    };
    // Two workers serve ten thousand readers; blocking threads only look at files.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(4).enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(invocation, &variable)),
        Err(error) => Outcome::Failed(format!("cannot start the runtime: {error}")),
    };
    match outcome {
        Outcome::Done => ExitCode::SUCCESS,
        Outcome::NotReady => ExitCode::from(4),
        Outcome::Failed(reason) => {
            let _ = writeln!(std::io::stderr(), "error: {reason}");
            ExitCode::FAILURE
        }
    }
}
