//! `status`: the table and the block of `nomad plugin status`, from any gateway or Nomad server.
//!
//! Only Nomad's shapes are read, so both can be asked. Where Nomad's command line prints what is not so (it lists every
//! capability after the first that is there), this prints what is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use jiff::Timestamp;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;

use super::http::{self, Answer, AnswerError, ESCAPED, HttpError};
use super::terminal::{Screen, cut};
use super::{Outcome, complain, say, table};
use crate::config::{Asking, Status};
use crate::domain::text::escaped;
use crate::telemetry::Chain;

/// How much of an id is shown, as Nomad does.
const SHORT_ID: usize = 8;
/// How long one question of `--watch` waits.
const QUESTION: &str = "20s";
/// Pause before `--watch` asks again somebody who did not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// What a list shows of a plugin. Nomad's keys, and no others are needed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stub {
    #[serde(rename = "ID")]
    id: String,
    provider: String,
    controllers_healthy: i64,
    controllers_expected: i64,
    nodes_healthy: i64,
    nodes_expected: i64,
}

impl Stub {
    /// Whether fewer are healthy than there should be.
    fn is_degraded(&self) -> bool {
        self.controllers_healthy < self.controllers_expected || self.nodes_healthy < self.nodes_expected
    }

    fn controllers(&self) -> String {
        format!("{}/{}", self.controllers_healthy, self.controllers_expected)
    }

    fn nodes(&self) -> String {
        format!("{}/{}", self.nodes_healthy, self.nodes_expected)
    }
}

/// What a read shows besides.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Plugin {
    #[serde(flatten)]
    stub: Stub,
    version: String,
    allocations: Option<Vec<Allocation>>,
    controllers: Option<BTreeMap<String, Instance>>,
    nodes: Option<BTreeMap<String, Instance>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Allocation {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "EvalID")]
    evaluation: String,
    #[serde(rename = "NodeID")]
    node: String,
    node_name: String,
    task_group: String,
    job_version: u64,
    desired_status: String,
    client_status: String,
    create_time: i64,
    modify_time: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[serde(default)]
#[derive(Default)]
struct Instance {
    healthy: bool,
    health_description: String,
    provider_version: String,
    requires_topologies: bool,
    controller_info: Option<BTreeMap<String, serde_json::Value>>,
    node_info: Option<BTreeMap<String, serde_json::Value>>,
}

/// Keys of `ControllerInfo` and what Nomad's command line calls them.
const CONTROLLER: [(&str, &str); 12] = [
    ("SupportsCreateDelete", "CREATE_DELETE_VOLUME"),
    ("SupportsAttachDetach", "CONTROLLER_ATTACH_DETACH"),
    ("SupportsListVolumes", "LIST_VOLUMES"),
    ("SupportsGetCapacity", "GET_CAPACITY"),
    ("SupportsCreateDeleteSnapshot", "CREATE_DELETE_SNAPSHOT"),
    ("SupportsListSnapshots", "LIST_SNAPSHOTS"),
    ("SupportsClone", "CLONE_VOLUME"),
    ("SupportsReadOnlyAttach", "ATTACH_READONLY"),
    ("SupportsExpand", "EXPAND_VOLUME"),
    ("SupportsListVolumesAttachedNodes", "LIST_VOLUMES_PUBLISHED_NODES"),
    ("SupportsCondition", "VOLUME_CONDITION"),
    ("SupportsGet", "GET_VOLUME"),
];

/// The same of `NodeInfo`.
const NODE: [(&str, &str); 4] = [
    ("RequiresNodeStageVolume", "STAGE_UNSTAGE_VOLUME"),
    ("SupportsStats", "GET_VOLUME_STATS"),
    ("SupportsExpand", "EXPAND_VOLUME"),
    ("SupportsCondition", "VOLUME_CONDITION"),
];

/// The names of what any instance says it can do.
fn capabilities(infos: &[&BTreeMap<String, serde_json::Value>], names: &[(&str, &'static str)]) -> Vec<&'static str> {
    let has = |key: &str| infos.iter().any(|info| info.get(key) == Some(&serde_json::Value::Bool(true)));
    names.iter().filter(|(key, _)| has(key)).map(|(_, name)| *name).collect()
}

/// Plugins as Nomad prints them.
fn list(plugins: &[Stub]) -> String {
    let header = ["ID", "Provider", "Controllers Healthy/Expected", "Nodes Healthy/Expected"].map(str::to_owned);
    let mut plugins: Vec<&Stub> = plugins.iter().collect();
    plugins.sort_by(|left, right| left.id.cmp(&right.id));
    let rows = plugins
        .into_iter()
        .map(|plugin| [plugin.id.clone(), plugin.provider.clone(), plugin.controllers(), plugin.nodes()]);
    table::columns(std::iter::once(header).chain(rows))
}

/// Plugins on a screen, whose width may cut what stands last, and long ids, but no numbers.
fn narrow_list<'a>(plugins: impl Iterator<Item = &'a Stub>, screen: Screen) -> String {
    let header = ["ID", "Controllers", "Nodes", "Provider"];
    let taken: usize = header[1..3].iter().map(|name| name.len() + 2).sum();
    let room = screen.columns.saturating_sub(taken + 2).max(8);
    let rows = plugins
        .map(|plugin| [cut(&escaped(&plugin.id), room), plugin.controllers(), plugin.nodes(), plugin.provider.clone()]);
    table::columns(std::iter::once(header.map(str::to_owned)).chain(rows))
}

/// One plugin as Nomad prints it; `now` is for ages.
fn block(plugin: &Plugin, is_verbose: bool, screen: Screen, now: Timestamp) -> String {
    let stub = &plugin.stub;
    let mut parts = vec![table::pairs([
        ("ID", stub.id.clone()),
        ("Provider", stub.provider.clone()),
        ("Version", plugin.version.clone()),
        ("Controllers Healthy", stub.controllers_healthy.to_string()),
        ("Controllers Expected", stub.controllers_expected.to_string()),
        ("Nodes Healthy", stub.nodes_healthy.to_string()),
        ("Nodes Expected", stub.nodes_expected.to_string()),
    ])];
    let mut part = |heading: &str, text: String| parts.push(format!("{}\n{text}", screen.bold(heading)));
    if is_verbose {
        verbose(plugin, &mut part);
    }
    let allocations = plugin.allocations.as_deref().unwrap_or_default();
    part("Allocations", allocations_table(allocations, is_verbose, now));
    if is_verbose {
        part("Instances", instances(plugin));
    }
    parts.join("\n\n")
}

fn verbose(plugin: &Plugin, part: &mut impl FnMut(&str, String)) {
    let listed = |names: Vec<&str>| names.iter().map(|name| format!("  {name}")).collect::<Vec<_>>().join("\n");
    let controllers = plugin.controllers.iter().flat_map(BTreeMap::values);
    let infos: Vec<_> = controllers.filter_map(|instance| instance.controller_info.as_ref()).collect();
    let names = capabilities(&infos, &CONTROLLER);
    if !names.is_empty() {
        part("Controller Capabilities", listed(names));
    }
    let nodes = || plugin.nodes.iter().flatten();
    let infos: Vec<_> = nodes().filter_map(|(_, instance)| instance.node_info.as_ref()).collect();
    let mut names = capabilities(&infos, &NODE);
    if nodes().any(|(_, instance)| instance.requires_topologies) {
        names.insert(0, "VOLUME_ACCESSIBILITY_CONSTRAINTS");
    }
    if !names.is_empty() {
        part("Node Capabilities", listed(names));
    }
    let topologies: Vec<[String; 2]> = nodes()
        .filter_map(|(id, instance)| {
            let topology = instance.node_info.as_ref()?.get("AccessibleTopology")?;
            let segments = topology.get("Segments")?.as_object()?;
            let pairs = segments.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
            Some([short(id), pairs.collect::<Vec<_>>().join(",")])
        })
        .collect();
    if !topologies.is_empty() {
        let header = ["Node ID", "Accessible Topology"].map(str::to_owned);
        part("Accessible Topologies", table::columns(std::iter::once(header).chain(topologies)));
    }
}

fn allocations_table(allocations: &[Allocation], is_verbose: bool, now: Timestamp) -> String {
    if allocations.is_empty() {
        return "No allocations placed".to_owned();
    }
    if is_verbose {
        let header = [
            "ID",
            "Eval ID",
            "Node ID",
            "Node Name",
            "Task Group",
            "Version",
            "Desired",
            "Status",
            "Created",
            "Modified",
        ];
        let rows = allocations.iter().map(|allocation| {
            [
                allocation.id.clone(),
                allocation.evaluation.clone(),
                allocation.node.clone(),
                allocation.node_name.clone(),
                allocation.task_group.clone(),
                allocation.job_version.to_string(),
                allocation.desired_status.clone(),
                allocation.client_status.clone(),
                time(allocation.create_time),
                time(allocation.modify_time),
            ]
        });
        return table::columns(std::iter::once(header.map(str::to_owned)).chain(rows));
    }
    let header = ["ID", "Node ID", "Task Group", "Version", "Desired", "Status", "Created", "Modified"];
    let rows = allocations.iter().map(|allocation| {
        [
            short(&allocation.id),
            short(&allocation.node),
            allocation.task_group.clone(),
            allocation.job_version.to_string(),
            allocation.desired_status.clone(),
            allocation.client_status.clone(),
            age(allocation.create_time, now),
            age(allocation.modify_time, now),
        ]
    });
    table::columns(std::iter::once(header.map(str::to_owned)).chain(rows))
}

/// What Nomad's command line never shows: who is not well, and why.
fn instances(plugin: &Plugin) -> String {
    let header = ["Role", "Host", "Healthy", "Version", "Description"].map(str::to_owned);
    let of = |role: &'static str, instances: &Option<BTreeMap<String, Instance>>| {
        let row = |(host, instance): (&String, &Instance)| {
            let healthy = if instance.healthy { "yes" } else { "no" };
            let Instance { provider_version, health_description, .. } = instance;
            [role.to_owned(), host.clone(), healthy.to_owned(), provider_version.clone(), health_description.clone()]
        };
        instances.iter().flatten().map(row).collect::<Vec<_>>()
    };
    let rows = of("controller", &plugin.controllers).into_iter().chain(of("node", &plugin.nodes));
    table::columns(std::iter::once(header).chain(rows))
}

fn short(id: &str) -> String {
    id.chars().take(SHORT_ID).collect()
}

/// A moment as Nomad prints it, in UTC.
fn time(nanos: i64) -> String {
    Timestamp::from_nanosecond(nanos.into())
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

/// An age as Nomad prints it: its two largest units that follow each other, `1d2h ago`; nothing for no time at all.
fn age(nanos: i64, now: Timestamp) -> String {
    let rounded = |nanos: i128| nanos.saturating_add(500_000_000).div_euclid(1_000_000_000);
    if nanos == 0 {
        return String::new();
    }
    let seconds = rounded(now.as_nanosecond()) - rounded(nanos.into());
    let suffix = if seconds >= 0 { "ago" } else { "from now" };
    let mut rest = seconds.unsigned_abs();
    let units = [("y", 31_104_000), ("mo", 2_592_000), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let mut shown = Vec::new();
    for (name, length) in units {
        if rest >= length {
            shown.push(format!("{}{name}", rest / length));
            rest %= length;
        }
    }
    if shown.is_empty() {
        shown.push("0s".to_owned());
    }
    shown.truncate(2);
    format!("{} {suffix}", shown.concat())
}

/// The table of all plugins that an address lists.
///
/// # Errors
/// Nobody there, or no list.
pub async fn all(address: &str) -> Result<String, StatusError> {
    let answer = http::get(address, LIST).await?;
    let plugins: Vec<Stub> = http::json(address, &answer)?;
    Ok(if plugins.is_empty() { NOTHING.to_owned() } else { list(&plugins) })
}

const LIST: &str = "/v1/plugins?type=csi";
const NOTHING: &str = "No CSI plugins";
const BANNER: &str = "Container Storage Interface";

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No answer.
    #[error("cannot list plugins")]
    Http(#[from] HttpError),
    /// An answer that is of no use.
    #[error("cannot list plugins")]
    Answer(#[from] AnswerError),
}

/// Runs the command.
pub async fn run(config: &Status) -> Outcome {
    if config.is_watch {
        return watch(config).await;
    }
    let shown = match &config.plugin {
        None => every(config).await,
        Some(id) => one(config, id).await,
    };
    shown.unwrap_or_else(|error| Outcome::failed(&error))
}

/// How the command ends after it showed these.
fn verdict<'a>(config: &Status, mut plugins: impl Iterator<Item = &'a Stub>) -> Outcome {
    if config.is_check && plugins.any(Stub::is_degraded) { Outcome::NotReady } else { Outcome::Done }
}

/// Says that an answer is from before the gateway's start.
fn warn_if_old(answer: &Answer) {
    if !answer.is_current() {
        complain(
            "not current: the gateway has just started (or a server has no leader), and shows what was known before",
        );
    }
}

async fn every(config: &Status) -> Result<Outcome, StatusError> {
    let address = &config.asking.address;
    let path = if config.is_json { format!("{LIST}&pretty") } else { LIST.to_owned() };
    let answer = http::ask(&config.asking, &path).await?;
    let plugins: Vec<Stub> = http::json(address, &answer)?;
    warn_if_old(&answer);
    if config.is_json {
        say(&answer.text());
        return Ok(verdict(config, plugins.iter()));
    }
    say(&Screen::of(&std::io::stdout()).bold(BANNER));
    if plugins.is_empty() {
        complain(NOTHING);
    } else {
        say(&list(&plugins));
    }
    Ok(verdict(config, plugins.iter()))
}

/// One plugin, by its id or by the beginning of one, as Nomad's command line chooses it.
async fn one(config: &Status, id: &str) -> Result<Outcome, StatusError> {
    let Asking { address, .. } = &config.asking;
    let answer = http::ask(&config.asking, &format!("{LIST}&prefix={}", utf8_percent_encode(id, ESCAPED))).await?;
    let mut found: Vec<Stub> = http::json(address, &answer)?;
    if let Some(exact) = found.iter().position(|plugin| plugin.id == id) {
        found = vec![found.swap_remove(exact)];
    }
    match found.as_slice() {
        [] => Ok(Outcome::Failed(format!("no plugins with prefix or ID \"{}\" found", escaped(id)))),
        [plugin] => {
            let escaped = utf8_percent_encode(&plugin.id, ESCAPED);
            let pretty = if config.is_json { "&pretty" } else { "" };
            // A Nomad server knows no shapes, and does not mind.
            let answer = http::ask(&config.asking, &format!("/v1/plugin/csi/{escaped}?shape=nomad{pretty}")).await?;
            let plugin: Plugin = http::json(address, &answer)?;
            warn_if_old(&answer);
            if config.is_json {
                say(&answer.text());
            } else {
                say(&block(&plugin, config.is_verbose, Screen::of(&std::io::stdout()), Timestamp::now()));
            }
            Ok(verdict(config, std::iter::once(&plugin.stub)))
        }
        several => {
            complain(&list(several));
            Ok(Outcome::Failed(format!("prefix \"{}\" matched multiple plugins", escaped(id))))
        }
    }
}

/// Shows plugins again whenever something about them changes, until nobody reads it any more.
async fn watch(config: &Status) -> Outcome {
    let prefix = config.plugin.as_deref().unwrap_or_default();
    let path = format!("{LIST}&prefix={}", utf8_percent_encode(prefix, ESCAPED));
    let (mut index, mut shown) = (0, Shown::default());
    loop {
        let question = format!("{path}&index={index}&wait={QUESTION}");
        let asked = match http::ask(&config.asking, &question).await {
            Ok(answer) => http::json(&config.asking.address, &answer)
                .map(|plugins: Vec<Stub>| (answer, plugins))
                .map_err(StatusError::from),
            Err(error) => Err(error.into()),
        };
        let is_read = match asked {
            Ok((answer, plugins)) => {
                index = answer.index().unwrap_or_default();
                // What cannot be waited for is asked for again and again.
                if index == 0 {
                    tokio::time::sleep(PAUSE).await;
                }
                if config.is_json { shown.raw(&answer, plugins) } else { shown.show(plugins) }
            }
            Err(error) => {
                index = 0;
                let is_read = shown.trouble(&Chain(&error).to_string());
                tokio::time::sleep(PAUSE).await;
                is_read
            }
        };
        if !is_read {
            return Outcome::Done;
        }
    }
}

/// What `--watch` has shown.
#[derive(Default)]
struct Shown {
    /// `None`: nothing yet.
    plugins: Option<BTreeMap<String, Stub>>,
    trouble: String,
    has_page: bool,
}

impl Shown {
    fn show(&mut self, plugins: Vec<Stub>) -> bool {
        self.trouble.clear();
        let screen = Screen::of(&std::io::stdout());
        let now = time(Timestamp::now().as_nanosecond().try_into().unwrap_or_default());
        let new: BTreeMap<String, Stub> = plugins.into_iter().map(|plugin| (plugin.id.clone(), plugin)).collect();
        let is_read = if screen.is_live {
            let text = if new.is_empty() { NOTHING.to_owned() } else { narrow_list(new.values(), screen) };
            self.page(screen, &format!("{BANNER}  {now}\n{text}"))
        } else {
            write_lines(&self.lines(&new, &now))
        };
        self.plugins = Some(new);
        is_read
    }

    /// A line for each plugin that is not as it was.
    fn lines(&self, new: &BTreeMap<String, Stub>, now: &str) -> Vec<String> {
        let empty = BTreeMap::new();
        let old = self.plugins.as_ref().unwrap_or(&empty);
        let mut lines = Vec::new();
        for plugin in new.values().filter(|plugin| old.get(&plugin.id) != Some(plugin)) {
            let (controllers, nodes) = (plugin.controllers(), plugin.nodes());
            lines.push(format!("{now} {} controllers {controllers} nodes {nodes}", escaped(&plugin.id)));
        }
        let ids: BTreeSet<&String> = old.keys().filter(|id| !new.contains_key(*id)).collect();
        lines.extend(ids.into_iter().map(|id| format!("{now} {} gone", escaped(id))));
        if self.plugins.is_none() && new.is_empty() {
            lines.push(format!("{now} {NOTHING}"));
        }
        lines
    }

    /// The answer as it was sent, on a line, if it says something new.
    fn raw(&mut self, answer: &Answer, plugins: Vec<Stub>) -> bool {
        self.trouble.clear();
        let new = plugins.into_iter().map(|plugin| (plugin.id.clone(), plugin)).collect();
        if self.plugins.as_ref() == Some(&new) {
            return true;
        }
        self.plugins = Some(new);
        write_lines(&[answer.text().trim().to_owned()])
    }

    /// Says once what is in the way.
    fn trouble(&mut self, reason: &str) -> bool {
        if self.trouble == reason {
            return true;
        }
        reason.clone_into(&mut self.trouble);
        let screen = Screen::of(&std::io::stdout());
        let text = format!("{}; asking again", escaped(reason));
        if screen.is_live {
            return self.page(screen, &text);
        }
        complain(&text);
        true
    }

    fn page(&mut self, screen: Screen, text: &str) -> bool {
        let clear = if std::mem::replace(&mut self.has_page, true) { "" } else { "\u{1b}[2J" };
        let mut out = std::io::stdout().lock();
        write!(out, "{clear}{}", screen.page(text)).and_then(|()| out.flush()).is_ok()
    }
}

/// Whether somebody reads it.
fn write_lines(lines: &[String]) -> bool {
    let mut out = std::io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_its_two_largest_units() {
        let now = Timestamp::from_second(100_000_000).expect("a time");
        let ago = |seconds: i64| age((100_000_000 - seconds) * 1_000_000_000, now);
        let cases = [
            (0, "0s ago"),
            (59, "59s ago"),
            (60, "1m ago"),
            (3_661, "1h1m ago"),
            (3_601, "1h1s ago"),
            (93_600, "1d2h ago"),
            (-5, "5s from now"),
            (2_592_000 * 13, "1y1mo ago"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(ago(seconds), expected, "{seconds}");
        }
        assert_eq!(age(0, now), "");
    }
}
