//! The formulas, loop by loop.

use super::{GRADIENT_TOKENS, Matmul};
use crate::common::scalar::fma;

/// As [`super::nn`].
pub fn nn(args: &Matmul<'_>, c: &mut [f32]) {
    let &Matmul { m, n, k, a, b } = args;
    for i in 0..m {
        for j in 0..n {
            let mut acc = 0.0;
            for t in 0..k {
                acc = fma(a[i * k + t], b[t * n + j], acc);
            }
            c[i * n + j] = acc;
        }
    }
}

/// As [`super::nt`].
pub fn nt(args: &Matmul<'_>, c: &mut [f32]) {
    let &Matmul { m, n, k, a, b } = args;
    for i in 0..m {
        for j in 0..n {
            let mut acc = 0.0;
            for t in 0..k {
                acc = fma(a[i * k + t], b[j * k + t], acc);
            }
            c[i * n + j] = acc;
        }
    }
}

/// As [`super::tn`].
pub fn tn(args: &Matmul<'_>, c: &mut [f32]) {
    let &Matmul { m, n, k, a, b } = args;
    for i in 0..m {
        for j in 0..n {
            for first in (0..k).step_by(GRADIENT_TOKENS) {
                let mut acc = 0.0;
                for t in first..k.min(first + GRADIENT_TOKENS) {
                    acc = fma(a[t * m + i], b[t * n + j], acc);
                }
                c[i * n + j] += acc;
            }
        }
    }
}
