//! What replicas of a stage merge, as bytes: each one's scales and integer codes, pieces of them ([`piece`]) that open
//! against what their maker committed to, and exact weighted sums ([`sum`]).
//!
//! ```text
//! offset  size  field
//!      0     4  magic "ICB1"
//!      4     1  kind: 0 contribution, 2 scales
//!      5     1  bits of a code, 2 to 8
//!      6     2  zero
//!      8     8  weight, u64 LE: microbatches folded in this epoch
//!     16     8  count, u64 LE: values of the stage
//!     24     -  exponents, i8, one per 128 values (the last block may be partial)
//!      .     -  contribution: codes, i8 each
//! ```

mod piece;
mod sum;
mod tree;

pub use piece::{Committed, Piece};
pub use sum::Sum;

use kernels::codec::{EXPONENT_MAX, EXPONENT_MIN};
use kernels::merge::BLOCK;

const MAGIC: [u8; 4] = *b"ICB1";
const HEADER_LEN: usize = 24;
const KIND_CONTRIBUTION: u8 = 0;
const KIND_SCALES: u8 = 2;

/// Values in a leaf of a contribution's tree: the grain of pieces.
pub const LEAF: usize = 1024;

/// One replica's change of the weights over an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contribution {
    /// Bits of a code.
    pub bits: u8,
    /// Microbatches folded.
    pub weight: u32,
    /// Exponent of each block.
    pub exponents: Vec<i8>,
    /// One code per value.
    pub codes: Vec<i16>,
}

/// The exponents on which one replica could tell its change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scales {
    /// Bits of a code.
    pub bits: u8,
    /// Microbatches folded.
    pub weight: u32,
    /// Exponent of each block.
    pub exponents: Vec<i8>,
}

/// Bytes that are not the contribution or sum expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContributionError {
    /// A field differs from what the run prescribes.
    #[error("contribution {field}: expected {expected}, found {found}; refuse the sender's block")]
    Field {
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A number out of its range.
    #[error(
        "contribution {field} {index} is {found}, expected within {min}..={max}; refuse the sender's block"
    )]
    Range {
        /// The field.
        field: &'static str,
        /// Which one.
        index: usize,
        /// Its value.
        found: i64,
        /// Smallest legal value.
        min: i64,
        /// Largest legal value.
        max: i64,
    },
    /// Contributions on different scales cannot be added.
    #[error(
        "contribution {index}: exponent of block {block} differs from the first contribution's; share exponents before encoding"
    )]
    Exponents {
        /// Which contribution.
        index: usize,
        /// First block that differs.
        block: usize,
    },
}

impl Contribution {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes =
            header(KIND_CONTRIBUTION, self.bits, u64::from(self.weight), self.codes.len(), &self.exponents);
        // At most 8 bits by `bits`.
        bytes.extend(self.codes.iter().map(|&code| code as u8));
        bytes
    }

    /// Reads a contribution of `count` values. Any bytes may come in; none makes it panic.
    ///
    /// # Errors
    /// [`ContributionError`] says what is not as expected.
    pub fn from_bytes(bits: u8, count: usize, bytes: &[u8]) -> Result<Self, ContributionError> {
        let (weight, exponents, body) = parse(KIND_CONTRIBUTION, bits, count, 1, bytes)?;
        let codes: Vec<i16> = body.iter().map(|&byte| i16::from(byte as i8)).collect();
        check_range("code", codes.iter().map(|&code| i64::from(code)), -code_max(bits), code_max(bits))?;
        Ok(Self { bits, weight, exponents, codes })
    }
}

impl Scales {
    /// The canonical bytes, for a stage of `count` values.
    pub fn to_bytes(&self, count: usize) -> Vec<u8> {
        header(KIND_SCALES, self.bits, u64::from(self.weight), count, &self.exponents)
    }

    /// Reads the scales of `count` values. Any bytes may come in; none makes it panic.
    ///
    /// # Errors
    /// [`ContributionError`] says what is not as expected.
    pub fn from_bytes(bits: u8, count: usize, bytes: &[u8]) -> Result<Self, ContributionError> {
        let (weight, exponents, _) = parse(KIND_SCALES, bits, count, 0, bytes)?;
        Ok(Self { bits, weight, exponents })
    }
}

fn header(kind: u8, bits: u8, weight: u64, count: usize, exponents: &[i8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + exponents.len() + 8 * count);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[kind, bits, 0, 0]);
    bytes.extend_from_slice(&weight.to_le_bytes());
    bytes.extend_from_slice(&(count as u64).to_le_bytes());
    bytes.extend_from_slice(bytemuck::cast_slice(exponents));
    bytes
}

/// Weight, exponents and body of a block with `width` bytes per value.
fn parse(
    kind: u8,
    bits: u8,
    count: usize,
    width: usize,
    bytes: &[u8],
) -> Result<(u32, Vec<i8>, &[u8]), ContributionError> {
    let blocks = count.div_ceil(BLOCK);
    let expected_len = HEADER_LEN + blocks + width * count;
    if bytes.len() != expected_len {
        return Err(field("length in bytes", expected_len, bytes.len()));
    }
    let (head, rest) = bytes.split_at(HEADER_LEN);
    let (exponents, body) = rest.split_at(blocks);
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |n: u64, &byte| n << 8 | u64::from(byte));
    let fields = [
        ("magic", number(&head[..4]), u64::from(u32::from_le_bytes(MAGIC))),
        ("kind", number(&head[4..5]), u64::from(kind)),
        ("bits", number(&head[5..6]), u64::from(bits)),
        ("reserved field", number(&head[6..8]), 0),
        ("count", number(&head[16..24]), count as u64),
    ];
    for (name, found, expected) in fields {
        if found != expected {
            return Err(field(name, expected, found));
        }
    }
    let exponents: Vec<i8> = bytemuck::cast_slice(exponents).to_vec();
    check_exponents(&exponents)?;
    let weight = number(&head[8..16]);
    let weight = u32::try_from(weight).map_err(|_| field("weight", "below 2^32", weight))?;
    Ok((weight, exponents, body))
}

fn check_exponents(exponents: &[i8]) -> Result<(), ContributionError> {
    let wide = exponents.iter().map(|&e| i64::from(e));
    check_range("exponent", wide, i64::from(EXPONENT_MIN), i64::from(EXPONENT_MAX))
}

fn code_max(bits: u8) -> i64 {
    (1 << (bits - 1)) - 1
}

fn field(field: &'static str, expected: impl ToString, found: impl ToString) -> ContributionError {
    ContributionError::Field { field, expected: expected.to_string(), found: found.to_string() }
}

fn check_range(
    field: &'static str,
    values: impl Iterator<Item = i64>,
    min: i64,
    max: i64,
) -> Result<(), ContributionError> {
    for (index, found) in values.enumerate() {
        if !(min..=max).contains(&found) {
            return Err(ContributionError::Range { field, index, found, min, max });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contribution(weight: u32) -> Contribution {
        let codes = (0..200).map(|i| (i % 15) - 7).collect();
        Contribution { bits: 4, weight, exponents: vec![-3, 5], codes }
    }

    #[test]
    fn bytes_come_back_and_the_header_is_frozen() {
        let bytes = contribution(9).to_bytes();
        assert_eq!(bytes[..26], *b"ICB1\0\x04\0\0\x09\0\0\0\0\0\0\0\xC8\0\0\0\0\0\0\0\xFD\x05");
        assert_eq!(Contribution::from_bytes(4, 200, &bytes), Ok(contribution(9)));
        let scales = Scales { bits: 4, weight: 9, exponents: vec![-3, 5] };
        assert_eq!(Scales::from_bytes(4, 200, &scales.to_bytes(200)), Ok(scales));
        assert!(Scales::from_bytes(4, 200, &bytes).is_err());
    }

    #[test]
    fn codes_and_exponents_out_of_range_are_named() {
        let message = |bytes: &[u8]| Contribution::from_bytes(4, 200, bytes).unwrap_err().to_string();
        let good = contribution(9).to_bytes();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        assert!(message(&with(26 + 7, 8)).contains("code 7 is 8, expected within -7..=7"));
        assert!(message(&with(25, 75)).contains("exponent 1 is 75, expected within -52..=74"));
        assert!(message(&with(5, 8)).contains("bits: expected 4, found 8"));
        assert!(message(&with(13, 1)).contains("weight: expected below 2^32"));
        assert!(message(&good[..200]).contains("length in bytes: expected 226, found 200"));
    }

    proptest! {
        #[test]
        fn decoding_any_bytes_never_panics(at in 0usize..300, byte: u8, noise in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Contribution::from_bytes(4, 200, &noise);
            let _ = Scales::from_bytes(4, 200, &noise);
            let mut damaged = contribution(9).to_bytes();
            let at = at % damaged.len();
            damaged[at] = byte;
            if let Ok(read) = Contribution::from_bytes(4, 200, &damaged) {
                prop_assert_eq!(read.to_bytes(), damaged);
            }
        }
    }
}
