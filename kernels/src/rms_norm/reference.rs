//! The formula, loop by loop.

use super::{Backward, Forward, GRADIENT_ROWS, inverse_dim};
use crate::common::{
    r128::r128,
    scalar::{fma, rsqrt},
};

/// As [`super::forward`].
pub fn forward(args: &Forward<'_>, y: &mut [f32], r: &mut [f32]) {
    let inv_d = inverse_dim(args.dim);
    for row in 0..args.rows {
        let x = &args.x[row * args.dim..][..args.dim];
        let ss = r128(args.dim, |i, acc| fma(x[i], x[i], acc));
        let ms = ss * inv_d;
        r[row] = rsqrt(ms + args.eps);
        for i in 0..args.dim {
            y[row * args.dim + i] = (x[i] * r[row]) * args.w[i];
        }
    }
}

/// As [`super::backward`].
pub fn backward(args: &Backward<'_>, dx: &mut [f32], dw: &mut [f32]) {
    let inv_d = inverse_dim(args.dim);
    for row in 0..args.rows {
        let x = &args.x[row * args.dim..][..args.dim];
        let dy = &args.dy[row * args.dim..][..args.dim];
        let r = args.r[row];
        let g = |i: usize| dy[i] * args.w[i];
        let c = r128(args.dim, |i, acc| fma(g(i), x[i], acc));
        let k = ((c * r) * r) * r * inv_d;
        for i in 0..args.dim {
            dx[row * args.dim + i] = fma(-k, x[i], r * g(i));
        }
    }
    for i in 0..args.dim {
        for first in (0..args.rows).step_by(GRADIENT_ROWS) {
            let mut sum = 0.0;
            for row in first..args.rows.min(first + GRADIENT_ROWS) {
                sum = fma(args.dy[row * args.dim + i], args.x[row * args.dim + i] * args.r[row], sum);
            }
            dw[i] += sum;
        }
    }
}
