//! Where a state computes, and its way there.

use super::{Anchor, Flight, Keeping, Pool, StageState, Stash, stage};
use crate::checkpoint::CheckpointError;
use crate::memory::StageMemory;
use crate::model::Stage;
use crate::tensor::Values;
use kernels::adamw::BiasCorrection;
use kernels::device::{Device, DeviceError};
use spec::{Digest, Run};
use std::sync::Arc;

impl StageState {
    /// The same state with weights, moments and gradients on `device`, where all its work is done from now on. Work in
    /// flight is dropped. Of microbatches that wait for their backward as much is kept as the device has room for.
    ///
    /// # Errors
    /// The device has no room for the stage's work, or is lost.
    pub fn to_device(mut self, device: &Device) -> Result<Self, DeviceError> {
        if let Device::Cuda(device) = device {
            self.flight.keeping = StageMemory::fitting(&self.run, &self.stage, device)?.keeping;
        }
        self.flight.saved.clear();
        self.flight.folded.clear();
        self.stage.lay_on(device)?;
        let stashed = Some(&mut self.stash.weights).filter(|weights| !weights.is_empty());
        for values in [&mut self.weights, &mut self.m, &mut self.v].into_iter().chain(stashed) {
            let here = match std::mem::replace(values, Values::Host(Vec::new())) {
                Values::Host(values) => values,
                elsewhere @ Values::Cuda(_) => elsewhere.to_host()?.into_owned(),
            };
            *values = Values::of(device, here)?;
        }
        self.flight.gradients = Values::zeros(device, self.stage.layout().values())?;
        self.flight.spare = Values::Host(Vec::new());
        self.device = device.clone();
        Ok(self)
    }

    /// A state on a device that is only imagined: all the memory of one, and no values.
    pub(crate) fn imagined(
        run: &Arc<Run>,
        mut stage: Stage,
        device: &Device,
        keeping: Keeping,
    ) -> Result<Self, DeviceError> {
        stage.lay_on(device)?;
        let zeros = || Values::zeros(device, stage.layout().values());
        let flight = Flight {
            saved: Vec::new(),
            folded: Vec::new(),
            gradients: zeros()?,
            spare: Values::Host(Vec::new()),
            keeping,
        };
        Ok(Self {
            run: Arc::clone(run),
            weights: zeros()?,
            stash: Stash::empty(),
            m: zeros()?,
            v: zeros()?,
            stage,
            device: device.clone(),
            bias: BiasCorrection::default(),
            steps: 0,
            outer: None,
            folded_in_epoch: 0,
            anchor: Anchor { digest: Digest::default(), weights: None },
            flight,
            pool: Pool::default(),
        })
    }

    /// A state on the host with these weights and nothing else of it: for what only the host can compute.
    ///
    /// # Errors
    /// The device is lost.
    pub(crate) fn to_read(&self) -> Result<Self, CheckpointError> {
        let weights = self.weights.to_host()?.into_owned();
        let mut copy = Self::fresh(&self.run, stage(&self.run, self.stage.shape().index)?, Vec::new())?;
        copy.weights = Values::Host(weights);
        Ok(copy)
    }
}
