//! The listening side: the certificate in force, its files, and handshakes.
//!
//! A new certificate is read whole and tried before it takes the place of the one in force; connections that are open keep
//! what they were made with, and readers who wait on them notice nothing. Files with an error leave everything as it was.
//! Nothing is remembered of a client for a next time: no session outlives the certificate or the authority it was made
//! under, and nobody's memory grows with those who have been here.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustix::net::sockopt;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::Signal;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, info, warn};

use super::validity::{self, Validity};
use super::{PROTOCOL, Stream, TlsError, pem, provider};
use crate::domain::time::Timestamp;
use crate::domain::trust::ClientAuth;
use crate::files::{Follower, Stamps};
use crate::telemetry::Chain;

/// How long a client may take until it has shaken hands: Nomad's `https_handshake_timeout`.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// After how long the system looks whether a silent client is still there: Nomad's number.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How often files with an error are read again though they stay as they are: one of them may have been too early.
const RETRY: Duration = Duration::from_secs(10);
/// What Go's server, and so Nomad, says to who speaks plain HTTP here.
const PLAIN: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
/// How long one that was told may take to read it.
const LINGER: Duration = Duration::from_millis(250);

/// Where certificates are, and who has to show one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// PEM file: our certificate, then those between it and its authority.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// PEM file of the authorities of clients; needed where they are asked for certificates.
    pub authorities: Option<PathBuf>,
    /// Whether they are.
    pub client_auth: ClientAuth,
}

impl Settings {
    fn files(&self) -> Vec<PathBuf> {
        [&self.certificate, &self.key].into_iter().chain(&self.authorities).cloned().collect()
    }
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Until when the certificate in force is valid.
    pub not_after: Timestamp,
    /// Who has to show a certificate.
    pub client_auth: ClientAuth,
    /// Handshakes that came to nothing since the start.
    pub failed_handshakes: u64,
    /// What is wrong with the files since, or with what is in force; `None`: nothing.
    pub trouble: Option<String>,
}

/// Certificates in force. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    /// The files before they were read first: whatever changed since is read again.
    first: Stamps,
    in_force: RwLock<InForce>,
    trouble: Mutex<Option<String>>,
    failed_handshakes: AtomicU64,
}

#[derive(Debug, Clone)]
struct InForce {
    config: Arc<ServerConfig>,
    not_after: Timestamp,
}

impl Tls {
    /// Reads certificate, key and authorities.
    ///
    /// # Errors
    /// One of them is of no use. There is nothing yet that could stay in force.
    pub fn load(settings: Settings) -> Result<Self, TlsError> {
        let first = Stamps::of(&settings.files());
        let in_force = read(&settings, Timestamp::now())?;
        info!(expires = %validity::text(in_force.not_after), "TLS: the certificate is in force");
        Ok(Self(Arc::new(Inner {
            settings,
            first,
            in_force: RwLock::new(in_force),
            trouble: Mutex::new(None),
            failed_handshakes: AtomicU64::new(0),
        })))
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let not_after = self.in_force().not_after;
        let trouble = self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let has_expired = not_after <= Timestamp::now();
        let expired = || format!("the certificate in force expired at {}", validity::text(not_after));
        let trouble = match (has_expired, trouble) {
            (true, Some(trouble)) => Some(format!("{}; {trouble}", expired())),
            (true, None) => Some(expired()),
            (false, trouble) => trouble,
        };
        let failed_handshakes = self.0.failed_handshakes.load(Ordering::Relaxed);
        Standing { not_after, client_auth: self.0.settings.client_auth, failed_handshakes, trouble }
    }

    /// Reads everything anew. Whatever has an error leaves all of it as it was.
    pub fn reload(&self) {
        let read = read(&self.0.settings, Timestamp::now());
        let mut trouble = self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(new) => {
                info!(expires = %validity::text(new.not_after), "TLS: a new certificate is in force");
                *self.0.in_force.write().unwrap_or_else(PoisonError::into_inner) = new;
                *trouble = None;
            }
            Err(problem) => {
                let text = Chain(&problem).to_string();
                if trouble.as_ref() != Some(&text) {
                    error!(error = text, "TLS: the certificate in force stays, since the new one cannot be used");
                }
                *trouble = Some(text);
            }
        }
    }

    /// Reads anew when a file has become another one, and at each signal.
    pub async fn follow(self, mut told: Signal) {
        let mut files = Follower::new(self.0.settings.files(), self.0.first.clone());
        loop {
            let has_trouble = self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).is_some();
            tokio::select! {
                _ = told.recv() => {}
                () = files.changed() => {}
                () = tokio::time::sleep(RETRY), if has_trouble => {}
            }
            let tls = self.clone();
            // It reads files, which may hang; whatever goes wrong there is said there.
            let _ = tokio::task::spawn_blocking(move || tls.reload()).await;
        }
    }

    /// Shakes hands with who has connected; `None`: in vain, and that was told to whom it concerns.
    pub async fn accept(&self, stream: TcpStream) -> Option<Stream> {
        let failure: io::Error = match tokio::time::timeout(HANDSHAKE, self.shake_hands(stream)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        self.0.failed_handshakes.fetch_add(1, Ordering::Relaxed);
        // A client's trouble, which it knows of; and a prober's every second would fill the log.
        debug!(error = %failure, "a handshake came to nothing");
        None
    }

    async fn shake_hands(&self, mut stream: TcpStream) -> io::Result<Stream> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // No message of TLS begins with a letter, and every method of HTTP does.
        if first[0].is_ascii_uppercase() {
            tell_plain(&mut stream).await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it speaks plain HTTP"));
        }
        // A client that went without a word would hold its buffers for ever; where this fails, it does.
        let _ = sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE)
            .and_then(|()| sockopt::set_tcp_keepintvl(&stream, KEEP_ALIVE))
            .and_then(|()| sockopt::set_socket_keepalive(&stream, true));
        let config = self.in_force().config;
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    fn in_force(&self) -> InForce {
        self.0.in_force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn tell_plain(stream: &mut TcpStream) {
    let telling = async {
        stream.write_all(PLAIN).await?;
        stream.shutdown().await?;
        // Closed with its request unread, the system would send a reset, and the client might never read the answer.
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // Whoever does not listen has gone or goes on by himself: his trouble.
    let _ = tokio::time::timeout(LINGER, telling).await;
}

fn read(settings: &Settings, now: Timestamp) -> Result<InForce, TlsError> {
    let Settings { certificate, key, authorities, client_auth } = settings;
    let pair = pem::pair(certificate, key)?;
    let Validity { not_before, not_after } = pair.validity;
    if not_after <= now {
        return Err(TlsError::Expired { file: certificate.clone(), at: validity::text(not_after) });
    }
    if not_before > now {
        return Err(TlsError::NotYetValid { file: certificate.clone(), at: validity::text(not_before) });
    }
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let builder = match (client_auth, authorities) {
        (ClientAuth::None, _) | (_, None) => builder.with_no_client_auth(),
        (ClientAuth::Optional | ClientAuth::Required, Some(file)) => {
            let mut roots = RootCertStore::empty();
            for certificate in pem::authorities(file, now)? {
                roots.add(certificate).map_err(|source| TlsError::Certificate { file: file.clone(), source })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier =
                if *client_auth == ClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
            let verifier = verifier.build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| TlsError::Setup(rustls::Error::General(error.to_string())))?,
            )
        }
    };
    let mut config =
        builder.with_single_cert(pair.chain, pair.key).map_err(|source| pem::unusable(certificate, key, source))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    // What the file's group may do is its owner's choice; everybody is nobody's.
    if std::fs::metadata(key).is_ok_and(|found| found.mode() & 0o004 != 0) {
        warn!(file = %key.display(), "TLS: everybody on this host can read the private key; `chmod o-r` keeps them out");
    }
    Ok(InForce { config: Arc::new(config), not_after })
}
