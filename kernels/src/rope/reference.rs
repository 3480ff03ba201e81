//! The formulas, pair by pair.

use super::Rope;
use crate::common::scalar::fma;

/// As [`super::forward`].
pub fn forward(args: &Rope<'_>, y: &mut [f32]) {
    rotate(args, y, |s| s);
}

/// As [`super::backward`].
pub fn backward(args: &Rope<'_>, dx: &mut [f32]) {
    rotate(args, dx, |s| -s);
}

fn rotate(args: &Rope<'_>, y: &mut [f32], sign: impl Fn(f32) -> f32) {
    let half = args.head_dim / 2;
    for row in 0..args.rows {
        let position = row % args.seq;
        for head in 0..args.heads {
            let base = (row * args.heads + head) * args.head_dim;
            for i in 0..half {
                let c = args.cos[position * half + i];
                let s = sign(args.sin[position * half + i]);
                let (x0, x1) = (args.x[base + i], args.x[base + half + i]);
                y[base + i] = fma(x0, c, -(x1 * s));
                y[base + half + i] = fma(x0, s, x1 * c);
            }
        }
    }
}
