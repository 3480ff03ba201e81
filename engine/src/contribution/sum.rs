//! The exact weighted sum of several replicas' pieces.
//!
//! ```text
//!      0     4  magic "ICS1"
//!      4     1  bits of a code, 2 to 8
//!      5     1  width: bytes of a sum, the fewest of 1, 2, 4, 8 that hold weight * largest code with its sign
//!      6     2  zero
//!      8     8  weight, u64 LE: microbatches folded by all together
//!     16     8  count, u64 LE: values of the stage
//!     24     8  first leaf, u64 LE
//!     32     8  leaves, u64 LE
//!     40     -  exponents of these leaves, i8
//!      .     -  sums, signed LE, `width` bytes each
//! ```

use super::piece::Piece;
use super::{ContributionError, LEAF, check_exponents, check_range, code_max, field};
use kernels::merge::{self, BLOCK};
use std::ops::Range;

const MAGIC: [u8; 4] = *b"ICS1";
const HEADER_LEN: usize = 40;

/// The weighted sum of pieces of the same leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// Bits of a code.
    pub bits: u8,
    /// Microbatches folded by all.
    pub weight: u64,
    /// Values of the stage.
    pub count: usize,
    /// Which leaves.
    pub leaves: Range<u64>,
    /// Exponent of each block.
    pub exponents: Vec<i8>,
    /// One sum per value.
    pub sums: Vec<i64>,
}

impl Sum {
    /// Adds pieces, exactly.
    ///
    /// # Errors
    /// There are none, or not all are of the same leaves and on the same exponents.
    pub fn of(bits: u8, count: usize, pieces: &[Piece]) -> Result<Self, ContributionError> {
        let first = pieces.first().ok_or_else(|| field("pieces", "at least one", 0))?;
        let (leaves, exponents) = (first.leaves.clone(), first.exponents.clone());
        let mut sum = Self { bits, weight: 0, count, leaves, exponents, sums: vec![0; first.codes.len()] };
        for (index, piece) in pieces.iter().enumerate() {
            if piece.leaves != sum.leaves {
                return Err(field("leaves", format!("{:?}", sum.leaves), format!("{:?}", piece.leaves)));
            }
            let mut pairs = piece.exponents.iter().zip(&sum.exponents);
            if let Some(block) = pairs.position(|(a, b)| a != b) {
                return Err(ContributionError::Exponents { index, block });
            }
            merge::accumulate(&mut sum.sums, &piece.codes, piece.weight);
            sum.weight += u64::from(piece.weight);
        }
        Ok(sum)
    }

    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let width = width(self.bits, self.weight);
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.exponents.len() + width * self.sums.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[self.bits, width as u8, 0, 0]);
        for number in [self.weight, self.count as u64, self.leaves.start, self.leaves.end - self.leaves.start]
        {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(bytemuck::cast_slice(&self.exponents));
        self.sums.iter().for_each(|sum| bytes.extend_from_slice(&sum.to_le_bytes()[..width]));
        bytes
    }

    /// Reads a sum over leaves of a stage of `count` values. Any bytes may come in; none makes it panic.
    ///
    /// # Errors
    /// [`ContributionError`] says what is not as expected.
    pub fn from_bytes(bits: u8, count: usize, bytes: &[u8]) -> Result<Self, ContributionError> {
        let (head, rest) = bytes
            .split_at_checked(HEADER_LEN)
            .ok_or_else(|| field("length in bytes", format!("at least {HEADER_LEN}"), bytes.len()))?;
        let number = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let (weight, first, length) = (number(8), number(24), number(32));
        let width = width(bits, weight);
        let start =
            [&MAGIC[..], &[bits, width as u8, 0, 0], &weight.to_le_bytes(), &(count as u64).to_le_bytes()]
                .concat();
        if head[..24] != start {
            return Err(field("header", format!("{start:?}"), format!("{:?}", &head[..24])));
        }
        let (leaves, all) = (first..first.saturating_add(length), count.div_ceil(LEAF));
        if leaves.is_empty() || leaves.end > all as u64 {
            return Err(field("leaves", format!("a stretch of {all}"), format!("{leaves:?}")));
        }
        let values = (leaves.end as usize * LEAF).min(count) - leaves.start as usize * LEAF;
        let expected = HEADER_LEN + values.div_ceil(BLOCK) + width * values;
        if bytes.len() != expected {
            return Err(field("length in bytes", expected, bytes.len()));
        }
        let (exponents, body) = rest.split_at(values.div_ceil(BLOCK));
        let exponents: Vec<i8> = bytemuck::cast_slice(exponents).to_vec();
        check_exponents(&exponents)?;
        let sums: Vec<i64> = body.chunks_exact(width).map(signed).collect();
        let max = most(bits, weight);
        check_range("sum", sums.iter().copied(), -max, max)?;
        Ok(Self { bits, weight, count, leaves, exponents, sums })
    }
}

/// The largest magnitude of a sum.
fn most(bits: u8, weight: u64) -> i64 {
    i64::try_from(weight).unwrap_or(i64::MAX).saturating_mul(code_max(bits))
}

fn width(bits: u8, weight: u64) -> usize {
    match most(bits, weight) {
        0..=0x7F => 1,
        0x80..=0x7FFF => 2,
        0x8000..=0x7FFF_FFFF => 4,
        _ => 8,
    }
}

fn signed(bytes: &[u8]) -> i64 {
    let sign = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xFF } else { 0 };
    let mut word = [sign; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use spec::{Digest, NodeId};

    fn piece(weight: u32) -> Piece {
        let codes = (0..200).map(|i| (i % 15) - 7).collect();
        let (who, root) = (NodeId::default(), Digest::default());
        Piece { who, root, weight, leaves: 0..1, exponents: vec![-3, 5], codes }
    }

    #[test]
    fn bytes_come_back_at_every_width_and_the_header_is_frozen() {
        for weight in [2, 18, 19, 4681, 4682, 400_000_000] {
            let sum = Sum::of(4, 200, &[piece(weight), piece(1)]).unwrap();
            assert_eq!((sum.weight, sum.sums[8]), (u64::from(weight) + 1, i64::from(weight) + 1));
            assert_eq!(Sum::from_bytes(4, 200, &sum.to_bytes()), Ok(sum));
        }
        let bytes = Sum::of(4, 200, &[piece(9)]).unwrap().to_bytes();
        let numbers = b"\x09\0\0\0\0\0\0\0\xC8\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\xFD\x05";
        assert_eq!(bytes[..42], [&b"ICS1\x04\x01\0\0"[..], numbers].concat());
        assert_eq!(bytes[42..44], [-63i8 as u8, -54i8 as u8]);
    }

    #[test]
    fn what_cannot_be_a_sum_is_named() {
        let mut sum = Sum::of(4, 200, &[piece(2)]).unwrap();
        sum.sums[3] = 15;
        let error = Sum::from_bytes(4, 200, &sum.to_bytes()).unwrap_err().to_string();
        assert!(error.contains("sum 3 is 15, expected within -14..=14"), "{error}");
        let other = Piece { exponents: vec![-3, 6], ..piece(1) };
        let error = Sum::of(4, 200, &[piece(2), other]).unwrap_err().to_string();
        assert!(error.contains("contribution 1: exponent of block 1"), "{error}");
        assert!(Sum::of(4, 200, &[]).is_err());
    }

    proptest! {
        #[test]
        fn decoding_any_bytes_never_panics(at in 0usize..300, byte: u8, noise in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Sum::from_bytes(4, 200, &noise);
            let mut damaged = Sum::of(4, 200, &[piece(9)]).unwrap().to_bytes();
            let at = at % damaged.len();
            damaged[at] = byte;
            if let Ok(read) = Sum::from_bytes(4, 200, &damaged) {
                prop_assert_eq!(read.to_bytes(), damaged);
            }
        }
    }
}
