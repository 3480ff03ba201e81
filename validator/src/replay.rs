//! Doing a miner's window again.

use engine::data::TokenShard;
use engine::state::StageState;
use engine::work;
use spec::{Digest, Run};
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
    /// What to do, in order.
    pub operations: Vec<Replay>,
}

/// Replays a window from the objects in the table.
pub fn replay(window: &Window, objects: &Objects) -> Event {
    let mut results = vec![];
    let stopped = perform(window, objects, &mut results).err().map(|error| error.to_string());
    Event::Replayed { results, stopped }
}

/// Why a replay stopped early.
#[derive(Debug, thiserror::Error)]
enum ReplayError {
    #[error("object {0} is not in this node's table of objects")]
    Missing(Digest),
    #[error(transparent)]
    Checkpoint(#[from] engine::checkpoint::CheckpointError),
    #[error(transparent)]
    Data(#[from] engine::data::DataError),
    #[error(transparent)]
    Work(#[from] work::WorkError),
}

fn perform(window: &Window, objects: &Objects, results: &mut Vec<Replayed>) -> Result<(), ReplayError> {
    let object = |digest: &Digest| objects.get(digest).ok_or(ReplayError::Missing(*digest));
    let mut state =
        StageState::from_state(&window.run, usize::from(window.stage), &object(&window.state)?)?;
    let kind = state.stage().shape().kind;
    let data = if kind.embeds() || kind.judges() {
        Some(TokenShard::from_bytes(object(&window.run.data.train)?.into())?)
    } else {
        None
    };
    for step in &window.operations {
        let input = step.input.as_ref().map(object).transpose()?;
        let inputs: Vec<&[u8]> = input.iter().map(|bytes| &bytes[..]).collect();
        let done = work::perform(&mut state, data.as_ref(), window.epoch, &step.operation, &inputs)?;
        results.push(Replayed {
            output: done.output_digest,
            state: step.digest_state.then(|| state.state_digest()),
            loss_q32: done.loss_q32,
            outcome: done.outcome,
        });
    }
    Ok(())
}
