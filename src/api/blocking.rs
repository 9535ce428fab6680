//! The wait loop of blocking queries (`nomad-http.md` section 9).
//!
//! It waits for what the query reads and for nothing else, ends at shutdown with an answer, and ends with the client:
//! hyper drops the future when the connection goes. While it waits it holds no catalog, so that ten thousand waiting
//! readers keep no old state alive.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::meta::Meta;
use super::query::Blocking;
use crate::domain::catalog::Catalog;
use crate::domain::time::Index;
use crate::registry::reader::{Reader, Subject};

/// How long an aggregator waits for what another one has shown already.
const BEHIND: Duration = Duration::from_secs(10);

/// Evaluates a query until its result is newer than what the asker has seen, or until the limit; and says how fresh that
/// very result is, which a follower may have left behind when it is sent.
///
/// `evaluate` gives the result and its index; index zero means that what was asked for is not there. A plugin deleted
/// while its reader waits is such a result: Nomad would sleep on and show the old body at the limit, here the reader
/// gets its 404 at the limit, or the plugin as soon as it is there again.
pub(super) async fn newer<T>(
    reader: &Reader,
    shutdown: &CancellationToken,
    subject: impl FnOnce() -> Subject,
    blocking: Blocking,
    evaluate: impl Fn(Arc<Catalog>) -> (Index, T),
) -> (Meta, T) {
    if blocking.seen == Index(0) {
        let contact = reader.contact();
        let (index, result) = evaluate(reader.current());
        return (Meta::of(index, contact), result);
    }
    let waiting = reader.waiting(subject());
    let began = Instant::now();
    let deadline = began + blocking.limit + jitter(blocking.limit);
    loop {
        // Made before the catalog is read: a change between the two is not missed.
        let mut changed = std::pin::pin!(waiting.changed());
        // So is the contact: once a later catalog is current, this one is not.
        let contact = reader.contact();
        let catalog = reader.current();
        let known = catalog.index();
        let (index, result) = evaluate(catalog);
        if index > blocking.seen {
            return (Meta::of(index, contact), result);
        }
        drop(result);
        // Its asker has seen more at another aggregator: this one catches up, or says that it is not current.
        let is_behind = reader.is_follower() && blocking.seen > known;
        let deadline = if is_behind { deadline.min(began + BEHIND) } else { deadline };
        let is_over = tokio::select! {
            biased;
            () = changed.as_mut() => false,
            () = shutdown.cancelled() => true,
            () = tokio::time::sleep_until(deadline) => true,
        };
        if is_over {
            let contact = reader.contact();
            // A change in this very moment: it is what was waited for.
            let Some(catalog) = reader.unchanged(changed).await else { continue };
            let is_still_behind = is_behind && catalog.index() < blocking.seen;
            let (index, result) = at_the_limit(index, evaluate(catalog));
            // Caught up meanwhile, with nothing of the subject in it: the index that it had elsewhere is true here, too.
            let has_caught_up = is_behind && !is_still_behind && index > Index(0);
            let index = if has_caught_up { index.max(blocking.seen) } else { index };
            return (Meta::of(index, contact).behind(is_still_behind), result);
        }
    }
}

/// The last evaluation's index with the result as it is now. What was read has not changed, or its reader would have
/// been woken; the catalog's index may have moved because of something else, and Nomad does not show that here.
fn at_the_limit<T>(evaluated: Index, (index, result): (Index, T)) -> (Index, T) {
    // A change in this very moment: what came or went between the two evaluations brings its own index.
    let shown = if evaluated == Index(0) { index } else { evaluated.min(index) };
    (shown, result)
}

/// Up to a sixteenth more, so that readers who began together do not come back together.
fn jitter(limit: Duration) -> Duration {
    let most = u64::try_from(limit.as_nanos() / 16).unwrap_or(u64::MAX);
    if most == 0 { Duration::ZERO } else { Duration::from_nanos(fastrand::u64(0..most)) }
}
