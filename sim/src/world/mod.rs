//! The simulated world: cores on virtual machines, a network, a store.

mod again;
pub mod chance;
pub mod clock;
pub mod codes;
mod connect;
pub mod disk;
mod explain;
pub mod faults;
pub mod learner;
pub mod net;
mod perform;
mod routes;

use crate::checkers::{self, Checker, End, JournalReplaysEqual, Record};
use crate::cores::{Core, Recipe};
use crate::report::{Report, Violation};
use crate::scenarios::{Scenario, Setup};
use crate::trace::{Effect, Entry, Event, What};
use crate::{Options, SimError};
use chance::Chance;
use clock::Clock;
use disk::{Journal, Object, Objects, Store};
use faults::Fate;
use learner::Learner;
use net::Net;
use routes::Routes;
use spec::{Digest, NodeId, Run};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;

/// A run that has not ended by then has stopped moving: longer than the longest wait of any core.
const VIRTUAL_US_MAX: u64 = 4 * 3600 * 1_000_000;
/// Nor does a run of the sizes simulated here take so many events.
const EVENTS_MAX: u64 = 5_000_000;
/// Nor so many for each of its nodes: merges take as many as a stage has miners, squared.
const EVENTS_MAX_OF_NODE: u64 = 10_000;

/// Everything there is, between two events.
pub struct World {
    clock: Clock<Coming>,
    net: Net,
    routes: Routes,
    store: Store,
    /// The orchestrator is number 0.
    nodes: Vec<Node>,
    by_id: BTreeMap<NodeId, usize>,
    run: Run,
    tempo: Chance,
    /// How long that takes which nobody waits for.
    aside: Chance,
    /// How old the snapshot is that an orchestrator is started again from.
    snapshots: Chance,
    checkers: Vec<Box<dyn Checker>>,
    hasher: blake3::Hasher,
    keep_log: bool,
    /// Epochs that may be undone, in which somebody lied.
    lied: BTreeSet<u32>,
    /// Losses reported before each epoch opened.
    losses_at_open: BTreeMap<u32, usize>,
    report: Report,
}

/// A virtual machine with one core.
struct Node {
    id: NodeId,
    name: String,
    recipe: Recipe,
    core: Core,
    fate: Fate,
    /// Not killed and not ended.
    alive: bool,
    /// How often it was started.
    life: u64,
    /// Whether the orchestrator and this node can talk.
    connected: bool,
    /// Whether the orchestrator passes nothing of it on.
    confined: bool,
    /// Until when no connection comes up.
    cut_until_us: u64,
    /// How often they began to.
    link: u64,
    /// The states in which epochs that may be undone began, and after which manifests, on the node's disk.
    snapshots: BTreeMap<u32, (Digest, Learner)>,
    table: Objects,
    learner: Option<Learner>,
    /// What was encoded last.
    contribution: Option<codes::Contribution>,
    /// When the engine has done everything it was given.
    free_at_us: u64,
    /// When everything that it puts into the store is there, where its uplink is slow.
    uplink_free_at_us: u64,
    wake_ms: Option<u64>,
    /// Events that it took in since it was started, or the orchestrator ever.
    taken_in: usize,
    /// Whether its core is replayed at the end, and so its events and the digests of its effects are kept.
    is_replayed: bool,
    journal: Journal,
    /// Operations of the windows that a validator was asked to replay.
    asked: VecDeque<u32>,
    effects: Vec<Digest>,
}

/// What is going to happen to a node.
#[allow(clippy::large_enum_variant)] // nearly all are events
enum Coming {
    /// Its core takes in an event; the objects are put into its table before. Not if the node was started again
    /// since.
    Event { node: usize, life: u64, event: Event, objects: Vec<Object> },
    /// The same over the connection between a node and the orchestrator, unless that is another one by now.
    Heard { by: usize, over: (usize, u64), event: Event, objects: Vec<Object> },
    /// The same over a direct connection, unless that is gone by now.
    Direct { by: usize, route: u64, event: Event, objects: Vec<Object> },
    /// A direct connection between two neighbours comes up.
    Route { ends: [usize; 2] },
    /// One end notices that a direct connection is gone.
    RouteLost { node: usize, life: u64, to: usize, route: u64 },
    /// It calls the orchestrator again.
    Call { node: usize, life: u64 },
    /// It is started again.
    Start { node: usize },
    /// The time it asked for, unless it asked for another one since.
    Alarm { node: usize, at_ms: u64 },
}

impl World {
    /// The world of a scenario at virtual time 0.
    ///
    /// # Errors
    /// When the options make no legal run.
    pub fn new(scenario: &'static Scenario, seed: u64, options: &Options) -> Result<Self, SimError> {
        let setup = Setup::new(scenario, seed, options)?;
        let mut nodes: Vec<Node> = setup.nodes.into_iter().map(Node::new).collect::<Result<_, _>>()?;
        let apart = JournalReplaysEqual::apart(nodes.len());
        nodes.iter_mut().step_by(apart).for_each(|node| node.is_replayed = true);
        let cheats: Vec<NodeId> =
            nodes.iter().filter(|node| node.fate.cheats()).map(|node| node.id).collect();
        let microbatch_tokens = setup.run.microbatch_tokens();
        // A scenario may need more epochs than were asked for.
        let options = Options { epochs: setup.run.epoch.count, ..options.clone() };
        let mut world = Self {
            clock: Clock::default(),
            net: Net::new(seed, nodes.len()),
            routes: Routes::new(seed, setup.routes_break_one_in),
            store: setup.store,
            by_id: nodes.iter().enumerate().map(|(index, node)| (node.id, index)).collect(),
            nodes,
            run: setup.run,
            tempo: Chance::of(seed, "tempo"),
            aside: Chance::of(seed, "aside"),
            snapshots: Chance::of(seed, "snapshots"),
            checkers: checkers::all(cheats.iter().copied().collect(), scenario.escapes, microbatch_tokens),
            hasher: blake3::Hasher::new(),
            keep_log: options.log,
            lied: BTreeSet::new(),
            losses_at_open: BTreeMap::new(),
            report: Report {
                scenario: scenario.name,
                seed,
                options,
                ending: None,
                virtual_us: 0,
                events: 0,
                digest: Digest::default(),
                losses: Vec::new(),
                commits: 0,
                findings: Vec::new(),
                killed_us: BTreeMap::new(),
                reissues: Vec::new(),
                direct_frames: 0,
                routes_broken: 0,
                rewinds: 0,
                rollbacks: 0,
                tokens_undone: 0,
                notes: Vec::new(),
                convicted: Vec::new(),
                evidence: Vec::new(),
                narrowed: Vec::new(),
                cheats,
                escaped: 0,
                exits: Vec::new(),
                violations: Vec::new(),
                log: String::new(),
            },
        };
        world.schedule_start();
        Ok(world)
    }

    /// Lets everything happen, to the end.
    pub fn run(mut self) -> Report {
        self.live();
        self.finish()
    }

    /// Lets everything happen; how the orchestrator is configured, and what it was told.
    pub fn journal(mut self) -> (orchestrator_core::Config, Vec<(u64, orchestrator_core::Event)>) {
        let Recipe::Orchestrator(config) = self.nodes[0].recipe.clone() else {
            unreachable!("the orchestrator is number 0")
        };
        self.live();
        let events = self.nodes[0].journal.entries();
        (
            config,
            events.filter_map(|(now_ms, bytes)| Some((now_ms, postcard::from_bytes(bytes).ok()?))).collect(),
        )
    }

    fn live(&mut self) {
        while let Some(coming) = self.clock.advance() {
            if self.clock.now_us() > VIRTUAL_US_MAX
                || self.report.events > EVENTS_MAX.max(EVENTS_MAX_OF_NODE * self.nodes.len() as u64)
            {
                self.object(
                    "comes_to_an_end",
                    "the run goes on and on, or waits for what never comes".into(),
                );
                break;
            }
            match coming {
                Coming::Event { node, life, event, objects } => {
                    if self.nodes[node].life == life {
                        self.deliver(node, event, objects);
                    }
                }
                Coming::Heard { by, over: (node, link), event, objects } => {
                    let far = &self.nodes[node];
                    if far.link == link && (far.connected || by != 0) {
                        self.deliver(by, event, objects);
                    }
                }
                Coming::Direct { by, route, event, objects } => {
                    if self.routes.carries(route) {
                        self.deliver(by, event, objects);
                    }
                }
                Coming::Route { ends } => self.route_up(ends),
                Coming::RouteLost { node, life, to, route } => self.route_lost((node, life), to, route),
                Coming::Call { node, life } => self.call(node, life),
                Coming::Start { node } => self.start_again(node),
                Coming::Alarm { node, at_ms } => {
                    if self.nodes[node].wake_ms == Some(at_ms) {
                        self.nodes[node].wake_ms = None;
                        let event = self.nodes[node].woke();
                        self.deliver(node, event, Vec::new());
                    }
                }
            }
        }
    }

    fn schedule_start(&mut self) {
        let started = Event::Orchestrator(orchestrator_core::Event::Started);
        self.clock.at(0, Coming::Event { node: 0, life: 0, event: started, objects: Vec::new() });
        for node in 1..self.nodes.len() {
            let soon_us = self.tempo.within(1_000..500_000);
            let at_us = self.nodes[node].fate.comes_after_us.unwrap_or(soon_us);
            let event = self.nodes[node].connected_event();
            self.clock.at(at_us, Coming::Event { node, life: 0, event, objects: Vec::new() });
        }
    }

    /// Gives an event to a core and performs what it wants done.
    fn deliver(&mut self, node: usize, event: Event, objects: Vec<Object>) {
        if !self.nodes[node].alive {
            return;
        }
        let Node { fate, taken_in, .. } = &mut self.nodes[node];
        let due = fate.mishaps.front().filter(|mishap| *taken_in >= mishap.after_events).copied();
        if let Some(mishap) = due {
            fate.mishaps.pop_front();
            match mishap.what {
                faults::What::Killed { restarted_after_us } => return self.kill(node, restarted_after_us),
                faults::What::TakenBack => self.take_back(),
                faults::What::Cut { for_us } => self.break_off(node, for_us),
            }
        }
        self.report.events += 1;
        self.report.virtual_us = self.clock.now_us();
        let now_ms = self.clock.now_us() / 1000;
        let bytes = wire::to_bytes(&event);
        self.hasher.update(&self.clock.now_us().to_le_bytes()).update(self.nodes[node].id.as_bytes());
        self.hasher.update(&bytes);
        let What::Event(event) = self.observe(node, What::Event(event)) else { return };
        let target = &mut self.nodes[node];
        for object in objects {
            target.table.keep(object);
        }
        let effects = target.core.handle(now_ms, event);
        let digest = wire::digest_of(&effects);
        target.taken_in += 1;
        if target.is_replayed {
            target.journal.append(now_ms, &bytes);
            target.effects.push(digest);
        }
        self.hasher.update(digest.as_bytes());
        for effect in effects {
            match self.observe(node, What::Effect(effect)) {
                What::Effect(Effect::Orchestrator(effect)) => self.perform_orchestrator(effect),
                What::Effect(Effect::Miner(effect)) => self.perform_miner(node, effect),
                What::Effect(Effect::Validator(effect)) => self.perform_validator(node, effect),
                _ => {}
            }
        }
    }

    /// Something that an engine did besides what its core learns.
    fn engine_did(&mut self, node: usize, what: What) {
        self.hasher.update(&wire::to_bytes(&what));
        self.observe(node, what);
    }

    /// Shows to all checkers what happened, and gives it back.
    fn observe(&mut self, node: usize, what: What) -> What {
        let entry = Entry { at_us: self.clock.now_us(), node: self.nodes[node].id, what };
        if self.keep_log {
            let (arrow, what): (_, &dyn std::fmt::Debug) = match &entry.what {
                What::Event(event) => ("<-", event),
                What::Effect(effect) => ("->", effect),
                made => ("==", made),
            };
            // Writing into a string cannot fail.
            let _ =
                writeln!(self.report.log, "{:>10} {} {arrow} {what:?}", entry.at_us, self.nodes[node].name);
        }
        let objections: Vec<(&'static str, String)> = self
            .checkers
            .iter_mut()
            .filter_map(|checker| Some((checker.name(), checker.observe(&entry).err()?)))
            .collect();
        for (checker, sentence) in objections {
            self.object(checker, sentence);
        }
        entry.what
    }

    fn object(&mut self, checker: &'static str, sentence: String) {
        self.report.violations.push(Violation { checker, at_us: self.clock.now_us(), sentence });
    }

    fn finish(mut self) -> Report {
        let nodes = std::mem::take(&mut self.nodes);
        let replayed = nodes.into_iter().filter(|node| node.is_replayed);
        let records: Vec<Record> = replayed.map(Node::record).collect();
        let complete = self.report.ending == Some(orchestrator_core::Ending::Complete);
        let end = End { complete, records: &records };
        for checker in &mut self.checkers {
            if let Err(sentence) = checker.finish(&end) {
                let violation = Violation { checker: checker.name(), at_us: self.clock.now_us(), sentence };
                self.report.violations.push(violation);
            }
        }
        self.report.digest = Digest(*self.hasher.finalize().as_bytes());
        self.report
    }
}

impl Node {
    fn new(setup: crate::scenarios::NodeSetup) -> Result<Self, SimError> {
        Ok(Self {
            id: setup.id,
            name: setup.name,
            core: setup.recipe.build()?,
            recipe: setup.recipe,
            fate: setup.fate,
            alive: true,
            life: 0,
            connected: true,
            confined: false,
            cut_until_us: 0,
            link: 0,
            snapshots: BTreeMap::new(),
            table: Objects::default(),
            learner: None,
            contribution: None,
            free_at_us: 0,
            uplink_free_at_us: 0,
            wake_ms: None,
            taken_in: 0,
            is_replayed: false,
            journal: Journal::default(),
            asked: VecDeque::new(),
            effects: Vec::new(),
        })
    }

    fn woke(&self) -> Event {
        match self.recipe {
            Recipe::Orchestrator(_) => Event::Orchestrator(orchestrator_core::Event::Woke),
            Recipe::Miner(_) => Event::Miner(miner_core::Event::Woke),
            Recipe::Validator(_) => Event::Validator(validator_core::Event::Woke),
        }
    }

    fn connected_event(&self) -> Event {
        match self.recipe {
            Recipe::Orchestrator(_) => Event::Orchestrator(orchestrator_core::Event::Started),
            Recipe::Miner(_) => Event::Miner(miner_core::Event::Connected),
            Recipe::Validator(_) => Event::Validator(validator_core::Event::Connected),
        }
    }

    fn disconnected_event(&self, why: String) -> Option<Event> {
        match self.recipe {
            Recipe::Orchestrator(_) => None,
            Recipe::Miner(_) => Some(Event::Miner(miner_core::Event::Disconnected { why })),
            Recipe::Validator(_) => Some(Event::Validator(validator_core::Event::Disconnected { why })),
        }
    }

    fn message_event(&self, message: wire::Message) -> Option<Event> {
        match self.recipe {
            Recipe::Orchestrator(_) => None,
            Recipe::Miner(_) => Some(Event::Miner(miner_core::Event::Message(message))),
            Recipe::Validator(_) => Some(Event::Validator(validator_core::Event::Message(message))),
        }
    }

    fn record(self) -> Record {
        let state = self.core.digest();
        Record { name: self.name, recipe: self.recipe, journal: self.journal, effects: self.effects, state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_large_swarm_the_orchestrator_and_some_of_all_others_are_replayed() {
        let scenario = Scenario::named("honest").unwrap();
        for (miners, expected) in [(1, 5), (20, 62), (40, 62), (200, 62)] {
            let options = Options { miners, ..Options::default() };
            let world = World::new(scenario, 1, &options).unwrap();
            let replayed: Vec<usize> =
                (0..world.nodes.len()).filter(|&node| world.nodes[node].is_replayed).collect();
            assert_eq!((replayed[0], replayed.len()), (0, expected), "{} nodes", world.nodes.len());
        }
        // What is kept is what the checker at the end looks at.
        let mut world = World::new(scenario, 1, &Options { miners: 22, ..Options::default() }).unwrap();
        world.live();
        for node in &world.nodes {
            let kept = (node.journal.len(), node.effects.len());
            assert_eq!(kept, if node.is_replayed { (node.taken_in, node.taken_in) } else { (0, 0) });
            assert!(node.taken_in > 0, "{}", node.name);
        }
    }
}
