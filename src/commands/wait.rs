//! `wait PLUGIN`: until it is healthy, with a gateway that may not be there yet.
//!
//! A blocking query on `/v1/gateway/plugin/ID` says at once what changed. What a gateway remembers from before its
//! start is not believed: it may be healthy there and dead by now. So until its first scan is complete only numbers can
//! be reached, with instances that have answered since; nobody knows yet how many "all" are. A gateway that is gone is
//! asked again after milliseconds on this machine, and after up to a second elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::StatusCode;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use tokio::time::Instant;

use super::http::{self, Answer, AnswerError, ESCAPED};
use super::terminal::Progress;
use super::{Outcome, say};
use crate::config::{Enough, Wait};
use crate::domain::text::escaped;
use crate::telemetry::Chain;

/// How long one question waits; a lost packet costs no more than that.
const QUESTION: &str = "20s";
/// Pause before a gateway on this machine is asked again, and the first pause elsewhere.
const SHORT: Duration = Duration::from_millis(20);
/// Longest pause before a gateway elsewhere is asked again.
const LONG: Duration = Duration::from_secs(1);
/// Instances named where there are many.
const NAMED: usize = 10;

/// A plugin, as the gateway tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Plugin {
    controllers: BTreeMap<String, Instance>,
    controllers_expected: u64,
    nodes: BTreeMap<String, Instance>,
    nodes_expected: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    healthy: bool,
    /// `None`: not since the gateway started.
    last_ok_time: Option<String>,
    phase: String,
    reason: Reason,
    registration: Option<String>,
    since: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reason {
    description: String,
    text: String,
}

impl Instance {
    /// Why it does not count; `None` if it does.
    fn lags(&self, needs_registration: bool) -> Option<String> {
        if !self.healthy {
            let Reason { description, text } = &self.reason;
            let reason = if text.is_empty() { description } else { text };
            let since = self.since.as_deref().map_or(String::new(), |since| format!(" since {since}"));
            return Some(format!("is {}{since}: {reason}", self.phase));
        }
        match self.registration.as_deref() {
            _ if !needs_registration => None,
            Some("ok") => None,
            Some(verdict) => Some(format!("is healthy, and its registration is not: {verdict}")),
            None => Some("is healthy, and no kubelet that is watched knows it".to_owned()),
        }
    }
}

/// How far a plugin is from what is waited for.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    /// In a line.
    sum: String,
    /// Who lags and why, one a line; empty: nobody.
    lags: Vec<String>,
}

/// Whether numbers are all that is waited for.
fn is_counted(config: &Wait) -> bool {
    [config.nodes, config.controllers].iter().all(|enough| matches!(enough, Some(Enough::AtLeast(_))))
}

/// Takes for ill whatever was not heard of since the gateway started.
fn distrust(plugin: &mut Plugin) {
    let instances = plugin.controllers.values_mut().chain(plugin.nodes.values_mut());
    for instance in instances.filter(|instance| instance.last_ok_time.is_none()) {
        instance.healthy = false;
    }
}

fn standing(config: &Wait, plugin: &Plugin) -> Standing {
    let nodes = role("node", &plugin.nodes, plugin.nodes_expected, config.nodes, config.is_registered);
    let controllers = role("controller", &plugin.controllers, plugin.controllers_expected, config.controllers, false);
    let mut lags = [nodes.lags, controllers.lags].concat();
    if lags.is_empty() && nodes.count + controllers.count == 0 {
        lags.push("no instance is healthy".to_owned());
    }
    Standing { sum: format!("nodes {}, controllers {}", nodes.sum, controllers.sum), lags }
}

struct RoleStanding {
    count: usize,
    sum: String,
    lags: Vec<String>,
}

fn role(
    role: &str,
    instances: &BTreeMap<String, Instance>,
    expected: u64,
    enough: Option<Enough>,
    needs_registration: bool,
) -> RoleStanding {
    let why = |(host, instance): (&String, &Instance)| Some((host.clone(), instance.lags(needs_registration)?));
    let late: Vec<(String, String)> = instances.iter().filter_map(why).collect();
    let count = instances.len() - late.len();
    let known = instances.len().max(usize::try_from(expected).unwrap_or(usize::MAX));
    let wanted = match enough {
        None => known,
        Some(Enough::All) => known.max(1),
        Some(Enough::AtLeast(number)) => number as usize,
    };
    let mut lags = Vec::new();
    if count < wanted {
        lags.extend(late.iter().take(NAMED).map(|(host, why)| format!("{role} on {host} {why}")));
        if late.len() > NAMED {
            lags.push(format!("{} {role}s more", late.len() - NAMED));
        }
        if instances.len() < wanted {
            lags.push(format!("{} of {wanted} {role}s are not known at all", wanted - instances.len()));
        }
    }
    RoleStanding { count, sum: format!("{count}/{wanted}"), lags }
}

/// What was seen last.
enum Seen {
    /// No gateway.
    Nobody(String),
    /// A gateway that did not look at every driver yet.
    Old,
    /// No such plugin.
    Unknown,
    /// Not all that is waited for.
    Lagging(Standing),
}

impl Seen {
    fn line(&self) -> String {
        match self {
            Self::Nobody(why) => why.clone(),
            Self::Old => "the gateway has just started and did not look at every driver yet".to_owned(),
            Self::Unknown => "no instance of it is known".to_owned(),
            Self::Lagging(standing) => {
                let first = standing.lags.first().map_or(String::new(), |lag| format!("; {lag}"));
                format!("{}{first}", standing.sum)
            }
        }
    }

    fn whole(&self) -> String {
        match self {
            Self::Lagging(standing) => {
                let lags: String = standing.lags.iter().map(|lag| format!("\n  {lag}")).collect();
                format!("{}{lags}", standing.sum)
            }
            other => other.line(),
        }
    }
}

/// Runs the command.
pub async fn run(config: &Wait) -> Outcome {
    let mut watch = Watch { config, started: Instant::now(), seen: None, progress: Progress::default() };
    let found = tokio::time::timeout(config.timeout, watch.run()).await;
    watch.progress.clear();
    let id = escaped(config.plugin.as_str());
    match found {
        Ok(Ok(sum)) => {
            say(&format!("{id} is healthy: {sum}"));
            Outcome::Done
        }
        Ok(Err(reason)) => Outcome::Failed(format!("cannot wait for `{id}`: {reason}")),
        Err(_) => {
            let seen = watch.seen.map_or_else(|| "the gateway gives no answer".to_owned(), |seen| seen.whole());
            // Line by line: what stands in them came from drivers and hosts.
            let seen = seen.split('\n').map(escaped).collect::<Vec<_>>().join("\n");
            Outcome::Late(format!("`{id}` is not healthy after {}: {seen}", length(config.timeout)))
        }
    }
}

struct Watch<'a> {
    config: &'a Wait,
    started: Instant,
    seen: Option<Seen>,
    progress: Progress,
}

impl Watch<'_> {
    /// Ends when the plugin is as it should be, with its sum, or with a reason never to ask again.
    async fn run(&mut self) -> Result<String, String> {
        let address = &self.config.asking.address;
        let path = format!("/v1/gateway/plugin/{}", utf8_percent_encode(self.config.plugin.as_str(), ESCAPED));
        let mut index = 0;
        let mut pause = SHORT;
        loop {
            let question = format!("{path}?index={index}&wait={QUESTION}");
            let answer = self.ticking(http::ask(&self.config.asking, &question)).await;
            index = 0;
            let seen = match answer {
                Err(error) => Seen::Nobody(Chain(&error).to_string()),
                // Whoever is in between speaks for a gateway that is not there.
                Ok(answer) if answer.status.is_server_error() => {
                    Seen::Nobody(format!("`{address}` answers {}: {}", answer.status, answer.text().trim()))
                }
                Ok(answer) if !answer.is_current() && !is_counted(self.config) => Seen::Old,
                Ok(answer) if answer.status == StatusCode::NOT_FOUND && answer.index().is_some() => {
                    index = next(&answer);
                    Seen::Unknown
                }
                Ok(answer) if answer.status == StatusCode::NOT_FOUND => {
                    return Err(format!("`{address}` is no gateway: it has no /v1/gateway"));
                }
                Ok(answer) => {
                    let mut plugin: Plugin = http::json(address, &answer).map_err(|error| match error {
                        AnswerError::Shape { .. } => format!("`{address}` is no gateway: {}", Chain(&error)),
                        AnswerError::Refused { .. } => Chain(&error).to_string(),
                    })?;
                    if !answer.is_current() {
                        distrust(&mut plugin);
                    }
                    index = next(&answer);
                    let standing = standing(self.config, &plugin);
                    if standing.lags.is_empty() {
                        return Ok(standing.sum);
                    }
                    Seen::Lagging(standing)
                }
            };
            self.seen = Some(seen);
            self.tell();
            if index > 0 {
                pause = SHORT;
                continue;
            }
            self.ticking(tokio::time::sleep(pause)).await;
            pause = if is_here(address) { SHORT } else { (pause * 2).min(LONG) };
        }
    }

    /// Awaits, and meanwhile lets a terminal see that time goes by.
    async fn ticking<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            match tokio::time::timeout(Duration::from_secs(1), &mut future).await {
                Ok(value) => return value,
                Err(_) => self.tell(),
            }
        }
    }

    fn tell(&mut self) {
        let line = self.seen.as_ref().map_or_else(|| "waiting for an answer".to_owned(), Seen::line);
        let text = format!("{}: {line}", self.config.plugin);
        self.progress.say(&escaped(&text), &length(Duration::from_secs(self.started.elapsed().as_secs())));
    }
}

/// What to wait beyond. That a scan is complete, or that an instance was heard of again, moves no index.
fn next(answer: &Answer) -> u64 {
    if answer.is_current() { answer.index().unwrap_or_default() } else { 0 }
}

/// Whether an address is on this machine.
fn is_here(address: &str) -> bool {
    let host = address.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':')).map(|(host, _)| host);
    host.is_none_or(|host| host == "localhost" || host == "[::1]" || host.starts_with("127."))
}

/// A duration for people: whole minutes and seconds, or milliseconds where it is short.
fn length(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.subsec_millis() > 0 => format!("{} ms", duration.subsec_millis()),
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Asking;
    use crate::domain::id::PluginId;

    fn wait(nodes: Option<Enough>, controllers: Option<Enough>, is_registered: bool) -> Wait {
        Wait {
            asking: Asking::at(""),
            plugin: PluginId::parse("p").expect("legal"),
            nodes,
            controllers,
            is_registered,
            timeout: Duration::from_secs(1),
        }
    }

    fn instances(of: &[(&str, Option<&str>)]) -> BTreeMap<String, Instance> {
        let instance = |(phase, registration): &(&str, Option<&str>)| Instance {
            healthy: *phase == "healthy",
            last_ok_time: None,
            phase: (*phase).to_owned(),
            reason: Reason { description: "long".to_owned(), text: "why".to_owned() },
            registration: registration.map(str::to_owned),
            since: None,
        };
        of.iter().zip('a'..).map(|(of, host)| (host.to_string(), instance(of))).collect()
    }

    #[test]
    fn all_means_everything_that_is_known_or_expected_and_a_number_that_many() {
        let plugin = Plugin {
            controllers: BTreeMap::new(),
            controllers_expected: 0,
            nodes: instances(&[("healthy", Some("ok")), ("healthy", None), ("starting", Some("unregistered"))]),
            nodes_expected: 4,
        };
        let judged = |nodes, controllers, is_registered| standing(&wait(nodes, controllers, is_registered), &plugin);
        let all = judged(None, None, false);
        assert_eq!(all.sum, "nodes 2/4, controllers 0/0");
        assert_eq!(all.lags, ["node on c is starting: why", "1 of 4 nodes are not known at all"]);
        assert_eq!(judged(Some(Enough::AtLeast(2)), None, false).lags, Vec::<String>::new());
        assert_eq!(judged(Some(Enough::AtLeast(1)), None, true).lags, Vec::<String>::new());
        let registered = judged(Some(Enough::AtLeast(2)), None, true);
        assert_eq!(registered.sum, "nodes 1/2, controllers 0/0");
        assert_eq!(registered.lags[0], "node on b is healthy, and no kubelet that is watched knows it");
        let both = judged(Some(Enough::AtLeast(2)), Some(Enough::All), false);
        assert_eq!(both.lags, ["1 of 1 controllers are not known at all"]);
    }

    #[test]
    fn before_the_first_scan_is_complete_only_who_answered_since_counts_and_only_for_numbers() {
        let mut plugin = Plugin {
            controllers: BTreeMap::new(),
            controllers_expected: 0,
            nodes: instances(&[("healthy", None), ("healthy", None)]),
            nodes_expected: 2,
        };
        plugin.nodes.get_mut("a").expect("it is there").last_ok_time = Some("2026-01-02T03:04:05Z".to_owned());
        distrust(&mut plugin);
        let counted = wait(Some(Enough::AtLeast(1)), Some(Enough::AtLeast(0)), false);
        assert!(is_counted(&counted) && standing(&counted, &plugin).lags.is_empty());
        let two = wait(Some(Enough::AtLeast(2)), Some(Enough::AtLeast(0)), false);
        assert_eq!(standing(&two, &plugin).sum, "nodes 1/2, controllers 0/0");
        assert!(!is_counted(&wait(Some(Enough::AtLeast(1)), None, false)));
    }

    #[test]
    fn nothing_at_all_is_not_healthy() {
        let plugin =
            Plugin { controllers: BTreeMap::new(), controllers_expected: 0, nodes: BTreeMap::new(), nodes_expected: 0 };
        assert_eq!(standing(&wait(None, None, false), &plugin).lags, ["no instance is healthy"]);
    }
}
