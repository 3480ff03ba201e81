//! The embedded S3 server: protocol by `s3s`, a durable backend of our own.
//!
//! It speaks the part of S3 that a swarm needs: head and create bucket; put, get, head, copy, delete; list (v2);
//! multipart uploads; signatures (V4) in headers and in presigned URLs. What it does not honour it refuses.
//!
//! An acknowledged write is on disk, whole, and was never visible in part: a body streams into a temporary file while
//! it is hashed, its checksums are compared, the file is synced, and then, under the lock of its key, the request's
//! condition is checked and the file renamed into place. All of an object is in that one file, so that the rename is
//! the commit. Entity tags are the BLAKE3 of the body.

mod bucket;
mod disk;
mod file;
mod list;
mod multipart;
mod objects;
mod protocol;
mod staging;

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

use self::{disk::Disk, protocol::Protocol};

/// Connections served at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 256;
/// Time for a client to send the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that requests under way have to end in a shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The one pair of keys that the server accepts.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Public half, sent with every request.
    pub access_key: String,
    /// Secret half, known to the server and to whoever signs.
    pub secret_key: String,
}

impl Credentials {
    /// A pair nobody can guess.
    ///
    /// # Errors
    /// [`Error::NoEntropy`] when the system gives no random bytes.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self { access_key: random_hex::<10>()?, secret_key: random_hex::<32>()? })
    }
}

/// Without the secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process listens there.
    #[error(
        "the object store cannot listen on {addr}: the port is taken; stop what uses it or choose another port"
    )]
    PortTaken {
        /// Address asked for.
        addr: SocketAddr,
    },
    /// Listening failed for another reason.
    #[error("the object store cannot listen on {addr}: {source}")]
    Listen {
        /// Address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Another server has this directory.
    #[error("the object store in {} is open in another process: two servers would not see each other's writes", dir.display())]
    InUse {
        /// Directory asked for.
        dir: PathBuf,
    },
    /// The directory cannot be read or written.
    #[error("the object store cannot use {}: {source}", path.display())]
    Disk {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random bytes: {0}")]
    NoEntropy(getrandom::Error),
}

/// A running server. Dropping it ends it at once; [`Server::shutdown`] lets requests under way finish.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

/// Serves the objects in `dir` (created if absent) on `listen`; port 0 takes a free one.
///
/// # Errors
/// [`Error`] says which of port and directory cannot be used, and why.
pub async fn serve(dir: &Path, listen: SocketAddr, credentials: Credentials) -> Result<Server, Error> {
    let disk = {
        let dir = dir.to_owned();
        let opened = tokio::task::spawn_blocking(move || Disk::open(&dir)).await;
        opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?
    };
    let listener = TcpListener::bind(listen).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortTaken { addr: listen },
        _ => Error::Listen { addr: listen, source },
    })?;
    let addr = listener.local_addr().map_err(|source| Error::Listen { addr: listen, source })?;
    let mut builder = S3ServiceBuilder::new(Protocol::new(disk));
    builder.set_auth(SimpleAuth::from_single(credentials.access_key, credentials.secret_key));
    let (stop, stopped) = watch::channel(false);
    let accepting = tokio::spawn(accept(listener, builder.build(), stopped));
    Ok(Server { addr, stop, accepting })
}

impl Server {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://` and [`Server::addr`], as a client's configuration wants it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Takes no more requests, gives those under way five seconds, and ends. The port is free afterwards.
    pub async fn shutdown(mut self) {
        // No receiver is left only when the task has ended by itself.
        let _ = self.stop.send(true);
        if let Err(error) = (&mut self.accepting).await {
            tracing::error!(%error, "the object store's task failed");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The connections' tasks are owned by this one and end with it.
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, service: S3Service, mut stopped: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            () = told_to_stop(&mut stopped) => break,
            accepted = accepted => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, service.clone(), stopped.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the object store could not accept a connection");
                // Out of file descriptors, mostly: closing connections will free some.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        tracing::warn!(left = connections.len(), "the object store closed connections in use");
    }
}

async fn connection(stream: TcpStream, service: S3Service, mut stopped: watch::Receiver<bool>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = told_to_stop(&mut stopped) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the object store broke");
    }
}

/// Returns when the server is to end, or is gone.
async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    // Both outcomes mean the same; the guard in the first must not be kept.
    drop(stopped.wait_for(|stopped| *stopped).await);
}

/// `N` random bytes in hexadecimal.
fn random_hex<const N: usize>() -> Result<String, Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(Error::NoEntropy)?;
    Ok(hex::encode(bytes))
}
