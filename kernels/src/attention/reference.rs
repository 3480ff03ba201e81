//! The formulas, loop by loop.

use super::{Backward, Forward, KEY_BLOCK, Shape};
use crate::common::{
    r128::r128,
    scalar::{exp2p, fma, max, rcp},
};

/// Where the rows of one (sequence, query head) lie.
struct Head<'a> {
    shape: &'a Shape,
    batch: usize,
    head: usize,
}

impl Head<'_> {
    fn query(&self, i: usize) -> usize {
        ((self.batch * self.shape.seq + i) * self.shape.heads + self.head) * self.shape.head_dim
    }

    fn key(&self, j: usize) -> usize {
        let kv_head = self.head / (self.shape.heads / self.shape.kv_heads);
        ((self.batch * self.shape.seq + j) * self.shape.kv_heads + kv_head) * self.shape.head_dim
    }

    fn stat(&self, i: usize) -> usize {
        (self.batch * self.shape.heads + self.head) * self.shape.seq + i
    }
}

fn heads(shape: &Shape) -> impl Iterator<Item = Head<'_>> {
    (0..shape.batch).flat_map(move |batch| (0..shape.heads).map(move |head| Head { shape, batch, head }))
}

fn dot(d: usize, a: &[f32], b: &[f32]) -> f32 {
    let mut acc = 0.0;
    for i in 0..d {
        acc = fma(a[i], b[i], acc);
    }
    acc
}

/// The sum of a block's exponentials, those of masked or missing keys being +0.
fn block_sum(p: &[f32; KEY_BLOCK]) -> f32 {
    let mut q = [0.0f32; KEY_BLOCK / 4];
    for g in 0..KEY_BLOCK / 4 {
        q[g] = (p[4 * g] + p[4 * g + 1]) + (p[4 * g + 2] + p[4 * g + 3]);
    }
    let mut half = q.len() / 2;
    while half > 0 {
        for g in 0..half {
            q[g] += q[g + half];
        }
        half /= 2;
    }
    q[0]
}

/// As [`super::forward`].
pub fn forward(args: &Forward<'_>, o: &mut [f32], m: &mut [f32], l: &mut [f32]) {
    let d = args.shape.head_dim;
    let (_, c2) = args.shape.scales();
    for at in heads(&args.shape) {
        for i in 0..args.shape.seq {
            let q = &args.q[at.query(i)..][..d];
            let out = &mut o[at.query(i)..][..d];
            out.fill(0.0);
            let (mut m_i, mut l_i) = (f32::NEG_INFINITY, 0.0);
            for first in (0..=i).step_by(KEY_BLOCK) {
                let visible = first..(i + 1).min(first + KEY_BLOCK);
                let mut s = [0.0f32; KEY_BLOCK];
                let mut m_next = m_i;
                for j in visible.clone() {
                    s[j - first] = dot(d, q, &args.k[at.key(j)..]) * c2;
                    m_next = max(s[j - first], m_next);
                }
                // Zeros of both signs may compete: + 0 makes the maximum independent of the order.
                m_next += 0.0;
                let al = exp2p(m_i - m_next);
                let mut p = [0.0f32; KEY_BLOCK];
                for j in visible.clone() {
                    p[j - first] = exp2p(s[j - first] - m_next);
                }
                l_i = fma(l_i, al, block_sum(&p));
                for t in 0..d {
                    out[t] *= al;
                    for j in visible.clone() {
                        out[t] = fma(p[j - first], args.v[at.key(j) + t], out[t]);
                    }
                }
                m_i = m_next;
            }
            let inverse = rcp(l_i);
            for t in 0..d {
                out[t] *= inverse;
            }
            m[at.stat(i)] = m_i;
            l[at.stat(i)] = l_i;
        }
    }
}

/// As [`super::backward`].
pub fn backward(args: &Backward<'_>, dq: &mut [f32], dk: &mut [f32], dv: &mut [f32]) {
    let d = args.shape.head_dim;
    let (scale, c2) = args.shape.scales();
    dq.fill(0.0);
    dk.fill(0.0);
    dv.fill(0.0);
    // Heads ascending, rows ascending, keys ascending: each of dq, dk and dv meets its terms in the canonical order.
    for at in heads(&args.shape) {
        for i in 0..args.shape.seq {
            let row = at.query(i)..at.query(i) + d;
            let (q, o, dout) = (&args.q[row.clone()], &args.o[row.clone()], &args.dout[row.clone()]);
            let big_d = r128(d, |t, acc| fma(dout[t], o[t], acc));
            let inverse = rcp(args.l[at.stat(i)]);
            for j in 0..=i {
                let (k, v) = (&args.k[at.key(j)..][..d], &args.v[at.key(j)..][..d]);
                let s = dot(d, q, k) * c2;
                let p = exp2p(s - args.m[at.stat(i)]) * inverse;
                let ds = p * (dot(d, dout, v) - big_d);
                for t in 0..d {
                    dv[at.key(j) + t] = fma(p, dout[t], dv[at.key(j) + t]);
                    dk[at.key(j) + t] = fma(ds, q[t], dk[at.key(j) + t]);
                    dq[at.query(i) + t] = fma(ds, k[t], dq[at.query(i) + t]);
                }
            }
        }
    }
    for x in dq.iter_mut().chain(dk) {
        *x *= scale;
    }
}
