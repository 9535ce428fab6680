//! `/v1/gateway/stream`: every visible change, removals and transitions included.
//!
//! A reader gives the last index it has seen whole and gets everything after it. Where that is further back than steps
//! are kept, and without an index, it gets the present state of everything first, plugin by plugin under index zero, and
//! then one line with the index and all ids: what is not among them is gone. An index is thus never that of half a state.

use std::sync::Arc;

use axum::http::{Method, Response};
use bytes::Bytes;

use super::State;
use super::content::Content;
use super::error::ApiError;
use super::query::Query;
use super::right::{Guard, Visitor};
use super::route::Target;
use super::stream::{ALIVE, Event, Source, Steps, content};
use super::wire::{gateway as wire, json};
use crate::domain::plugin::Plugin;
use crate::domain::time::Index;
use crate::registry::changes::Step;

/// Starts a stream.
pub(super) fn answer(state: &Arc<State>, query: &Query<'_>, visitor: &Visitor) -> Result<Response<Content>, ApiError> {
    let seen = query.check(&state.settings.region)?.seen;
    visitor.check(state, Target::GatewayStream, Target::GatewayStream.right(&Method::GET))?;
    let guard = visitor.guard(state.access.as_ref());
    let mut feed =
        Feed { state: Arc::clone(state), guard, present: None, steps: Steps::new(Arc::clone(state), seen, []) };
    if seen == Index(0) || seen > state.reader.current().index() || state.reader.changes().since(seen).is_none() {
        feed.begin();
    }
    let mut response = super::json_response(None, content(feed));
    let headers = response.headers_mut();
    let newline_delimited = axum::http::HeaderValue::from_static("application/x-ndjson");
    headers.insert(axum::http::header::CONTENT_TYPE, newline_delimited);
    headers.insert(axum::http::header::CACHE_CONTROL, axum::http::HeaderValue::from_static("no-cache"));
    Ok(response)
}

struct Feed {
    state: Arc<State>,
    guard: Guard,
    /// The state that is being told; `None`: it was.
    present: Option<Present>,
    steps: Steps,
}

struct Present {
    index: Index,
    plugins: Vec<Arc<Plugin>>,
    told: usize,
}

impl Feed {
    /// Tells the present state next.
    fn begin(&mut self) {
        let catalog = self.state.reader.current();
        self.steps.restart_after(catalog.index());
        let plugins = catalog.plugins().map(Arc::clone).collect();
        self.present = Some(Present { index: catalog.index(), plugins, told: 0 });
    }

    fn of_present(&mut self) -> Option<Bytes> {
        let present = self.present.as_mut()?;
        let line = if let Some(plugin) = present.plugins.get(present.told) {
            present.told += 1;
            line(&wire::Line::present(plugin, |path| self.state.sockets.get(path)))
        } else {
            let ids = present.plugins.iter().map(|plugin| plugin.id.as_str()).collect();
            let line = line(&wire::Complete::new(present.index, ids));
            self.present = None;
            line
        };
        Some(line)
    }
}

impl Source for Feed {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.of_present() {
                return Some(line);
            }
            let event = tokio::select! {
                biased;
                () = self.guard.lost() => return None,
                event = self.steps.next() => event,
            };
            match event {
                Event::Step(step) => return Some(self.of_step(&step)),
                Event::Quiet => return Some(Bytes::from_static(ALIVE)),
                Event::Lost => self.begin(),
                Event::Stop => return None,
            }
        }
    }
}

impl Feed {
    fn of_step(&self, step: &Step) -> Bytes {
        line(&wire::Line::step(step, |path| self.state.sockets.get(path)))
    }
}

fn line(value: &impl serde::Serialize) -> Bytes {
    let mut line = json::compact(value);
    line.push(b'\n');
    line.into()
}
