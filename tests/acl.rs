//! Access: policies as Nomad judges them, tokens, and what each route asks for.

#![allow(clippy::panic, reason = "a test that waited in vain has nothing else to do")]

#[path = "support/parts.rs"]
mod parts;
mod support;

#[path = "acl/identity.rs"]
mod identity;
#[path = "acl/nomad.rs"]
mod nomad;
#[path = "acl/process.rs"]
mod process;
#[path = "acl/routes.rs"]
mod routes;

use std::collections::BTreeSet;

use csi_gateway::acl::{Level, Policy};
use proptest::prelude::*;
use serde::Deserialize;

/// A policy of `tests/acl/policies.jsonl`.
#[derive(Deserialize)]
struct Judged {
    name: String,
    rules: String,
    /// The verdict of Nomad 2.0 when such a policy is stored, and so ours.
    valid: bool,
    /// That of 1.11.1, as `nomad::…` hears it from the real one.
    nomad_1_11: bool,
}

fn corpus() -> Vec<Judged> {
    let lines = include_str!("acl/policies.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).expect("a line of the corpus")).collect()
}

#[test]
fn every_policy_of_the_corpus_gets_nomads_verdict() {
    let corpus = corpus();
    assert!(corpus.len() >= 160, "{}", corpus.len());
    let mut wrong = Vec::new();
    for Judged { name, rules, valid, .. } in &corpus {
        let verdict = Policy::parse(rules);
        if verdict.is_ok() != *valid {
            wrong.push(format!("{name}: {verdict:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Names of capabilities that Nomad 1.11.1 does not know, of `nomad-http.md` section 10.4. It counts eighteen; the real
/// 1.11.1 refuses `host-volume-delete`, too.
const SINCE_2_0: &[&str] = &[
    "host-volume-delete",
    "register-job",
    "revert-job",
    "deregister-job",
    "purge-job",
    "evaluate-job",
    "plan-job",
    "tag-job-version",
    "stable-job",
    "fail-deployment",
    "pause-deployment",
    "promote-deployment",
    "unblock-deployment",
    "cancel-deployment",
    "set-alloc-health-deployment",
    "gc-allocation",
    "pause-allocation",
    "force-periodic-job",
    "delete-service-registration",
];

#[test]
fn what_only_later_nomads_accept_are_those_names_and_their_ways_of_operators() {
    let mut names: BTreeSet<&str> = SINCE_2_0.iter().copied().collect();
    for Judged { name, rules, valid, nomad_1_11 } in &corpus() {
        // 1.11.1 reads neither `operator` nor `sentinel` as 2.0 does; everything else it judges alike.
        if valid == nomad_1_11 || name.contains("operator") || name.contains("sentinel") {
            continue;
        }
        let since = SINCE_2_0.iter().find(|since| rules.contains(&format!("\"{since}\"")));
        assert!(*valid && since.is_some_and(|since| names.remove(since)), "{name}: {rules}");
    }
    assert!(names.is_empty(), "no line for {names:?}");
}

#[test]
fn a_complaint_begins_as_nomads_does_and_says_what_is_allowed() {
    for (rules, text) in [
        (
            "plugin { policy = \"reader\" }",
            "Invalid plugin policy: `reader`; `policy` is one of deny, list, read, write",
        ),
        (
            "namespace \"a\" { capabilities = [\"fly\"] }",
            "Invalid namespace capability 'fly' of `a`; see Nomad's ACL policies",
        ),
        ("plugins {}", "Invalid policy: it has none of the blocks that a policy can have"),
        ("plugin { policy = \"read\" }\nx = 1", "Invalid or duplicate policy keys: x"),
        ("plugin {\n  policy = read\n}", "Failed to parse ACL Policy: line 2: `read` needs quotes"),
        ("namespace {}", "Invalid namespace name: a `namespace` block needs a name: `namespace \"…\" {`"),
    ] {
        assert_eq!(Policy::parse(rules).expect_err(rules).to_string(), text, "{rules}");
    }
}

#[test]
fn nothing_of_a_policy_is_lost() {
    let text = r#"
        plugin { policy = "list" }
        agent { policy = "read" }
        node { policy = "write" }
        quota { policy = "deny" }
        operator { capabilities = ["license-read"] }
        sentinel { policy = "read" }
        namespace "apps-*" {
          policy = "scale"
          variables { path "x/*" { capabilities = ["read"] } }
        }
        node_pool "gpu" { policy = "read" }
        host_volume "data" { policy = "read" }
    "#;
    assert_eq!(
        Policy::parse(text).expect("valid").summary(),
        "plugin list, agent read, node write, quota deny, namespace \"apps-*\" (read-job, list-scaling-policies, \
         read-scaling-policy, read-job-scaling, scale-job, submit-recommendation), variables \"x/*\" (list, read), \
         node_pool \"gpu\" (read), host_volume \"data\" (mount-readonly), operator (license-read), sentinel read ()"
    );
    assert_eq!(Level::Write.as_str(), "write");
}

#[test]
fn nesting_and_size_have_bounds() {
    for (begin, open, close) in [("", "a {", "}"), ("a = ", "[", "]"), ("", "{\"a\":", "}"), ("", "{\"a\":[", "]}")] {
        let text = format!("{begin}{}{}", open.repeat(100_000), close.repeat(100_000));
        let complaint = Policy::parse(&text).expect_err("too deep").to_string();
        assert!(complaint.contains("levels of braces and brackets"), "{complaint}");
    }
    let long = format!("plugin {{ policy = \"read\" }} #{}", "x".repeat(1 << 20));
    assert!(Policy::parse(&long).expect_err("too long").to_string().contains("longer than"));
}

fn policy_text() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["deny", "read", "write", "scale"]);
    let capability = prop::sample::select(vec!["read-job", "submit-job", "deny", "csi-read-volume"]);
    let namespace =
        ("[a-z*-]{1,8}", level, prop::collection::vec(capability, 0..4)).prop_map(|(name, level, capabilities)| {
            let list: Vec<String> = capabilities.iter().map(|name| format!("\"{name}\"")).collect();
            format!("namespace \"{name}\" {{ policy = \"{level}\"\n capabilities = [{}] }}\n", list.join(", "))
        });
    prop::collection::vec(namespace, 1..5).prop_map(|blocks| blocks.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_the_parser_panic(text in "(?s).{0,200}") {
        let _ = Policy::parse(&text);
        let _ = Policy::parse(&format!("{{{text}"));
    }

    #[test]
    fn no_mixture_of_words_and_signs_makes_the_parser_panic(
        parts in prop::collection::vec(prop::sample::select(vec![
            "plugin", "namespace", "variables", "path", "policy", "capabilities", "\"a\"", "\"read\"", "{", "}", "[", "]",
            "=", ",", ":", "\n", "\"", "\\", "${", "<<E\n", "E\n", "0x", "1.", "-", "é", "/*", "*/", "#", "null", "true",
        ]), 0..60)
    ) {
        for between in ["", " "] {
            let _ = Policy::parse(&parts.join(between));
        }
    }

    #[test]
    fn a_valid_policy_stays_one_whatever_space_and_comments_stand_in_it(text in policy_text()) {
        let plain = Policy::parse(&text);
        prop_assert!(plain.is_ok(), "{text}: {plain:?}");
        let spaced = text.replace(' ', " /* x */\n\t").replace('\n', " # y\r\n");
        prop_assert_eq!(Policy::parse(&spaced), plain);
    }
}
