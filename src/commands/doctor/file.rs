//! The path, the file, and whether we may.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Access, access};

use super::{Ended, Findings, Layer};
use crate::csi::LONGEST_DIRECT_PATH;

const NOT_STARTED: &str = "the driver has not started yet, or listens elsewhere; compare with its own `--endpoint` or \
                           `CSI_ENDPOINT`; in a container, see that the directory of the socket is mounted, and not a \
                           copy of it";
const DENIED: &str = "run as root or with the user or group that owns the directories and the socket; where both look right, \
                      SELinux or AppArmor refuses: see the audit log, and give the container the label of the socket";

/// Looks at all three.
pub(super) fn examine(socket: &Path, findings: &mut Findings) -> Result<(), Ended> {
    path(socket, findings)?;
    file(socket, findings)?;
    match access(socket, Access::WRITE_OK) {
        Ok(()) => {
            findings.ok(Layer::Permission, "the socket can be written to, which connecting needs");
            Ok(())
        }
        Err(error) => {
            let text = format!("the socket cannot be written to, which connecting needs: {}", plain(&error.into()));
            Err(findings.not_ok(Layer::Permission, &text, DENIED))
        }
    }
}

fn path(socket: &Path, findings: &mut Findings) -> Result<(), Ended> {
    let mut directories: Vec<&Path> = socket.ancestors().skip(1).collect();
    directories.reverse();
    for directory in &directories {
        let shown = directory.display();
        match fs::metadata(directory) {
            Ok(data) if !data.is_dir() => {
                let text = format!("`{shown}` is no directory");
                return Err(findings.not_ok(Layer::Path, &text, NOT_STARTED));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = format!("there is no directory `{shown}`");
                return Err(findings.not_ok(Layer::Path, &text, NOT_STARTED));
            }
            Err(error) => {
                let text = format!("`{shown}` cannot be looked at: {}", plain(&error));
                return Err(findings.not_ok(Layer::Path, &text, DENIED));
            }
        }
        if let Err(error) = access(*directory, Access::EXEC_OK) {
            let text = format!("`{shown}` cannot be searched: {}", plain(&error.into()));
            return Err(findings.not_ok(Layer::Path, &text, DENIED));
        }
    }
    let length = socket.as_os_str().len();
    let mut text = "every directory is there and can be searched".to_owned();
    if length > LONGEST_DIRECT_PATH {
        text.push_str(&format!(
            "; its {length} bytes are no problem here, but programs that dial it directly can use {LONGEST_DIRECT_PATH} at \
             most: a shorter path, or a link in a shorter place, helps them"
        ));
    }
    findings.ok(Layer::Path, &text);
    Ok(())
}

fn file(socket: &Path, findings: &mut Findings) -> Result<(), Ended> {
    let link = match fs::symlink_metadata(socket) {
        Ok(data) => data.file_type().is_symlink().then(|| fs::read_link(socket).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(findings.not_ok(Layer::File, "there is no file of this name", NOT_STARTED));
        }
        Err(error) => {
            let text = format!("it cannot be looked at: {}", plain(&error));
            return Err(findings.not_ok(Layer::File, &text, DENIED));
        }
    };
    let leads = link.map(|target| format!("a link to `{}`, ", target.display())).unwrap_or_default();
    let data = match fs::metadata(socket) {
        Ok(data) => data,
        Err(error) => {
            let text = format!("{leads}which leads nowhere: {}", plain(&error));
            let remedy = "a link must lead to a path that exists from here, too: in a container, mount its target";
            return Err(findings.not_ok(Layer::File, &text, remedy));
        }
    };
    let kind = kind(&data);
    let owner = format!("mode {:04o}, user {}, group {}", data.mode() & 0o7777, data.uid(), data.gid());
    let text = format!("{leads}{kind}, {owner}");
    if data.file_type().is_socket() {
        findings.ok(Layer::File, &text);
        return Ok(());
    }
    let remedy = if data.is_dir() {
        "give the socket itself, not its directory; container runtimes make a directory where a socket to be mounted is \
         missing: mount the directory that holds it instead"
    } else {
        "nothing can listen here: another path is meant, or something put a file in the socket's place; the driver makes \
         its socket anew when it starts, once that is out of the way"
    };
    Err(findings.not_ok(Layer::File, &text, remedy))
}

fn kind(data: &Metadata) -> &'static str {
    let kind = data.file_type();
    if kind.is_socket() {
        "a socket"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_file() {
        "a regular file"
    } else {
        "a device or pipe"
    }
}

/// The system's words without its number.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error ").next().unwrap_or(&text).to_lowercase()
}
