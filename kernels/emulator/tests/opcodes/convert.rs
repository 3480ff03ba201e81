//! Conversions: integers in 128 bits, roundings by comparison with neighbours.

use super::Oracle;
use super::float::canonical;
use super::types::Ty;

pub fn oracle(name: &str) -> Option<Oracle> {
    let words: Vec<&str> = name.strip_prefix("cvt.")?.split('.').collect();
    match words[..] {
        ["rn", "bf16", "f32"] => Oracle::new(&[Ty::F(4)], Ty::Brain, |b| brain(b[0])),
        ["f32", "bf16"] => {
            Oracle::new(&[Ty::Brain], Ty::F(4), |b| canonical(f64::from(f32::from_bits((b[0] as u32) << 16))))
        }
        ["rn", "bf16x2", "f32"] => {
            Oracle::new(&[Ty::F(4), Ty::F(4)], Ty::U(4), |b| brain(b[0]) << 16 | brain(b[1]))
        }
        [dst, src] => {
            let (to, from) = (Ty::parse(dst)?, Ty::parse(src)?);
            match (to, from) {
                (Ty::F(8), Ty::F(4)) => {
                    Oracle::new(&[from], to, |b| f64::from(f32::from_bits(b[0] as u32)).to_bits())
                }
                (Ty::F(a), Ty::F(b)) if a == b => Oracle::new(&[from], to, |b| b[0]),
                (Ty::U(_) | Ty::S(_), Ty::U(_) | Ty::S(_)) => {
                    Oracle::new(&[from], to, move |b| from.value(b[0]) as u64)
                }
                _ => None,
            }
        }
        ["rn", dst, src] => {
            let (to, from) = (Ty::parse(dst)?, Ty::parse(src)?);
            match (to, from) {
                (Ty::F(4), Ty::F(8)) => Oracle::new(&[from], to, |b| nearest_single(f64::from_bits(b[0]))),
                (Ty::F(bytes), Ty::U(_) | Ty::S(_)) => Oracle::new(&[from], to, move |b| {
                    let value = nearest(from.value(b[0]), if bytes == 4 { 24 } else { 53 });
                    if bytes == 4 { u64::from((value as f32).to_bits()) } else { value.to_bits() }
                }),
                _ => None,
            }
        }
        [mode @ ("rni" | "rzi" | "rmi" | "rpi"), dst, src] => {
            let mode = ["rni", "rzi", "rmi", "rpi"].into_iter().find(|known| *known == mode)?;
            let (to, from) = (Ty::parse(dst)?, Ty::parse(src)?);
            let real = move |bits: u64| {
                if from == Ty::F(4) { f64::from(f32::from_bits(bits as u32)) } else { f64::from_bits(bits) }
            };
            match to {
                Ty::F(4) => Oracle::new(&[from], to, move |b| canonical(integral(mode, real(b[0])))),
                Ty::F(_) => Oracle::new(&[from], to, move |b| integral(mode, real(b[0])).to_bits()),
                _ => Oracle::new(&[from], to, move |b| {
                    let value = real(b[0]);
                    if value.is_nan() {
                        let wide = to.bytes() == 8 || (from == Ty::F(8) && to.bytes() == 4);
                        return if wide { 1 << (to.width() - 1) } else { 0 };
                    }
                    let (least, most) = match to {
                        Ty::S(n) => (-(1i128 << (8 * n - 1)), (1i128 << (8 * n - 1)) - 1),
                        _ => (0, (1i128 << to.width()) - 1),
                    };
                    (integral(mode, value) as i128).clamp(least, most) as u64
                }),
            }
        }
        _ => None,
    }
}

/// An integer rounded to so many significant bits, ties to even; exact in binary64.
fn nearest(value: i128, bits: u32) -> f64 {
    let magnitude = value.unsigned_abs();
    let excess = (128 - magnitude.leading_zeros()).saturating_sub(bits);
    let (kept, lost) = (magnitude >> excess, magnitude & ((1u128 << excess) - 1));
    let half = if excess == 0 { u128::MAX } else { 1u128 << (excess - 1) };
    let up = lost > half || (lost == half && kept & 1 == 1);
    let rounded = (kept + u128::from(up)) as f64 * 2f64.powi(excess as i32);
    if value < 0 { -rounded } else { rounded }
}

/// To an integral value, the sign of zero kept.
fn integral(mode: &str, value: f64) -> f64 {
    // Beyond 2^52 there are no fractions.
    if value.is_nan() || value.abs() >= 4_503_599_627_370_496.0 {
        return value;
    }
    let below = value as i64 as f64 - if (value as i64 as f64) > value { 1.0 } else { 0.0 };
    let above = if below == value { below } else { below + 1.0 };
    let chosen = match mode {
        "rmi" => below,
        "rpi" => above,
        "rzi" => {
            if value < 0.0 {
                above
            } else {
                below
            }
        }
        _ => {
            let (down, up) = (value - below, above - value);
            let even = if (below as i64) % 2 == 0 { below } else { above };
            if down < up {
                below
            } else if up < down {
                above
            } else {
                even
            }
        }
    };
    chosen.abs().copysign(value)
}

/// The nearest of three candidate binary32 values, ties to the even one.
fn nearest_single(value: f64) -> u64 {
    if value.is_nan() {
        return 0x7fff_ffff;
    }
    let sign = if value.is_sign_negative() { 1u32 << 31 } else { 0 };
    let magnitude = value.abs();
    // The least magnitude halfway to what would be 2^128.
    if magnitude >= f64::from(f32::MAX) + 2f64.powi(103) {
        return u64::from(sign | 0x7f80_0000);
    }
    let (mut low, mut high) = (0u32, 0x7f7f_ffffu32);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if f64::from(f32::from_bits(middle)) <= magnitude { low = middle } else { high = middle - 1 }
    }
    let below = f64::from(f32::from_bits(low));
    let above = if low == 0x7f7f_ffff { 2f64.powi(128) } else { f64::from(f32::from_bits(low + 1)) };
    let (down, up) = (magnitude - below, above - magnitude);
    let chosen = if down < up || (down == up && low & 1 == 0) { low } else { low + 1 };
    u64::from(sign | chosen)
}

/// The nearest bfloat16, ties to even, of the two around a binary32 value.
fn brain(bits: u64) -> u64 {
    let value = f32::from_bits(bits as u32);
    if value.is_nan() {
        return 0x7fff;
    }
    if value.is_infinite() {
        return bits >> 16;
    }
    let low = (bits >> 16) as u32;
    let of = |upper: u32| {
        if upper & 0x7fff == 0x7f80 { 2f64.powi(128) } else { f64::from(f32::from_bits(upper << 16)).abs() }
    };
    let (down, up) = (f64::from(value).abs() - of(low), of(low + 1) - f64::from(value).abs());
    u64::from(if down < up || (down == up && low & 1 == 0) { low } else { low + 1 })
}
