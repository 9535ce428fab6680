//! Commands in name spaces of their own: another view of the file system, other limits of the kernel.

#![allow(dead_code, unreachable_pub, reason = "each test binary that takes this in uses its own part of it")]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::parts::skipped;
use crate::support::process::{command, run};

/// A command that runs in name spaces of its own, in which `prepare` was done before.
pub fn confined(prepare: &str, run: &[&str]) -> Command {
    let mut command = command("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &format!("{prepare} && exec \"$@\""), "sh"]).args(run);
    command
}

/// Whether name spaces can be had; says why not.
pub async fn can_be_confined(prepare: &str) -> bool {
    if command("unshare").arg("--version").stdout(Stdio::null()).status().await.is_err() {
        return skipped::<()>("`unshare` is not here").is_some();
    }
    let tried = run(confined(prepare, &["true"])).await;
    if tried.0 == Some(0) {
        return true;
    }
    skipped::<()>(&format!("no name spaces of a user's own can be had here: {}", tried.2.trim())).is_some()
}

/// Name spaces that outlive the commands that run in them.
pub struct Held {
    holder: Child,
}

impl Held {
    /// Makes them. Ask [`can_be_confined`] before.
    pub async fn new(prepare: &str) -> Self {
        let mut command = confined(prepare, &["sh", "-c", "echo made && exec sleep 1000"]);
        let mut holder = command.stdout(Stdio::piped()).spawn().expect("it was tried before");
        let mut line = String::new();
        let said = BufReader::new(holder.stdout.take().expect("it is piped")).read_line(&mut line).await;
        assert!(said.is_ok() && line == "made\n", "{said:?}: {line}");
        Self { holder }
    }

    fn pid(&self) -> String {
        self.holder.id().expect("it runs").to_string()
    }

    /// A command that runs in them.
    pub fn command(&self, program: &str) -> Command {
        let mut command = command("nsenter");
        command.args(["--target", &self.pid(), "--user", "--mount", "--preserve-credentials", program]);
        command
    }

    /// A path in them as it is seen from outside.
    pub fn outside(&self, path: &Path) -> PathBuf {
        Path::new("/proc").join(self.pid()).join("root").join(path.strip_prefix("/").expect("absolute"))
    }
}
