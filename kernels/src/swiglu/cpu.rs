//! The CPU path: elementwise.

use super::{Backward, Forward};
use crate::common::{
    parallel,
    simd::{self, Simd, SimdPath, dispatch},
};
use rayon::prelude::*;

/// Elements of one task.
const TASK: usize = 1 << 13;
/// An element costs about this many elementary operations.
const WORK: usize = 16;

/// As [`super::forward`], on the path asked for.
pub fn forward(path: SimdPath, args: &Forward<'_>, h: &mut [f32]) {
    args.check(h);
    let tasks = args.g.par_chunks(TASK).zip(args.u.par_chunks(TASK)).zip(h.par_chunks_mut(TASK));
    parallel::run(WORK * args.g.len(), tasks, |((g, u), h)| {
        dispatch!(path, |s| forward_slice(s, g, u, h));
    });
}

#[inline(always)]
fn forward_slice<S: Simd>(s: S, g: &[f32], u: &[f32], h: &mut [f32]) {
    let whole = g.len() / S::LANES * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        s.store(forward_vector(s, s.load(&g[i..]), s.load(&u[i..])), &mut h[i..]);
    }
    let tail = forward_vector(s, s.load_partial(&g[whole..]), s.load_partial(&u[whole..]));
    s.store_partial(tail, &mut h[whole..]);
}

#[inline(always)]
fn forward_vector<S: Simd>(s: S, g: S::F, u: S::F) -> S::F {
    s.mul(s.mul(g, sigmoid(s, g)), u)
}

/// As [`super::backward`], on the path asked for.
pub fn backward(path: SimdPath, args: &Backward<'_>, dg: &mut [f32], du: &mut [f32]) {
    args.check(dg, du);
    let tasks = args
        .g
        .par_chunks(TASK)
        .zip(args.u.par_chunks(TASK))
        .zip(args.dh.par_chunks(TASK))
        .zip(dg.par_chunks_mut(TASK).zip(du.par_chunks_mut(TASK)));
    parallel::run(WORK * args.g.len(), tasks, |(((g, u), dh), (dg, du))| {
        dispatch!(path, |s| backward_slice(s, g, u, dh, dg, du));
    });
}

#[inline(always)]
fn backward_slice<S: Simd>(s: S, g: &[f32], u: &[f32], dh: &[f32], dg: &mut [f32], du: &mut [f32]) {
    let whole = g.len() / S::LANES * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        let (a, b) = backward_vector(s, s.load(&g[i..]), s.load(&u[i..]), s.load(&dh[i..]));
        s.store(a, &mut dg[i..]);
        s.store(b, &mut du[i..]);
    }
    let (g, u) = (s.load_partial(&g[whole..]), s.load_partial(&u[whole..]));
    let (a, b) = backward_vector(s, g, u, s.load_partial(&dh[whole..]));
    s.store_partial(a, &mut dg[whole..]);
    s.store_partial(b, &mut du[whole..]);
}

#[inline(always)]
fn backward_vector<S: Simd>(s: S, g: S::F, u: S::F, dh: S::F) -> (S::F, S::F) {
    let sg = sigmoid(s, g);
    let silu = s.mul(g, sg);
    let dg = s.mul(s.mul(dh, u), s.fma(silu, s.sub(s.splat(1.0), sg), sg));
    (dg, s.mul(dh, silu))
}

#[inline(always)]
fn sigmoid<S: Simd>(s: S, g: S::F) -> S::F {
    let one = s.splat(1.0);
    s.div(one, s.add(one, simd::exp(s, s.neg(g))))
}
