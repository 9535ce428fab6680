//! Programs that run beside a test for as long as it takes, and end with it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A process that ends with the test, and what it logs.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it says is appended to `log`.
    pub fn start(mut command: Command, log: PathBuf) -> Self {
        let sink = File::options().append(true).create(true).open(&log).expect("a log file");
        let also = sink.try_clone().expect("a second descriptor");
        let child = command.stdin(Stdio::null()).stdout(sink).stderr(also).spawn().expect("the program starts");
        Self { child, log }
    }

    /// What it, and those before it under the same name, logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How often it logged something.
    pub fn logged(&self, what: &str) -> usize {
        self.log().matches(what).count()
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, as nothing can prevent, and waits for its end.
    pub fn kill(&mut self) {
        // Both fail only for a process that ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    pub fn wait(&mut self) {
        // Fails only if it was waited for before.
        let _ = self.child.wait();
    }

    /// Whether it is no more.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    fn end_of_log(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("{} ends with {:#?}", self.log.display(), &lines[lines.len().saturating_sub(5)..])
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The logs are removed with the scratch folder.
            let _ = writeln!(std::io::stderr(), "{}", self.end_of_log());
        }
        self.kill();
    }
}

/// A command that ends with the test, even where the test is killed.
pub fn with_the_test(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The first of these programs that this machine does not have.
pub fn missing_program(programs: &[&'static str]) -> Option<&'static str> {
    let is_there = |name: &str| {
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|at| at.join(name).is_file()))
    };
    programs.iter().copied().find(|name| !is_there(name))
}
