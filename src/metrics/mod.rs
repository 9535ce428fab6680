//! Every metric with its name, labels and help text, what counts, and the formats that Prometheus reads: text 0.0.4 and
//! OpenMetrics 1.0.
//!
//! What is known is read when somebody asks, from the same handles as every other answer; only what nobody else keeps is
//! counted here. The series of what is gone is gone with it, and every label is of bounded size.

pub mod calls;
pub mod histogram;
pub mod operations;
pub mod process;
pub mod requests;
pub mod scans;

use std::fmt::{Display, Write};

use calls::Calls;
use histogram::{Bounds, Histogram};
use operations::Operations;
use requests::Requests;
use scans::Scans;

/// What is counted here. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Calls to drivers.
    pub calls: Calls,
    /// Walks of places.
    pub scans: Scans,
    /// What the store did.
    pub operations: Operations,
    /// HTTP requests.
    pub requests: Requests,
}

/// What a value means over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As it is now.
    Gauge,
    /// Grows until the process ends.
    Counter,
    /// Durations by size.
    Histogram,
}

impl Kind {
    /// As the formats call it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// With its unit at the end.
    pub name: &'static str,
    /// What it says, for people.
    pub help: &'static str,
    /// What its values mean over time.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Whether a sidecar has it, too.
    pub is_beside: bool,
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, help, kind: Kind::Gauge, labels, is_beside: false }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { kind: Kind::Counter, ..gauge(name, labels, help) }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { kind: Kind::Histogram, ..gauge(name, labels, help) }
}

const fn beside(family: Family) -> Family {
    Family { is_beside: true, ..family }
}

const INSTANCE: &[&str] = &["plugin_id", "driver_name", "role", "host_id"];
const PLUGIN: &[&str] = &["plugin_id", "driver_name"];
const CALL: &[&str] = &["driver_name", "grpc_status_code", "method_name"];
const REQUEST: &[&str] = &["route", "method", "code"];

macro_rules! families {
    ($($(#[$doc:meta])* $constant:ident = $family:expr;)+) => {
        $($(#[$doc])* pub const $constant: Family = $family;)+

        /// Every metric, in the order in which they are shown.
        pub const FAMILIES: &[Family] = &[$($constant),+];
    };
}

families! {
    /// Which program this is.
    BUILD_INFO = beside(gauge("csi_gateway_build_info", &["version", "revision"], "1; version and revision of csi-gateway are in its labels."));
    /// The main signal.
    INSTANCE_HEALTHY = gauge("csi_gateway_instance_healthy", INSTANCE, "1 if this instance of a CSI plugin is healthy, else 0.");
    /// What is text of it.
    INSTANCE_INFO = gauge("csi_gateway_instance_info", &["plugin_id", "driver_name", "role", "host_id", "version", "alloc_id", "csi_node_id"], "1; what is text of an instance is in its labels.");
    /// See the record's registration.
    INSTANCE_REGISTERED = gauge("csi_gateway_instance_registered", INSTANCE, "1 if a kubelet knows this node of a CSI plugin as it answers, else 0; absent where no kubelet is concerned.");
    /// What the node takes.
    INSTANCE_MAX_VOLUMES = gauge("csi_gateway_instance_max_volumes", INSTANCE, "Volumes that this node takes; absent where the driver sets no limit.");
    /// Flapping.
    INSTANCE_TRANSITIONS = counter("csi_gateway_instance_health_transitions_total", INSTANCE, "How often this instance became healthy or ceased to be since the gateway started.");
    /// How old what is known is.
    INSTANCE_LAST_PROBE = gauge("csi_gateway_instance_last_probe_timestamp_seconds", INSTANCE, "When the driver of this instance was last asked.");
    /// Since when it has been like this.
    INSTANCE_LAST_CHANGE = gauge("csi_gateway_instance_last_change_timestamp_seconds", INSTANCE, "Since when this instance has been in its phase.");
    /// Nomad's number.
    CONTROLLERS_HEALTHY = gauge("csi_gateway_plugin_controllers_healthy", PLUGIN, "Controllers of a CSI plugin that are healthy.");
    /// Nomad's number.
    CONTROLLERS_EXPECTED = gauge("csi_gateway_plugin_controllers_expected", PLUGIN, "Controllers of a CSI plugin that there should be.");
    /// Nomad's number.
    NODES_HEALTHY = gauge("csi_gateway_plugin_nodes_healthy", PLUGIN, "Nodes of a CSI plugin that are healthy.");
    /// Nomad's number.
    NODES_EXPECTED = gauge("csi_gateway_plugin_nodes_expected", PLUGIN, "Nodes of a CSI plugin that there should be.");
    /// What is text of it.
    PLUGIN_INFO = gauge("csi_gateway_plugin_info", &["plugin_id", "driver_name", "version", "controller_required"], "1; what is text of a CSI plugin is in its labels, of several versions the one that most instances have.");
    /// By how they are heard of.
    HOSTS = gauge("csi_gateway_hosts", &["state"], "Hosts with instances, by whether their agent is heard of: alive, or silent (lost).");
    /// The same of one host.
    HOST_ALIVE = gauge("csi_gateway_host_alive", &["host_id"], "1 if the agent of this host is heard of, 0 if it is lost. A host on which nothing changes is alive.");
    /// When something was heard.
    HOST_LAST_REPORT = gauge("csi_gateway_host_last_report_timestamp_seconds", &["host_id"], "When something was last learnt of a driver on this host.");
    /// By source and state.
    SOCKETS = gauge("csi_gateway_sockets", &["source", "state"], "Sockets by the source that knows them (flag, directory, kubelet, nomad, well_known) and their state (new, connected, refused, missing, not_csi, duplicate).");
    /// Walks that failed.
    DISCOVERY_ERRORS = counter("csi_gateway_discovery_errors_total", &["source"], "Searches for sockets that failed or hung.");
    /// Walks that ended.
    DISCOVERY_LAST_SCAN = gauge("csi_gateway_discovery_last_scan_timestamp_seconds", &["source"], "When sockets were last searched for. It is done at least every minute.");
    /// See [`DirectoryEvents`](crate::domain::socket::DirectoryEvents).
    PATHS_WATCHED = gauge("csi_gateway_paths_watched", &[], "Paths whose changes the kernel tells of (inotify).");
    /// See [`DirectoryEvents`](crate::domain::socket::DirectoryEvents).
    PATHS_POLLED = gauge("csi_gateway_paths_polled", &[], "Paths that are looked at every second because the kernel tells of no changes there: no inotify instance or watch was left.");
    /// Looks at drivers.
    PROBES = beside(counter("csi_gateway_probes_total", &["driver_name", "result"], "How often a driver was asked for its health, by what came of it: ready, not_ready, error, timeout."));
    /// As the sidecars count.
    SIDECAR_OPERATIONS = beside(histogram("csi_sidecar_operations_seconds", CALL, "[ALPHA] How long calls to a CSI driver took, by method and gRPC code, as the CSI sidecars count them."));
    /// The same with bounds that a local call needs.
    RPC_DURATION = beside(histogram("csi_gateway_rpc_duration_seconds", CALL, "How long calls to a CSI driver took, by method and gRPC code, with bounds for calls on one machine."));
    /// Whether what is published is kept.
    STORE_UP = gauge("csi_gateway_store_up", &["store"], "1 if everything that is served is kept as it should be, 0 if it is not durable.");
    /// What the store did.
    STORE_DURATION = histogram("csi_gateway_store_operation_duration_seconds", &["store", "operation", "result"], "How long the store took: to open, commit, and read history; result is ok or error.");
    /// The index of everything.
    CATALOG_INDEX = gauge("csi_gateway_catalog_index", &[], "Index of the newest state that is served, as in X-Nomad-Index.");
    /// Only in a fleet.
    FLEET_IN_STEP = gauge("csi_gateway_fleet_in_step", &[], "1 if etcd holds what this agent knows, or this aggregator follows what etcd holds; else 0. Only in a fleet.");
    /// Only in a fleet, and only while there is some.
    FLEET_TROUBLE = gauge("csi_gateway_fleet_trouble", &["kind"], "1; what is wrong with the fleet's etcd is in its label. Absent if nothing is.");
    /// Only of an aggregator.
    FLEET_HOSTS = gauge("csi_gateway_fleet_hosts", &["state"], "Hosts of the fleet, by whether their agents are here or lost. Only of an aggregator.");
    /// Only of an agent.
    FLEET_WAITING = gauge("csi_gateway_fleet_waiting", &[], "Instances and transitions of this host that etcd does not have yet. Only of an agent.");
    /// Only with `--nomad-addr`.
    ORCHESTRATOR_UP = gauge("csi_gateway_orchestrator_up", &[], "1 if the orchestrator says who runs the drivers; 0 if it does not, and what is known of allocations stays.");
    /// Only where TLS is spoken.
    TLS_CERTIFICATE_EXPIRY = gauge("csi_gateway_tls_certificate_expiry_timestamp_seconds", &[], "Until when the TLS certificate in force is valid, in seconds since 1970.");
    /// Only where TLS is spoken.
    TLS_FILES_VALID = gauge("csi_gateway_tls_files_valid", &[], "1 if the files of TLS are those in force and not expired; 0 if they have an error, and the last good ones stay.");
    /// Only where TLS is spoken.
    TLS_FAILED_HANDSHAKES = counter("csi_gateway_tls_failed_handshakes_total", &[], "TLS handshakes of clients that came to nothing.");
    /// Requests that were answered.
    HTTP_REQUESTS = counter("csi_gateway_http_requests_total", REQUEST, "HTTP requests that were answered. A route is a template, never a path.");
    /// The time that went into it.
    HTTP_DURATION = histogram("csi_gateway_http_request_duration_seconds", REQUEST, "How long answering took, without the time in which a request waited for a change or for the disk.");
    /// Readers that wait.
    BLOCKING_QUERIES = gauge("csi_gateway_blocking_queries", &[], "HTTP requests that wait for something to change.");
    /// Time on a core.
    PROCESS_CPU = beside(counter("process_cpu_seconds_total", &[], "Time that this process has spent on processors."));
    /// Memory.
    PROCESS_RESIDENT = beside(gauge("process_resident_memory_bytes", &[], "Memory that this process has resident."));
    /// Descriptors.
    PROCESS_OPEN = beside(gauge("process_open_fds", &[], "Descriptors that this process has open."));
    /// The limit of those.
    PROCESS_MOST = beside(gauge("process_max_fds", &[], "Descriptors that this process may have open."));
    /// The start.
    PROCESS_START = beside(gauge("process_start_time_seconds", &[], "[ALPHA] When this process started."));
}

/// How metrics are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format, 0.0.4.
    #[default]
    Text,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

/// Metrics in one of the formats.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    format: Format,
    family: &'static str,
}

/// Labels as they are written, without braces. What many metrics of one thing have in common is written once.
#[derive(Debug, Clone, Default)]
pub struct Labels(String);

impl Labels {
    /// Labels by name.
    #[must_use]
    pub fn of(labels: &[(&str, &str)]) -> Self {
        let mut all = Self::default();
        for (name, value) in labels {
            all.push(name, value);
        }
        all
    }

    /// One more.
    pub fn push(&mut self, name: &str, value: &str) {
        let text = &mut self.0;
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        if value.contains(['\\', '"', '\n']) {
            for character in value.chars() {
                match character {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    other => text.push(other),
                }
            }
        } else {
            text.push_str(value);
        }
        text.push('"');
    }
}

impl Exposition {
    /// Nothing yet.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, ..Self::default() }
    }

    /// Adds a sample. The samples of one family have to come one after the other.
    pub fn sample(&mut self, family: &Family, labels: &[(&str, &str)], value: impl Display) {
        self.labelled(family, &Labels::of(labels), value);
    }

    /// The same with labels that are written already.
    pub fn labelled(&mut self, family: &Family, labels: &Labels, value: impl Display) {
        self.head(family);
        self.line(family.name, "", labels, None, value);
    }

    /// Adds durations, told apart by these bounds.
    pub fn histogram(&mut self, family: &Family, labels: &[(&str, &str)], bounds: Bounds, durations: &Histogram) {
        self.head(family);
        let labels = Labels::of(labels);
        for bound in bounds {
            let most = match self.format {
                Format::Text => format!("{bound}"),
                // Where a number is a float, it has to look like one.
                Format::OpenMetrics => format!("{bound:?}"),
            };
            self.line(family.name, "_bucket", &labels, Some(&most), durations.at_most(*bound));
        }
        let count = durations.count();
        self.line(family.name, "_bucket", &labels, Some("+Inf"), count);
        self.line(family.name, "_sum", &labels, None, durations.sum());
        self.line(family.name, "_count", &labels, None, count);
    }

    fn head(&mut self, family: &Family) {
        if self.family == family.name {
            return;
        }
        self.family = family.name;
        let name = match (self.format, family.kind) {
            (Format::OpenMetrics, Kind::Counter) => family.name.trim_end_matches("_total"),
            _ => family.name,
        };
        let help = family.help.replace('\\', "\\\\");
        // Writing to a string cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {}\n", family.kind.as_str());
    }

    fn line(&mut self, name: &str, suffix: &str, labels: &Labels, most: Option<&str>, value: impl Display) {
        let text = &mut self.text;
        text.push_str(name);
        text.push_str(suffix);
        if !labels.0.is_empty() || most.is_some() {
            text.push('{');
            text.push_str(&labels.0);
            if let Some(most) = most {
                text.push_str(if labels.0.is_empty() { "le=\"" } else { ",le=\"" });
                text.push_str(most);
                text.push('"');
            }
            text.push('}');
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, " {value}");
    }

    /// The whole text.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// The reference of all metrics, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(REFERENCE_HEAD);
    out.push_str("| Metric | Type | Labels | Meaning |\n| --- | --- | --- | --- |\n");
    for Family { name, help, kind, labels, is_beside } in FAMILIES {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let beside = if *is_beside { " †" } else { "" };
        let kind = kind.as_str();
        out.push_str(&format!(
            "| `{name}`{beside} | {kind} | {} | {} |\n",
            labels.join(", "),
            help.replace('|', "\\|")
        ));
    }
    out.push_str(REFERENCE_END);
    out
}

const REFERENCE_HEAD: &str = "\
# Metrics

This page is written by a test from the table in `src/metrics/mod.rs`.

`/metrics` is Prometheus's text format (0.0.4), or OpenMetrics (1.0) for whoever asks for it. With ACLs on it needs a token that may read the agent, or
`--acl-metrics=open`. In livenessprobe's place (flags and no command) metrics are where `--http-endpoint` or `--metrics-address` says, under
`--metrics-path`, and they are those marked with †.

Alerts are in `deploy/prometheus/alerts.yaml`, what to do about each in [runbook.md](runbook.md), dashboards in `deploy/grafana/`.

";

const REFERENCE_END: &str = "
The series of an instance, a plugin, a host or a socket go when it is retired, forgotten or no longer watched. Counters begin anew with the process.
Text that a driver sends (its name, version, node id) is cut at 256 bytes, without control characters, before it becomes a label; descriptions of
health, paths and what a client sends never do.

`driver_name` is the driver's own name, `unknown-driver` until it is known, as in the CSI sidecars' metrics, with which it joins:
`csi_sidecar_operations_seconds` has their name, labels and bounds.
";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_family_has_one_head_and_its_labels_are_escaped() {
        let mut text = Exposition::default();
        text.sample(&BUILD_INFO, &[("version", "1\\2\"3\n4")], 1);
        text.sample(&NODES_HEALTHY, &[("plugin_id", "a"), ("driver_name", "b")], 3);
        text.sample(&NODES_HEALTHY, &[("plugin_id", "c"), ("driver_name", "d")], 0);
        text.sample(&CATALOG_INDEX, &[], u64::MAX);
        let expected = "# HELP csi_gateway_build_info 1; version and revision of csi-gateway are in its labels.\n\
                        # TYPE csi_gateway_build_info gauge\n\
                        csi_gateway_build_info{version=\"1\\\\2\\\"3\\n4\"} 1\n\
                        # HELP csi_gateway_plugin_nodes_healthy Nodes of a CSI plugin that are healthy.\n\
                        # TYPE csi_gateway_plugin_nodes_healthy gauge\n\
                        csi_gateway_plugin_nodes_healthy{plugin_id=\"a\",driver_name=\"b\"} 3\n\
                        csi_gateway_plugin_nodes_healthy{plugin_id=\"c\",driver_name=\"d\"} 0\n\
                        # HELP csi_gateway_catalog_index Index of the newest state that is served, as in \
                        X-Nomad-Index.\n\
                        # TYPE csi_gateway_catalog_index gauge\n\
                        csi_gateway_catalog_index 18446744073709551615\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn openmetrics_names_counters_without_their_suffix_and_ends_with_a_mark() {
        let mut text = Exposition::new(Format::OpenMetrics);
        text.sample(&DISCOVERY_ERRORS, &[("source", "nomad")], 2);
        let durations = Histogram::new(&[0.5, 1.0]);
        durations.observe(Duration::from_secs(1));
        text.histogram(&STORE_DURATION, &[], &[0.5, 1.0], &durations);
        let lines: Vec<String> =
            text.finish().lines().filter(|line| !line.starts_with("# HELP")).map(str::to_owned).collect();
        let expected = [
            "# TYPE csi_gateway_discovery_errors counter",
            "csi_gateway_discovery_errors_total{source=\"nomad\"} 2",
            "# TYPE csi_gateway_store_operation_duration_seconds histogram",
            "csi_gateway_store_operation_duration_seconds_bucket{le=\"0.5\"} 0",
            "csi_gateway_store_operation_duration_seconds_bucket{le=\"1.0\"} 1",
            "csi_gateway_store_operation_duration_seconds_bucket{le=\"+Inf\"} 1",
            "csi_gateway_store_operation_duration_seconds_sum 1",
            "csi_gateway_store_operation_duration_seconds_count 1",
            "# EOF",
        ];
        assert_eq!(lines, expected);
    }
}
