//! The CPU path: blocks in parallel, their sums folded in order.

use super::BLOCK;
use crate::common::{
    parallel,
    r128::r128_simd,
    scratch,
    simd::{Simd, SimdPath, dispatch},
};
use rayon::prelude::*;

/// Blocks of one task.
const TASK_BLOCKS: usize = 16;

/// As [`super::sum_squares`], on the path asked for.
pub fn sum_squares(path: SimdPath, g: &[f32]) -> f64 {
    let mut sums = scratch::take(g.len().div_ceil(BLOCK));
    let tasks = g.par_chunks(TASK_BLOCKS * BLOCK).zip(sums.par_chunks_mut(TASK_BLOCKS));
    parallel::run(g.len(), tasks, |(g, sums)| {
        for (block, sum) in g.chunks(BLOCK).zip(sums) {
            *sum = dispatch!(path, |s| block_sum(s, block));
        }
    });
    sums.iter().fold(0.0, |total, sum| total + f64::from(*sum))
}

#[inline(always)]
fn block_sum<S: Simd>(s: S, g: &[f32]) -> f32 {
    r128_simd(
        s,
        g.len(),
        #[inline(always)]
        |i, acc| {
            let v = s.load(&g[i..]);
            s.fma(v, v, acc)
        },
        #[inline(always)]
        |i, acc| s.fma1(g[i], g[i], acc),
    )
}
