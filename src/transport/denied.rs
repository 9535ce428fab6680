//! What exactly is missing when a socket may not be opened, and the remedy.
//!
//! The system says "permission denied" and neither where on the path nor to whom. This looks again, after the failure, at
//! what can be seen without the right that is missing: owners and modes. It does not know SELinux and AppArmor; where modes
//! allow what was refused, it says that they are left.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Position of the capability that overrides modes, in the kernel's sets.
const DAC_OVERRIDE: u64 = 1 << 1;

/// What is missing to connect to a socket that was refused to us, in one sentence with the remedy.
#[must_use]
pub fn what_is_missing(socket: &Path) -> String {
    told(socket, obstacle(socket).as_ref(), &Process::own())
}

/// What stands in the way: a directory that may not be searched, or the socket.
struct Obstacle<'path> {
    path: &'path Path,
    is_directory: bool,
    owner: u32,
    group: u32,
    mode: u32,
}

/// Who wants to connect.
struct Process {
    user: u32,
    group: u32,
    overrides_modes: bool,
}

impl Process {
    fn own() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or_default();
        Self {
            user: rustix::process::geteuid().as_raw(),
            group: rustix::process::getegid().as_raw(),
            overrides_modes: effective & DAC_OVERRIDE != 0,
        }
    }
}

/// The first that is in the way; none if everything on the path can be seen no longer.
fn obstacle(socket: &Path) -> Option<Obstacle<'_>> {
    let mut ancestors: Vec<&Path> = socket.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
    ancestors.reverse();
    let mut last: Option<(&Path, Metadata)> = None;
    for path in ancestors {
        // Not asked by access(2): it forgets the ambient capabilities of who is not root.
        match fs::metadata(path) {
            Ok(data) => last = Some((path, data)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => break,
            Err(_) => return None,
        }
    }
    let (path, data) = last?;
    let (is_directory, mode) = (data.is_dir(), data.mode() & 0o7777);
    Some(Obstacle { path, is_directory, owner: data.uid(), group: data.gid(), mode })
}

fn told(socket: &Path, obstacle: Option<&Obstacle<'_>>, process: &Process) -> String {
    let socket = socket.display();
    let Some(obstacle) = obstacle else {
        return format!(
            "permission denied at `{socket}`: connecting needs write permission on the socket and search permission on \
             every directory above it; run as root, or change owner or mode"
        );
    };
    let Obstacle { path, is_directory, owner, group, mode } = obstacle;
    let needed = if *is_directory { 0o1 } else { 0o2 };
    if process.overrides_modes || process.is_allowed(obstacle, needed) {
        return format!(
            "permission denied at `{socket}`, although owner and mode allow it: SELinux or AppArmor refuses; see the audit \
             log, and give this process the label of the socket's owner (in a container the type `spc_t`, or privileged)"
        );
    }
    let (what, right) = if *is_directory {
        (format!("directory `{}`", path.display()), "search")
    } else {
        ("the socket".to_owned(), "write")
    };
    let Process { user, group: own_group, .. } = process;
    let mut remedy = format!("run as user {owner}, or with the capability DAC_OVERRIDE");
    // A group helps only where its bit is set.
    if mode & (needed << 3) != 0 {
        remedy = format!("run with group {group}, as user {owner}, or with the capability DAC_OVERRIDE");
    }
    format!(
        "permission denied at `{socket}`: {what} belongs to user {owner}, group {group}, mode {mode:04o}, and user {user}, \
         group {own_group} has no {right} permission there; {remedy}"
    )
}

impl Process {
    /// Whether mode bits give it the right. Further groups are not looked at: with them, nothing would have been refused.
    fn is_allowed(&self, obstacle: &Obstacle<'_>, needed: u32) -> bool {
        let shift = if self.user == obstacle.owner {
            6
        } else if self.group == obstacle.group {
            3
        } else {
            0
        };
        obstacle.mode & (needed << shift) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str, is_directory: bool, owner: u32, group: u32, mode: u32, process: &Process) -> String {
        let obstacle = Obstacle { path: Path::new(path), is_directory, owner, group, mode };
        told(Path::new("/csi/csi.sock"), Some(&obstacle), process)
    }

    #[test]
    fn what_is_missing_is_said_with_who_lacks_it_where_and_the_remedy() {
        let bare_root = Process { user: 0, group: 0, overrides_modes: false };
        assert_eq!(
            text("/csi/csi.sock", false, 1000, 1000, 0o755, &bare_root),
            "permission denied at `/csi/csi.sock`: the socket belongs to user 1000, group 1000, mode 0755, and user 0, group \
             0 has no write permission there; run as user 1000, or with the capability DAC_OVERRIDE"
        );
        let nobody = Process { user: 65532, group: 65532, overrides_modes: false };
        assert_eq!(
            text("/csi", true, 0, 5, 0o750, &nobody),
            "permission denied at `/csi/csi.sock`: directory `/csi` belongs to user 0, group 5, mode 0750, and user 65532, \
             group 65532 has no search permission there; run with group 5, as user 0, or with the capability DAC_OVERRIDE"
        );
    }

    #[test]
    fn what_modes_allow_and_is_refused_was_refused_by_somebody_else() {
        let mighty = Process { user: 0, group: 0, overrides_modes: true };
        assert!(text("/csi/csi.sock", false, 1000, 1000, 0o700, &mighty).contains("SELinux or AppArmor"));
        let owner = Process { user: 1000, group: 7, overrides_modes: false };
        assert!(text("/csi/csi.sock", false, 1000, 1000, 0o200, &owner).contains("SELinux or AppArmor"));
        assert!(text("/csi/csi.sock", false, 1001, 7, 0o020, &owner).contains("SELinux or AppArmor"));
    }

    #[test]
    fn a_path_that_is_gone_meanwhile_is_told_in_general() {
        assert!(what_is_missing(Path::new("/dev/null/csi.sock")).contains("search permission on every directory"));
    }
}
