//! What a scripted driver does with one call.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use prost::Message;

use crate::domain::code::Code;
use crate::transport::pb::csi as pb;

/// What the gRPC specification has escaped in a message.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

pub(super) type ReplyBody = BoxBody<Bytes, std::convert::Infallible>;

/// One reply: an answer, a failure, or bad behaviour, at once or after a while.
#[derive(Debug, Clone)]
pub struct Reply {
    pub(super) delay: Duration,
    pub(super) deed: Deed,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug, Clone)]
pub(super) enum Deed {
    /// As the driver's settings say at that moment.
    Usual,
    /// OK, with the bytes of a message, well-formed or not.
    Message(Bytes),
    /// A status, with the bytes of its text, well-formed or not.
    Fail { code: i32, message: Bytes },
    /// Nothing, for as long as the caller waits.
    Hang,
    /// The connection is closed instead of an answer.
    DropConnection,
}

impl Reply {
    fn new(deed: Deed) -> Self {
        Self { delay: Duration::ZERO, deed, headers: Vec::new() }
    }

    /// What the driver answers without a script: its settings for a service it has, UNIMPLEMENTED for any other.
    #[must_use]
    pub fn usual() -> Self {
        Self::new(Deed::Usual)
    }

    /// `Probe`: ready.
    #[must_use]
    pub fn ready() -> Self {
        Self::message(&pb::ProbeResponse { ready: Some(true) })
    }

    /// `Probe`: well, and still starting.
    #[must_use]
    pub fn starting() -> Self {
        Self::message(&pb::ProbeResponse { ready: Some(false) })
    }

    /// `Probe`: an answer that does not say whether it is ready, which means that it is.
    #[must_use]
    pub fn silent_on_ready() -> Self {
        Self::message(&pb::ProbeResponse { ready: None })
    }

    /// `ControllerGetCapabilities`: these numbers, and an entry that says nothing for each `None`.
    #[must_use]
    pub fn controller_entries(numbers: impl IntoIterator<Item = Option<i32>>) -> Self {
        use pb::controller_service_capability::{Rpc, Type};
        let entry = |number| Type::Rpc(Rpc { r#type: number });
        let capabilities =
            numbers.into_iter().map(|number| pb::ControllerServiceCapability { r#type: number.map(entry) }).collect();
        Self::message(&pb::ControllerGetCapabilitiesResponse { capabilities })
    }

    /// Any message; it does not have to be the one that the call promises.
    #[must_use]
    pub fn message(message: &impl Message) -> Self {
        Self::bytes(message.encode_to_vec())
    }

    /// OK, with any bytes in the place of the message.
    #[must_use]
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::new(Deed::Message(bytes.into()))
    }

    /// A status. The text may be any bytes: they are escaped for the wire, and need not be text.
    #[must_use]
    pub fn fail(code: Code, message: impl AsRef<[u8]>) -> Self {
        Self::new(Deed::Fail { code: code.number(), message: Bytes::copy_from_slice(message.as_ref()) })
    }

    /// The service is not there.
    #[must_use]
    pub fn unimplemented() -> Self {
        Self::fail(Code::Unimplemented, "not served here")
    }

    /// No answer, ever.
    #[must_use]
    pub fn hang() -> Self {
        Self::new(Deed::Hang)
    }

    /// The connection breaks in the middle of the call.
    #[must_use]
    pub fn drop_connection() -> Self {
        Self::new(Deed::DropConnection)
    }

    /// The same, `delay` later.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The same, with one more header (or, behind a message, trailer).
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((HeaderName::from_static(name), HeaderValue::from_static(value)));
        self
    }

    /// The deed as HTTP; `None` for those that are not an answer.
    pub(super) fn response(&self) -> Option<Response<ReplyBody>> {
        let mut head = HeaderMap::new();
        head.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let body = match &self.deed {
            Deed::Message(message) => {
                let trailers = self.status(0, &[]);
                Full::new(framed(message)).with_trailers(std::future::ready(Some(Ok(trailers)))).boxed()
            }
            Deed::Fail { code, message } => {
                head.extend(self.status(*code, message));
                Empty::new().boxed()
            }
            Deed::Usual | Deed::Hang | Deed::DropConnection => return None,
        };
        let mut response = Response::new(body);
        *response.headers_mut() = head;
        Some(response)
    }

    fn status(&self, code: i32, message: &[u8]) -> HeaderMap {
        let mut status = HeaderMap::new();
        status.insert("grpc-status", HeaderValue::from(code));
        if !message.is_empty() {
            let escaped = percent_encode(message, ESCAPED).to_string();
            let escaped = HeaderValue::from_maybe_shared(Bytes::from(escaped)).expect("escaped text is plain ASCII");
            status.insert("grpc-message", escaped);
        }
        status.extend(self.headers.iter().cloned());
        status
    }
}

/// A message as gRPC sends it: not compressed, its length, its bytes.
fn framed(message: &Bytes) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a script holds less than 4 GiB"));
    frame.put_slice(message);
    frame.freeze()
}
