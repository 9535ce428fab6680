//! `/v1/event/stream` for the topic `CSIPlugin` (`nomad-http.md` section 20): Nomad's frame, Nomad's shape.
//!
//! Other topics may be asked for, and have no events here. There is no mark of a deletion: as Nomad's, the event of one
//! carries the last state. A reader too slow for the buffer is cut off, and resumes by its index.

use std::sync::Arc;

use axum::http::Response;
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use bytes::Bytes;

use super::State;
use super::content::Content;
use super::error::ApiError;
use super::query::Query;
use super::right::{Guard, Right, Visitor};
use super::route::Target;
use super::stream::{ALIVE, Event, Source, Steps, content};
use super::wire::nomad;
use crate::domain::plugin::Plugin;
use crate::domain::time::Index;
use crate::registry::changes::Step;

/// The topic that has events.
const TOPIC: &str = "CSIPlugin";
/// Every topic, or every key.
const ALL: &str = "*";

/// Which events a reader wants.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    /// Those of these plugins.
    Of(Vec<String>),
}

impl Wanted {
    /// From every `topic` of a query; none means all.
    fn parse(topics: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut topics = topics.peekable();
        if topics.peek().is_none() {
            return Ok(Self::All);
        }
        let (mut is_all, mut ids) = (false, Vec::new());
        for text in topics {
            let mut parts = text.split(':');
            let (topic, key) = (parts.next().unwrap_or_default(), parts.next().unwrap_or(ALL));
            if parts.next().is_some() {
                return Err(format!("error parsing topics: Invalid key value pair for topic, topic: {text}"));
            }
            match (topic, key) {
                (TOPIC | ALL, ALL) => is_all = true,
                (TOPIC | ALL, id) => ids.push(id.to_owned()),
                _ => {}
            }
        }
        Ok(if is_all { Self::All } else { Self::Of(ids) })
    }

    fn has(&self, id: &str) -> bool {
        match self {
            Self::All => true,
            Self::Of(ids) => ids.iter().any(|wanted| wanted == id),
        }
    }
}

/// Starts a stream.
pub(super) fn answer(state: &Arc<State>, query: &Query<'_>, visitor: &Visitor) -> Result<Response<Content>, ApiError> {
    let from = index_of(query.first("index").unwrap_or_default())?;
    let topics = query.all("topic").map(|value| String::from_utf8_lossy(value).into_owned());
    let wanted = Wanted::parse(topics).map_err(|what| ApiError::BadStream(format!("Invalid topic query: {what}")))?;
    query.check_region(&state.settings.region)?;
    check(state, query, visitor)?;
    let guard = visitor.guard(state.access.as_ref());
    let (mut buffered, last) = state.reader.changes().all();
    buffered.retain(|step| step.plugins.iter().any(|plugin| plugin.shown_by_nomad.is_some()));
    let first = match buffered.last() {
        // Newer than anything there is: the newest once more.
        Some(newest) if from > newest.index => buffered.len() - 1,
        _ => buffered.partition_point(|step| step.index < from),
    };
    let steps = Steps::new(Arc::clone(state), last, buffered.drain(first..));
    let mut response =
        Response::new(content(Events { state: Arc::clone(state), guard, wanted, steps, has_begun: false }));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

/// Nomad's rule: jobs of the namespace must be readable, and of all topics only a management token hears.
fn check(state: &State, query: &Query<'_>, visitor: &Visitor) -> Result<(), ApiError> {
    let mut topics = query.all("topic").peekable();
    let is_all = topics.peek().is_none() || topics.any(|topic| topic.split(|byte| *byte == b':').next() == Some(b"*"));
    let may = visitor.has(state, Right::Management) || !is_all && visitor.may_read_jobs(&query.namespace());
    if may { Ok(()) } else { Err(visitor.refused(state, Target::EventStream, Right::Events)) }
}

/// Signed, as Nomad reads it; below zero is beyond everything, as Nomad takes it.
fn index_of(value: &[u8]) -> Result<Index, ApiError> {
    let text = String::from_utf8_lossy(value);
    if text.is_empty() {
        return Ok(Index(0));
    }
    match text.parse::<i64>() {
        Ok(number) => Ok(Index(u64::try_from(number).unwrap_or(u64::MAX))),
        Err(error) => {
            use std::num::IntErrorKind::{NegOverflow, PosOverflow};
            let is_range = matches!(error.kind(), PosOverflow | NegOverflow);
            let what = if is_range { "value out of range" } else { "invalid syntax" };
            Err(ApiError::BadStream(format!("Unable to parse index: strconv.Atoi: parsing {text:?}: {what}")))
        }
    }
}

struct Events {
    state: Arc<State>,
    guard: Guard,
    wanted: Wanted,
    steps: Steps,
    has_begun: bool,
}

impl Source for Events {
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.has_begun, true) {
            return Some(Bytes::from_static(ALIVE));
        }
        loop {
            let event = tokio::select! {
                biased;
                () = self.guard.lost() => return None,
                event = self.steps.next() => event,
            };
            match event {
                Event::Step(step) => {
                    if let Some(line) = self.line(&step) {
                        return Some(line);
                    }
                }
                Event::Quiet => return Some(Bytes::from_static(ALIVE)),
                Event::Lost | Event::Stop => return None,
            }
        }
    }
}

impl Events {
    /// All events of a step that are wanted.
    fn line(&self, step: &Step) -> Option<Bytes> {
        let mut events = nomad::EventLine::new(step.index);
        for change in step.plugins.iter().filter(|change| self.wanted.has(change.id.as_str())) {
            let Some(plugin) = &change.shown_by_nomad else { continue };
            // Named after the write that would have caused it in Nomad: a client's report of its drivers.
            let kind = if change.is_gone_from_nomad { "NodeDeregistration" } else { "NodeRegistration" };
            events.push(change.id.as_str(), kind, &self.body(plugin));
        }
        events.finish().map(Bytes::from)
    }

    /// A plugin's body: the one that reads share, if it is the present one.
    fn body(&self, plugin: &Arc<Plugin>) -> Bytes {
        let current = self.state.reader.current();
        let is_present = current.plugin(plugin.id.as_str()).is_some_and(|present| Arc::ptr_eq(present, plugin));
        drop(current);
        if is_present { self.state.bodies.plain(plugin) } else { nomad::read_body(plugin).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(topics: &[&str]) -> Result<Wanted, String> {
        Wanted::parse(topics.iter().map(|&topic| topic.to_owned()))
    }

    #[test]
    fn topics_are_read_as_nomad_reads_them() {
        assert_eq!(wanted(&[]), Ok(Wanted::All));
        for all in ["CSIPlugin", "*", "CSIPlugin:*", "*:*"] {
            assert_eq!(wanted(&[all]), Ok(Wanted::All), "{all}");
        }
        let of = |ids: &[&str]| Ok(Wanted::Of(ids.iter().map(|&id| id.to_owned()).collect()));
        assert_eq!(wanted(&["CSIPlugin:nfs", "Node", "*:ebs"]), of(&["nfs", "ebs"]));
        assert_eq!(wanted(&["Node", "Job:x", ""]), of(&[]));
        assert_eq!(wanted(&["CSIPlugin:nfs", "CSIPlugin"]), Ok(Wanted::All));
        assert!(wanted(&["CSIPlugin:a:b"]).is_err());
    }
}
