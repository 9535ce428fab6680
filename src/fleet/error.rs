//! What can go wrong with an etcd, told apart by what its owner has to do about it.

use std::sync::Arc;

use thiserror::Error;
use tonic::{Code, Status};

use crate::domain::fleet::FleetTrouble;
use crate::telemetry::Chain;

/// What kind of trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nobody answers there.
    Away,
    /// No answer in time; it may have been done all the same.
    Slow,
    /// The member that answered knows no leader.
    NoLeader,
    /// Its database has reached its limit.
    Full,
    /// Name or password are wrong, or their file.
    Login,
    /// The user may not do this.
    Denied,
    /// A login that has run out: the next one may do.
    Session,
    /// One side's certificate is not good to the other.
    Certificate,
    /// What was to be watched from is compacted away.
    Compacted,
    /// The lease has run out, or another agent acts for the host.
    LeaseLost,
    /// Its revision has fallen.
    Restored,
    /// Anything else.
    Refused,
}

impl Fault {
    /// The kind in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Slow => "slow",
            Self::NoLeader => "no_leader",
            Self::Full => "full",
            Self::Login => "login",
            Self::Denied => "denied",
            Self::Session => "session",
            Self::Certificate => "certificate",
            Self::Compacted => "compacted",
            Self::LeaseLost => "lease_lost",
            Self::Restored => "restored",
            Self::Refused => "refused",
        }
    }

    /// What it means, and what to do about it where somebody has to.
    fn remedy(self) -> &'static str {
        match self {
            Self::Away => "etcd cannot be reached",
            Self::Slow => "etcd does not answer in time",
            Self::NoLeader => "etcd has no leader: most of its members are away",
            Self::Full => {
                "etcd is full: its owner has to compact it, defragment it and clear the alarm (`etcdctl alarm disarm`)"
            }
            Self::Login => "etcd refuses the login: see --etcd-username and --etcd-password-file",
            Self::Denied => "etcd's user may not do this: it needs to read and write everything under --etcd-prefix",
            Self::Session => "etcd no longer knows the login",
            Self::Certificate => "TLS with etcd fails: see --etcd-cafile, --etcd-certfile and --etcd-keyfile",
            Self::Compacted => "etcd no longer has what was not read yet",
            Self::LeaseLost => "etcd has given this host up, or another agent has its id",
            Self::Restored => {
                "etcd's revision has fallen: it was restored without `--bump-revision`, and readers may hold larger indexes"
            }
            Self::Refused => "etcd refuses",
        }
    }
}

/// What etcd answered, or why it did not.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Answer(Box<str>);

impl From<&Status> for Answer {
    /// tonic prints a status with all that is in it, and what is below it once more.
    fn from(status: &Status) -> Self {
        let root = std::iter::successors(std::error::Error::source(status), |error| error.source()).last();
        let root = root.map(ToString::to_string).unwrap_or_default();
        let text = match status.message() {
            "" => status.code().description().to_owned(),
            message if message.contains(&root) => message.to_owned(),
            message => format!("{message}: {root}"),
        };
        Self(text.into())
    }
}

/// An operation on etcd that failed.
#[derive(Debug, Error)]
pub enum EtcdError {
    /// A call.
    #[error("etcd: cannot {operation}")]
    Call {
        /// What was being done.
        operation: &'static str,
        /// Which kind of trouble that is.
        fault: Fault,
        /// etcd's answer, or why there is none.
        source: Answer,
    },
    /// The file of the password.
    #[error("etcd: cannot read the password's file")]
    Password(#[source] std::io::Error),
    /// No failed call.
    #[error("etcd: {what}")]
    State {
        /// What happened.
        what: String,
        /// Which kind of trouble that is.
        fault: Fault,
    },
}

impl EtcdError {
    /// A call that failed.
    #[must_use]
    pub fn call(operation: &'static str, status: &Status) -> Self {
        Self::Call { operation, fault: fault_of(status), source: Answer::from(status) }
    }

    /// Something that no call says.
    #[must_use]
    pub fn state(fault: Fault, what: impl Into<String>) -> Self {
        Self::State { what: what.into(), fault }
    }

    /// Which kind of trouble it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Call { fault, .. } | Self::State { fault, .. } => *fault,
            Self::Password(_) => Fault::Login,
        }
    }

    /// Whether etcd may be read all the same.
    pub(super) fn is_of_writes_only(&self) -> bool {
        matches!(self.fault(), Fault::Full | Fault::Denied)
    }

    /// Whether an answer was longer than is taken; that is this side's refusal, not etcd's.
    pub(super) fn is_too_long(&self) -> bool {
        self.says("decoded message length too large")
    }

    /// Whether an answer says this.
    pub(super) fn says(&self, text: &str) -> bool {
        matches!(self, Self::Call { source, .. } if source.0.contains(text))
    }

    /// The same for those who read `/readyz`, metrics and logs.
    #[must_use]
    pub fn trouble(&self) -> FleetTrouble {
        let fault = self.fault();
        let text: Arc<str> = format!("{} ({})", fault.remedy(), Chain(self)).into();
        FleetTrouble { kind: fault.as_str(), text }
    }
}

fn fault_of(status: &Status) -> Fault {
    let message = status.message();
    match status.code() {
        Code::ResourceExhausted if message.contains("space exceeded") => Fault::Full,
        Code::InvalidArgument
            if message.contains("authentication failed") || message.contains("user name is empty") =>
        {
            Fault::Login
        }
        Code::InvalidArgument | Code::Unauthenticated if message.contains("auth") => Fault::Session,
        // A change of users or roles elsewhere: the token is of before it.
        Code::InvalidArgument if message.contains("revision of auth store is old") => Fault::Session,
        Code::PermissionDenied => Fault::Denied,
        Code::OutOfRange if message.contains("compacted") => Fault::Compacted,
        Code::NotFound if message.contains("lease") => Fault::LeaseLost,
        Code::DeadlineExceeded | Code::Cancelled => Fault::Slow,
        Code::Unavailable if message.contains("no leader") => Fault::NoLeader,
        Code::Unavailable if message.contains("timed out") => Fault::Slow,
        Code::Unavailable | Code::Unknown if is_about_certificates(status) => Fault::Certificate,
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Aborted | Code::FailedPrecondition
            if !message.starts_with("etcdserver:") =>
        {
            Fault::Away
        }
        Code::Unavailable => Fault::Away,
        _ => Fault::Refused,
    }
}

/// Whether a handshake is behind it. (hyper wraps what the connector says; only its text comes through all layers.)
fn is_about_certificates(status: &Status) -> bool {
    let text = Chain(status).to_string();
    let text = text.to_ascii_lowercase();
    ["certificate", "tls", "handshake", "fatal alert"].iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcd_says_is_told_apart_by_what_its_owner_has_to_do() {
        for (code, message, fault) in [
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Fault::Full),
            (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password", Fault::Login),
            (Code::Unauthenticated, "etcdserver: invalid auth token", Fault::Session),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old", Fault::Session),
            (Code::InvalidArgument, "etcdserver: user name is empty", Fault::Login),
            (Code::PermissionDenied, "etcdserver: permission denied", Fault::Denied),
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", Fault::Compacted),
            (Code::NotFound, "etcdserver: requested lease not found", Fault::LeaseLost),
            (Code::Unavailable, "etcdserver: no leader", Fault::NoLeader),
            (Code::Unavailable, "etcdserver: request timed out", Fault::Slow),
            (Code::Unavailable, "tcp connect error", Fault::Away),
            (Code::Unavailable, "received fatal alert: CertificateExpired", Fault::Certificate),
            (Code::InvalidArgument, "etcdserver: too many operations in txn request", Fault::Refused),
        ] {
            let error = EtcdError::call("write", &Status::new(code, message));
            assert_eq!(error.fault(), fault, "{message}");
            assert!(error.trouble().text.contains(message), "{message}");
        }
    }
}
