//! Authorities and certificates made on the spot.
#![allow(unreachable_pub, reason = "a part of one test binary")]

use std::path::{Path, PathBuf};

use csi_gateway::domain::trust::{Identity, Trust};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// Years from 1 January to 1 January.
pub type Years = (i32, i32);
/// Long enough.
pub const VALID: Years = (2020, 2120);
/// Over.
pub const OVER: Years = (2020, 2021);
/// Not yet.
pub const LATER: Years = (2110, 2120);

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
    pub der: Vec<u8>,
}

impl Pair {
    /// Writes both into a folder.
    pub fn write(&self, folder: &Path) -> Identity {
        std::fs::create_dir_all(folder).expect("a folder");
        let identity = Identity { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
        std::fs::write(&identity.certificate, &self.certificate).expect("written");
        std::fs::write(&identity.key, &self.key).expect("written");
        identity
    }
}

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, PEM.
    pub certificate: String,
}

impl Authority {
    pub fn new(name: &str, years: Years) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(name, &[], years);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("signed").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// For servers of these names, and clients.
    pub fn pair(&self, names: &[&str], years: Years) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let mut params = params("gateway", names, years);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Pair { certificate: certificate.pem(), key: key.serialize_pem(), der: certificate.der().to_vec() }
    }

    /// For this machine.
    pub fn local(&self) -> Pair {
        self.pair(&["localhost", "127.0.0.1", "::1"], VALID)
    }

    /// Writes its certificate into a folder.
    pub fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, &self.certificate).expect("written");
        path
    }

    /// Trusts it and nobody else.
    pub fn trusted(&self, folder: &Path) -> Trust {
        Trust { authorities: Some(self.write(folder, "trusted.pem")), ..Trust::default() }
    }
}

fn params(name: &str, names: &[&str], (from, to): Years) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    params
}
