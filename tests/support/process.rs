//! The built binary as a process: started, asked over HTTP, killed.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use csi_gateway::commands::http::{self, Answer};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// How long anything may take before a test gives up: long, since a slow machine is no fault.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Sends a signal to a child that was not waited for yet.
pub fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).expect("a running child");
    kill_process(pid, signal).expect("it is ours");
}

/// A command that ends with the test, with no variable of ours from outside.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in ["CSI_ENDPOINT", "STATE_DIRECTORY", "NODE_NAME", "KUBE_NODE_NAME", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// The gateway's own binary.
pub fn gateway() -> Command {
    command(env!("CARGO_BIN_EXE_csi-gateway"))
}

/// Waits until `look` finds something.
///
/// # Panics
/// If it does not within the patience; the text is the last state that `look` gave.
pub async fn until<T, F>(what: &str, mut look: F) -> T
where
    F: AsyncFnMut() -> Result<T, String>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(state) => assert!(Instant::now() < end, "not in time: {what}; last seen: {state}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A gateway that serves.
pub struct Serving {
    /// The process.
    pub child: Child,
    /// Its first address.
    pub address: String,
    /// Held open: a closed pipe is not what is tested.
    _stdout: BufReader<ChildStdout>,
}

impl Serving {
    /// Starts `serve` (or what `arguments` say) and waits for its address. Its log goes to `log`.
    ///
    /// # Panics
    /// If it ends before it serves; the text is its log.
    pub async fn start(arguments: &[&str], log: &Path) -> Self {
        let mut command = gateway();
        command.args(arguments);
        Self::run(command, log).await
    }

    /// The same with a command that is complete.
    ///
    /// # Panics
    /// If it ends before it serves; the text is its log.
    pub async fn run(mut command: Command, log: &Path) -> Self {
        let sink = std::fs::File::create(log).expect("a log file");
        let mut child =
            command.stdout(Stdio::piped()).stderr(sink).kill_on_drop(true).spawn().expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        loop {
            line.clear();
            let read =
                tokio::time::timeout(PATIENCE, stdout.read_line(&mut line)).await.expect("it says where it serves");
            assert!(
                read.expect("its output is text") > 0,
                "it ended: {}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
            if let Some(address) = line.trim().strip_prefix("listening on ") {
                return Self { child, address: address.to_owned(), _stdout: stdout };
            }
        }
    }

    /// Asks for a path.
    pub async fn get(&self, path: &str) -> Answer {
        http::get(&self.address, path).await.expect("the gateway answers")
    }

    /// Asks for a path whose answer is JSON.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        let parsed = serde_json::from_slice(&answer.body);
        assert!(parsed.is_ok(), "{path} answers no JSON: {answer:?}");
        parsed.unwrap_or_default()
    }

    /// The index that a path's answer carries.
    pub async fn index(&self, path: &str) -> u64 {
        let answer = self.get(path).await;
        let header = answer.headers.get("X-Nomad-Index").expect("an index");
        header.to_str().expect("text").parse().expect("a number")
    }

    /// Kills it as a power cut does.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it was running");
    }
}

/// Runs the binary to its end: exit code, standard output, standard error.
///
/// # Panics
/// If it does not end within the patience.
pub async fn run(mut command: Command) -> (Option<i32>, String, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let (mut out, mut err) = (String::new(), String::new());
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut stderr = child.stderr.take().expect("it is piped");
    let reading = async {
        let (first, second) = tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err));
        first.expect("text");
        second.expect("text");
        child.wait().await.expect("it ends")
    };
    let status = tokio::time::timeout(PATIENCE, reading).await.expect("it ends in time");
    (status.code(), out, err)
}
