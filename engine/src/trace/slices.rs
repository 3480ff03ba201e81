//! Parts of a file that open against its BLAKE3: the tree that BLAKE3 is anyway, of which only the paths to the parts are
//! written out.
//!
//! ```text
//! file   of at most 1024 bytes: the bytes
//!        else: the node of its left subtree, then that of its right
//! node   no wanted byte in it: its chaining value, 32 bytes
//!        a chunk (at most 1024 bytes): the bytes
//!        else: the node of its left subtree, then that of its right
//! ```
//!
//! The length of the file and the wanted ranges are known to whoever checks, so they are not written. A chunk's place is part of
//! what BLAKE3 hashes of it: what opens stands where it is said to stand. That the file is as long as it is said to be is only
//! shown where its last chunk is opened.

use blake3::CHUNK_LEN;
use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};
use spec::Digest;
use std::ops::Range;

/// Parts of a file, at their places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sparse(Vec<(u64, Vec<u8>)>);

impl Sparse {
    /// The bytes of `range`, if all of them are here.
    pub fn get(&self, range: Range<u64>) -> Option<&[u8]> {
        let after = self.0.partition_point(|(start, _)| *start <= range.start);
        let (start, bytes) = self.0.get(after.checked_sub(1)?)?;
        let from = usize::try_from(range.start - start).ok()?;
        let len = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        bytes.get(from..from.checked_add(len)?)
    }

    /// The parts `wanted`, which is [`merged`], of `bytes`.
    pub fn of(bytes: &[u8], wanted: &[Range<u64>]) -> Self {
        let part = |range: &Range<u64>| {
            let places = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
            Some((range.start, bytes.get(places)?.to_vec()))
        };
        Self(wanted.iter().filter_map(part).collect())
    }

    fn push(&mut self, start: u64, bytes: &[u8]) {
        match self.0.last_mut() {
            Some((first, before)) if *first + before.len() as u64 == start => before.extend_from_slice(bytes),
            _ => self.0.push((start, bytes.to_vec())),
        }
    }
}

/// Ranges in order, without empty ones, those that touch made one.
pub fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| range.start < range.end);
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Opens `wanted`, which is [`merged`], of the file `bytes`.
pub fn open(bytes: &[u8], wanted: &[Range<u64>]) -> Vec<u8> {
    let mut proof = Vec::new();
    inside(bytes, 0, wanted, &mut proof);
    proof
}

fn inside(bytes: &[u8], start: u64, wanted: &[Range<u64>], proof: &mut Vec<u8>) {
    if bytes.len() <= CHUNK_LEN {
        proof.extend_from_slice(bytes);
        return;
    }
    let middle = hazmat::left_subtree_len(bytes.len() as u64);
    let (left, right) = bytes.split_at(middle as usize);
    for (bytes, start) in [(left, start), (right, start + middle)] {
        if touches(wanted, &(start..start + bytes.len() as u64)) {
            inside(bytes, start, wanted, proof);
        } else {
            let mut hasher = blake3::Hasher::new();
            proof.extend(hasher.set_input_offset(start).update_rayon(bytes).finalize_non_root());
        }
    }
}

/// The parts that a proof opens of a file of `len` bytes; `None` if it does not open against `digest`, or is not exactly what
/// [`open`] writes for `wanted`.
pub fn check(digest: &Digest, len: u64, wanted: &[Range<u64>], proof: &[u8]) -> Option<Sparse> {
    let mut reader = Reader { wanted, rest: proof, found: Sparse::default() };
    let root = if len <= CHUNK_LEN as u64 {
        blake3::hash(reader.chunk(0, len)?)
    } else {
        let [left, right] = reader.children(0, len)?;
        hazmat::merge_subtrees_root(&left, &right, Mode::Hash)
    };
    (root.as_bytes() == &digest.0 && reader.rest.is_empty()).then_some(reader.found)
}

struct Reader<'a> {
    wanted: &'a [Range<u64>],
    rest: &'a [u8],
    found: Sparse,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(len).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn chunk(&mut self, start: u64, len: u64) -> Option<&'a [u8]> {
        let bytes = self.take(len)?;
        self.found.push(start, bytes);
        Some(bytes)
    }

    fn children(&mut self, start: u64, len: u64) -> Option<[ChainingValue; 2]> {
        let middle = hazmat::left_subtree_len(len);
        Some([self.node(start, middle)?, self.node(start + middle, len - middle)?])
    }

    /// No deeper than the tree of a file is high, and no further than the proof goes.
    fn node(&mut self, start: u64, len: u64) -> Option<ChainingValue> {
        if !touches(self.wanted, &(start..start.checked_add(len)?)) {
            return self.take(32)?.try_into().ok();
        }
        if len <= CHUNK_LEN as u64 {
            let bytes = self.chunk(start, len)?;
            return Some(blake3::Hasher::new().set_input_offset(start).update(bytes).finalize_non_root());
        }
        let [left, right] = self.children(start, len)?;
        Some(hazmat::merge_subtrees_non_root(&left, &right, Mode::Hash))
    }
}

fn touches(wanted: &[Range<u64>], here: &Range<u64>) -> bool {
    let first = wanted.partition_point(|range| range.end <= here.start);
    wanted.get(first).is_some_and(|range| range.start < here.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_opened_is_found_and_nothing_else_opens(
            len in prop::sample::select(vec![0usize, 1, 1023, 1024, 1025, 2048, 2049, 5000, 20_000, 40_961]),
            ranges in prop::collection::vec((0usize..41_000, 0usize..3000), 0..5),
            at in any::<prop::sample::Index>(),
        ) {
            let bytes: Vec<u8> = (0..len).map(|i| (i * i % 251) as u8).collect();
            let digest = Digest::of(&bytes);
            let ranges = ranges.into_iter().map(|(start, more)| start.min(len) as u64..(start + more).min(len) as u64);
            let wanted = merged(ranges.collect());
            let proof = open(&bytes, &wanted);
            let found = check(&digest, len as u64, &wanted, &proof).unwrap();
            for range in &wanted {
                prop_assert_eq!(found.get(range.clone()), Some(&bytes[range.start as usize..range.end as usize]));
            }
            if wanted.last().is_some_and(|last| last.end == len as u64) {
                prop_assert!(check(&digest, len as u64 + 1, &wanted, &proof).is_none());
            }
            prop_assert!(check(&digest, len as u64, &wanted, &[&proof[..], &[0]].concat()).is_none());
            prop_assert!(check(&Digest([7; 32]), len as u64, &wanted, &proof).is_none());
            if !proof.is_empty() {
                let mut edited = proof.clone();
                edited[at.index(proof.len())] ^= 1;
                prop_assert!(check(&digest, len as u64, &wanted, &edited).is_none());
                prop_assert!(check(&digest, len as u64, &wanted, &proof[..at.index(proof.len())]).is_none());
            }
        }

        #[test]
        fn any_bytes_and_any_length_are_refused_without_a_panic(
            proof in prop::collection::vec(any::<u8>(), 0..4000), len: u64, start: u64, more in 0u64..5000,
        ) {
            let wanted = merged(std::iter::once(start..start.saturating_add(more)).collect());
            let len = len >> 1;
            prop_assert!(check(&Digest([1; 32]), len, &wanted, &proof).is_none());
        }
    }

    #[test]
    fn a_few_bytes_of_a_large_file_are_a_small_proof() {
        let bytes = vec![3u8; 1 << 22];
        let proof = open(&bytes, std::slice::from_ref(&(70_000..70_010)));
        assert_eq!(proof.len(), 1024 + 32 * 12);
    }
}
