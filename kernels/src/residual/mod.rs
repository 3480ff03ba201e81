//! The residual stream: `y_i = a_i + b_i`, elementwise, and the same in place.

pub mod reference;

use crate::common::shape::expect_len;

/// `y = a + b`; all slices are of one length.
pub fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
    check(a, b, y);
    reference::add(a, b, y);
}

/// `sum = sum + x`, both of one length.
pub fn accumulate(sum: &mut [f32], x: &[f32]) {
    expect_len("residual::accumulate", "x", x.len(), sum.len());
    for (s, x) in sum.iter_mut().zip(x) {
        *s += x;
    }
}

#[track_caller]
fn check(a: &[f32], b: &[f32], y: &[f32]) {
    expect_len("residual::add", "b", b.len(), a.len());
    expect_len("residual::add", "y", y.len(), a.len());
}
