//! Sums that are added up again: where the owners of a shard disagree, and where they agree but were drawn.
//!
//! The owners put the pieces, which open against what everybody committed to, into the store; a validator adds them up.
//! Who signed another sum lied. Where an honest owner is left the merge goes on with its copy; else the epoch begins
//! again without the liars.

use crate::accusations::Charge;
use crate::effect::Report;
use crate::machine::{Orchestrator, Phase};
use crate::merge::StageMerge;
use serde::{Deserialize, Serialize};
use spec::{NodeId, Operation};
use std::collections::{BTreeMap, BTreeSet};
use wire::{Call, MergeEvidence, MergeOrder, Message, ObjectRef, Receipt, Signed, SumVerdict};

const SAMPLE_DOMAIN: &str = "iota sum draw v1";

/// A shard that is added up again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Dispute {
    since_ms: u64,
    owners: Vec<NodeId>,
    /// What is to be added up, but for the pieces.
    order: MergeOrder,
    /// What the owners say the pieces are.
    pub named: BTreeMap<NodeId, Vec<ObjectRef>>,
    /// Owners whose pieces are in the store.
    disclosed: BTreeSet<NodeId>,
    /// Owners whose pieces do not open.
    useless: BTreeSet<NodeId>,
    /// Which validator adds up whose pieces.
    ordered: Option<(NodeId, NodeId)>,
    /// Whether a validator found something wrong, and a second party looks whether that is so.
    accused: bool,
}

/// What a validator found wrong with a shard.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Charged {
    /// Whose pieces were added up.
    owner: NodeId,
    /// What was added up, with these pieces.
    order: MergeOrder,
    verdict: Signed<SumVerdict>,
}

impl Dispute {
    /// Asks the owners of a shard, who said `order.claims`, for its pieces.
    pub fn new(order: MergeOrder, since_ms: u64) -> Self {
        Self {
            since_ms,
            owners: order.claims.iter().map(|claim| claim.signer).collect(),
            order,
            named: BTreeMap::new(),
            disclosed: BTreeSet::new(),
            useless: BTreeSet::new(),
            ordered: None,
            accused: false,
        }
    }

    /// Whether an owner named this object as a piece.
    pub fn names(&self, owner: NodeId, object: ObjectRef) -> bool {
        self.named.get(&owner).is_some_and(|pieces| pieces.contains(&object))
    }

    /// Whether an owner is asked for pieces that are not in the store.
    pub fn is_owed_by(&self, owner: NodeId) -> bool {
        self.owners.contains(&owner) && !self.disclosed.contains(&owner)
    }

    /// An owner that is asked for pieces has as long again, from `from_ms` on.
    pub fn give_time(&mut self, owner: NodeId, from_ms: u64) {
        if self.is_owed_by(owner) {
            self.since_ms = self.since_ms.max(from_ms);
        }
    }

    /// What is to be added up, with an owner's pieces.
    fn order_with(&self, owner: NodeId) -> Option<MergeOrder> {
        Some(MergeOrder { pieces: self.named.get(&owner)?.clone(), ..self.order.clone() })
    }

    /// Whether a validator was ordered to fetch this object.
    pub fn ordered_to(&self, node: NodeId, object: ObjectRef) -> bool {
        self.ordered.is_some_and(|(validator, owner)| validator == node && self.names(owner, object))
    }
}

impl Orchestrator {
    /// Owners said different things of a shard, or one that is drawn: asks for the pieces.
    pub(crate) fn dispute(&mut self, stage: u16, shard: u32) {
        let now_ms = self.now_ms;
        let Some(order) = self.merge_order(stage, shard) else { return };
        let epoch = order.epoch;
        let dispute = Dispute::new(order, now_ms);
        let owners = dispute.owners.clone();
        if let Some(merge) = self.stage_merge(stage) {
            merge.disputes.insert(shard, dispute);
        }
        for owner in owners {
            self.wait_for_uplink(owner);
            self.send(owner, Message::Disclose { epoch, shard });
        }
    }

    /// Whether a shard on which the owners agree is added up again all the same: as often as an inner step is audited.
    pub(crate) fn is_sampled(&self, stage: u16, shard: u32) -> bool {
        let (draws, all) = (self.config.run.audit_draws() as u64, self.config.run.audit_candidates().len());
        let Some(epoch) = &self.state.epoch else { return false };
        let Some(merge) = epoch.merges.get(usize::from(stage)) else { return false };
        let mut hasher = blake3::Hasher::new_derive_key(SAMPLE_DOMAIN);
        hasher.update(&self.config.secret).update(&epoch.number.to_le_bytes()).update(&stage.to_le_bytes());
        hasher.update(&shard.to_le_bytes());
        for (_, root) in merge.roots() {
            hasher.update(root.as_bytes());
        }
        let mut word = [0; 8];
        hasher.finalize_xof().fill(&mut word);
        // The bias of the remainder is below 2^-32 for every count of steps there is.
        all > 0 && u64::from_le_bytes(word) % (all as u64) < draws
    }

    pub(crate) fn take_disclosed(
        &mut self,
        from: NodeId,
        (epoch, shard): (u32, u32),
        pieces: Vec<ObjectRef>,
        stored: bool,
    ) {
        let stage = self.state.seats.stage_of(from).unwrap_or_default();
        let open = self.state.epoch.as_ref().is_some_and(|open| open.number == epoch);
        let merge = self.stage_merge(stage).filter(|_| open);
        let count = merge.as_ref().map_or(0, |merge| merge.contributors().len());
        let dispute = merge.and_then(|merge| merge.disputes.get_mut(shard));
        let Some(dispute) = dispute.filter(|dispute| dispute.owners.contains(&from)) else {
            return self.note(from, "disclosed", "discloses pieces that nobody asked it for; ignored");
        };
        if pieces.len() != count || dispute.named.get(&from).is_some_and(|named| *named != pieces) {
            return self.turn_away(
                from,
                "disclosed other pieces than those it named, or not as many as were added up",
            );
        }
        if stored {
            dispute.disclosed.insert(from);
        }
        if let Some(merge) = self.stage_merge(stage) {
            merge.disputes.name(shard, from, pieces);
        }
        if stored {
            if let Some(epoch) = &mut self.state.epoch {
                epoch.disclosures += 1;
            }
            self.progressed();
            self.owes_less(from);
            self.order_sums_of(stage);
        }
    }

    /// Nobody is asked for the pieces of a shard any more. Who was may be under way with them all the same.
    fn close_dispute(&mut self, stage: u16, shard: u32) {
        let pieces_ms = self.pieces_ms(stage, shard);
        let dispute = self.stage_merge(stage).and_then(|merge| merge.disputes.remove(shard));
        let Some(dispute) = dispute else { return };
        for &owner in dispute.owners.iter().filter(|owner| dispute.is_owed_by(**owner)) {
            self.takes_uplink(owner, pieces_ms);
        }
    }

    /// Gives every shard whose pieces are in the store to a validator.
    pub(crate) fn order_sums(&mut self) {
        let stages = self.config.run.model.stage_count();
        for stage in (0..stages).filter_map(|stage| u16::try_from(stage).ok()) {
            self.order_sums_of(stage);
        }
    }

    /// The same of one stage.
    fn order_sums_of(&mut self, stage: u16) {
        let Some(validator) = self.state.seats.validators_present().next() else { return };
        let Some(merge) = self.stage_merge(stage) else { return };
        let mut orders = Vec::new();
        for dispute in merge.disputes.values_mut().filter(|d| d.ordered.is_none() && !d.accused) {
            let owner = dispute.disclosed.iter().find(|owner| !dispute.useless.contains(owner)).copied();
            if let Some(order) = owner.and_then(|owner| dispute.order_with(owner)) {
                dispute.ordered = owner.map(|owner| (validator, owner));
                orders.push(order);
            }
        }
        for order in orders {
            self.send(validator, Message::AddUp(order));
        }
    }

    /// A validator is gone: another one, or it itself, adds up what it had.
    pub(crate) fn orphan_sums(&mut self, gone: NodeId) {
        let merges = self.state.epoch.iter_mut().flat_map(|epoch| &mut epoch.merges);
        for dispute in merges.flat_map(|merge| merge.disputes.values_mut()) {
            if dispute.ordered.is_some_and(|(validator, _)| validator == gone) {
                dispute.ordered = None;
            }
        }
        self.order_sums();
    }

    pub(crate) fn take_added_up(&mut self, from: NodeId, verdict: &Signed<SumVerdict>) {
        let Ok(body) = verdict.verify().cloned() else {
            return self.turn_away(from, "sent a verdict whose signature does not hold");
        };
        if verdict.signer != from || body.run != self.run_id {
            return self.turn_away(from, "sent a verdict of another node or run");
        }
        let SumVerdict { stage, epoch, shard, sum, .. } = body;
        let open = self.state.epoch.as_ref().is_some_and(|open| open.number == epoch);
        let merge = self.stage_merge(stage).filter(|_| open);
        let dispute = merge.and_then(|merge| merge.disputes.get_mut(shard));
        let ordered =
            dispute.as_ref().and_then(|dispute| dispute.ordered).filter(|(validator, _)| *validator == from);
        let (Some(dispute), Some((_, owner))) = (dispute, ordered) else {
            return self.note(from, "sum", "added up a shard that it was not asked for; ignored");
        };
        let Some(order) = dispute.order_with(owner) else { return };
        dispute.ordered = None;
        let liar = order.claims.iter().find(|claim| claim.body.output != sum).map(|claim| claim.signer);
        // Where no piece is wrong and nobody lied, there is nothing to check.
        let accused = if sum.is_none() { Some(owner) } else { liar };
        if let Some(accused) = accused {
            dispute.accused = true;
            let run = self.config.run.canonical_bytes();
            let evidence = MergeEvidence { run, accused, order: order.clone(), verdict: verdict.clone() };
            let charged = Charged { owner, order, verdict: verdict.clone() };
            self.accuse(from, wire::to_bytes(&evidence), Charge::Sum(charged));
        } else {
            self.close_dispute(stage, shard);
            self.report(Report::AddedUp { epoch, stage, shard, liars: Vec::new() });
        }
        self.progressed();
    }

    /// The dispute that a charge is about, unless the epoch began again since.
    fn dispute_of(&mut self, charged: &Charged) -> Option<&mut Dispute> {
        let MergeOrder { stage, epoch, shard, .. } = charged.order;
        let open = self.state.epoch.as_ref().is_some_and(|open| open.number == epoch);
        let dispute = self.stage_merge(stage).filter(|_| open)?.disputes.get_mut(shard)?;
        Some(dispute).filter(|dispute| dispute.accused && dispute.order.roots == charged.order.roots)
    }

    /// What a validator found wrong with a shard is not so: another adds it up.
    pub(crate) fn sum_is_open_again(&mut self, charged: &Charged) {
        if let Some(dispute) = self.dispute_of(charged) {
            dispute.accused = false;
        }
    }

    /// What a validator found wrong with a shard is so.
    pub(crate) fn sum_is_proven(&mut self, charged: Charged) {
        let open = self.dispute_of(&charged);
        let is_open = open.is_some();
        let Charged { owner, order, verdict } = charged;
        let MergeOrder { stage, epoch, shard, .. } = order;
        let Some(truth) = verdict.body.sum else {
            // Somebody else's pieces may open.
            let Some(dispute) = open else { return };
            dispute.accused = false;
            dispute.useless.insert(owner);
            if dispute.owners.iter().all(|owner| dispute.useless.contains(owner)) {
                return self.withheld_pieces(stage, shard);
            }
            return self.order_sums();
        };
        if is_open {
            self.close_dispute(stage, shard);
        }
        let lied = order.claims.iter().filter(|claim| claim.body.output != Some(truth));
        let liars: Vec<NodeId> = lied.map(|claim| claim.signer).collect();
        self.report(Report::AddedUp { epoch, stage, shard, liars: liars.clone() });
        let saved = liars.len() < order.claims.len();
        if saved && is_open {
            self.call(stage, &Call::Settled { shard, sum: truth });
        }
        for &accused in &liars {
            let (run, order) = (self.config.run.canonical_bytes(), order.clone());
            let evidence = MergeEvidence { run, accused, order, verdict: verdict.clone() };
            let why = format!(
                " in its reduction of shard {shard} (epoch {epoch}): it signed another sum than the pieces have"
            );
            self.convict(accused, &why, Some(wire::to_bytes(&evidence)));
        }
        if !saved && is_open && self.state.phase == Phase::Merging {
            self.rewind("the owners of a shard lied about its sum");
        }
    }

    /// Owners that do not show what they added up are convicted, if nobody else shows it though others show theirs: where
    /// nobody can, the store or the network is to blame.
    pub(crate) fn convict_concealers(&mut self, late: &dyn Fn(u64) -> bool) {
        if self.state.epoch.as_ref().is_none_or(|epoch| epoch.disclosures == 0) {
            return;
        }
        let mut due: Vec<(u16, u32)> = Vec::new();
        for (stage, merge) in (0..).zip(self.state.epoch.iter().flat_map(|epoch| &epoch.merges)) {
            let overdue = |dispute: &&Dispute| {
                let transfer_ms =
                    || dispute.owners.iter().map(|&owner| self.owed_ms(owner)).max().unwrap_or(0);
                dispute.disclosed.is_empty()
                    && late(dispute.since_ms)
                    && late(dispute.since_ms.saturating_add(transfer_ms()))
            };
            due.extend(merge.disputes.iter().filter(|(_, d)| overdue(d)).map(|(&shard, _)| (stage, shard)));
        }
        for (stage, shard) in due {
            self.withheld_pieces(stage, shard);
        }
    }

    /// When the next owner must have shown its pieces.
    pub(crate) fn disclosure_due_ms(&self) -> Option<u64> {
        let merges = self.state.epoch.iter().flat_map(|epoch| &epoch.merges);
        let disputes = merges.flat_map(|merge| merge.disputes.iter()).map(|(_, dispute)| dispute);
        let open = disputes.filter(|dispute| dispute.disclosed.is_empty());
        open.map(|dispute| {
            let transfer_ms = dispute.owners.iter().map(|&owner| self.owed_ms(owner)).max().unwrap_or(0);
            let patience_ms = self.config.timeouts.reveal_ms.saturating_add(transfer_ms);
            dispute.since_ms.saturating_add(patience_ms)
        })
        .min()
    }

    /// Says again to an owner that is back what it is asked to disclose.
    pub(crate) fn disputes_again(&mut self, node: NodeId) {
        let stage = self.state.seats.stage_of(node).unwrap_or_default();
        let Some(epoch) = self.state.epoch.as_ref().map(|epoch| epoch.number) else { return };
        let Some(merge) = self.stage_merge(stage) else { return };
        let owes = |dispute: &Dispute| dispute.owners.contains(&node) && !dispute.disclosed.contains(&node);
        let due: Vec<u32> = merge.disputes.iter().filter(|(_, d)| owes(d)).map(|(&shard, _)| shard).collect();
        for shard in due {
            self.send(node, Message::Disclose { epoch, shard });
        }
    }

    fn withheld_pieces(&mut self, stage: u16, shard: u32) {
        let Some(dispute) = self.stage_merge(stage).and_then(|merge| merge.disputes.remove(shard)) else {
            return;
        };
        for owner in dispute.owners {
            if !self.state.seats.is_lost(owner) && self.state.seats.stage_of(owner).is_some() {
                let why = format!(
                    " of withholding: it did not show the pieces of shard {shard}, which it added up"
                );
                self.convict(owner, &why, None);
            }
        }
        if self.state.phase == Phase::Merging {
            self.rewind("nobody showed the pieces of a shard");
        }
    }

    fn merge_order(&self, stage: u16, shard: u32) -> Option<MergeOrder> {
        let epoch = self.state.epoch.as_ref()?;
        let merge: &StageMerge = epoch.merges.get(usize::from(stage))?;
        let given = |miner: &NodeId, wanted: &dyn Fn(&Operation) -> bool| -> Option<Signed<Receipt>> {
            let receipts = &epoch.miners.get(miner).or_else(|| epoch.left.get(miner))?.receipts;
            receipts.iter().rev().find(|receipt| wanted(&receipt.body.operation)).cloned()
        };
        let of_shard =
            |operation: &Operation| matches!(operation, Operation::Reduce { shard: of, .. } if *of == shard);
        let roots = merge.contributors().iter().map(|miner| given(miner, &|op| *op == Operation::Encode));
        Some(MergeOrder {
            stage,
            epoch: epoch.number,
            shard,
            secret: self.merge_secret(epoch.number, usize::from(stage)),
            seats: merge.seats()?.to_vec(),
            roots: roots.collect::<Option<_>>()?,
            claims: merge.claims(shard).filter_map(|(owner, _)| given(&owner, &of_shard)).collect(),
            pieces: Vec::new(),
        })
    }
}
