//! A Nomad agent, server and client in one, and what it starts.
//!
//! It lives in a process namespace and a mount namespace of its own, so that its executors, log collectors, drivers and
//! mounts end with it whatever becomes of the test. Network and files are this machine's: a gateway stands beside it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::parts::{Part, skipped};
use super::support::client::{Wire, within};
use super::support::daemon::{Process, missing_program, with_the_test};
use super::support::process::until;

/// Programs that every Debian has.
const TOOLS: [&str; 4] = ["mount", "setpriv", "umount", "unshare"];
/// Keeps the namespace and adopts what loses its parent. Starts the agent again whenever it ends. Where no cgroups are to be
/// seen, Nomad makes none, so that none stay behind.
const SCRIPT: &str = "umount --recursive /sys/fs/cgroup || true
                      while true; do \"$0\" agent -config=\"$1\"; done";
/// What looks for a cloud asks the network; the others find nothing here.
const NO_FINGERPRINTS: &str = "env_aws,env_gce,env_azure,env_digitalocean,consul,vault,cni,bridge";

/// The command line's binary, and the folder of real drivers.
pub(super) struct Programs {
    pub(super) nomad: PathBuf,
    pub(super) driver: PathBuf,
}

impl Programs {
    /// `None` where this machine lacks something, which has been said.
    pub(super) fn find() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return skipped("only root can run Nomad's client");
        }
        if let Some(missing) = missing_program(&TOOLS) {
            return skipped(&format!("there is no `{missing}`"));
        }
        Some(Self { nomad: Part::Nomad.find()?, driver: Part::HostpathDriver.find()? })
    }
}

/// A running agent.
pub(super) struct Agent {
    /// Its holder ends the namespace, and so all that is in it.
    holder: Process,
    programs: Programs,
    address: String,
    folder: TempDir,
}

impl Agent {
    /// Starts one and waits until its client is ready. `None` where this machine cannot, which has been said.
    pub(super) async fn start(has_acl: bool) -> Option<Self> {
        let programs = Programs::find()?;
        let folder = tempfile::tempdir().expect("a scratch folder");
        std::fs::create_dir(folder.path().join("tmp")).expect("a folder for its own sockets");
        // All at the same time, so that they differ.
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [http, rpc, serf] = listeners.map(|listener| listener.local_addr().expect("it is bound").port());
        let configuration = configuration(&folder.path().join("data"), [http, rpc, serf], has_acl);
        let path = folder.path().join("agent.json");
        std::fs::write(&path, configuration.to_string()).expect("a file in the scratch folder");
        let mut command = with_the_test("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-uc", SCRIPT]);
        command.arg(&programs.nomad).arg(&path);
        command.env("TMPDIR", folder.path().join("tmp"));
        for name in ["NOMAD_ADDR", "NOMAD_TOKEN", "NOMAD_NAMESPACE", "NOMAD_REGION"] {
            command.env_remove(name);
        }
        let holder = Process::start(command, folder.path().join("agent.log"));
        let mut agent = Self { holder, programs, address: format!("127.0.0.1:{http}"), folder };
        agent.until_it_is_up(0).await;
        Some(agent)
    }

    /// Waits until it has said once more than `before` that its client is registered.
    async fn until_it_is_up(&mut self, before: usize) {
        until("Nomad's client is registered", async || {
            let is_up = self.registrations() > before;
            if is_up || self.holder.has_ended() { Ok(()) } else { Err(self.end_of_log()) }
        })
        .await;
        assert!(!self.holder.has_ended(), "it ended: {}", self.end_of_log());
    }

    fn registrations(&self) -> usize {
        self.holder.logged("node registration complete")
    }

    fn end_of_log(&self) -> String {
        let log = self.holder.log();
        let lines: Vec<&str> = log.lines().rev().take(8).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Where it listens: `HOST:PORT`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// A folder beside its own, for whatever a test keeps.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of its client.
    pub(super) fn client(&self) -> PathBuf {
        self.folder.path().join("data/client")
    }

    /// The folder of the driver's binary.
    pub(super) fn driver(&self) -> &Path {
        &self.programs.driver
    }

    /// Kills the agent as a power cut does, though its tasks go on, and waits for the next one.
    pub(super) async fn restart(&mut self) {
        let before = self.registrations();
        kill_process(self.find(&self.programs.nomad, "agent.json"), Signal::KILL).expect("it is ours");
        self.until_it_is_up(before).await;
    }

    /// Sends a signal to the driver of an allocation.
    pub(super) fn signal_driver(&self, alloc: &str, signal: Signal) {
        kill_process(self.find(&self.programs.driver, alloc), signal).expect("it is ours");
    }

    /// The process in the namespace that runs a program with an argument that contains `part`.
    fn find(&self, program: &Path, part: &str) -> Pid {
        let found = self.processes().into_iter().find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let mut arguments = line.split('\0');
            arguments.next().is_some_and(|first| Path::new(first) == program)
                && arguments.any(|argument| argument.contains(part))
        });
        let found = found.and_then(Pid::from_raw);
        found.unwrap_or_else(|| panic!("no `{}` of {part} is running; {}", program.display(), self.end_of_log()))
    }

    /// All processes of the namespace.
    fn processes(&self) -> Vec<i32> {
        let Ok(own) = std::fs::read_link(format!("/proc/{}/ns/pid_for_children", self.holder.id())) else {
            return Vec::new();
        };
        let entries = std::fs::read_dir("/proc").expect("there are processes").flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(|pid: &i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|its| its == own)).collect()
    }

    /// Asks it, with a token or, if that is empty, without.
    pub(super) async fn ask(&self, method: &str, target: &str, token: &str, body: &Value) -> Wire {
        ask(&self.address, method, target, token, &body.to_string()).await
    }

    /// Has it do something, which it must accept.
    pub(super) async fn order(&self, method: &str, target: &str, token: &str, body: &Value) -> Value {
        let answer = self.ask(method, target, token, body).await;
        assert_eq!(answer.status, 200, "{method} {target}: {}", answer.plain());
        serde_json::from_str(&answer.plain()).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // When the first process of a namespace is killed, its end is that of all the others.
        let first = self.processes().into_iter().find(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
        });
        if let Some(first) = first.and_then(Pid::from_raw) {
            // Fails only if it is gone.
            let _ = kill_process(first, Signal::KILL);
            self.holder.wait();
        }
    }
}

fn configuration(data: &Path, [http, rpc, serf]: [u16; 3], has_acl: bool) -> Value {
    let (here, off) = ("127.0.0.1", false);
    json!({
        "name": "here", "data_dir": data, "bind_addr": here, "log_level": "INFO",
        "advertise": {"http": here, "rpc": here, "serf": here}, "ports": {"http": http, "rpc": rpc, "serf": serf},
        "disable_update_check": true, "disable_anonymous_signature": true, "leave_on_interrupt": false,
        "server": {"enabled": true, "bootstrap_expect": 1, "raft_multiplier": 1},
        "client": {
            "enabled": true, "cpu_total_compute": 4000, "options": {"fingerprint.denylist": NO_FINGERPRINTS}
        },
        "consul": {"auto_advertise": off, "server_auto_join": off, "client_auto_join": off},
        "plugin": [{"raw_exec": [{"config": [{"enabled": true}]}]}],
        "acl": {"enabled": has_acl}
    })
}

/// One request of its own connection.
pub(super) async fn ask(address: &str, method: &str, target: &str, token: &str, body: &str) -> Wire {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let token = if token.is_empty() { String::new() } else { format!("X-Nomad-Token: {token}\r\n") };
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let request =
        format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{token}{length}\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.expect("it answers and closes");
    Wire::parse(&answer)
}
