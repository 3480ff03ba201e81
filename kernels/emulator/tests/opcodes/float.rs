//! Floating point. Binary32 arithmetic goes through binary64, where one rounding more changes nothing: a sum,
//! quotient or root of 24-bit numbers is never so near the middle of two of them. The fused multiply-add
//! rounds to odd there first, which makes the second rounding harmless too.

use std::cmp::Ordering;

use super::Oracle;
use super::types::Ty;

pub fn oracle(name: &str) -> Option<Oracle> {
    let (op, suffix) = name.rsplit_once('.')?;
    let ty = Ty::parse(suffix)?;
    let Ty::F(bytes) = ty else { return None };
    let single = bytes == 4;
    // Values as binary64, results rounded back.
    let real =
        move |bits: u64| if single { f64::from(f32::from_bits(bits as u32)) } else { f64::from_bits(bits) };
    let back = move |value: f64| if single { canonical(value) } else { value.to_bits() };
    let one = [ty];
    let two = [ty, ty];
    let sign = 1u64 << (ty.width() - 1);
    match op {
        "add.rn" => Oracle::new(&two, ty, move |b| back(real(b[0]) + real(b[1]))),
        "sub.rn" => Oracle::new(&two, ty, move |b| back(real(b[0]) - real(b[1]))),
        "mul.rn" => Oracle::new(&two, ty, move |b| back(real(b[0]) * real(b[1]))),
        "div.rn" => Oracle::new(&two, ty, move |b| back(real(b[0]) / real(b[1]))),
        "rcp.rn" => Oracle::new(&one, ty, move |b| back(1.0 / real(b[0]))),
        "sqrt.rn" => Oracle::new(&one, ty, move |b| back(real(b[0]).sqrt())),
        "fma.rn" if single => {
            Oracle::new(&[ty; 3], ty, move |b| back(odd_fma(real(b[0]), real(b[1]), real(b[2]))))
        }
        "fma.rn" => Oracle::new(&[ty; 3], ty, move |b| real(b[0]).mul_add(real(b[1]), real(b[2])).to_bits()),
        "neg" => Oracle::new(&one, ty, move |b| b[0] ^ sign),
        "abs" => Oracle::new(&one, ty, move |b| b[0] & !sign),
        "copysign" => Oracle::new(&two, ty, move |b| (b[0] & sign) | (b[1] & !sign)),
        "min" | "max" | "min.NaN" | "max.NaN" => {
            let (least, strict) = (op.starts_with("min"), op.ends_with("NaN"));
            Oracle::new(&two, ty, move |b| {
                let (x, y) = (real(b[0]), real(b[1]));
                if (strict && (x.is_nan() || y.is_nan())) || (x.is_nan() && y.is_nan()) {
                    return back(f64::NAN);
                }
                if x.is_nan() || y.is_nan() {
                    return if x.is_nan() { b[1] } else { b[0] };
                }
                // The total order puts -0 below +0.
                let first_is_least = x.total_cmp(&y) != Ordering::Greater;
                if first_is_least == least { b[0] } else { b[1] }
            })
        }
        _ => {
            if let Some(class) = op.strip_prefix("testp.") {
                let class = CLASSES.iter().find(|known| known.0 == class)?;
                return Oracle::new(&one, Ty::Pred, move |b| u64::from((class.1)(b[0] as u32)));
            }
            let comparison = op.strip_prefix("setp.")?;
            // What is asked of a pair in order, and the answer where there is no order.
            let (asked, unordered): (fn(Ordering) -> bool, bool) = match comparison {
                "eq" | "equ" => (Ordering::is_eq, comparison == "equ"),
                "ne" | "neu" => (Ordering::is_ne, comparison == "neu"),
                "lt" | "ltu" => (Ordering::is_lt, comparison == "ltu"),
                "le" | "leu" => (Ordering::is_le, comparison == "leu"),
                "gt" | "gtu" => (Ordering::is_gt, comparison == "gtu"),
                "ge" | "geu" => (Ordering::is_ge, comparison == "geu"),
                "num" => (|_| true, false),
                "nan" => (|_| false, true),
                _ => return None,
            };
            Oracle::new(&two, Ty::Pred, move |b| {
                u64::from(real(b[0]).partial_cmp(&real(b[1])).map_or(unordered, asked))
            })
        }
    }
}

type Class = (&'static str, fn(u32) -> bool);

/// By exponent and fraction fields.
const CLASSES: &[Class] = &[
    ("finite", |bits| bits >> 23 & 255 != 255),
    ("infinite", |bits| bits & 0x7fff_ffff == 0x7f80_0000),
    ("number", |bits| bits & 0x7fff_ffff <= 0x7f80_0000),
    ("notanumber", |bits| bits & 0x7fff_ffff > 0x7f80_0000),
    ("normal", |bits| !matches!(bits >> 23 & 255, 0 | 255)),
    ("subnormal", |bits| bits >> 23 & 255 == 0 && bits & 0x007f_ffff != 0),
];

/// Rounds to binary32; what is not a number becomes the one the hardware gives.
pub fn canonical(value: f64) -> u64 {
    if value.is_nan() { 0x7fff_ffff } else { u64::from((value as f32).to_bits()) }
}

/// a * b + c of binary32 values as binary64 rounded to odd. The product is exact; the sum's error comes from
/// the two-sum algorithm; where it is not zero, the neighbour with an odd last bit is taken.
pub fn odd_fma(a: f64, b: f64, c: f64) -> f64 {
    let product = a * b;
    let sum = product + c;
    if !sum.is_finite() || sum == 0.0 {
        return sum;
    }
    let part = sum - product;
    let error = (product - (sum - part)) + (c - part);
    if error == 0.0 || sum.to_bits() & 1 == 1 {
        return sum;
    }
    let away = (error > 0.0) == (sum > 0.0);
    f64::from_bits(if away { sum.to_bits() + 1 } else { sum.to_bits() - 1 })
}

#[test]
fn the_oracle_rounds_known_sums_right() {
    let fma = |a: f32, b: f32, c: f32| canonical(odd_fma(a.into(), b.into(), c.into())) as u32;
    // (1 + 2^-23)(1 - 2^-23) - 1 = -2^-46, which separate rounding loses.
    assert_eq!(fma(f32::from_bits(0x3f80_0001), 1.0 - 2f32.powi(-23), -1.0), (-(2f32.powi(-46))).to_bits());
    // 1 + 2^-24 is a tie to even; one part in 2^100 more decides it upwards.
    assert_eq!(fma(2f32.powi(-12), 2f32.powi(-12), 1.0), 0x3f80_0000);
    assert_eq!(fma(2f32.powi(-12), f32::from_bits(0x3980_0001), 1.0), 0x3f80_0001);
}
