//! How long a merge takes over links that are only imagined, beside what no merge could do better.
//!
//! The members and their caller are the real machines; a link sends and takes so many bytes a second, shares both among
//! what is under way, and has no latency. Nothing is measured by a clock, so the figures are the same everywhere.

use butterfly::{BLOCK, Butterfly, Caller, Copies, Cut, Effect, Event, Heard, bound};
use spec::{Digest, NodeId};
use std::collections::{BTreeMap, VecDeque};
use wire::{Call, Machine};

/// Parameters that are merged, a byte each.
const PARAMETERS: u64 = 64 << 20;
/// What a link sends at a time before another message has its turn.
const CHUNK_BYTES: f64 = 65_536.0;
const MBIT: f64 = 125_000.0;

fn main() {
    println!("{} MiB of codes, every shard in two copies\n", PARAMETERS >> 20);
    println!(
        "| members | links, Mbit/s | merge | no merge is faster than | share of that | shards of 1 MiB at most |"
    );
    println!("|---|---|---|---|---|---|");
    for links in [
        vec![100; 2],
        vec![100; 3],
        vec![100; 4],
        vec![100; 8],
        vec![100, 100, 100, 50],
        vec![1000, 100, 100, 100],
        vec![1000, 500, 200, 100],
        vec![1000, 1000, 500, 500, 200, 200, 100, 100],
    ] {
        let said: Vec<String> = links.iter().map(u64::to_string).collect();
        let merge = Network::merge(&links, Cut::PAIRS);
        let short = Network::merge(&links, Cut { blocks_max: (1 << 20) / BLOCK, ..Cut::PAIRS });
        // The slowest member needs least where shares are equal, and nobody else needs longer then: see `butterfly::partition`.
        let slowest = MBIT * links.iter().copied().min().unwrap_or(1) as f64;
        let best = bound(links.len() as u64, Copies::Two) * PARAMETERS as f64 / slowest;
        println!(
            "| {} | {} | {merge:.1} s | {best:.1} s | {:.0} % | {short:.1} s |",
            links.len(),
            said.join(" "),
            100.0 * best / merge
        );
    }
}

/// One message on its way.
struct Message {
    to: usize,
    left: f64,
    event: Event,
}

struct Member {
    machine: Butterfly,
    bytes_per_s: f64,
    /// What it sends, in turns.
    out: VecDeque<Message>,
    /// When its link has sent, and taken, what it was given.
    sent_s: f64,
    taken_s: f64,
    applied: bool,
}

struct Network {
    names: Vec<NodeId>,
    members: Vec<Member>,
    caller: Caller,
    /// Events with nothing to carry.
    said: VecDeque<(usize, Event)>,
    /// Whole messages by the time at which they are there, in nanoseconds, and a number.
    coming: BTreeMap<(u64, u64), (usize, Event)>,
    count: u64,
    now_s: f64,
}

impl Network {
    /// Seconds until every member has applied, with links of so many Mbit/s.
    fn merge(links: &[u64], cut: Cut) -> f64 {
        let names: Vec<NodeId> = (1..=links.len() as u8).map(|number| NodeId([number; 32])).collect();
        let member = |(name, link): (&NodeId, &u64)| Member {
            machine: Butterfly::new(*name, &names, PARAMETERS, cut),
            bytes_per_s: MBIT * *link as f64,
            out: VecDeque::new(),
            sent_s: 0.0,
            taken_s: 0.0,
            applied: false,
        };
        let members = names.iter().zip(links).map(member).collect();
        let caller = Caller::new([7; 32], names.iter().copied().collect());
        let (said, coming) =
            ((0..links.len()).map(|member| (member, Event::Began)).collect(), BTreeMap::new());
        let mut network = Self { names, members, caller, said, coming, count: 0, now_s: 0.0 };
        while network.goes_on() {}
        assert!(network.members.iter().all(|member| member.applied), "the merge came to rest before its end");
        network.now_s
    }

    /// The next thing that happens; `false` if nothing does any more.
    fn goes_on(&mut self) -> bool {
        if let Some((to, event)) = self.said.pop_front() {
            self.deliver(to, event);
            return true;
        }
        // Who can send first sends its next chunk, if nothing arrives before.
        let free = |member: &Member| member.sent_s.max(self.now_s);
        let busy = (0..self.members.len()).filter(|member| !self.members[*member].out.is_empty());
        let sender = busy.min_by(|a, b| free(&self.members[*a]).total_cmp(&free(&self.members[*b])));
        let first = self.coming.first_key_value().map(|(&(at_ns, _), _)| at_ns as f64 / 1e9);
        match sender.filter(|sender| first.is_none_or(|first| free(&self.members[*sender]) <= first)) {
            Some(sender) => self.send(sender),
            None => match self.coming.pop_first() {
                Some(((at_ns, _), (to, event))) => {
                    self.now_s = self.now_s.max(at_ns as f64 / 1e9);
                    self.deliver(to, event);
                }
                None => return false,
            },
        }
        true
    }

    fn send(&mut self, from: usize) {
        let Some(mut message) = self.members[from].out.pop_front() else { return };
        let bytes = message.left.min(CHUNK_BYTES);
        let sender = &mut self.members[from];
        let began_s = sender.sent_s.max(self.now_s);
        sender.sent_s = began_s + bytes / sender.bytes_per_s;
        let sent_s = sender.sent_s;
        let receiver = &mut self.members[message.to];
        receiver.taken_s = sent_s.max(began_s.max(receiver.taken_s) + bytes / receiver.bytes_per_s);
        let there_s = receiver.taken_s;
        message.left -= bytes;
        if message.left > 0.0 {
            self.members[from].out.push_back(message);
        } else {
            self.count += 1;
            self.coming.insert(((there_s * 1e9) as u64, self.count), (message.to, message.event));
        }
    }

    fn deliver(&mut self, to: usize, event: Event) {
        for effect in self.members[to].machine.handle(0, event) {
            self.perform(to, effect);
        }
    }

    fn hear(&mut self, heard: Heard) {
        for call in self.caller.handle(0, heard) {
            self.call(None, &call);
        }
    }

    fn call(&mut self, speaker: Option<usize>, call: &Call) {
        let listeners = (0..self.names.len()).filter(|member| Some(*member) != speaker);
        self.said.extend(listeners.map(|member| (member, Event::Called(call.clone()))));
    }

    fn perform(&mut self, me: usize, effect: Effect) {
        let from = self.names[me];
        let digest = |shard: u32| Digest::of(&shard.to_le_bytes());
        match effect {
            Effect::Scale => self.said.push_back((me, Event::Scaled)),
            Effect::SendScales { to } => self.said.push_back((self.index(to), Event::Scales { from })),
            Effect::Encode { .. } => {
                self.said.push_back((me, Event::Encoded { root: Digest::of(from.as_bytes()) }));
            }
            Effect::Commit { root } => self.hear(Heard::Committed { from, root }),
            Effect::Holding(round) => self.hear(Heard::Holding { from, round }),
            Effect::SendPiece { to, shard, blocks } => {
                self.queue(me, to, blocks.end - blocks.start, Event::Piece { from, shard, opens: true });
            }
            Effect::Reduce { shard, .. } => {
                self.said.push_back((me, Event::Reduced { shard, sum: digest(shard) }));
            }
            Effect::Announce { shard, sum } => self.call(Some(me), &Call::Announced { from, shard, sum }),
            Effect::SendSum { to, shard, blocks } => {
                self.queue(me, to, blocks.end - blocks.start, Event::Sum { from, shard, sum: digest(shard) });
            }
            Effect::Apply { .. } => self.members[me].applied = true,
            effect => panic!("in an honest merge without losses: {effect:?}"),
        }
    }

    fn queue(&mut self, me: usize, to: NodeId, blocks: u64, event: Event) {
        let to = self.index(to);
        self.members[me].out.push_back(Message { to, left: (blocks * BLOCK) as f64, event });
    }

    fn index(&self, node: NodeId) -> usize {
        self.names.iter().position(|name| *name == node).unwrap_or_default()
    }
}
