//! The end of an epoch: every stage merges, and says what came of it.

use crate::machine::{Orchestrator, Phase};
use spec::NodeId;
use wire::{Manifest, Merge, Merged, Message, Signed, StageRecord};

impl Orchestrator {
    pub(crate) fn order_merge(&mut self) {
        let Some(epoch) = self.state.epoch.as_ref().map(|epoch| epoch.number) else { return };
        self.state.phase = Phase::Merging;
        for stage in 0..self.config.run.model.stage_count() {
            let members = self.members_of(stage);
            let seed = self.merge_seed(stage);
            for &miner in &members {
                self.send(miner, Message::Merge(Merge { epoch, members: members.clone(), seed }));
            }
        }
    }

    pub(crate) fn take_merged(&mut self, from: NodeId, merged: &Signed<Merged>) {
        let Ok(body) = merged.verify().cloned() else {
            return self.turn_away(from, "sent a merge result whose signature does not hold");
        };
        let progress = self.state.epoch.as_mut().and_then(|epoch| {
            let due = epoch.number == body.epoch && self.state.phase == Phase::Merging;
            epoch.miners.get_mut(&from).filter(|progress| due && progress.merged.is_none())
        });
        let Some(progress) = progress else {
            let text = format!("says that it merged epoch {}, which is not due; ignored", body.epoch);
            return self.note(from, "merged", &text);
        };
        if merged.signer != from || progress.applied != Some(body.weights.digest) {
            return self.turn_away(from, "names other weights than its receipts gave");
        }
        progress.merged = Some(body);
        self.progressed();
    }

    /// The next manifest, once every miner has merged and every stage agrees within itself.
    pub(crate) fn merged_manifest(&self) -> Option<Result<Manifest, String>> {
        let epoch = self.state.epoch.as_ref()?;
        let mut stages = Vec::new();
        for stage in 0..self.config.run.model.stage_count() {
            let miners = self.members_of(stage);
            let results: Option<Vec<&Merged>> =
                miners.iter().map(|miner| epoch.miners.get(miner)?.merged.as_ref()).collect();
            let results = results?;
            let first = results.first()?;
            if results.iter().any(|result| result != first) {
                let name = self.stage_name(u16::try_from(stage).unwrap_or(u16::MAX));
                return Some(Err(format!(
                    "the miners of {name} merged epoch {} into different weights",
                    epoch.number
                )));
            }
            stages.push(StageRecord { weights: first.weights, momentum: first.momentum, miners });
        }
        Some(Ok(Manifest {
            run: self.run_id,
            epoch: epoch.number + 1,
            previous: epoch.opened_with.digest(),
            stages,
            loss_q32: epoch.loss_q32(),
        }))
    }

    /// A stage's miners, in key order.
    fn members_of(&self, stage: usize) -> Vec<NodeId> {
        let mut members: Vec<NodeId> = self.state.seats.miners_of(stage).collect();
        members.sort_unstable();
        members
    }
}
