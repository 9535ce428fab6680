//! The connection, and what the driver says over it.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{Ended, Findings, Layer};
use crate::csi::{CallError, ConnectFailure, Driver, Limits, PluginInfo, Readiness};
use crate::discovery;
use crate::domain::id::Role;
use crate::domain::socket::RoleChoice;

/// What is needed to judge a registration, and to compare with others.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) name: String,
    pub(super) roles: Vec<Role>,
}

const HUNG: &str = "the driver hangs, is stopped, or waits for its storage: see its log, then restart it; \
                    `--probe-timeout` and `--timeout` are longer limits for one that is only slow";
const SEE_LOG: &str = "the driver itself says so: see its log";

/// Connects and asks.
pub(super) async fn examine(
    socket: &Path,
    role: RoleChoice,
    limits: Limits,
    findings: &mut Findings,
) -> Result<Answers, Ended> {
    let driver = connect(socket, limits, findings).await?;
    let PluginInfo { name, vendor_version, .. } = identity(socket, &driver, findings).await?;
    findings.ok(Layer::Identity, &format!("{name} {vendor_version}"));
    probe(&driver, findings).await;
    let roles = roles(&driver, role, findings).await?;
    if roles.contains(&Role::Node) {
        node(&driver, findings).await;
    } else {
        findings.skipped(Layer::Node, "no node service");
    }
    Ok(Answers { name, roles })
}

async fn connect(socket: &Path, limits: Limits, findings: &mut Findings) -> Result<Driver, Ended> {
    let error = match Driver::connect(socket, limits).await {
        Ok(driver) => {
            let peer = driver.peer();
            let process = peer.pid.filter(|pid| *pid > 0).map(|pid| format!("process {pid}, ")).unwrap_or_default();
            findings.ok(Layer::Dial, &format!("{process}user {} listens", peer.uid));
            findings.ok(Layer::Http2, "settings received");
            return Ok(driver);
        }
        Err(error) => error,
    };
    let (text, remedy) = match error.connect_failure() {
        Some(ConnectFailure::Refused) => (
            "nobody listens",
            "the driver's process ended and left its socket behind, or listens elsewhere: see that it runs, and its log; \
             it takes the place of the file when it starts",
        ),
        Some(ConnectFailure::WrongType) => (
            "a socket, but not a stream",
            "another kind of service listens here (as a system log does); give the driver's own socket",
        ),
        Some(ConnectFailure::Busy) => ("its queue is full: connections are not taken", HUNG),
        Some(ConnectFailure::Denied) => (
            "permission denied, although the file may be written to",
            "SELinux or AppArmor refuses: see the audit log, and give the container the label of the socket",
        ),
        Some(ConnectFailure::Silent | ConnectFailure::Closed | ConnectFailure::NotHttp2) => {
            findings.ok(Layer::Dial, "somebody listens");
            return Err(not_http2(socket, &error, limits.connect, findings).await);
        }
        _ => {
            let text = error.for_people();
            return Err(findings.not_ok(Layer::Dial, &text, "see the driver's log, and whether it still runs"));
        }
    };
    Err(findings.not_ok(Layer::Dial, text, remedy))
}

async fn not_http2(socket: &Path, error: &CallError, limit: Duration, findings: &mut Findings) -> Ended {
    let (text, remedy) = match error.connect_failure() {
        Some(ConnectFailure::Silent) => ("it took the connection and said nothing", HUNG),
        Some(ConnectFailure::Closed) => (
            "it took the connection and closed it at once",
            "the driver is starting or stopping (try again), or refuses whoever is not the process it expects: see its log",
        ),
        _ => match sniffed(socket, limit).await.as_slice() {
            // A record of TLS begins with its type (alert or handshake) and version 3.
            [0x15 | 0x16, 3, ..] => (
                "it expects TLS",
                "CSI is spoken in plain text on a unix socket: switch TLS off in the driver, or give its CSI socket",
            ),
            bytes if bytes.starts_with(b"HTTP/1.") => (
                "it speaks HTTP/1.1",
                "this is a web service (of metrics or health, perhaps), not the driver's CSI socket; give that",
            ),
            _ => (
                "it speaks something else than HTTP/2",
                "another kind of service listens here; give the driver's CSI socket",
            ),
        },
    };
    findings.not_ok(Layer::Http2, text, remedy)
}

/// The first bytes that come back after the beginning of HTTP/2; none if nothing can be learnt.
async fn sniffed(socket: &Path, limit: Duration) -> Vec<u8> {
    const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut bytes = [0; 16];
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(OPENING).await?;
        stream.read(&mut bytes).await
    };
    let read = tokio::time::timeout(limit, exchange).await;
    let length = read.ok().and_then(Result::ok).unwrap_or_default();
    bytes[..length].to_vec()
}

async fn identity(socket: &Path, driver: &Driver, findings: &mut Findings) -> Result<PluginInfo, Ended> {
    let error = match driver.plugin_info().await {
        Ok(info) => return Ok(info),
        Err(error) => error,
    };
    if error.is_unimplemented() {
        return Err(match discovery::announcement(socket).await {
            Ok(announced) => {
                let text = format!(
                    "a registration socket, by which a {} named {} is announced to the kubelet",
                    announced.kind, announced.name
                );
                let (place, remedy) = match announced.endpoint.as_str() {
                    "" => (
                        ", at this very socket".to_owned(),
                        "the driver does not answer where it announces itself: see its log",
                    ),
                    endpoint if Path::new(endpoint.strip_prefix("unix://").unwrap_or(endpoint)).exists() => {
                        (format!(", at `{endpoint}`"), "give the socket that is announced, not this one")
                    }
                    endpoint => (
                        format!(", at `{endpoint}`, where there is nothing"),
                        "a registration without its driver: see that the driver runs (the kubelet goes on believing in it); \
                         or the path is the host's, and another one from here",
                    ),
                };
                findings.not_ok(Layer::Identity, &format!("{text}{place}"), remedy)
            }
            Err(_) => findings.not_ok(
                Layer::Identity,
                "gRPC is spoken, but not CSI: it does not implement GetPluginInfo",
                "another kind of service listens here (a device plugin, perhaps); give the driver's CSI socket",
            ),
        });
    }
    let text = error.for_people();
    Err(findings.not_ok(Layer::Identity, &text, remedy(&error)))
}

/// What to do about a call that failed.
fn remedy(error: &CallError) -> &'static str {
    let said = error.go_text().to_ascii_lowercase();
    if error.is_timeout() {
        HUNG
    } else if said.contains("protocol_error") || said.contains("protocol error") || said.contains("authority") {
        "its server reset the call; some do so where they do not like the `:authority` of a call (`localhost` from us, the \
         socket's path from others): see its log for PROTOCOL_ERROR, and update the driver's gRPC library"
    } else {
        SEE_LOG
    }
}

async fn probe(driver: &Driver, findings: &mut Findings) {
    match driver.probe().await {
        Ok(Readiness::Ready) => findings.ok(Layer::Probe, "ready"),
        Ok(Readiness::Starting) => {
            findings.not_ok(
                Layer::Probe,
                "the driver says that it is not ready",
                "normal while it starts; if it lasts, what it waits for is in its log",
            );
        }
        Err(error) => {
            let text = error.for_people();
            findings.not_ok(Layer::Probe, &text, remedy(&error));
        }
    }
}

/// Whether the node service answers.
async fn roles(driver: &Driver, role: RoleChoice, findings: &mut Findings) -> Result<Vec<Role>, Ended> {
    if let Err(error) = driver.plugin_capabilities().await {
        let text = error.for_people();
        findings.not_ok(Layer::Roles, &text, remedy(&error));
    }
    let mut served = Vec::new();
    for (asked, answer) in [
        (Role::Controller, driver.controller_capabilities().await.map(|set| set.names().count())),
        (Role::Node, driver.node_capabilities().await.map(|set| set.names().count())),
    ] {
        let is_declared = role != RoleChoice::Auto && role.asks(asked);
        match answer {
            Ok(capabilities) => served.push((asked, capabilities)),
            Err(error) if error.is_unimplemented() && !is_declared => {}
            Err(error) if error.is_unimplemented() => {
                let text = format!("the {} service is declared, and not served here", asked.as_str());
                let remedy = "another socket is meant, or another `--plugin-type`; see in which mode the driver runs";
                findings.not_ok(Layer::Roles, &text, remedy);
            }
            Err(error) => {
                let text = error.for_people();
                findings.not_ok(Layer::Roles, &text, remedy(&error));
            }
        }
    }
    if served.is_empty() {
        let remedy = "see in which mode the driver runs: a CSI driver serves a controller, a node, or both";
        return Err(findings.not_ok(Layer::Roles, "neither a controller nor a node service answers", remedy));
    }
    let names = served.iter().map(|(role, count)| {
        format!("{} ({count} {})", role.as_str(), if *count == 1 { "capability" } else { "capabilities" })
    });
    findings.ok(Layer::Roles, &names.collect::<Vec<_>>().join(", "));
    Ok(served.into_iter().map(|(role, _)| role).collect())
}

async fn node(driver: &Driver, findings: &mut Findings) {
    match driver.node_info().await {
        Ok(info) => {
            let mut text = format!("node id {}", info.facts.id);
            if let Some(segments) = info.facts.topology.and_then(|topology| topology.segments) {
                let pairs: Vec<String> = segments.iter().map(|(key, value)| format!("{key}={value}")).collect();
                text.push_str(&format!(", {}", pairs.join(" ")));
            }
            findings.ok(Layer::Node, &text);
        }
        Err(error) if error.is_unimplemented() => {
            findings.ok(Layer::Node, "NodeGetInfo is not implemented, which is legal");
        }
        Err(error) => {
            let text = error.for_people();
            findings.not_ok(Layer::Node, &text, remedy(&error));
        }
    }
}
