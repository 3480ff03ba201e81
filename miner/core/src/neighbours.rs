//! Direct routes. Which way a payload takes is the shell's matter; that none is lost with a route is `send_again`'s.

use crate::effect::Effect;
use crate::machine::Miner;
use wire::limits::{ADDRESSES_MAX, NEIGHBOURS_MAX};
use wire::{Message, Neighbour};

impl Miner {
    /// After every welcome: where this miner is seen may have changed with its connection.
    pub(crate) fn say_where_it_is_reached(&mut self) {
        if let Some(addresses) = self.config.reachable.clone() {
            self.send(Message::Reachable(addresses));
        }
    }

    pub(crate) fn take_neighbours(&mut self, neighbours: Vec<Neighbour>) {
        let me = self.config.key.id();
        let bounded = neighbours.len() <= NEIGHBOURS_MAX
            && neighbours.iter().all(|neighbour| neighbour.addresses.len() <= ADDRESSES_MAX);
        let others = neighbours.iter().all(|neighbour| neighbour.node != me);
        if self.config.reachable.is_none() || !bounded || !others {
            return self.note(format!(
                "the orchestrator names {} neighbours, expected at most {NEIGHBOURS_MAX} others of {ADDRESSES_MAX} addresses, and none for a miner that takes no calls; ignored",
                neighbours.len()
            ));
        }
        self.emit(Effect::Neighbours(neighbours));
    }
}
