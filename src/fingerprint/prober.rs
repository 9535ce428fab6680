//! The fresh probe behind `/healthz`: what livenessprobe does with a connection of its own for each request.
//!
//! One probe of a socket is in flight at a time. Whoever asks joins one that began recently enough, else the next one,
//! and has a deadline of his own; so a driver is never asked oftener than it answers, however many ask. The connection is
//! kept, but never believed: one that ended, or whose socket file is another now or gone, is dialled anew.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::assess::phase_of;
use super::watch::Told;
use crate::csi::{CallError, Driver, Limits, Readiness};
use crate::domain::record::Phase;
use crate::domain::socket::FileIdentity;
use crate::domain::text::{DESCRIPTION_LIMIT, bounded, escaped};
use crate::metrics::calls::{Calls, DriverCalls, Probed};

/// livenessprobe's words for a driver that answers `ready=false`.
const NOT_READY: &str = "driver responded but is not ready";
/// How long an asker waits beyond its deadline for a probe that ends with it, and knows better what happened.
const GRACE: Duration = Duration::from_millis(10);
/// Pause before the task of a socket that broke off is started again.
const AFTER_A_FAULT: Duration = Duration::from_secs(1);

/// How a driver is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It answered, and is ready.
    Ready,
    /// It is not, or did not answer: why.
    NotReady(Arc<str>),
}

/// When to ask, and how long to wait.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long an answer may take, connecting included.
    pub limit: Duration,
    /// How long ago a probe may have begun that still answers.
    pub max_age: Duration,
}

/// Asks drivers how they are. Cheap to clone; it answers while its [`Probing`] runs.
#[derive(Debug, Clone)]
pub struct Prober {
    lines: Arc<[Arc<Line>]>,
    settings: Settings,
}

/// What asks the drivers, one task for each.
#[derive(Debug)]
pub struct Probing {
    lines: Arc<[Arc<Line>]>,
    settings: Settings,
    calls: Calls,
}

/// A probe, in flight or over.
#[derive(Debug, Clone)]
struct Flight {
    /// `None`: it has not begun.
    began: Option<Instant>,
    health: watch::Receiver<Option<Health>>,
}

#[derive(Debug, Default)]
struct Flights {
    /// In flight, or the last one.
    current: Option<Flight>,
    /// Who comes too late for that one waits for this one.
    next: Option<(watch::Sender<Option<Health>>, Flight)>,
    /// The connection over which the last one was answered.
    driver: Option<Driver>,
}

/// One socket and those who ask for it.
#[derive(Debug)]
struct Line {
    path: PathBuf,
    flights: Mutex<Flights>,
    asked: Notify,
}

impl Line {
    fn flights(&self) -> MutexGuard<'_, Flights> {
        // Every step leaves it whole.
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The probe that may answer somebody who asks now.
    fn join(&self, asked: Instant, max_age: Duration) -> watch::Receiver<Option<Health>> {
        let mut flights = self.flights();
        if let Some(current) = &flights.current
            && current
                .began
                .is_some_and(|began| asked.saturating_duration_since(began) <= max_age && !max_age.is_zero())
        {
            // An answer is worth nothing once whoever gave it is gone.
            let is_over = current.health.borrow().is_some();
            if !is_over || !flights.driver.as_ref().is_some_and(Driver::has_ended) {
                return current.health.clone();
            }
        }
        let (_, next) = flights.next.get_or_insert_with(|| {
            let (sender, health) = watch::channel(None);
            (sender, Flight { began: None, health })
        });
        let joined = next.health.clone();
        drop(flights);
        self.asked.notify_one();
        joined
    }

    async fn ask(&self, settings: Settings) -> Health {
        let mut joined = self.join(Instant::now(), settings.max_age);
        if let Some(health) = joined.borrow().clone() {
            return health;
        }
        let answer = tokio::time::timeout(settings.limit + GRACE, joined.wait_for(Option::is_some)).await;
        let failure = match answer {
            Ok(Ok(health)) => match &*health {
                Some(health) => return health.clone(),
                None => "the probe has no result",
            },
            Ok(Err(_)) => "the probe was broken off",
            Err(_) => "the driver did not answer in time: it hangs, or answers slowly and is asked by others, too",
        };
        Health::NotReady(failure.into())
    }
}

impl Prober {
    /// A prober of these sockets, and what has to run for it.
    #[must_use]
    pub fn new(sockets: impl IntoIterator<Item = PathBuf>, settings: Settings, calls: Calls) -> (Self, Probing) {
        let line = |path| Arc::new(Line { path, flights: Mutex::default(), asked: Notify::new() });
        let lines: Arc<[Arc<Line>]> = sockets.into_iter().map(line).collect();
        (Self { lines: Arc::clone(&lines), settings }, Probing { lines, settings, calls })
    }

    /// How all drivers are: ready only if every one of them is; of several, those are named that are not.
    pub async fn ask(&self) -> Health {
        if let [line] = &*self.lines {
            return line.ask(self.settings).await;
        }
        let mut asked = JoinSet::new();
        for (number, line) in self.lines.iter().enumerate() {
            let (line, settings) = (Arc::clone(line), self.settings);
            asked.spawn(async move { (number, line.ask(settings).await) });
        }
        let mut answers = asked.join_all().await;
        answers.sort_by_key(|(number, _)| *number);
        let failures = answers.into_iter().filter_map(|(number, health)| match health {
            Health::Ready => None,
            Health::NotReady(why) => {
                // A line for each.
                let why = why.replace('\n', ": ");
                Some(format!("{}: {why}", escaped(&self.lines[number].path.to_string_lossy())))
            }
        });
        let failures: Vec<String> = failures.collect();
        if failures.is_empty() { Health::Ready } else { Health::NotReady(failures.join("\n").into()) }
    }
}

impl Probing {
    /// Asks each driver once, and then whenever somebody wants to know, until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for line in self.lines.iter() {
            // Its name is what metrics are labelled with, so it is asked for before anybody wants to know more.
            drop(line.join(Instant::now(), Duration::ZERO));
            let (line, limit, calls) = (Arc::clone(line), self.settings.limit, self.calls.clone());
            tasks.spawn(async move {
                loop {
                    let asking = Asking::new(Arc::clone(&line), limit, calls.of_driver());
                    let Err(error) = AbortOnDropHandle::new(tokio::spawn(asking.run())).await;
                    // A fault of ours must not become a driver's death.
                    warn!(socket = %line.path.display(), %error, "the task of a socket did not end well");
                    tokio::time::sleep(AFTER_A_FAULT).await;
                }
            });
        }
        stop.cancelled().await;
        tasks.shutdown().await;
    }
}

/// The task of one socket.
struct Asking {
    line: Arc<Line>,
    limit: Duration,
    calls: DriverCalls,
    driver: Option<Driver>,
    /// The socket file behind which that was dialled.
    file: Option<FileIdentity>,
    /// Empty until the driver told it.
    name: Box<str>,
    phase: Phase,
    told: Told,
}

impl Asking {
    fn new(line: Arc<Line>, limit: Duration, calls: DriverCalls) -> Self {
        Self {
            line,
            limit,
            calls,
            driver: None,
            file: None,
            name: Box::default(),
            phase: Phase::New,
            told: Told::new(),
        }
    }

    async fn run(mut self) -> Infallible {
        loop {
            let next = self.line.flights().next.take();
            let Some((sender, flight)) = next else {
                self.line.asked.notified().await;
                continue;
            };
            let began = Instant::now();
            self.line.flights().current = Some(Flight { began: Some(began), ..flight });
            let answer = self.probe(began).await;
            self.line.flights().driver = self.driver.clone();
            let health = self.judge(answer, began.elapsed());
            // Whoever asked may have gone; the next one may be in time for this.
            sender.send_replace(Some(health));
        }
    }

    /// What of the limit is left, in whole hundredths of a second, which is what people are told.
    fn left(&self, began: Instant) -> Duration {
        let left = self.limit.saturating_sub(began.elapsed()).as_millis().div_ceil(10) * 10;
        Duration::from_millis(u64::try_from(left).unwrap_or(u64::MAX))
    }

    async fn probe(&mut self, began: Instant) -> Result<Readiness, CallError> {
        let file = tokio::fs::metadata(&self.line.path).await.ok().as_ref().map(FileIdentity::of);
        let is_same = matches!((file, self.file), (Some(now), Some(then)) if now.is_still(&then));
        let kept = self.driver.take().filter(|driver| is_same && !driver.has_ended());
        if let Some(driver) = kept {
            let answer = self.ask(&driver, began).await;
            if !matches!(&answer, Err(error) if error.is_transport()) {
                return answer;
            }
            // Idle connections may be closed in good order; one dial tells.
        }
        let left = self.left(began);
        let driver = Driver::connect(&self.line.path, Limits::new(left, left)).await?.counted_by(self.calls.clone());
        self.file = file;
        self.ask(&driver, began).await
    }

    async fn ask(&mut self, driver: &Driver, began: Instant) -> Result<Readiness, CallError> {
        if self.name.is_empty() {
            let info = driver.at_most(self.left(began)).plugin_info().await?;
            self.name = bounded(&info.name, DESCRIPTION_LIMIT);
        }
        let answer = driver.at_most(self.left(began)).probe().await;
        // One that does not answer is not asked again over the same connection.
        if !matches!(&answer, Err(error) if error.is_timeout() || error.is_transport()) {
            self.driver = Some(driver.clone());
        }
        answer
    }

    /// What an answer says, to whoever asked, to the log and to the counters.
    fn judge(&mut self, answer: Result<Readiness, CallError>, took: Duration) -> Health {
        let (phase, probed, health) = match answer {
            Ok(Readiness::Ready) => (Phase::Healthy, Probed::Ready, Health::Ready),
            Ok(Readiness::Starting) => (Phase::Starting, Probed::NotReady, Health::NotReady(NOT_READY.into())),
            Err(error) => {
                let probed = if error.is_timeout() { Probed::Timeout } else { Probed::Error };
                // In plain words, and in those that livenessprobe's readers know.
                let text = format!("{}\n{}", error.for_people(), bounded(&error.go_text(), DESCRIPTION_LIMIT));
                (phase_of(&error), probed, Health::NotReady(text.into()))
            }
        };
        self.calls.probed(probed);
        let socket = self.line.path.display();
        debug!(%socket, %phase, duration_ms = took.as_secs_f64() * 1e3, "looked at a driver");
        self.log(phase, &health);
        health
    }

    fn log(&mut self, phase: Phase, health: &Health) {
        let socket = self.line.path.to_string_lossy();
        let socket = &*escaped(&socket);
        if let Some(omitted) = self.told.omitted() {
            warn!(socket, omitted, now = %phase, "driver changed more often than was logged");
        }
        let from = std::mem::replace(&mut self.phase, phase);
        if from == phase || !self.told.may_tell() {
            return;
        }
        let provider = &*escaped(&self.name);
        match health {
            Health::Ready => info!(socket, provider, %from, to = %phase, "driver is {phase}"),
            Health::NotReady(reason) => {
                let reason = reason.lines().next().unwrap_or_default();
                warn!(socket, provider, %from, to = %phase, reason = &*escaped(reason), "driver is {phase}");
            }
        }
    }
}

impl Prober {
    /// Paths of the sockets, in their order.
    pub fn sockets(&self) -> impl Iterator<Item = &Path> {
        self.lines.iter().map(|line| &*line.path)
    }
}
