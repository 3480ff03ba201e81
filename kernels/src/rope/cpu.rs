//! The CPU path: rows in parallel, vectors along the pairs of a head.

use super::Rope;
use crate::common::{
    parallel,
    simd::{Simd, SimdPath, dispatch},
};
use rayon::prelude::*;

/// As [`super::forward`], on the path asked for.
pub fn forward(path: SimdPath, args: &Rope<'_>, y: &mut [f32]) {
    args.check(y);
    rotate(path, args, y, false);
}

/// As [`super::backward`], on the path asked for.
pub fn backward(path: SimdPath, args: &Rope<'_>, dx: &mut [f32]) {
    args.check(dx);
    rotate(path, args, dx, true);
}

fn rotate(path: SimdPath, args: &Rope<'_>, y: &mut [f32], back: bool) {
    // A task is one sequence's worth of rows, or fewer: long enough to pay for itself, and its positions are ascending.
    let row_len = (args.heads * args.head_dim).max(1);
    let rows = args.seq.min(64);
    let tasks = args.x.par_chunks(rows * row_len).zip(y.par_chunks_mut(rows * row_len)).enumerate();
    parallel::run(2 * args.x.len(), tasks, |(task, (x, y))| {
        dispatch!(path, |s| {
            for (i, (x, y)) in x.chunks(row_len).zip(y.chunks_mut(row_len)).enumerate() {
                rotate_row(s, args, (task * rows + i) % args.seq, back, x, y);
            }
        });
    });
}

#[inline(always)]
fn rotate_row<S: Simd>(s: S, args: &Rope<'_>, position: usize, back: bool, x: &[f32], y: &mut [f32]) {
    let half = args.head_dim / 2;
    let cos = &args.cos[position * half..][..half];
    let sin = &args.sin[position * half..][..half];
    let whole = half / S::LANES * S::LANES;
    for (x, y) in x.chunks_exact(2 * half).zip(y.chunks_exact_mut(2 * half)) {
        let (x0, x1) = x.split_at(half);
        let (y0, y1) = y.split_at_mut(half);
        for i in (0..whole).step_by(S::LANES) {
            let (c, sine) = (s.load(&cos[i..]), s.load(&sin[i..]));
            let sine = if back { s.neg(sine) } else { sine };
            let (a, b) = (s.load(&x0[i..]), s.load(&x1[i..]));
            s.store(s.fma(a, c, s.neg(s.mul(b, sine))), &mut y0[i..]);
            s.store(s.fma(a, sine, s.mul(b, c)), &mut y1[i..]);
        }
        for i in whole..half {
            let sine = if back { -sin[i] } else { sin[i] };
            y0[i] = s.fma1(x0[i], cos[i], -(x1[i] * sine));
            y1[i] = s.fma1(x0[i], sine, x1[i] * cos[i]);
        }
    }
}
