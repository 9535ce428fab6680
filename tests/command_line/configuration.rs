//! Defaults < file < environment < flags, and every problem in one message with its origin and what is allowed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use csi_gateway::cli::{self, Invocation};
use csi_gateway::config::Serve;
use csi_gateway::config::settings::{self, Command};
use csi_gateway::config::show;
use csi_gateway::domain::expected::{Declaration, DeclaredNodes, HostPattern};
use csi_gateway::domain::socket::RoleChoice;
use proptest::prelude::*;

/// An invocation: arguments, variables, the text of a file that `--config=FILE` names.
#[derive(Default)]
struct Case<'a> {
    name: &'a str,
    arguments: &'a [&'a str],
    variables: &'a [(&'a str, &'a str)],
    file: Option<&'a str>,
}

impl Case<'_> {
    /// The outcome, with the file's name as it is typed in the case: `FILE`.
    fn outcome(&self) -> Result<Invocation, String> {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("FILE");
        if let Some(text) = self.file {
            std::fs::write(&path, text).expect("a file");
        }
        let path = path.to_string_lossy().into_owned();
        let with_path = |text: &str| text.replace("FILE", &path);
        let arguments: Vec<String> = self.arguments.iter().map(|argument| with_path(argument)).collect();
        let variables: BTreeMap<&str, String> =
            self.variables.iter().map(|(name, value)| (*name, with_path(value))).collect();
        cli::parse(&arguments, &|name| variables.get(name).cloned())
            .map_err(|problems| problems.to_string().replace(&path, "FILE"))
    }

    fn serve(&self) -> Serve {
        match self.outcome() {
            Ok(Invocation::Serve(config)) => *config,
            other => unreachable!("{}: {other:?}", self.name),
        }
    }

    fn text(&self) -> String {
        match self.outcome() {
            Ok(Invocation::Text(text)) => text,
            other => unreachable!("{}: {other:?}", self.name),
        }
    }
}

fn case<'a>(
    name: &'a str,
    arguments: &'a [&'a str],
    variables: &'a [(&'a str, &'a str)],
    file: impl Into<Option<&'a str>>,
) -> Case<'a> {
    Case { name, arguments, variables, file: file.into() }
}

/// What every case of a table is told, in one text to be read like code. A case that is right fails.
fn told(cases: &[Case<'_>]) -> String {
    let mut text = String::new();
    for case in cases {
        let _ = writeln!(text, "# {}", case.name);
        if let Some(file) = case.file {
            for line in file.lines() {
                let _ = writeln!(text, "FILE | {}", line.escape_debug());
            }
        }
        let variables: String =
            case.variables.iter().map(|(name, value)| format!("{name}={} ", value.escape_debug())).collect();
        let arguments: Vec<String> =
            case.arguments.iter().map(|argument| argument.escape_debug().to_string()).collect();
        let _ = writeln!(text, "$ {variables}csi-gateway {}", arguments.join(" "));
        match case.outcome() {
            Err(problems) => {
                let _ = writeln!(text, "{problems}\n");
            }
            Ok(right) => unreachable!("nothing is wrong with \"{}\": {right:?}", case.name),
        }
    }
    text
}

fn golden(name: &str, cases: &[Case<'_>]) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, told(cases)));
}

#[test]
fn a_part_in_a_fleet_is_taken_whole_or_not_at_all() {
    let etcd = "--etcd-servers=https://etcd-0:2379,https://etcd-1:2379";
    golden(
        "usage_fleet",
        &[
            case("a role of no kind", &["serve", "--role=server", etcd], &[], None),
            case("a role without an etcd", &["serve", "--role=agent"], &[], None),
            case("an etcd without a role", &["serve", etcd], &[], None),
            case("a time that does nothing", &["serve", "--host-ttl=1m"], &[], None),
            case("the same in a variable", &["serve"], &[("CSI_GATEWAY_ETCD_SERVERS", "http://a:1")], None),
            case(
                "servers that are none",
                &["serve", "--role=agent", "--etcd-servers=ftp://a,http://u:p@b:1,c:d"],
                &[],
                None,
            ),
            case(
                "TLS files where no TLS is",
                &["serve", "--role=agent", "--etcd-servers=a", "--etcd-cafile=/ca"],
                &[],
                None,
            ),
            case("half a pair", &["serve", "--role=agent", etcd, "--etcd-certfile=/c", "--etcd-username=u"], &[], None),
            case(
                "the other half",
                &["serve", "--role=agent", etcd, "--etcd-keyfile=/k", "--etcd-password-file=/p"],
                &[],
                None,
            ),
            case("times that etcd cannot keep", &["serve", "--role=agent", etcd, "--host-ttl=1500ms"], &[], None),
            case("a prefix that is everything", &["serve", "--role=agent", etcd, "--etcd-prefix=/"], &[], None),
            case(
                "an aggregator that should watch and keep",
                &["serve", "--role=aggregator", etcd, "--csi-address=/run/csi/socket", "--state-dir=/s"],
                &[],
                None,
            ),
            case(
                "the same in a file",
                &["serve", "--role=aggregator", etcd, "--config=FILE"],
                &[],
                "plugin \"ebs\" {\n  socket = \"/run/ebs.sock\"\n}\n",
            ),
        ],
    );
    let right = case("", &["serve", "--role=agent", etcd, "--etcd-prefix=/fleet-a"], &[], None).serve();
    let member = right.member.unwrap_or_else(|| unreachable!("it has a role"));
    assert_eq!((member.servers.len(), &*member.prefix), (2, "/fleet-a/"));
}

#[test]
fn wrong_commands_flags_and_operands_are_told_with_the_nearest_right_one() {
    golden(
        "usage_flags",
        &[
            case("a command that is nearly one", &["server"], &[], None),
            case("no command at all", &["xyz"], &[], None),
            case("a command that a terminal would obey", &["\u{1b}[31mserve"], &[], None),
            case("a flag that is nearly one", &["serve", "--csi-adress=/a"], &[], None),
            case("a flag of nothing", &["serve", "--zzzzzz"], &[], None),
            case("a flag of another command", &["status", "--hosts=3"], &[], None),
            case("a flag of several other commands", &["demo", "--timeout=3s"], &[], None),
            case("a flag without its value", &["serve", "--csi-address"], &[], None),
            case("one operand too many", &["serve", "/a"], &[], None),
            case("two operands too many", &["status", "a", "b", "c"], &[], None),
            case("a switch with a value that is none", &["probe", "/a", "--json=maybe"], &[], None),
            case("two sockets to probe", &["probe", "/a", "--csi-address=/b"], &[], None),
            case("wait for nothing", &["wait"], &[], None),
            case("wait for what cannot be an id", &["wait", "a/b"], &[], None),
            case("wait for an id that would break a line", &["wait", "a\nb"], &[], None),
            case("wait for no number", &["wait", "a", "--nodes=-1", "--controllers=some"], &[], None),
            case("wait for none of anything", &["wait", "a", "--nodes=0", "--controllers=0"], &[], None),
            case("registered, of no nodes", &["wait", "a", "--nodes=0", "--registered"], &[], None),
            case("wait for no time", &["wait", "a", "--timeout=0"], &[], None),
            case("an address without a port", &["wait", "a", "--address=http://gateway"], &[], None),
            case("a server's certificate without its key", &["serve", "--tls-cert-file=c.pem"], &[], None),
            case("a server's key without its certificate", &["serve", "--tls-key-file=k.pem"], &[], None),
            case("clients' authorities without TLS", &["serve", "--tls-client-ca-file=a.pem"], &[], None),
            case(
                "clients' certificates that nobody can judge",
                &["serve", "--tls-cert-file=c.pem", "--tls-key-file=k.pem", "--tls-client-auth=optional"],
                &[],
                None,
            ),
            case("clients' certificates, perhaps", &["serve", "--tls-client-auth=maybe"], &[], None),
            case("no mode", &["serve", "--socket-mode=rw", "--socket-owner=:"], &[], None),
            case("too many bits", &["demo", "--socket-mode=1777", "--socket-owner=a:b:c"], &[], None),
            case("an address with a path", &["status", "--address=https://10.0.0.1:4646/nomad"], &[], None),
            case("a certificate without its key", &["status", "--client-cert=c.pem"], &[], None),
            case("a key without its certificate", &["wait", "a"], &[("NOMAD_CLIENT_KEY", "k.pem")], None),
            case("neither true nor false", &["status"], &[("NOMAD_SKIP_VERIFY", "yes")], None),
            case("an address with a password", &["status", "--address=ftp://me:secret@host:21/x"], &[], None),
            case("a token file that is not there", &["status", "--token-file=FILE"], &[], None),
            case("a token file with two lines", &["status", "--token-file=FILE"], &[], "one\ntwo\n"),
            case("a token that is none", &["history"], &[("NOMAD_TOKEN", "not\nthis")], None),
            case("watch and check", &["status", "--watch", "--check"], &[], None),
            case("history of nobody", &["history", ""], &[], None),
            case("history without end", &["history", "--limit=0"], &[], None),
            case("forget nothing", &["forget"], &[], None),
            case("forget on a host that is none", &["forget", "a", "--host=b c"], &[], None),
            case("a check of a port that nobody knows", &["healthcheck", "--http-endpoint=127.0.0.1:0"], &[], None),
            case("a configuration that is neither checked nor shown", &["config"], &[], None),
            case("a configuration that is edited", &["config", "edit"], &[], None),
            case("no shell", &["completion"], &[], None),
            case("a shell that is not known", &["completion", "tcsh"], &[], None),
            case("flaps of no fleet", &["demo", "--flap=1s"], &[], None),
        ],
    );
}

#[test]
fn wrong_values_and_combinations_are_told_with_their_origin_and_what_is_allowed() {
    golden(
        "usage_values",
        &[
            case(
                "wrong everywhere",
                &["serve", "--csi-address=tcp://1.2.3.4:5", "--poll-interval=soon", "--plugin-type=both", "extra"],
                &[("CSI_GATEWAY_HISTORY", "many"), ("CSI_GATEWAY_HTTP_ENDPOINT", "127.0.0.1:1,nowhere")],
                None,
            ),
            case("a directory that is none", &["serve", "--kubelet-dir="], &[], None),
            case("no state directory", &["serve", "--state-dir="], &[], None),
            case("an id for no address", &["serve", "--kubelet-dir=/k", "--plugin-id=x"], &[], None),
            case(
                "an id for two addresses",
                &["serve", "--csi-address=/a", "--csi-address=/b", "--plugin-id=x"],
                &[],
                None,
            ),
            case(
                "a type for two",
                &["serve"],
                &[("CSI_GATEWAY_CSI_ADDRESS", "/a,/b"), ("CSI_GATEWAY_PLUGIN_TYPE", "node")],
                None,
            ),
            case("an id with a slash", &["serve", "--csi-address=/a", "--plugin-id=a/b"], &[], None),
            case("a relative address", &["serve", "--csi-address=csi.sock"], &[], None),
            case("an address in CSI_ENDPOINT", &["serve"], &[("CSI_ENDPOINT", "tcp://0.0.0.0:10000")], None),
            case("numbers out of range", &["serve", "--history=10001", "--v=11"], &[], None),
            case(
                "durations that are none",
                &["serve", "--retire-gone=0s", "--retire-lost=1d", "--timeout=5"],
                &[],
                None,
            ),
            case("words that are none", &["serve", "--logging-format=xml", "--api-read-shape=Nomad"], &[], None),
            case("hosts that are none", &["serve", "--allowed-hosts=http://x,a:1", "--host-id=a b"], &[], None),
            case("no region", &["serve", "--region="], &[], None),
            case("an escape in a value", &["serve", "--v=\u{1b}[2J\u{202e}"], &[], None),
            case("a value without end", &["serve", &format!("--v={}", "9".repeat(1000))], &[], None),
        ],
    );
}

#[test]
fn a_file_that_is_wrong_is_told_line_by_line() {
    golden(
        "usage_files",
        &[
            case("a file that is not there", &["serve", "--config=FILE"], &[], None),
            case("a file that is named by a variable", &["serve"], &[("CSI_GATEWAY_CONFIG", "FILE")], None),
            case("no HCL", &["serve", "--config=FILE"], &[], "v = 2\nhistory =\nregion = \"x\"\n"),
            case("no JSON", &["serve", "--config=FILE"], &[], "{\n  \"v\": 2,\n  \"history\": }\n"),
            case("JSON, but no object", &["serve", "--config=FILE"], &[], "{\n} []"),
            case("a key that is nearly one", &["serve", "--config=FILE"], &[], "\npol_interval = \"30s\"\n"),
            case("a key of nothing", &["serve", "--config=FILE"], &[], "zzzzzz = 1\n"),
            case("a flag for a key", &["serve", "--config=FILE"], &[], "poll-interval = \"30s\"\n"),
            case(
                "a key of another command",
                &["serve", "--config=FILE"],
                &[],
                "token_file = \"/t\"\nconfig = \"/c\"\n",
            ),
            case("a key that is given twice", &["serve", "--config=FILE"], &[], "{\"v\": 1,\n\"v\": 2}"),
            case("a list for one value", &["serve", "--config=FILE"], &[], "host_id = [\"host-one\"]\n"),
            case("nowhere to serve", &["serve", "--config=FILE"], &[], "http_endpoint = []\n"),
            case("a word without quotes", &["serve", "--config=FILE"], &[], "logging_format = json\n"),
            case("a template", &["serve", "--config=FILE"], &[], "host_id = \"${HOSTNAME}\"\n"),
            case(
                "null, an object, a list of lists",
                &["serve", "--config=FILE"],
                &[],
                "v = null\nregion = { a = 1 }\ncsi_address = [[\"/a\"]]\n",
            ),
            case(
                "the same as JSON",
                &["serve", "--config=FILE"],
                &[],
                "{\"v\": null,\n\"region\": {\"a\": 1},\n\"csi_address\": [[\"/a\"]]}",
            ),
            case(
                "values that are wrong, each in its line",
                &["serve", "--config=FILE"],
                &[],
                "poll_interval = 30\nhttp_endpoint = [\n  \"127.0.0.1:1\",\n  \"nowhere\",\n]\nv = -1\n",
            ),
            case("an unknown block", &["serve", "--config=FILE"], &[], "listener \"tcp\" {\n  port = 1\n}\n"),
            case(
                "a block without a label, and one with two",
                &["serve", "--config=FILE"],
                &[],
                "plugin {\n}\nplugin \"a\" \"b\" {\n}\n",
            ),
            case(
                "a block in a block",
                &["serve", "--config=FILE"],
                &[],
                "plugin \"a\" {\n  nodes_expected = 1\n  socket {\n  }\n}\n",
            ),
            case("a block that says nothing", &["serve", "--config=FILE"], &[], "plugin \"a\" {\n}\n"),
            case(
                "keys of a block",
                &["serve", "--config=FILE"],
                &[],
                "plugin \"a\" {\n  node_expected = 1\n  zzzzzz = 2\n  socket = [\"/a\"]\n}\n",
            ),
            case(
                "values of a block",
                &["serve", "--config=FILE"],
                &[],
                "plugin \"a/b\" {\n  socket = \"tcp://a\"\n  type = \"both\"\n  nodes_expected = -1\n  controllers_expected = \"x\"\n}\nplugin \"c\" {\n  host_selector = \"n[0-9]\"\n}\n",
            ),
            case("a type without a socket", &["serve", "--config=FILE"], &[], "plugin \"a\" {\n  type = \"node\"\n}\n"),
            case(
                "a number and a selector",
                &["serve", "--config=FILE"],
                &[],
                "plugin \"a\" {\n  nodes_expected = 1\n  host_selector = \"*\"\n}\n",
            ),
            case(
                "a plugin that is declared twice",
                &["serve", "--config=FILE"],
                &[],
                "plugin \"a\" {\n  nodes_expected = 1\n}\nplugin \"a\" {\n  nodes_expected = 2\n}\n",
            ),
            case(
                "a socket that is named twice",
                &["serve", "--config=FILE", "--csi-address=/b"],
                &[],
                "plugin \"a\" {\n  socket = \"/a\"\n}\nplugin \"b\" {\n  socket = \"unix:///a\"\n}\nplugin \"c\" {\n  socket = \"/b\"\n}\n",
            ),
            case(
                "a JSON block that is none",
                &["serve", "--config=FILE"],
                &[],
                "{\"plugin\": {\"a\": 1}, \"x\": {\"y\": {}}}",
            ),
            case(
                "a file and a variable and a flag, all wrong",
                &["config", "check", "--config=FILE", "--timeout=x"],
                &[("CSI_GATEWAY_V", "x")],
                "probe_timeout = \"x\"\n",
            ),
        ],
    );
}

#[test]
fn flags_win_over_variables_and_those_over_the_file_and_that_over_defaults() {
    let file =
        "poll_interval = \"1s\"\nprobe_timeout = \"1s\"\ntimeout = \"1s\"\nhttp_endpoint = [\":1\", \":2\"]\nv = 4\n";
    let config = case(
        "",
        &["serve", "--config=FILE", "--poll-interval=3s"],
        &[
            ("CSI_GATEWAY_POLL_INTERVAL", "2s"),
            ("CSI_GATEWAY_PROBE_TIMEOUT", "2s"),
            ("CSI_GATEWAY_HTTP_ENDPOINT", ":3"),
        ],
        file,
    )
    .serve();
    let seconds = |duration: Duration| duration.as_secs();
    assert_eq!(seconds(config.poll_interval), 3);
    assert_eq!(seconds(config.probe_timeout), 2);
    assert_eq!(seconds(config.timeout), 1);
    assert_eq!(seconds(config.retire_gone), 3600);
    assert_eq!(config.endpoints, [":3"], "lists do not add up");
    assert_eq!(config.logging.verbosity, 4);
    // An empty variable is none, as in a manifest that passes it on.
    let config = case("", &["serve"], &[("CSI_GATEWAY_CONFIG", "FILE"), ("CSI_GATEWAY_V", "")], file).serve();
    assert_eq!((config.endpoints, config.logging.verbosity), (vec![":1".to_owned(), ":2".to_owned()], 4));
}

#[test]
fn a_declared_plugin_is_a_socket_with_an_id_and_a_type_or_a_number_or_both() {
    let hcl = "plugin \"ebs\" {\n  socket = \"unix:///run/ebs.sock\"\n  type = \"node\"\n  nodes_expected = 5\n}\nplugin \"nfs\" {\n  host_selector = \"storage-*\"\n  controllers_expected = 2\n}\n";
    let json = r#"{"plugin": {"ebs": {"socket": "/run/ebs.sock", "type": "node", "nodes_expected": 5},
        "nfs": {"host_selector": "storage-*", "controllers_expected": 2}}}"#;
    let config = case("", &["serve", "--config=FILE"], &[], hcl).serve();
    assert_eq!(config, case("", &["serve", "--config=FILE"], &[], json).serve());
    let [ebs, nfs] = config.plugins.as_slice() else { unreachable!("two: {:?}", config.plugins) };
    assert_eq!(
        (ebs.id.as_str(), ebs.socket.as_deref(), ebs.role),
        ("ebs", Some(Path::new("/run/ebs.sock")), RoleChoice::Node)
    );
    assert_eq!(ebs.expected, Declaration { nodes: Some(DeclaredNodes::Count(5)), controllers: None });
    let storage = HostPattern::parse("storage-*").expect("a pattern");
    assert_eq!(nfs.expected, Declaration { nodes: Some(DeclaredNodes::On(storage)), controllers: Some(2) });
    assert!(!config.sources.searches_well_known_places, "a socket that is given switches the search off");
    match case("", &["doctor", "--config=FILE"], &[], hcl).outcome() {
        Ok(Invocation::Doctor(doctor)) => assert_eq!(doctor.sources.addresses, [Path::new("/run/ebs.sock")]),
        other => unreachable!("{other:?}"),
    }
    let only = case("", &["serve", "--config=FILE"], &[], "plugin \"a\" {\n  nodes_expected = 1\n}\n").serve();
    assert!(only.sources.searches_well_known_places, "a number does not");
}

#[test]
fn what_config_show_prints_says_the_same_as_a_file_and_names_each_origin() {
    let file =
        "csi_address = [\"/a\", \"/b ${x}\"]\nregion = \"x\\\"y\"\nplugin \"p\" {\n  controllers_expected = 2\n}\n"
            .replace('$', "$$");
    let shown = case("", &["config", "show", "--config=FILE", "--v=4"], &[("CSI_GATEWAY_HISTORY", "7")], &*file);
    let text = shown.text();
    for (value, origin) in [
        ("v = 4", "flag --v"),
        ("history = 7", "variable CSI_GATEWAY_HISTORY"),
        ("poll_interval = \"30s\"", "default"),
        ("# host_id", "not set"),
    ] {
        let line = text.lines().find(|line| line.starts_with(value));
        assert!(line.is_some_and(|line| line.ends_with(&format!("# {origin}"))), "{value}: {line:?}");
    }
    assert!(text.lines().any(|line| line.starts_with("region = ") && line.ends_with("FILE:2")), "{text}");
    let serve = ["serve", "--config=FILE", "--v=4"];
    let before = case("", &serve, &[("CSI_GATEWAY_HISTORY", "7")], &*file).serve();
    assert_eq!(case("", &["serve", "--config=FILE"], &[], &*text).serve(), before);
    let checked = case("", &["config", "check", "--config=FILE"], &[], &*file).text();
    assert!(checked.starts_with("nothing is wrong with ") && checked.ends_with("FILE"), "{checked}");
}

#[test]
fn secrets_are_shown_nowhere() {
    let token = case("", &["status"], &[("NOMAD_TOKEN", "very-secret")], None).outcome();
    assert!(!format!("{token:?}").contains("very-secret"), "{token:?}");
    let wrong = case("", &["status", "--token-file=FILE"], &[], "very secret").outcome();
    assert!(wrong.is_err() && !format!("{wrong:?}").contains("very"), "{wrong:?}");
    let unknown = case("", &["serve", "--config=FILE"], &[], "etcd_passwort = \"hunter2\"\n").outcome();
    assert!(unknown.is_err() && !format!("{unknown:?}").contains("hunter2"), "{unknown:?}");
    let url = case("", &["serve", "--http-endpoint=http://me:hunter2@host/"], &[], None).outcome();
    assert!(url.is_err() && !format!("{url:?}").contains("hunter2"), "{url:?}");
}

/// A file that a test keeps equal to what the code says; the switch that accepts golden files rewrites it.
pub(crate) fn kept(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    // Not where it is right already: other tests read it meanwhile.
    let is_right = std::fs::read_to_string(&path).is_ok_and(|there| there == text);
    if !is_right && std::env::var("INSTA_UPDATE").is_ok_and(|value| value == "always") {
        std::fs::write(&path, text).expect("it can be written");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(there, text, "{} is not what the code says; see CONTRIBUTING.md", path.display());
}

#[test]
fn the_example_file_has_every_default_and_changes_nothing() {
    let text = show::example();
    kept("deploy/csi-gateway.hcl", &text);
    let plain = case("", &["serve"], &[], None).serve();
    assert_eq!(case("", &["serve", "--config=FILE"], &[], &*text).serve(), plain);
    for setting in settings::of(Command::Serve).filter(|setting| setting.name != "config") {
        let key = setting.key();
        let has = |start: String| text.lines().any(|line| line.starts_with(&start));
        assert_eq!(has(format!("{key} = ")), setting.default.is_some(), "{key}");
        assert!(has(format!("{key} = ")) || has(format!("# {key} = ")), "{key}");
    }
}

#[test]
fn the_pages_name_everything_that_can_be_set_every_command_and_every_code() {
    kept("docs/configuration.md", &show::reference());
    let page = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let codes = page("docs/exit-codes.md");
    for code in 0..=4 {
        assert!(codes.contains(&format!("\n| {code} |")), "{code}");
    }
    let readme = page("README.md");
    for command in Command::ALL.map(Command::name) {
        assert!(readme.contains(&format!("\n| `{command}")), "the README's table has no row of {command}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_arguments_no_variables_and_no_file_make_it_panic(
        command in prop::sample::select(Command::ALL.map(Command::name).into_iter().chain(["--", "", "help"]).collect::<Vec<_>>()),
        arguments in prop::collection::vec(any_argument(), 0..6),
        value in "\\PC{0,12}|[0-9]{1,12}(s|h)?|.{0,4}",
        keys in prop::collection::vec((any_key(), any_value()), 0..6),
        noise in "([\\[\\]{}=\",# \n]|\\PC){0,20}",
        is_json in any::<bool>(),
    ) {
        let lines = |separator: &str, between: &str| {
            keys.iter().map(|(key, value)| format!("{between}{key}{between}{separator}{value}")).collect::<Vec<_>>()
        };
        let text = if is_json {
            format!("{{{}{noise}}}", lines(":", "\"").join(","))
        } else {
            format!("{}\n{noise}\n", lines(" = ", "").join("\n"))
        };
        let mut all = vec![command, "--config=FILE"];
        all.extend(arguments.iter().map(String::as_str));
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("FILE").to_string_lossy().into_owned();
        std::fs::write(&path, text).expect("a file");
        let all: Vec<String> = all.into_iter().map(|argument| argument.replace("FILE", &path)).collect();
        let outcome = cli::parse(&all, &|name| match name {
            "CSI_GATEWAY_CONFIG" | "CSI_GATEWAY_TOKEN_FILE" => None,
            name => name.len().is_multiple_of(2).then(|| value.clone()),
        });
        if let Err(problems) = outcome {
            prop_assert!(!problems.0.is_empty(), "refused without a word");
            for line in problems.to_string().lines() {
                prop_assert!(line.starts_with("error: ") && !line.chars().any(char::is_control), "{line:?}");
            }
        }
    }
}

/// Mostly flags that exist.
fn any_argument() -> impl Strategy<Value = String> {
    let names: Vec<&str> = settings::SETTINGS
        .iter()
        .map(|setting| setting.name)
        .filter(|name| !matches!(*name, "config" | "token-file"))
        .chain(["help", "nonsense", "check", "show", "bash"])
        .collect();
    (prop::sample::select(vec!["", "-", "--"]), prop::sample::select(names), "(=\\PC{0,12}|=[0-9]{1,9}|)")
        .prop_map(|(dashes, name, value)| format!("{dashes}{name}{value}"))
}

fn any_key() -> impl Strategy<Value = String> {
    let keys: Vec<String> = settings::SETTINGS.iter().map(settings::Setting::key).collect();
    prop_oneof![prop::sample::select(keys), "[a-z_]{1,12}", Just("plugin".to_owned())]
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        "\"[a-z0-9:/.]{0,10}\"",
        "-?[0-9]{1,12}",
        Just("true".to_owned()),
        "\\[(\"[a-z/]{0,5}\",){0,3}\"x\"\\]",
        Just("{\"p\": {\"socket\": \"/a\", \"nodes_expected\": 3}}".to_owned()),
        "\\PC{0,10}",
    ]
}
