//! What a miner holds of one stage: weights, optimizer, residual, outer momentum, and the work in flight.

mod file;
mod keeping;
mod outer;
mod place;
mod pool;
mod stash;

pub use file::FilePart;
pub use keeping::Keeping;
pub(crate) use keeping::Saved;
pub(crate) use outer::OuterState;
pub use pool::Lent;
use pool::Pool;
pub(crate) use stash::Stash;

use crate::checkpoint::{self, CheckpointError, Metadata, Section};
use crate::model::Stage;
use crate::ops;
use crate::tensor::{Slice, SliceMut, Values};
use crate::trace::record;
use file::{Sink, built, hashed};
use kernels::adamw::BiasCorrection;
use kernels::device::{Device, DeviceError};
use spec::{Digest, Member, Outer, Run};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A stage's state on one machine.
///
/// All arrays are flat, in the stage's canonical order. *State* in the sense of the digest is everything but the work in
/// flight: it is taken between inner steps, when nothing is in flight, and after an epoch's first forward, which changes nothing.
///
/// Weights, moments, gradients and work in flight live on the state's device ([`StageState::to_device`]), all else in host
/// memory: the CPU's is the first.
#[derive(Debug)]
pub struct StageState {
    pub(crate) run: Arc<Run>,
    pub(crate) stage: Stage,
    pub(crate) device: Device,
    pub(crate) weights: Values,
    pub(crate) stash: Stash,
    pub(crate) m: Values,
    pub(crate) v: Values,
    pub(crate) bias: BiasCorrection,
    pub(crate) steps: u64,
    /// Error feedback and outer momentum; absent where the run has no outer optimizer.
    pub(crate) outer: Option<OuterState>,
    /// Microbatches folded into the weights since the last merge: the weight of this replica's contribution.
    pub(crate) folded_in_epoch: u32,
    pub(crate) anchor: Anchor,
    pub(crate) flight: Flight,
    /// Of files that nobody keeps any more.
    pool: Pool,
}

/// The weights at the last merge.
#[derive(Debug)]
pub(crate) struct Anchor {
    pub(crate) digest: Digest,
    /// Absent without an outer optimizer, and in a state loaded in the middle of an epoch.
    pub(crate) weights: Option<Vec<f32>>,
}

/// Work of the current inner step, and forwards of the next where its weights may be stale.
#[derive(Debug)]
pub(crate) struct Flight {
    /// In no particular order: a few at most.
    pub(crate) saved: Vec<(Member, Saved)>,
    pub(crate) folded: Vec<Member>,
    pub(crate) gradients: Values,
    /// Written before a further fold, so that it can be taken back, and by a step that might go wrong; empty before the
    /// first such.
    pub(crate) spare: Values,
    pub(crate) keeping: Keeping,
}

impl Flight {
    /// Where a member that went forward is saved.
    pub(crate) fn saved(&self, member: &Member) -> Option<usize> {
        self.saved.iter().position(|(of, _)| of == member)
    }
}

impl StageState {
    /// The state in which stage `index` starts the run.
    ///
    /// # Errors
    /// The model has no such stage.
    pub fn initial(run: &Run, index: usize) -> Result<Self, CheckpointError> {
        let stage = stage(run, index)?;
        let weights = stage.initial_weights(run.seed);
        Ok(Self::fresh(run, stage, weights)?)
    }

    /// The weights of a manifest, all else as at the start.
    ///
    /// # Errors
    /// The bytes are not this stage's weights; the error names tensor, expected and found.
    pub fn from_weights(run: &Run, index: usize, bytes: &[u8]) -> Result<Self, CheckpointError> {
        let stage = stage(run, index)?;
        let weights = read_weights(run, &stage, bytes)?;
        Ok(Self::fresh(run, stage, weights)?)
    }

    /// The fresh state in which a stage begins the epoch of a manifest: its weights and outer momentum (bytes as of
    /// [`StageState::weights_bytes`] and [`StageState::momentum_bytes`]), with moments, residual and step count of zero. Its digest
    /// follows from the manifest alone.
    ///
    /// # Errors
    /// The bytes are not this stage's weights or momentum; the error names tensor, expected and found.
    pub fn of_manifest(
        run: &Run,
        index: usize,
        weights: &[u8],
        momentum: Option<&[u8]>,
    ) -> Result<Self, CheckpointError> {
        let mut state = Self::from_weights(run, index, weights)?;
        if let (Some(outer), Some(bytes)) = (&mut state.outer, momentum) {
            let (layout, metadata) = (state.stage.layout(), identity(&state.run, &state.stage));
            let sections = checkpoint::read(layout, &metadata, &["momentum/"], bytes)?;
            outer.set_momentum(sections.into_iter().next().unwrap_or_default());
        }
        Ok(state)
    }

    /// The state that [`StageState::state_bytes`] wrote. Where it was taken in the middle of an epoch, merging also needs
    /// [`StageState::restore_anchor`].
    ///
    /// # Errors
    /// The bytes are not this stage's state; the error names tensor, expected and found.
    pub fn from_state(run: &Run, index: usize, bytes: &[u8]) -> Result<Self, CheckpointError> {
        let stage = stage(run, index)?;
        let (metadata, prefixes) = (checkpoint::read_metadata(bytes)?, prefixes(run));
        // Before anything as long as the stage is made: the run may be anybody's word.
        checkpoint::check_tensors(stage.layout(), prefixes, bytes)?;
        let mut state = Self::fresh(run, stage, Vec::new())?;
        state.take_metadata(&metadata)?;
        // Strict: metadata that these fields would not be written as is refused here.
        let layout = state.stage.layout();
        let sections = checkpoint::read(layout, &state.metadata(), prefixes, bytes)?;
        let mut sections = sections.into_iter();
        let mut next = || sections.next().unwrap_or_default();
        [state.weights, state.m, state.v] = [(); 3].map(|()| Values::Host(next()));
        if let Some(outer) = &mut state.outer {
            *outer = OuterState::of(next(), next());
        }
        let at_merge = state.anchor.digest == state.weights_digest()?;
        state.anchor.weights = (at_merge && state.outer.is_some()).then(|| state.weights.host().to_vec());
        Ok(state)
    }

    /// Where the state computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The weights as a safetensors file; its BLAKE3 is what a manifest names.
    ///
    /// # Errors
    /// The device is lost; likewise below.
    pub fn weights_bytes(&self) -> Result<Vec<u8>, DeviceError> {
        built(self.room(1), |sink| self.write_weights(sink))
    }

    /// BLAKE3 of [`StageState::weights_bytes`], without building the file.
    ///
    /// # Errors
    /// As [`StageState::weights_bytes`].
    pub fn weights_digest(&self) -> Result<Digest, DeviceError> {
        hashed(|sink| self.write_weights(sink))
    }

    /// Digest of the outer momentum, as a file of the same kind with names `momentum/<name>`; zero in a run without an
    /// outer optimizer.
    ///
    /// # Errors
    /// None: the momentum is in host memory.
    pub fn momentum_digest(&self) -> Result<Digest, DeviceError> {
        match &self.outer {
            Some(outer) => hashed(|sink| self.write_momentum(outer, sink)),
            None => Ok(Digest::default()),
        }
    }

    /// The outer momentum as a file, whose digest [`StageState::momentum_digest`] is; `None` without an outer optimizer.
    ///
    /// # Errors
    /// None: the momentum is in host memory.
    pub fn momentum_bytes(&self) -> Result<Option<Vec<u8>>, DeviceError> {
        let outer = self.outer.as_ref();
        outer.map(|outer| built(self.room(1), |sink| self.write_momentum(outer, sink))).transpose()
    }

    /// Gives back the weights of the last merge, which a state file only names: needed before `Encode` and `Apply` when
    /// the state was loaded in the middle of an epoch.
    ///
    /// # Errors
    /// The bytes are not the weights that the state names.
    pub fn restore_anchor(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        let (expected, found) = (self.anchor.digest, Digest::of(bytes));
        if found != expected {
            return Err(CheckpointError::Anchor { expected, found });
        }
        let weights = read_weights(&self.run, &self.stage, bytes)?;
        self.anchor.weights = self.outer.is_some().then_some(weights);
        Ok(())
    }

    /// Digest of the weights file at the last merge, from which this epoch's change is measured.
    pub fn anchor(&self) -> Digest {
        self.anchor.digest
    }

    /// The weights at the last merge as a file, whose digest [`StageState::anchor`] is; `None` without an outer optimizer,
    /// and where they are not at hand.
    ///
    /// # Errors
    /// None: these weights are in host memory.
    pub fn anchor_bytes(&self) -> Result<Option<Vec<u8>>, DeviceError> {
        let Some(weights) = &self.anchor.weights else { return Ok(None) };
        let (layout, metadata) = (self.stage.layout(), identity(&self.run, &self.stage));
        let section = Section { prefix: "", values: weights.into() };
        built(self.room(1), |sink| checkpoint::write(layout, &metadata, &[section], sink)).map(Some)
    }

    /// Whether merging needs [`StageState::restore_anchor`] first.
    pub fn anchor_is_missing(&self) -> bool {
        self.outer.is_some() && self.anchor.weights.is_none()
    }

    /// The run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The stage.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.stage.layout().values()
    }

    /// The weights, flat, in canonical order, of a state on the host.
    ///
    /// # Panics
    /// On a device.
    pub fn weights(&self) -> &[f32] {
        self.weights.host()
    }

    /// Tampers with the weights: what a trial of the audit needs.
    ///
    /// # Errors
    /// The device is lost.
    pub fn edit_weights(&mut self, edit: impl FnOnce(&mut [f32])) -> Result<(), DeviceError> {
        edit_values(&mut self.weights, edit)?;
        record::tampered(self.weights.all())
    }

    /// Tampers with the first moments: what a trial of the audit needs.
    ///
    /// # Errors
    /// The device is lost.
    pub fn edit_moments(&mut self, edit: impl FnOnce(&mut [f32])) -> Result<(), DeviceError> {
        edit_values(&mut self.m, edit)?;
        record::tampered(self.m.all())
    }

    /// AdamW steps taken since the state began.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Members folded into the current inner step, in order.
    pub fn folded(&self) -> &[Member] {
        &self.flight.folded
    }

    /// Drops what was saved of a member that was struck before its backward; false if there was nothing.
    pub fn forget(&mut self, member: &Member) -> bool {
        let place = self.flight.saved(member);
        place.map(|place| self.flight.saved.swap_remove(place)).is_some()
    }

    /// What is kept of microbatches until their backward; the rest is computed again, to the same bits. The activations
    /// of 4 at first.
    pub fn keep(&mut self, keeping: Keeping) {
        self.flight.keeping = keeping;
    }

    /// The current weights become those from which the next epoch's change is measured.
    pub(crate) fn set_anchor(&mut self) -> Result<(), DeviceError> {
        self.folded_in_epoch = 0;
        self.anchor.digest = self.weights_digest()?;
        if self.outer.is_some() {
            self.anchor.weights = Some(self.weights.to_host()?.into_owned());
        }
        Ok(())
    }

    /// Ends an inner step: of it nothing is in flight.
    pub(crate) fn land(&mut self, step: u32) -> Result<(), DeviceError> {
        self.flight.saved.retain(|(member, _)| member.step > step);
        self.flight.folded.clear();
        ops::clear(self.flight.gradients.all_mut())
    }

    fn fresh(run: &Run, stage: Stage, weights: Vec<f32>) -> Result<Self, DeviceError> {
        let zeros = || vec![0.0; stage.layout().values()];
        let outer = match run.outer {
            Outer::None => None,
            Outer::Nesterov { .. } => Some(OuterState::of(zeros(), zeros())),
        };
        let flight = Flight {
            saved: Vec::new(),
            folded: Vec::new(),
            gradients: Values::Host(zeros()),
            spare: Values::Host(Vec::new()),
            keeping: Keeping::default(),
        };
        let mut state = Self {
            run: Arc::new(run.clone()),
            m: Values::Host(zeros()),
            v: Values::Host(zeros()),
            stage,
            device: Device::Cpu,
            weights: Values::Host(weights),
            stash: Stash::empty(),
            bias: BiasCorrection::default(),
            steps: 0,
            outer,
            folded_in_epoch: 0,
            anchor: Anchor { digest: Digest::default(), weights: None },
            flight,
            pool: Pool::default(),
        };
        state.set_anchor()?;
        Ok(state)
    }

    fn write_weights(&self, sink: Sink<'_>) -> Result<(), DeviceError> {
        let section = Section { prefix: "", values: self.weights.all() };
        checkpoint::write(self.stage.layout(), &identity(&self.run, &self.stage), &[section], sink)
    }

    fn write_momentum(&self, outer: &OuterState, sink: Sink<'_>) -> Result<(), DeviceError> {
        let section = Section { prefix: "momentum/", values: outer.momentum().into() };
        checkpoint::write(self.stage.layout(), &identity(&self.run, &self.stage), &[section], sink)
    }

    fn sections(&self) -> Vec<Section<'_>> {
        let mut values = vec![self.weights.all(), self.m.all(), self.v.all()];
        if let Some(outer) = &self.outer {
            values.extend([outer.residual(), outer.momentum()].map(Slice::from));
        }
        prefixes(&self.run).iter().zip(values).map(|(prefix, values)| Section { prefix, values }).collect()
    }

    /// What stands before the values in [`StageState::state_bytes`].
    pub(crate) fn head(&self) -> Vec<u8> {
        checkpoint::head(self.stage.layout(), &self.metadata(), prefixes(&self.run))
    }

    /// Takes over what a state file says of itself.
    pub(crate) fn take_metadata(&mut self, found: &BTreeMap<String, String>) -> Result<(), CheckpointError> {
        self.steps = number(found, "steps", 10)?;
        self.bias.power1 = f64::from_bits(number(found, "power1", 16)?);
        self.bias.power2 = f64::from_bits(number(found, "power2", 16)?);
        self.folded_in_epoch = number(found, "folded", 10)? as u32;
        let anchor = found.get("anchor").map_or("nothing", String::as_str);
        self.anchor.digest = anchor.parse().map_err(|_| wrong("anchor", "a digest", anchor))?;
        Ok(())
    }

    fn metadata(&self) -> Metadata {
        let mut metadata = identity(&self.run, &self.stage);
        metadata.extend([
            ("steps", self.steps.to_string()),
            ("power1", format!("{:016x}", self.bias.power1.to_bits())),
            ("power2", format!("{:016x}", self.bias.power2.to_bits())),
            ("folded", self.folded_in_epoch.to_string()),
            ("anchor", self.anchor.digest.to_string()),
        ]);
        metadata
    }
}

/// The names of the arrays in a state file.
fn prefixes(run: &Run) -> &'static [&'static str] {
    match run.outer {
        Outer::None => &PREFIXES[..3],
        Outer::Nesterov { .. } => &PREFIXES,
    }
}

fn stage(run: &Run, index: usize) -> Result<Stage, CheckpointError> {
    let stages = run.model.stage_count();
    Stage::new(&run.model, index).ok_or(CheckpointError::NoStage { index, stages })
}

/// Before the names of a state file's arrays, in their order; the last two with an outer optimizer.
const PREFIXES: [&str; 5] = ["weights/", "m/", "v/", "residual/", "momentum/"];

/// What both files say about themselves.
fn identity(run: &Run, stage: &Stage) -> Metadata {
    vec![("format", "pt".into()), ("run", run.id().to_string()), ("stage", stage.shape().index.to_string())]
}

fn read_weights(run: &Run, stage: &Stage, bytes: &[u8]) -> Result<Vec<f32>, CheckpointError> {
    let sections = checkpoint::read(stage.layout(), &identity(run, stage), &[""], bytes)?;
    Ok(sections.into_iter().next().unwrap_or_default())
}

fn number(found: &BTreeMap<String, String>, key: &'static str, radix: u32) -> Result<u64, CheckpointError> {
    let text = found.get(key).map_or("nothing", String::as_str);
    u64::from_str_radix(text, radix).map_err(|_| wrong(key, "a number", text))
}

fn wrong(key: &'static str, expected: &str, found: &str) -> CheckpointError {
    CheckpointError::Metadata { key, expected: expected.into(), found: found.chars().take(80).collect() }
}

fn edit_values(values: &mut Values, edit: impl FnOnce(&mut [f32])) -> Result<(), DeviceError> {
    match values.all_mut() {
        SliceMut::Host(values) => edit(values),
        SliceMut::Cuda(device, mut values) => {
            let mut here = device.download(&values.view())?;
            edit(&mut here);
            device.write(&here, &mut values)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
