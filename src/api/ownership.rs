//! Users and groups of this host, by the two files that every host has.
//!
//! The binary is static: what the system's libraries would ask besides (a directory of users on the network) is not asked
//! here. Numbers are nobody's business to know.

use std::io;
use std::path::Path;

use rustix::fs::{Gid, Mode, Uid, chmod, chown};

use crate::domain::socket::SocketFile;

/// User and group, as the kernel knows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Owner {
    user: Option<u32>,
    group: Option<u32>,
}

/// Who is meant.
///
/// # Errors
/// A name that nobody knows.
pub(super) fn find(wanted: &SocketFile) -> Result<Owner, String> {
    Ok(Owner {
        user: number(wanted.user.as_deref(), Path::new("/etc/passwd"))?,
        group: number(wanted.group.as_deref(), Path::new("/etc/group"))?,
    })
}

/// Both files have the name first and the number third.
fn number(name: Option<&str>, file: &Path) -> Result<Option<u32>, String> {
    let Some(name) = name else { return Ok(None) };
    if let Ok(number) = name.parse::<u32>() {
        return Ok(Some(number));
    }
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let of_line = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    text.lines().find_map(of_line).map(Some).ok_or_else(|| name.to_owned())
}

/// Gives a file away, then says who may use it: what lets its new group in should never let the old one in.
///
/// # Errors
/// The system does not let us.
pub(super) fn give(path: &Path, mode: Option<u32>, owner: Owner) -> io::Result<()> {
    if owner != Owner::default() {
        // The highest number means "leave it" to the kernel; it is nobody's.
        let (user, group) = (owner.user.filter(|id| *id != u32::MAX), owner.group.filter(|id| *id != u32::MAX));
        chown(path, user.map(Uid::from_raw), group.map(Gid::from_raw))?;
    }
    if let Some(mode) = mode {
        chmod(path, Mode::from_raw_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found_in_files_of_that_form() {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("passwd");
        std::fs::write(&file, "root:x:0:0:root:/root:/bin/sh\nbroken\nnomad:x:104:105::/:/bin/false\n")
            .expect("written");
        let found = |name| number(name, &file);
        assert_eq!(found(Some("root")), Ok(Some(0)));
        assert_eq!(found(Some("nomad")), Ok(Some(104)));
        assert_eq!(found(Some("65534")), Ok(Some(65534)));
        assert_eq!(found(None), Ok(None));
        for nobody in ["broken", "nomad:x", "noma", "x"] {
            assert_eq!(found(Some(nobody)), Err(nobody.to_owned()));
        }
        assert_eq!(number(Some("root"), &folder.path().join("none")), Err("root".to_owned()));
    }
}
