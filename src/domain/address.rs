//! Addresses of drivers, in every spelling seen in the field (`fingerprinting.md` section 6, item 21).

use std::fmt;
use std::path::{Path, PathBuf};

/// Why an address names no unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadAddress {
    /// Nothing there.
    Empty,
    /// Another scheme than `unix`.
    Scheme(String),
    /// An abstract socket: no file to watch.
    Abstract,
    /// Not an absolute path.
    Relative,
}

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("must name a socket"),
            Self::Scheme(scheme) => write!(f, "is a `{scheme}:` address, and only unix sockets are supported"),
            Self::Abstract => f.write_str("is an abstract socket, and those are not supported"),
            Self::Relative => f.write_str("must be an absolute path"),
        }
    }
}

impl std::error::Error for BadAddress {}

/// The path that an address means: `unix:///csi/csi.sock`, `unix:/csi/csi.sock`, `/csi/csi.sock`, and
/// `unix://csi/csi.sock`, which common drivers take for `/csi/csi.sock`.
///
/// # Errors
/// [`BadAddress`] says what it is instead.
pub fn parse(address: &str) -> Result<PathBuf, BadAddress> {
    let rest = match address.split_once(':') {
        _ if address.starts_with('@') => return Err(BadAddress::Abstract),
        Some((scheme, rest)) if !scheme.contains('/') => match scheme.to_ascii_lowercase().as_str() {
            "unix" => rest,
            "unix-abstract" => return Err(BadAddress::Abstract),
            _ => return Err(BadAddress::Scheme(scheme.to_owned())),
        },
        _ => address,
    };
    let path = match rest.strip_prefix("//") {
        Some("") => return Err(BadAddress::Empty),
        Some(path) if path.starts_with('.') => return Err(BadAddress::Relative),
        Some(path) => format!("/{}", path.trim_start_matches('/')),
        None => rest.to_owned(),
    };
    match path.as_str() {
        "" | "/" => Err(BadAddress::Empty),
        path if path.starts_with('@') => Err(BadAddress::Abstract),
        path if !path.starts_with('/') => Err(BadAddress::Relative),
        path => Ok(PathBuf::from(path)),
    }
}

/// A path of the host, as it is seen from here.
#[must_use]
pub fn under(host_root: Option<&Path>, path: &Path) -> PathBuf {
    match host_root {
        Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_seen_in_the_field_means_the_same_socket() {
        for address in [
            "unix:///csi/csi.sock",
            "unix://csi/csi.sock",
            "unix:/csi/csi.sock",
            "/csi/csi.sock",
            "UNIX:///csi/csi.sock",
        ] {
            assert_eq!(parse(address), Ok(PathBuf::from("/csi/csi.sock")), "{address}");
        }
    }

    #[test]
    fn what_is_no_unix_socket_is_refused_by_name() {
        assert_eq!(parse("tcp://127.0.0.1:10000"), Err(BadAddress::Scheme("tcp".into())));
        assert_eq!(parse("unix-abstract:csi"), Err(BadAddress::Abstract));
        assert_eq!(parse("@csi"), Err(BadAddress::Abstract));
        assert_eq!(parse("unix://./csi.sock"), Err(BadAddress::Relative));
        assert_eq!(parse("csi.sock"), Err(BadAddress::Relative));
        assert_eq!(parse(""), Err(BadAddress::Empty));
        assert_eq!(parse("unix://"), Err(BadAddress::Empty));
    }
}
