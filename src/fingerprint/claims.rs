//! Which of several sockets an instance is, where several claim to be the same (`fingerprinting.md` section 6, item 9).
//!
//! The healthy one before the unhealthy, then the order of configuration, then the newest. Only the winner's looks are
//! reported; what the others saw is kept here, to be reported the moment that one of them wins.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::id::InstanceKey;
use crate::domain::record::Phase;
use crate::domain::socket::Duplicate;
use crate::registry::reporter::{Health, Observed};
use crate::registry::sockets::Sockets;

/// What one socket says of an instance.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub observed: Observed,
    /// Its place in configuration.
    pub rank: u32,
    /// When its file was made, nanoseconds since 1970.
    pub made: i64,
}

impl Claim {
    /// The smallest wins. The path decides where nothing else does, so that the order of looks never does.
    fn order(&self) -> impl Ord + '_ {
        (self.observed.health != Health::Healthy, self.rank, Reverse(self.made), &*self.observed.socket)
    }
}

#[derive(Debug, Default)]
struct Contest {
    claims: BTreeMap<Arc<Path>, Claim>,
    winner: Option<Arc<Path>>,
}

impl Contest {
    /// Decides anew. The winner's claim, if `socket` made it or has just lost to it.
    fn decide(&mut self, socket: &Path) -> Option<Observed> {
        let (path, claim) = self.claims.iter().min_by_key(|(_, claim)| claim.order())?;
        let is_news = &**path == socket || self.winner.as_deref() != Some(path);
        self.winner = Some(Arc::clone(path));
        is_news.then(|| claim.observed.clone())
    }
}

/// All claims of a host. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Claims {
    contests: Arc<Mutex<BTreeMap<InstanceKey, Contest>>>,
    /// Where those that lost are listed.
    sockets: Sockets,
}

impl Claims {
    pub(super) fn new(sockets: Sockets) -> Self {
        Self { contests: Arc::default(), sockets }
    }

    fn contests(&self) -> MutexGuard<'_, BTreeMap<InstanceKey, Contest>> {
        // Each entry is decided anew with every claim.
        self.contests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A socket says what it saw; what it claimed before and does no more is withdrawn. Returns what is to be reported,
    /// which may be what other sockets saw.
    pub(super) fn make(&self, socket: &Arc<Path>, claims: Vec<Claim>) -> Vec<Observed> {
        let mut contests = self.contests();
        let made: BTreeSet<InstanceKey> = claims.iter().map(|claim| claim.observed.key.clone()).collect();
        let mut reports = withdraw(&mut contests, socket, &made);
        for claim in claims {
            let contest = contests.entry(claim.observed.key.clone()).or_default();
            contest.claims.insert(Arc::clone(socket), claim);
            reports.extend(contest.decide(socket));
        }
        self.list(&contests);
        reports
    }

    /// A socket is watched no longer: what other sockets say instead.
    pub(super) fn withdraw(&self, socket: &Path) -> Vec<Observed> {
        let mut contests = self.contests();
        let reports = withdraw(&mut contests, socket, &BTreeSet::new());
        self.list(&contests);
        reports
    }

    /// Whether a socket that is watched claims to be this instance.
    pub(super) fn has(&self, key: &InstanceKey) -> bool {
        self.contests().contains_key(key)
    }

    /// Under the lock, so that an older list never replaces a newer one.
    fn list(&self, contests: &BTreeMap<InstanceKey, Contest>) {
        let mut duplicates = Vec::new();
        for (key, contest) in contests.iter().filter(|(_, contest)| contest.claims.len() > 1) {
            let Some(winner) = &contest.winner else { continue };
            for (socket, claim) in &contest.claims {
                // A socket that is gone is none beside another.
                let is_gone = matches!(claim.observed.health, Health::Failed { phase: Phase::Gone, .. });
                if socket != winner && !is_gone {
                    duplicates.push(Duplicate {
                        key: key.clone(),
                        socket: Arc::clone(socket),
                        counts: Arc::clone(winner),
                    });
                }
            }
        }
        self.sockets.put_duplicates(duplicates);
    }
}

/// Takes back what a socket claims, apart from `made`.
fn withdraw(
    contests: &mut BTreeMap<InstanceKey, Contest>,
    socket: &Path,
    made: &BTreeSet<InstanceKey>,
) -> Vec<Observed> {
    let mut reports = Vec::new();
    for (_, contest) in contests.iter_mut().filter(|(key, _)| !made.contains(*key)) {
        if contest.claims.remove(socket).is_some() && contest.winner.as_deref() == Some(socket) {
            contest.winner = None;
            reports.extend(contest.decide(socket));
        }
    }
    contests.retain(|_, contest| !contest.claims.is_empty());
    reports
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{HostId, PluginId, Role};
    use crate::domain::record::{Owner, Phase};

    fn claim(socket: &str, is_healthy: bool, rank: u32, made: i64) -> (Arc<Path>, Claim) {
        let key = InstanceKey {
            plugin: PluginId::parse("drv.example.com").expect("legal"),
            role: Role::Node,
            host: HostId::parse("host-aaaa").expect("legal"),
        };
        let health = if is_healthy {
            Health::Healthy
        } else {
            Health::Verbatim { phase: Phase::Unhealthy, description: "ill".to_owned() }
        };
        let observed = Observed {
            key,
            health,
            fingerprint: None,
            owner: Owner::default(),
            socket: socket.into(),
            is_configured: false,
            registration: None,
        };
        (Path::new(socket).into(), Claim { observed, rank, made })
    }

    struct Stage {
        claims: Claims,
        sockets: Sockets,
    }

    impl Stage {
        fn new() -> Self {
            let sockets = Sockets::default();
            Self { claims: Claims::new(sockets.clone()), sockets }
        }

        /// What is reported, and which socket lost to which.
        fn make(&self, (path, claim): (Arc<Path>, Claim)) -> (Vec<String>, Vec<(String, String)>) {
            let reports = self.claims.make(&path, vec![claim]);
            (reports.iter().map(|observed| observed.socket.to_string()).collect(), self.lost())
        }

        fn lost(&self) -> Vec<(String, String)> {
            let text = |path: &Path| path.to_string_lossy().into_owned();
            self.sockets.duplicates().iter().map(|lost| (text(&lost.socket), text(&lost.counts))).collect()
        }
    }

    fn one(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn the_healthy_one_wins_then_the_first_configured_then_the_newest_whoever_is_seen_first() {
        for (loser, winner) in [
            (claim("/a", false, 0, 9), claim("/b", true, u32::MAX, 1)),
            (claim("/a", true, u32::MAX, 9), claim("/b", true, 1, 1)),
            (claim("/a", true, u32::MAX, 1), claim("/b", true, u32::MAX, 2)),
            (claim("/b", true, u32::MAX, 1), claim("/a", true, u32::MAX, 1)),
        ] {
            let (lost, won) = (loser.1.observed.socket.to_string(), winner.1.observed.socket.to_string());
            let pair = vec![(lost.clone(), won.clone())];
            let stage = Stage::new();
            assert_eq!(stage.make(loser.clone()), (one(&lost), Vec::new()));
            assert_eq!(stage.make(winner.clone()), (one(&won), pair.clone()));
            assert_eq!(stage.make(loser.clone()), (Vec::new(), pair.clone()));
            let other_way_round = Stage::new();
            assert_eq!(other_way_round.make(winner), (one(&won), Vec::new()));
            assert_eq!(other_way_round.make(loser), (Vec::new(), pair));
        }
    }

    #[test]
    fn what_the_loser_saw_is_reported_when_the_winner_falls_ill_or_goes() {
        let stage = Stage::new();
        stage.make(claim("/a", true, 0, 1));
        stage.make(claim("/b", true, 1, 1));
        let lost = |loser: &str, winner: &str| vec![(loser.to_owned(), winner.to_owned())];
        assert_eq!(stage.make(claim("/a", false, 0, 1)), (one("/b"), lost("/a", "/b")));
        assert_eq!(stage.make(claim("/a", true, 0, 1)), (one("/a"), lost("/b", "/a")));
        let instead = stage.claims.withdraw(Path::new("/a"));
        assert_eq!(instead.iter().map(|observed| &*observed.socket).collect::<Vec<_>>(), ["/b"]);
        assert!(stage.lost().is_empty());
        assert!(stage.claims.withdraw(Path::new("/b")).is_empty());
    }

    #[test]
    fn a_socket_that_is_somebody_else_now_claims_no_more_what_it_was() {
        let stage = Stage::new();
        let (path, was) = claim("/a", true, 0, 1);
        stage.make((Arc::clone(&path), was.clone()));
        stage.make(claim("/b", true, 1, 1));
        let mut is = was.clone();
        is.observed.key.plugin = PluginId::parse("other.example.com").expect("legal");
        let reports = stage.claims.make(&path, vec![is]);
        assert_eq!(reports.iter().map(|observed| &*observed.socket).collect::<Vec<_>>(), ["/b", "/a"]);
        assert!(stage.claims.has(&was.observed.key) && stage.lost().is_empty());
    }
}
