//! Doing a miner's window again.

use engine::checkpoint::CheckpointError;
use engine::contribution::{Committed, Contribution};
use engine::data::TokenShard;
use engine::state::StageState;
use engine::work::{self, WorkError};
use engine::{Device, DeviceError};
use spec::{Digest, NodeId, Operation, Outcome, Outer, Run};
use std::sync::{Mutex, PoisonError};
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

/// Where windows are replayed.
#[derive(Debug)]
pub struct Workplace {
    device: Mutex<Device>,
    falls_back: bool,
}

impl Workplace {
    /// On `device`; with `falls_back` on the CPU from the moment on that it fails.
    pub fn new(device: Device, falls_back: bool) -> Self {
        Self { device: Mutex::new(device), falls_back }
    }

    /// Replays a window from the objects in the table; `tell` hears of a device that is given up.
    ///
    /// Trouble of this machine convicts nobody.
    pub fn replay(&self, window: &Window, objects: &Objects, tell: impl FnOnce(&str)) -> Event {
        let replayed = shard_of(window, objects)
            .and_then(|data| self.perform(window, data.as_ref(), |digest| objects.get(digest), tell));
        match replayed {
            Ok((results, stopped)) => Event::Replayed { results, stopped },
            Err(Trouble { digest, why, .. }) => Event::StoreFailed { digest, missing: false, why },
        }
    }

    /// As [`perform`], once more on the CPU if the device fails and that was asked for.
    fn perform<B: AsRef<[u8]>>(
        &self,
        window: &Window,
        data: Option<&TokenShard>,
        object: impl Fn(&Digest) -> Option<B>,
        tell: impl FnOnce(&str),
    ) -> Result<(Vec<Replayed>, Option<String>), Trouble> {
        let device = self.device.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match perform(window, data, &device, &object) {
            Err(Trouble { of_device: true, why, .. })
                if self.falls_back && matches!(device, Device::Cuda(_)) =>
            {
                tell(&format!("{why}; replaying on the CPU from here on"));
                *self.device.lock().unwrap_or_else(PoisonError::into_inner) = Device::Cpu;
                perform(window, data, &Device::Cpu, &object)
            }
            outcome => outcome,
        }
    }
}

/// This machine's trouble with an object.
#[derive(Debug)]
pub struct Trouble {
    /// Which.
    pub digest: Digest,
    /// What it is.
    pub why: String,
    /// Whether the device failed; the object is the state that was to be on it.
    pub of_device: bool,
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
    let failed =
        |error: DeviceError| Trouble { digest: window.state, why: error.to_string(), of_device: true };
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
                return Err(Trouble {
                    digest: window.run.data.train,
                    why: error.to_string(),
                    of_device: false,
                });
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

/// The digest of the fresh state in which a stage begins an epoch, from what its manifest names: the CPU's, as anybody's.
///
/// # Errors
/// The bytes are no weights or momentum of the stage.
pub fn fresh_state(
    run: &Run,
    stage: u16,
    weights: &[u8],
    momentum: Option<&[u8]>,
) -> Result<Digest, CheckpointError> {
    Ok(StageState::of_manifest(run, usize::from(stage), weights, momentum)?.state_digest()?)
}

/// What a miner commits to by encoding this.
fn committed(state: &StageState, miner: NodeId, contribution: Option<&[u8]>) -> Option<Digest> {
    let Outer::Nesterov { bits, .. } = state.run().outer else { return None };
    // The engine made it just now.
    let contribution = Contribution::from_bytes(bits, state.parameters(), contribution?).ok()?;
    Some(Committed::new(contribution, miner).root())
}

fn absent(digest: &Digest) -> Trouble {
    Trouble { digest: *digest, why: "it is not in this node's table of objects".into(), of_device: false }
}

/// The training shard, where the window's stage reads tokens.
fn shard_of(window: &Window, objects: &Objects) -> Result<Option<TokenShard>, Trouble> {
    if !reads_tokens(&window.run, window.stage) {
        return Ok(None);
    }
    let digest = window.run.data.train;
    let bytes = objects.get(&digest).ok_or_else(|| absent(&digest))?;
    let shard = TokenShard::from_bytes(bytes.into());
    shard.map(Some).map_err(|error| Trouble { digest, why: error.to_string(), of_device: false })
}

/// Whether a stage reads the training shard: inputs or targets.
pub fn reads_tokens(run: &Run, stage: u16) -> bool {
    let kind = run.model.stage(usize::from(stage)).map(|stage| stage.kind);
    kind.is_some_and(|kind| kind.embeds() || kind.judges())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a trial that cannot go on has failed
mod tests {
    use super::*;
    use engine::CudaDevice;
    use engine::data::{TextTokenizer, Width, shard_bytes};
    use spec::{Member, Operation};

    /// A device that has no room for the state stands for every one that fails.
    #[test]
    fn the_cpu_takes_the_place_of_a_device_that_fails() {
        let text = "the quick brown fox jumps over the lazy dog; ".repeat(100);
        let tokens = TextTokenizer::bytes().encode(&text).unwrap();
        let shard = TokenShard::from_bytes(shard_bytes(&tokens, Width::One).unwrap()).unwrap();
        let mut run = Run::from_toml(include_str!("../../engine/spec/tests/tiny.toml")).unwrap();
        (run.data.train, run.data.train_tokens) = (shard.digest(), shard.count());
        let start = StageState::initial(&run, 0).unwrap().state_bytes().unwrap();
        let member = Member { assignment: 0, attempt: 0, step: 0, position: 0, microbatch: 0 };
        let forward = Replay { operation: Operation::Forward(member), inputs: vec![], digest_state: true };
        let state = Digest::of(&start);
        let (miner, operations) = (NodeId([0; 32]), vec![forward]);
        let window =
            Window { run, stage: 0, epoch: 0, state, weights: None, miner, anchor: None, operations };
        let object = |digest: &Digest| (*digest == state).then_some(&start[..]);
        let small = || Device::Cuda(CudaDevice::imagined(1 << 10));

        let mut said = vec![];
        let stays = Workplace::new(small(), false);
        let outcome = stays.perform(&window, Some(&shard), object, |note| said.push(note.to_owned()));
        assert!(outcome.unwrap_err().of_device);
        assert!(said.is_empty());

        let expected = perform(&window, Some(&shard), &Device::Cpu, object).unwrap();
        assert!(expected.0[0].output.is_some() && expected.1.is_none());
        let falls_back = Workplace::new(small(), true);
        for _ in 0..2 {
            let outcome =
                falls_back.perform(&window, Some(&shard), object, |note| said.push(note.to_owned()));
            assert_eq!(outcome.unwrap(), expected);
        }
        // From the first time on the device is not asked again.
        assert_eq!(said.len(), 1);
        assert!(said[0].ends_with("replaying on the CPU from here on"), "{said:?}");

        // An object that is missing is no fault of the device.
        let absent = Workplace::new(small(), true);
        let nothing = |_: &Digest| None::<&[u8]>;
        let outcome = absent.perform(&window, Some(&shard), nothing, |note| panic!("{note}"));
        assert!(!outcome.unwrap_err().of_device);
    }
}
