//! The paths of x86-64. Each type's only constructor is its `detect`, so holding a value proves the features.

mod tall;
mod transpose;

use std::arch::x86_64::*;

use super::super::tile::{From, Operands, To};
use super::{Simd, scalar};

/// Proof of AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Proof of AVX-512F (and AVX2, FMA).
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx2 {
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

impl Avx512 {
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        (Avx2::detect().is_some() && is_x86_feature_detected!("avx512f")).then_some(Self(()))
    }
}

#[target_feature(enable = "avx2,fma")]
fn in_avx2<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn in_avx512<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// One prefetch per cache line.
#[inline(always)]
fn prefetch(x: &[f32]) {
    for line in x.chunks(16) {
        // SAFETY: a prefetch touches no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
}

/// Methods that are one intrinsic each.
macro_rules! one_to_one {
    ($($name:ident ( $($arg:ident : $ty:ident),* ) -> $ret:ident = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Self::$ty),*) -> Self::$ret {
            // SAFETY: `self` proves that the CPU has the features of the intrinsic, which touches no memory.
            unsafe { $body }
        }
    )*};
}

impl Simd for Avx2 {
    type F = __m256;
    type I = __m256i;
    type M = __m256;
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    fn prefetch(self, x: &[f32]) {
        prefetch(x);
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: `self` proves AVX2; the rest is the caller's promise.
        unsafe { transpose::square_8(from, from_row, to, to_row) }
    }

    #[inline(always)]
    unsafe fn tall_tile(self, depth: usize, operands: Operands, from: From, to: To) {
        // SAFETY: `self` proves AVX2 and FMA; the rest is the caller's promise.
        unsafe { tall::tile_6(depth, operands, from, to) }
    }

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        // SAFETY: `self` proves AVX2 and FMA.
        unsafe { in_avx2(f) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, x: *const f32) -> __m256 {
        // SAFETY: `self` proves AVX2; the caller promises 8 readable elements, alignment is not asked for.
        unsafe { _mm256_loadu_ps(x) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, v: __m256, x: *mut f32) {
        // SAFETY: `self` proves AVX2; the caller promises 8 writable elements, alignment is not asked for.
        unsafe { _mm256_storeu_ps(x, v) }
    }
    #[inline(always)]
    fn fma1(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    one_to_one! {
        fma(a: F, b: F, c: F) -> F = _mm256_fmadd_ps(a, b, c);
        add(a: F, b: F) -> F = _mm256_add_ps(a, b);
        sub(a: F, b: F) -> F = _mm256_sub_ps(a, b);
        mul(a: F, b: F) -> F = _mm256_mul_ps(a, b);
        div(a: F, b: F) -> F = _mm256_div_ps(a, b);
        sqrt(a: F) -> F = _mm256_sqrt_ps(a);
        neg(a: F) -> F = _mm256_xor_ps(a, _mm256_set1_ps(-0.0));
        gt(a: F, b: F) -> M = _mm256_cmp_ps::<_CMP_GT_OQ>(a, b);
        select(m: M, a: F, b: F) -> F = _mm256_blendv_ps(b, a, m);
        magic_to_int(t: F) -> I =
            _mm256_sub_epi32(_mm256_castps_si256(t), _mm256_set1_epi32(scalar::MAGIC.to_bits() as i32));
        int_sub(a: I, b: I) -> I = _mm256_sub_epi32(a, b);
        int_half(a: I) -> I = _mm256_srai_epi32::<1>(a);
        power_of_two(i: I) -> F =
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(i, _mm256_set1_epi32(127))));
    }
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type M = __mmask16;
    const LANES: usize = 16;
    const TILE_ROWS: usize = 14;

    #[inline(always)]
    fn prefetch(self, x: &[f32]) {
        prefetch(x);
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        // SAFETY: `self` proves AVX-512F; the rest is the caller's promise.
        unsafe { transpose::square_16(from, from_row, to, to_row) }
    }

    #[inline(always)]
    unsafe fn tall_tile(self, depth: usize, operands: Operands, from: From, to: To) {
        // SAFETY: `self` proves AVX-512F; the rest is the caller's promise.
        unsafe { tall::tile_14(depth, operands, from, to) }
    }

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        // SAFETY: `self` proves AVX-512F, AVX2 and FMA.
        unsafe { in_avx512(f) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, x: *const f32) -> __m512 {
        // SAFETY: `self` proves AVX-512F; the caller promises 16 readable elements, alignment is not asked for.
        unsafe { _mm512_loadu_ps(x) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, v: __m512, x: *mut f32) {
        // SAFETY: `self` proves AVX-512F; the caller promises 16 writable elements, alignment is not asked for.
        unsafe { _mm512_storeu_ps(x, v) }
    }
    #[inline(always)]
    fn fma1(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    one_to_one! {
        fma(a: F, b: F, c: F) -> F = _mm512_fmadd_ps(a, b, c);
        add(a: F, b: F) -> F = _mm512_add_ps(a, b);
        sub(a: F, b: F) -> F = _mm512_sub_ps(a, b);
        mul(a: F, b: F) -> F = _mm512_mul_ps(a, b);
        div(a: F, b: F) -> F = _mm512_div_ps(a, b);
        sqrt(a: F) -> F = _mm512_sqrt_ps(a);
        neg(a: F) -> F = _mm512_castsi512_ps(_mm512_xor_si512(
            _mm512_castps_si512(a), _mm512_set1_epi32(i32::MIN)));
        gt(a: F, b: F) -> M = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b);
        select(m: M, a: F, b: F) -> F = _mm512_mask_blend_ps(m, b, a);
        magic_to_int(t: F) -> I =
            _mm512_sub_epi32(_mm512_castps_si512(t), _mm512_set1_epi32(scalar::MAGIC.to_bits() as i32));
        int_sub(a: I, b: I) -> I = _mm512_sub_epi32(a, b);
        int_half(a: I) -> I = _mm512_srai_epi32::<1>(a);
        power_of_two(i: I) -> F =
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(i, _mm512_set1_epi32(127))));
    }
}
