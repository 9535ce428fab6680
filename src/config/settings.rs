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
    /// livenessprobe's place.
    Sidecar,
    /// One look at one socket.
    Probe,
    /// `nomad plugin status`, from any gateway.
    Status,
    /// Until a plugin is healthy.
    Wait,
    /// What is wrong with sockets, and the remedy.
    Doctor,
    /// What happened.
    History,
    /// Removal of what is dead.
    Forget,
    /// How our own service is.
    Healthcheck,
    /// Tokens and policies.
    Acl,
    /// Scripted drivers, or a made fleet.
    Demo,
    /// What `serve` would run with.
    Config,
    /// What a shell may complete.
    Completion,
    /// The version.
    Version,
}

impl Command {
    /// Every command, in the order of the help.
    pub const ALL: [Self; 14] = [
        Self::Serve,
        Self::Sidecar,
        Self::Probe,
        Self::Status,
        Self::Wait,
        Self::Doctor,
        Self::History,
        Self::Forget,
        Self::Healthcheck,
        Self::Acl,
        Self::Demo,
        Self::Config,
        Self::Completion,
        Self::Version,
    ];

    /// As it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Sidecar => "sidecar",
            Self::Probe => "probe",
            Self::Status => "status",
            Self::Wait => "wait",
            Self::Doctor => "doctor",
            Self::History => "history",
            Self::Forget => "forget",
            Self::Healthcheck => "healthcheck",
            Self::Acl => "acl",
            Self::Demo => "demo",
            Self::Config => "config",
            Self::Completion => "completion",
            Self::Version => "version",
        }
    }

    /// One line of help.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Serve => "Watch CSI drivers and serve what is known of them",
            Self::Sidecar => {
                "Take livenessprobe's place beside a driver, with its flags; meant wherever the first argument is a flag"
            }
            Self::Probe => "Ask one driver once; exit code 0 if it is ready, 4 if not (usable as an exec probe)",
            Self::Status => "Show plugins from a gateway or a Nomad server, as `nomad plugin status` does",
            Self::Wait => "Wait until a plugin is healthy; exit code 3 if it is not in time, with who lags and why",
            Self::Doctor => {
                "Say how each layer of a driver's socket answers, what is wrong, and the remedy; exit code 4 if anything is"
            }
            Self::History => "Show what happened to plugins, the newest last",
            Self::Forget => "Have a gateway forget the instances of a plugin that are dead",
            Self::Healthcheck => "Ask the gateway of this machine how it is; exit code 0 if it lives, 4 if not",
            Self::Acl => "Make, list and revoke tokens in a file; check policies",
            Self::Demo => {
                "Try it: scripted drivers on real sockets, or a made fleet, and the gateway on a scratch store"
            }
            Self::Config => {
                "Check what `serve` would run with (flags, variables, file), or show every value with its origin"
            }
            Self::Completion => "Print a script that has a shell complete commands, flags and plugin ids",
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
            Self::Wait | Self::Forget => Some(("PLUGIN", "A plugin's whole id")),
            Self::History => Some(("PLUGIN", "A plugin's whole id; default: all")),
            Self::Config => Some(("ACTION", "check or show")),
            Self::Completion => Some(("SHELL", "bash, zsh or fish")),
            Self::Acl => Some(("ACTION", "token create, token list, token revoke ACCESSOR, or policy check FILE…")),
            Self::Serve | Self::Sidecar | Self::Healthcheck | Self::Demo | Self::Version => None,
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
    /// The variable that sets it, where its name is not the flag's.
    variable: Option<&'static str>,
}

impl Setting {
    /// The variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        self.variable.map_or_else(
            || format!("CSI_GATEWAY_{}", self.name.replace('-', "_").to_ascii_uppercase()),
            ToOwned::to_owned,
        )
    }

    /// The key that sets it in a configuration file.
    #[must_use]
    pub fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// Whether that is its key.
    #[must_use]
    pub fn has_key(&self, key: &str) -> bool {
        key.len() == self.name.len()
            && self.name.bytes().zip(key.bytes()).all(|(n, k)| k == if n == b'-' { b'_' } else { n })
    }

    /// Another variable than the flag's name makes.
    const fn by(self, variable: &'static str) -> Self {
        Self { variable: Some(variable), ..self }
    }
}

const fn one(
    name: &'static str,
    value: &'static str,
    default: Option<&'static str>,
    commands: &'static [Command],
    help: &'static str,
) -> Setting {
    Setting { name, value: Some(value), is_repeatable: false, default, help, commands, variable: None }
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
    Setting { name, value: None, is_repeatable: false, default: None, help, commands, variable: None }
}

use Command::{Acl, Completion, Demo, Doctor, Forget, Healthcheck, History, Probe, Serve, Sidecar, Status, Wait};

/// Where it serves unless it is told otherwise: Nomad's port is 4646, and this one is free.
pub const HTTP_ENDPOINT: &str = "127.0.0.1:4649";

/// Everything that can be set. No name begins with `service-` or `port`: beside a Kubernetes Service named
/// `csi-gateway` every container has variables like `CSI_GATEWAY_SERVICE_HOST` and `CSI_GATEWAY_PORT`.
pub const SETTINGS: &[Setting] = &[
    one(
        "config",
        "FILE",
        None,
        &[Serve, Doctor, Healthcheck],
        "Configuration file, HCL or JSON: its keys are the flags' names with underscores; variables and flags win over it",
    ),
    many(
        "csi-address",
        "SOCKET",
        None,
        &[Serve, Probe, Doctor],
        "Socket of a CSI driver, unix:///csi/csi.sock; may be repeated with `serve`, which takes CSI_ENDPOINT and searches the usual places where no source is given",
    ),
    many(
        "csi-address",
        "SOCKET",
        Some("/run/csi/socket"),
        &[Sidecar],
        "Socket of the driver; may be repeated, and then all have to be ready",
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
    one(
        "nomad-addr",
        "URL",
        None,
        &[Serve],
        "A Nomad server or client to ask who runs the drivers in --nomad-state-dir: http://HOST:PORT, https://HOST:PORT or unix:///PATH; over TLS with NOMAD_CACERT and its kin",
    ),
    one(
        "nomad-token-file",
        "FILE",
        None,
        &[Serve],
        "File with the token for --nomad-addr, read before each question; default: NOMAD_TOKEN, or the task's own identity",
    ),
    one("poll-interval", "DURATION", Some("30s"), &[Serve], "From one look at a driver to the next"),
    one("probe-timeout", "DURATION", Some("3s"), &[Serve, Probe, Doctor], "Limit of a Probe call"),
    one(
        "probe-timeout",
        "DURATION",
        Some("3s"),
        &[Sidecar],
        "How long an answer may take, connecting to the driver included",
    ),
    one(
        "healthz-max-age",
        "DURATION",
        Some("1s"),
        &[Sidecar],
        "How long ago a probe may have begun that answers /healthz; 0: not before it was asked for",
    ),
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
        &[Serve, Healthcheck, Demo],
        "Where to serve: HOST:PORT (port 0 picks one) or unix:///PATH; may be repeated",
    ),
    many(
        "http-endpoint",
        "ADDRESS",
        None,
        &[Sidecar],
        "Where to serve /healthz and metrics: HOST:PORT, :PORT or unix:///PATH; default: /healthz at --health-port, no metrics",
    ),
    one(
        "health-port",
        "PORT",
        Some("9808"),
        &[Sidecar],
        "Port of /healthz on all addresses (deprecated: --http-endpoint)",
    ),
    one(
        "metrics-address",
        "ADDRESS",
        None,
        &[Sidecar],
        "Where to serve metrics and nothing else (deprecated: --http-endpoint)",
    ),
    one("metrics-path", "PATH", Some("/metrics"), &[Sidecar], "Path of metrics"),
    one(
        "tls-cert-file",
        "FILE",
        None,
        &[Serve, Healthcheck],
        "PEM file of the certificate to show, and those between it and its authority: over TCP only TLS is spoken then. Files of TLS are read anew when they change",
    ),
    one("tls-key-file", "FILE", None, &[Serve, Healthcheck], "PEM file of its private key"),
    one(
        "tls-client-ca-file",
        "FILE",
        None,
        &[Serve],
        "PEM file of the authorities that may have signed clients' certificates",
    ),
    one(
        "tls-client-auth",
        "WHO",
        None,
        &[Serve],
        "Whether clients have to show a certificate: none, optional or required; default: required with --tls-client-ca-file, else none",
    ),
    one(
        "socket-mode",
        "MODE",
        None,
        &[Serve, Sidecar, Demo],
        "Who may connect to unix sockets of --http-endpoint, in octal: 0660; default: as the umask says",
    ),
    one(
        "socket-owner",
        "USER:GROUP",
        None,
        &[Serve, Sidecar, Demo],
        "Whose those sockets are, names or numbers: USER, USER:GROUP or :GROUP; default: whoever runs this",
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
    one(
        "role",
        "ROLE",
        None,
        &[Serve],
        "Part in a fleet, with --etcd-servers: agent (this host, told to etcd, too) or aggregator (the whole fleet, from etcd)",
    ),
    many(
        "etcd-servers",
        "URL",
        None,
        &[Serve],
        "Members of the fleet's etcd: https://HOST:PORT or http://HOST:PORT, several with commas; may be repeated",
    ),
    one(
        "etcd-prefix",
        "PREFIX",
        Some("/csi-gateway/v1/"),
        &[Serve],
        "What the keys of this fleet begin with; two fleets in one etcd have two prefixes",
    ),
    one(
        "etcd-cafile",
        "FILE",
        None,
        &[Serve],
        "PEM file of the authorities that may have signed etcd's certificates; default: those that the system trusts",
    ),
    one("etcd-certfile", "FILE", None, &[Serve], "PEM file of the certificate to show to etcd"),
    one("etcd-keyfile", "FILE", None, &[Serve], "PEM file of its private key"),
    one("etcd-username", "NAME", None, &[Serve], "User of etcd to act as"),
    one("etcd-password-file", "FILE", None, &[Serve], "File that holds that user's password; read at each login"),
    one(
        "host-ttl",
        "DURATION",
        Some("30s"),
        &[Serve],
        "How long an agent may be silent before its host counts as lost; whole seconds",
    ),
    many(
        "allowed-hosts",
        "NAME",
        None,
        &[Serve],
        "Host headers that `forget` is taken from; default: names and addresses listened on, localhost",
    ),
    switch(
        "acl-enabled",
        &[Serve],
        "Ask for tokens: whoever has none may do what the policy `anonymous` says, or nothing",
    ),
    one(
        "acl-policy-dir",
        "DIR",
        None,
        &[Serve, Acl],
        "Directory of policies as Nomad's, NAME.hcl or NAME.json; read anew when one changes",
    ),
    one(
        "acl-tokens-file",
        "FILE",
        None,
        &[Serve, Acl],
        "File of tokens, which `acl token create` writes and which holds no secret; read anew when it changes",
    ),
    one(
        "acl-jwks",
        "SOURCE",
        None,
        &[Serve],
        "Keys of Nomad's workload identities: a file, or an address (http, https), http://NOMAD:4646/.well-known/jwks.json, asked again and again",
    ),
    many(
        "acl-jwt-audience",
        "NAME",
        Some("nomadproject.io"),
        &[Serve],
        "Whom identities have to be for (`aud`); may be repeated; default: that of Nomad's default identity",
    ),
    one(
        "acl-metrics",
        "RIGHT",
        Some("agent-read"),
        &[Serve],
        "What /metrics needs with --acl-enabled: agent-read (a token that may read the agent, as in Nomad) or open",
    ),
    many("policy", "NAME", None, &[Acl], "Policy of the new token; may be repeated").by("CSI_GATEWAY_TOKEN_POLICY"),
    switch("management", &[Acl], "The new token may do everything").by("CSI_GATEWAY_TOKEN_MANAGEMENT"),
    one("name", "TEXT", None, &[Acl], "What the new token is called, for people").by("CSI_GATEWAY_TOKEN_NAME"),
    one("ttl", "DURATION", None, &[Acl], "How long the new token lives; default: until it is revoked")
        .by("CSI_GATEWAY_TOKEN_TTL"),
    one("history", "COUNT", Some("32"), &[Serve], "Transitions kept of each instance"),
    one(
        "address",
        "URL",
        Some("http://127.0.0.1:4649"),
        CLIENTS,
        "The gateway (or, for `status`, the Nomad server) to ask: http://HOST:PORT, https://HOST:PORT or unix:///PATH",
    )
    // `CSI_GATEWAY_ADDRESS` would be read as where the gateway listens; Nomad's pair is `-address`, `NOMAD_ADDR`.
    .by("CSI_GATEWAY_ADDR"),
    one(
        "token-file",
        "FILE",
        None,
        CLIENTS,
        "File that holds the token to ask with; default: the token in NOMAD_TOKEN, or none",
    ),
    one(
        "ca-cert",
        "FILE",
        None,
        ASKING,
        "PEM file of the authorities that may have signed the server's certificate; default: NOMAD_CACERT, or those that the system trusts",
    )
    .by("CSI_GATEWAY_CACERT"),
    one("ca-path", "DIR", None, ASKING, "Directory of such files; default: NOMAD_CAPATH").by("CSI_GATEWAY_CAPATH"),
    one(
        "client-cert",
        "FILE",
        None,
        ASKING,
        "PEM file of the certificate to show to a server that asks for one; default: NOMAD_CLIENT_CERT",
    ),
    one("client-key", "FILE", None, ASKING, "PEM file of that certificate's private key; default: NOMAD_CLIENT_KEY"),
    one(
        "tls-server-name",
        "NAME",
        None,
        ASKING,
        "Name that the server's certificate has to be for; default: NOMAD_TLS_SERVER_NAME, or the one in the address",
    ),
    switch(
        "tls-skip-verify",
        ASKING,
        "Take any certificate, so that anybody on the way can pose as the server; default: NOMAD_SKIP_VERIFY",
    ),
    switch("watch", &[Status], "Go on, and show each change"),
    switch("verbose", &[Status], "Show capabilities, topologies, whole ids and times"),
    switch("check", &[Status], "Exit with 4 if a plugin (or the one that is asked about) is not all healthy"),
    one(
        "nodes",
        "N",
        None,
        &[Wait],
        "Nodes that have to be healthy: a number or all; default: all there are, even none",
    ),
    one(
        "controllers",
        "N",
        None,
        &[Wait],
        "Controllers that have to be healthy: a number or all; default: all there are, even none",
    ),
    switch("registered", &[Wait], "A node counts only once a kubelet knows it"),
    one("timeout", "DURATION", Some("5m"), &[Wait], "How long to wait").by("CSI_GATEWAY_WAIT_TIMEOUT"),
    one("limit", "COUNT", Some("100"), &[History], "How many of the newest transitions are shown"),
    switch(
        "ready",
        &[Healthcheck],
        "Ask whether every driver was looked at, too, and not only whether the service lives",
    ),
    one("timeout", "DURATION", Some("3s"), &[Healthcheck], "How long to wait for the answer")
        .by("CSI_GATEWAY_HEALTHCHECK_TIMEOUT"),
    one(
        "line",
        "TEXT",
        None,
        &[Completion],
        "Print what may stand at the end of this line instead; the scripts use it",
    ),
    one("host", "ID", None, &[Forget], "Only the instances of this host"),
    one("hosts", "COUNT", None, &[Demo], "A made fleet of so many hosts instead of scripted drivers"),
    one("plugins", "COUNT", None, &[Demo], "Plugins of the made fleet, each on every host"),
    one("flap", "DURATION", None, &[Demo], "How often one instance of the made plugin demo-0000 changes its health"),
    one("driver-only", "SOCKET", None, &[Demo], "Only a scripted driver on this socket, for tools that test drivers"),
    switch("json", &[Probe, Status, Doctor, History, Acl], "Print JSON"),
    one(
        "v",
        "LEVEL",
        Some("2"),
        &[Serve, Sidecar, Demo],
        "How much is logged: 0 to 3 changes only, 4 every look, 5 everything",
    ),
    one("logging-format", "FORMAT", Some("text"), &[Serve, Sidecar, Demo], "text or json"),
];

/// Commands that may ask over TLS.
const ASKING: &[Command] = &[Status, Wait, History, Forget, Healthcheck, Completion];

/// Commands that ask an API.
const CLIENTS: &[Command] = &[Status, Wait, History, Forget, Completion];

/// The settings of a command, in the order of the table. `config` has those of `serve`.
pub fn of(command: Command) -> impl Iterator<Item = &'static Setting> {
    let command = if command == Command::Config { Serve } else { command };
    SETTINGS.iter().filter(move |setting| setting.commands.contains(&command))
}

/// What a configuration file can set: everything of `serve`, but not where the file is.
pub fn keys() -> impl Iterator<Item = &'static Setting> {
    of(Serve).filter(|setting| setting.name != "config")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_variable_is_one_that_kubernetes_sets_and_each_command_has_a_name_once() {
        for setting in SETTINGS {
            let name = setting.name;
            assert!(!name.starts_with("port") && !name.starts_with("service"), "{name}");
            assert!(setting.has_key(&setting.key()) && !setting.commands.is_empty(), "{name}");
        }
        for command in Command::ALL {
            let names: Vec<&str> = of(command).map(|setting| setting.name).collect();
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{command}: {names:?}");
        }
    }
}
