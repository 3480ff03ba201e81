//! A training run's folder.
//!
//! ```text
//! run.toml                         what the run is
//! objects/<digest>                 the two token shards, and tokenizer.json unless tokens are bytes
//! checkpoints/step-<n>/            manifest.json, state-, anchor- and stale-<stage>.safetensors
//! metrics.jsonl                    one line a step
//! events.out.tfevents.<time>.iota  the same for TensorBoard
//! loss.svg, sample.txt             written when the run ends or stops
//! ```
//!
//! The folder and every checkpoint are written under another name, flushed to disk, and renamed: whole or not at all.

use crate::failure::{Failure, Result};
use crate::shards::{self, Shards};
use crate::whole::{settle, trouble, write};
use engine::data::{TextTokenizer, TokenShard};
use engine::train::{Checkpoint, CheckpointFile, Progress, StageRecord};
use serde::{Deserialize, Serialize};
use spec::{Digest, Run};
use std::path::{Path, PathBuf};

/// What `format` says in a manifest.
const FORMAT: &str = "iota checkpoint v1";
const MANIFEST: &str = "manifest.json";
/// Checkpoints kept; the one before the last survives a disk that spoils the last.
const KEPT: usize = 2;

/// An existing run's folder.
pub struct TrainFolder {
    root: PathBuf,
    run: Run,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: String,
    run: Digest,
    epoch: u32,
    step: u32,
    stages: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    state: Digest,
    weights: Digest,
    momentum: Digest,
    anchor: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stale: Option<Digest>,
}

impl TrainFolder {
    /// Makes the folder of `run` in `runs`, named by the run and the time.
    pub fn create(runs: &Path, run: Run, shards: &Shards) -> Result<Self> {
        let seconds = unix_time_s() as u64;
        let name = format!("{}-{}-{seconds}-{}", run.name, run.id().short(), std::process::id());
        let root = runs.join(name);
        let fresh = root.with_extension("fresh");
        let written = (|| {
            for inside in ["objects", "checkpoints"] {
                let path = fresh.join(inside);
                std::fs::create_dir_all(&path).map_err(|e| trouble(&path, &e))?;
            }
            shards.copy(&fresh.join("objects"))?;
            write(&fresh.join("run.toml"), run.to_toml().as_bytes())?;
            settle(&fresh, &root)
        })();
        written.inspect_err(|_| drop(std::fs::remove_dir_all(&fresh)))?;
        Ok(Self { root, run })
    }

    /// Opens a run's folder.
    pub fn open(root: &Path) -> Result<Self> {
        let path = root.join("run.toml");
        let text = std::fs::read_to_string(&path).map_err(|e| {
            Failure::input(format!(
                "{}: cannot be read ({e}); expected the folder of a training run",
                path.display()
            ))
        })?;
        let run = Run::from_toml(&text).map_err(|e| {
            Failure::input(format!("{}: {}", root.display(), e.to_string().replace('\n', " ")))
        })?;
        Ok(Self { root: root.into(), run })
    }

    /// The run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path inside.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside)
    }

    /// The token shard of this digest.
    pub fn shard(&self, digest: Digest) -> Result<TokenShard> {
        let path = self.root.join("objects").join(digest.to_string());
        let shard =
            TokenShard::open(&path).map_err(|e| Failure::input(format!("{}: {e}", path.display())))?;
        if shard.digest() != digest {
            return Err(Failure::input(format!(
                "{}: its BLAKE3 is {}, expected {digest}; restore it, or make a new run",
                path.display(),
                shard.digest()
            )));
        }
        Ok(shard)
    }

    /// The run's tokenizer.
    pub fn tokenizer(&self) -> Result<TextTokenizer> {
        shards::tokenizer(self.run.data.tokenizer, &self.root.join("objects"))
    }

    /// Writes a checkpoint, then drops all but the newest few.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<PathBuf> {
        let step = checkpoint.progress.steps(&self.run);
        let path = self.root.join("checkpoints").join(format!("step-{step:08}"));
        let fresh = path.with_extension("fresh");
        let written = (|| {
            if fresh.exists() {
                std::fs::remove_dir_all(&fresh).map_err(|e| trouble(&fresh, &e))?;
            }
            std::fs::create_dir_all(&fresh).map_err(|e| trouble(&fresh, &e))?;
            for file in &checkpoint.files {
                write(&fresh.join(&file.name), &file.bytes)?;
            }
            let manifest = serde_json::to_vec_pretty(&Manifest::of(checkpoint))
                .map_err(|e| Failure::run(format!("{}: {e}", fresh.display())))?;
            write(&fresh.join(MANIFEST), &manifest)?;
            if path.exists() {
                // Only ever the same content: the checkpoint that this process resumed from.
                std::fs::remove_dir_all(&path).map_err(|e| trouble(&path, &e))?;
            }
            settle(&fresh, &path)
        })();
        written.inspect_err(|_| drop(std::fs::remove_dir_all(&fresh)))?;
        let all = self.checkpoints()?;
        for old in &all[..all.len().saturating_sub(KEPT)] {
            std::fs::remove_dir_all(old).map_err(|e| trouble(old, &e))?;
        }
        Ok(path)
    }

    /// Reads the newest checkpoint, or the one at `path`. Its files are checked by whoever resumes.
    pub fn load(&self, path: Option<&Path>) -> Result<(PathBuf, Checkpoint)> {
        let newest = match path {
            Some(path) => Some(path.to_path_buf()),
            None => self.checkpoints()?.pop(),
        };
        let Some(path) = newest else {
            return Err(Failure::input(format!(
                "{}: holds no checkpoint; the run stopped before its first, make a new one",
                self.root.join("checkpoints").display()
            )));
        };
        let file = path.join(MANIFEST);
        let text = std::fs::read(&file)
            .map_err(|e| Failure::input(format!("{}: cannot be read ({e})", file.display())))?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|e| Failure::input(format!("{}: not a checkpoint's manifest ({e})", file.display())))?;
        if manifest.format != FORMAT {
            return Err(Failure::input(format!(
                "{}: format is {:?}, expected {FORMAT:?}",
                file.display(),
                manifest.format
            )));
        }
        let mut checkpoint = manifest.checkpoint();
        for name in Checkpoint::names(&checkpoint.stages, self.run.model.stage_count()) {
            // One that is missing is named by whoever resumes.
            if let Ok(bytes) = std::fs::read(path.join(&name)) {
                checkpoint.files.push(CheckpointFile { name, bytes });
            }
        }
        Ok((path, checkpoint))
    }

    /// Whole checkpoints, oldest first.
    fn checkpoints(&self) -> Result<Vec<PathBuf>> {
        let folder = self.root.join("checkpoints");
        let entries = folder.read_dir().map_err(|e| trouble(&folder, &e))?;
        let mut found: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_none() && path.join(MANIFEST).is_file())
            .collect();
        found.sort();
        Ok(found)
    }
}

impl Manifest {
    fn of(checkpoint: &Checkpoint) -> Self {
        let record = |&StageRecord { state, weights, momentum, anchor, stale }: &StageRecord| Record {
            state,
            weights,
            momentum,
            anchor,
            stale,
        };
        Self {
            format: FORMAT.into(),
            run: checkpoint.run,
            epoch: checkpoint.progress.epoch,
            step: checkpoint.progress.step,
            stages: checkpoint.stages.iter().map(record).collect(),
        }
    }

    /// Still without its files.
    fn checkpoint(self) -> Checkpoint {
        let record = |Record { state, weights, momentum, anchor, stale }| StageRecord {
            state,
            weights,
            momentum,
            anchor,
            stale,
        };
        Checkpoint {
            run: self.run,
            progress: Progress { epoch: self.epoch, step: self.step },
            stages: self.stages.into_iter().map(record).collect(),
            files: vec![],
        }
    }
}

/// Seconds since 1970; 0 on a clock before that.
pub fn unix_time_s() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
