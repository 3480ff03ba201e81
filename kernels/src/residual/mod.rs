//! The residual stream: `y_i = a_i + b_i`, elementwise, and the same in place.

pub mod cases;
pub mod cpu;
pub mod cuda;
pub mod reference;
pub(crate) mod trials;

use crate::{catalogue::Cost, common::shape::expect_len};

/// `y = a + b`; all slices are of one length.
pub fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
    cpu::add(a, b, y);
}

/// `sum = sum + x`, both of one length.
pub fn accumulate(sum: &mut [f32], x: &[f32]) {
    cpu::accumulate(sum, x);
}

/// Cost over `count` elements.
pub fn cost(count: usize) -> Cost {
    Cost { bytes: 12 * count as u64, flops: count as u64 }
}

#[track_caller]
fn check(a: &[f32], b: &[f32], y: &[f32]) {
    expect_len("residual::add", "b", b.len(), a.len());
    expect_len("residual::add", "y", y.len(), a.len());
}
