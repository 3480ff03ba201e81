//! Gradient norm and clip, the mean over members, and the look at magnitudes that finds what is no number.
//!
//! ```text
//! scale:        g_i = g_i * factor
//! first beyond: the least i with |x_i| >= bound or x_i NaN; bound = infinity finds what is not finite
//!
//! per tensor: blocks of 4096 elements, each R128 of fma(g, g); block sums folded ascending in f64 from 0
//! norm  = sqrt_f64(the tensors' sums added ascending, in canonical order, in f64 from 0)
//! scale = f32(min(1, clip / (norm + 1e-6))) in f64;  stage clip = clip * sqrt_f64(stage parameters / all parameters)
//! ```

pub mod cases;
pub mod cpu;
pub mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod trials;

use crate::{catalogue::Cost, common::simd::SimdPath};

/// Elements of one block of the sum of squares.
pub const BLOCK: usize = 4096;

/// The sum of squares of one tensor.
pub fn sum_squares(g: &[f32]) -> f64 {
    cpu::sum_squares(SimdPath::best(), g)
}

/// Multiplies every element by `factor`.
pub fn scale(g: &mut [f32], factor: f32) {
    cpu::scale(g, factor);
}

/// The first element whose magnitude is not below `bound`, which is not negative; a NaN's never is.
pub fn first_beyond(x: &[f32], bound: f32) -> Option<usize> {
    cpu::first_beyond(x, bound)
}

/// Cost of [`sum_squares`] over `count` elements.
pub fn cost(count: usize) -> Cost {
    Cost { bytes: 4 * count as u64, flops: 2 * count as u64 }
}

/// Cost of [`scale`] over `count` elements.
pub fn scale_cost(count: usize) -> Cost {
    Cost { bytes: 8 * count as u64, flops: count as u64 }
}

/// Cost of [`first_beyond`] over `count` elements.
pub fn first_beyond_cost(count: usize) -> Cost {
    Cost { bytes: 4 * count as u64, flops: 0 }
}

/// The norm over tensors, whose sums of squares come in canonical order.
pub fn global_norm(sums: impl IntoIterator<Item = f64>) -> f64 {
    sums.into_iter().fold(0.0, |sum, square| sum + square).sqrt()
}

/// A stage's share of the clip of the whole model.
pub fn stage_clip(clip: f64, stage_parameters: u64, all_parameters: u64) -> f64 {
    clip * (stage_parameters as f64 / all_parameters as f64).sqrt()
}

/// The factor of every gradient of a stage; `None` if the norm is not finite, which strikes the step.
pub fn clip_scale(norm: f64, clip: f64) -> Option<f32> {
    if !norm.is_finite() {
        return None;
    }
    let scale = clip / (norm + 1e-6);
    Some(if scale < 1.0 { scale as f32 } else { 1.0 })
}
