//! A member's half of the merge.

use crate::partition::{Cut, Shard, blocks, draw};
use serde::{Deserialize, Serialize};
use spec::{Digest, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use wire::merge::Seat;
use wire::{Call, Machine, Round};

/// One member of one merge. Messages may come in any order; each round waits for what it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Butterfly {
    me: NodeId,
    members: BTreeSet<NodeId>,
    blocks: u64,
    cut: Cut,
    /// Members whose scales are here, mine included.
    scales: BTreeSet<NodeId>,
    scaled: Option<Vec<NodeId>>,
    root: Option<Digest>,
    seats: Option<Vec<Seat>>,
    shards: Vec<Shard>,
    contributors: Option<Vec<NodeId>>,
    lost: BTreeSet<NodeId>,
    /// Sender and shard of the pieces that arrived and opened.
    pieces: BTreeSet<(NodeId, u32)>,
    /// Each owner's word on the sum of a shard, mine included.
    words: BTreeMap<(u32, NodeId), Digest>,
    /// Sums whose bytes are here, by who sent them (or I, who added them up).
    sums: BTreeMap<(u32, NodeId), Digest>,
    settled: BTreeMap<u32, Digest>,
    accepted: BTreeMap<u32, Digest>,
    /// What was emitted, so that it is emitted once.
    done: BTreeSet<Done>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Done {
    Begin,
    Scales,
    Encode,
    Pieces,
    Holding(Round),
    Reduce(u32),
    Announce(u32),
    SendSum(u32, NodeId),
    Disagree(u32),
    Orphaned(u32),
    Apply,
}

/// What can happen to a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The merge begins.
    Began,
    /// My scales are known.
    Scaled,
    /// A member's scales arrived.
    Scales {
        /// Whose.
        from: NodeId,
    },
    /// My contribution is encoded.
    Encoded {
        /// Root of the tree over it.
        root: Digest,
    },
    /// The caller says how far the merge has come.
    Called(Call),
    /// A piece of a contribution arrived.
    Piece {
        /// Whose.
        from: NodeId,
        /// Of which shard.
        shard: u32,
        /// Whether it opens against the sender's root.
        opens: bool,
    },
    /// A reduction that I was asked for is done.
    Reduced {
        /// Which shard.
        shard: u32,
        /// Digest of the sum.
        sum: Digest,
    },
    /// A sum arrived.
    Sum {
        /// From whom.
        from: NodeId,
        /// Which shard.
        shard: u32,
        /// Digest of the bytes as they arrived.
        sum: Digest,
    },
}

/// What a member wants done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Find my scales; answered by [`Event::Scaled`].
    Scale,
    /// Send my scales.
    SendScales {
        /// To whom.
        to: NodeId,
    },
    /// Encode my contribution; answered by [`Event::Encoded`].
    Encode {
        /// On the largest of these members' scales, in key order; on my own where there is none.
        members: Vec<NodeId>,
    },
    /// Tell the caller what I commit to.
    Commit {
        /// Root of the tree over my contribution.
        root: Digest,
    },
    /// Send a piece of my contribution.
    SendPiece {
        /// To an owner.
        to: NodeId,
        /// Of which shard.
        shard: u32,
        /// The shard's blocks.
        blocks: Range<u64>,
    },
    /// Tell the caller what I hold from everybody who is not lost.
    Holding(Round),
    /// Add up the pieces of a shard; answered by [`Event::Reduced`].
    Reduce {
        /// Which shard.
        shard: u32,
        /// The shard's blocks.
        blocks: Range<u64>,
        /// Whose pieces, in key order.
        contributors: Vec<NodeId>,
    },
    /// Tell the caller, and by it every member, what my sum of a shard is.
    Announce {
        /// Which shard.
        shard: u32,
        /// Digest of the sum.
        sum: Digest,
    },
    /// Send a sum.
    SendSum {
        /// To whom.
        to: NodeId,
        /// Of which shard.
        shard: u32,
        /// The shard's blocks.
        blocks: Range<u64>,
    },
    /// Take the outer step with these sums. Once.
    Apply {
        /// Digest of every shard's sum, by its index.
        sums: Vec<Digest>,
    },
    /// The two owners of a shard say different things: one of them lies, and a third party must add up.
    Disagree {
        /// Which shard.
        shard: u32,
        /// The owners.
        owners: [NodeId; 2],
        /// Their words, in the same order.
        sums: [Digest; 2],
    },
    /// A member sent a piece that does not open against what it committed to.
    Accuse {
        /// Who.
        node: NodeId,
        /// Of which shard.
        shard: u32,
    },
    /// Every owner of a shard is lost before its sum reached me: the merge cannot be finished.
    Orphaned {
        /// Which shard.
        shard: u32,
    },
    /// The draw does not name me: the others go on without me.
    Excluded,
}

impl Butterfly {
    /// A merge of a stage of `parameters` parameters among `members`, `me` included.
    pub fn new(me: NodeId, members: &[NodeId], parameters: u64, cut: Cut) -> Self {
        Self {
            me,
            members: members.iter().copied().chain([me]).collect(),
            blocks: blocks(parameters),
            cut,
            scales: BTreeSet::new(),
            scaled: None,
            root: None,
            seats: None,
            shards: Vec::new(),
            contributors: None,
            lost: BTreeSet::new(),
            pieces: BTreeSet::new(),
            words: BTreeMap::new(),
            sums: BTreeMap::new(),
            settled: BTreeMap::new(),
            accepted: BTreeMap::new(),
            done: BTreeSet::new(),
        }
    }

    /// The shards, once drawn.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    fn began(&mut self, effects: &mut Vec<Effect>) {
        if !self.done.insert(Done::Begin) {
            return;
        }
        if self.members.len() > 1 {
            effects.push(Effect::Scale);
        } else if self.done.insert(Done::Encode) {
            effects.push(Effect::Encode { members: Vec::new() });
        }
    }

    fn called(&mut self, call: Call, effects: &mut Vec<Effect>) {
        match call {
            Call::Scaled { members } => {
                self.scaled.get_or_insert(members);
            }
            Call::Drawn { secret, seats } => self.draw(secret, seats, effects),
            Call::Closed { contributors } => {
                self.contributors.get_or_insert(contributors);
            }
            Call::Announced { from, shard, sum } if self.expects(from, shard) && from != self.me => {
                self.words.entry((shard, from)).or_insert(sum);
            }
            Call::Lost(node) => {
                self.lost.insert(node);
            }
            Call::Settled { shard, sum } if (shard as usize) < self.shards.len() => {
                self.settled.entry(shard).or_insert(sum);
            }
            Call::Announced { .. } | Call::Settled { .. } | Call::Abandoned => {}
        }
    }

    /// The first round: my scales to everyone, everyone's here, then the codes.
    fn scale(&mut self, effects: &mut Vec<Effect>) {
        let me = self.me;
        let mut others = self.members.iter().filter(|&&node| node != me && !self.lost.contains(&node));
        if self.scales.contains(&me) && self.done.insert(Done::Scales) {
            effects.extend(others.clone().map(|&to| Effect::SendScales { to }));
        }
        let complete = self.scales.contains(&me) && others.all(|node| self.scales.contains(node));
        if complete && self.done.insert(Done::Holding(Round::Scales)) {
            effects.push(Effect::Holding(Round::Scales));
        }
        if let Some(members) = &self.scaled {
            if !members.contains(&me) {
                if self.done.insert(Done::Encode) {
                    effects.push(Effect::Excluded);
                }
            } else if members.iter().all(|node| self.scales.contains(node)) && self.done.insert(Done::Encode)
            {
                effects.push(Effect::Encode { members: members.clone() });
            }
        }
    }

    fn encoded(&mut self, root: Digest, effects: &mut Vec<Effect>) {
        if self.root.is_some() {
            return;
        }
        self.root = Some(root);
        if self.members.len() > 1 {
            effects.push(Effect::Commit { root });
            return;
        }
        // Alone there is nobody to surprise: no draw, no traffic.
        self.draw([0; 32], vec![Seat { node: self.me, root }], effects);
        self.contributors = Some(vec![self.me]);
    }

    fn draw(&mut self, secret: [u8; 32], seats: Vec<Seat>, effects: &mut Vec<Effect>) {
        if self.seats.is_some() {
            return;
        }
        if !seats.iter().any(|seat| seat.node == self.me) {
            effects.push(Effect::Excluded);
            return;
        }
        self.shards = draw(self.blocks, &secret, &seats, self.cut);
        self.seats = Some(seats);
    }

    /// Whether a message can belong to this merge; also what bounds the memory that early messages take.
    fn expects(&self, from: NodeId, shard: u32) -> bool {
        self.members.contains(&from)
            && u64::from(shard) < self.cut.shards_max(self.blocks, self.members.len())
    }

    /// Does everything that what is known by now allows.
    fn advance(&mut self, effects: &mut Vec<Effect>) {
        self.scale(effects);
        let Some(seats) = self.seats.clone() else { return };
        for shard in self.shards.clone() {
            self.scatter(&shard, effects);
        }
        self.done.insert(Done::Pieces);
        self.hold(&seats, effects);
        for shard in self.shards.clone() {
            self.reduce(&shard, effects);
            self.spread(&shard, &seats, effects);
            self.accept(&shard, effects);
        }
        if self.accepted.len() == self.shards.len() && self.done.insert(Done::Apply) {
            effects.push(Effect::Apply { sums: self.accepted.values().copied().collect() });
        }
    }

    fn scatter(&self, shard: &Shard, effects: &mut Vec<Effect>) {
        if self.done.contains(&Done::Pieces) {
            return;
        }
        for &to in shard.owners.iter().filter(|&&to| to != self.me && !self.lost.contains(&to)) {
            effects.push(Effect::SendPiece { to, shard: shard.index, blocks: shard.blocks.clone() });
        }
    }

    fn hold(&mut self, seats: &[Seat], effects: &mut Vec<Effect>) {
        let mine = |shard: &&Shard| shard.owners.contains(&self.me);
        let held = |shard: &Shard| {
            seats.iter().map(|seat| seat.node).all(|node| {
                node == self.me || self.lost.contains(&node) || self.pieces.contains(&(node, shard.index))
            })
        };
        let complete = self.shards.iter().filter(mine).all(held);
        if self.members.len() > 1 && complete && self.done.insert(Done::Holding(Round::Pieces)) {
            effects.push(Effect::Holding(Round::Pieces));
        }
    }

    fn reduce(&mut self, shard: &Shard, effects: &mut Vec<Effect>) {
        let Some(contributors) = &self.contributors else { return };
        let held = |&node: &NodeId| node == self.me || self.pieces.contains(&(node, shard.index));
        let ready = shard.owners.contains(&self.me) && contributors.iter().all(held);
        if ready && self.done.insert(Done::Reduce(shard.index)) {
            effects.push(Effect::Reduce {
                shard: shard.index,
                blocks: shard.blocks.clone(),
                contributors: contributors.clone(),
            });
        }
    }

    /// Tells my word, and sends my sum where it is my turn.
    fn spread(&mut self, shard: &Shard, seats: &[Seat], effects: &mut Vec<Effect>) {
        let Some(&sum) = self.words.get(&(shard.index, self.me)) else { return };
        if seats.len() == 1 {
            return;
        }
        if self.done.insert(Done::Announce(shard.index)) {
            effects.push(Effect::Announce { shard: shard.index, sum });
        }
        let settled = self.settled.get(&shard.index);
        let before_me = shard.owners.iter().take_while(|&&owner| owner != self.me);
        let my_turn = settled == Some(&sum) || before_me.copied().all(|owner| self.lost.contains(&owner));
        if !my_turn || settled.is_some_and(|&settled| settled != sum) {
            return;
        }
        for to in seats.iter().map(|seat| seat.node) {
            // An owner has its own sum, unless it was settled that the other one is right.
            let has = to == self.me || (shard.owners.contains(&to) && settled.is_none());
            if !has && !self.lost.contains(&to) && self.done.insert(Done::SendSum(shard.index, to)) {
                effects.push(Effect::SendSum { to, shard: shard.index, blocks: shard.blocks.clone() });
            }
        }
    }

    /// Finds out which sum of a shard stands, and whether it is here.
    fn accept(&mut self, shard: &Shard, effects: &mut Vec<Effect>) {
        let index = shard.index;
        let said: Vec<(NodeId, Digest)> =
            shard.owners.iter().filter_map(|&o| Some((o, *self.words.get(&(index, o))?))).collect();
        if let [(a, x), (b, y)] = said[..]
            && x != y
            && self.done.insert(Done::Disagree(index))
        {
            effects.push(Effect::Disagree { shard: index, owners: [a, b], sums: [x, y] });
        }
        if self.accepted.contains_key(&index) {
            return;
        }
        let silent = |owner: &&NodeId| !said.iter().any(|(who, _)| who == *owner);
        let waiting = shard.owners.iter().filter(silent).any(|owner| !self.lost.contains(owner));
        let stands = match (self.settled.get(&index), &said[..]) {
            (Some(&settled), _) => Some(settled),
            (None, [(_, word)]) if !waiting => Some(*word),
            (None, [(_, x), (_, y)]) if x == y => Some(*x),
            _ => None,
        };
        let here = |sum: &Digest| {
            shard.owners.iter().any(|&owner| self.sums.get(&(index, owner)).is_some_and(|s| s == sum))
        };
        if let Some(sum) = stands.filter(here) {
            self.accepted.insert(index, sum);
            return;
        }
        let all_lost = shard.owners.iter().all(|owner| self.lost.contains(owner));
        if all_lost && self.done.insert(Done::Orphaned(index)) {
            effects.push(Effect::Orphaned { shard: index });
        }
    }
}

impl Machine for Butterfly {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, _now_ms: u64, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Began => self.began(&mut effects),
            Event::Scaled => {
                self.scales.insert(self.me);
            }
            Event::Scales { from } if self.members.contains(&from) => {
                self.scales.insert(from);
            }
            Event::Encoded { root } => self.encoded(root, &mut effects),
            Event::Called(call) => self.called(call, &mut effects),
            Event::Piece { from, shard, opens } if self.expects(from, shard) => {
                if opens {
                    self.pieces.insert((from, shard));
                } else {
                    effects.push(Effect::Accuse { node: from, shard });
                }
            }
            Event::Reduced { shard, sum } if self.done.contains(&Done::Reduce(shard)) => {
                self.words.entry((shard, self.me)).or_insert(sum);
                self.sums.entry((shard, self.me)).or_insert(sum);
            }
            Event::Sum { from, shard, sum } if self.expects(from, shard) && from != self.me => {
                // The last one counts: after a shard is settled the truth may come from the same sender.
                self.sums.insert((shard, from), sum);
            }
            // From a stranger, or an answer to nothing that I asked.
            Event::Scales { .. } | Event::Piece { .. } | Event::Reduced { .. } | Event::Sum { .. } => {}
        }
        self.advance(&mut effects);
        effects
    }
}
