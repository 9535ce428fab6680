//! Tokens: random secrets, of which only hashes are kept, and the file that keeps them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use aws_lc_rs::{digest, rand};
use serde::{Deserialize, Serialize};

use super::error::AclError;
use crate::domain::time::Timestamp;

/// Largest file of tokens, in bytes: some twenty thousand of them.
const LARGEST: usize = 8 << 20;
/// Shortest beginning of an accessor id that names a token.
const SHORTEST_PREFIX: usize = 8;
/// Longest name of a token, as Nomad's.
const LONGEST_NAME: usize = 256;

/// What opens the API: 122 random bits, written as a UUID.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 36]);

/// SHA-256 of a secret in lower case. A slow hash would add nothing: nobody guesses 122 bits.
pub(super) type Hash = [u8; 32];

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn random() -> Result<Self, AclError> {
        let mut bytes = [0_u8; 16];
        rand::fill(&mut bytes).map_err(|_| AclError::Random)?;
        // Version 4, as Nomad's.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut text = [b'-'; 36];
        let places = (0..36).filter(|place| !HYPHENS.contains(place));
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]);
        for (place, digit) in places.zip(digits) {
            text[place] = b"0123456789abcdef"[usize::from(digit)];
        }
        Ok(Self(text))
    }

    /// The secret that a text is, in any case; `None` if it is no UUID.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut secret: [u8; 36] = text.try_into().ok()?;
        let is_one = secret
            .iter()
            .enumerate()
            .all(|(place, byte)| if HYPHENS.contains(&place) { *byte == b'-' } else { byte.is_ascii_hexdigit() });
        secret.make_ascii_lowercase();
        is_one.then_some(Self(secret))
    }

    /// The secret itself, for the one who asked for it.
    #[must_use]
    pub fn reveal(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    pub(super) fn hash(&self) -> Hash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &self.0).as_ref());
        hash
    }
}

/// Where a UUID has them.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What its policies say.
    Client,
    /// Everything.
    Management,
}

impl Kind {
    /// As Nomad writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Management => "management",
        }
    }
}

/// A token as it is kept: everything but its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// What it is called where its secret must not be.
    pub accessor_id: String,
    /// The hash of its secret, in hexadecimal digits.
    secret_sha256: String,
    /// For people; may be empty.
    #[serde(default)]
    pub name: String,
    /// What it may do.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Names of policies; those that do not exist allow nothing.
    #[serde(default)]
    pub policies: Vec<String>,
    /// Since when it exists, RFC 3339.
    pub create_time: String,
    /// When it ends, RFC 3339; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration_time: Option<String>,
}

impl Token {
    /// A new token, and its secret, which is nowhere else.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn create(
        kind: Kind,
        name: String,
        policies: Vec<String>,
        now: Timestamp,
        expires: Option<Timestamp>,
    ) -> Result<(Self, Secret), AclError> {
        let secret = Secret::random()?;
        let token = Self {
            accessor_id: Secret::random()?.reveal(),
            secret_sha256: secret.hash().iter().map(|byte| format!("{byte:02x}")).collect(),
            name,
            kind,
            policies,
            create_time: written(now),
            expiration_time: expires.map(written),
        };
        Ok((token, secret))
    }

    pub(super) fn hash(&self) -> Option<Hash> {
        let digits = self.secret_sha256.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(hash)
    }

    /// When it ends; `None`: never.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        self.expiration_time.as_deref().and_then(read_time)
    }

    /// What is wrong with it, if anything is.
    fn complaint(&self) -> Option<&'static str> {
        if Secret::parse(self.accessor_id.as_bytes()).is_none() {
            Some("its accessor_id is no UUID")
        } else if self.hash().is_none() {
            Some("its secret_sha256 is no SHA-256 in hexadecimal digits")
        } else if self.name.len() > LONGEST_NAME {
            Some("its name is longer than 256 bytes")
        } else if read_time(&self.create_time).is_none() {
            Some("its create_time is no RFC 3339 time")
        } else if self.expiration_time.as_deref().is_some_and(|time| read_time(time).is_none()) {
            Some("its expiration_time is no RFC 3339 time")
        } else {
            None
        }
    }
}

fn written(time: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.0)).unwrap_or_default().to_string()
}

fn read_time(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    // Beyond what fits: so far away that it is as good as the end of what does.
    Some(Timestamp(i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)))
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    tokens: Vec<Token>,
}

/// Reads a file of tokens. `None`: there is no such file.
///
/// # Errors
/// It cannot be read, others may write it, or it is not what [`add`] writes.
pub fn read(file: &Path) -> Result<Option<Vec<Token>>, AclError> {
    let failed = |source| AclError::Read { file: file.to_owned(), source };
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = opened.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(AclError::Mode { file: file.to_owned(), mode });
    }
    let mut text = Vec::new();
    opened.take(LARGEST as u64 + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() > LARGEST {
        return Err(AclError::TooLarge { file: file.to_owned(), limit: LARGEST });
    }
    let written: Written = serde_json::from_slice(&text).map_err(|error| AclError::Tokens {
        file: file.to_owned(),
        line: error.line(),
        column: error.column(),
    })?;
    let wrong = |what| AclError::Token { file: file.to_owned(), what };
    let mut hashes = std::collections::HashSet::new();
    for token in &written.tokens {
        if let Some(what) = token.complaint() {
            return Err(wrong(what));
        }
        if !hashes.insert(token.hash()) {
            return Err(wrong("its secret is another one's, too"));
        }
    }
    Ok(Some(written.tokens))
}

/// Adds a token to a file, and makes the file if there is none.
///
/// # Errors
/// The token cannot be kept, or the file cannot be read or written.
pub fn add(file: &Path, token: Token) -> Result<(), AclError> {
    // Whatever could not be read again would take all others with it.
    if let Some(what) = token.complaint() {
        return Err(AclError::Token { file: file.to_owned(), what });
    }
    change(file, |tokens| {
        tokens.push(token);
        Ok(())
    })
}

/// Removes the token with this accessor id, or with the only one that begins so (8 signs or more), and returns it.
///
/// # Errors
/// There is no such token, or more than one, or the file cannot be read or written.
pub fn revoke(file: &Path, accessor: &str) -> Result<Token, AclError> {
    change(file, |tokens| {
        let accessor = accessor.to_ascii_lowercase();
        let is_it = |token: &Token| accessor.len() >= SHORTEST_PREFIX && token.accessor_id.starts_with(&accessor);
        let found: Vec<usize> = (0..tokens.len()).filter(|place| is_it(&tokens[*place])).collect();
        match found[..] {
            [place] => Ok(tokens.remove(place)),
            _ => Err(AclError::NoSuchToken),
        }
    })
}

/// Reads, changes and replaces a file at once for all who do so.
fn change<T>(file: &Path, change: impl FnOnce(&mut Vec<Token>) -> Result<T, AclError>) -> Result<T, AclError> {
    let failed = |source| AclError::Write { file: file.to_owned(), source };
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // The directory's own lock: the file itself is another one after each change.
    let lock = File::open(directory).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let mut tokens = read(file)?.unwrap_or_default();
    let result = change(&mut tokens)?;
    let mut text = serde_json::to_vec_pretty(&Written { tokens }).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    if text.len() > LARGEST {
        return Err(AclError::TooLarge { file: file.to_owned(), limit: LARGEST });
    }
    let mut written = tempfile::Builder::new()
        .prefix(".acl-tokens-")
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)
        .map_err(failed)?;
    written.write_all(&text).map_err(failed)?;
    // Whoever makes tokens is often root, and the gateway that reads them is not: who may read the file stays as it was.
    if let Ok(before) = std::fs::metadata(file) {
        let made = written.as_file().metadata().map_err(failed)?;
        if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
            fchown(written.as_file(), Some(before.uid()), Some(before.gid())).map_err(failed)?;
        }
        let mode = std::fs::Permissions::from_mode(before.mode() & 0o777);
        written.as_file().set_permissions(mode).map_err(failed)?;
    }
    written.as_file().sync_all().map_err(failed)?;
    written.persist(file).map_err(|error| failed(error.error))?;
    lock.sync_all().map_err(failed)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str) -> (Token, Secret) {
        Token::create(Kind::Client, name.to_owned(), vec!["readers".to_owned()], Timestamp(1_000_000_000), None)
            .expect("random numbers")
    }

    #[test]
    fn a_secret_is_a_uuid_of_version_four_that_debug_does_not_show() {
        let secret = Secret::random().expect("random numbers");
        let text = secret.reveal();
        assert_eq!(text.len(), 36);
        assert_eq!(&text[14..15], "4");
        assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
        assert!(Secret::parse(text.to_uppercase().as_bytes()) == Some(secret.clone()), "in any case");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert!(Secret::random().expect("random numbers") != secret);
        for other in ["", "not-a-uuid", &text[1..], &format!("{text}0"), &text.replace('-', "0")] {
            assert!(Secret::parse(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn the_hash_is_sha_256_of_the_text() {
        let secret = Secret::parse(b"00000000-0000-0000-0000-000000000000").expect("a UUID");
        let hash: String = secret.hash().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, "12b9377cbe7e5c94e8a70d9d23929523d14afa954793130f8a3959c7b849aca8");
    }

    #[test]
    fn what_is_added_is_read_and_what_is_revoked_is_gone() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("tokens.json");
        assert_eq!(read(&file).expect("readable"), None);
        let ((first, secret), (second, _)) = (token("first"), token("second"));
        add(&file, first.clone()).expect("written");
        add(&file, second.clone()).expect("written");
        assert_eq!(std::fs::metadata(&file).expect("a file").mode() & 0o7777, 0o600);
        assert_eq!(read(&file).expect("readable"), Some(vec![first.clone(), second.clone()]));
        let text = std::fs::read_to_string(&file).expect("text");
        assert!(!text.contains(&secret.reveal()));
        assert!(matches!(revoke(&file, &first.accessor_id[..7]), Err(AclError::NoSuchToken)), "too short to be one");
        assert!(matches!(revoke(&file, &secret.reveal()), Err(AclError::NoSuchToken)));
        assert_eq!(revoke(&file, &first.accessor_id[..8].to_uppercase()).expect("revoked"), first);
        assert_eq!(read(&file).expect("readable"), Some(vec![second]));
        let left = std::fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(left, 1, "no temporary file stays");
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("tokens.json");
        add(&file, token("a").0).expect("written");
        assert!(matches!(add(&file, token(&"x".repeat(257)).0), Err(AclError::Token { .. })));
        assert!(matches!(add(&file, token("b").0.with_policy("x".repeat(LARGEST))), Err(AclError::TooLarge { .. })));
        assert_eq!(read(&file).expect("readable").map(|tokens| tokens.len()), Some(1));
    }

    impl Token {
        fn with_policy(mut self, name: String) -> Self {
            self.policies.push(name);
            self
        }
    }

    #[test]
    fn whoever_could_read_the_file_still_can() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("tokens.json");
        add(&file, token("a").0).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o440)).expect("permitted");
        // Only root gives files away.
        let owner = if rustix::process::geteuid().is_root() { 65_534 } else { rustix::process::geteuid().as_raw() };
        std::os::unix::fs::chown(&file, Some(owner), None).expect("given away");
        add(&file, token("b").0).expect("written");
        let found = std::fs::metadata(&file).expect("a file");
        assert_eq!((found.uid(), found.mode() & 0o7777), (owner, 0o440));
    }

    #[test]
    fn many_who_add_at_once_lose_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = &directory.path().join("tokens.json");
        std::thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || add(file, token(&number.to_string()).0).expect("written"));
            }
        });
        assert_eq!(read(file).expect("readable").map(|tokens| tokens.len()), Some(8));
    }

    #[test]
    fn a_file_that_others_may_write_or_that_is_none_is_refused_without_quoting_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("tokens.json");
        add(&file, token("a").0).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o620)).expect("permitted");
        assert!(matches!(read(&file), Err(AclError::Mode { mode: 0o620, .. })));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("permitted");
        assert!(read(&file).is_ok(), "hashes may be read");
        let secret = "5ec2e7f0-0000-4000-8000-000000000000";
        let kept = |accessor: &str, hash: &str, time: &str| {
            format!(
                r#"{{"tokens":[{{"accessor_id":"{accessor}","secret_sha256":"{hash}","type":"client","create_time":"{time}"}}]}}"#
            )
        };
        let (uuid, hash, time) = ("00000000-0000-4000-8000-000000000000", "0".repeat(64), "2026-01-02T03:04:05Z");
        for text in [
            secret.to_owned(),
            format!(r#"{{"tokens":["{secret}"]}}"#),
            format!(r#"{{"tokens":[{{"{secret}":1}}]}}"#),
            kept(secret, secret, time),
            kept("x", &hash, time),
            kept(uuid, &hash, secret),
            kept(uuid, &hash, time).replace("client", secret),
        ] {
            std::fs::write(&file, &text).expect("written");
            let error = read(&file).expect_err(&text);
            let text = format!("{error} {error:?} {}", crate::telemetry::Chain(&error));
            assert!(!text.contains("5ec2e7f0"), "{text}");
        }
        std::fs::write(&file, kept(uuid, &hash, time)).expect("written");
        assert!(read(&file).is_ok());
    }
}
