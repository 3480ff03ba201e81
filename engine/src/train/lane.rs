//! One replica of every stage, and the way of a microbatch through them and back.

use super::TrainError;
use crate::data::TokenShard;
use crate::ops;
use crate::state::StageState;
use crate::work::{Done, perform};
use spec::{Member, Operation, Outcome};

/// Stages that hand payloads to one another, head first.
pub(super) struct Lane<'a> {
    pub stages: &'a mut [StageState],
    pub shard: &'a TokenShard,
    pub epoch: u32,
}

impl Lane<'_> {
    /// Forward head to tail, backward tail to head; the loss in 2^-32 nats per token.
    pub fn member(&mut self, member: Member) -> Result<i64, TrainError> {
        let (mut payload, mut loss) = (None, None);
        for stage in 0..self.stages.len() {
            let done = self.perform(stage, &Operation::Forward(member), payload.as_deref())?;
            (payload, loss) = (done.output, done.loss_q32);
        }
        for stage in (0..self.stages.len()).rev() {
            payload = self.perform(stage, &Operation::Backward(member), payload.as_deref())?.output;
        }
        Ok(loss.unwrap_or_default())
    }

    /// An operation without inputs, in every stage.
    pub fn everywhere(&mut self, operation: &Operation) -> Result<(), TrainError> {
        (0..self.stages.len()).try_for_each(|stage| self.perform(stage, operation, None).map(drop))
    }

    /// Of what is folded, over all stages; for people, no step depends on it.
    pub fn gradient_norm(&self) -> Result<f64, TrainError> {
        let mut sum = 0.0;
        for state in &*self.stages {
            let squares = ops::squares(state.stage.layout(), state.flight.gradients.all())?;
            sum += squares.iter().sum::<f64>();
        }
        Ok(sum.sqrt())
    }

    fn perform(
        &mut self,
        stage: usize,
        operation: &Operation,
        input: Option<&[u8]>,
    ) -> Result<Done, TrainError> {
        let (epoch, inputs) = (self.epoch, input.as_slice());
        let done = perform(&mut self.stages[stage], Some(self.shard), epoch, operation, inputs)?;
        match done.outcome {
            Outcome::Ok => Ok(done),
            Outcome::NonFinite | Outcome::Unusable => {
                Err(TrainError::NonFinite { operation: operation.to_string(), stage, epoch })
            }
        }
    }
}
