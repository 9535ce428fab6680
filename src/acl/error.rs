//! Why a policy, a token or a file of them cannot be used.

use std::path::PathBuf;

use thiserror::Error;

use super::jwks::FetchError;

/// What is wrong with a policy's text, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Complaint(String);

impl Complaint {
    /// Says it.
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Says where, too.
    pub(super) fn at(line: usize, text: impl std::fmt::Display) -> Self {
        Self(format!("Failed to parse ACL Policy: line {line}: {text}"))
    }
}

/// What is wrong with the files that say who may what.
#[derive(Debug, Error)]
pub enum AclError {
    /// The directory of policies cannot be read.
    #[error("cannot list the policies in `{}`", directory.display())]
    List {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is larger than any that makes sense.
    #[error("`{}` is larger than {limit} bytes", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The limit, in bytes.
        limit: usize,
    },
    /// A file's name is no policy's.
    #[error("`{}` has no name that a policy can have: 1 to 128 letters, digits and hyphens before `.hcl` or `.json`", file.display())]
    Name {
        /// The file.
        file: PathBuf,
    },
    /// Two files are the same policy.
    #[error("`{}` is a policy that another file is, too", file.display())]
    Twice {
        /// The later file.
        file: PathBuf,
    },
    /// A policy is not valid.
    #[error("`{}` is no valid policy", file.display())]
    Policy {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: Complaint,
    },
    /// What should say whose a policy is does not.
    #[error("`{}` does not say whose the policy is", file.display())]
    Attachment {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: Complaint,
    },
    /// A file says whose a policy is that is not there.
    #[error("there is no policy `{name}`, though a file says whose it is: `{name}.job.hcl` stands beside `{name}.hcl`")]
    Unattached {
        /// The policy's name.
        name: String,
    },
    /// A set of keys is none. What is in it is not said: it may be another file, and secret.
    #[error("`{place}` is no JSON Web Key Set: line {line}, column {column}")]
    Keys {
        /// The file or address.
        place: String,
        /// Where it stops being one.
        line: usize,
        /// The same.
        column: usize,
    },
    /// A set of keys without any that identities can be signed with.
    #[error("`{place}` has no key with a `kid` for RS256 or EdDSA (Ed25519)")]
    NoKeys {
        /// The file or address.
        place: String,
    },
    /// An address of keys does not answer.
    #[error("cannot get keys from `{address}`")]
    Fetch {
        /// The address.
        address: String,
        /// Why not.
        source: FetchError,
    },
    /// The file of tokens is not what this program writes. What is in it is not said: it may be secret.
    #[error("`{}` is no file of tokens: line {line}, column {column}; `acl token create` writes it", file.display())]
    Tokens {
        /// The file.
        file: PathBuf,
        /// Where it stops being one.
        line: usize,
        /// The same.
        column: usize,
    },
    /// A token is not one that this program keeps.
    #[error("`{}` cannot hold such a token: {what}", file.display())]
    Token {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Others may write the file of tokens, and so make themselves one.
    #[error("`{}` may be written by others (mode {mode:o}); `chmod 600` it", file.display())]
    Mode {
        /// The file.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file of tokens cannot be written.
    #[error("cannot write `{}`", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// No token has that accessor id, or more than one begins so. What was asked for is not said: a secret may have been
    /// given in its place.
    #[error("no token, or no single one, has this accessor id; `acl token list` shows all")]
    NoSuchToken,
    /// Random numbers are not to be had.
    #[error("cannot make a secret: the system gives no random numbers")]
    Random,
}
