//! `/v1/search` and `/v1/search/fuzzy` (`nomad-http.md` section 19): what completes ids in shells and pages.
//!
//! The only requests whose body is read. Contexts are those of which anything is known here.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::{Map, Value};

use super::content::Content;
use super::error::{ApiError, text_response};
use super::meta::Meta;
use super::query::Query;
use super::right::{Right, Visitor};
use super::route::Target;
use super::wire::{cluster as wire, json};
use super::{State, json_response};
use crate::domain::time::Index;

/// Longest body that is read.
const LONGEST: usize = 64 << 10;
/// Ids that a prefix is compared with.
const PREFIX_MATCHES: usize = 20;
/// Matches of a text at most.
const FUZZY_MATCHES: usize = 100;
/// The only namespace there is without an orchestrator.
const NAMESPACES: [&str; 1] = ["default"];

/// How ids are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// By their beginning.
    Prefix,
    /// By any part of them.
    Fuzzy,
}

/// What is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Context {
    Namespaces,
    Plugins,
}

impl Context {
    const ALL: [Self; 2] = [Self::Namespaces, Self::Plugins];

    fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Plugins => "plugins",
        }
    }
}

/// Answers; never waits.
pub(super) async fn answer(
    state: &State,
    how: How,
    body: Option<Body>,
    query: &Query<'_>,
    visitor: &Visitor,
) -> Result<Response<Content>, ApiError> {
    // Parsed for its checks; an `index` holds nobody here.
    query.check(&state.settings.region)?;
    let asked = match asked(body).await {
        Ok(asked) => asked,
        Err(text) => return Ok(text_response(StatusCode::BAD_REQUEST, text)),
    };
    let context = text(&asked, "Context");
    let mut contexts: Vec<Context> =
        Context::ALL.into_iter().filter(|known| context == "all" || context == known.name()).collect();
    if contexts.is_empty() {
        let known = Context::ALL.map(Context::name).join(" ");
        let text = format!("context must be one of [{known}] or 'all' for all contexts; got {context:?}");
        return Ok(text_response(StatusCode::INTERNAL_SERVER_ERROR, text));
    }
    // Of every namespace: nobody is turned away, and shown is what may be read.
    let is_everywhere = how == How::Fuzzy && (text(&asked, "Namespace") == "*" || &*query.namespace() == "*");
    contexts.retain(|context| match context {
        Context::Namespaces => NAMESPACES.iter().any(|namespace| visitor.sees_namespace(namespace)),
        Context::Plugins if is_everywhere => visitor.has(state, Right::ReadPlugins),
        Context::Plugins => visitor.has(state, Right::ListPlugins),
    });
    let is_nobody = matches!(visitor, Visitor::Nobody(_));
    if is_nobody || contexts.is_empty() && !is_everywhere {
        let target = if how == How::Prefix { Target::Search } else { Target::FuzzySearch };
        return Err(visitor.refused(state, target, Right::Contexts));
    }
    let catalog = state.reader.current();
    let ids = |context: Context| -> Vec<&str> {
        match context {
            Context::Namespaces => NAMESPACES.to_vec(),
            Context::Plugins => catalog.counting_plugins("").map(|plugin| plugin.id.as_str()).collect(),
        }
    };
    // Nomad looks its index up under a name that no table has, and so gives none for plugins alone.
    let index = if contexts == [Context::Plugins] { Index(0) } else { catalog.nomad_index() };
    let meta = Meta::new(&state.reader, index);
    let body = match how {
        How::Prefix => {
            let prefix = text(&asked, "Prefix");
            let found = contexts.into_iter().map(|context| (context.name(), by_prefix(&ids(context), prefix)));
            json::compact(&wire::Found::new(meta.facts(), found))
        }
        How::Fuzzy => {
            let wanted = text(&asked, "Text");
            if wanted.len() < 2 {
                let text = format!("fuzzy search query must be at least 2 characters, got {}", wanted.len());
                return Ok(text_response(StatusCode::INTERNAL_SERVER_ERROR, text));
            }
            let found = contexts.into_iter().map(|context| {
                let (ids, is_truncated) = by_part(&ids(context), wanted);
                let found = ids.map(|ids| ids.into_iter().map(wire::FuzzyMatch::new).collect::<Vec<_>>());
                (context.name(), (found, is_truncated))
            });
            json::compact(&wire::Found::new(meta.facts(), found))
        }
    };
    let body = if query.is_pretty() { json::indented(&body) } else { body };
    Ok(json_response(Some(meta), body))
}

/// The object in a body, or what is wrong with it.
async fn asked(body: Option<Body>) -> Result<Map<String, Value>, String> {
    const EMPTY: &str = "Request body is empty";
    let Some(body) = body else { return Err(EMPTY.to_owned()) };
    let whole = Limited::new(body, LONGEST).collect().await.map_err(|error| error.to_string())?.to_bytes();
    if whole.is_empty() {
        return Err(EMPTY.to_owned());
    }
    // As Go's decoder: one value counts, whatever follows it; `null` is an object without keys.
    let mut values = serde_json::Deserializer::from_slice(&whole).into_iter::<Option<Map<String, Value>>>();
    match values.next() {
        Some(Ok(object)) => Ok(object.unwrap_or_default()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("EOF".to_owned()),
    }
}

/// A text by its name, in any case, as Go's decoder finds it; empty if it is none.
fn text<'a>(asked: &'a Map<String, Value>, name: &str) -> &'a str {
    let found = asked.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.and_then(|(_, value)| value.as_str()).unwrap_or_default()
}

/// Ids that begin with a prefix, `None` without any, and whether there may be more.
fn by_prefix(ids: &[&str], prefix: &str) -> (Option<Vec<String>>, bool) {
    // Nomad's ids are UUIDs, of which half a byte cannot be looked up.
    let is_odd = prefix.bytes().filter(|byte| *byte != b'-').count() % 2 == 1;
    let looked_up = &prefix.as_bytes()[..prefix.len() - usize::from(is_odd)];
    let mut under = ids.iter().filter(|id| id.as_bytes().starts_with(looked_up));
    let first = under.by_ref().take(PREFIX_MATCHES);
    let found: Vec<String> = first.filter(|id| id.starts_with(prefix)).map(|&id| id.to_owned()).collect();
    ((!found.is_empty()).then_some(found), under.next().is_some())
}

/// Ids that contain a text in any case, the best first.
fn by_part(ids: &[&str], wanted: &str) -> (Option<Vec<String>>, bool) {
    let wanted = wanted.to_lowercase();
    let mut found: Vec<(usize, usize, &str)> =
        ids.iter().filter_map(|&id| Some((id.to_lowercase().find(&wanted)?, id.len(), id))).collect();
    found.sort_unstable();
    let is_truncated = found.len() > FUZZY_MATCHES;
    found.truncate(FUZZY_MATCHES);
    let found: Vec<String> = found.into_iter().map(|(_, _, id)| id.to_owned()).collect();
    ((!found.is_empty()).then_some(found), is_truncated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_compared_with_the_first_twenty_that_share_its_even_part() {
        let ids: Vec<String> =
            (0..30).map(|number| format!("ab{}{number:02}", if number < 20 { 'x' } else { 'y' })).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let (found, is_truncated) = by_prefix(&ids, "abx");
        assert_eq!((found.map(|found| found.len()), is_truncated), (Some(20), true));
        assert_eq!(by_prefix(&ids, "aby"), (None, true), "they come after the twenty");
        let (found, is_truncated) = by_prefix(&ids, "aby2");
        assert_eq!((found.map(|found| found.len()), is_truncated), (Some(10), false));
        assert_eq!(by_prefix(&ids, "zz"), (None, false));
        assert_eq!(by_prefix(&["\u{e9}x"], "\u{e9}x"), (Some(vec!["\u{e9}x".to_owned()]), false));
    }

    #[test]
    fn the_best_match_is_early_then_short_then_first_by_name() {
        let (found, _) = by_part(&["my-ebs", "EBS-prod", "ebs-a", "ebs-b", "nfs"], "eBs");
        assert_eq!(found.expect("matches"), ["ebs-a", "ebs-b", "EBS-prod", "my-ebs"]);
    }
}
