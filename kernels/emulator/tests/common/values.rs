//! Inputs.

/// Values of both signs and many sizes, the same in every run.
pub fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    (0..count)
        .map(|_| (next() as f32 / (1 << 23) as f32 - 1.0) * 2f32.powi((next() % 9) as i32 - 4))
        .collect()
}
