//! A real Nomad server with ACLs on: its verdict on every policy of the corpus, and its keys.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use axum::body::Body;
use axum::http::Request;
use csi_gateway::acl::{Access, KeySource, Settings};
use csi_gateway::api;
use serde_json::{Value, json};
use tokio::process::Child;

use super::process::exchange;
use super::support::client::send;
use super::support::fixture::Fixture;
use super::support::process::{command, until};
use super::{Judged, corpus};
use crate::parts::Part;

/// A server on ports of its own; it ends with the test.
struct Nomad {
    _child: Child,
    address: String,
    management: String,
}

impl Nomad {
    async fn start(program: &Path, folder: &Path) -> Self {
        // Held together, so that they are three; free again when it starts.
        let held: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("binds")).collect();
        let port = |place: usize| held[place].local_addr().expect("bound").port();
        let (http, rpc, serf) = (port(0), port(1), port(2));
        drop(held);
        let configuration = json!({
            "data_dir": folder.join("data"), "bind_addr": "127.0.0.1", "log_level": "WARN", "disable_update_check": true,
            "ports": {"http": http, "rpc": rpc, "serf": serf},
            "advertise": {"http": "127.0.0.1", "rpc": "127.0.0.1", "serf": "127.0.0.1"},
            "server": {"enabled": true, "bootstrap_expect": 1},
            "acl": {"enabled": true},
        });
        let file = folder.join("nomad.json");
        std::fs::write(&file, configuration.to_string()).expect("written");
        let log = std::fs::File::create(folder.join("nomad.log")).expect("a log file");
        let mut nomad = command(program);
        nomad.arg("agent").arg(format!("-config={}", file.display()));
        nomad.stderr(log.try_clone().expect("a second descriptor")).stdout(Stdio::from(log));
        let child = nomad.spawn().expect("it starts");
        let address = format!("127.0.0.1:{http}");
        let management = until("a leader makes the first token", async || {
            if tokio::net::TcpStream::connect(&address).await.is_err() {
                return Err(std::fs::read_to_string(folder.join("nomad.log")).unwrap_or_default());
            }
            let (_, body) = exchange(&address, "PUT", "/v1/acl/bootstrap", &[], "").await;
            let token: Option<Value> = serde_json::from_str(&body).ok();
            token.and_then(|token| token["SecretID"].as_str().map(str::to_owned)).ok_or(body)
        })
        .await;
        Self { _child: child, address, management }
    }

    async fn put(&self, target: &str, body: &Value) -> (u16, String) {
        exchange(&self.address, "PUT", target, &[("X-Nomad-Token", &self.management)], &body.to_string()).await
    }
}

#[tokio::test]
async fn a_real_nomad_judges_policies_as_the_corpus_says_and_its_keys_verify_what_it_signed() {
    let Some(program) = Part::Nomad.find() else { return };
    let folder = tempfile::tempdir().expect("a scratch folder");
    let nomad = Nomad::start(&program, folder.path()).await;
    let mut wrong = Vec::new();
    for (number, Judged { name, rules, nomad_1_11, .. }) in corpus().into_iter().enumerate() {
        let id = format!("policy-{number}");
        let (status, text) = nomad.put(&format!("/v1/acl/policy/{id}"), &json!({"Name": id, "Rules": rules})).await;
        assert!(matches!(status, 200 | 400), "{name}: {status} {text}");
        if (status == 200) != nomad_1_11 {
            wrong.push(format!("{name}: {status} {text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // Without a client no task runs, but a client's introduction is signed with the same key. Whoever shows it is nobody's
    // workload: that is found out behind the signature.
    let (status, text) = nomad.put("/v1/acl/identity/client-introduction-token", &json!({})).await;
    assert_eq!(status, 200, "{text}");
    let signed: Value = serde_json::from_str(&text).expect("JSON");
    let signed = signed["JWT"].as_str().expect("text").to_owned();
    let mut forged = signed.clone();
    forged.replace_range(signed.len() - 8.., "AAAAAAAA");
    let access = Access::load(Settings {
        keys: Some(KeySource::Address(format!("http://{}/.well-known/jwks.json", nomad.address))),
        audiences: vec!["nomadproject.io".to_owned()],
        ..Settings::default()
    })
    .expect("no file to be wrong");
    let following = tokio::spawn(access.clone().follow_keys());
    until(
        "its keys",
        async || if access.standing().keys > 0 { Ok(()) } else { Err(format!("{:?}", access.standing())) },
    )
    .await;
    let fixture = Fixture::conformance_for(api::Settings::default(), Some(access));
    for (token, said) in
        [(&signed, "failed to determine claim type"), (&forged, "invalid signature: go-jose/go-jose: error")]
    {
        let request = Request::get("/v1/acl/token/self").header("X-Nomad-Token", token).body(Body::empty());
        let answer = send(&fixture, request.expect("legal")).await;
        assert_eq!(answer.status, 500);
        assert!(answer.body.starts_with(said), "{}", answer.body);
    }
    // What Nomad itself says of the second, and of what is no token at all.
    for token in [forged.as_str(), "not-a-uuid"] {
        let request = Request::get("/v1/acl/token/self").header("X-Nomad-Token", token).body(Body::empty());
        let ours = send(&fixture, request.expect("legal")).await;
        let theirs = exchange(&nomad.address, "GET", "/v1/acl/token/self", &[("X-Nomad-Token", token)], "").await;
        assert_eq!((ours.status.as_u16(), ours.body), theirs);
    }
    following.abort();
}
