//! Every metric with its name and help text, and the text format that Prometheus reads (0.0.4).
//!
//! Values are read when somebody asks, from the same handles as every other answer; nothing is counted twice, and the
//! series of what is gone is gone with it.

use std::fmt::{Display, Write};

/// What a value means over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As it is now.
    Gauge,
    /// Grows until the process ends.
    Counter,
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// `csi_gateway_…`, with its unit at the end.
    pub name: &'static str,
    /// What it says, for people.
    pub help: &'static str,
    /// What its values mean over time.
    pub kind: Kind,
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: Kind::Gauge }
}

/// Which program this is.
pub const BUILD_INFO: Family = gauge("csi_gateway_build_info", "1; the version of csi-gateway is in its label.");
/// The index of everything.
pub const CATALOG_INDEX: Family =
    gauge("csi_gateway_catalog_index", "Index of the newest state that is served, as in X-Nomad-Index.");
/// See [`DirectoryEvents`](crate::domain::socket::DirectoryEvents).
pub const PATHS_WATCHED: Family =
    gauge("csi_gateway_paths_watched", "Paths whose changes the kernel tells of (inotify).");
/// See [`DirectoryEvents`](crate::domain::socket::DirectoryEvents).
pub const PATHS_POLLED: Family = gauge(
    "csi_gateway_paths_polled",
    "Paths that are looked at every second because the kernel tells of no changes there: no inotify instance or watch \
     was left.",
);
/// Readers that wait.
pub const BLOCKING_QUERIES: Family =
    gauge("csi_gateway_blocking_queries", "HTTP requests that wait for something to change.");
/// The main signal.
pub const INSTANCE_HEALTHY: Family =
    gauge("csi_gateway_instance_healthy", "1 if this instance of a CSI plugin is healthy, else 0.");
/// Nomad's number.
pub const CONTROLLERS_HEALTHY: Family =
    gauge("csi_gateway_plugin_controllers_healthy", "Controllers of a CSI plugin that are healthy.");
/// Nomad's number.
pub const CONTROLLERS_EXPECTED: Family =
    gauge("csi_gateway_plugin_controllers_expected", "Controllers of a CSI plugin that there should be.");
/// Nomad's number.
pub const NODES_HEALTHY: Family = gauge("csi_gateway_plugin_nodes_healthy", "Nodes of a CSI plugin that are healthy.");
/// Nomad's number.
pub const NODES_EXPECTED: Family =
    gauge("csi_gateway_plugin_nodes_expected", "Nodes of a CSI plugin that there should be.");
/// By source and state.
pub const SOCKETS: Family = gauge(
    "csi_gateway_sockets",
    "Sockets by the source that knows them and their state: a phase, or `ignored` where no CSI driver answers.",
);

/// Only where TLS is spoken.
pub const TLS_CERTIFICATE_EXPIRY: Family = gauge(
    "csi_gateway_tls_certificate_expiry_timestamp_seconds",
    "Until when the TLS certificate in force is valid, in seconds since 1970.",
);
/// Only where TLS is spoken.
pub const TLS_FILES_VALID: Family = gauge(
    "csi_gateway_tls_files_valid",
    "1 if the files of TLS are those in force and not expired; 0 if they have an error, and the last good ones stay.",
);
/// Only where TLS is spoken.
pub const TLS_FAILED_HANDSHAKES: Family = Family {
    name: "csi_gateway_tls_failed_handshakes_total",
    help: "TLS handshakes of clients that came to nothing.",
    kind: Kind::Counter,
};

/// Metrics in Prometheus's text format.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    family: Option<Family>,
}

impl Exposition {
    /// Adds a sample. The samples of one family have to come one after the other.
    pub fn sample(&mut self, family: &Family, labels: &[(&str, &str)], value: impl Display) {
        // Writing to a string cannot fail.
        let _ = self.write(family, labels, value);
    }

    fn write(&mut self, family: &Family, labels: &[(&str, &str)], value: impl Display) -> std::fmt::Result {
        let Family { name, help, kind } = family;
        if self.family != Some(*family) {
            let kind = match kind {
                Kind::Gauge => "gauge",
                Kind::Counter => "counter",
            };
            write!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}\n", help.replace('\\', "\\\\"))?;
            self.family = Some(*family);
        }
        self.text.push_str(name);
        for (place, (label, value)) in labels.iter().enumerate() {
            self.text.push(if place == 0 { '{' } else { ',' });
            write!(self.text, "{label}=\"")?;
            for character in value.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        writeln!(self.text, " {value}")
    }

    /// The whole text.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_one_head_and_its_labels_are_escaped() {
        let mut text = Exposition::default();
        text.sample(&BUILD_INFO, &[("version", "1\\2\"3\n4")], 1);
        text.sample(&NODES_HEALTHY, &[("plugin_id", "a"), ("driver_name", "b")], 3);
        text.sample(&NODES_HEALTHY, &[("plugin_id", "c"), ("driver_name", "d")], 0);
        text.sample(&CATALOG_INDEX, &[], u64::MAX);
        let expected = "# HELP csi_gateway_build_info 1; the version of csi-gateway is in its label.\n\
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
}
