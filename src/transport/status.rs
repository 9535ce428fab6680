//! Makes the status of a peer harmless before tonic reads it.
//!
//! tonic panics when `grpc-status-details-bin` is not base64, replaces code and text of a status whose message is not
//! UTF-8, and calls an answer with an unknown `grpc-encoding` "unimplemented", which here means something else. All three
//! travel in headers or trailers, so that is where this layer mends them; CSI forbids details anyway.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::MapFrame;
use hyper::body::Frame;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Request, Response};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;

const DETAILS: &str = "grpc-status-details-bin";
const ENCODING: &str = "grpc-encoding";
const MESSAGE: &str = "grpc-message";

/// What the gRPC specification has escaped in a message, space included.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// A channel whose answers tonic can read without harm.
#[derive(Debug, Clone)]
pub struct Guarded(Channel);

impl Guarded {
    /// Puts the guard before `channel`.
    pub fn new(channel: Channel) -> Self {
        Self(channel)
    }
}

/// The body of an answer, its trailers mended.
pub type GuardedBody = MapFrame<Body, fn(Frame<Bytes>) -> Frame<Bytes>>;

impl Service<Request<Body>> for Guarded {
    type Response = Response<GuardedBody>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let (mut head, body) = answer.await?.into_parts();
            mend(&mut head.headers);
            Ok(Response::from_parts(head, body.map_frame(mend_frame as fn(_) -> _)))
        })
    }
}

fn mend_frame(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        mend(trailers);
    }
    frame
}

fn mend(headers: &mut HeaderMap) {
    headers.remove(DETAILS);
    // We never offered one. Without the header a compressed message is refused as what it is, a broken answer.
    headers.remove(ENCODING);
    let Some(message) = headers.get(MESSAGE) else { return };
    let bytes: Cow<'_, [u8]> = percent_decode(message.as_bytes()).into();
    if std::str::from_utf8(&bytes).is_ok() {
        return;
    }
    let readable = String::from_utf8_lossy(&bytes);
    let escaped = percent_encode(readable.as_bytes(), ESCAPED).to_string();
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(escaped)) {
        headers.insert(MESSAGE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_not_text_keeps_what_is() {
        let mut headers = HeaderMap::new();
        headers.insert(MESSAGE, HeaderValue::from_static("100%25 b%FFroken%0a"));
        headers.insert(DETAILS, HeaderValue::from_static("!not base64!"));
        mend(&mut headers);
        let message = headers.get(MESSAGE).expect("kept").as_bytes();
        assert_eq!(percent_decode(message).decode_utf8().expect("mended"), "100% b\u{fffd}roken\n");
        assert!(!headers.contains_key(DETAILS));
    }
}
