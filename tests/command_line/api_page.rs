//! `docs/api.md`, from the table of routes and rights and from the description that is served.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use csi_gateway::api;
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
    let path = path.replace(":name", "{id}").replace(":id", "{id}");
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
