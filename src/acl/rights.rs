//! What policies allow together (`nomad-http.md` sections 10.3 and 10.5).

use std::collections::BTreeMap;

use super::capability::{Capabilities, DENY, NAMESPACE, READ_JOB};
use super::policy::{Level, Policy, Rule};

/// Any namespace.
const ANY: &str = "*";

/// What somebody may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    is_management: bool,
    plugin: Option<Level>,
    agent: Option<Level>,
    node: Option<Level>,
    /// By whole name.
    namespaces: BTreeMap<Box<str>, Capabilities>,
    /// By glob.
    globs: BTreeMap<Box<str>, Capabilities>,
}

impl Rights {
    /// Everything.
    #[must_use]
    pub fn management() -> Self {
        Self { is_management: true, ..Self::default() }
    }

    /// What some policies allow together.
    #[must_use]
    pub fn of<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> Self {
        let mut rights = Self::default();
        for policy in policies {
            for rule in &policy.namespaces {
                let Rule { name, capabilities, .. } = rule;
                let table = if name.contains('*') { &mut rights.globs } else { &mut rights.namespaces };
                let held = table.entry(name.as_str().into()).or_default();
                *held = held.with(*capabilities);
            }
            rights.plugin = merged(rights.plugin, policy.plugin);
            rights.agent = merged(rights.agent, policy.agent);
            rights.node = merged(rights.node, policy.node);
        }
        let deny = Capabilities::of(NAMESPACE, &[DENY]);
        for held in rights.namespaces.values_mut().chain(rights.globs.values_mut()) {
            if held.has(deny) {
                *held = deny;
            }
        }
        rights
    }

    /// Whether everything is allowed.
    #[must_use]
    pub fn is_management(&self) -> bool {
        self.is_management
    }

    /// Whether plugins may be listed.
    #[must_use]
    pub fn may_list_plugins(&self) -> bool {
        // `write` allows neither, and takes `read` away: Nomad's own.
        self.is_management || matches!(self.plugin, Some(Level::List | Level::Read))
    }

    /// Whether plugins may be read.
    #[must_use]
    pub fn may_read_plugins(&self) -> bool {
        self.is_management || self.plugin == Some(Level::Read)
    }

    /// Whether the agent may be read.
    #[must_use]
    pub fn may_read_agent(&self) -> bool {
        self.is_management || matches!(self.agent, Some(Level::Read | Level::Write))
    }

    /// Whether hosts may be read.
    #[must_use]
    pub fn may_read_nodes(&self) -> bool {
        self.is_management || matches!(self.node, Some(Level::Read | Level::Write))
    }

    /// Whether jobs, and so allocations, of a namespace may be read; `*`: of any.
    #[must_use]
    pub fn may_read_jobs(&self, namespace: &str) -> bool {
        let wanted = Capabilities::of(NAMESPACE, &[READ_JOB]);
        if self.is_management {
            return true;
        }
        if namespace == ANY && self.held().any(|held| held.has(wanted)) {
            return true;
        }
        self.capabilities(namespace).is_some_and(|held| held.has(wanted))
    }

    /// Whether a namespace is shown at all; `*`: whether any is.
    #[must_use]
    pub fn sees_namespace(&self, namespace: &str) -> bool {
        let deny = Capabilities::of(NAMESPACE, &[DENY]);
        let is_any = |held: Capabilities| !held.is_empty() && !held.has(deny);
        self.is_management
            || namespace == ANY && self.held().any(is_any)
            || self.capabilities(namespace).is_some_and(is_any)
    }

    fn held(&self) -> impl Iterator<Item = Capabilities> {
        self.namespaces.values().chain(self.globs.values()).copied()
    }

    /// The one entry that decides about a namespace.
    fn capabilities(&self, namespace: &str) -> Option<Capabilities> {
        if let Some(held) = self.namespaces.get(namespace) {
            return Some(*held);
        }
        let matching = self.globs.iter().filter(|(glob, _)| matches(glob, namespace));
        // The closest: its own signs make up most of the name. Of several, the last in byte order.
        let difference = |glob: &str| namespace.len() + glob.matches('*').count() - glob.len();
        let mut closest: Option<(usize, Capabilities)> = None;
        for (glob, held) in matching {
            let difference = difference(glob);
            if closest.is_none_or(|(least, _)| difference <= least) {
                closest = Some((difference, *held));
            }
        }
        closest.map(|(_, held)| held)
    }
}

fn merged(one: Option<Level>, other: Option<Level>) -> Option<Level> {
    // In the order of the levels: `deny` beats all.
    one.max(other)
}

/// Whether a glob, in which `*` stands for any text, is a whole name.
fn matches(glob: &str, name: &str) -> bool {
    let mut parts = glob.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rights(policies: &[&str]) -> Rights {
        let policies: Vec<Policy> = policies.iter().map(|text| Policy::parse(text).expect("a valid policy")).collect();
        Rights::of(&policies)
    }

    #[test]
    fn plugins_are_listed_and_read_as_the_table_says() {
        for (levels, lists, reads) in [
            (&["read"][..], true, true),
            (&["list"], true, false),
            (&["write"], false, false),
            (&["deny"], false, false),
            (&[], false, false),
            (&["read", "write"], false, false),
            (&["read", "deny"], false, false),
            (&["write", "deny"], false, false),
            (&["list", "read"], true, true),
        ] {
            let texts: Vec<String> = levels.iter().map(|level| format!("plugin {{ policy = \"{level}\" }}")).collect();
            let rights = rights(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!((rights.may_list_plugins(), rights.may_read_plugins()), (lists, reads), "{levels:?}");
        }
        let management = Rights::management();
        assert!(management.may_list_plugins() && management.may_read_plugins() && management.may_read_jobs("x"));
    }

    #[test]
    fn an_exact_name_decides_alone_then_the_closest_glob() {
        let rights = rights(&[
            r#"namespace "*" { policy = "read" }"#,
            r#"namespace "apps" { policy = "deny" }"#,
            r#"namespace "prod-*" { capabilities = ["list-jobs"] }"#,
            r#"namespace "prod-web-*" { policy = "write" }"#,
        ]);
        for (namespace, reads) in
            [("default", true), ("apps", false), ("prod-db", false), ("prod-web-1", true), ("*", true), ("", true)]
        {
            assert_eq!(rights.may_read_jobs(namespace), reads, "{namespace}");
        }
        assert!(!rights.sees_namespace("apps"));
        assert!(rights.sees_namespace("prod-db"));
    }

    #[test]
    fn of_globs_as_close_the_last_in_byte_order_decides() {
        let granting = rights(&[r#"namespace "a*c" { policy = "deny" }"#, r#"namespace "ab*" { policy = "read" }"#]);
        assert!(granting.may_read_jobs("abc"));
        let denying = rights(&[r#"namespace "a*c" { policy = "read" }"#, r#"namespace "ab*" { policy = "deny" }"#]);
        assert!(!denying.may_read_jobs("abc"));
    }

    #[test]
    fn deny_takes_the_rest_of_its_entry_away_in_any_order() {
        let read = r#"namespace "a" { policy = "read" }"#;
        let deny = r#"namespace "a" { capabilities = ["deny"] }"#;
        for texts in [[read, deny], [deny, read]] {
            assert!(!rights(&texts).may_read_jobs("a"));
        }
        assert!(!rights(&[r#"namespace "a" { capabilities = ["read-job", "deny"] }"#]).may_read_jobs("*"));
        assert!(!rights(&["plugin { policy = \"read\" }"]).may_read_jobs("*"));
    }

    fn by_letters(glob: &[u8], name: &[u8]) -> bool {
        match glob.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|taken| by_letters(rest, &name[taken..])),
            Some((letter, rest)) => name.first() == Some(letter) && by_letters(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_glob_matches_what_it_matches_letter_by_letter(glob in "[ab*]{0,6}", name in "[ab]{0,6}") {
            prop_assert_eq!(matches(&glob, &name), by_letters(glob.as_bytes(), name.as_bytes()));
        }
    }
}
