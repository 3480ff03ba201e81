//! A run between two steps, as named bytes.

use super::{Progress, TrainError};
use crate::state::StageState;
use spec::{Digest, Run};

/// Everything that a run's continuation depends on, besides run and shard.
///
/// | file | holds |
/// |---|---|
/// | `state-<stage>.safetensors` | weights, moments, step count; with an outer optimizer also residual and momentum |
/// | `anchor-<stage>.safetensors` | weights at the last merge: only with an outer optimizer, within an epoch |
/// | `stale-<stage>.safetensors` | weights on which the next step runs: only with staleness 1, within a window |
///
/// Further lanes of a run with several miners a stage have files of their own, `state-<stage>-lane-<lane>.safetensors`
/// and so on, lane 1 first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The run's id.
    pub run: Digest,
    /// How far it is.
    pub progress: Progress,
    /// What the files must be, one record a stage, head first, lane after lane.
    pub stages: Vec<StageRecord>,
    /// The files.
    pub files: Vec<CheckpointFile>,
}

/// Digests of one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageRecord {
    /// Of the state file.
    pub state: Digest,
    /// Of the weights as a file of their own, as a manifest names them.
    pub weights: Digest,
    /// Of the outer momentum, as a manifest names it.
    pub momentum: Digest,
    /// Of the weights at the last merge.
    pub anchor: Digest,
    /// Of the weights on which the next step runs, where these are not the state's.
    pub stale: Option<Digest>,
}

/// One file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFile {
    /// Its name.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A checkpoint that is not one of this run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Of another run.
    #[error("the checkpoint belongs to run {found}, expected run {expected}; resume the folder it came from")]
    OtherRun {
        /// This run.
        expected: Digest,
        /// The checkpoint's.
        found: Digest,
    },
    /// Another number of stages.
    #[error("the checkpoint records {found} stages, the run has {expected}")]
    Stages {
        /// The run's.
        expected: usize,
        /// The checkpoint's.
        found: usize,
    },
    /// A point beyond the run.
    #[error("the checkpoint stands at epoch {}, step {}, beyond the run's {epochs} epochs of {steps} steps", found.epoch, found.step)]
    Beyond {
        /// Where it stands.
        found: Progress,
        /// The run's epochs.
        epochs: u32,
        /// Steps of each.
        steps: u32,
    },
    /// Weights for the next step beside the state's, where there are none, or none where there are.
    #[error(
        "the checkpoint at epoch {}, step {} records stale weights for {found} of {} lanes' stages, expected {expected}",
        at.epoch, at.step, stages
    )]
    Stale {
        /// Where it stands.
        at: Progress,
        /// Stages of all lanes.
        stages: usize,
        /// All of them if the next step is stale, else none.
        expected: usize,
        /// With such weights.
        found: usize,
    },
    /// A file is not there.
    #[error("the checkpoint lacks {name}; restore it, or resume from another checkpoint")]
    Missing {
        /// The file.
        name: String,
    },
    /// A file is another than recorded.
    #[error(
        "{name}: its BLAKE3 is {found}, the manifest says {expected}; restore it, or resume from another checkpoint"
    )]
    Damaged {
        /// The file.
        name: String,
        /// Recorded.
        expected: Digest,
        /// Found.
        found: Digest,
    },
}

impl Checkpoint {
    /// Name of the state file of a stage.
    pub fn state_name(lane: usize, stage: usize) -> String {
        name("state", lane, stage)
    }

    /// Name of the file of the weights of a stage at the last merge.
    pub fn anchor_name(lane: usize, stage: usize) -> String {
        name("anchor", lane, stage)
    }

    /// Name of the file of the weights on which the next step of a stage runs.
    pub fn stale_name(lane: usize, stage: usize) -> String {
        name("stale", lane, stage)
    }

    /// The names of the files that a checkpoint with these records needs, of a run with so many stages.
    pub fn names(records: &[StageRecord], stage_count: usize) -> Vec<String> {
        let of_record = |(number, record): (usize, &StageRecord)| {
            let (lane, stage) = (number / stage_count.max(1), number % stage_count.max(1));
            [
                Some(Self::state_name(lane, stage)),
                record.needs_anchor().then(|| Self::anchor_name(lane, stage)),
                record.stale.map(|_| Self::stale_name(lane, stage)),
            ]
        };
        records.iter().enumerate().flat_map(of_record).flatten().collect()
    }

    pub(super) fn of(run: &Run, lanes: &[Vec<StageState>], progress: Progress) -> Result<Self, TrainError> {
        let (mut records, mut files) = (Vec::new(), Vec::new());
        for (lane, stages) in lanes.iter().enumerate() {
            for (stage, state) in stages.iter().enumerate() {
                let (bytes, stale) = (state.state_bytes()?, state.stale_bytes()?);
                let record = StageRecord {
                    state: Digest::of(&bytes),
                    weights: state.weights_digest()?,
                    momentum: state.momentum_digest()?,
                    anchor: state.anchor(),
                    stale: stale.as_deref().map(Digest::of),
                };
                files.push(CheckpointFile { name: Self::state_name(lane, stage), bytes });
                if let Some(bytes) = state.anchor_bytes()?.filter(|_| record.needs_anchor()) {
                    files.push(CheckpointFile { name: Self::anchor_name(lane, stage), bytes });
                }
                if let Some(bytes) = stale {
                    files.push(CheckpointFile { name: Self::stale_name(lane, stage), bytes });
                }
                records.push(record);
            }
        }
        Ok(Self { run: run.id(), progress, stages: records, files })
    }

    /// Every file against its record, and every state against the run; the first lane's stages.
    ///
    /// # Errors
    /// The first thing that is not as it should be, by name.
    pub fn read_stages(&self, run: &Run) -> Result<Vec<StageState>, TrainError> {
        Ok(self.read_lanes(run)?.into_iter().next().unwrap_or_default())
    }

    /// Every file against its record, and every state against the run; the stages of every lane.
    ///
    /// # Errors
    /// The first thing that is not as it should be, by name.
    pub fn read_lanes(&self, run: &Run) -> Result<Vec<Vec<StageState>>, TrainError> {
        self.check(run)?;
        let step = self.progress.step;
        let mut lanes = Vec::new();
        for (lane, records) in self.stages.chunks(run.model.stage_count()).enumerate() {
            let mut stages = Vec::new();
            for (stage, record) in records.iter().enumerate() {
                let bytes = self.file(Self::state_name(lane, stage), record.state)?;
                let mut state = StageState::from_state(run, stage, bytes)?;
                if state.anchor_is_missing() {
                    state.restore_anchor(self.file(Self::anchor_name(lane, stage), record.anchor)?)?;
                }
                if let Some(stale) = record.stale {
                    state.restore_stale(step, self.file(Self::stale_name(lane, stage), stale)?)?;
                }
                stages.push(state);
            }
            lanes.push(stages);
        }
        Ok(lanes)
    }

    fn check(&self, run: &Run) -> Result<(), RecordError> {
        let (expected, found) = (run.id(), self.run);
        if expected != found {
            return Err(RecordError::OtherRun { expected, found });
        }
        let lanes = usize::from(run.miners_per_stage);
        let (expected, found) = (lanes * run.model.stage_count(), self.stages.len());
        if expected != found {
            return Err(RecordError::Stages { expected, found });
        }
        let (epochs, steps) = (run.epoch.count, run.epoch.steps);
        let at = self.progress;
        if at.step >= steps || at > (Progress { epoch: epochs, step: 0 }) {
            return Err(RecordError::Beyond { found: at, epochs, steps });
        }
        let stages = self.stages.len();
        let expected = if run.is_stale(at.step) { stages } else { 0 };
        let found = self.stages.iter().filter(|record| record.stale.is_some()).count();
        if expected != found {
            return Err(RecordError::Stale { at, stages, expected, found });
        }
        Ok(())
    }

    fn file(&self, name: String, expected: Digest) -> Result<&[u8], RecordError> {
        let Some(file) = self.files.iter().find(|file| file.name == name) else {
            return Err(RecordError::Missing { name });
        };
        let found = Digest::of(&file.bytes);
        if found != expected {
            return Err(RecordError::Damaged { name, expected, found });
        }
        Ok(&file.bytes)
    }
}

impl StageRecord {
    /// Whether the weights of the last merge are other than the state's: a file of their own then.
    fn needs_anchor(&self) -> bool {
        self.anchor != self.weights && self.momentum != Digest::default()
    }
}

fn name(what: &str, lane: usize, stage: usize) -> String {
    match lane {
        0 => format!("{what}-{stage}.safetensors"),
        lane => format!("{what}-{stage}-lane-{lane}.safetensors"),
    }
}
