//! The page's files over HTTP: compressed once, each with its tag, under a policy that lets the page load nothing but them
//! and ask nobody but us.

use std::io::Write;
use std::sync::LazyLock;

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH,
    LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{Method, Response, StatusCode};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::State;
use super::content::{Coding, Content, finish};
use super::error::ApiError;
use super::right::Visitor;
use super::route::Target;
use crate::ui::{FILES, File};

/// Scripts and styles from files of ours alone; text never becomes markup (`require-trusted-types-for`), except that the
/// page may name its own worker; nobody frames it, and it sends nothing to anybody else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types csi-gateway";

/// What every answer from here carries.
const HEADERS: [(HeaderName, &str); 7] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // Asked for each time, and answered with 304: another release is seen at once.
    (CACHE_CONTROL, "no-cache"),
];

/// A file as it is sent.
struct Ready {
    file: &'static File,
    gzip: Bytes,
    tag: HeaderValue,
}

/// Made when the first person looks, so that a gateway at which nobody looks does not pay for it.
static READY: LazyLock<Vec<Ready>> = LazyLock::new(|| FILES.iter().map(Ready::new).collect());

impl Ready {
    fn new(file: &'static File) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let gzip = encoder.write_all(file.bytes).and_then(|()| encoder.finish()).expect("a vector takes every byte");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, file.bytes);
        let digest: String = digest.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        // Weak: the same tag for each coding.
        let tag = HeaderValue::from_str(&format!("W/\"{digest}\"")).expect("hexadecimal digits");
        Self { file, gzip: gzip.into(), tag }
    }
}

/// Answers a request for a file.
pub(super) fn answer(
    state: &State,
    method: &Method,
    path: &[u8],
    visitor: &Visitor,
    headers: &HeaderMap,
    coding: Coding,
) -> Response<Body> {
    if method != Method::GET && method != Method::HEAD {
        return finish(ApiError::InvalidMethod.into_response(), coding);
    }
    if let Err(error) = visitor.check(state, Target::Page, Target::Page.right(method)) {
        return finish(error.into_response(), coding);
    }
    let Some(ready) = READY.iter().find(|ready| ready.file.path.as_bytes() == path) else {
        return finish(elsewhere(path).unwrap_or_else(|| ApiError::NoSuchRoute.into_response()), coding);
    };
    let is_known = headers.get_all(IF_NONE_MATCH).iter().any(|known| matches(known.as_bytes(), &ready.tag));
    let (content, coding) = match coding {
        _ if is_known => (Content::default(), Coding::Identity),
        Coding::Gzip => (Content::Coded(ready.gzip.clone()), coding),
        _ => (Content::Plain(Bytes::from_static(ready.file.bytes)), coding),
    };
    let mut response = Response::new(content);
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let out = response.headers_mut();
    for (name, value) in HEADERS {
        out.insert(name, HeaderValue::from_static(value));
    }
    out.insert(CONTENT_TYPE, HeaderValue::from_static(ready.file.content_type));
    out.insert(ETAG, ready.tag.clone());
    finish(response, coding)
}

/// Whether a list of tags has this one; weak or not makes no difference (RFC 9110, 13.1.2).
fn matches(known: &[u8], tag: &HeaderValue) -> bool {
    let bare = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    known == b"*" || known.split(|byte| *byte == b',').any(|one| bare(one.trim_ascii()) == bare(tag.as_bytes()))
}

/// Views, which are behind a `#`, since a folder more would be one that relative names have to climb out of.
const VIEWS: [&str; 7] = ["plugins", "plugin", "hosts", "host", "sockets", "events", "help"];

/// Nomad has its pages of plugins under `/ui/storage/` (`nomad-http.md` section 17) and answers whatever is asked for below
/// `/ui/`; what was kept or guessed leads to our views. Relative, for the sake of prefixes: only as many steps up as there
/// are folders. `None`: it would be a file.
fn elsewhere(path: &[u8]) -> Option<Response<Content>> {
    let path = std::str::from_utf8(path).ok()?;
    let mut segments = path.split('/').filter(|segment| !segment.is_empty()).peekable();
    let is_nomads = segments.next_if(|first| *first == "storage").is_some();
    let view = segments.next().filter(|view| VIEWS.contains(view));
    let name = view.and_then(|_| segments.next());
    if view.is_none() && path.rsplit('/').next().is_some_and(|last| last.contains('.')) {
        return None;
    }
    let view = match (view.unwrap_or("plugins"), name) {
        ("plugins", Some(name)) if is_nomads => format!("plugin/{}", escaped(name)),
        (view, Some(name)) => format!("{view}/{}", escaped(name)),
        (view, None) => view.to_owned(),
    };
    let up = "../".repeat(path.matches('/').count());
    let up = if up.is_empty() { "./" } else { &up };
    let location = HeaderValue::from_str(&format!("{up}#/{view}")).ok()?;
    let mut response = Response::new(Content::default());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

fn escaped(name: &str) -> impl std::fmt::Display {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC)
}
