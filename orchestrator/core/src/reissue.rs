//! A lost miner's microbatches go to another miner of its stage, and the epoch goes on.
//!
//! What the lost one had folded is void. Its stand-in folds what is not folded everywhere, in an inner step that was not
//! handed out to it yet: a step that it may have closed is never changed. The others of the route keep what they did:
//! a neighbour that got a payload of the lost miner uses it, one that did not gets its stand-in's.
//!
//! Where that would make two stand-ins' lanes wait for one another, what is not folded everywhere is struck instead: who has
//! not folded it leaves it out. What is left stands in the order in which it stood before, and so comes to an end.

use crate::effect::Report;
use crate::epoch::{Epoch, Progress, Tracked};
use crate::handout::Share;
use crate::machine::{Orchestrator, Phase};
use spec::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use wire::limits::STEPS_MORE_MAX;
use wire::{Assignment, Message};

impl Orchestrator {
    /// Who could do a lost miner's work in the epoch: of its stage, there, and those in few lanes first.
    pub(crate) fn stand_ins(&self, gone: NodeId) -> Vec<NodeId> {
        let working = self.state.epoch.as_ref().filter(|_| self.state.phase == Phase::Working);
        let Some(epoch) = working.filter(|epoch| epoch.miners.contains_key(&gone)) else { return Vec::new() };
        let seats = &self.state.seats;
        let peers = epoch.miners.iter().filter(|(peer, _)| {
            **peer != gone && seats.stage_of(**peer) == seats.stage_of(gone) && !seats.is_lost(**peer)
        });
        let lanes = |peer: &NodeId| epoch.routes.iter().filter(|route| route.contains(peer)).count();
        let mut peers: Vec<_> = peers.map(|(peer, progress)| (lanes(peer), progress.lane, *peer)).collect();
        peers.sort_unstable();
        peers.into_iter().map(|(_, _, peer)| peer).collect()
    }

    /// Gives a lost miner's work to another of its stage, or, where there is no order of it that all could keep, what comes
    /// after it; `false` if there is no other.
    pub(crate) fn reissue(&mut self, gone: NodeId, why: &str) -> bool {
        let stand_ins = self.stand_ins(gone);
        let Some(stage) = self.state.seats.stage_of(gone) else { return false };
        let at = usize::from(stage);
        let steps_max = self.config.run.epoch.steps.saturating_add(STEPS_MORE_MAX);
        let Some(epoch) = &mut self.state.epoch else { return false };
        let moved = epoch.shares_of(gone, at);
        let has_room =
            |host: &&NodeId| epoch.miners.get(*host).is_some_and(|host| host.handed_out() < steps_max);
        let roomy: Vec<NodeId> = stand_ins.iter().filter(has_room).copied().collect();
        let host = roomy.iter().find(|host| epoch.can_be_done(&moved, **host));
        let Some(&to) = host.or(roomy.first()) else { return false };
        let (struck, moved) = if host.is_some() { (Vec::new(), moved) } else { (moved, Vec::new()) };
        if epoch.hides_beginnings(&struck, gone) {
            return false;
        }
        let folds = epoch.miners.remove(&gone).map_or(0, |progress| progress.folds);
        let again = epoch.hand_over(&moved, gone, to, at);
        let struck = epoch.strike(&struck);
        let folded = epoch.folded_of_struck(gone);
        // What is struck is lost, whoever had folded it.
        let lost = folds.saturating_sub(again + folded) + struck.len() as u64;
        let mut why = why.to_owned();
        if !struck.is_empty() {
            why += &format!("; {} microbatches in work are struck", struck.len());
        }
        let groups = epoch.groups();
        let host = epoch.miners.get(&to).map(|host| host.lane);
        let group = groups.into_iter().find(|group| host.is_some_and(|lane| group.contains(&lane)));
        let report = Report::Reissued {
            epoch: epoch.number,
            stage,
            from: gone,
            to,
            microbatches: moved.len() as u64,
            tokens: lost * self.config.run.microbatch_tokens(),
            why,
        };
        self.report(report);
        self.tell_neighbours();
        for assignment in struck {
            for slot in assignment.route.iter().filter(|slot| slot.miner != gone) {
                self.send(slot.miner, Message::Strike(assignment.clone()));
            }
        }
        if let Some(group) = group.filter(|_| !moved.is_empty()) {
            self.hand_out_round(&group, &moved);
        }
        self.progressed();
        self.report_steps();
        self.hand_out();
        true
    }
}

impl Epoch {
    /// What is not folded everywhere, and goes through this miner: in its order.
    fn shares_of(&self, miner: NodeId, stage: usize) -> Vec<Share> {
        let mine = |id: &u64| self.live.get(id).map(|tracked| tracked.assignment.route[stage]);
        let mut shares: Vec<_> = self
            .live
            .keys()
            .filter_map(|id| {
                mine(id).filter(|slot| slot.miner == miner).map(|slot| (slot.step, slot.position, *id))
            })
            .collect();
        shares.sort_unstable();
        shares.into_iter().map(|(_, _, id)| (id, stage)).collect()
    }

    /// Puts `to` into the place of `gone`; the answer is how many of the microbatches the lost one had folded.
    fn hand_over(&mut self, moved: &[Share], gone: NodeId, to: NodeId, stage: usize) -> u64 {
        (self.amended, self.groups) = (true, None);
        for route in self.routes.iter_mut().filter(|route| route[stage] == gone) {
            route[stage] = to;
        }
        let mut again = 0;
        for (id, stage) in moved {
            let Some(tracked) = self.live.get_mut(id) else { continue };
            again += u64::from(tracked.backward[*stage].is_some());
            let said = [tracked.forward[*stage].take(), tracked.backward[*stage].take()];
            tracked.former.extend(said.into_iter().flatten().map(|leg| (*stage, leg)));
            let slot = &mut tracked.assignment.route[*stage];
            slot.miner = to;
            slot.attempt = slot.attempt.saturating_add(1);
        }
        again
    }

    /// Nobody does the rest of these microbatches; the answer is where they stand.
    fn strike(&mut self, shares: &[Share]) -> Vec<Assignment> {
        let mut assignments = Vec::new();
        for (id, _) in shares {
            let Some(tracked) = self.live.remove(id) else { continue };
            assignments.push(tracked.assignment.clone());
            self.struck.insert(*id, tracked);
        }
        assignments
    }

    /// Whether striking these would leave somebody who has done nothing yet without a forward in its first step: its step would be its
    /// first receipt, and nothing would say in which state it began.
    fn hides_beginnings(&self, shares: &[Share], gone: NodeId) -> bool {
        let new = shares.iter().filter_map(|(id, _)| self.live.get(id));
        let struck: Vec<&Tracked> = new.chain(self.struck.values()).collect();
        let idle = self.miners.iter().filter(|(miner, of)| **miner != gone && of.receipts.is_empty());
        idle.into_iter().any(|(miner, progress)| {
            let slots = struck.iter().flat_map(|tracked| &tracked.assignment.route);
            let first = slots.filter(|slot| (slot.miner, slot.step) == (*miner, 0)).count();
            progress.sizes.first().is_some_and(|&size| first == usize::from(size))
        })
    }

    /// How many of the struck microbatches a miner had folded.
    fn folded_of_struck(&self, miner: NodeId) -> u64 {
        let shares =
            self.struck.values().flat_map(|tracked| tracked.assignment.route.iter().zip(&tracked.backward));
        shares.filter(|(slot, fold)| slot.miner == miner && fold.is_some()).count() as u64
    }

    /// Whether everything in work can still be folded if these shares come after all that was handed out to `to`. It can
    /// but where two lost miners' lanes would wait for one another. Whoever can do something does it sooner or later, so
    /// the answer does not depend on who is faster. Nobody runs ahead here, also where steps may be stale: a forward that is done
    /// early takes nothing from anybody, so what comes to an end without it does so with it.
    fn can_be_done(&self, moved: &[Share], to: NodeId) -> bool {
        let mut work = Work::default();
        let moved: BTreeMap<Share, u16> = moved.iter().copied().zip(0..).collect();
        let next = self.miners.get(&to).map_or(0, Progress::handed_out);
        for (&id, tracked) in &self.live {
            for (stage, slot) in tracked.assignment.route.iter().enumerate() {
                let share = (id, stage);
                match moved.get(&share) {
                    Some(&position) => work.add(share, to, (next, position), [false; 2]),
                    None => {
                        let done = [tracked.forward[stage].is_some(), tracked.backward[stage].is_some()];
                        work.add(share, slot.miner, (slot.step, slot.position), done);
                    }
                }
            }
        }
        work.comes_to_an_end()
    }
}

/// Step and position.
type Place = (u32, u16);

/// What is in work, played through without its numbers.
#[derive(Default)]
struct Work {
    /// Shares that are not folded: whose, and where in its steps.
    waiting: BTreeMap<Share, (NodeId, Place)>,
    /// The same by miner.
    due: BTreeMap<NodeId, BTreeSet<Place>>,
    forwarded: BTreeSet<Share>,
}

impl Work {
    fn add(&mut self, share: Share, miner: NodeId, at: Place, [forwarded, folded]: [bool; 2]) {
        if forwarded {
            self.forwarded.insert(share);
        }
        if !folded {
            self.waiting.insert(share, (miner, at));
            self.due.entry(miner).or_default().insert(at);
        }
    }

    fn comes_to_an_end(mut self) -> bool {
        loop {
            let shares: Vec<Share> = self.waiting.keys().copied().collect();
            // Forward goes up the stages, backward down.
            let there_and_back = shares.iter().chain(shares.iter().rev());
            if there_and_back.filter(|share| self.goes_on(**share)).count() == 0 {
                return shares.is_empty();
            }
        }
    }

    /// Does what can be done of a share; `false` if nothing can.
    fn goes_on(&mut self, share: Share) -> bool {
        let (id, stage) = share;
        let Some(&(miner, at)) = self.waiting.get(&share) else { return false };
        let Some(due) = self.due.get_mut(&miner) else { return false };
        let Some(&first) = due.first() else { return false };
        if !self.forwarded.contains(&share) {
            let has_input = stage == 0 || self.forwarded.contains(&(id, stage - 1));
            return first.0 == at.0 && has_input && self.forwarded.insert(share);
        }
        let folds = first == at && !self.waiting.contains_key(&(id, stage + 1));
        if folds {
            due.remove(&at);
            self.waiting.remove(&share);
        }
        folds
    }
}
