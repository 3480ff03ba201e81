//! One stage of the model: what it holds and its forward pass. It holds no weights: those are an argument.

use super::{BLOCK_ROLES, Layout, block, initial};
use crate::autograd::{ParameterId, Parameters, Tape};
use crate::tensor::Tensor;
use kernels::rope::{self, Rope, Tables};
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
        let tables = rope::tables(model.context as usize, head_dim, model.rope_theta);
        Some(Self {
            model: model.clone(),
            shape,
            layout: Layout::new(model, &shape),
            rotary: Arc::new(Rotary { tables, head_dim }),
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
    pub fn parameters<'a>(&'a self, weights: &'a [f32]) -> Parameters<'a> {
        Parameters { layout: &self.layout, values: weights }
    }

    pub(super) fn rotary(&self) -> &Arc<Rotary> {
        &self.rotary
    }

    /// Runs the stage on whole sequences of `seq` tokens, `seq` at most the model's context. The last value on the tape
    /// is the stage's output: activations, or what `goal` says.
    ///
    /// # Panics
    /// When the input is not of the stage's kind or no whole number of sequences, or a token is beyond the vocabulary:
    /// bugs of the caller.
    pub fn forward(&self, weights: &[f32], input: Input<'_>, goal: Goal<'_>, seq: usize) -> Tape {
        let parameters = self.parameters(weights);
        let mut tape = Tape::default();
        let mut next = 0;
        let mut x = match input {
            Input::Tokens(tokens) => {
                assert!(self.shape.kind.embeds(), "a {} reads activations", self.shape.kind.name());
                next = 1;
                tape.embedding(parameters, ParameterId(0), tokens)
            }
            Input::Activation(tensor) => {
                assert!(!self.shape.kind.embeds(), "a {} reads tokens", self.shape.kind.name());
                tape.input(tensor)
            }
        };
        for _ in 0..self.shape.blocks {
            x = block::forward(self, parameters, &mut tape, next, x, seq);
            next += BLOCK_ROLES.len();
        }
        if self.shape.kind.judges() {
            let n = tape.rms_norm(parameters, x, ParameterId(next), self.model.norm_eps);
            let z = tape.linear(parameters, n, ParameterId(next + 1));
            tape.forget(n);
            if let Goal::Loss(targets) = goal {
                tape.cross_entropy(z, targets);
            }
        }
        tape
    }
}

impl Rotary {
    /// The kernel's arguments for `x`, sequences of `seq` rows of whole heads.
    pub fn args<'a>(&'a self, x: &'a Tensor, seq: usize) -> Rope<'a> {
        Rope {
            rows: x.rows(),
            seq,
            heads: x.cols() / self.head_dim,
            head_dim: self.head_dim,
            cos: &self.tables.cos,
            sin: &self.tables.sin,
            x: x.data(),
        }
    }
}
