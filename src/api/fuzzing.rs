//! What fuzz targets reach: parsers of what a client sends, with what has to hold for any bytes.

use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};

use super::content::{Coding, Packed};
use super::query::Query;
use super::route::{Resolved, resolve};

/// A query string is read, checked, and says the same when asked twice.
pub fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let query = Query::parse(Some(text));
    let limit = query.check("global").map(|blocking| blocking.limit);
    assert!(limit.is_err() || limit.is_ok_and(|limit| limit <= super::WAIT_LIMIT && !limit.is_zero()));
    let prefix = query.prefix();
    assert!(prefix.is_empty() || query.first("prefix").is_some());
    let _ = (query.is_pretty(), query.shape(), query.per_page(), query.namespace(), query.limit(1, 2));
    let _ = query.all("topic").count();
}

/// A request target leads somewhere, and redirects end at once.
pub fn path(bytes: &[u8]) {
    let Ok(target) = Uri::try_from(bytes) else { return };
    if let Resolved::Redirect(to) = resolve(&Method::GET, &target) {
        // As a client resolves it (RFC 3986, 5.2.3): the page's is relative.
        let folder = target.path().rfind('/').map_or("/", |slash| &target.path()[..=slash]);
        let to = if to.starts_with('/') { to } else { format!("{folder}{to}") };
        let to: Uri = to.parse().expect("a location is a legal target");
        assert!(!matches!(resolve(&Method::GET, &to), Resolved::Redirect(_)), "{target} -> {to}");
    }
}

/// The header decides as a plain reading of the rule does; and whatever is compressed has its two ends.
pub fn accept_encoding(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT_ENCODING, value);
    let names: Vec<&[u8]> = bytes.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect();
    let first = names.into_iter().find(|name| matches!(*name, b"gzip" | b"deflate"));
    let wanted = match first {
        Some(b"gzip") => Coding::Gzip,
        Some(_) => Coding::Deflate,
        None => Coding::Identity,
    };
    assert_eq!(Coding::asked_for(&headers), wanted);
    let packed = Packed::with_beginning(bytes, bytes);
    let (gzip, raw) = (packed.coded(Coding::Gzip), packed.coded(Coding::Deflate));
    assert_eq!(gzip.len(), raw.len() + 18);
}
