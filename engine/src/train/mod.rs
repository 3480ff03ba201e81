//! A run in one process: every stage of the cut, as often as the run has miners a stage, driven through the same
//! [`perform`] that a swarm is driven through. A replica of every stage is a lane.
//!
//! ```text
//! epoch e, step s:   for lane l = 0 .. lanes, position p = 0 .. members:  microbatch (s * members + p) * lanes + l:
//!                        forward   head -> tail, payloads through the boundary codec
//!                        backward  tail -> head, payloads through the boundary codec
//!                    step, in every stage of the lane
//! end of the epoch:  outer = nesterov: scale, encode, reduce (of every lane's contribution), apply, in every stage
//!                    outer = none:     apply, in every stage
//! ```
//!
//! That is what a swarm computes, to the bit, as long as its assignment stands. A miner forwards several members before it folds the first, because it waits for its neighbours. Weights stand still
//! within a step and gradients are folded in ascending position either way, so the operations commute and weights,
//! moments and every digest are those of the swarm. Here one microbatch is in flight at a time. Where a step is stale its members
//! run on the weights from before the last step, which [`perform`] keeps: whether their forwards ran ahead shows in no bit.
//!
//! There is no clock and no file: who drives a [`Trainer`] hands in run, shard and checkpoints as bytes, and decides
//! when to stop. What a checkpoint holds, and that resuming from it is exact, is in [`Checkpoint`].

mod checkpoint;
mod lane;
mod merge;

pub use checkpoint::{Checkpoint, CheckpointFile, RecordError, StageRecord};

use crate::checkpoint::CheckpointError;
use crate::data::TokenShard;
use crate::optim::learning_rate;
use crate::state::StageState;
use crate::work::WorkError;
use kernels::device::{Device, DeviceError};
use lane::Lane;
use spec::{Digest, Member, Operation, Run};

/// How far a run is: `step` inner steps of epoch `epoch` are done. At an epoch's end it is merged at once, so `step` is
/// below the epoch's steps; a complete run stands at (number of epochs, 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Progress {
    /// The epoch in hand.
    pub epoch: u32,
    /// Inner steps of it that are done.
    pub step: u32,
}

impl Progress {
    /// Inner steps done since the run began.
    pub fn steps(&self, run: &Run) -> u64 {
        u64::from(self.epoch) * u64::from(run.epoch.steps) + u64::from(self.step)
    }
}

/// What one inner step yielded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// The epoch it belongs to.
    pub epoch: u32,
    /// Its number within the epoch.
    pub step: u32,
    /// Inner steps done since the run began, this one included.
    pub steps_done: u64,
    /// Mean loss over the members of all lanes, in units of 2^-32 nats per token.
    pub loss_q32: i64,
    /// Sum of these losses, in the same units: what an epoch's exact mean is made of.
    pub loss_sum_q32: i128,
    /// Learning rate.
    pub lr: f32,
    /// Norm of the mean gradient over all stages, before the clip; the mean over the lanes.
    pub gradient_norm: f64,
    /// Tokens read, by all lanes.
    pub tokens: u64,
    /// The step was the epoch's last, and the epoch is merged.
    pub merged: bool,
}

/// A run that cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A stage's state cannot be made or read.
    #[error(transparent)]
    State(#[from] CheckpointError),
    /// A checkpoint is not one of this run.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An operation was impossible.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The device has no memory left, or is lost.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Another shard than the run's.
    #[error("the token shard is {found}, this run trains on {expected}")]
    WrongShard {
        /// Digest of the run's shard.
        expected: Digest,
        /// Digest of the shard passed.
        found: Digest,
    },
    /// A NaN or an infinity.
    #[error(
        "{operation} in stage {stage}, epoch {epoch}, gave a NaN or an infinity, expected finite values; lower inner.lr, \
         or resume from an earlier checkpoint"
    )]
    NonFinite {
        /// What was done.
        operation: String,
        /// Where.
        stage: usize,
        /// When.
        epoch: u32,
    },
    /// An error broke off a step before.
    #[error("an earlier error broke off this step: resume from the last checkpoint")]
    BrokenOff,
}

/// Everything a run in one process holds.
#[derive(Debug)]
pub struct Trainer {
    run: Run,
    shard: TokenShard,
    /// By lane and stage.
    lanes: Vec<Vec<StageState>>,
    progress: Progress,
    broken_off: bool,
}

impl Trainer {
    /// The beginning of a run. `shard` is its training shard.
    ///
    /// # Errors
    /// Another shard than the run's.
    pub fn new(run: &Run, shard: TokenShard) -> Result<Self, TrainError> {
        let lane = |_| (0..run.model.stage_count()).map(|stage| StageState::initial(run, stage)).collect();
        let lanes = (0..run.miners_per_stage).map(lane).collect::<Result<_, _>>()?;
        Self::with(run, shard, lanes, Progress { epoch: 0, step: 0 })
    }

    /// The run as it stood when `checkpoint` was taken: what follows is, to the bit, what followed there.
    ///
    /// # Errors
    /// Another shard than the run's, or a checkpoint that is incomplete, damaged or of another run; the error names the
    /// file, what it should be, and what it is.
    pub fn resume(run: &Run, shard: TokenShard, checkpoint: &Checkpoint) -> Result<Self, TrainError> {
        let lanes = checkpoint.read_lanes(run)?;
        Self::with(run, shard, lanes, checkpoint.progress)
    }

    /// The run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Goes on on `device`; what follows is the same to the bit.
    ///
    /// # Errors
    /// The device has no memory left, or is lost.
    pub fn to_device(mut self, device: &Device) -> Result<Self, TrainError> {
        let move_lane =
            |lane: Vec<StageState>| lane.into_iter().map(|state| state.to_device(device)).collect();
        self.lanes = self.lanes.into_iter().map(move_lane).collect::<Result<_, DeviceError>>()?;
        Ok(self)
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether every epoch is done.
    pub fn is_complete(&self) -> bool {
        self.progress.epoch >= self.run.epoch.count
    }

    /// All stages of the first lane, head first: what [`crate::evaluate`] takes. After a merge, and only then, every
    /// lane has their weights.
    pub fn stages(&self) -> Vec<&StageState> {
        self.lanes.first().into_iter().flatten().collect()
    }

    /// The stages of every lane, head first.
    pub fn lanes(&self) -> &[Vec<StageState>] {
        &self.lanes
    }

    /// The state between two steps, as files.
    ///
    /// # Errors
    /// The device is lost.
    pub fn checkpoint(&self) -> Result<Checkpoint, TrainError> {
        Checkpoint::of(&self.run, &self.lanes, self.progress)
    }

    /// The next inner step, and the merge if it ends an epoch; `None` once the run is complete.
    ///
    /// # Errors
    /// Tokens that cannot be read, or a value that is not finite. The trainer is of no use then.
    pub fn step(&mut self) -> Result<Option<StepReport>, TrainError> {
        if self.is_complete() {
            return Ok(None);
        }
        if std::mem::replace(&mut self.broken_off, true) {
            return Err(TrainError::BrokenOff);
        }
        let report = self.inner_step()?;
        self.broken_off = false;
        Ok(Some(report))
    }

    fn with(
        run: &Run,
        shard: TokenShard,
        lanes: Vec<Vec<StageState>>,
        progress: Progress,
    ) -> Result<Self, TrainError> {
        let (expected, found) = (run.data.train, shard.digest());
        if expected != found {
            return Err(TrainError::WrongShard { expected, found });
        }
        Ok(Self { run: run.clone(), shard, lanes, progress, broken_off: false })
    }

    fn inner_step(&mut self) -> Result<StepReport, TrainError> {
        let Progress { epoch, step } = self.progress;
        let (members, lanes) = (u64::from(self.run.inner.members), self.lanes.len() as u64);
        let (mut loss_sum_q32, mut norms) = (0, 0.0);
        for (number, stages) in (0..).zip(&mut self.lanes) {
            let mut lane = Lane { stages, shard: &self.shard, epoch };
            let mut folded = Vec::new();
            for position in 0..self.run.inner.members {
                let turn = u64::from(step) * members + u64::from(position);
                let microbatch = turn * lanes + number;
                let member = Member { assignment: microbatch, attempt: 0, step, position, microbatch };
                loss_sum_q32 += i128::from(lane.member(member)?);
                folded.push(member);
            }
            norms += lane.gradient_norm()? / members as f64;
            lane.everywhere(&Operation::Step { step, members: folded })?;
        }
        let merged = step + 1 == self.run.epoch.steps;
        if merged {
            for stage in 0..self.run.model.stage_count() {
                let mut replicas: Vec<&mut StageState> =
                    self.lanes.iter_mut().map(|stages| &mut stages[stage]).collect();
                merge::merge(&mut replicas, stage, epoch)?;
            }
        }
        self.progress =
            if merged { Progress { epoch: epoch + 1, step: 0 } } else { Progress { epoch, step: step + 1 } };
        let microbatches = members * lanes;
        Ok(StepReport {
            epoch,
            step,
            steps_done: self.progress.steps(&self.run),
            // A mean of i64 values is one.
            loss_q32: (loss_sum_q32 / i128::from(microbatches)) as i64,
            loss_sum_q32,
            lr: learning_rate(&self.run, epoch, step),
            gradient_norm: norms / lanes as f64,
            tokens: self.run.microbatch_tokens() * microbatches,
            merged,
        })
    }
}

#[cfg(test)]
mod tests;
