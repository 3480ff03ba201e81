//! Embedding: rows of a table by token.
//!
//! ```text
//! forward   y[n] = table[tokens[n]]
//! backward  (token, position) pairs in a stable sort; per token, its positions ascending in chunks of 256:
//!           s = 0, then s = s + dy[position]; chunk sums ascending: dtable[token] += s
//! ```

pub mod cases;
pub mod cpu;
pub mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod trials;

use crate::{catalogue::Cost, common::shape::expect_len};

/// Positions of one chunk of the table's gradient.
pub const GRADIENT_POSITIONS: usize = 256;

/// Inputs of the forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// Rows of the table.
    pub vocab: usize,
    /// Elements of a row.
    pub dim: usize,
    /// Tokens, each below `vocab`.
    pub tokens: &'a [u32],
    /// Table, vocab x dim.
    pub table: &'a [f32],
}

/// Inputs of the backward pass.
#[derive(Clone, Copy, Debug)]
pub struct Backward<'a> {
    /// Rows of the table.
    pub vocab: usize,
    /// Elements of a row.
    pub dim: usize,
    /// Tokens, each below `vocab`.
    pub tokens: &'a [u32],
    /// Gradient of the output, tokens x dim.
    pub dy: &'a [f32],
}

/// Writes the rows of the tokens to `y` (tokens x dim).
pub fn forward(args: &Forward<'_>, y: &mut [f32]) {
    cpu::forward(args, y);
}

/// *Adds* the table's gradient to `dtable` (vocab x dim).
pub fn backward(args: &Backward<'_>, dtable: &mut [f32]) {
    cpu::backward(args, dtable);
}

/// Cost of either direction: a row moved (or added) per token.
pub fn cost(tokens: usize, dim: usize) -> Cost {
    let n = (tokens * dim) as u64;
    Cost { bytes: 8 * n + 4 * tokens as u64, flops: n }
}

impl Forward<'_> {
    #[track_caller]
    fn check(&self, y: &[f32]) {
        let op = "embedding::forward";
        check_tokens(op, self.tokens, self.vocab);
        expect_len(op, "table", self.table.len(), self.vocab * self.dim);
        expect_len(op, "y", y.len(), self.tokens.len() * self.dim);
    }
}

impl Backward<'_> {
    #[track_caller]
    fn check(&self, dtable: &[f32]) {
        let op = "embedding::backward";
        check_tokens(op, self.tokens, self.vocab);
        expect_len(op, "dy", self.dy.len(), self.tokens.len() * self.dim);
        expect_len(op, "dtable", dtable.len(), self.vocab * self.dim);
    }
}

#[track_caller]
fn check_tokens(op: &str, tokens: &[u32], vocab: usize) {
    for (position, &token) in tokens.iter().enumerate() {
        assert!(
            (token as usize) < vocab,
            "{op}: token {token} at position {position} is outside a vocabulary of {vocab}"
        );
    }
}
