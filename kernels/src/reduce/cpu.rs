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
/// Elements of one task of what is elementwise.
const TASK: usize = 1 << 16;

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

/// As [`super::scale`].
pub fn scale(g: &mut [f32], factor: f32) {
    parallel::run(g.len(), g.par_chunks_mut(TASK), |piece| piece.iter_mut().for_each(|g| *g *= factor));
}

/// As [`super::first_beyond`].
pub fn first_beyond(x: &[f32], bound: f32) -> Option<usize> {
    // Magnitudes compare like their bits, and those of a NaN are the largest.
    let bound = bound.to_bits();
    let beyond = |x: &f32| x.to_bits() & 0x7FFF_FFFF >= bound;
    // No early exit in a piece: it becomes vector code.
    let piece =
        x.par_chunks(TASK).position_first(|piece| piece.iter().fold(false, |bad, x| bad | beyond(x)))?;
    x[piece * TASK..].iter().position(beyond).map(|place| piece * TASK + place)
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
