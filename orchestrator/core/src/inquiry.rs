//! Somebody met NaN, infinity or what is no payload, or a stage merged into different weights: whose doing that is, is found out
//! before anything goes on.
//!
//! Finite numbers can be made to overflow at the next stage, so whoever meets them need not be to blame. Everything that
//! the miners of its routes did in the epoch is drawn and replayed at once: a lie among it convicts as any other. So is everything of
//! the miners that did not come to the same weights, who all had the same sums. Is all of it
//! equal, the run itself diverges: everybody goes back to the last stable manifest, and if that does not help the run ends.

use crate::audit::windows_of;
use crate::effect::Report;
use crate::epoch::Epoch;
use crate::machine::Orchestrator;
use serde::{Deserialize, Serialize};
use spec::{NodeId, Operation};
use std::collections::{BTreeMap, BTreeSet};
use wire::{Message, Receipt};

/// How often the run may go back without a new stable epoch between.
const DIVERGENCES_MAX: u32 = 1;

/// What is found out about the open epoch, which does not count whatever comes of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Inquiry {
    /// Who met what, for people.
    what: String,
    who: NodeId,
    operation: Operation,
    /// Whether the windows were drawn: not before the receipts of everything that the operation stands on are here.
    drawn: bool,
}

/// How often replays found nobody to blame.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Divergences {
    /// Stable epochs then.
    stable: u32,
    times: u32,
}

impl Orchestrator {
    /// A miner says that an operation gave no numbers.
    pub(crate) fn inquire(&mut self, from: NodeId, body: &Receipt) {
        let Some(epoch) = self.state.epoch.as_ref().filter(|_| self.state.inquiry.is_none()) else { return };
        let number = epoch.number;
        let what = format!(
            "{} met {} in its {} (epoch {number})",
            self.name(from),
            body.outcome.name(),
            body.operation
        );
        let operation = body.operation.clone();
        self.state.inquiry = Some(Inquiry { what, who: from, operation, drawn: false });
        self.draw_suspects();
    }

    /// The miners of a stage, of whom `who` is one, applied the same sums and came to different weights.
    pub(crate) fn inquire_into_merge(&mut self, stage: u16, who: NodeId) {
        let Some(epoch) = self.state.epoch.as_ref().filter(|_| self.state.inquiry.is_none()) else { return };
        let (name, number) = (self.stage_name(stage), epoch.number);
        let what = format!("the miners of {name} merged epoch {number} into different weights");
        self.state.inquiry = Some(Inquiry { what, who, operation: Operation::Apply, drawn: false });
        self.draw_suspects();
    }

    /// Draws everything that the suspects did in the epoch, once all is here that the operation stands on.
    pub(crate) fn draw_suspects(&mut self) {
        let Some(epoch) = &self.state.epoch else { return };
        let inquiry = self.state.inquiry.as_ref().filter(|inquiry| !inquiry.drawn);
        let Some(Inquiry { what, who, operation, .. }) = inquiry.filter(|inquiry| epoch.has_made(inquiry))
        else {
            return;
        };
        let number = epoch.number;
        let suspects = self.suspects(*who, operation);
        let mut pending = BTreeMap::new();
        let mut draws = Vec::new();
        for (&miner, progress) in epoch.miners.iter().filter(|(miner, _)| suspects.contains(*miner)) {
            let stage = self.state.seats.stage_of(miner).unwrap_or_default();
            let windows = windows_of(&self.config.run, &progress.receipts);
            let windows = windows
                .into_iter()
                .map(|window| (window.step, window.pending(&progress.receipts, stage, self.now_ms)));
            let merge = self.merge_window(epoch, miner, stage).filter(|_| *operation == Operation::Apply);
            let windows: Vec<_> = windows.chain(merge).collect();
            let steps: Vec<u32> = windows.iter().map(|(step, _)| *step).collect();
            pending.extend(windows.into_iter().map(|(step, window)| ((miner, step), window)));
            draws.push((miner, Message::Draw { epoch: number, steps, more: true }));
        }
        let manifest = epoch.opened_with.clone();
        let text =
            format!("{what}: {} windows of {} miners are replayed at once", pending.len(), draws.len());
        if let Some(inquiry) = &mut self.state.inquiry {
            inquiry.drawn = true;
        }
        if self.config.run.audit.windows == 0 || pending.is_empty() {
            return self.diverged();
        }
        let drawn = pending.len();
        self.report(Report::Note { text });
        let audited = self.audited(number, manifest);
        audited.drawn = drawn;
        audited.pending.extend(pending);
        self.send_draws(draws);
    }

    /// Whoever may have made what a miner met: the miners of its lanes and of the microbatch's route; or those that merged with it.
    fn suspects(&self, from: NodeId, operation: &Operation) -> BTreeSet<NodeId> {
        let Some(epoch) = &self.state.epoch else { return BTreeSet::new() };
        if *operation == Operation::Apply {
            let stage = self.state.seats.stage_of(from).map(usize::from);
            let merge = stage.and_then(|stage| epoch.merges.get(stage));
            return merge.map(|merge| merge.living().collect()).unwrap_or_default();
        }
        let lanes = epoch.routes.iter().filter(|route| route.contains(&from)).flatten().copied();
        let route = match operation {
            Operation::Forward(member) | Operation::Backward(member) => epoch.tracked(member.assignment),
            _ => None,
        };
        let route = route.into_iter().flat_map(|tracked| &tracked.assignment.route).map(|slot| slot.miner);
        let there = |miner: &NodeId| !self.state.seats.is_lost(*miner);
        lanes.chain(route).chain([from]).filter(there).collect()
    }

    /// Every window was judged: nobody lied.
    pub(crate) fn conclude(&mut self) {
        let open = self.state.epoch.as_ref().map(|epoch| epoch.number);
        let unjudged =
            |number: &u32| self.state.audits.get(number).is_some_and(|audited| !audited.pending.is_empty());
        let judged = open.is_some_and(|number| !unjudged(&number));
        if judged && self.state.inquiry.as_ref().is_some_and(|inquiry| inquiry.drawn) {
            self.diverged();
        }
    }

    fn diverged(&mut self) {
        let (Some(Inquiry { what, operation, .. }), Some(epoch)) =
            (self.state.inquiry.take(), &self.state.epoch)
        else {
            return;
        };
        let (number, manifest) = (epoch.number, epoch.opened_with.clone());
        let stable = self.state.consequences.stable;
        let Divergences { stable: before, times } = self.state.divergences;
        let times = if times > 0 && before == stable { times + 1 } else { 1 };
        self.state.divergences = Divergences { stable, times };
        if times > DIVERGENCES_MAX {
            let advice = match operation {
                Operation::Apply => "audit (audit.windows) or invite others",
                _ => "lower inner.lr or raise inner.warmup_steps",
            };
            return self.fail(format!("{what}, and nobody was found to lie: {advice} and start a new run"));
        }
        // What is not judged yet may be where it began.
        let first = self.state.audits.keys().next().copied().unwrap_or(number);
        self.audited(first, manifest);
        self.roll_back(first, format!("{what}, and nobody was found to lie"));
    }
}

impl Epoch {
    /// Whether the receipts of everything that was made of a microbatch before an operation on it are here: a payload may
    /// overtake its maker's receipt. What went with a lost miner does not come any more.
    fn has_made(&self, inquiry: &Inquiry) -> bool {
        let (member, backward) = match &inquiry.operation {
            Operation::Forward(member) => (member, false),
            Operation::Backward(member) => (member, true),
            _ => return true,
        };
        // Of what was struck no more comes than is here.
        let Some(tracked) = self.live.get(&member.assignment) else { return true };
        let mut route = tracked.assignment.route.iter().enumerate();
        let at = route.clone().position(|(_, slot)| slot.miner == inquiry.who).unwrap_or_default();
        route.all(|(stage, slot)| {
            let forward = tracked.forward[stage].is_some() || !backward && stage >= at;
            let back = tracked.backward[stage].is_some() || !backward || stage <= at;
            slot.attempt > 0 || forward && back
        })
    }
}
