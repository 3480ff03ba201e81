//! Who is in, at which stage, and since when it is gone.

use crate::effect::{Effect, Report};
use crate::lingering::LINGERS_MAX;
use crate::machine::{Orchestrator, Phase, shorten};
use serde::{Deserialize, Serialize};
use spec::{Admission, Digest, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use wire::{Chain, Hello, Message, Refusal, Role, Terms, Welcome};

/// Since when a connection is gone, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lost {
    pub since_ms: u64,
    pub why: String,
    /// Whether the orchestrator itself was away, and everybody's connection with it.
    pub with_all: bool,
}

/// One miner's place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seat {
    pub miner: NodeId,
    pub stage: u16,
    pub lane: u16,
    /// Set while the connection is gone.
    pub lost: Option<Lost>,
    /// Set once the others go on without it, until it is ready again.
    pub away: bool,
    /// The epoch whose weights it holds.
    pub ready: Option<u32>,
    /// How often it was told to adopt since it was started: what it says of being ready must answer the last.
    pub turn: u32,
    /// The end of its chain of receipts, over the run.
    pub chain: Chain,
    /// Whether it weighs nothing in merges, until a window of it was found equal.
    pub on_probation: bool,
    /// In how many epochs it had all it needed and did nothing.
    pub lingers: u8,
}

/// Every place, taken or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seats {
    /// Taken places, by stage and lane.
    stages: Vec<Vec<Option<NodeId>>>,
    miners: BTreeMap<NodeId, Seat>,
    validators: BTreeMap<NodeId, Option<Lost>>,
    /// Ends of the chains of miners whose seat went to another: whoever comes again goes on from there.
    former: BTreeMap<NodeId, Chain>,
    /// Those of either whose connection is gone: looked at after every event, and few.
    gone: BTreeSet<NodeId>,
}

impl Seats {
    pub fn new(stages: usize, lanes: u16) -> Self {
        let stages = vec![vec![None; usize::from(lanes)]; stages];
        let (miners, validators) = (BTreeMap::new(), BTreeMap::new());
        Self { stages, miners, validators, former: BTreeMap::new(), gone: BTreeSet::new() }
    }

    pub fn knows(&self, node: NodeId) -> bool {
        self.miners.contains_key(&node) || self.validators.contains_key(&node)
    }

    pub fn is_validator(&self, node: NodeId) -> bool {
        self.validators.contains_key(&node)
    }

    pub fn stage_of(&self, node: NodeId) -> Option<u16> {
        self.miners.get(&node).map(|seat| seat.stage)
    }

    pub fn seat(&self, miner: NodeId) -> Option<&Seat> {
        self.miners.get(&miner)
    }

    pub fn seat_mut(&mut self, miner: NodeId) -> Option<&mut Seat> {
        self.miners.get_mut(&miner)
    }

    /// Seated miners, in key order.
    pub fn miners(&self) -> impl Iterator<Item = &Seat> {
        self.miners.values()
    }

    /// Seated miners of a stage, in lane order.
    pub fn miners_of(&self, stage: usize) -> impl Iterator<Item = NodeId> {
        self.stages.get(stage).into_iter().flatten().flatten().copied()
    }

    /// As many routes as the stages have ready miners for, each head first.
    pub fn routes(&self, due: u32) -> Vec<Vec<NodeId>> {
        let ready = |stage| -> Vec<NodeId> {
            let ready = |miner: &NodeId| {
                self.seat(*miner).is_some_and(|seat| seat.lost.is_none() && seat.ready == Some(due))
            };
            let (quick, slow): (Vec<_>, Vec<_>) = self
                .miners_of(stage)
                .filter(ready)
                .partition(|miner| self.seat(*miner).is_some_and(|seat| seat.lingers < LINGERS_MAX));
            if quick.is_empty() { slow } else { quick }
        };
        let stages: Vec<Vec<NodeId>> = (0..self.stages.len()).map(ready).collect();
        let lanes = stages.iter().map(Vec::len).min().unwrap_or_default();
        (0..lanes).map(|lane| stages.iter().map(|miners| miners[lane]).collect()).collect()
    }

    pub fn lanes(&self) -> usize {
        self.stages.first().map_or(0, Vec::len)
    }

    /// Validators whose connection is up, in key order.
    pub fn validators_present(&self) -> impl Iterator<Item = NodeId> {
        self.validators.iter().filter(|(_, lost)| lost.is_none()).map(|(node, _)| *node)
    }

    /// Everyone whose connection is up.
    pub fn connected(&self) -> Vec<NodeId> {
        let miners = self.miners.values().filter(|seat| seat.lost.is_none()).map(|seat| seat.miner);
        miners.chain(self.validators_present()).collect()
    }

    /// Everyone whose connection is gone.
    pub fn lost(&self) -> impl Iterator<Item = (NodeId, &Lost)> {
        self.gone.iter().filter_map(|node| {
            let validator = || self.validators.get(node).and_then(Option::as_ref);
            Some((*node, self.seat(*node).map_or_else(validator, |seat| seat.lost.as_ref())?))
        })
    }

    /// Whether a node has a seat but no connection.
    pub fn is_lost(&self, node: NodeId) -> bool {
        let validator = self.validators.get(&node).is_some_and(Option::is_some);
        validator || self.seat(node).is_some_and(|seat| seat.lost.is_some())
    }

    /// The lowest stage among those with the fewest miners, if it has a free lane.
    fn free(&self) -> Option<(usize, usize)> {
        let taken = |lanes: &Vec<Option<NodeId>>| lanes.iter().flatten().count();
        let (stage, lanes) = self.stages.iter().enumerate().min_by_key(|(_, lanes)| taken(lanes))?;
        Some((stage, lanes.iter().position(Option::is_none)?))
    }

    fn seat_miner(&mut self, miner: NodeId, on_probation: bool) -> Option<u16> {
        let (stage, lane) = self.free()?;
        self.stages[stage][lane] = Some(miner);
        let (stage, lane) = (u16::try_from(stage).ok()?, u16::try_from(lane).ok()?);
        let chain = self.former.remove(&miner).unwrap_or_default();
        self.miners.insert(
            miner,
            Seat {
                miner,
                stage,
                lane,
                lost: None,
                away: false,
                ready: None,
                turn: 0,
                chain,
                on_probation,
                lingers: 0,
            },
        );
        Some(stage)
    }

    /// Goes on without a lost miner, if its stage has others that are not lost; `false` if it has none, or it
    /// is so already.
    pub fn give_up(&mut self, miner: NodeId) -> bool {
        let Some(stage) = self.stage_of(miner) else { return false };
        let others = self.miners().any(|seat| seat.stage == stage && seat.lost.is_none());
        match self.miners.get_mut(&miner) {
            Some(seat) if others && seat.lost.is_some() && !seat.away => {
                seat.away = true;
                seat.ready = None;
                true
            }
            _ => false,
        }
    }

    /// Who takes a seat while the others work is waited for only if its stage has nobody else.
    fn is_late(&mut self, miner: NodeId) {
        let stage = self.stage_of(miner);
        let others = self.miners.values().any(|seat| Some(seat.stage) == stage && seat.miner != miner);
        if let Some(seat) = self.miners.get_mut(&miner) {
            seat.away = others;
        }
    }

    /// Nobody stands where an epoch begins.
    pub fn none_is_ready(&mut self) {
        for seat in self.miners.values_mut() {
            seat.ready = None;
        }
    }

    pub fn vacate(&mut self, node: NodeId) {
        self.validators.remove(&node);
        self.gone.remove(&node);
        if let Some(seat) = self.miners.remove(&node) {
            self.stages[usize::from(seat.stage)][usize::from(seat.lane)] = None;
        }
    }

    /// A lost miner is waited for no longer.
    pub fn evict(&mut self, miner: NodeId) {
        if let Some(seat) = self.miners.get(&miner) {
            self.former.insert(miner, seat.chain.broken());
            self.vacate(miner);
        }
    }

    /// A miner takes a free lane of another stage; it stays where it is if there is none.
    pub fn reseat(&mut self, miner: NodeId, stage: u16) {
        let Some(seat) = self.miners.get_mut(&miner) else { return };
        let free =
            self.stages.get(usize::from(stage)).and_then(|lanes| lanes.iter().position(Option::is_none));
        if let Some(lane) = free {
            self.stages[usize::from(seat.stage)][usize::from(seat.lane)] = None;
            self.stages[usize::from(stage)][lane] = Some(miner);
            (seat.stage, seat.lane) = (stage, u16::try_from(lane).unwrap_or(u16::MAX));
            (seat.ready, seat.lingers) = (None, 0);
        }
    }

    /// Marks a connection as gone or back; `false` if that was known or the node is not.
    pub fn mark(&mut self, node: NodeId, lost: Option<Lost>) -> bool {
        let marked = match self.miners.get_mut(&node) {
            Some(seat) => Some(&mut seat.lost),
            None => self.validators.get_mut(&node),
        };
        match marked {
            Some(mark) if mark.is_some() != lost.is_some() => {
                if lost.is_some() {
                    self.gone.insert(node);
                } else {
                    self.gone.remove(&node);
                }
                *mark = lost;
                true
            }
            _ => false,
        }
    }
}

impl Orchestrator {
    /// Lets a node in, or says why not; `unix_s` is the time of day.
    pub(crate) fn admit(&mut self, node: NodeId, hello: &Hello, unix_s: u64) {
        if let Err(refusal) = self.may_enter(node, hello, unix_s) {
            let why = refusal.to_string();
            self.send(node, Message::Refused(refusal));
            self.report(Report::Gone { node, why: why.clone() });
            return self.emit(Effect::Disconnect { peer: node, why });
        }
        let known = self.state.seats.knows(node);
        match hello.role {
            _ if known => {
                self.state.seats.mark(node, None);
            }
            Role::Miner => {
                let on_probation = self.is_unproven(node, hello, unix_s);
                self.state.seats.seat_miner(node, on_probation);
                if on_probation {
                    let text = format!(
                        "{} is on probation: it weighs nothing in merges until a window of it is found equal",
                        self.name(node)
                    );
                    self.report(Report::Note { text });
                }
                if !matches!(self.state.phase, Phase::Idle | Phase::Gathering { .. }) {
                    self.state.seats.is_late(node);
                }
                self.watch_vacancies();
            }
            Role::Validator => {
                self.state.seats.validators.insert(node, None);
            }
        }
        let stage = self.state.seats.stage_of(node);
        if known
            && !hello.resumes
            && let Some(seat) = self.state.seats.seat_mut(node)
        {
            (seat.chain, seat.lingers) = (seat.chain.broken(), 0);
        }
        let chain = self.state.seats.seat(node).map(|seat| seat.chain).unwrap_or_default();
        let (run, manifest) = (self.config.run.clone(), self.state.manifest.clone());
        self.send(node, Message::Welcome(Welcome { run, stage, manifest, chain }));
        self.report(Report::Joined { node, role: hello.role, stage });
        match stage {
            Some(_) if known && hello.resumes => self.catch_up(node),
            Some(_) if known => self.begins_anew(node),
            _ => {}
        }
        // Windows may wait for a validator.
        self.order_audits();
        self.order_sums();
    }

    fn may_enter(&self, node: NodeId, hello: &Hello, unix_s: u64) -> Result<(), Refusal> {
        if let Some(evidence) = self.state.consequences.banned.get(&node) {
            return Err(Refusal::Banned { evidence: evidence.clone() });
        }
        match &self.config.run.admission {
            Admission::Invitation => self.is_invited(node, hello, unix_s)?,
            Admission::Keys(keys) if !keys.contains(&node) => return Err(Refusal::Key),
            Admission::Keys(_) | Admission::Open { .. } => {}
        }
        let seats = &self.state.seats;
        let free = match hello.role {
            Role::Miner if seats.is_validator(node) => false,
            Role::Miner => seats.stage_of(node).is_some() || seats.free().is_some(),
            Role::Validator if seats.stage_of(node).is_some() => false,
            Role::Validator => {
                seats.is_validator(node) || seats.validators.len() < usize::from(self.config.validators)
            }
        };
        if free { Ok(()) } else { Err(Refusal::Full) }
    }

    /// Whether nobody answers for a newcomer: neither the run's file nor an invitation, nor a window found equal.
    fn is_unproven(&self, node: NodeId, hello: &Hello, unix_s: u64) -> bool {
        let Admission::Open { founders } = &self.config.run.admission else { return false };
        let vouched = founders.contains(&node) || self.is_invited(node, hello, unix_s).is_ok();
        !vouched && !self.state.consequences.proven.contains(&node)
    }

    /// Whether the token that a node brings lets it in.
    fn is_invited(&self, node: NodeId, hello: &Hello, unix_s: u64) -> Result<(), Refusal> {
        // Digests are compared so that the time it takes says nothing about the token.
        if Digest::of(&hello.token) == Digest::of(&self.config.token) {
            return Ok(());
        }
        let terms = Terms::read(&self.config.secret, &self.run_id, &hello.token).ok_or(Refusal::Token)?;
        if let Some(role) = terms.role.filter(|role| *role != hello.role) {
            return Err(Refusal::OtherRole(role));
        }
        // Who has a seat keeps it.
        let expired = terms.expires_s.is_some_and(|at_s| unix_s >= at_s);
        if expired && !self.state.seats.knows(node) { Err(Refusal::Expired) } else { Ok(()) }
    }

    pub(crate) fn ready(&mut self, miner: NodeId, epoch: u32, turn: u32) {
        if self.state.seats.seat(miner).is_some_and(|seat| seat.turn != turn) {
            // Said before it heard that it is to stand elsewhere, or there again.
            return;
        }
        let due = self.state.manifest.body.epoch;
        if epoch != due {
            let text = format!("is ready for epoch {epoch}, the next to open is {due}; ignored");
            return self.note(miner, "ready", &text);
        }
        if let Some(seat) = self.state.seats.seat_mut(miner) {
            seat.ready = Some(epoch);
            seat.away = false;
        }
    }

    /// A connection is gone. Before the first epoch its seat is free at once; later it is kept for a while.
    pub(crate) fn lose(&mut self, node: NodeId, why: &str) {
        let why = shorten(why);
        if !self
            .state
            .seats
            .mark(node, Some(Lost { since_ms: self.now_ms, why: why.clone(), with_all: false }))
        {
            return;
        }
        self.report(Report::Gone { node, why });
        self.orphan_audits(node);
        if matches!(self.state.phase, Phase::Idle | Phase::Gathering { .. }) {
            self.state.seats.vacate(node);
        }
    }

    /// Closes the connection of a node that lied or spoke another protocol.
    pub(crate) fn turn_away(&mut self, node: NodeId, why: &str) {
        self.emit(Effect::Disconnect { peer: node, why: format!("{} {why}", self.name(node)) });
        self.lose(node, &format!("it {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lingered_twice_gets_a_lane_only_where_nobody_else_is_ready() {
        let mut seats = Seats::new(1, 2);
        let [quick, slow] = [1, 2].map(|name| NodeId([name; 32]));
        for miner in [quick, slow] {
            seats.seat_miner(miner, false);
            seats.seat_mut(miner).unwrap().ready = Some(3);
        }
        seats.seat_mut(slow).unwrap().lingers = LINGERS_MAX - 1;
        assert_eq!(seats.routes(3), [[quick], [slow]]);
        seats.seat_mut(slow).unwrap().lingers = LINGERS_MAX;
        assert_eq!(seats.routes(3), [[quick]]);
        seats.seat_mut(quick).unwrap().ready = None;
        assert_eq!(seats.routes(3), [[slow]]);
    }
}
