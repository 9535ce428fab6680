//! What else can be found where a driver should be.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixDatagram, UnixListener, UnixSocket, UnixStream};
use tokio::task::AbortHandle;

/// A socket that misbehaves. Dropped, it closes and removes its file.
#[derive(Debug)]
pub struct OddSocket {
    socket: PathBuf,
    connections: Arc<AtomicUsize>,
    _open: Open,
}

#[derive(Debug)]
enum Open {
    Listener { _listener: UnixListener, _queue: Vec<UnixStream> },
    Datagram { _socket: UnixDatagram },
    Task(AbortHandle),
}

impl Drop for OddSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
        if let Open::Task(task) = &self._open {
            task.abort();
        }
    }
}

impl OddSocket {
    /// Listens and never accepts: a stopped process. The kernel queues connections, so connecting works.
    ///
    /// # Errors
    ///
    /// Cannot bind.
    pub fn never_accepts(socket: impl AsRef<Path>) -> io::Result<Self> {
        let listener = UnixListener::bind(&socket)?;
        Ok(Self::new(socket, Open::Listener { _listener: listener, _queue: Vec::new() }))
    }

    /// The same with a full queue, so that connecting does not work either.
    ///
    /// # Errors
    ///
    /// Cannot bind, or cannot fill the queue.
    pub async fn has_a_full_queue(socket: impl AsRef<Path>) -> io::Result<Self> {
        let unbound = UnixSocket::new_stream()?;
        unbound.bind(&socket)?;
        let listener = unbound.listen(0)?;
        let mut queue = Vec::new();
        loop {
            match UnixStream::connect(&socket).await {
                Ok(stream) => queue.push(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Self::new(socket, Open::Listener { _listener: listener, _queue: queue }))
    }

    /// Accepts and closes at once.
    ///
    /// # Errors
    ///
    /// Cannot bind.
    pub fn accepts_and_closes(socket: impl AsRef<Path>) -> io::Result<Self> {
        Self::says(socket, b"", false)
    }

    /// Accepts, keeps the connection, says nothing.
    ///
    /// # Errors
    ///
    /// Cannot bind.
    pub fn accepts_and_is_silent(socket: impl AsRef<Path>) -> io::Result<Self> {
        Self::says(socket, b"", true)
    }

    /// Accepts and sends these bytes, which are not HTTP/2.
    ///
    /// # Errors
    ///
    /// Cannot bind.
    pub fn speaks_garbage(socket: impl AsRef<Path>, bytes: &'static [u8]) -> io::Result<Self> {
        Self::says(socket, bytes, true)
    }

    /// A datagram socket, as `/dev/log` is one.
    ///
    /// # Errors
    ///
    /// Cannot bind.
    pub fn datagram(socket: impl AsRef<Path>) -> io::Result<Self> {
        let open = Open::Datagram { _socket: UnixDatagram::bind(&socket)? };
        Ok(Self::new(socket, open))
    }

    /// How many connections it accepted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Where it is.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn new(socket: impl AsRef<Path>, open: Open) -> Self {
        Self { socket: socket.as_ref().to_owned(), connections: Arc::default(), _open: open }
    }

    fn says(socket: impl AsRef<Path>, bytes: &'static [u8], is_kept: bool) -> io::Result<Self> {
        let listener = UnixListener::bind(&socket)?;
        let connections = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let _ = stream.write_all(bytes).await;
                if is_kept {
                    kept.push(stream);
                }
            }
        });
        Ok(Self { socket: socket.as_ref().to_owned(), connections, _open: Open::Task(task.abort_handle()) })
    }
}
