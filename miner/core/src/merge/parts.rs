//! Parts of a merge that came from others: who sent them, what was signed about them, where they belong.

use super::MergeJob;
use crate::effect::Task;
use crate::epoch::Job;
use crate::machine::Miner;
use serde::Serialize;
use spec::{Digest, NodeId, Operation};
use std::collections::BTreeMap;
use wire::{ObjectRef, Part, PartHead};

/// Parts in the object table, by what they are and whose.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Parts {
    here: BTreeMap<(Part, NodeId), ObjectRef>,
    /// Pieces that wait for the draw, which says what they must open against.
    closed: BTreeMap<(u32, NodeId), ObjectRef>,
}

impl Parts {
    pub fn get(&self, part: Part, of: NodeId) -> Option<Digest> {
        self.object(part, of).map(|object| object.digest)
    }

    pub fn object(&self, part: Part, of: NodeId) -> Option<ObjectRef> {
        self.here.get(&(part, of)).copied()
    }

    /// A part by its digest.
    pub fn named(&self, digest: Digest) -> Option<ObjectRef> {
        self.here.values().find(|object| object.digest == digest).copied()
    }

    /// Keeps a part; `false` if there was one already.
    pub fn insert(&mut self, part: Part, of: NodeId, object: ObjectRef) -> bool {
        let free = !self.here.contains_key(&(part, of));
        if free {
            self.here.insert((part, of), object);
        }
        free
    }

    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.here.values().chain(self.closed.values()).map(|block| block.digest)
    }
}

/// A part that came before the order to merge.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EarlyPart {
    epoch: u32,
    block: ObjectRef,
}

impl EarlyPart {
    pub fn block(&self) -> Digest {
        self.block.digest
    }
}

impl Miner {
    pub(crate) fn take_part(&mut self, head: &PartHead, block: ObjectRef) {
        self.state.table.hold(block.digest);
        if let Err(why) = self.place_part(head, block) {
            self.release(block.digest);
            self.note(format!("refused a part of a merge by {}: it {why}", head.receipt.signer.short()));
        }
    }

    /// The order to merge came: looks for parts that came before it.
    pub(super) fn take_early_parts(&mut self) {
        let Some((epoch, members)) =
            self.state.merging.as_ref().map(|merging| (merging.epoch, merging.members.clone()))
        else {
            return;
        };
        for ((part, from), early) in std::mem::take(&mut self.state.early_parts) {
            if early.epoch == epoch && members.contains(&from) {
                self.accept_part(part, from, early.block);
            } else {
                self.release(early.block.digest);
            }
        }
    }

    /// The pairs are drawn: what came before can be opened now.
    pub(super) fn open_parts(&mut self) {
        let Some(merging) = &mut self.state.merging else { return };
        for ((shard, from), block) in std::mem::take(&mut merging.parts.closed) {
            self.open_piece(from, shard, block);
        }
    }

    fn place_part(&mut self, head: &PartHead, block: ObjectRef) -> Result<(), &'static str> {
        let seat = self.state.seat.as_ref().ok_or("came before a seat")?;
        let receipt = head.receipt.verify().map_err(|_| "has a signature that does not hold")?;
        if receipt.run != seat.run_id || receipt.mode != seat.run.mode || receipt.stage != seat.stage {
            return Err("belongs to another run, mode or stage");
        }
        let whole = match (head.part, &receipt.operation) {
            (Part::Scales, Operation::Scale) => true,
            (Part::Sum { shard }, Operation::Reduce { shard: of, .. }) if shard == *of => true,
            (Part::Piece { .. }, Operation::Encode) => false,
            _ => return Err("has a receipt of another operation"),
        };
        if whole && receipt.output != Some(block.digest) {
            return Err("is not the block that its receipt binds");
        }
        let (from, epoch, width) = (head.receipt.signer, receipt.epoch, seat.run.miners_per_stage);
        let shard = match head.part {
            Part::Scales => 0,
            Part::Piece { shard } | Part::Sum { shard } => shard,
        };
        let blocks = butterfly::blocks(seat.run.model.stage_parameters(usize::from(seat.stage)));
        let shards = butterfly::Cut::PAIRS.shards_max(blocks, usize::from(width));
        if u64::from(shard) >= shards || from == self.config.key.id() {
            return Err("is of no shard that there can be, or of this miner itself");
        }
        match &self.state.merging {
            Some(merging) if merging.epoch == epoch => {
                if !merging.members.contains(&from) {
                    return Err("comes from nobody who merges");
                }
                self.accept_part(head.part, from, block);
                Ok(())
            }
            _ if self.state.epoch.as_ref().is_none_or(|open| open.number != epoch) => {
                Err("is of an epoch that does not end")
            }
            _ => {
                // Nobody sends more before the order than its scales.
                let bound = usize::from(width);
                let key = (head.part, from);
                if head.part != Part::Scales
                    || self.state.early_parts.len() >= bound
                    || self.state.early_parts.contains_key(&key)
                {
                    return Err("came too far ahead of the order to merge");
                }
                self.state.early_parts.insert(key, EarlyPart { epoch, block });
                Ok(())
            }
        }
    }

    /// Takes in a part of a member, which the table holds once for it.
    fn accept_part(&mut self, part: Part, from: NodeId, block: ObjectRef) {
        let Some(merging) = &mut self.state.merging else { return };
        if let Part::Piece { shard } = part {
            let known = merging.parts.get(part, from).is_some()
                || merging.parts.closed.contains_key(&(shard, from))
                || merging.opening.contains(&(shard, from));
            if known {
                return self.release(block.digest);
            }
            if merging.butterfly.shards().is_empty() {
                merging.parts.closed.insert((shard, from), block);
                return;
            }
            return self.open_piece(from, shard, block);
        }
        if !merging.parts.insert(part, from, block) {
            return self.release(block.digest);
        }
        self.turn(match part {
            Part::Scales => butterfly::Event::Scales { from },
            Part::Sum { shard } | Part::Piece { shard } => {
                butterfly::Event::Sum { from, shard, sum: block.digest }
            }
        });
    }

    fn open_piece(&mut self, from: NodeId, shard: u32, block: ObjectRef) {
        let Some(merging) = &mut self.state.merging else { return };
        let (Some(&root), Some(blocks)) = (merging.roots.get(&from), merging.blocks(shard)) else {
            return self.release(block.digest);
        };
        merging.opening.insert((shard, from));
        let task = Task::Open { piece: block.digest, from, root, blocks };
        self.compute(Job::Merge(MergeJob::Open { from, shard, block }), task);
    }
}
