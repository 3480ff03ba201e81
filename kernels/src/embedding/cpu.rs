//! The CPU path: rows of the table in parallel.

use super::{Backward, Forward, GRADIENT_POSITIONS};
use crate::common::parallel;

/// As [`super::forward`].
pub fn forward(args: &Forward<'_>, y: &mut [f32]) {
    args.check(y);
    let dim = args.dim.max(1);
    parallel::run(y.len(), args.tokens.iter().zip(y.chunks_mut(dim)), |(&token, y)| {
        y.copy_from_slice(&args.table[token as usize * dim..][..dim]);
    });
}

/// As [`super::backward`].
pub fn backward(args: &Backward<'_>, dtable: &mut [f32]) {
    args.check(dtable);
    let dim = args.dim.max(1);
    // Counting sort, stable: positions of token t stand at starts[t]..starts[t + 1], ascending.
    let mut starts = vec![0usize; args.vocab + 1];
    for &token in args.tokens {
        starts[token as usize + 1] += 1;
    }
    for token in 0..args.vocab {
        starts[token + 1] += starts[token];
    }
    let mut next = starts.clone();
    let mut positions = vec![0usize; args.tokens.len()];
    for (position, &token) in args.tokens.iter().enumerate() {
        positions[next[token as usize]] = position;
        next[token as usize] += 1;
    }

    let tasks = dtable
        .chunks_mut(dim)
        .zip(starts.windows(2))
        .map(|(row, range)| (row, &positions[range[0]..range[1]]))
        .filter(|(_, positions)| !positions.is_empty());
    parallel::run(args.dy.len(), tasks, |(row, positions)| {
        let mut sum = vec![0.0f32; dim];
        for chunk in positions.chunks(GRADIENT_POSITIONS) {
            sum.fill(0.0);
            for &position in chunk {
                for (sum, dy) in sum.iter_mut().zip(&args.dy[position * dim..][..dim]) {
                    *sum += dy;
                }
            }
            for (row, sum) in row.iter_mut().zip(&sum) {
                *row += sum;
            }
        }
    });
}
