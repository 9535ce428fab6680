//! How a server is told from an impostor, and as whom it is asked, where TLS is spoken.

use std::path::PathBuf;

/// Files and names for the client side of TLS. The default trusts whom the system trusts, and shows nobody's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// PEM file of the authorities that may have signed the server's certificate; with a directory, those of both. `None`
    /// for both: the system's.
    pub authorities: Option<PathBuf>,
    /// Directory of such files.
    pub authorities_directory: Option<PathBuf>,
    /// Certificate (with its chain) and private key to show to a server that asks for one; PEM files.
    pub identity: Option<Identity>,
    /// The name that the server's certificate has to be for; `None`: the one in its address.
    pub server_name: Option<String>,
    /// Whether any certificate will do. Then anybody on the way can pose as the server.
    pub is_unverified: bool,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// PEM file: the certificate, then those between it and its authority.
    pub certificate: PathBuf,
    /// PEM file.
    pub key: PathBuf,
}

/// Whether clients have to show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// Nobody is asked for one.
    #[default]
    None,
    /// Who shows one has to show a good one.
    Optional,
    /// Who shows none is not served.
    Required,
}

impl ClientAuth {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 3] =
        [("none", Self::None), ("optional", Self::Optional), ("required", Self::Required)];

    /// As it is written in flags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}
