//! Every epoch is entered into the ledger once, when it is stable, with what was folded in it; convicts get nothing.

use super::{Checker, End};
use crate::trace::{Effect, Entry, What};
use credit::{Ledger, Rule, Strike, Work};
use orchestrator_core::Report;
use spec::{Digest, NodeId};
use std::collections::BTreeSet;
use wire::Key;

/// Keeps a ledger as an orchestrator's shell does.
pub struct LedgerFollowsTheRecord {
    key: Key,
    ledger: Ledger,
    committed: BTreeSet<u32>,
    convicted: BTreeSet<NodeId>,
    /// Convicts that no entry names yet.
    unnamed: BTreeSet<NodeId>,
}

impl Default for LedgerFollowsTheRecord {
    fn default() -> Self {
        let key = Key::from_seed([1; 32]);
        Self {
            key,
            ledger: Ledger::default(),
            committed: BTreeSet::new(),
            convicted: BTreeSet::new(),
            unnamed: BTreeSet::new(),
        }
    }
}

impl Checker for LedgerFollowsTheRecord {
    fn name(&self) -> &'static str {
        "ledger_follows_the_record"
    }

    fn observe(&mut self, entry: &Entry) -> Result<(), String> {
        let What::Effect(Effect::Orchestrator(effect)) = &entry.what else { return Ok(()) };
        match effect {
            orchestrator_core::Effect::Report(Report::Committed { epoch, .. }) => {
                self.committed.insert(*epoch);
            }
            orchestrator_core::Effect::Report(Report::RolledBack { epoch, .. }) => {
                self.committed.split_off(epoch);
            }
            orchestrator_core::Effect::Report(Report::Convicted { node, .. }) => {
                self.convicted.insert(*node);
                self.unnamed.insert(*node);
            }
            orchestrator_core::Effect::Credit { epoch, manifest, work, struck } => {
                return self.enter(*epoch, *manifest, work, struck);
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), String> {
        match self.committed.first() {
            Some(epoch) if end.complete => Err(format!("epoch {epoch} is committed and was never entered")),
            _ => Ok(()),
        }
    }
}

impl LedgerFollowsTheRecord {
    fn enter(
        &mut self,
        epoch: u32,
        manifest: Digest,
        work: &[Work],
        struck: &[Strike],
    ) -> Result<(), String> {
        if !self.committed.remove(&epoch) {
            return Err(format!("epoch {epoch} is entered, which is not committed or stands there already"));
        }
        if work.iter().all(|work| work.flops == 0) {
            return Err(format!("nobody did anything in epoch {epoch}"));
        }
        let at = (Digest::default(), epoch, manifest);
        let entry = self.ledger.next(&self.key, at, Rule::default(), work.to_vec(), struck.to_vec());
        let entry = entry.map_err(|error| error.to_string())?;
        let paid = entry.body.shares.iter().filter(|share| share.weight > 0).map(|share| share.miner);
        if let Some(convict) = paid.into_iter().find(|miner| self.convicted.contains(miner)) {
            return Err(format!("{} was convicted and is paid for epoch {epoch}", convict.short()));
        }
        for strike in struck {
            self.unnamed.remove(&strike.miner);
        }
        if let Some(convict) = self.unnamed.first() {
            return Err(format!(
                "{} was convicted before epoch {epoch} was entered and is not struck",
                convict.short()
            ));
        }
        self.ledger.push(entry).map_err(|error| error.to_string())
    }
}
