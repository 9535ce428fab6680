//! Answers that go on: one line of JSON for each step, as long as the reader listens.
//!
//! A stream takes steps at its reader's pace, and holds nothing for it but the line that is being written. It ends with
//! its connection, and at shutdown. What the lines are is said in `events` (Nomad's) and `feed` (ours).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::time::Instant;

use super::State;
use super::content::Content;
use crate::domain::time::Index;
use crate::registry::changes::Step;
use crate::registry::reader::Subject;

/// How often a stream shows that it lives, as Nomad's.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// What shows it.
pub(super) const ALIVE: &[u8] = b"{}\n";

/// What makes the lines of a stream.
pub(super) trait Source: Send + 'static {
    /// The next line with its end, once there is one; `None`: the stream is over.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

/// A source as the body of an answer.
pub(super) fn content(source: impl Source) -> Content {
    Content::Stream(Body::new(Lines { next: Some(after(source)) }))
}

/// A line, and what makes the one after it.
type Next<S> = Pin<Box<dyn Future<Output = (Option<Bytes>, S)> + Send>>;

fn after<S: Source>(mut source: S) -> Next<S> {
    Box::pin(async move { (source.next().await, source) })
}

struct Lines<S> {
    next: Option<Next<S>>,
}

impl<S: Source> hyper::body::Body for Lines<S> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let (line, source) = ready!(next.as_mut().poll(context));
        self.next = line.is_some().then(|| after(source));
        Poll::Ready(line.map(|line| Ok(Frame::data(line))))
    }
}

/// What a stream waits for.
pub(super) enum Event {
    /// The next step.
    Step(Arc<Step>),
    /// Steps were dropped before this reader took them.
    Lost,
    /// Nothing happened for so long that the reader should hear of it.
    Quiet,
    /// The gateway ends.
    Stop,
}

/// Steps after an index, as they come.
pub(super) struct Steps {
    state: Arc<State>,
    seen: Index,
    waiting: VecDeque<Arc<Step>>,
    heartbeat: Instant,
}

impl Steps {
    /// Those that `waiting` holds, then whatever comes after `seen`.
    pub(super) fn new(state: Arc<State>, seen: Index, waiting: impl IntoIterator<Item = Arc<Step>>) -> Self {
        Self { state, seen, waiting: waiting.into_iter().collect(), heartbeat: Instant::now() + HEARTBEAT }
    }

    /// Goes on after another index.
    pub(super) fn restart_after(&mut self, seen: Index) {
        (self.seen, self.waiting) = (seen, VecDeque::new());
    }

    /// What happens next.
    pub(super) async fn next(&mut self) -> Event {
        if let Some(step) = self.waiting.pop_front() {
            return Event::Step(step);
        }
        let state = Arc::clone(&self.state);
        let waiter = state.reader.waiting(Subject::Everything);
        loop {
            // Made before the steps are read: one between the two is not missed.
            let changed = waiter.changed();
            let Some(steps) = state.reader.changes().since(self.seen) else { return Event::Lost };
            self.waiting.extend(steps);
            if let Some(last) = self.waiting.back() {
                self.seen = last.index;
                return self.waiting.pop_front().map_or(Event::Quiet, Event::Step);
            }
            tokio::select! {
                biased;
                () = state.shutdown.cancelled() => return Event::Stop,
                () = changed => {}
                () = tokio::time::sleep_until(self.heartbeat) => {
                    self.heartbeat += HEARTBEAT;
                    return Event::Quiet;
                }
            }
        }
    }
}
