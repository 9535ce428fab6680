//! The built binary with ACLs on: what a newcomer does, what is read anew, and that no secret is left anywhere.

use std::path::Path;

use csi_gateway::demo::FakeDriver;
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::identity::{Signer, claims};
use super::routes::Files;
use super::support::process::{Serving, gateway, run, signal, until};

const LIST: &str = "/v1/plugins?type=csi";

/// One request, word by word; status and body.
async fn ask(serving: &Serving, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    exchange(serving.address.strip_prefix("http://").expect("TCP"), method, target, headers, body).await
}

/// The same with anybody.
pub(super) async fn exchange(
    address: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

async fn get(serving: &Serving, target: &str, token: &str) -> (u16, String) {
    ask(serving, "GET", target, &[("X-Nomad-Token", token)], "").await
}

/// Waits until a token gets a status.
async fn until_it_gets(serving: &Serving, target: &str, token: &str, wanted: u16) {
    until(&format!("{wanted} for {target}"), async || match get(serving, target, token).await {
        (status, _) if status == wanted => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// A gateway with ACLs on, beside no driver.
async fn serving(files: &Files, more: &[&str]) -> Serving {
    let (policies, tokens) = (files.policies(), files.tokens());
    let folder = files.folder.path();
    let sockets = folder.join("sockets");
    std::fs::create_dir_all(&sockets).expect("made");
    let own = [
        "serve".to_owned(),
        "--host-id=host-12345678".to_owned(),
        "--http-endpoint=127.0.0.1:0".to_owned(),
        format!("--csi-plugins-dir={}", sockets.display()),
        format!("--state-dir={}", folder.join("state").display()),
        "--acl-enabled".to_owned(),
        format!("--acl-policy-dir={}", policies.display()),
        format!("--acl-tokens-file={}", tokens.display()),
    ];
    let arguments: Vec<&str> = own.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Serving::start(&arguments, &folder.join("log")).await
}

fn log(files: &Files) -> String {
    std::fs::read_to_string(files.folder.path().join("log")).expect("a log")
}

#[tokio::test]
async fn a_newcomer_turns_them_on_makes_a_token_changes_a_policy_and_revokes_the_token() {
    let files = Files::new();
    let serving = serving(&files, &[]).await;
    let denied = (403, "Permission denied".to_owned());
    assert_eq!(ask(&serving, "GET", LIST, &[], "").await, denied);
    assert!(log(&files).contains("acl token create"), "it says how to make the first token");
    files.policy("readers", "plugin {\n  policy = \"read\"\n}\n");
    let secret = files.token(&["--policy=readers", "--name=terraform"]);
    until_it_gets(&serving, LIST, &secret, 200).await;
    // Without a token it is as before; the log says which rule is missing, and not what was sent.
    assert_eq!(ask(&serving, "GET", LIST, &[], "").await, denied);
    assert!(log(&files).contains("needs=plugin { policy = \"list\" }"), "{}", log(&files));

    files.policy("readers", "plugin { policy = \"list\" }");
    until_it_gets(&serving, "/v1/plugin/csi/nfs", &secret, 403).await;
    assert_eq!(get(&serving, LIST, &secret).await.0, 200);

    // A mistake changes nothing, and is said.
    std::fs::write(files.policies().join("readers.hcl"), "plugin { policy = \"lst\" }").expect("written");
    signal(&serving.child, Signal::HUP);
    let manager = files.token(&["--management"]);
    until("the log says it", async || {
        let log = log(&files);
        if log.contains("stay as they were") && log.contains("Invalid plugin policy") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(get(&serving, LIST, &secret).await.0, 200);
    assert_eq!(get(&serving, LIST, &manager).await.0, 403, "the new token is not in force either");
    files.policy("readers", "plugin { policy = \"list\" }");
    until_it_gets(&serving, "/v1/gateway", &manager, 200).await;
    let (_, body) = get(&serving, "/v1/gateway", &manager).await;
    let standing: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        standing["ACL"],
        serde_json::json!({"Enabled": true, "Keys": 0, "Policies": 1, "Problem": "", "Tokens": 2})
    );

    let listed = files.command(&["token", "list"]);
    let row = listed.lines().find(|line| line.starts_with("terraform")).expect(&listed);
    let accessor = row.split_whitespace().nth(2).expect("an accessor id");
    let revoked = files.command(&["token", "revoke", accessor]);
    assert!(revoked.starts_with("revoked: token `terraform`"), "{revoked}");
    until_it_gets(&serving, LIST, &secret, 403).await;
}

#[tokio::test]
async fn the_file_that_a_problem_is_in_stands_under_v1_gateway_until_it_is_well() {
    let files = Files::new();
    let manager = files.token(&["--management"]);
    let serving = serving(&files, &[]).await;
    until_it_gets(&serving, "/v1/gateway", &manager, 200).await;
    std::fs::write(files.policies().join("broken.hcl"), "plugin {").expect("written");
    let problem = async || {
        let (_, body) = get(&serving, "/v1/gateway", &manager).await;
        let gateway: Value = serde_json::from_str(&body).expect("JSON");
        gateway["ACL"]["Problem"].as_str().expect("text").to_owned()
    };
    until("it is said", async || {
        let problem = problem().await;
        if problem.contains("broken.hcl") && problem.contains("line 1") { Ok(()) } else { Err(problem) }
    })
    .await;
    std::fs::remove_file(files.policies().join("broken.hcl")).expect("removed");
    until("it is over", async || if problem().await.is_empty() { Ok(()) } else { Err(problem().await) }).await;
}

#[tokio::test]
async fn sighup_ends_no_gateway_whether_it_has_files_to_read_anew_or_not() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let socket = format!("--csi-plugins-dir={}", folder.path().display());
    let state = format!("--state-dir={}", folder.path().join("state").display());
    let log = folder.path().join("log");
    let serving = Serving::start(&["serve", "--http-endpoint=127.0.0.1:0", &socket, &state], &log).await;
    for round in 1..=3 {
        signal(&serving.child, Signal::HUP);
        until("it says that there is nothing to read", async || {
            let log = std::fs::read_to_string(&log).expect("a log");
            if log.matches("SIGHUP: there is no file").count() >= round { Ok(()) } else { Err(log) }
        })
        .await;
    }
    assert_eq!(ask(&serving, "GET", LIST, &[], "").await.0, 200);
}

#[tokio::test]
async fn only_a_manager_forgets() {
    let files = Files::new();
    files.policy("readers", "plugin { policy = \"read\" }");
    let (reader, manager) = (files.token(&["--policy=readers"]), files.token(&["--management"]));
    let serving = serving(&files, &[]).await;
    let socket = files.folder.path().join("sockets/nfs/csi.sock");
    std::fs::create_dir(socket.parent().expect("a folder")).expect("made");
    let driver = FakeDriver::node("nfs.example.com").serve(&socket).await.expect("binds");
    let target = "/v1/gateway/plugin/nfs.example.com";
    until_it_gets(&serving, "/v1/plugin/csi/nfs.example.com", &reader, 200).await;
    for (token, wanted) in [("", 403), ("not-a-uuid", 403), (reader.as_str(), 403)] {
        let (status, body) = ask(&serving, "DELETE", target, &[("X-Nomad-Token", token)], "").await;
        assert_eq!(status, wanted, "{body}");
        assert_eq!(body, "Permission denied: this needs a management token");
    }
    let alive = ask(&serving, "DELETE", target, &[("X-Nomad-Token", &manager)], "").await;
    assert_eq!(alive.0, 409, "{}", alive.1);
    driver.vanish().await;
    until("it is forgotten", async || {
        // Under a strange name, too: what counts is the token.
        let headers = [("X-Nomad-Token", manager.as_str()), ("Origin", "http://elsewhere.example.com")];
        match ask(&serving, "DELETE", target, &headers, "").await {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(log(&files).contains("forgotten by request"));
}

#[tokio::test]
async fn no_secret_stands_in_any_log_file_error_metric_or_argument() {
    let files = Files::new();
    files.policy("readers", "plugin { policy = \"read\" }\nagent { policy = \"read\" }");
    let reader = files.token(&["--policy=readers", "--name=reader"]);
    let manager = files.token(&["--management"]);
    let gone = files.token(&["--policy=readers", "--ttl=1ns"]);
    let unknown = "0badc0de-1111-4222-8333-444444444444".to_owned();
    let jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzM2NyM3QifQ.c2lnbmF0dXJlLTVlYzIz".to_owned();
    let signer = Signer::new();
    std::fs::write(files.keys(), signer.keys("ed", "rsa").to_string()).expect("written");
    std::fs::write(files.policies().join("readers.job.hcl"), "namespace = \"default\"").expect("written");
    let identity = signer.identity(&claims("default", "web", "api", "server"));
    let secrets = [&reader, &manager, &gone, &unknown, &jwt, &identity];
    let keys = format!("--acl-jwks={}", files.keys().display());
    let serving = serving(&files, &["-v=5", &keys]).await;
    until_it_gets(&serving, LIST, &reader, 200).await;
    until_it_gets(&serving, LIST, &identity, 200).await;
    // The signature alone would be enough to make the token again.
    let signature = identity.rsplit('.').next().expect("three parts").to_owned();

    let mut told = String::new();
    let paths = [LIST, "/v1/plugin/csi/nfs", "/v1/gateway", "/v1/gateway/history", "/metrics", "/x"];
    for secret in secrets {
        let bearer = format!("Bearer {secret}");
        let basic = format!("Basic {secret}");
        for path in paths {
            for (name, value) in
                [("X-Nomad-Token", secret.as_str()), ("Authorization", &bearer), ("Authorization", &basic)]
            {
                told.push_str(&ask(&serving, "GET", path, &[(name, value)], "").await.1);
            }
        }
        // The one answer that holds a secret is for who has just shown it.
        let own = ask(&serving, "GET", "/v1/acl/token/self", &[("X-Nomad-Token", secret)], "").await;
        assert_eq!(own.1.contains(secret.as_str()), own.0 == 200, "{}", own.0);
        // Where it does not belong: what repeats it is told to nobody but the one who said it.
        for path in [
            format!("{LIST}&token={secret}"),
            format!("/v1/plugin/csi/{secret}"),
            format!("/v1/gateway/plugin/{secret}"),
            format!("/v1/acl/policy/{secret}"),
            format!("/v1/gateway/history?plugin={secret}&token={secret}"),
            format!("/v1/event/stream?topic={secret}:a:b"),
            format!("/{secret}"),
        ] {
            ask(&serving, "GET", &path, &[("X-Nomad-Token", secret)], "").await;
            ask(&serving, "DELETE", &path, &[("X-Nomad-Token", secret)], "").await;
        }
        ask(&serving, "PUT", "/v1/search", &[], &format!("{{\"Prefix\":\"{secret}\",\"Context\":\"{secret}\"}}")).await;
        ask(&serving, secret, "/v1/plugins", &[("X-Nomad-Token", secret)], secret).await;
    }

    // The commands: a token is asked with, made, revoked, and mistaken for something else.
    let tokens = format!("--acl-tokens-file={}", files.tokens().display());
    for secret in secrets {
        let file = files.folder.path().join("token-in-a-file");
        std::fs::write(&file, secret).expect("written");
        let token_file = format!("--token-file={}", file.display());
        let address = format!("--address={}", serving.address);
        for arguments in [
            &["status", &address, &token_file][..],
            &["forget", &address, &token_file, "nfs"],
            &["acl", "token", "list", &tokens],
            &["acl", "token", "list", "--json", &tokens],
            &["acl", "token", "revoke", secret, &tokens],
            &["acl", "token", secret, &tokens],
            &["acl", secret],
        ] {
            let mut command = gateway();
            command.env("NOMAD_TOKEN", secret).args(arguments);
            let (_, out, err) = run(command).await;
            told.push_str(&out);
            told.push_str(&err);
        }
        std::fs::remove_file(file).expect("removed");
    }
    // A file that holds one where none belongs.
    let kept = std::fs::read_to_string(files.tokens()).expect("text");
    std::fs::write(files.tokens(), kept.replacen("\"client\"", &format!("\"{unknown}\""), 1)).expect("written");
    signal(&serving.child, Signal::HUP);
    until("the mistake is told", async || {
        let log = log(&files);
        if log.contains("is no file of tokens") { Ok(()) } else { Err(log) }
    })
    .await;
    told.push_str(&get(&serving, "/v1/gateway", &manager).await.1);
    told.push_str(&get(&serving, "/metrics", &manager).await.1);
    std::fs::write(files.tokens(), kept).expect("written");

    let process = serving.child.id().expect("it runs");
    let of_process = |name: &str| std::fs::read(format!("/proc/{process}/{name}")).unwrap_or_default();
    let mut places = vec![
        ("what was told".to_owned(), told.into_bytes()),
        ("arguments".to_owned(), of_process("cmdline")),
        ("variables".to_owned(), of_process("environ")),
    ];
    serving.kill().await;
    collect(files.folder.path(), &mut places);
    assert!(places.iter().any(|(name, _)| name.ends_with("/log")) && places.len() > 6, "{}", places.len());
    for (place, bytes) in &places {
        for secret in secrets.into_iter().chain([&signature]) {
            for part in [secret.clone(), secret.to_uppercase(), secret.replace('-', "")] {
                let is_there = bytes.windows(part.len()).any(|window| window == part.as_bytes());
                assert!(!is_there, "{place} holds a secret");
            }
        }
    }
}

fn collect(folder: &Path, places: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, places);
        } else if let Ok(bytes) = std::fs::read(&path) {
            places.push((path.display().to_string(), bytes));
        }
    }
}

async fn refused(arguments: &[&str]) -> String {
    let mut command = gateway();
    command.args(arguments);
    let (code, out, err) = run(command).await;
    assert_eq!((code, &*out), (Some(2), ""), "{arguments:?}: {err}");
    err
}

#[tokio::test]
async fn what_is_wrong_with_an_invocation_is_said_and_nothing_is_left_open_by_mistake() {
    for (arguments, said) in [
        (&["acl"][..], "what should `acl` do?"),
        (&["acl", "token"], "what should `acl` do?"),
        (&["acl", "token", "create", "--policy=a"], "which tokens? --acl-tokens-file=FILE"),
        (&["acl", "token", "create", "--acl-tokens-file=x"], "a new token needs --policy=NAME, or --management"),
        (&["acl", "token", "create", "--acl-tokens-file=x", "--policy=a", "--management"], "and not both"),
        (&["acl", "token", "create", "--acl-tokens-file=x", "--policy=a", "--ttl=soon"], "--ttl"),
        (&["serve", "--acl-enabled"], "--acl-enabled needs --acl-tokens-file"),
        (&["serve", "--acl-policy-dir=x"], "do nothing without --acl-enabled"),
        (&["serve", "--acl-enabled", "--acl-policy-dir=x", "--acl-metrics=closed"], "--acl-metrics"),
        (&["serve", "--acl-enabled", "--acl-tokens-file=x", "--acl-jwks=y"], "--acl-jwks needs --acl-policy-dir"),
        (&["serve", "--acl-jwks=y"], "do nothing without --acl-enabled"),
        (&["serve", "--acl-enabled", "--acl-policy-dir=x", "--acl-jwks=ftp://a/b"], "http://HOST:PORT/.well-known"),
        (&["serve", "--acl-enabled", "--acl-policy-dir=x", "--acl-jwks=http://me:s3cret@a/b"], "http://HOST:PORT"),
    ] {
        let err = refused(arguments).await;
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
}

#[tokio::test]
async fn policies_are_checked_one_by_one_and_a_start_with_a_wrong_one_fails() {
    let files = Files::new();
    let at = |name: &str| files.policies().join(name).display().to_string();
    for (name, text) in [("good.hcl", "plugin { policy = \"read\" }"), ("bad.json", "{\"plugin\":{}}"), ("a b.hcl", "")]
    {
        std::fs::write(at(name), text).expect("written");
    }
    let mut command = gateway();
    command.args(["acl", "policy", "check", &at("good.hcl"), &at("bad.json"), &at("a b.hcl"), &at("missing.hcl")]);
    let (code, out, err) = run(command).await;
    assert_eq!(code, Some(1));
    assert_eq!(out, "good: valid; it allows plugin read\n");
    for said in
        ["Invalid plugin policy: ``; `policy` is one of", "no name that a policy can have", "cannot read", "3 policies"]
    {
        assert!(err.contains(said), "{said}: {err}");
    }
    let mut command = gateway();
    command.args(["serve", "--http-endpoint=127.0.0.1:0", "--acl-enabled"]);
    command.arg(format!("--acl-policy-dir={}", files.policies().display()));
    command.arg(format!("--state-dir={}", files.folder.path().join("state").display()));
    let (code, _, err) = run(command).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("error: cannot tell who may what: "), "{err}");
}

#[tokio::test]
async fn a_token_is_made_for_a_policy_that_may_come_and_shown_as_json_to_programs() {
    let files = Files::new();
    let mut command = gateway();
    command.args(["acl", "token", "create", "--policy=later", "--name=ci", "--ttl=1h", "--json"]);
    command.arg(format!("--acl-tokens-file={}", files.tokens().display()));
    command.arg(format!("--acl-policy-dir={}", files.policies().display()));
    let (code, out, err) = run(command).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("has no policy `later` yet"), "{err}");
    let made: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&made["Name"], &made["Type"], &made["Policies"][0]), (&"ci".into(), &"client".into(), &"later".into()));
    let (secret, accessor) = (made["SecretID"].as_str().expect("text"), made["AccessorID"].as_str().expect("text"));
    assert_eq!((secret.len(), accessor.len()), (36, 36));
    let listed: Value = serde_json::from_str(&files.command(&["token", "list", "--json"])).expect("JSON");
    assert_eq!(listed[0]["AccessorID"], accessor);
    assert!(listed[0]["SecretID"].is_null() && listed[0]["ExpirationTime"].is_string());
}
