//! A stage's pass in parts: its tokens, each block, its loss. Between them only their inputs are kept, so that there is
//! never more than the tape of one part.
//!
//! The bits are those of the whole tape: a part's input is used within the part alone, so its gradient is the same sum in
//! the same order, and parts are visited from the last to the first, as nodes are.

use super::stage::{Goal, Input};
use super::{Stage, block};
use crate::autograd::{Parameters, Tape};
use crate::tensor::{Slice, SliceMut, Tensor, Values};
use kernels::device::DeviceError;

impl Stage {
    /// The inputs of the blocks and, after them, of what judges, of which the first `most` are kept; and, where there is a
    /// `goal`, the stage's output. As [`Stage::forward`] in all else.
    ///
    /// # Errors
    /// As [`Stage::forward`]; likewise below.
    ///
    /// # Panics
    /// As [`Stage::forward`]; likewise below.
    pub fn forward_in_parts<'a>(
        &'a self,
        weights: impl Into<Slice<'a>>,
        input: Input<'_>,
        goal: Option<Goal<'_>>,
        seq: usize,
        most: usize,
    ) -> Result<(Vec<Tensor>, Option<Tensor>), DeviceError> {
        let parameters = self.parameters(weights);
        let mut tape = Tape::default();
        self.read(parameters, &mut tape, input)?;
        let mut x = tape.into_last();
        let mut inputs = Vec::new();
        let mut keep = |input: Option<Tensor>| {
            if inputs.len() < most {
                inputs.extend(input);
            }
        };
        for place in 0..self.part_inputs() {
            let Some(input) = x.take() else { break };
            let tape = match goal {
                // Nobody asks for the output, and this is the last input.
                None if place + 1 == self.part_inputs() => {
                    keep(Some(input));
                    break;
                }
                Some(goal) if place == self.shape().blocks as usize => self.loss(parameters, input, goal)?,
                _ => self.block(parameters, place, input, seq)?,
            };
            let (input, output) = tape.into_ends();
            keep(input);
            x = output;
        }
        Ok((inputs, x))
    }

    /// How many inputs [`Stage::forward_in_parts`] keeps at most.
    pub fn part_inputs(&self) -> usize {
        self.shape().blocks as usize + usize::from(self.shape().kind.judges())
    }

    /// The way back through all parts, whose `inputs` are all at hand: adds the parameters' gradients to `gradients` and
    /// returns the gradient of the stage's input, if that is none of tokens. `seed` is the gradient of the stage's output,
    /// where it computes no loss.
    pub fn backward_in_parts(
        &self,
        weights: &Values,
        (tokens, targets): (&[u32], &[u32]),
        mut inputs: Vec<Tensor>,
        seed: Option<Tensor>,
        gradients: &mut Values,
        seq: usize,
    ) -> Result<Option<Tensor>, DeviceError> {
        assert_eq!(inputs.len(), self.part_inputs(), "the way back in parts: inputs");
        let parameters = self.parameters(weights);
        let mut gradient = seed;
        for place in (0..self.part_inputs()).rev() {
            let Some(input) = inputs.pop() else { break };
            let tape = match place < self.shape().blocks as usize {
                true => self.block(parameters, place, input, seq)?,
                false => self.loss(parameters, input, Goal::Loss(targets))?,
            };
            gradient = tape.backward(parameters, gradient, SliceMut::from(&mut *gradients))?;
        }
        if self.shape().kind.embeds() {
            let mut tape = Tape::default();
            self.read(parameters, &mut tape, Input::Tokens(tokens))?;
            gradient = tape.backward(parameters, gradient, SliceMut::from(gradients))?;
        }
        Ok(gradient)
    }

    fn block(
        &self,
        parameters: Parameters<'_>,
        place: usize,
        input: Tensor,
        seq: usize,
    ) -> Result<Tape, DeviceError> {
        let mut tape = Tape::default();
        let x = tape.input(input);
        block::forward(self, parameters, &mut tape, self.first_parameter(place), x, seq, None)?;
        Ok(tape)
    }

    fn loss(&self, parameters: Parameters<'_>, input: Tensor, goal: Goal<'_>) -> Result<Tape, DeviceError> {
        let mut tape = Tape::default();
        let x = tape.input(input);
        self.judge(parameters, &mut tape, x, goal)?;
        Ok(tape)
    }
}
