//! What is kept of a microbatch between its forward and its backward, and what is computed again. The bits are the same.

use crate::autograd::Tape;
use crate::data::Microbatch;
use crate::tensor::Tensor;
use std::fmt;

/// What a state keeps of the microbatches that went forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// The activations of so many microbatches. Of the others only the stage's input is kept, and everything is computed
    /// again at once: one forward pass more, and room for the activations of one microbatch.
    Activations(usize),
    /// Of every microbatch the input of each block, from which one block after another is computed again: one forward pass
    /// more, and room for the activations of one block.
    BlockInputs,
    /// Of every microbatch the stage's input, from which first the inputs of its blocks are computed again: two forward
    /// passes more, and the least memory.
    StageInput,
}

/// Microbatches whose activations are kept, unless told otherwise.
const ACTIVATIONS_DEFAULT: usize = 4;

impl Keeping {
    /// All that a state may be told to keep unless it is told, what costs the least time first.
    pub fn ladder() -> impl Iterator<Item = Self> {
        let tapes = (0..=ACTIVATIONS_DEFAULT).rev().map(Self::Activations);
        tapes.chain([Self::BlockInputs, Self::StageInput])
    }
}

impl Default for Keeping {
    fn default() -> Self {
        Self::Activations(ACTIVATIONS_DEFAULT)
    }
}

impl fmt::Display for Keeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Activations(0) => f.write_str("computes the activations of every microbatch again"),
            Self::Activations(count) => write!(f, "keeps the activations of {count} microbatches"),
            Self::BlockInputs => f.write_str("computes activations again block by block"),
            Self::StageInput => f.write_str("computes activations again twice, block by block"),
        }
    }
}

/// What backward needs of a member that went forward.
#[derive(Debug)]
pub(crate) enum Saved {
    /// Everything.
    Tape(Tape),
    /// The stage's input.
    Input { batch: Option<Microbatch>, activation: Option<Tensor> },
    /// The inputs of the stage's blocks, or the first of them; see [`crate::model::Stage::forward_in_parts`].
    Parts { batch: Option<Microbatch>, inputs: Vec<Tensor> },
}

impl Saved {
    /// Lengths of the tensors that it holds besides a tape.
    pub(crate) fn tensors(&self) -> Vec<usize> {
        match self {
            Self::Tape(_) => Vec::new(),
            Self::Input { activation, .. } => activation.iter().map(Tensor::len).collect(),
            Self::Parts { inputs, .. } => inputs.iter().map(Tensor::len).collect(),
        }
    }
}
