//! f64 functions of the host: own polynomials, so that tables and losses never depend on a libm. Only IEEE add, sub,
//! mul, div and integer operations; no fused multiply-add, so that any f64 unit gives the same bits.

/// ln x for finite x > 0; NaN for the rest, except ln(+Inf) = +Inf and ln(0) = -Inf.
///
/// `x = 2^k * y` with y in [sqrt(1/2), sqrt(2)), `f = (y-1)/(y+1)`, `ln y = 2 * (f + f^3/3 + … + f^21/21)` by Horner in
/// f^2, and `ln x = k * LN2_LOW + ln y + k * LN2_HIGH`.
pub fn ln(x: f64) -> f64 {
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if x == f64::INFINITY {
        return x;
    }
    // A subnormal is brought into the normal range first.
    let (x, shift) = if x < f64::MIN_POSITIVE { (x * TWO_54, 54) } else { (x, 0) };
    let mut k = ((x.to_bits() >> 52) as i64) - 1023 - shift;
    let mut y = f64::from_bits((x.to_bits() & 0x000F_FFFF_FFFF_FFFF) | 0x3FF0_0000_0000_0000);
    if y >= SQRT_2 {
        y *= 0.5;
        k += 1;
    }
    let f = (y - 1.0) / (y + 1.0);
    let f2 = f * f;
    let mut series = 1.0 / 21.0;
    for odd in [19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
        series = series * f2 + 1.0 / odd;
    }
    let ln_y = 2.0 * f + 2.0 * f * (f2 * series);
    let k = k as f64;
    k * LN2_HIGH + (ln_y + k * LN2_LOW)
}

/// e^x for |x| <= 700, by `x = n * ln 2 + r`, a Taylor polynomial of degree 14 in r, and an exact scaling.
pub fn exp(x: f64) -> f64 {
    assert!(x.abs() <= 700.0, "host::exp: {x} is outside -700..=700");
    let n = nearest(x * std::f64::consts::LOG2_E);
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut v = 1.0;
    for j in (1..=14).rev() {
        v = 1.0 + v * r / f64::from(j);
    }
    v * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

/// (cos x, sin x) for |x| <= 2^20: reduction by pi/2 in three parts, Taylor polynomials on |r| <= pi/4.
pub fn cos_sin(x: f64) -> (f64, f64) {
    assert!(x.abs() <= 1_048_576.0, "host::cos_sin: {x} is outside +-2^20");
    let n = nearest(x * std::f64::consts::FRAC_2_PI);
    let r = ((x - n * PI_2_A) - n * PI_2_B) - n * PI_2_C;
    let r2 = r * r;
    let (mut sin, mut cos) = (1.0, 1.0);
    for j in (1..=9).rev() {
        let j = f64::from(j);
        sin = 1.0 - sin * r2 / ((2.0 * j) * (2.0 * j + 1.0));
        cos = 1.0 - cos * r2 / ((2.0 * j - 1.0) * (2.0 * j));
    }
    let sin = sin * r;
    match (n as i64) & 3 {
        0 => (cos, sin),
        1 => (-sin, cos),
        2 => (-cos, -sin),
        _ => (sin, -cos),
    }
}

/// The nearest integer, ties to even, for |x| < 2^51.
fn nearest(x: f64) -> f64 {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    (x + MAGIC) - MAGIC
}

const TWO_54: f64 = 18_014_398_509_481_984.0;
const SQRT_2: f64 = std::f64::consts::SQRT_2;
/// ln 2 with 32 significant bits: its product with an exponent is exact.
const LN2_HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000);
/// What LN2_HIGH leaves of ln 2.
const LN2_LOW: f64 = f64::from_bits(0x3DEA_39EF_3579_3C76);
/// pi/2 in three parts; the first two have 33 significant bits, so that their products with |n| < 2^20 are exact.
const PI_2_A: f64 = f64::from_bits(0x3FF9_21FB_5440_0000);
const PI_2_B: f64 = f64::from_bits(0x3DD0_B461_1A60_0000);
const PI_2_C: f64 = f64::from_bits(0x3BA3_198A_2E03_7073);
