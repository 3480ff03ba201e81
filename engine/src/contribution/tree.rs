//! A Merkle tree over a contribution, so that a piece of it can be opened against what was committed to.
//!
//! A leaf covers [`LEAF`] values: `BLAKE3(0, its exponents, its codes)`. A node is `BLAKE3(1, left, right)`; the last of an
//! odd level goes up as it is. A piece of consecutive leaves is opened with the hashes to its left and right, one of
//! each a level at most.

use super::LEAF;
use kernels::merge::BLOCK;
use std::ops::Range;

/// A hash of the tree.
pub type Hash = [u8; 32];

/// Every level, leaves first, root last.
#[derive(Debug, Clone)]
pub struct Tree {
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// The tree over `codes` (one byte each) with their exponents.
    pub fn of(exponents: &[i8], codes: &[u8]) -> Self {
        let mut level = leaves(exponents, codes);
        let mut levels = vec![];
        while level.len() > 1 {
            let above = level.chunks(2).map(pair).collect();
            levels.push(std::mem::replace(&mut level, above));
        }
        levels.push(level);
        Self { levels }
    }

    /// The root; of nothing, zeros.
    pub fn root(&self) -> Hash {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or_default()
    }

    /// What opens `leaves`, a stretch of leaves that is not empty: from the leaves up, left before right.
    pub fn proof(&self, leaves: &Range<usize>) -> Vec<Hash> {
        let (mut from, mut to) = (leaves.start, leaves.end);
        let mut proof = vec![];
        for level in &self.levels[..self.levels.len() - 1] {
            if from % 2 == 1 {
                proof.push(level[from - 1]);
            }
            if to % 2 == 1 && to < level.len() {
                proof.push(level[to]);
            }
            (from, to) = (from / 2, to.div_ceil(2));
        }
        proof
    }
}

/// Hashes in the proof of `leaves` among `count` leaves.
pub fn proof_len(count: usize, leaves: &Range<usize>) -> usize {
    let (mut from, mut to, mut width, mut len) = (leaves.start, leaves.end, count, 0);
    while width > 1 {
        len += from % 2 + usize::from(to % 2 == 1 && to < width);
        (from, to, width) = (from / 2, to.div_ceil(2), width.div_ceil(2));
    }
    len
}

/// The root that follows from a piece and its proof; `None` if the proof has another length than it needs.
pub fn root_of(
    count: usize,
    leaves_at: &Range<usize>,
    exponents: &[i8],
    codes: &[u8],
    proof: &[Hash],
) -> Option<Hash> {
    let (mut from, mut to, mut width) = (leaves_at.start, leaves_at.end, count);
    let mut level = leaves(exponents, codes);
    let mut proof = proof.iter().copied();
    if level.len() != to.checked_sub(from)? || level.is_empty() {
        return None;
    }
    while width > 1 {
        if from % 2 == 1 {
            level.insert(0, proof.next()?);
        }
        if to % 2 == 1 && to < width {
            level.push(proof.next()?);
        }
        level = level.chunks(2).map(pair).collect();
        (from, to, width) = (from / 2, to.div_ceil(2), width.div_ceil(2));
    }
    proof.next().is_none().then(|| level[0])
}

fn leaves(exponents: &[i8], codes: &[u8]) -> Vec<Hash> {
    let leaf = |(exponents, codes): (&[i8], &[u8])| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[0]).update(bytemuck::cast_slice(exponents)).update(codes);
        *hasher.finalize().as_bytes()
    };
    exponents.chunks(LEAF / BLOCK).zip(codes.chunks(LEAF)).map(leaf).collect()
}

fn pair(children: &[Hash]) -> Hash {
    match children {
        [left, right] => {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&[1]).update(left).update(right);
            *hasher.finalize().as_bytes()
        }
        _ => children[0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stretch_of_every_tree_opens_and_no_other_does() {
        for count in 1..=9usize {
            let values = count * LEAF - 100;
            let codes: Vec<u8> = (0..values).map(|i| (i * 7 % 251) as u8).collect();
            let exponents: Vec<i8> = (0..values.div_ceil(BLOCK)).map(|i| i as i8).collect();
            let tree = Tree::of(&exponents, &codes);
            for from in 0..count {
                for to in from + 1..=count {
                    let leaves = from..to;
                    let cut = &codes[from * LEAF..(to * LEAF).min(values)];
                    let scales = &exponents[from * LEAF / BLOCK..(to * LEAF / BLOCK).min(exponents.len())];
                    let proof = tree.proof(&leaves);
                    assert_eq!(proof.len(), proof_len(count, &leaves), "{count} {leaves:?}");
                    let opened = |scales: &[i8], codes: &[u8]| root_of(count, &leaves, scales, codes, &proof);
                    assert_eq!(opened(scales, cut), Some(tree.root()), "{count} {leaves:?}");
                    let mut other = cut.to_vec();
                    other[5] ^= 1;
                    assert_ne!(opened(scales, &other), Some(tree.root()));
                    let mut other = scales.to_vec();
                    other[0] += 1;
                    assert_ne!(opened(&other, cut), Some(tree.root()));
                    assert_eq!(
                        root_of(count, &leaves, scales, cut, &[&proof[..], &[[0; 32]]].concat()),
                        None
                    );
                }
            }
        }
    }
}
