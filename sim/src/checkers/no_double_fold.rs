//! Each (stage, epoch, microbatch) is folded at most once, and exactly once where the epoch is committed.

use super::{Checker, End};
use crate::trace::{Effect, Entry, What};
use orchestrator_core::Report;
use spec::{Digest, NodeId, Operation};
use std::collections::{BTreeMap, BTreeSet};
use wire::Message;

/// Counts folds by the step receipts that miners sign, against what the orchestrator assigned.
#[derive(Debug, Default)]
pub struct NoDoubleFold {
    /// By stage, epoch and microbatch: who.
    folded: BTreeMap<(u16, u32, u64), NodeId>,
    /// Microbatches of each epoch, with the number of stages they go through.
    assigned: BTreeMap<u32, BTreeSet<(u64, u16)>>,
    /// Assignments of epochs that were begun again: nothing of them counts.
    void: BTreeSet<u64>,
    /// Receipts seen: one may be said again after a connection was lost.
    seen: BTreeSet<Digest>,
    ids: BTreeMap<u32, BTreeSet<u64>>,
}

impl Checker for NoDoubleFold {
    fn name(&self) -> &'static str {
        "no_double_fold"
    }

    fn observe(&mut self, entry: &Entry) -> Result<(), String> {
        match &entry.what {
            What::Effect(Effect::Miner(miner_core::Effect::Send(Message::Receipt(receipt)))) => {
                if !self.seen.insert(receipt.digest()) {
                    return Ok(());
                }
                let receipt = &receipt.body;
                let Operation::Step { members, .. } = &receipt.operation else { return Ok(()) };
                for member in members.iter().filter(|member| !self.void.contains(&member.assignment)) {
                    let key = (receipt.stage, receipt.epoch, member.microbatch);
                    if let Some(before) = self.folded.insert(key, entry.node) {
                        let (stage, epoch, microbatch) = key;
                        return Err(format!(
                            "stage {stage} folded microbatch {microbatch} of epoch {epoch} twice: {} and {}",
                            before.short(),
                            entry.node.short()
                        ));
                    }
                }
                Ok(())
            }
            What::Effect(Effect::Orchestrator(orchestrator_core::Effect::Send {
                message: Message::Assign(assignment),
                ..
            })) => {
                let microbatch = (assignment.microbatch, assignment.route.len() as u16);
                self.assigned.entry(assignment.epoch).or_default().insert(microbatch);
                self.ids.entry(assignment.epoch).or_default().insert(assignment.id);
                Ok(())
            }
            What::Effect(Effect::Orchestrator(orchestrator_core::Effect::Report(Report::Rewound {
                epoch,
                ..
            }))) => {
                self.void.extend(self.ids.remove(epoch).unwrap_or_default());
                self.assigned.remove(epoch);
                self.folded.retain(|(_, of, _), _| of != epoch);
                Ok(())
            }
            What::Effect(Effect::Orchestrator(orchestrator_core::Effect::Report(Report::RolledBack {
                epoch,
                ..
            }))) => {
                self.void.extend(self.ids.split_off(epoch).into_values().flatten());
                self.assigned.split_off(epoch);
                self.folded.retain(|(_, of, _), _| of < epoch);
                Ok(())
            }
            What::Effect(Effect::Orchestrator(orchestrator_core::Effect::Report(Report::Committed {
                epoch,
                ..
            }))) => self.committed(*epoch),
            _ => Ok(()),
        }
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), String> {
        Ok(())
    }
}

impl NoDoubleFold {
    fn committed(&self, epoch: u32) -> Result<(), String> {
        for &(microbatch, stages) in self.assigned.get(&epoch).into_iter().flatten() {
            for stage in 0..stages {
                if !self.folded.contains_key(&(stage, epoch, microbatch)) {
                    return Err(format!(
                        "epoch {epoch} is committed, but stage {stage} never folded microbatch {microbatch}"
                    ));
                }
            }
        }
        if !self.assigned.contains_key(&epoch) {
            return Err(format!("epoch {epoch} is committed, but nothing of it was ever assigned"));
        }
        Ok(())
    }
}
