//! systemd's side of a service: told when we are ready, alive and stopping; asked for the sockets that it opened for us.
//!
//! Ready means that every driver was looked at once, so that what is ordered after this service finds what it asks for. It
//! never means that a driver is healthy. Everywhere else than under systemd nothing of this happens.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// A socket that was opened before us and handed over (socket activation).
#[derive(Debug)]
pub enum Handed {
    /// `ListenStream=PORT`.
    Tcp(TcpListener),
    /// `ListenStream=/PATH`.
    Unix(UnixListener),
}

/// The sockets that were handed over, in their order; none where `LISTEN_FDS` is not set for this process. To be called
/// once, and before there is a second thread: it clears the variables.
///
/// # Errors
/// One that is neither a TCP nor a unix stream socket.
pub fn handed_over() -> io::Result<Vec<Handed>> {
    let mut descriptors = ListenFd::from_env();
    let mut handed = Vec::new();
    for number in 0..descriptors.len() {
        if let Ok(Some(listener)) = descriptors.take_tcp_listener(number) {
            handed.push(Handed::Tcp(listener));
        } else {
            handed.extend(descriptors.take_unix_listener(number)?.map(Handed::Unix));
        }
    }
    Ok(handed)
}

/// Tells that we are ready once `ready` is, that we live as often as it wants to know, and that we stop.
pub async fn tell(ready: impl Future<Output = ()>, stop: CancellationToken) {
    let watchdog = async {
        // Half of the time after which it would kill us, as its manual asks for.
        let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
            return std::future::pending().await;
        };
        let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
        loop {
            ticks.tick().await;
            say(&[NotifyState::Watchdog]);
        }
    };
    say(&[NotifyState::Status("looking at every driver for the first time")]);
    let ready = async {
        ready.await;
        say(&[NotifyState::Ready, NotifyState::Status("every driver was looked at")]);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = watchdog => {}
        () = ready => {}
    }
    say(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        // It will find out by itself, and act as its unit says.
        warn!(%error, "systemd cannot be told");
    }
}
