//! The catalogue's ops as a CUDA device runs them: what the judges, the conformance set and the benchmarks call.
//!
//! An op is launched in several ways (rungs, numbers of blocks, memory that begins on 16 bytes and memory that does
//! not). The bits must not depend on any of it.

mod memory;

pub use memory::{Number, OnDevice, Raw, Slot};

use std::cell::Cell;

use super::{CudaDevice, DeviceError, Grid};
use crate::catalogue::conformance::{self, Deviation};
use crate::catalogue::{self, Buffers, Case, Op, equal, judge};
use crate::{
    adamw, attention, codec, cross_entropy, embedding, matmul, merge, philox, reduce, residual, rms_norm,
    rope, swiglu,
};

/// Device, way, case, inputs, outputs.
pub(crate) type Run = fn(&CudaDevice, usize, &Case, &OnDevice, &mut OnDevice) -> Result<(), DeviceError>;

/// One op on a CUDA device.
pub struct Trial {
    /// The op's name in the catalogue.
    pub op: &'static str,
    /// The ways in which it can be launched. The first leaves the choice to the launcher.
    pub ways: &'static [&'static str],
    /// Shapes beyond the catalogue's, about the edges of this device's tiles.
    pub more_cases: fn() -> Vec<Case>,
    /// Launches the op in the chosen way.
    pub(crate) run: Run,
}

/// All ops that have kernels.
pub static TRIALS: &[&Trial] = &[
    &rms_norm::trials::FORWARD,
    &rms_norm::trials::BACKWARD,
    &matmul::trials::NN,
    &matmul::trials::NT,
    &matmul::trials::TN,
    &attention::trials::FORWARD,
    &attention::trials::BACKWARD,
    &adamw::trials::STEP,
    &swiglu::trials::FORWARD,
    &swiglu::trials::BACKWARD,
    &rope::trials::FORWARD,
    &rope::trials::BACKWARD,
    &embedding::trials::FORWARD,
    &embedding::trials::BACKWARD,
    &residual::trials::ADD,
    &residual::trials::ACCUMULATE,
    &cross_entropy::trials::FORWARD,
    &cross_entropy::trials::MEAN,
    &reduce::trials::SUM_SQUARES,
    &reduce::trials::SCALE,
    &reduce::trials::FIRST_BEYOND,
    &philox::trials::UNIFORM,
    &philox::trials::NORMAL,
    &codec::trials::BF16,
    &codec::trials::INT8,
    &codec::trials::DECODE_INT8,
    &merge::trials::EXPONENTS,
    &merge::trials::CONTRIBUTE,
    &merge::trials::ACCUMULATE,
    &merge::trials::NESTEROV,
    &merge::trials::PLAIN,
];

/// The ops that have no kernels, because what they make is made once, on the CPU, and only read by a device.
pub fn only_on_cpu() -> impl Iterator<Item = &'static str> {
    catalogue::OPS.iter().map(|op| op.name()).filter(|name| find(name).is_none())
}

/// The trial of the op called `name`, if it has kernels.
pub fn find(name: &str) -> Option<&'static Trial> {
    TRIALS.iter().copied().find(|trial| trial.op == name)
}

/// What deviates from the committed conformance set when `device` computes it: nothing, on a device that may be used.
///
/// # Errors
/// The device's, in a sentence.
pub fn deviations(device: &CudaDevice) -> Result<Vec<Deviation>, String> {
    let mut hashes = Vec::new();
    for trial in TRIALS {
        let Some(op) = catalogue::find(trial.op) else { continue };
        let trouble = Cell::new(None);
        let hash = conformance::hash(op, |case, inputs, outputs| {
            match trial.run(device, 0, 0, case, inputs, outputs) {
                Ok(found) => *outputs = found,
                Err(error) => trouble.set(Some(error)),
            }
        });
        if let Some(error) = trouble.take() {
            return Err(error);
        }
        hashes.push((op.name(), hash));
    }
    Ok(conformance::deviations(&hashes))
}

impl Trial {
    /// What the device makes of `inputs`, launched in way `way` of [`Trial::ways`], all memory beginning `shift`
    /// elements after an address that is a multiple of 256.
    ///
    /// # Errors
    /// The device's, or the name of a buffer beside which a kernel wrote.
    pub fn run(
        &self,
        device: &CudaDevice,
        way: usize,
        shift: usize,
        case: &Case,
        inputs: &Buffers,
        outputs: &Buffers,
    ) -> Result<Buffers, String> {
        let said = |error: DeviceError| error.to_string();
        let inputs = OnDevice::upload(device, inputs, shift).map_err(said)?;
        let mut on_device = OnDevice::upload(device, outputs, shift).map_err(said)?;
        (self.run)(device, way, case, &inputs, &mut on_device).map_err(said)?;
        on_device.download(device, outputs)
    }
}

/// An op on a device with its operands there, to be launched again and again.
pub struct Prepared<'a> {
    trial: &'a Trial,
    device: &'a CudaDevice,
    case: &'a Case,
    inputs: OnDevice,
    outputs: OnDevice,
}

impl Trial {
    /// Brings the operands of `case` to the device and launches once, which compiles and warms up; the choice of how is left to
    /// the launcher.
    ///
    /// # Errors
    /// The device's.
    pub fn prepare<'a>(
        &'a self,
        device: &'a CudaDevice,
        op: &dyn Op,
        case: &'a Case,
    ) -> Result<Prepared<'a>, DeviceError> {
        let inputs = OnDevice::upload(device, &op.inputs(case), 0)?;
        let outputs = OnDevice::upload(device, &op.outputs(case), 0)?;
        let mut prepared = Prepared { trial: self, device, case, inputs, outputs };
        prepared.launch()?;
        Ok(prepared)
    }
}

impl Prepared<'_> {
    /// Milliseconds of one launch, by the device's events.
    ///
    /// # Errors
    /// The device's.
    pub fn time_ms(&mut self) -> Result<f64, DeviceError> {
        let device = self.device;
        device.time_ms(|| self.launch())
    }

    fn launch(&mut self) -> Result<(), DeviceError> {
        (self.trial.run)(self.device, 0, self.case, &self.inputs, &mut self.outputs)
    }
}

/// Every way, aligned and not, against the plain reference, over all cases of `op`. Returns the number of comparisons.
///
/// # Errors
/// A sentence that names case, way, element, both values.
pub fn device_equals_reference(device: &CudaDevice, trial: &Trial, op: &dyn Op) -> Result<usize, String> {
    let mut compared = 0;
    for case in op.cases().into_iter().chain((trial.more_cases)()) {
        let (inputs, expected) = judge::expected(op, &case);
        let start = op.outputs(&case);
        for (way, name) in trial.ways.iter().enumerate() {
            for shift in [0, 1] {
                let place =
                    || format!("{} `{}` {:?}, {name}, shift {shift}", op.name(), case.label, case.dims);
                let found = trial
                    .run(device, way, shift, &case, &inputs, &start)
                    .map_err(|error| format!("{}: {error}", place()))?;
                equal(&expected, &found).map_err(|mismatch| format!("{}: {mismatch}", place()))?;
                compared += 1;
            }
        }
    }
    Ok(compared)
}

/// The ways of a kernel that strides over its work.
pub(crate) const STRIDING_WAYS: &[&str] = &["chosen", "1 block", "7 blocks"];

/// The grid of such a way; `None` for the launcher's choice.
pub(crate) fn striding_grid(way: usize) -> Option<Grid> {
    [None, Some(Grid::blocks(1)), Some(Grid::blocks(7))][way]
}
