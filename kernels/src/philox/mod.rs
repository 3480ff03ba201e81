//! Random numbers that are a function of their place: Philox4x32-10 (Salmon et al., 2011).
//!
//! ```text
//! key = (seed, tensor)      counter = (step, low32(b), purpose, high32(b)), b the index of a block of four words
//! word e of a stream = word e mod 4 of block e / 4
//! uniform e = (word e >> 8) * 2^-24, in [0, 1)
//! normal  e = ((uniform 12e + uniform 12e+1) + … + uniform 12e+11) - 6, adds ascending; then * std
//! ```
//!
//! Any part of a stream can be made alone: `first` is the index of the first element wanted.

pub mod cases;
pub mod cpu;
pub mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod trials;

use crate::catalogue::Cost;

pub use reference::block;

/// Names one stream of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Seed of the run.
    pub seed: u32,
    /// Tensor id.
    pub tensor: u32,
    /// Step.
    pub step: u32,
    /// What the numbers are for.
    pub purpose: u32,
}

/// Elements `first..` of the stream's uniforms in [0, 1).
pub fn uniform(stream: &Stream, first: u64, out: &mut [f32]) {
    cpu::uniform(stream, first, out);
}

/// Elements `first..` of the stream's normals with mean 0 and deviation `std` (sum of twelve uniforms).
pub fn normal(stream: &Stream, first: u64, std: f32, out: &mut [f32]) {
    cpu::normal(stream, first, std, out);
}

/// Cost of `count` uniforms; integer operations are not counted. A normal costs twelve.
pub fn cost(count: usize) -> Cost {
    Cost { bytes: 4 * count as u64, flops: count as u64 }
}
