//! The formulas, element by element.

use super::{Backward, Forward};
use crate::common::scalar::{exp, fma};

fn sigmoid(g: f32) -> f32 {
    1.0 / (1.0 + exp(-g))
}

/// As [`super::forward`].
pub fn forward(args: &Forward<'_>, h: &mut [f32]) {
    for i in 0..h.len() {
        let g = args.g[i];
        h[i] = (g * sigmoid(g)) * args.u[i];
    }
}

/// As [`super::backward`].
pub fn backward(args: &Backward<'_>, dg: &mut [f32], du: &mut [f32]) {
    for i in 0..dg.len() {
        let (g, u, dh) = (args.g[i], args.u[i], args.dh[i]);
        let sg = sigmoid(g);
        let silu = g * sg;
        du[i] = dh * silu;
        dg[i] = (dh * u) * fma(silu, 1.0 - sg, sg);
    }
}
