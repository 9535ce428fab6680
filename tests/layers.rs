//! Who may name whom: the table, and a reader of `src/` that holds the code to it.
//!
//! It reads tokens, not types: `use crate::…` trees, paths written in place (`crate::x::y`), `super::` chains that climb out
//! of a module, and names that a `use` of the same file brought in (`use crate::x;` and then `x::y`). Comments and strings are no code. `#[cfg(test)]` modules are exempt: a unit test may bring
//! the scripted driver to any layer. A module without a row fails, so a new one has to take its place in the table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// A module, what it may name, and why not more. A name with `::` allows that part of a module only.
type Row = (&'static str, &'static [&'static str], &'static str);

/// Every module may name itself, `domain` and the leaves; `domain` and the leaves name nobody.
const TABLE: &[Row] = &[
    ("domain", &[], "values and pure functions: no runtime, no protocol, no file; a time is a parameter"),
    ("telemetry", &[], "a leaf: everybody may name it, so it names nobody"),
    ("metrics", &[], "a leaf: everybody may name it, so it names nobody"),
    ("shutdown", &[], "a leaf: everybody may name it, so it names nobody"),
    ("files", &[], "a leaf: everybody may name it, so it names nobody"),
    ("systemd", &[], "a leaf: everybody may name it, so it names nobody"),
    ("transport", &[], "a socket knows nothing of what is said over it"),
    ("tls", &[], "certificates, their files and streams; what is said over them is not its business"),
    ("client", &["tls"], "one HTTP request at a time; what is asked for, and how often, its callers know"),
    ("store", &[], "keeps records; who makes or reads them is not its business"),
    ("owner", &["client"], "says who runs a socket, in domain's words"),
    ("acl", &["client"], "policies, tokens and what they allow, keys by HTTP; which right a route needs is `api`'s"),
    ("ui", &[], "static files"),
    ("csi", &["transport"], "one driver behind one socket; when to ask is `fingerprint`'s"),
    (
        "discovery",
        &["csi"],
        "which sockets there should be, which registrars tell; what drivers answer is `fingerprint`'s",
    ),
    ("registry", &["store"], "records in, a catalog out; it does not know where fingerprints come from"),
    ("fingerprint", &["csi", "registry"], "looks at drivers and reports; what is kept and shown is decided elsewhere"),
    (
        "fleet",
        &["store::record", "registry", "tls", "transport::pb"],
        "ships records and follows them, over etcd; it opens no store of its own",
    ),
    (
        "api",
        &[
            "acl",
            "registry::agents",
            "registry::allocations",
            "registry::changes",
            "registry::reader",
            "registry::history",
            "registry::sockets",
            "registry::commands",
            "fingerprint::prober",
            "tls",
            "ui",
        ],
        "handles only: a handler never calls a driver or the store",
    ),
    ("config", &[], "checked values; a module takes its own small settings, not this"),
    ("cli", &["config"], "arguments and help, from the table of settings"),
    (
        "app",
        &[
            "acl",
            "api",
            "client",
            "config",
            "csi",
            "discovery",
            "fingerprint",
            "fleet",
            "owner",
            "registry",
            "store",
            "tls",
            "transport",
            "ui",
        ],
        "the composition root: everything below it, nothing beside it",
    ),
    (
        "commands",
        &["acl", "api::wire", "client", "config", "csi", "discovery"],
        "the client side: speaks HTTP, or CSI for `probe` and `doctor`",
    ),
    (
        "demo",
        &["app", "commands", "config", "csi::Rpc", "registry", "transport"],
        "the real app with scripted drivers or made records",
    ),
    ("main", &["app", "cli", "commands", "config", "demo"], "parse, load, build, run; print the chain"),
];

/// Modules that all but `domain` and they themselves may name.
const LEAVES: &[&str] = &["telemetry", "metrics", "shutdown", "systemd", "files"];

/// Crates that `domain` may use beside std.
const DOMAIN_CRATES: &[&str] = &["serde", "rpds"];

/// The one file that includes generated code, and those who may name it.
const GENERATED: &str = "transport::pb";
const NAME_GENERATED: &[&str] = &["transport", "csi", "demo", "fleet"];

/// One name out of place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    file: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

// Reading -----------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Path,
    Sign(char),
}

/// Words and signs with their lines; comments, strings, characters and lifetimes left out.
fn tokens(source: &str) -> Vec<(usize, Token)> {
    let text: Vec<char> = source.chars().collect();
    let at = |i: usize| text.get(i).copied().unwrap_or('\0');
    let mut found = Vec::new();
    let (mut i, mut line) = (0, 1);
    // Everything that is skipped goes through here, so that lines are counted in one place.
    let skip_to = |from: usize, to: usize, line: &mut usize| {
        *line += text[from..to.min(text.len())].iter().filter(|c| **c == '\n').count();
        to
    };
    while i < text.len() {
        match at(i) {
            '/' if at(i + 1) == '/' => {
                let end = (i..text.len()).find(|&j| at(j) == '\n').unwrap_or(text.len());
                i = skip_to(i, end, &mut line);
            }
            '/' if at(i + 1) == '*' => {
                let (mut depth, mut end) = (1, i + 2);
                while depth > 0 && end < text.len() {
                    match (at(end), at(end + 1)) {
                        ('*', '/') => (depth, end) = (depth - 1, end + 2),
                        ('/', '*') => (depth, end) = (depth + 1, end + 2),
                        _ => end += 1,
                    }
                }
                i = skip_to(i, end, &mut line);
            }
            '"' => {
                let mut end = i + 1;
                while end < text.len() && at(end) != '"' {
                    end += if at(end) == '\\' { 2 } else { 1 };
                }
                i = skip_to(i, end + 1, &mut line);
            }
            '\'' => {
                // 'x' and '\…' are characters, 'x without an end is a lifetime.
                let end = if at(i + 1) == '\\' {
                    (i + 3..text.len()).find(|&j| at(j) == '\'').unwrap_or(text.len()) + 1
                } else if at(i + 2) == '\'' {
                    i + 3
                } else {
                    i + 1
                };
                i = skip_to(i, end, &mut line);
            }
            c if c.is_alphanumeric() || c == '_' => {
                let end = (i..text.len()).find(|&j| !(at(j).is_alphanumeric() || at(j) == '_')).unwrap_or(text.len());
                let word: String = text[i..end].iter().collect();
                let hashes = (end..text.len()).take_while(|&j| at(j) == '#').count();
                if matches!(&*word, "r" | "br" | "cr") && at(end + hashes) == '"' {
                    let closing: String = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                    let body = end + hashes + 1;
                    let close = (body..text.len())
                        .find(|&j| text[j..].iter().take(closing.len()).collect::<String>() == closing)
                        .unwrap_or(text.len());
                    i = skip_to(i, close + closing.len(), &mut line);
                } else {
                    found.push((line, Token::Word(word)));
                    i = end;
                }
            }
            ':' if at(i + 1) == ':' => {
                found.push((line, Token::Path));
                i += 2;
            }
            c => {
                if c == '\n' {
                    line += 1;
                } else if !c.is_whitespace() {
                    found.push((line, Token::Sign(c)));
                }
                i += 1;
            }
        }
    }
    found
}

/// A path that a file names: the line, and the segments from the crate's root (or from a foreign crate's name).
type Named = (usize, Vec<String>);

/// Words that may stand before a path which begins with `::`, and are no part of it.
const BEFORE_A_PATH: &[&str] = &["as", "dyn", "else", "for", "impl", "in", "match", "mut", "return", "use", "where"];

/// What one source file names.
#[derive(Debug, Default)]
struct Names {
    /// Paths into this crate.
    ours: Vec<Named>,
    /// All other paths: of crates, but also of types and modules in scope.
    others: Vec<Named>,
    /// What `use` brought in from this crate: its name here, its path.
    imports: BTreeMap<String, Vec<String>>,
    /// Modules declared `#[cfg(test)]` in files of their own.
    test_modules: Vec<String>,
    /// Where generated code is included.
    includes: Vec<usize>,
}

/// Reads a file whose module path is `module`.
fn names(source: &str, module: &[String]) -> Names {
    let tokens = tokens(source);
    let mut names = Names::default();
    // Inline modules that are open: name, depth of their brace.
    let mut inside: Vec<(String, usize)> = Vec::new();
    let (mut depth, mut i, mut is_for_tests) = (0usize, 0, false);
    let word = |i: usize| match tokens.get(i) {
        Some((_, Token::Word(word))) => Some(word.as_str()),
        _ => None,
    };
    let is = |i: usize, sign: char| matches!(tokens.get(i), Some((_, Token::Sign(s))) if *s == sign);
    let is_path = |i: usize| matches!(tokens.get(i), Some((_, Token::Path)));
    while i < tokens.len() {
        let line = tokens[i].0;
        if is(i, '#') && is(i + 1, '[') && word(i + 2) == Some("cfg") && word(i + 4) == Some("test") && is(i + 5, ')') {
            is_for_tests = true;
            i += 7;
        } else if word(i) == Some("mod") && word(i + 1).is_some() && is(i + 2, '{') {
            if is_for_tests {
                i = after_block(&tokens, i + 2);
            } else {
                inside.push((word(i + 1).unwrap_or_default().to_owned(), depth));
                depth += 1;
                i += 3;
            }
            is_for_tests = false;
        } else if word(i) == Some("mod") && word(i + 1).is_some() && is(i + 2, ';') {
            if is_for_tests {
                names.test_modules.push(word(i + 1).unwrap_or_default().to_owned());
            }
            is_for_tests = false;
            i += 3;
        } else if is(i, '{') || is(i, '}') {
            is_for_tests = false;
            depth = if is(i, '{') { depth + 1 } else { depth.saturating_sub(1) };
            inside.retain(|(_, at)| *at < depth);
            i += 1;
        } else if word(i) == Some("include") && is(i + 1, '!') {
            names.includes.push(line);
            i += 1;
        } else if let Some(first) = word(i)
            && is_path(i + 1)
            && !BEFORE_A_PATH.contains(&first)
        {
            let mut paths = Vec::new();
            let end = tree(&tokens, i, &mut Vec::new(), &mut paths);
            let here: Vec<String> = module.iter().cloned().chain(inside.iter().map(|(name, _)| name.clone())).collect();
            let is_import = i > 0 && word(i - 1) == Some("use");
            for (line, path, name) in paths {
                if path.last().is_some_and(|last| last == "include_proto") {
                    names.includes.push(line);
                }
                match first {
                    "crate" => names.ours.push((line, path[1..].to_vec())),
                    "self" => names.ours.push((line, [&here[..], &path[1..]].concat())),
                    "super" => {
                        let up = path.iter().take_while(|segment| *segment == "super").count();
                        let kept = here.len().saturating_sub(up);
                        names.ours.push((line, [&here[..kept], &path[up..]].concat()));
                    }
                    _ => names.others.push((line, path)),
                }
                if is_import
                    && matches!(first, "crate" | "self" | "super")
                    && let (Some(name), Some((_, path))) = (name, names.ours.last())
                {
                    names.imports.insert(name, path.clone());
                }
            }
            i = end;
        } else {
            i += 1;
        }
    }
    names
}

/// The token after the block that opens at `open`.
fn after_block(tokens: &[(usize, Token)], open: usize) -> usize {
    let mut depth = 0usize;
    for (i, (_, token)) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Sign('{') => depth += 1,
            Token::Sign('}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

/// The end of a path: its line, its segments, and what it is called from here on.
type Leaf = (usize, Vec<String>, Option<String>);

/// Unfolds a path or a `use` tree that begins at `i` into `paths`; gives the token after it.
fn tree(tokens: &[(usize, Token)], mut i: usize, stem: &mut Vec<String>, paths: &mut Vec<Leaf>) -> usize {
    let length = stem.len();
    let line = tokens.get(i).map_or(0, |(line, _)| *line);
    loop {
        match tokens.get(i).map(|(_, token)| token) {
            Some(Token::Word(word)) => {
                stem.push(word.clone());
                i += 1;
            }
            Some(Token::Sign('{')) => {
                i += 1;
                while !matches!(tokens.get(i), None | Some((_, Token::Sign('}')))) {
                    if matches!(tokens.get(i), Some((_, Token::Sign(','))) | Some((_, Token::Path))) {
                        i += 1;
                        continue;
                    }
                    let before = i;
                    i = tree(tokens, i, stem, paths);
                    // Not a tree after all (a block after a path's end): leave it to the caller.
                    if i == before {
                        break;
                    }
                }
                stem.truncate(length);
                return (i + 1).min(tokens.len());
            }
            Some(Token::Sign('*')) => {
                stem.push("*".to_owned());
                i += 1;
            }
            _ => {}
        }
        if matches!(tokens.get(i), Some((_, Token::Path)))
            && matches!(tokens.get(i + 1), Some((_, Token::Word(_) | Token::Sign('{' | '*'))))
        {
            i += 1;
        } else {
            if stem.len() > length {
                // `use crate::domain::{self}` names the stem.
                let segments = stem.iter().enumerate().filter(|(at, s)| *at == 0 || *s != "self");
                let path: Vec<String> = segments.map(|(_, segment)| segment.clone()).collect();
                let name = match (tokens.get(i), tokens.get(i + 1)) {
                    // A cast to a path (`x::Y as crate::z::T`) is no new name.
                    (Some((_, Token::Word(word))), Some((_, Token::Word(name))))
                        if word == "as" && !matches!(tokens.get(i + 2), Some((_, Token::Path))) =>
                    {
                        i += 2;
                        Some(name.clone())
                    }
                    _ => path.last().cloned(),
                };
                paths.push((line, path, name));
            }
            stem.truncate(length);
            return i;
        }
    }
}

// Judging -----------------------------------------------------------------------------------------------------------

/// Whether `path` is `prefix` or lies in it.
fn lies_in(path: &[String], prefix: &str) -> bool {
    let prefix: Vec<&str> = prefix.split("::").collect();
    path.len() >= prefix.len() && path.iter().zip(&prefix).all(|(segment, wanted)| segment == wanted)
}

/// Whether `path` is a module that `inner` lies deeper in.
fn is_above(path: &[String], inner: &str) -> bool {
    let inner: Vec<&str> = inner.split("::").collect();
    path.len() < inner.len() && path.iter().zip(&inner).all(|(segment, wanted)| segment == wanted)
}

/// Module path of a file below `src/`: `csi/convert.rs` is `csi::convert`, `csi/mod.rs` is `csi`.
fn module_of(file: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        file.with_extension("").components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod" || (module.len() == 1 && last == "lib")) {
        module.pop();
    }
    module
}

/// Everything out of place in these files (paths relative to `src/`), given the names of all dependencies.
fn check(files: &BTreeMap<PathBuf, String>, dependencies: &BTreeSet<String>) -> Vec<Violation> {
    let read: BTreeMap<&PathBuf, (Vec<String>, Names)> = files
        .iter()
        .map(|(file, source)| {
            let module = module_of(file);
            // The binary is a crate of its own, which names the library as `csi_gateway`; its own modules there are none.
            let source = source.replace("csi_gateway::", "crate::");
            let names = names(&source, &module);
            (file, (module, names))
        })
        .collect();
    let exempt: BTreeSet<Vec<String>> = read
        .values()
        .flat_map(|(module, names)| {
            names.test_modules.iter().map(move |name| [&module[..], std::slice::from_ref(name)].concat())
        })
        .collect();
    let mut violations = Vec::new();
    for (file, (module, names)) in &read {
        if module.is_empty() || exempt.iter().any(|test| module.starts_with(test)) {
            continue;
        }
        let mut report = |line: usize, what: String| {
            violations.push(Violation { file: (*file).clone(), line, what });
        };
        let own = module[0].as_str();
        let Some((_, allowed, reason)) = TABLE.iter().find(|(name, ..)| *name == own) else {
            report(1, format!("`{own}` has no row in the table of `tests/layers.rs`"));
            continue;
        };
        let may_use_leaves = own != "domain" && !LEAVES.contains(&own);
        let through_imports = names.others.iter().filter_map(|(line, path)| {
            let import = names.imports.get(path.first()?)?;
            Some((*line, [&import[..], &path[1..]].concat()))
        });
        // A module of which a part may be named may be brought in; what is then named through it is looked at.
        let is_only_brought_in = |path: &[String]| allowed.iter().any(|prefix| is_above(path, prefix));
        for (line, path) in names.ours.iter().cloned().chain(through_imports) {
            let (line, path) = (&line, &path[..]);
            let is_allowed = path.first().is_some_and(|first| first == own)
                || (own != "domain" && lies_in(path, "domain"))
                || (may_use_leaves && LEAVES.iter().any(|leaf| lies_in(path, leaf)))
                || allowed.iter().any(|prefix| lies_in(path, prefix))
                || is_only_brought_in(path);
            if !is_allowed {
                let allowed = if allowed.is_empty() { "nobody else".to_owned() } else { allowed.join(", ") };
                report(*line, format!("`{own}` names `{}`; it may name {allowed}: {reason}", path.join("::")));
            }
            if lies_in(path, GENERATED) && !NAME_GENERATED.iter().any(|who| lies_in(module, who)) {
                report(*line, format!("`{own}` names generated code; protocol types end in {NAME_GENERATED:?}"));
            }
        }
        for (line, head) in names.others.iter().filter_map(|(line, path)| Some((line, path.first()?))) {
            if own == "domain" && dependencies.contains(head) && !DOMAIN_CRATES.contains(&head.as_str()) {
                report(
                    *line,
                    format!("`domain` uses `{head}`; it may use std, {}: {reason}", DOMAIN_CRATES.join(", ")),
                );
            }
        }
        for line in &names.includes {
            if !lies_in(module, GENERATED) {
                report(*line, format!("only `{GENERATED}` includes generated code"));
            }
        }
    }
    violations.sort();
    violations
}

/// Names of the dependencies in a Cargo.toml, as code spells them.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut is_list = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_list = line.trim_end_matches(']').ends_with("dependencies");
        } else if let Some((name, _)) = line.split_once('=').filter(|_| is_list && !line.starts_with('#')) {
            names.insert(name.trim().replace('-', "_"));
        }
    }
    names
}

fn sources(folder: &Path, root: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            sources(&path, root, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("src is readable");
            files.insert(path.strip_prefix(root).expect("below it").to_owned(), text);
        }
    }
}

#[test]
fn the_code_keeps_to_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = BTreeMap::new();
    sources(&root.join("src"), &root.join("src"), &mut files);
    assert!(files.len() > 10, "src was not read: {:?}", files.keys());
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml is readable");
    let violations = check(&files, &dependencies(&manifest));
    let text: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(text.is_empty(), "names out of place:\n{}", text.join("\n"));
}

#[test]
fn the_table_has_no_circle() {
    // Each may only name those that are complete without it.
    let mut done: BTreeSet<&str> = BTreeSet::new();
    while done.len() < TABLE.len() {
        let next: Vec<&str> = TABLE
            .iter()
            .filter(|(name, allowed, _)| {
                let needs = |prefix: &&str| done.contains(prefix.split("::").next().unwrap_or_default());
                !done.contains(name) && allowed.iter().all(needs)
            })
            .map(|(name, ..)| *name)
            .collect();
        assert!(!next.is_empty(), "these name each other: {:?}", TABLE.iter().filter(|(n, ..)| !done.contains(n)));
        done.extend(next);
    }
}

/// What is wrong with one made-up file.
fn complaints(file: &str, source: &str) -> Vec<String> {
    let files = BTreeMap::from([(PathBuf::from(file), source.to_owned())]);
    let dependencies = dependencies("[dependencies]\ntokio = \"1\"\nserde = \"1\"\nhyper-util = \"1\"\n");
    check(&files, &dependencies).iter().map(|found| format!("{}: {}", found.line, found.what)).collect()
}

#[test]
fn a_name_out_of_place_is_found_however_it_is_written() {
    for source in [
        "use crate::store::embedded::Store;",
        "use crate::{domain::id::HostId, store::embedded::Store};",
        "use crate::{\n    domain::{id::HostId, time},\n    store::{self, record::Record},\n};",
        "fn f() { crate::store::open() }",
        "fn f(store: &crate::store::Store) {}",
        "macro_rules! m { () => { $crate::store::open() } }",
        "use super::store::Store;",
        "mod inner { use super::super::store::Store; }",
        "pub use crate::store as kept;",
        "use crate::*;",
        "fn f() { x::y() as crate::store::Number }",
        "use crate::registry; fn f() { registry::publisher::open() }",
        "use crate::registry as kept; fn f() { kept::publisher::open() }",
        "use crate::{domain::id, registry::{self, reader::Reader}}; impl registry::publisher::Sink for X {}",
        "use crate::registry::*;",
        "use crate::registry::publisher::Publisher;",
        "fn f<'a>(c: char) { if c == '\\'' || c == '\"' { crate::store::open() } }",
    ] {
        let found = complaints("api.rs", source);
        assert!(!found.is_empty() && found.iter().all(|text| text.contains("`api` names `")), "{source}: {found:?}");
    }
    assert_eq!(complaints("api/plugins.rs", "use super::super::csi::client::Client;").len(), 1);
    let found = complaints("api.rs", "use crate::{\n    domain::{id, time},\n    store::record::Record,\n};");
    assert!(found.len() == 1 && found[0].starts_with("3: "), "{found:?}");
    let found = complaints("api/mod.rs", "//! Routes.\n\nuse crate::csi::client::Client;\n");
    assert!(found[0].starts_with("3: `api` names `csi::client::Client`"), "{found:?}");
    assert!(found[0].ends_with("handles only: a handler never calls a driver or the store"), "{found:?}");
}

#[test]
fn what_is_in_its_place_passes() {
    for (file, source) in [
        ("api/mod.rs", "use crate::registry::reader::{Reader, Subject};\nuse crate::domain::id;\nmod wire;"),
        ("api/plugins.rs", "use super::wire::Stub;\nuse crate::api::query::Query;\nuse crate::telemetry::Chain;"),
        (
            "api/mod.rs",
            "// use crate::store::Store;\n/* crate::csi::x /* nested */ */\n/// [`crate::store::Store`]\nfn f() {}",
        ),
        ("api/mod.rs", "const TEXT: &str = \"crate::store::x\"; const RAW: &str = r#\"\"crate::csi::x\"\"#;"),
        ("api/mod.rs", "pub(crate) fn f() {} pub(in crate::api) fn g() {}"),
        (
            "api/mod.rs",
            "#[cfg(test)]\nmod tests {\n    use super::*;\n    use crate::store::Store;\n    fn f() { {} }\n}\n",
        ),
        ("api/mod.rs", "use crate::registry::{self, reader::Reader}; impl History for registry::history::History {}"),
        ("app.rs", "use crate::{api, store::embedded::Store};"),
        ("main.rs", "use csi_gateway::{app, cli, config};\nfn main() { csi_gateway::app::run() }"),
        ("csi/convert.rs", "use crate::transport::pb::csi::v1 as pb;"),
        ("discovery/kubelet.rs", "use crate::csi::{Announcement, Driver};"),
        ("domain/id.rs", "use std::sync::Arc;\nuse serde::Serialize;\nfn f() { Self::new(); super::time::Index(1); }"),
        ("lib.rs", "pub mod api;"),
    ] {
        assert_eq!(complaints(file, source), Vec::<String>::new(), "{file}: {source}");
    }
}

#[test]
fn code_after_a_test_module_is_read_again() {
    let source = "#[cfg(test)]\nmod tests { use crate::store::Store; }\nuse crate::store::Store;";
    assert_eq!(complaints("api/mod.rs", source).len(), 1);
    let source = "#[cfg(test)]\nfn only_for_tests() {}\nmod inner { use crate::store::Store; }";
    assert_eq!(complaints("api/mod.rs", source).len(), 1);
}

#[test]
fn a_test_module_in_a_file_of_its_own_is_exempt() {
    let files = BTreeMap::from([
        (PathBuf::from("api/mod.rs"), "#[cfg(test)]\nmod tests;\nmod plugins;".to_owned()),
        (PathBuf::from("api/tests.rs"), "use crate::store::Store;".to_owned()),
        (PathBuf::from("api/plugins.rs"), "use crate::store::Store;".to_owned()),
    ]);
    let found = check(&files, &BTreeSet::new());
    assert_eq!(found.iter().map(|v| v.file.to_str()).collect::<Vec<_>>(), [Some("api/plugins.rs")]);
}

#[test]
fn domain_uses_no_crate_beside_those_it_may() {
    assert_eq!(complaints("domain/time.rs", "use tokio::time::Instant;").len(), 1);
    assert_eq!(complaints("domain/time.rs", "fn f() { hyper_util::rt::spawn() }").len(), 1);
    assert_eq!(complaints("domain/time.rs", "use ::tokio::time::Instant;").len(), 1);
    assert_eq!(complaints("domain/time.rs", "use crate::telemetry::Chain;").len(), 1);
    assert_eq!(complaints("api/time.rs", "use tokio::time::Instant;").len(), 0);
}

#[test]
fn generated_code_is_included_in_one_file_and_named_by_few() {
    assert_eq!(complaints("csi/client.rs", "tonic::include_proto!(\"csi.v1\");").len(), 1);
    assert_eq!(complaints("transport/pb.rs", "tonic::include_proto!(\"csi.v1\");").len(), 0);
    assert_eq!(complaints("app.rs", "use crate::transport::pb::csi;").len(), 1);
    assert_eq!(
        complaints("discovery/fixed.rs", "use crate::transport::pb::csi;").len(),
        2,
        "and a layer it may not name"
    );
}

#[test]
fn a_module_without_a_row_has_to_take_its_place() {
    let found = complaints("utils.rs", "fn f() {}");
    assert_eq!(found, ["1: `utils` has no row in the table of `tests/layers.rs`"]);
}
