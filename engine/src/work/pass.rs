//! Forward and backward of one member.

use super::{Done, WorkError, check_ahead, check_step};
use crate::autograd::Tape;
use crate::data::{Microbatch, TokenShard};
use crate::model::{Goal, Input, Stage};
use crate::ops;
use crate::payload::{self, Expected, Incoming, Kind};
use crate::state::{Keeping, Saved, StageState};
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
    check_ahead(state, member.step)?;
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
    let (tokens, targets) = ids(batch.as_ref());
    let (done, saved) = match state.flight.keeping {
        Keeping::Activations(most) => {
            let tape = run_stage(state, member, tokens, activation, targets)?;
            let Some(done) = output(state, tape.last())? else { return Ok(Done::new(Outcome::NonFinite)) };
            let kept = state.flight.saved.iter().filter(|(_, saved)| matches!(saved, Saved::Tape(_))).count();
            let saved = match kept < most {
                true => Saved::Tape(tape),
                false => Saved::Input { batch, activation: tape.into_input() },
            };
            (done, saved)
        }
        by_blocks => {
            let most = match by_blocks {
                // A head's input is its tokens.
                Keeping::StageInput => usize::from(activation.is_some()),
                _ => usize::MAX,
            };
            let goal = Some(Goal::Loss(targets));
            let (inputs, last) = run_in_parts(state, member, tokens, activation, goal, most)?;
            let Some(done) = output(state, last.as_ref())? else { return Ok(Done::new(Outcome::NonFinite)) };
            (done, Saved::Parts { batch, inputs })
        }
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
        // On its way while activations are computed again.
        Some(bytes) => Some(payload::receive(&gradient, bytes, &state.device)?),
        None => None,
    };
    let way = match state.flight.saved.swap_remove(place).1 {
        Saved::Tape(tape) => Way::Whole(tape),
        Saved::Input { batch, activation } => {
            let (tokens, targets) = ids(batch.as_ref());
            Way::Whole(run_stage(state, member, tokens, activation, targets)?)
        }
        Saved::Parts { batch, inputs } if inputs.len() < state.stage.part_inputs() => {
            let (tokens, _) = ids(batch.as_ref());
            let first = inputs.into_iter().next();
            let (inputs, _) = run_in_parts(state, member, tokens, first, None, usize::MAX)?;
            Way::Parts(batch, inputs)
        }
        Saved::Parts { batch, inputs } => Way::Parts(batch, inputs),
    };
    let seed = match seed.map(Incoming::decode).transpose() {
        Ok(seed) => seed,
        Err(refused) => {
            state.flight.saved.push((*member, way.into_saved()));
            return Err(refused.into());
        }
    };
    let flight = &mut state.flight;
    // Before the first fold there is nothing but zeros to take back.
    if !flight.folded.is_empty() {
        if flight.spare.is_empty() {
            flight.spare = Values::zeros(&state.device, flight.gradients.len())?;
        }
        ops::copy(flight.gradients.all(), flight.spare.all_mut())?;
    }
    let weights = state.stash.weights(&state.weights, member.step);
    let of_input = match way {
        Way::Whole(tape) => tape.backward(state.stage.parameters(weights), seed, &mut flight.gradients)?,
        Way::Parts(batch, inputs) => {
            let (ids, seq) = (ids(batch.as_ref()), state.run.model.context as usize);
            state.stage.backward_in_parts(weights, ids, inputs, seed, &mut flight.gradients, seq)?
        }
    };
    let going = match of_input {
        // A head's gradient ends in its table.
        None => None,
        Some(tensor) => Some(payload::send(&gradient, &tensor)?),
    };
    // The payload leaves the device meanwhile.
    let finite = ops::first_beyond(flight.gradients.all(), f32::INFINITY)?.is_none();
    let done = match going {
        None => Some(Done::new(Outcome::Ok)),
        Some(going) => going.finish()?.map(Done::with_output),
    };
    match done {
        Some(done) if finite => {
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

/// How a member goes back.
enum Way {
    /// Along the tape of the whole stage.
    Whole(Tape),
    /// Part by part.
    Parts(Option<Microbatch>, Vec<Tensor>),
}

impl Way {
    fn into_saved(self) -> Saved {
        match self {
            Self::Whole(tape) => Saved::Tape(tape),
            Self::Parts(batch, inputs) => Saved::Parts { batch, inputs },
        }
    }
}

/// Inputs and targets of a microbatch, in a stage that reads them.
fn ids(batch: Option<&Microbatch>) -> (&[u32], &[u32]) {
    batch.map_or((&[], &[]), |batch| (&batch.inputs, &batch.targets))
}

fn run_stage(
    state: &StageState,
    member: &Member,
    tokens: &[u32],
    activation: Option<Tensor>,
    targets: &[u32],
) -> Result<Tape, DeviceError> {
    let stage: &Stage = &state.stage;
    let weights = state.stash.weights(&state.weights, member.step);
    let input = activation.map_or(Input::Tokens(tokens), Input::Activation);
    stage.forward(weights, input, Goal::Loss(targets), state.run.model.context as usize)
}

/// As [`run_stage`], part by part; see [`Stage::forward_in_parts`].
fn run_in_parts(
    state: &StageState,
    member: &Member,
    tokens: &[u32],
    activation: Option<Tensor>,
    goal: Option<Goal<'_>>,
    most: usize,
) -> Result<(Vec<Tensor>, Option<Tensor>), DeviceError> {
    let weights = state.stash.weights(&state.weights, member.step);
    let input = activation.map_or(Input::Tokens(tokens), Input::Activation);
    state.stage.forward_in_parts(weights, input, goal, state.run.model.context as usize, most)
}

/// Loss or payload; `None` if it is not finite.
fn output(state: &StageState, last: Option<&Tensor>) -> Result<Option<Done>, DeviceError> {
    let Some(last) = last else { return Ok(None) };
    if state.stage.shape().kind.judges() {
        let loss = ops::mean_q32(last)?;
        return Ok(loss.map(|loss| Done { loss_q32: Some(loss), ..Done::new(Outcome::Ok) }));
    }
    let encoded = payload::encode(&Expected::of(&state.run, Kind::Activation), last)?;
    Ok(encoded.map(Done::with_output))
}
