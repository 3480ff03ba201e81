//! A state's file, and its BLAKE3, of which what did not change is not hashed again.
//!
//! BLAKE3 is a tree over the file's bytes. Residual and outer momentum, two fifths of the file and its end, change where replicas
//! merge alone; so the largest subtrees of that end keep their chaining values from one digest to the next. The digest is the file's,
//! whoever takes it.

use super::{Lent, StageState};
use crate::checkpoint;
use blake3::CHUNK_LEN;
use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};
use kernels::device::DeviceError;
use spec::Digest;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Where a file's pieces go.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]);

/// Of a file, what is hashed and copied at a time: it fits a second-level cache, and several threads can share it.
const BLOCK_BYTES: usize = 512 << 10;

/// More than the header of a stage's file takes, for most stages.
const HEADER_BYTES: usize = 64 << 10;

impl StageState {
    /// The full state as a file: weights, moments, step count and running products, residual, outer momentum, and the
    /// digest of the weights at the last merge. Work in flight is not part of it.
    ///
    /// # Errors
    /// The device is lost; likewise below.
    pub fn state_bytes(&self) -> Result<Vec<u8>, DeviceError> {
        built(self.room(self.sections().len()), |sink| self.write_state(sink))
    }

    /// [`StageState::state_bytes`] in parts, one after another, and their BLAKE3. What steps change is copied; residual and outer
    /// momentum are shared with the state until a merge changes it.
    ///
    /// # Errors
    /// As [`StageState::state_bytes`].
    pub fn state_file(&self) -> Result<(Vec<FilePart>, Digest), DeviceError> {
        let copied = self.sections().len() - self.outer.as_ref().map_or(0, |outer| outer.shared().len());
        let len = self.head().len() + copied * 4 * self.stage.layout().values();
        let mut bytes = self.pool.lend(len);
        let mut left = len;
        let digest = self.hashed_state(&mut |block| {
            let copied = block.len().min(left);
            bytes.extend(&block[..copied]);
            left -= copied;
        })?;
        let shared = self.outer.iter().flat_map(|outer| outer.shared().map(FilePart::Shared));
        Ok((std::iter::once(FilePart::Copied(bytes)).chain(shared).collect(), digest))
    }

    /// BLAKE3 of [`StageState::state_bytes`], without building the file.
    ///
    /// # Errors
    /// As [`StageState::state_bytes`].
    pub fn state_digest(&self) -> Result<Digest, DeviceError> {
        self.hashed_state(&mut |_| ())
    }

    pub(crate) fn write_state(&self, sink: Sink<'_>) -> Result<(), DeviceError> {
        checkpoint::write(self.stage.layout(), &self.metadata(), &self.sections(), sink)
    }

    /// The digest of the state's file, whose blocks `also` is handed: while they are in the cache for having been hashed, so that
    /// memory is read once.
    fn hashed_state(&self, also: Sink<'_>) -> Result<Digest, DeviceError> {
        let array = 4 * self.stage.layout().values() as u64;
        let head = self.head().len() as u64;
        let len = head + array * self.sections().len() as u64;
        let unchanged = (head + 3 * array).next_multiple_of(CHUNK_LEN as u64)..len;
        let Some(outer) = self.outer.as_ref().filter(|_| !unchanged.is_empty()) else {
            return hashed(|sink| {
                self.write_state(&mut in_blocks(&mut |block| {
                    sink(block);
                    also(block);
                }))
            });
        };
        let mut tree = Tree::new(unchanged.clone(), outer.hashed.of(&unchanged));
        self.write_state(&mut in_blocks(&mut |block| {
            tree.update(block);
            also(block);
        }))?;
        let (digest, nodes) = tree.finish();
        outer.hashed.keep(unchanged, nodes);
        Ok(digest)
    }

    /// Bytes that a file of so many sections takes, and some more.
    pub(super) fn room(&self, sections: usize) -> usize {
        HEADER_BYTES + sections * 4 * self.stage.layout().values()
    }
}

/// Some of a state's file.
#[derive(Debug)]
pub enum FilePart {
    /// As the state was.
    Copied(Lent),
    /// As the state is, until a merge.
    Shared(Arc<Vec<f32>>),
}

impl AsRef<[u8]> for FilePart {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes.as_ref(),
            Self::Shared(values) => bytemuck::cast_slice(values),
        }
    }
}

/// Chaining values of the end of a file that did not change since, by where it begins and ends.
#[derive(Debug, Default)]
pub(crate) struct Hashed(Mutex<Option<(Range<u64>, Vec<ChainingValue>)>>);

impl Hashed {
    /// The bytes are others now.
    pub fn forget(&mut self) {
        *self.0.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn of(&self, place: &Range<u64>) -> Option<Vec<ChainingValue>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(of, _)| of == place).map(|(_, nodes)| nodes.clone())
    }

    fn keep(&self, place: Range<u64>, nodes: Vec<ChainingValue>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((place, nodes));
    }
}

/// BLAKE3 of a file that is handed over from its beginning, the end of which may be known.
struct Tree {
    /// Where the end begins.
    end: u64,
    /// The largest subtrees that do not reach over that place.
    subtrees: Vec<Range<u64>>,
    /// Chaining values of those that are done, and of the end's as soon as all before it are.
    nodes: Vec<ChainingValue>,
    known: Option<Vec<ChainingValue>>,
    /// What was handed over of the next.
    hasher: blake3::Hasher,
    at: u64,
}

impl Tree {
    /// The end is some of the file but not all, and begins where a chunk does.
    fn new(end: Range<u64>, known: Option<Vec<ChainingValue>>) -> Self {
        let mut subtrees = Vec::new();
        cut(0..end.end, end.start, &mut subtrees);
        Self { end: end.start, subtrees, nodes: Vec::new(), known, hasher: blake3::Hasher::new(), at: 0 }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while let Some(subtree) = self.subtrees.get(self.nodes.len()).filter(|_| !bytes.is_empty()) {
            if self.at == subtree.start {
                self.hasher = blake3::Hasher::new();
                self.hasher.set_input_offset(self.at);
            }
            let left = usize::try_from(subtree.end - self.at).unwrap_or(usize::MAX);
            let (now, after) = bytes.split_at(left.min(bytes.len()));
            self.hasher.update_rayon(now);
            (self.at, bytes) = (self.at + now.len() as u64, after);
            if self.at == subtree.end {
                self.nodes.push(self.hasher.finalize_non_root());
            }
            if self.at == self.end {
                self.nodes.extend(self.known.take().into_iter().flatten());
            }
        }
    }

    /// The digest, and the chaining values of the end.
    fn finish(self) -> (Digest, Vec<ChainingValue>) {
        let len = self.subtrees.last().map_or(0, |last| last.end);
        let middle = hazmat::left_subtree_len(len);
        let mut nodes = self.nodes.iter().copied();
        let [left, right] = [0..middle, middle..len].map(|range| joined(range, self.end, &mut nodes));
        let digest = hazmat::merge_subtrees_root(&left, &right, Mode::Hash);
        let before = self.subtrees.partition_point(|subtree| subtree.end <= self.end);
        (Digest(*digest.as_bytes()), self.nodes[before..].to_vec())
    }
}

/// The largest subtrees of `range` that do not reach over `end`, in order.
fn cut(range: Range<u64>, end: u64, subtrees: &mut Vec<Range<u64>>) {
    if range.end <= end || range.start >= end {
        return subtrees.push(range);
    }
    let middle = range.start + hazmat::left_subtree_len(range.end - range.start);
    cut(range.start..middle, end, subtrees);
    cut(middle..range.end, end, subtrees);
}

/// The chaining value of `range`, made of those of the subtrees that [`cut`] gives of it.
fn joined(range: Range<u64>, end: u64, nodes: &mut impl Iterator<Item = ChainingValue>) -> ChainingValue {
    if range.end <= end || range.start >= end {
        return nodes.next().unwrap_or_default();
    }
    let middle = range.start + hazmat::left_subtree_len(range.end - range.start);
    let left = joined(range.start..middle, end, nodes);
    hazmat::merge_subtrees_non_root(&left, &joined(middle..range.end, end, nodes), Mode::Hash)
}

pub(super) fn hashed(write: impl FnOnce(Sink<'_>) -> Result<(), DeviceError>) -> Result<Digest, DeviceError> {
    let mut hasher = blake3::Hasher::new();
    write(&mut |piece| {
        hasher.update_rayon(piece);
    })?;
    Ok(Digest(*hasher.finalize().as_bytes()))
}

/// A sink whose pieces go to `sink` in blocks that begin at multiples of their length: subtrees of BLAKE3's tree, and large ones.
fn in_blocks(sink: Sink<'_>) -> impl FnMut(&[u8]) {
    let mut at = 0;
    move |mut piece| {
        while !piece.is_empty() {
            let (block, after) = piece.split_at(piece.len().min(BLOCK_BYTES - at % BLOCK_BYTES));
            sink(block);
            (at, piece) = (at + block.len(), after);
        }
    }
}

/// `capacity` spares the growing, which copies: a little more than the file.
pub(super) fn built(
    capacity: usize,
    write: impl FnOnce(Sink<'_>) -> Result<(), DeviceError>,
) -> Result<Vec<u8>, DeviceError> {
    let mut bytes = Vec::with_capacity(capacity);
    write(&mut |piece| bytes.extend_from_slice(piece))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_file_whose_end_is_known_has_the_digest_that_it_has_anyway(
            end in 1u64..40, more in 1u64..40_000, pieces in prop::collection::vec(1usize..9000, 1..40), change: bool,
        ) {
            let place = 1024 * end..1024 * end + more;
            let mut bytes: Vec<u8> = (0..place.end).map(|i| (i * i % 251) as u8).collect();
            let take = |bytes: &[u8], known| {
                let mut tree = Tree::new(place.clone(), known);
                let (mut at, mut rest) = (0, bytes);
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(rest.len().min(pieces[at % pieces.len()]));
                    tree.update(piece);
                    (at, rest) = (at + 1, after);
                }
                tree.finish()
            };
            let (digest, known) = take(&bytes, None);
            prop_assert_eq!(digest, Digest::of(&bytes));
            // Another beginning before the same end.
            bytes[..1024 * end as usize].iter_mut().for_each(|byte| *byte ^= u8::from(change));
            prop_assert_eq!(take(&bytes, Some(known.clone())), (Digest::of(&bytes), known.clone()));
            // That is what is known, and not hashed again.
            let other = known.iter().map(|_| [1; 32]).collect();
            prop_assert!(take(&bytes, Some(other)).0 != Digest::of(&bytes));
        }
    }
}
