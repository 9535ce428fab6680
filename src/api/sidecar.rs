//! In livenessprobe's place: its paths, texts and codes, and nothing else (`ecosystem.md` 1.1, 1.5).
//!
//! Whatever method is used, as in the original; unclean paths are redirected, and all others unknown, as by Go's router.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{Request, Response, StatusCode};
use percent_encoding::percent_decode_str;

use super::content::{Coding, finish};
use super::{metrics, redirect, route};
use crate::fingerprint::prober::{Health, Prober};
use crate::metrics::calls::Calls;

const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// What a sidecar serves at one address. Cheap to clone.
#[derive(Clone)]
pub struct Sidecar(Arc<Parts>);

struct Parts {
    /// `None`: no `/healthz` at this address.
    prober: Option<Prober>,
    /// Where metrics are; `None`: not at this address.
    metrics_path: Option<String>,
    calls: Calls,
}

impl std::fmt::Debug for Sidecar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sidecar").field("metrics_path", &self.0.metrics_path).finish_non_exhaustive()
    }
}

impl Sidecar {
    /// Health and metrics, or one of them.
    #[must_use]
    pub fn new(prober: Option<Prober>, metrics_path: Option<String>, calls: Calls) -> Self {
        Self(Arc::new(Parts { prober, metrics_path, calls }))
    }

    pub(super) async fn answer<B>(self, request: Request<B>) -> Response<Body> {
        let Self(parts) = self;
        let (head, _) = request.into_parts();
        let path = head.uri.path();
        if path == "/healthz"
            && let Some(prober) = &parts.prober
        {
            return health(prober).await;
        }
        match route::tidied(&head.uri) {
            Some(location) => finish(redirect(&head.method, &location), Coding::Identity),
            None => {
                let path = percent_decode_str(path).decode_utf8_lossy();
                match (&parts.prober, &parts.metrics_path) {
                    (Some(prober), _) if path == "/healthz" => health(prober).await,
                    (_, Some(metrics)) if is_at(metrics, &path) => {
                        let format = metrics::Format::asked_for(&head.headers);
                        finish(metrics::of_calls(&parts.calls, format), Coding::asked_for(&head.headers))
                    }
                    _ => unknown(),
                }
            }
        }
    }
}

/// Whether a path is the one that was set, or below it where that ends in a slash.
fn is_at(set: &str, path: &str) -> bool {
    path == set || set.ends_with('/') && path.starts_with(set)
}

async fn health(prober: &Prober) -> Response<Body> {
    match prober.ask().await {
        Health::Ready => text(StatusCode::OK, Body::from("ok")),
        Health::NotReady(why) => text(StatusCode::INTERNAL_SERVER_ERROR, Body::from(why.to_string())),
    }
}

fn unknown() -> Response<Body> {
    let mut response = text(StatusCode::NOT_FOUND, Body::from("404 page not found\n"));
    response.headers_mut().insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    response
}

fn text(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
