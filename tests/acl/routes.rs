//! Routes asked with tokens of every kind: the conformance cases of `nomad-http.md` section 23 by number, what a running
//! Nomad answered, and a table of all routes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use csi_gateway::acl::{Access, KeySource, Policy, Settings};
use csi_gateway::api;
use csi_gateway::domain::id::Role;
use csi_gateway::domain::record::{Owner, Record};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::identity::{Signer, claims};
use super::support::client::{
    Answer, Lines, NO_META, assert_empty_ok, assert_not_found, assert_text, ids, meanwhile, send,
};
use super::support::fixture::{Fixture, allocation, instance, put};

/// Policies and tokens in files, as our own commands write them.
pub(super) struct Files {
    pub(super) folder: TempDir,
}

impl Files {
    pub(super) fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().expect("a scratch folder") };
        std::fs::create_dir(files.policies()).expect("made");
        files
    }

    pub(super) fn policies(&self) -> PathBuf {
        self.folder.path().join("policies")
    }

    pub(super) fn tokens(&self) -> PathBuf {
        self.folder.path().join("tokens.json")
    }

    pub(super) fn keys(&self) -> PathBuf {
        self.folder.path().join("jwks.json")
    }

    pub(super) fn policy(&self, name: &str, text: &str) {
        let file = self.policies().join(format!("{name}.hcl"));
        std::fs::write(&file, text).expect("written");
        self.command(&["policy", "check", &file.to_string_lossy()]);
    }

    /// A new token's secret.
    pub(super) fn token(&self, arguments: &[&str]) -> String {
        let secret = self.command(&[&["token", "create"], arguments].concat());
        secret.trim().to_owned()
    }

    /// Runs `acl`, and returns what it prints.
    pub(super) fn command(&self, arguments: &[&str]) -> String {
        let file = format!("--acl-tokens-file={}", self.tokens().display());
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_csi-gateway"));
        let done = command.env_remove("NOMAD_TOKEN").arg("acl").args(arguments).arg(file).assert().success();
        String::from_utf8(done.get_output().stdout.clone()).expect("text")
    }

    pub(super) fn access(&self) -> Access {
        let keys = self.keys();
        Access::load(Settings {
            policy_directory: Some(self.policies()),
            tokens_file: Some(self.tokens()),
            keys: keys.is_file().then_some(KeySource::File(keys)),
            audiences: vec!["nomadproject.io".to_owned()],
        })
        .expect("files without an error")
    }
}

const UNKNOWN: &str = "11111111-2222-4333-8444-555555555555";
const GARBAGE: &str = "not-a-uuid";

/// Server B of the conformance cases.
struct ServerB {
    fixture: Fixture,
    files: Files,
    access: Access,
    tokens: Vec<(&'static str, String)>,
}

/// Tokens by name, and what their policies say.
const TOKENS: &[(&str, &[&str])] = &[
    ("READ", &["plugin { policy = \"read\" }"]),
    ("LIST", &["plugin { policy = \"list\" }"]),
    ("WRITE", &["plugin { policy = \"write\" }"]),
    ("RW", &["plugin { policy = \"read\" }", "plugin { policy = \"write\" }"]),
    ("DENY", &["plugin { policy = \"read\" }", "plugin { policy = \"deny\" }"]),
    ("READJ", &["plugin { policy = \"read\" }\nnamespace \"default\" { capabilities = [\"read-job\"] }"]),
    ("READA", &["plugin { policy = \"read\" }\nnamespace \"apps\" { policy = \"read\" }"]),
    (
        "EXCEPT",
        &[
            "plugin { policy = \"read\" }\nnamespace \"*\" { policy = \"read\" }\nnamespace \"apps\" { policy = \"deny\" }",
        ],
    ),
    ("NONE", &["quota { policy = \"read\" }"]),
    ("AGENT", &["agent { policy = \"read\" }"]),
    ("NODE", &["node { policy = \"write\" }"]),
    ("JOBS", &["namespace \"default\" { policy = \"read\" }"]),
];

impl ServerB {
    fn new(anonymous: Option<&str>) -> Self {
        let files = Files::new();
        if let Some(text) = anonymous {
            files.policy("anonymous", text);
        }
        let mut tokens = Vec::new();
        for (name, policies) in TOKENS {
            let mut arguments = vec![format!("--name={name}")];
            for (number, text) in policies.iter().enumerate() {
                let policy = format!("{}-{number}", name.to_lowercase());
                files.policy(&policy, text);
                arguments.push(format!("--policy={policy}"));
            }
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            tokens.push((*name, files.token(&arguments)));
        }
        tokens.push(("MGMT", files.token(&["--management"])));
        tokens.push(("EXP", files.token(&["--policy=read-0", "--ttl=1ns"])));
        tokens.push(("unknown", UNKNOWN.to_owned()));
        tokens.push(("garbage", GARBAGE.to_owned()));
        // A workload whose job has the policy of READ.
        let signer = Signer::new();
        std::fs::write(files.keys(), signer.keys("ed", "rsa").to_string()).expect("written");
        std::fs::write(files.policies().join("read-0.job.hcl"), "namespace = \"default\"").expect("written");
        tokens.push(("WORKLOAD", signer.identity(&claims("default", "web", "api", "server"))));
        let access = files.access();
        let fixture = Fixture::conformance_for(api::Settings::default(), Some(access.clone())).with_allocations();
        Self { fixture, files, access, tokens }
    }

    fn secret(&self, name: &str) -> &str {
        &self.tokens.iter().find(|(known, _)| *known == name).expect("a token of this name").1
    }

    async fn with(&self, headers: &[(&str, &str)], target: &str) -> Answer {
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(&self.fixture, request.body(Body::empty()).expect("a legal request")).await
    }

    /// Asks with a token by its name; the empty one is none.
    async fn get(&self, token: &str, target: &str) -> Answer {
        match token {
            "" => self.with(&[], target).await,
            token => self.with(&[("X-Nomad-Token", self.secret(token))], target).await,
        }
    }
}

const LIST: &str = "/v1/plugins?type=csi";

fn assert_denied(case: &str, answer: &Answer) {
    assert_text(case, answer, 403, "Permission denied");
    assert_eq!(answer.meta(), NO_META, "{case}");
}

fn shown(answer: &Answer) -> Option<Vec<String>> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let allocations = answer.json()["Allocations"].as_array()?.clone();
    Some(allocations.iter().map(|one| one["ID"].as_str().expect("text").to_owned()).collect())
}

#[tokio::test]
async fn cases_61_to_71_who_may_list_and_read() {
    let b = ServerB::new(None);
    assert_denied("61", &b.get("", LIST).await);
    let no_type = b.get("", "/v1/plugins").await;
    assert_eq!((no_type.status, &*no_type.body, no_type.meta()), (StatusCode::OK, "[]", NO_META), "62");
    assert_empty_ok("63", &b.get("", "/v1/plugins?type=host").await);
    let list = b.get("MGMT", LIST).await;
    assert_eq!(ids(&list), ["ebs-prod", "ebs-prod-2", "nfs"], "64");
    for token in ["READ", "LIST"] {
        assert_eq!(b.get(token, LIST).await, list, "64: {token}");
    }
    for token in ["WRITE", "RW", "DENY", "NONE", "EXP", "unknown", "garbage"] {
        assert_denied(&format!("65: {token}"), &b.get(token, LIST).await);
    }
    let read = |id: &str| format!("/v1/plugin/csi/{id}");
    assert_denied("66", &b.get("LIST", &read("nfs")).await);
    assert_eq!(b.get("READ", &read("nfs")).await.status, 200, "66");
    assert_denied("67", &b.get("LIST", &read("missing")).await);
    let missing = b.get("READ", &read("missing")).await;
    assert_not_found("67", &missing);
    assert_denied("68", &b.get("LIST", &read("")).await);
    assert_text("68", &b.get("READ", &read("")).await, 500, "missing plugin ID");
    assert_text("69", &b.get("", &read("a/b/c")).await, 404, "resource not found");
    for token in ["LIST", "", "unknown"] {
        assert_text("70", &b.get(token, &format!("{LIST}&index=abc")).await, 400, "Invalid index");
    }
    assert_text("71", &b.get("unknown", &format!("{LIST}&region=mars")).await, 500, "No path to region");
}

#[tokio::test]
async fn cases_72_to_75_and_82_whose_allocations_are_shown() {
    let b = ServerB::new(None);
    for (case, token, query, wanted) in [
        ("72", "READ", "", None),
        ("72", "READ", "?namespace=*", None),
        ("73", "READJ", "", Some(&["a2", "a1"][..])),
        ("73", "READJ", "?namespace=apps", None),
        ("73", "READJ", "?namespace=*", Some(&["a2", "a1"])),
        ("74", "READA", "", None),
        ("74", "READA", "?namespace=apps", Some(&["a3"])),
        ("74", "READA", "?namespace=*", Some(&["a3"])),
        ("75", "MGMT", "", Some(&["a2", "a1"])),
        ("75", "MGMT", "?namespace=*", Some(&["a2", "a3", "a1"])),
        ("75", "MGMT", "?namespace=nope", None),
        ("82", "EXCEPT", "?namespace=*", Some(&["a2", "a1"])),
        ("82", "EXCEPT", "?namespace=apps", None),
    ] {
        let answer = b.get(token, &format!("/v1/plugin/csi/ebs-prod{query}")).await;
        assert_eq!(
            shown(&answer).as_deref(),
            wanted.map(<[&str]>::to_vec).map(|ids| ids.into_iter().map(str::to_owned).collect::<Vec<_>>()).as_deref(),
            "{case}: {token} {query}"
        );
        let mut rest = answer.json();
        rest["Allocations"] = Value::Null;
        assert_eq!(rest, b.get("READ", "/v1/plugin/csi/ebs-prod").await.json(), "{case}: the rest is everybody's");
    }
}

#[tokio::test]
async fn cases_76_to_81_where_the_token_is_and_who_has_none() {
    let b = ServerB::new(None);
    let (read, none) = (b.secret("READ").to_owned(), b.secret("NONE").to_owned());
    let upper = read.to_uppercase();
    for (case, headers, status) in [
        ("76", vec![("Authorization", format!("Bearer {read}"))], 200),
        ("76", vec![("Authorization", format!("bearer {read}"))], 200),
        ("76", vec![("Authorization", format!("BEARER  {read} x"))], 200),
        ("77", vec![("Authorization", format!("Basic {read}"))], 403),
        ("77", vec![("Authorization", read.clone())], 403),
        ("78", vec![("X-Nomad-Token", none), ("Authorization", format!("Bearer {read}"))], 403),
        ("79", vec![("X-Nomad-Token", format!(" {read} "))], 200),
        ("79", vec![("X-Nomad-Token", upper)], 200),
    ] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = b.with(&headers, LIST).await;
        assert_eq!(answer.status, status, "{case}");
        if status == 403 {
            assert_denied(case, &answer);
        }
    }
    assert_denied("80", &b.get("", &format!("{LIST}&token={read}")).await);

    let open = ServerB::new(Some("plugin { policy = \"list\" }"));
    assert_eq!(open.get("", LIST).await.status, 200, "81");
    assert_denied("81", &open.get("", "/v1/plugin/csi/nfs").await);
    for token in ["unknown", "garbage", "EXP", "NONE"] {
        assert_denied(&format!("81: {token}"), &open.get(token, LIST).await);
    }
}

#[test]
fn cases_83_and_84_texts_of_policies() {
    for text in ["plugin { policy = \"reader\" }", "plugin {}", "plugin { policy = \"READ\" }"] {
        assert!(Policy::parse(text).is_err(), "83: {text}");
    }
    assert_eq!(
        Policy::parse("{\"plugin\":{\"policy\":\"list\"}}"),
        Policy::parse("plugin { policy = \"list\" }"),
        "84"
    );
}

#[tokio::test]
async fn case_86_the_token_itself() {
    let target = "/v1/acl/token/self";
    let a = Fixture::conformance();
    let off = super::support::client::get(&a, target).await;
    assert_eq!((off.status, &off.json()["AccessorID"]), (StatusCode::OK, &json!("acls-disabled")), "86");
    let b = ServerB::new(None);
    let anonymous = b.get("", target).await;
    assert_eq!(anonymous.json()["AccessorID"], "anonymous", "86");
    assert_eq!(anonymous.json()["Policies"], json!(["anonymous"]), "86");
    assert_denied("86", &b.get("unknown", target).await);
    let garbage = b.get("garbage", target).await;
    assert_eq!(garbage.status, 500, "86");
    assert!(garbage.body.starts_with("failed to parse signed token: "), "86: {}", garbage.body);
    assert_text("86", &b.get("EXP", target).await, 500, "ACL token expired");
    let own = b.get("RW", target).await.json();
    assert_eq!(own["Name"], "RW");
    assert_eq!(own["Type"], "client");
    assert_eq!(own["Policies"], json!(["rw-0", "rw-1"]));
    assert_eq!(own["SecretID"], b.secret("RW"), "whoever asks has shown it");
    assert_eq!(own["ExpirationTime"], Value::Null);
    assert_eq!(b.get("MGMT", target).await.json()["Type"], "management");
    assert_eq!(own.as_object().expect("an object").len(), off.json().as_object().expect("an object").len());
}

#[tokio::test]
async fn policies_are_shown_to_those_who_have_them() {
    let b = ServerB::new(Some("plugin { policy = \"list\" }"));
    let policy = |name: &str| format!("/v1/acl/policy/{name}");
    for (token, name, status, text) in [
        ("READ", "read-0", 200, "plugin { policy = \"read\" }"),
        ("", "anonymous", 200, "plugin { policy = \"list\" }"),
        ("READ", "anonymous", 200, "plugin { policy = \"list\" }"),
        ("MGMT", "list-0", 200, "plugin { policy = \"list\" }"),
        ("MGMT", "missing", 404, "ACL policy not found"),
        ("READ", "list-0", 403, "Permission denied"),
        ("", "read-0", 403, "Permission denied"),
        ("unknown", "anonymous", 403, "Permission denied"),
    ] {
        let answer = b.get(token, &policy(name)).await;
        assert_eq!(answer.status, status, "{token} {name}");
        if status == 200 {
            assert_eq!(answer.json()["Rules"], text, "{token} {name}");
            assert_eq!(answer.json()["Name"], name);
        } else {
            assert_eq!(answer.body, text, "{token} {name}");
        }
    }
}

/// One line of what a running Nomad answered.
#[derive(Deserialize)]
struct Recorded {
    case: String,
    token: String,
    status: u16,
    index: Option<String>,
    body: Option<String>,
    plugins: Option<usize>,
    #[serde(default)]
    allocations: Option<usize>,
}

#[tokio::test]
async fn what_a_running_nomad_answered_is_what_we_answer() {
    let files = Files::new();
    let plugin = |level: &str| format!("plugin {{ policy = \"{level}\" }}\n");
    let namespace = |name: &str| format!("namespace \"{name}\" {{ policy = \"read\" }}\n");
    let read_job = "namespace \"default\" { capabilities = [\"read-job\"] }";
    let csi =
        "namespace \"default\" { capabilities = [\"csi-register-plugin\", \"csi-read-volume\", \"csi-list-volume\"] }";
    let policies = [
        ("agent-only", "agent { policy = \"read\" }".to_owned()),
        ("csi-caps", csi.to_owned()),
        ("ns-other", plugin("read") + &namespace("other")),
        ("ns-read", namespace("default")),
        ("ns-read-plugin-read", plugin("read") + &namespace("default")),
        ("plugin-deny", plugin("deny")),
        ("plugin-list", plugin("list")),
        ("plugin-read", plugin("read")),
        ("readjob-plugin", plugin("read") + read_job),
        ("star-ns", plugin("read") + &namespace("*")),
    ];
    let mut secrets: Vec<(&str, String)> = Vec::new();
    for (name, text) in &policies {
        files.policy(name, text);
        secrets.push((name, files.token(&[&format!("--policy={name}")])));
    }
    secrets.push(("two-policies", files.token(&["--policy=plugin-list", "--policy=plugin-read"])));
    secrets.push(("management", files.token(&["--management"])));
    secrets.push(("unknown-uuid", UNKNOWN.to_owned()));
    secrets.push(("not-a-uuid", GARBAGE.to_owned()));
    let secret = |name: &str| secrets.iter().find(|(known, _)| *known == name).map(|(_, secret)| secret.clone());
    let fixture = Fixture::guarded(api::Settings::default(), Some(files.access()));
    let owned = |role| Record { owner: Owner::allocation("a1"), ..instance("hostpath0", role, "host-0001") };
    fixture.apply_at(41, [put(owned(Role::Controller))]);
    fixture.apply_at(42, [put(owned(Role::Node))]);
    fixture.allocations.replace([allocation("a1", "default", 40)]);
    let read = secret("plugin-read").expect("a token");
    let mut count = 0;
    for line in include_str!("../golden/nomad-acl.jsonl").lines() {
        let recorded: Recorded = serde_json::from_str(line).expect("a recorded line");
        let mut target = match &*recorded.case {
            "list" => LIST,
            "list-ns-star" => "/v1/plugins?type=csi&namespace=*",
            "list-block" => "/v1/plugins?type=csi&index=1&wait=1s",
            "list-no-type" => "/v1/plugins",
            "read" => "/v1/plugin/csi/hostpath0",
            "read-ns-star" => "/v1/plugin/csi/hostpath0?namespace=*",
            "read-ns-other" => "/v1/plugin/csi/hostpath0?namespace=other",
            "read-unknown" => "/v1/plugin/csi/nope",
            "read-no-id" => "/v1/plugin/csi/",
            other => panic!("a case that is not known: {other}"),
        }
        .to_owned();
        let mut request = Request::builder();
        match &*recorded.token {
            "anonymous" => {}
            "bearer" => request = request.header("Authorization", format!("Bearer {read}")),
            "bearer-lower" => request = request.header("Authorization", format!("bearer {read}")),
            "basic" => request = request.header("Authorization", format!("Basic {read}")),
            "query-token" => target.push_str(&format!("&token={read}")),
            "both-headers" => {
                request = request.header("X-Nomad-Token", &read).header("Authorization", format!("Bearer {UNKNOWN}"));
            }
            name => request = request.header("X-Nomad-Token", secret(name).expect(name)),
        }
        let answer = send(&fixture, request.uri(&target).body(Body::empty()).expect("legal")).await;
        let what = format!("{} {}", recorded.case, recorded.token);
        assert_eq!(answer.status, recorded.status, "{what}");
        assert_eq!(answer.header("x-nomad-index"), recorded.index.as_deref(), "{what}");
        if let Some(body) = &recorded.body {
            assert_eq!(answer.body, *body, "{what}");
        } else if let Some(plugins) = recorded.plugins {
            assert_eq!(answer.json().as_array().expect("an array").len(), plugins, "{what}");
        } else {
            assert_eq!(shown(&answer).map(|ids| ids.len()), recorded.allocations, "{what}");
        }
        count += 1;
    }
    assert_eq!(count, 95, "every line of the recording");
}

/// Statuses of a route for the askers of [`ASKERS`], in their order.
struct RouteRow(&'static str, &'static str, &'static str, [u16; 13]);

const ASKERS: [&str; 13] =
    ["", "garbage", "unknown", "EXP", "NONE", "WRITE", "LIST", "READ", "AGENT", "NODE", "JOBS", "MGMT", "WORKLOAD"];

const OPEN: [u16; 13] = [200; 13];
const PLUGIN_READ: [u16; 13] = [403, 403, 403, 403, 403, 403, 403, 200, 403, 403, 403, 200, 200];

/// Every route; the second path is one of it that can be asked for.
const ROUTES: &[RouteRow] = &[
    RouteRow("GET", "/v1/plugins", LIST, [403, 403, 403, 403, 403, 403, 200, 200, 403, 403, 403, 200, 200]),
    RouteRow("GET", "/v1/plugin/csi/:id", "/v1/plugin/csi/nfs", PLUGIN_READ),
    RouteRow("GET", "/v1/gateway", "/v1/gateway", PLUGIN_READ),
    RouteRow("GET", "/v1/gateway/plugins", "/v1/gateway/plugins", PLUGIN_READ),
    RouteRow("GET", "/v1/gateway/plugin/:id", "/v1/gateway/plugin/nfs", PLUGIN_READ),
    // The fixture takes no commands; `only_a_manager_forgets` asks a gateway that does.
    RouteRow("DELETE", "/v1/gateway/plugin/:id", "/v1/gateway/plugin/nfs", [405; 13]),
    RouteRow("GET", "/v1/gateway/hosts", "/v1/gateway/hosts", PLUGIN_READ),
    RouteRow("GET", "/v1/gateway/host/:id", "/v1/gateway/host/host-0001", PLUGIN_READ),
    RouteRow("GET", "/v1/gateway/sockets", "/v1/gateway/sockets", PLUGIN_READ),
    RouteRow("GET", "/v1/gateway/history", "/v1/gateway/history", PLUGIN_READ),
    RouteRow("GET", "/v1/gateway/stream", "/v1/gateway/stream", PLUGIN_READ),
    RouteRow(
        "GET",
        "/v1/event/stream",
        "/v1/event/stream?topic=CSIPlugin",
        [403, 403, 403, 403, 403, 403, 403, 403, 403, 403, 200, 200, 403],
    ),
    RouteRow("PUT", "/v1/search", "/v1/search", [403, 403, 403, 403, 403, 403, 200, 200, 403, 403, 403, 200, 200]),
    RouteRow(
        "PUT",
        "/v1/search/fuzzy",
        "/v1/search/fuzzy",
        [403, 403, 403, 403, 403, 403, 200, 200, 403, 403, 403, 200, 200],
    ),
    RouteRow("GET", "/v1/status/leader", "/v1/status/leader", OPEN),
    RouteRow("GET", "/v1/status/peers", "/v1/status/peers", OPEN),
    RouteRow("GET", "/v1/regions", "/v1/regions", OPEN),
    RouteRow("GET", "/v1/agent/health", "/v1/agent/health", OPEN),
    RouteRow(
        "GET",
        "/v1/agent/self",
        "/v1/agent/self",
        [403, 403, 403, 403, 403, 403, 403, 403, 200, 403, 403, 200, 403],
    ),
    RouteRow(
        "GET",
        "/v1/agent/members",
        "/v1/agent/members",
        [403, 403, 403, 403, 403, 403, 403, 403, 403, 200, 403, 200, 403],
    ),
    RouteRow(
        "GET",
        "/v1/namespaces",
        "/v1/namespaces",
        [200, 403, 403, 403, 200, 200, 200, 200, 200, 200, 200, 200, 200],
    ),
    RouteRow(
        "GET",
        "/v1/acl/token/self",
        "/v1/acl/token/self",
        [200, 500, 403, 500, 200, 200, 200, 200, 200, 200, 200, 200, 404],
    ),
    RouteRow(
        "GET",
        "/v1/acl/policy/:name",
        "/v1/acl/policy/read-0",
        [403, 403, 403, 403, 403, 403, 403, 200, 403, 403, 403, 200, 200],
    ),
    RouteRow("GET", "/v1/operator/license", "/v1/operator/license", [204; 13]),
    RouteRow("GET", "/ui/:file", "/ui/", OPEN),
    RouteRow("GET", "/openapi.json", "/openapi.json", OPEN),
    RouteRow("GET", "/livez", "/livez", OPEN),
    RouteRow("GET", "/healthz", "/healthz", OPEN),
    RouteRow("GET", "/readyz", "/readyz", OPEN),
    RouteRow("GET", "/metrics", "/metrics", [403, 403, 403, 403, 403, 403, 403, 403, 200, 403, 403, 200, 403]),
];

async fn status(fixture: &Fixture, method: &str, target: &str, secret: Option<&str>) -> (u16, String) {
    use axum::body::HttpBody;
    use tower::ServiceExt;
    let mut request = Request::builder().method(method).uri(target);
    if let Some(secret) = secret {
        request = request.header("X-Nomad-Token", secret);
    }
    let body = if method == "PUT" { r#"{"Prefix":"ebs","Text":"ebs","Context":"plugins"}"# } else { "" };
    let request = request.body(Body::from(body)).expect("a legal request");
    let response = fixture.api.router().oneshot(request).await.expect("infallible");
    let status = response.status().as_u16();
    // A stream never ends; whatever is refused does.
    let is_whole = response.body().size_hint().exact().is_some();
    let body = if is_whole {
        http_body_util::BodyExt::collect(response.into_body()).await.expect("bodies")
    } else {
        Default::default()
    };
    (status, String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

#[tokio::test]
async fn every_route_answers_every_kind_of_token_as_the_table_says() {
    let documented: BTreeSet<(String, String)> =
        api::rights().into_iter().map(|(method, path, _)| (method.to_owned(), path)).collect();
    let tested = ROUTES.iter().map(|RouteRow(method, path, ..)| ((*method).to_owned(), (*path).to_owned()));
    assert_eq!(tested.collect::<BTreeSet<_>>(), documented, "a route without a row");
    let b = ServerB::new(None);
    let mut wrong = Vec::new();
    for RouteRow(method, path, target, statuses) in ROUTES {
        for (asker, wanted) in ASKERS.iter().zip(statuses) {
            let secret = (!asker.is_empty()).then(|| b.secret(asker));
            let (found, body) = status(&b.fixture, method, target, secret).await;
            if found != *wanted {
                wrong.push(format!("{method} {path} as `{asker}`: {found} instead of {wanted}: {body}"));
            }
            if found == 403 {
                let is_ours = path.starts_with("/v1/gateway") || *path == "/metrics";
                let says = if is_ours {
                    body.starts_with("Permission denied: this needs ")
                } else {
                    body == "Permission denied"
                };
                assert!(says, "{method} {path} as `{asker}`: {body}");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // With ACLs off all of them are open, whatever the token.
    let off = Fixture::conformance();
    for RouteRow(method, path, target, _) in ROUTES.iter().filter(|row| row.0 != "DELETE") {
        for secret in [None, Some(GARBAGE)] {
            let (found, _) = status(&off, method, target, secret).await;
            let wanted = match *path {
                "/v1/operator/license" => 204,
                "/v1/acl/policy/:name" => 400,
                _ => 200,
            };
            assert_eq!(found, wanted, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn metrics_are_open_by_choice() {
    let files = Files::new();
    let settings = api::Settings { is_metrics_open: true, ..api::Settings::default() };
    let fixture = Fixture::guarded(settings, Some(files.access()));
    for secret in [None, Some(UNKNOWN)] {
        assert_eq!(status(&fixture, "GET", "/metrics", secret).await.0, 200);
        assert_eq!(status(&fixture, "GET", "/v1/agent/self", secret).await.0, 403);
    }
}

#[test]
fn the_readme_has_the_table_of_rights() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("a README");
    let rows = api::rights().into_iter().map(|(method, path, needs)| format!("| `{method} {path}` | {needs} |\n"));
    let table: String = rows.collect();
    assert!(readme.contains(&table), "the README should have this table:\n{table}");
}

#[tokio::test]
async fn namespaces_and_contexts_are_those_that_may_be_seen() {
    let b = ServerB::new(None);
    assert_eq!(b.get("READ", "/v1/namespaces").await.json(), json!([]));
    assert_eq!(b.get("JOBS", "/v1/namespaces").await.json()[0]["Name"], "default");
    let search = async |token: &str, path: &str, body: &'static str| {
        let request = Request::put(path).header("X-Nomad-Token", b.secret(token));
        send(&b.fixture, request.body(Body::from(body)).expect("legal")).await
    };
    let all = r#"{"Prefix":"","Context":"all"}"#;
    assert_eq!(search("JOBS", "/v1/search", all).await.json()["Matches"], json!({"namespaces": ["default"]}));
    let plugins = json!({"plugins": ["ebs-prod", "ebs-prod-2", "nfs"]});
    assert_eq!(search("LIST", "/v1/search", all).await.json()["Matches"], plugins);
    assert_denied("88", &search("NONE", "/v1/search", all).await);
    let everywhere = r#"{"Text":"ebs","Context":"plugins","Namespace":"*"}"#;
    assert_eq!(search("LIST", "/v1/search/fuzzy", everywhere).await.json()["Matches"], json!({}));
    let found = search("READ", "/v1/search/fuzzy", everywhere).await.json();
    assert_eq!(found["Matches"]["plugins"], json!([{"ID": "ebs-prod"}, {"ID": "ebs-prod-2"}]));
}

fn revoke(b: &ServerB, name: &str) {
    let tokens: Value = serde_json::from_str(&b.files.command(&["token", "list", "--json"])).expect("JSON");
    let token = tokens.as_array().expect("an array").iter().find(|token| token["Name"] == name).expect("a token");
    b.files.command(&["token", "revoke", token["AccessorID"].as_str().expect("text")]);
    b.access.reload();
}

#[tokio::test]
async fn a_reader_who_waits_gets_its_answer_though_its_token_is_revoked_meanwhile() {
    let b = ServerB::new(None);
    let target = "/v1/plugin/csi/ebs-prod?namespace=*&index=104&wait=60s";
    let (answer, _) = meanwhile(b.get("READJ", target), 0.2, || {
        revoke(&b, "READJ");
        b.fixture.apply([put(super::support::fixture::node("ebs-prod", "host-0009"))]);
    })
    .await;
    // With the rights that it had when it began to wait.
    assert_eq!(shown(&answer), Some(vec!["a2".to_owned(), "a1".to_owned()]));
    assert_denied("the next one", &b.get("READJ", target).await);
}

#[tokio::test]
async fn a_reader_who_waits_gets_its_answer_though_its_token_expires_meanwhile() {
    let b = ServerB::new(None);
    let secret = b.files.token(&["--policy=readj-0", "--ttl=2s"]);
    b.access.reload();
    let ask = async |target: &str| b.with(&[("X-Nomad-Token", &secret)], target).await;
    // Behind the end of the token; nothing changes meanwhile.
    let waited = ask("/v1/plugin/csi/ebs-prod?namespace=*&index=104&wait=3s").await;
    assert_eq!(shown(&waited), Some(vec!["a2".to_owned(), "a1".to_owned()]));
    assert_denied("the next one", &ask("/v1/plugin/csi/ebs-prod").await);
}

#[tokio::test]
async fn namespaces_that_clients_make_up_are_never_kept() {
    let b = ServerB::new(None);
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number")
    };
    let name = "n".repeat(60_000);
    let ask = async |number: u32| {
        let target = format!("/v1/plugin/csi/ebs-prod?namespace={name}{number}");
        assert_eq!(shown(&b.get("MGMT", &target).await), None);
        assert_eq!(b.get("unknown", &target).await.status, 403);
    };
    for number in 0..100 {
        ask(number).await;
    }
    let before = resident();
    // Kept once each, they would be 115 MiB; other tests of this process need some, too.
    for number in 100..2_100 {
        ask(number).await;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 40 << 10, "{grown} KiB more");
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_revoked_or_allows_less_or_has_expired() {
    let b = ServerB::new(None);
    let stream = async |token: &str, target: &str| {
        let request = Request::get(target).header("X-Nomad-Token", b.secret(token)).body(Body::empty());
        Lines::answering(&b.fixture, request.expect("legal")).await
    };
    let mut ours = stream("READ", "/v1/gateway/stream?index=104").await;
    let mut nomads = stream("JOBS", "/v1/event/stream?topic=CSIPlugin&index=104").await;
    let mut managers = stream("MGMT", "/v1/event/stream").await;
    assert_eq!(nomads.next().await.as_deref(), Some("{}"));
    assert_eq!(managers.next().await.as_deref(), Some("{}"));
    revoke(&b, "READ");
    assert_eq!(ours.next().await, None, "revoked");
    b.files.policy("jobs-0", "namespace \"default\" { policy = \"deny\" }");
    b.access.reload();
    while let Some(line) = nomads.next().await {
        assert!(line.starts_with('{'), "what was under way: {line}");
    }
    let secret = b.files.token(&["--management", "--ttl=1500ms"]);
    b.access.reload();
    let request = Request::get("/v1/gateway/stream?index=104").header("X-Nomad-Token", secret).body(Body::empty());
    let mut short = Lines::answering(&b.fixture, request.expect("legal")).await;
    let ended = tokio::time::timeout(Duration::from_secs(60), short.next()).await;
    assert_eq!(ended.expect("within its time"), None, "expired");
    assert!(managers.next().await.is_some(), "others go on");
}

#[tokio::test]
async fn only_a_management_token_may_hear_of_all_topics() {
    let b = ServerB::new(None);
    for (token, query, wanted) in [
        ("JOBS", "", 403),
        ("JOBS", "?topic=*", 403),
        ("JOBS", "?topic=*:nfs", 403),
        ("JOBS", "?topic=CSIPlugin&namespace=apps", 403),
        ("JOBS", "?topic=CSIPlugin:nfs", 200),
        ("MGMT", "", 200),
        ("READ", "?topic=CSIPlugin", 403),
    ] {
        let target = format!("/v1/event/stream{query}");
        assert_eq!(status(&b.fixture, "GET", &target, Some(b.secret(token))).await.0, wanted, "{token} {query}");
    }
    assert_text(
        "order",
        &b.get("unknown", "/v1/event/stream?topic=a:b:c").await,
        400,
        "Invalid topic query: error parsing topics: Invalid key value pair for topic, topic: a:b:c",
    );
    let method = super::support::client::call(&b.fixture, Method::POST, "/v1/plugins").await;
    assert_text("method", &method, 405, "Invalid method");
}
