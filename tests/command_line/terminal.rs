//! What people see: tables as Nomad prints them, a live line on a terminal, plain lines in a pipe, names of every
//! script, and nothing that a name could do to a screen.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::mpsc;
use unicode_width::UnicodeWidthStr;

use crate::peer::{Peer, named, stub};
use crate::support::process::{PATIENCE, gateway, run};

/// Widths of a narrow, a usual and a wide screen.
const WIDTHS: [u16; 3] = [60, 80, 200];

fn golden(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// A terminal of 24 rows.
struct Terminal {
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl Terminal {
    fn new(columns: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&ours).expect("it is ours");
        unlockpt(&ours).expect("it is ours");
        let name = ptsname(&ours, Vec::new()).expect("it has a name");
        let theirs = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other end");
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&theirs, size).expect("any size is allowed");
        Self { ours, theirs }
    }

    /// Everything that a command writes to it until it ends, or until `is_enough`.
    async fn of(self, mut command: Command, is_enough: impl Fn(&str) -> bool) -> String {
        let theirs = || Stdio::from(self.theirs.try_clone().expect("a descriptor"));
        command.env("TERM", "xterm").env_remove("NO_COLOR").stdout(theirs()).stderr(theirs());
        self.shown(command, is_enough).await
    }

    async fn shown(self, mut command: Command, is_enough: impl Fn(&str) -> bool) -> String {
        let Self { ours, theirs } = self;
        let mut child = command.spawn().expect("the binary starts");
        drop(command);
        drop(theirs);
        let (sender, mut pieces) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let mut ours = File::from(ours);
            let mut buffer = [0; 4096];
            // Reading fails once nobody holds the other end.
            while let Ok(read @ 1..) = ours.read(&mut buffer) {
                if sender.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut bytes = Vec::new();
        let reading = async {
            while let Some(piece) = pieces.recv().await {
                bytes.extend(piece);
                if is_enough(&String::from_utf8_lossy(&bytes)) {
                    return;
                }
            }
        };
        let is_over = tokio::time::timeout(PATIENCE, reading).await.is_ok();
        let text = String::from_utf8(bytes).expect("text");
        assert!(is_over, "nothing more came after: {text:?}");
        let _ = child.kill().await;
        // The terminal makes it so; that is not what is looked at.
        text.replace("\r\n", "\n")
    }
}

fn never(_: &str) -> bool {
    false
}

/// Escapes spelt out, and moments and ages of the run taken out.
fn spelt(text: &str) -> String {
    without_moments(&text.replace('\u{1b}', "␛").replace('\r', "␍"))
}

/// `2026-01-02T03:04:05Z` is always as long.
fn without_moments(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let shape = "dddd-dd-ddTdd:dd:ddZ";
    let is_moment = |at: usize| {
        characters.len() >= at + shape.len()
            && shape.chars().zip(&characters[at..]).all(|(s, c)| if s == 'd' { c.is_ascii_digit() } else { s == *c })
    };
    let (mut out, mut at) = (String::new(), 0);
    while at < characters.len() {
        if is_moment(at) {
            out.push_str("YYYY-MM-DDThh:mm:ssZ");
            at += shape.len();
        } else {
            out.push(characters[at]);
            at += 1;
        }
    }
    out
}

fn status(peer: &Peer, more: &[&str]) -> Command {
    let mut command = gateway();
    command.env_remove("NOMAD_TOKEN").args(["status", "--address", &peer.address]).args(more);
    command
}

fn seconds_ago(seconds: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from((now - Duration::from_secs(seconds)).as_nanos()).expect("before 2500")
}

/// A plugin as a Nomad server reads it: a monolith on one client, whose driver knows its topology.
fn of_nomad() -> Value {
    let mut plugin = stub("host0", "host.csi.example.com", (1, 1), (1, 2));
    let client = "2d2164c4-4e58-1d4f-043d-b9a44ed834f5";
    let instance = json!({
        "AllocID": "16b3820f-e972-2cf4-5880-83453c214f7f", "Healthy": true, "HealthDescription": "healthy",
        "PluginID": "host0", "Provider": "host.csi.example.com", "ProviderVersion": "v1.17.0",
        "RequiresControllerPlugin": true, "RequiresTopologies": true, "UpdateTime": "2026-11-23T17:46:17Z",
    });
    let mut controller = instance.clone();
    controller["ControllerInfo"] = json!({
        "SupportsAttachDetach": false, "SupportsClone": true, "SupportsCreateDelete": true, "SupportsGetCapacity": true,
        "SupportsListVolumes": false,
    });
    let mut node = instance;
    node["NodeInfo"] = json!({
        "AccessibleTopology": {"Segments": {"topology.example.com/node": "n1"}}, "ID": "n1",
        "MaxVolumes": 9_223_372_036_854_775_807_u64, "RequiresNodeStageVolume": true, "SupportsCondition": false,
        "SupportsExpand": true, "SupportsStats": false,
    });
    plugin["Version"] = "v1.17.0".into();
    plugin["Controllers"] = json!({ client: controller });
    plugin["Nodes"] = json!({ client: node });
    // Between one hour boundary and the next, so that the ages are those whenever this runs.
    plugin["Allocations"] = json!([{
        "ID": "16b3820f-e972-2cf4-5880-83453c214f7f", "EvalID": "0662efc3-2c04-c685-cb4e-76d1bb9f3619", "NodeID": client,
        "NodeName": "vm", "TaskGroup": "csi", "JobVersion": 3, "DesiredStatus": "run", "ClientStatus": "running",
        "CreateTime": seconds_ago(26 * 3600 + 1800), "ModifyTime": seconds_ago(49 * 3600 + 1800),
    }]);
    plugin
}

#[tokio::test]
async fn status_prints_what_nomad_prints_of_a_nomad_server() {
    let peer = Peer::serve([
        (
            "/v1/plugins",
            json!([stub("host0", "host.csi.example.com", (1, 1), (1, 2)), stub("new", "", (0, 0), (0, 1))]),
        ),
        ("/v1/plugin/csi/host0", of_nomad()),
    ])
    .await;
    let mut text = String::new();
    for (arguments, expected) in
        [(&[][..], 0), (&["host0"], 0), (&["-verbose", "host0"], 0), (&["-check", "host0"], 4), (&["-check"], 4)]
    {
        let (code, out, err) = run(status(&peer, arguments)).await;
        assert_eq!((code, err.as_str()), (Some(expected), ""), "{arguments:?}");
        text.push_str(&format!("$ csi-gateway status {}\n{out}\n", arguments.join(" ")));
    }
    golden("status_nomad", &without_moments(&text));
    let (code, out, _) = run(status(&peer, &["-json", "host0"])).await;
    let shown: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &shown["Allocations"][0]["NodeName"]), (Some(0), &"vm".into()));
}

#[tokio::test]
async fn a_token_comes_from_a_file_or_from_nomads_variable_and_from_nowhere_else() {
    let peer = Peer::serve([("/v1/plugins", json!([]))]).await;
    let folder = tempfile::tempdir().expect("a scratch folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "of-the-file\n").expect("a file");
    let mut of_file = status(&peer, &["--token-file"]);
    of_file.arg(&file).env("NOMAD_TOKEN", "of-the-variable");
    let mut of_variable = status(&peer, &[]);
    of_variable.env("NOMAD_TOKEN", "of-the-variable");
    for command in [of_file, of_variable, status(&peer, &[])] {
        let (code, out, err) = run(command).await;
        assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "Container Storage Interface\n", "No CSI plugins\n"));
    }
    let tokens: Vec<Option<String>> = peer
        .asked("/v1/plugins")
        .iter()
        .map(|headers| headers.get("X-Nomad-Token").and_then(|token| token.to_str().ok()).map(str::to_owned))
        .collect();
    assert_eq!(tokens, [Some("of-the-file".to_owned()), Some("of-the-variable".to_owned()), None]);
}

#[tokio::test]
async fn a_table_holds_names_of_every_script_on_every_screen_and_in_a_pipe() {
    let peer = Peer::serve([("/v1/plugins", named())]).await;
    let (_, pipe, _) = run(status(&peer, &[])).await;
    golden("status_names", &pipe);
    for line in pipe.lines() {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    let starts: Vec<usize> =
        pipe.lines().filter_map(|line| line.find("0/1").map(|place| line[..place].width())).collect();
    assert_eq!(starts, [starts[0]; 10], "a column that is none:\n{pipe}");
    // A table is never cut: it is what people copy from.
    for columns in WIDTHS {
        let shown = Terminal::new(columns).of(status(&peer, &[]), never).await;
        assert_eq!(
            shown,
            pipe.replacen("Container Storage Interface", "\u{1b}[1mContainer Storage Interface\u{1b}[0m", 1)
        );
    }
}

#[tokio::test]
async fn without_colour_a_terminal_gets_what_a_pipe_gets() {
    let peer = Peer::serve([("/v1/plugins", named())]).await;
    let (_, pipe, _) = run(status(&peer, &[])).await;
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let terminal = Terminal::new(80);
        let theirs = || Stdio::from(terminal.theirs.try_clone().expect("a descriptor"));
        let mut command = status(&peer, &[]);
        command.env("TERM", "xterm").env(name, value).stdout(theirs()).stderr(theirs());
        assert_eq!(terminal.shown(command, never).await, pipe, "{name}={value}");
    }
}

#[tokio::test]
async fn a_watched_list_is_a_page_on_a_terminal_and_lines_in_a_pipe() {
    let peer = Peer::serve([("/v1/plugins", named())]).await;
    for columns in WIDTHS {
        let page = Terminal::new(columns).of(status(&peer, &["--watch"]), |text| text.ends_with("\u{1b}[J")).await;
        for line in page.lines() {
            let line = line.replace("\u{1b}[2J", "").replace("\u{1b}[H", "").replace("\u{1b}[K", "");
            let line = line.replace("\u{1b}[J", "");
            assert!(line.contains("2/3") || !line.contains("0/1"), "{columns}: a number is cut: {line:?}");
            assert!(line.width() <= columns.into() && !line.contains('\u{1b}'), "{columns}: {line:?}");
        }
        golden(&format!("watch_{columns}"), &spelt(&page));
    }
    let mut child = status(&peer, &["--watch"]).stdout(Stdio::piped()).spawn().expect("the binary starts");
    let mut out = child.stdout.take().expect("it is piped");
    let mut bytes = Vec::new();
    while bytes.iter().filter(|byte| **byte == b'\n').count() < 10 {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, tokio::io::AsyncReadExt::read(&mut out, &mut buffer)).await;
        let read = read.expect("it goes on").expect("readable");
        assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&bytes));
        bytes.extend(&buffer[..read]);
    }
    golden("watch_pipe", &spelt(&String::from_utf8_lossy(&bytes)));
}

/// A plugin as a gateway tells it: one node well, one not.
fn of_gateway() -> Value {
    let instance = |healthy: bool, phase: &str, text: &str| {
        json!({
            "Healthy": healthy, "Phase": phase, "Registration": null, "Since": "2026-01-02T03:04:05Z",
            "Reason": {"Code": null, "Description": text, "Text": ""},
        })
    };
    json!({
        "Controllers": {}, "ControllersExpected": 0, "NodesExpected": 2,
        "Nodes": {
            "host-aaaa": instance(true, "healthy", "healthy"),
            "主机-bbbb": instance(false, "unhealthy", "backend\u{1b}[2J down: 存储后端没有应答, and it goes on and on and on"),
        },
    })
}

#[tokio::test]
async fn who_waits_sees_one_live_line_on_a_terminal_and_a_line_per_change_in_a_pipe() {
    let peer = Peer::serve([("/v1/gateway/plugin/e%CC%81bs", of_gateway())]).await;
    let wait = |timeout: &str| {
        let mut command = gateway();
        command.args(["wait", "e\u{301}bs", timeout, "--address", &peer.address]);
        command
    };
    for columns in WIDTHS {
        let is_enough = |text: &str| text.contains("nodes 1/2") && text.ends_with("\u{1b}[K");
        let shown = Terminal::new(columns).of(wait("--timeout=10m"), is_enough).await;
        let lines: Vec<&str> = shown.split('\r').skip(1).collect();
        for line in &lines {
            let line = line.strip_suffix("\u{1b}[K").expect("what was there is gone");
            assert!(line.width() < columns.into() && !line.contains('\u{1b}'), "{columns}: {line:?}");
        }
        // How long it took to get there is not what is looked at, as long as it is seconds.
        let (since, line) = lines.last().and_then(|line| line.split_once(" s  ")).expect("a live line");
        assert!(since.len() == 1, "{since:?}");
        golden(&format!("wait_{columns}"), &spelt(line));
    }
    let shown = Terminal::new(80).of(wait("--timeout=3s"), never).await;
    let (_, last) = shown.rsplit_once("\r\u{1b}[K").expect("the live line is taken away");
    let (code, out, err) = run(wait("--timeout=3s")).await;
    assert_eq!((code, out.as_str()), (Some(3), ""));
    assert!(err.ends_with(last) && last.starts_with("error: "), "{last}");
    golden("wait_pipe", &spelt(&err));
}
