//! Conversions. Rust's `as` from floating point to integers truncates and saturates as PTX's `.rzi` does; what
//! is not a number goes to 0 between 32-bit types and to the lone top bit where either side has 64.

use super::float::canonical;
use crate::exec::lane::{LaneOp, lane_ops};

pub(super) static ROWS: &[&[LaneOp]] = &[
    FROM_U8,
    FROM_U16,
    FROM_U32,
    FROM_U64,
    FROM_S8,
    FROM_S16,
    FROM_S32,
    FROM_S64,
    SINGLE_NEAREST,
    SINGLE_ZERO,
    SINGLE_DOWN,
    SINGLE_UP,
    DOUBLE_NEAREST,
    DOUBLE_ZERO,
    DOUBLE_DOWN,
    DOUBLE_UP,
    FLOAT,
    BRAIN,
];

macro_rules! from_integer {
    ($name:literal, $ty:ty) => {
        lane_ops! {
            concat!("cvt.u8.", $name), (a: $ty) -> u8 { a as u8 }
            concat!("cvt.u16.", $name), (a: $ty) -> u16 { a as u16 }
            concat!("cvt.u32.", $name), (a: $ty) -> u32 { a as u32 }
            concat!("cvt.u64.", $name), (a: $ty) -> u64 { a as u64 }
            concat!("cvt.s8.", $name), (a: $ty) -> i8 { a as i8 }
            concat!("cvt.s16.", $name), (a: $ty) -> i16 { a as i16 }
            concat!("cvt.s32.", $name), (a: $ty) -> i32 { a as i32 }
            concat!("cvt.s64.", $name), (a: $ty) -> i64 { a as i64 }
            concat!("cvt.rn.f32.", $name), (a: $ty) -> f32 { a as f32 }
            concat!("cvt.rn.f64.", $name), (a: $ty) -> f64 { a as f64 }
        }
    };
}

static FROM_U8: &[LaneOp] = from_integer!("u8", u8);
static FROM_U16: &[LaneOp] = from_integer!("u16", u16);
static FROM_U32: &[LaneOp] = from_integer!("u32", u32);
static FROM_U64: &[LaneOp] = from_integer!("u64", u64);
static FROM_S8: &[LaneOp] = from_integer!("s8", i8);
static FROM_S16: &[LaneOp] = from_integer!("s16", i16);
static FROM_S32: &[LaneOp] = from_integer!("s32", i32);
static FROM_S64: &[LaneOp] = from_integer!("s64", i64);

macro_rules! to_integer {
    ($mode:literal, $round:ident, $name:literal, $ty:ty, $narrow_nan:expr) => {
        lane_ops! {
            concat!("cvt.", $mode, ".u8.", $name), (a: $ty) -> u8 { a.$round() as u8 }
            concat!("cvt.", $mode, ".u16.", $name), (a: $ty) -> u16 { a.$round() as u16 }
            concat!("cvt.", $mode, ".s8.", $name), (a: $ty) -> i8 { a.$round() as i8 }
            concat!("cvt.", $mode, ".s16.", $name), (a: $ty) -> i16 { a.$round() as i16 }
            concat!("cvt.", $mode, ".u32.", $name), (a: $ty) -> u32 {
                if a.is_nan() { $narrow_nan } else { a.$round() as u32 }
            }
            concat!("cvt.", $mode, ".s32.", $name), (a: $ty) -> i32 {
                if a.is_nan() { $narrow_nan as i32 } else { a.$round() as i32 }
            }
            concat!("cvt.", $mode, ".u64.", $name), (a: $ty) -> u64 {
                if a.is_nan() { 1 << 63 } else { a.$round() as u64 }
            }
            concat!("cvt.", $mode, ".s64.", $name), (a: $ty) -> i64 {
                if a.is_nan() { i64::MIN } else { a.$round() as i64 }
            }
        }
    };
}

static SINGLE_NEAREST: &[LaneOp] = to_integer!("rni", round_ties_even, "f32", f32, 0u32);
static SINGLE_ZERO: &[LaneOp] = to_integer!("rzi", trunc, "f32", f32, 0u32);
static SINGLE_DOWN: &[LaneOp] = to_integer!("rmi", floor, "f32", f32, 0u32);
static SINGLE_UP: &[LaneOp] = to_integer!("rpi", ceil, "f32", f32, 0u32);
static DOUBLE_NEAREST: &[LaneOp] = to_integer!("rni", round_ties_even, "f64", f64, 1u32 << 31);
static DOUBLE_ZERO: &[LaneOp] = to_integer!("rzi", trunc, "f64", f64, 1u32 << 31);
static DOUBLE_DOWN: &[LaneOp] = to_integer!("rmi", floor, "f64", f64, 1u32 << 31);
static DOUBLE_UP: &[LaneOp] = to_integer!("rpi", ceil, "f64", f64, 1u32 << 31);

static FLOAT: &[LaneOp] = lane_ops! {
    "cvt.f32.f32", (a: f32) -> f32 { a }
    "cvt.f64.f64", (a: f64) -> f64 { a }
    "cvt.f64.f32", (a: f32) -> f64 { f64::from(a) }
    "cvt.rn.f32.f64", (a: f64) -> u32 { canonical(a as f32) }
    "cvt.rni.f32.f32", (a: f32) -> u32 { canonical(a.round_ties_even()) }
    "cvt.rzi.f32.f32", (a: f32) -> u32 { canonical(a.trunc()) }
    "cvt.rmi.f32.f32", (a: f32) -> u32 { canonical(a.floor()) }
    "cvt.rpi.f32.f32", (a: f32) -> u32 { canonical(a.ceil()) }
    "cvt.rni.f64.f64", (a: f64) -> f64 { a.round_ties_even() }
    "cvt.rzi.f64.f64", (a: f64) -> f64 { a.trunc() }
    "cvt.rmi.f64.f64", (a: f64) -> f64 { a.floor() }
    "cvt.rpi.f64.f64", (a: f64) -> f64 { a.ceil() }
};

static BRAIN: &[LaneOp] = lane_ops! {
    "cvt.rn.bf16.f32", (a: f32) -> u16 { to_brain(a) }
    "cvt.f32.bf16", (a: u16) -> u32 { canonical(f32::from_bits(u32::from(a) << 16)) }
    "cvt.rn.bf16x2.f32", (high: f32, low: f32) -> u32 { u32::from(to_brain(high)) << 16 | u32::from(to_brain(low)) }
};

/// bfloat16, rounded to nearest even; 0x7fff where not a number.
#[inline(always)]
fn to_brain(value: f32) -> u16 {
    let bits = value.to_bits();
    let even = bits >> 16 & 1;
    if value.is_nan() { 0x7fff } else { (bits.wrapping_add(0x7fff + even) >> 16) as u16 }
}
