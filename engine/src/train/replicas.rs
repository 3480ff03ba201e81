//! Several replicas of every stage in one process: what a swarm of `miners_per_stage` miners a stage computes, to the
//! bit, as long as its assignment stands. Lane *l* of *n* takes microbatches *l*, *l + n*, *l + 2n*, ...

use super::lane::Lane;
use super::{StageRecord, TrainError};
use crate::contribution::{Committed, Contribution};
use crate::data::TokenShard;
use crate::state::StageState;
use crate::work::{Done, WorkError, perform};
use spec::{Member, NodeId, Operation, Outcome, Outer, Run};

/// All stages of a run, each `miners_per_stage` times.
#[derive(Debug)]
pub struct Replicas {
    run: Run,
    shard: TokenShard,
    /// By lane and stage.
    lanes: Vec<Vec<StageState>>,
    epoch: u32,
}

/// What an epoch left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochReport {
    /// Which epoch ended.
    pub epoch: u32,
    /// Mean loss over its microbatches, in units of 2^-32 nats per token.
    pub loss_q32: i64,
    /// Each stage, head first, as lane 0 holds it; weights, momentum and anchor are those of every lane.
    pub stages: Vec<StageRecord>,
}

impl Replicas {
    /// The beginning of a run. `shard` is its training shard.
    ///
    /// # Errors
    /// Another shard than the run's.
    pub fn new(run: &Run, shard: TokenShard) -> Result<Self, TrainError> {
        let (expected, found) = (run.data.train, shard.digest());
        if expected != found {
            return Err(TrainError::WrongShard { expected, found });
        }
        let lane = |_| (0..run.model.stage_count()).map(|stage| StageState::initial(run, stage)).collect();
        let lanes = (0..run.miners_per_stage).map(lane).collect::<Result<_, _>>()?;
        Ok(Self { run: run.clone(), shard, lanes, epoch: 0 })
    }

    /// The lanes' stages, head first.
    pub fn lanes(&self) -> &[Vec<StageState>] {
        &self.lanes
    }

    /// The next epoch with its merge; `None` once the run is complete.
    ///
    /// # Errors
    /// Tokens that cannot be read, or a value that is not finite. The replicas are of no use then.
    pub fn epoch(&mut self) -> Result<Option<EpochReport>, TrainError> {
        let (epoch, members, lanes) = (self.epoch, self.run.inner.members, self.lanes.len() as u64);
        if epoch >= self.run.epoch.count {
            return Ok(None);
        }
        let (mut loss_sum, mut losses) = (0_i128, 0_i128);
        for step in 0..self.run.epoch.steps {
            for (number, stages) in (0..).zip(&mut self.lanes) {
                let mut lane = Lane { stages, shard: &self.shard, epoch };
                let mut folded = Vec::new();
                for position in 0..members {
                    let turn = u64::from(step) * u64::from(members) + u64::from(position);
                    let microbatch = turn * lanes + number;
                    let member = Member { assignment: microbatch, attempt: 0, step, position, microbatch };
                    loss_sum += i128::from(lane.member(member)?);
                    losses += 1;
                    folded.push(member);
                }
                lane.everywhere(&Operation::Step { step, members: folded })?;
            }
        }
        for stage in 0..self.run.model.stage_count() {
            let mut replicas: Vec<&mut StageState> =
                self.lanes.iter_mut().map(|stages| &mut stages[stage]).collect();
            merge(&mut replicas, stage, epoch)?;
        }
        self.epoch += 1;
        let record = |state: &StageState| -> Result<StageRecord, TrainError> {
            Ok(StageRecord {
                state: state.state_digest()?,
                weights: state.weights_digest()?,
                momentum: state.momentum_digest()?,
                anchor: state.anchor(),
            })
        };
        // A mean of i64 values is one.
        let loss_q32 = (loss_sum / losses.max(1)) as i64;
        let stages = self.lanes[0].iter().map(record).collect::<Result<_, _>>()?;
        Ok(Some(EpochReport { epoch, loss_q32, stages }))
    }
}

/// Ends an epoch for the replicas of one stage: scales, codes on the shared scales, one exact sum, the outer step in
/// each. Sums are integers, so how a swarm cuts them into shards shows in no bit of the result.
pub(super) fn merge(replicas: &mut [&mut StageState], stage: usize, epoch: u32) -> Result<(), TrainError> {
    let mut sums = Vec::new();
    if let Some(Outer::Nesterov { bits, .. }) = replicas.first().map(|first| first.run.outer.clone()) {
        let scales = each(replicas, stage, epoch, &Operation::Scale, &[])?;
        let contributions = each(replicas, stage, epoch, &Operation::Encode, &scales)?;
        // Whose they are shows in no bit of the sum either.
        let contributors: Vec<NodeId> = (0..replicas.len()).map(|i| NodeId([i as u8; 32])).collect();
        let mut pieces = Vec::new();
        for (bytes, &who) in contributions.iter().zip(&contributors) {
            let count = replicas[0].parameters();
            let contribution = Contribution::from_bytes(bits, count, bytes).map_err(WorkError::from)?;
            let whole = Committed::new(contribution, who);
            pieces.extend(whole.piece(&(0..whole.leaves())));
        }
        let reduce = Operation::Reduce { shard: 0, contributors };
        sums = each(&mut replicas[..1], stage, epoch, &reduce, &pieces)?;
    }
    each(replicas, stage, epoch, &Operation::Apply, &sums).map(drop)
}

/// Performs an operation of the merge in each replica; the outputs, of those that have one.
fn each(
    replicas: &mut [&mut StageState],
    stage: usize,
    epoch: u32,
    operation: &Operation,
    inputs: &[Vec<u8>],
) -> Result<Vec<Vec<u8>>, TrainError> {
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let mut outputs = Vec::new();
    for state in replicas {
        let Done { output, outcome, .. } = perform(state, None, epoch, operation, &inputs)?;
        if outcome == Outcome::NonFinite {
            return Err(TrainError::NonFinite { operation: operation.to_string(), stage, epoch });
        }
        outputs.extend(output);
    }
    Ok(outputs)
}
