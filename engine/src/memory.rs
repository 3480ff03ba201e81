//! What a stage takes of a CUDA device, to the byte.
//!
//! Nothing is estimated: whole inner steps are performed on a device that is only imagined, through the same functions as
//! on a real one, and its arena keeps the account. All members go forward before the first comes back, as where miners
//! wait for one another, and where they may run ahead those of the next step too. A run that meets the same sizes reserves the
//! same bytes (`engine/tests/cuda` holds it against a driver's own).

use crate::data::Microbatch;
use crate::model::Stage;
use crate::payload::{self, Expected, Kind};
use crate::state::{Keeping, StageState};
use crate::tensor::Tokens;
use crate::work::{WorkError, forward_batch, perform};
use kernels::device::{Buffer, CudaDevice, Device, DeviceError};
use spec::{Member, Operation, Outer, Run};
use std::collections::VecDeque;
use std::sync::Arc;

/// What the driver, its context and the kernels' code take of a card besides: never measured at more than this.
pub const DRIVER_BYTES: u64 = 1 << 30;

/// A card is filled to all but this share of it, for what else uses it.
const ROOM_SHARE: u64 = 32;

/// Ways to do without kept activations.
const AGAIN: [Keeping; 3] = [Keeping::Activations(0), Keeping::BlockInputs, Keeping::StageInput];

/// The memory of one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageMemory {
    /// Parameters of the stage.
    pub parameters: u64,
    /// What is kept of microbatches until their backward.
    pub keeping: Keeping,
    /// Weights, both moments, gradients, the spare that takes a fold back, and the stash of stale weights.
    pub state_bytes: u64,
    /// The most in use at once: state, activations, gradients of activations, workspaces.
    pub peak_bytes: u64,
    /// The most reserved at once, blocks that wait for their size to be asked for again included: what a card must have,
    /// besides [`DRIVER_BYTES`].
    pub reserved_bytes: u64,
    /// Held by the host: with an outer optimizer the weights of the last merge, residual and momentum.
    pub host_bytes: u64,
}

impl StageMemory {
    /// The memory of stage `index` of `run` that keeps so much; `None` if the cut has no such stage.
    pub fn of(run: &Run, index: usize, keeping: Keeping) -> Option<Self> {
        let run = Arc::new(run.clone());
        // More than any card has, so that nothing is ever given back for want of room.
        let device = CudaDevice::imagined(u64::MAX / 2);
        Self::taken(&run, Stage::new(&run.model, index)?, &device, keeping).ok()
    }

    /// Whether a card of so many bytes has room for [`StageMemory::least`].
    pub fn fits(run: &Run, index: usize, card_bytes: u64) -> bool {
        let run = Arc::new(run.clone());
        let room = card_bytes.saturating_sub(DRIVER_BYTES);
        AGAIN.into_iter().any(|keeping| {
            let stage = Stage::new(&run.model, index);
            // A stage that is too large is found to be so without computing anything.
            stage.is_some_and(|stage| Self::taken(&run, stage, &CudaDevice::imagined(room), keeping).is_ok())
        })
    }

    /// The least that stage `index` of `run` can do with: it computes all activations again, in the way that takes the least.
    pub fn least(run: &Run, index: usize) -> Option<Self> {
        let all = AGAIN.into_iter().filter_map(|keeping| Self::of(run, index, keeping));
        all.min_by_key(|memory| memory.reserved_bytes)
    }

    /// What a card must have for the stage.
    pub fn card_bytes(&self) -> u64 {
        self.reserved_bytes + DRIVER_BYTES
    }

    /// The memory of `stage` on a device with the memory of `device`, keeping as much of microbatches as there is room for,
    /// up to what a state keeps by itself, and a thirty-second of the card free.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] if the device has no room even if all is computed again.
    pub fn fitting(run: &Run, stage: &Stage, device: &CudaDevice) -> Result<Self, DeviceError> {
        let run = Arc::new(run.clone());
        let card = device.memory_bytes();
        let room = card.saturating_sub(DRIVER_BYTES.min(card / 8) + card / ROOM_SHARE);
        let mut refused = DeviceError::OutOfMemory { asked_bytes: 0, in_use_bytes: 0, card_bytes: card };
        for keeping in Keeping::ladder() {
            let Some(stage) = Stage::new(stage.model(), stage.shape().index) else { break };
            match Self::taken(&run, stage, &CudaDevice::imagined(room), keeping) {
                Ok(memory) => return Ok(memory),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn taken(
        run: &Arc<Run>,
        stage: Stage,
        device: &CudaDevice,
        keeping: Keeping,
    ) -> Result<Self, DeviceError> {
        let tapes = if let Keeping::Activations(count) = keeping { count } else { 0 };
        // The first that is saved without its activations, and the last.
        let performed = usize::from(run.inner.members).min(tapes + 2);
        Self::performed(run, stage, device, keeping, performed)
    }

    /// Where `performed` members are, and the others only wait.
    fn performed(
        run: &Arc<Run>,
        stage: Stage,
        device: &CudaDevice,
        keeping: Keeping,
        performed: usize,
    ) -> Result<Self, DeviceError> {
        let mut state = StageState::imagined(run, stage, &Device::Cuda(device.clone()), keeping)?;
        match inner_steps(&mut state, device, performed) {
            Ok(()) => {}
            Err(WorkError::Device(error)) => return Err(error),
            Err(error) => unreachable!("inner steps in order: {error}"),
        }
        let parameters = state.parameters() as u64;
        let arrays = 4 + u64::from(!state.flight.spare.is_empty()) + u64::from(!state.stash.is_empty());
        let usage = device.usage();
        Ok(Self {
            parameters,
            keeping,
            state_bytes: 4 * arrays * parameters,
            peak_bytes: usage.peak_bytes,
            reserved_bytes: usage.peak_reserved_bytes,
            host_bytes: if run.outer == Outer::None { 0 } else { 3 * 4 * parameters },
        })
    }
}

/// All members forward, all back, and the step, on nothing, as often as it takes to meet everything that a run meets; where the
/// next step may go ahead its members are forward by then. Of the members beyond `performed` only what is saved of them is
/// there, as they go forward before the last: as much as is saved of the last but one that is performed.
fn inner_steps(state: &mut StageState, device: &CudaDevice, performed: usize) -> Result<(), WorkError> {
    let run = Arc::clone(&state.run);
    let gradient =
        (!state.stage.shape().kind.judges()).then(|| Expected::of(&run, Kind::Gradient).of_zeros());
    // The second step has the spare from its beginning, the third the stash too.
    let steps = if run.inner.staleness == 0 { 2 } else { 4 };
    let mut ahead = VecDeque::new();
    for step in 0..steps {
        if ahead.is_empty() {
            ahead.push_back(forwards(state, device, step, performed)?);
        }
        if step + 1 < steps && run.is_stale(step + 1) {
            ahead.push_back(forwards(state, device, step + 1, performed)?);
        }
        let members: Vec<Member> = members(step, performed).collect();
        for &member in &members {
            perform(state, None, 0, &Operation::Backward(member), gradient.as_deref().as_slice())?;
        }
        drop(ahead.pop_front());
        perform(state, None, 0, &Operation::Step { step, members }, &[])?;
    }
    Ok(())
}

fn members(step: u32, performed: usize) -> impl Iterator<Item = Member> {
    (0..performed).map(move |position| Member {
        assignment: position as u64,
        attempt: 0,
        step,
        position: position as u16,
        microbatch: position as u64,
    })
}

/// All members of a step forward; what is saved of those that are not performed.
fn forwards(
    state: &mut StageState,
    device: &CudaDevice,
    step: u32,
    performed: usize,
) -> Result<Vec<Buffer<f32>>, WorkError> {
    let run = Arc::clone(&state.run);
    let kind = state.stage.shape().kind;
    let expected = Expected::of(&run, Kind::Activation);
    let activation = (!kind.embeds()).then(|| expected.of_zeros());
    let tokens = vec![0; run.microbatch_tokens() as usize];
    let mut waiting = Vec::new();
    for (place, member) in members(step, performed).enumerate() {
        if place + 1 == performed {
            let others = usize::from(run.inner.members) - performed;
            let saved = state.flight.saved.last().map(|(_, saved)| saved.tensors()).unwrap_or_default();
            for &len in (0..others).flat_map(|_| &saved) {
                waiting.push(device.scratch::<f32>(len)?);
            }
        }
        let input = match &activation {
            Some(bytes) => Some(payload::decode(&expected, bytes, &state.device)?),
            None => None,
        };
        let batch = (kind.embeds() || kind.judges())
            .then(|| Microbatch { inputs: Tokens::copy_of(&tokens), targets: Tokens::copy_of(&tokens) });
        forward_batch(state, &member, batch, input)?;
    }
    Ok(waiting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;

    #[test]
    fn what_a_stage_takes_is_its_arrays_and_what_its_tapes_hold() {
        let run = run(&[1, 2, 1]);
        for index in 0..3 {
            let of = |kept| StageMemory::of(&run, index, Keeping::Activations(kept)).unwrap();
            let cost = crate::cost::StageCost::of(&run, index).unwrap();
            let (none, one, all) = (of(0), of(1), of(3));
            // Three members: weights, two moments, gradients and the spare.
            assert_eq!(none.state_bytes, 20 * cost.parameters);
            assert_eq!(none.host_bytes, 12 * cost.parameters);
            assert!(none.peak_bytes > none.state_bytes && none.reserved_bytes >= none.peak_bytes);
            // A tape kept instead of an input is memory, and no more of it than the tape and the tokens.
            assert!(none.peak_bytes < one.peak_bytes, "stage {index}");
            let tape = cost.activation_bytes + 8 * run.microbatch_tokens();
            assert!(all.peak_bytes <= none.peak_bytes + 3 * tape, "stage {index}");
        }
        assert_eq!(StageMemory::of(&run, 3, Keeping::BlockInputs), None);
    }

    /// The full size: 27 blocks of width 2048 in three stages, 1.52 B parameters, 2 sequences of 2048 tokens a
    /// microbatch. Open weights, residual and momentum are the host's.
    #[test]
    fn three_stages_of_1_5_b_fit_16_gb() {
        let mut run = run(&[9, 9, 9]);
        run.model = spec::Model {
            dim: 2048,
            heads: 16,
            kv_heads: 16,
            ffn: 5632,
            vocab: 32_000,
            context: 2048,
            ..run.model
        };
        run.inner.members = 4;
        run.boundary = spec::BoundaryCodec::Int8;
        assert!(run.model.parameters() > 1_500_000_000);
        let card = CudaDevice::imagined(16_000_000_000);
        for index in 0..3 {
            let stage = Stage::new(&run.model, index).unwrap();
            let memory = StageMemory::fitting(&run, &stage, &card).unwrap();
            let gb = |bytes: u64| bytes as f64 / 1e9;
            println!(
                "stage {index}: {} parameters, {}; state {:.2}, peak {:.2}, reserved {:.2}, driver {:.2} of 16 GB; host {:.2} GB",
                memory.parameters,
                memory.keeping,
                gb(memory.state_bytes),
                gb(memory.peak_bytes),
                gb(memory.reserved_bytes),
                gb(DRIVER_BYTES),
                gb(memory.host_bytes),
            );
            assert_eq!(memory.host_bytes, 12 * memory.parameters);
            // Weights, moments, gradients and one version stashed: not two.
            assert_eq!(memory.state_bytes, 20 * memory.parameters);
            // With room: half a gigabyte of the card is free.
            assert!(memory.card_bytes() <= 15_500_000_000, "stage {index}: {memory:?}");
            for keeping in Keeping::ladder() {
                let memory = StageMemory::of(&run, index, keeping).unwrap();
                println!("stage {index} {keeping}: reserves {:.2} GB", gb(memory.reserved_bytes));
            }
        }
    }

    /// Stale weights are one array more, and members that went ahead wait beside those of the step in hand.
    #[test]
    fn staleness_takes_one_version_and_what_is_saved_ahead() {
        let fresh = run(&[1, 2, 1]);
        let mut stale = fresh.clone();
        stale.inner.staleness = 1;
        for index in 0..3 {
            for keeping in Keeping::ladder() {
                let [without, with] =
                    [&fresh, &stale].map(|run| StageMemory::of(run, index, keeping).unwrap());
                let version = 4 * with.parameters;
                assert_eq!(with.state_bytes, without.state_bytes + version, "stage {index}: {keeping}");
                assert!(with.peak_bytes >= without.peak_bytes + version, "stage {index}: {keeping}");
            }
            let inputs = |run: &Run| StageMemory::of(run, index, Keeping::StageInput).unwrap().peak_bytes;
            // A head saves tokens, which are the host's; of the others the inputs of all members of a step wait.
            let input =
                if index == 0 { 0 } else { 4 * fresh.microbatch_tokens() * u64::from(fresh.model.dim) };
            let ahead = u64::from(fresh.inner.members) * input;
            let version = 4 * StageMemory::of(&fresh, index, Keeping::StageInput).unwrap().parameters;
            assert_eq!(inputs(&stale) - inputs(&fresh), version + ahead, "stage {index}");
        }
    }

    /// Members that only wait take what they take when they are performed.
    #[test]
    fn who_waits_is_counted_as_who_is_performed() {
        let mut run = run(&[1, 2, 1]);
        run.inner.members = 7;
        for staleness in [0, 1] {
            run.inner.staleness = staleness;
            who_waits_is_counted(&Arc::new(run.clone()));
        }
    }

    fn who_waits_is_counted(run: &Arc<Run>) {
        for index in 0..3 {
            for keeping in
                [Keeping::Activations(1), Keeping::Activations(0), Keeping::BlockInputs, Keeping::StageInput]
            {
                let all = |performed| {
                    let (stage, device) =
                        (Stage::new(&run.model, index).unwrap(), CudaDevice::imagined(u64::MAX / 2));
                    StageMemory::performed(run, stage, &device, keeping, performed).unwrap()
                };
                assert_eq!(StageMemory::of(run, index, keeping).unwrap(), all(7), "stage {index}: {keeping}");
            }
        }
    }

    #[test]
    fn a_small_card_keeps_fewer_activations_and_a_smaller_one_refuses() {
        let run = run(&[2]);
        let stage = Stage::new(&run.model, 0).unwrap();
        let on = |bytes| StageMemory::fitting(&run, &stage, &CudaDevice::imagined(bytes));
        // An eighth of a card this small is the driver's, and a thirty-second stays free.
        let card = |keeping| StageMemory::of(&run, 0, keeping).unwrap().reserved_bytes * 32 / 27 + 32;
        assert_eq!(on(1 << 40).unwrap().keeping, Keeping::default());
        for keeping in [Keeping::Activations(1), Keeping::Activations(0)] {
            assert_eq!(on(card(keeping)).unwrap().keeping, keeping);
        }
        // Blocks that wait are given back before a card counts as full, so a little more may fit.
        let least = StageMemory::least(&run, 0).unwrap();
        let by_blocks = [Keeping::BlockInputs, Keeping::StageInput];
        assert!(by_blocks.contains(&least.keeping));
        assert!(by_blocks.contains(&on(card(least.keeping)).unwrap().keeping));
        let refused = on(card(least.keeping) / 2).unwrap_err();
        assert!(matches!(refused, DeviceError::OutOfMemory { .. }), "{refused}");
    }
}
