//! The weights from before the last step, on which the members of the next one run where its weights may be stale.

use super::StageState;
use crate::checkpoint::{self, CheckpointError, Section};
use crate::ops;
use crate::tensor::Values;
use kernels::device::DeviceError;
use spec::Run;

/// Beside the current weights the only version that is alive: what has run on it is folded before it is written again.
#[derive(Debug)]
pub(crate) struct Stash {
    /// The inner step whose members run on it: the one after the last step taken. None where these run on the current weights.
    of: Option<u32>,
    /// Empty before the first stale step.
    pub(super) weights: Values,
}

impl Stash {
    pub(crate) fn empty() -> Self {
        Self { of: None, weights: Values::Host(Vec::new()) }
    }

    /// The inner step in hand, where its members run on the stash.
    pub(crate) fn step(&self) -> Option<u32> {
        self.of
    }

    /// Whether there is memory in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// The weights on which the members of an inner step run.
    pub(crate) fn weights<'a>(&'a self, current: &'a Values, step: u32) -> &'a Values {
        if self.of == Some(step) { &self.weights } else { current }
    }

    /// Inner step `step` is about to move the `current` weights: keeps them if the members of the next one run on them.
    ///
    /// # Errors
    /// The device has no memory left, or is lost.
    pub(crate) fn before_step(&mut self, run: &Run, current: &Values, step: u32) -> Result<(), DeviceError> {
        self.of = step.checked_add(1).filter(|&next| run.is_stale(next));
        if self.of.is_none() {
            return Ok(());
        }
        if self.weights.is_empty() {
            self.weights = Values::zeros(&current.all().device(), current.len())?;
        }
        ops::copy(current.all(), self.weights.all_mut())
    }
}

impl StageState {
    /// The weights on which the members of the next inner step run, as a file of the kind of [`StageState::weights_bytes`];
    /// `None` where these are the current ones, as wherever a window begins.
    ///
    /// # Errors
    /// The device is lost.
    pub fn stale_bytes(&self) -> Result<Option<Vec<u8>>, DeviceError> {
        if self.stash.of.is_none() {
            return Ok(None);
        }
        let (layout, metadata) = (self.stage.layout(), super::identity(&self.run, &self.stage));
        let section = Section { prefix: "", values: self.stash.weights.all() };
        super::built(self.room(1), |sink| checkpoint::write(layout, &metadata, &[section], sink)).map(Some)
    }

    /// Gives back what [`StageState::stale_bytes`] wrote to a state that was loaded in the middle of a window, before inner
    /// step `step`.
    ///
    /// # Errors
    /// The bytes are not weights of this stage; the error names tensor, expected and found.
    pub fn restore_stale(&mut self, step: u32, bytes: &[u8]) -> Result<(), CheckpointError> {
        let weights = super::read_weights(&self.run, &self.stage, bytes)?;
        self.stash = Stash { of: Some(step), weights: Values::of(&self.device, weights)? };
        Ok(())
    }
}
