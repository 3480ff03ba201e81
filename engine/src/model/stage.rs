//! One stage of the model: what it holds and its forward pass. It holds no weights: those are an argument.

use super::{BLOCK_ROLES, Layout, Past, block, initial};
use crate::autograd::{ParameterId, Parameters, Tape, Var};
use crate::tensor::{Slice, Tensor};
use crate::trace::Kind;
use kernels::device::{Buffer, Device, DeviceError, View};
use kernels::rope::{self, Rope, Scaling, Tables};
use spec::{Model, StageShape};
use std::sync::Arc;

/// A stage's shape, parameters and constants.
#[derive(Debug)]
pub struct Stage {
    model: Model,
    shape: StageShape,
    layout: Layout,
    rotary: Arc<Rotary>,
}

/// The model constants of rotary positions, for `context` positions.
#[derive(Debug)]
pub struct Rotary {
    tables: Tables,
    head_dim: usize,
    /// Cosines and sines once more, where a device reads them.
    on_device: Option<[Buffer<f32>; 2]>,
}

/// What a stage reads.
#[derive(Debug)]
pub enum Input<'a> {
    /// Token ids: head and whole.
    Tokens(&'a [u32]),
    /// The previous stage's output, [rows, dim]: body and tail.
    Activation(Tensor),
}

/// How far a forward pass goes in a stage that holds the output projection; other stages end with their blocks.
#[derive(Debug, Clone, Copy)]
pub enum Goal<'a> {
    /// The loss of each row against its target: [rows].
    Loss(&'a [u32]),
    /// The logits: [rows, vocab].
    Logits,
}

impl Stage {
    /// Stage `index` of `model`; `None` if the cut has no such stage.
    pub fn new(model: &Model, index: usize) -> Option<Self> {
        let shape = model.stage(index)?;
        let head_dim = model.head_dim() as usize;
        let scaling = scaling(model);
        let tables = rope::tables(model.context as usize, head_dim, model.rope_theta, scaling.as_ref());
        Some(Self {
            model: model.clone(),
            shape,
            layout: Layout::new(model, &shape),
            rotary: Arc::new(Rotary { tables, head_dim, on_device: None }),
        })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The stage's place in the cut.
    pub fn shape(&self) -> StageShape {
        self.shape
    }

    /// The stage's parameters.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The flat array of initial weights.
    pub fn initial_weights(&self, seed: u64) -> Vec<f32> {
        initial::initial(&self.model, &self.layout, seed)
    }

    /// The stage's parameters with the values in `weights`.
    pub fn parameters<'a>(&'a self, weights: impl Into<Slice<'a>>) -> Parameters<'a> {
        Parameters { layout: &self.layout, values: weights.into() }
    }

    /// Lays the stage's constants where `device` reads them.
    ///
    /// # Errors
    /// The device has no memory left, or is lost.
    pub fn lay_on(&mut self, device: &Device) -> Result<(), DeviceError> {
        let Device::Cuda(device) = device else { return Ok(()) };
        let Tables { cos, sin } = &self.rotary.tables;
        self.rotary = Arc::new(Rotary {
            tables: Tables { cos: cos.clone(), sin: sin.clone() },
            head_dim: self.rotary.head_dim,
            on_device: Some([device.upload(cos)?, device.upload(sin)?]),
        });
        Ok(())
    }

    /// The number of the first parameter of block `place`; of what judges, where `place` is the number of blocks.
    pub(super) fn first_parameter(&self, place: usize) -> usize {
        usize::from(self.shape.kind.embeds()) + place * BLOCK_ROLES.len()
    }

    pub(super) fn rotary(&self) -> &Arc<Rotary> {
        &self.rotary
    }

    /// Runs the stage on whole sequences of `seq` tokens, `seq` at most the model's context. The last value on the tape
    /// is the stage's output: activations, or what `goal` says.
    ///
    /// # Errors
    /// The device that the weights live on has no memory left, or is lost.
    ///
    /// # Panics
    /// When the input is not of the stage's kind or no whole number of sequences, or a token is beyond the vocabulary:
    /// bugs of the caller.
    pub fn forward<'a>(
        &'a self,
        weights: impl Into<Slice<'a>>,
        input: Input<'_>,
        goal: Goal<'_>,
        seq: usize,
    ) -> Result<Tape, DeviceError> {
        self.run(weights.into(), input, goal, seq, None)
    }

    /// Activations, or logits, of the tokens that follow `past`, which then holds them too: to the bit those rows of
    /// [`Stage::forward`] over the whole sequence. Together they are at most the model's context. On the host only.
    ///
    /// # Errors
    /// None, on the host.
    ///
    /// # Panics
    /// As [`Stage::forward`], and beyond the context.
    pub fn forward_after(
        &self,
        weights: &[f32],
        input: Input<'_>,
        past: &mut Past,
    ) -> Result<Option<Tensor>, DeviceError> {
        let rows = match &input {
            Input::Tokens(tokens) => tokens.len(),
            Input::Activation(tensor) => tensor.rows(),
        };
        let last = self.run(weights.into(), input, Goal::Logits, rows, Some(past))?.into_last();
        past.advance(rows);
        Ok(last)
    }

    fn run(
        &self,
        weights: Slice<'_>,
        input: Input<'_>,
        goal: Goal<'_>,
        seq: usize,
        mut past: Option<&mut Past>,
    ) -> Result<Tape, DeviceError> {
        let parameters = Parameters { layout: &self.layout, values: weights };
        let mut tape = Tape::default();
        let mut x = self.read(parameters, &mut tape, input)?;
        for place in 0..self.shape.blocks as usize {
            let past = past.as_deref_mut().map(|past| (past, place));
            x = block::forward(self, parameters, &mut tape, self.first_parameter(place), x, seq, past)?;
        }
        if self.shape.kind.judges() {
            self.judge(parameters, &mut tape, x, goal)?;
        }
        Ok(tape)
    }

    /// What the first block reads.
    pub(super) fn read(
        &self,
        parameters: Parameters<'_>,
        tape: &mut Tape,
        input: Input<'_>,
    ) -> Result<Var, DeviceError> {
        match input {
            Input::Tokens(tokens) => {
                assert!(self.shape.kind.embeds(), "a {} reads activations", self.shape.kind.name());
                tape.embedding(parameters, ParameterId(0), tokens)
            }
            Input::Activation(tensor) => {
                assert!(!self.shape.kind.embeds(), "a {} reads tokens", self.shape.kind.name());
                Ok(tape.input(tensor))
            }
        }
    }

    /// What follows the last block of a stage that holds the output projection.
    pub(super) fn judge(
        &self,
        parameters: Parameters<'_>,
        tape: &mut Tape,
        x: Var,
        goal: Goal<'_>,
    ) -> Result<(), DeviceError> {
        let next = self.first_parameter(self.shape.blocks as usize);
        let n = tape.rms_norm(parameters, x, ParameterId(next), self.model.norm_eps)?;
        let z = tape.linear(parameters, n, ParameterId(next + 1))?;
        tape.forget(n);
        if let Goal::Loss(targets) = goal {
            tape.cross_entropy(z, targets)?;
        }
        Ok(())
    }
}

/// The scaling of a model's rotary frequencies, as the kernels take it.
pub fn scaling(model: &Model) -> Option<Scaling> {
    model.rope_scaling.map(|scaling| Scaling {
        factor: scaling.factor,
        low_frequency: scaling.low_freq_factor,
        high_frequency: scaling.high_freq_factor,
        original_context: f64::from(scaling.original_max_position),
    })
}

impl Rotary {
    /// The op that turns `x`, or turns it back.
    pub(crate) fn kind(&self, x: &Tensor, seq: usize, back: bool) -> Kind {
        Kind::Rope { seq, heads: x.cols() / self.head_dim, head_dim: self.head_dim, back }
    }

    /// The kernel's arguments for `x`, sequences of `seq` rows of whole heads.
    pub fn args<'a>(&'a self, x: &'a Tensor, seq: usize) -> Rope<'a> {
        self.args_from(x, seq, 0)
    }

    /// As [`Rotary::args`] for `x` whose `values` live on a device, handed to `launch`.
    ///
    /// # Errors
    /// What `launch` returns.
    ///
    /// # Panics
    /// When the tables were not laid on a device.
    pub fn on_cuda(
        &self,
        x: &Tensor,
        seq: usize,
        values: &View<'_, f32>,
        launch: impl FnOnce(&rope::cuda::Rope<'_>) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let tables = self.on_device.as_ref().expect("rotary tables that were not laid on the device");
        let [cos, sin] = tables.each_ref().map(Buffer::view);
        let (rows, heads, head_dim) = (x.rows(), x.cols() / self.head_dim, self.head_dim);
        launch(&rope::cuda::Rope { rows, seq, heads, head_dim, cos: &cos, sin: &sin, x: values })
    }

    /// As [`Rotary::args`], every sequence beginning at `position`.
    pub fn args_from<'a>(&'a self, x: &'a Tensor, seq: usize, position: usize) -> Rope<'a> {
        let first = position * self.head_dim / 2;
        Rope {
            rows: x.rows(),
            seq,
            heads: x.cols() / self.head_dim,
            head_dim: self.head_dim,
            cos: &self.tables.cos[first..],
            sin: &self.tables.sin[first..],
            x: x.data(),
        }
    }
}
