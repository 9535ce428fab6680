//! Why there is no answer.

use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error as Rustls};
use thiserror::Error;

use crate::tls::TlsError;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The address is none.
    #[error("`{address}` is no address: http://HOST:PORT, https://HOST:PORT or unix:///PATH")]
    Address {
        /// As it was given.
        address: String,
    },
    /// Nobody listens there.
    #[error("cannot connect to `{address}`; is a gateway running there?")]
    Connect {
        /// As it was given.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// Our own files for TLS are of no use.
    #[error("cannot ask `{address}` over TLS")]
    Trust {
        /// As it was given.
        address: String,
        /// Which, and why.
        source: TlsError,
    },
    /// It is not who it should be, or we are not.
    #[error("no TLS with `{address}`{}", remedy(.source))]
    Handshake {
        /// As it was given.
        address: String,
        /// What went wrong.
        source: io::Error,
    },
    /// Whoever listens there speaks no HTTP, or stopped doing so.
    #[error("cannot ask `{address}`{}", .source.downcast_ref::<hyper::Error>().map_or("", of_exchange))]
    Exchange {
        /// As it was given.
        address: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("no answer from `{address}` within {} s", .limit.as_secs())]
    Timeout {
        /// As it was given.
        address: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

impl HttpError {
    pub(super) fn exchange(address: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Exchange { address: address.to_owned(), source: source.into() }
    }
}

/// In TLS 1.3 the server judges our certificate after we have begun to speak, so that it is heard of here.
fn of_exchange(error: &hyper::Error) -> &'static str {
    let mut source = std::error::Error::source(error);
    while let Some(found) = source {
        if let Some(error) = found.downcast_ref::<io::Error>() {
            return remedy(error);
        }
        source = found.source();
    }
    ""
}

/// What to do about a handshake that failed, as far as that can be said.
fn remedy(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Rustls>()) {
        Some(Rustls::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "; --ca-cert names the file of the authority that signed its certificate"
        }
        Some(Rustls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "; --tls-server-name says which name its certificate is for",
        Some(Rustls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            "; it has to get a new certificate"
        }
        Some(Rustls::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure)) => {
            "; does it ask for a certificate? --client-cert and --client-key show one"
        }
        Some(Rustls::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::DecryptError,
        )) => "; it does not accept the certificate of --client-cert",
        Some(Rustls::InvalidMessage(_)) => "; does it speak plain http?",
        _ => "",
    }
}
