//! The formula, element by element.

use super::Step;
use crate::common::scalar::fma;

/// As [`super::step`].
pub fn step(args: &Step<'_>, p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    let k = &args.constants;
    for i in 0..p.len() {
        let g = args.g[i] * k.grad_scale;
        m[i] = fma(k.one_minus_beta1, g, k.beta1 * m[i]);
        v[i] = fma(k.one_minus_beta2 * g, g, k.beta2 * v[i]);
        let u = (m[i] * k.c1) / ((v[i] * k.c2).sqrt() + k.eps);
        p[i] = fma(k.minus_lr, u, p[i] * k.decay);
    }
}
