//! What this host is called, and where state may be kept on it.

use std::path::PathBuf;

use super::values::Variables;
use crate::domain::id::HostId;

/// Variables in which manifests pass a node's name, in the order in which they are believed.
const NAMES: [&str; 4] = ["NODE_NAME", "KUBE_NODE_NAME", "CSI_NODE_NAME", "NODE_ID"];
/// Nomad's command line cuts ids to their first eight bytes, and crashes on shorter ones.
const SHORTEST: usize = 8;

/// This host's id: what is configured, else a variable, else what Nomad calls it, else the hostname; lengthened by the
/// machine's id where it is too short for Nomad's command line.
#[must_use]
pub fn id(configured: Option<&HostId>, variable: Variables<'_>, nomads: impl FnOnce() -> Option<HostId>) -> HostId {
    let named = || {
        let named = NAMES.iter().filter_map(|name| variable(name)).find(|value| !value.trim().is_empty())?;
        HostId::parse(named.trim()).ok()
    };
    let of_system = || HostId::parse(hostname()?.trim()).ok();
    let name = configured.cloned().or_else(named).or_else(nomads).or_else(of_system);
    let name = name.map_or_else(|| "localhost".to_owned(), |name| name.to_string());
    lengthened(&name, &machine_id())
}

fn lengthened(name: &str, machine: &str) -> HostId {
    let long = if name.len() < SHORTEST { format!("{name}-{machine}") } else { name.to_owned() };
    HostId::parse(&long).unwrap_or_else(|_| HostId::parse("localhost-00000000").expect("a legal host id"))
}

fn hostname() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").ok()
}

/// The first eight characters of the machine's id; zeros where it has none.
fn machine_id() -> String {
    let text =
        ["/etc/machine-id", "/var/lib/dbus/machine-id"].iter().find_map(|path| std::fs::read_to_string(path).ok());
    let text: String = text.unwrap_or_default().chars().filter(char::is_ascii_hexdigit).take(SHORTEST).collect();
    if text.len() == SHORTEST { text } else { "0".repeat(SHORTEST) }
}

/// Directories in which state is kept when none is configured, the first that can be written.
#[must_use]
pub fn state_directories(variable: Variables<'_>) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    // systemd sets it, as a list when a unit has several.
    directories.extend(variable("STATE_DIRECTORY").and_then(|list| list.split(':').next().map(PathBuf::from)));
    directories.push(PathBuf::from("/var/lib/csi-gateway"));
    let home = variable("XDG_STATE_HOME").map(PathBuf::from);
    let home = home.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".local/state")));
    directories.extend(home.map(|home| home.join("csi-gateway")));
    directories.retain(|directory| directory.is_absolute());
    directories
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_would_crash_nomads_command_line_is_lengthened() {
        assert_eq!(lengthened("vm", "0123abcd").as_str(), "vm-0123abcd");
        assert_eq!(lengthened("node-0001", "0123abcd").as_str(), "node-0001");
        assert_eq!(id(HostId::parse("n1").ok().as_ref(), &|_| None, || None).as_str().len(), "n1-".len() + 8);
    }

    #[test]
    fn a_variable_names_the_host_where_nothing_is_configured() {
        let variable = |name: &str| (name == "KUBE_NODE_NAME").then(|| "worker-17".to_owned());
        let nomads = || HostId::parse("5f9ba2d0-1111-2222-3333-444455556666").ok();
        assert_eq!(id(None, &variable, nomads).as_str(), "worker-17");
        assert_eq!(id(None, &|_| None, nomads), nomads().expect("legal"));
    }
}
