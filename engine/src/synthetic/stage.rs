//! A stage in training, without its neighbours: what they would send is random.

use super::{MICROBATCHES, Size, SyntheticError, run, shard, uniform};
use crate::cost::StageCost;
use crate::data::TokenShard;
use crate::payload::{self, Expected, Kind};
use crate::state::{Keeping, StageState};
use crate::tensor::Tensor;
use crate::work::{WorkError, perform};
use kernels::device::Device;
use spec::{BoundaryCodec, Inner, Member, Operation, Outcome, Run};

/// A stage in training on a device.
#[derive(Debug)]
pub struct SyntheticStage {
    state: StageState,
    shard: TokenShard,
    /// What the stages before and after it send, of every microbatch the same.
    activation: Option<Vec<u8>>,
    gradient: Option<Vec<u8>>,
    step: u32,
}

impl SyntheticStage {
    /// The run of a model of `size` cut into `stages` of so many blocks, with so many microbatches a step and int8 payloads.
    ///
    /// # Errors
    /// The tokens cannot be made.
    pub fn run(size: &Size, stages: &[u32], members: u16) -> Result<Run, SyntheticError> {
        Ok(described(size, stages, members, &shard(size)?))
    }

    /// Stage `index` of [`SyntheticStage::run`] on `device`, at its start.
    ///
    /// # Errors
    /// The cut has no such stage, or the device no room for it.
    pub fn new(
        size: &Size,
        stages: &[u32],
        members: u16,
        index: usize,
        device: &Device,
    ) -> Result<Self, SyntheticError> {
        let shard = shard(size)?;
        let run = described(size, stages, members, &shard);
        let state = StageState::initial(&run, index)?.to_device(device).map_err(WorkError::from)?;
        let kind = state.stage().shape().kind;
        let activation = if kind.embeds() { None } else { random(&run, Kind::Activation)? };
        let gradient = if kind.judges() { None } else { random(&run, Kind::Gradient)? };
        Ok(Self { state, shard, activation, gradient, step: 0 })
    }

    /// Parameters of the stage.
    pub fn parameters(&self) -> usize {
        self.state.parameters()
    }

    /// What it keeps of microbatches until their backward.
    pub fn keeping(&self) -> Keeping {
        self.state.flight.keeping
    }

    /// Tokens of a step.
    pub fn step_tokens(&self) -> u64 {
        self.state.run.microbatch_tokens() * u64::from(self.state.run.inner.members)
    }

    /// FLOPs of a step, what is computed again not counted.
    pub fn step_flops(&self) -> u64 {
        let cost = StageCost::of(&self.state.run, self.state.stage.shape().index);
        let microbatch = cost.map_or(0, |cost| cost.forward_flops + cost.backward_flops);
        microbatch * u64::from(self.state.run.inner.members)
    }

    /// A whole inner step: all microbatches forward, all back, and the update.
    ///
    /// # Errors
    /// The device has no memory left, or is lost; a value is not finite.
    pub fn step(&mut self) -> Result<(), SyntheticError> {
        let members: Vec<Member> =
            (0..self.state.run.inner.members).map(|place| self.member(place)).collect();
        for &member in &members {
            self.perform(&Operation::Forward(member))?;
        }
        for &member in &members {
            self.perform(&Operation::Backward(member))?;
        }
        self.perform(&Operation::Step { step: self.step, members })?;
        self.step += 1;
        Ok(())
    }

    fn member(&self, position: u16) -> Member {
        let microbatch = u64::from(position) % u64::from(MICROBATCHES);
        Member { assignment: u64::from(position), attempt: 0, step: self.step, position, microbatch }
    }

    fn perform(&mut self, operation: &Operation) -> Result<(), SyntheticError> {
        let input = match operation {
            Operation::Forward(_) => self.activation.as_deref(),
            Operation::Backward(_) => self.gradient.as_deref(),
            _ => None,
        };
        match perform(&mut self.state, Some(&self.shard), 0, operation, input.as_slice())?.outcome {
            Outcome::Ok => Ok(()),
            // Payloads are its own: what it cannot use, it made.
            Outcome::NonFinite | Outcome::Unusable => Err(SyntheticError::NonFinite { step: self.step }),
        }
    }
}

fn described(size: &Size, stages: &[u32], members: u16, shard: &TokenShard) -> Run {
    let run = run(size, shard, stages);
    Run { inner: Inner { members, ..run.inner }, boundary: BoundaryCodec::Int8, ..run }
}

/// A payload of small random numbers.
fn random(run: &Run, kind: Kind) -> Result<Option<Vec<u8>>, WorkError> {
    let expected = Expected::of(run, kind);
    let shape = [expected.rows as usize, expected.cols as usize];
    let values = uniform(shape[0] * shape[1]).into_iter().map(|value| (value - 0.5) * 1e-2).collect();
    Ok(payload::encode(&expected, &Tensor::new(&shape, values))?)
}
