//! `demo`: three scripted drivers on real unix sockets, the gateway on a scratch store, and what to type next. Or a made
//! fleet, or one scripted driver for tools that test drivers. Leaves nothing behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::fleet;
use super::{FakeDriver, Reply, ServedDriver};
use crate::app::{AppError, Gateway, Keep, Plan};
use crate::commands::{Outcome, say, status};
use crate::config::{Demo, Fleet};
use crate::domain::code::Code;
use crate::domain::id::HostId;
use crate::domain::socket::{RoleChoice, WantedSocket};
use crate::registry::reader::Subject;

/// How often the third driver goes one step further.
const STEP: Duration = Duration::from_secs(5);
/// How long to wait for the drivers before the table is shown as it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the command until `stop`.
pub async fn run(config: &Demo, stop: CancellationToken) -> Outcome {
    if let Some(socket) = &config.driver_only {
        return match super::run_alone(socket, stop.cancelled_owned()).await {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::failed(&error),
        };
    }
    let shown = match config.fleet {
        Some(fleet) => show_fleet(config, fleet, stop).await,
        None => show_drivers(config, stop).await,
    };
    match shown {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::failed(&*error),
    }
}

fn plan(config: &Demo, keep: Keep, sockets: Option<BTreeSet<WantedSocket>>) -> Plan {
    let host = HostId::parse("demo-host").expect("a legal host id");
    Plan { socket: config.socket.clone(), ..Plan::new(host, keep, sockets, config.endpoints.clone()) }
}

type Failure = Box<dyn std::error::Error>;

async fn show_fleet(config: &Demo, made: Fleet, stop: CancellationToken) -> Result<(), Failure> {
    let gateway = Gateway::build(plan(config, Keep::Memory, None)).await?;
    let address = first_address(&gateway);
    let feeding = tokio::spawn(fleet::feed(made, gateway.feed(), stop.clone()));
    say(&format!(
        "A made fleet: {} plugins on {} hosts.\n\nlistening on {address}\n{}\nTry:\n{}\n\nCtrl-C ends it.",
        made.plugins,
        made.hosts,
        page(&address),
        [curl(&address, "/v1/plugins?type=csi&prefix=demo-000&pretty"), curl(&address, "/v1/plugin/csi/demo-0000"),]
            .join("\n")
    ));
    gateway.run(stop).await?;
    feeding.await?;
    Ok(())
}

async fn show_drivers(config: &Demo, stop: CancellationToken) -> Result<(), Failure> {
    // Removed with everything in it when this ends.
    let scratch = tempfile::Builder::new().prefix("csi-gateway-demo").tempdir()?;
    let path = |name: &str| scratch.path().join(name).join("csi.sock");
    let both = FakeDriver::monolith("block.demo.example.com")
        .version("2.4.0")
        .plugin_capabilities([1])
        .volume_expansion([1])
        .controller_capabilities([1, 2, 3, 5, 6, 9])
        .node_capabilities([1, 2, 3])
        .node_info("demo-node-1", 64)
        .serve(path("block"))
        .await?;
    let node = FakeDriver::node("local.demo.example.com")
        .version("1.0.3")
        .plugin_capabilities([2])
        .node_capabilities([2])
        .node_info("demo-node-1", 0)
        .topology([("topology.demo.example.com/zone", "z1"), ("topology.demo.example.com/rack", "r7")])
        .serve(path("local"))
        .await?;
    let moody = FakeDriver::node("moody.demo.example.com")
        .version("0.9.1")
        .plugin_capabilities([])
        .always(crate::csi::Rpc::Probe, Reply::starting())
        .serve(path("moody"))
        .await?;

    let wanted = |name: &str, role| WantedSocket { role, ..WantedSocket::configured(path(name)) };
    let sockets =
        [wanted("block", RoleChoice::Monolith), wanted("local", RoleChoice::Node), wanted("moody", RoleChoice::Node)];
    let keep = Keep::In(scratch.path().join("state"));
    let mut plan = plan(config, keep, Some(sockets.into()));
    // Short enough to see the third driver's moods as they come.
    plan.fingerprint.poll_interval = Duration::from_secs(1);
    let gateway = Gateway::build(plan).await?;
    let address = first_address(&gateway);
    let reader = gateway.reader();
    let running = tokio::spawn(gateway.run(stop.clone()));

    let is_up = async {
        loop {
            let waiting = reader.waiting(Subject::Everything);
            let changed = waiting.changed();
            if reader.current().counting_plugins("").count() >= 2 && reader.standing().is_scanned {
                break;
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    };
    tokio::select! {
        () = is_up => {}
        () = tokio::time::sleep(PATIENCE) => {}
        () = stop.cancelled() => {}
    }
    if !stop.is_cancelled() {
        let table = status::all(&address).await.unwrap_or_else(|error| error.to_string());
        say(&introduction(scratch.path(), &table, &address));
    }
    tokio::select! {
        () = change_moods(&moody) => {}
        () = stop.cancelled() => {}
    }
    let ended: Result<(), AppError> = running.await?;
    drop((both, node, moody));
    scratch.close()?;
    Ok(ended?)
}

fn first_address(gateway: &Gateway) -> String {
    gateway.urls().next().unwrap_or_default()
}

/// Where a browser finds the page, as a line; nothing where only a socket is listened on.
fn page(address: &str) -> String {
    if address.starts_with("http") { format!("In a browser: {address}/ui/\n") } else { String::new() }
}

fn curl(address: &str, path: &str) -> String {
    match address.strip_prefix("unix://") {
        Some(socket) => format!("  curl --unix-socket {socket} 'http://localhost{path}'"),
        None => format!("  curl '{address}{path}'"),
    }
}

fn introduction(scratch: &Path, table: &str, address: &str) -> String {
    let lines = [
        "/v1/plugins?type=csi&pretty",
        "/v1/plugin/csi/local.demo.example.com?pretty",
        "/v1/plugin/csi/local.demo.example.com?shape=documented&pretty",
        "/v1/gateway/sockets?pretty",
        "/v1/gateway/history?plugin=moody.demo.example.com&pretty",
    ]
    .map(|path| curl(address, path))
    .join("\n");
    format!(
        "Three scripted CSI drivers serve on unix sockets under {}.\n\
         The third, moody.demo.example.com, is starting; every {} s it is healthy, unhealthy, or back.\n\n\
         {table}\n\n\
         listening on {address}\n{}\n\
         Try, in another terminal:\n{lines}\n\n\
         Ctrl-C ends it and leaves nothing behind.",
        scratch.display(),
        STEP.as_secs(),
        page(address),
    )
}

/// Starting, healthy, unhealthy and back.
async fn change_moods(driver: &ServedDriver) {
    let moods =
        [Reply::ready(), Reply::fail(Code::FailedPrecondition, "the demo's back end is down"), Reply::starting()];
    for mood in moods.iter().cycle() {
        tokio::time::sleep(STEP).await;
        driver.set_probe(mood.clone());
    }
}
