//! The keystone: one function that a miner performs and a validator replays.
//!
//! | operation | `inputs` | output | changes the state by |
//! |---|---|---|---|
//! | `Forward` | head, whole: none; else the activation payload | activation payload; tail, whole: none, but the loss | saving the stage's input |
//! | `Backward` | tail, whole: none; else the gradient payload | gradient payload; head, whole: none | folding parameter gradients |
//! | `Step` | none | none | one AdamW step |
//! | `Scale` | none | scales | nothing |
//! | `Encode` | scales of all that merge; none: its own | contribution | the residual |
//! | `Reduce` | pieces of the same leaves, one per contributor, in that order | sum | nothing |
//! | `Apply` | sums that cover the stage, in order; with `outer = none` nothing | none | the outer step |
//!
//! Within an inner step: `Forward` of a member before its `Backward`; `Backward` in ascending position; `Step` names
//! exactly the members folded. Where the next step is stale ([`Run::is_stale`](spec::Run::is_stale)) its forwards may come before this `Step`: they run
//! on the weights of now then as after it, and so do their backwards. A payload that is none of this run gives the outcome `Unusable` and changes nothing. `NonFinite` leaves the state as if the member had never come (forward, backward), skips
//! the update (step; see [`optim::step`]), or leaves weights and residual as they are (encode, apply); then there is no output.

mod merge;
mod pass;

pub(crate) use pass::forward_batch;

use crate::contribution::ContributionError;
use crate::data::{DataError, TokenShard};
use crate::optim::{self, Moving};
use crate::payload::PayloadError;
use crate::state::{Flight, StageState};
use kernels::device::DeviceError;
use spec::{Digest, Member, NodeId, Operation, Outcome};

/// What an operation yielded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Bytes to send: a payload block, a contribution or a sum.
    pub output: Option<Vec<u8>>,
    /// BLAKE3 of `output`.
    pub output_digest: Option<Digest>,
    /// Mean loss over the microbatch's tokens, in units of 2^-32 nats: of a forward where the stage computes the loss.
    pub loss_q32: Option<i64>,
    /// How it ended.
    pub outcome: Outcome,
}

/// An operation that cannot be performed on this state; the state is as before, or, if its device failed, of no use.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The tokens cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The payload is not the one expected.
    #[error(transparent)]
    Payload(PayloadError),
    /// A contribution or sum is not the one expected.
    #[error(transparent)]
    Contribution(#[from] ContributionError),
    /// The stage reads tokens and got none.
    #[error("{operation} in the {stage} reads tokens: pass the training shard {expected}")]
    NoData {
        /// The operation.
        operation: &'static str,
        /// The stage's kind.
        stage: &'static str,
        /// Digest of the shard it reads.
        expected: Digest,
    },
    /// Another shard than the run's.
    #[error("the token shard is {found}, this run trains on {expected}")]
    WrongShard {
        /// Digest of the run's shard.
        expected: Digest,
        /// Digest of the shard passed.
        found: Digest,
    },
    /// Another number of inputs than the operation takes.
    #[error("{operation} in the {stage} takes {expected} inputs, found {found}")]
    Inputs {
        /// The operation.
        operation: &'static str,
        /// The stage's kind.
        stage: &'static str,
        /// Number it takes.
        expected: usize,
        /// Number found.
        found: usize,
    },
    /// A second forward of the same member.
    #[error("forward of {member:?} was done already: perform its backward or forget it")]
    Repeated {
        /// The member.
        member: Member,
    },
    /// Backward of something that never went forward here.
    #[error("backward of {member:?} without its forward on this state")]
    NotForwarded {
        /// The member.
        member: Member,
    },
    /// Backward out of position order, or of a position folded already.
    #[error("backward of {member:?} after position {last}: gradients are folded in ascending position")]
    OutOfOrder {
        /// The member.
        member: Member,
        /// The last position folded.
        last: u16,
    },
    /// A member of another inner step than the work in flight.
    #[error(
        "{operation} belongs to inner step {found}, work of step {expected} is in flight: finish it with its step"
    )]
    OtherStep {
        /// The operation.
        operation: &'static str,
        /// The step in flight.
        expected: u32,
        /// The step found.
        found: u32,
    },
    /// A step that names others than those folded.
    #[error("step {step} names {found:?}, folded were {folded:?}")]
    Members {
        /// The step.
        step: u32,
        /// Members folded.
        folded: Vec<Member>,
        /// Members named.
        found: Vec<Member>,
    },
    /// Merging in the middle of an inner step.
    #[error("{operation} with work of inner step {step} in flight: finish it with its step")]
    MidStep {
        /// The operation.
        operation: &'static str,
        /// The step in flight.
        step: u32,
    },
    /// The weights of the last merge are not at hand.
    #[error("{operation} measures from the weights {anchor}: restore them into the state first")]
    NoAnchor {
        /// The operation.
        operation: &'static str,
        /// Digest of the weights file.
        anchor: Digest,
    },
    /// The run's outer optimizer is `none`.
    #[error("{operation} does not occur in a run whose outer optimizer is `none`")]
    NoMerge {
        /// The operation.
        operation: &'static str,
    },
    /// A piece of somebody else's contribution.
    #[error(
        "reduce: a piece is of {found}, expected the one of {expected}; pass pieces in the contributors' order"
    )]
    Contributor {
        /// Whose piece is due.
        expected: NodeId,
        /// Whose it is.
        found: NodeId,
    },
    /// Sums that do not cover the stage one after another, or of other contributors.
    #[error(
        "apply: leaf {expected} is due, found {found}; pass the sums of all shards of one merge in order"
    )]
    Sums {
        /// The leaf due.
        expected: u64,
        /// The leaf found.
        found: u64,
    },
    /// The device has no memory left, or is lost.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl From<PayloadError> for WorkError {
    /// What is wrong with a payload is its sender's; what is wrong with a device is this machine's.
    fn from(error: PayloadError) -> Self {
        match error {
            PayloadError::Device(error) => Self::Device(error),
            error => Self::Payload(error),
        }
    }
}

/// Performs one operation. `data` is the training shard, read by the forward of head, tail and whole.
///
/// # Errors
/// The operation is impossible on this state or with these inputs; the state is then as before, unless its device failed: such
/// a state is of no use any more. Whoever computes NaN or
/// infinity gets no error but the outcome `NonFinite`, whoever is sent what is no payload gets `Unusable`.
pub fn perform(
    state: &mut StageState,
    data: Option<&TokenShard>,
    epoch: u32,
    operation: &Operation,
    inputs: &[&[u8]],
) -> Result<Done, WorkError> {
    let expected = input_count(state, operation).unwrap_or(inputs.len());
    if inputs.len() != expected {
        let (operation, found) = (operation.name(), inputs.len());
        return Err(WorkError::Inputs { operation, stage: state.kind_name(), expected, found });
    }
    match operation {
        Operation::Forward(member) => {
            received(pass::forward(state, data, epoch, member, inputs.first().copied()))
        }
        Operation::Backward(member) => received(pass::backward(state, member, inputs.first().copied())),
        Operation::Step { step, members } => inner_step(state, epoch, *step, members),
        Operation::Scale => merge::scale(state),
        Operation::Encode => merge::encode(state, inputs),
        Operation::Reduce { contributors, .. } => merge::reduce(state, contributors, inputs),
        Operation::Apply => merge::apply(state, inputs),
    }
}

/// A payload that is none is its sender's doing, and something to sign.
fn received(done: Result<Done, WorkError>) -> Result<Done, WorkError> {
    match done {
        Err(WorkError::Payload(_)) => Ok(Done::new(Outcome::Unusable)),
        done => done,
    }
}

impl Done {
    fn new(outcome: Outcome) -> Self {
        Self { output: None, output_digest: None, loss_q32: None, outcome }
    }

    fn with_output(bytes: Vec<u8>) -> Self {
        let digest = Digest::of(&bytes);
        Self { output: Some(bytes), output_digest: Some(digest), ..Self::new(Outcome::Ok) }
    }
}

/// Number of inputs of the table above; `None` where any number may come.
fn input_count(state: &StageState, operation: &Operation) -> Option<usize> {
    let kind = state.stage().shape().kind;
    Some(match operation {
        Operation::Forward(_) => usize::from(!kind.embeds()),
        Operation::Backward(_) => usize::from(!kind.judges()),
        Operation::Step { .. } | Operation::Scale => 0,
        Operation::Encode => return None,
        Operation::Reduce { contributors, .. } => contributors.len(),
        Operation::Apply if state.outer.is_none() => 0,
        Operation::Apply => return None,
    })
}

/// With nobody left to fold, the step changes nothing: all its microbatches were struck.
fn inner_step(state: &mut StageState, epoch: u32, step: u32, members: &[Member]) -> Result<Done, WorkError> {
    check_step(state, "step", step)?;
    if members != state.flight.folded {
        let folded = state.flight.folded.clone();
        return Err(WorkError::Members { step, folded, found: members.to_vec() });
    }
    state.stash.before_step(&state.run, &state.weights, step)?;
    let mut outcome = Outcome::Ok;
    if !members.is_empty() {
        let StageState { run, stage, weights, m, v, bias, flight, .. } = state;
        let Flight { gradients, spare, .. } = flight;
        let moving = Moving { weights, m, v, bias, spare };
        outcome = optim::step(run, stage, (epoch, step), members.len(), gradients, moving)?;
        if outcome == Outcome::Ok {
            state.steps += 1;
            state.folded_in_epoch = state.folded_in_epoch.saturating_add(members.len() as u32);
        }
    }
    state.land(step)?;
    Ok(Done::new(outcome))
}

/// The inner step in flight, if any work is: the one whose gradients are folded.
fn step_in_flight(state: &StageState) -> Option<u32> {
    let flight = &state.flight;
    let members = flight.folded.iter().chain(flight.saved.iter().map(|(member, _)| member));
    state.stash.step().or_else(|| members.map(|member| member.step).min())
}

/// A forward of the next inner step may come early where it does not run on the weights that this one yields.
fn check_ahead(state: &StageState, found: u32) -> Result<(), WorkError> {
    match step_in_flight(state) {
        Some(current) if current.checked_add(1) == Some(found) && state.run.is_stale(found) => Ok(()),
        _ => check_step(state, "forward", found),
    }
}

/// Gradients of two inner steps cannot be in flight: there is one sum of them.
fn check_step(state: &StageState, operation: &'static str, found: u32) -> Result<(), WorkError> {
    match step_in_flight(state) {
        Some(expected) if expected != found => Err(WorkError::OtherStep { operation, expected, found }),
        _ => Ok(()),
    }
}

impl StageState {
    fn kind_name(&self) -> &'static str {
        self.stage().shape().kind.name()
    }
}

#[cfg(test)]
mod tests;
