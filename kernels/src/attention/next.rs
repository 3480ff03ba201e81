//! One query after all keys: what a token that is added to a sequence needs, where keys and values of the earlier ones are
//! kept. To the bit the last row of [`super::forward`] over the whole sequence.

use super::{KEY_BLOCK, Shape};
use crate::common::{
    parallel,
    shape::expect_len,
    simd::{self, Simd, SimdPath, dispatch},
};
use rayon::prelude::*;

/// Inputs.
#[derive(Clone, Copy, Debug)]
pub struct Next<'a> {
    /// Sizes: one sequence, whose last token asks.
    pub shape: Shape,
    /// The last token's queries, heads*head_dim.
    pub q: &'a [f32],
    /// Keys of all tokens, seq x (kv_heads*head_dim).
    pub k: &'a [f32],
    /// Values of all tokens, seq x (kv_heads*head_dim).
    pub v: &'a [f32],
}

/// Writes the last token's output `o`, heads*head_dim.
pub fn next(args: &Next<'_>, o: &mut [f32]) {
    next_on(SimdPath::best(), args, o);
}

/// As [`next`], on the path asked for.
pub fn next_on(path: SimdPath, args: &Next<'_>, o: &mut [f32]) {
    let (op, shape) = ("attention::next", &args.shape);
    shape.check();
    let row = shape.heads * shape.head_dim;
    assert!(
        shape.batch == 1 && shape.seq > 0,
        "{op}: {shape:?}, expected one sequence of at least one token"
    );
    expect_len(op, "q", args.q.len(), row);
    expect_len(op, "k", args.k.len(), shape.key_len());
    expect_len(op, "v", args.v.len(), shape.key_len());
    expect_len(op, "o", o.len(), row);
    let tasks = args.q.par_chunks(shape.head_dim).zip(o.par_chunks_mut(shape.head_dim)).enumerate();
    parallel::run(2 * row * shape.seq, tasks, |(head, (q, o))| {
        dispatch!(path, |s| one_head(s, args, head, q, o));
    });
}

#[inline(always)]
fn one_head<S: Simd>(s: S, args: &Next<'_>, head: usize, q: &[f32], o: &mut [f32]) {
    let shape = &args.shape;
    let d = shape.head_dim;
    let (_, c2) = shape.scales();
    let at = |j: usize| (j * shape.kv_heads + head / (shape.heads / shape.kv_heads)) * d;
    let (mut m, mut l) = (f32::NEG_INFINITY, 0.0);
    o.fill(0.0);
    let mut p = [0.0f32; KEY_BLOCK];
    for first in (0..shape.seq).step_by(KEY_BLOCK) {
        let visible = KEY_BLOCK.min(shape.seq - first);
        for (j, p) in p[..visible].iter_mut().enumerate() {
            let k = &args.k[at(first + j)..][..d];
            *p = q.iter().zip(k).fold(0.0, |acc, (q, k)| s.fma1(*q, *k, acc));
        }
        let al = softmax_row(s, &mut p, visible, c2, &mut m, &mut l);
        o.iter_mut().for_each(|o| *o *= al);
        for (j, p) in p[..visible].iter().enumerate() {
            let v = &args.v[at(first + j)..][..d];
            let whole = d / S::LANES * S::LANES;
            for i in (0..whole).step_by(S::LANES) {
                let sum = s.fma(s.splat(*p), s.load(&v[i..]), s.load(&o[i..]));
                s.store(sum, &mut o[i..]);
            }
            for i in whole..d {
                o[i] = s.fma1(*p, v[i], o[i]);
            }
        }
    }
    let inverse = 1.0 / l;
    o.iter_mut().for_each(|o| *o *= inverse);
}

/// Turns a row's raw products into exponentials, moves its maximum and sum, and returns the factor of its old output.
#[inline(always)]
fn softmax_row<S: Simd>(s: S, p: &mut [f32], visible: usize, c2: f32, m: &mut f32, l: &mut f32) -> f32 {
    // Masked products become -inf: never the maximum, and exp2p makes them the +0 that the sum wants.
    p[visible..].fill(f32::NEG_INFINITY);
    let c2 = s.splat(c2);
    let mut largest = s.splat(*m);
    for i in (0..KEY_BLOCK).step_by(S::LANES) {
        let v = s.mul(s.load(&p[i..]), c2);
        s.store(v, &mut p[i..]);
        largest = s.max(v, largest);
    }
    let mut lanes = [f32::NEG_INFINITY; simd::MAX_LANES];
    s.store(largest, &mut lanes);
    let m_next = lanes.iter().fold(f32::NEG_INFINITY, |m, x| crate::common::scalar::max(*x, m)) + 0.0;
    let shift = s.splat(m_next);
    for i in (0..KEY_BLOCK).step_by(S::LANES) {
        s.store(simd::exp2p(s, s.sub(s.load(&p[i..]), shift)), &mut p[i..]);
    }
    s.store(simd::exp2p(s, s.splat(*m - m_next)), &mut lanes);
    let al = lanes[0];
    *l = s.fma1(*l, al, block_sum(p));
    *m = m_next;
    al
}

/// 16 groups of four, then halving.
#[inline(always)]
fn block_sum(p: &[f32]) -> f32 {
    let mut q = [0.0f32; KEY_BLOCK / 4];
    for g in 0..q.len() {
        q[g] = (p[4 * g] + p[4 * g + 1]) + (p[4 * g + 2] + p[4 * g + 3]);
    }
    for half in [8, 4, 2, 1] {
        for g in 0..half {
            q[g] += q[g + half];
        }
    }
    q[0]
}
