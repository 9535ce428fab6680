//! What each command runs with, and every problem in one report.

use std::path::PathBuf;

use super::arguments::Typed;
use super::file::File;
use super::member;
use super::plugins::{MOST_EXPECTED, plugins};
use super::settings::{self, Command};
pub use super::values::{Origin, Problems, Variables};
use super::values::{Values, not_empty, not_negative, number, one_of, positive, shown};
use super::{
    Access, Acl, Asking, Completion, Demo, Doctor, Enough, Fleet, Forget, Healthcheck, History, MemberRole, Nomad,
    Probe, Serve, Shell, Sidecar, Sources, Status, Surface, Tls, Wait,
};
use crate::domain::address;
use crate::domain::id::{HostId, PluginId};
use crate::domain::socket::RoleChoice;
use crate::domain::trust::ClientAuth;

/// Whether a flag, a variable or a key says where drivers are.
fn is_told(values: &Values<'_>) -> bool {
    let names = ["csi-address", "csi-plugins-dir", "kubelet-dir", "nomad-state-dir"];
    names.iter().any(|name| !values.all(name).is_empty())
        || values.plugins().any(|block| block.entries.iter().any(|entry| entry.key == "socket"))
}

/// What drivers and some sidecars read; Nomad sets it in the tasks of its plugins.
fn endpoint(values: &Values<'_>) -> Option<String> {
    (values.variable)(ENDPOINT).filter(|value| !value.is_empty())
}

/// Where drivers are looked for.
fn sources(values: &mut Values<'_>) -> Sources {
    let mut sources = Sources::default();
    let directory = |text: &str| match std::path::absolute(text) {
        Ok(path) if !text.is_empty() => Ok(path),
        _ => Err("is no directory".to_owned()),
    };
    sources.kubelet_directory = values.parse("kubelet-dir", directory);
    sources.nomad_directory = values.parse("nomad-state-dir", directory);
    sources.host_root = values.parse("host-root", directory);
    for (value, origin) in values.all("csi-plugins-dir") {
        match directory(&value) {
            Ok(path) => sources.plugins_directories.push(path),
            Err(what) => values.wrong(&origin, &value, what),
        }
    }
    let given = values.all("csi-address");
    let is_told = is_told(values);
    sources.searches_well_known_places = !is_told;
    for (value, origin) in given {
        match address::parse(&value) {
            Ok(path) if sources.addresses.contains(&path) => {}
            Ok(path) => sources.addresses.push(path),
            Err(error) => values.wrong(&origin, &value, error),
        }
    }
    if let Some(value) = endpoint(values).filter(|_| !is_told) {
        match address::parse(&value) {
            Ok(path) => sources.addresses.push(address::under(sources.host_root.as_deref(), &path)),
            Err(error) => values.wrong(&Origin::Variable(ENDPOINT.to_owned()), &value, error),
        }
    }
    sources
}

/// What `serve` runs with, or what `config` says that it would.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn serve(command: Command, typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Serve, Problems> {
    let mut values = Values::new(command, typed, variable, problems);
    let config = served(&mut values);
    values.finish(config)
}

/// What takes livenessprobe's place. What excludes what, and where metrics are and where not, is as there.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn sidecar(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Sidecar, Problems> {
    let mut values = Values::new(Command::Sidecar, typed, variable, problems);
    let mut addresses = Vec::new();
    for (value, origin) in values.all("csi-address") {
        // Relative, too, as gRPC for Go takes it.
        let parsed = match address::parse(&value) {
            Err(address::BadAddress::Relative) if !value.contains(':') => {
                std::path::absolute(&value).map_err(|_| address::BadAddress::Relative)
            }
            parsed => parsed,
        };
        match parsed {
            Ok(path) if addresses.contains(&path) => {}
            Ok(path) => addresses.push(path),
            Err(error) => values.wrong(&origin, &value, error),
        }
    }
    let port = values.count("health-port", 0, u32::from(u16::MAX)).unwrap_or_default();
    let metrics_path = values.parse("metrics-path", |path| match path {
        "/healthz" => Err("is where health is".to_owned()),
        path if path.starts_with('/') => Ok(path.to_owned()),
        _ => Err("does not begin with a slash".to_owned()),
    });
    let metrics_address = values.address("metrics-address");
    let endpoints = values.endpoints();
    // What says the default is not said, as there.
    let excluded = [("health-port", "9808"), ("metrics-address", "")].map(|(name, default)| {
        let is_said = values.all(name).iter().any(|(value, origin)| *origin != Origin::Default && value != default);
        (name, is_said && !endpoints.is_empty())
    });
    for (name, _) in excluded.iter().filter(|(_, is_excluded)| *is_excluded) {
        let problem = format!("--{name} and --http-endpoint exclude each other; --http-endpoint does for both");
        values.problems.0.push(problem);
    }
    let given = |name: &str| values.all(name).iter().any(|(_, origin)| *origin != Origin::Default);
    let deprecated = ["health-port", "metrics-address"].into_iter().filter(|name| given(name));
    let deprecated = deprecated.chain(typed.idle.iter().copied()).map(|name| format!("--{name}")).collect();
    let surfaces = if endpoints.is_empty() {
        let health = Surface { endpoint: format!(":{port}"), has_health: true, metrics_path: None };
        let metrics = metrics_address.map(|endpoint| Surface { endpoint, has_health: false, metrics_path });
        std::iter::once(health).chain(metrics).collect()
    } else {
        let surface = |endpoint| Surface { endpoint, has_health: true, metrics_path: metrics_path.clone() };
        endpoints.into_iter().map(surface).collect()
    };
    let config = Sidecar {
        addresses,
        probe_timeout: values.duration("probe-timeout"),
        max_age: values.parse("healthz-max-age", not_negative).unwrap_or_default(),
        surfaces,
        socket: values.socket_file(),
        deprecated,
        logging: values.logging(),
    };
    values.finish(config)
}

/// Every value of `serve` with its origin, as a file that says the same.
///
/// # Errors
/// As [`serve`].
pub fn show(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<String, Problems> {
    let mut values = Values::new(Command::Config, typed, variable, problems);
    let config = served(&mut values);
    let all: Vec<_> = settings::keys().map(|setting| (setting, values.all(setting.name))).collect();
    let mut text = super::show::text(&all, &values.file.blocks);
    if let Some(endpoint) = endpoint(&values).filter(|_| !is_told(&values)) {
        text.push_str(&format!("\n# {ENDPOINT} names a socket that is watched, too: {}\n", shown(&endpoint)));
    }
    values.finish(config).map(|_| text)
}

/// The file that is read, if one is.
pub fn file_of(typed: &Typed, variable: Variables<'_>) -> Option<String> {
    let values =
        Values { command: Command::Config, typed, variable, file: File::default(), problems: Problems::default() };
    values.all("config").pop().map(|(path, _)| path)
}

fn served(values: &mut Values<'_>) -> Serve {
    let before = values.problems.0.len();
    let sources = sources(values);
    // A wrong address is an address, too: nobody is told to give one who did.
    let count = sources.addresses.len() + values.problems.0.len() - before;
    let plugin = values.parse("plugin-id", |text| PluginId::parse(text).map_err(|error| error.to_string()));
    let role = values.role();
    if count != 1 {
        // `auto` declares nothing, as the default does.
        let is_declared =
            |(value, origin): &(String, Origin)| *origin != Origin::Default && value != RoleChoice::Auto.as_str();
        for name in ["plugin-id", "plugin-type"] {
            if let Some((value, origin)) = values.all(name).into_iter().find(is_declared) {
                values.wrong(&origin, &value, format!("needs exactly one --csi-address, and there are {count}"));
            }
        }
    }
    let plugins = plugins(values, &sources);
    let member = member::member(values);
    if member.as_ref().is_some_and(|member| member.role == MemberRole::Aggregator) {
        member::refuse_sources(values);
    }
    Serve {
        sources,
        plugin,
        role,
        plugins,
        host: values.parse("host-id", |text| HostId::parse(text).map_err(|error| error.to_string())),
        nomad: nomad(values),
        poll_interval: values.duration("poll-interval"),
        probe_timeout: values.duration("probe-timeout"),
        timeout: values.duration("timeout"),
        endpoints: values.endpoints(),
        socket: values.socket_file(),
        tls: tls(values),
        state_directory: values.parse("state-dir", |text| Ok(PathBuf::from(not_empty(text)?))),
        is_documented_shape: values
            .word("api-read-shape", &[("nomad", false), ("documented", true)])
            .unwrap_or_default(),
        region: values.parse("region", not_empty).unwrap_or_default(),
        max_connections_per_client: values.count("max-conns-per-client", 0, u32::MAX).unwrap_or_default(),
        history: values.count("history", 0, 10_000).unwrap_or_default() as usize,
        retire_gone: values.duration("retire-gone"),
        retire_lost: values.duration("retire-lost"),
        allowed_hosts: values.hosts(),
        access: access(values),
        member,
        logging: values.logging(),
    }
}

/// Whom to ask about allocations. The task's own identity is where Nomad puts it for a task that asks for it.
fn nomad(values: &mut Values<'_>) -> Option<Nomad> {
    const IDENTITY: &str = "NOMAD_SECRETS_DIR";
    let token_file = values.parse("nomad-token-file", |text| Ok(PathBuf::from(not_empty(text)?)));
    let Some((address, origin)) = values.all("nomad-addr").pop() else {
        if token_file.is_some() {
            values.problems.0.push("--nomad-token-file does nothing without --nomad-addr".to_owned());
        }
        return None;
    };
    values.check_address(&origin, &address);
    let token = if token_file.is_some() { None } else { values.nomad_token() };
    let identity = (values.variable)(IDENTITY).map(|folder| PathBuf::from(folder).join("nomad_token"));
    let token_file = token_file.or_else(|| identity.filter(|file| token.is_none() && file.exists()));
    Some(Nomad { address, token_file, token, trust: values.trust() })
}

/// What is spoken over TCP. A file that would do nothing is a mistake that leaves a door open.
fn tls(values: &mut Values<'_>) -> Option<Tls> {
    let path = |text: &str| Ok(PathBuf::from(not_empty(text)?));
    let (certificate, key) = (values.parse("tls-cert-file", path), values.parse("tls-key-file", path));
    let authorities = values.parse("tls-client-ca-file", path);
    let asked = values.word("tls-client-auth", &ClientAuth::ALL);
    let default = if authorities.is_some() { ClientAuth::Required } else { ClientAuth::None };
    let client_auth = asked.unwrap_or(default);
    let mut problem = |text: &str| values.problems.0.push(text.to_owned());
    match (&certificate, &key) {
        (Some(_), None) => problem("--tls-cert-file needs --tls-key-file: a certificate is shown with its key"),
        (None, Some(_)) => problem("--tls-key-file needs --tls-cert-file: a key is of no use without its certificate"),
        (None, None) if authorities.is_some() || client_auth != ClientAuth::None => {
            problem("--tls-client-ca-file and --tls-client-auth do nothing without --tls-cert-file and --tls-key-file");
        }
        _ if client_auth != ClientAuth::None && authorities.is_none() => {
            problem("--tls-client-auth needs --tls-client-ca-file, which says whose certificates are good");
        }
        _ => {}
    }
    Some(Tls { certificate: certificate?, key: key?, authorities, client_auth })
}

/// Who is asked for tokens. Files that say who may what, with nobody to ask, are a mistake that leaves a door open.
fn access(values: &mut Values<'_>) -> Option<Access> {
    let is_enabled = values.is_on("acl-enabled");
    let is_said = !values.all("acl-enabled").is_empty();
    let path = |text: &str| Ok(PathBuf::from(not_empty(text)?));
    let access = Access {
        policy_directory: values.parse("acl-policy-dir", path),
        tokens_file: values.parse("acl-tokens-file", path),
        keys: values.parse("acl-jwks", key_source),
        audiences: values.all("acl-jwt-audience").into_iter().map(|(name, _)| name).collect(),
        is_metrics_open: values.word("acl-metrics", &[("agent-read", false), ("open", true)]).unwrap_or_default(),
    };
    let has_files = access.policy_directory.is_some() || access.tokens_file.is_some() || access.keys.is_some();
    if is_enabled && !has_files {
        values.problems.0.push("--acl-enabled needs --acl-tokens-file, --acl-policy-dir, or both".to_owned());
    } else if has_files && !is_said {
        let problem = "--acl-policy-dir, --acl-tokens-file and --acl-jwks do nothing without --acl-enabled; say --acl-enabled=false if nobody is to be asked for a token";
        values.problems.0.push(problem.to_owned());
    }
    if is_enabled && access.keys.is_some() && access.policy_directory.is_none() {
        let problem =
            "--acl-jwks needs --acl-policy-dir: what an identity may do stands in policies attached to its job";
        values.problems.0.push(problem.to_owned());
    }
    is_enabled.then_some(access)
}

/// A file, or an address that can be asked.
fn key_source(text: &str) -> Result<String, String> {
    let text = not_empty(text)?;
    match text.split_once("://") {
        None => Ok(text.to_owned()),
        Some(("http" | "https", rest)) if !rest.is_empty() && !rest.starts_with('/') && !rest.contains('@') => {
            Ok(text.to_owned())
        }
        Some(_) => {
            Err("should be a file, or http://HOST:PORT/.well-known/jwks.json, or the same with https".to_owned())
        }
    }
}

/// What `acl` does.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn acl(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Acl, Problems> {
    const ACTIONS: &str =
        "`acl token create`, `acl token list`, `acl token revoke ACCESSOR` or `acl policy check FILE`";
    let mut values = Values::new(Command::Acl, typed, variable, problems);
    let operands: Vec<&str> = typed.operands.iter().map(String::as_str).collect();
    let path = |text: &str| Ok(PathBuf::from(not_empty(text)?));
    let file = values.parse("acl-tokens-file", path);
    let is_json = values.is_on("json");
    if let ["token", ..] = operands[..]
        && file.is_none()
    {
        values.problems.0.push("which tokens? --acl-tokens-file=FILE names the file that `serve` reads".to_owned());
    }
    let file = file.unwrap_or_default();
    let acl = match operands[..] {
        ["token", "create"] => {
            let policies: Vec<String> = values.all("policy").into_iter().map(|(name, _)| name).collect();
            let is_management = values.is_on("management");
            if is_management != policies.is_empty() {
                let problem = "a new token needs --policy=NAME, or --management, and not both";
                values.problems.0.push(problem.to_owned());
            }
            Some(Acl::Create {
                file,
                policies,
                is_management,
                name: values.parse("name", |text| Ok(text.to_owned())).unwrap_or_default(),
                ttl: values.parse("ttl", super::values::positive),
                policy_directory: values.parse("acl-policy-dir", path),
                is_json,
            })
        }
        ["token", "list"] => Some(Acl::List { file, is_json }),
        ["token", "revoke", accessor] => Some(Acl::Revoke { file, accessor: accessor.to_owned() }),
        ["policy", "check", _, ..] => {
            Some(Acl::Check { files: operands[2..].iter().map(|&file| PathBuf::from(file)).collect() })
        }
        _ => {
            // Not repeated: a secret may stand where an action should.
            values.problems.0.push(format!("what should `acl` do? {ACTIONS}"));
            None
        }
    };
    values.finish_some(acl)
}

/// What `probe` runs with. The socket is the operand, `--csi-address`, or what the sidecars take without a flag.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn probe(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Probe, Problems> {
    let mut values = Values::new(Command::Probe, typed, variable, problems);
    let mut given = values.all("csi-address");
    if let Some(value) = typed.operands.first() {
        // A variable, set for `serve` perhaps, is no second socket.
        given.retain(|(_, origin)| matches!(origin, Origin::Flag(_)));
        given.push((value.clone(), Origin::Operand("SOCKET")));
    }
    if given.len() > 1 {
        values.problems.0.push(format!("one socket can be probed at a time, and {} are given", given.len()));
    }
    let (value, origin) = given.pop().unwrap_or_else(|| (DEFAULT_ADDRESS.to_owned(), Origin::Default));
    let socket = match address::parse(&value) {
        Ok(path) => path,
        Err(error) => {
            values.wrong(&origin, &value, error);
            PathBuf::new()
        }
    };
    let config = Probe {
        address: socket,
        role: values.role(),
        probe_timeout: values.duration("probe-timeout"),
        timeout: values.duration("timeout"),
        is_json: values.is_on("json"),
    };
    values.finish(config)
}

/// Where a CSI driver finds the socket that it is to listen on.
const ENDPOINT: &str = "CSI_ENDPOINT";
/// The address that every CSI sidecar takes without a flag.
const DEFAULT_ADDRESS: &str = "/run/csi/socket";

/// What `status` runs with.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn status(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Status, Problems> {
    let mut values = Values::new(Command::Status, typed, variable, problems);
    let config = Status {
        asking: values.asking(),
        plugin: typed.operands.first().cloned(),
        is_watch: values.is_on("watch"),
        is_json: values.is_on("json"),
        is_verbose: values.is_on("verbose"),
        is_check: values.is_on("check"),
    };
    if config.is_watch && config.is_check {
        values
            .problems
            .0
            .push("--watch never ends, so --check has no exit code to give; choose one of them".to_owned());
    }
    values.finish(config)
}

/// What `wait` runs with.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn wait(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Wait, Problems> {
    let mut values = Values::new(Command::Wait, typed, variable, problems);
    let plugin = values.plugin("wait for");
    let enough = |text: &str| match text {
        "all" => Ok(Enough::All),
        text => match number(text, 0, MOST_EXPECTED) {
            Ok(number) => Ok(Enough::AtLeast(number)),
            Err(what) => Err(format!("{what}, nor all")),
        },
    };
    let (nodes, controllers) = (values.parse("nodes", enough), values.parse("controllers", enough));
    let is_registered = values.is_on("registered");
    let none = Some(Enough::AtLeast(0));
    if nodes == none && controllers == none {
        values.problems.0.push("--nodes=0 and --controllers=0 leave nothing to wait for".to_owned());
    } else if nodes == none && is_registered {
        values.problems.0.push("--registered is about nodes, and --nodes=0 waits for none".to_owned());
    }
    let (asking, timeout) = (values.asking(), values.duration("timeout"));
    let config = plugin.map(|plugin| Wait { asking, plugin, nodes, controllers, is_registered, timeout });
    values.finish_some(config)
}

/// What `history` runs with.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn history(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<History, Problems> {
    let mut values = Values::new(Command::History, typed, variable, problems);
    let plugin = if typed.operands.is_empty() { None } else { values.plugin("show") };
    let config = History {
        asking: values.asking(),
        plugin,
        limit: values.count("limit", 1, 10_000).unwrap_or_default(),
        is_json: values.is_on("json"),
    };
    values.finish(config)
}

/// What `forget` runs with.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn forget(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Forget, Problems> {
    let mut values = Values::new(Command::Forget, typed, variable, problems);
    let plugin = values.plugin("forget");
    let host = values.parse("host", |text| HostId::parse(text).map_err(|error| error.to_string()));
    let asking = values.asking();
    values.finish_some(plugin.map(|plugin| Forget { asking, plugin, host }))
}

/// What `healthcheck` runs with: the first endpoint that the same configuration would have `serve` listen on.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn healthcheck(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Healthcheck, Problems> {
    let mut values = Values::new(Command::Healthcheck, typed, variable, problems);
    let endpoints = values.endpoints();
    let has_tls = !values.all("tls-cert-file").is_empty();
    let address = endpoints.first().map(|endpoint| reachable(endpoint, has_tls)).unwrap_or_default();
    if address.ends_with(":0") {
        values
            .problems
            .0
            .push(format!("{}: port 0 is a new one at each start; give the one that is listened on", endpoints[0]));
    }
    // It is our own, on our own machine, and gets no secret: its certificate, which is for a name that others know it by,
    // counts only where somebody says whose it has to be.
    let mut trust = values.trust();
    trust.is_unverified |= trust.authorities.is_none() && trust.authorities_directory.is_none();
    let asking = Asking { address, token: None, trust };
    let config = Healthcheck { asking, is_ready: values.is_on("ready"), timeout: values.duration("timeout") };
    values.finish(config)
}

/// The address at which an endpoint can be asked from its own machine: nobody can connect to "all addresses".
fn reachable(endpoint: &str, has_tls: bool) -> String {
    if endpoint.starts_with("unix:") {
        return endpoint.to_owned();
    }
    let scheme = if has_tls { "https" } else { "http" };
    let (host, port) = endpoint.rsplit_once(':').unwrap_or((endpoint, ""));
    match host {
        "" | "0.0.0.0" => format!("{scheme}://127.0.0.1:{port}"),
        "[::]" => format!("{scheme}://[::1]:{port}"),
        host => format!("{scheme}://{host}:{port}"),
    }
}

/// What `completion` runs with.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn completion(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Completion, Problems> {
    let mut values = Values::new(Command::Completion, typed, variable, problems);
    let shell = match typed.operands.first() {
        Some(text) => match one_of(text, &Shell::ALL) {
            Ok(shell) => Some(shell),
            Err(what) => {
                values.wrong(&Origin::Operand("SHELL"), text, what);
                None
            }
        },
        None => {
            values.problems.0.push("for which shell? `csi-gateway completion bash`, zsh or fish".to_owned());
            None
        }
    };
    let line = values.parse("line", |text| Ok(text.to_owned()));
    let asking = values.asking();
    values.finish_some(shell.map(|shell| Completion { asking, shell, line }))
}

/// What `doctor` runs with: the operand, or what `serve` would watch, or what the sidecars take without a flag.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn doctor(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Doctor, Problems> {
    let mut values = Values::new(Command::Doctor, typed, variable, problems);
    let sources = match typed.operands.first() {
        Some(operand) => match address::parse(operand) {
            Ok(path) => Sources { addresses: vec![path], ..Sources::default() },
            Err(error) => {
                values.problems.0.push(format!("socket `{operand}` {error}"));
                Sources::default()
            }
        },
        None => {
            let mut sources = sources(&mut values);
            let plugins = plugins(&mut values, &sources);
            sources.addresses.extend(plugins.into_iter().filter_map(|plugin| plugin.socket));
            sources
        }
    };
    let config = Doctor {
        sources,
        role: values.role(),
        probe_timeout: values.duration("probe-timeout"),
        timeout: values.duration("timeout"),
        is_json: values.is_on("json"),
    };
    values.finish(config)
}

/// What `demo` runs with.
///
/// # Errors
/// Every problem, those found while scanning included.
pub fn demo(typed: &Typed, variable: Variables<'_>, problems: Problems) -> Result<Demo, Problems> {
    let mut values = Values::new(Command::Demo, typed, variable, problems);
    let (hosts, plugins) = (values.count("hosts", 1, 100_000), values.count("plugins", 1, 100_000));
    let flap = values.parse("flap", positive);
    if hosts.is_none() && plugins.is_none() && flap.is_some() {
        values.problems.0.push("flag --flap needs a made fleet: --hosts=COUNT, --plugins=COUNT or both".to_owned());
    }
    let fleet = (hosts.is_some() || plugins.is_some()).then(|| Fleet {
        hosts: hosts.unwrap_or(1),
        plugins: plugins.unwrap_or(1),
        flap,
    });
    let driver_only = values.parse("driver-only", |text| address::parse(text).map_err(|error| error.to_string()));
    let (endpoints, socket) = (values.endpoints(), values.socket_file());
    let config = Demo { endpoints, socket, fleet, driver_only, logging: values.logging() };
    values.finish(config)
}
