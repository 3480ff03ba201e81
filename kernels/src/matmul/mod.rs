//! Matrix products in f32, all matrices row-major and contiguous.
//!
//! ```text
//! nn   C[m,n]  = sum_k A[m,k] * B[k,n]         dx = dy * W
//! nt   C[m,n]  = sum_k A[m,k] * B[n,k]         y  = x * W^T
//! tn   C[m,n] += sum_k A[k,m] * B[k,n]         dW += dy^T * x, k runs over tokens
//! ```
//!
//! `nn_add` and `nt_add` are the products with the addition that would follow, at the same bits and a pass less:
//! `C = C + A * B` and `C = x + A * B^T`.
//!
//! `nn` and `nt`: each output is one chain, `acc = 0`, then `acc = fma(a, b, acc)` for k ascending. `tn`: tokens are cut
//! into chunks of 2048; each chunk is such a chain from 0, and chunk sums are added to the f32 gradient in ascending
//! order (so `k = 0` leaves `C` as it was). A new call starts a new chunk.

pub mod cases;
pub mod cpu;
pub mod cuda;
mod pack;
pub mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod trials;

use crate::{
    catalogue::Cost,
    common::{shape::expect_len, simd::SimdPath},
};

/// Tokens of one chain of the weight gradient.
pub const GRADIENT_TOKENS: usize = 2048;

/// Inputs of a product; what the sides of `a` and `b` mean is said by the entry point.
#[derive(Clone, Copy, Debug)]
pub struct Matmul<'a> {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Length of the sum.
    pub k: usize,
    /// A: m x k for `nn` and `nt`, k x m for `tn`.
    pub a: &'a [f32],
    /// B: k x n for `nn` and `tn`, n x k for `nt`.
    pub b: &'a [f32],
}

/// `C = A * B`: A is m x k, B is k x n, `c` is m x n.
pub fn nn(args: &Matmul<'_>, c: &mut [f32]) {
    cpu::nn(SimdPath::best(), args, c);
}

/// `C = C + A * B`: as [`nn`], each finished output added to what stands in C.
pub fn nn_add(args: &Matmul<'_>, c: &mut [f32]) {
    cpu::nn_add(SimdPath::best(), args, c);
}

/// `C = x + A * B^T`: as [`nt`], each finished output added to its element of `x`, m x n.
pub fn nt_add(args: &Matmul<'_>, x: &[f32], c: &mut [f32]) {
    cpu::nt_add(SimdPath::best(), args, x, c);
}

/// `C = A * B^T`: A is m x k, B is n x k, `c` is m x n.
pub fn nt(args: &Matmul<'_>, c: &mut [f32]) {
    cpu::nt(SimdPath::best(), args, c);
}

/// `C += A^T * B`: A is k x m, B is k x n, `c` is m x n and accumulates, one add per chunk of 2048 k.
pub fn tn(args: &Matmul<'_>, c: &mut [f32]) {
    cpu::tn(SimdPath::best(), args, c);
}

/// Cost of a product; `tn` reads C as well.
pub fn cost(m: usize, n: usize, k: usize) -> Cost {
    Cost { bytes: 4 * (m * k + k * n + m * n) as u64, flops: 2 * (m * n * k) as u64 }
}

impl Matmul<'_> {
    #[track_caller]
    fn check(&self, c: &[f32]) {
        expect_len("matmul", "a", self.a.len(), self.m * self.k);
        expect_len("matmul", "b", self.b.len(), self.k * self.n);
        expect_len("matmul", "c", c.len(), self.m * self.n);
    }
}
