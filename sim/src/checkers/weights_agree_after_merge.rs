//! Whoever merges an epoch in one stage gets the same weights, and the next manifest names them.

use super::{Checker, End};
use crate::trace::{Effect, Entry, What};
use spec::{Digest, NodeId, Operation, Outcome};
use std::collections::BTreeMap;
use wire::Message;

/// Compares the weights in apply receipts with one another, and with the manifests that open epochs.
#[derive(Debug, Default)]
pub struct WeightsAgreeAfterMerge {
    /// By epoch and stage: the weights, and who had them first.
    applied: BTreeMap<(u32, u16), (Digest, NodeId)>,
}

impl Checker for WeightsAgreeAfterMerge {
    fn name(&self) -> &'static str {
        "weights_agree_after_merge"
    }

    fn observe(&mut self, entry: &Entry) -> Result<(), String> {
        match &entry.what {
            What::Effect(Effect::Miner(miner_core::Effect::Send(Message::Receipt(receipt)))) => {
                let body = &receipt.body;
                let (Operation::Apply, Outcome::Ok, Some(weights)) =
                    (&body.operation, body.outcome, body.output)
                else {
                    return Ok(());
                };
                let first = self.applied.entry((body.epoch, body.stage)).or_insert((weights, entry.node));
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
                    entry.node.short()
                ))
            }
            What::Effect(Effect::Orchestrator(orchestrator_core::Effect::Send {
                message: Message::Open(manifest),
                ..
            })) => {
                let Some(ended) = manifest.body.epoch.checked_sub(1) else { return Ok(()) };
                for (stage, record) in (0..).zip(&manifest.body.stages) {
                    let applied = self.applied.get(&(ended, stage)).map(|(weights, _)| *weights);
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
