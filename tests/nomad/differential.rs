//! A running Nomad and a gateway beside its client, side by side: what both answer about the same driver, field by field,
//! through everything that happens to a driver, a job, an agent and a gateway (`design.md` section 7).
//!
//! Every field is equal, or stands in [`DEVIATIONS`] with its reason. The tests print what was compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use csi_gateway::acl;
use csi_gateway::app::{Keep, NomadPlan, Plan};
use csi_gateway::discovery::{self, Kind, Place};
use csi_gateway::domain::id::HostId;
use csi_gateway::domain::trust::Trust;
use csi_gateway::owner::nomad::Token;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::agent::{Agent, ask};
use super::support::gateway::{TestGateway, quick};
use super::support::process::{command, gateway as program, run};

/// How long Nomad takes to notice a driver that hangs: 51 s were seen.
const PATIENCE: Duration = Duration::from_secs(110);
const LIST: &str = "/v1/plugins?type=csi";

/// Fields that differ, and why. `*` stands for a host, an allocation's place or a task.
const DEVIATIONS: [(&str, &str); 11] = [
    ("CreateIndex", "each counts for itself"),
    ("ModifyIndex", "each counts for itself"),
    ("CreateTime", "each saw it first at its own time"),
    ("ModifyTime", "each saw it first at its own time"),
    ("Controllers.*.UpdateTime", "each saw the change at its own time"),
    ("Nodes.*.UpdateTime", "each saw the change at its own time"),
    ("ControllersRequired", "the page's spelling, beside the servers'; Nomad's clients ignore it"),
    ("Controllers.*.ControllerInfo", "an answer that fails takes no capabilities away here"),
    ("Nodes.*.NodeInfo", "an answer that fails takes no capabilities away here"),
    ("Controllers.*.HealthDescription", "the deadline that passed is another one"),
    ("Nodes.*.HealthDescription", "the deadline that passed is another one"),
];
/// Those of them that are deviations only while a driver is ill.
const OF_THE_ILL: [&str; 4] = [
    "Controllers.*.ControllerInfo",
    "Nodes.*.NodeInfo",
    "Controllers.*.HealthDescription",
    "Nodes.*.HealthDescription",
];

/// What was compared so far: how often a field was equal, and how often it was not.
#[derive(Default)]
struct Compared(BTreeMap<String, (usize, usize)>);

impl Compared {
    /// Compares two answers. Fails on a field that differs and has no reason to.
    fn take(&mut self, what: &str, is_ill: bool, nomad: &Value, ours: &Value) {
        let mut unexplained = Vec::new();
        self.walk("", is_ill, Some(nomad), Some(ours), &mut unexplained);
        assert!(unexplained.is_empty(), "{what}:\n{}\nNomad: {nomad}\nours:  {ours}", unexplained.join("\n"));
    }

    fn walk(&mut self, path: &str, is_ill: bool, nomad: Option<&Value>, ours: Option<&Value>, bad: &mut Vec<String>) {
        let may_differ = DEVIATIONS.iter().any(|(known, _)| *known == path) && (is_ill || !OF_THE_ILL.contains(&path));
        match (nomad, ours) {
            (Some(Value::Object(nomad)), Some(Value::Object(ours))) if !may_differ => {
                let keys: BTreeSet<&String> = nomad.keys().chain(ours.keys()).collect();
                for key in keys {
                    // Keys that are data: hosts, tasks, namespaces, jobs.
                    let name = if path.is_empty() || is_fixed(path) { key } else { "*" };
                    let below = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                    self.walk(&below, is_ill, nomad.get(key), ours.get(key), bad);
                }
            }
            (Some(Value::Array(nomad)), Some(Value::Array(ours))) if nomad.len() == ours.len() => {
                for (nomad, ours) in nomad.iter().zip(ours) {
                    let below = if path.is_empty() { String::new() } else { format!("{path}.*") };
                    self.walk(&below, is_ill, Some(nomad), Some(ours), bad);
                }
            }
            (nomad, ours) => {
                let counts = self.0.entry(path.to_owned()).or_default();
                if nomad == ours {
                    counts.0 += 1;
                } else {
                    counts.1 += 1;
                    if !may_differ {
                        bad.push(format!("{path}: {nomad:?} in Nomad, {ours:?} here"));
                    }
                }
            }
        }
    }

    /// Past the capture of a test that passes: what was compared is for whoever reads the run.
    fn print(&self) {
        let mut text = String::from("\n| Field | Equal | Differs | Why |\n| --- | ---: | ---: | --- |\n");
        for (path, (equal, differs)) in &self.0 {
            let why = DEVIATIONS.iter().find(|(known, _)| *known == path && *differs > 0).map_or("", |(_, why)| why);
            let _ = writeln!(text, "| `{path}` | {equal} | {differs} | {why} |");
        }
        // Nobody may be reading.
        let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), text.as_bytes());
    }
}

/// Whether the keys of the object at a path are names of fields.
fn is_fixed(path: &str) -> bool {
    let maps = ["Controllers", "Nodes", "ControllerJobs", "ControllerJobs.*", "NodeJobs", "NodeJobs.*"];
    !maps.contains(&path) && !path.ends_with(".TaskStates") && !path.ends_with(".Segments")
}

fn job(id: &str, plugin: &str, driver: &Path, state: &Path) -> Value {
    let arguments = ["--drivername=hostpath.csi.k8s.io", "--endpoint=${CSI_ENDPOINT}", "--nodeid=${node.unique.name}"]
        .map(str::to_owned);
    let arguments: Vec<String> =
        arguments.into_iter().chain([format!("--statedir={}", state.join(id).display())]).collect();
    let task = json!({
        "Name": "plugin", "Driver": "raw_exec", "Config": {"command": driver, "args": arguments},
        "CSIPluginConfig": {"ID": plugin, "Type": "monolith", "MountDir": "/csi"},
        "RestartPolicy": {"Attempts": 10, "Delay": 1_000_000_000, "Interval": 600_000_000_000_i64, "Mode": "delay"},
        "Resources": {"CPU": 50, "MemoryMB": 64},
    });
    json!({"Job": {"ID": id, "Name": id, "Type": "system", "TaskGroups": [{"Name": "csi", "Tasks": [task]}]}})
}

/// The pair.
struct Pair {
    agent: Agent,
    gateway: TestGateway,
    compared: Compared,
    token: String,
}

fn plan(agent: &Agent, token: &str) -> Plan {
    let client = agent.client();
    let id = std::fs::read_to_string(client.join("client-id")).expect("a client that is registered has an id");
    let host = HostId::parse(id.trim()).expect("a legal host id");
    let keep = Keep::In(agent.folder().join("state"));
    let mut plan = Plan::new(host, keep, Some([].into()), vec!["127.0.0.1:0".to_owned()]);
    plan.fingerprint = quick();
    plan.discovery =
        discovery::Settings { places: vec![Place { kind: Kind::Nomad, path: client.clone() }], host_root: None };
    let token = if token.is_empty() { Token::None } else { Token::Secret(token.into()) };
    let address = format!("http://{}", agent.address());
    plan.nomad = Some(NomadPlan { address, token, trust: Trust::default(), state_directories: vec![client] });
    plan
}

impl Pair {
    async fn order(&self, method: &str, target: &str, body: &Value) {
        self.agent.order(method, target, &self.token, body).await;
    }

    async fn run(&self, id: &str, plugin: &str) {
        self.order("PUT", "/v1/jobs", &job(id, plugin, self.agent.driver(), self.agent.folder())).await;
    }

    /// Both answers, `None` where it is none.
    async fn both(&self, target: &str) -> [Option<Value>; 2] {
        let ours = self.gateway.address().trim_start_matches("http://");
        let mut answers = [None, None];
        for (answer, address) in answers.iter_mut().zip([self.agent.address(), ours]) {
            let wire = ask(address, "GET", target, &self.token, "").await;
            *answer = (wire.status == 200).then(|| serde_json::from_str(&wire.plain()).expect("JSON"));
        }
        answers
    }

    /// Waits until both say so of a plugin.
    async fn until(&self, what: &str, plugin: &str, is_so: impl Fn(&Value) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.both(&format!("/v1/plugin/csi/{plugin}?namespace=*")).await;
            if found.iter().all(|answer| answer.as_ref().is_some_and(&is_so)) {
                return;
            }
            assert!(Instant::now() < end, "not in time: {what}: {found:#?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Lays everything that both answer about these plugins side by side. What is on its way gets a few seconds.
    async fn compare(&mut self, what: &str, is_ill: bool, plugins: &[&str]) {
        let views = ["", "?namespace=*", "?namespace=nope"];
        let reads = plugins.iter().flat_map(|plugin| views.map(|view| format!("/v1/plugin/csi/{plugin}{view}")));
        for target in reads.chain([LIST.to_owned(), format!("{LIST}&prefix=host"), format!("{LIST}&prefix=nope")]) {
            let end = Instant::now() + Duration::from_secs(10);
            let [nomad, ours] = loop {
                let [nomad, ours] = self.both(&target).await;
                let (nomad, ours) = (nomad.expect("Nomad answers"), ours.expect("we answer"));
                let mut once = Vec::new();
                Compared::default().walk("", is_ill, Some(&nomad), Some(&ours), &mut once);
                if once.is_empty() || Instant::now() > end {
                    break [nomad, ours];
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            };
            self.compared.take(&format!("{what}: {target}"), is_ill, &nomad, &ours);
        }
    }

    /// What Nomad's command line makes of both.
    async fn command_lines_agree(&self, nomad: &Path, words: &str) {
        let mut outputs = Vec::new();
        for address in [format!("http://{}", self.agent.address()), self.gateway.address().to_owned()] {
            let mut one = command(nomad);
            one.args(words.split(' ')).env("NOMAD_ADDR", address).env("NOMAD_TOKEN", &self.token);
            outputs.push(run(one).await);
        }
        assert_eq!(outputs[0], outputs[1], "{words}");
    }
}

fn healthy(plugin: &Value) -> bool {
    plugin["NodesHealthy"] == 1 && plugin["ControllersHealthy"] == 1
}

fn ill(plugin: &Value) -> bool {
    plugin["NodesHealthy"] == 0 && plugin["ControllersHealthy"] == 0
}

fn allocation(plugin: &Value) -> String {
    let nodes = plugin["Nodes"].as_object().expect("nodes");
    nodes.values().next().expect("one")["AllocID"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_gateway_beside_a_nomad_client_answers_what_nomads_servers_answer() {
    let Some(agent) = Agent::start(false).await else { return };
    let nomad = super::parts::Part::Nomad.find().expect("the agent is one");
    let gateway = TestGateway::of(plan(&agent, "")).await;
    let mut pair = Pair { agent, gateway, compared: Compared::default(), token: String::new() };
    pair.compare("nothing runs", false, &[]).await;

    pair.run("hostpath", "hostpath0").await;
    pair.until("healthy", "hostpath0", healthy).await;
    pair.compare("started", false, &["hostpath0"]).await;
    for words in [
        "plugin status",
        "plugin status -verbose",
        "plugin status hostpath0",
        "plugin status -short host",
        "plugin status nope",
    ] {
        pair.command_lines_agree(&nomad, words).await;
    }
    let [_, ours] = pair.both("/v1/plugin/csi/hostpath0").await;
    let first = allocation(&ours.expect("it runs"));

    pair.agent.signal_driver(&first, Signal::STOP);
    pair.until("hung", "hostpath0", ill).await;
    pair.compare("stopped by SIGSTOP", true, &["hostpath0"]).await;
    pair.agent.signal_driver(&first, Signal::CONT);
    pair.until("going on", "hostpath0", healthy).await;
    pair.compare("continued by SIGCONT", false, &["hostpath0"]).await;

    pair.agent.signal_driver(&first, Signal::KILL);
    // Nomad starts it again after a second, sooner than it would notice.
    pair.until("started again", "hostpath0", |plugin| {
        healthy(plugin) && plugin["Allocations"][0]["TaskStates"]["plugin"]["Restarts"] == 1
    })
    .await;
    pair.compare("killed and started again", false, &["hostpath0"]).await;

    pair.run("second", "hostpath1").await;
    pair.until("healthy", "hostpath1", healthy).await;
    pair.compare("a second job", false, &["hostpath0", "hostpath1"]).await;

    pair.agent.restart().await;
    pair.until("healthy after the agent's restart", "hostpath0", healthy).await;
    pair.until("healthy after the agent's restart", "hostpath1", healthy).await;
    pair.compare("the agent restarted", false, &["hostpath0", "hostpath1"]).await;

    pair.gateway.stop().await;
    pair.gateway = TestGateway::of(plan(&pair.agent, "")).await;
    pair.until("healthy after the gateway's restart", "hostpath1", healthy).await;
    pair.compare("the gateway restarted", false, &["hostpath0", "hostpath1"]).await;

    // A job that is stopped and not purged stays in Nomad's list for minutes, with nothing that runs: there it counts wrong.
    pair.order("DELETE", "/v1/job/second", &Value::Null).await;
    let end = Instant::now() + PATIENCE;
    while pair.gateway.plugin("hostpath1").await.is_some() {
        assert!(Instant::now() < end, "the gateway shows what was stopped");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for job in ["second", "hostpath"] {
        pair.order("DELETE", &format!("/v1/job/{job}?purge=true"), &Value::Null).await;
    }
    while pair.both(LIST).await != [Some(json!([])), Some(json!([]))] {
        assert!(Instant::now() < end, "both show nothing after a purge: {:?}", pair.both(LIST).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    pair.compared.print();
    pair.gateway.stop().await;
}

/// Policies that both get, and the token of each that goes with them.
const POLICIES: [(&str, &str); 4] = [
    ("list", "plugin { policy = \"list\" }"),
    ("read", "plugin { policy = \"read\" }"),
    ("jobs", "plugin { policy = \"read\" }\nnamespace \"default\" { policy = \"read\" }"),
    ("none", "namespace \"default\" { policy = \"read\" }"),
];

#[tokio::test]
async fn with_acls_both_refuse_and_show_the_same_to_the_same_tokens() {
    let Some(agent) = Agent::start(true).await else { return };
    let management = agent.order("POST", "/v1/acl/bootstrap", "", &json!({})).await;
    let management = management["SecretID"].as_str().expect("a secret").to_owned();
    let policies = agent.folder().join("policies");
    let tokens_file = agent.folder().join("tokens.json");
    std::fs::create_dir(&policies).expect("can be made");
    let mut tokens = vec![
        ("anonymous", [String::new(), String::new()]),
        ("unknown", [(); 2].map(|()| "8e6b2f4c-1111-2222-3333-444455556666".to_owned())),
    ];
    for (name, rules) in POLICIES {
        agent
            .order("PUT", &format!("/v1/acl/policy/{name}"), &management, &json!({"Name": name, "Rules": rules}))
            .await;
        std::fs::write(policies.join(format!("{name}.hcl")), rules).expect("can be written");
        let theirs = json!({"Name": name, "Type": "client", "Policies": [name]});
        let theirs = agent.order("PUT", "/v1/acl/token", &management, &theirs).await;
        let mut create = program();
        create.args(["acl", "token", "create", &format!("--policy={name}")]);
        create.arg(format!("--acl-tokens-file={}", tokens_file.display()));
        let (code, secret, err) = run(create).await;
        assert_eq!(code, Some(0), "{err}");
        tokens.push((name, [theirs["SecretID"].as_str().expect("a secret").to_owned(), secret.trim().to_owned()]));
    }
    let mut plan = plan(&agent, &management);
    plan.access = Some(acl::Settings {
        policy_directory: Some(policies),
        tokens_file: Some(tokens_file),
        ..acl::Settings::default()
    });
    let gateway = TestGateway::of(plan).await;
    agent.order("PUT", "/v1/jobs", &management, &job("hostpath", "hostpath0", agent.driver(), agent.folder())).await;

    let ours = gateway.address().trim_start_matches("http://").to_owned();
    let [_, reader] = &tokens.iter().find(|(name, _)| *name == "jobs").expect("made above").1;
    let end = Instant::now() + PATIENCE;
    for (address, token) in [(agent.address(), &management), (ours.as_str(), reader)] {
        while !ask(address, "GET", LIST, token, "").await.plain().contains("\"NodesHealthy\":1") {
            assert!(Instant::now() < end, "healthy at {address}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    let mut compared = Compared::default();
    for (name, [theirs, own]) in &tokens {
        for target in [LIST, "/v1/plugin/csi/hostpath0", "/v1/plugin/csi/hostpath0?namespace=*", "/v1/plugin/csi/nope"]
        {
            let nomad = ask(agent.address(), "GET", target, theirs, "").await;
            let here = ask(&ours, "GET", target, own, "").await;
            let what = format!("{name}: {target}");
            assert_eq!(here.status, nomad.status, "{what}: {} here, {} in Nomad", here.plain(), nomad.plain());
            if nomad.status == 200 {
                let parse = |text: String| serde_json::from_str::<Value>(&text).expect("JSON");
                compared.take(&what, false, &parse(nomad.plain()), &parse(here.plain()));
            } else {
                assert_eq!(here.plain(), nomad.plain(), "{what}");
            }
        }
    }
    compared.print();
    agent.order("DELETE", "/v1/job/hostpath?purge=true", &management, &Value::Null).await;
    gateway.stop().await;
}
