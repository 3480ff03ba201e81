//! The CPU path: elementwise, bound by memory.

use crate::common::parallel;
use rayon::prelude::*;

/// Elements of one task.
const TASK: usize = 1 << 14;

/// As [`super::add`].
pub fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
    super::check(a, b, y);
    let tasks = a.par_chunks(TASK).zip(b.par_chunks(TASK)).zip(y.par_chunks_mut(TASK));
    parallel::run(a.len(), tasks, |((a, b), y)| {
        for ((a, b), y) in a.iter().zip(b).zip(y) {
            *y = a + b;
        }
    });
}

/// As [`super::accumulate`].
pub fn accumulate(sum: &mut [f32], x: &[f32]) {
    crate::common::shape::expect_len("residual::accumulate", "x", x.len(), sum.len());
    parallel::run(x.len(), sum.par_chunks_mut(TASK).zip(x.par_chunks(TASK)), |(sum, x)| {
        for (sum, x) in sum.iter_mut().zip(x) {
            *sum += x;
        }
    });
}
