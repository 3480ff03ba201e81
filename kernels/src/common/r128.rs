//! R128, the one reduction of a row: its shape depends on nothing but the row's length.
//!
//! 128 accumulators start at +0; element i goes to accumulator i mod 128, i ascending; then `q[l] = (a[4l] + a[4l+1]) +
//! (a[4l+2] + a[4l+3])` for l in 0..32, then halving: `q[l] += q[l + 16]`, 8, 4, 2, 1. Rows longer than 16384 are cut
//! into chunks of 16384, whose sums are added ascending, the first taken as it is.

use super::simd::Simd;

/// Accumulators.
pub const LANES: usize = 128;
/// Elements of one chunk of a long row.
pub const CHUNK: usize = 16_384;

/// R128 over `0..n`, plainly; `step(i, acc)` is the accumulator after element `i`.
pub fn r128(n: usize, step: impl Fn(usize, f32) -> f32) -> f32 {
    let mut total = chunk(0, n.min(CHUNK), &step);
    let mut first = CHUNK;
    while first < n {
        total += chunk(first, (n - first).min(CHUNK), &step);
        first += CHUNK;
    }
    total
}

fn chunk(first: usize, n: usize, step: &impl Fn(usize, f32) -> f32) -> f32 {
    let mut acc = [0.0f32; LANES];
    for i in 0..n {
        acc[i % LANES] = step(first + i, acc[i % LANES]);
    }
    tree(&acc)
}

/// The tree that ends R128.
#[inline(always)]
pub fn tree(acc: &[f32; LANES]) -> f32 {
    let mut q = [0.0f32; 32];
    for l in 0..32 {
        q[l] = (acc[4 * l] + acc[4 * l + 1]) + (acc[4 * l + 2] + acc[4 * l + 3]);
    }
    let mut half = 16;
    while half > 0 {
        for l in 0..half {
            q[l] += q[l + half];
        }
        half /= 2;
    }
    q[0]
}

/// R128 over `0..n` in vectors: `step(i, acc)` takes elements `i..i + LANES`, `step1(i, acc)` one of the tail.
#[inline(always)]
pub(crate) fn r128_simd<S: Simd>(
    s: S,
    n: usize,
    step: impl Fn(usize, S::F) -> S::F,
    step1: impl Fn(usize, f32) -> f32,
) -> f32 {
    let mut total = chunk_simd(s, 0, n.min(CHUNK), &step, &step1);
    let mut first = CHUNK;
    while first < n {
        total += chunk_simd(s, first, (n - first).min(CHUNK), &step, &step1);
        first += CHUNK;
    }
    total
}

#[inline(always)]
fn chunk_simd<S: Simd>(
    s: S,
    first: usize,
    n: usize,
    step: &impl Fn(usize, S::F) -> S::F,
    step1: &impl Fn(usize, f32) -> f32,
) -> f32 {
    // Paths of 8 lanes use all 16 vectors, wider ones the first few: 128 accumulators, kept in registers.
    let mut vectors = [s.splat(0.0); 16];
    for group in 0..n / LANES {
        for v in 0..LANES / S::LANES {
            vectors[v] = step(first + group * LANES + v * S::LANES, vectors[v]);
        }
    }
    let mut acc = [0.0f32; LANES];
    for v in 0..LANES / S::LANES {
        s.store(vectors[v], &mut acc[v * S::LANES..]);
    }
    for i in n / LANES * LANES..n {
        acc[i % LANES] = step1(first + i, acc[i % LANES]);
    }
    tree(&acc)
}
