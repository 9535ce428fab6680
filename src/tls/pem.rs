//! Files of certificates and keys.

use std::io::Read;
use std::path::Path;

use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;
use super::validity::Validity;
use crate::domain::time::Timestamp;

/// Longest file that is read: bundles of all authorities are some 250 KiB.
const LONGEST: u64 = 4 << 20;

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { file: file.to_owned(), source };
    let mut text = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(LONGEST + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > LONGEST {
        return Err(TlsError::TooLarge { file: file.to_owned(), limit: LONGEST });
    }
    Ok(text)
}

/// All certificates of a file, in their order, with their times; at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<(CertificateDer<'static>, Validity)>, TlsError> {
    let text = read(file)?;
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|_| TlsError::Pem { file: file.to_owned() })?;
        let validity = Validity::of(&certificate).ok_or_else(|| TlsError::NotX509 { file: file.to_owned() })?;
        found.push((certificate, validity));
    }
    if found.is_empty() {
        return Err(TlsError::NoCertificate { file: file.to_owned() });
    }
    Ok(found)
}

/// The same of authorities: those whose time is over are left out, unless that is all of them. An authority is trusted
/// for being in the file, and nobody below would look at its times.
pub(super) fn authorities(file: &Path, now: Timestamp) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = certificates(file)?;
    let latest = all.iter().map(|(_, validity)| validity.not_after).max().unwrap_or_default();
    let valid: Vec<_> =
        all.into_iter().filter(|(_, validity)| validity.not_after > now).map(|(certificate, _)| certificate).collect();
    if valid.is_empty() {
        return Err(TlsError::Expired { file: file.to_owned(), at: super::validity::text(latest) });
    }
    Ok(valid)
}

/// The first private key of a file: PKCS #8, PKCS #1 or SEC 1.
pub(super) fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(file)?;
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(key),
        Err(Error::NoItemsFound) => {
            // A kind that is not known to the reader; its sections are skipped.
            let is_encrypted = text.windows(9).any(|word| word == b"ENCRYPTED");
            Err(TlsError::NoKey { file: file.to_owned(), is_encrypted })
        }
        Err(_) => Err(TlsError::Pem { file: file.to_owned() }),
    }
}

/// Certificates and key of a pair.
pub(super) struct Pair {
    /// The certificate that is shown, then those between it and its authority.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Its times.
    pub(super) validity: Validity,
    pub(super) key: PrivateKeyDer<'static>,
}

/// Reads a pair; whether its halves belong together is found when it is used.
pub(super) fn pair(certificate: &Path, key_file: &Path) -> Result<Pair, TlsError> {
    let all = certificates(certificate)?;
    let validity = all[0].1;
    let chain = all.into_iter().map(|(certificate, _)| certificate).collect();
    Ok(Pair { chain, validity, key: key(key_file)? })
}

/// What an error of a pair's use means to whoever made the files.
pub(super) fn unusable(certificate: &Path, key: &Path, source: rustls::Error) -> TlsError {
    match source {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() }
        }
        rustls::Error::InvalidCertificate(_) => TlsError::Certificate { file: certificate.to_owned(), source },
        _ => TlsError::Key { file: key.to_owned(), source },
    }
}
