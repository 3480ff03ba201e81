//! binary16 and bfloat16. Binary16 is judged in integers: every value is a multiple of 2^-24, every product one of 2^-48.
//! Of bfloat16, whose range is wider than any integer, sums are judged as binary64 rounded to odd. Both are then brought
//! to the nearest by looking for the two neighbours.

use super::Oracle;
use super::float::odd_fma;
use super::types::Ty;

/// From the bits of a, b, c.
type One = fn(Kind, &[u16]) -> u16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Half,
    Brain,
}

pub fn oracle(name: &str) -> Option<Oracle> {
    match name {
        "cvt.rn.f16.f32" => return Oracle::new(&[Ty::F(4)], Ty::U(2), |b| half_of_single(b[0]).into()),
        "cvt.rn.f16x2.f32" => {
            return Oracle::new(&[Ty::F(4), Ty::F(4)], Ty::U(4), |b| {
                u64::from(half_of_single(b[0])) << 16 | u64::from(half_of_single(b[1]))
            });
        }
        "cvt.f32.f16" => {
            return Oracle::new(&[Ty::U(2)], Ty::F(4), |b| {
                super::float::canonical(value(Kind::Half, b[0] as u16))
            });
        }
        _ => {}
    }
    let (op, suffix) = name.rsplit_once('.')?;
    let (kind, pair) = match suffix {
        "f16" => (Kind::Half, false),
        "f16x2" => (Kind::Half, true),
        "bf16" => (Kind::Brain, false),
        "bf16x2" => (Kind::Brain, true),
        _ => return None,
    };
    let (count, one): (usize, One) = match op {
        "add.rn" => (2, |kind, b| fused(kind, b[0], one_of(kind), b[1])),
        "sub.rn" => (2, |kind, b| fused(kind, b[0], one_of(kind), b[1] ^ 0x8000)),
        "mul.rn" => (2, |kind, b| {
            // The sign of a zero is the product's own.
            let sign = (b[0] ^ b[1]) & 0x8000;
            fused(kind, b[0], b[1], sign)
        }),
        "fma.rn" => (3, |kind, b| fused(kind, b[0], b[1], b[2])),
        "neg" => (1, |_, b| b[0] ^ 0x8000),
        "abs" => (1, |_, b| b[0] & 0x7fff),
        "min" => (2, |kind, b| chosen(kind, b[0], b[1], true)),
        "max" => (2, |kind, b| chosen(kind, b[0], b[1], false)),
        _ => return None,
    };
    let ty = if pair { Ty::U(4) } else { Ty::U(2) };
    Oracle::new(&vec![ty; count], ty, move |b| {
        let part = |shift: u32| b.iter().map(|bits| (bits >> shift) as u16).collect::<Vec<_>>();
        let low = u64::from(one(kind, &part(0)));
        if pair { u64::from(one(kind, &part(16))) << 16 | low } else { low }
    })
}

fn one_of(kind: Kind) -> u16 {
    if kind == Kind::Half { 0x3c00 } else { 0x3f80 }
}

fn infinity(kind: Kind) -> u16 {
    if kind == Kind::Half { 0x7c00 } else { 0x7f80 }
}

fn value(kind: Kind, bits: u16) -> f64 {
    if kind == Kind::Brain {
        return f64::from(f32::from_bits(u32::from(bits) << 16));
    }
    let magnitude = match bits & 0x7fff {
        0x7c00 => f64::INFINITY,
        0x7c01.. => f64::NAN,
        _ => units(bits & 0x7fff) as f64 * 2f64.powi(-24),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// A finite, positive binary16 in units of 2^-24.
fn units(bits: u16) -> i128 {
    let (exponent, fraction) = (i128::from(bits >> 10), i128::from(bits & 0x3ff));
    if exponent == 0 { fraction } else { (fraction + 1024) << (exponent - 1) }
}

fn fused(kind: Kind, a: u16, b: u16, c: u16) -> u16 {
    let [x, y, z] = [a, b, c].map(|bits| value(kind, bits));
    let special = x.mul_add(y, z);
    if special.is_nan() {
        return 0x7fff;
    }
    if x.is_infinite() || y.is_infinite() || z.is_infinite() {
        return infinity(kind) | if special < 0.0 { 0x8000 } else { 0 };
    }
    if kind == Kind::Brain {
        return nearest_brain(odd_fma(x, y, z));
    }
    let signed = |bits: u16| if bits & 0x8000 == 0 { units(bits) } else { -units(bits & 0x7fff) };
    let sum = signed(a) * signed(b) + (signed(c) << 24);
    if sum == 0 {
        // Sums of two zeros keep a sign that they share; what cancels is +0.
        let negative = (a ^ b) & 0x8000 != 0;
        let both = signed(a) * signed(b) == 0 && negative && c == 0x8000;
        return if both { 0x8000 } else { 0 };
    }
    nearest_half(sum.unsigned_abs()) | if sum < 0 { 0x8000 } else { 0 }
}

/// The nearest binary16 of a multiple of 2^-48, ties to even.
fn nearest_half(sum: u128) -> u16 {
    let exact = |bits: u16| (units(bits) as u128) << 24;
    let (mut low, mut high) = (0u16, 0x7c00u16);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if exact(middle) <= sum { low = middle } else { high = middle }
    }
    // What follows the largest number is 2^16, were there no infinity.
    let (down, up) = (sum - exact(low), exact(high).saturating_sub(sum));
    if exact(high) <= sum || up < down || (up == down && low & 1 == 1) { high } else { low }
}

fn half_of_single(bits: u64) -> u16 {
    let x = f32::from_bits(bits as u32);
    let sign = (bits >> 16) as u16 & 0x8000;
    if x.is_nan() {
        return 0x7fff;
    }
    if x.abs() >= 65536.0 {
        return sign | 0x7c00;
    }
    // In multiples of 2^-48; a rest lies far below the last place and breaks no tie but that of nothing.
    let scaled = f64::from(x.abs()) * 2f64.powi(48);
    sign | nearest_half(scaled as u128)
}

fn nearest_brain(exact: f64) -> u16 {
    let sign = if exact.is_sign_negative() { 0x8000 } else { 0 };
    let magnitude = exact.abs();
    let of = |bits: u16| if bits == 0x7f80 { 2f64.powi(128) } else { value(Kind::Brain, bits) };
    let (mut low, mut high) = (0u16, 0x7f80u16);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if of(middle) <= magnitude { low = middle } else { high = middle }
    }
    let middle = (of(low) + of(high)) / 2.0;
    sign | if magnitude > middle || (magnitude == middle && low & 1 == 1) { high } else { low }
}

fn chosen(kind: Kind, a: u16, b: u16, least: bool) -> u16 {
    let (x, y) = (value(kind, a), value(kind, b));
    if x.is_nan() && y.is_nan() {
        return 0x7fff;
    }
    if x.is_nan() || y.is_nan() {
        return if x.is_nan() { b } else { a };
    }
    if (x.total_cmp(&y) != std::cmp::Ordering::Greater) == least { a } else { b }
}
