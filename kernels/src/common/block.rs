//! Blocks of integers with a power-of-two scale, the one quantiser of the project.

use super::scalar::{MAGIC, power_of_two};

/// Elements of a block.
pub const BLOCK: usize = 128;
/// Smallest exponent of a block.
pub const EXPONENT_MIN: i32 = -52;
/// Largest exponent of a block.
pub const EXPONENT_MAX: i32 = 74;

/// The exponent of a block whose largest magnitude is `amax` (finite): e with amax in [2^(e-1), 2^e), clamped.
pub fn exponent(amax: f32) -> i32 {
    // Zero and subnormals have a biased exponent of 0 and are far below the clamp.
    let frexp = (amax.to_bits() >> 23 & 0xFF) as i32 - 126;
    frexp.clamp(EXPONENT_MIN, EXPONENT_MAX)
}

/// The largest code of `bits` bits.
pub fn code_max(bits: u32) -> i32 {
    (1 << (bits - 1)) - 1
}

/// The factor from values to codes.
pub fn to_code(bits: u32, e: i32) -> f32 {
    power_of_two(bits as i32 - 1 - e)
}

/// The factor from codes to values.
pub fn from_code(bits: u32, e: i32) -> f32 {
    power_of_two(e - bits as i32 + 1)
}

/// `rni(x * factor)` clamped to +-`max`, for finite x.
pub fn quantise(x: f32, factor: f32, max: i32) -> i32 {
    let max = max as f32;
    (x * factor).clamp(-max, max).round_ties_even() as i32
}

/// The nearest integer, ties to even, for |x| < 2^22: an addition instead of a conversion that saturates, so that loops
/// become vectors.
#[inline(always)]
pub fn rni(x: f32) -> i32 {
    ((x + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32)
}
