//! The end of an epoch: encode, reduce, apply, upload, say so.

use crate::effect::Task;
use crate::epoch::Job;
use crate::event::Done;
use crate::machine::Miner;
use crate::payload::Arrived;
use serde::Serialize;
use spec::{Digest, Operation, Outcome, Outer};
use wire::{Merge, Merged, Message, ObjectRef, Signed, Verb};

/// A merge on its way.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Merging {
    epoch: u32,
    /// The new weights and the outer momentum's digest, once applied.
    result: Option<(ObjectRef, Digest)>,
}

impl Miner {
    pub(crate) fn start_merge(&mut self, merge: &Merge) {
        let (Some(seat), Some(epoch)) = (&self.state.seat, &self.state.epoch) else {
            return self.note("the orchestrator asked for a merge while no epoch is open, ignored".into());
        };
        let finished = epoch.stepped == seat.run.epoch.steps;
        if merge.epoch != epoch.number || !finished || self.state.merging.is_some() {
            return self.note(format!("the merge of epoch {} is not due here, ignored", merge.epoch));
        }
        if merge.members != [self.config.key.id()] {
            return self.leave(format!(
                "the merge of epoch {} has {} members, this version merges alone: run one miner per stage",
                merge.epoch,
                merge.members.len()
            ));
        }
        self.state.merging = Some(Merging { epoch: merge.epoch, result: None });
        match seat.run.outer {
            Outer::None => self.merge_step(Operation::Apply, None),
            Outer::Nesterov { .. } => self.merge_step(Operation::Encode, None),
        }
    }

    /// An operation of the merge is done: receipt, and the next one.
    pub(crate) fn merged(&mut self, operation: Operation, input: Option<Arrived>, done: &Done) {
        let Some(epoch) = self.state.merging.as_ref().map(|merging| merging.epoch) else { return };
        let inputs =
            [input.as_ref().map(|input| input.receipt), input.as_ref().map(|input| input.block.digest)];
        let output = if operation == Operation::Apply { done.weights } else { done.output };
        let Some(output) = output else {
            return self.leave(format!("{} gave nothing, which is a bug of this program", operation.name()));
        };
        self.state.table.hold(output.digest);
        let receipt = self.give_receipt(
            epoch,
            operation.clone(),
            inputs,
            [Some(output.digest), None],
            None,
            done.outcome,
        );
        if let Some(input) = input {
            self.release(input.block.digest);
        }
        if done.outcome != Outcome::Ok {
            return self.release(output.digest);
        }
        let Some(receipt) = receipt else { return };
        let (signer, receipt) = (receipt.signer, receipt.digest());
        let made = Some(Arrived { block: output, receipt, signer, epoch, member: None });
        match operation {
            Operation::Encode => {
                self.merge_step(Operation::Reduce { shard: 0, contributors: vec![signer] }, made)
            }
            Operation::Reduce { .. } => self.merge_step(Operation::Apply, made),
            _ => {
                if let Some(merging) = &mut self.state.merging {
                    merging.result = Some((output, done.momentum.unwrap_or_default()));
                }
                self.ask(Verb::Put, output);
            }
        }
    }

    pub(crate) fn merge_uploaded(&mut self, digest: Digest) {
        let Some(Merging { epoch, result: Some((weights, momentum)) }) = self.state.merging else { return };
        if weights.digest != digest {
            return;
        }
        self.state.merging = None;
        self.state.epoch = None;
        if let Some(seat) = &mut self.state.seat {
            seat.weights = Some(digest);
        }
        self.release(digest);
        let merged = Signed::new(Merged { epoch, weights, momentum }, &self.config.key);
        self.send(Message::Merged(merged));
    }

    fn merge_step(&mut self, operation: Operation, input: Option<Arrived>) {
        let Some(epoch) = self.state.merging.as_ref().map(|merging| merging.epoch) else { return };
        let task = Task::Perform {
            epoch,
            operation: operation.clone(),
            inputs: input.iter().map(|input| input.block.digest).collect(),
            keep_state: false,
            keep_weights: operation == Operation::Apply,
        };
        self.compute(Job::Merge { operation, input }, task);
    }
}
