//! Forward and backward of one member.

use super::{Done, WorkError, check_step};
use crate::autograd::Tape;
use crate::data::{Microbatch, TokenShard};
use crate::model::{Goal, Input, Stage};
use crate::ops;
use crate::payload::{self, Expected, Kind};
use crate::state::{Saved, StageState};
use crate::tensor::{Tensor, Values};
use kernels::device::DeviceError;
use spec::{Member, Outcome};

pub fn forward(
    state: &mut StageState,
    data: Option<&TokenShard>,
    epoch: u32,
    member: &Member,
    input: Option<&[u8]>,
) -> Result<Done, WorkError> {
    check_step(state, "forward", member.step)?;
    if state.flight.saved(member).is_some() {
        return Err(WorkError::Repeated { member: *member });
    }
    let kind = state.stage.shape().kind;
    let activation = match input {
        Some(bytes) => {
            Some(payload::decode(&Expected::of(&state.run, Kind::Activation), bytes, &state.device)?)
        }
        None => None,
    };
    let batch = match kind.embeds() || kind.judges() {
        true => Some(tokens(state, data, epoch, member)?),
        false => None,
    };
    forward_batch(state, member, batch, activation)
}

/// The forward of a member whose microbatch and input are at hand.
pub(crate) fn forward_batch(
    state: &mut StageState,
    member: &Member,
    batch: Option<Microbatch>,
    activation: Option<Tensor>,
) -> Result<Done, WorkError> {
    let (tokens, targets) = match &batch {
        Some(batch) => (&*batch.inputs, &*batch.targets),
        None => (&[][..], &[][..]),
    };
    let tape = run_stage(state, tokens, activation, targets)?;
    let Some(done) = output(state, &tape)? else { return Ok(Done::new(Outcome::NonFinite)) };
    let kept = state.flight.saved.iter().filter(|(_, saved)| matches!(saved, Saved::Tape(_))).count();
    let saved = if kept < state.flight.kept_max {
        Saved::Tape(tape)
    } else {
        Saved::Input { batch, activation: tape.into_input() }
    };
    state.flight.saved.push((*member, saved));
    Ok(done)
}

pub fn backward(state: &mut StageState, member: &Member, input: Option<&[u8]>) -> Result<Done, WorkError> {
    check_step(state, "backward", member.step)?;
    if let Some(last) = state.flight.folded.last().filter(|last| last.position >= member.position) {
        return Err(WorkError::OutOfOrder { member: *member, last: last.position });
    }
    let Some(place) = state.flight.saved(member) else {
        return Err(WorkError::NotForwarded { member: *member });
    };
    let gradient = Expected::of(&state.run, Kind::Gradient);
    let seed = match input {
        Some(bytes) => Some(payload::decode(&gradient, bytes, &state.device)?),
        None => None,
    };
    let tape = match state.flight.saved.swap_remove(place).1 {
        Saved::Tape(tape) => tape,
        Saved::Input { batch: Some(batch), activation } => {
            run_stage(state, &batch.inputs, activation, &batch.targets)?
        }
        Saved::Input { batch: None, activation } => run_stage(state, &[], activation, &[])?,
    };
    let flight = &mut state.flight;
    // Before the first fold there is nothing but zeros to take back.
    if !flight.folded.is_empty() {
        if flight.spare.is_empty() {
            flight.spare = Values::zeros(&state.device, flight.gradients.len())?;
        }
        ops::copy(flight.gradients.all(), flight.spare.all_mut())?;
    }
    let of_input = tape.backward(state.stage.parameters(&state.weights), seed, &mut flight.gradients)?;
    let done = match of_input {
        // A head's gradient ends in its table.
        None => Some(Done::new(Outcome::Ok)),
        Some(tensor) => payload::encode(&gradient, &tensor)?.map(Done::with_output),
    };
    match done {
        Some(done) if ops::first_beyond(flight.gradients.all(), f32::INFINITY)?.is_none() => {
            flight.folded.push(*member);
            Ok(done)
        }
        _ => {
            if flight.folded.is_empty() {
                ops::clear(flight.gradients.all_mut())?;
            } else {
                std::mem::swap(&mut flight.gradients, &mut flight.spare);
            }
            Ok(Done::new(Outcome::NonFinite))
        }
    }
}

fn tokens(
    state: &StageState,
    data: Option<&TokenShard>,
    epoch: u32,
    member: &Member,
) -> Result<Microbatch, WorkError> {
    let expected = state.run.data.train;
    let Some(shard) = data else {
        return Err(WorkError::NoData { operation: "forward", stage: state.kind_name(), expected });
    };
    if shard.digest() != expected {
        return Err(WorkError::WrongShard { expected, found: shard.digest() });
    }
    Ok(shard.microbatch(&state.run, epoch, member.microbatch)?)
}

fn run_stage(
    state: &StageState,
    tokens: &[u32],
    activation: Option<Tensor>,
    targets: &[u32],
) -> Result<Tape, DeviceError> {
    let stage: &Stage = &state.stage;
    let input = activation.map_or(Input::Tokens(tokens), Input::Activation);
    stage.forward(&state.weights, input, Goal::Loss(targets), state.run.model.context as usize)
}

/// Loss or payload; `None` if it is not finite.
fn output(state: &StageState, tape: &Tape) -> Result<Option<Done>, DeviceError> {
    let Some(last) = tape.last() else { return Ok(None) };
    if state.stage.shape().kind.judges() {
        let loss = ops::mean_q32(last)?;
        return Ok(loss.map(|loss| Done { loss_q32: Some(loss), ..Done::new(Outcome::Ok) }));
    }
    let encoded = payload::encode(&Expected::of(&state.run, Kind::Activation), last)?;
    Ok(encoded.map(Done::with_output))
}
