//! Shards that are added up again, found by their pieces.
//!
//! With thousands of miners thousands of shards are added up at a time, and each of their pieces is put into the store and fetched
//! from there: whoever asks for one names it alone. What they are found by follows from the shards: it is no part of a
//! snapshot, but built again from one.

use crate::disputes::Dispute;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use spec::{Digest, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use wire::ObjectRef;

/// The shards of a stage that are added up again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disputes {
    all: BTreeMap<u32, Dispute>,
    /// By a piece's digest. Built again from a snapshot.
    with_piece: BTreeMap<Digest, BTreeSet<u32>>,
}

impl Disputes {
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&u32, &Dispute)> {
        self.all.iter()
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Dispute> {
        self.all.values_mut()
    }

    /// Those of which an owner named this object as a piece.
    pub fn with_piece(&self, object: ObjectRef) -> impl Iterator<Item = &Dispute> {
        let shards = self.with_piece.get(&object.digest).into_iter().flatten();
        shards.filter_map(|shard| self.all.get(shard))
    }

    pub fn get_mut(&mut self, shard: u32) -> Option<&mut Dispute> {
        self.all.get_mut(&shard)
    }

    pub fn insert(&mut self, shard: u32, dispute: Dispute) {
        self.remove(shard);
        self.all.insert(shard, dispute);
        self.note_pieces(shard);
    }

    pub fn remove(&mut self, shard: u32) -> Option<Dispute> {
        let dispute = self.all.remove(&shard)?;
        for piece in dispute.named.values().flatten() {
            if let Some(shards) = self.with_piece.get_mut(&piece.digest) {
                shards.remove(&shard);
                if shards.is_empty() {
                    self.with_piece.remove(&piece.digest);
                }
            }
        }
        Some(dispute)
    }

    /// An owner says what the pieces of its shard are.
    pub fn name(&mut self, shard: u32, owner: NodeId, pieces: Vec<ObjectRef>) {
        if let Some(dispute) = self.all.get_mut(&shard) {
            dispute.named.insert(owner, pieces);
            self.note_pieces(shard);
        }
    }

    fn note_pieces(&mut self, shard: u32) {
        let named = self.all.get(&shard).into_iter().flat_map(|dispute| dispute.named.values().flatten());
        for piece in named {
            self.with_piece.entry(piece.digest).or_default().insert(shard);
        }
    }
}

impl Serialize for Disputes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.all.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Disputes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut disputes = Self::default();
        for (shard, dispute) in BTreeMap::deserialize(deserializer)? {
            disputes.insert(shard, dispute);
        }
        Ok(disputes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::MergeOrder;

    fn dispute() -> Dispute {
        let order = MergeOrder {
            stage: 0,
            epoch: 0,
            shard: 0,
            secret: [0; 32],
            seats: Vec::new(),
            roots: Vec::new(),
            claims: Vec::new(),
            pieces: Vec::new(),
        };
        Dispute::new(order, 0)
    }

    #[test]
    fn shards_are_found_by_their_pieces_until_nobody_asks_for_them() {
        let [one, other] = [1, 2].map(|name| NodeId([name; 32]));
        let piece = |name| ObjectRef { digest: Digest([name; 32]), bytes: 1 };
        let mut disputes = Disputes::default();
        disputes.insert(3, dispute());
        disputes.insert(5, dispute());
        disputes.name(3, one, vec![piece(1), piece(2)]);
        disputes.name(3, other, vec![piece(1), piece(2)]);
        disputes.name(5, one, vec![piece(2), piece(4)]);
        disputes.name(7, one, vec![piece(9)]);
        let count = |disputes: &Disputes, name| disputes.with_piece(piece(name)).count();
        assert_eq!([1, 2, 4, 9].map(|name| count(&disputes, name)), [1, 2, 1, 0]);
        let again: Disputes = postcard::from_bytes(&wire::to_bytes(&disputes)).unwrap();
        assert_eq!(again.with_piece, disputes.with_piece);
        assert!(disputes.remove(3).is_some() && disputes.remove(3).is_none());
        assert_eq!([1, 2, 4].map(|name| count(&disputes, name)), [0, 1, 1]);
        disputes.insert(5, dispute());
        assert!(disputes.with_piece.is_empty());
    }
}
