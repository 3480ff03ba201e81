//! The formulas, element by element.

use super::{BLOCK, Contribution, NonFinite, Outer, Rule};
use crate::common::{
    block,
    scalar::{fma, max},
};

fn change(args: &Contribution<'_>, residual: &[f32]) -> Result<Vec<f32>, NonFinite> {
    let v: Vec<f32> = (0..residual.len()).map(|i| (args.old[i] - args.local[i]) + residual[i]).collect();
    match v.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(NonFinite { index }),
        None => Ok(v),
    }
}

/// As [`super::exponents`].
pub fn exponents(args: &Contribution<'_>, residual: &[f32], exponents: &mut [i8]) -> Result<(), NonFinite> {
    let v = change(args, residual)?;
    for (v, e) in v.chunks(BLOCK).zip(exponents) {
        *e = block::exponent(v.iter().fold(0.0, |amax, v| max(v.abs(), amax))) as i8;
    }
    Ok(())
}

/// As [`super::contribute`].
pub fn contribute(
    args: &Contribution<'_>,
    exponents: &[i8],
    bits: u32,
    residual: &mut [f32],
    codes: &mut [i16],
) -> Result<(), NonFinite> {
    let v = change(args, residual)?;
    for i in 0..v.len() {
        let e = i32::from(exponents[i / BLOCK]);
        let q = block::quantise(v[i], block::to_code(bits, e), block::code_max(bits));
        codes[i] = q as i16;
        residual[i] = v[i] - q as f32 * block::from_code(bits, e);
    }
    Ok(())
}

/// As [`super::outer_step`].
pub fn outer_step(args: &Outer<'_>, p: &mut [f32], buf: &mut [f32]) {
    if args.total_weight == 0 {
        return;
    }
    let weight = args.total_weight as f32;
    for i in 0..p.len() {
        let e = i32::from(args.exponents[i / BLOCK]);
        let d = (args.sums[i] as f32 * block::from_code(args.bits, e)) / weight;
        match args.rule {
            Rule::None => p[i] -= d,
            Rule::Nesterov { lr, momentum } => {
                buf[i] = fma(momentum, buf[i], d);
                p[i] = fma(-lr, fma(momentum, buf[i], d), p[i]);
            }
        }
    }
}

/// As [`super::accumulate`].
pub fn accumulate(sums: &mut [i64], codes: &[i16], weight: u32) {
    for i in 0..sums.len() {
        sums[i] += i64::from(weight) * i64::from(codes[i]);
    }
}
