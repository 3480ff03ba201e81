//! Direct routes: who is told where whom can be reached.
//!
//! Only of an epoch in hand, and only those that have to do with one another in it: who stand side by side on a route, and
//! the miners of a stage, which merge. Each is told its whole list, and again where that changes.

use crate::epoch::Epoch;
use crate::machine::Orchestrator;
use spec::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use wire::limits::{ADDRESSES_MAX, NEIGHBOURS_MAX};
use wire::neighbours::is_callable;
use wire::{Message, Neighbour};

impl Orchestrator {
    /// A miner says where it can be reached, and so has, as far as it knows, no neighbours that it was not told of since.
    pub(crate) fn take_addresses(&mut self, from: NodeId, mut addresses: Vec<SocketAddr>) {
        if !self.config.direct {
            return;
        }
        if addresses.len() > ADDRESSES_MAX {
            let text =
                format!("says {} addresses, at most {ADDRESSES_MAX} are taken; ignored", addresses.len());
            return self.note(from, "addresses", &text);
        }
        addresses.retain(is_callable);
        self.state.addresses.insert(from, addresses);
        self.state.neighbours.remove(&from);
        self.tell_neighbours();
        if !self.state.neighbours.contains_key(&from) {
            // It has none yet, and from now on may be called.
            self.send(from, Message::Neighbours(Vec::new()));
        }
    }

    /// Tells every miner of the epoch who its neighbours are, if that is not what it was told last.
    pub(crate) fn tell_neighbours(&mut self) {
        let Some(epoch) = self.state.epoch.as_ref().filter(|_| self.config.direct) else { return };
        let lists = self.lists_of(epoch);
        let seats = &self.state.seats;
        self.state.addresses.retain(|miner, _| seats.knows(*miner));
        for (miner, list) in &lists {
            if self.state.neighbours.get(miner) != Some(list) {
                self.send(*miner, Message::Neighbours(list.clone()));
            }
        }
        self.state.neighbours = lists;
    }

    fn lists_of(&self, epoch: &Epoch) -> BTreeMap<NodeId, Vec<Neighbour>> {
        let mut near: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        let mut meet = |one: NodeId, other: NodeId| {
            let known = near.entry(one).or_default();
            if one != other && !known.contains(&other) && known.len() < NEIGHBOURS_MAX {
                known.push(other);
            }
        };
        for pair in epoch.routes.iter().flat_map(|route| route.windows(2)) {
            meet(pair[0], pair[1]);
            meet(pair[1], pair[0]);
        }
        for stage in 0..self.config.run.model.stage_count() {
            let of_stage =
                |miner: &&NodeId| self.state.seats.stage_of(**miner).map(usize::from) == Some(stage);
            let members: Vec<NodeId> = epoch.miners.keys().filter(of_stage).copied().collect();
            for (at, &one) in members.iter().enumerate() {
                // Everybody begins with who comes next, so that no one is left out by all where they are too many.
                let (before, after) = members.split_at(at);
                after.iter().chain(before).for_each(|&other| meet(one, other));
            }
        }
        let neighbour = |node: NodeId| {
            let addresses = self.state.addresses.get(&node)?.clone();
            Some(Neighbour { node, addresses })
        };
        let told = near.into_iter().filter(|(miner, _)| self.state.addresses.contains_key(miner));
        told.map(|(miner, near)| (miner, near.into_iter().filter_map(neighbour).collect())).collect()
    }
}
