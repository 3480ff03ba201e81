//! The ops of a window one by one: what a *trace* says of them, and how one of them is checked alone.
//!
//! The receipts of a window bind the state before it, every payload that came in, and the outputs of its operations. Which ops
//! lead from there to there, in which order and on what, follows from the run, the stage and the receipts: anybody can
//! [`derive`] that *program* without arithmetic. A trace is one digest for each output of each op ([`perform`] yields it). If a trace
//! ends in an output that is not what the window gives, then some op in it has right inputs and a wrong output
//! ([`first_difference`]); of that output one tile is opened together with all that it is computed from ([`open`]), and
//! whoever has no more than the digests computes it again ([`check`]).
//!
//! | file | holds |
//! |---|---|
//! | `program` | ops, and what each reads |
//! | `record` | how ops are noted while they are performed |
//! | `slices` | parts of a file that open against its BLAKE3 |
//! | `tile` | which tiles an output has |
//! | `desk`, `compute` | one tile computed from what lies on the desk |
//! | `opening` | a tile opened, and checked |

mod compute;
mod desk;
mod opening;
mod program;
pub(crate) mod record;
pub mod slices;
mod tile;

pub use opening::{Difference, Element, Opening, Refused, Sources, check, first_tile, leaves, open};
pub use program::{Input, Kind, Op, Piece, Program, Said, Source};
pub use tile::Grid;

use crate::checkpoint::CheckpointError;
use crate::data::{Microbatch, TokenShard};
use crate::payload::{self, Expected};
use crate::state::{Keeping, StageState};
use crate::tensor::Tokens;
use crate::work::{Done, WorkError, forward_batch};
use kernels::device::{CudaDevice, Device, DeviceError};
use record::Recorder;
use spec::{Digest, Operation, Outcome, Run};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A window as its receipts say it.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// The run.
    pub run: &'a Run,
    /// The stage.
    pub stage: usize,
    /// The epoch.
    pub epoch: u32,
    /// The state file before it: its digest and length.
    pub state: (Digest, u64),
    /// Its operations from the first one, up to the one in question.
    pub said: &'a [Said],
}

/// A window that has no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// An operation that is none of an inner step, or did not end well: what follows depends on numbers.
    #[error(
        "operation {index} ({operation}) has no trace: only forwards, backwards and steps that ended well have"
    )]
    Operation {
        /// Its place.
        index: usize,
        /// What it is called.
        operation: &'static str,
    },
    /// The file before the window is not the state of this stage.
    #[error(transparent)]
    State(#[from] CheckpointError),
    /// An operation cannot be performed.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The device has no memory left, or is lost.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A bug of ours: an op read what no op made.
    #[error("an op reads what no op made: this is a bug")]
    Unknown,
}

/// What performing a window yields.
#[derive(Debug)]
pub struct Trace {
    /// The ops.
    pub program: Program,
    /// The digest of each output.
    pub digests: Vec<Digest>,
    /// The outputs that were asked for.
    pub kept: BTreeMap<u32, Vec<u8>>,
}

/// Performs one operation, as [`crate::perform`] says it.
pub type Performer<'a> = dyn FnMut(&mut StageState, Option<&TokenShard>, u32, &Operation, &[&[u8]]) -> Result<Done, WorkError>
    + 'a;

/// Number of bytes at the beginning of a state file that say what it is; the rest is values.
pub fn head_bytes(window: &Window<'_>, stage_parameters: u64) -> Option<u64> {
    let arrays = if window.run.outer == spec::Outer::None { 3 } else { 5 };
    window.state.1.checked_sub(4 * arrays * stage_parameters)
}

/// The program of a window, without any arithmetic: `head` is what stands before the values of the state file.
///
/// # Errors
/// The window has no trace, or the head is not one of this stage.
pub fn derive(window: &Window<'_>, head: &[u8]) -> Result<Program, TraceError> {
    check_said(window.said)?;
    let run = Arc::new(window.run.clone());
    let stages = run.model.stage_count();
    let stage = crate::model::Stage::new(&run.model, window.stage)
        .ok_or(CheckpointError::NoStage { index: window.stage, stages })?;
    let device = CudaDevice::imagined(u64::MAX / 2);
    let mut state =
        StageState::imagined(&run, stage, &Device::Cuda(device), Keeping::Activations(usize::MAX))?;
    state.take_metadata(&crate::checkpoint::head_metadata(head))?;
    if state.head() != head {
        return Err(CheckpointError::NotCanonical.into());
    }
    let kind = state.stage.shape().kind;
    let mut imagine =
        |state: &mut StageState, _: Option<&TokenShard>, epoch, operation: &Operation, _: &[&[u8]]| {
            let tokens = || Tokens::copy_of(&vec![0; run.microbatch_tokens() as usize]);
            match operation {
                Operation::Forward(member) => {
                    let expected = Expected::of(&run, payload::Kind::Activation);
                    let activation = match kind.embeds() {
                        true => None,
                        false => Some(payload::decode(&expected, &expected.of_zeros(), &state.device)?),
                    };
                    let reads = kind.embeds() || kind.judges();
                    let batch = reads.then(|| Microbatch { inputs: tokens(), targets: tokens() });
                    forward_batch(state, member, batch, activation)
                }
                Operation::Backward(_) => {
                    let gradient =
                        (!kind.judges()).then(|| Expected::of(&run, payload::Kind::Gradient).of_zeros());
                    crate::perform(state, None, epoch, operation, gradient.as_deref().as_slice())
                }
                _ => crate::perform(state, None, epoch, operation, &[]),
            }
        };
    let trace = recorded(window, state, None, &[], false, BTreeSet::new(), &mut imagine)?;
    Ok(trace.program)
}

/// Performs a window from the file of the state before it with one listening; keeps the outputs in `keep`. `inputs` has
/// the payload of each operation, empty where none comes in.
///
/// # Errors
/// The window has no trace, or cannot be performed.
pub fn perform(
    window: &Window<'_>,
    state: &[u8],
    data: Option<&TokenShard>,
    inputs: &[&[u8]],
    device: &Device,
    keep: BTreeSet<u32>,
    performer: &mut Performer<'_>,
) -> Result<Trace, TraceError> {
    check_said(window.said)?;
    let mut state = StageState::from_state(window.run, window.stage, state)?.to_device(device)?;
    state.keep(Keeping::Activations(usize::MAX));
    recorded(window, state, data, inputs, true, keep, performer)
}

fn check_said(said: &[Said]) -> Result<(), TraceError> {
    let traced = |said: &Said| {
        let inner =
            matches!(said.operation, Operation::Forward(_) | Operation::Backward(_) | Operation::Step { .. });
        inner && said.outcome == Outcome::Ok
    };
    match said.iter().position(|said| !traced(said)) {
        Some(index) => Err(TraceError::Operation { index, operation: said[index].operation.name() }),
        None => Ok(()),
    }
}

fn recorded(
    window: &Window<'_>,
    mut state: StageState,
    data: Option<&TokenShard>,
    inputs: &[&[u8]],
    computes: bool,
    keep: BTreeSet<u32>,
    performer: &mut Performer<'_>,
) -> Result<Trace, TraceError> {
    let mut recorder = Recorder::new(computes, keep);
    let (head, array) = (state.head().len() as u64, 4 * state.parameters() as u64);
    for (place, values) in (0u64..).zip([&state.weights, &state.m, &state.v]) {
        recorder.place(values.all(), Source::State, head + place * array);
    }
    recorder.place(state.flight.gradients.all(), Source::Zeros, 0);
    let listening = record::listen(recorder);
    operations(window, &mut state, data, inputs, performer, (head, array))?;
    let recorder = listening.finish();
    if !recorder.is_whole() {
        return Err(TraceError::Unknown);
    }
    let Recorder { program, digests, kept, .. } = recorder;
    Ok(Trace { program, digests, kept })
}

fn operations(
    window: &Window<'_>,
    state: &mut StageState,
    data: Option<&TokenShard>,
    inputs: &[&[u8]],
    performer: &mut Performer<'_>,
    (head, array): (u64, u64),
) -> Result<(), TraceError> {
    for (index, said) in window.said.iter().enumerate() {
        record::with(|recorder| recorder.begin_operation(index as u32));
        let input = inputs.get(index).filter(|input| !input.is_empty());
        let done = performer(state, data, window.epoch, &said.operation, input.copied().as_slice())?;
        if said.state.is_some() {
            note_state(window, state, head, array)?;
        }
        record::with(|recorder| recorder.deliver(&done));
    }
    Ok(())
}

/// Notes the state file that a step ends with.
fn note_state(window: &Window<'_>, state: &StageState, head: u64, array: u64) -> Result<(), TraceError> {
    let header = state.head();
    let noted = record::with(|recorder| {
        let mut reads: Vec<Input> =
            [&state.weights, &state.m, &state.v].map(|values| recorder.input(values.all())).into();
        // Residual and momentum change in merges alone.
        let kept = window.state.1.saturating_sub(head + 3 * array);
        reads.push(vec![Piece { source: Source::State, offset: head + 3 * array, bytes: kept }]);
        let bytes = header.len() as u64 + 3 * array + kept;
        let number = recorder.note(Kind::State { header }, reads, vec![bytes]);
        if recorder.computes() { recorder.made_by(number, |sink| state.write_state(sink)) } else { Ok(()) }
    });
    Ok(noted.unwrap_or(Ok(()))?)
}

/// Does something that nobody listens to: what is no op of the window, though it looks like one.
pub fn aside<T>(act: impl FnOnce() -> T) -> T {
    let _quiet = record::quiet();
    act()
}

/// The first output of which `theirs` has another digest than `mine`. Where a receipt has the digest, it counts for theirs.
pub fn first_difference(program: &Program, said: &[Said], mine: &[Digest], theirs: &[Digest]) -> Option<u32> {
    let differs = |(number, mine): &(u32, &Digest)| {
        signed(program, said, *number).or(theirs.get(*number as usize).copied()) != Some(**mine)
    };
    (0..).zip(mine).find(differs).map(|(number, _)| number)
}

/// The digest that a receipt has of an output.
fn signed(program: &Program, said: &[Said], value: u32) -> Option<Digest> {
    let op = &program.ops[program.maker(value)?.0];
    said.get(op.operation as usize)?.bound(&op.kind)
}

#[cfg(test)]
mod tests;
