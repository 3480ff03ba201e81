//! The CPU path: vectors along the row, rows in parallel, one visit of memory per pass.

use super::{Backward, Forward, GRADIENT_ROWS, inverse_dim};
use crate::common::{
    parallel,
    r128::r128_simd,
    scalar::rsqrt,
    scratch,
    simd::{Simd, SimdPath, dispatch},
};
use rayon::prelude::*;

/// Rows of one task of the forward pass.
const TASK_ROWS: usize = 16;

/// As [`super::forward`], on the path asked for.
pub fn forward(path: SimdPath, args: &Forward<'_>, y: &mut [f32], r: &mut [f32]) {
    args.check(y, r);
    let dim = args.dim;
    let tasks = args
        .x
        .par_chunks(TASK_ROWS * dim)
        .zip(y.par_chunks_mut(TASK_ROWS * dim))
        .zip(r.par_chunks_mut(TASK_ROWS));
    parallel::run(args.x.len(), tasks, |((x, y), r)| {
        dispatch!(path, |s| forward_rows(s, args, x, y, r));
    });
}

#[inline(always)]
fn forward_rows<S: Simd>(s: S, args: &Forward<'_>, x: &[f32], y: &mut [f32], r: &mut [f32]) {
    let (dim, w) = (args.dim, args.w);
    let inv_d = inverse_dim(dim);
    for (row, r) in r.iter_mut().enumerate() {
        let x = &x[row * dim..][..dim];
        let y = &mut y[row * dim..][..dim];
        let ss = r128_simd(
            s,
            dim,
            #[inline(always)]
            |i, acc| {
                let v = s.load(&x[i..]);
                s.fma(v, v, acc)
            },
            #[inline(always)]
            |i, acc| s.fma1(x[i], x[i], acc),
        );
        *r = rsqrt(ss * inv_d + args.eps);
        let factor = s.splat(*r);
        let whole = dim / S::LANES * S::LANES;
        for i in (0..whole).step_by(S::LANES) {
            let v = s.mul(s.mul(s.load(&x[i..]), factor), s.load(&w[i..]));
            s.store(v, &mut y[i..]);
        }
        for i in whole..dim {
            y[i] = (x[i] * *r) * w[i];
        }
    }
}

/// As [`super::backward`], on the path asked for.
pub fn backward(path: SimdPath, args: &Backward<'_>, dx: &mut [f32], dw: &mut [f32]) {
    backward_to::<false>(path, args, dx, dw);
}

/// As [`super::backward_add`], on the path asked for.
pub fn backward_add(path: SimdPath, args: &Backward<'_>, dx: &mut [f32], dw: &mut [f32]) {
    backward_to::<true>(path, args, dx, dw);
}

fn backward_to<const ADD: bool>(path: SimdPath, args: &Backward<'_>, dx: &mut [f32], dw: &mut [f32]) {
    args.check(dx, dw);
    let dim = args.dim;
    if args.rows == 0 {
        return;
    }
    // Each task owns one block of rows of dx and the block's sum of dw.
    let mut block_sums = scratch::take(args.rows.div_ceil(GRADIENT_ROWS) * dim);
    block_sums.fill(0.0);
    let tasks = dx.par_chunks_mut(GRADIENT_ROWS * dim).zip(block_sums.par_chunks_mut(dim)).enumerate();
    parallel::run(2 * args.x.len(), tasks, |(block, (dx, sums))| {
        dispatch!(path, |s| backward_block::<_, ADD>(s, args, block * GRADIENT_ROWS, dx, sums));
    });
    for sums in block_sums.chunks(dim) {
        for (dw, sum) in dw.iter_mut().zip(sums) {
            *dw += sum;
        }
    }
}

#[inline(always)]
fn backward_block<S: Simd, const ADD: bool>(
    s: S,
    args: &Backward<'_>,
    first: usize,
    dx: &mut [f32],
    sums: &mut [f32],
) {
    let (dim, w) = (args.dim, args.w);
    let inv_d = inverse_dim(dim);
    let whole = dim / S::LANES * S::LANES;
    for (i, dx) in dx.chunks_mut(dim).enumerate() {
        let row = first + i;
        let x = &args.x[row * dim..][..dim];
        let dy = &args.dy[row * dim..][..dim];
        let r = args.r[row];
        let c = r128_simd(
            s,
            dim,
            #[inline(always)]
            |i, acc| s.fma(s.mul(s.load(&dy[i..]), s.load(&w[i..])), s.load(&x[i..]), acc),
            #[inline(always)]
            |i, acc| s.fma1(dy[i] * w[i], x[i], acc),
        );
        let k = ((c * r) * r) * r * inv_d;
        let (minus_k, factor) = (s.splat(-k), s.splat(r));
        for i in (0..whole).step_by(S::LANES) {
            let (x, dy) = (s.load(&x[i..]), s.load(&dy[i..]));
            let g = s.mul(dy, s.load(&w[i..]));
            let gradient = s.fma(minus_k, x, s.mul(factor, g));
            let gradient = if ADD { s.add(s.load(&dx[i..]), gradient) } else { gradient };
            s.store(gradient, &mut dx[i..]);
            // The row is in cache: its share of dw comes along.
            let sum = s.fma(dy, s.mul(x, factor), s.load(&sums[i..]));
            s.store(sum, &mut sums[i..]);
        }
        for i in whole..dim {
            let gradient = s.fma1(-k, x[i], r * (dy[i] * w[i]));
            dx[i] = if ADD { dx[i] + gradient } else { gradient };
            sums[i] = s.fma1(dy[i], x[i] * r, sums[i]);
        }
    }
}
