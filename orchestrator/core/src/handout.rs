//! Handing out inner steps: which microbatches a miner's next step is made of.
//!
//! Whatever is handed out is appended at every miner of its route. So there is one order of all microbatches in which every
//! miner's steps and positions stand, and no two miners wait for one another: of what is not folded everywhere,
//! the first is due wherever it is not folded. Only what is moved to another miner could break that, see
//! [`reissue`](crate::reissue).

use crate::epoch::{Epoch, Tracked};
use crate::machine::Orchestrator;
use spec::NodeId;
use std::collections::BTreeMap;
use wire::{Assignment, Message, Slot};

/// A microbatch at a stage.
pub(crate) type Share = (u64, usize);

/// Inner steps that are put together, by miner. One with a number holds microbatches of the miner's own lane.
#[derive(Debug, Default)]
struct Steps(BTreeMap<NodeId, Vec<Step>>);

/// An inner step: its number in the miner's own lane, if it holds something of that, and what it is made of.
type Step = (Option<u32>, Vec<Share>);

impl Steps {
    /// Appends a share; `own` is the step where it is of the miner's own lane. What is not goes into the step before,
    /// or the first one to come.
    fn append(&mut self, miner: NodeId, share: Share, own: Option<u32>) {
        let steps = self.0.entry(miner).or_default();
        match steps.last_mut() {
            Some((step, shares)) if own.is_none() || step.is_none() || *step == own => {
                *step = step.or(own);
                shares.push(share);
            }
            _ => steps.push((own, vec![share])),
        }
    }
}

impl Orchestrator {
    /// Hands out steps to every lane that has room ahead.
    pub(crate) fn hand_out(&mut self) {
        let groups = self.state.epoch.as_ref().map(Epoch::groups).unwrap_or_default();
        self.hand_out_in(groups);
    }

    /// The same after a step of this miner, which makes room in its own lane and those that share a miner with it.
    pub(crate) fn hand_out_to(&mut self, miner: NodeId) {
        let epoch = self.state.epoch.as_mut();
        match epoch.and_then(|epoch| Some(epoch.group_of(epoch.miners.get(&miner)?.lane))) {
            Some(group) => self.hand_out_in(vec![group]),
            None => self.hand_out(),
        }
    }

    fn hand_out_in(&mut self, groups: Vec<Vec<usize>>) {
        if self.state.inquiry.is_some() {
            return;
        }
        let steps_ahead = self.config.run.steps_ahead();
        for group in groups {
            while self.state.epoch.as_ref().is_some_and(|epoch| epoch.has_room(&group, steps_ahead)) {
                self.hand_out_round(&group, &[]);
            }
        }
    }

    /// Hands out the next step of each of these lanes. `moved` come first: shares of a lost miner, in their order, for
    /// which the routes name another miner by now.
    pub(crate) fn hand_out_round(&mut self, group: &[usize], moved: &[Share]) {
        let members = self.config.run.inner.members;
        let Some(epoch) = &mut self.state.epoch else { return };
        let lanes = epoch.routes.len() as u64;
        let settled = epoch.settled(group);
        let mut steps = Steps::default();
        for &(id, stage) in moved {
            if let Some(tracked) = epoch.live.get(&id) {
                steps.append(tracked.assignment.route[stage].miner, (id, stage), None);
            }
        }
        let mut assigned = Vec::new();
        for (lane, step) in epoch.round(group) {
            for position in 0..members {
                // Microbatches go round the lanes, so that none is left out and none is given twice.
                let turn = u64::from(step) * u64::from(members) + u64::from(position);
                let id = self.state.next_assignment;
                self.state.next_assignment += 1;
                let mut route = Vec::new();
                for (stage, &miner) in epoch.routes[lane].iter().enumerate() {
                    steps.append(miner, (id, stage), epoch.is_of(miner, lane).then_some(step));
                    route.push(Slot { miner, step, position, members, attempt: 0, settled: 0 });
                }
                let microbatch = turn * lanes + lane as u64;
                let assignment = Assignment { id, epoch: epoch.number, microbatch, route };
                epoch.live.insert(id, Tracked::new(assignment));
                assigned.push(id);
            }
        }
        epoch.place(steps, &settled);
        let assignment = |id: &u64| Some(epoch.live.get(id)?.assignment.clone());
        let amended = moved.iter().filter_map(|(id, _)| assignment(id)).map(Message::Amend);
        let messages: Vec<Message> =
            amended.chain(assigned.iter().filter_map(assignment).map(Message::Assign)).collect();
        for message in messages {
            let (Message::Assign(assignment) | Message::Amend(assignment)) = &message else { continue };
            for slot in assignment.route.clone() {
                self.send(slot.miner, message.clone());
            }
        }
    }
}

impl Epoch {
    /// Lanes that share a miner, directly or by others; each lane alone where nobody was lost.
    pub fn groups(&self) -> Vec<Vec<usize>> {
        let lanes = self.routes.len();
        if !self.amended {
            return (0..lanes).map(|lane| vec![lane]).collect();
        }
        let mut group_of: Vec<usize> = (0..lanes).collect();
        for (lane, route) in self.routes.iter().enumerate() {
            for host in route.iter().filter_map(|miner| self.miners.get(miner)) {
                let (from, to) = (group_of[lane], group_of[host.lane]);
                // Nearly everybody works in its own lane, and all lanes are gone through to join two.
                if from != to {
                    group_of.iter_mut().filter(|group| **group == from).for_each(|group| *group = to);
                }
            }
        }
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (lane, group) in group_of.into_iter().enumerate() {
            groups.entry(group).or_default().push(lane);
        }
        groups.into_values().collect()
    }

    /// The lanes among which this one is in [`groups`](Self::groups).
    fn group_of(&mut self, lane: usize) -> Vec<usize> {
        if !self.amended {
            return vec![lane];
        }
        let groups = self.groups.take().unwrap_or_else(|| self.groups());
        let group = groups.iter().find(|group| group.contains(&lane)).cloned();
        self.groups = Some(groups);
        group.unwrap_or_default()
    }

    /// Whether all steps of a lane are handed out.
    fn is_handed_out(&self, lane: usize) -> bool {
        self.handed_out[lane] >= self.limit_of(lane)
    }

    /// Whether something is left to hand out, and every miner of these lanes has room ahead.
    fn has_room(&self, group: &[usize], steps_ahead: u32) -> bool {
        let has_room = |progress: &crate::epoch::Progress| {
            progress.handed_out() < progress.steps.saturating_add(steps_ahead)
        };
        group.iter().any(|&lane| !self.is_handed_out(lane))
            && group
                .iter()
                .flat_map(|&lane| &self.routes[lane])
                .filter_map(|miner| self.miners.get(miner))
                .all(has_room)
    }

    /// Steps of the lanes to hand out next, in order: one of each. When a miner's own lane ends, the rest of the lanes in
    /// which it stands in for another goes along.
    fn round(&mut self, group: &[usize]) -> Vec<(usize, u32)> {
        let mut round = Vec::new();
        for &lane in group.iter().filter(|&&lane| !self.is_handed_out(lane)) {
            round.push((lane, self.handed_out[lane]));
        }
        for &(lane, _) in &round {
            self.handed_out[lane] += 1;
        }
        let behind = |epoch: &Self| {
            group.iter().copied().find(|&lane| !epoch.is_handed_out(lane) && epoch.host_ends(lane))
        };
        while let Some(lane) = behind(self) {
            round.push((lane, self.handed_out[lane]));
            self.handed_out[lane] += 1;
        }
        round
    }

    /// Whether some miner of the lane is of another one, all of whose steps are handed out.
    fn host_ends(&self, lane: usize) -> bool {
        let mut hosts = self.routes[lane].iter().filter_map(|miner| self.miners.get(miner));
        hosts.any(|host| host.lane != lane && self.is_handed_out(host.lane))
    }

    fn is_of(&self, miner: NodeId, lane: usize) -> bool {
        self.miners.get(&miner).is_some_and(|progress| progress.lane == lane)
    }

    /// By miner of these lanes: the first of its inner steps of which something is not folded everywhere.
    fn settled(&self, group: &[usize]) -> BTreeMap<NodeId, u32> {
        let miners = group.iter().flat_map(|&lane| &self.routes[lane]);
        let mut settled: BTreeMap<NodeId, u32> =
            miners.filter_map(|miner| Some((*miner, self.miners.get(miner)?.handed_out()))).collect();
        for slot in self.live.values().flat_map(|tracked| &tracked.assignment.route) {
            if let Some(first) = settled.get_mut(&slot.miner) {
                *first = slot.step.min(*first);
            }
        }
        settled
    }

    /// Says in the slot of every share where it stands in its miner's steps. Where a miner's own lane has ended, what it
    /// is given makes a step more.
    fn place(&mut self, steps: Steps, settled: &BTreeMap<NodeId, u32>) {
        for (miner, steps) in steps.0 {
            let Some(progress) = self.miners.get_mut(&miner) else { continue };
            let settled = settled.get(&miner).copied().unwrap_or_default();
            for (_, shares) in steps {
                let step = progress.handed_out();
                let members = u16::try_from(shares.len()).unwrap_or(u16::MAX);
                progress.sizes.push(members);
                for (position, (id, stage)) in (0..).zip(shares) {
                    if let Some(tracked) = self.live.get_mut(&id) {
                        let slot = &mut tracked.assignment.route[stage];
                        *slot = Slot { step, position, members, settled, ..*slot };
                    }
                }
            }
        }
    }
}
