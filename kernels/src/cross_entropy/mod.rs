//! Softmax cross-entropy of logits against target tokens, forward and backward in one visit.
//!
//! ```text
//! m = (exact maximum of the row) + 0      e_i = exp(z_i - m)
//! sum: vocabulary chunks of 4096, each R128 by add of e; chunk sums added ascending from 0
//! p_i = e_i * rcp_rn(sum)                 dz_i = (p_i - [i = target]) * weight
//! loss = f32((f64(m) - f64(z_target)) + ln(f64(sum)))
//! mean, in units of 2^-32 nats = (sum over rows of the integer rni(f64(loss) * 2^32)) / rows, to the nearest integer
//! ```
//!
//! `weight` is f32(1 / tokens of the microbatch). Rows are independent.

pub mod cases;
pub mod cpu;
pub mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod trials;

use crate::{
    catalogue::Cost,
    common::{shape::expect_len, simd::SimdPath},
};

/// Vocabulary entries of one partial sum.
pub const VOCAB_CHUNK: usize = 4096;

/// Inputs.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// Rows (tokens).
    pub rows: usize,
    /// Logits of a row.
    pub vocab: usize,
    /// Logits, rows x vocab.
    pub logits: &'a [f32],
    /// Target tokens, rows, each below `vocab`.
    pub targets: &'a [u32],
    /// Factor of the gradient.
    pub weight: f32,
}

/// Writes each row's loss (nats) to `loss` (rows) and the gradient of the logits to `dlogits` (rows x vocab).
pub fn forward(args: &Forward<'_>, loss: &mut [f32], dlogits: &mut [f32]) {
    cpu::forward(SimdPath::best(), args, loss, dlogits);
}

/// As [`forward`], with the gradient written over the logits: `values` is rows x `vocab`, `targets` and `loss` one per
/// row.
pub fn forward_in_place(vocab: usize, targets: &[u32], weight: f32, loss: &mut [f32], values: &mut [f32]) {
    cpu::forward_in_place(SimdPath::best(), (vocab, targets, weight), loss, values);
}

/// The mean of losses in nats, in units of 2^-32, rounded to the nearest (halves up); `None` if one is not finite or there
/// is none. Each loss is brought to fixed point first, so order and grouping are free.
pub fn mean_q32(loss: &[f32]) -> Option<i64> {
    reference::mean_q32(loss)
}

/// Cost: logits in, their gradient out; two exponentials' worth of 20 flops an element.
pub fn cost(rows: usize, vocab: usize) -> Cost {
    let n = (rows * vocab) as u64;
    Cost { bytes: 8 * n + 8 * rows as u64, flops: 26 * n }
}

impl Forward<'_> {
    #[track_caller]
    fn check(&self, loss: &[f32], dlogits: &[f32]) {
        expect_len("cross_entropy::forward", "dlogits", dlogits.len(), self.rows * self.vocab);
        self.check_rows(loss);
    }

    #[track_caller]
    fn check_rows(&self, loss: &[f32]) {
        let op = "cross_entropy::forward";
        expect_len(op, "logits", self.logits.len(), self.rows * self.vocab);
        expect_len(op, "targets", self.targets.len(), self.rows);
        expect_len(op, "loss", loss.len(), self.rows);
        for (row, &target) in self.targets.iter().enumerate() {
            assert!(
                (target as usize) < self.vocab,
                "{op}: target {target} of row {row} is outside a vocabulary of {}",
                self.vocab
            );
        }
    }
}
