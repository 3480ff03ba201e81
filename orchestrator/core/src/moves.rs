//! A stage that nobody holds any more gets a miner of a stage that has several: a run is worth more than a lane.

use crate::effect::Report;
use crate::machine::{Orchestrator, Phase};
use crate::seats::Seats;
use spec::NodeId;
use std::collections::BTreeSet;
use wire::Role;

impl Seats {
    /// Miners of a stage that are there, in lane order.
    fn present(&self, stage: usize) -> impl Iterator<Item = NodeId> {
        let there = |miner: &NodeId| self.seat(*miner).is_some_and(|seat| seat.lost.is_none() && !seat.away);
        self.miners_of(stage).filter(there)
    }
}

impl Orchestrator {
    /// Gives a stage without anybody a miner of the stage that has most. What anybody did of the epoch is lost with that.
    pub(crate) fn refill_stages(&mut self) {
        let waits = self.state.consequences.awaits_verdicts();
        if !waits && !matches!(self.state.phase, Phase::Working | Phase::Merging | Phase::Settling) {
            return;
        }
        let Some((stage, due_ms)) = self.deserted() else { return };
        if self.now_ms < due_ms {
            return;
        }
        let Some(miner) = self.donor() else { return };
        let why = format!("{} has nobody left", self.stage_name(stage));
        let gone: Vec<NodeId> = self.state.seats.miners_of(usize::from(stage)).collect();
        for node in gone {
            // As for whoever is away; under the same key it comes back with that.
            let is_lapse = self
                .state
                .seats
                .seat(node)
                .and_then(|seat| seat.lost.as_ref())
                .is_some_and(|lost| !lost.with_all);
            if self.forgive_windows(node, is_lapse) {
                return;
            }
            self.state.seats.evict(node);
        }
        self.rewind(&why);
        // What was drawn from it before it can still reveal.
        let name = self.name(miner);
        self.state.seats.reseat(miner, stage);
        self.report(Report::Note { text: format!("{why}: {name} moves there") });
        self.report(Report::Joined { node: miner, role: Role::Miner, stage: Some(stage) });
        self.tell_one_to_adopt(miner, stage);
        self.watch_vacancies();
        self.progressed();
    }

    /// When a stage that nobody holds is due to be refilled, if anybody can.
    pub(crate) fn refill_due_ms(&self) -> Option<u64> {
        let (_, due_ms) = self.deserted()?;
        self.donor().map(|_| due_ms)
    }

    /// A stage of which nobody is there, and until when those who are lost, or newcomers, are waited for.
    fn deserted(&self) -> Option<(u16, u64)> {
        let (seats, timeouts) = (&self.state.seats, self.config.timeouts);
        if let Some(stage) = self.vacant_stage() {
            let since_ms = self.state.consequences.vacant_ms?;
            return Some((stage, since_ms.saturating_add(timeouts.absence_ms)));
        }
        let lost_ms = |miner| Some(seats.seat(miner)?.lost.as_ref()?.since_ms);
        // Looked at after every event: of hundreds of stages, those alone that lost somebody.
        let stages: BTreeSet<u16> = seats.lost().filter_map(|(node, _)| seats.stage_of(node)).collect();
        stages.into_iter().find_map(|stage| {
            // Until the last of them must be back.
            let since_ms: Option<Vec<u64>> = seats.miners_of(stage.into()).map(lost_ms).collect();
            let last_ms = since_ms?.into_iter().max()?;
            Some((stage, last_ms.saturating_add(timeouts.seat_grace_ms)))
        })
    }

    /// The last miner of the stage that has most, of those that can spare one.
    fn donor(&self) -> Option<NodeId> {
        let seats = &self.state.seats;
        let stages = 0..self.config.run.model.stage_count();
        let richest = stages.max_by_key(|&stage| seats.present(stage).count())?;
        seats.present(richest).skip(1).last()
    }
}
