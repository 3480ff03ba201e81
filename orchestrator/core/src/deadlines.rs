//! Every wait has an end, and a sentence that says who owes what.

use crate::audit::Standing;
use crate::config::Timeouts;
use crate::effect::Effect;
use crate::machine::{Orchestrator, Phase};
use spec::{NodeId, Window};
use std::collections::BTreeSet;

/// Debtors named in one sentence.
const NAMED_MAX: usize = 4;

impl Orchestrator {
    pub(crate) fn check_deadlines(&mut self) {
        self.state.alarm.rang();
        self.end_late_questions();
        let (now_ms, timeouts) = (self.now_ms, self.config.timeouts);
        let late = |since_ms: u64, patience_ms: u64| now_ms >= since_ms.saturating_add(patience_ms);
        if let Phase::Gathering { since_ms } = self.state.phase {
            if late(since_ms, timeouts.join_ms) {
                let missing = list(self.missing());
                self.fail(format!(
                    "not everyone was there within {} s: {missing}; start what is missing and try again",
                    seconds(timeouts.join_ms)
                ));
            }
            return;
        }
        self.go_on_without_the_late();
        self.end_slow_lanes();
        self.refill_stages();
        self.forgive_the_absent();
        self.go_on_without_lingerers();
        let needed = |node: &NodeId| self.state.seats.seat(*node).is_none_or(|seat| !seat.away);
        let gone = self
            .state
            .seats
            .lost()
            .filter(|(node, _)| needed(node))
            .find(|(_, lost)| late(lost.since_ms, timeouts.seat_grace_ms));
        if let Some((node, lost)) = gone {
            let (name, why) = (self.name(node), lost.why.clone());
            return self.fail(format!(
                "{name} was lost ({why}) and did not return within {} s: find out why it ended, then start the run again from its last committed manifest",
                seconds(timeouts.seat_grace_ms)
            ));
        }
        if let Some(stage) = self.vacant_stage()
            && self.state.consequences.vacant_ms.is_some_and(|since_ms| late(since_ms, timeouts.join_ms))
        {
            return self.fail(format!(
                "{} lost its last miner to a conviction, and nobody took its seat within {} s: invite a miner and start the run again from its last committed manifest",
                self.stage_name(stage),
                seconds(timeouts.join_ms)
            ));
        }
        self.convict_withholders();
        self.convict_concealers(&|since_ms| late(since_ms, timeouts.reveal_ms));
        // Who is accused of what holds the epoch up: a check has a deadline of its own.
        let checks = self.state.accusations.owing(&|since_ms| late(since_ms, timeouts.confirm_ms));
        if !checks.is_empty() {
            return self.fail(format!(
                "nothing came for {} s: {}; look what this machine is doing, then start the run again",
                seconds(timeouts.confirm_ms),
                list(checks)
            ));
        }
        let stalled = self.is_moving()
            && self.state.accusations.is_empty()
            && late(self.state.progress_ms, self.stall_ms());
        let owing = if stalled && self.state.inquiry.is_some() {
            self.owing_audits(&|_| true)
        } else if stalled {
            self.owing()
        } else {
            self.owing_audits(&|since_ms| late(since_ms, timeouts.stall_ms))
        };
        if stalled || !owing.is_empty() {
            let owing = list(owing);
            self.fail(format!(
                "nothing came for {} s: {owing}; look at what these are doing, then start the run again",
                seconds(timeouts.stall_ms)
            ));
        }
    }

    pub(crate) fn set_alarm(&mut self) {
        let Timeouts {
            join_ms,
            reissue_ms,
            absence_ms,
            seat_grace_ms,
            reveal_ms,
            stall_ms,
            linger_ms,
            confirm_ms,
            ..
        } = self.config.timeouts;
        let all =
            [join_ms, reissue_ms, absence_ms, seat_grace_ms, reveal_ms, stall_ms, linger_ms, confirm_ms];
        let shortest_ms = all.into_iter().fold(u64::MAX, u64::min);
        // No deadline that began just now can be earlier than this, so the rest need not be looked at.
        let began_now_ms = self.now_ms.saturating_add(shortest_ms);
        if self.is_over() || self.state.alarm.covers(began_now_ms) {
            return;
        }
        self.look_through_audits();
        if self.covers_all() {
            return;
        }
        self.deadlines_ms = Some(self.now_ms);
        if let Some(at_ms) = self.next_deadline_ms().and_then(|at_ms| self.state.alarm.set(at_ms)) {
            self.emit(Effect::WakeAt(at_ms));
        }
    }

    /// Whether the alarm rings before any deadline, as far as that can be told without looking at many things: what a transfer adds
    /// makes a deadline later, and one that there was when all were looked through has an alarm, if it did not begin since.
    fn covers_all(&self) -> bool {
        let timeouts = self.config.timeouts;
        let began =
            self.deadlines_ms.map(|at_ms| at_ms.saturating_add(timeouts.reveal_ms.min(timeouts.confirm_ms)));
        let stall = self.is_moving().then(|| self.state.progress_ms.saturating_add(timeouts.stall_ms));
        let first = [began, stall, self.next_plain_deadline_ms()].into_iter().flatten().min();
        self.deadlines_ms.is_some() && first.is_some_and(|first_ms| self.state.alarm.covers(first_ms))
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        let timeouts = self.config.timeouts;
        if let Phase::Gathering { since_ms } = self.state.phase {
            return Some(since_ms.saturating_add(timeouts.join_ms));
        }
        let accusations = &self.state.accusations;
        let moving =
            (self.is_moving() && accusations.is_empty()).then(|| (self.state.progress_ms, self.stall_ms()));
        let checks = accusations.since_ms().map(|since_ms| since_ms.saturating_add(timeouts.confirm_ms));
        let moving = moving.map(|(since_ms, patience_ms)| since_ms.saturating_add(patience_ms));
        let disclosure = self.disclosure_due_ms().filter(|&due_ms| due_ms > self.now_ms);
        checks.chain(moving).chain(disclosure).chain(self.next_plain_deadline_ms()).min()
    }

    /// The first of the deadlines that are few, and told without counting bytes.
    fn next_plain_deadline_ms(&self) -> Option<u64> {
        let timeouts = self.config.timeouts;
        if let Phase::Gathering { since_ms } = self.state.phase {
            return Some(since_ms.saturating_add(timeouts.join_ms));
        }
        let seats = &self.state.seats;
        let needed = seats.lost().filter(|(node, _)| seats.seat(*node).is_none_or(|seat| !seat.away));
        let grace = needed.map(|(_, lost)| lost.since_ms.saturating_add(timeouts.seat_grace_ms));
        let patience =
            self.patience_ends_ms().into_iter().map(|(_, at_ms)| at_ms).filter(|&at_ms| at_ms > self.now_ms);
        let windows = self.windows_end_ms().into_iter().map(|(_, at_ms, _)| at_ms);
        let lost = patience.chain(grace).chain(windows);
        let audits = self.state.audit_alarm.map(|(_, due_ms)| due_ms);
        let vacant = self.state.consequences.vacant_ms.map(|since| since.saturating_add(timeouts.join_ms));
        lost.chain(audits)
            .chain(self.look_at_ms())
            .chain(vacant)
            .chain(self.state.questions.due_ms())
            .chain(self.refill_due_ms().filter(|&due_ms| due_ms > self.now_ms))
            .chain(self.pace_due_ms().filter(|&due_ms| due_ms > self.now_ms))
            .min()
    }

    /// Finds the first deadline of the audits. They are many, and none that began since can be earlier than the shortest wait
    /// after the last look; so they are looked through no more often than half of that.
    fn look_through_audits(&mut self) {
        if self.state.audits.is_empty() {
            self.state.audit_alarm = None;
            return;
        }
        let timeouts = self.config.timeouts;
        let horizon_ms = timeouts.reveal_ms.min(timeouts.stall_ms);
        let fresh = |&(at_ms, due_ms): &(u64, u64)| {
            self.now_ms < at_ms.saturating_add(horizon_ms / 2) && self.now_ms < due_ms
        };
        if self.state.audit_alarm.as_ref().is_some_and(fresh) {
            return;
        }
        let waiting = self.state.audits.values().flat_map(|epoch| epoch.pending.iter());
        let due = waiting.filter(|(_, pending)| !matches!(pending.standing, Standing::Accused { .. })).map(
            |((miner, _), pending)| {
                let owes = pending.standing == Standing::Drawn && !self.state.seats.is_lost(miner);
                let since_ms = pending.since_ms.saturating_add(self.transfer_ms(miner, pending));
                let due_ms = since_ms.saturating_add(timeouts.reveal_ms);
                // Past that, somebody may still be convicted when others reveal; no alarm tells of it.
                let due_ms = Some(due_ms).filter(|&due_ms| owes && due_ms > self.now_ms);
                due_ms.unwrap_or(since_ms.saturating_add(timeouts.stall_ms))
            },
        );
        let first_ms = due.chain([self.now_ms.saturating_add(horizon_ms)]).min();
        self.state.audit_alarm = first_ms.map(|first_ms| (self.now_ms, first_ms));
    }

    /// Without progress of an epoch. What has to be revealed meanwhile may stand before it on the same uplink: the weights of a merge, or
    /// what may have spoilt the epoch.
    fn stall_ms(&self) -> u64 {
        self.config.timeouts.stall_ms.saturating_add(self.longest_transfer_ms())
    }

    /// Whether an epoch is on its way, rather than audits alone.
    fn is_moving(&self) -> bool {
        match self.state.phase {
            Phase::Working | Phase::Merging | Phase::Committing => true,
            // Or the verdicts before that, each of which has a deadline.
            Phase::RollingBack => !self.state.consequences.awaits_verdicts(),
            // Everyone is told where to stand.
            Phase::Settling => {
                let all_there = self.state.seats.lost().next().is_none();
                self.state.audits.is_empty() && all_there && self.state.consequences.vacant_ms.is_none()
            }
            Phase::Idle | Phase::Gathering { .. } | Phase::Over => false,
        }
    }

    /// Empty seats, and those who sit but are not ready.
    fn missing(&self) -> Vec<String> {
        let seats = &self.state.seats;
        let mut missing = Vec::new();
        if self.state.pointer.is_none() {
            missing.push("the store has not taken the first manifest".to_owned());
        }
        for stage in 0..self.config.run.model.stage_count() {
            let name = self.stage_name(u16::try_from(stage).unwrap_or(u16::MAX));
            let miners: Vec<NodeId> = seats.miners_of(stage).collect();
            let needed = self.config.lanes_needed();
            if miners.len() < needed {
                missing.push(format!("{name} has {} of {needed} miners", miners.len()));
            }
            let due = Some(self.state.manifest.body.epoch);
            let unready =
                miners.into_iter().filter(|&miner| seats.seat(miner).is_some_and(|seat| seat.ready != due));
            missing.extend(unready.map(|miner| format!("{} has not loaded its weights", self.name(miner))));
        }
        let present = seats.validators_present().count();
        if present < usize::from(self.config.validators) {
            missing.push(format!("{present} of {} validators came", self.config.validators));
        }
        missing
    }

    /// What an epoch that does not move waits for.
    fn owing(&self) -> Vec<String> {
        let Some(epoch) = &self.state.epoch else { return self.missing() };
        if self.state.phase == Phase::Committing {
            return vec![format!("the store owes the manifest of epoch {}", epoch.number)];
        }
        let steps = self.config.run.epoch.steps;
        let least = epoch.miners.values().map(|progress| progress.receipts.len()).min();
        let merging: BTreeSet<NodeId> = epoch.merges.iter().flat_map(|merge| merge.owing()).collect();
        let owing = epoch.miners.iter().filter(|(miner, progress)| match self.state.phase {
            Phase::Merging => merging.contains(miner),
            _ => progress.steps < epoch.limit_of(progress.lane) && Some(progress.receipts.len()) == least,
        });
        owing
            .map(|(&miner, progress)| {
                let done = progress.receipts.last().map(|receipt| receipt.body.operation.to_string());
                let done = done.unwrap_or_else(|| "nothing".into());
                let what = match self.state.phase {
                    Phase::Merging => format!("the merge of epoch {}", epoch.number),
                    _ => format!("step {} of {steps} in epoch {}", progress.steps, epoch.number),
                };
                format!("{} owes {what}, the last it did was {done}", self.name(miner))
            })
            .collect()
    }

    fn owing_audits(&self, late: &dyn Fn(u64) -> bool) -> Vec<String> {
        let mut owing = Vec::new();
        for (epoch, audited) in &self.state.audits {
            let overdue = audited.pending.iter().filter(|(_, pending)| late(pending.since_ms));
            for ((miner, step), pending) in overdue {
                if !late(pending.since_ms.saturating_add(self.transfer_ms(miner, pending))) {
                    continue;
                }
                let (name, window) = (self.name(miner), Window { epoch: *epoch, step });
                owing.push(match &pending.standing {
                    // Has a deadline of its own.
                    Standing::Accused { .. } => continue,
                    Standing::Drawn => {
                        format!("{name} owes what its receipts bind of {window}")
                    }
                    Standing::Revealed { .. } => {
                        format!("no validator is there to replay {window} of {name}")
                    }
                    Standing::Ordered { validator, .. } => {
                        format!("{} owes a verdict on {window} of {name}", self.name(*validator))
                    }
                });
            }
        }
        owing
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn list(mut items: Vec<String>) -> String {
    let more = items.len().saturating_sub(NAMED_MAX);
    items.truncate(NAMED_MAX);
    if more > 0 {
        items.push(format!("and {more} more"));
    }
    items.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use spec::{Digest, Run};
    use wire::{Alarm, Key, Manifest, ObjectRef, Signed, StageRecord};

    fn core() -> Orchestrator {
        let run = Run::from_toml(include_str!("../../../engine/spec/tests/tiny.toml")).unwrap();
        let key = Key::from_seed([1; 32]);
        let weights = ObjectRef { digest: Digest([1; 32]), bytes: 1 };
        let record = StageRecord { weights, momentum: None, miners: Vec::new() };
        let stages = vec![record; run.model.stage_count()];
        let first = Manifest { run: run.id(), epoch: 0, previous: Digest::default(), stages, loss_q32: None };
        let mut core = Orchestrator::new(Config {
            manifest: Signed::new(first, &key),
            run,
            key,
            token: Vec::new(),
            secret: [0; 32],
            validators: 1,
            lanes_at_start: 0,
            mixes_routes: false,
            direct: false,
            timeouts: Timeouts::default(),
        })
        .unwrap();
        core.state.phase = Phase::Settling;
        core
    }

    #[test]
    fn an_alarm_covers_what_it_was_set_for_and_what_cannot_be_due_before_it() {
        let mut core = core();
        let Timeouts { reveal_ms, stall_ms, .. } = core.config.timeouts;
        let rings_at = |core: &mut Orchestrator, at_ms| {
            core.state.alarm = Alarm::default();
            core.state.alarm.set(at_ms)
        };
        rings_at(&mut core, reveal_ms);
        assert!(!core.covers_all(), "nothing was looked through yet");
        core.deadlines_ms = Some(0);
        assert!(core.covers_all());
        rings_at(&mut core, reveal_ms + 1);
        assert!(!core.covers_all(), "something may have to be shown that was asked for just after");
        core.deadlines_ms = Some(1);
        assert!(core.covers_all());
        // Nothing may stand still for so long either, whatever transfers add.
        core.deadlines_ms = Some(stall_ms);
        rings_at(&mut core, stall_ms);
        assert!(core.covers_all());
        rings_at(&mut core, stall_ms + 1);
        assert!(!core.covers_all());
    }
}
