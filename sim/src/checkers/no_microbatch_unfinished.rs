//! In a complete run every microbatch that was handed out and not struck has a loss, once.

use super::{Checker, End};
use crate::trace::{Effect, Entry, What};
use orchestrator_core::Report;
use std::collections::BTreeMap;
use wire::Message;

/// Holds assignments against reported losses.
#[derive(Debug, Default)]
pub struct NoMicrobatchUnfinished {
    /// By epoch and microbatch: how many losses were reported.
    losses: BTreeMap<(u32, u64), u32>,
}

impl Checker for NoMicrobatchUnfinished {
    fn name(&self) -> &'static str {
        "no_microbatch_unfinished"
    }

    fn observe(&mut self, entry: &Entry) -> Result<(), String> {
        let What::Effect(Effect::Orchestrator(effect)) = &entry.what else { return Ok(()) };
        match effect {
            orchestrator_core::Effect::Send { message: Message::Assign(assignment), .. } => {
                self.losses.entry((assignment.epoch, assignment.microbatch)).or_default();
            }
            orchestrator_core::Effect::Send { message: Message::Strike(assignment), .. } => {
                let at = (assignment.epoch, assignment.microbatch);
                if self.losses.get(&at) == Some(&0) {
                    self.losses.remove(&at);
                }
            }
            orchestrator_core::Effect::Report(Report::Loss { epoch, microbatch, .. }) => {
                let losses = self.losses.entry((*epoch, *microbatch)).or_default();
                *losses += 1;
                if *losses > 1 {
                    return Err(format!("microbatch {microbatch} of epoch {epoch} has {losses} losses"));
                }
            }
            orchestrator_core::Effect::Report(Report::Rewound { epoch, .. }) => {
                self.losses.retain(|(of, _), _| of != epoch);
            }
            orchestrator_core::Effect::Report(Report::RolledBack { epoch, .. }) => {
                self.losses.retain(|(of, _), _| of < epoch);
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), String> {
        match self.losses.iter().find(|(_, losses)| **losses == 0) {
            Some(((epoch, microbatch), _)) if end.complete => {
                Err(format!("the run is complete, but microbatch {microbatch} of epoch {epoch} has no loss"))
            }
            _ => Ok(()),
        }
    }
}
