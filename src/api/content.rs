//! Bodies on their way to the wire: compressed and framed as Nomad's server does it (`nomad-http.md` sections 5 and 6).
//!
//! Whatever is asked for by name is compressed, however small, and errors too. A compressed body is one gzip member; its
//! deflate stream by itself is the answer to those who prefer `deflate`. Where the beginning of a body is made for one
//! reader and the rest is shared, the member is put together: the beginning ends at a byte boundary, the shared blocks
//! refer to nothing before them, and the checksums are combined. (Two members one after the other break curl.)

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, UPGRADE, VARY};
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};
use hyper::body::Frame;

/// What Go's server holds back before it decides: longer bodies have no length on the wire, but chunks.
const CHUNKED_ABOVE: usize = 2048;
/// Magic, deflate, no flags, no time, no hint, an unknown system: what Go writes.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// Checksum and length.
const TAIL: usize = 8;
/// An empty deflate stream: one final block with nothing in it.
const NOTHING: [u8; 2] = [3, 0];
/// Bodies up to here are compressed well; larger ones fast, since somebody waits for each.
const SMALL: usize = 8 << 10;

/// How a body is coded on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Coding {
    /// As it is.
    #[default]
    Identity,
    /// One gzip member.
    Gzip,
    /// A raw deflate stream.
    Deflate,
}

impl Coding {
    /// What a request asks for: the first of the two names, letter by letter. Weights are not understood, and only the
    /// first header line is read.
    pub(super) fn asked_for(headers: &HeaderMap) -> Self {
        let Some(accepted) = headers.get(ACCEPT_ENCODING) else { return Self::Identity };
        let asked = Self::first_of(accepted.as_bytes());
        if headers.contains_key(UPGRADE) { Self::Identity } else { asked }
    }

    fn first_of(accepted: &[u8]) -> Self {
        let known = accepted.split(|byte| *byte == b',').find_map(|name| match name.trim_ascii() {
            b"gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            _ => None,
        });
        known.unwrap_or_default()
    }
}

/// A body compressed once.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    /// One whole member.
    gzip: Bytes,
    /// Where in it the blocks of the shared rest begin.
    rest_at: usize,
    /// Checksum and length of the rest before it was compressed.
    rest: Sum,
}

/// What a gzip member ends with.
#[derive(Debug, Clone, Copy)]
struct Sum {
    crc: u32,
    length: u64,
}

impl Sum {
    fn of(plain: &[u8]) -> Self {
        Self { crc: crc32fast::hash(plain), length: plain.len() as u64 }
    }

    fn and(self, next: Self) -> Self {
        let mut hasher = crc32fast::Hasher::new_with_initial_len(self.crc, self.length);
        hasher.combine(&crc32fast::Hasher::new_with_initial_len(next.crc, next.length));
        Self { crc: hasher.finalize(), length: self.length + next.length }
    }

    fn bytes(self) -> [u8; TAIL] {
        let mut bytes = [0; TAIL];
        bytes[..4].copy_from_slice(&self.crc.to_le_bytes());
        // The format counts modulo 2^32.
        bytes[4..].copy_from_slice(&self.length.to_le_bytes()[..4]);
        bytes
    }
}

impl Packed {
    /// Compresses a body of which everything is shared.
    pub(super) fn new(plain: &[u8]) -> Self {
        Self::with_beginning(&[], plain)
    }

    /// Compresses a body whose beginning, which is short, may be another for another reader.
    pub(super) fn with_beginning(beginning: &[u8], rest: &[u8]) -> Self {
        let mut gzip = Vec::with_capacity(HEAD.len() + beginning.len() + rest.len() / 6 + 64);
        gzip.extend_from_slice(&HEAD);
        for block in beginning.chunks(usize::from(u16::MAX)) {
            // Stored as it is: it begins and ends at byte boundaries, and nothing refers to it.
            let length = u16::try_from(block.len()).expect("chunks are no longer than that");
            gzip.push(0);
            gzip.extend_from_slice(&length.to_le_bytes());
            gzip.extend_from_slice(&(!length).to_le_bytes());
            gzip.extend_from_slice(block);
        }
        let rest_at = gzip.len();
        deflate(&mut gzip, rest, FlushCompress::Finish);
        let sum = Sum::of(rest);
        gzip.extend_from_slice(&Sum::of(beginning).and(sum).bytes());
        gzip.shrink_to_fit();
        Self { gzip: gzip.into(), rest_at, rest: sum }
    }

    /// Bytes that it holds.
    pub(super) fn len(&self) -> usize {
        self.gzip.len()
    }

    /// The whole of it.
    pub(super) fn coded(&self, coding: Coding) -> Bytes {
        match coding {
            Coding::Gzip | Coding::Identity => self.gzip.clone(),
            Coding::Deflate => self.gzip.slice(HEAD.len()..self.gzip.len() - TAIL),
        }
    }

    /// With another beginning.
    pub(super) fn behind(&self, beginning: &[u8], coding: Coding) -> Vec<Bytes> {
        let mut first = Vec::with_capacity(HEAD.len() + beginning.len() / 2 + 64);
        if coding == Coding::Gzip {
            first.extend_from_slice(&HEAD);
        }
        deflate(&mut first, beginning, FlushCompress::Sync);
        let mut parts = vec![first.into(), self.gzip.slice(self.rest_at..self.gzip.len() - TAIL)];
        if coding == Coding::Gzip {
            parts.push(Bytes::copy_from_slice(&Sum::of(beginning).and(self.rest).bytes()));
        }
        parts
    }
}

/// Appends a deflate stream, or (`Sync`) the beginning of one that ends at a byte boundary.
fn deflate(out: &mut Vec<u8>, plain: &[u8], end: FlushCompress) {
    if plain.is_empty() && end == FlushCompress::Finish {
        out.extend_from_slice(&NOTHING);
        return;
    }
    let level = if plain.len() <= SMALL { Compression::default() } else { Compression::fast() };
    let mut compress = Compress::new(level, false);
    loop {
        let done = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        let rest = plain.get(done..).unwrap_or_default();
        out.reserve(rest.len() / 4 + 64);
        let status = compress.compress_vec(rest, out, end);
        let is_whole = usize::try_from(compress.total_in()).is_ok_and(|taken| taken == plain.len());
        // Room left means that nothing waits for room.
        let has_room = out.len() < out.capacity();
        match status {
            Ok(Status::StreamEnd) => return,
            Ok(Status::Ok | Status::BufError) if end == FlushCompress::Sync && is_whole && has_room => return,
            Ok(_) => {}
            Err(error) => unreachable!("compressing has no input that it refuses: {error}"),
        }
    }
}

/// What is answered, before it is known how it goes over the wire.
#[derive(Debug)]
pub(super) enum Content {
    /// To be coded as the reader asked.
    Plain(Bytes),
    /// Coded already.
    Coded(Bytes),
    /// Coded already, in parts.
    Parts(Vec<Bytes>),
    /// Written as it comes, never coded.
    Stream(Body),
}

impl Default for Content {
    fn default() -> Self {
        Self::Plain(Bytes::new())
    }
}

impl From<Bytes> for Content {
    fn from(plain: Bytes) -> Self {
        Self::Plain(plain)
    }
}

impl From<Vec<u8>> for Content {
    fn from(plain: Vec<u8>) -> Self {
        Self::Plain(plain.into())
    }
}

impl From<String> for Content {
    fn from(plain: String) -> Self {
        Self::Plain(plain.into())
    }
}

impl From<&'static str> for Content {
    fn from(plain: &'static str) -> Self {
        Self::Plain(Bytes::from_static(plain.as_bytes()))
    }
}

/// The answer as it goes to the wire, with what is true of everything that comes from behind the router.
pub(super) fn finish(response: Response<Content>, coding: Coding) -> Response<Body> {
    let (mut parts, content) = response.into_parts();
    parts.headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    let name = match coding {
        Coding::Identity => None,
        Coding::Gzip => Some("gzip"),
        Coding::Deflate => Some("deflate"),
    };
    if let Some(name) = name
        && !matches!(content, Content::Stream(_))
    {
        parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    let body = match content {
        // It says how it would be coded, as Nomad's does, and has nothing that could be.
        _ if parts.status == StatusCode::NO_CONTENT => Body::empty(),
        Content::Plain(plain) if coding != Coding::Identity => framed(Packed::new(&plain).coded(coding)),
        Content::Plain(whole) | Content::Coded(whole) => framed(whole),
        Content::Parts(parts) if parts.iter().map(Bytes::len).sum::<usize>() > CHUNKED_ABOVE => {
            let mut more = parts.into_iter();
            Body::new(Chunks { first: more.next(), more })
        }
        Content::Parts(parts) => Body::from(parts.concat()),
        Content::Stream(body) => body,
    };
    Response::from_parts(parts, body)
}

fn framed(whole: Bytes) -> Body {
    if whole.len() > CHUNKED_ABOVE {
        Body::new(Chunks { first: Some(whole), more: Vec::new().into_iter() })
    } else {
        Body::from(whole)
    }
}

/// A body that does not say how long it is.
struct Chunks {
    /// Nearly always all there is; a vector for it would be an allocation for each answer.
    first: Option<Bytes>,
    more: std::vec::IntoIter<Bytes>,
}

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let next = self.first.take().or_else(|| self.more.next());
        Poll::Ready(next.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.more.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::{DeflateDecoder, GzDecoder};
    use proptest::prelude::*;

    use super::*;

    fn gunzipped(bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut decoder = GzDecoder::new(bytes);
        decoder.read_to_end(&mut plain).expect("one whole member");
        assert!(decoder.into_inner().is_empty(), "nothing follows the member");
        plain
    }

    fn inflated(bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        DeflateDecoder::new(bytes).read_to_end(&mut plain).expect("one whole stream");
        plain
    }

    #[test]
    fn the_first_name_that_is_known_letter_by_letter_decides() {
        for (accepted, coding) in [
            ("gzip", Coding::Gzip),
            ("deflate", Coding::Deflate),
            ("br, deflate, gzip", Coding::Deflate),
            (" identity ,\tgzip\t", Coding::Gzip),
            ("gzip;q=0, deflate;q=1, gzip", Coding::Gzip),
            ("gzip;q=1.0", Coding::Identity),
            ("GZIP", Coding::Identity),
            ("*", Coding::Identity),
            ("x-gzip", Coding::Identity),
            ("", Coding::Identity),
            (",,", Coding::Identity),
        ] {
            assert_eq!(Coding::first_of(accepted.as_bytes()), coding, "{accepted:?}");
        }
    }

    #[test]
    fn only_the_first_line_counts_and_an_upgrade_is_never_compressed() {
        let mut headers = HeaderMap::new();
        assert_eq!(Coding::asked_for(&headers), Coding::Identity);
        headers.append(ACCEPT_ENCODING, HeaderValue::from_static("br"));
        headers.append(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(Coding::asked_for(&headers), Coding::Identity);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(Coding::asked_for(&headers), Coding::Gzip);
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        assert_eq!(Coding::asked_for(&headers), Coding::Identity);
    }

    #[test]
    fn the_longest_body_with_a_length_has_two_kibibytes() {
        use hyper::body::Body as _;
        let length = |bytes: usize| framed(vec![0; bytes].into()).size_hint().exact();
        assert_eq!(length(0), Some(0));
        assert_eq!(length(2048), Some(2048));
        assert_eq!(length(2049), None);
    }

    #[test]
    fn a_beginning_may_be_longer_than_a_stored_block() {
        let beginning = vec![b'x'; 200_000];
        let packed = Packed::with_beginning(&beginning, b"rest");
        assert_eq!(gunzipped(&packed.coded(Coding::Gzip)), [&beginning[..], b"rest"].concat());
    }

    #[test]
    fn nothing_is_a_member_of_twenty_bytes() {
        let packed = Packed::new(b"");
        assert_eq!(packed.len(), 20);
        assert_eq!(gunzipped(&packed.coded(Coding::Gzip)), b"");
        assert_eq!(inflated(&packed.coded(Coding::Deflate)), b"");
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(
            beginning in proptest::collection::vec(any::<u8>(), 0..300),
            other in proptest::collection::vec(any::<u8>(), 0..3000),
            rest in "[a-c]{0,20}",
            times in 0_usize..3000,
        ) {
            let rest = rest.repeat(times).into_bytes();
            let packed = Packed::with_beginning(&beginning, &rest);
            let whole = [&beginning[..], &rest].concat();
            prop_assert_eq!(gunzipped(&packed.coded(Coding::Gzip)), whole.clone());
            prop_assert_eq!(inflated(&packed.coded(Coding::Deflate)), whole);
            let another = [&other[..], &rest].concat();
            prop_assert_eq!(gunzipped(&packed.behind(&other, Coding::Gzip).concat()), another.clone());
            prop_assert_eq!(inflated(&packed.behind(&other, Coding::Deflate).concat()), another);
        }
    }
}
