//! What Nomad's clients read beside plugins (`nomad-http.md` section 19): keys in byte order.

use std::collections::BTreeMap;

use serde::Serialize;

/// Matches of a search, by context.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Found<M> {
    index: u64,
    known_leader: bool,
    last_contact: u64,
    /// `null` where nothing matches.
    matches: BTreeMap<&'static str, Option<Vec<M>>>,
    next_token: &'static str,
    truncations: BTreeMap<&'static str, bool>,
}

impl<M> Found<M> {
    /// From how fresh it is (index, leader, milliseconds), and matches with whether they are all.
    pub(in crate::api) fn new(
        (index, known_leader, last_contact): (u64, bool, u64),
        found: impl Iterator<Item = (&'static str, (Option<Vec<M>>, bool))>,
    ) -> Self {
        let (mut matches, mut truncations) = (BTreeMap::new(), BTreeMap::new());
        for (context, (ids, is_truncated)) in found {
            matches.insert(context, ids);
            truncations.insert(context, is_truncated);
        }
        Self { index, known_leader, last_contact, matches, next_token: "", truncations }
    }
}

/// One match of a fuzzy search. Plugins and namespaces have no scope.
#[derive(Serialize)]
pub(in crate::api) struct FuzzyMatch {
    #[serde(rename = "ID")]
    id: String,
}

impl FuzzyMatch {
    pub(in crate::api) fn new(id: String) -> Self {
        Self { id }
    }
}

/// The one namespace.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Namespace {
    capabilities: Option<()>,
    create_index: u64,
    description: &'static str,
    hash: Option<()>,
    meta: Option<()>,
    modify_index: u64,
    name: &'static str,
    quota: &'static str,
}

impl Namespace {
    pub(in crate::api) fn name(&self) -> &'static str {
        self.name
    }

    pub(in crate::api) fn default_one() -> Self {
        Self {
            capabilities: None,
            create_index: 1,
            description: "Default shared namespace",
            hash: None,
            meta: None,
            modify_index: 1,
            name: "default",
            quota: "",
        }
    }
}

/// A token.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Token<'a> {
    #[serde(rename = "AccessorID")]
    accessor_id: &'a str,
    create_index: u64,
    create_time: Option<&'a str>,
    expiration_time: Option<&'a str>,
    #[serde(rename = "ExpirationTTL")]
    expiration_ttl: &'static str,
    global: bool,
    hash: Option<()>,
    modify_index: u64,
    name: &'a str,
    policies: Option<Vec<&'a str>>,
    roles: Option<()>,
    #[serde(rename = "SecretID")]
    secret_id: &'a str,
    #[serde(rename = "Type")]
    kind: &'static str,
}

/// A policy. Nomad's `RulesJSON` is its own reading of the rules.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Policy<'a> {
    create_index: u64,
    description: &'static str,
    hash: Option<()>,
    #[serde(rename = "JobACL")]
    job_acl: Option<()>,
    modify_index: u64,
    name: &'a str,
    rules: &'a str,
    #[serde(rename = "RulesJSON")]
    rules_json: Option<()>,
}

impl<'a> Policy<'a> {
    pub(in crate::api) fn new(name: &'a str, rules: &'a str) -> Self {
        Self {
            create_index: 0,
            description: "",
            hash: None,
            job_acl: None,
            modify_index: 0,
            name,
            rules,
            rules_json: None,
        }
    }
}

impl<'a> Token<'a> {
    /// Somebody's, who has just shown its secret: Nomad gives it back, and clients look for it there.
    pub(in crate::api) fn of(token: &'a crate::acl::Token, secret: &'a str) -> Self {
        Self {
            accessor_id: &token.accessor_id,
            create_time: Some(&token.create_time),
            expiration_time: token.expiration_time.as_deref(),
            name: &token.name,
            policies: Some(token.policies.iter().map(String::as_str).collect()),
            kind: token.kind.as_str(),
            secret_id: secret,
            ..Self::without_acls()
        }
    }

    /// That of those who have none.
    pub(in crate::api) fn anonymous() -> Self {
        let policies = Some(vec![crate::acl::ANONYMOUS]);
        Self { accessor_id: "anonymous", name: "Anonymous Token", kind: "client", policies, ..Self::without_acls() }
    }

    /// Everybody's, where nobody is asked for one.
    pub(in crate::api) fn without_acls() -> Self {
        Self {
            accessor_id: "acls-disabled",
            create_index: 0,
            create_time: None,
            expiration_time: None,
            expiration_ttl: "",
            global: false,
            hash: None,
            modify_index: 0,
            name: "ACLs disabled token",
            policies: None,
            roles: None,
            secret_id: "",
            kind: "management",
        }
    }
}

/// How an agent is in its roles.
#[derive(Serialize)]
pub(in crate::api) struct AgentHealth {
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<RoleHealth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<RoleHealth>,
}

#[derive(Serialize)]
struct RoleHealth {
    message: &'static str,
    ok: bool,
}

impl AgentHealth {
    pub(in crate::api) fn new(is_server: bool, is_client: bool) -> Self {
        Self {
            client: is_client.then_some(RoleHealth { message: "client not enabled", ok: false }),
            server: is_server.then_some(RoleHealth { message: "ok", ok: true }),
        }
    }
}

/// What the agent says of itself.
#[derive(Serialize)]
pub(in crate::api) struct AgentSelf<'a> {
    config: Config<'a>,
    member: Member<'a>,
    stats: BTreeMap<&'static str, ()>,
}

#[derive(Serialize)]
struct Config<'a> {
    #[serde(rename = "ACL")]
    acl: Acl,
    #[serde(rename = "Region")]
    region: &'a str,
    #[serde(rename = "Version")]
    version: Version,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Acl {
    enabled: bool,
}

/// Ours: whoever compares it learns that this is no Nomad.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: &'static str,
    version_metadata: &'static str,
    version_prerelease: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Member<'a> {
    addr: &'a str,
    name: &'a str,
    port: u16,
    status: &'static str,
    tags: BTreeMap<&'static str, &'a str>,
}

impl<'a> Member<'a> {
    fn new(region: &'a str, address: &'a str) -> Self {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        Self {
            addr: host.trim_start_matches('[').trim_end_matches(']'),
            name: address,
            port: port.parse().unwrap_or(0),
            status: "alive",
            tags: BTreeMap::from([("region", region), ("role", "csi-gateway")]),
        }
    }
}

impl<'a> AgentSelf<'a> {
    pub(in crate::api) fn new(region: &'a str, address: &'a str, has_acls: bool) -> Self {
        let version =
            Version { version: env!("CARGO_PKG_VERSION"), version_metadata: "csi-gateway", version_prerelease: "" };
        Self {
            config: Config { acl: Acl { enabled: has_acls }, region, version },
            member: Member::new(region, address),
            stats: BTreeMap::new(),
        }
    }
}

/// All servers: this one.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct Members<'a> {
    members: [Member<'a>; 1],
    #[serde(rename = "ServerDC")]
    server_dc: &'static str,
    server_name: &'a str,
    server_region: &'a str,
}

impl<'a> Members<'a> {
    pub(in crate::api) fn new(region: &'a str, address: &'a str) -> Self {
        Self { members: [Member::new(region, address)], server_dc: "", server_name: address, server_region: region }
    }
}
