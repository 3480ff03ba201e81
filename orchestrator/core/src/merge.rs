//! The end of an epoch: every stage merges, and says what came of it.

use crate::effect::{Effect, Report};
use crate::epoch::Epoch;
use crate::machine::{Orchestrator, Phase};
use crate::pieces::Disputes;
use crate::receipts::Fault;
use butterfly::{Call, Caller, Cut, Heard, Shard};
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId, Operation, Outer};
use std::collections::{BTreeMap, BTreeSet};
use wire::merge::{Seat, commitment, inputs_digest, reduce_digest};
use wire::{
    Machine, Manifest, Merge, MergeInputs, Merged, Message, ObjectRef, Receipt, Round, Signed, StageRecord,
};

/// The merge of one stage on its way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StageMerge {
    /// In key order.
    members: Vec<NodeId>,
    commitment: Digest,
    /// What was said to all.
    calls: Vec<Call>,
    /// Calls the rounds; nobody is there to be called where one merges alone.
    caller: Option<Caller>,
    scales: BTreeMap<NodeId, Digest>,
    scaled: Vec<NodeId>,
    roots: BTreeMap<NodeId, Digest>,
    shards: Vec<Shard>,
    contributors: Vec<NodeId>,
    sums: BTreeMap<(u32, NodeId), Digest>,
    /// Sums that a third party found, where owners disagreed.
    settled: BTreeMap<u32, Digest>,
    /// Shards that are added up again.
    pub disputes: Disputes,
    /// The receipt by which each came to the new weights, and to the state in which it begins the next epoch.
    applied: BTreeMap<NodeId, Signed<Receipt>>,
    merged: BTreeMap<NodeId, Merged>,
    gone: BTreeSet<NodeId>,
    /// Members that went away once all was done and kept.
    left: BTreeSet<NodeId>,
    /// Who puts the weights into the store.
    keeper: Option<NodeId>,
    kept: bool,
}

impl StageMerge {
    /// A stage of `blocks` blocks.
    fn new(members: Vec<NodeId>, secret: [u8; 32], blocks: u64) -> Self {
        // Who merges alone has all shards, whatever it commits to and nobody draws.
        let alone = |&node: &NodeId| Seat { node, root: Digest::default() };
        let shards = match &members[..] {
            [one] => butterfly::draw(blocks, &secret, &[alone(one)], Cut::PAIRS),
            _ => Vec::new(),
        };
        Self {
            caller: (members.len() > 1).then(|| Caller::new(secret, members.iter().copied().collect())),
            contributors: if members.len() > 1 { Vec::new() } else { members.clone() },
            members,
            commitment: commitment(&secret),
            calls: Vec::new(),
            scales: BTreeMap::new(),
            scaled: Vec::new(),
            roots: BTreeMap::new(),
            shards,
            sums: BTreeMap::new(),
            settled: BTreeMap::new(),
            disputes: Disputes::default(),
            applied: BTreeMap::new(),
            merged: BTreeMap::new(),
            gone: BTreeSet::new(),
            left: BTreeSet::new(),
            keeper: None,
            kept: false,
        }
    }

    fn order(&self, epoch: u32) -> Merge {
        Merge { epoch, members: self.members.clone(), commitment: self.commitment }
    }

    /// Whether this miner is to put these weights into the store.
    pub fn may_keep(&self, miner: NodeId, object: ObjectRef) -> bool {
        let merged = self.merged.get(&miner).filter(|_| self.keeper == Some(miner));
        merged.is_some_and(|merged| merged.weights == object || merged.momentum == Some(object))
    }

    /// Whether this miner holds what the stage merged into.
    pub fn holds_merged(&self, miner: NodeId) -> bool {
        self.merged.contains_key(&miner) && !self.gone.contains(&miner) && !self.left.contains(&miner)
    }

    /// Whether a member has nothing left to do: the stage's new weights are in the store.
    pub fn is_done(&self, miner: NodeId) -> bool {
        self.kept && self.merged.contains_key(&miner) && !self.gone.contains(&miner)
    }

    /// Whether the stage's new weights are in the store, or it has none, and nothing of the merge is doubted.
    fn is_over(&self) -> bool {
        self.members.is_empty() || self.kept && self.disputes.is_empty()
    }

    /// Members that still owe their word on the result.
    pub fn owing(&self) -> impl Iterator<Item = NodeId> {
        let owes = |member: &&NodeId| !self.merged.contains_key(*member) || self.keeper == Some(**member);
        self.living().filter(move |_| !self.kept).filter(move |member| owes(&member))
    }

    /// Whether both owners of a shard are gone while somebody may still need its sum.
    fn lacks_owners(&self) -> bool {
        let orphaned = |shard: &Shard| shard.owners.iter().all(|owner| self.gone.contains(owner));
        self.living().any(|member| !self.merged.contains_key(&member)) && self.shards.iter().any(orphaned)
    }

    pub fn living(&self) -> impl Iterator<Item = NodeId> {
        self.members.iter().filter(|member| !self.gone.contains(member)).copied()
    }

    /// What the receipt of an operation must name as its input; an error if the operation is not due.
    fn input_of(&self, outer: &Outer, from: NodeId, operation: &Operation) -> Result<Option<Digest>, Fault> {
        let alone = self.caller.is_none();
        let named = |of: &BTreeMap<NodeId, Digest>, who: &[NodeId]| {
            let inputs: Vec<Digest> = who.iter().filter_map(|node| of.get(node).copied()).collect();
            Some(inputs_digest(&inputs))
        };
        let due = match operation {
            Operation::Scale => (!alone && !self.scales.contains_key(&from)).then_some(None),
            Operation::Encode if self.roots.contains_key(&from) => None,
            Operation::Encode if alone => (*outer != Outer::None).then_some(None),
            Operation::Encode => self.scaled.contains(&from).then(|| named(&self.scales, &self.scaled)),
            Operation::Reduce { shard, contributors } => {
                let owner =
                    self.shards.get(*shard as usize).is_some_and(|shard| shard.owners.contains(&from));
                let due = owner && !contributors.is_empty() && *contributors == self.contributors;
                let first = !self.sums.contains_key(&(*shard, from)) && self.roots.contains_key(&from);
                (due && first).then(|| {
                    if alone {
                        return named(&self.roots, contributors);
                    }
                    let roots: Vec<Digest> =
                        contributors.iter().filter_map(|node| self.roots.get(node).copied()).collect();
                    Some(reduce_digest(&roots, self.commitment))
                })
            }
            Operation::Apply if self.applied.contains_key(&from) => None,
            Operation::Apply if *outer == Outer::None => Some(None),
            Operation::Apply => {
                let sums = self.sums();
                let whole = !sums.is_empty() && sums.len() == self.shards.len();
                whole.then(|| Some(inputs_digest(&sums)))
            }
            Operation::Forward(_) | Operation::Backward(_) | Operation::Step { .. } => None,
        };
        due.ok_or_else(|| Fault::Lie("is no operation that its merge has come to".into()))
    }

    /// The sums known so far, by shard.
    fn sums(&self) -> Vec<Digest> {
        let said = self.sums.iter().map(|(&(shard, _), &sum)| (shard, sum));
        let shards: BTreeMap<u32, Digest> =
            said.chain(self.settled.iter().map(|(&s, &sum)| (s, sum))).collect();
        shards.into_values().collect()
    }

    /// Notes what an operation that was due gave.
    fn take(&mut self, from: NodeId, receipt: &Signed<Receipt>, output: Digest) -> Option<Heard> {
        match &receipt.body.operation {
            Operation::Scale => drop(self.scales.insert(from, output)),
            Operation::Encode => {
                self.roots.insert(from, output);
                return Some(Heard::Committed { from, root: output });
            }
            Operation::Reduce { shard, .. } => drop(self.sums.insert((*shard, from), output)),
            Operation::Apply => drop(self.applied.insert(from, receipt.clone())),
            Operation::Forward(_) | Operation::Backward(_) | Operation::Step { .. } => {}
        }
        None
    }

    /// What went into an encoding and an outer step of this merge.
    fn inputs(&self) -> (Vec<Digest>, Vec<Digest>) {
        let scales = self.scaled.iter().filter_map(|member| self.scales.get(member).copied());
        (scales.collect(), self.sums())
    }

    /// What its owners say of a shard.
    pub fn claims(&self, shard: u32) -> impl Iterator<Item = (NodeId, Digest)> {
        let of_shard = (shard, NodeId([0; 32]))..=(shard, NodeId([0xFF; 32]));
        self.sums.range(of_shard).map(|(&(_, owner), &sum)| (owner, sum))
    }

    /// Whether the owners of a shard who are there have all said what it is, and whether they agree. One alone has nobody
    /// to agree with.
    fn agreement(&self, shard: u32) -> Option<bool> {
        let owners = &self.shards.get(shard as usize).filter(|_| self.caller.is_some())?.owners;
        let said = |owner: &&NodeId| self.sums.contains_key(&(shard, **owner)) || self.gone.contains(*owner);
        let mut claims = self.claims(shard).map(|(_, sum)| sum);
        let first = claims.next();
        owners.iter().all(|owner| said(&owner)).then(|| claims.all(|claim| Some(claim) == first))
    }

    pub fn contributors(&self) -> &[NodeId] {
        &self.contributors
    }

    pub fn shard(&self, shard: u32) -> Option<&Shard> {
        self.shards.get(shard as usize)
    }

    pub fn roots(&self) -> impl Iterator<Item = (NodeId, Digest)> {
        self.roots.iter().map(|(&node, &root)| (node, root))
    }

    /// Who took part in the draw.
    pub fn seats(&self) -> Option<&[Seat]> {
        self.calls.iter().find_map(|call| match call {
            Call::Drawn { seats, .. } => Some(&seats[..]),
            _ => None,
        })
    }
}

impl Orchestrator {
    pub(crate) fn order_merge(&mut self) {
        let Some(number) = self.state.epoch.as_ref().map(|epoch| epoch.number) else { return };
        self.state.phase = Phase::Merging;
        let mut merges = Vec::new();
        for stage in 0..self.config.run.model.stage_count() {
            let members = self.members_of(stage);
            let secret = self.merge_secret(number, stage);
            let blocks = butterfly::blocks(self.config.run.model.stage_parameters(stage));
            let merge = StageMerge::new(members, secret, blocks);
            for &miner in &merge.members {
                self.send(miner, Message::Merge(merge.order(number)));
            }
            merges.push(merge);
        }
        if let Some(epoch) = &mut self.state.epoch {
            epoch.merges = merges;
        }
    }

    /// Takes in the receipt of an operation of the merge.
    pub(crate) fn take_merge(&mut self, from: NodeId, receipt: &Signed<Receipt>) -> Result<(), Fault> {
        let Receipt { operation, stage, input, input_receipt, output, .. } = &receipt.body;
        let outer = self.config.run.outer.clone();
        let Some(merge) = self.stage_merge(*stage) else {
            return Err(Fault::Ignored("merge", "merges before it is due".into()));
        };
        let expected = merge.input_of(&outer, from, operation)?;
        if *input != expected || input_receipt.is_some() {
            return Err(Fault::Lie("does not go on from what its merge gave before".into()));
        }
        // A merge that met NaN or infinity gave nothing, and the run ends for it.
        let Some(output) = *output else { return Ok(()) };
        let heard = merge.take(from, receipt, output);
        if let Some(heard) = heard {
            self.tell_caller(*stage, heard);
        }
        if let Operation::Reduce { shard, .. } = operation {
            self.announce(*stage, from, *shard, output);
        }
        Ok(())
    }

    pub(crate) fn take_holding(&mut self, from: NodeId, epoch: u32, round: Round) {
        let stage = self.state.seats.stage_of(from).unwrap_or_default();
        let due = self.state.epoch.as_ref().is_some_and(|open| open.number == epoch);
        if due && self.stage_merge(stage).is_some_and(|merge| !merge.gone.contains(&from)) {
            self.tell_caller(stage, Heard::Holding { from, round });
            self.progressed();
        } else {
            self.note(from, "holding", "holds parts of a merge that is not due; ignored");
        }
    }

    pub(crate) fn take_merged(&mut self, from: NodeId, merged: &Signed<Merged>) {
        let Ok(body) = merged.verify().cloned() else {
            return self.turn_away(from, "sent a merge result whose signature does not hold");
        };
        let stage = self.state.seats.stage_of(from).unwrap_or_default();
        let due = self.state.epoch.as_ref().is_some_and(|epoch| epoch.number == body.epoch);
        // Somebody that the others went on without may not know it yet.
        let owes = |merge: &&mut StageMerge| !merge.merged.contains_key(&from) && !merge.gone.contains(&from);
        let merge = self.stage_merge(stage).filter(|merge| due && owes(merge));
        let Some(merge) = merge else {
            let text = format!("says that it merged epoch {}, which is not due; ignored", body.epoch);
            return self.note(from, "merged", &text);
        };
        let applied = merge.applied.get(&from).and_then(|receipt| receipt.body.output);
        if merged.signer != from || applied != Some(body.weights.digest) {
            return self.turn_away(from, "names other weights than its receipts gave");
        }
        merge.merged.insert(from, body);
        self.progressed();
        self.appoint_keeper(stage);
    }

    pub(crate) fn take_kept(&mut self, from: NodeId, object: ObjectRef) {
        let stage = self.state.seats.stage_of(from).unwrap_or_default();
        match self.stage_merge(stage).filter(|merge| merge.may_keep(from, object)) {
            Some(merge) => {
                merge.kept = true;
                self.progressed();
            }
            None => self.note(from, "kept", "keeps an object that it was not asked to keep; ignored"),
        }
    }

    /// A member is gone: its merge goes on without it; `false` if it cannot.
    pub(crate) fn leave_merge(&mut self, node: NodeId) -> bool {
        let stage = self.state.seats.stage_of(node).unwrap_or_default();
        let Some(merge) = self.stage_merge(stage) else { return true };
        if merge.gone.contains(&node) || !merge.members.contains(&node) {
            return true;
        }
        if merge.kept {
            merge.left.insert(node);
            return true;
        }
        if merge.living().count() < 2 {
            return false;
        }
        merge.gone.insert(node);
        if merge.lacks_owners() {
            return false;
        }
        if merge.keeper == Some(node) {
            merge.keeper = None;
        }
        self.tell_caller(stage, Heard::Lost(node));
        self.appoint_keeper(stage);
        true
    }

    /// Says again to a member that is back how far its merge has come.
    pub(crate) fn merge_again(&mut self, node: NodeId) {
        let stage = self.state.seats.stage_of(node).unwrap_or_default();
        let Some(epoch) = self.state.epoch.as_ref().map(|epoch| epoch.number) else { return };
        let Some(merge) = self.stage_merge(stage).filter(|merge| merge.living().any(|living| living == node))
        else {
            return;
        };
        let order = merge.order(epoch);
        let keep = merge.merged.get(&node).filter(|_| merge.keeper == Some(node) && !merge.kept);
        let (calls, keep) = (merge.calls.clone(), keep.map(|merged| merged.weights));
        self.send(node, Message::Merge(order));
        for call in calls {
            self.send(node, Message::Call { epoch, call });
        }
        if let Some(weights) = keep {
            self.send(node, Message::Keep(weights));
        }
        self.disputes_again(node);
    }

    /// The next manifest, once every stage has merged and its weights are in the store.
    pub(crate) fn merged_manifest(&self) -> Option<Manifest> {
        let epoch = self.state.epoch.as_ref()?;
        // Looked at with every event of a merge, so what it takes to make one comes last.
        if !epoch.merges.iter().all(StageMerge::is_over) {
            return None;
        }
        let mut stages = Vec::new();
        for (stage, merge) in epoch.merges.iter().enumerate() {
            if merge.members.is_empty() {
                // All are on probation: the stage stays as it is.
                let record = epoch.opened_with.body.stages.get(stage)?;
                stages.push(StageRecord { miners: Vec::new(), ..record.clone() });
                continue;
            }
            let keeper = merge.keeper.filter(|_| merge.kept && merge.disputes.is_empty())?;
            let first = merge.merged.get(&keeper)?;
            let miners = merge.living().filter(|member| merge.is_done(*member)).collect();
            stages.push(StageRecord { weights: first.weights, momentum: first.momentum, miners });
        }
        (stages.len() == self.config.run.model.stage_count()).then(|| Manifest {
            run: self.run_id,
            epoch: epoch.number + 1,
            previous: epoch.opened_with.digest(),
            stages,
            loss_q32: epoch.loss_q32(),
        })
    }

    /// Once all who live have merged: compares, and lets one of them put the weights into the store. What somebody said who
    /// is gone, or banned, does not count.
    fn appoint_keeper(&mut self, stage: u16) {
        let Some(merge) = self.stage_merge(stage) else { return };
        let results: Option<Vec<&Merged>> = merge.living().map(|member| merge.merged.get(&member)).collect();
        let Some((keeper, results)) = merge.living().next().zip(results) else { return };
        if merge.keeper.is_some() {
            return;
        }
        if results.iter().any(|result| *result != results[0]) {
            return self.inquire_into_merge(stage, keeper);
        }
        let weights = results[0].weights;
        merge.keeper = Some(keeper);
        self.send(keeper, Message::Keep(weights));
    }

    /// An owner's word on a shard goes to the others; words that differ, and some of those that do not, are checked.
    fn announce(&mut self, stage: u16, from: NodeId, shard: u32, sum: Digest) {
        self.call(stage, &Call::Announced { from, shard, sum });
        let agreement = self.stage_merge(stage).and_then(|merge| merge.agreement(shard));
        match agreement {
            Some(false) => {
                let name = self.stage_name(stage);
                let text = format!(
                    "the owners of shard {shard} of {name} add it up to different sums: one of them lies"
                );
                self.report(Report::Note { text });
                self.dispute(stage, shard);
            }
            Some(true) if self.is_sampled(stage, shard) => self.dispute(stage, shard),
            Some(true) | None => {}
        }
    }

    fn tell_caller(&mut self, stage: u16, heard: Heard) {
        let now_ms = self.now_ms;
        let Some(caller) = self.stage_merge(stage).and_then(|merge| merge.caller.as_mut()) else { return };
        for call in caller.handle(now_ms, heard) {
            self.call(stage, &call);
        }
    }

    /// Says something to every member that is there, and remembers what it means.
    pub(crate) fn call(&mut self, stage: u16, call: &Call) {
        let parameters = self.config.run.model.stage_parameters(usize::from(stage));
        let name = self.stage_name(stage);
        let Some(epoch) = self.state.epoch.as_ref().map(|epoch| epoch.number) else { return };
        let Some(merge) = self.stage_merge(stage) else { return };
        match call {
            Call::Scaled { members } => merge.scaled.clone_from(members),
            Call::Drawn { secret, seats } => {
                merge.shards = butterfly::draw(butterfly::blocks(parameters), secret, seats, Cut::PAIRS);
            }
            Call::Closed { contributors } => merge.contributors.clone_from(contributors),
            Call::Abandoned => {
                return self.fail(format!("every miner of {name} was lost while it merged epoch {epoch}"));
            }
            Call::Settled { shard, sum } => drop(merge.settled.insert(*shard, *sum)),
            Call::Announced { .. } | Call::Lost(_) => {}
        }
        merge.calls.push(call.clone());
        let speaker = match call {
            Call::Announced { from, .. } => Some(*from),
            _ => None,
        };
        let listeners: Vec<NodeId> = merge.living().filter(|member| Some(*member) != speaker).collect();
        if merge.caller.is_some() {
            for to in listeners {
                self.emit(Effect::Send { to, message: Message::Call { epoch, call: call.clone() } });
            }
        }
    }

    pub(crate) fn stage_merge(&mut self, stage: u16) -> Option<&mut StageMerge> {
        self.state.epoch.as_mut()?.merges.get_mut(usize::from(stage))
    }

    /// The miners of a stage that merge, in key order: who is on probation adopts what the others come to.
    fn members_of(&self, stage: usize) -> Vec<NodeId> {
        let seats = self.state.seats.miners().filter(|seat| usize::from(seat.stage) == stage);
        let seats = seats.filter(|seat| !seat.on_probation);
        let epoch = self.state.epoch.as_ref();
        seats
            .map(|seat| seat.miner)
            .filter(|miner| epoch.is_some_and(|epoch| epoch.miners.contains_key(miner)))
            .collect()
    }
}

impl Epoch {
    /// The receipts of those who merged into what a manifest says of the stages.
    pub(crate) fn merges_into(&self, manifest: &Manifest) -> BTreeMap<NodeId, Signed<Receipt>> {
        let stages = self.merges.iter().zip(&manifest.stages);
        let named = stages.flat_map(|(merge, record)| {
            record.miners.iter().filter_map(|miner| Some((*miner, merge.applied.get(miner)?.clone())))
        });
        named.collect()
    }

    /// What the merge of a stage read.
    pub(crate) fn merge_inputs(&self, stage: u16) -> Option<MergeInputs> {
        let anchor = self.opened_with.body.stages.get(usize::from(stage))?.weights;
        let (scales, sums) = self.merges.get(usize::from(stage))?.inputs();
        Some(MergeInputs { anchor, scales, sums })
    }
}
