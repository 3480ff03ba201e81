//! SwiGLU, elementwise.
//!
//! ```text
//! sg = div_rn(1, 1 + exp(-g))      h = (g*sg)*u
//! du = dh*(g*sg)                   dg = (dh*u)*fma(g*sg, 1-sg, sg)
//! ```

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

/// Inputs of the forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// Gate.
    pub g: &'a [f32],
    /// Up projection.
    pub u: &'a [f32],
}

/// Inputs of the backward pass.
#[derive(Clone, Copy, Debug)]
pub struct Backward<'a> {
    /// Gate.
    pub g: &'a [f32],
    /// Up projection.
    pub u: &'a [f32],
    /// Gradient of the output.
    pub dh: &'a [f32],
}

/// Writes `h`; all slices are of one length.
pub fn forward(args: &Forward<'_>, h: &mut [f32]) {
    cpu::forward(SimdPath::best(), args, h);
}

/// Writes the gradients of gate and up projection; all slices are of one length.
pub fn backward(args: &Backward<'_>, dg: &mut [f32], du: &mut [f32]) {
    cpu::backward(SimdPath::best(), args, dg, du);
}

/// Cost of the forward pass over `count` elements; an exponential counts as 20 flops.
pub fn forward_cost(count: usize) -> Cost {
    Cost { bytes: 12 * count as u64, flops: 24 * count as u64 }
}

/// Cost of the backward pass over `count` elements.
pub fn backward_cost(count: usize) -> Cost {
    Cost { bytes: 20 * count as u64, flops: 29 * count as u64 }
}

impl Forward<'_> {
    #[track_caller]
    fn check(&self, h: &[f32]) {
        expect_len("swiglu::forward", "u", self.u.len(), self.g.len());
        expect_len("swiglu::forward", "h", h.len(), self.g.len());
    }
}

impl Backward<'_> {
    #[track_caller]
    fn check(&self, dg: &[f32], du: &[f32]) {
        for (what, len) in [("u", self.u.len()), ("dh", self.dh.len()), ("dg", dg.len()), ("du", du.len())] {
            expect_len("swiglu::backward", what, len, self.g.len());
        }
    }
}
