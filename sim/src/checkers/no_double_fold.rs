//! Each (stage, epoch, microbatch) is folded at most once, and exactly once where the epoch is committed, but for what
//! the orchestrator says was lost with a miner.

use super::{Checker, End};
use crate::trace::{Effect, Entry, What};
use orchestrator_core::Report;
use spec::{Digest, NodeId, Operation};
use std::collections::{BTreeMap, BTreeSet};
use wire::{Message, Receipt};

/// Counts folds by the receipts that miners sign, against what the orchestrator assigned.
#[derive(Debug, Default)]
pub struct NoDoubleFold {
    microbatch_tokens: u64,
    /// By stage, epoch and microbatch: who took a step with it.
    folded: BTreeMap<(u16, u32, u64), NodeId>,
    /// Backward was done, by stage, epoch and microbatch: by whom.
    backward: BTreeMap<(u16, u32, u64), BTreeSet<NodeId>>,
    /// Microbatches of each epoch, with the number of stages they go through.
    assigned: BTreeMap<u32, BTreeSet<(u64, u16)>>,
    /// Microbatches of each epoch of which nobody does the rest: whoever folds one does so once.
    struck: BTreeMap<u32, BTreeSet<u64>>,
    /// Assignments of epochs that were begun again: nothing of them counts.
    void: BTreeSet<u64>,
    /// Miners that the others went on without, by epoch: nothing that they do in it counts.
    gone: BTreeMap<u32, BTreeSet<NodeId>>,
    /// Tokens of each epoch that were said to be lost with them.
    lost_tokens: BTreeMap<u32, u64>,
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
                if self.seen.insert(receipt.digest()) {
                    return self.take(&receipt.body, entry.node);
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
            What::Effect(Effect::Orchestrator(orchestrator_core::Effect::Send {
                message: Message::Strike(assignment),
                ..
            })) => {
                self.struck.entry(assignment.epoch).or_default().insert(assignment.microbatch);
                Ok(())
            }
            What::Effect(Effect::Orchestrator(orchestrator_core::Effect::Report(report))) => match report {
                Report::Reissued { epoch, from, tokens, .. } => {
                    self.gone.entry(*epoch).or_default().insert(*from);
                    *self.lost_tokens.entry(*epoch).or_default() += tokens;
                    self.folded.retain(|(_, of, _), who| of != epoch || who != from);
                    Ok(())
                }
                Report::Rewound { epoch, .. } => {
                    self.void.extend(self.ids.remove(epoch).unwrap_or_default());
                    self.assigned.remove(epoch);
                    self.struck.remove(epoch);
                    self.gone.remove(epoch);
                    self.lost_tokens.remove(epoch);
                    self.folded.retain(|(_, of, _), _| of != epoch);
                    self.backward.retain(|(_, of, _), _| of != epoch);
                    Ok(())
                }
                Report::RolledBack { epoch, .. } => {
                    self.void.extend(self.ids.split_off(epoch).into_values().flatten());
                    self.assigned.split_off(epoch);
                    self.struck.split_off(epoch);
                    self.gone.split_off(epoch);
                    self.lost_tokens.split_off(epoch);
                    self.folded.retain(|(_, of, _), _| of < epoch);
                    self.backward.retain(|(_, of, _), _| of < epoch);
                    Ok(())
                }
                Report::Committed { epoch, .. } => self.committed(*epoch),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), String> {
        Ok(())
    }
}

impl NoDoubleFold {
    /// A microbatch has so many tokens.
    pub fn new(microbatch_tokens: u64) -> Self {
        Self { microbatch_tokens, ..Self::default() }
    }

    fn take(&mut self, receipt: &Receipt, node: NodeId) -> Result<(), String> {
        let (stage, epoch) = (receipt.stage, receipt.epoch);
        match &receipt.operation {
            Operation::Backward(member) if !self.void.contains(&member.assignment) => {
                self.backward.entry((stage, epoch, member.microbatch)).or_default().insert(node);
            }
            Operation::Step { members, .. } if !self.is_gone(epoch, node) => {
                for member in members.iter().filter(|member| !self.void.contains(&member.assignment)) {
                    let microbatch = member.microbatch;
                    if let Some(before) = self.folded.insert((stage, epoch, microbatch), node) {
                        return Err(format!(
                            "stage {stage} folded microbatch {microbatch} of epoch {epoch} twice: {} and {}",
                            before.short(),
                            node.short()
                        ));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn is_gone(&self, epoch: u32, node: NodeId) -> bool {
        self.gone.get(&epoch).is_some_and(|gone| gone.contains(&node))
    }

    fn committed(&self, epoch: u32) -> Result<(), String> {
        let struck = self.struck.get(&epoch);
        let is_struck = |microbatch: u64| struck.is_some_and(|struck| struck.contains(&microbatch));
        // One that was struck is lost as a whole.
        let mut lost = struck.map_or(0, |struck| struck.len() as u64 * self.microbatch_tokens);
        for &(microbatch, stages) in self.assigned.get(&epoch).into_iter().flatten() {
            if is_struck(microbatch) {
                continue;
            }
            for stage in 0..stages {
                let share = (stage, epoch, microbatch);
                if self.folded.contains_key(&share) {
                    continue;
                }
                let mut by = self.backward.get(&share).into_iter().flatten();
                if !by.any(|node| self.is_gone(epoch, *node)) {
                    return Err(format!(
                        "epoch {epoch} is committed, but stage {stage} never folded microbatch {microbatch}"
                    ));
                }
                lost += self.microbatch_tokens;
            }
        }
        if !self.assigned.contains_key(&epoch) {
            return Err(format!("epoch {epoch} is committed, but nothing of it was ever assigned"));
        }
        match self.lost_tokens.get(&epoch).copied().unwrap_or_default() {
            said if said == lost => Ok(()),
            said => {
                Err(format!("{lost} tokens of epoch {epoch} were lost with miners, {said} were said to be"))
            }
        }
    }
}
