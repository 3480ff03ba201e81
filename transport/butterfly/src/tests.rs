//! Whole merges over a tiny network that delivers in any order, drops nodes, and has liars.

use crate::{BLOCK, Butterfly, Call, Caller, Copies, Cut, Effect, Event, Heard, bound};
use proptest::prelude::*;
use spec::{Digest, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use wire::Machine;

/// One integer stands for a block; the members' shells hold them, the machines never see one.
type Codes = Vec<i64>;

#[derive(Debug, Clone)]
enum Packet {
    ToCaller(Heard),
    ToMember { from: Option<NodeId>, to: NodeId, event: Event, codes: Codes },
}

struct Member {
    machine: Butterfly,
    contribution: Codes,
    pieces: BTreeMap<(NodeId, u32), Codes>,
    sums: BTreeMap<u32, BTreeMap<Digest, Codes>>,
    applied: Vec<Codes>,
    sent_blocks: u64,
}

struct Network {
    caller: Caller,
    members: BTreeMap<NodeId, Member>,
    flying: Vec<Packet>,
    state: u64,
    dead: BTreeSet<NodeId>,
    liar: Option<NodeId>,
    settle: bool,
    contributors: Vec<NodeId>,
    disagreements: BTreeSet<(u32, [NodeId; 2])>,
    orphaned: BTreeSet<u32>,
    /// Whose scales somebody encoded on.
    encoded_on: BTreeSet<Vec<NodeId>>,
}

fn node(i: usize) -> NodeId {
    NodeId([i as u8 + 1; 32])
}

/// Shards of at most so many blocks.
fn cut(copies: Copies, blocks_max: u64) -> Cut {
    Cut { copies, blocks_max }
}

fn digest(codes: &Codes) -> Digest {
    Digest::of(&codes.iter().flat_map(|c| c.to_le_bytes()).collect::<Vec<_>>())
}

impl Network {
    fn new(n: usize, blocks: u64, cut: Cut, seed: u64) -> Self {
        let names: Vec<NodeId> = (0..n).map(node).collect();
        let member = |(i, &me): (usize, &NodeId)| {
            let machine = Butterfly::new(me, &names, blocks * BLOCK, cut);
            let contribution =
                (0..blocks).map(|b| (seed as i64 % 1000) + (i as i64 + 3) * b as i64).collect();
            let member = Member {
                machine,
                contribution,
                pieces: BTreeMap::new(),
                sums: BTreeMap::new(),
                applied: Vec::new(),
                sent_blocks: 0,
            };
            (me, member)
        };
        let members: BTreeMap<_, _> = names.iter().enumerate().map(member).collect();
        let mut network = Self {
            caller: Caller::new([seed as u8; 32], names.iter().copied().collect()),
            members,
            flying: Vec::new(),
            state: seed,
            dead: BTreeSet::new(),
            liar: None,
            settle: false,
            contributors: names.clone(),
            disagreements: BTreeSet::new(),
            orphaned: BTreeSet::new(),
            encoded_on: BTreeSet::new(),
        };
        for &to in &names {
            network.tell(None, to, Event::Began, Vec::new());
        }
        network
    }

    /// Delivers until nothing flies; `kill` dies after so many deliveries.
    fn run(&mut self, kill: Option<(NodeId, u64)>) {
        let mut delivered = 0;
        while !self.flying.is_empty() || kill.is_some_and(|(node, _)| !self.dead.contains(&node)) {
            if let Some((node, after)) = kill
                && (delivered >= after || self.flying.is_empty())
                && self.dead.insert(node)
            {
                self.flying.push(Packet::ToCaller(Heard::Lost(node)));
            }
            // Any packet may be next.
            self.state =
                self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let next = (self.state >> 33) as usize % self.flying.len();
            let packet = self.flying.swap_remove(next);
            delivered += 1;
            assert!(delivered < 100_000, "the merge does not come to rest");
            match packet {
                Packet::ToCaller(heard) => {
                    for call in self.caller.handle(0, heard) {
                        self.call(call);
                    }
                }
                Packet::ToMember { from, to, event, codes } => {
                    let gone = |node: &NodeId| self.dead.contains(node);
                    if !gone(&to) {
                        self.deliver(from, to, event, codes);
                    }
                }
            }
        }
    }

    fn tell(&mut self, from: Option<NodeId>, to: NodeId, event: Event, codes: Codes) {
        self.flying.push(Packet::ToMember { from, to, event, codes });
    }

    fn call(&mut self, call: Call) {
        if let Call::Closed { contributors } = &call {
            self.contributors.clone_from(contributors);
        }
        let event = Event::Called(call);
        for to in self.members.keys().copied().collect::<Vec<_>>() {
            self.tell(None, to, event.clone(), Vec::new());
        }
    }

    fn deliver(&mut self, from: Option<NodeId>, to: NodeId, event: Event, codes: Codes) {
        let member = self.members.get_mut(&to).unwrap();
        match (&event, from) {
            (Event::Piece { shard, .. }, Some(from)) => {
                member.pieces.insert((from, *shard), codes);
            }
            (Event::Sum { shard, sum, .. }, _) => {
                assert_eq!(digest(&codes), *sum);
                member.sums.entry(*shard).or_default().insert(*sum, codes);
            }
            _ => {}
        }
        for effect in member.machine.handle(0, event) {
            self.perform(to, effect);
        }
    }

    fn sum(&self, blocks: &Range<u64>, contributors: &[NodeId]) -> Codes {
        let at = |b: u64| contributors.iter().map(|c| self.members[c].contribution[b as usize]).sum();
        blocks.clone().map(at).collect()
    }

    fn perform(&mut self, me: NodeId, effect: Effect) {
        let member = self.members.get_mut(&me).unwrap();
        let cut =
            |codes: &Codes, blocks: &Range<u64>| codes[blocks.start as usize..blocks.end as usize].to_vec();
        match effect {
            Effect::Commit { root } => {
                self.flying.push(Packet::ToCaller(Heard::Committed { from: me, root }));
            }
            Effect::Holding(round) => {
                self.flying.push(Packet::ToCaller(Heard::Holding { from: me, round }));
            }
            Effect::Scale => self.tell(None, me, Event::Scaled, Vec::new()),
            Effect::SendScales { to } => self.tell(Some(me), to, Event::Scales { from: me }, Vec::new()),
            Effect::Encode { members } => {
                assert!(members.is_empty() || members.contains(&me));
                self.encoded_on.insert(members);
                let root = digest(&self.members[&me].contribution);
                self.tell(None, me, Event::Encoded { root }, Vec::new());
            }
            Effect::SendPiece { to, shard, blocks } => {
                member.sent_blocks += blocks.end - blocks.start;
                let codes = cut(&member.contribution, &blocks);
                self.tell(Some(me), to, Event::Piece { from: me, shard, opens: true }, codes);
            }
            Effect::Reduce { shard, blocks, contributors } => {
                let mut sum = vec![0; (blocks.end - blocks.start) as usize];
                for contributor in contributors {
                    let own = cut(&member.contribution, &blocks);
                    let piece = if contributor == me { &own } else { &member.pieces[&(contributor, shard)] };
                    sum.iter_mut().zip(piece).for_each(|(s, p)| *s += p);
                }
                if self.liar == Some(me) {
                    sum[0] += 1;
                }
                let name = digest(&sum);
                member.sums.entry(shard).or_default().insert(name, sum);
                self.tell(None, me, Event::Reduced { shard, sum: name }, Vec::new());
            }
            Effect::Announce { shard, sum } => {
                for to in self.members.keys().copied().filter(|&to| to != me).collect::<Vec<_>>() {
                    let call = Call::Announced { from: me, shard, sum };
                    self.tell(Some(me), to, Event::Called(call), Vec::new());
                }
            }
            Effect::SendSum { to, shard, blocks } => {
                member.sent_blocks += blocks.end - blocks.start;
                let codes = member.sums[&shard].values().next().unwrap().clone();
                let sum = digest(&codes);
                self.tell(Some(me), to, Event::Sum { from: me, shard, sum }, codes);
            }
            Effect::Disagree { shard, owners, sums } => {
                assert_ne!(sums[0], sums[1]);
                let blocks = member.machine.shards()[shard as usize].blocks.clone();
                if self.disagreements.insert((shard, owners)) && self.settle {
                    let sum = digest(&self.sum(&blocks, &self.contributors));
                    for to in self.members.keys().copied().collect::<Vec<_>>() {
                        self.tell(None, to, Event::Called(Call::Settled { shard, sum }), Vec::new());
                    }
                }
            }
            Effect::Apply { sums } => {
                let parts = sums.iter().enumerate().map(|(s, sum)| member.sums[&(s as u32)][sum].clone());
                let all = parts.collect::<Vec<_>>().concat();
                member.applied.push(all);
            }
            Effect::Orphaned { shard } => {
                self.orphaned.insert(shard);
            }
            Effect::Accuse { node, .. } => panic!("{node} accused, though every piece opens"),
            Effect::Excluded => assert!(self.dead.contains(&me), "{me} excluded while alive"),
        }
    }

    /// Everyone alive applied the sum of the contributors, once.
    fn check(&self, blocks: u64) {
        assert_eq!(self.encoded_on.len(), 1, "all encode on one scale");
        let expected = self.sum(&(0..blocks), &self.contributors);
        for (name, member) in self.members.iter().filter(|(name, _)| !self.dead.contains(name)) {
            assert_eq!(member.applied.len(), 1, "{name} applied so many times");
            assert_eq!(member.applied[0], expected, "{name} applied another sum");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everyone_applies_the_same_sums_once_and_sends_the_bound(seed: u64, n in 1usize..=8, pairs: bool, blocks_max in 1u64..20) {
        let copies = if pairs { Copies::Two } else { Copies::One };
        let blocks = 6 * n as u64;
        let mut network = Network::new(n, blocks, cut(copies, blocks_max), seed);
        network.run(None);
        network.check(blocks);
        prop_assert!(network.disagreements.is_empty());
        let expected = (bound(n as u64, copies) * blocks as f64).round() as u64;
        for member in network.members.values() {
            prop_assert_eq!(member.sent_blocks, expected);
        }
    }

    #[test]
    fn any_number_of_blocks_is_merged(seed: u64, n in 1usize..=8, blocks in 1u64..40, blocks_max in 1u64..20) {
        let mut network = Network::new(n, blocks, cut(Copies::Two, blocks_max), seed);
        network.run(None);
        network.check(blocks);
    }

    #[test]
    fn one_dead_member_is_survived(seed: u64, n in 2usize..=8, victim in 0usize..8, after in 0u64..400, blocks_max in 1u64..20) {
        let blocks = 5 * n as u64;
        let mut network = Network::new(n, blocks, cut(Copies::Two, blocks_max), seed);
        network.run(Some((node(victim % n), after)));
        network.check(blocks);
        prop_assert!(network.orphaned.is_empty());
    }

    #[test]
    fn a_liar_is_named_and_its_sum_not_applied(seed: u64, n in 2usize..=8, liar in 0usize..8, blocks_max in 1u64..20) {
        let blocks = 6 * n as u64;
        let mut network = Network::new(n, blocks, cut(Copies::Two, blocks_max), seed);
        let liar = node(liar % n);
        network.liar = Some(liar);
        network.settle = true;
        network.run(None);
        prop_assert!(!network.disagreements.is_empty());
        prop_assert!(network.disagreements.iter().all(|(_, owners)| owners.contains(&liar)));
        // Everyone but the liar itself, whose own sums are nobody's concern, ends with the truth; the liar is
        // given it too.
        network.check(blocks);
    }
}

#[test]
fn a_disputed_shard_is_not_applied_before_it_is_settled() {
    let mut network = Network::new(4, 24, cut(Copies::Two, 2), 7);
    network.liar = Some(node(2));
    network.run(None);
    assert!(!network.disagreements.is_empty());
    assert!(network.members.values().all(|member| member.applied.is_empty()));
}

#[test]
fn a_shard_without_an_owner_left_is_said_to_be_orphaned() {
    let mut network = Network::new(3, 30, cut(Copies::One, 30), 11);
    // With single owners a death after the roots are in loses the sum; before, the others merge alone.
    network.run(Some((node(1), 30)));
    assert!(!network.orphaned.is_empty());
}

#[test]
fn one_member_needs_nobody() {
    let mut alone = Butterfly::new(node(0), &[node(0)], 1000, Cut::PAIRS);
    assert_eq!(alone.handle(0, Event::Began), [Effect::Encode { members: vec![] }]);
    let effects = alone.handle(0, Event::Encoded { root: Digest([1; 32]) });
    assert_eq!(effects, [Effect::Reduce { shard: 0, blocks: 0..1, contributors: vec![node(0)] }]);
    let sum = Digest([2; 32]);
    assert_eq!(alone.handle(0, Event::Reduced { shard: 0, sum }), [Effect::Apply { sums: vec![sum] }]);
}

#[test]
fn one_member_adds_up_a_large_stage_in_several_shards() {
    let me = node(0);
    let mut alone = Butterfly::new(me, &[me], 5 * BLOCK, cut(Copies::Two, 2));
    alone.handle(0, Event::Began);
    let reduce = |shard, blocks| Effect::Reduce { shard, blocks, contributors: vec![me] };
    let effects = alone.handle(0, Event::Encoded { root: Digest([1; 32]) });
    assert_eq!(effects, [reduce(0, 0..1), reduce(1, 1..3), reduce(2, 3..5)]);
    let sums = [2, 3, 4].map(|byte| Digest([byte; 32]));
    assert!(alone.handle(0, Event::Reduced { shard: 2, sum: sums[2] }).is_empty());
    assert!(alone.handle(0, Event::Reduced { shard: 0, sum: sums[0] }).is_empty());
    let last = alone.handle(0, Event::Reduced { shard: 1, sum: sums[1] });
    assert_eq!(last, [Effect::Apply { sums: sums.to_vec() }]);
}

#[test]
fn a_piece_that_does_not_open_names_its_sender() {
    let names = [node(0), node(1)];
    let mut member = Butterfly::new(names[0], &names, 1000, Cut::PAIRS);
    let effects = member.handle(0, Event::Piece { from: names[1], shard: 0, opens: false });
    assert_eq!(effects, [Effect::Accuse { node: names[1], shard: 0 }]);
    // A stranger's is dropped.
    assert!(member.handle(0, Event::Piece { from: node(5), shard: 0, opens: false }).is_empty());
}
