//! A part in a fleet: `--role`, and how to reach the etcd that makes one of it.

use std::path::PathBuf;
use std::time::Duration;

use super::values::{Origin, Values, not_empty, positive};
use super::{Member, MemberRole};
use crate::domain::fleet::EtcdServer;
use crate::domain::trust::{Identity, Trust};

/// Shortest silence that etcd can tell from a slow network: its leases last at least two seconds.
const SHORTEST_TTL: Duration = Duration::from_secs(2);
/// Longest: beyond it nobody could speak of health any more.
const LONGEST_TTL: Duration = Duration::from_hours(1);
/// Settings that mean nothing without a role, and what they are where nobody says anything.
const ETCD: [(&str, &str); 8] = [
    ("etcd-servers", ""),
    ("etcd-cafile", ""),
    ("etcd-certfile", ""),
    ("etcd-keyfile", ""),
    ("etcd-username", ""),
    ("etcd-password-file", ""),
    ("etcd-prefix", "/csi-gateway/v1/"),
    ("host-ttl", "30s"),
];

/// The part; `None`: none, or one that cannot be taken, and then a problem says why.
pub(super) fn member(values: &mut Values<'_>) -> Option<Member> {
    let role = values.word("role", &[("agent", MemberRole::Agent), ("aggregator", MemberRole::Aggregator)]);
    let is_asked = !values.all("role").is_empty();
    let servers = servers(values);
    let prefix = values.parse("etcd-prefix", prefix).unwrap_or_default();
    let host_ttl = values.parse("host-ttl", ttl).unwrap_or_default();
    let file = |text: &str| Ok(PathBuf::from(not_empty(text)?));
    let (certificate, key) = (values.parse("etcd-certfile", file), values.parse("etcd-keyfile", file));
    let authorities = values.parse("etcd-cafile", file);
    let (name, password) = (values.parse("etcd-username", not_empty), values.parse("etcd-password-file", file));
    // A file that says every default says nothing.
    let given = ETCD.into_iter().find_map(|(name, usual)| {
        let mut all = values.all(name).into_iter();
        all.find(|(value, origin)| *origin != Origin::Default && value != usual).map(|(_, origin)| origin)
    });
    let has_servers = !values.all("etcd-servers").is_empty();
    let problems = &mut values.problems.0;
    match (is_asked, has_servers) {
        (false, _) => {
            if let Some(origin) = given {
                problems.push(format!("{origin}: does nothing without --role=agent or --role=aggregator"));
            }
            return None;
        }
        (true, false) => problems.push("--role needs --etcd-servers: a fleet meets in an etcd".to_owned()),
        (true, true) => {}
    }
    let has_tls_files = authorities.is_some() || certificate.is_some() || key.is_some();
    if has_tls_files && !servers.is_empty() && !servers.iter().any(|server| server.is_tls) {
        problems.push(
            "--etcd-cafile, --etcd-certfile and --etcd-keyfile do nothing where no server of --etcd-servers is https://"
                .to_owned(),
        );
    }
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
        (None, None) => None,
        (Some(_), None) => {
            problems.push("--etcd-certfile needs --etcd-keyfile: a certificate is shown with its key".to_owned());
            None
        }
        (None, Some(_)) => {
            problems
                .push("--etcd-keyfile needs --etcd-certfile: a key is of no use without its certificate".to_owned());
            None
        }
    };
    let user = match (name, password) {
        (Some(name), Some(password)) => Some((name, password)),
        (None, None) => None,
        (Some(_), None) => {
            problems.push("--etcd-username needs --etcd-password-file".to_owned());
            None
        }
        (None, Some(_)) => {
            problems.push("--etcd-password-file needs --etcd-username".to_owned());
            None
        }
    };
    let trust = Trust { authorities, identity, ..Trust::default() };
    Some(Member { role: role?, servers, prefix, trust, user, host_ttl })
}

/// What an aggregator cannot have: it finds no driver and keeps nothing.
pub(super) fn refuse_sources(values: &mut Values<'_>) {
    for name in
        ["csi-address", "csi-plugins-dir", "kubelet-dir", "nomad-state-dir", "nomad-addr", "plugin-id", "state-dir"]
    {
        if let Some((value, origin)) = values.all(name).into_iter().find(|(_, origin)| *origin != Origin::Default) {
            let what = if name == "state-dir" {
                "is no use to --role=aggregator, which keeps nothing: what it shows is in etcd"
            } else {
                "is no use to --role=aggregator, which watches no driver: agents do, with --role=agent"
            };
            values.wrong(&origin, &value, what);
        }
    }
    let sockets: Vec<String> = values
        .plugins()
        .flat_map(|block| {
            block.entries.iter().filter(|entry| entry.key == "socket").map(|entry| entry.place.to_string())
        })
        .collect();
    for place in sockets {
        let problem = format!("{place}: socket: is no use to --role=aggregator, which watches no driver");
        values.problems.0.push(problem);
    }
}

fn servers(values: &mut Values<'_>) -> Vec<EtcdServer> {
    let mut servers = Vec::new();
    for (value, origin) in values.all("etcd-servers") {
        // Several in one flag, too, as etcd's and Kubernetes' programs take them.
        for text in value.split(',').map(str::trim) {
            match EtcdServer::parse(text) {
                Ok(server) if servers.contains(&server) => {}
                Ok(server) => servers.push(server),
                Err(what) => values.wrong(&origin, text, what),
            }
        }
    }
    servers
}

/// A prefix ends with a slash: that of one fleet is then never the beginning of another's.
fn prefix(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    if trimmed.trim_start_matches('/').is_empty() {
        return Err("is no prefix: it would be the whole etcd".to_owned());
    }
    if trimmed.len() > 256 {
        return Err("is too long: at most 256 bytes".to_owned());
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("must not contain space or control characters".to_owned());
    }
    Ok(format!("{trimmed}/"))
}

fn ttl(text: &str) -> Result<Duration, String> {
    let duration = positive(text)?;
    if duration.subsec_nanos() != 0 || !(SHORTEST_TTL..=LONGEST_TTL).contains(&duration) {
        return Err("is no time from 2s to 1h in whole seconds, as etcd counts its leases".to_owned());
    }
    Ok(duration)
}
