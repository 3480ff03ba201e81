//! Direct routes between miners: how they come up, what goes that way, and how they end.

use super::chance::Chance;
use super::disk::Object;
use super::faults::SUSPECTED_US;
use super::{Coming, World};
use crate::trace::Event;
use miner_core::Event as Happened;
use spec::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use wire::Neighbour;

/// How long a call to a neighbour takes, in microseconds.
const CALL_US: std::ops::Range<u64> = 1_000..400_000;
/// Of so many pairs of neighbours one cannot reach each other.
const UNREACHABLE_ONE_IN: u64 = 5;

/// Which miners have a direct connection, by their index in the world.
pub(super) struct Routes {
    chance: Chance,
    /// A frame breaks the connection that it is sent over once in so many times; never where it is 0.
    break_one_in: u64,
    /// Whom each may talk to, as it was told last.
    neighbours: BTreeMap<usize, BTreeSet<usize>>,
    /// By who sends to whom, the connection that is taken; the two ends notice at different times that it is gone.
    ways: BTreeMap<(usize, usize), u64>,
    /// Connections so far, and those of them that carry nothing any more.
    count: u64,
    gone: BTreeSet<u64>,
}

impl Routes {
    pub fn new(seed: u64, break_one_in: u64) -> Self {
        Self {
            chance: Chance::of(seed, "routes"),
            break_one_in,
            neighbours: BTreeMap::new(),
            ways: BTreeMap::new(),
            count: 0,
            gone: BTreeSet::new(),
        }
    }

    /// Whether a connection still carries something.
    pub fn carries(&self, route: u64) -> bool {
        !self.gone.contains(&route)
    }

    fn are_neighbours(&self, one: usize, other: usize) -> bool {
        let knows =
            |of: usize, whom: usize| self.neighbours.get(&of).is_some_and(|known| known.contains(&whom));
        knows(one, other) && knows(other, one)
    }
}

impl World {
    /// A miner is told its neighbours: calls them, and closes what it has with others.
    pub(super) fn set_neighbours(&mut self, node: usize, neighbours: &[Neighbour]) {
        let known: BTreeSet<usize> =
            neighbours.iter().filter_map(|neighbour| self.by_id.get(&neighbour.node).copied()).collect();
        let ways = self.routes.ways.keys().filter(|(from, to)| *from == node && !known.contains(to));
        for (_, former) in ways.copied().collect::<Vec<_>>() {
            self.end_route(node, former, 0);
        }
        self.routes.neighbours.insert(node, known.clone());
        for peer in known {
            let lacks =
                !self.routes.ways.contains_key(&(node, peer)) && self.routes.are_neighbours(node, peer);
            if lacks && self.routes.chance.within(0..UNREACHABLE_ONE_IN) > 0 {
                let at_us = self.clock.now_us() + self.routes.chance.within(CALL_US);
                self.clock.at(at_us, Coming::Route { ends: [node, peer] });
            }
        }
    }

    /// A call is answered, if the two still want it.
    pub(super) fn route_up(&mut self, [one, other]: [usize; 2]) {
        let free =
            !self.routes.ways.contains_key(&(one, other)) && !self.routes.ways.contains_key(&(other, one));
        let alive = self.nodes[one].alive && self.nodes[other].alive;
        if free && alive && self.routes.are_neighbours(one, other) {
            self.routes.count += 1;
            for way in [(one, other), (other, one)] {
                self.routes.ways.insert(way, self.routes.count);
            }
        }
    }

    /// Sends something directly, if there is a way; gives it back where there is none.
    pub(super) fn send_directly(
        &mut self,
        (from, to): (usize, usize),
        (event, object): (Event, Object),
    ) -> Option<(Event, Object)> {
        let Some(&route) = self.routes.ways.get(&(from, to)) else { return Some((event, object)) };
        self.report.direct_frames += 1;
        let at_us = self.net.payload_us(self.clock.now_us(), from, to, object.name.bytes);
        self.clock.at(at_us, Coming::Direct { by: to, route, event, objects: vec![object] });
        let breaks =
            self.routes.break_one_in > 0 && self.routes.chance.within(0..self.routes.break_one_in) == 0;
        if breaks && self.routes.carries(route) {
            self.report.routes_broken += 1;
            let noticed_us = self.routes.chance.within(1..SUSPECTED_US);
            self.end_route(from, to, noticed_us);
        }
        None
    }

    /// Every direct connection of a node that is there no more; the others notice by its silence, or at once.
    pub(super) fn end_routes(&mut self, node: usize, noticed_us: u64) {
        self.routes.neighbours.remove(&node);
        let peers: Vec<usize> =
            self.routes.ways.keys().filter(|(from, _)| *from == node).map(|(_, to)| *to).collect();
        for peer in peers {
            self.end_route(node, peer, noticed_us);
            self.routes.ways.remove(&(node, peer));
        }
    }

    /// A connection carries nothing from now on, not even what is under way; each end notices it within this time.
    fn end_route(&mut self, node: usize, peer: usize, noticed_us: u64) {
        let Some(&route) = self.routes.ways.get(&(node, peer)) else { return };
        self.routes.gone.insert(route);
        for (end, other) in [(node, peer), (peer, node)] {
            let after_us = self.routes.chance.within(0..noticed_us + 1);
            let life = self.nodes[end].life;
            let at_us = self.clock.now_us() + after_us;
            self.clock.at(at_us, Coming::RouteLost { node: end, life, to: other, route });
        }
    }

    /// One end notices that a connection is gone: its next block goes through the relay.
    pub(super) fn route_lost(&mut self, (node, life): (usize, u64), to: usize, route: u64) {
        if self.routes.ways.get(&(node, to)) != Some(&route) {
            return;
        }
        self.routes.ways.remove(&(node, to));
        if self.nodes[node].life == life {
            let lost: NodeId = self.nodes[to].id;
            self.deliver(node, Event::Miner(Happened::RouteLost(lost)), Vec::new());
        }
    }
}
