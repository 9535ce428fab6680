//! Asking the fixture's API, in process and over TCP, and what its answers have in common.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use csi_gateway::api::connections::Connections;
use csi_gateway::api::server::{Listener, serve};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower::ServiceExt;

use super::fixture::Fixture;

/// The index of the conformance fixture.
pub const T: u64 = 103;

/// Every header that may ever be sent.
pub const HEADERS: [&str; 10] = [
    "content-type",
    "content-encoding",
    "content-length",
    "vary",
    "location",
    "connection",
    "x-nomad-index",
    "x-nomad-knownleader",
    "x-nomad-lastcontact",
    "x-nomad-nexttoken",
];

#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// As it was before it was compressed.
    pub body: String,
    /// Bytes of the body as it came.
    pub length: usize,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a JSON body")
    }

    pub fn index(&self) -> Option<u64> {
        self.header("x-nomad-index").map(|text| text.parse().expect("a number"))
    }

    pub fn meta(&self) -> [Option<&str>; 3] {
        ["x-nomad-index", "x-nomad-knownleader", "x-nomad-lastcontact"].map(|name| self.header(name))
    }
}

/// What a file of the page has beside those.
const PAGE_HEADERS: [&str; 8] = [
    "cache-control",
    "content-security-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "etag",
    "referrer-policy",
    "x-content-type-options",
    "x-frame-options",
];

pub async fn send(fixture: &Fixture, request: Request<Body>) -> Answer {
    let is_page = request.uri().path().starts_with("/ui/");
    let response = fixture.api.router().oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    for name in parts.headers.keys() {
        let name = name.as_str();
        assert!(HEADERS.contains(&name) || is_page && PAGE_HEADERS.contains(&name), "unexpected header {name}");
    }
    let body = body.collect().await.expect("bodies are in memory").to_bytes();
    let coding = parts.headers.get("content-encoding").map(|name| name.to_str().expect("ASCII"));
    // That status says how it would be coded and has nothing that could be.
    let coding = coding.filter(|_| parts.status != StatusCode::NO_CONTENT);
    let plain = String::from_utf8(decoded(coding, &body)).expect("UTF-8");
    Answer { status: parts.status, headers: parts.headers, body: plain, length: body.len() }
}

/// What a body was before it was compressed: one member, or one raw stream, and nothing after it.
pub fn decoded(coding: Option<&str>, body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        None => plain.extend_from_slice(body),
        Some("gzip") => {
            let mut decoder = flate2::bufread::GzDecoder::new(body);
            decoder.read_to_end(&mut plain).expect("a gzip member");
            assert!(decoder.into_inner().is_empty(), "nothing follows the member");
        }
        Some("deflate") => {
            let mut decoder = flate2::bufread::DeflateDecoder::new(body);
            decoder.read_to_end(&mut plain).expect("a raw stream");
            assert!(decoder.into_inner().is_empty(), "nothing follows the stream");
        }
        Some(other) => panic!("{other} is nothing that Nomad sends"),
    }
    plain
}

pub async fn call(fixture: &Fixture, method: Method, target: &str) -> Answer {
    send(fixture, Request::builder().method(method).uri(target).body(Body::empty()).expect("a legal request")).await
}

pub async fn get(fixture: &Fixture, target: &str) -> Answer {
    call(fixture, Method::GET, target).await
}

/// Asks with an `Accept-Encoding`.
pub async fn get_as(fixture: &Fixture, target: &str, accepted: &str) -> Answer {
    let request = Request::get(target).header("Accept-Encoding", accepted);
    send(fixture, request.body(Body::empty()).expect("a legal request")).await
}

/// The lines of an answer that goes on.
pub struct Lines {
    pub headers: HeaderMap,
    body: Body,
    read: String,
}

impl Lines {
    pub async fn of(fixture: &Fixture, target: &str) -> Self {
        let request = Request::get(target).header("Accept-Encoding", "gzip").body(Body::empty()).expect("legal");
        Self::answering(fixture, request).await
    }

    /// The same for a request that is complete.
    pub async fn answering(fixture: &Fixture, request: Request<Body>) -> Self {
        let target = request.uri().to_string();
        let (parts, body) = fixture.api.router().oneshot(request).await.expect("infallible").into_parts();
        assert_eq!(parts.status, 200, "{target}");
        Self { headers: parts.headers, body, read: String::new() }
    }

    /// The next line without its end; `None`: the stream is over.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((line, rest)) = self.read.split_once('\n') {
                let (line, rest) = (line.to_owned(), rest.to_owned());
                self.read = rest;
                return Some(line);
            }
            let frame = self.body.frame().await?.expect("bodies do not fail");
            let data = frame.into_data().expect("no trailers");
            self.read.push_str(std::str::from_utf8(&data).expect("UTF-8"));
        }
    }

    /// The next line as JSON.
    pub async fn json(&mut self) -> Value {
        serde_json::from_str(&self.next().await.expect("a line")).expect("JSON")
    }
}

pub const NO_META: [Option<&str>; 3] = [None; 3];
pub const TEXT: Option<&str> = Some("text/plain; charset=utf-8");
pub const JSON: Option<&str> = Some("application/json");

#[track_caller]
pub fn assert_text(case: &str, answer: &Answer, status: u16, text: &str) {
    assert_eq!(answer.status, status, "{case}: {answer:?}");
    assert_eq!(answer.body, text, "{case}");
    assert_eq!(answer.header("content-type"), if text.is_empty() { None } else { TEXT }, "{case}");
    assert_eq!(answer.header("vary"), Some("Accept-Encoding"), "{case}");
    assert_eq!(answer.meta(), NO_META, "{case}");
}

#[track_caller]
pub fn assert_not_found(case: &str, answer: &Answer) {
    assert_eq!(answer.status, 404, "{case}: {answer:?}");
    assert_eq!(answer.body, "plugin not found", "{case}");
    assert_eq!(answer.header("content-type"), TEXT, "{case}");
    assert_eq!(answer.meta(), [Some("0"), Some("true"), Some("0")], "{case}");
}

#[track_caller]
pub fn assert_empty_ok(case: &str, answer: &Answer) {
    assert_text(case, answer, 200, "");
    assert_eq!(answer.header("content-length"), Some("0"), "{case}");
}

pub fn ids(answer: &Answer) -> Vec<String> {
    let list = answer.json();
    let id = |stub: &Value| stub["ID"].as_str().expect("text").to_owned();
    list.as_array().expect("an array").iter().map(id).collect()
}

pub fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// How long something takes by the paused clock.
pub async fn timed<T>(future: impl Future<Output = T>) -> (T, f64) {
    let start = Instant::now();
    let result = future.await;
    (result, start.elapsed().as_secs_f64())
}

/// Does `action` after `delay` while `future` runs.
pub async fn meanwhile<T>(future: impl Future<Output = T>, delay: f64, action: impl FnOnce()) -> (T, f64) {
    let late = async {
        tokio::time::sleep(Duration::from_secs_f64(delay)).await;
        action();
    };
    let ((result, took), ()) = tokio::join!(timed(future), late);
    (result, took)
}

#[track_caller]
pub fn assert_between(case: &str, took: f64, least: f64, most: f64) {
    assert!(took >= least && took <= most, "{case}: took {took} s, not {least} to {most} s");
}

/// A fixture on a real port.
pub struct Served {
    pub fixture: Fixture,
    pub address: String,
    pub server: tokio::task::JoinHandle<()>,
}

impl Served {
    pub async fn start() -> Self {
        Self::of(Fixture::conformance()).await
    }

    pub async fn of(fixture: Fixture) -> Self {
        Self::limited(fixture, 0).await
    }

    /// With so many connections at most for a client.
    pub async fn limited(fixture: Fixture, most: u32) -> Self {
        let listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
        let listener = listener.limited_by(&Connections::at_most(most));
        let address = listener.address().to_owned();
        let server = tokio::spawn(serve(listener, fixture.api.clone(), fixture.shutdown.clone()));
        Self { fixture, address, server }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.expect("it listens")
    }

    /// Everything that is answered to raw bytes until the connection ends.
    pub async fn bytes(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().await;
        stream.write_all(request).await.expect("it reads");
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer)).await.expect("it answers and closes");
        answer
    }

    /// The same as text.
    pub async fn raw(&self, request: &[u8]) -> String {
        String::from_utf8(self.bytes(request).await).expect("UTF-8")
    }

    /// One request of its own connection; `headers` are whole lines with their ends.
    pub async fn ask(&self, method: &str, target: &str, headers: &str) -> Wire {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        Wire::parse(&self.bytes(request.as_bytes()).await)
    }
}

/// A limit so long that only what would hang forever meets it.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("comes to an end")
}

pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn head_of(answer: &str) -> (&str, BTreeSet<&str>) {
    let (head, _) = answer.split_once("\r\n\r\n").expect("a head");
    let (status, headers) = head.split_once("\r\n").expect("headers");
    (status, headers.split("\r\n").filter(|line| !line.starts_with("Date: ")).collect())
}

/// One answer as it came over the wire.
#[derive(Debug)]
pub struct Wire {
    pub status: u16,
    /// In the order in which they came, `Date` apart.
    pub headers: Vec<(String, String)>,
    /// Without the marks of its chunks.
    pub body: Vec<u8>,
}

impl Wire {
    /// Takes apart what a connection gave until it ended.
    pub fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = std::str::from_utf8(&bytes[..end]).expect("an ASCII head");
        let mut lines = head.split("\r\n");
        let status = lines.next().expect("a status line");
        let status = status.split(' ').nth(1).expect("a status").parse().expect("a number");
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").expect("a header");
            (name.to_owned(), value.to_owned())
        };
        let headers: Vec<_> = lines.map(header).filter(|(name, _)| name != "Date").collect();
        let mut rest = &bytes[end + 4..];
        let mut body = Vec::new();
        if headers.iter().any(|(name, value)| name == "Transfer-Encoding" && value == "chunked") {
            loop {
                let end = rest.windows(2).position(|two| two == b"\r\n").expect("the length of a chunk");
                let size = std::str::from_utf8(&rest[..end]).expect("ASCII");
                let size = usize::from_str_radix(size, 16).expect("hexadecimal");
                let chunk = &rest[end + 2..];
                body.extend_from_slice(&chunk[..size]);
                assert_eq!(&chunk[size..size + 2], b"\r\n", "a chunk ends with its line");
                rest = &chunk[size + 2..];
                if size == 0 {
                    break;
                }
            }
            assert!(rest.is_empty(), "nothing follows the last chunk");
        } else {
            body.extend_from_slice(rest);
        }
        Self { status, headers, body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body before it was compressed.
    pub fn plain(&self) -> String {
        String::from_utf8(decoded(self.header("Content-Encoding"), &self.body)).expect("UTF-8")
    }
}
