//! Integers that stand for contributions: one a block, exact sums, pieces that open against a root.

use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId};
use std::ops::Range;

/// What a replica brings: a code a block, and the weight under all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contribution {
    /// Microbatches folded.
    pub weight: u32,
    /// A code a block.
    pub codes: Vec<i8>,
}

/// A stretch of a contribution. Its postcard is the piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Whose.
    pub who: NodeId,
    /// What it committed to. The proof is left out: the world is told by whom a root was made.
    pub root: Digest,
    /// Microbatches folded.
    pub weight: u32,
    /// Which blocks.
    pub blocks: Range<u64>,
    /// Their codes.
    pub codes: Vec<i8>,
}

/// Pieces added up. Its postcard is the sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Microbatches folded by all.
    pub weight: u64,
    /// Which blocks.
    pub blocks: Range<u64>,
    /// Weighted sums.
    pub sums: Vec<i64>,
}

impl Contribution {
    /// Codes that follow from `noise`.
    pub fn drawn(blocks: u64, weight: u32, noise: Digest) -> Self {
        let mut codes = vec![0; blocks as usize];
        blake3::Hasher::new_keyed(&noise.0).finalize_xof().fill(&mut codes);
        Self { weight, codes: codes.into_iter().map(|code| (code as i8).max(-127)).collect() }
    }

    /// What `who` commits to.
    pub fn root(&self, who: NodeId) -> Digest {
        wire::digest_of(&("root", who, self))
    }

    /// The piece of these blocks.
    pub fn piece(&self, who: NodeId, blocks: &Range<u64>) -> Option<Vec<u8>> {
        let codes = self.codes.get(blocks.start as usize..blocks.end as usize)?.to_vec();
        let (root, weight, blocks) = (self.root(who), self.weight, blocks.clone());
        Some(wire::to_bytes(&Piece { who, root, weight, blocks, codes }))
    }
}

/// Reads a piece.
///
/// # Errors
/// When the bytes are no piece.
pub fn piece(bytes: &[u8]) -> Result<Piece, String> {
    postcard::from_bytes(bytes).map_err(|error| format!("no piece: {error}"))
}

/// Adds pieces of the same blocks.
///
/// # Errors
/// When they are no pieces, or of different blocks.
pub fn sum(pieces: &[&[u8]]) -> Result<Vec<u8>, String> {
    let pieces: Vec<Piece> = pieces.iter().map(|bytes| piece(bytes)).collect::<Result<_, _>>()?;
    let blocks = pieces.first().ok_or("nothing to add up")?.blocks.clone();
    if pieces.iter().any(|piece| piece.blocks != blocks) {
        return Err("pieces of different blocks".into());
    }
    let mut sum = Sum { weight: 0, sums: vec![0; (blocks.end - blocks.start) as usize], blocks };
    for piece in &pieces {
        sum.weight += u64::from(piece.weight);
        for (sum, &code) in sum.sums.iter_mut().zip(&piece.codes) {
            *sum += i64::from(piece.weight) * i64::from(code);
        }
    }
    Ok(wire::to_bytes(&sum))
}

/// A sum with one unit too many in its first place: whoever spoils the same sum gets the same bytes.
///
/// # Errors
/// When it is none.
pub fn spoilt(sum: &[u8]) -> Result<Vec<u8>, String> {
    let mut sum: Sum = postcard::from_bytes(sum).map_err(|error| format!("no sum: {error}"))?;
    if let Some(first) = sum.sums.first_mut() {
        *first += 1;
    }
    Ok(wire::to_bytes(&sum))
}

/// The sums of a whole stage from those of its shards, in order.
///
/// # Errors
/// When they do not cover it.
pub fn whole(parameters: u64, sums: &[&[u8]]) -> Result<Vec<i64>, String> {
    let (mut next, mut all) = (0, Vec::new());
    for bytes in sums {
        let sum: Sum = postcard::from_bytes(bytes).map_err(|error| format!("no sum: {error}"))?;
        if sum.blocks.start != next {
            return Err(format!("a sum of blocks {:?} where block {next} is due", sum.blocks));
        }
        next = sum.blocks.end;
        all.extend(sum.sums);
    }
    let blocks = butterfly::blocks(parameters);
    if next == blocks { Ok(all) } else { Err(format!("sums of {next} blocks, the stage has {blocks}")) }
}
