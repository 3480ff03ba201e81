//! Floating point, every result rounded to nearest even, subnormals kept.
//!
//! A binary32 result that is not a number is 0x7fffffff, as on the hardware. `.ftz`, `.approx` and arithmetic
//! without a rounding word have no row: the first two have no portable bits, and what has no rounding word
//! may be contracted by the assembler.

use crate::exec::lane::{LaneOp, lane_ops};

pub(super) static ROWS: &[&[LaneOp]] = &[SINGLE, DOUBLE];

static SINGLE: &[LaneOp] = lane_ops! {
    "add.rn.f32", (a: f32, b: f32) -> u32 { canonical(a + b) }
    "sub.rn.f32", (a: f32, b: f32) -> u32 { canonical(a - b) }
    "mul.rn.f32", (a: f32, b: f32) -> u32 { canonical(a * b) }
    "fma.rn.f32", (a: f32, b: f32, c: f32) -> u32 { canonical(a.mul_add(b, c)) }
    "div.rn.f32", (a: f32, b: f32) -> u32 { canonical(a / b) }
    "rcp.rn.f32", (a: f32) -> u32 { canonical(1.0 / a) }
    "sqrt.rn.f32", (a: f32) -> u32 { canonical(a.sqrt()) }
    "neg.f32", (a: u32) -> u32 { a ^ 1 << 31 }
    "abs.f32", (a: u32) -> u32 { a & !(1 << 31) }
    "copysign.f32", (a: u32, b: u32) -> u32 { a & 1 << 31 | b & !(1 << 31) }
    "min.f32", (a: f32, b: f32) -> u32 { canonical(least(a, b)) }
    "max.f32", (a: f32, b: f32) -> u32 { canonical(-least(-a, -b)) }
    "min.NaN.f32", (a: f32, b: f32) -> u32 { canonical(either_nan(a, b).unwrap_or(least(a, b))) }
    "max.NaN.f32", (a: f32, b: f32) -> u32 { canonical(either_nan(a, b).unwrap_or(-least(-a, -b))) }
    "testp.finite.f32", (a: f32) -> bool { a.is_finite() }
    "testp.infinite.f32", (a: f32) -> bool { a.is_infinite() }
    "testp.number.f32", (a: f32) -> bool { !a.is_nan() }
    "testp.notanumber.f32", (a: f32) -> bool { a.is_nan() }
    "testp.normal.f32", (a: f32) -> bool { a.is_normal() }
    "testp.subnormal.f32", (a: f32) -> bool { a.is_subnormal() }
};

static DOUBLE: &[LaneOp] = lane_ops! {
    "add.rn.f64", (a: f64, b: f64) -> f64 { a + b }
    "sub.rn.f64", (a: f64, b: f64) -> f64 { a - b }
    "mul.rn.f64", (a: f64, b: f64) -> f64 { a * b }
    "fma.rn.f64", (a: f64, b: f64, c: f64) -> f64 { a.mul_add(b, c) }
    "div.rn.f64", (a: f64, b: f64) -> f64 { a / b }
    "rcp.rn.f64", (a: f64) -> f64 { 1.0 / a }
    "sqrt.rn.f64", (a: f64) -> f64 { a.sqrt() }
    "neg.f64", (a: u64) -> u64 { a ^ 1 << 63 }
    "abs.f64", (a: u64) -> u64 { a & !(1 << 63) }
    "copysign.f64", (a: u64, b: u64) -> u64 { a & 1 << 63 | b & !(1 << 63) }
    "min.f64", (a: f64, b: f64) -> f64 { least_double(a, b) }
    "max.f64", (a: f64, b: f64) -> f64 { -least_double(-a, -b) }
};

/// The bits of a result. Tested as an integer: which not-a-number a float holds, compilers feel free to change.
#[inline(always)]
pub(super) fn canonical(value: f32) -> u32 {
    let bits = value.to_bits();
    if (bits & 0x7fff_ffff) as i32 > 0x7f80_0000 { 0x7fff_ffff } else { bits }
}

#[inline(always)]
fn either_nan(a: f32, b: f32) -> Option<f32> {
    (a.is_nan() | b.is_nan()).then_some(f32::NAN)
}

/// The lesser; the other one if one is not a number; -0 is less than +0.
#[inline(always)]
fn least(a: f32, b: f32) -> f32 {
    let zeros = f32::from_bits(a.to_bits() | b.to_bits());
    let least = if a < b { a } else { b };
    let least = if a == b { zeros_or(a, zeros) } else { least };
    if b.is_nan() { a } else { least }
}

/// Equal values are the same bits, except zeros of two signs.
#[inline(always)]
fn zeros_or(value: f32, zeros: f32) -> f32 {
    if value == 0.0 { zeros } else { value }
}

#[inline(always)]
fn least_double(a: f64, b: f64) -> f64 {
    if a == b && a == 0.0 {
        f64::from_bits(a.to_bits() | b.to_bits())
    } else if b.is_nan() || a < b {
        a
    } else {
        b
    }
}
