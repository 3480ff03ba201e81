//! What a stage takes of a CUDA device, to the byte.
//!
//! Nothing is estimated: whole inner steps are performed on a device that is only imagined, through the same functions as
//! on a real one, and its arena keeps the account. All members go forward before the first comes back, as where miners
//! wait for one another. A run that meets the same sizes reserves the same bytes (`engine/tests/cuda` holds it against a
//! driver's own).

use crate::data::Microbatch;
use crate::model::Stage;
use crate::payload::{self, Expected, Kind};
use crate::state::{KEPT_DEFAULT, StageState};
use crate::tensor::{Tensor, Tokens};
use crate::work::{WorkError, forward_batch, perform};
use kernels::device::{CudaDevice, Device, DeviceError};
use spec::{Member, Operation, Outer, Run};
use std::sync::Arc;

/// What the driver, its context and the kernels' code take of a card besides: never measured at more than this.
pub const DRIVER_BYTES: u64 = 1 << 30;

/// The memory of one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageMemory {
    /// Parameters of the stage.
    pub parameters: u64,
    /// Microbatches whose activations are kept until backward; those of others are computed again.
    pub kept: usize,
    /// Weights, both moments, gradients, and the spare that takes a fold back.
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
    /// The memory of stage `index` of `run` that keeps the activations of `kept` microbatches; `None` if the cut has no such
    /// stage.
    pub fn of(run: &Run, index: usize, kept: usize) -> Option<Self> {
        let run = Arc::new(run.clone());
        // More than any card has, so that nothing is ever given back for want of room.
        let device = CudaDevice::imagined(u64::MAX / 2);
        Self::taken(&run, Stage::new(&run.model, index)?, &device, kept).ok()
    }

    /// The memory of `stage` on a device with the memory of `device`, keeping as many activations as there is room for, up to
    /// those that a state keeps by itself.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] if the device has no room even if all are computed again.
    pub fn fitting(run: &Run, stage: &Stage, device: &CudaDevice) -> Result<Self, DeviceError> {
        let run = Arc::new(run.clone());
        let room = device.memory_bytes().saturating_sub(DRIVER_BYTES.min(device.memory_bytes() / 8));
        let mut refused = None;
        for kept in (0..=KEPT_DEFAULT).rev() {
            let Some(stage) = Stage::new(stage.model(), stage.shape().index) else { break };
            match Self::taken(&run, stage, &CudaDevice::imagined(room), kept) {
                Ok(memory) => return Ok(memory),
                Err(error) => refused = Some(error),
            }
        }
        let none =
            DeviceError::OutOfMemory { asked_bytes: 0, in_use_bytes: 0, card_bytes: device.memory_bytes() };
        Err(refused.unwrap_or(none))
    }

    fn taken(run: &Arc<Run>, stage: Stage, device: &CudaDevice, kept: usize) -> Result<Self, DeviceError> {
        let mut state = StageState::imagined(run, stage, &Device::Cuda(device.clone()), kept)?;
        // The second step has the spare from its beginning.
        match inner_step(&mut state).and_then(|()| inner_step(&mut state)) {
            Ok(()) => {}
            Err(WorkError::Device(error)) => return Err(error),
            Err(error) => unreachable!("an inner step in order: {error}"),
        }
        let parameters = state.parameters() as u64;
        let arrays = 4 + u64::from(!state.flight.spare.is_empty());
        let usage = device.usage();
        Ok(Self {
            parameters,
            kept,
            state_bytes: 4 * arrays * parameters,
            peak_bytes: usage.peak_bytes,
            reserved_bytes: usage.peak_reserved_bytes,
            host_bytes: if run.outer == Outer::None { 0 } else { 3 * 4 * parameters },
        })
    }
}

/// All members forward, all back, and the step, on nothing.
fn inner_step(state: &mut StageState) -> Result<(), WorkError> {
    let run = Arc::clone(&state.run);
    let kind = state.stage.shape().kind;
    let members: Vec<Member> = (0..run.inner.members)
        .map(|position| Member {
            assignment: u64::from(position),
            attempt: 0,
            step: 0,
            position,
            microbatch: u64::from(position),
        })
        .collect();
    let block = |kind| {
        let expected = Expected::of(&run, kind);
        let shape = [expected.rows as usize, expected.cols as usize];
        payload::encode(&expected, &Tensor::new(&shape, vec![0.0; shape[0] * shape[1]]))
    };
    let activation = if kind.embeds() { None } else { block(Kind::Activation)? };
    let gradient = if kind.judges() { None } else { block(Kind::Gradient)? };
    let tokens = vec![0; run.microbatch_tokens() as usize];
    for member in &members {
        let input = match &activation {
            Some(bytes) => {
                Some(payload::decode(&Expected::of(&run, Kind::Activation), bytes, &state.device)?)
            }
            None => None,
        };
        let batch = (kind.embeds() || kind.judges())
            .then(|| Microbatch { inputs: Tokens::copy_of(&tokens), targets: Tokens::copy_of(&tokens) });
        forward_batch(state, member, batch, input)?;
    }
    for &member in &members {
        perform(state, None, 0, &Operation::Backward(member), gradient.as_deref().as_slice())?;
    }
    perform(state, None, 0, &Operation::Step { step: 0, members }, &[])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;

    #[test]
    fn what_a_stage_takes_is_its_arrays_and_what_its_tapes_hold() {
        let run = run(&[1, 2, 1]);
        for index in 0..3 {
            let of = |kept| StageMemory::of(&run, index, kept).unwrap();
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
        assert_eq!(StageMemory::of(&run, 3, 0), None);
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
                "stage {index}: {} parameters, {} microbatches kept; state {:.2}, peak {:.2}, reserved {:.2}, driver {:.2} of \
                 16 GB; host {:.2} GB",
                memory.parameters,
                memory.kept,
                gb(memory.state_bytes),
                gb(memory.peak_bytes),
                gb(memory.reserved_bytes),
                gb(DRIVER_BYTES),
                gb(memory.host_bytes),
            );
            assert_eq!(memory.host_bytes, 12 * memory.parameters);
            // Weights, moments, gradients and one version stashed: not two.
            assert_eq!(memory.state_bytes, 20 * memory.parameters);
            assert!(memory.reserved_bytes + DRIVER_BYTES < 16_000_000_000, "stage {index}: {memory:?}");
        }
    }

    #[test]
    fn a_small_card_keeps_fewer_activations_and_a_smaller_one_refuses() {
        let run = run(&[2]);
        let stage = Stage::new(&run.model, 0).unwrap();
        let on = |bytes| StageMemory::fitting(&run, &stage, &CudaDevice::imagined(bytes));
        // An eighth of a card this small is the driver's.
        let card = |kept| StageMemory::of(&run, 0, kept).unwrap().reserved_bytes * 8 / 7 + 8;
        assert_eq!(on(1 << 40).unwrap().kept, 4);
        assert_eq!(on(card(1)).unwrap().kept, 1);
        assert_eq!(on(card(0)).unwrap().kept, 0);
        let refused = on(card(0) / 2).unwrap_err();
        assert!(matches!(refused, DeviceError::OutOfMemory { .. }), "{refused}");
    }
}
