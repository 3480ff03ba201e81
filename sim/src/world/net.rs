//! How long a message is on its way.

use super::chance::Chance;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// One-way latency of a node, in microseconds.
const LATENCY_US: Range<u64> = 200..40_000;
/// Most that a message is delayed on top of that, as a share of the latency.
const JITTER_PERCENT: u64 = 100;
/// Slowest and fastest link, in bytes/s.
const BANDWIDTH_BYTES_PER_S: Range<u64> = 1_000_000..50_000_000;

/// Links of the nodes, by their index in the world. Node 0 is the orchestrator, through which all goes.
#[derive(Debug)]
pub struct Net {
    chance: Chance,
    /// The same for those that are set aside.
    other: Chance,
    aside: BTreeSet<usize>,
    links: Vec<Link>,
    /// When the last control message from one node to another arrives.
    last_us: BTreeMap<(usize, usize), u64>,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    latency_us: u64,
    bandwidth_bytes_per_s: u64,
}

impl Net {
    /// Links for `nodes` nodes.
    pub fn new(seed: u64, nodes: usize) -> Self {
        let mut chance = Chance::of(seed, "net");
        let link = |_| Link {
            latency_us: chance.within(LATENCY_US),
            bandwidth_bytes_per_s: chance.within(BANDWIDTH_BYTES_PER_S),
        };
        let links = (0..nodes).map(link).collect();
        let other = Chance::of(seed, "net aside");
        Self { chance, other, aside: BTreeSet::new(), links, last_us: BTreeMap::new() }
    }

    /// What a node says and hears from now on changes nothing of how long others' messages take.
    pub fn set_aside(&mut self, node: usize) {
        self.aside.insert(node);
    }

    /// When a control message sent now arrives: behind those sent before it, as on one stream.
    pub fn control_us(&mut self, now_us: u64, from: usize, to: usize) -> u64 {
        let at_us = now_us + self.travel_us(from, to, 0);
        let last_us = self.last_us.entry((from, to)).or_default();
        *last_us = at_us.max(*last_us + 1);
        *last_us
    }

    /// When a payload of so many bytes sent now arrives. Payloads overtake one another and control
    /// messages, as on streams of their own.
    pub fn payload_us(&mut self, now_us: u64, from: usize, to: usize, bytes: u64) -> u64 {
        now_us + self.travel_us(from, to, bytes)
    }

    /// When a transfer between a node and the store that begins now is over.
    pub fn store_us(&mut self, now_us: u64, node: usize, bytes: u64) -> u64 {
        now_us + 2 * self.travel_us(node, node, bytes)
    }

    fn travel_us(&mut self, from: usize, to: usize, bytes: u64) -> u64 {
        let (a, b) = (self.links[from], self.links[to]);
        let latency_us = if from == to { a.latency_us } else { a.latency_us + b.latency_us };
        let is_aside = self.aside.contains(&from) || self.aside.contains(&to);
        let chance = if is_aside { &mut self.other } else { &mut self.chance };
        let jitter_us = chance.within(0..latency_us * JITTER_PERCENT / 100 + 1);
        let slowest = a.bandwidth_bytes_per_s.min(b.bandwidth_bytes_per_s);
        latency_us + jitter_us + bytes.saturating_mul(1_000_000) / slowest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_keeps_its_order_and_payloads_do_not() {
        let mut net = Net::new(1, 3);
        let control: Vec<u64> = (0..100).map(|now_us| net.control_us(now_us, 1, 0)).collect();
        assert!(control.is_sorted_by(|a, b| a < b));
        let payloads: Vec<u64> = (0..100).map(|now_us| net.payload_us(now_us, 1, 2, 1000)).collect();
        assert!(!payloads.is_sorted());
    }
}
