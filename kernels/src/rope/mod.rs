//! Rotary position embedding, pairs (i, i + head_dim/2) of each head.
//!
//! ```text
//! angle(t, i) = t * frequency(i)                c = f32(cos angle), s = f32(sin angle): model constants, made in f64
//! frequency(i) = f = theta^(-2i/head_dim); with scaling: turns = original_context * f / 2 pi
//!   turns < low: f / factor      turns > high: f      else a = (turns - low) / (high - low): (1-a) * (f/factor) + a * f
//! forward   y0 = fma(x0, c, -(x1*s))            y1 = fma(x0, s, x1*c)
//! backward  the same with s negated
//! ```
//!
//! `x` and `y` are (batch*seq) x (heads*head_dim); row `n` stands at position `n mod seq`.

pub mod cases;
pub mod cpu;
pub mod cuda;
pub mod reference;
mod table;
#[cfg(test)]
mod tests;
pub(crate) mod trials;

pub use table::{frequencies, tables};

use crate::{
    catalogue::Cost,
    common::{shape::expect_len, simd::SimdPath},
};

/// Cosines and sines, each seq x (head_dim/2).
#[derive(Clone, Debug, PartialEq)]
pub struct Tables {
    /// Cosines.
    pub cos: Vec<f32>,
    /// Sines.
    pub sin: Vec<f32>,
}

/// Llama 3's scaling of frequencies, by which a model reaches beyond the context it was first made for: slow pairs turn
/// `factor` times slower, fast ones as before, those between in between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// By what slow pairs are slowed down, at least 1.
    pub factor: f64,
    /// Slow is what turns less often than this within the original context.
    pub low_frequency: f64,
    /// Fast is what turns more often than this; above `low_frequency`.
    pub high_frequency: f64,
    /// Tokens of the original context.
    pub original_context: f64,
}

/// Inputs of either direction.
#[derive(Clone, Copy, Debug)]
pub struct Rope<'a> {
    /// Rows: batch * seq, a multiple of `seq`.
    pub rows: usize,
    /// Tokens of a sequence.
    pub seq: usize,
    /// Heads of a row.
    pub heads: usize,
    /// Elements of a head, even.
    pub head_dim: usize,
    /// Cosines, at least seq x (head_dim/2).
    pub cos: &'a [f32],
    /// Sines, at least seq x (head_dim/2).
    pub sin: &'a [f32],
    /// Forward: the input. Backward: the gradient of the output. rows x (heads*head_dim).
    pub x: &'a [f32],
}

/// Rotates `x` into `y`.
pub fn forward(args: &Rope<'_>, y: &mut [f32]) {
    cpu::forward(SimdPath::best(), args, y);
}

/// Rotates the gradient `x` back into `dx`.
pub fn backward(args: &Rope<'_>, dx: &mut [f32]) {
    cpu::backward(SimdPath::best(), args, dx);
}

/// Cost of either direction over `count` elements.
pub fn cost(count: usize) -> Cost {
    Cost { bytes: 8 * count as u64, flops: 3 * count as u64 }
}

impl Rope<'_> {
    #[track_caller]
    fn check(&self, y: &[f32]) {
        let half = self.head_dim / 2;
        assert!(self.head_dim.is_multiple_of(2), "rope: head_dim {} is odd", self.head_dim);
        assert!(
            self.seq > 0 && self.rows.is_multiple_of(self.seq),
            "rope: {} rows are no whole number of sequences of {}",
            self.rows,
            self.seq
        );
        for (what, table) in [("cos", self.cos), ("sin", self.sin)] {
            assert!(
                table.len() >= self.seq * half,
                "rope: table `{what}` holds {} elements, {} positions of {half} pairs need {}",
                table.len(),
                self.seq,
                self.seq * half
            );
        }
        expect_len("rope", "x", self.x.len(), self.rows * self.heads * self.head_dim);
        expect_len("rope", "y", y.len(), self.rows * self.heads * self.head_dim);
    }
}
