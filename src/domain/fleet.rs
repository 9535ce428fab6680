//! Words about fleets: where an etcd is, and how this process stands with it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// One member of an etcd, as a client reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdServer {
    /// A name or an address, an IPv6 one without brackets.
    pub host: Box<str>,
    /// Its client port.
    pub port: u16,
    /// Whether TLS is spoken.
    pub is_tls: bool,
}

/// The port on which etcd serves clients.
const CLIENT_PORT: u16 = 2379;

impl EtcdServer {
    /// Reads `http://HOST:PORT`, `https://HOST:PORT` or `HOST:PORT`; the port is etcd's where none is given.
    ///
    /// # Errors
    /// What is wrong, to stand behind the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const NO_ADDRESS: &str = "is no etcd server: https://HOST:PORT, http://HOST:PORT or HOST:PORT";
        let (is_tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return Err(NO_ADDRESS),
            None => (false, text),
        };
        if rest.contains('@') {
            return Err("must not hold a password: it belongs in --etcd-username and --etcd-password-file");
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or(NO_ADDRESS)?)),
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let is_bracketed = rest.starts_with('[');
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_host =
            if is_bracketed { host.parse::<IpAddr>().is_ok() } else { !host.is_empty() && host.chars().all(is_name) };
        if !is_host {
            return Err(NO_ADDRESS);
        }
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(NO_ADDRESS)?,
            None => CLIENT_PORT,
        };
        Ok(Self { host: host.into(), port, is_tls })
    }
}

impl fmt::Display for EtcdServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// What keeps this process from being in step with etcd, in one word for metrics and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetTrouble {
    /// One of a fixed set of words.
    pub kind: &'static str,
    /// What it means and what to do.
    pub text: Arc<str>,
}

/// How this process stands with its fleet's etcd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetStanding {
    /// Whether etcd holds what this agent knows, or this aggregator shows what etcd holds.
    pub is_in_step: bool,
    /// Why not, or what else is wrong; `None`: nothing.
    pub trouble: Option<FleetTrouble>,
    /// Of an agent: instances and transitions that etcd does not have yet.
    pub waiting: usize,
    /// Of an aggregator: hosts whose agents are there.
    pub hosts_here: usize,
    /// Of an aggregator: hosts whose agents are silent.
    pub hosts_lost: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_read_as_etcds_own_tools_take_it() {
        let read = |text: &str| EtcdServer::parse(text).map(|server| server.to_string());
        for (text, means) in [
            ("https://etcd-0.example.com:2379", "https://etcd-0.example.com:2379"),
            ("http://10.0.0.1", "http://10.0.0.1:2379"),
            ("etcd:1234", "http://etcd:1234"),
            ("https://[::1]:2379/", "https://[::1]:2379"),
            ("[::1]", "http://[::1]:2379"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(means), "{text}");
        }
        for text in ["", "https://", "ftp://a:1", "a:0", "a:b", "::1", "https://u:p@a:1", "a/b", "unix:///x", "[a]:1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
