//! Moves, logic, shifts, selection and bit fields.

use crate::exec::lane::{LaneOp, lane_ops};
use crate::exec::memory::{LOCAL_WINDOW, SHARED_WINDOW};

pub(super) static ROWS: &[&[LaneOp]] =
    &[LOGIC_16, LOGIC_32, LOGIC_64, TYPED_MOVES, SELECT, PREDICATES, FIELDS, PACKING, WINDOWS];

macro_rules! logic {
    ($name:literal, $ty:ty) => {
        lane_ops! {
            concat!("and.", $name), (a: $ty, b: $ty) -> $ty { a & b }
            concat!("or.", $name), (a: $ty, b: $ty) -> $ty { a | b }
            concat!("xor.", $name), (a: $ty, b: $ty) -> $ty { a ^ b }
            concat!("not.", $name), (a: $ty) -> $ty { !a }
            concat!("cnot.", $name), (a: $ty) -> $ty { <$ty>::from(a == 0) }
            concat!("shl.", $name), (a: $ty, by: u32) -> $ty { if by < <$ty>::BITS { a << by } else { 0 } }
            concat!("shr.", $name), (a: $ty, by: u32) -> $ty { if by < <$ty>::BITS { a >> by } else { 0 } }
            concat!("mov.", $name), (a: $ty) -> $ty { a }
        }
    };
}

static LOGIC_16: &[LaneOp] = logic!("b16", u16);
static LOGIC_32: &[LaneOp] = logic!("b32", u32);
static LOGIC_64: &[LaneOp] = logic!("b64", u64);

static TYPED_MOVES: &[LaneOp] = lane_ops! {
    "mov.u16", (a: u16) -> u16 { a }
    "mov.s16", (a: i16) -> i16 { a }
    "mov.u32", (a: u32) -> u32 { a }
    "mov.s32", (a: u32) -> u32 { a }
    "mov.f32", (a: u32) -> u32 { a }
    "mov.u64", (a: u64) -> u64 { a }
    "mov.s64", (a: u64) -> u64 { a }
    "mov.f64", (a: u64) -> u64 { a }
};

static SELECT: &[LaneOp] = lane_ops! {
    "selp.b16", (a: u16, b: u16, p: bool) -> u16 { if p { a } else { b } }
    "selp.u16", (a: u16, b: u16, p: bool) -> u16 { if p { a } else { b } }
    "selp.s16", (a: i16, b: i16, p: bool) -> i16 { if p { a } else { b } }
    "selp.b32", (a: u32, b: u32, p: bool) -> u32 { if p { a } else { b } }
    "selp.u32", (a: u32, b: u32, p: bool) -> u32 { if p { a } else { b } }
    "selp.s32", (a: u32, b: u32, p: bool) -> u32 { if p { a } else { b } }
    "selp.f32", (a: u32, b: u32, p: bool) -> u32 { if p { a } else { b } }
    "selp.b64", (a: u64, b: u64, p: bool) -> u64 { if p { a } else { b } }
    "selp.u64", (a: u64, b: u64, p: bool) -> u64 { if p { a } else { b } }
    "selp.s64", (a: u64, b: u64, p: bool) -> u64 { if p { a } else { b } }
    "selp.f64", (a: u64, b: u64, p: bool) -> u64 { if p { a } else { b } }
};

static PREDICATES: &[LaneOp] = lane_ops! {
    "mov.pred", (a: bool) -> bool { a }
    "not.pred", (a: bool) -> bool { !a }
    "and.pred", (a: bool, b: bool) -> bool { a & b }
    "or.pred", (a: bool, b: bool) -> bool { a | b }
    "xor.pred", (a: bool, b: bool) -> bool { a ^ b }
};

static FIELDS: &[LaneOp] = lane_ops! {
    "popc.b32", (a: u32) -> u32 { a.count_ones() }
    "popc.b64", (a: u64) -> u32 { a.count_ones() }
    "clz.b32", (a: u32) -> u32 { a.leading_zeros() }
    "clz.b64", (a: u64) -> u32 { a.leading_zeros() }
    "brev.b32", (a: u32) -> u32 { a.reverse_bits() }
    "brev.b64", (a: u64) -> u64 { a.reverse_bits() }
    "bfind.u32", (a: u32) -> u32 { 31u32.wrapping_sub(a.leading_zeros()) }
    "bfind.s32", (a: i32) -> u32 { 31u32.wrapping_sub((a ^ a >> 31).leading_zeros()) }
    "bfind.u64", (a: u64) -> u32 { 63u32.wrapping_sub(a.leading_zeros()) }
    "bfind.s64", (a: i64) -> u32 { 63u32.wrapping_sub((a ^ a >> 63).leading_zeros()) }
    "bfind.shiftamt.u32", (a: u32) -> u32 { if a == 0 { !0 } else { a.leading_zeros() } }
    "bfind.shiftamt.u64", (a: u64) -> u32 { if a == 0 { !0 } else { a.leading_zeros() } }
    "bfe.u32", (a: u32, at: u32, len: u32) -> u32 { field(u64::from(a), at, len, 32) as u32 }
    "bfe.u64", (a: u64, at: u32, len: u32) -> u64 { field(a, at, len, 64) }
    "bfe.s32", (a: i32, at: u32, len: u32) -> u32 { signed_field(i64::from(a), at, len, 32) as u32 }
    "bfe.s64", (a: i64, at: u32, len: u32) -> i64 { signed_field(a, at, len, 64) }
    "bfi.b32", (a: u32, b: u32, at: u32, len: u32) -> u32 {
        insert(u64::from(a), u64::from(b), at, len, 32) as u32
    }
    "bfi.b64", (a: u64, b: u64, at: u32, len: u32) -> u64 { insert(a, b, at, len, 64) }
    "shf.l.wrap.b32", (a: u32, b: u32, by: u32) -> u32 { (pair(a, b) << (by & 31) >> 32) as u32 }
    "shf.r.wrap.b32", (a: u32, b: u32, by: u32) -> u32 { (pair(a, b) >> (by & 31)) as u32 }
    "shf.l.clamp.b32", (a: u32, b: u32, by: u32) -> u32 {
        if by >= 32 { a } else { (pair(a, b) << by >> 32) as u32 }
    }
    "shf.r.clamp.b32", (a: u32, b: u32, by: u32) -> u32 { if by >= 32 { b } else { (pair(a, b) >> by) as u32 } }
    "prmt.b32", (a: u32, b: u32, selector: u32) -> u32 { permute(a, b, selector) }
    "lop3.b32", (a: u32, b: u32, c: u32, table: u32) -> u32 { lookup(a, b, c, table) }
};

/// Names ending in `@n` are written by the decoder, for `mov` with a braced vector; PTX has no such word.
static PACKING: &[LaneOp] = lane_ops! {
    "pack.b32@2", (a: u16, b: u16) -> u32 { u32::from(a) | u32::from(b) << 16 }
    "pack.b64@2", (a: u32, b: u32) -> u64 { pair(a, b) }
    "pack.b64@4", (a: u16, b: u16, c: u16, d: u16) -> u64 {
        u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(d) << 48
    }
    "part.b32@2", (a: u32, index: u32) -> u16 { (a >> (16 * (index & 1))) as u16 }
    "part.b64@2", (a: u64, index: u32) -> u32 { (a >> (32 * (index & 1))) as u32 }
    "part.b64@4", (a: u64, index: u32) -> u16 { (a >> (16 * (index & 3))) as u16 }
};

static WINDOWS: &[LaneOp] = lane_ops! {
    "cvta.to.global.u64", (a: u64) -> u64 { a }
    "cvta.global.u64", (a: u64) -> u64 { a }
    "cvta.to.const.u64", (a: u64) -> u64 { a }
    "cvta.const.u64", (a: u64) -> u64 { a }
    "cvta.to.shared.u64", (a: u64) -> u64 { a.wrapping_sub(SHARED_WINDOW) }
    "cvta.shared.u64", (a: u64) -> u64 { a.wrapping_add(SHARED_WINDOW) }
    "cvta.to.local.u64", (a: u64) -> u64 { a.wrapping_sub(LOCAL_WINDOW) }
    "cvta.local.u64", (a: u64) -> u64 { a.wrapping_add(LOCAL_WINDOW) }
};

#[inline(always)]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[inline(always)]
fn ones(len: u32) -> u64 {
    if len >= 64 { !0 } else { (1 << len) - 1 }
}

/// Only the low byte of position and length counts.
#[inline(always)]
fn field(a: u64, at: u32, len: u32, width: u32) -> u64 {
    let (at, len) = (at & 255, len & 255);
    if at >= width { 0 } else { a >> at & ones(len) }
}

/// The field's top bit, or the value's when the field reaches beyond it, is the sign.
#[inline(always)]
fn signed_field(a: i64, at: u32, len: u32, width: u32) -> i64 {
    let (at, len) = (at & 255, len & 255);
    if len == 0 {
        return 0;
    }
    let top = (at + len - 1).min(width - 1);
    let sign = if a >> top & 1 != 0 { !0 } else { 0 };
    if at >= width {
        return sign;
    }
    let kept = ones(len.min(width - at)) as i64;
    (a >> at & kept) | (sign & !kept)
}

#[inline(always)]
fn insert(a: u64, b: u64, at: u32, len: u32, width: u32) -> u64 {
    let (at, len) = (at & 255, len & 255);
    if at >= width {
        return b;
    }
    let mask = ones(len.min(width - at)) << at;
    b & !mask | a << at & mask
}

#[inline(always)]
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = pair(a, b);
    let mut out = 0;
    for index in 0..4 {
        let pick = selector >> (4 * index) & 15;
        let byte = (bytes >> (8 * (pick & 7))) as u8;
        // The top bit of a selector asks for copies of the byte's sign.
        let byte = if pick & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
        out |= u32::from(byte) << (8 * index);
    }
    out
}

#[inline(always)]
fn lookup(a: u32, b: u32, c: u32, table: u32) -> u32 {
    let mut out = 0;
    for row in 0..8 {
        if table >> row & 1 != 0 {
            let (x, y, z) = (row >> 2 & 1, row >> 1 & 1, row & 1);
            out |=
                (if x == 1 { a } else { !a }) & (if y == 1 { b } else { !b }) & (if z == 1 { c } else { !c });
        }
    }
    out
}
