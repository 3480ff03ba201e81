//! The same suite on a server that we did not write: SeaweedFS, in a process of its own.
//!
//! `IOTA_WEED` names its program, else `weed` is looked for in the path; `cargo xtask test` installs it.

use std::{
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use store::{Error, Presign, S3, S3Config, Store, conformance::check, presigned::Client, retry::patiently};
use wire::ObjectRef;

use crate::fixture::{BUCKET, noise};

const ACCESS_KEY: &str = "iota";
const SECRET_KEY: &str = "of no consequence";
const MINUTE: Duration = Duration::from_secs(60);
/// Writers of one key wait for one another there, looking every now and then: 16 of them for many seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Until a fresh server answers; it takes about 5 s.
const START_DEADLINE: Duration = Duration::from_secs(90);
/// Its servers speak to each other at the port of each and this much more.
const GRPC_OFFSET: u16 = 10_000;

/// A running server. Dropped, it is killed.
struct Weed {
    child: Child,
    store: S3,
}

impl Drop for Weed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn seaweedfs_conforms_and_keeps_its_word_over_kill_9() {
    let Some(program) = program() else {
        println!(
            "not run: SeaweedFS: no program `weed` in the path and none named by IOTA_WEED; `cargo xtask test` installs it"
        );
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let weed = Weed::start(&program, place.path()).await;
    check(&weed.store, "runs/try").await.unwrap();
    let (long, granted) = (noise((9 << 20) + 5), noise(100_000));
    let long_ref = weed.store.put("acts", long.clone()).await.unwrap();

    let client = Client::new();
    let object = ObjectRef::of(&granted);
    let put = weed.store.presign_put("acts", &object, MINUTE).await.unwrap();
    assert_eq!(client.put(&put, granted.clone(), PATIENCE).await, Ok(object));
    assert_eq!(client.put(&put, granted.clone(), PATIENCE).await, Ok(object));
    let get = weed.store.presign_get("acts", &object.digest, MINUTE).await.unwrap();
    assert_eq!(client.get(&get, &object, PATIENCE).await.unwrap(), granted);
    let mut altered = get.clone();
    altered.url = altered.url.replace(&object.digest.to_string(), &long_ref.digest.to_string());
    let refused = client.get(&altered, &long_ref, PATIENCE).await;
    assert!(matches!(refused, Err(Error::Refused { status: 403, .. })), "{refused:?}");

    drop(weed);
    let weed = Weed::start(&program, place.path()).await;
    // It takes new objects before it has found the volumes of the old ones again.
    let get = |_| weed.store.get("acts", &long_ref.digest);
    assert_eq!(patiently(START_DEADLINE, get, |_, _| {}).await.unwrap(), long);
    assert_eq!(weed.store.get("acts", &object.digest).await.unwrap(), granted);
    let moved = weed.store.pointer("runs/try/pointer").await.unwrap().unwrap();
    assert_eq!(moved.value, "2");
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("IOTA_WEED") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("weed")).find(|program| program.is_file())
}

impl Weed {
    async fn start(program: &Path, place: &Path) -> Self {
        let identity = format!(
            r#"{{"identities":[{{"name":"iota","credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}],"actions":["Admin","Read","Write","List"]}}]}}"#
        );
        let identities = place.join("s3.json");
        std::fs::File::create(&identities).unwrap().write_all(identity.as_bytes()).unwrap();
        let log = std::fs::File::options().create(true).append(true).open(place.join("weed.log")).unwrap();
        let [master, volume, filer, s3] = free_ports();
        let mut command = Command::new(program);
        command
            .arg("server")
            .arg(format!("-dir={}", place.display()))
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"])
            .arg(format!("-master.port={master}"))
            .arg(format!("-volume.port={volume}"))
            .arg(format!("-filer.port={filer}"))
            .arg(format!("-s3.port={s3}"))
            .arg(format!("-s3.config={}", identities.display()))
            .current_dir(place)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = command.spawn().unwrap();
        let mut config = S3Config::new(format!("http://127.0.0.1:{s3}"), BUCKET, ACCESS_KEY, SECRET_KEY);
        config.deadline = PATIENCE;
        let weed = Self { child, store: S3::new(config).unwrap() };
        let began = Instant::now();
        while let Err(error) = weed.is_up().await {
            assert!(
                began.elapsed() < START_DEADLINE,
                "SeaweedFS does not come up: {error}; its log: {}",
                std::fs::read_to_string(place.join("weed.log")).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        weed
    }

    /// Whether it takes an object: its parts come up one after another.
    async fn is_up(&self) -> store::Result<()> {
        self.store.create_bucket().await?;
        self.store.put("up", noise(10)).await.map(drop)
    }
}

/// Ports that nobody listens on, nor on those that go with them.
fn free_ports<const N: usize>() -> [u16; N] {
    let mut held = Vec::new();
    let mut ports = [0; N];
    let mut next = 20_000 + (std::process::id() % 20_000) as u16;
    for port in &mut ports {
        *port = loop {
            next += 1;
            let both = [next, next + GRPC_OFFSET].map(|port| TcpListener::bind(("127.0.0.1", port)));
            if let [Ok(one), Ok(other)] = both {
                // Held until all are found, so that none is found twice.
                held.extend([one, other]);
                break next;
            }
        };
    }
    ports
}
