//! What a look at a driver means for what is known: the fold of observations into records.
//!
//! Pure functions; the publisher is their caller. Rules G5–G10 of `fingerprinting.md` live here: which words Nomad's
//! `HealthDescription` gets, what outlives a failure, and when a time moves.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::domain::capability::{Capability, CapabilitySet};
use crate::domain::catalog::RecordChange;
use crate::domain::code::Code;
use crate::domain::fingerprint::{Fingerprint, NodeFacts, Product};
use crate::domain::history::Change;
use crate::domain::id::{InstanceKey, Role};
use crate::domain::record::{Owner, Phase, Reason, Record, Registration};
use crate::domain::text::{DESCRIPTION_LIMIT, bounded};
use crate::domain::time::Timestamp;

/// How one look went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Everything that was asked was answered.
    Healthy,
    /// The driver says that it is not ready, whatever other calls said (rule G5).
    Starting,
    /// Something failed.
    Failed {
        /// What that makes of the instance: unhealthy, stale or gone.
        phase: Phase,
        /// The error in Go's words, for Nomad's template.
        error: String,
        /// The gRPC code, where there is one.
        code: Option<Code>,
        /// What happened and what to do, for a person.
        text: String,
    },
    /// Something failed, and it is said in a whole sentence: published as it is, in no template (case 51).
    Verbatim {
        /// What that makes of the instance.
        phase: Phase,
        /// The sentence.
        description: String,
    },
}

/// One look at one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Which instance.
    pub key: InstanceKey,
    /// How it went.
    pub health: Health,
    /// What was learnt; `None` keeps what is known (rule G6).
    pub fingerprint: Option<Fingerprint>,
    /// Who runs it.
    pub owner: Owner,
    /// Path of the socket.
    pub socket: Arc<str>,
    /// Whether configuration names the socket.
    pub is_configured: bool,
    /// What a kubelet believes of it.
    pub registration: Option<Registration>,
}

/// What the publisher is told.
#[derive(Debug)]
pub enum Report {
    /// An instance was looked at.
    Seen(Box<Observed>),
    /// An instance is no longer known.
    Retire(InstanceKey),
    /// Records as they are, made elsewhere.
    Feed(Vec<RecordChange>),
    /// The first scan is complete: every source was listed, every socket has a verdict, and all of it was reported.
    Scanned,
    /// Whoever sends this wants to know when all that was reported before it can be read.
    Mark(oneshot::Sender<()>),
}

/// The record after a look.
#[must_use]
pub fn fold(previous: Option<&Record>, observed: Observed, now: Timestamp) -> Record {
    let Observed { key, health, fingerprint, owner, socket, is_configured, registration } = observed;
    let (phase, reason) = verdict(health, previous.is_some_and(|record| record.has_answered));
    let mut record = Record {
        key,
        phase,
        reason,
        since: now,
        update_time: now,
        was_healthy: phase == Phase::Healthy,
        has_answered: matches!(phase, Phase::Healthy | Phase::Starting),
        fingerprint,
        owner,
        socket,
        is_configured,
        registration,
    };
    if let Some(previous) = previous {
        record.was_healthy |= previous.was_healthy;
        record.has_answered |= previous.has_answered;
        if record.fingerprint.is_none() {
            record.fingerprint.clone_from(&previous.fingerprint);
        }
        if previous.phase == record.phase {
            record.since = previous.since;
        }
        if previous.is_alike_to_nomad(&record) {
            record.update_time = previous.update_time;
        }
    }
    record
}

fn verdict(health: Health, has_answered: bool) -> (Phase, Reason) {
    match health {
        Health::Healthy => (Phase::Healthy, Reason::plain("healthy")),
        Health::Starting => (Phase::Starting, Reason::plain("unhealthy")),
        Health::Failed { phase, error, code, text } => {
            let template = if has_answered {
                "failed fingerprinting with error: "
            } else {
                "failed initial fingerprint with err: "
            };
            let description = bounded(&format!("{template}{error}"), DESCRIPTION_LIMIT);
            (phase, Reason { description: description.into(), code, text: bounded(&text, DESCRIPTION_LIMIT) })
        }
        Health::Verbatim { phase, description } => (phase, Reason::plain(&bounded(&description, DESCRIPTION_LIMIT))),
    }
}

/// What is worth remembering about the step from one record to the next. (That an instance is retired is no record's.)
#[must_use]
pub fn transitions(previous: Option<&Record>, next: &Record) -> Vec<Change> {
    let Some(previous) = previous else { return vec![Change::Appeared { to: next.phase }] };
    let mut changes = Vec::new();
    if previous.phase != next.phase {
        changes.push(Change::Phase { from: previous.phase, to: next.phase });
    } else if is_another_reason(&previous.reason, &next.reason) {
        changes.push(Change::Reason);
    }
    if previous.registration != next.registration {
        changes.push(Change::Registration { from: previous.registration, to: next.registration });
    }
    if let (Some(before), Some(after)) = (&previous.fingerprint, &next.fingerprint)
        && before != after
    {
        compare_products(&before.product, &after.product, next.key.role, &mut changes);
        if let (Some(before), Some(after)) = (&before.node, &after.node) {
            compare_nodes(before, after, &mut changes);
        }
    }
    changes
}

/// The code tells reasons apart where there is one: texts may hold a port or a counter that is new each time.
fn is_another_reason(before: &Reason, after: &Reason) -> bool {
    before.code != after.code || (after.code.is_none() && before.description != after.description)
}

fn compare_products(before: &Product, after: &Product, role: Role, changes: &mut Vec<Change>) {
    if before.provider != after.provider {
        changes.push(Change::Identity { from: (*before.provider).into(), to: (*after.provider).into() });
    }
    if before.version != after.version {
        changes.push(Change::Version { from: (*before.version).into(), to: (*after.version).into() });
    }
    let mut difference = Difference::default();
    difference.of(Some(&before.services), Some(&after.services));
    difference.of(Some(&before.expansion), Some(&after.expansion));
    // The other role's are another instance's news, and some names exist in both.
    match role {
        Role::Controller => difference.of(before.controller.as_ref(), after.controller.as_ref()),
        Role::Node => difference.of(before.node.as_ref(), after.node.as_ref()),
    }
    difference.of(before.group.as_ref(), after.group.as_ref());
    let Difference { gained, lost } = difference;
    if !gained.is_empty() || !lost.is_empty() {
        changes.push(Change::Capabilities { gained, lost });
    }
}

#[derive(Default)]
struct Difference {
    gained: Vec<String>,
    lost: Vec<String>,
}

impl Difference {
    fn of<C: Capability>(&mut self, before: Option<&CapabilitySet<C>>, after: Option<&CapabilitySet<C>>) {
        let names = |set: Option<&CapabilitySet<C>>| set.map(|set| set.names().collect()).unwrap_or_default();
        let (before, after): (Vec<String>, Vec<String>) = (names(before), names(after));
        self.gained.extend(after.iter().filter(|name| !before.contains(name)).cloned());
        self.lost.extend(before.into_iter().filter(|name| !after.contains(name)));
    }
}

fn compare_nodes(before: &NodeFacts, after: &NodeFacts, changes: &mut Vec<Change>) {
    if before.id != after.id {
        changes.push(Change::NodeId { from: before.id.clone(), to: after.id.clone() });
    }
    if before.topology != after.topology {
        changes.push(Change::Topology { from: before.topology.clone(), to: after.topology.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::capability::NodeCapability;
    use crate::domain::id::{HostId, PluginId};

    fn product(version: &str, node: &[NodeCapability]) -> Product {
        Product {
            provider: "drv.example.com".into(),
            version: version.into(),
            manifest: Default::default(),
            services: Default::default(),
            expansion: Default::default(),
            controller: None,
            node: Some(node.iter().copied().collect()),
            group: None,
        }
    }

    fn fingerprint(product: Product) -> Fingerprint {
        let node = NodeFacts { id: "n-1".into(), max_volumes: i64::MAX, topology: None };
        Fingerprint { product: Arc::new(product), node: Some(Box::new(node)), warnings: Box::default() }
    }

    fn d0() -> Fingerprint {
        fingerprint(product("1.2.3", &[NodeCapability::StageUnstageVolume]))
    }

    fn seen(health: Health, fingerprint: Option<Fingerprint>) -> Observed {
        Observed {
            key: InstanceKey {
                plugin: PluginId::parse("drv.example.com").expect("legal"),
                role: Role::Node,
                host: HostId::parse("host-aaaa").expect("legal"),
            },
            health,
            fingerprint,
            owner: Owner::default(),
            socket: "/run/csi/socket".into(),
            is_configured: true,
            registration: None,
        }
    }

    fn failed(error: &str, code: Option<Code>) -> Health {
        Health::Failed { phase: Phase::Unhealthy, error: error.into(), code, text: "it hangs".into() }
    }

    /// Folds looks one second apart, beginning at second 1.
    fn history(looks: Vec<Observed>) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        for (second, look) in (1..).zip(looks) {
            records.push(fold(records.last(), look, Timestamp(second)));
        }
        records
    }

    const BACKEND_DOWN: &str = "rpc error: code = FailedPrecondition desc = backend down";

    #[test]
    fn case_8_a_failure_before_the_first_answer_is_called_initial() {
        let records = history(vec![seen(failed(BACKEND_DOWN, Some(Code::FailedPrecondition)), None)]);
        assert_eq!(&*records[0].reason.description, format!("failed initial fingerprint with err: {BACKEND_DOWN}"));
        assert_eq!(records[0].fingerprint, None);
        assert!(!records[0].was_healthy);
    }

    #[test]
    fn case_9_a_failure_after_that_is_not_and_what_was_known_stays() {
        let records = history(vec![
            seen(Health::Healthy, Some(d0())),
            seen(failed(BACKEND_DOWN, Some(Code::FailedPrecondition)), None),
        ]);
        assert_eq!(&*records[1].reason.description, format!("failed fingerprinting with error: {BACKEND_DOWN}"));
        assert_eq!(records[1].fingerprint, Some(d0()));
        assert!(records[1].was_healthy);
    }

    #[test]
    fn a_driver_that_said_it_is_starting_has_answered() {
        let records = history(vec![seen(Health::Starting, None), seen(failed("x", None), None)]);
        assert_eq!(&*records[1].reason.description, "failed fingerprinting with error: x");
        assert!(!records[1].was_healthy);
    }

    #[test]
    fn case_10_each_way_of_an_outage_moves_the_update_time_once() {
        let down = || seen(failed("rpc error: code = Unavailable desc = x", Some(Code::Unavailable)), None);
        let up = || seen(Health::Healthy, Some(d0()));
        let records = history(vec![up(), down(), down(), up(), up()]);
        let times: Vec<i64> = records.iter().map(|record| record.update_time.0).collect();
        assert_eq!(times, [1, 2, 2, 4, 4]);
        assert!(records.iter().all(|record| record.fingerprint == Some(d0())));
    }

    #[test]
    fn case_15_a_starting_driver_is_unhealthy_in_nomads_word_whatever_else_failed() {
        let records = history(vec![seen(Health::Healthy, Some(d0())), seen(Health::Starting, None)]);
        assert_eq!(records[1].phase, Phase::Starting);
        assert_eq!(&*records[1].reason.description, "unhealthy");
        assert_eq!(records[1].fingerprint, Some(d0()));
    }

    #[test]
    fn case_16_a_huge_message_is_cut_and_has_no_controls() {
        let error = format!("rpc error: code = Internal desc = {}", "ä\n\u{1b}".repeat(30_000));
        let records = history(vec![seen(failed(&error, Some(Code::Internal)), None)]);
        let description = &records[0].reason.description;
        assert!(description.len() <= DESCRIPTION_LIMIT && description.len() > DESCRIPTION_LIMIT - 4);
        assert!(!description.chars().any(char::is_control));
    }

    #[test]
    fn case_17_ten_equal_looks_leave_one_record() {
        let records = history((0..10).map(|_| seen(Health::Healthy, Some(d0()))).collect());
        assert!(records.iter().all(|record| *record == records[0]));
    }

    #[test]
    fn case_24_a_capability_that_comes_moves_the_update_time_and_not_since() {
        let more = product("1.2.3", &[NodeCapability::StageUnstageVolume, NodeCapability::GetVolumeStats]);
        let records = history(vec![seen(Health::Healthy, Some(d0())), seen(Health::Healthy, Some(fingerprint(more)))]);
        assert_eq!((records[1].update_time, records[1].since), (Timestamp(2), Timestamp(1)));
        let gained = vec!["GET_VOLUME_STATS".to_owned()];
        assert_eq!(transitions(Some(&records[0]), &records[1]), [Change::Capabilities { gained, lost: Vec::new() }]);
    }

    #[test]
    fn case_50_a_new_version_is_followed_and_remembered() {
        let next = fingerprint(product("1.2.4", &[NodeCapability::StageUnstageVolume]));
        let records = history(vec![seen(Health::Healthy, Some(d0())), seen(Health::Healthy, Some(next))]);
        assert_eq!(records[1].update_time, Timestamp(2));
        assert_eq!(
            transitions(Some(&records[0]), &records[1]),
            [Change::Version { from: "1.2.3".into(), to: "1.2.4".into() }]
        );
    }

    #[test]
    fn case_51_a_changed_identity_is_said_without_a_template() {
        let sentence = r#"plugin identity changed: expected "drv.example.com", got "other.example.com""#;
        let health = Health::Verbatim { phase: Phase::Unhealthy, description: sentence.to_owned() };
        let records = history(vec![seen(Health::Healthy, Some(d0())), seen(health, None)]);
        assert_eq!(&*records[1].reason.description, sentence);
        assert_eq!(records[1].phase, Phase::Unhealthy);
    }

    #[test]
    fn a_phase_lasts_while_only_the_error_differs_and_only_another_code_is_remembered() {
        let down = |error, code| seen(failed(error, Some(code)), None);
        let records = history(vec![
            down("dial from port 1", Code::Unavailable),
            down("dial from port 2", Code::Unavailable),
            down("hangs", Code::DeadlineExceeded),
        ]);
        assert!(records.iter().all(|record| record.since == Timestamp(1)));
        assert_eq!(transitions(None, &records[0]), [Change::Appeared { to: Phase::Unhealthy }]);
        assert_eq!(transitions(Some(&records[0]), &records[1]), []);
        assert_eq!(transitions(Some(&records[1]), &records[2]), [Change::Reason]);
    }

    #[test]
    fn nodes_that_move_are_remembered() {
        let mut moved = d0();
        moved.node = Some(Box::new(NodeFacts {
            id: "n-2".into(),
            max_volumes: 1,
            topology: Some(crate::domain::topology::Topology::default()),
        }));
        let records = history(vec![seen(Health::Healthy, Some(d0())), seen(Health::Healthy, Some(moved))]);
        assert_eq!(
            transitions(Some(&records[0]), &records[1]),
            [
                Change::NodeId { from: "n-1".into(), to: "n-2".into() },
                Change::Topology { from: None, to: Some(crate::domain::topology::Topology::default()) },
            ]
        );
    }
}
