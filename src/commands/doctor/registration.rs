//! The registration socket beside a driver, where there is one, compared with what the driver says.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::driver::Answers;
use super::{Findings, Layer};
use crate::csi::Announcement;
use crate::discovery;
use crate::domain::address;
use crate::domain::id::Role;

/// The kubelet's directory of registration sockets, beside that of the drivers.
const REGISTRY: &str = "plugins_registry";
/// How long registration sockets are asked, all together: dead ones answer at once, hung ones do not.
const LONGEST: Duration = Duration::from_secs(20);

/// Compares them.
pub(super) async fn examine(socket: &Path, driver: &Answers, host_root: Option<&Path>, findings: &mut Findings) {
    let Some(registry) = socket.ancestors().skip(1).map(|above| above.join(REGISTRY)).find(|path| path.is_dir()) else {
        return findings.skipped(Layer::Registration, "no kubelet's directory of registration sockets is beside it");
    };
    let (announced, is_complete) = announced(&registry).await;
    let of_name = |announced: &&(PathBuf, Announcement)| announced.1.name == driver.name;
    if let Some((path, announcement)) =
        announced.iter().find(|(path, announcement)| leads(path, announcement, socket, host_root))
    {
        let several = announced.iter().filter(of_name).count();
        if announcement.name != driver.name {
            let text = format!(
                "announced as {} by `{}`, but the driver says {}",
                announcement.name,
                path.display(),
                driver.name
            );
            findings.not_ok(
                Layer::Registration,
                &text,
                "restart the registrar: it asks for the name only when it starts",
            );
        } else if several > 1 {
            let text = format!("{several} registration sockets announce {}; the kubelet takes the first", driver.name);
            findings.not_ok(Layer::Registration, &text, "stop one of the drivers, or give each a name of its own");
        } else {
            findings.ok(Layer::Registration, &format!("announced by `{}`", path.display()));
        }
        return;
    }
    if let Some((path, announcement)) = announced.iter().find(of_name) {
        let text = format!("`{}` announces {} at `{}`, not here", path.display(), driver.name, announcement.endpoint);
        let remedy = "the registrar's `--kubelet-registration-path` must be this socket's path as the host sees it";
        findings.not_ok(Layer::Registration, &text, remedy);
    } else if !is_complete {
        findings.skipped(
            Layer::Registration,
            "registration sockets cannot be read, or too many of them hang, so nothing can be said",
        );
    } else if driver.roles.contains(&Role::Node) {
        let text =
            format!("no registration socket in `{}` announces it: the kubelet does not know it", registry.display());
        let remedy = "see that the driver's node-driver-registrar runs, and its log; a driver alone is not registered";
        findings.not_ok(Layer::Registration, &text, remedy);
    } else {
        findings.skipped(Layer::Registration, "a driver without a node service is not registered with the kubelet");
    }
}

/// What the sockets of a directory announce, those left out that do not answer; and whether all were asked.
async fn announced(registry: &Path) -> (Vec<(PathBuf, Announcement)>, bool) {
    let Ok(entries) = fs::read_dir(registry) else { return (Vec::new(), false) };
    let is_socket = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_socket());
    let mut paths: Vec<PathBuf> = entries.flatten().filter(is_socket).map(|entry| entry.path()).collect();
    // As the kubelet does.
    paths.retain(|path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')));
    paths.sort();
    let mut announced = Vec::new();
    let end = Instant::now() + LONGEST;
    for path in paths {
        if Instant::now() > end {
            return (announced, false);
        }
        if let Ok(announcement) = discovery::announcement(&path).await {
            announced.push((path, announcement));
        }
    }
    (announced, true)
}

/// Whether it is this socket that is announced.
fn leads(path: &Path, announcement: &Announcement, socket: &Path, host_root: Option<&Path>) -> bool {
    let endpoint = match announcement.endpoint.strip_prefix("unix://").unwrap_or(&announcement.endpoint) {
        "" => path.to_owned(),
        endpoint => address::under(host_root, Path::new(endpoint)),
    };
    let identity = |path: &Path| fs::metadata(path).ok().map(|data| (data.dev(), data.ino()));
    endpoint == socket || identity(&endpoint).is_some_and(|endpoint| Some(endpoint) == identity(socket))
}
