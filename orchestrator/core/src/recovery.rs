//! What is lost comes back: nodes, this orchestrator itself, and an epoch whose work is gone.

use crate::audit::Standing;
use crate::consequences::LAPSES_MAX;
use crate::effect::Report;
use crate::epoch::Epoch;
use crate::machine::{Orchestrator, Phase};
use crate::seats::Lost;
use spec::NodeId;
use std::collections::BTreeMap;
use wire::{Assignment, Message};

impl Orchestrator {
    /// The events so far were replayed: every connection is gone, and what the store was asked for is asked again.
    pub(crate) fn resumed(&mut self) {
        if self.state.phase == Phase::Idle {
            return self.start();
        }
        self.state.alarm.rang();
        self.progressed();
        if let Some(epoch) = &mut self.state.epoch {
            epoch.pace.held_up(self.now_ms);
        }
        for node in self.state.seats.connected() {
            let why = "the orchestrator was started again".into();
            self.state.seats.mark(node, Some(Lost { since_ms: self.now_ms, why, with_all: true }));
            self.orphan_audits(node);
        }
        self.audits_begin_anew();
        if let Phase::Gathering { .. } = self.state.phase {
            self.state.phase = Phase::Gathering { since_ms: self.now_ms };
        }
        self.publish_again();
        self.accuse_again();
        self.drop_questions();
    }

    /// A miner has its seat again, with what it had when its connection went: whatever it may have missed.
    pub(crate) fn catch_up(&mut self, node: NodeId) {
        let due = self.state.manifest.clone();
        let takes_part = self.state.epoch.as_ref().is_some_and(|epoch| epoch.miners.contains_key(&node));
        // Who adopts forgets what may be drawn from it: that waits for the commit.
        let left = self.state.epoch.as_ref().is_some_and(|epoch| epoch.left.contains_key(&node));
        if !takes_part {
            let behind = self.state.seats.seat(node).filter(|seat| seat.ready != Some(due.body.epoch));
            if let Some(stage) = behind.filter(|_| !left).map(|seat| seat.stage) {
                self.tell_one_to_adopt(node, stage);
            }
            return self.draw_again(node);
        }
        if let Some(epoch) = &mut self.state.epoch {
            epoch.pace.held_up(self.now_ms);
        }
        if matches!(self.state.phase, Phase::Working | Phase::Merging) {
            self.send(node, Message::Open(due));
            for assignment in self.unfolded(node) {
                self.send(node, Message::Assign(assignment));
            }
            for assignment in self.amended(node) {
                self.send(node, Message::Amend(assignment));
            }
            for assignment in self.struck(node) {
                self.send(node, Message::Strike(assignment));
            }
            self.merge_again(node);
            let others: Vec<NodeId> =
                self.state.epoch.iter().flat_map(|epoch| epoch.miners.keys().copied()).collect();
            for other in others {
                if other != node && !self.state.seats.is_lost(other) {
                    self.send(other, Message::Returned(node));
                }
            }
        }
        self.draw_again(node);
    }

    /// A miner has its seat again, but nothing of what it did in the epoch.
    pub(crate) fn begins_anew(&mut self, node: NodeId) {
        if let Some(seat) = self.state.seats.seat_mut(node) {
            (seat.ready, seat.turn) = (None, 0);
        }
        if self.forgive_windows(node, true) {
            return;
        }
        let name = self.name(node);
        if self.state.epoch.as_ref().is_some_and(|epoch| epoch.miners.contains_key(&node)) {
            self.lose_work(node, &format!("{name} was started again"));
        }
        let counts = |epoch: &&mut Epoch| epoch.is_done(node) || epoch.left.contains_key(&node);
        if let Some(epoch) = self.state.epoch.as_mut().filter(counts) {
            epoch.forgetful.insert(node);
        }
    }

    /// Whoever has been lost for too long is waited for no longer, where its stage has others.
    pub(crate) fn go_on_without_the_late(&mut self) {
        for (node, at_ms) in self.patience_ends_ms() {
            if self.now_ms >= at_ms {
                self.go_on_without(node);
            }
        }
    }

    /// Nobody waits for what was drawn from a miner that has been away for long. That is its fault, unless the
    /// orchestrator was away itself.
    pub(crate) fn forgive_the_absent(&mut self) {
        for (node, at_ms, with_all) in self.windows_end_ms() {
            if self.now_ms >= at_ms {
                self.forgive_windows(node, !with_all);
            }
        }
    }

    /// Lost miners with drawn windows, until when they may return to reveal them, and whether all were lost at once.
    pub(crate) fn windows_end_ms(&self) -> Vec<(NodeId, u64, bool)> {
        let absence_ms = self.config.timeouts.absence_ms;
        let lost = self.state.seats.lost().filter(|(node, _)| !self.drawn_windows(*node).is_empty());
        // Where nobody stands in, the run itself waits.
        let away = lost.filter(|(node, _)| self.state.seats.seat(*node).is_some_and(|seat| seat.away));
        away.map(|(node, lost)| (node, lost.since_ms.saturating_add(absence_ms), lost.with_all)).collect()
    }

    /// Lost nodes that are waited for, and until when before the others of their stage go on. Where another can do the
    /// work of the epoch that is not long, but after the orchestrator itself was away.
    pub(crate) fn patience_ends_ms(&self) -> Vec<(NodeId, u64)> {
        let timeouts = self.config.timeouts;
        let waited_for = |node: &NodeId| self.state.seats.seat(*node).is_some_and(|seat| !seat.away);
        let lost = self.state.seats.lost().filter(|(node, _)| waited_for(node));
        lost.map(|(node, lost)| {
            let soon = !lost.with_all && !self.stand_ins(node).is_empty();
            let patience_ms = if soon { timeouts.reissue_ms } else { timeouts.absence_ms };
            (node, lost.since_ms.saturating_add(patience_ms))
        })
        .collect()
    }

    /// A lost miner is waited for no longer, because its stage has others.
    pub(crate) fn go_on_without(&mut self, node: NodeId) {
        if !self.state.seats.give_up(node) {
            return;
        }
        let name = self.name(node);
        self.report(Report::Note { text: format!("{name} is away: its stage goes on without it") });
        if self.state.epoch.as_ref().is_some_and(|epoch| epoch.miners.contains_key(&node)) {
            self.lose_work(node, &format!("{name} went away"));
        }
    }

    /// What a miner did in the epoch is gone: others of its stage do its work or merge without it where they can, else
    /// the epoch begins again.
    pub(crate) fn lose_work(&mut self, node: NodeId, why: &str) {
        if self.state.inquiry.is_some() {
            return self.lose_suspect(node, why);
        }
        let merging = matches!(self.state.phase, Phase::Merging | Phase::Committing);
        if self.state.phase == Phase::Working {
            if !self.reissue(node, why) {
                self.rewind(why);
            }
            return;
        }
        if merging && !self.leave_merge(node) {
            return self.rewind(why);
        }
        // What counts is drawn from. The windows of what does not went with it.
        let unfinished = |epoch: &&mut Epoch| merging && !epoch.is_done(node);
        if let Some(epoch) = self.state.epoch.as_mut().filter(unfinished)
            && !epoch.leave(node)
        {
            let text = format!("{why}: what it did in epoch {} is not audited", epoch.number);
            self.report(Report::Note { text });
        }
    }

    /// Somebody went away while it is found out who spoilt the epoch: that is as good as done, and found out another time.
    fn lose_suspect(&mut self, node: NodeId, why: &str) {
        let all =
            self.state.seats.seat(node).and_then(|seat| seat.lost.as_ref()).is_some_and(|lost| lost.with_all);
        let owes = !self.drawn_windows(node).is_empty();
        if all || !owes || !self.lapsed(node) {
            self.rewind(why);
        }
    }

    /// Everybody goes back to where the epoch began.
    pub(crate) fn rewind(&mut self, why: &str) {
        let Some(epoch) = self.state.epoch.take() else { return };
        self.undo_audits(epoch.number);
        let tokens = epoch.losses * self.config.run.microbatch_tokens();
        let (number, steps, why) = (epoch.number, epoch.stepped, why.to_owned());
        self.report(Report::Rewound { epoch: number, steps, tokens, why });
        self.state.phase = Phase::Settling;
        self.progressed();
        self.state.seats.none_is_ready();
        self.tell_to_adopt();
    }

    /// Everyone who is there and does not stand where the next epoch begins is told to.
    pub(crate) fn tell_to_adopt(&mut self) {
        let due = Some(self.state.manifest.body.epoch);
        let behind = |seat: &&crate::seats::Seat| seat.lost.is_none() && seat.ready != due;
        let behind: Vec<(NodeId, u16)> =
            self.state.seats.miners().filter(behind).map(|seat| (seat.miner, seat.stage)).collect();
        for (miner, stage) in behind {
            self.tell_one_to_adopt(miner, stage);
        }
    }

    /// A miner is to stand where the next epoch begins. What it says of that in answer to an earlier word does not count.
    pub(crate) fn tell_one_to_adopt(&mut self, miner: NodeId, stage: u16) {
        let Some(seat) = self.state.seats.seat_mut(miner) else { return };
        seat.turn = seat.turn.saturating_add(1);
        let (turn, manifest) = (seat.turn, self.state.manifest.clone());
        self.send(miner, Message::Adopt { stage, manifest, turn });
    }

    /// Assignments that a miner has not folded, in the order in which they were given.
    fn unfolded(&self, node: NodeId) -> Vec<Assignment> {
        let Some(epoch) = &self.state.epoch else { return Vec::new() };
        let mine = |assignment: &Assignment| assignment.route.iter().position(|slot| slot.miner == node);
        let due = epoch.live.values().filter(|tracked| {
            mine(&tracked.assignment).is_some_and(|stage| tracked.backward[stage].is_none())
        });
        due.map(|tracked| tracked.assignment.clone()).collect()
    }

    /// Assignments on whose way another miner of the route was lost: a neighbour may have to send again what it folded.
    fn amended(&self, node: NodeId) -> Vec<Assignment> {
        let live =
            self.state.epoch.iter().flat_map(|epoch| epoch.live.values()).map(|tracked| &tracked.assignment);
        let others = |assignment: &&Assignment| {
            let mut route = assignment.route.iter();
            route.any(|slot| slot.miner == node)
                && assignment.route.iter().any(|slot| slot.miner != node && slot.attempt > 0)
        };
        live.filter(others).cloned().collect()
    }

    /// Assignments of a miner of which nobody does the rest.
    fn struck(&self, node: NodeId) -> Vec<Assignment> {
        let struck = self.state.epoch.iter().flat_map(|epoch| epoch.struck.values());
        let mine = |assignment: &&Assignment| assignment.route.iter().any(|slot| slot.miner == node);
        struck.map(|tracked| &tracked.assignment).filter(mine).cloned().collect()
    }

    fn draw_again(&mut self, node: NodeId) {
        let now_ms = self.now_ms;
        let mut draws: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for window in self.drawn_windows(node) {
            // Once, so that nobody puts it off by coming and going.
            if self.pending(node, window).is_some_and(|pending| !pending.extended) {
                self.change_pending(node, window, |pending| {
                    (pending.since_ms, pending.extended) = (now_ms, true);
                });
            }
            draws.entry(window.epoch).or_default().push(window.step);
        }
        for (epoch, steps) in draws {
            let more = self.state.epoch.as_ref().is_some_and(|open| open.number == epoch);
            self.send(node, Message::Draw { epoch, steps, more });
        }
    }

    /// What a drawn window binds went with its miner's process: nobody can judge it any more. `true` if that happened
    /// once too often, and the miner is convicted.
    pub(crate) fn forgive_windows(&mut self, node: NodeId, is_lapse: bool) -> bool {
        let windows = self.drawn_windows(node);
        if windows.is_empty() {
            return false;
        }
        if is_lapse && self.lapsed(node) {
            return true;
        }
        for window in &windows {
            if let Some(audited) = self.state.audits.get_mut(&window.epoch) {
                audited.pending.remove((node, window.step));
            }
        }
        let name = self.name(node);
        let lost = windows.len();
        let mut text = format!("{name} cannot reveal {lost} drawn windows any more: they are not audited");
        if is_lapse {
            text += &format!("; that happened {} times, {LAPSES_MAX} are let pass", self.lapses(node));
        }
        self.report(Report::Note { text });
        if self.state.inquiry.is_some() {
            self.rewind(&format!("{name} was not there to reveal what may have spoilt the epoch"));
        }
        self.settle();
        false
    }

    fn drawn_windows(&self, node: NodeId) -> Vec<spec::Window> {
        let mut windows = Vec::new();
        for (&epoch, audited) in &self.state.audits {
            let drawn = audited.pending.of(node).filter(|(_, pending)| pending.standing == Standing::Drawn);
            windows.extend(drawn.map(|((_, step), _)| spec::Window { epoch, step }));
        }
        windows
    }

    fn audits_begin_anew(&mut self) {
        let now_ms = self.now_ms;
        for audited in self.state.audits.values_mut() {
            audited.pending.change_all(|pending| pending.since_ms = now_ms);
        }
    }
}
