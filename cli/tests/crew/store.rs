//! What a store can do to a run, and what is said of it.

use crate::harness::{Crew, new_run, stepped};
use crate::replicas::{in_one_process, make_keys};
use bucket::Credentials;
use orchestrator::{Notice, Report, RunFolder};
use spec::Digest;
use store::{S3, S3Config, Store};
use wire::{Manifest, Signed};

const BUCKET: &str = "runs-of-ours";

#[test]
fn a_store_that_is_away_costs_time_and_an_object_that_is_gone_is_named() {
    let place = tempfile::tempdir().unwrap();
    let (folder, data) = (place.path().join("run"), place.path().join("store"));
    new_run(&folder, &["--steps", "8", "--epochs", "2"]);
    make_keys(&folder, 3);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let credentials = Credentials::generate().unwrap();
    let serve = |port: u16| {
        let listen = ([127, 0, 0, 1], port).into();
        runtime.block_on(bucket::serve(&data, listen, credentials.clone())).unwrap()
    };
    let server = serve(0);
    let (endpoint, port) = (server.endpoint(), server.addr().port());
    let keys = [
        ("IOTA_STORE_ACCESS_KEY", credentials.access_key.as_str()),
        ("AWS_SECRET_ACCESS_KEY", credentials.secret_key.as_str()),
    ];
    let mut crew = Crew::lead_with(&folder, &["--store", &endpoint, "--bucket", BUCKET], &keys);
    crew.man(3);

    // Work goes on without a store; what a merge has to put there waits for it.
    crew.wait_for(|notices| stepped(notices, 0, 0));
    runtime.block_on(server.shutdown());
    crew.wait_for(|notices| stepped(notices, 0, 7));
    crew.wait_for_word("try again later: this node does");
    let _server = serve(port);
    let committed = |notices: &[Notice]| {
        notices.iter().find_map(|notice| match notice {
            Notice::Report { report: Report::Committed { epoch: 0, manifest, .. }, .. } => Some(*manifest),
            _ => None,
        })
    };
    crew.wait_for(|notices| committed(notices).is_some());
    let found = committed(&crew.notices).unwrap().to_string();
    crew.kill("miner-1");
    assert_eq!(found, in_one_process(&crew.folder)[0]);

    // Without its stage's weights nobody can take the seat up again.
    let config = S3Config::new(endpoint, BUCKET, &credentials.access_key, &credentials.secret_key);
    let store = S3::new(config).unwrap();
    let gone = runtime.block_on(forget_weights(&store, &folder));
    crew.start_node("miner", "miner-1");
    let (code, said) = crew.wait_for_exit("miner-1");
    assert!(
        code == 1 && said.contains(&format!("objects/{gone} is missing from the store")),
        "{code}: {said}"
    );
}

/// Deletes the body's weights of the last manifest; which these are.
async fn forget_weights(store: &S3, folder: &std::path::Path) -> Digest {
    let run = RunFolder::open(folder).unwrap().run().unwrap();
    let pointer = store.pointer(&orchestrator::pointer_name(&run.id())).await.unwrap().unwrap();
    let (_, manifest) = orchestrator::parse_pointer(&String::from_utf8_lossy(&pointer.value)).unwrap();
    let manifest = store.get("objects", &manifest).await.unwrap();
    let manifest: Signed<Manifest> = postcard::from_bytes(&manifest).unwrap();
    let weights = manifest.body.stages[1].weights.digest;
    store.delete("objects", &weights).await.unwrap();
    weights
}
