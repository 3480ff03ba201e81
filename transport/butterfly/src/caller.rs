//! The orchestrator's half: when the pairs are drawn, and whose contributions count.

use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use wire::merge::Seat;
use wire::{Call, Machine, Round};

/// Calls the rounds of one merge.
///
/// It alone decides who is lost, and tells every member; so what a member lacks because its sender is lost,
/// nobody adds up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    secret: [u8; 32],
    members: BTreeSet<NodeId>,
    roots: BTreeMap<NodeId, Digest>,
    holding: BTreeSet<(Round, NodeId)>,
    lost: BTreeSet<NodeId>,
    scaled: bool,
    drawn: bool,
    closed: bool,
}

/// What the caller hears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Heard {
    /// A member committed to its contribution.
    Committed {
        /// Who.
        from: NodeId,
        /// To what.
        root: Digest,
    },
    /// A member holds what a round is about from everybody who is not lost.
    Holding {
        /// Who.
        from: NodeId,
        /// Which round.
        round: Round,
    },
    /// A member is gone, or its time is up. There is no way back into this merge.
    Lost(NodeId),
}

impl Caller {
    /// A merge of the given members, by key. `secret` is what the orchestrator committed to before.
    pub fn new(secret: [u8; 32], members: BTreeSet<NodeId>) -> Self {
        Self {
            secret,
            members,
            roots: BTreeMap::new(),
            holding: BTreeSet::new(),
            lost: BTreeSet::new(),
            scaled: false,
            drawn: false,
            closed: false,
        }
    }

    fn seats(&self) -> Vec<Seat> {
        self.roots.iter().map(|(&node, &root)| Seat { node, root }).collect()
    }
}

impl Machine for Caller {
    type Event = Heard;
    type Effect = Call;

    fn handle(&mut self, _now_ms: u64, event: Heard) -> Vec<Call> {
        let mut calls = Vec::new();
        match event {
            Heard::Committed { from, root } => {
                let expected =
                    self.scaled && !self.drawn && self.members.contains(&from) && !self.lost.contains(&from);
                if expected {
                    self.roots.entry(from).or_insert(root);
                }
            }
            Heard::Holding { from, round } => {
                self.holding.insert((round, from));
            }
            Heard::Lost(node) => {
                if self.members.contains(&node) && self.lost.insert(node) {
                    if !self.drawn {
                        self.roots.remove(&node);
                    }
                    calls.push(Call::Lost(node));
                    if self.lost.len() == self.members.len() {
                        calls.push(Call::Abandoned);
                        return calls;
                    }
                }
            }
        }
        let lives = |node: &&NodeId| !self.lost.contains(*node);
        let hold = |round, node: &NodeId| self.holding.contains(&(round, *node));
        if !self.scaled && self.members.iter().filter(lives).all(|node| hold(Round::Scales, node)) {
            self.scaled = true;
            calls.push(Call::Scaled { members: self.members.iter().filter(lives).copied().collect() });
        }
        if !self.drawn && self.members.iter().filter(lives).all(|node| self.roots.contains_key(node)) {
            self.drawn = true;
            calls.push(Call::Drawn { secret: self.secret, seats: self.seats() });
        }
        if self.drawn && !self.closed && self.roots.keys().filter(lives).all(|node| hold(Round::Pieces, node))
        {
            self.closed = true;
            calls.push(Call::Closed { contributors: self.roots.keys().filter(lives).copied().collect() });
        }
        calls
    }
}
