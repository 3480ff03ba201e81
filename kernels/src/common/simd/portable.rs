//! The path of every target, in plain Rust.

use super::super::tile::{self, From, Operands, Steps, To};
use super::{Simd, scalar};

/// Vectors of eight.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn map(f: impl Fn(usize) -> f32) -> [f32; 8] {
    std::array::from_fn(f)
}

impl Simd for Portable {
    type F = [f32; 8];
    type I = [i32; 8];
    type M = [bool; 8];
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    unsafe fn tall_tile(self, depth: usize, operands: Operands, from: From, to: To) {
        // SAFETY: the caller's promise.
        unsafe { tile::run::<Self, 6>(self, Steps::whole(depth), operands, from, to) }
    }

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load_ptr(self, x: *const f32) -> Self::F {
        // SAFETY: the caller promises 8 readable elements; an unaligned read asks for no more.
        unsafe { x.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, v: Self::F, x: *mut f32) {
        // SAFETY: the caller promises 8 writable elements; an unaligned write asks for no more.
        unsafe { x.cast::<[f32; 8]>().write_unaligned(v) }
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        map(|i| scalar::fma(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn fma1(self, a: f32, b: f32, c: f32) -> f32 {
        scalar::fma(a, b, c)
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        map(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        map(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        map(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        map(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        map(|i| a[i].sqrt())
    }
    #[inline(always)]
    fn neg(self, a: Self::F) -> Self::F {
        map(|i| -a[i])
    }
    #[inline(always)]
    fn gt(self, a: Self::F, b: Self::F) -> Self::M {
        std::array::from_fn(|i| a[i] > b[i])
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F {
        map(|i| if m[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn magic_to_int(self, t: Self::F) -> Self::I {
        std::array::from_fn(|i| t[i].to_bits().wrapping_sub(scalar::MAGIC.to_bits()) as i32)
    }
    #[inline(always)]
    fn int_sub(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn int_half(self, a: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] >> 1)
    }
    #[inline(always)]
    fn power_of_two(self, i: Self::I) -> Self::F {
        map(|l| f32::from_bits((i[l].wrapping_add(127) as u32) << 23))
    }
}
