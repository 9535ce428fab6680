//! Holds many blocked readers and measures how they are let go.
//!
//! `hold --address=HOST:PORT --path=PATH --readers=N [--rounds=R] [--pid=PID]` opens N connections to a server on the
//! loopback, sends on each a blocking query for the present index of PATH, and waits for the next change to answer all of
//! them. One line of JSON per round: milliseconds from the change to the first answer's first byte, to the median's, the
//! 99th percentile's, the last one's, and to the last answer's last byte. The moment of the change comes with the answer:
//! `x-released` of the bare server, else the newest `UpdateTime` in the body, which is from before the commit, so that
//! committing is part of what is measured. With a PID also the resident memory per reader.
//!
//! A round whose readers were not all waiting when the change came is not counted, and repeated.

#![allow(clippy::print_stdout, reason = "a tool talks to its caller")]

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A server that does not answer within this has failed the measurement.
const LIMIT: Duration = Duration::from_secs(120);

type Failure = Box<dyn Error + Send + Sync>;

struct Arguments {
    address: SocketAddr,
    path: String,
    readers: usize,
    rounds: usize,
    pid: Option<u32>,
}

fn arguments() -> Result<Option<Arguments>, Failure> {
    let (mut address, mut path, mut readers, mut rounds, mut pid) = (None, None, None, 3, None);
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("--address", text)) => address = Some(text.parse::<SocketAddr>()?),
            Some(("--path", text)) => path = Some(text.to_owned()),
            Some(("--readers", text)) => readers = Some(text.parse()?),
            Some(("--rounds", text)) => rounds = text.parse()?,
            Some(("--pid", text)) => pid = Some(text.parse()?),
            // `cargo bench` runs every bench target with this; there is nothing to measure alone.
            None if argument == "--bench" => return Ok(None),
            _ => return Err(format!("no argument `{argument}`; the head of this file lists them").into()),
        }
    }
    match (address, path, readers) {
        (Some(address), Some(path), Some(readers)) if address.ip().is_loopback() => {
            Ok(Some(Arguments { address, path, readers, rounds, pid }))
        }
        _ => Err("needed are --address (on the loopback), --path, --readers".into()),
    }
}

/// When an answer came, and where in the connection's buffer its head ends.
struct Answer {
    first_byte: SystemTime,
    last_byte: SystemTime,
    head: usize,
}

/// A connection that asks again and again.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    async fn ask(&mut self, path: &str) -> Result<(), Failure> {
        Ok(self.stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await?)
    }

    async fn answer(&mut self) -> Result<Answer, Failure> {
        self.buffer.clear();
        let mut first_byte = None;
        let (first_byte, head, length) = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed the connection".into());
            }
            let first_byte = *first_byte.get_or_insert_with(SystemTime::now);
            let Some(head) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let length: Option<usize> = self.header(head, "content-length").map(str::parse).transpose()?;
            if length.is_none() && self.header(head, "transfer-encoding") != Some("chunked") {
                return Err("an answer without a length".into());
            }
            break (first_byte, head + 4, length);
        };
        // Chunks end with an empty one, and JSON has no such line.
        while length.map_or(!self.buffer.ends_with(b"\r\n0\r\n\r\n"), |length| self.buffer.len() < head + length) {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed the connection".into());
            }
        }
        Ok(Answer { first_byte, last_byte: SystemTime::now(), head })
    }

    /// What the last answer says: its index, and when the change was. Finding that in a large body takes longer than
    /// receiving it, so it is for when nobody waits any more.
    fn said(&self, head: usize) -> Result<(u64, SystemTime), Failure> {
        let index = self.header(head, "x-nomad-index").map_or(Ok(0), str::parse)?;
        let changed = match self.header(head, "x-released") {
            Some(nanos) => SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos.parse()?),
            None => newest_update(&self.buffer[head..]).unwrap_or(SystemTime::UNIX_EPOCH),
        };
        Ok((index, changed))
    }

    fn header(&self, head: usize, wanted: &str) -> Option<&str> {
        let text = std::str::from_utf8(&self.buffer[..head]).ok()?;
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim())
    }
}

/// The newest `UpdateTime` in a read body.
fn newest_update(body: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(body).ok()?;
    let times = text
        .split("\"UpdateTime\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next()?.parse::<jiff::Timestamp>().ok());
    times.max().map(SystemTime::from)
}

/// Resident bytes of a process.
fn resident(pid: u32) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS in its status")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number in VmRSS")?.parse::<u64>()? * 1024)
}

/// Milliseconds from `change` to a moment.
fn after(change: SystemTime, moment: SystemTime) -> f64 {
    moment.duration_since(change).map_or_else(|before| -before.duration().as_secs_f64(), |since| since.as_secs_f64())
        * 1e3
}

async fn measure(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { address, path, readers, rounds, pid } = arguments;
    let before = pid.map(resident).transpose()?;
    let mut connections = Vec::with_capacity(readers);
    for _ in 0..readers {
        connections.push(Connection::open(address).await?);
    }
    let Some(first) = connections.first_mut() else { return Ok(()) };
    first.ask(&path).await?;
    let answer = first.answer().await?;
    let (mut index, _) = first.said(answer.head)?;
    let mut done = 0;
    // A round that came too early is repeated, but not for ever.
    for _ in 0..rounds * 4 {
        if done == rounds {
            return Ok(());
        }
        let query = format!("{path}?index={index}&wait=5m");
        for connection in &mut connections {
            connection.ask(&query).await?;
        }
        let waiting = SystemTime::now();
        let mut answers = JoinSet::new();
        for mut connection in connections.drain(..) {
            answers.spawn(async move {
                let answer = tokio::time::timeout(LIMIT, connection.answer()).await??;
                Ok::<_, Failure>((connection, answer))
            });
        }
        // Reading what the server does with that many takes a moment; the change comes later than that, or is not counted.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let held = pid.map(resident).transpose()?;
        let answered = answers.join_all().await;
        let mut moments = Vec::with_capacity(readers);
        let (mut change, mut is_one_change, mut last_byte) = (None, true, SystemTime::UNIX_EPOCH);
        for answer in answered {
            let (connection, answer) = answer?;
            let (seen, changed) = connection.said(answer.head)?;
            connections.push(connection);
            moments.push(answer.first_byte);
            is_one_change &= *change.get_or_insert(changed) == changed;
            last_byte = last_byte.max(answer.last_byte);
            index = index.max(seen);
        }
        let Some(change) = change.filter(|change| is_one_change && *change > waiting + Duration::from_secs(1)) else {
            continue;
        };
        done += 1;
        moments.sort_unstable();
        let at = |share: usize| after(change, moments[(moments.len() * share / 100).min(moments.len() - 1)]);
        print!(
            "{{\"readers\":{readers},\"first_ms\":{:.3},\"p50_ms\":{:.3},\"p99_ms\":{:.3},\"last_ms\":{:.3},\"done_ms\":{:.3}",
            at(0),
            at(50),
            at(99),
            at(100),
            after(change, last_byte),
        );
        if let (Some(before), Some(held)) = (before, held) {
            print!(",\"bytes_each\":{}", held.saturating_sub(before) / readers as u64);
        }
        println!("}}");
    }
    if done == rounds { Ok(()) } else { Err("the changes came before all readers were waiting".into()) }
}

fn main() -> Result<(), Failure> {
    let Some(arguments) = arguments()? else { return Ok(()) };
    // One thread: what it takes is the same beside every server, and the server keeps the other core.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(arguments))
}
