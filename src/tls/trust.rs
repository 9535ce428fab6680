//! The asking side: from files and names to what a handshake needs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{PROTOCOL, TlsError, pem, provider};
use crate::domain::time::Timestamp;
use crate::domain::trust::{Identity, Trust};

/// What a handshake as `trust` says needs. Files are read now, so who asks again follows their changes.
///
/// # Errors
/// A file that is of no use.
pub fn configuration(trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let builder = if trust.is_unverified {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        let roots = Arc::new(authorities(trust)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| TlsError::Setup(rustls::Error::General(error.to_string())))?;
        builder.with_webpki_verifier(verifier)
    };
    let mut config = match &trust.identity {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate, key }) => {
            let pair = pem::pair(certificate, key)?;
            builder
                .with_client_auth_cert(pair.chain, pair.key)
                .map_err(|source| pem::unusable(certificate, key, source))?
        }
    };
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // A connection at a time, each with a configuration of its own: nothing would ever be resumed.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// The name that a server's certificate has to be for: the one that was given, else the host of its address.
///
/// # Errors
/// It is none.
pub fn server_name(host: &str, trust: &Trust) -> Result<ServerName<'static>, TlsError> {
    let name = trust.server_name.as_deref().unwrap_or(host);
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    ServerName::try_from(bare.to_owned()).map_err(|_| TlsError::ServerName { name: name.to_owned() })
}

fn authorities(trust: &Trust) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let now = Timestamp::now();
    if trust.authorities.is_none() && trust.authorities_directory.is_none() {
        // One that the system has and that cannot be used is the system's matter, as long as there are others.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return if roots.is_empty() { Err(TlsError::NoAuthorities) } else { Ok(roots) };
    }
    let files = match &trust.authorities_directory {
        Some(directory) => files_in(directory)?,
        None => Vec::new(),
    };
    for file in trust.authorities.iter().chain(&files) {
        for certificate in pem::authorities(file, now)? {
            roots.add(certificate).map_err(|source| TlsError::Certificate { file: file.clone(), source })?;
        }
    }
    if roots.is_empty() { Err(TlsError::NoAuthorities) } else { Ok(roots) }
}

/// Every file of a directory, as Nomad reads its `-ca-path`.
fn files_in(directory: &Path) -> Result<Vec<PathBuf>, TlsError> {
    let failed = |source| TlsError::Read { file: directory.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // Kubernetes keeps hidden directories beside what it mounts.
        let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Takes any certificate; only that the peer has its key is still looked at.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
