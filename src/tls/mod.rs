//! TLS: certificates, whom they are trusted by, and streams.
//!
//! One provider of cryptography, named wherever a configuration is made, so that no other crate's idea of a default
//! counts. TLS 1.2 and 1.3. [`server`] is the listening side, whose files are followed; [`trust`] the asking side, whose
//! files are read for each connection. A stream is one type, whatever is below it: what speaks over it is compiled once.

mod pem;
pub mod server;
mod stream;
pub mod trust;
mod validity;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use thiserror::Error;

pub use stream::Stream;

/// The only protocol that is spoken inside.
const PROTOCOL: &[u8] = b"http/1.1";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Why certificates or keys are of no use.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{}`", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something that is far too long for what it should be.
    #[error("`{}` is longer than {limit} bytes, so it is no file of certificates or keys", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// Longest file that is read.
        limit: u64,
    },
    /// Not PEM, or cut off. Its text is not repeated: it may be half a key.
    #[error("`{}` is no PEM file, or not a whole one", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
    },
    /// PEM, without a certificate.
    #[error("`{}` holds no certificate: none begins with `-----BEGIN CERTIFICATE-----`", file.display())]
    NoCertificate {
        /// The file.
        file: PathBuf,
    },
    /// PEM, without a key.
    #[error("`{}` holds no private key{}", file.display(), if *.is_encrypted { " but an encrypted one: nobody is there to type its password; `openssl pkey` writes it without" } else { ": none begins with `-----BEGIN PRIVATE KEY-----` or its kin" })]
    NoKey {
        /// The file.
        file: PathBuf,
        /// Whether there is one that needs a password.
        is_encrypted: bool,
    },
    /// A key of a kind that is not known, or broken.
    #[error("cannot use the private key in `{}`", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// A certificate that cannot be used.
    #[error("cannot use the certificate in `{}`", file.display())]
    Certificate {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// Something in a certificate's place.
    #[error("`{}` holds something that is no X.509 certificate", file.display())]
    NotX509 {
        /// The file.
        file: PathBuf,
    },
    /// Certificate and key of two pairs.
    #[error("the key in `{}` does not belong to the certificate in `{}`", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Too late.
    #[error("the certificate in `{}` expired at {at}", file.display())]
    Expired {
        /// The file.
        file: PathBuf,
        /// When, RFC 3339.
        at: String,
    },
    /// Too early, or the clock is wrong.
    #[error("the certificate in `{}` is not valid before {at}; is the clock right?", file.display())]
    NotYetValid {
        /// The file.
        file: PathBuf,
        /// From when on, RFC 3339.
        at: String,
    },
    /// The system trusts nobody.
    #[error("this system has no certificates of authorities; --ca-cert names a file")]
    NoAuthorities,
    /// Settings that no TLS can be made of.
    #[error("cannot set TLS up")]
    Setup(#[source] rustls::Error),
    /// Not a name that a certificate can be for.
    #[error("`{name}` is no name of a server")]
    ServerName {
        /// As it was given.
        name: String,
    },
}
