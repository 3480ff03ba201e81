//! The CPU path: elementwise, bound by memory.

use super::Step;
use crate::common::{
    parallel,
    simd::{Simd, SimdPath, dispatch},
};
use rayon::prelude::*;

/// Elements of one task: its four streams fit a level-2 cache.
const TASK: usize = 1 << 14;

/// As [`super::step`], on the path asked for.
pub fn step(path: SimdPath, args: &Step<'_>, p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    args.check(p, m, v);
    let tasks = args
        .g
        .par_chunks(TASK)
        .zip(p.par_chunks_mut(TASK))
        .zip(m.par_chunks_mut(TASK))
        .zip(v.par_chunks_mut(TASK));
    parallel::run(args.g.len(), tasks, |(((g, p), m), v)| {
        dispatch!(path, |s| step_slice(s, args, g, p, m, v));
    });
}

#[inline(always)]
fn step_slice<S: Simd>(s: S, args: &Step<'_>, g: &[f32], p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    // One length for all lets the bounds checks of the loop fall away.
    let n = g.len();
    let (p, m, v) = (&mut p[..n], &mut m[..n], &mut v[..n]);
    let whole = n / S::LANES * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        let moved = step_vector(s, args, s.load(&g[i..]), s.load(&p[i..]), s.load(&m[i..]), s.load(&v[i..]));
        s.store(moved[0], &mut p[i..]);
        s.store(moved[1], &mut m[i..]);
        s.store(moved[2], &mut v[i..]);
    }
    let (g, p, m, v) = (&g[whole..], &mut p[whole..], &mut m[whole..], &mut v[whole..]);
    let moved =
        step_vector(s, args, s.load_partial(g), s.load_partial(p), s.load_partial(m), s.load_partial(v));
    s.store_partial(moved[0], p);
    s.store_partial(moved[1], m);
    s.store_partial(moved[2], v);
}

#[inline(always)]
fn step_vector<S: Simd>(s: S, args: &Step<'_>, g: S::F, p: S::F, m: S::F, v: S::F) -> [S::F; 3] {
    let k = &args.constants;
    let g = s.mul(g, s.splat(k.grad_scale));
    let m = s.fma(s.splat(k.one_minus_beta1), g, s.mul(s.splat(k.beta1), m));
    let v = s.fma(s.mul(s.splat(k.one_minus_beta2), g), g, s.mul(s.splat(k.beta2), v));
    let root = s.sqrt(s.mul(v, s.splat(k.c2)));
    let u = s.div(s.mul(m, s.splat(k.c1)), s.add(root, s.splat(k.eps)));
    let p = s.fma(s.splat(k.minus_lr), u, s.mul(p, s.splat(k.decay)));
    [p, m, v]
}
