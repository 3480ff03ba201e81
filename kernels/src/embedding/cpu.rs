//! The CPU path: rows of the table in parallel.

use super::{Backward, Forward, GRADIENT_POSITIONS};
use crate::common::{parallel, scratch};
use rayon::prelude::*;

/// As [`super::forward`].
pub fn forward(args: &Forward<'_>, y: &mut [f32]) {
    args.check(y);
    let dim = args.dim.max(1);
    parallel::run(y.len(), args.tokens.par_iter().zip(y.par_chunks_mut(dim)), |(&token, y)| {
        y.copy_from_slice(&args.table[token as usize * dim..][..dim]);
    });
}

/// As [`super::backward`].
pub fn backward(args: &Backward<'_>, dtable: &mut [f32]) {
    args.check(dtable);
    let dim = args.dim.max(1);
    // Counting sort, stable: positions of token t stand at starts[t]..starts[t + 1], ascending.
    let mut sorted = scratch::take(2 * (args.vocab + 1) + args.tokens.len());
    let sorted: &mut [u32] = bytemuck::cast_slice_mut(&mut sorted);
    let (starts, sorted) = sorted.split_at_mut(args.vocab + 1);
    let (next, positions) = sorted.split_at_mut(args.vocab + 1);
    starts.fill(0);
    for &token in args.tokens {
        starts[token as usize + 1] += 1;
    }
    for token in 0..args.vocab {
        starts[token + 1] += starts[token];
    }
    next.copy_from_slice(starts);
    for (position, &token) in args.tokens.iter().enumerate() {
        positions[next[token as usize] as usize] = position as u32;
        next[token as usize] += 1;
    }

    let (starts, positions) = (&*starts, &*positions);
    let tasks = dtable.par_chunks_mut(dim).zip(starts.par_windows(2));
    parallel::run(args.dy.len(), tasks, |(row, range)| {
        let positions = &positions[range[0] as usize..range[1] as usize];
        if positions.is_empty() {
            return;
        }
        let mut sum = scratch::take(dim);
        for chunk in positions.chunks(GRADIENT_POSITIONS) {
            sum.fill(0.0);
            for &position in chunk {
                for (sum, dy) in sum.iter_mut().zip(&args.dy[position as usize * dim..][..dim]) {
                    *sum += dy;
                }
            }
            for (row, sum) in row.iter_mut().zip(sum.iter()) {
                *row += sum;
            }
        }
    });
}
