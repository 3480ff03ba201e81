//! By its owner's command a run goes back to an earlier manifest, and on from there: also one that has ended.

use crate::event::Event;
use crate::machine::{Orchestrator, Phase};
use serde::{Deserialize, Serialize};
use spec::NodeId;
use std::collections::BTreeMap;
use wire::{Command, Manifest, Message, Receipt, Signed};

/// Epochs that can be gone back to.
const PAST_EPOCHS: u32 = 64;

/// An epoch that was opened, or is the next to open.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Past {
    /// The manifest that it opens with.
    manifest: Signed<Manifest>,
    /// Microbatches whose loss was reported until it was committed.
    pub losses: u64,
    /// Receipts of the merges that made the manifest, of those whom it names: where each of them stands.
    pub merges: BTreeMap<NodeId, Signed<Receipt>>,
}

/// What is undone of epochs that were stable.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub epochs: u32,
    pub steps: u64,
    pub losses: u64,
}

impl Orchestrator {
    /// Keeps the last committed manifest, to go back to it.
    pub(crate) fn remember(&mut self) {
        let manifest = self.state.manifest.clone();
        let epoch = manifest.body.epoch;
        // What an earlier way through these epochs left is undone.
        let undone = self.state.past.split_off(&epoch).remove(&epoch);
        // Who goes back stands where it stood.
        let merges = undone.filter(|past| past.manifest == manifest).map(|past| past.merges);
        let merges = merges.unwrap_or_default();
        self.state.past.insert(epoch, Past { manifest, losses: 0, merges });
        let first = (epoch + 1).saturating_sub(PAST_EPOCHS);
        self.state.past = self.state.past.split_off(&first);
    }

    /// Whether the event is the owner's command, which a run that has ended hears too.
    pub(crate) fn is_command(&self, event: &Event) -> bool {
        let own = self.config.key.id();
        matches!(event, Event::Message { from, message: Message::Command(_) } if *from == own)
    }

    pub(crate) fn obey(&mut self, owner: NodeId, command: Command) {
        let Command::RollBack { to } = command;
        let answer = match self.chosen(to) {
            Ok(manifest) => {
                let epoch = manifest.body.epoch;
                self.go_back(manifest, "its owner asked for it".into());
                Ok(format!("everybody goes back to the opening of epoch {epoch}"))
            }
            Err(why) => Err(why),
        };
        self.send(owner, Message::Answered(answer));
    }

    /// The manifest that the owner wants everybody to go back to.
    fn chosen(&self, to: Option<u32>) -> Result<Signed<Manifest>, String> {
        match self.state.phase {
            Phase::RollingBack => {
                return Err("it goes back already: wait until it is there, then ask again".into());
            }
            Phase::Idle | Phase::Gathering { .. } => {
                return Err("no epoch has opened yet: there is nothing to go back from".into());
            }
            _ => {}
        }
        let (stable, end) = (self.state.consequences.stable, self.config.run.epoch.count);
        let epoch = to.unwrap_or(stable);
        if epoch > stable {
            return Err(format!(
                "the opening of epoch {epoch} is not stable, the newest that is is that of epoch {stable}: name this one or an earlier one"
            ));
        }
        if epoch >= end {
            return Err(format!(
                "the run ends where epoch {epoch} would open: name an earlier one with --to"
            ));
        }
        let oldest = self.state.past.keys().next().copied().unwrap_or_default();
        let past = self.state.past.get(&epoch).ok_or_else(|| {
            format!("the opening of epoch {epoch} is no longer kept, the oldest is that of epoch {oldest}")
        })?;
        Ok(past.manifest.clone())
    }

    /// Epochs from this one on are not stable any more.
    pub(crate) fn undo_settled(&mut self, epoch: u32) -> Settled {
        let stable = std::mem::replace(&mut self.state.consequences.stable, 0);
        self.state.consequences.stable = stable.min(epoch);
        let epochs = stable.saturating_sub(epoch);
        let losses = self.state.past.range(epoch..stable.max(epoch)).map(|(_, past)| past.losses).sum();
        Settled { epochs, steps: u64::from(epochs) * u64::from(self.config.run.epoch.steps), losses }
    }
}
