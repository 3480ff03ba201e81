//! The end of an epoch, in company or alone: what the butterfly wants done, done by the engine and the shell.

mod disclose;
mod parts;

pub(crate) use parts::EarlyPart;

use crate::effect::{Effect, StateAfter, Task};
use crate::epoch::Job;
use crate::event::Done;
use crate::machine::Miner;
use butterfly::{Butterfly, Call, Cut};
use parts::Parts;
use serde::Serialize;
use spec::{Digest, NodeId, Operation, Outcome, Outer, Window};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use wire::merge::{commitment, inputs_digest, reduce_digest};
use wire::{Machine, Merge, Merged, Message, ObjectRef, Part, PartHead, Receipt, Round, Signed, Verb};

/// A merge on its way, kept until the next epoch opens: who lost a neighbour may still need a sum.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Merging {
    epoch: u32,
    members: Vec<NodeId>,
    commitment: Digest,
    butterfly: Butterfly,
    parts: Parts,
    /// My receipts whose outputs I send: of scale and encode, and of the reduction of each shard.
    scaled: Option<Signed<Receipt>>,
    encoded: Option<Signed<Receipt>>,
    reduced: BTreeMap<u32, Signed<Receipt>>,
    /// What each member committed to, once the pairs are drawn.
    roots: BTreeMap<NodeId, Digest>,
    /// To whom my piece of a shard goes while it is cut.
    cutting: BTreeMap<u32, BTreeSet<NodeId>>,
    /// Whose pieces are added up, once that is known.
    contributors: Vec<NodeId>,
    /// Pieces that are not in the store yet, of shards that are added up again.
    disclosing: BTreeMap<u32, BTreeSet<Digest>>,
    /// Pieces that the engine looks at.
    opening: BTreeSet<(u32, NodeId)>,
    /// Reductions that wait for my own piece.
    due: BTreeMap<u32, (Range<u64>, Vec<NodeId>)>,
    /// What was said to be held, and what was sent to whom: said again after a connection is lost.
    held: BTreeSet<Round>,
    sent: Vec<(NodeId, Part)>,
    /// The new weights and the outer momentum, once applied.
    result: Option<(ObjectRef, Option<ObjectRef>)>,
    /// What of them is not in the store yet, once this miner was asked to keep them there.
    keeping: BTreeSet<Digest>,
    merged: Option<Signed<Merged>>,
    kept: bool,
}

/// What the engine does for a merge.
#[derive(Debug, Clone, Serialize)]
pub(crate) enum MergeJob {
    Operate { operation: Operation, input: Option<Digest> },
    Cut { shard: u32 },
    Open { from: NodeId, shard: u32, block: ObjectRef },
}

impl MergeJob {
    /// What the table holds for this job alone.
    pub fn holds(&self) -> Option<Digest> {
        match self {
            Self::Open { block, .. } => Some(block.digest),
            Self::Operate { .. } | Self::Cut { .. } => None,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Operate { operation, .. } => operation.name(),
            Self::Cut { .. } => "cutting a piece",
            Self::Open { .. } => "opening a piece",
        }
    }
}

impl Merging {
    fn new(merge: &Merge, me: NodeId, parameters: u64) -> Self {
        Self {
            epoch: merge.epoch,
            members: merge.members.clone(),
            commitment: merge.commitment,
            butterfly: Butterfly::new(me, &merge.members, parameters, Cut::PAIRS),
            parts: Parts::default(),
            scaled: None,
            encoded: None,
            reduced: BTreeMap::new(),
            roots: BTreeMap::new(),
            cutting: BTreeMap::new(),
            contributors: Vec::new(),
            disclosing: BTreeMap::new(),
            opening: BTreeSet::new(),
            due: BTreeMap::new(),
            held: BTreeSet::new(),
            sent: Vec::new(),
            result: None,
            keeping: BTreeSet::new(),
            merged: None,
            kept: false,
        }
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    pub fn rounds(&self) -> impl Iterator<Item = Round> {
        self.held.iter().copied()
    }

    /// The word on the result, once it was given.
    pub fn said(&self) -> Option<(Signed<Merged>, ObjectRef)> {
        Some((self.merged.clone()?, self.result?.0))
    }

    pub fn is_kept(&self) -> bool {
        self.kept
    }

    fn receipt(&self, part: Part) -> Option<Signed<Receipt>> {
        match part {
            Part::Scales => self.scaled.clone(),
            Part::Piece { .. } => self.encoded.clone(),
            Part::Sum { shard } => self.reduced.get(&shard).cloned(),
        }
    }

    fn blocks(&self, shard: u32) -> Option<Range<u64>> {
        Some(self.butterfly.shards().get(shard as usize)?.blocks.clone())
    }
}

impl Miner {
    pub(crate) fn start_merge(&mut self, merge: &Merge) {
        let me = self.config.key.id();
        let (Some(seat), Some(epoch)) = (&self.state.seat, &self.state.epoch) else {
            return self.note("the orchestrator asked for a merge while no epoch is open, ignored".into());
        };
        let finished = epoch.is_finished(&seat.run);
        let known = self.state.merging.as_ref().is_some_and(|merging| merging.epoch == merge.epoch);
        if merge.epoch != epoch.number || !finished || known {
            return self.note(format!("the merge of epoch {} is not due here, ignored", merge.epoch));
        }
        let sorted = merge.members.is_sorted_by(|a, b| a < b);
        let company = merge.members.len() <= usize::from(seat.run.miners_per_stage);
        if !merge.members.contains(&me) || !sorted || !company {
            return self.leave(format!(
                "the merge of epoch {} names {} members of this stage, expected this miner among at most {} in key order",
                merge.epoch,
                merge.members.len(),
                seat.run.miners_per_stage
            ));
        }
        let parameters = seat.run.model.stage_parameters(usize::from(seat.stage));
        let plain = seat.run.outer == Outer::None;
        self.state.merging = Some(Merging::new(merge, me, parameters));
        // Everybody's last step is taken.
        self.used_before(u32::MAX);
        if plain {
            return self.merge_operation(Operation::Apply, None, Vec::new());
        }
        self.turn(butterfly::Event::Began);
        self.take_early_parts();
    }

    pub(crate) fn take_call(&mut self, epoch: u32, call: Call) {
        let Some(merging) = self.state.merging.as_mut().filter(|merging| merging.epoch == epoch) else {
            return self
                .note(format!("a call for the merge of epoch {epoch} came while none is due, ignored"));
        };
        if let Call::Drawn { secret, seats } = &call {
            if commitment(secret) != merging.commitment {
                return self.leave(format!(
                    "the orchestrator draws the pairs of epoch {epoch} by another secret than it committed to"
                ));
            }
            merging.roots = seats.iter().map(|seat| (seat.node, seat.root)).collect();
        }
        if let Call::Closed { contributors } = &call {
            merging.contributors.clone_from(contributors);
        }
        let drawn = matches!(call, Call::Drawn { .. });
        self.turn(butterfly::Event::Called(call));
        if drawn {
            self.open_parts();
        }
    }

    /// A job of the merge is done.
    pub(crate) fn merge_job_done(&mut self, job: MergeJob, done: &Done) {
        match job {
            MergeJob::Operate { operation, input } => self.merged(operation, input, done),
            MergeJob::Cut { shard } => self.cut(shard, done),
            MergeJob::Open { from, shard, block } => self.opened(from, shard, block, done.output.is_some()),
        }
    }

    /// Next epoch: nobody asks for parts of this merge any more.
    pub(crate) fn end_merge(&mut self) {
        let Some(merging) = self.state.merging.take() else { return };
        for &digest in merging.keeping.iter().chain(merging.disclosing.values().flatten()) {
            self.state.waits.transferred(Verb::Put, digest);
        }
        let result = merging.result.into_iter().flat_map(|(weights, momentum)| [Some(weights), momentum]);
        let result = result.flatten().map(|object| object.digest);
        for digest in merging.parts.digests().chain(result) {
            self.release(digest);
        }
    }

    /// The orchestrator chose this miner to put the weights into the store.
    pub(crate) fn keep_weights(&mut self, object: ObjectRef) {
        let merging = self.state.merging.as_mut();
        let kept = merging.and_then(|merging| Some((merging.result?, merging)));
        let Some(((weights, momentum), merging)) = kept.filter(|((weights, _), _)| *weights == object) else {
            return self.note(format!("asked to keep {object}, which this miner did not merge, ignored"));
        };
        let objects: Vec<ObjectRef> = [Some(weights), momentum].into_iter().flatten().collect();
        merging.keeping = objects.iter().map(|object| object.digest).collect();
        for object in objects {
            self.ask(Verb::Put, object);
        }
    }

    pub(crate) fn weights_kept(&mut self, digest: Digest) {
        let Some(merging) = &mut self.state.merging else { return };
        let last = merging.keeping.remove(&digest) && merging.keeping.is_empty();
        if let Some((weights, _)) = merging.result.filter(|_| last) {
            merging.kept = true;
            // The merge is remembered until the next epoch opens: this word may not arrive.
            self.send(Message::Kept(weights));
        }
    }

    /// Moves the butterfly on, and does what it wants done.
    fn turn(&mut self, event: butterfly::Event) {
        let now_ms = self.now_ms;
        let Some(merging) = &mut self.state.merging else { return };
        let effects = merging.butterfly.handle(now_ms, event);
        let epoch = merging.epoch;
        for effect in effects {
            self.serve(epoch, effect);
        }
    }

    fn serve(&mut self, epoch: u32, effect: butterfly::Effect) {
        use butterfly::Effect as Wanted;
        match effect {
            Wanted::Scale => self.merge_operation(Operation::Scale, None, Vec::new()),
            Wanted::Encode { members } => {
                let scales = self.held(members.iter().map(|&member| (Part::Scales, member)));
                let input = (!members.is_empty()).then(|| inputs_digest(&scales));
                self.merge_operation(Operation::Encode, input, scales);
            }
            // The receipt of the encoding, which the orchestrator has, is the commitment, and that of a
            // reduction the announcement.
            Wanted::Commit { .. } | Wanted::Announce { .. } => {}
            Wanted::SendScales { to } => self.send_part(to, Part::Scales),
            Wanted::SendPiece { to, shard, blocks } => self.cut_for(shard, blocks, Some(to)),
            Wanted::Holding(round) => {
                if let Some(merging) = &mut self.state.merging {
                    merging.held.insert(round);
                }
                self.send(Message::Holding { epoch, round });
            }
            Wanted::Reduce { shard, blocks, contributors } => {
                if let Some(merging) = &mut self.state.merging {
                    merging.due.insert(shard, (blocks, contributors));
                }
                self.reduce_due();
            }
            Wanted::SendSum { to, shard, .. } => self.send_part(to, Part::Sum { shard }),
            Wanted::Apply { sums } => {
                self.merge_operation(Operation::Apply, Some(inputs_digest(&sums)), sums);
            }
            Wanted::Disagree { shard, owners: [one, other], .. } => self.note(format!(
                "{} and {} add up shard {shard} to different sums",
                one.short(),
                other.short()
            )),
            Wanted::Accuse { node, shard } => self.note(format!(
                "the piece of shard {shard} by {} does not open against what it committed to",
                node.short()
            )),
            Wanted::Orphaned { shard } => {
                self.note(format!("every owner of shard {shard} is lost: the merge cannot be finished"));
            }
            Wanted::Excluded => self.note(format!("the others merge epoch {epoch} without this miner")),
        }
    }

    fn merge_operation(&mut self, operation: Operation, input: Option<Digest>, inputs: Vec<Digest>) {
        let Some(epoch) = self.state.merging.as_ref().map(|merging| merging.epoch) else { return };
        let is_last = operation == Operation::Apply;
        if is_last || operation == Operation::Encode {
            self.keep_merge_inputs(epoch, &inputs);
        }
        let task = Task::Perform {
            epoch,
            operation: operation.clone(),
            inputs,
            // What the next epoch begins with.
            state: if is_last { StateAfter::Digest } else { StateAfter::Untold },
            keep_weights: is_last,
        };
        self.compute(Job::Merge(MergeJob::Operate { operation, input }), task);
    }

    /// An operation of the merge is done: receipt, and what the butterfly makes of it.
    fn merged(&mut self, operation: Operation, input: Option<Digest>, done: &Done) {
        let me = self.config.key.id();
        let Some(epoch) = self.state.merging.as_ref().map(|merging| merging.epoch) else { return };
        let output = match operation {
            Operation::Apply => done.weights.map(|weights| weights.digest),
            Operation::Encode => done.root,
            _ => done.output.map(|output| output.digest),
        };
        let failed = done.outcome != Outcome::Ok;
        if output.is_none() && !failed {
            return self.leave(format!("{} gave nothing, which is a bug of this program", operation.name()));
        }
        let inputs = [None, input];
        let outputs = [output.filter(|_| !failed), done.state.filter(|_| !failed)];
        let receipt = self.give_receipt(epoch, operation.clone(), inputs, outputs, None, done.outcome);
        let (Some(output), Some(receipt), Some(merging)) =
            (output.filter(|_| !failed), receipt, &mut self.state.merging)
        else {
            return;
        };
        match operation {
            Operation::Scale => {
                merging.scaled = Some(receipt);
                self.hold_made(Part::Scales, done);
                self.turn(butterfly::Event::Scaled);
            }
            Operation::Encode => {
                merging.encoded = Some(receipt);
                merging.roots.insert(me, output);
                self.turn(butterfly::Event::Encoded { root: output });
            }
            Operation::Reduce { shard, .. } => {
                merging.reduced.insert(shard, receipt);
                self.hold_made(Part::Sum { shard }, done);
                self.turn(butterfly::Event::Reduced { shard, sum: output });
            }
            _ => self.applied(epoch, done),
        }
    }

    /// Keeps what an operation of the merge reads, while it may be drawn.
    fn keep_merge_inputs(&mut self, epoch: u32, inputs: &[Digest]) {
        let (Some(merging), Some(open)) = (&self.state.merging, &self.state.epoch) else { return };
        let window = Window { epoch, step: open.stepped };
        let objects: Vec<ObjectRef> =
            inputs.iter().filter_map(|&digest| merging.parts.named(digest)).collect();
        for object in objects {
            self.state.table.hold(object.digest);
            self.keep_input(window, object);
        }
    }

    /// Keeps what I made as a part.
    fn hold_made(&mut self, part: Part, done: &Done) {
        let me = self.config.key.id();
        if let Some(object) = done.output {
            self.hold_part(part, me, object);
        }
    }

    fn applied(&mut self, epoch: u32, done: &Done) {
        let (Some(weights), Some(merging)) = (done.weights, &mut self.state.merging) else { return };
        let momentum = done.momentum;
        merging.result = Some((weights, momentum));
        for object in [Some(weights), momentum].into_iter().flatten() {
            self.state.table.hold(object.digest);
        }
        self.state.epoch = None;
        if let Some(seat) = &mut self.state.seat {
            (seat.weights, seat.merged) = (Some(weights.digest), Some(epoch));
        }
        let merged = Signed::new(Merged { epoch, weights, momentum }, &self.config.key);
        if let Some(merging) = &mut self.state.merging {
            merging.merged = Some(merged.clone());
        }
        self.send(Message::Merged(merged));
    }

    /// Cuts my piece of a shard, for a neighbour or for myself.
    fn cut_for(&mut self, shard: u32, blocks: Range<u64>, to: Option<NodeId>) {
        let me = self.config.key.id();
        let Some(merging) = &mut self.state.merging else { return };
        if merging.parts.get(Part::Piece { shard }, me).is_some() {
            return to.into_iter().for_each(|to| self.send_part(to, Part::Piece { shard }));
        }
        let begun = merging.cutting.contains_key(&shard);
        merging.cutting.entry(shard).or_default().extend(to);
        if !begun {
            self.compute(Job::Merge(MergeJob::Cut { shard }), Task::Cut { blocks });
        }
    }

    fn cut(&mut self, shard: u32, done: &Done) {
        let me = self.config.key.id();
        let Some(piece) = done.output else {
            return self.leave("cutting gave no piece, which is a bug of this program".into());
        };
        self.hold_part(Part::Piece { shard }, me, piece);
        let Some(merging) = &mut self.state.merging else { return };
        for to in merging.cutting.remove(&shard).unwrap_or_default() {
            self.send_part(to, Part::Piece { shard });
        }
        self.reduce_due();
    }

    /// Reduces every shard whose pieces are all here, mine included.
    fn reduce_due(&mut self) {
        let Some(merging) = &self.state.merging else { return };
        for (shard, (blocks, contributors)) in merging.due.clone() {
            let wanted = contributors.iter().map(|&who| (Part::Piece { shard }, who));
            let pieces = self.held(wanted);
            if pieces.len() < contributors.len() {
                self.cut_for(shard, blocks, None);
                continue;
            }
            let Some(merging) = &mut self.state.merging else { return };
            merging.due.remove(&shard);
            let roots: Vec<Digest> =
                contributors.iter().filter_map(|who| merging.roots.get(who).copied()).collect();
            // Alone there is no draw to bind.
            let input = match merging.members.len() {
                1 => inputs_digest(&roots),
                _ => reduce_digest(&roots, merging.commitment),
            };
            self.merge_operation(Operation::Reduce { shard, contributors }, Some(input), pieces);
        }
    }

    fn opened(&mut self, from: NodeId, shard: u32, block: ObjectRef, opens: bool) {
        match &mut self.state.merging {
            // It was held when it arrived.
            Some(merging) if opens => drop(merging.parts.insert(Part::Piece { shard }, from, block)),
            _ => self.release(block.digest),
        }
        self.turn(butterfly::Event::Piece { from, shard, opens });
    }

    /// Sends again what one member, or everyone, may have missed.
    pub(crate) fn send_parts_again(&mut self, to: Option<NodeId>) {
        let Some(merging) = &mut self.state.merging else { return };
        let (again, others): (Vec<_>, Vec<_>) = std::mem::take(&mut merging.sent)
            .into_iter()
            .partition(|(node, _)| to.is_none_or(|to| *node == to));
        merging.sent = others;
        for (to, part) in again {
            self.send_part(to, part);
        }
    }

    fn send_part(&mut self, to: NodeId, part: Part) {
        let me = self.config.key.id();
        let Some(merging) = &mut self.state.merging else { return };
        if let (Some(block), Some(receipt)) = (merging.parts.get(part, me), merging.receipt(part)) {
            merging.sent.push((to, part));
            self.emit(Effect::SendPart { to, head: PartHead { part, receipt }, block });
        }
    }

    /// Digests of parts, in the order asked for; what is not here is left out.
    fn held(&self, parts: impl Iterator<Item = (Part, NodeId)>) -> Vec<Digest> {
        let Some(merging) = &self.state.merging else { return Vec::new() };
        parts.filter_map(|(part, of)| merging.parts.get(part, of)).collect()
    }

    fn hold_part(&mut self, part: Part, of: NodeId, object: ObjectRef) {
        self.state.table.hold(object.digest);
        let fresh = self.state.merging.as_mut().is_some_and(|merging| merging.parts.insert(part, of, object));
        if !fresh {
            self.release(object.digest);
        }
    }
}
