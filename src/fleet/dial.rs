//! A connection to any member of an etcd: one after the other, beginning with the one that answered last.
//!
//! tonic's own TLS would bring a second crypto library or choose for the whole program; this is the one that everything
//! else here uses. Certificates are read for each connection, so new files count from the next one on.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;

use crate::domain::fleet::EtcdServer;
use crate::domain::trust::Trust;
use crate::tls::{Stream, trust};

/// How long one member may take to accept a connection.
const LIMIT: Duration = Duration::from_millis(1500);
/// How etcd serves gRPC.
const HTTP_2: &[u8] = b"h2";

/// Dials members. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Dialer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    servers: Vec<EtcdServer>,
    trust: Trust,
    next: AtomicUsize,
}

impl Dialer {
    pub(super) fn new(servers: Vec<EtcdServer>, trust: Trust) -> Self {
        // Anywhere, so that a thousand agents do not all lean on the first member.
        let next = AtomicUsize::new(if servers.is_empty() { 0 } else { fastrand::usize(..servers.len()) });
        Self(Arc::new(Shared { servers, trust, next }))
    }

    /// Begins with another member the next time.
    pub(super) fn turn(&self) {
        self.0.next.fetch_add(1, Ordering::Relaxed);
    }

    async fn dial(self) -> io::Result<TokioIo<Stream>> {
        let first = self.0.next.load(Ordering::Relaxed);
        let count = self.0.servers.len();
        let mut last = io::Error::other("no etcd server is known");
        for place in (0..count).map(|offset| first.wrapping_add(offset)) {
            let server = &self.0.servers[place % count];
            let failed = match tokio::time::timeout(LIMIT, self.connect(server)).await {
                Ok(Ok(stream)) => {
                    self.0.next.store(place % count, Ordering::Relaxed);
                    return Ok(TokioIo::new(stream));
                }
                Ok(Err(error)) => error,
                Err(_) => io::Error::new(io::ErrorKind::TimedOut, "no connection within 1.5 s"),
            };
            last = io::Error::new(failed.kind(), format!("{server}: {failed}"));
        }
        Err(last)
    }

    async fn connect(&self, server: &EtcdServer) -> io::Result<Stream> {
        let tcp = TcpStream::connect((&*server.host, server.port)).await?;
        // Small calls, each waited for.
        tcp.set_nodelay(true)?;
        if !server.is_tls {
            return Ok(Stream::Tcp(tcp));
        }
        let told = |error: crate::tls::TlsError| io::Error::other(crate::telemetry::Chain(&error).to_string());
        let mut config = (*trust::configuration(&self.0.trust).map_err(told)?).clone();
        config.alpn_protocols = vec![HTTP_2.to_vec()];
        let name = trust::server_name(&server.host, &self.0.trust).map_err(told)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}
