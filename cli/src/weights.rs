//! The weights that a run's folder holds, whoever made it.

use crate::failure::{Failure, Result};
use crate::shards;
use engine::StageState;
use engine::data::TextTokenizer;
use orchestrator::RunFolder;
use spec::{Digest, Run};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use store::{S3, Store};
use wire::{Manifest, Signed};

/// A model as files.
pub struct Weights {
    pub run: Run,
    pub tokenizer: TextTokenizer,
    /// Where they come from, for the user.
    pub source: String,
    /// One weights file a stage, head first.
    pub stages: Vec<Vec<u8>>,
}

/// The newest weights in `root`: of the last checkpoint, else of the last manifest in the embedded store, else the
/// initial ones.
///
/// # Errors
/// No run there, or files of it that are missing or not what they should be.
pub fn weights_of(root: &Path) -> Result<Weights> {
    let folder = RunFolder::open(root).map_err(input)?;
    let run = folder.run().map_err(input)?;
    let tokenizer = shards::tokenizer(run.data.tokenizer, &folder.path("objects"))?;
    let (source, stages) = if let Some(checkpoint) = last_checkpoint(&folder) {
        (format!("checkpoint {}", checkpoint.display()), of_checkpoint(&run, &checkpoint)?)
    } else if folder.path("bucket/buckets").is_dir() {
        of_bucket(&folder, &run)?
    } else {
        let manifest = folder.manifest().map_err(input)?;
        let stage = |weights: Digest| read(&folder.path(&format!("objects/{weights}")));
        let stages = manifest.body.stages.iter().map(|record| stage(record.weights.digest));
        ("the initial weights".into(), stages.collect::<Result<_>>()?)
    };
    Ok(Weights { run, tokenizer, source, stages })
}

impl Weights {
    /// All stages, checked.
    ///
    /// # Errors
    /// The first file that is not its stage's.
    pub fn states(&self) -> Result<Vec<StageState>> {
        let (expected, found) = (self.run.model.stage_count(), self.stages.len());
        if expected != found {
            return Err(Failure::input(format!(
                "{}: {found} stages, expected {expected} as run.toml says; the folder holds two runs",
                self.source
            )));
        }
        let stages = self.stages.iter().enumerate();
        stages
            .map(|(index, bytes)| {
                StageState::from_weights(&self.run, index, bytes)
                    .map_err(|e| Failure::input(format!("{}, stage {index}: {e}", self.source)))
            })
            .collect()
    }
}

/// The newest checkpoint of a training run: its steps are written with leading zeros.
fn last_checkpoint(folder: &RunFolder) -> Option<PathBuf> {
    let entries = folder.path("checkpoints").read_dir().ok()?;
    let names = entries.flatten().map(|entry| entry.path());
    let is_checkpoint =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-"));
    names.filter(is_checkpoint).max()
}

fn of_checkpoint(run: &Run, checkpoint: &Path) -> Result<Vec<Vec<u8>>> {
    (0..run.model.stage_count())
        .map(|index| {
            let path = checkpoint.join(format!("state-{index}.safetensors"));
            StageState::from_state(run, index, &read(&path)?)
                .and_then(|state| Ok(state.weights_bytes()?))
                .map_err(|e| Failure::input(format!("{}: {e}", path.display())))
        })
        .collect()
}

/// Opens the embedded store on a free port of this machine and reads what the pointer names.
fn of_bucket(folder: &RunFolder, run: &Run) -> Result<(String, Vec<Vec<u8>>)> {
    crate::roles::runtime()?.block_on(async {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (server, config) = crate::store::embedded(folder, free).await?;
        let store = S3::new(config).map_err(input)?;
        let outcome = async {
            let pointer = orchestrator::pointer_name(&run.id());
            let named = match store.pointer(&pointer).await.map_err(input)? {
                Some(pointer) => String::from_utf8_lossy(&pointer.value).into_owned(),
                None => return Err(Failure::input(format!("the store has no pointer {pointer}"))),
            };
            let (_, digest) = orchestrator::parse_pointer(&named).ok_or_else(|| {
                let expected = "expected the number of its moves and a digest";
                Failure::input(format!("the pointer {pointer} holds {named:?}, {expected}"))
            })?;
            let bytes = store.get("objects", &digest).await.map_err(input)?;
            let manifest = postcard::from_bytes::<Signed<Manifest>>(&bytes).map_err(input)?;
            manifest.verify().map_err(input)?;
            let mut stages = vec![];
            for record in &manifest.body.stages {
                stages.push(store.get("objects", &record.weights.digest).await.map_err(input)?.to_vec());
            }
            Ok((format!("manifest {digest} before epoch {}", manifest.body.epoch), stages))
        }
        .await;
        server.shutdown().await;
        outcome
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Failure::input(format!("{}: cannot be read ({e})", path.display())))
}

fn input(error: impl std::fmt::Display) -> Failure {
    Failure::input(error.to_string())
}
