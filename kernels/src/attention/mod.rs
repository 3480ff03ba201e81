//! Causal attention with grouped queries.
//!
//! Token-major layouts, as the projections write them: `q`, `o` and their gradients are (batch*seq) x (heads*head_dim);
//! `k`, `v` and their gradients (batch*seq) x (kv_heads*head_dim); `m`, `l` are batch x heads x seq. Query head `h`
//! reads key head `h / (heads / kv_heads)`; query `i` sees keys `0..=i` of its own sequence.
//!
//! ```text
//! scale = f32(1/sqrt_f64(f64(head_dim)))        c2 = f32(f64(scale) * LOG2_E_F64)          both once on the host
//! s(i,j) = (chain over d ascending from 0 of fma(q_i[d], k_j[d], acc)) * c2
//! forward, per query row, o = 0, l = 0, m = -inf; key blocks of 64 ascending (wholly masked blocks are not visited):
//!   m' = (exact maximum of m and the block's visible s_j) + 0
//!   al = exp2p(m - m')       p_j = exp2p(s_j - m'), masked or missing keys p = +0 in the sum only
//!   sum = 16 groups of 4 (p0+p1)+(p2+p3), then halving 8, 4, 2, 1
//!   l = fma(l, al, sum)      o = o * al, then o = fma(p_j, v_j, o) over visible keys ascending;  m = m'
//! out = o * rcp_rn(l); m and l are kept
//! backward: D_i = R128 over d of fma(do_i, o_i); p = exp2p(s - m_i) * rcp_rn(l_i); dp = chain over d of fma(do_i, v_j)
//!   ds = p * (dp - D_i)
//!   dv_j, dk_j: query heads of the group ascending, visible query rows ascending: dv = fma(p, do_i, dv),
//!               dk = fma(ds, q_i, dk); at the end dk = dk * scale
//!   dq_i: visible keys ascending: dq = fma(ds, k_j, dq); at the end dq = dq * scale
//! ```
//!
//! Query rows are independent in the forward pass and in `dq`; key rows in `dk` and `dv`.

pub mod cases;
pub mod cpu;
mod cpu_backward;
pub mod cuda;
mod head;
mod next;
pub mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod trials;

pub use next::{Next, next, next_on};

use crate::{
    catalogue::Cost,
    common::{shape::expect_len, simd::SimdPath},
};

/// Keys of one block of the running softmax.
pub const KEY_BLOCK: usize = 64;

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Sequences.
    pub batch: usize,
    /// Tokens of a sequence.
    pub seq: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

/// Inputs of the forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// Sizes.
    pub shape: Shape,
    /// Queries, (batch*seq) x (heads*head_dim).
    pub q: &'a [f32],
    /// Keys, (batch*seq) x (kv_heads*head_dim).
    pub k: &'a [f32],
    /// Values, (batch*seq) x (kv_heads*head_dim).
    pub v: &'a [f32],
}

/// Inputs of the backward pass.
#[derive(Clone, Copy, Debug)]
pub struct Backward<'a> {
    /// Sizes.
    pub shape: Shape,
    /// Queries, (batch*seq) x (heads*head_dim).
    pub q: &'a [f32],
    /// Keys, (batch*seq) x (kv_heads*head_dim).
    pub k: &'a [f32],
    /// Values, (batch*seq) x (kv_heads*head_dim).
    pub v: &'a [f32],
    /// Output of the forward pass, (batch*seq) x (heads*head_dim).
    pub o: &'a [f32],
    /// Row maxima (base 2) of the forward pass, batch x heads x seq.
    pub m: &'a [f32],
    /// Row sums of the forward pass, batch x heads x seq.
    pub l: &'a [f32],
    /// Gradient of the output, (batch*seq) x (heads*head_dim).
    pub dout: &'a [f32],
}

/// Writes the output `o`, the row maxima `m` and the row sums `l`.
pub fn forward(args: &Forward<'_>, o: &mut [f32], m: &mut [f32], l: &mut [f32]) {
    cpu::forward(SimdPath::best(), args, o, m, l);
}

/// Writes the gradients of queries, keys and values.
pub fn backward(args: &Backward<'_>, dq: &mut [f32], dk: &mut [f32], dv: &mut [f32]) {
    cpu::backward(SimdPath::best(), args, dq, dk, dv);
}

/// Cost of the forward pass: two products over the visible half, 10 flops per exponential.
pub fn forward_cost(shape: &Shape) -> Cost {
    let pairs = visible_pairs(shape);
    let bytes = 4 * (2 * shape.query_len() + 2 * shape.key_len() + 2 * shape.stat_len()) as u64;
    Cost { bytes, flops: pairs * (4 * shape.head_dim as u64 + 16) }
}

/// Cost of the backward pass: five products over the visible half.
pub fn backward_cost(shape: &Shape) -> Cost {
    let pairs = visible_pairs(shape);
    let bytes = 4 * (4 * shape.query_len() + 4 * shape.key_len() + 2 * shape.stat_len()) as u64;
    Cost { bytes, flops: pairs * (10 * shape.head_dim as u64 + 20) }
}

fn visible_pairs(shape: &Shape) -> u64 {
    (shape.batch * shape.heads * shape.seq * (shape.seq + 1) / 2) as u64
}

impl Shape {
    /// Rows of the token-major matrices.
    pub fn tokens(&self) -> usize {
        self.batch * self.seq
    }

    /// Elements of `q` and `o`.
    pub fn query_len(&self) -> usize {
        self.tokens() * self.heads * self.head_dim
    }

    /// Elements of `k` and `v`.
    pub fn key_len(&self) -> usize {
        self.tokens() * self.kv_heads * self.head_dim
    }

    /// Elements of `m` and `l`.
    pub fn stat_len(&self) -> usize {
        self.tokens() * self.heads
    }

    /// Factor of the products, and the same times log2(e).
    pub fn scales(&self) -> (f32, f32) {
        let scale = (1.0 / (self.head_dim as f64).sqrt()) as f32;
        (scale, (f64::from(scale) * std::f64::consts::LOG2_E) as f32)
    }

    #[track_caller]
    fn check(&self) {
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "attention: {} query heads do not divide among {} key heads",
            self.heads,
            self.kv_heads
        );
    }
}

impl Forward<'_> {
    #[track_caller]
    fn check(&self, o: &[f32], m: &[f32], l: &[f32]) {
        let (op, shape) = ("attention::forward", &self.shape);
        shape.check();
        expect_len(op, "q", self.q.len(), shape.query_len());
        expect_len(op, "k", self.k.len(), shape.key_len());
        expect_len(op, "v", self.v.len(), shape.key_len());
        expect_len(op, "o", o.len(), shape.query_len());
        expect_len(op, "m", m.len(), shape.stat_len());
        expect_len(op, "l", l.len(), shape.stat_len());
    }
}

impl Backward<'_> {
    #[track_caller]
    fn check(&self, dq: &[f32], dk: &[f32], dv: &[f32]) {
        let (op, shape) = ("attention::backward", &self.shape);
        shape.check();
        for (what, len) in
            [("q", self.q.len()), ("o", self.o.len()), ("dout", self.dout.len()), ("dq", dq.len())]
        {
            expect_len(op, what, len, shape.query_len());
        }
        for (what, len) in [("k", self.k.len()), ("v", self.v.len()), ("dk", dk.len()), ("dv", dv.len())] {
            expect_len(op, what, len, shape.key_len());
        }
        expect_len(op, "m", self.m.len(), shape.stat_len());
        expect_len(op, "l", self.l.len(), shape.stat_len());
    }
}
