//! Adding up a shard of a merge again: codes and integer sums, no stage.

use engine::contribution::{Piece, Sum};
use spec::{Digest, Outer, Run};
use validator_core::Addition;

/// What pieces add up to; `None` if one is no piece, or does not open against its root.
pub fn add_up<B: AsRef<[u8]>>(run: &Run, stage: u16, addition: &Addition, pieces: &[B]) -> Option<Digest> {
    let Outer::Nesterov { bits, .. } = run.outer else { return None };
    let count = usize::try_from(run.model.stage_parameters(usize::from(stage))).ok()?;
    let mut opened = Vec::new();
    for (bytes, (who, root)) in pieces.iter().zip(&addition.roots) {
        let piece = Piece::from_bytes(bits, count, bytes.as_ref()).ok()?;
        if (piece.who, piece.root, &piece.leaves) != (*who, *root, &addition.blocks) {
            return None;
        }
        opened.push(piece);
    }
    let sum = Sum::of(bits, count, &opened).ok()?;
    Some(Digest::of(&sum.to_bytes()))
}
