//! Integer arithmetic and comparison in 128 bits.

use std::cmp::Ordering;

use super::Oracle;
use super::types::Ty;

pub fn oracle(name: &str) -> Option<Oracle> {
    let (op, suffix) = name.rsplit_once('.')?;
    let ty = Ty::parse(suffix)?;
    if !matches!(ty, Ty::U(_) | Ty::S(_)) {
        return None;
    }
    let two = [ty, ty];
    let pair = move |b: &[u64]| (ty.value(b[0]), ty.value(b[1]));
    match op {
        "add" => Oracle::new(&two, ty, move |b| (pair(b).0 + pair(b).1) as u64),
        "sub" => Oracle::new(&two, ty, move |b| (pair(b).0 - pair(b).1) as u64),
        "mul.lo" => Oracle::new(&two, ty, move |b| product(ty, b).0),
        "mul.hi" => Oracle::new(&two, ty, move |b| product(ty, b).1),
        "mad.lo" => Oracle::new(&[ty; 3], ty, move |b| product(ty, b).0.wrapping_add(b[2])),
        "mad.hi" => Oracle::new(&[ty; 3], ty, move |b| product(ty, b).1.wrapping_add(b[2])),
        "mul.wide" | "mad.wide" => {
            let wide = if matches!(ty, Ty::S(_)) { Ty::S(2 * ty.bytes()) } else { Ty::U(2 * ty.bytes()) };
            let exact = move |b: &[u64]| (pair(b).0 * pair(b).1) as u64;
            if op == "mul.wide" {
                return Oracle::new(&two, wide, exact);
            }
            Oracle::new(&[ty, ty, wide], wide, move |b| exact(b).wrapping_add(b[2]))
        }
        "div" => {
            Oracle::new(&two, ty, move |b| if b[1] == 0 { u64::MAX } else { (pair(b).0 / pair(b).1) as u64 })
        }
        "rem" => {
            Oracle::new(&two, ty, move |b| if b[1] == 0 { b[0] } else { (pair(b).0 % pair(b).1) as u64 })
        }
        "min" => Oracle::new(&two, ty, move |b| pair(b).0.min(pair(b).1) as u64),
        "max" => Oracle::new(&two, ty, move |b| pair(b).0.max(pair(b).1) as u64),
        "neg" => Oracle::new(&[ty], ty, move |b| -ty.value(b[0]) as u64),
        "abs" => Oracle::new(&[ty], ty, move |b| ty.value(b[0]).unsigned_abs() as u64),
        // Bits shift like unsigned integers; beyond the width only the sign is left, or nothing.
        "shr" => Oracle::new(&[ty, Ty::Amount], ty, move |b| {
            let by = (b[1] as u32).min(ty.width());
            ty.value(b[0]).div_euclid(1i128 << by) as u64
        }),
        "shl" => Oracle::new(&[ty, Ty::Amount], ty, move |b| {
            let by = (b[1] as u32).min(ty.width());
            (ty.value(b[0]) << by) as u64
        }),
        _ => {
            let comparison = op.strip_prefix("setp.")?;
            let known = ["eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs"];
            let comparison = known.iter().find(|known| **known == comparison)?;
            let holds = {
                let comparison = *comparison;
                move |order: Ordering| match comparison {
                    "eq" => order.is_eq(),
                    "ne" => order.is_ne(),
                    "lt" | "lo" => order.is_lt(),
                    "le" | "ls" => order.is_le(),
                    "gt" | "hi" => order.is_gt(),
                    _ => order.is_ge(),
                }
            };
            Oracle::new(&two, Ty::Pred, move |b| u64::from(holds(pair(b).0.cmp(&pair(b).1))))
        }
    }
}

/// Low and high half of a product, by schoolbook multiplication of 32-bit limbs where 128 bits would overflow.
fn product(ty: Ty, b: &[u64]) -> (u64, u64) {
    let (x, y) = (ty.value(b[0]), ty.value(b[1]));
    if ty.bytes() < 8 {
        let exact = x * y;
        return (exact as u64, (exact >> ty.width()) as u64);
    }
    let (u, v) = (b[0], b[1]);
    let limbs = |n: u64| [n & 0xffff_ffff, n >> 32];
    let mut digits = [0u128; 4];
    for (i, x) in limbs(u).iter().enumerate() {
        for (j, y) in limbs(v).iter().enumerate() {
            digits[i + j] += u128::from(*x) * u128::from(*y);
        }
    }
    for i in 0..3 {
        digits[i + 1] += digits[i] >> 32;
        digits[i] &= 0xffff_ffff;
    }
    let mut high = (digits[2] + (digits[3] << 32)) as u64;
    // A negative factor counts 2^64 too much, times the other.
    if x < 0 {
        high = high.wrapping_sub(v);
    }
    if y < 0 {
        high = high.wrapping_sub(u);
    }
    ((digits[0] + (digits[1] << 32)) as u64, high)
}
