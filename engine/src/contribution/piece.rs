//! A replica's contribution as it commits to it, and the pieces that it sends.
//!
//! ```text
//! head     0   4  magic "ICP1"              piece    88  8  first leaf, u64 LE
//!          4   1  bits of a code                     96  8  leaves, u64 LE
//!          5   3  zero                              104  -  hashes of the proof, 32 each
//!          8   8  weight, u64 LE                      .  -  exponents of these leaves, i8
//!         16   8  count, u64 LE: values of the stage  .  -  codes of these leaves, i8
//!         24  32  whose: its key
//!         56  32  root of the tree
//! ```
//!
//! What a replica commits to is BLAKE3 `derive_key("iota contribution v1", head)`: key, weight, exponents and codes.

use super::tree::{self, Tree};
use super::{Contribution, ContributionError, LEAF, check_exponents, check_range, code_max, field};
use kernels::merge::BLOCK;
use spec::{Digest, NodeId};
use std::ops::Range;

const MAGIC: [u8; 4] = *b"ICP1";
const HEAD_LEN: usize = 88;
const FIXED_LEN: usize = HEAD_LEN + 16;
const DOMAIN: &str = "iota contribution v1";

/// A contribution that its maker commits to, and cuts pieces from.
#[derive(Debug, Clone)]
pub struct Committed {
    contribution: Contribution,
    codes: Vec<u8>,
    tree: Tree,
    who: NodeId,
}

/// A piece of somebody's contribution: consecutive leaves of [`LEAF`] values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Whose.
    pub who: NodeId,
    /// What it committed to, as this piece proves.
    pub root: Digest,
    /// Microbatches folded.
    pub weight: u32,
    /// Which leaves.
    pub leaves: Range<u64>,
    /// Exponent of each block.
    pub exponents: Vec<i8>,
    /// One code per value.
    pub codes: Vec<i16>,
}

impl Committed {
    /// Commits `who` to `contribution`.
    pub fn new(contribution: Contribution, who: NodeId) -> Self {
        // At most 8 bits by `bits`.
        let codes: Vec<u8> = contribution.codes.iter().map(|&code| code as u8).collect();
        let tree = Tree::of(&contribution.exponents, &codes);
        Self { contribution, codes, tree, who }
    }

    /// What is committed to.
    pub fn root(&self) -> Digest {
        Digest(blake3::derive_key(DOMAIN, &self.head()))
    }

    /// Leaves of the whole.
    pub fn leaves(&self) -> u64 {
        self.codes.len().div_ceil(LEAF) as u64
    }

    /// The bytes of a piece; `None` if there are no such leaves.
    pub fn piece(&self, leaves: &Range<u64>) -> Option<Vec<u8>> {
        if leaves.is_empty() || leaves.end > self.leaves() {
            return None;
        }
        let at = leaves.start as usize..leaves.end as usize;
        let values = at.start * LEAF..(at.end * LEAF).min(self.codes.len());
        let mut bytes = self.head();
        bytes.extend_from_slice(&leaves.start.to_le_bytes());
        bytes.extend_from_slice(&(leaves.end - leaves.start).to_le_bytes());
        self.tree.proof(&at).iter().for_each(|hash| bytes.extend_from_slice(hash));
        let exponents = &self.contribution.exponents[values.start / BLOCK..values.end.div_ceil(BLOCK)];
        bytes.extend_from_slice(bytemuck::cast_slice(exponents));
        bytes.extend_from_slice(&self.codes[values]);
        Some(bytes)
    }

    fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEAD_LEN);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&[self.contribution.bits, 0, 0, 0]);
        head.extend_from_slice(&u64::from(self.contribution.weight).to_le_bytes());
        head.extend_from_slice(&(self.codes.len() as u64).to_le_bytes());
        head.extend_from_slice(self.who.as_bytes());
        head.extend_from_slice(&self.tree.root());
        head
    }
}

impl Piece {
    /// Reads a piece of a contribution of `count` values; that it belongs to its own head is checked here, that its
    /// `root` is the one committed to is the caller's to check. Any bytes may come in; none makes it panic.
    ///
    /// # Errors
    /// [`ContributionError`] says what is not as expected.
    pub fn from_bytes(bits: u8, count: usize, bytes: &[u8]) -> Result<Self, ContributionError> {
        let (fixed, rest) = bytes
            .split_at_checked(FIXED_LEN)
            .ok_or_else(|| field("length in bytes", format!("at least {FIXED_LEN}"), bytes.len()))?;
        let number = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&fixed[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let expected_start = [&MAGIC[..], &[bits, 0, 0, 0]].concat();
        if fixed[..8] != expected_start {
            return Err(field("magic and bits", format!("{expected_start:?}"), format!("{:?}", &fixed[..8])));
        }
        if number(16) != count as u64 {
            return Err(field("count", count, number(16)));
        }
        let weight = u32::try_from(number(8)).map_err(|_| field("weight", "below 2^32", number(8)))?;
        let (first, length, all) = (number(88), number(96), count.div_ceil(LEAF));
        let leaves = first..first.saturating_add(length);
        if leaves.is_empty() || leaves.end > all as u64 {
            return Err(field("leaves", format!("a stretch of {all}"), format!("{leaves:?}")));
        }
        let at = leaves.start as usize..leaves.end as usize;
        let values = at.start * LEAF..(at.end * LEAF).min(count);
        let hashes = tree::proof_len(all, &at);
        let blocks = values.len().div_ceil(BLOCK);
        let expected = FIXED_LEN + 32 * hashes + blocks + values.len();
        if bytes.len() != expected {
            return Err(field("length in bytes", expected, bytes.len()));
        }
        let (proof, rest) = rest.split_at(32 * hashes);
        let (exponents, codes) = rest.split_at(blocks);
        let exponents: Vec<i8> = bytemuck::cast_slice(exponents).to_vec();
        check_exponents(&exponents)?;
        let proof: Vec<tree::Hash> = proof.as_chunks().0.to_vec();
        if tree::root_of(all, &at, &exponents, codes, &proof).as_ref().map(|root| &root[..])
            != Some(&fixed[56..HEAD_LEN])
        {
            return Err(field("proof", "one that leads to the head's root", "another"));
        }
        let codes: Vec<i16> = codes.iter().map(|&byte| i16::from(byte as i8)).collect();
        check_range("code", codes.iter().map(|&code| i64::from(code)), -code_max(bits), code_max(bits))?;
        let mut who = [0; 32];
        who.copy_from_slice(&fixed[24..56]);
        let root = Digest(blake3::derive_key(DOMAIN, &fixed[..HEAD_LEN]));
        Ok(Self { who: NodeId(who), root, weight, leaves, exponents, codes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COUNT: usize = 3 * LEAF + 200;

    fn committed() -> Committed {
        let codes = (0..COUNT).map(|i| (i % 15) as i16 - 7).collect();
        let exponents = (0..COUNT.div_ceil(BLOCK)).map(|i| i as i8).collect();
        Committed::new(Contribution { bits: 4, weight: 9, exponents, codes }, NodeId([7; 32]))
    }

    #[test]
    fn pieces_open_against_the_root_and_tell_whose_they_are() {
        let whole = committed();
        for leaves in [0..4, 0..1, 3..4, 1..3] {
            let piece = Piece::from_bytes(4, COUNT, &whole.piece(&leaves).unwrap()).unwrap();
            assert_eq!((piece.who, piece.root, piece.weight), (NodeId([7; 32]), whole.root(), 9));
            let from = leaves.start as usize * LEAF;
            let to = (leaves.end as usize * LEAF).min(COUNT);
            assert_eq!(piece.codes, whole.contribution.codes[from..to]);
            assert_eq!(piece.exponents, whole.contribution.exponents[from / BLOCK..to.div_ceil(BLOCK)]);
        }
        assert_eq!((whole.piece(&(2..2)), whole.piece(&(3..5))), (None, None));
    }

    #[test]
    fn another_weight_or_owner_is_another_commitment_and_other_codes_do_not_open() {
        let bytes = committed().piece(&(1..3)).unwrap();
        let with = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            Piece::from_bytes(4, COUNT, &bytes)
        };
        for at in [8, 30] {
            assert_ne!(with(at).unwrap().root, committed().root());
        }
        let end = bytes.len() - 1;
        for at in [60, FIXED_LEN, end] {
            assert!(with(at).unwrap_err().to_string().contains("proof"), "byte {at}");
        }
        assert!(with(88).is_err(), "other leaves");
    }

    proptest! {
        #[test]
        fn decoding_any_bytes_never_panics(at in 0usize..3000, byte: u8, noise in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Piece::from_bytes(4, COUNT, &noise);
            let mut damaged = committed().piece(&(1..3)).unwrap();
            let at = at % damaged.len();
            damaged[at] = byte;
            let _ = Piece::from_bytes(4, COUNT, &damaged);
            damaged.truncate(at);
            prop_assert!(Piece::from_bytes(4, COUNT, &damaged).is_err());
        }
    }
}
