//! Three miners in a row, in virtual time: how long they idle is what the pipeline's formula says.

use crate::support::{manifest, object, orchestrator, run};
use miner_core::{Config, Done, Effect, Event, Miner, StateAfter, Task};
use spec::{Member, NodeId, Operation, Outcome, Run};
use std::collections::{BTreeMap, VecDeque};
use wire::{Assignment, Chain, Grant, Key, Machine, Message, ObjectRef, Presigned, Signed, Slot, Welcome};

/// A backward takes twice as long as a forward, a step no time; nor do messages.
const FORWARD: u64 = 1;
const BACKWARD: u64 = 2;

/// Head, body and tail, and what is going to happen to whom, by time.
struct Row {
    run: Run,
    miners: Vec<Miner>,
    keys: Vec<Key>,
    coming: BTreeMap<u64, VecDeque<(usize, Event)>>,
    now: u64,
    /// When each engine has done what it was given.
    free_at: Vec<u64>,
    busy: u64,
    stepped: Vec<u32>,
    handed_out: u32,
}

impl Row {
    fn new(run: Run) -> Self {
        let keys: Vec<Key> = [10, 11, 12].map(|seed| Key::from_seed([seed; 32])).into();
        let config =
            |key: &Key| Config::new(key.clone(), orchestrator().id(), b"token".to_vec(), "iota test");
        let miners = keys.iter().map(|key| Miner::new(config(key))).collect();
        let (coming, free_at, stepped) = (BTreeMap::new(), vec![0; 3], vec![0; 3]);
        Self { run, miners, keys, coming, now: 0, free_at, busy: 0, stepped, handed_out: 0 }
    }

    fn at(&mut self, time: u64, miner: usize, event: Event) {
        self.coming.entry(time).or_default().push_back((miner, event));
    }

    fn say(&mut self, miner: usize, message: Message) {
        self.at(self.now, miner, Event::Message(message));
    }

    /// The share of an epoch in which an engine idles, as a mean over the three.
    fn idle(mut self) -> f64 {
        for stage in 0..3 {
            let manifest = Signed::new(manifest(&self.run), &orchestrator());
            let (run, chain) = (self.run.clone(), Chain::default());
            self.at(0, stage, Event::Connected);
            self.say(stage, Message::Welcome(Welcome { run, stage: Some(stage as u16), manifest, chain }));
        }
        self.live();
        for stage in 0..3 {
            self.say(stage, Message::Open(Signed::new(manifest(&self.run), &orchestrator())));
        }
        self.hand_out();
        self.live();
        assert_eq!(self.stepped, [self.run.epoch.steps; 3]);
        1.0 - self.busy as f64 / (3 * self.now) as f64
    }

    fn live(&mut self) {
        while let Some(mut first) = self.coming.first_entry() {
            self.now = *first.key();
            match first.get_mut().pop_front() {
                None => drop(first.remove()),
                Some((miner, event)) => {
                    for effect in self.miners[miner].handle(self.now, event) {
                        self.perform(miner, effect);
                    }
                }
            }
        }
    }

    /// As the orchestrator does where one miner holds each stage.
    fn hand_out(&mut self) {
        let taken = self.stepped.iter().min().copied().unwrap_or_default();
        while self.handed_out < self.run.epoch.steps.min(taken + self.run.steps_ahead()) {
            let (step, members) = (self.handed_out, self.run.inner.members);
            self.handed_out += 1;
            for position in 0..members {
                let id = u64::from(step) * u64::from(members) + u64::from(position);
                let slot =
                    |key: &Key| Slot { miner: key.id(), step, position, members, attempt: 0, settled: 0 };
                let route = self.keys.iter().map(slot).collect();
                for stage in 0..3 {
                    let route = Vec::clone(&route);
                    self.say(stage, Message::Assign(Assignment { id, epoch: 0, microbatch: id, route }));
                }
            }
        }
    }

    fn perform(&mut self, miner: usize, effect: Effect) {
        match effect {
            Effect::Send(Message::Ask(ask)) => {
                let (url, headers) = ("http://store".into(), Vec::new());
                let request = Presigned { verb: ask.verb, url, headers, expires_ms: u64::MAX };
                self.say(miner, Message::Grant(Grant { ask, answer: Ok(request) }));
            }
            Effect::Fetch { object, .. } => {
                self.at(self.now, miner, Event::Fetched { digest: object.digest })
            }
            Effect::SendPayload { to, head, block } => {
                let event = Event::Payload { head, block: ObjectRef { digest: block, bytes: 1 } };
                self.at(self.now, self.stage(to), event);
            }
            Effect::Compute { ticket, task } => {
                let (done, took) = self.compute(&task, miner);
                let free_at = self.now.max(self.free_at[miner]) + took;
                (self.free_at[miner], self.busy) = (free_at, self.busy + took);
                self.at(free_at, miner, Event::Done { ticket, done });
            }
            Effect::Send(Message::Receipt(receipt)) => {
                if matches!(receipt.body.operation, Operation::Step { .. }) {
                    self.stepped[miner] += 1;
                    self.hand_out();
                }
            }
            Effect::Exit(with) => panic!("miner {miner} ends: {with:?}"),
            Effect::Note(text) => panic!("miner {miner} says: {text}"),
            _ => {}
        }
    }

    fn stage(&self, id: NodeId) -> usize {
        self.keys.iter().position(|key| key.id() == id).unwrap()
    }

    fn compute(&self, task: &Task, stage: usize) -> (Done, u64) {
        let (root, weights, momentum, outcome) = (None, None, None, Outcome::Ok);
        let mut done =
            Done { output: None, root, state: None, file: None, weights, momentum, loss_q32: None, outcome };
        let Task::Perform { operation, state, .. } = task else { return (done, 0) };
        let block =
            |what: &str, member: &Member| Some(object(&format!("{what} {} of {stage}", member.assignment)));
        let took = match operation {
            Operation::Forward(member) if stage < 2 => {
                done.output = block("forward", member);
                FORWARD
            }
            Operation::Forward(_) => {
                done.loss_q32 = Some(1);
                FORWARD
            }
            Operation::Backward(member) => {
                done.output = block("backward", member).filter(|_| stage > 0);
                BACKWARD
            }
            _ => 0,
        };
        if *state != StateAfter::Untold {
            let after = object(&format!("state of {stage} after {operation}"));
            (done.state, done.file) = (Some(after.digest), Some(after));
        }
        (done, took)
    }
}

/// Stages, members, steps of a window: the share of time idled is (p-1)/(A+p-1) where every step drains the pipeline, and
/// (p-1)/(kA+p-1) where every window does.
#[test]
fn the_pipeline_drains_once_a_window() {
    for (members, window) in [(4, 3), (4, 12), (3, 4), (8, 6)] {
        let mut run = run();
        (run.inner.members, run.epoch.steps, run.epoch.digest_every) = (members, 12, window);
        let fresh = Row::new(run.clone()).idle();
        run.inner.staleness = 1;
        run.check().unwrap();
        let stale = Row::new(run).idle();
        let share = |microbatches: u32| 2.0 / f64::from(microbatches + 2);
        println!(
            "{members} members, windows of {window} steps: idle {:.1} % of the time, {:.1} % with staleness 1; \
             the formulas say {:.1} and {:.1} %",
            100.0 * fresh,
            100.0 * stale,
            100.0 * share(members.into()),
            100.0 * share(u32::from(members) * window)
        );
        assert!((fresh - share(members.into())).abs() < 1e-9, "{fresh}");
        assert!((stale - share(u32::from(members) * window)).abs() < 1e-9, "{stale}");
    }
}
