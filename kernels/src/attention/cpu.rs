//! The CPU path of the forward pass: blocks of 64 queries against blocks of 64 keys, both products on register tiles.
//!
//! Scores stand as `[key][query]`: vectors run over queries, so that maxima, sums and exponentials of a row of the
//! attention never meet another lane, and only the queries are transposed. A masked pair is left out of a chain, not
//! multiplied by zero: on the diagonal, tiles end in a triangle of steps.

use super::{
    Forward, KEY_BLOCK,
    head::{Head, go_on, rows, scale},
};
use crate::common::{
    parallel,
    scratch::Parts,
    simd::{self, MAX_LANES, Simd, SimdPath, dispatch},
    target::Target,
    tile::Steps,
};

pub use super::cpu_backward::backward;

/// As [`super::forward`], on the path asked for.
pub fn forward(path: SimdPath, args: &Forward<'_>, o: &mut [f32], m: &mut [f32], l: &mut [f32]) {
    args.check(o, m, l);
    let shape = args.shape;
    if o.is_empty() {
        return;
    }
    let heads = shape.batch * shape.heads;
    let [o, m, l] = [o, m, l].map(Target::of);
    parallel::indices(shape.stat_len() * shape.seq * shape.head_dim, heads, |index| {
        let stats = index * shape.seq;
        // SAFETY: the statistics of one head of one sequence are this task's alone.
        let (m, l) = unsafe { (m.slice(stats, shape.seq), l.slice(stats, shape.seq)) };
        dispatch!(path, |s| forward_head(s, args, index / shape.heads, index % shape.heads, o, m, l));
    });
}

#[inline(always)]
fn forward_head<S: Simd>(
    s: S,
    args: &Forward<'_>,
    batch: usize,
    head: usize,
    o: Target,
    m: &mut [f32],
    l: &mut [f32],
) {
    let shape = &args.shape;
    let (seq, d, width) = (shape.seq, shape.head_dim, shape.padded_dim());
    let (_, c2) = shape.scales();
    let at = shape.query_rows(batch, head);
    let keys_at = shape.key_rows(batch, head / (shape.heads / shape.kv_heads));
    let q = Head::new(args.q, at, d);
    let (k, v) = (Head::new(args.k, keys_at, d), Head::new(args.v, keys_at, d));
    let lengths = [d * KEY_BLOCK, KEY_BLOCK * KEY_BLOCK, KEY_BLOCK * width, shape.padding_len()];
    let mut parts = Parts::take(lengths);
    let [queries, p, out, room] = parts.split(lengths);
    for first_row in (0..seq).step_by(KEY_BLOCK) {
        let count = KEY_BLOCK.min(seq - first_row);
        q.transpose(s, first_row, count, queries);
        out.fill(0.0);
        let mut running = Running { m: [f32::NEG_INFINITY; KEY_BLOCK], l: [0.0; KEY_BLOCK] };
        for first_key in (0..=first_row).step_by(KEY_BLOCK) {
            let diagonal = first_key == first_row;
            let keys = KEY_BLOCK.min(seq - first_key);
            k.products(s, (first_key, keys), queries, diagonal, p);
            let mut factors = [0.0; KEY_BLOCK];
            for column in (0..KEY_BLOCK).step_by(S::LANES) {
                running.softmax(s, p, column, diagonal, c2, &mut factors);
            }
            if first_key > 0 {
                for (out, factor) in out.chunks_exact_mut(width).zip(factors) {
                    scale(s, out, factor);
                }
            }
            let v = v.operand(first_key, keys, room);
            for i in (0..count).step_by(rows::<S>()) {
                let last = (rows::<S>() - 1).min(count - 1 - i);
                let steps = if diagonal {
                    Steps { head: 0, whole: i + 1, tail: last }
                } else {
                    Steps::whole(KEY_BLOCK)
                };
                go_on(s, steps, (&p[i..], 1, KEY_BLOCK), v, (&mut out[i * width..], width), width);
            }
        }
        m[first_row..first_row + count].copy_from_slice(&running.m[..count]);
        l[first_row..first_row + count].copy_from_slice(&running.l[..count]);
        for i in 0..count {
            let row = &mut out[i * width..][..width];
            scale(s, row, 1.0 / running.l[i]);
            // SAFETY: this head's part of a token's row is this task's alone.
            unsafe { o.slice(at.first + (first_row + i) * at.stride, d) }.copy_from_slice(&row[..d]);
        }
    }
}

/// Maxima and sums of 64 rows so far.
struct Running {
    m: [f32; KEY_BLOCK],
    l: [f32; KEY_BLOCK],
}

impl Running {
    /// Turns the raw products of one vector of queries into exponentials, moves the maxima and sums, and says by which
    /// factor the old output shrinks. On the diagonal, keys that no query of the vector sees are left as they are.
    #[inline(always)]
    fn softmax<S: Simd>(
        &mut self,
        s: S,
        p: &mut [f32],
        column: usize,
        diagonal: bool,
        c2: f32,
        factors: &mut [f32; KEY_BLOCK],
    ) {
        let p = &mut p[..KEY_BLOCK * KEY_BLOCK];
        // Keys that all queries of the vector see, and keys that some see.
        let (seen, some) = if diagonal { (column + 1, column + S::LANES) } else { (KEY_BLOCK, KEY_BLOCK) };
        let hidden = Hidden { seen, column };
        let (c2, none) = (s.splat(c2), s.splat(f32::NEG_INFINITY));
        // The maximum of the products: scaling by a positive constant and rounding keep their order.
        let mut largest = none;
        for key in 0..some {
            largest = s.max(hidden.hide(s, key, s.load(&p[key * KEY_BLOCK + column..]), none), largest);
        }
        let m = s.load(&self.m[column..]);
        let m_next = s.add(s.max(s.mul(largest, c2), m), s.splat(0.0));
        let mut groups = [s.splat(0.0); KEY_BLOCK / 4];
        for (group, sum) in groups.iter_mut().enumerate().take(some.div_ceil(4)) {
            let mut e = [s.splat(0.0); 4];
            for (i, e) in e.iter_mut().enumerate() {
                let key = 4 * group + i;
                let at = &mut p[key * KEY_BLOCK + column..];
                let x = simd::exp2p(s, s.sub(s.mul(s.load(at), c2), m_next));
                *e = hidden.hide(s, key, x, s.splat(0.0));
                s.store(*e, at);
            }
            *sum = s.add(s.add(e[0], e[1]), s.add(e[2], e[3]));
        }
        for half in [8, 4, 2, 1] {
            for group in 0..half {
                groups[group] = s.add(groups[group], groups[group + half]);
            }
        }
        let factor = simd::exp2p(s, s.sub(m, m_next));
        s.store(factor, &mut factors[column..]);
        s.store(s.fma(s.load(&self.l[column..]), factor, groups[0]), &mut self.l[column..]);
        s.store(m_next, &mut self.m[column..]);
    }
}

/// Which keys a vector of queries, from `column` on, does not see.
struct Hidden {
    /// Keys that all of them see.
    seen: usize,
    column: usize,
}

impl Hidden {
    /// `x` of the queries that see the key, `hidden` for the others.
    #[inline(always)]
    fn hide<S: Simd>(&self, s: S, key: usize, x: S::F, hidden: S::F) -> S::F {
        if key < self.seen {
            return x;
        }
        // Query `column + lane` does not see the key of a later token.
        s.select(s.gt(s.splat((key - self.column) as f32), s.load(&LANE)), hidden, x)
    }
}

/// The number of each lane.
const LANE: [f32; MAX_LANES] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
