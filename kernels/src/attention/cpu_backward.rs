//! The CPU path of the backward pass.
//!
//! A task is one key head of one sequence: it walks the query heads of its group ascending, query blocks ascending, key
//! blocks ascending, and computes each 64 x 64 block of p and ds once. So dq meets its keys, and dk and dv meet heads
//! and rows, in the canonical order.

use super::{
    Backward, KEY_BLOCK, Shape,
    cpu::{TILE, head_rows, scale, scores_of_block, visible},
    pack,
};
use crate::common::{
    parallel,
    r128::r128_simd,
    simd::{self, Simd, SimdPath, dispatch},
    tile::product,
};

/// As [`super::backward`], on the path asked for.
pub fn backward(path: SimdPath, args: &Backward<'_>, dq: &mut [f32], dk: &mut [f32], dv: &mut [f32]) {
    args.check(dq, dk, dv);
    let Shape { seq, heads, kv_heads, head_dim, .. } = args.shape;
    if dq.is_empty() {
        return;
    }
    let group = heads / kv_heads;
    let mut dq = head_rows(dq, &args.shape, heads);
    let mut dk = head_rows(dk, &args.shape, kv_heads);
    let mut dv = head_rows(dv, &args.shape, kv_heads);
    let tasks = dq.chunks_mut(group).zip(dk.iter_mut().zip(&mut dv)).enumerate();
    parallel::run(args.shape.stat_len() * seq * head_dim, tasks, |(index, (dq, (dk, dv)))| {
        dispatch!(path, |s| KeyHead::new(args, index / kv_heads, index % kv_heads).run(s, dq, dk, dv));
    });
}

/// One key head of one sequence: its padded copies and its accumulators.
struct KeyHead<'a> {
    args: &'a Backward<'a>,
    batch: usize,
    head: usize,
    width: usize,
    /// Blocks of `[dim][64]`.
    kt: Vec<f32>,
    vt: Vec<f32>,
    /// seq x width.
    k: Vec<f32>,
    /// Padded to whole blocks of keys, x width.
    dk: Vec<f32>,
    dv: Vec<f32>,
}

/// One block of queries of one query head.
struct QueryBlock {
    count: usize,
    /// 64 x dim.
    q: Vec<f32>,
    dout: Vec<f32>,
    /// 64 x width.
    q_padded: Vec<f32>,
    dout_padded: Vec<f32>,
    dq: Vec<f32>,
    /// Per row: m, rcp(l), D.
    m: [f32; KEY_BLOCK],
    inverse: [f32; KEY_BLOCK],
    big_d: [f32; KEY_BLOCK],
    /// 64 x 64.
    p: Vec<f32>,
    ds: Vec<f32>,
}

impl<'a> KeyHead<'a> {
    fn new(args: &'a Backward<'a>, batch: usize, head: usize) -> Self {
        let Shape { seq, head_dim, .. } = args.shape;
        let width = args.shape.padded_dim();
        let keys = args.shape.key_rows(batch, head);
        let mut k = vec![0.0; seq * width];
        pack::rows(args.k, keys, 0, seq, head_dim, width, &mut k);
        let accumulators = seq.next_multiple_of(KEY_BLOCK) * width;
        Self {
            args,
            batch,
            head,
            width,
            kt: pack::transposed_blocks(args.k, keys, seq, head_dim),
            vt: pack::transposed_blocks(args.v, keys, seq, head_dim),
            k,
            dk: vec![0.0; accumulators],
            dv: vec![0.0; accumulators],
        }
    }

    #[inline(always)]
    fn run<S: Simd>(
        mut self,
        s: S,
        dq: &mut [Vec<&mut [f32]>],
        dk: &mut [&mut [f32]],
        dv: &mut [&mut [f32]],
    ) {
        let Shape { seq, head_dim: d, heads, kv_heads, .. } = self.args.shape;
        let (factor, _) = self.args.shape.scales();
        let group = heads / kv_heads;
        let mut block = QueryBlock::new(d, self.width);
        for (member, dq) in dq.iter_mut().enumerate() {
            for first_row in (0..seq).step_by(KEY_BLOCK) {
                block.load(s, self.args, self.batch, self.head * group + member, first_row);
                for first_key in (0..=first_row).step_by(KEY_BLOCK) {
                    block.exponentials(s, &self, first_row, first_key);
                    self.queries(s, &mut block, first_row, first_key);
                    self.keys(s, &block, first_row, first_key);
                }
                scale(s, &mut block.dq, factor);
                for i in 0..block.count {
                    dq[first_row + i].copy_from_slice(&block.dq[i * self.width..][..d]);
                }
            }
        }
        scale(s, &mut self.dk, factor);
        for j in 0..seq {
            dk[j].copy_from_slice(&self.dk[j * self.width..][..d]);
            dv[j].copy_from_slice(&self.dv[j * self.width..][..d]);
        }
    }

    /// dq of the block's rows goes on over the keys of this block.
    #[inline(always)]
    fn queries<S: Simd>(&self, s: S, block: &mut QueryBlock, first_row: usize, first_key: usize) {
        let width = self.width;
        let k = &self.k[first_key * width..];
        for i in (0..block.count).step_by(TILE) {
            let shared = visible(first_row + i, first_key);
            let (ds, dq) = (&block.ds[i * KEY_BLOCK..], &mut block.dq[i * width..]);
            product::<S, TILE>(s, shared, (ds, KEY_BLOCK, 1), (k, width), (dq, width), width, true);
            for r in 1..TILE.min(block.count - i) {
                let more = visible(first_row + i + r, first_key) - shared;
                if more > 0 {
                    let (ds, dq) = (&ds[r * KEY_BLOCK + shared..], &mut dq[r * width..]);
                    product::<S, 1>(
                        s,
                        more,
                        (ds, 0, 1),
                        (&k[shared * width..], width),
                        (dq, width),
                        width,
                        true,
                    );
                }
            }
        }
    }

    /// dk and dv of this block's keys go on over the rows of the block.
    #[inline(always)]
    fn keys<S: Simd>(&mut self, s: S, block: &QueryBlock, first_row: usize, first_key: usize) {
        let width = self.width;
        let seq = self.args.shape.seq;
        for j in (0..KEY_BLOCK.min(seq - first_key)).step_by(TILE) {
            // On the diagonal key j is seen from row j on, and all keys of the tile from its last one on.
            let last = j + TILE - 1;
            let first_shared = if first_row == first_key { last.min(block.count) } else { 0 };
            for (weights, x, to) in
                [(&block.p, &block.dout_padded, &mut self.dv), (&block.ds, &block.q_padded, &mut self.dk)]
            {
                let to = &mut to[(first_key + j) * width..];
                for r in 0..TILE {
                    let first = (j + r).min(first_shared);
                    let alone = first_shared - first;
                    if alone > 0 {
                        let (w, x) = (&weights[first * KEY_BLOCK + j + r..], &x[first * width..]);
                        let to = &mut to[r * width..];
                        product::<S, 1>(s, alone, (w, 0, KEY_BLOCK), (x, width), (to, width), width, true);
                    }
                }
                let shared = block.count - first_shared;
                if shared > 0 {
                    let (w, x) = (&weights[first_shared * KEY_BLOCK + j..], &x[first_shared * width..]);
                    product::<S, TILE>(s, shared, (w, 1, KEY_BLOCK), (x, width), (to, width), width, true);
                }
            }
        }
    }
}

impl QueryBlock {
    fn new(d: usize, width: usize) -> Self {
        Self {
            count: 0,
            q: vec![0.0; KEY_BLOCK * d],
            dout: vec![0.0; KEY_BLOCK * d],
            q_padded: vec![0.0; KEY_BLOCK * width],
            dout_padded: vec![0.0; KEY_BLOCK * width],
            dq: vec![0.0; KEY_BLOCK * width],
            m: [0.0; KEY_BLOCK],
            inverse: [0.0; KEY_BLOCK],
            big_d: [0.0; KEY_BLOCK],
            p: vec![0.0; KEY_BLOCK * KEY_BLOCK],
            ds: vec![0.0; KEY_BLOCK * KEY_BLOCK],
        }
    }

    #[inline(always)]
    fn load<S: Simd>(&mut self, s: S, args: &Backward<'_>, batch: usize, head: usize, first_row: usize) {
        let Shape { seq, head_dim: d, heads, .. } = args.shape;
        let width = args.shape.padded_dim();
        let at = args.shape.query_rows(batch, head);
        let count = KEY_BLOCK.min(seq - first_row);
        self.count = count;
        pack::rows(args.q, at, first_row, count, d, d, &mut self.q);
        pack::rows(args.dout, at, first_row, count, d, d, &mut self.dout);
        pack::rows(args.q, at, first_row, count, d, width, &mut self.q_padded);
        pack::rows(args.dout, at, first_row, count, d, width, &mut self.dout_padded);
        self.dq.fill(0.0);
        for i in 0..count {
            let stat = (batch * heads + head) * seq + first_row + i;
            let o = &args.o[at.first + (first_row + i) * at.stride..][..d];
            let dout = &self.dout[i * d..][..d];
            self.m[i] = args.m[stat];
            self.inverse[i] = 1.0 / args.l[stat];
            self.big_d[i] = r128_simd(
                s,
                d,
                #[inline(always)]
                |t, acc| s.fma(s.load(&dout[t..]), s.load(&o[t..]), acc),
                #[inline(always)]
                |t, acc| s.fma1(dout[t], o[t], acc),
            );
        }
    }

    /// p and ds of the rows against a block of keys; masked ones are computed and ignored.
    #[inline(always)]
    fn exponentials<S: Simd>(&mut self, s: S, keys: &KeyHead<'_>, first_row: usize, first_key: usize) {
        debug_assert!(first_key <= first_row);
        let d = keys.args.shape.head_dim;
        let (_, c2) = keys.args.shape.scales();
        let block = first_key * d..(first_key + KEY_BLOCK) * d;
        scores_of_block(s, d, &self.q, &keys.kt[block.clone()], self.count, &mut self.p);
        scores_of_block(s, d, &self.dout, &keys.vt[block], self.count, &mut self.ds);
        let c2 = s.splat(c2);
        for i in 0..self.count {
            let (m, inverse, big_d) = (s.splat(self.m[i]), s.splat(self.inverse[i]), s.splat(self.big_d[i]));
            for j in (i * KEY_BLOCK..(i + 1) * KEY_BLOCK).step_by(S::LANES) {
                let score = s.mul(s.load(&self.p[j..]), c2);
                let p = s.mul(simd::exp2p(s, s.sub(score, m)), inverse);
                let ds = s.mul(p, s.sub(s.load(&self.ds[j..]), big_d));
                s.store(p, &mut self.p[j..]);
                s.store(ds, &mut self.ds[j..]);
            }
        }
    }
}
