//! What a policy says: blocks of `syntax`, decoded and checked as Nomad does it when a policy is stored.
//!
//! Decoding has HCL 1's ways, which decide about odd but valid policies: keys in any case, the last of several values
//! counts, several blocks of one name become one where they have no label. Everything the language has is parsed and
//! kept, whether this gateway asks for it or not.

use super::capability::{self, Capabilities};
use super::error::Complaint;
use super::syntax::{Entry, Node, entries, is_same, named};
use super::{hcl, json};

/// Longest text of a policy, in bytes.
pub(super) const LONGEST: usize = 1 << 20;

/// How much of a thing without finer rights is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// To have its name in lists.
    List,
    /// To read it.
    Read,
    /// To change it.
    Write,
    /// Nothing, whatever other policies say.
    Deny,
}

impl Level {
    /// Every word that stands for one; `scale` means something in a namespace only.
    const WORDS: [&str; 4] = ["deny", "read", "write", "scale"];
    /// The same, of plugins.
    const PLUGIN_WORDS: [&str; 4] = ["deny", "list", "read", "write"];

    fn parse(word: &str) -> Option<Self> {
        match word {
            "deny" => Some(Self::Deny),
            "list" => Some(Self::List),
            "read" => Some(Self::Read),
            "write" => Some(Self::Write),
            _ => None,
        }
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::List => "list",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// What is allowed under a name or glob.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rule {
    /// The name, or a glob with `*`.
    pub(super) name: String,
    /// The level as it was written; empty where there is none.
    pub(super) level: String,
    /// With those that the level stands for.
    pub(super) capabilities: Capabilities,
    /// Paths of variables, in namespaces only.
    pub(super) paths: Vec<(String, Capabilities)>,
}

/// A policy that is valid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    pub(super) namespaces: Vec<Rule>,
    pub(super) node_pools: Vec<Rule>,
    pub(super) host_volumes: Vec<Rule>,
    pub(super) agent: Option<Level>,
    pub(super) node: Option<Level>,
    pub(super) operator: Option<Rule>,
    pub(super) quota: Option<Level>,
    pub(super) plugin: Option<Level>,
    pub(super) sentinel: Option<Rule>,
}

impl Policy {
    /// Reads a policy: JSON if its first sign is a brace, HCL otherwise. The empty text allows nothing.
    ///
    /// # Errors
    /// It is not valid, in Nomad's words where Nomad has some.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        if text.len() > LONGEST {
            return Err(Complaint::new(format!("Failed to parse ACL Policy: it is longer than {LONGEST} bytes")));
        }
        if text.is_empty() {
            return Ok(Self::default());
        }
        let items = if json::is_json(text) { json::parse(text)? } else { hcl::parse(text)? };
        Decoded::of(&entries(&items))?.checked()
    }

    /// The blocks it has, for people: `plugin read, namespace "apps" (list-jobs, read-job)`.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut parts = Vec::new();
        let levels = [("plugin", self.plugin), ("agent", self.agent), ("node", self.node), ("quota", self.quota)];
        parts.extend(levels.into_iter().filter_map(|(name, level)| Some(format!("{name} {}", level?.as_str()))));
        let rules = [
            ("namespace", &self.namespaces, capability::NAMESPACE),
            ("node_pool", &self.node_pools, capability::NODE_POOL),
            ("host_volume", &self.host_volumes, capability::HOST_VOLUME),
        ];
        for (block, rules, table) in rules {
            for rule in rules {
                let names = rule.capabilities.names(table).collect::<Vec<_>>().join(", ");
                parts.push(format!("{block} \"{}\" ({names})", rule.name));
                let paths = rule.paths.iter().map(|(path, granted)| {
                    let names = granted.names(capability::PATH).collect::<Vec<_>>().join(", ");
                    format!("variables \"{path}\" ({names})")
                });
                parts.extend(paths);
            }
        }
        let wide =
            [("operator", &self.operator, capability::OPERATOR), ("sentinel", &self.sentinel, capability::SENTINEL)];
        for (block, rule, table) in wide {
            if let Some(rule) = rule {
                let names = rule.capabilities.names(table).collect::<Vec<_>>().join(", ");
                parts.push(format!("{block} {} ({names})", rule.level).replace("  ", " "));
            }
        }
        if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
    }
}

/// A block as it was written, before anybody judged its words.
#[derive(Debug, Default)]
struct Block {
    name: String,
    level: String,
    capabilities: Vec<String>,
    /// `None` without a `variables` block.
    paths: Option<Vec<Block>>,
}

/// Which of its fields a block has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fields {
    Level,
    LevelAndCapabilities,
    Namespace,
    Path,
}

/// A policy as it was written.
#[derive(Debug, Default)]
struct Decoded {
    namespaces: Vec<Block>,
    node_pools: Vec<Block>,
    host_volumes: Vec<Block>,
    agent: Option<Block>,
    node: Option<Block>,
    operator: Option<Block>,
    quota: Option<Block>,
    plugin: Option<Block>,
    sentinel: Option<Block>,
    /// Words before braces that nothing is known of, or that stand there once more.
    extra: Vec<String>,
}

impl Decoded {
    fn of(list: &[Entry<'_>]) -> Result<Self, Complaint> {
        let mut decoded = Self { extra: keys(list)?, ..Self::default() };
        let lists = [
            ("namespace", Fields::Namespace, &mut decoded.namespaces),
            ("node_pool", Fields::LevelAndCapabilities, &mut decoded.node_pools),
            ("host_volume", Fields::LevelAndCapabilities, &mut decoded.host_volumes),
        ];
        for (name, fields, into) in lists {
            let found = named(list, name)?;
            if found.is_empty() {
                continue;
            }
            remove_first(&mut decoded.extra, |key| is_same(key, name));
            // Nomad's decoder takes the next word for the label that is missing; Nomad then looks for such blocks.
            if found.iter().any(|entry| entry.keys.is_empty()) {
                let what = name.replace('_', " ");
                return Err(Complaint::new(format!(
                    "Invalid {what} name: a `{name}` block needs a name: `{name} \"…\" {{`"
                )));
            }
            if fields == Fields::Namespace {
                found.iter().try_for_each(has_path_names)?;
            }
            for _ in 1..found.len() {
                remove_first(&mut decoded.extra, |key| key == name);
            }
            labelled(&found, fields, into)?;
        }
        let single = [
            ("agent", Fields::Level, &mut decoded.agent),
            ("node", Fields::Level, &mut decoded.node),
            ("operator", Fields::LevelAndCapabilities, &mut decoded.operator),
            ("quota", Fields::Level, &mut decoded.quota),
            ("plugin", Fields::Level, &mut decoded.plugin),
            ("sentinel", Fields::LevelAndCapabilities, &mut decoded.sentinel),
        ];
        for (name, fields, into) in single {
            let found = named(list, name)?;
            if found.is_empty() {
                continue;
            }
            remove_first(&mut decoded.extra, |key| is_same(key, name));
            *into = Some(merged(name, &found, fields)?);
        }
        Ok(decoded)
    }

    fn checked(mut self) -> Result<Policy, Complaint> {
        let lists = [&self.namespaces, &self.node_pools, &self.host_volumes];
        let single = [&self.agent, &self.node, &self.operator, &self.quota, &self.plugin, &self.sentinel];
        if lists.iter().all(|list| list.is_empty()) && single.iter().all(|block| block.is_none()) {
            return Err(Complaint::new("Invalid policy: it has none of the blocks that a policy can have"));
        }
        let mut policy = Policy::default();
        for block in &self.namespaces {
            policy.namespaces.push(namespace(block)?);
            remove_first(&mut self.extra, |key| *key == block.name);
        }
        for block in &self.node_pools {
            let is_name = |name: &str| is_name(name, "-_*");
            let mut rule = rule("node pool", block, capability::NODE_POOL, is_name)?;
            let granted: &[&str] = match &*block.level {
                "deny" => &["deny"],
                "read" => &["read"],
                "write" => &["delete", "read", "write"],
                _ => &[],
            };
            rule.capabilities = rule.capabilities.with(Capabilities::of(capability::NODE_POOL, granted));
            policy.node_pools.push(rule);
            remove_first(&mut self.extra, |key| *key == block.name);
        }
        for block in &self.host_volumes {
            let mut rule = rule("host volume", block, capability::HOST_VOLUME, |name| is_name(name, "-*"))?;
            let granted: &[&str] = match &*block.level {
                "deny" => &["deny"],
                "read" => &["mount-readonly"],
                "write" => &["mount-readonly", "mount-readwrite"],
                _ => &[],
            };
            rule.capabilities = rule.capabilities.with(Capabilities::of(capability::HOST_VOLUME, granted));
            policy.host_volumes.push(rule);
            remove_first(&mut self.extra, |key| *key == block.name);
        }
        if !self.extra.is_empty() {
            self.extra.sort();
            return Err(Complaint::new(format!("Invalid or duplicate policy keys: {}", self.extra.join(", "))));
        }
        policy.agent = level("agent", self.agent.as_ref(), &Level::WORDS)?;
        policy.node = level("node", self.node.as_ref(), &Level::WORDS)?;
        policy.quota = level("quota", self.quota.as_ref(), &Level::WORDS)?;
        policy.plugin = level("plugin", self.plugin.as_ref(), &Level::PLUGIN_WORDS)?;
        let wide =
            |what, block: Option<&Block>, table| block.map(|block| rule(what, block, table, |_| true)).transpose();
        policy.operator = wide("operator", self.operator.as_ref(), capability::OPERATOR)?;
        policy.sentinel = wide("sentinel", self.sentinel.as_ref(), capability::SENTINEL)?;
        Ok(policy)
    }
}

/// All keys of all entries. One that cannot be read makes the whole policy unreadable, as in Nomad.
fn keys(list: &[Entry<'_>]) -> Result<Vec<String>, Complaint> {
    list.iter().flat_map(|entry| entry.keys).map(super::syntax::Literal::text).collect()
}

fn remove_first(texts: &mut Vec<String>, is_it: impl Fn(&String) -> bool) {
    if let Some(position) = texts.iter().position(is_it) {
        texts.remove(position);
    }
}

/// Whether the paths of a namespace's first `variables` block have names.
fn has_path_names(namespace: &Entry<'_>) -> Result<(), Complaint> {
    let Node::Object(inside) = &namespace.node else { return Ok(()) };
    let variables = named(inside, "variables")?;
    let Some(Entry { node: Node::Object(inside), .. }) = variables.first() else { return Ok(()) };
    if named(inside, "path")?.iter().any(|path| path.keys.is_empty()) {
        return Err(Complaint::new("Invalid missing variable path: a `path` block needs one: `path \"…\" {`"));
    }
    Ok(())
}

/// Decodes blocks whose first key is a label.
fn labelled(found: &[Entry<'_>], fields: Fields, into: &mut Vec<Block>) -> Result<(), Complaint> {
    for entry in found {
        let (label, inside) = match (entry.keys, &entry.node) {
            // Two labels: the second one is a block within the first, as JSON's nested objects become it.
            ([label, inner], node) => (label, vec![Entry { keys: std::slice::from_ref(inner), node: node.clone() }]),
            ([label, ..], Node::Object(inside)) => (label, inside.clone()),
            // `namespace = { apps = "read" }` in HCL's eyes: a block `apps` with a key `apps`.
            ([label, ..], Node::Literal(_)) => (label, vec![entry.clone()]),
            _ => return Err(Complaint::new("Failed to parse ACL Policy: a list stands where a block should")),
        };
        let mut block = Block { name: label.text()?, ..Block::default() };
        fill(&mut block, &inside, fields)?;
        into.push(block);
    }
    Ok(())
}

/// Decodes all blocks of one name into one.
fn merged(name: &str, found: &[Entry<'_>], fields: Fields) -> Result<Block, Complaint> {
    let mut block = Block::default();
    let (with_labels, plain): (Vec<_>, Vec<_>) = found.iter().cloned().partition(|entry| !entry.keys.is_empty());
    if !with_labels.is_empty() {
        // Their labels are looked through as if they were keys inside.
        fill(&mut block, &with_labels, fields)?;
    }
    for entry in plain {
        let Node::Object(inside) = entry.node else {
            return Err(Complaint::new(format!("Failed to parse ACL Policy: `{name}` is a block: `{name} {{`")));
        };
        fill(&mut block, &inside, fields)?;
    }
    Ok(block)
}

fn fill(block: &mut Block, inside: &[Entry<'_>], fields: Fields) -> Result<(), Complaint> {
    keys(inside)?;
    if fields != Fields::Path {
        for value in values(inside, "policy")? {
            let Node::Literal(literal) = value else {
                return Err(Complaint::new("Failed to parse ACL Policy: `policy` is one word in quotes"));
            };
            block.level = literal.text()?;
        }
    }
    if fields != Fields::Level {
        for value in values(inside, "capabilities")? {
            block.capabilities.extend(texts(&value)?);
        }
    }
    if fields == Fields::Namespace {
        let found = named(inside, "variables")?;
        if !found.is_empty() {
            // They share one list, so that several blocks add to it.
            let mut paths = block.paths.take().unwrap_or_default();
            variables(&found, &mut paths)?;
            block.paths = Some(paths);
        }
    }
    Ok(())
}

fn variables(found: &[Entry<'_>], into: &mut Vec<Block>) -> Result<(), Complaint> {
    let wrong = || Complaint::new("Failed to parse ACL Policy: `variables` is a block of `path \"…\" {` blocks");
    let (with_labels, plain): (Vec<_>, Vec<_>) = found.iter().cloned().partition(|entry| !entry.keys.is_empty());
    let mut bodies = Vec::new();
    if !with_labels.is_empty() {
        bodies.push(with_labels);
    }
    for entry in plain {
        let Node::Object(inside) = entry.node else { return Err(wrong()) };
        bodies.push(inside);
    }
    for body in bodies {
        keys(&body)?;
        let (with_labels, plain): (Vec<_>, Vec<_>) =
            named(&body, "path")?.into_iter().partition(|entry| !entry.keys.is_empty());
        labelled(&with_labels, Fields::Path, into)?;
        for entry in plain {
            match entry.node {
                // Every key inside is taken for a path of its own.
                Node::Object(inside) => labelled(&inside, Fields::Path, into)?,
                Node::List([]) => {}
                Node::List(_) | Node::Literal(_) => return Err(wrong()),
            }
        }
    }
    Ok(())
}

/// All values of a key. It is no block: a label is an error.
fn values<'a>(inside: &[Entry<'a>], name: &str) -> Result<Vec<Node<'a>>, Complaint> {
    let found = named(inside, name)?;
    if found.iter().any(|entry| !entry.keys.is_empty()) {
        return Err(Complaint::new(format!("Failed to parse ACL Policy: `{name}` is a key, no block")));
    }
    Ok(found.into_iter().map(|entry| entry.node).collect())
}

/// A list of texts.
fn texts(node: &Node<'_>) -> Result<Vec<String>, Complaint> {
    let wrong = || Complaint::new("Failed to parse ACL Policy: `capabilities` is a list of words: `[\"read-job\"]`");
    match node {
        Node::List(values) => {
            let texts = values.iter().map(|value| match value {
                super::syntax::Value::Literal(literal) => literal.text(),
                _ => Err(wrong()),
            });
            texts.collect()
        }
        Node::Object(inside) if inside.is_empty() => Ok(Vec::new()),
        Node::Object(_) | Node::Literal(_) => Err(wrong()),
    }
}

fn namespace(block: &Block) -> Result<Rule, Complaint> {
    let mut checked = rule("namespace", block, capability::NAMESPACE, |name| is_name(name, "-*"))?;
    let level = capability::of_namespace_level(&block.level);
    checked.capabilities = capability::with_implied(checked.capabilities.with(level));
    if let Some(paths) = &block.paths {
        if paths.is_empty() {
            let text = format!("Invalid variable policy: no variable paths in namespace {}", block.name);
            return Err(Complaint::new(text));
        }
        for path in paths {
            checked.paths.push((path.name.clone(), path_capabilities(path, &block.name)?));
        }
    }
    Ok(checked)
}

fn path_capabilities(path: &Block, namespace: &str) -> Result<Capabilities, Complaint> {
    if path.name.is_empty() {
        return Err(Complaint::new(format!("Invalid missing variable path in namespace {namespace}")));
    }
    if path.name.starts_with('/') {
        let text = format!(
            "Invalid variable path \"{}\" in namespace {namespace}: cannot start with a leading '/'",
            path.name
        );
        return Err(Complaint::new(text));
    }
    let mut all = Capabilities::default();
    for name in &path.capabilities {
        let one = Capabilities::named(capability::PATH, name);
        let unknown = || Complaint::new(format!("Invalid variable capability '{name}' in namespace {namespace}"));
        all = all.with(one.ok_or_else(unknown)?);
    }
    let of = |names: &[&str]| Capabilities::of(capability::PATH, names);
    Ok(if all.has(of(&["deny"])) {
        of(&["deny"])
    } else if all.has(of(&["read"])) {
        all.with(of(&["list"]))
    } else {
        all
    })
}

/// Judges a block with a level that may be missing and capabilities of a table.
fn rule(
    what: &str,
    block: &Block,
    table: &'static [&'static str],
    is_valid_name: impl Fn(&str) -> bool,
) -> Result<Rule, Complaint> {
    let name = &block.name;
    if !is_valid_name(name) {
        let text = format!("Invalid {what} name: `{name}`; it is 1 to 128 letters, digits, hyphens and `*`");
        return Err(Complaint::new(text));
    }
    let of = if name.is_empty() { String::new() } else { format!(" of `{name}`") };
    if !block.level.is_empty() && !Level::WORDS.contains(&&*block.level) {
        let words = Level::WORDS.join(", ");
        return Err(Complaint::new(format!("Invalid {what} policy: `{}`{of}; it is one of {words}", block.level)));
    }
    let mut capabilities = Capabilities::default();
    for name in &block.capabilities {
        let unknown = || Complaint::new(format!("Invalid {what} capability '{name}'{of}; see Nomad's ACL policies"));
        capabilities = capabilities.with(Capabilities::named(table, name).ok_or_else(unknown)?);
    }
    Ok(Rule { name: name.clone(), level: block.level.clone(), capabilities, paths: Vec::new() })
}

/// Judges a block that has nothing but a level, which it needs.
fn level(what: &str, block: Option<&Block>, words: &[&str]) -> Result<Option<Level>, Complaint> {
    let Some(block) = block else { return Ok(None) };
    if !words.contains(&&*block.level) {
        let words = words.join(", ");
        let text = format!("Invalid {what} policy: `{}`; `policy` is one of {words}", block.level);
        return Err(Complaint::new(text));
    }
    // `scale` is accepted where it means nothing.
    Ok(Level::parse(&block.level))
}

/// Whether a text is a name that a rule can have.
fn is_name(name: &str, signs: &str) -> bool {
    (1..=128).contains(&name.len()) && name.chars().all(|part| part.is_ascii_alphanumeric() || signs.contains(part))
}
