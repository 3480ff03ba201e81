//! What epochs were worth, and whose routes lose more than others'.

use crate::effect::{Effect, Report};
use crate::epoch::Epoch;
use crate::machine::Orchestrator;
use credit::clasp::{self, Sample};
use credit::{Strike, Work};
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Routes of epochs that attribution looks back on.
const SAMPLES_MAX: usize = 4096;
/// Probability that attribution points at any honest miner, an epoch.
const FALSE_POSITIVES: f64 = 0.01;
/// Passes through a microbatch's products: forward one, backward two.
const PASSES: f64 = 3.0;

/// What is remembered until an epoch is stable, and of losses.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Accounts {
    /// Committed epochs that are not stable.
    committed: BTreeMap<u32, Committed>,
    /// Epochs from the first that stand in the ledger: what is done again of them is not entered again.
    entered: u32,
    /// Convicted since the last stable epoch.
    struck: Vec<Strike>,
    /// Mean losses of whole epochs and their routes, oldest first: within an epoch the weights of a route's miners drift on
    /// their own, so its microbatches are no independent samples.
    samples: VecDeque<Sample>,
    /// Miners through which losses are higher.
    outliers: BTreeSet<NodeId>,
}

/// A committed epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Committed {
    /// Inner steps.
    pub steps: u32,
    /// Microbatches with a loss.
    pub losses: u64,
    manifest: Digest,
    work: Vec<Work>,
}

impl Accounts {
    /// Whether losses through this miner are higher than through its stage's others.
    pub fn stands_out(&self, miner: NodeId) -> bool {
        self.outliers.contains(&miner)
    }
}

impl Orchestrator {
    /// An epoch is committed: what it was worth, and what it will cost if it has to be undone.
    pub(crate) fn account(&mut self, epoch: &Epoch, manifest: Digest) {
        let tokens = self.config.run.microbatch_tokens() as f64;
        let work = epoch.miners.iter().filter_map(|(&miner, progress)| {
            let stage = progress.receipts.first()?.body.stage;
            let forward = plan::forward_flops(&self.config.run.model, usize::from(stage));
            Work::of(miner, (PASSES * forward * tokens) as u64, &progress.receipts)
        });
        if let Some(past) = self.state.past.get_mut(&epoch.number) {
            past.losses = epoch.losses;
        }
        let (work, steps, losses) = (work.collect(), self.config.run.epoch.steps, epoch.losses);
        self.state.accounts.committed.insert(epoch.number, Committed { steps, losses, manifest, work });
        for (route, losses) in &epoch.route_losses {
            let loss = losses.sum / losses.count as f64;
            self.state.accounts.samples.push_back(Sample {
                step: epoch.number.into(),
                loss,
                route: route.clone(),
            });
        }
        let beyond = self.state.accounts.samples.len().saturating_sub(SAMPLES_MAX);
        self.state.accounts.samples.drain(..beyond);
        self.attribute();
    }

    /// Epochs from this one on are undone.
    pub(crate) fn undo_accounts(&mut self, epoch: u32) -> BTreeMap<u32, Committed> {
        self.state.accounts.samples.retain(|sample| sample.step < u64::from(epoch));
        self.state.accounts.committed.split_off(&epoch)
    }

    /// An epoch can no longer be undone: its work is entered for good.
    pub(crate) fn enter(&mut self, epoch: u32) {
        let Some(Committed { manifest, work, .. }) = self.state.accounts.committed.remove(&epoch) else {
            return;
        };
        if epoch < self.state.accounts.entered {
            return;
        }
        self.state.accounts.entered = epoch.saturating_add(1);
        let struck = std::mem::take(&mut self.state.accounts.struck);
        self.emit(Effect::Credit { epoch, manifest, work, struck });
    }

    pub(crate) fn strike(&mut self, miner: NodeId, evidence: Option<Digest>) {
        self.state.accounts.struck.push(Strike { miner, evidence });
        self.state.accounts.outliers.remove(&miner);
        self.state.accounts.samples.retain(|sample| !sample.route.contains(&miner));
    }

    /// A window of an epoch was found equal.
    pub(crate) fn count_equal(&mut self, miner: NodeId, epoch: u32) {
        let committed = self.state.accounts.committed.get_mut(&epoch);
        // In key order.
        if let Some(epoch) = committed
            && let Ok(at) = epoch.work.binary_search_by_key(&miner, |work| work.miner)
        {
            epoch.work[at].audits_equal += 1;
        }
    }

    /// Looks who stands out.
    fn attribute(&mut self) {
        if self.state.seats.lanes() < 2 {
            return;
        }
        let effects = clasp::effects(self.state.accounts.samples.make_contiguous(), FALSE_POSITIVES);
        let before = std::mem::take(&mut self.state.accounts.outliers);
        for effect in effects.iter().filter(|effect| effect.stands_out) {
            self.state.accounts.outliers.insert(effect.miner);
            if !before.contains(&effect.miner) {
                let text = format!(
                    "{}: the {} routes through it lose {:.4} nats more than those of its stage's others (z = {:.1})",
                    self.name(effect.miner),
                    effect.routes,
                    effect.nats,
                    effect.z
                );
                self.report(Report::Note { text });
            }
        }
    }
}
