//! Nomad's workload identities: whose policies they get, what is not believed, and keys that come, go and stay away.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512};
use aws_lc_rs::{hmac, rsa};
use axum::body::Body;
use axum::http::Request;
use csi_gateway::acl::{Access, KeySource, Settings};
use csi_gateway::api;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::routes::Files;
use super::support::client::{Answer, Lines, assert_text, send};
use super::support::fixture::Fixture;
use super::support::process::until;

const LIST: &str = "/v1/plugins?type=csi";

/// Base64 as tokens have it.
fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(bits);
        text.extend((0..=chunk.len()).map(|place| char::from(SIGNS[(bits >> (18 - 6 * place)) as usize & 63])));
    }
    text
}

/// One for all: to find its primes takes seconds without optimization.
static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"));

/// Whoever signs identities: Nomad, in its place here.
pub(super) struct Signer {
    rsa: &'static RsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Signer {
    pub(super) fn new() -> Self {
        Self { rsa: &RSA, ed: Ed25519KeyPair::generate().expect("a key") }
    }

    /// The keys as Nomad publishes them, under ids of their own.
    pub(super) fn keys(&self, ed: &str, rsa: &str) -> Value {
        let public: &rsa::PublicKey = self.rsa.public_key();
        let (n, e) = (public.modulus(), public.exponent());
        let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
        json!({"keys": [
            {"use": "sig", "kty": "OKP", "kid": ed, "crv": "Ed25519", "alg": "EdDSA", "x": base64(self.ed.public_key().as_ref())},
            {"use": "sig", "kty": "RSA", "kid": rsa, "alg": "RS256", "n": base64(n), "e": base64(e)},
            {"use": "sig", "kty": "EC", "kid": "none-of-ours", "crv": "P-256", "x": "AA", "y": "AA"},
        ]})
    }

    /// A token with any header and claims, signed as told: `EdDSA`, `RS256`, `RS512`, or not.
    fn signed(&self, header: &Value, claims: &Value, how: &str) -> String {
        let message = format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()));
        let by_rsa = |encoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(encoding, &SystemRandom::new(), message.as_bytes(), &mut signature).expect("signed");
            signature
        };
        let signature = match how {
            "EdDSA" => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
            "RS256" => by_rsa(&RSA_PKCS1_SHA256),
            "RS512" => by_rsa(&RSA_PKCS1_SHA512),
            // The public half as if it were a secret: what an algorithm that the token chooses would fall for.
            "HS256" => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.ed.public_key().as_ref());
                hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
            }
            _ => Vec::new(),
        };
        format!("{message}.{}", base64(&signature))
    }

    pub(super) fn identity(&self, claims: &Value) -> String {
        self.signed(&json!({"alg": "EdDSA", "kid": "ed", "typ": "JWT"}), claims, "EdDSA")
    }
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("before the end of time")
}

/// What Nomad says of a task.
pub(super) fn claims(namespace: &str, job: &str, group: &str, task: &str) -> Value {
    json!({
        "aud": "nomadproject.io", "iat": now(), "nbf": now(), "exp": now() + 3_600, "jti": "9a3c",
        "nomad_allocation_id": "0f6a3c9e-1111-2222-3333-444455556666",
        "nomad_namespace": namespace, "nomad_job_id": job, "nomad_task": task,
        "sub": format!("global:{namespace}:{job}:{group}:{task}:default"),
    })
}

fn with(mut claims: Value, key: &str, value: Value) -> Value {
    claims[key] = value;
    claims
}

fn without(mut claims: Value, key: &str) -> Value {
    claims.as_object_mut().expect("an object").remove(key);
    claims
}

fn settings(files: &Files, keys: KeySource) -> Settings {
    Settings {
        policy_directory: Some(files.policies()),
        tokens_file: None,
        keys: Some(keys),
        audiences: vec!["nomadproject.io".to_owned(), "csi-gateway".to_owned()],
    }
}

/// A gateway whose keys are in a file.
fn guarded(files: &Files, signer: &Signer) -> (Fixture, Access) {
    let file = files.keys();
    std::fs::write(&file, signer.keys("ed", "rsa").to_string()).expect("written");
    let access = Access::load(settings(files, KeySource::File(file))).expect("files without an error");
    (Fixture::conformance_for(api::Settings::default(), Some(access.clone())).with_allocations(), access)
}

fn attach(files: &Files, policy: &str, text: &str) {
    let file = files.policies().join(format!("{policy}.job.hcl"));
    std::fs::write(&file, text).expect("written");
    files.command(&["policy", "check", &file.to_string_lossy()]);
}

async fn ask(fixture: &Fixture, target: &str, token: impl AsRef<[u8]>) -> Answer {
    let request = Request::get(target).header("X-Nomad-Token", token.as_ref());
    send(fixture, request.body(Body::empty()).expect("a legal request")).await
}

#[tokio::test]
async fn a_workload_has_the_policies_that_are_attached_to_it_and_no_others() {
    let files = Files::new();
    files.policy("lists", "plugin { policy = \"list\" }");
    attach(&files, "lists", "namespace = \"apps\"");
    files.policy("reads", "plugin { policy = \"read\" }");
    attach(&files, "reads", "namespace = \"apps\"\njob = \"web:1\"\ngroup = \"api\"\ntask = \"server\"");
    files.policy("sees", "namespace \"default\" { policy = \"read\" }");
    attach(&files, "sees", "namespace = \"apps\"\njob = \"web:1\"");
    files.policy("anonymous", "plugin { policy = \"list\" }");
    files.policy("nobodys", "plugin { policy = \"deny\" }");
    let signer = Signer::new();
    let (fixture, _) = guarded(&files, &signer);
    for (who, [list, read]) in [
        (["apps", "web:1", "api", "server"], [200, 200]),
        (["apps", "web:1", "api", "sidecar"], [200, 403]),
        (["apps", "web:1", "other", "server"], [200, 403]),
        (["apps", "web", "api", "server"], [200, 403]),
        // Not even what whoever shows no token may do.
        (["default", "web:1", "api", "server"], [403, 403]),
    ] {
        let [namespace, job, group, task] = who;
        let claims = claims(namespace, job, group, task);
        let by_rsa = signer.signed(&json!({"alg": "RS256", "kid": "rsa"}), &claims, "RS256");
        for token in [signer.identity(&claims), by_rsa] {
            // Twice: the second time it is known.
            for _ in 0..2 {
                assert_eq!(ask(&fixture, LIST, &token).await.status, list, "{who:?}");
                assert_eq!(ask(&fixture, "/v1/plugin/csi/nfs", &token).await.status, read, "{who:?}");
            }
        }
    }
    let token = signer.identity(&claims("apps", "web:1", "api", "server"));
    let shown = ask(&fixture, "/v1/plugin/csi/ebs-prod", &token).await.json();
    assert_eq!(shown["Allocations"].as_array().map(Vec::len), Some(2), "as `sees` says");
    assert_text("itself", &ask(&fixture, "/v1/acl/token/self", &token).await, 404, "ACL token not found");
    for (policy, status) in [("reads", 200), ("sees", 200), ("anonymous", 200), ("nobodys", 403)] {
        assert_eq!(ask(&fixture, &format!("/v1/acl/policy/{policy}"), &token).await.status, status, "{policy}");
    }
    let bearer = Request::get(LIST).header("Authorization", format!("Bearer {token}"));
    assert_eq!(send(&fixture, bearer.body(Body::empty()).expect("legal")).await.status, 200);
}

#[tokio::test]
async fn what_nomad_has_not_signed_for_us_and_for_now_is_not_believed() {
    let files = Files::new();
    files.policy("reads", "plugin { policy = \"read\" }");
    attach(&files, "reads", "namespace = \"apps\"");
    let (signer, stranger) = (Signer::new(), Signer::new());
    let (fixture, _) = guarded(&files, &signer);
    let good = claims("apps", "web", "api", "server");
    let header = |algorithm: &str, key: &str| json!({"alg": algorithm, "kid": key});
    let identity = signer.identity(&good);
    assert_eq!(ask(&fixture, LIST, &identity).await.status, 200);
    let parts: Vec<&str> = identity.split('.').collect();
    let [head, body, signature] = parts[..] else { panic!("three parts") };
    let others = base64(claims("apps", "other", "api", "server").to_string().as_bytes());

    let (malformed, unsigned) = ("failed to parse signed token", "invalid signature");
    let (claim, late, early) = ("failed to determine claim type", "token is expired", "not valid yet");
    for (what, token, said) in [
        ("no algorithm", signer.signed(&header("none", "ed"), &good, "none"), malformed),
        ("no algorithm, in another case", signer.signed(&header("nOnE", "ed"), &good, "none"), malformed),
        ("no signature", signer.signed(&header("EdDSA", "ed"), &good, "none"), unsigned),
        ("a public key as a secret", signer.signed(&header("HS256", "ed"), &good, "HS256"), unsigned),
        ("another algorithm than the key's", signer.signed(&header("RS256", "ed"), &good, "RS256"), unsigned),
        ("another algorithm of the key's family", signer.signed(&header("RS512", "rsa"), &good, "RS512"), unsigned),
        ("another key's signature", stranger.identity(&good), unsigned),
        ("a key that is not known", signer.signed(&header("EdDSA", "other"), &good, "EdDSA"), "no such key"),
        ("a key of another kind", signer.signed(&header("EdDSA", "none-of-ours"), &good, "EdDSA"), "no such key"),
        ("no key", signer.signed(&json!({"alg": "EdDSA"}), &good, "EdDSA"), "missing key ID"),
        (
            "its own key",
            stranger.signed(
                &json!({"alg": "EdDSA", "kid": "ed", "jwk": stranger.keys("ed", "rsa")["keys"][0]}),
                &good,
                "EdDSA",
            ),
            unsigned,
        ),
        ("other claims", format!("{head}.{others}.{signature}"), unsigned),
        ("a part less", format!("{head}.{body}"), malformed),
        ("a part more", format!("{identity}.{signature}"), malformed),
        ("nothing between points", "..".to_owned(), malformed),
        ("no base64", format!("{head}!.{body}.{signature}"), malformed),
        ("an ended one", signer.identity(&with(good.clone(), "exp", json!(now() - 61))), late),
        ("one that ended long ago", signer.identity(&with(good.clone(), "exp", json!(-1e300))), late),
        ("one that begins later", signer.identity(&with(good.clone(), "nbf", json!(now() + 90))), early),
        ("another audience", signer.identity(&with(good.clone(), "aud", json!("vault.io"))), "invalid audience"),
        ("no audience", signer.identity(&without(good.clone(), "aud")), "invalid audience"),
        ("no namespace", signer.identity(&without(good.clone(), "nomad_namespace")), claim),
        ("an empty job", signer.identity(&with(good.clone(), "nomad_job_id", json!(""))), claim),
        ("a job that is no text", signer.identity(&with(good.clone(), "nomad_job_id", json!(7))), claim),
        ("claims that are none", signer.identity(&json!([1])), claim),
        ("a huge one", signer.identity(&with(good.clone(), "nomad_service", json!("x".repeat(100_000)))), malformed),
        ("a huge nothing", "x".repeat(1 << 20), malformed),
    ] {
        assert_text(what, &ask(&fixture, LIST, &token).await, 403, "Permission denied");
        let itself = ask(&fixture, "/v1/acl/token/self", &token).await;
        assert_eq!(itself.status, 500, "{what}: {}", itself.body);
        assert!(itself.body.contains(said), "{what}: {}", itself.body);
    }
    assert_text("bytes", &ask(&fixture, LIST, b"\xff\xfe.\x80.\xff").await, 403, "Permission denied");

    for (what, claims) in [
        ("clocks that differ", with(with(good.clone(), "exp", json!(now() - 50)), "nbf", json!(now() + 50))),
        ("no end", without(without(good.clone(), "exp"), "nbf")),
        ("an end beyond time", with(good.clone(), "exp", json!(1e300))),
        ("a fraction", with(good.clone(), "exp", json!(1e10 + 0.5))),
        ("one of several audiences", with(good.clone(), "aud", json!(["vault.io", "csi-gateway"]))),
        ("a subject that says nothing", with(good.clone(), "sub", json!(null))),
        ("no task", without(good.clone(), "nomad_task")),
    ] {
        assert_eq!(ask(&fixture, LIST, signer.identity(&claims)).await.status, 200, "{what}");
    }
}

#[tokio::test]
async fn an_identity_that_was_known_ends_with_its_time_its_key_or_its_attachment() {
    let files = Files::new();
    files.policy("reads", "plugin { policy = \"read\" }");
    attach(&files, "reads", "namespace = \"apps\"");
    let signer = Signer::new();
    let (fixture, access) = guarded(&files, &signer);
    let good = claims("apps", "web", "api", "server");
    let stream = async |token: &str| {
        let request = Request::get("/v1/gateway/stream?index=104").header("X-Nomad-Token", token).body(Body::empty());
        Lines::answering(&fixture, request.expect("legal")).await
    };
    // Two seconds are left of the leeway.
    let short = signer.identity(&with(good.clone(), "exp", json!(now() - 58)));
    let mut ends = stream(&short).await;
    let ended = tokio::time::timeout(Duration::from_secs(60), ends.next()).await;
    assert_eq!(ended.expect("within its time"), None);
    assert_text("over", &ask(&fixture, LIST, &short).await, 403, "Permission denied");

    let token = signer.identity(&good);
    let mut ours = stream(&token).await;
    attach(&files, "reads", "namespace = \"default\"");
    access.reload();
    assert_eq!(ours.next().await, None, "attached to others");
    assert_text("others", &ask(&fixture, LIST, &token).await, 403, "Permission denied");

    attach(&files, "reads", "namespace = \"apps\"");
    access.reload();
    let mut ours = stream(&token).await;
    let keys = files.keys();
    std::fs::write(&keys, Signer::new().keys("ed", "rsa").to_string()).expect("written");
    access.reload();
    assert_eq!(ours.next().await, None, "another key has its id");
    assert_text("another key", &ask(&fixture, LIST, &token).await, 403, "Permission denied");

    std::fs::write(&keys, "{\"keys\":[]}").expect("written");
    access.reload();
    assert!(access.standing().trouble.expect("said").contains("has no key"), "{:?}", access.standing());
    assert_eq!(access.standing().keys, 2, "the last ones stay in force");
    std::fs::write(&keys, signer.keys("ed", "rsa").to_string()).expect("written");
    access.reload();
    assert_eq!(access.standing().trouble, None);
    assert_eq!(ask(&fixture, LIST, &token).await.status, 200);
    std::fs::remove_file(files.policies().join("reads.hcl")).expect("removed");
    access.reload();
    assert!(access.standing().trouble.expect("said").contains("there is no policy `reads`"));
}

/// What an address of keys answers next; `None`: it hangs up.
type Answers = Arc<Mutex<Option<(u16, String)>>>;

/// An address of keys, and how often it was asked.
async fn serve(answers: Answers) -> (String, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = format!("http://{}/.well-known/jwks.json", listener.local_addr().expect("bound"));
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            *count.lock().expect("nobody panics while holding it") += 1;
            let Some((status, body)) = answers.lock().expect("nobody panics while holding it").clone() else {
                continue;
            };
            let mut request = [0; 4_096];
            let length = stream.read(&mut request).await.unwrap_or_default();
            assert!(request[..length].starts_with(b"GET /.well-known/jwks.json HTTP/1.1\r\n"));
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    (address, asked)
}

#[tokio::test]
async fn an_address_of_keys_that_is_away_leaves_the_last_ones_and_a_new_key_is_asked_for() {
    let files = Files::new();
    files.policy("reads", "plugin { policy = \"read\" }");
    attach(&files, "reads", "namespace = \"apps\"");
    let (first, second) = (Signer::new(), Signer::new());
    let good = claims("apps", "web", "api", "server");
    let (old, new) = (first.identity(&good), second.signed(&json!({"alg": "EdDSA", "kid": "new"}), &good, "EdDSA"));
    let answers: Answers = Arc::default();
    let (address, asked) = serve(Arc::clone(&answers)).await;
    let answer = |next: Option<(u16, String)>| *answers.lock().expect("nobody panics while holding it") = next;

    // It is away when the gateway starts: no reason not to start.
    let access = Access::load(settings(&files, KeySource::Address(address.clone()))).expect("files without an error");
    let fixture = Fixture::conformance_for(api::Settings::default(), Some(access.clone()));
    let following = tokio::spawn(access.clone().follow_keys());
    let trouble = async |wanted: &str| {
        until(wanted, async || match access.standing().trouble {
            Some(text) if text.contains(wanted) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    };
    let until_it_gets = async |token: &str, wanted: u16| {
        until("an answer", async || {
            let status = ask(&fixture, LIST, token).await.status.as_u16();
            if status == wanted { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    };
    trouble("cannot get keys from").await;
    assert_eq!(ask(&fixture, LIST, &old).await.status, 403);
    answer(Some((200, first.keys("ed", "rsa").to_string())));
    until_it_gets(&old, 200).await;
    assert_eq!(access.standing().trouble, None);

    // Away, wrong or empty: the last ones stay.
    for (next, said) in [
        (None, "cannot get keys from"),
        (Some((503, String::new())), "the answer is 503"),
        (Some((200, "<html>".to_owned())), "is no JSON Web Key Set: line 1, column 1"),
        (Some((200, "{\"keys\":[]}".to_owned())), "has no key with a `kid`"),
        (Some((200, "x".repeat(2 << 20))), "the answer is longer than"),
    ] {
        answer(next);
        assert_eq!(ask(&fixture, LIST, &new).await.status, 403);
        trouble(said).await;
        assert_eq!(ask(&fixture, LIST, &old).await.status, 200, "{said}");
    }

    // Another key: asked for when it is shown, and not for each that shows it.
    answer(Some((200, second.keys("new", "rsa").to_string())));
    until_it_gets(&new, 200).await;
    assert_eq!(ask(&fixture, LIST, &old).await.status, 403);
    let before = *asked.lock().expect("nobody panics while holding it");
    for _ in 0..1_000 {
        assert_eq!(ask(&fixture, LIST, &old).await.status, 403);
    }
    let after = *asked.lock().expect("nobody panics while holding it");
    assert!(after - before <= 10, "{after} - {before}");
    following.abort();
}
