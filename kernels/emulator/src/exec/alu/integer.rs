//! Integer arithmetic. Division by zero gives all ones, the remainder then is the dividend: PTX leaves both
//! open, and a fixed answer keeps runs reproducible.

use crate::exec::lane::{LaneOp, lane_ops};

pub(super) static ROWS: &[&[LaneOp]] =
    &[UNSIGNED_16, UNSIGNED_32, UNSIGNED_64, SIGNED_16, SIGNED_32, SIGNED_64, WIDE, ONLY_SIGNED];

macro_rules! common {
    ($name:literal, $ty:ty, $wide:ty) => {
        lane_ops! {
            concat!("add.", $name), (a: $ty, b: $ty) -> $ty { a.wrapping_add(b) }
            concat!("sub.", $name), (a: $ty, b: $ty) -> $ty { a.wrapping_sub(b) }
            concat!("mul.lo.", $name), (a: $ty, b: $ty) -> $ty { a.wrapping_mul(b) }
            concat!("mul.hi.", $name), (a: $ty, b: $ty) -> $ty {
                ((a as $wide * b as $wide) >> <$ty>::BITS) as $ty
            }
            concat!("mad.lo.", $name), (a: $ty, b: $ty, c: $ty) -> $ty { a.wrapping_mul(b).wrapping_add(c) }
            concat!("mad.hi.", $name), (a: $ty, b: $ty, c: $ty) -> $ty {
                (((a as $wide * b as $wide) >> <$ty>::BITS) as $ty).wrapping_add(c)
            }
            concat!("div.", $name), (a: $ty, b: $ty) -> $ty {
                if b == 0 { !0 } else { a.wrapping_div(b) }
            }
            concat!("rem.", $name), (a: $ty, b: $ty) -> $ty {
                if b == 0 { a } else { a.wrapping_rem(b) }
            }
            concat!("min.", $name), (a: $ty, b: $ty) -> $ty { if a < b { a } else { b } }
            concat!("max.", $name), (a: $ty, b: $ty) -> $ty { if a > b { a } else { b } }
            concat!("shr.", $name), (a: $ty, by: u32) -> $ty {
                // An amount beyond the width counts as the width: zeros, or copies of the sign.
                if by < <$ty>::BITS { a >> by } else { (a >> (<$ty>::BITS - 1)) >> 1 }
            }
        }
    };
}

static UNSIGNED_16: &[LaneOp] = common!("u16", u16, u32);
static UNSIGNED_32: &[LaneOp] = common!("u32", u32, u64);
static UNSIGNED_64: &[LaneOp] = common!("u64", u64, u128);
static SIGNED_16: &[LaneOp] = common!("s16", i16, i32);
static SIGNED_32: &[LaneOp] = common!("s32", i32, i64);
static SIGNED_64: &[LaneOp] = common!("s64", i64, i128);

static WIDE: &[LaneOp] = lane_ops! {
    "mul.wide.u16", (a: u16, b: u16) -> u32 { u32::from(a) * u32::from(b) }
    "mul.wide.s16", (a: i16, b: i16) -> i32 { i32::from(a) * i32::from(b) }
    "mul.wide.u32", (a: u32, b: u32) -> u64 { u64::from(a) * u64::from(b) }
    "mul.wide.s32", (a: i32, b: i32) -> i64 { i64::from(a) * i64::from(b) }
    "mad.wide.u16", (a: u16, b: u16, c: u32) -> u32 { (u32::from(a) * u32::from(b)).wrapping_add(c) }
    "mad.wide.s16", (a: i16, b: i16, c: i32) -> i32 { (i32::from(a) * i32::from(b)).wrapping_add(c) }
    "mad.wide.u32", (a: u32, b: u32, c: u64) -> u64 { (u64::from(a) * u64::from(b)).wrapping_add(c) }
    "mad.wide.s32", (a: i32, b: i32, c: i64) -> i64 { (i64::from(a) * i64::from(b)).wrapping_add(c) }
};

static ONLY_SIGNED: &[LaneOp] = lane_ops! {
    "neg.s16", (a: i16) -> i16 { a.wrapping_neg() }
    "neg.s32", (a: i32) -> i32 { a.wrapping_neg() }
    "neg.s64", (a: i64) -> i64 { a.wrapping_neg() }
    "abs.s16", (a: i16) -> i16 { a.wrapping_abs() }
    "abs.s32", (a: i32) -> i32 { a.wrapping_abs() }
    "abs.s64", (a: i64) -> i64 { a.wrapping_abs() }
};
