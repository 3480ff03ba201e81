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
