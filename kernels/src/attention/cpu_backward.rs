//! The CPU path of the backward pass.
//!
//! A task is one key head of one sequence: it walks the query heads of its group ascending, query blocks ascending, key
//! blocks ascending, and computes each 64 x 64 block of p and ds once, as `[key][query]`. So dq meets its keys, and dk
//! and dv meet heads and rows, in the canonical order.

use super::{
    Backward, KEY_BLOCK, Shape,
    head::{Head, go_on, rows, scale},
};
use crate::common::{
    parallel,
    r128::r128_simd,
    scratch::Parts,
    simd::{self, Simd, SimdPath, dispatch},
    target::Target,
    tile::Steps,
};

/// As [`super::backward`], on the path asked for.
pub fn backward(path: SimdPath, args: &Backward<'_>, dq: &mut [f32], dk: &mut [f32], dv: &mut [f32]) {
    args.check(dq, dk, dv);
    let shape = args.shape;
    if dq.is_empty() {
        return;
    }
    let outputs = [dq, dk, dv].map(Target::of);
    parallel::indices(shape.stat_len() * shape.seq * shape.head_dim, shape.batch * shape.kv_heads, |index| {
        dispatch!(path, |s| key_head(s, args, index / shape.kv_heads, index % shape.kv_heads, outputs));
    });
}

/// One key head of one sequence, with the query heads that read it.
#[inline(always)]
fn key_head<S: Simd>(s: S, args: &Backward<'_>, batch: usize, head: usize, [dq, dk, dv]: [Target; 3]) {
    let shape = &args.shape;
    let Shape { seq, head_dim: d, heads, kv_heads, .. } = *shape;
    let (width, (factor, _)) = (shape.padded_dim(), shape.scales());
    let keys_at = shape.key_rows(batch, head);
    let (k, v) = (Head::new(args.k, keys_at, d), Head::new(args.v, keys_at, d));
    let sums = seq.next_multiple_of(KEY_BLOCK) * width;
    let square = KEY_BLOCK * KEY_BLOCK;
    let (turned, padding) = (d * KEY_BLOCK, shape.padding_len());
    let lengths = [sums, sums, KEY_BLOCK * width, square, square, turned, turned, padding, padding, padding];
    let mut parts = Parts::take(lengths);
    let [k_sums, v_sums, q_sums, p, ds, queries, gradients, q_room, dout_room, k_room] = parts.split(lengths);
    k_sums.fill(0.0);
    v_sums.fill(0.0);
    let group = heads / kv_heads;
    for head in head * group..(head + 1) * group {
        let at = shape.query_rows(batch, head);
        let (q, dout) = (Head::new(args.q, at, d), Head::new(args.dout, at, d));
        for first_row in (0..seq).step_by(KEY_BLOCK) {
            let count = KEY_BLOCK.min(seq - first_row);
            q.transpose(s, first_row, count, queries);
            dout.transpose(s, first_row, count, gradients);
            let q_rows = q.operand(first_row, count, q_room);
            let dout_rows = dout.operand(first_row, count, dout_room);
            let statistics = Statistics::new(s, args, (batch, head), first_row, count);
            q_sums.fill(0.0);
            for first_key in (0..=first_row).step_by(KEY_BLOCK) {
                let diagonal = first_key == first_row;
                let keys = KEY_BLOCK.min(seq - first_key);
                k.products(s, (first_key, keys), queries, diagonal, p);
                v.products(s, (first_key, keys), gradients, diagonal, ds);
                statistics.exponentials(s, shape, keys, diagonal, p, ds);
                // dq of the rows goes on over these keys.
                let k_rows = k.operand(first_key, keys, k_room);
                for i in (0..count).step_by(rows::<S>()) {
                    let last = (rows::<S>() - 1).min(count - 1 - i);
                    let steps = if diagonal {
                        Steps { head: 0, whole: i + 1, tail: last }
                    } else {
                        Steps::whole(KEY_BLOCK)
                    };
                    let sums = (&mut q_sums[i * width..], width);
                    go_on(s, steps, (&ds[i..], 1, KEY_BLOCK), k_rows, sums, width);
                }
                // dk and dv of these keys go on over the rows.
                for j in (0..keys).step_by(rows::<S>()) {
                    // On the diagonal key j is seen from row j on.
                    let first = if diagonal { j } else { 0 };
                    let head = if diagonal { (rows::<S>() - 1).min(count - first) } else { 0 };
                    let steps = Steps { head, whole: count - first - head, tail: 0 };
                    let sums = (first_key + j) * width;
                    for (weights, (x, stride), to) in
                        [(&*p, dout_rows, &mut *v_sums), (&*ds, q_rows, &mut *k_sums)]
                    {
                        let a = (&weights[j * KEY_BLOCK + first..], KEY_BLOCK, 1);
                        go_on(s, steps, a, (&x[first * stride..], stride), (&mut to[sums..], width), width);
                    }
                }
            }
            scale(s, q_sums, factor);
            hand_over(q_sums, width, count, dq, at.first + first_row * at.stride, at.stride, d);
        }
    }
    scale(s, k_sums, factor);
    for (sums, to) in [(k_sums, dk), (v_sums, dv)] {
        hand_over(sums, width, seq, to, keys_at.first, keys_at.stride, d);
    }
}

/// Copies padded rows to a head's part of the output, which is the caller's alone.
fn hand_over(from: &[f32], width: usize, count: usize, to: Target, first: usize, stride: usize, d: usize) {
    for (i, row) in from.chunks_exact(width).take(count).enumerate() {
        // SAFETY: a head's part of a token's row is written by the one task that owns the head.
        unsafe { to.slice(first + i * stride, d) }.copy_from_slice(&row[..d]);
    }
}

/// What a block of queries knows of its rows: the maximum, 1 over the sum, D.
struct Statistics {
    m: [f32; KEY_BLOCK],
    inverse: [f32; KEY_BLOCK],
    big_d: [f32; KEY_BLOCK],
}

impl Statistics {
    #[inline(always)]
    fn new<S: Simd>(
        s: S,
        args: &Backward<'_>,
        (batch, head): (usize, usize),
        first_row: usize,
        count: usize,
    ) -> Self {
        let Shape { seq, head_dim: d, heads, .. } = args.shape;
        let at = args.shape.query_rows(batch, head);
        let (o, dout) = (Head::new(args.o, at, d), Head::new(args.dout, at, d));
        let stats = (batch * heads + head) * seq + first_row;
        let mut all = Self { m: [0.0; KEY_BLOCK], inverse: [0.0; KEY_BLOCK], big_d: [0.0; KEY_BLOCK] };
        for i in 0..count {
            let (o, dout) = (o.row(first_row + i), dout.row(first_row + i));
            all.m[i] = args.m[stats + i];
            all.inverse[i] = 1.0 / args.l[stats + i];
            all.big_d[i] = r128_simd(
                s,
                d,
                #[inline(always)]
                |t, acc| s.fma(s.load(&dout[t..]), s.load(&o[t..]), acc),
                #[inline(always)]
                |t, acc| s.fma1(dout[t], o[t], acc),
            );
        }
        all
    }

    /// Makes p and ds of the raw products, for the pairs that `products` made; masked ones among them are computed and
    /// ignored.
    #[inline(always)]
    fn exponentials<S: Simd>(
        &self,
        s: S,
        shape: &Shape,
        keys: usize,
        diagonal: bool,
        p: &mut [f32],
        ds: &mut [f32],
    ) {
        let c2 = s.splat(shape.scales().1);
        let (p, ds) = (&mut p[..KEY_BLOCK * KEY_BLOCK], &mut ds[..KEY_BLOCK * KEY_BLOCK]);
        for column in (0..KEY_BLOCK).step_by(S::LANES) {
            let [m, inverse, big_d] =
                [&self.m, &self.inverse, &self.big_d].map(|values| s.load(&values[column..]));
            let seen = if diagonal { keys.min(column + S::LANES) } else { keys };
            for at in (column..).step_by(KEY_BLOCK).take(seen) {
                let score = s.mul(s.load(&p[at..]), c2);
                let x = s.mul(simd::exp2p(s, s.sub(score, m)), inverse);
                s.store(x, &mut p[at..]);
                s.store(s.mul(x, s.sub(s.load(&ds[at..]), big_d)), &mut ds[at..]);
            }
        }
    }
}
