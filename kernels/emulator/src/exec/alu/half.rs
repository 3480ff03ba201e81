//! binary16 and bfloat16, one value or two to a register. Results are rounded to nearest even, subnormals kept; what is
//! not a number is 0x7fff.

use crate::exec::lane::{LaneOp, lane_ops};

pub(super) static ROWS: &[&[LaneOp]] = &[HALF, BRAIN, CONVERSIONS];

/// Fraction and exponent bits of binary16.
const F16: (u32, u32) = (10, 5);
/// Fraction and exponent bits of bfloat16.
const BF16: (u32, u32) = (7, 8);

const NOT_A_NUMBER: u16 = 0x7fff;

macro_rules! arithmetic {
    ($name:literal, $format:expr) => {
        lane_ops! {
            concat!("add.rn.", $name), (a: u16, b: u16) -> u16 { fma($format, a, one($format), b) }
            concat!("sub.rn.", $name), (a: u16, b: u16) -> u16 { fma($format, b, one($format) | 1 << 15, a) }
            concat!("mul.rn.", $name), (a: u16, b: u16) -> u16 { mul($format, a, b) }
            concat!("fma.rn.", $name), (a: u16, b: u16, c: u16) -> u16 { fma($format, a, b, c) }
            concat!("neg.", $name), (a: u16) -> u16 { a ^ 1 << 15 }
            concat!("abs.", $name), (a: u16) -> u16 { a & 0x7fff }
            concat!("min.", $name), (a: u16, b: u16) -> u16 { choose($format, a, b, true) }
            concat!("max.", $name), (a: u16, b: u16) -> u16 { choose($format, a, b, false) }
            concat!("add.rn.", $name, "x2"), (a: u32, b: u32) -> u32 {
                both(|i| fma($format, part(a, i), one($format), part(b, i)))
            }
            concat!("sub.rn.", $name, "x2"), (a: u32, b: u32) -> u32 {
                both(|i| fma($format, part(b, i), one($format) | 1 << 15, part(a, i)))
            }
            concat!("mul.rn.", $name, "x2"), (a: u32, b: u32) -> u32 {
                both(|i| mul($format, part(a, i), part(b, i)))
            }
            concat!("fma.rn.", $name, "x2"), (a: u32, b: u32, c: u32) -> u32 {
                both(|i| fma($format, part(a, i), part(b, i), part(c, i)))
            }
            concat!("neg.", $name, "x2"), (a: u32) -> u32 { a ^ 0x8000_8000 }
            concat!("abs.", $name, "x2"), (a: u32) -> u32 { a & 0x7fff_7fff }
            concat!("min.", $name, "x2"), (a: u32, b: u32) -> u32 {
                both(|i| choose($format, part(a, i), part(b, i), true))
            }
            concat!("max.", $name, "x2"), (a: u32, b: u32) -> u32 {
                both(|i| choose($format, part(a, i), part(b, i), false))
            }
        }
    };
}

static HALF: &[LaneOp] = arithmetic!("f16", F16);
static BRAIN: &[LaneOp] = arithmetic!("bf16", BF16);

static CONVERSIONS: &[LaneOp] = lane_ops! {
    "cvt.rn.f16.f32", (a: f32) -> u16 { narrow(F16, f64::from(a)) }
    "cvt.rn.f16x2.f32", (high: f32, low: f32) -> u32 {
        u32::from(narrow(F16, f64::from(high))) << 16 | u32::from(narrow(F16, f64::from(low)))
    }
    "cvt.f32.f16", (a: u16) -> u32 { super::float::canonical(widen(F16, a) as f32) }
};

fn part(pair: u32, index: u32) -> u16 {
    (pair >> (16 * index)) as u16
}

fn both(of: impl Fn(u32) -> u16) -> u32 {
    u32::from(of(1)) << 16 | u32::from(of(0))
}

/// 1.
fn one((fraction, exponent): (u32, u32)) -> u16 {
    ((1 << (exponent - 1)) - 1) << fraction
}

fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// Exact.
pub(in crate::exec) fn widen((fraction, exponent): (u32, u32), bits: u16) -> f64 {
    let field = i32::from(bits >> fraction) & ((1 << exponent) - 1);
    let rest = f64::from(bits & ((1 << fraction) - 1));
    let bias = (1 << (exponent - 1)) - 1;
    let magnitude = if field == (1 << exponent) - 1 {
        if rest == 0.0 { f64::INFINITY } else { f64::NAN }
    } else if field == 0 {
        rest * power_of_two(1 - bias - fraction as i32)
    } else {
        (rest + f64::from(1 << fraction)) * power_of_two(field - bias - fraction as i32)
    };
    if bits >> 15 == 0 { magnitude } else { -magnitude }
}

/// To the nearest, ties to even; a value of more than 53 bits comes rounded to odd.
fn narrow((fraction, exponent): (u32, u32), value: f64) -> u16 {
    if value.is_nan() {
        return NOT_A_NUMBER;
    }
    let sign = (value.to_bits() >> 48) as u16 & 1 << 15;
    let infinity = ((1u16 << exponent) - 1) << fraction;
    if value.is_infinite() {
        return sign | infinity;
    }
    let bias = (1 << (exponent - 1)) - 1;
    let least = 1 - bias;
    let own = ((value.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    let place = own.max(least);
    if place > bias {
        return sign | infinity;
    }
    // In units of the last place; a carry runs on into the exponent by itself.
    let units = (value.abs() * power_of_two(fraction as i32 - place)).round_ties_even() as u32;
    let bits = (((place + bias - 1) as u32) << fraction) + units;
    sign | (bits as u16).min(infinity)
}

fn mul(format: (u32, u32), a: u16, b: u16) -> u16 {
    narrow(format, widen(format, a) * widen(format, b))
}

fn fma(format: (u32, u32), a: u16, b: u16, c: u16) -> u16 {
    let (product, addend) = (widen(format, a) * widen(format, b), widen(format, c));
    let sum = product + addend;
    // What the sum lost, exactly; with it the sum is rounded to odd, which makes a second rounding harmless.
    let of_addend = sum - product;
    let lost = (product - (sum - of_addend)) + (addend - of_addend);
    if !sum.is_finite() || lost == 0.0 {
        return narrow(format, sum);
    }
    let away = (lost < 0.0) == (sum > 0.0);
    narrow(format, f64::from_bits((sum.to_bits() - u64::from(away)) | 1))
}

/// The lesser or the greater; the other one if one is not a number; -0 is less than +0.
fn choose((fraction, exponent): (u32, u32), a: u16, b: u16, least: bool) -> u16 {
    let infinity = ((1u16 << exponent) - 1) << fraction;
    let is_nan = |bits: u16| bits & 0x7fff > infinity;
    let rank = |bits: u16| if bits >> 15 == 0 { bits | 1 << 15 } else { !bits };
    match (is_nan(a), is_nan(b)) {
        (true, true) => NOT_A_NUMBER,
        (true, false) => b,
        (false, true) => a,
        _ if (rank(a) <= rank(b)) == least => a,
        _ => b,
    }
}
