//! The files that policies, attachments, tokens and keys are read from, and whether they are still the same.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::access::Settings;
use super::attachment::Attachment;
use super::error::AclError;
use super::identity::Keys;
use super::jwks::{KeySource, LARGEST};
use super::policy::{LONGEST, Policy};

/// What a policy's name ends with in the file that says whose it is.
const ATTACHED: &str = ".job";

/// A file as it is told from others: path, device, inode, size, times of change.
pub(super) type Stamp = (PathBuf, u64, u64, u64, [i64; 4]);

/// All files as they are now.
pub(super) fn stamp(settings: &Settings) -> Vec<Stamp> {
    let mut paths: Vec<PathBuf> = settings.tokens_file.iter().cloned().collect();
    if let Some(KeySource::File(file)) = &settings.keys {
        paths.push(file.clone());
    }
    if let Some(directory) = &settings.policy_directory {
        // Whatever cannot be listed is found again as an error when it is read.
        paths.extend(policy_files(directory).unwrap_or_default());
        paths.push(directory.clone());
    }
    let stamp = |path: PathBuf| {
        let found = std::fs::metadata(&path).ok()?;
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        Some((path, found.dev(), found.ino(), found.size(), times))
    };
    paths.into_iter().filter_map(stamp).collect()
}

/// The files in a directory that could be policies, in order of their names.
pub(super) fn policy_files(directory: &Path) -> Result<Vec<PathBuf>, AclError> {
    let failed = |source| AclError::List { directory: directory.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // Editors and Kubernetes keep hidden files beside them.
        let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_policy = path.extension().is_some_and(|ending| ending == "hcl" || ending == "json");
        if !is_hidden && is_policy {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A policy's name in a file's, and whether that says whose the policy is.
///
/// # Errors
/// No policy can have that name.
fn name_of(file: &Path) -> Result<(&str, bool), AclError> {
    let stem = file.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let (name, is_attachment) = stem.strip_suffix(ATTACHED).map_or((stem, false), |name| (name, true));
    let is_name =
        (1..=128).contains(&name.len()) && name.chars().all(|part| part.is_ascii_alphanumeric() || part == '-');
    if is_name { Ok((name, is_attachment)) } else { Err(AclError::Name { file: file.to_owned() }) }
}

/// What one file in the directory of policies says.
#[derive(Debug)]
pub enum PolicyFile {
    /// What is allowed: the text, and what it means.
    Rules(String, Policy),
    /// Whose it is.
    Attachment(Attachment),
}

/// Reads one file of the directory of policies: the policy's name, and what is said of it.
///
/// # Errors
/// It cannot be read, its name is no policy's, or it is not valid.
pub fn read_policy(file: &Path) -> Result<(String, PolicyFile), AclError> {
    let failed = |source| AclError::Read { file: file.to_owned(), source };
    let (name, is_attachment) = name_of(file)?;
    let mut text = String::new();
    let opened = File::open(file).map_err(failed)?;
    opened.take(LONGEST as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > LONGEST {
        return Err(AclError::TooLarge { file: file.to_owned(), limit: LONGEST });
    }
    let said = if is_attachment {
        let attachment = Attachment::parse(&text);
        PolicyFile::Attachment(attachment.map_err(|source| AclError::Attachment { file: file.to_owned(), source })?)
    } else {
        let policy = Policy::parse(&text).map_err(|source| AclError::Policy { file: file.to_owned(), source })?;
        PolicyFile::Rules(text, policy)
    };
    Ok((name.to_owned(), said))
}

/// Reads a file of keys.
///
/// # Errors
/// It cannot be read, or holds none.
pub(super) fn read_keys(file: &Path) -> Result<Keys, AclError> {
    let failed = |source| AclError::Read { file: file.to_owned(), source };
    let mut text = Vec::new();
    File::open(file).map_err(failed)?.take(LARGEST as u64 + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() > LARGEST {
        return Err(AclError::TooLarge { file: file.to_owned(), limit: LARGEST });
    }
    keys(&text, &file.to_string_lossy())
}

/// Reads keys that came from a file or an address.
///
/// # Errors
/// There are none.
pub(super) fn keys(text: &[u8], place: &str) -> Result<Keys, AclError> {
    let wrong = |error: serde_json::Error| AclError::Keys {
        place: place.to_owned(),
        line: error.line(),
        column: error.column(),
    };
    let keys = Keys::parse(text).map_err(wrong)?;
    if keys.count() == 0 { Err(AclError::NoKeys { place: place.to_owned() }) } else { Ok(keys) }
}
