//! A lie is found before too many epochs that stand on it count as stable.

use super::{Checker, End};
use crate::trace::{Effect, Entry, What};
use orchestrator_core::Report;
use spec::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// Counts, for each cheat, stable epochs in which it lied.
#[derive(Debug, Default)]
pub struct CheatIsCaughtWithinN {
    /// At so many of them it objects; 0 for never.
    n: u32,
    /// Epochs with lies that may still be undone.
    lies: BTreeMap<NodeId, BTreeSet<u32>>,
    escaped: BTreeMap<NodeId, u32>,
    /// What a convict still does is of no consequence.
    convicted: BTreeSet<NodeId>,
}

impl CheatIsCaughtWithinN {
    /// One that objects to the `n`-th stable epoch with lies of one cheat.
    pub fn new(n: u32) -> Self {
        Self { n, ..Self::default() }
    }
}

impl Checker for CheatIsCaughtWithinN {
    fn name(&self) -> &'static str {
        "cheat_is_caught_within_n"
    }

    fn observe(&mut self, entry: &Entry) -> Result<(), String> {
        match &entry.what {
            What::Lied { epoch } if !self.convicted.contains(&entry.node) => {
                self.lies.entry(entry.node).or_default().insert(*epoch);
            }
            What::Effect(Effect::Orchestrator(orchestrator_core::Effect::Report(report))) => match report {
                Report::RolledBack { epoch, .. } => {
                    self.lies.values_mut().for_each(|epochs| epochs.retain(|of| of < epoch));
                }
                Report::Rewound { epoch, .. } => {
                    self.lies.values_mut().for_each(|epochs| epochs.retain(|of| of != epoch));
                }
                Report::Convicted { node, .. } => {
                    self.lies.remove(node);
                    self.convicted.insert(*node);
                }
                Report::Stable { epoch } => return self.stable(*epoch),
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), String> {
        Ok(())
    }
}

impl CheatIsCaughtWithinN {
    fn stable(&mut self, epoch: u32) -> Result<(), String> {
        for (cheat, epochs) in &mut self.lies {
            if !epochs.remove(&epoch) {
                continue;
            }
            let escaped = self.escaped.entry(*cheat).or_default();
            *escaped += 1;
            if *escaped == self.n {
                return Err(format!(
                    "{} lied in {} epochs that are stable, the last is epoch {epoch}",
                    cheat.short(),
                    escaped
                ));
            }
        }
        Ok(())
    }
}
