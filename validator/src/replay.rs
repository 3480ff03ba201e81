//! Doing a miner's window again.

use engine::contribution::{Committed, Contribution};
use engine::data::TokenShard;
use engine::state::StageState;
use engine::work::{self, WorkError};
use engine::{Device, DeviceError};
use spec::{Digest, NodeId, Operation, Outcome, Outer, Run};
use transport::node::Objects;
use validator_core::{Event, Replay, Replayed};

/// What to replay.
pub struct Window {
    /// The run.
    pub run: Run,
    /// The stage.
    pub stage: u16,
    /// The epoch.
    pub epoch: u32,
    /// The state before the window, in the table.
    pub state: Digest,
    /// The weights that it must have, where an epoch begins with it.
    pub weights: Option<Digest>,
    /// Whose work.
    pub miner: NodeId,
    /// The weights from which its change is measured, in the table, where the window is a merge.
    pub anchor: Option<Digest>,
    /// What to do, in order.
    pub operations: Vec<Replay>,
}

/// Replays a window from the objects in the table.
///
/// Trouble of this machine convicts nobody.
pub fn replay(window: &Window, objects: &Objects, device: &Device) -> Event {
    match shard_of(window, objects)
        .and_then(|data| perform(window, data.as_ref(), device, |digest| objects.get(digest)))
    {
        Ok((results, stopped)) => Event::Replayed { results, stopped },
        Err(Trouble { digest, why }) => Event::StoreFailed { digest, missing: false, why },
    }
}

/// This machine's trouble with an object.
#[derive(Debug)]
pub struct Trouble {
    /// Which.
    pub digest: Digest,
    /// What it is.
    pub why: String,
}

/// Replays a window on `device`: the result of each operation, and why it stopped early if it did.
///
/// What the miner signed is judged: a state, payload or operation that cannot be used stops the replay, which
/// convicts.
///
/// # Errors
/// An object that is not there, tokens that cannot be read, a device that fails: this machine's trouble, which convicts nobody.
pub fn perform<B: AsRef<[u8]>>(
    window: &Window,
    data: Option<&TokenShard>,
    device: &Device,
    object: impl Fn(&Digest) -> Option<B>,
) -> Result<(Vec<Replayed>, Option<String>), Trouble> {
    let object = |digest: &Digest| object(digest).ok_or_else(|| absent(digest));
    let start = object(&window.state)?;
    let mut state = match StageState::from_state(&window.run, usize::from(window.stage), start.as_ref()) {
        Ok(state) => state,
        Err(error) => return Ok((vec![], Some(format!("the state before the window: {error}")))),
    };
    let failed = |error: DeviceError| Trouble { digest: window.state, why: error.to_string() };
    if let Some(expected) = window.weights {
        let found = [state.weights_digest().map_err(failed)?, state.anchor()];
        if let Some(found) = found.into_iter().find(|found| *found != expected) {
            let why =
                format!("the state that the epoch began with has weights {found}, the manifest {expected}");
            return Ok((vec![], Some(why)));
        }
    }
    if let Some(anchor) = &window.anchor
        && let Err(error) = state.restore_anchor(object(anchor)?.as_ref())
    {
        return Ok((vec![], Some(format!("the state before the merge: {error}"))));
    }
    state = state.to_device(device).map_err(failed)?;
    let mut results = vec![];
    for step in &window.operations {
        let inputs = step.inputs.iter().map(&object).collect::<Result<Vec<_>, _>>()?;
        let inputs: Vec<&[u8]> = inputs.iter().map(AsRef::as_ref).collect();
        let done = match work::perform(&mut state, data, window.epoch, &step.operation, &inputs) {
            Ok(done) => done,
            Err(error @ (WorkError::Data(_) | WorkError::NoData { .. } | WorkError::WrongShard { .. })) => {
                return Err(Trouble { digest: window.run.data.train, why: error.to_string() });
            }
            Err(WorkError::Device(error)) => return Err(failed(error)),
            Err(error) => return Ok((results, Some(error.to_string()))),
        };
        let output = match step.operation {
            Operation::Encode => committed(&state, window.miner, done.output.as_deref()),
            Operation::Apply if done.outcome == Outcome::Ok => Some(state.weights_digest().map_err(failed)?),
            _ => done.output_digest,
        };
        results.push(Replayed {
            output,
            state: step.digest_state.then(|| state.state_digest()).transpose().map_err(failed)?,
            loss_q32: done.loss_q32,
            outcome: done.outcome,
        });
    }
    Ok((results, None))
}

/// What a miner commits to by encoding this.
fn committed(state: &StageState, miner: NodeId, contribution: Option<&[u8]>) -> Option<Digest> {
    let Outer::Nesterov { bits, .. } = state.run().outer else { return None };
    // The engine made it just now.
    let contribution = Contribution::from_bytes(bits, state.parameters(), contribution?).ok()?;
    Some(Committed::new(contribution, miner).root())
}

fn absent(digest: &Digest) -> Trouble {
    Trouble { digest: *digest, why: "it is not in this node's table of objects".into() }
}

/// The training shard, where the window's stage reads tokens.
fn shard_of(window: &Window, objects: &Objects) -> Result<Option<TokenShard>, Trouble> {
    if !reads_tokens(&window.run, window.stage) {
        return Ok(None);
    }
    let digest = window.run.data.train;
    let bytes = objects.get(&digest).ok_or_else(|| absent(&digest))?;
    let shard = TokenShard::from_bytes(bytes.into());
    shard.map(Some).map_err(|error| Trouble { digest, why: error.to_string() })
}

/// Whether a stage reads the training shard: inputs or targets.
pub fn reads_tokens(run: &Run, stage: u16) -> bool {
    let kind = run.model.stage(usize::from(stage)).map(|stage| stage.kind);
    kind.is_some_and(|kind| kind.embeds() || kind.judges())
}
