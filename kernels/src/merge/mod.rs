//! Merging replicas of a stage: integer contributions, exact sums, the outer step.
//!
//! Weights are cut into blocks of 128 elements (the last may be partial). A replica's change is
//! `v = (old - local) + residual`, in f32. Each block of each replica has an exponent as in [`crate::codec`]; replicas
//! share, per block, one exponent `e` (the largest committed, or less: what saturates stays in the residual).
//!
//! ```text
//! codes         q = rni(v * 2^(B-1-e)) clamped to +-(2^(B-1) - 1)       residual = v - f32(q) * 2^(e-B+1)
//! sum           S += w * q in i64, w = microbatches the replica folded (an integer)
//! outer step    W = sum of w.  W = 0: nothing changes.  d = div_rn(f32(S) * 2^(e-B+1), f32(W))
//!               nesterov: buf = fma(mu, buf, d);  p = fma(-lr, fma(mu, buf, d), p)          none: p = p - d
//! ```
//!
//! Sums of integers are exact, so the order of replicas is free.

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

/// Elements of a block that share an exponent.
pub const BLOCK: usize = crate::codec::BLOCK;

/// What a replica brings.
#[derive(Clone, Copy, Debug)]
pub struct Contribution<'a> {
    /// Weights at the last merge.
    pub old: &'a [f32],
    /// Weights now.
    pub local: &'a [f32],
}

/// The outer rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// The weighted mean of the replicas, no momentum.
    None,
    /// Nesterov momentum.
    Nesterov {
        /// Outer learning rate.
        lr: f32,
        /// Momentum.
        momentum: f32,
    },
}

/// Inputs of the outer step.
#[derive(Clone, Copy, Debug)]
pub struct Outer<'a> {
    /// Sums of weighted codes, one per weight.
    pub sums: &'a [i64],
    /// Shared exponents, one per block.
    pub exponents: &'a [i8],
    /// Bits of a code, 2..=16.
    pub bits: u32,
    /// Sum of the replicas' weights.
    pub total_weight: u64,
    /// The rule.
    pub rule: Rule,
}

/// A change that is NaN or infinite: the replica has nothing to contribute.
pub use crate::codec::NonFinite;

/// Writes the exponent of each block of `(old - local) + residual`.
///
/// # Errors
/// [`NonFinite`] names the first element that is NaN or infinite.
pub fn exponents(change: &Contribution<'_>, residual: &[f32], exponents: &mut [i8]) -> Result<(), NonFinite> {
    cpu::exponents(SimdPath::best(), change, residual, exponents)
}

/// `shared = max(shared, other)`, block by block.
pub fn share_exponents(shared: &mut [i8], other: &[i8]) {
    expect_len("merge::share_exponents", "other", other.len(), shared.len());
    for (s, o) in shared.iter_mut().zip(other) {
        *s = (*s).max(*o);
    }
}

/// Writes the codes of `(old - local) + residual` on the shared exponents, and to `residual` what they leave behind.
///
/// # Errors
/// [`NonFinite`] names the first element that is NaN or infinite; `residual` is then as before.
pub fn contribute(
    change: &Contribution<'_>,
    exponents: &[i8],
    bits: u32,
    residual: &mut [f32],
    codes: &mut [i16],
) -> Result<(), NonFinite> {
    cpu::contribute(SimdPath::best(), change, exponents, bits, residual, codes)
}

/// `sums += weight * codes`, exact. 2^31 microbatches of 16-bit codes stay within i64.
pub fn accumulate(sums: &mut [i64], codes: &[i16], weight: u32) {
    cpu::accumulate(sums, codes, weight);
}

/// Moves the weights `p` (in: the weights of the last merge; out: the merged ones) and the momentum `buf`.
///
/// With [`Rule::None`] `buf` is left alone and may be empty.
pub fn outer_step(args: &Outer<'_>, p: &mut [f32], buf: &mut [f32]) {
    cpu::outer_step(SimdPath::best(), args, p, buf);
}

/// Cost of [`contribute`] over `count` weights.
pub fn contribute_cost(count: usize) -> Cost {
    Cost { bytes: 18 * count as u64, flops: 6 * count as u64 }
}

/// Cost of [`outer_step`] over `count` weights.
pub fn outer_step_cost(count: usize) -> Cost {
    Cost { bytes: 24 * count as u64, flops: 8 * count as u64 }
}

impl Contribution<'_> {
    #[track_caller]
    fn check(&self, residual: &[f32], exponents: &[i8]) {
        expect_len("merge", "local", self.local.len(), self.old.len());
        expect_len("merge", "residual", residual.len(), self.old.len());
        expect_len("merge", "exponents", exponents.len(), self.old.len().div_ceil(BLOCK));
    }
}

impl Outer<'_> {
    #[track_caller]
    fn check(&self, p: &[f32], buf: &[f32]) {
        check_bits(self.bits);
        expect_len("merge::outer_step", "sums", self.sums.len(), p.len());
        expect_len("merge::outer_step", "exponents", self.exponents.len(), p.len().div_ceil(BLOCK));
        if let Rule::Nesterov { .. } = self.rule {
            expect_len("merge::outer_step", "buf", buf.len(), p.len());
        }
    }
}

#[track_caller]
fn check_bits(bits: u32) {
    assert!((2..=16).contains(&bits), "merge: codes of {bits} bits, expected 2..=16");
}
