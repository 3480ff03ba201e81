//! Every op that a stage needs, where its values live: on the host through `kernels::<room>`, on a device through
//! `kernels::<room>::cuda`. Both give the same bits; this is the only place that tells them apart.
//!
//! On a device, ops queue work and return; workspaces come from its arena and go back once the work is queued. What ends
//! in another op's arithmetic is one kernel there.

mod backward;
mod forward;
mod loss;
mod update;

pub use backward::{
    Attended, accumulate, attention_backward, embedding_backward, product_nn, product_tn, rms_norm_backward,
    rope_backward, swiglu_backward,
};
pub use forward::{attention, embedding, gated, product_nt, rms_norm, rope, swiglu};
pub use loss::{cross_entropy, mean_q32};
pub use update::{adamw, clear, copy, first_beyond, norm, scale, squares};

use kernels::device::{CudaDevice, DeviceError};

/// A word that kernels lower to say that something is wrong, and where.
pub(crate) struct Status(kernels::device::Buffer<u32>);

impl Status {
    /// Nothing is wrong yet.
    pub fn new(device: &CudaDevice) -> Result<Self, DeviceError> {
        let mut word = device.scratch(1)?;
        device.fill(0xFF, &mut word.view_mut())?;
        Ok(Self(word))
    }

    /// The word, to be lowered.
    pub fn word(&mut self) -> kernels::device::ViewMut<'_, u32> {
        self.0.view_mut()
    }

    /// Waits for all work queued so far; where the fault is, if there is one.
    pub fn fault(&self) -> Result<Option<u32>, DeviceError> {
        let mut found = [0];
        self.0.device().fetch(&self.0.view(), &mut found)?;
        Ok((found[0] != kernels::codec::cuda::NO_FAULT).then_some(found[0]))
    }
}
