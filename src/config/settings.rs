//! The table of everything that can be set.
//!
//! One line per setting: its flag is `--NAME`, its variable `CSI_GATEWAY_NAME` in capitals with underscores. Spellings
//! are those of the CSI sidecars where they have one.

use std::fmt;

/// The commands that settings belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// The service.
    Serve,
    /// One look at one socket.
    Probe,
    /// `nomad plugin status`, from any gateway.
    Status,
    /// What is wrong with sockets, and the remedy.
    Doctor,
    /// Removal of what is dead.
    Forget,
    /// Scripted drivers, or a made fleet.
    Demo,
    /// The version.
    Version,
}

impl Command {
    /// Every command, in the order of the help.
    pub const ALL: [Self; 7] =
        [Self::Serve, Self::Probe, Self::Status, Self::Doctor, Self::Forget, Self::Demo, Self::Version];

    /// As it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Probe => "probe",
            Self::Status => "status",
            Self::Doctor => "doctor",
            Self::Forget => "forget",
            Self::Demo => "demo",
            Self::Version => "version",
        }
    }

    /// One line of help.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Serve => "Watch CSI drivers and serve what is known of them",
            Self::Probe => "Ask one driver once; exit code 0 if it is ready, 4 if not (usable as an exec probe)",
            Self::Status => "Show plugins from a gateway or a Nomad server, as `nomad plugin status` does",
            Self::Doctor => {
                "Say how each layer of a driver's socket answers, what is wrong, and the remedy; exit code 4 if anything is"
            }
            Self::Forget => "Have a gateway forget the instances of a plugin that are dead",
            Self::Demo => {
                "Try it: scripted drivers on real sockets, or a made fleet, and the gateway on a scratch store"
            }
            Self::Version => "Print the version",
        }
    }

    /// What stands behind the flags, and how it is called in the help.
    #[must_use]
    pub fn operand(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Probe => Some(("SOCKET", "The driver's socket: `/csi/csi.sock` or `unix:///csi/csi.sock`")),
            Self::Status => Some(("PLUGIN", "A plugin's id, or the beginning of one")),
            Self::Doctor => Some(("SOCKET", "A driver's socket; default: those that `serve` would watch")),
            Self::Forget => Some(("PLUGIN", "A plugin's whole id")),
            Self::Serve | Self::Demo | Self::Version => None,
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One thing that can be set.
#[derive(Debug)]
pub struct Setting {
    /// The flag's name without dashes.
    pub name: &'static str,
    /// What its value is called in the help; `None`: a switch.
    pub value: Option<&'static str>,
    /// Whether it may be given more than once.
    pub is_repeatable: bool,
    /// What holds when nobody says anything, as it would be written.
    pub default: Option<&'static str>,
    /// One line of help.
    pub help: &'static str,
    /// Where it is allowed.
    pub commands: &'static [Command],
}

impl Setting {
    /// The variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        if self.name == "address" {
            // `CSI_GATEWAY_ADDRESS` would be read as where the gateway listens; Nomad's pair is `-address`, `NOMAD_ADDR`.
            return "CSI_GATEWAY_ADDR".to_owned();
        }
        format!("CSI_GATEWAY_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }
}

const fn one(
    name: &'static str,
    value: &'static str,
    default: Option<&'static str>,
    commands: &'static [Command],
    help: &'static str,
) -> Setting {
    Setting { name, value: Some(value), is_repeatable: false, default, help, commands }
}

const fn many(
    name: &'static str,
    value: &'static str,
    default: Option<&'static str>,
    commands: &'static [Command],
    help: &'static str,
) -> Setting {
    Setting { is_repeatable: true, ..one(name, value, default, commands, help) }
}

const fn switch(name: &'static str, commands: &'static [Command], help: &'static str) -> Setting {
    Setting { name, value: None, is_repeatable: false, default: None, help, commands }
}

use Command::{Demo, Doctor, Forget, Probe, Serve, Status};

/// Where it serves unless it is told otherwise: Nomad's port is 4646, and this one is free.
pub const HTTP_ENDPOINT: &str = "127.0.0.1:4649";

/// Everything that can be set.
pub const SETTINGS: &[Setting] = &[
    many(
        "csi-address",
        "SOCKET",
        None,
        &[Serve, Probe, Doctor],
        "Socket of a CSI driver, unix:///csi/csi.sock; may be repeated with `serve`, which takes CSI_ENDPOINT and searches the usual places where no source is given",
    ),
    many("csi-plugins-dir", "DIR", None, &[Serve, Doctor], "Directory of sockets, DIR/*/csi.sock; may be repeated"),
    one(
        "kubelet-dir",
        "DIR",
        None,
        &[Serve, Doctor],
        "A kubelet's root directory, /var/lib/kubelet: its registrations, plugins and pods' volumes are searched",
    ),
    one(
        "nomad-state-dir",
        "DIR",
        None,
        &[Serve, Doctor],
        "A Nomad client's state directory, /opt/nomad/data/client: its allocations' sockets are searched",
    ),
    one(
        "host-root",
        "DIR",
        None,
        &[Serve, Doctor],
        "Where the host's root is seen, in a container: stands before the usual places and paths that drivers announce",
    ),
    one("plugin-id", "ID", None, &[Serve], "Plugin id of the only address; default: the driver's name"),
    one(
        "plugin-type",
        "TYPE",
        Some("auto"),
        &[Serve, Probe, Doctor],
        "What is expected to answer: controller, node, monolith (both) or auto (whatever does)",
    ),
    one(
        "host-id",
        "ID",
        None,
        &[Serve],
        "This host's id; default: NODE_NAME and its kin, Nomad's client-id, the hostname",
    ),
    one("poll-interval", "DURATION", Some("30s"), &[Serve], "From one look at a driver to the next"),
    one("probe-timeout", "DURATION", Some("3s"), &[Serve, Probe, Doctor], "Limit of a Probe call"),
    one(
        "timeout",
        "DURATION",
        Some("5s"),
        &[Serve, Probe, Doctor],
        "Limit of any other call; NodeGetInfo has three times that",
    ),
    many(
        "http-endpoint",
        "ADDRESS",
        Some(HTTP_ENDPOINT),
        &[Serve, Demo],
        "Where to serve: HOST:PORT (port 0 picks one) or unix:///PATH; may be repeated",
    ),
    one(
        "max-conns-per-client",
        "COUNT",
        Some("100"),
        &[Serve],
        "Connections of one client address, over TCP; 0: as many as it likes",
    ),
    one(
        "state-dir",
        "DIR",
        None,
        &[Serve],
        "Where state is kept; default: $STATE_DIRECTORY, /var/lib/csi-gateway, $XDG_STATE_HOME/csi-gateway, or memory",
    ),
    one(
        "api-read-shape",
        "SHAPE",
        Some("nomad"),
        &[Serve],
        "Shape of a plugin when it is read: nomad (what its servers send) or documented (what its public page shows)",
    ),
    one("region", "NAME", Some("global"), &[Serve], "The region that clients may ask for"),
    one(
        "retire-gone",
        "DURATION",
        Some("1h"),
        &[Serve],
        "How long an instance is kept whose socket is gone, or has nobody listening",
    ),
    one(
        "retire-lost",
        "DURATION",
        Some("24h"),
        &[Serve],
        "How long the instances of a host are kept whose agent is silent (fleets only)",
    ),
    many(
        "allowed-hosts",
        "NAME",
        None,
        &[Serve],
        "Host headers that `forget` is taken from; default: names and addresses listened on, localhost",
    ),
    one("history", "COUNT", Some("32"), &[Serve], "Transitions kept of each instance"),
    one(
        "address",
        "URL",
        Some("http://127.0.0.1:4649"),
        &[Status, Forget],
        "The gateway or Nomad server to ask: http://HOST:PORT or unix:///PATH",
    ),
    one("host", "ID", None, &[Forget], "Only the instances of this host"),
    one("hosts", "COUNT", None, &[Demo], "A made fleet of so many hosts instead of scripted drivers"),
    one("plugins", "COUNT", None, &[Demo], "Plugins of the made fleet, each on every host"),
    one("flap", "DURATION", None, &[Demo], "How often one instance of the made plugin demo-0000 changes its health"),
    one("driver-only", "SOCKET", None, &[Demo], "Only a scripted driver on this socket, for tools that test drivers"),
    switch("json", &[Probe, Doctor], "Print JSON"),
    one("v", "LEVEL", Some("2"), &[Serve, Demo], "How much is logged: 0 to 3 changes only, 4 every look, 5 everything"),
    one("logging-format", "FORMAT", Some("text"), &[Serve, Demo], "text or json"),
];

/// The settings of a command, in the order of the table.
pub fn of(command: Command) -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(move |setting| setting.commands.contains(&command))
}
