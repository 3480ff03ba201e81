//! How long the slowest uplink takes for what a miner owes: what its drawn windows bind, and pieces of shards that are added up again.
//!
//! The bytes are the orchestrator's own account, of the run's shapes and the receipts: what a miner says of itself stretches
//! nothing. A miner reveals its windows one after another and shows pieces beside them, so the first of all that it owes is there after
//! the longest window and all the pieces. Each that is there gives the others as long again.

use crate::audit::{Pending, Standing};
use crate::disputes::Dispute;
use crate::machine::Orchestrator;
use crate::merge::StageMerge;
use crate::windows::At;
use spec::{NodeId, Outer, Run};

/// What stands before the values of a file, in bytes; more than any has.
const HEAD_BYTES: u64 = 64 << 10;
/// Bytes of a value of a merge's sums, and values that share an exponent.
const SUM_BYTES_MAX: u64 = 8;
const SCALE_VALUES: u64 = 128;
/// Bytes of a value of a piece, with its share of exponents and of the hashes that open it; more than any has.
const PIECE_BYTES_MAX: u64 = 2;

impl Pending {
    /// Bytes of the state and the inputs that it binds, at most.
    pub(crate) fn bytes_max(&self, run: &Run) -> u64 {
        let parameters = run.model.stage_parameters(usize::from(self.stage));
        let arrays = if run.outer == Outer::None { 3 } else { 5 };
        let state = HEAD_BYTES.saturating_add(parameters.saturating_mul(4 * arrays));
        let inputs = match &self.merge {
            Some(merge) => {
                let scales = parameters.div_ceil(SCALE_VALUES).saturating_mul(merge.scales.len() as u64 + 1);
                scales.saturating_add(parameters.saturating_mul(SUM_BYTES_MAX))
            }
            None => {
                let inputs = self.receipts.iter().filter(|receipt| receipt.body.input.is_some()).count();
                plan::boundary_bytes(run).saturating_mul(inputs as u64)
            }
        };
        state.saturating_add(inputs)
    }
}

impl StageMerge {
    /// Bytes of all pieces of a shard, at most.
    fn pieces_bytes_max(&self, shard: u32) -> u64 {
        let blocks = self.shard(shard).map_or(0, |of| of.blocks.end.saturating_sub(of.blocks.start));
        let piece = HEAD_BYTES.saturating_add(blocks.saturating_mul(butterfly::BLOCK * PIECE_BYTES_MAX));
        piece.saturating_mul(self.contributors().len() as u64)
    }

    /// Bytes of the pieces that these disputes ask for.
    fn asked_bytes_max(&self, is_asked: impl Fn(&Dispute) -> bool) -> u64 {
        let asked = self.disputes.iter().filter(|(_, dispute)| is_asked(dispute));
        asked.map(|(&shard, _)| self.pieces_bytes_max(shard)).fold(0, u64::saturating_add)
    }
}

impl Orchestrator {
    /// Milliseconds that transfers add to what a window may otherwise wait for, where it stands: for what its miner has to put into
    /// the store before anything of it is there, for what a validator fetches.
    pub(crate) fn transfer_ms(&self, miner: NodeId, pending: &Pending) -> u64 {
        match pending.standing {
            Standing::Drawn => self.owed_ms(miner),
            Standing::Ordered { .. } => self.uplink_ms(|| pending.bytes_max(&self.config.run)),
            Standing::Revealed { .. } | Standing::Accused { .. } => 0,
        }
    }

    /// Milliseconds until the first of all that a miner owes is in the store.
    pub(crate) fn owed_ms(&self, miner: NodeId) -> u64 {
        self.uplink_ms(|| {
            let drawn = self.pending_of(miner).filter(|of| of.standing == Standing::Drawn);
            let longest = drawn.map(|of| of.bytes_max(&self.config.run)).max().unwrap_or_default();
            let merge = self.state.seats.stage_of(miner).and_then(|stage| self.merge_of_stage(stage));
            let pieces = merge.map_or(0, |merge| merge.asked_bytes_max(|dispute| dispute.is_owed_by(miner)));
            longest.saturating_add(pieces)
        })
    }

    /// Milliseconds that the pieces of a shard take, of one owner.
    pub(crate) fn pieces_ms(&self, stage: u16, shard: u32) -> u64 {
        self.uplink_ms(|| self.merge_of_stage(stage).map_or(0, |merge| merge.pieces_bytes_max(shard)))
    }

    fn merge_of_stage(&self, stage: u16) -> Option<&StageMerge> {
        self.state.epoch.as_ref()?.merges.get(usize::from(stage))
    }

    /// More than transfers add to anything that waits now, since something last came.
    pub(crate) fn longest_transfer_ms(&self) -> u64 {
        let busy_until_ms = self.state.uplinks.values().copied().max().unwrap_or_default();
        let busy_ms = busy_until_ms.saturating_sub(self.state.progress_ms);
        let waiting = self.state.audits.values().flat_map(|epoch| epoch.pending.iter());
        let moving = waiting
            .map(|(_, of)| of)
            .filter(|of| matches!(of.standing, Standing::Drawn | Standing::Ordered { .. }));
        self.uplink_ms(|| {
            let longest = moving.map(|of| of.bytes_max(&self.config.run)).max().unwrap_or_default();
            let merges = self.state.epoch.iter().flat_map(|epoch| &epoch.merges);
            let pieces = merges.map(|merge| merge.asked_bytes_max(|_| true)).max().unwrap_or_default();
            longest.saturating_add(pieces)
        })
        .saturating_add(busy_ms)
    }

    /// Nobody needs any more what a miner may be under way with for so long: what else it owes, now or soon, waits for that.
    pub(crate) fn takes_uplink(&mut self, miner: NodeId, transfer_ms: u64) {
        let now_ms = self.now_ms;
        self.state.uplinks.retain(|_, until_ms| *until_ms > now_ms);
        let until_ms = self.state.uplinks.entry(miner).or_insert(now_ms);
        *until_ms = until_ms.saturating_add(transfer_ms);
        self.wait_for_uplink(miner);
    }

    /// What a miner owes is counted from when its uplink is free.
    pub(crate) fn wait_for_uplink(&mut self, miner: NodeId) {
        if let Some(&until_ms) = self.state.uplinks.get(&miner) {
            self.give_time(miner, until_ms);
        }
    }

    /// Something that a miner owed is in the store: all that it still owes has as long again. So the last of it is due after as many
    /// times what the first may take as there are, and who stops is late no later than who never began.
    pub(crate) fn owes_less(&mut self, miner: NodeId) {
        self.give_time(miner, self.now_ms);
        self.wait_for_uplink(miner);
    }

    fn give_time(&mut self, miner: NodeId, from_ms: u64) {
        for audited in self.state.audits.values_mut() {
            let is_short = |of: &Pending| of.standing == Standing::Drawn && of.since_ms < from_ms;
            let of_it = audited.pending.of(miner).filter(|(_, of)| is_short(of));
            let short: Vec<At> = of_it.map(|(at, _)| at).collect();
            for at in short {
                audited.pending.change(at, |pending| pending.since_ms = from_ms);
            }
        }
        let stage = self.state.seats.stage_of(miner);
        if let Some(merge) = stage.and_then(|stage| self.stage_merge(stage)) {
            merge.disputes.values_mut().for_each(|dispute| dispute.give_time(miner, from_ms));
        }
    }

    /// Milliseconds of the slowest uplink for so many bytes, which are counted only if transfers have a time of their own.
    pub(crate) fn uplink_ms(&self, bytes: impl FnOnce() -> u64) -> u64 {
        match self.config.timeouts.uplink_bytes_per_s {
            0 => 0,
            rate => (u128::from(bytes()) * 1000 / u128::from(rate)).min(u64::MAX.into()) as u64,
        }
    }
}
