//! A server in a folder of its own, and clients of it.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use bucket::{Credentials, Server};
use bytes::Bytes;
use store::{S3, S3Config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

pub const BUCKET: &str = "iota-test";

/// No call here takes long; a hang must not be mistaken for patience.
pub const DEADLINE: Duration = Duration::from_secs(10);

pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub credentials: Credentials,
    pub server: Server,
    pub store: S3,
}

impl Fixture {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Credentials::generate().unwrap();
        let server = serve(&dir, &credentials).await;
        let store = S3::new(config(&server.endpoint(), &credentials)).unwrap();
        store.create_bucket().await.unwrap();
        Self { dir, credentials, server, store }
    }

    /// The same folder, served by a new process's worth of state.
    pub async fn restarted(self) -> Self {
        self.server.shutdown().await;
        let server = serve(&self.dir, &self.credentials).await;
        let store = S3::new(config(&server.endpoint(), &self.credentials)).unwrap();
        Self { server, store, ..self }
    }

    /// The files in a folder of the bucket.
    pub fn files(&self, folder: &str) -> Vec<PathBuf> {
        let folder = self.dir.path().join("buckets").join(BUCKET).join(folder);
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

pub fn config(endpoint: &str, credentials: &Credentials) -> S3Config {
    let mut config = S3Config::new(endpoint, BUCKET, &credentials.access_key, &credentials.secret_key);
    config.deadline = DEADLINE;
    config
}

async fn serve(dir: &tempfile::TempDir, credentials: &Credentials) -> Server {
    bucket::serve(dir.path(), ([127, 0, 0, 1], 0).into(), credentials.clone()).await.unwrap()
}

/// Bytes that differ at every place one would swap.
pub fn noise(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// A relay to the server that swallows the first `losses` answers: the request arrives, the connection then breaks.
pub async fn relay_losing_answers(server: &Server, losses: usize) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let target = server.addr();
    let losses = Arc::new(Semaphore::new(losses));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let losses = Arc::clone(&losses);
            tokio::spawn(async move {
                let mut server = TcpStream::connect(target).await.unwrap();
                let Ok(loss) = losses.try_acquire() else {
                    // Ends with either side; what it returns is of no interest.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    return;
                };
                loss.forget();
                let (mut from_client, _to_client) = client.split();
                let (mut from_server, mut to_server) = server.split();
                let mut answer = [0; 1];
                tokio::select! {
                    copied = tokio::io::copy(&mut from_client, &mut to_server) => drop(copied),
                    read = from_server.read(&mut answer) => drop(read),
                }
                let _ = to_server.shutdown().await;
            });
        }
    });
    endpoint
}
