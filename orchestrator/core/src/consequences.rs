//! What follows from a conviction: the key is banned, its seat is free, and what stands on its work is undone.
//!
//! Everybody goes back to the manifest with which the first epoch opened that its unproven work is part of. Epochs
//! whose windows were all found equal are stable: nothing goes back beyond them. Who lied there is found by the windows that are
//! drawn already, so these are judged first: whatever they find, everybody goes back once.

use crate::audit::{Pending, Standing};
use crate::effect::{Effect, Report};
use crate::machine::{Orchestrator, Phase};
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId, Window};
use std::collections::{BTreeMap, BTreeSet};
use wire::{Finding, Manifest, Signed};

/// How often a miner may lose what its drawn windows bind before that counts as withholding.
pub(crate) const LAPSES_MAX: u32 = 2;
/// Windows found equal after which earlier lapses no longer count.
const PASSED_FOR_LAPSES: u32 = 8;

/// What is remembered of verdicts and of what may have to be undone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Consequences {
    /// Convicted keys, each with why.
    pub banned: BTreeMap<NodeId, String>,
    /// Epochs from the first whose audits all passed.
    pub stable: u32,
    /// What is undone once every drawn window is judged.
    sentence: Option<Sentence>,
    /// The manifest to go back to, while the pointer is on its way elsewhere.
    rollback: Option<Signed<Manifest>>,
    /// Windows of epochs that were undone while a validator replayed them, by miner, and by the receipt that binds the state before.
    pub undone: BTreeMap<(NodeId, Window, Digest), (Signed<Manifest>, Pending)>,
    /// Who lost drawn windows: how often, and how many were found equal since.
    lapses: BTreeMap<NodeId, (u32, u32)>,
    /// Keys that came without an invitation, of which a window was found equal.
    pub proven: BTreeSet<NodeId>,
    /// Since when a stage has no miner at all.
    pub vacant_ms: Option<u64>,
}

/// That everybody goes back, which waits for the verdicts on what is drawn.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sentence {
    /// The manifest with which the first epoch opened that is undone.
    to: Signed<Manifest>,
    /// Whose conviction it follows from, and how many more there were since.
    why: String,
    more: u32,
    /// Inner steps and losses of the epoch that it ended.
    steps: u64,
    losses: u64,
}

impl Consequences {
    /// Whether something is to be undone, and drawn windows are judged before.
    pub fn awaits_verdicts(&self) -> bool {
        self.sentence.is_some()
    }
}

impl Orchestrator {
    /// A miner is convicted: it is banned, and what stands on its work is undone.
    pub(crate) fn convict(&mut self, miner: NodeId, why: &str, evidence: Option<Vec<u8>>) {
        let name = self.name(miner);
        // What of its work no verdict speaks of yet is not believed either.
        let first = self.state.audits.iter().find(|(_, audited)| audited.pending.of(miner).next().is_some());
        let first = first.map(|(&epoch, _)| epoch);
        if !self.state.consequences.banned.contains_key(&miner) {
            let stage = self.state.seats.stage_of(miner);
            let digest = evidence.as_deref().map(Digest::of);
            let sentence = match digest {
                Some(digest) => format!("{name} was convicted{why}; evidence {digest}"),
                None => format!("{name} was convicted{why}"),
            };
            if let Some(bytes) = evidence {
                self.emit(Effect::KeepEvidence { miner, bytes });
            }
            self.state.consequences.banned.insert(miner, sentence.clone());
            self.report(Report::Convicted { node: miner, stage, evidence: digest, why: sentence });
            self.strike(miner, digest);
            self.dismiss(miner);
        }
        self.drop_windows(miner);
        match first {
            Some(epoch) => self.condemn(epoch, format!("{name} was convicted{why}")),
            None => self.lose_convict(miner, &name),
        }
        self.state.seats.vacate(miner);
        self.watch_vacancies();
        self.settle();
    }

    /// A convict whose earlier work is undone or was found equal leaves what it takes part in now.
    fn lose_convict(&mut self, miner: NodeId, name: &str) {
        if self.state.epoch.as_ref().is_some_and(|epoch| epoch.miners.contains_key(&miner)) {
            self.lose_work(miner, &format!("{name} was convicted"));
        }
    }

    fn drop_windows(&mut self, miner: NodeId) {
        self.state.audits.values_mut().for_each(|audited| audited.pending.forget(miner));
        self.state.consequences.undone.retain(|(of, ..), _| *of != miner);
    }

    /// Everything from `epoch` on is to be undone, once it is known who else lied in it. The epoch in hand stands on that, and ends.
    fn condemn(&mut self, epoch: u32, why: String) {
        let Some(to) = self.state.audits.get(&epoch).map(|audited| audited.manifest.clone()) else { return };
        if let Some(sentence) = &mut self.state.consequences.sentence {
            sentence.more += 1;
            if epoch < sentence.to.body.epoch {
                sentence.to = to;
            }
            return;
        }
        let (mut steps, mut losses) = (0, 0);
        if let Some(open) = self.state.epoch.take() {
            self.undo_audits(open.number);
            (steps, losses) = (open.stepped.into(), open.losses);
        }
        self.state.phase = Phase::RollingBack;
        self.state.consequences.sentence = Some(Sentence { to, why, more: 0, steps, losses });
    }

    /// Everybody goes back, if no drawn window waits for a verdict any more.
    fn carry_out(&mut self) {
        if self.state.audits.values().any(|audited| !audited.pending.is_empty()) {
            return;
        }
        let Some(Sentence { to, mut why, more, steps, losses }) = self.state.consequences.sentence.take()
        else {
            return;
        };
        if more > 0 {
            why += &format!("; {more} more were convicted meanwhile");
        }
        self.undo(to, why, (steps, losses));
    }

    /// Undoes everything from `epoch` on.
    pub(crate) fn roll_back(&mut self, epoch: u32, why: String) {
        let to = self.state.audits.get(&epoch).map(|audited| audited.manifest.clone());
        let Some(to) = to else { return };
        self.go_back(to, why);
    }

    /// Everybody goes back to where this manifest's epoch opens.
    pub(crate) fn go_back(&mut self, to: Signed<Manifest>, why: String) {
        let open = self.state.epoch.take();
        let ended = open.map_or((0, 0), |open| (open.stepped.into(), open.losses));
        self.undo(to, why, ended);
    }

    /// The same, with the inner steps and losses of the epoch that ended for it.
    fn undo(&mut self, to: Signed<Manifest>, why: String, ended: (u64, u64)) {
        let epoch = to.body.epoch;
        self.undo_audits(epoch);
        let settled = self.undo_settled(epoch);
        let undone = self.undo_accounts(epoch);
        let (steps, losses) = undone
            .values()
            .fold((settled.steps + ended.0, settled.losses + ended.1), |(steps, losses), of| {
                (steps + u64::from(of.steps), losses + of.losses)
            });
        let epochs = u32::try_from(undone.len()).unwrap_or(u32::MAX).saturating_add(settled.epochs);
        let tokens = losses * self.config.run.microbatch_tokens();
        self.report(Report::RolledBack { epoch, epochs, steps, tokens, why });
        self.state.phase = Phase::RollingBack;
        self.state.seats.none_is_ready();
        self.state.consequences.rollback = Some(to);
        self.progressed();
        self.move_back();
    }

    /// Windows of epochs from this one on are asked of nobody any more.
    pub(crate) fn undo_audits(&mut self, epoch: u32) {
        self.state.inquiry = None;
        for (number, audited) in self.state.audits.split_off(&epoch) {
            for ((miner, step), pending) in audited.pending {
                // What a validator or a second party has in hand may still convict; what is with its miner is forgotten there.
                if let Standing::Ordered { .. } | Standing::Accused { .. } = pending.standing {
                    let at = (miner, Window { epoch: number, step }, pending.begins_with());
                    self.state.consequences.undone.insert(at, (audited.manifest.clone(), pending));
                }
            }
        }
    }

    /// Moves the pointer back, once it stands still and it is known whereto; `false` if nothing is to be undone.
    pub(crate) fn move_back(&mut self) -> bool {
        if self.state.consequences.rollback.is_none() {
            return self.state.consequences.awaits_verdicts();
        }
        if self.state.publishing.is_none()
            && let Some(to) = self.state.consequences.rollback.take()
        {
            self.point_at(to);
        }
        true
    }

    /// The pointer names the manifest that everybody goes back to.
    pub(crate) fn rolled_back(&mut self) {
        // A run that ended before it began gathers once more.
        let begun = self.state.next_assignment > 0;
        self.state.phase = if begun { Phase::Settling } else { Phase::Gathering { since_ms: self.now_ms } };
        self.state.seats.none_is_ready();
        self.progressed();
        self.tell_to_adopt();
        self.settle();
    }

    /// Epochs whose windows, and those of all before, are judged can no longer be undone.
    pub(crate) fn settle(&mut self) {
        if self.state.consequences.awaits_verdicts() {
            return self.carry_out();
        }
        // Of an epoch that is not committed more is audited.
        let committed = self.state.manifest.body.epoch;
        self.state.audits.retain(|&epoch, audited| epoch >= committed || !audited.pending.is_empty());
        self.conclude();
        if self.is_over() {
            return;
        }
        if self.state.phase == Phase::RollingBack {
            return;
        }
        let stable = self.state.audits.keys().next().map_or(committed, |&epoch| epoch.min(committed));
        while self.state.consequences.stable < stable {
            let epoch = self.state.consequences.stable;
            self.state.consequences.stable += 1;
            self.enter(epoch);
            if self.config.run.audit.windows > 0 {
                self.report(Report::Stable { epoch });
            }
        }
    }

    /// A window of a miner was found equal.
    pub(crate) fn window_passed(&mut self, miner: NodeId) {
        let name = self.name(miner);
        if let Some(seat) = self.state.seats.seat_mut(miner).filter(|seat| seat.on_probation) {
            seat.on_probation = false;
            self.state.consequences.proven.insert(miner);
            let text = format!("{name} is on probation no longer: a window of it was found equal");
            self.report(Report::Note { text });
        }
        if let Some((_, passed)) = self.state.consequences.lapses.get_mut(&miner) {
            *passed += 1;
            if *passed >= PASSED_FOR_LAPSES {
                self.state.consequences.lapses.remove(&miner);
            }
        }
    }

    /// What drawn windows of a miner bind is gone: `true` if that happened so often that it is convicted.
    pub(crate) fn lapsed(&mut self, miner: NodeId) -> bool {
        let (lapses, passed) = self.state.consequences.lapses.entry(miner).or_default();
        (*lapses, *passed) = (*lapses + 1, 0);
        let lapses = *lapses;
        if lapses <= LAPSES_MAX {
            return false;
        }
        self.convict(miner, &format!(" of withholding: it lost drawn windows {lapses} times"), None);
        true
    }

    /// How often what drawn windows of a miner bind went, of late.
    pub(crate) fn lapses(&self, miner: NodeId) -> u32 {
        self.state.consequences.lapses.get(&miner).map_or(0, |(lapses, _)| *lapses)
    }

    /// Miners that are there and have not revealed a drawn window in time are convicted, if at least half of the epoch's
    /// windows were revealed: where hardly anybody can, the store or the network is to blame.
    pub(crate) fn convict_withholders(&mut self) {
        let Some(late_since_ms) = self.now_ms.checked_sub(self.config.timeouts.reveal_ms) else { return };
        let mut withheld: Vec<(NodeId, Window)> = Vec::new();
        for (&epoch, audited) in &self.state.audits {
            if 2 * audited.pending.owed() > audited.drawn {
                continue;
            }
            let begun = withheld.len();
            for ((miner, step), pending) in audited.pending.owed_since(late_since_ms) {
                let transfer_ms = self.transfer_ms(miner, pending);
                let is_late = pending.since_ms.saturating_add(transfer_ms) <= late_since_ms;
                if is_late && !self.state.seats.is_lost(miner) {
                    withheld.push((miner, Window { epoch, step }));
                }
            }
            withheld[begun..].sort_unstable_by_key(|(miner, window)| (*miner, window.step));
        }
        for (miner, Window { epoch, step }) in withheld {
            if !self.state.consequences.banned.contains_key(&miner) {
                let why = format!(
                    " of withholding (epoch {epoch}, window of step {step}): it did not reveal what its receipts bind"
                );
                self.convict(miner, &why, None);
            }
        }
    }

    /// Notes since when a stage has nobody, which a newcomer can change.
    pub(crate) fn watch_vacancies(&mut self) {
        let vacant = self.vacant_stage().is_some();
        let since = &mut self.state.consequences.vacant_ms;
        *since = vacant.then(|| since.unwrap_or(self.now_ms));
    }

    /// A stage that has no miner, once the run has begun.
    pub(crate) fn vacant_stage(&self) -> Option<u16> {
        if matches!(self.state.phase, Phase::Idle | Phase::Gathering { .. }) {
            return None;
        }
        let mut stages = 0..self.config.run.model.stage_count();
        let vacant = stages.find(|&stage| self.state.seats.miners_of(stage).next().is_none())?;
        u16::try_from(vacant).ok()
    }
}

/// What a verdict convicts of, to follow "was convicted".
pub(crate) fn conviction_of(order: &wire::AuditOrder, finding: &Finding) -> String {
    let operation = match finding {
        Finding::Unequal { sequence, .. } => {
            let said = order.receipts.iter().find(|receipt| receipt.body.sequence == *sequence);
            said.map(|receipt| format!(" in its {}", receipt.body.operation)).unwrap_or_default()
        }
        _ => String::new(),
    };
    let Window { epoch, step } = order.window;
    if order.window.is_beginning() {
        return format!(" of another state (epoch {epoch}, where it begins): {finding}");
    }
    format!("{operation} (epoch {epoch}, window of step {step}): {finding}")
}
