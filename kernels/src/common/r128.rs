//! R128, the one reduction of a row: its shape depends on nothing but the row's length.
//!
//! 128 accumulators start at +0; element i goes to accumulator i mod 128, i ascending; then `q[l] = (a[4l] + a[4l+1]) +
//! (a[4l+2] + a[4l+3])` for l in 0..32, then halving: `q[l] += q[l + 16]`, 8, 4, 2, 1. Rows longer than 16384 are cut
//! into chunks of 16384, whose sums are added ascending, the first taken as it is.

/// Accumulators.
pub const LANES: usize = 128;
/// Elements of one chunk of a long row.
pub const CHUNK: usize = 16_384;

/// R128 over `0..n`; `step(i, acc)` is the accumulator after element `i`.
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
