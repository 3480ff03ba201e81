//! Nobody whose work is untouched is found guilty of anything.

use super::{Checker, End};
use crate::trace::{Effect, Entry, What};
use orchestrator_core::Report;
use spec::NodeId;
use std::collections::BTreeSet;
use wire::Finding;

/// Looks for findings and evidence against anyone but the cheats.
#[derive(Debug, Default)]
pub struct HonestNeverSlashed {
    /// The nodes whose work is tampered with.
    pub cheats: BTreeSet<NodeId>,
}

impl Checker for HonestNeverSlashed {
    fn name(&self) -> &'static str {
        "honest_never_slashed"
    }

    fn observe(&mut self, entry: &Entry) -> Result<(), String> {
        let What::Effect(Effect::Orchestrator(effect)) = &entry.what else { return Ok(()) };
        let (accused, what) = match effect {
            orchestrator_core::Effect::KeepEvidence { miner, .. } => (*miner, " by evidence".into()),
            orchestrator_core::Effect::Report(Report::Convicted { node, why, .. }) => {
                (*node, format!(": {why}"))
            }
            orchestrator_core::Effect::Report(Report::Audited { miner, finding, .. })
                if !matches!(finding, Finding::Equal { .. }) =>
            {
                (*miner, format!(": {finding}"))
            }
            _ => return Ok(()),
        };
        if self.cheats.contains(&accused) {
            return Ok(());
        }
        Err(format!("{} is accused{what}, though its work is untouched", accused.short()))
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), String> {
        Ok(())
    }
}
