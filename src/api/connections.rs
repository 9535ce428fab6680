//! How many connections a client may have, counted by address over all listeners (`nomad-http.md` section 7).
//!
//! One more is told so in raw bytes, before anything of it is read; and since telling costs too, only so many are told.
//! Touched when a connection comes and when it goes, never by a request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Connections of one address where nobody says otherwise: Nomad's number.
pub const MOST_CONNECTIONS: u32 = 100;
/// What one more is told.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nContent-Length: 81\r\n\
    Connection: close\r\n\r\n\
    Your IP is issuing too many concurrent connections, please rate limit your calls\n";
/// Answers that may be given at once.
const BURST: f64 = 100.0;
/// Answers a second after that.
const RATE: f64 = 10.0;
/// How long one that was told may take to read it.
const LINGER: Duration = Duration::from_millis(250);

/// The limit, and who is connected. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Zero: as many as they like.
    most: u32,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    by_address: HashMap<IpAddr, u32>,
    /// Answers that may still be given, and since when that is so.
    answers: (f64, Instant),
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Counts are whole at every step: nothing under the lock can panic half way.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that counts, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    address: IpAddr,
    shared: Arc<Shared>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        if let Some(count) = table.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                table.by_address.remove(&self.address);
            }
        }
    }
}

/// What becomes of a connection.
#[derive(Debug)]
pub(super) enum Entry {
    /// It is served, and counts as long as the place is held; `None`: nobody counts.
    Served(Option<Place>),
    /// It is one too many, and is told so.
    Told,
    /// It is one too many, and so are those who are told so.
    Closed,
}

impl Connections {
    /// At most so many of each address; zero: no limit.
    #[must_use]
    pub fn at_most(most: u32) -> Self {
        let table = Table { by_address: HashMap::new(), answers: (BURST, Instant::now()) };
        Self(Arc::new(Shared { most, table: Mutex::new(table) }))
    }

    /// A connection comes.
    pub(super) fn enter(&self, address: IpAddr, now: Instant) -> Entry {
        if self.0.most == 0 {
            return Entry::Served(None);
        }
        let address = address.to_canonical();
        let mut table = self.0.table();
        let count = table.by_address.entry(address).or_default();
        if *count < self.0.most {
            *count += 1;
            drop(table);
            return Entry::Served(Some(Place { address, shared: Arc::clone(&self.0) }));
        }
        let (left, since) = table.answers;
        let left = (left + RATE * now.saturating_duration_since(since).as_secs_f64()).min(BURST);
        let is_told = left >= 1.0;
        table.answers = (if is_told { left - 1.0 } else { left }, now);
        if is_told { Entry::Told } else { Entry::Closed }
    }
}

/// Tells a connection that it is one too many, and ends it.
pub(super) async fn refuse(mut stream: TcpStream) {
    let telling = async {
        stream.write_all(TOO_MANY).await?;
        stream.shutdown().await?;
        // Closed with its request unread, the system would send a reset, and the client might never read the answer.
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Whoever does not listen has gone or goes on by himself: his trouble.
    let _ = tokio::time::timeout(LINGER, telling).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_answer_says_how_long_it_is() {
        let text = std::str::from_utf8(TOO_MANY).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
    }

    #[test]
    fn each_address_has_its_own_count_and_gets_back_what_ended() {
        let connections = Connections::at_most(2);
        let now = Instant::now();
        let enter = |text: &str| connections.enter(address(text), now);
        let (first, second) = (enter("127.0.0.1"), enter("::ffff:127.0.0.1"));
        assert!(matches!((&first, &second), (Entry::Served(Some(_)), Entry::Served(Some(_)))));
        assert!(matches!(enter("127.0.0.1"), Entry::Told), "one address in both spellings");
        assert!(matches!(enter("127.0.0.2"), Entry::Served(Some(_))));
        drop(first);
        assert!(matches!(enter("127.0.0.1"), Entry::Served(Some(_))));
        drop(second);
        assert!(connections.0.table().by_address.is_empty(), "nothing is kept of those who have gone");
    }

    #[test]
    fn only_so_many_are_told() {
        let connections = Connections::at_most(1);
        let start = Instant::now();
        let at = |millis: u64| connections.enter(address("::1"), start + Duration::from_millis(millis));
        let _held = at(0);
        assert_eq!((0..150).filter(|_| matches!(at(0), Entry::Told)).count(), 100);
        assert!(matches!(at(50), Entry::Closed));
        assert!(matches!(at(150), Entry::Told));
        assert!(matches!(at(150), Entry::Closed));
    }

    #[test]
    fn without_a_limit_nobody_counts() {
        let connections = Connections::at_most(0);
        assert!(matches!(connections.enter(address("::1"), Instant::now()), Entry::Served(None)));
    }
}
