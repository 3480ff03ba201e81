//! Pieces of a shard that somebody adds up again: the owners put them into the store.

use crate::machine::Miner;
use spec::Digest;
use std::collections::BTreeSet;
use wire::{Message, ObjectRef, Part, Verb};

impl Miner {
    pub(crate) fn disclose(&mut self, epoch: u32, shard: u32) {
        let pieces = self.pieces_of(epoch, shard);
        let (Some(pieces), Some(merging)) = (pieces, &mut self.state.merging) else {
            return self
                .note(format!("asked for the pieces of shard {shard} of epoch {epoch}, which are not here"));
        };
        let all: BTreeSet<Digest> = pieces.iter().map(|piece| piece.digest).collect();
        let left = merging.disclosing.entry(shard).or_insert(all).clone();
        let stored = left.is_empty();
        self.send(Message::Disclosed { epoch, shard, pieces: pieces.clone(), stored });
        for piece in pieces.into_iter().filter(|piece| left.contains(&piece.digest)) {
            self.ask(Verb::Put, piece);
        }
    }

    /// Says again which pieces it was asked for.
    pub(crate) fn disclose_again(&mut self) {
        let Some(merging) = &self.state.merging else { return };
        let epoch = merging.epoch;
        let shards: Vec<u32> = merging.disclosing.keys().copied().collect();
        for shard in shards {
            self.disclose(epoch, shard);
        }
    }

    pub(crate) fn piece_uploaded(&mut self, digest: Digest) {
        let Some(merging) = &mut self.state.merging else { return };
        let epoch = merging.epoch;
        let mut whole = Vec::new();
        for (&shard, left) in &mut merging.disclosing {
            if left.remove(&digest) && left.is_empty() {
                whole.push(shard);
            }
        }
        for shard in whole {
            if let Some(pieces) = self.pieces_of(epoch, shard) {
                self.send(Message::Disclosed { epoch, shard, pieces, stored: true });
            }
        }
    }

    /// The contributors' pieces of a shard, in key order, if all are here.
    fn pieces_of(&self, epoch: u32, shard: u32) -> Option<Vec<ObjectRef>> {
        let merging = self.state.merging.as_ref().filter(|merging| merging.epoch == epoch)?;
        let piece = |&who| merging.parts.object(Part::Piece { shard }, who);
        let pieces: Option<Vec<ObjectRef>> = merging.contributors.iter().map(piece).collect();
        pieces.filter(|pieces| !pieces.is_empty())
    }
}
