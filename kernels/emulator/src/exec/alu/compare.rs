//! Comparisons to a predicate. The two-destination and combining forms of `setp` are these rows followed by
//! logic on predicates, written by the decoder.

use crate::exec::lane::{LaneOp, lane_ops};

pub(super) static ROWS: &[&[LaneOp]] =
    &[U16, U32, U64, S16, S32, S64, B16, B32, B64, F32, F32_UNORDERED, F64, F64_UNORDERED];

macro_rules! equality {
    ($name:literal, $ty:ty) => {
        lane_ops! {
            concat!("setp.eq.", $name), (a: $ty, b: $ty) -> bool { a == b }
            concat!("setp.ne.", $name), (a: $ty, b: $ty) -> bool { a != b }
        }
    };
}

macro_rules! signed {
    ($name:literal, $ty:ty) => {
        lane_ops! {
            concat!("setp.eq.", $name), (a: $ty, b: $ty) -> bool { a == b }
            concat!("setp.ne.", $name), (a: $ty, b: $ty) -> bool { a != b }
            concat!("setp.lt.", $name), (a: $ty, b: $ty) -> bool { a < b }
            concat!("setp.le.", $name), (a: $ty, b: $ty) -> bool { a <= b }
            concat!("setp.gt.", $name), (a: $ty, b: $ty) -> bool { a > b }
            concat!("setp.ge.", $name), (a: $ty, b: $ty) -> bool { a >= b }
        }
    };
}

macro_rules! unsigned {
    ($name:literal, $ty:ty) => {
        lane_ops! {
            concat!("setp.eq.", $name), (a: $ty, b: $ty) -> bool { a == b }
            concat!("setp.ne.", $name), (a: $ty, b: $ty) -> bool { a != b }
            concat!("setp.lt.", $name), (a: $ty, b: $ty) -> bool { a < b }
            concat!("setp.le.", $name), (a: $ty, b: $ty) -> bool { a <= b }
            concat!("setp.gt.", $name), (a: $ty, b: $ty) -> bool { a > b }
            concat!("setp.ge.", $name), (a: $ty, b: $ty) -> bool { a >= b }
            concat!("setp.lo.", $name), (a: $ty, b: $ty) -> bool { a < b }
            concat!("setp.ls.", $name), (a: $ty, b: $ty) -> bool { a <= b }
            concat!("setp.hi.", $name), (a: $ty, b: $ty) -> bool { a > b }
            concat!("setp.hs.", $name), (a: $ty, b: $ty) -> bool { a >= b }
        }
    };
}

/// True only between numbers, `ne` included.
macro_rules! ordered {
    ($name:literal, $ty:ty) => {
        lane_ops! {
            concat!("setp.eq.", $name), (a: $ty, b: $ty) -> bool { a == b }
            concat!("setp.ne.", $name), (a: $ty, b: $ty) -> bool { (a < b) | (a > b) }
            concat!("setp.lt.", $name), (a: $ty, b: $ty) -> bool { a < b }
            concat!("setp.le.", $name), (a: $ty, b: $ty) -> bool { a <= b }
            concat!("setp.gt.", $name), (a: $ty, b: $ty) -> bool { a > b }
            concat!("setp.ge.", $name), (a: $ty, b: $ty) -> bool { a >= b }
            concat!("setp.num.", $name), (a: $ty, b: $ty) -> bool { !a.is_nan() & !b.is_nan() }
        }
    };
}

/// True also where one is not a number.
macro_rules! unordered {
    ($name:literal, $ty:ty) => {
        lane_ops! {
            concat!("setp.equ.", $name), (a: $ty, b: $ty) -> bool { !((a < b) | (a > b)) }
            concat!("setp.neu.", $name), (a: $ty, b: $ty) -> bool { a != b }
            concat!("setp.ltu.", $name), (a: $ty, b: $ty) -> bool { (a < b) | a.is_nan() | b.is_nan() }
            concat!("setp.leu.", $name), (a: $ty, b: $ty) -> bool { (a <= b) | a.is_nan() | b.is_nan() }
            concat!("setp.gtu.", $name), (a: $ty, b: $ty) -> bool { (a > b) | a.is_nan() | b.is_nan() }
            concat!("setp.geu.", $name), (a: $ty, b: $ty) -> bool { (a >= b) | a.is_nan() | b.is_nan() }
            concat!("setp.nan.", $name), (a: $ty, b: $ty) -> bool { a.is_nan() | b.is_nan() }
        }
    };
}

static U16: &[LaneOp] = unsigned!("u16", u16);
static U32: &[LaneOp] = unsigned!("u32", u32);
static U64: &[LaneOp] = unsigned!("u64", u64);
static S16: &[LaneOp] = signed!("s16", i16);
static S32: &[LaneOp] = signed!("s32", i32);
static S64: &[LaneOp] = signed!("s64", i64);
static B16: &[LaneOp] = equality!("b16", u16);
static B32: &[LaneOp] = equality!("b32", u32);
static B64: &[LaneOp] = equality!("b64", u64);
static F32: &[LaneOp] = ordered!("f32", f32);
static F32_UNORDERED: &[LaneOp] = unordered!("f32", f32);
static F64: &[LaneOp] = ordered!("f64", f64);
static F64_UNORDERED: &[LaneOp] = unordered!("f64", f64);
