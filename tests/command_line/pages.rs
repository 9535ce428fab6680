//! Pages that say what the program does, held to what it does: `docs/api.md`, from the table of routes and rights and from the
//! description that is served; the calls in `SECURITY.md`; names of files in all of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use std::collections::BTreeSet;
use std::path::Path;

use csi_gateway::api;
use csi_gateway::csi::Rpc;
use serde_json::Value;

use super::configuration::kept;

const DESCRIPTION: &str = include_str!("../../src/api/openapi.json");

const HEAD: &str = "\
# What can be asked over HTTP

This page is written by a test from the table of routes in `src/api/` and from `/openapi.json`, which has the answers' shapes as well.

\"Needs\" is what a token's policies have to allow where ACLs are on (`README.md`); where they are off, nothing is needed.
";

/// The description's operation for a route.
fn operation<'description>(description: &'description Value, method: &str, path: &str) -> &'description Value {
    // The description has one name for the last part of a path, whatever it is of.
    let path = path.split_once("/:").map_or_else(|| path.to_owned(), |(start, _)| format!("{start}/{{id}}"));
    &description["paths"][&path][method.to_lowercase()]
}

/// A parameter, which may be described in one place for many routes.
fn parameter<'description>(description: &'description Value, given: &'description Value) -> &'description Value {
    match given["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        Some(name) => &description["components"]["parameters"][name],
        None => given,
    }
}

#[test]
fn the_page_of_routes_says_what_each_is_what_it_takes_and_what_it_needs() {
    let description: Value = serde_json::from_str(DESCRIPTION).expect("it is JSON");
    let mut page = HEAD.to_owned();
    page.push_str("\n| Request | What | Parameters | Needs |\n| --- | --- | --- | --- |\n");
    // By name and meaning: the paths that take it so.
    let mut parameters: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for (method, path, needs) in api::rights() {
        let operation = operation(&description, method, &path);
        let summary = operation["summary"].as_str().unwrap_or_default();
        assert!(!summary.is_empty(), "{method} {path} is not described in /openapi.json");
        let mut names = Vec::new();
        for given in operation["parameters"].as_array().into_iter().flatten() {
            let parameter = parameter(&description, given);
            if parameter["in"] == "query" {
                let name = parameter["name"].as_str().expect("it has a name");
                let text = parameter["description"].as_str().unwrap_or_default();
                names.push(format!("`{name}`"));
                parameters.entry((name, text)).or_default().push(path.clone());
            }
        }
        writeln!(page, "| `{method} {path}` | {summary} | {} | {needs} |", names.join(", ")).expect("it is a text");
    }
    page.push_str("\n## Parameters\n\n| Parameter | Meaning |\n| --- | --- |\n");
    for ((name, text), paths) in &parameters {
        assert!(!text.is_empty(), "the parameter {name} is not described in /openapi.json");
        // Where one word means two things, it is said where it means which.
        let is_ambiguous = parameters.keys().filter(|(other, _)| other == name).count() > 1;
        let place = if is_ambiguous { format!(" (`{}`)", paths.join("`, `")) } else { String::new() };
        writeln!(page, "| `{name}` | {text}{place} |").expect("it is a text");
    }
    kept("docs/api.md", &page);
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(!text.is_empty(), "there is no {name}");
    text
}

#[test]
fn the_security_page_names_every_call_that_is_ever_made_and_no_other() {
    let page = read("SECURITY.md");
    let table = page.split("| Call |").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a table of calls");
    let named: BTreeSet<&str> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let made: BTreeSet<&str> = Rpc::ALL.iter().map(|rpc| rpc.name()).collect();
    assert_eq!(named, made);
}

/// What stands in backticks and looks like one of our files.
fn files_named(page: &str) -> impl Iterator<Item = &str> {
    let words = page.split('`').skip(1).step_by(2).flat_map(str::split_whitespace);
    words
        .map(|word| word.trim_matches([',', '.', ';', ')', '(']))
        .map(|word| word.strip_prefix("--kustomize=").unwrap_or(word))
        .filter(|word| {
            let is_ours =
                ["deploy/", "docs/", "scripts/", "src/", "tests/", ".ci/"].iter().any(|start| word.starts_with(start));
            is_ours && !word.contains(['*', '…', '$'])
        })
}

#[test]
fn every_file_that_a_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = std::fs::read_dir(root.join("docs")).expect("a folder of pages");
    let mut pages: Vec<String> = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned).to_vec();
    let names = documents.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    pages.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")));
    let mut count = 0;
    for page in pages {
        let text = read(&page);
        for name in files_named(&text) {
            assert!(root.join(name).exists(), "{page} names `{name}`, which is not there");
            count += 1;
        }
    }
    assert!(count > 30, "only {count} names were found");
}
