//! Lossy codecs of f32 tensors with canonical bytes: one tensor has one encoding, and a decoder refuses any other.
//!
//! ```text
//! F32    n x 4 bytes    the bits of each element, little-endian
//! Bf16   n x 2 bytes    round to nearest even, little-endian
//! Int8   ceil(n/128) bytes, then n bytes
//!
//!        +------+------+-----+--------+------+------+-----+--------+
//!        | e[0] | e[1] | ... | e[b-1] | q[0] | q[1] | ... | q[n-1] |     b = ceil(n/128); all signed bytes
//!        +------+------+-----+--------+------+------+-----+--------+
//!
//!        block j holds elements 128j ..; the last may be partial and is as if padded with zeros
//!        e = frexp exponent of the block's largest magnitude (amax in [2^(e-1), 2^e)), clamped to -52..=74; amax = 0: -52
//!        q = rni(x * 2^(7-e)) clamped to -127..=127          back: x = f32(q) * 2^(e-7)
//! ```
//!
//! Canonical also means: no q = -128, e within -52..=74, and max |q| >= 64 in every block whose e is above -52. Hence
//! `encode(decode(bytes)) == bytes` for all accepted bytes. NaN and infinity have no encoding: the microbatch is struck.

pub mod cases;
pub mod cpu;
pub mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod trials;

pub use crate::common::block::{BLOCK, EXPONENT_MAX, EXPONENT_MIN};
use crate::{
    catalogue::Cost,
    common::{shape::expect_len, simd::SimdPath},
};

/// A lossy format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Raw f32.
    F32,
    /// Raw bf16.
    Bf16,
    /// Blocks of 128 bytes with a power-of-two scale.
    Int8,
}

impl Format {
    /// Bytes of `count` encoded elements.
    pub fn encoded_len(self, count: usize) -> usize {
        match self {
            Self::F32 => 4 * count,
            Self::Bf16 => 2 * count,
            Self::Int8 => count.div_ceil(BLOCK) + count,
        }
    }
}

/// A value without an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("element {index} is NaN or infinite and has no encoding: strike the microbatch as non_finite")]
pub struct NonFinite {
    /// Where it stands.
    pub index: usize,
}

/// Bytes that no encoder writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Wrong number of bytes.
    #[error(
        "{count} elements of {format:?} are {expected} bytes, found {found}: the sender used another shape or format"
    )]
    Length {
        /// Format expected.
        format: Format,
        /// Elements expected.
        count: usize,
        /// Bytes expected.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// NaN or infinity in a raw format.
    #[error("element {index} is NaN or infinite: no encoder writes that, refuse the sender's block")]
    NonFinite {
        /// Where it stands.
        index: usize,
    },
    /// A block's exponent out of range.
    #[error(
        "block {block} has exponent {found}, expected {EXPONENT_MIN}..={EXPONENT_MAX}: refuse the sender's block"
    )]
    Exponent {
        /// Which block.
        block: usize,
        /// Exponent found.
        found: i32,
    },
    /// A code of -128.
    #[error("element {index} has code -128, expected -127..=127: refuse the sender's block")]
    Code {
        /// Where it stands.
        index: usize,
    },
    /// A block whose scale is larger than its elements need.
    #[error(
        "block {block} with exponent {exponent} has a largest code of {found}, expected at least 64: refuse the sender's block"
    )]
    NotCanonical {
        /// Which block.
        block: usize,
        /// Its exponent.
        exponent: i32,
        /// The largest magnitude among its codes.
        found: i32,
    },
}

/// Writes the encoding of `x` to `bytes`, which holds `format.encoded_len(x.len())`.
///
/// # Errors
/// [`NonFinite`] names the first element that is NaN or infinite, also after rounding to bf16; `bytes` is then
/// unspecified.
pub fn encode(format: Format, x: &[f32], bytes: &mut [u8]) -> Result<(), NonFinite> {
    cpu::encode(SimdPath::best(), format, x, bytes)
}

/// Encodes `v = x + residual` and leaves in `residual` what the encoding lost: `v - decode(encode(v))`.
///
/// # Errors
/// [`NonFinite`] names the first element of `v` without an encoding; `residual` is then as before.
pub fn encode_with_feedback(
    format: Format,
    x: &[f32],
    residual: &mut [f32],
    bytes: &mut [u8],
) -> Result<(), NonFinite> {
    cpu::encode_with_feedback(SimdPath::best(), format, x, residual, bytes)
}

/// Writes the decoded elements to `y`.
///
/// # Errors
/// [`DecodeError`] says what about the bytes is not canonical; `y` is then unspecified.
pub fn decode(format: Format, bytes: &[u8], y: &mut [f32]) -> Result<(), DecodeError> {
    cpu::decode(SimdPath::best(), format, bytes, y)
}

/// Cost of coding `count` elements in either direction.
pub fn cost(format: Format, count: usize) -> Cost {
    Cost { bytes: (4 * count + format.encoded_len(count)) as u64, flops: 3 * count as u64 }
}

#[track_caller]
fn check(format: Format, count: usize, bytes: usize) {
    expect_len("codec", "bytes", bytes, format.encoded_len(count));
}
