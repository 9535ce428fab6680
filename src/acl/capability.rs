//! The names of what a policy can allow, and sets of them.

/// A set of names from one table; one bit each, in the table's order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Capabilities(u64);

impl Capabilities {
    /// The one name, if the table has it.
    pub(super) fn named(table: &[&str], name: &str) -> Option<Self> {
        table.iter().position(|known| *known == name).map(|position| Self(1 << position))
    }

    /// Those of some names; what the table does not have is left out.
    pub(super) fn of(table: &[&str], names: &[&str]) -> Self {
        names.iter().filter_map(|name| Self::named(table, name)).fold(Self::default(), Self::with)
    }

    /// These and those.
    #[must_use]
    pub(super) fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Whether all of these are in it.
    #[must_use]
    pub(super) fn has(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// Whether there are none.
    #[must_use]
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names, in the table's order.
    pub(super) fn names(self, table: &'static [&'static str]) -> impl Iterator<Item = &'static str> {
        table.iter().enumerate().filter(move |(position, _)| self.0 & 1 << position != 0).map(|(_, name)| *name)
    }
}

/// Takes everything else away.
pub(super) const DENY: &str = "deny";
/// What allocations are seen with.
pub(super) const READ_JOB: &str = "read-job";

/// Of a namespace. The last nineteen are accepted since Nomad 2.0.
pub(super) const NAMESPACE: &[&str] = &[
    DENY,
    "list-jobs",
    "parse-job",
    READ_JOB,
    "submit-job",
    "dispatch-job",
    "read-logs",
    "read-fs",
    "alloc-exec",
    "alloc-node-exec",
    "alloc-lifecycle",
    "sentinel-override",
    "csi-register-plugin",
    "csi-write-volume",
    "csi-read-volume",
    "csi-list-volume",
    "csi-mount-volume",
    "host-volume-create",
    "host-volume-register",
    "host-volume-read",
    "host-volume-write",
    "list-scaling-policies",
    "read-scaling-policy",
    "read-job-scaling",
    "scale-job",
    "submit-recommendation",
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

/// What `policy = "read"` of a namespace stands for.
const NAMESPACE_READ: &[&str] = &[
    "list-jobs",
    "parse-job",
    READ_JOB,
    "csi-list-volume",
    "csi-read-volume",
    "read-job-scaling",
    "list-scaling-policies",
    "read-scaling-policy",
    "host-volume-read",
];
/// What `policy = "write"` of a namespace stands for, beside that.
const NAMESPACE_WRITE: &[&str] = &[
    "scale-job",
    "submit-job",
    "dispatch-job",
    "read-logs",
    "read-fs",
    "alloc-exec",
    "alloc-lifecycle",
    "csi-mount-volume",
    "csi-write-volume",
    "submit-recommendation",
    "host-volume-create",
];
/// What `policy = "scale"` of a namespace stands for.
const NAMESPACE_SCALE: &[&str] = &[
    "list-scaling-policies",
    "read-scaling-policy",
    "read-job-scaling",
    "scale-job",
    READ_JOB,
    "submit-recommendation",
];

/// Of a node pool.
pub(super) const NODE_POOL: &[&str] = &[DENY, "delete", "read", "write"];
/// Of a host volume.
pub(super) const HOST_VOLUME: &[&str] = &[DENY, "mount-readonly", "mount-readwrite"];
/// Of variables under a path.
pub(super) const PATH: &[&str] = &[DENY, "list", "read", "write", "destroy"];
/// Of `operator`, since Nomad 2.0.
pub(super) const OPERATOR: &[&str] =
    &[DENY, "snapshot-save", "license-read", "keyring-rotate", "keyring-read", "keyring-delete"];
/// Of `sentinel`, since Nomad 2.0.
pub(super) const SENTINEL: &[&str] = &[DENY, "sentinel-read", "sentinel-submit", "sentinel-delete"];

/// What a level of a namespace stands for.
pub(super) fn of_namespace_level(level: &str) -> Capabilities {
    let of = |names: &[&str]| Capabilities::of(NAMESPACE, names);
    match level {
        "deny" => of(&[DENY]),
        "read" => of(NAMESPACE_READ),
        "write" => of(NAMESPACE_READ).with(of(NAMESPACE_WRITE)),
        "scale" => of(NAMESPACE_SCALE),
        _ => Capabilities::default(),
    }
}

/// With what some names bring along.
pub(super) fn with_implied(given: Capabilities) -> Capabilities {
    let of = |names: &[&str]| Capabilities::of(NAMESPACE, names);
    [
        (
            "host-volume-write",
            &["host-volume-register", "host-volume-create", "host-volume-delete", "host-volume-read"][..],
        ),
        ("host-volume-register", &["host-volume-create", "host-volume-read"]),
        ("host-volume-create", &["host-volume-read"]),
    ]
    .into_iter()
    .filter(|(name, _)| given.has(of(&[name])))
    .fold(given, |all, (_, implied)| all.with(of(implied)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_names_as_nomad_has_and_each_is_a_bit_of_its_own() {
        assert_eq!(NAMESPACE.len(), 45);
        let all = Capabilities::of(NAMESPACE, NAMESPACE);
        assert_eq!(all.names(NAMESPACE).collect::<Vec<_>>(), NAMESPACE);
        assert_eq!(all.0.count_ones(), 45);
    }

    #[test]
    fn jobs_are_read_with_every_level_but_deny() {
        let read_job = Capabilities::of(NAMESPACE, &[READ_JOB]);
        for level in ["read", "write", "scale"] {
            assert!(of_namespace_level(level).has(read_job), "{level}");
        }
        assert!(!of_namespace_level("deny").has(read_job));
        let implied = with_implied(Capabilities::of(NAMESPACE, &["host-volume-write"]));
        assert!(implied.has(Capabilities::of(NAMESPACE, &["host-volume-delete", "host-volume-read"])));
    }
}
