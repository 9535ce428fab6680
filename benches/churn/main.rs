//! Makes drivers come, go, move and die at random beside a gateway, and compares in the end.
//!
//! `churn --address=http://HOST:PORT --root=DIRECTORY [--changes=N] [--seconds=S] [--rounds=R] [--seed=X]` makes N changes
//! within S seconds below DIRECTORY, which the gateway searches (`churn --root=DIRECTORY --flags` prints how it is told to).
//! In R rounds: at the end of each it waits until the gateway says what the directories are, checks that no driver that
//! answers was dialled more than once a second, prints one line of JSON, and goes on when it reads a line. It fails with
//! the first difference.

#![allow(clippy::print_stdout, reason = "a tool talks to its caller")]

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[path = "../../tests/support/churn.rs"]
mod churn;

use churn::Churn;

type Failure = Box<dyn Error + Send + Sync>;

struct Arguments {
    address: Option<String>,
    root: PathBuf,
    changes: u32,
    seconds: u64,
    rounds: u32,
    seed: u64,
}

fn arguments() -> Result<Option<Arguments>, Failure> {
    let (mut address, mut root, mut changes, mut seconds, mut rounds, mut seed) = (None, None, 1_000, 60, 4, 1);
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("--address", text)) => address = Some(text.to_owned()),
            Some(("--root", text)) => root = Some(PathBuf::from(text)),
            Some(("--changes", text)) => changes = text.parse()?,
            Some(("--seconds", text)) => seconds = text.parse()?,
            Some(("--rounds", text)) => rounds = text.parse()?,
            Some(("--seed", text)) => seed = text.parse()?,
            None if argument == "--flags" => address = None,
            // `cargo bench` runs every bench target with this; there is nothing to measure alone.
            None if argument == "--bench" => return Ok(None),
            _ => return Err(format!("no argument `{argument}`; the head of this file lists them").into()),
        }
    }
    let root = root.ok_or("needed is --root")?;
    Ok(Some(Arguments { address, root, changes, seconds, rounds: rounds.max(1), seed }))
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { address, root, changes, seconds, rounds, seed } = arguments;
    let mut churn = Churn::new(&root, seed);
    let Some(address) = address else {
        churn.arguments().iter().for_each(|flag| println!("{flag}"));
        return Ok(());
    };
    let pause = Duration::from_secs(seconds) / changes.max(1);
    let begun = Instant::now();
    for round in 1..=rounds {
        // By the clock: a change takes a while of its own.
        let first = changes * (round - 1) / rounds;
        let started = Instant::now();
        for number in first..changes * round / rounds {
            let due = started + pause * (number - first);
            tokio::time::sleep_until(due.into()).await;
            churn.step().await;
        }
        churn.settle(&address).await;
        println!(
            "{{\"round\":{round},\"changes\":{},\"connected\":{},\"seconds\":{:.1}}}",
            changes * round / rounds,
            churn.connected(),
            begun.elapsed().as_secs_f64()
        );
        std::io::stdin().read_line(&mut String::new())?;
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let Some(arguments) = arguments()? else { return Ok(()) };
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run(arguments))
}
