//! Whoever merges an epoch in one stage and never lied gets the same weights, and the next manifest names them.

use super::{Checker, End};
use crate::trace::{Effect, Entry, Event, What};
use orchestrator_core::Report;
use spec::{Digest, NodeId, Operation, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use wire::{Message, Receipt};

/// Compares the weights in apply receipts with one another, and with the manifests that open epochs.
#[derive(Debug, Default)]
pub struct WeightsAgreeAfterMerge {
    /// The weights of each stage, by epoch that opened with them.
    opened: BTreeMap<(u32, u16), Digest>,
    /// By epoch and stage: the weights, and who had them first.
    applied: BTreeMap<(u32, u16), (Digest, NodeId)>,
    /// Who lied in anything, and what such came to, by epoch and stage: all there is where nobody else merges.
    liars: BTreeSet<NodeId>,
    of_liars: BTreeMap<(u32, u16), Digest>,
    nodes: BTreeSet<NodeId>,
    /// Those who have not yet heard that the epoch begins again: what they say is of before.
    behind: BTreeSet<NodeId>,
}

impl Checker for WeightsAgreeAfterMerge {
    fn name(&self) -> &'static str {
        "weights_agree_after_merge"
    }

    fn observe(&mut self, entry: &Entry) -> Result<(), String> {
        match &entry.what {
            What::Lied { .. } => {
                self.liars.insert(entry.node);
                Ok(())
            }
            What::Event(Event::Orchestrator(orchestrator_core::Event::Message { from, message })) => {
                match message {
                    Message::Receipt(receipt) if !self.behind.contains(from) => {
                        self.applies(&receipt.body, *from)
                    }
                    Message::Ready { .. } => {
                        self.behind.remove(from);
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
            What::Effect(Effect::Orchestrator(orchestrator_core::Effect::Report(report))) => {
                match report {
                    Report::Joined { node, .. } => drop(self.nodes.insert(*node)),
                    Report::Rewound { epoch, .. } => {
                        self.applied.retain(|(of, _), _| of != epoch);
                        self.behind.clone_from(&self.nodes);
                    }
                    Report::RolledBack { epoch, .. } => {
                        self.applied.retain(|(of, _), _| of < epoch);
                        self.behind.clone_from(&self.nodes);
                    }
                    _ => {}
                }
                Ok(())
            }
            What::Effect(Effect::Orchestrator(orchestrator_core::Effect::Send {
                message: Message::Open(manifest),
                ..
            })) => {
                let epoch = manifest.body.epoch;
                for (stage, record) in (0..).zip(&manifest.body.stages) {
                    self.opened.insert((epoch, stage), record.weights.digest);
                    let Some(ended) = epoch.checked_sub(1) else { continue };
                    let merged = self.applied.get(&(ended, stage)).map(|(weights, _)| *weights);
                    // A stage in which nobody merged stays as it was.
                    let before = self.opened.get(&(ended, stage)).filter(|_| record.miners.is_empty());
                    let of_liars = self.of_liars.get(&(ended, stage));
                    let applied = merged.or(of_liars.or(before).copied());
                    if applied != Some(record.weights.digest) {
                        return Err(format!(
                            "epoch {} opens stage {stage} with weights {}, merged were {applied:?}",
                            manifest.body.epoch,
                            record.weights.digest.short()
                        ));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), String> {
        Ok(())
    }
}

impl WeightsAgreeAfterMerge {
    fn applies(&mut self, body: &Receipt, from: NodeId) -> Result<(), String> {
        let (Operation::Apply, Outcome::Ok, Some(weights)) = (&body.operation, body.outcome, body.output)
        else {
            return Ok(());
        };
        if self.liars.contains(&from) {
            self.of_liars.insert((body.epoch, body.stage), weights);
            return Ok(());
        }
        let first = self.applied.entry((body.epoch, body.stage)).or_insert((weights, from));
        if first.0 == weights {
            return Ok(());
        }
        Err(format!(
            "stage {} merged epoch {} into {} at {} and into {} at {}",
            body.stage,
            body.epoch,
            first.0.short(),
            first.1.short(),
            weights.short(),
            from.short()
        ))
    }
}
