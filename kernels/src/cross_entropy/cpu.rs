//! The CPU path: a row per visit, its exponentials kept where its gradient will stand.

use super::{Forward, VOCAB_CHUNK, reference::row_loss};
use crate::common::{
    parallel,
    r128::r128_simd,
    scalar, scratch,
    simd::{self, Simd, SimdPath, dispatch},
};
use rayon::prelude::*;

/// An element costs about this many elementary operations.
const WORK: usize = 16;

/// As [`super::forward`], on the path asked for.
pub fn forward(path: SimdPath, args: &Forward<'_>, loss: &mut [f32], dlogits: &mut [f32]) {
    args.check(loss, dlogits);
    let rows = args.logits.par_chunks(args.vocab.max(1)).zip(args.targets);
    let tasks = rows.zip(loss.par_iter_mut().zip(dlogits.par_chunks_mut(args.vocab.max(1))));
    parallel::run(WORK * args.logits.len(), tasks, |((z, &target), (loss, dz))| {
        *loss = dispatch!(path, |s| forward_row(s, z, target as usize, args.weight, dz));
    });
}

/// As [`super::forward_in_place`], on the path asked for.
pub fn forward_in_place(
    path: SimdPath,
    (vocab, targets, weight): (usize, &[u32], f32),
    loss: &mut [f32],
    values: &mut [f32],
) {
    let args = Forward { rows: targets.len(), vocab, logits: values, targets, weight };
    args.check_rows(loss);
    let tasks = targets.par_iter().zip(loss.par_iter_mut().zip(values.par_chunks_mut(vocab.max(1))));
    parallel::run(WORK * vocab * targets.len(), tasks, |(&target, (loss, dz))| {
        // A row at a time is put aside: it stays in the first-level cache.
        let mut z = scratch::take(vocab);
        z.copy_from_slice(dz);
        *loss = dispatch!(path, |s| forward_row(s, &z, target as usize, weight, dz));
    });
}

#[inline(always)]
fn forward_row<S: Simd>(s: S, z: &[f32], target: usize, weight: f32, dz: &mut [f32]) -> f32 {
    let n = z.len();
    let dz = &mut dz[..n];
    let whole = n / S::LANES * S::LANES;

    let mut largest = s.splat(f32::NEG_INFINITY);
    for i in (0..whole).step_by(S::LANES) {
        largest = s.max(s.load(&z[i..]), largest);
    }
    let mut lanes = [f32::NEG_INFINITY; simd::MAX_LANES];
    s.store(largest, &mut lanes);
    let m = lanes.iter().chain(&z[whole..]).fold(f32::NEG_INFINITY, |m, x| scalar::max(*x, m)) + 0.0;

    let shift = s.splat(m);
    let mut sum = 0.0;
    for first in (0..n).step_by(VOCAB_CHUNK) {
        let end = n.min(first + VOCAB_CHUNK);
        let vectors = first + (end - first) / S::LANES * S::LANES;
        for i in (first..vectors).step_by(S::LANES) {
            s.store(simd::exp(s, s.sub(s.load(&z[i..]), shift)), &mut dz[i..]);
        }
        let tail = simd::exp(s, s.sub(s.load_partial(&z[vectors..end]), shift));
        s.store_partial(tail, &mut dz[vectors..end]);
        let e = &dz[first..end];
        sum += r128_simd(
            s,
            e.len(),
            #[inline(always)]
            |i, acc| s.add(acc, s.load(&e[i..])),
            #[inline(always)]
            |i, acc| acc + e[i],
        );
    }

    let inverse = 1.0 / sum;
    let target_gradient = (dz[target] * inverse - 1.0) * weight;
    let (inverse, weights) = (s.splat(inverse), s.splat(weight));
    for i in (0..whole).step_by(S::LANES) {
        s.store(s.mul(s.mul(s.load(&dz[i..]), inverse), weights), &mut dz[i..]);
    }
    let tail = s.mul(s.mul(s.load_partial(&dz[whole..]), inverse), weights);
    s.store_partial(tail, &mut dz[whole..]);
    dz[target] = target_gradient;
    row_loss(m, sum, z[target])
}
