//! The formula, block by block.

use super::BLOCK;
use crate::common::{r128::r128, scalar::fma};

/// As [`super::sum_squares`].
pub fn sum_squares(g: &[f32]) -> f64 {
    let mut sum = 0.0f64;
    for block in g.chunks(BLOCK) {
        sum += f64::from(r128(block.len(), |i, acc| fma(block[i], block[i], acc)));
    }
    sum
}

/// As [`super::scale`].
pub fn scale(g: &mut [f32], factor: f32) {
    for g in g {
        *g *= factor;
    }
}

/// As [`super::first_beyond`].
pub fn first_beyond(x: &[f32], bound: f32) -> Option<usize> {
    for (i, x) in x.iter().enumerate() {
        if x.is_nan() || x.abs() >= bound {
            return Some(i);
        }
    }
    None
}
