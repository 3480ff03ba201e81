//! Doing a miner's window again.

use engine::checkpoint::CheckpointError;
use engine::data::TokenShard;
use engine::state::StageState;
use engine::work::{self, WorkError};
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
///
/// What the miner signed and uploaded is judged: state, payloads or operations that cannot be used stop the
/// replay, which convicts. Trouble of this machine convicts nobody.
pub fn replay(window: &Window, objects: &Objects) -> Event {
    let mut results = vec![];
    let stopped = match perform(window, objects, &mut results) {
        Ok(()) => None,
        Err(ReplayError::Miner(why)) => Some(why),
        Err(ReplayError::Ours { digest, why }) => {
            return Event::StoreFailed { digest, missing: false, why };
        }
    };
    Event::Replayed { results, stopped }
}

/// Why a replay stopped early.
enum ReplayError {
    /// What the miner gave cannot be used.
    Miner(String),
    /// This machine's trouble with an object.
    Ours { digest: Digest, why: String },
}

impl From<CheckpointError> for ReplayError {
    fn from(error: CheckpointError) -> Self {
        Self::Miner(format!("the state before the window: {error}"))
    }
}

fn perform(window: &Window, objects: &Objects, results: &mut Vec<Replayed>) -> Result<(), ReplayError> {
    let ours = |digest: &Digest, why: String| ReplayError::Ours { digest: *digest, why };
    let object = |digest: &Digest| {
        let why = || ours(digest, "it is not in this node's table of objects".into());
        objects.get(digest).ok_or_else(why)
    };
    let mut state = StageState::from_state(&window.run, usize::from(window.stage), &object(&window.state)?)?;
    let kind = state.stage().shape().kind;
    let data = if kind.embeds() || kind.judges() {
        let shard = &window.run.data.train;
        Some(TokenShard::from_bytes(object(shard)?.into()).map_err(|error| ours(shard, error.to_string()))?)
    } else {
        None
    };
    for step in &window.operations {
        let input = step.input.as_ref().map(object).transpose()?;
        let inputs: Vec<&[u8]> = input.iter().map(|bytes| &bytes[..]).collect();
        let done = work::perform(&mut state, data.as_ref(), window.epoch, &step.operation, &inputs).map_err(
            |error| match error {
                WorkError::Data(_) | WorkError::NoData { .. } | WorkError::WrongShard { .. } => {
                    ours(&window.run.data.train, error.to_string())
                }
                _ => ReplayError::Miner(error.to_string()),
            },
        )?;
        results.push(Replayed {
            output: done.output_digest,
            state: step.digest_state.then(|| state.state_digest()),
            loss_q32: done.loss_q32,
            outcome: done.outcome,
        });
    }
    Ok(())
}
