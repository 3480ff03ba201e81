//! The CPU path of the forward pass: blocks of 64 queries against blocks of 64 keys, both products on the register
//! tile. Query rows are independent, so a tile of them costs no bit; the causal edge is walked row by row, because a
//! masked pair must be left out of a chain, not multiplied by zero.

use super::{Forward, KEY_BLOCK, Shape, pack};
use crate::common::{
    parallel,
    simd::{self, Simd, SimdPath, dispatch},
    tile::product,
};

pub use super::cpu_backward::backward;

/// Rows of a register tile; divides the block.
pub(super) const TILE: usize = 4;

/// As [`super::forward`], on the path asked for.
pub fn forward(path: SimdPath, args: &Forward<'_>, o: &mut [f32], m: &mut [f32], l: &mut [f32]) {
    args.check(o, m, l);
    let Shape { seq, heads, head_dim, .. } = args.shape;
    if o.is_empty() {
        return;
    }
    // A task is one head of one sequence. Its statistics are contiguous, its output is not: rows are handed out.
    let mut outputs = head_rows(o, &args.shape, heads);
    let tasks = outputs.iter_mut().zip(m.chunks_mut(seq)).zip(l.chunks_mut(seq)).enumerate();
    parallel::run(args.shape.stat_len() * seq * head_dim, tasks, |(index, ((o, m), l))| {
        dispatch!(path, |s| forward_head(s, args, index / heads, index % heads, o, m, l));
    });
}

/// The rows of a token-major matrix, gathered by (sequence, head).
pub(super) fn head_rows<'a>(x: &'a mut [f32], shape: &Shape, heads: usize) -> Vec<Vec<&'a mut [f32]>> {
    let mut by_head: Vec<Vec<&mut [f32]>> =
        (0..shape.batch * heads).map(|_| Vec::with_capacity(shape.seq)).collect();
    for (index, row) in x.chunks_mut(shape.head_dim).enumerate() {
        let (token, head) = (index / heads, index % heads);
        by_head[token / shape.seq * heads + head].push(row);
    }
    by_head
}

#[inline(always)]
fn forward_head<S: Simd>(
    s: S,
    args: &Forward<'_>,
    batch: usize,
    head: usize,
    o: &mut [&mut [f32]],
    m: &mut [f32],
    l: &mut [f32],
) {
    let shape = &args.shape;
    let (seq, d, width) = (shape.seq, shape.head_dim, shape.padded_dim());
    let (_, c2) = shape.scales();
    let keys = shape.key_rows(batch, head / (shape.heads / shape.kv_heads));
    let kt = pack::transposed_blocks(args.k, keys, seq, d);
    let mut v = vec![0.0; seq * width];
    pack::rows(args.v, keys, 0, seq, d, width, &mut v);

    let mut q = vec![0.0f32; KEY_BLOCK * d];
    let mut out = vec![0.0f32; KEY_BLOCK * width];
    let mut scores = [0.0f32; KEY_BLOCK * KEY_BLOCK];
    for first_row in (0..seq).step_by(KEY_BLOCK) {
        let count = KEY_BLOCK.min(seq - first_row);
        pack::rows(args.q, shape.query_rows(batch, head), first_row, count, d, d, &mut q);
        out.fill(0.0);
        let (m, l) = (&mut m[first_row..first_row + count], &mut l[first_row..first_row + count]);
        m.fill(f32::NEG_INFINITY);
        l.fill(0.0);
        for first_key in (0..=first_row).step_by(KEY_BLOCK) {
            let kt = &kt[first_key * d..][..KEY_BLOCK * d];
            scores_of_block(s, d, &q, kt, count, &mut scores);
            for i in 0..count {
                let visible = visible(first_row + i, first_key);
                let p = &mut scores[i * KEY_BLOCK..][..KEY_BLOCK];
                let al = softmax_row(s, p, visible, c2, &mut m[i], &mut l[i]);
                scale(s, &mut out[i * width..][..width], al);
            }
            let v = &v[first_key * width..];
            for i in (0..count).step_by(TILE) {
                // Rows of a tile share the keys that the first of them sees; later ones go on alone.
                let shared = visible(first_row + i, first_key);
                let (p, out) = (&scores[i * KEY_BLOCK..], &mut out[i * width..]);
                product::<S, TILE>(s, shared, (p, KEY_BLOCK, 1), (v, width), (out, width), width, true);
                for r in 1..TILE.min(count - i) {
                    let more = visible(first_row + i + r, first_key) - shared;
                    let (p, out) = (&p[r * KEY_BLOCK + shared..], &mut out[r * width..]);
                    if more > 0 {
                        let v = &v[shared * width..];
                        product::<S, 1>(s, more, (p, 0, 1), (v, width), (out, width), width, true);
                    }
                }
            }
        }
        for i in 0..count {
            scale(s, &mut out[i * width..][..width], 1.0 / l[i]);
            o[first_row + i].copy_from_slice(&out[i * width..][..d]);
        }
    }
}

/// How many keys of the block from `first_key` the query `row` sees.
#[inline(always)]
pub(super) fn visible(row: usize, first_key: usize) -> usize {
    (row + 1 - first_key).min(KEY_BLOCK)
}

/// The products of up to 64 rows of `q` with a block of 64 keys, without the scale; masked ones are computed and
/// ignored.
#[inline(always)]
pub(super) fn scores_of_block<S: Simd>(
    s: S,
    d: usize,
    q: &[f32],
    kt: &[f32],
    count: usize,
    scores: &mut [f32],
) {
    for i in (0..count).step_by(TILE) {
        let (q, scores) = (&q[i * d..], &mut scores[i * KEY_BLOCK..]);
        product::<S, TILE>(s, d, (q, d, 1), (kt, KEY_BLOCK), (scores, KEY_BLOCK), KEY_BLOCK, false);
    }
}

/// Turns a row's raw products into exponentials, moves its maximum and sum, and returns the factor of its old output.
#[inline(always)]
pub(super) fn softmax_row<S: Simd>(
    s: S,
    p: &mut [f32],
    visible: usize,
    c2: f32,
    m: &mut f32,
    l: &mut f32,
) -> f32 {
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

#[inline(always)]
pub(super) fn scale<S: Simd>(s: S, x: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    for i in (0..x.len()).step_by(S::LANES) {
        s.store(s.mul(s.load(&x[i..]), factor), &mut x[i..]);
    }
}
