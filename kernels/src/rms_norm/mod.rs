//! RMS normalisation of rows.
//!
//! With `x` and `y` of shape rows x dim, `w` of dim, `r` of rows:
//!
//! ```text
//! forward   ss = R128 over i of fma(x_i, x_i)      ms = ss * inv_d,  inv_d = rcp_rn(f32(dim))
//!           r  = rcp_rn(sqrt_rn(ms + eps))         y_i = (x_i * r) * w_i
//! backward  g_i = dy_i * w_i                       c  = R128 over i of fma(g_i, x_i)
//!           k  = ((c * r) * r) * r * inv_d         dx_i = fma(-k, x_i, r * g_i)
//!           dw_i += per block of 64 rows, rows ascending: s = fma(dy_i, x_i * r, s) from s = 0; block sums ascending
//! ```
//!
//! Rows are independent. `dw` is a gradient: it accumulates, one add per block of 64 rows, blocks ascending; a new call
//! starts a new block.

pub mod cases;
pub mod cpu;
pub mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod trials;

use crate::{
    catalogue::Cost,
    common::{shape::expect_len, simd::SimdPath},
};

/// Rows of one block of the weight gradient.
pub const GRADIENT_ROWS: usize = 64;

/// Inputs of the forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// Rows (tokens).
    pub rows: usize,
    /// Elements of a row.
    pub dim: usize,
    /// Added to the mean square.
    pub eps: f32,
    /// Input, rows x dim.
    pub x: &'a [f32],
    /// Weight, dim.
    pub w: &'a [f32],
}

/// Inputs of the backward pass.
#[derive(Clone, Copy, Debug)]
pub struct Backward<'a> {
    /// Rows (tokens).
    pub rows: usize,
    /// Elements of a row.
    pub dim: usize,
    /// Input of the forward pass, rows x dim.
    pub x: &'a [f32],
    /// Weight, dim.
    pub w: &'a [f32],
    /// Reciprocal root mean squares that the forward pass returned, rows.
    pub r: &'a [f32],
    /// Gradient of the output, rows x dim.
    pub dy: &'a [f32],
}

/// Writes the normalised rows to `y` (rows x dim) and the reciprocal root mean squares to `r` (rows).
pub fn forward(args: &Forward<'_>, y: &mut [f32], r: &mut [f32]) {
    cpu::forward(SimdPath::best(), args, y, r);
}

/// Writes the input gradient to `dx` (rows x dim) and *adds* the weight gradient to `dw` (dim).
pub fn backward(args: &Backward<'_>, dx: &mut [f32], dw: &mut [f32]) {
    cpu::backward(SimdPath::best(), args, dx, dw);
}

/// As [`backward`], with the gradient of `x` added to what stands in `dx`.
pub fn backward_add(args: &Backward<'_>, dx: &mut [f32], dw: &mut [f32]) {
    cpu::backward_add(SimdPath::best(), args, dx, dw);
}

/// Cost of the forward pass: x and w in, y and r out; two flops for the square, two for the scaling.
pub fn forward_cost(rows: usize, dim: usize) -> Cost {
    let n = (rows * dim) as u64;
    Cost { bytes: 4 * (2 * n + (rows + dim) as u64), flops: 4 * n }
}

/// Cost of the backward pass: x, dy, w, r in, dx out, dw in and out.
pub fn backward_cost(rows: usize, dim: usize) -> Cost {
    let n = (rows * dim) as u64;
    Cost { bytes: 4 * (3 * n + (rows + 3 * dim) as u64), flops: 10 * n }
}

/// `inv_d` of the formula.
fn inverse_dim(dim: usize) -> f32 {
    1.0 / dim as f32
}

impl Forward<'_> {
    #[track_caller]
    fn check(&self, y: &[f32], r: &[f32]) {
        let op = "rms_norm::forward";
        assert!(self.dim > 0, "{op}: rows of no elements have no mean square");
        expect_len(op, "x", self.x.len(), self.rows * self.dim);
        expect_len(op, "w", self.w.len(), self.dim);
        expect_len(op, "y", y.len(), self.rows * self.dim);
        expect_len(op, "r", r.len(), self.rows);
    }
}

impl Backward<'_> {
    #[track_caller]
    fn check(&self, dx: &[f32], dw: &[f32]) {
        let op = "rms_norm::backward";
        assert!(self.dim > 0, "{op}: rows of no elements have no mean square");
        expect_len(op, "x", self.x.len(), self.rows * self.dim);
        expect_len(op, "w", self.w.len(), self.dim);
        expect_len(op, "r", self.r.len(), self.rows);
        expect_len(op, "dy", self.dy.len(), self.rows * self.dim);
        expect_len(op, "dx", dx.len(), self.rows * self.dim);
        expect_len(op, "dw", dw.len(), self.dim);
    }
}
