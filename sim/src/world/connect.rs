//! Connections and processes: what is said over them, how they end and begin again.

use super::faults::{LOST_US, SUSPECTED_US};
use super::{Coming, World};
use crate::cores::Recipe;
use crate::trace::Event;
use crate::world::disk::{Journal, Object, Objects};
use orchestrator_core::Event as Happened;
use spec::NodeId;
use wire::guest::GuestError;
use wire::{Command, Message};

impl World {
    /// A node stops without a word: silence, suspicion, loss; the orchestrator takes every connection with it.
    pub(super) fn kill(&mut self, node: usize, restarted_after_us: Option<u64>) {
        let now_us = self.clock.now_us();
        let dead = &mut self.nodes[node];
        dead.alive = false;
        self.report.killed_us.insert(dead.id, now_us);
        self.end_routes(node, SUSPECTED_US);
        let dead = &self.nodes[node];
        if let Some(after_us) = restarted_after_us {
            self.clock.at(now_us + after_us, Coming::Start { node });
        }
        if node == 0 {
            for node in 1..self.nodes.len() {
                self.cut(node, "the orchestrator fell silent");
            }
            return;
        }
        let (peer, link) = (dead.id, dead.link);
        let why = "nothing was heard of it any more".into();
        for (after_us, event) in
            [(SUSPECTED_US, Happened::Suspected(peer)), (LOST_US, Happened::Lost { peer, why })]
        {
            self.heard_at(now_us + after_us, (node, link), event);
        }
    }

    /// A node's connection breaks, on both sides, and for a while there is no other.
    pub(super) fn break_off(&mut self, node: usize, for_us: u64) {
        let cut = &mut self.nodes[node];
        cut.cut_until_us = self.clock.now_us() + for_us;
        let (peer, link, connected) = (cut.id, cut.link, cut.connected);
        if connected {
            let at_us = self.net.control_us(self.clock.now_us(), node, 0);
            let why = "its connection broke".into();
            self.heard_at(at_us, (node, link), Happened::Lost { peer, why });
            self.cut(node, "the connection broke");
        }
    }

    /// The owner commands the orchestrator, by its own key, to go back to what is stable.
    pub(super) fn take_back(&mut self) {
        let message = Message::Command(Command::RollBack { to: None });
        let event = Event::Orchestrator(Happened::Message { from: self.nodes[0].id, message });
        self.own_at(self.clock.now_us(), 0, event, Vec::new());
    }

    /// A killed node is started again: the orchestrator from a snapshot and its journal, the others from their keys and disks.
    pub(super) fn start_again(&mut self, node: usize) {
        let now_us = self.clock.now_us();
        let again = &mut self.nodes[node];
        again.life += 1;
        again.alive = true;
        again.wake_ms = None;
        let core = again.recipe.build();
        let Ok(mut core) = core else { return };
        if let Recipe::Orchestrator(_) = again.recipe {
            let events: Vec<(u64, Event)> = again
                .journal
                .entries()
                .filter_map(|(now_ms, bytes)| Some((now_ms, again.recipe.decode(bytes).ok()?)))
                .collect();
            // From a snapshot of any age, where the shipped one has those of the last epochs.
            let at = self.snapshots.within(0..events.len().max(1) as u64) as usize;
            for (index, (now_ms, event)) in events.into_iter().enumerate() {
                core.handle(now_ms, event);
                if index == at {
                    match core.restarted(&again.recipe) {
                        Ok(restarted) => core = restarted,
                        Err(why) => return self.object("snapshots_go_on_alike", why),
                    }
                }
            }
            again.core = core;
            return self.own_at(now_us, 0, Event::Orchestrator(Happened::Resumed), Vec::new());
        }
        again.core = core;
        (again.journal, again.effects, again.taken_in) = (Journal::default(), Vec::new(), 0);
        (again.table, again.learner, again.contribution) = (Objects::default(), None, None);
        again.free_at_us = now_us;
        let life = again.life;
        self.clock.at(now_us, Coming::Call { node, life });
    }

    /// A node calls the orchestrator: a new connection, if that is there.
    pub(super) fn call(&mut self, node: usize, life: u64) {
        if self.nodes[node].life != life || !self.nodes[node].alive {
            return;
        }
        let unreachable = self.clock.now_us() < self.nodes[node].cut_until_us;
        if unreachable || !self.nodes[0].alive {
            let event = self.nodes[node].disconnected_event("nobody answers".into());
            return event.into_iter().for_each(|event| self.deliver(node, event, Vec::new()));
        }
        let (peer, was) = (self.nodes[node].id, self.nodes[node].connected);
        if was {
            // The older connection of the same key ends first.
            let why = "it connected anew".into();
            self.deliver(0, Event::Orchestrator(Happened::Lost { peer, why }), Vec::new());
        }
        let caller = &mut self.nodes[node];
        (caller.connected, caller.confined) = (true, false);
        caller.link += 1;
        let event = caller.connected_event();
        self.deliver(node, event, Vec::new());
    }

    pub(super) fn call_after(&mut self, node: usize, after_ms: u64) {
        let (at_us, life) = (self.clock.now_us() + after_ms * 1000, self.nodes[node].life);
        self.clock.at(at_us, Coming::Call { node, life });
    }

    /// Orchestrator to node.
    pub(super) fn tell(&mut self, to: NodeId, message: Message) {
        let Some(&node) = self.by_id.get(&to) else { return };
        let Some(event) = self.nodes[node].message_event(message) else { return };
        if self.nodes[node].connected {
            let at_us = self.net.control_us(self.clock.now_us(), 0, node);
            let over = (node, self.nodes[node].link);
            self.clock.at(at_us, Coming::Heard { by: node, over, event, objects: Vec::new() });
        }
    }

    /// Node to orchestrator.
    pub(super) fn say(&mut self, node: usize, message: Message) {
        if self.nodes[node].connected {
            let (from, link) = (self.nodes[node].id, self.nodes[node].link);
            let at_us = self.net.control_us(self.clock.now_us(), node, 0);
            self.heard_at(at_us, (node, link), Happened::Message { from, message });
        }
    }

    /// The orchestrator closes a connection.
    pub(super) fn hang_up(&mut self, peer: NodeId, why: &str) {
        if let Some(&node) = self.by_id.get(&peer) {
            self.cut(node, why);
        }
    }

    /// A node ends in good order.
    pub(super) fn exit(&mut self, node: usize, with: Result<String, GuestError>) {
        let gone = &mut self.nodes[node];
        gone.alive = false;
        let (peer, connected, link) = (gone.id, gone.connected, gone.link);
        self.report.exits.push((gone.name.clone(), with.map_err(|why| why.to_string())));
        self.end_routes(node, 0);
        if connected {
            let at_us = self.net.control_us(self.clock.now_us(), node, 0);
            let why = "it closed the connection".into();
            self.heard_at(at_us, (node, link), Happened::Lost { peer, why });
        }
    }

    /// What happens to a node by itself.
    pub(super) fn own_at(&mut self, at_us: u64, node: usize, event: Event, objects: Vec<Object>) {
        let life = self.nodes[node].life;
        self.clock.at(at_us, Coming::Event { node, life, event, objects });
    }

    fn heard_at(&mut self, at_us: u64, over: (usize, u64), event: Happened) {
        let event = Event::Orchestrator(event);
        self.clock.at(at_us, Coming::Heard { by: 0, over, event, objects: Vec::new() });
    }

    /// A connection ends, seen from the node.
    fn cut(&mut self, node: usize, why: &str) {
        if !std::mem::take(&mut self.nodes[node].connected) {
            return;
        }
        if let Some(event) = self.nodes[node].disconnected_event(why.into()) {
            let at_us = self.net.control_us(self.clock.now_us(), 0, node);
            let over = (node, self.nodes[node].link);
            self.clock.at(at_us, Coming::Heard { by: node, over, event, objects: Vec::new() });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::scenarios::Scenario;
    use crate::world::World;
    use crate::world::chance::Chance;
    use crate::{Options, Report};

    #[test]
    fn whichever_snapshot_an_orchestrator_goes_on_from_the_log_is_the_same() {
        let scenario = Scenario::named("orchestrator_restarted").unwrap();
        let run = |snapshot: &str| -> Report {
            let mut world = World::new(scenario, 5, &Options::default()).unwrap();
            world.snapshots = Chance::of(5, snapshot);
            world.run()
        };
        let reports = ["one", "another", "a third", "a fourth"].map(run);
        assert!(
            reports.iter().all(|report| report.violations.is_empty() && report.digest == reports[0].digest)
        );
        assert!(!reports[0].killed_us.is_empty());
    }
}
