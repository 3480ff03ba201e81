//! The vector paths of the CPU: one body per kernel, instantiated for each instruction set.
//!
//! A kernel's body is generic over [`Simd`] and marked `#[inline(always)]`; [`dispatch!`] runs it inside a function
//! compiled with the path's target features. A value of a path's type is the proof that the CPU has the path, which is
//! what makes the methods safe.

mod portable;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

pub(crate) use portable::Portable;

use super::{
    scalar,
    tile::{From, Operands, To},
};
use std::sync::atomic::{AtomicU8, Ordering};

/// The highest path that [`SimdPath::best`] may choose.
static CEILING: AtomicU8 = AtomicU8::new(SimdPath::Avx512 as u8);

/// One way of running a kernel on this CPU. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SimdPath {
    /// No instruction beyond the target's baseline.
    Portable,
    /// AVX2 with FMA, x86-64 only.
    Avx2,
    /// AVX-512F, x86-64 only.
    Avx512,
}

impl SimdPath {
    /// The paths this CPU has, slowest first.
    pub fn available() -> Vec<Self> {
        [Self::Portable, Self::Avx2, Self::Avx512].into_iter().filter(|path| path.is_available()).collect()
    }

    /// The fastest path this CPU has, up to [`SimdPath::limit`].
    pub fn best() -> Self {
        let ceiling = CEILING.load(Ordering::Relaxed);
        let usable = |path: &Self| *path as u8 <= ceiling && path.is_available();
        [Self::Avx512, Self::Avx2].into_iter().find(usable).unwrap_or(Self::Portable)
    }

    /// From now on this process takes no path beyond this one: to see that the bits stay the same.
    pub fn limit(self) {
        CEILING.store(self as u8, Ordering::Relaxed);
    }

    /// Whether this CPU has the path.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86::Avx512::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }
}

/// Runs `$body` with `$s` the [`Simd`] of `$path`, compiled for it.
///
/// # Panics
/// If the CPU lacks the path.
macro_rules! dispatch {
    ($path:expr, |$s:ident| $body:expr) => {{
        use $crate::common::simd::{self, Simd as _};
        $crate::common::float_env::assert_default();
        match $path {
            simd::SimdPath::Portable => {
                let $s = simd::Portable;
                $s.vectorize(
                    #[inline(always)]
                    || $body,
                )
            }
            #[cfg(target_arch = "x86_64")]
            simd::SimdPath::Avx2 => {
                let $s = simd::present(simd::x86::Avx2::detect());
                $s.vectorize(
                    #[inline(always)]
                    || $body,
                )
            }
            #[cfg(target_arch = "x86_64")]
            simd::SimdPath::Avx512 => {
                let $s = simd::present(simd::x86::Avx512::detect());
                $s.vectorize(
                    #[inline(always)]
                    || $body,
                )
            }
            #[cfg(not(target_arch = "x86_64"))]
            path => simd::present(Err(path).ok()),
        }
    }};
}
pub(crate) use dispatch;

/// What [`dispatch!`] asks for a path's proof with.
#[track_caller]
pub(crate) fn present<S>(proof: Option<S>) -> S {
    match proof {
        Some(proof) => proof,
        None => panic!("this CPU lacks the SIMD path asked for; ask SimdPath::available() first"),
    }
}

/// The vector operations kernels are written in. Floats round to nearest even; nothing is contracted or reordered.
pub(crate) trait Simd: Copy + Send + Sync {
    /// A vector of f32.
    type F: Copy;
    /// A vector of i32.
    type I: Copy;
    /// A vector of yes and no.
    type M: Copy;
    /// Elements of a vector: 8 or 16.
    const LANES: usize;
    /// Rows of the matrix product's register tile.
    const TILE_ROWS: usize;

    /// [`tile::run`](super::tile::run) for `TILE_ROWS` rows.
    ///
    /// # Safety
    /// As there.
    unsafe fn tall_tile(self, depth: usize, operands: Operands, from: From, to: To);

    /// Runs `f` in a function compiled for the path.
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R;

    /// Asks for values to be brought near; nothing where the path cannot.
    #[inline(always)]
    fn prefetch(self, _x: &[f32]) {}

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F;
    /// `LANES` elements.
    ///
    /// # Safety
    /// `x..x + LANES` can be read.
    unsafe fn load_ptr(self, x: *const f32) -> Self::F;
    /// Writes `LANES` elements.
    ///
    /// # Safety
    /// `x..x + LANES` can be written.
    unsafe fn store_ptr(self, v: Self::F, x: *mut f32);

    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The same for one element.
    fn fma1(self, a: f32, b: f32, c: f32) -> f32;
    /// Sum.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// Difference.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// Product.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// Quotient.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// Square root.
    fn sqrt(self, a: Self::F) -> Self::F;
    /// The other sign, also of zero.
    fn neg(self, a: Self::F) -> Self::F;
    /// `a > b`, no where a NaN is involved.
    fn gt(self, a: Self::F, b: Self::F) -> Self::M;
    /// `m ? a : b`.
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F;

    /// The integer in the low bits of `t = x + MAGIC`.
    fn magic_to_int(self, t: Self::F) -> Self::I;
    /// `a - b`.
    fn int_sub(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a >> 1`, keeping the sign.
    fn int_half(self, a: Self::I) -> Self::I;
    /// `2^i` for i in -126..=127; anything for others.
    fn power_of_two(self, i: Self::I) -> Self::F;

    /// `to[j * to_row + i] = from[i * from_row + j]` for a square of `LANES`.
    ///
    /// # Safety
    /// `LANES` rows of `LANES` elements can be read at `from` and written at `to`; rows written may overlap, and the later
    /// one counts.
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        for j in 0..Self::LANES {
            for i in 0..Self::LANES {
                // SAFETY: element (i, j) of the square, readable and writable by contract.
                unsafe { *to.add(j * to_row + i) = *from.add(i * from_row + j) };
            }
        }
    }

    /// The first `LANES` elements of `x`.
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F {
        assert!(x.len() >= Self::LANES);
        // SAFETY: the slice holds at least LANES elements.
        unsafe { self.load_ptr(x.as_ptr()) }
    }

    /// Writes the first `LANES` elements of `x`.
    #[inline(always)]
    fn store(self, v: Self::F, x: &mut [f32]) {
        assert!(x.len() >= Self::LANES);
        // SAFETY: the slice holds at least LANES elements.
        unsafe { self.store_ptr(v, x.as_mut_ptr()) }
    }

    /// At most `LANES` elements, padded with zeros.
    #[inline(always)]
    fn load_partial(self, x: &[f32]) -> Self::F {
        let mut whole = [0.0; MAX_LANES];
        whole[..x.len()].copy_from_slice(x);
        self.load(&whole)
    }

    /// Writes all of `x`, at most `LANES` elements.
    #[inline(always)]
    fn store_partial(self, v: Self::F, x: &mut [f32]) {
        let mut whole = [0.0; MAX_LANES];
        self.store(v, &mut whole);
        x.copy_from_slice(&whole[..x.len()]);
    }

    /// `a > b ? a : b`, as [`scalar::max`].
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        self.select(self.gt(a, b), a, b)
    }
}

/// The most elements a vector of any path holds.
pub(crate) const MAX_LANES: usize = 16;

/// e^x, as [`scalar::exp`].
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let magic = s.splat(scalar::MAGIC);
    let t = s.fma(x, s.splat(scalar::LOG2_E), magic);
    let n = s.sub(t, magic);
    let i = s.magic_to_int(t);
    let r = s.fma(n, s.splat(scalar::EXP_LN2_HIGH), x);
    let r = s.fma(n, s.splat(scalar::EXP_LN2_LOW), r);
    let v = scale_twice(s, horner(s, r, &scalar::EXP_COEFFICIENTS), i);
    let v = s.select(s.gt(x, s.splat(scalar::EXP_MAX)), s.splat(f32::INFINITY), v);
    s.select(s.gt(s.splat(scalar::EXP_MIN), x), s.splat(0.0), v)
}

/// 2^x for x <= 0, as [`scalar::exp2p`].
#[inline(always)]
pub(crate) fn exp2p<S: Simd>(s: S, x: S::F) -> S::F {
    let magic = s.splat(scalar::MAGIC);
    let t = s.add(x, magic);
    let i = s.magic_to_int(t);
    let f = s.sub(x, s.sub(t, magic));
    let v = scale_twice(s, horner(s, f, &scalar::EXP2_COEFFICIENTS), i);
    s.select(s.gt(s.splat(scalar::EXP2_MIN), x), s.splat(0.0), v)
}

#[inline(always)]
fn horner<S: Simd>(s: S, r: S::F, coefficients: &[f32; 7]) -> S::F {
    let mut v = s.splat(coefficients[6]);
    for j in (0..6).rev() {
        v = s.fma(v, r, s.splat(coefficients[j]));
    }
    v
}

#[inline(always)]
fn scale_twice<S: Simd>(s: S, v: S::F, i: S::I) -> S::F {
    let half = s.int_half(i);
    s.mul(s.mul(v, s.power_of_two(half)), s.power_of_two(s.int_sub(i, half)))
}
