//! A simulated fleet: the real shipper for each of many hosts that do not exist, a real etcd, real aggregators.
//!
//! `fleet [--hosts=N] [--plugins=M] [--changes=C] [--rate=R] [--steady=S] [--chaos=S] [--groups=G] [--ttl=S]` starts an etcd and two
//! aggregators, then the agents of N hosts with M plugins each, all at once and over G shared connections. It prints one
//! line of JSON for each thing that it measured, and fails with the first reply that is out of order: whatever is shown as
//! current under an index is the same everywhere, and for a reader that moves between aggregators no index falls.

#![allow(clippy::print_stdout, clippy::panic, reason = "a tool talks to its caller")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use csi_gateway::commands::http;
use csi_gateway::demo::fleet::{host, plugin, record};
use csi_gateway::domain::catalog::{Catalog, RecordChange};
use csi_gateway::domain::fleet::EtcdServer as Server;
use csi_gateway::domain::history::Transition;
use csi_gateway::domain::id::Role;
use csi_gateway::domain::record::{Phase, Reason};
use csi_gateway::domain::socket::{SocketStatus, WantedSocket};
use csi_gateway::domain::time::{Index, Timestamp};
use csi_gateway::domain::trust::Trust;
use csi_gateway::fleet::Settings;
use csi_gateway::fleet::etcd::Etcd;
use csi_gateway::fleet::shipper::Shipper;
use csi_gateway::registry::mirror::Mirror;
use csi_gateway::registry::reader::Reader;
use csi_gateway::registry::reporter::transitions;
use csi_gateway::registry::sockets::Sockets;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[path = "../../tests/support/etcd.rs"]
#[allow(dead_code, unreachable_pub, reason = "a tool uses its own part of it")]
mod etcd;
#[path = "../../tests/support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "a tool uses its own part of it")]
mod process;

use etcd::{EtcdServer, Proxy, Wire};
use process::Serving;

type Failure = Box<dyn Error + Send + Sync>;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone, Copy)]
struct Arguments {
    hosts: u32,
    plugins: u32,
    changes: u32,
    rate: u32,
    steady: u64,
    chaos: u64,
    groups: usize,
    ttl: u64,
}

fn arguments() -> Result<Option<Arguments>, Failure> {
    let mut all =
        Arguments { hosts: 1000, plugins: 20, changes: 1000, rate: 50, steady: 10, chaos: 20, groups: 8, ttl: 10 };
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("--hosts", text)) => all.hosts = text.parse()?,
            Some(("--plugins", text)) => all.plugins = text.parse()?,
            Some(("--changes", text)) => all.changes = text.parse()?,
            Some(("--rate", text)) => all.rate = text.parse()?,
            Some(("--steady", text)) => all.steady = text.parse()?,
            Some(("--chaos", text)) => all.chaos = text.parse()?,
            Some(("--groups", text)) => all.groups = text.parse()?,
            Some(("--ttl", text)) => all.ttl = text.parse()?,
            // `cargo bench` runs every bench target with this; there is nothing to measure alone.
            None if argument == "--bench" => return Ok(None),
            _ => return Err(format!("no argument `{argument}`; the head of this file lists them").into()),
        }
    }
    Ok(Some(all))
}

/// One host: its catalog, which the tool changes, and its agent.
struct Host {
    number: u32,
    mirror: Mirror,
    reader: Reader,
    sockets: Sockets,
    etcd: Etcd,
    stop: CancellationToken,
    agent: Option<JoinHandle<()>>,
}

impl Host {
    fn new(number: u32, plugins: u32, etcd: Etcd) -> Self {
        let (mirror, reader) = Mirror::new(Catalog::empty(Index(1)), Duration::from_secs(1));
        let now = Timestamp::now();
        let records = (0..plugins).map(|plugin| RecordChange::Put(Box::new(record(plugin, number, Role::Node, now))));
        let changes: Vec<RecordChange> = records.collect();
        let sockets = Sockets::of(host(number));
        for change in &changes {
            if let RecordChange::Put(record) = change {
                let status = SocketStatus::new(&WantedSocket::configured(&*record.socket));
                let plugin = Some(record.key.plugin.clone());
                sockets
                    .put(Path::new(&*record.socket).into(), SocketStatus { plugin, roles: vec![Role::Node], ..status });
            }
        }
        let host = Self { number, mirror, reader, sockets, etcd, stop: CancellationToken::new(), agent: None };
        host.publish(&changes, now);
        host.mirror.scanned();
        host
    }

    /// Shows changes with what is worth remembering about them, as a registry does.
    fn publish(&self, changes: &[RecordChange], at: Timestamp) {
        let current = self.mirror.current();
        let index = current.index().next();
        let transitions = changes.iter().flat_map(|change| {
            let RecordChange::Put(next) = change else { return Vec::new() };
            let changes = transitions(current.record(&next.key), next).into_iter();
            let told = |change| Transition { at, index, key: next.key.clone(), change, reason: next.reason.clone() };
            changes.map(told).collect()
        });
        let transitions: Vec<Transition> = transitions.collect();
        let (next, touched) = current.with(changes, index, at);
        self.mirror.publish(next, &touched, changes, &transitions);
    }

    fn start(&mut self, settings: &Settings) {
        let (host, reader) = (host(self.number), self.reader.clone());
        let (shipper, _) = Shipper::new(self.etcd.clone(), settings, host, reader, None, 32);
        let shipper = shipper.with_sockets(self.sockets.clone());
        self.stop = CancellationToken::new();
        self.agent = Some(tokio::spawn(shipper.run(self.stop.clone())));
    }

    async fn restart(&mut self, settings: &Settings) {
        self.stop.cancel();
        if let Some(agent) = self.agent.take() {
            let _ = agent.await;
        }
        self.start(settings);
    }

    /// Changes the health of one instance; the number can be seen in its reason.
    fn change(&self, on: u32, number: u64) {
        let current = self.mirror.current();
        let mut next = record(on, self.number, Role::Node, Timestamp::now());
        let is_sick = current.record(&next.key).is_none_or(|record| record.phase == Phase::Healthy);
        if is_sick {
            next.phase = Phase::Unhealthy;
            next.reason = Reason::plain("sick");
        }
        next.reason.text = format!("change-{number};").into();
        self.publish(&[RecordChange::Put(Box::new(next))], Timestamp::now());
    }
}

/// When each numbered change was seen.
type Seen = Arc<Mutex<BTreeMap<u64, Instant>>>;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes the numbers of changes as an aggregator's stream shows them.
async fn watch(address: String, seen: Seen, stop: CancellationToken) {
    let Ok(mut stream) = TcpStream::connect(address.trim_start_matches("http://")).await else { return };
    if stream.write_all(b"GET /v1/gateway/stream HTTP/1.1\r\nHost: localhost\r\n\r\n").await.is_err() {
        return;
    }
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let read = tokio::select! {
            () = stop.cancelled() => return,
            read = stream.read(&mut buffer) => read.unwrap_or(0),
        };
        if read == 0 {
            return;
        }
        kept.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&kept).into_owned();
        let now = Instant::now();
        for rest in text.split("change-").skip(1) {
            if let Some((number, _)) = rest.split_once(';')
                && let Ok(number) = number.parse()
            {
                lock(&seen).entry(number).or_insert(now);
            }
        }
        let end = kept.len().saturating_sub(40);
        kept.drain(..end);
    }
}

/// A number of an aggregator's metrics.
async fn metric(address: &str, name: &str) -> Option<u64> {
    let answer = http::get(address, "/metrics").await.ok()?;
    answer.text().lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) -> Result<Duration, Failure> {
    let begun = Instant::now();
    while !is_so().await {
        if begun.elapsed() > PATIENCE {
            return Err(format!("not in time: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(begun.elapsed())
}

async fn until_here(aggregators: &[Serving], hosts: u32) -> Result<Duration, Failure> {
    until("all hosts are here", async || {
        for one in aggregators {
            let here = metric(&one.address, "csi_gateway_fleet_hosts{state=\"here\"}").await;
            if here != Some(hosts.into()) {
                return false;
            }
        }
        true
    })
    .await
}

/// Resident MiB, and seconds of CPU so far.
fn usage(of: &Serving) -> (f64, f64) {
    let pid = of.child.id().unwrap_or_default();
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let status = read("status");
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    (resident.unwrap_or(0.0) / 1024.0, (ticks(11) + ticks(12)) / 100.0)
}

async fn aggregator(url: &str, folder: &std::path::Path, name: &str) -> Serving {
    let servers = format!("--etcd-servers={url}");
    let arguments = ["serve", "--role=aggregator", "--http-endpoint=127.0.0.1:0", &servers, "--max-conns-per-client=0"];
    Serving::start(&arguments, &folder.join(format!("{name}.log"))).await
}

/// What every reader of all aggregators was shown under each index.
type Order = Arc<Mutex<BTreeMap<(String, u64), (u64, String)>>>;

/// A reader that moves between aggregators.
async fn read(addresses: Vec<String>, order: Order, path: String, stop: CancellationToken) -> Result<u64, Failure> {
    let (mut replies, mut last) = (0, 0);
    while !stop.is_cancelled() {
        let address = &addresses[fastrand::usize(..addresses.len())];
        // In a third of all cases it waits for something new.
        let wait = if fastrand::u8(..3) == 0 {
            format!("&index={last}&wait=200ms")
        } else {
            format!("&index={last}&wait=1ms")
        };
        let Ok(answer) = http::get(address, &format!("{path}{wait}")).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let is_current = answer.headers.get("X-Nomad-KnownLeader").is_some_and(|value| value == "true");
        let (true, Some(index)) = (is_current && answer.status == 200, answer.index()) else { continue };
        if index < last {
            return Err(format!("{address}{path}: {index} is shown as current after {last}").into());
        }
        last = index;
        replies += 1;
        let hash = crc32fast::hash(&answer.body);
        let mut order = lock(&order);
        let known = order.entry((path.clone(), index)).or_insert_with(|| (hash.into(), address.clone()));
        if known.0 != u64::from(hash) {
            return Err(format!("{address} and {} differ about {path} at {index}", known.1).into());
        }
    }
    Ok(replies)
}

/// Puts of etcd so far, by its own counter.
async fn puts(etcd: &EtcdServer) -> Result<u64, Failure> {
    let answer = http::get(&etcd.url(), "/metrics").await?;
    let text = answer.text().into_owned();
    let read = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).unwrap_or_default()
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter of a few thousand")]
    Ok((read("etcd_mvcc_put_total ") + read("etcd_mvcc_delete_total ")) as u64)
}

fn percentile(sorted: &[Duration], part: f64) -> f64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place")]
    let place = ((sorted.len() as f64 - 1.0) * part).round() as usize;
    sorted.get(place).map_or(f64::NAN, |duration| duration.as_secs_f64() * 1000.0)
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { hosts: count, plugins, changes, rate, steady, chaos, groups, ttl } = arguments;
    let program = etcd::program().ok_or("there is no etcd for this machine")?;
    let folder = tempfile::tempdir()?;
    // As `docs/fleet.md` tells its owner.
    let flags =
        ["--quota-backend-bytes=4294967296", "--auto-compaction-mode=periodic", "--auto-compaction-retention=1m"];
    let etcd = EtcdServer::start(&program, &flags).await;
    let mut aggregators = Vec::new();
    for number in 0..2 {
        aggregators.push(aggregator(&etcd.url(), folder.path(), &format!("aggregator-{number}")).await);
    }
    let mut wires = Vec::new();
    let mut shared = Vec::new();
    for _ in 0..groups.max(1) {
        let wire = Proxy::to(etcd.address()).await;
        let server = Server::parse(&wire.url()).map_err(str::to_owned)?;
        let settings = Settings {
            servers: vec![server],
            prefix: "/csi-gateway/v1/".to_owned(),
            trust: Trust::default(),
            user: None,
            host_ttl: Duration::from_secs(ttl),
        };
        shared.push((Etcd::new(&settings).sharing(), settings));
        wires.push(wire);
    }
    let of = |number: u32| &shared[number as usize % shared.len()];
    let mut hosts: Vec<Host> = (0..count).map(|number| Host::new(number, plugins, of(number).0.clone())).collect();
    for host in &mut hosts {
        let settings = of(host.number).1.clone();
        host.start(&settings);
    }
    let all_in = until_here(&aggregators, count).await?;
    println!("{}", json!({"what": "started", "hosts": count, "plugins": plugins, "seconds": all_in.as_secs_f64()}));

    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, revision) = (puts(&etcd).await?, etcd.owner().revision().await);
    tokio::time::sleep(Duration::from_secs(steady)).await;
    let written = puts(&etcd).await? - before;
    let moved = etcd.owner().revision().await - revision;
    println!("{}", json!({"what": "steady", "seconds": steady, "writes": written, "revisions": moved}));

    let stop = CancellationToken::new();
    let seen: Vec<Seen> = aggregators.iter().map(|_| Seen::default()).collect();
    for (one, seen) in aggregators.iter().zip(&seen) {
        tokio::spawn(watch(one.address.clone(), Arc::clone(seen), stop.clone()));
    }
    // The history of a large fleet is read beside everything else, and for longer: that is no change's cost.
    until("aggregators are quiet", async || {
        let spent = || aggregators.iter().map(|one| usage(one).1).sum::<f64>();
        let before = spent();
        tokio::time::sleep(Duration::from_secs(2)).await;
        spent() - before < 0.2
    })
    .await?;
    let cpu: Vec<f64> = aggregators.iter().map(|one| usage(one).1).collect();
    let mut sent = BTreeMap::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    // Of etcd's database, MiB and MiB in use, twenty times on the way.
    let (mut sizes, mut peak) = (Vec::new(), 0);
    for number in 0..u64::from(changes) {
        ticks.tick().await;
        if number % u64::from(changes / 20).max(1) == 0 {
            let (size, in_use) = etcd.owner().size().await;
            peak = peak.max(size);
            sizes.push((size >> 20, in_use >> 20));
        }
        let host = &hosts[fastrand::usize(..hosts.len())];
        sent.insert(number, Instant::now());
        host.change(fastrand::u32(..plugins), number);
    }
    // A change that another one of the same instance overtakes is never shown; the last hundred tell.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut latencies: Vec<Duration> = Vec::new();
    let mut missed = 0;
    for (number, at) in &sent {
        for seen in &seen {
            match lock(seen).get(number) {
                Some(shown) => latencies.push(shown.duration_since(*at)),
                None => missed += 1,
            }
        }
    }
    latencies.sort();
    let spent: f64 = aggregators.iter().zip(&cpu).map(|(one, before)| usage(one).1 - before).sum();
    let (size, in_use) = etcd.owner().size().await;
    println!(
        "{}",
        json!({"what": "changes", "changes": changes, "rate": rate, "missed": missed,
            "p50_ms": percentile(&latencies, 0.5), "p99_ms": percentile(&latencies, 0.99), "max_ms": percentile(&latencies, 1.0),
            "cpu_ms_each": spent * 1000.0 / f64::from(changes.max(1)) / 2.0,
            "database_mib": peak.max(size) >> 20, "in_use_mib": in_use >> 20, "sizes_mib": sizes})
    );

    let begun = Instant::now();
    let newcomer = aggregator(&etcd.url(), folder.path(), "newcomer").await;
    until("the newcomer is ready", async || {
        http::get(&newcomer.address, "/readyz").await.is_ok_and(|answer| answer.status == 200)
    })
    .await?;
    let ready = begun.elapsed();
    for number in 0..plugins {
        http::get(&newcomer.address, &format!("/v1/plugin/csi/{}", plugin(number))).await?;
    }
    let resident = usage(&newcomer).0;
    println!("{}", json!({"what": "newcomer", "seconds": ready.as_secs_f64(), "resident_mib": resident}));
    aggregators.push(newcomer);

    let order = Order::default();
    let addresses: Vec<String> = aggregators.iter().map(|one| one.address.clone()).collect();
    let paths = ["/v1/plugins?type=csi".to_owned(), format!("/v1/plugin/csi/{}?", plugin(0))];
    let readers: Vec<_> = (0..6)
        .map(|number| {
            tokio::spawn(read(addresses.clone(), Arc::clone(&order), paths[number % 2].clone(), stop.clone()))
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(chaos);
    let (mut flaps, mut cuts, mut restarts, mut number) = (0, 0, 0, u64::from(changes));
    let mut cut: Option<(usize, Instant)> = None;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
        hosts[fastrand::usize(..hosts.len())].change(fastrand::u32(..plugins), number);
        (flaps, number) = (flaps + 1, number + 1);
        if flaps % 50 == 0 {
            let place = fastrand::usize(..hosts.len());
            let settings = of(hosts[place].number).1.clone();
            hosts[place].restart(&settings).await;
            restarts += 1;
        }
        match cut {
            Some((wire, until)) if Instant::now() >= until => {
                wires[wire].set(Wire::Whole);
                cut = None;
            }
            None if flaps % 200 == 100 => {
                let wire = fastrand::usize(..wires.len());
                wires[wire].set([Wire::Cut, Wire::Mute, Wire::Dead][fastrand::usize(..3)]);
                // Sometimes for so long that its hosts are lost.
                cut = Some((wire, Instant::now() + Duration::from_millis(fastrand::u64(200..15_000))));
                cuts += 1;
            }
            _ => {}
        }
    }
    for wire in &wires {
        wire.set(Wire::Whole);
    }
    let back = until_here(&aggregators, count).await?;
    until("all show the same", async || {
        let mut bodies = Vec::new();
        for address in &addresses {
            match http::get(address, "/v1/plugins?type=csi").await {
                Ok(answer) => bodies.push((answer.index(), answer.body)),
                Err(_) => return false,
            }
        }
        bodies.windows(2).all(|pair| pair[0] == pair[1])
    })
    .await?;
    stop.cancel();
    let mut replies = 0;
    for reader in readers {
        replies += reader.await??;
    }
    println!(
        "{}",
        json!({"what": "chaos", "seconds": chaos, "flaps": flaps, "restarts": restarts, "cuts": cuts,
            "replies": replies, "states": lock(&order).len(), "back_seconds": back.as_secs_f64()})
    );
    for host in &hosts {
        host.stop.cancel();
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let Some(arguments) = arguments()? else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(arguments))
}
