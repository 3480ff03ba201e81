//! Scalar arithmetic with one answer on every machine: what the plain references are written in.

/// 2^23 + 2^22: adding it to a small f32 leaves the nearest integer in the low mantissa bits.
pub const MAGIC: f32 = 12_582_912.0;
/// log2(e) as f32.
pub const LOG2_E: f32 = std::f32::consts::LOG2_E;

const _: () = assert!(LOG2_E.to_bits() == 0x3FB8_AA3B, "0x1.715476p+0");

/// `a * b + c` rounded once, to nearest even, on any machine.
///
/// The product of two f32 is exact in f64. The sum is rounded there *to odd*, which keeps enough to let the second
/// rounding, to f32, come out as if it were the only one. A bare `f32::mul_add` would call libm wherever the caller was
/// compiled without the `fma` feature; where the baseline has the instruction, it is used.
#[inline]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
        a.mul_add(b, c)
    } else {
        fma_exact(a, b, c)
    }
}

/// [`fma`] in f64 arithmetic.
pub fn fma_exact(a: f32, b: f32, c: f32) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let c = f64::from(c);
    let sum = product + c;
    if !sum.is_finite() {
        return sum as f32;
    }
    // Knuth's two-sum: `sum + error` is the exact value.
    let c_part = sum - product;
    let error = (product - (sum - c_part)) + (c - c_part);
    if error == 0.0 || sum.to_bits() & 1 == 1 {
        return sum as f32;
    }
    // The exact value lies between `sum` and a neighbour: of the two take the one with the odd last bit.
    let bits = sum.to_bits();
    let away_from_zero = (error > 0.0) == (sum > 0.0);
    f64::from_bits(if away_from_zero { bits + 1 } else { bits - 1 }) as f32
}

/// `a > b ? a : b`, the one maximum of the contract: with a NaN on either side it is `b`.
#[inline]
pub fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// `rcp_rn(x)`.
#[inline]
pub fn rcp(x: f32) -> f32 {
    1.0 / x
}

/// `rcp_rn(sqrt_rn(x))`.
#[inline]
pub fn rsqrt(x: f32) -> f32 {
    rcp(x.sqrt())
}

/// `v * 2^i` in two steps, so that neither factor leaves the normal range.
#[inline]
fn scale_twice(v: f32, i: i32) -> f32 {
    let half = i >> 1;
    v * power_of_two(half) * power_of_two(i - half)
}

/// 2^e as f32, for e in -126..=127.
#[inline]
pub fn power_of_two(e: i32) -> f32 {
    debug_assert!((-126..=127).contains(&e), "2^{e} is no normal f32");
    f32::from_bits(((e + 127) as u32) << 23)
}

/// e^x: NaN to NaN, above 88.72283 to infinity, below -87.3365 to +0.
pub fn exp(x: f32) -> f32 {
    if x.is_nan() {
        return f32::NAN;
    }
    if x > EXP_MAX {
        return f32::INFINITY;
    }
    if x < EXP_MIN {
        return 0.0;
    }
    let t = fma(x, LOG2_E, MAGIC);
    let n = t - MAGIC;
    let i = t.to_bits() as i32 - MAGIC.to_bits() as i32;
    let r = fma(n, EXP_LN2_HIGH, x);
    let r = fma(n, EXP_LN2_LOW, r);
    let mut v = EXP_COEFFICIENTS[6];
    for j in (0..6).rev() {
        v = fma(v, r, EXP_COEFFICIENTS[j]);
    }
    scale_twice(v, i)
}

/// 2^x for x <= 0: below -126 to +0.
pub fn exp2p(x: f32) -> f32 {
    if x < EXP2_MIN {
        return 0.0;
    }
    let t = x + MAGIC;
    let n = t - MAGIC;
    let i = t.to_bits().wrapping_sub(MAGIC.to_bits()) as i32;
    let f = x - n;
    let mut v = EXP2_COEFFICIENTS[6];
    for j in (0..6).rev() {
        v = fma(v, f, EXP2_COEFFICIENTS[j]);
    }
    if x.is_nan() {
        return f32::NAN;
    }
    scale_twice(v, i)
}

/// Above this `exp` is infinite.
pub const EXP_MAX: f32 = 88.722_83;
/// Below this `exp` is +0.
pub const EXP_MIN: f32 = -87.336_5;
/// Below this `exp2p` is +0.
pub const EXP2_MIN: f32 = -126.0;
/// -0x1.62e4p-1, the leading bits of -ln 2.
pub const EXP_LN2_HIGH: f32 = f32::from_bits(0xBF31_7200);
/// -0x1.7f7d1cp-20, what is left of -ln 2.
pub const EXP_LN2_LOW: f32 = f32::from_bits(0xB5BF_BE8E);
/// Polynomial of e^r on |r| <= ln(2)/2, constant term first.
pub const EXP_COEFFICIENTS: [f32; 7] = [
    1.0,
    1.0,
    f32::from_bits(0x3EFF_FFFE), // 0x1.fffffcp-2
    f32::from_bits(0x3E2A_AA49), // 0x1.555492p-3
    f32::from_bits(0x3D2A_AC79), // 0x1.5558f2p-5
    f32::from_bits(0x3C09_1CFB), // 0x1.1239f6p-7
    f32::from_bits(0x3AB5_120B), // 0x1.6a2416p-10
];
/// Polynomial of 2^f on |f| <= 1/2, constant term first.
pub const EXP2_COEFFICIENTS: [f32; 7] = [
    1.0,
    f32::from_bits(0x3F31_7218), // 0x1.62e430p-1
    f32::from_bits(0x3E75_FDEE), // 0x1.ebfbdcp-3
    f32::from_bits(0x3D63_57BE), // 0x1.c6af7cp-5
    f32::from_bits(0x3C1D_96F0), // 0x1.3b2de0p-7
    f32::from_bits(0x3AAF_8418), // 0x1.5f0830p-10
    f32::from_bits(0x3920_B5AF), // 0x1.416b5ep-13
];
