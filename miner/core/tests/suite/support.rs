//! A world around the miner's core: it holds the body of three stages.

use miner_core::{Config, Done, Effect, Event, Miner, StateAfter, Task};
use spec::{Digest, Member, NodeId, Operation, Outcome, Run};
use std::collections::BTreeSet;
use wire::{
    Assignment, Chain, Grant, Key, Machine, Manifest, Message, ObjectRef, PayloadHead, PayloadKind,
    Presigned, Receipt, Signed, Slot, StageRecord, Transcript, Verb, Welcome,
};

pub const STAGE: usize = 1;

pub struct World {
    pub core: Miner,
    pub config: Config,
    pub run: Run,
    pub now_ms: u64,
    pub journal: Vec<(u64, Event)>,
    pub effects: Vec<Effect>,
    pub transcript: Transcript,
    /// The shell's object table.
    pub table: BTreeSet<Digest>,
    /// Whether every task fails from now on.
    pub engine_fails: bool,
    /// How every operation ends from now on.
    pub outcome: Outcome,
    /// Whether the store answers nothing.
    pub store_fails: bool,
    /// Whether it takes no object before the test says so.
    pub uploads_wait: bool,
    /// Whether the orchestrator refuses every object.
    pub refuses: bool,
    /// Whether pieces open against what was committed to.
    pub pieces_open: bool,
    /// Head, the miner itself, tail.
    pub keys: Vec<Key>,
    chains: Vec<Chain>,
}

pub fn run() -> Run {
    let mut run = Run::from_toml(include_str!("../../../../engine/spec/tests/tiny.toml")).unwrap();
    run.model.stages = vec![1, 1, 1];
    run
}

pub fn object(tag: &str) -> ObjectRef {
    ObjectRef::of(tag.as_bytes())
}

pub fn orchestrator() -> Key {
    Key::from_seed([1; 32])
}

pub fn manifest(run: &Run) -> Manifest {
    let record = |stage| StageRecord {
        weights: object(&format!("weights {stage}")),
        momentum: None,
        miners: Vec::new(),
    };
    Manifest {
        run: run.id(),
        epoch: 0,
        previous: Digest::default(),
        stages: (0..run.model.stage_count()).map(record).collect(),
        loss_q32: None,
    }
}

impl World {
    pub fn new(run: Run) -> Self {
        let keys: Vec<Key> = [10, 11, 12].map(|seed| Key::from_seed([seed; 32])).into();
        let mut transcript = Transcript::default();
        for (key, name) in keys.iter().zip(["head", "body", "tail"]) {
            transcript.name(key.id(), name);
        }
        let config = Config::new(keys[STAGE].clone(), orchestrator().id(), b"token".to_vec(), "iota test");
        let core = Miner::new(config.clone());
        let (journal, effects, table) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self {
            core,
            config,
            run,
            now_ms: 0,
            journal,
            effects,
            transcript,
            table,
            engine_fails: false,
            outcome: Outcome::Ok,
            store_fails: false,
            uploads_wait: false,
            refuses: false,
            pieces_open: true,
            keys,
            chains: vec![Chain::default(); 3],
        }
    }

    /// A world in which the miner's first epoch is open.
    pub fn opened(run: Run) -> Self {
        let mut world = Self::new(run);
        world.join();
        world.open();
        world
    }

    /// One event; the answer is what the core did about it. Store, engine and presigning answer at once.
    pub fn give(&mut self, event: Event) -> Vec<Effect> {
        self.now_ms += 10;
        self.transcript.event(self.now_ms, &event);
        self.journal.push((self.now_ms, event.clone()));
        let effects = self.core.handle(self.now_ms, event);
        for effect in &effects {
            self.transcript.effect(effect);
        }
        self.effects.extend(effects.clone());
        let mut all = effects.clone();
        for effect in effects {
            all.extend(self.perform(effect));
        }
        all
    }

    fn perform(&mut self, effect: Effect) -> Vec<Effect> {
        match effect {
            Effect::Send(Message::Ask(ask)) if self.refuses => {
                self.say(Message::Grant(Grant { ask, answer: Err("nobody draws it".into()) }))
            }
            Effect::Send(Message::Ask(ask)) => {
                let request = Presigned {
                    verb: ask.verb,
                    url: "http://store".into(),
                    headers: Vec::new(),
                    expires_ms: 0,
                };
                self.say(Message::Grant(Grant { ask, answer: Ok(request) }))
            }
            Effect::Fetch { object, .. } if self.store_fails => {
                self.give(Event::StoreFailed { digest: object.digest, why: "timeout".into() })
            }
            Effect::Fetch { object, .. } => {
                self.table.insert(object.digest);
                self.give(Event::Fetched { digest: object.digest })
            }
            Effect::Upload { .. } if self.uploads_wait => Vec::new(),
            Effect::Upload { object, .. } => {
                assert!(self.table.contains(&object.digest), "uploads what it holds");
                self.give(Event::Uploaded { digest: object.digest })
            }
            Effect::SendPayload { block, .. } | Effect::SendPart { block, .. } => {
                assert!(self.table.contains(&block), "sends what it holds");
                Vec::new()
            }
            Effect::Forget(digest) => {
                assert!(self.table.remove(&digest), "forgets what it holds, once");
                Vec::new()
            }
            Effect::Compute { ticket, .. } if self.engine_fails => {
                self.give(Event::TaskFailed { ticket, why: "no memory".into() })
            }
            Effect::Compute { ticket, task } => {
                let done = self.compute(&task);
                self.give(Event::Done { ticket, done })
            }
            _ => Vec::new(),
        }
    }

    fn compute(&mut self, task: &Task) -> Done {
        let mut done = Done {
            output: None,
            root: None,
            state: None,
            file: None,
            weights: None,
            momentum: None,
            loss_q32: None,
            outcome: Outcome::Ok,
        };
        match task {
            Task::Cut { blocks } => done.output = Some(object(&format!("piece {blocks:?}"))),
            Task::Open { piece, .. } => {
                assert!(self.table.contains(piece), "opens what it holds");
                done.output = self.pieces_open.then_some(ObjectRef { digest: *piece, bytes: 1 });
            }
            Task::Keep { .. } => {}
            Task::Explain { order, show, .. } => {
                let needed = order.objects().all(|object| self.table.contains(&object.digest));
                assert!(needed, "performs on what it holds");
                done.output = Some(match show {
                    None => ObjectRef { digest: object("digests").digest, bytes: 32 * 9 },
                    Some(value) => object(&format!("output {value}")),
                });
            }
            Task::Adopt { weights, .. } => assert!(self.table.contains(weights)),
            Task::Perform { operation, inputs, state, keep_weights, .. } => {
                assert!(inputs.iter().all(|input| self.table.contains(input)), "computes on what it holds");
                let tag = format!("{operation:?} on {inputs:?}");
                let gives =
                    !matches!(operation, Operation::Step { .. } | Operation::Encode | Operation::Apply);
                done.outcome = self.outcome;
                let gives = gives && self.outcome == Outcome::Ok;
                done.output = gives.then(|| object(&tag));
                done.root = (*operation == Operation::Encode).then(|| object(&tag).digest);
                let after = object(&format!("state after {tag}"));
                done.state = (*state != StateAfter::Untold).then_some(after.digest);
                done.file = (*state == StateAfter::File).then_some(after);
                done.weights = keep_weights.then(|| object(&format!("weights after {tag}")));
                done.momentum = keep_weights.then(|| object("momentum"));
            }
        }
        let made = [done.output, done.file, done.weights, done.momentum].into_iter().flatten();
        self.table.extend(made.map(|object| object.digest));
        done
    }

    pub fn say(&mut self, message: Message) -> Vec<Effect> {
        self.give(Event::Message(message))
    }

    pub fn join(&mut self) {
        self.give(Event::Connected);
        self.say(self.welcome());
    }

    pub fn welcome(&self) -> Message {
        let manifest = Signed::new(manifest(&self.run), &orchestrator());
        Message::Welcome(Welcome { run: self.run.clone(), stage: Some(1), manifest, chain: Chain::default() })
    }

    pub fn open(&mut self) -> Vec<Effect> {
        self.say(Message::Open(Signed::new(manifest(&self.run), &orchestrator())))
    }

    pub fn assignment(&self, id: u64, step: u32, position: u16) -> Assignment {
        let slot = |key: &Key| Slot {
            miner: key.id(),
            step,
            position,
            members: self.run.inner.members,
            attempt: 0,
            settled: step.saturating_sub(1),
        };
        Assignment { id, epoch: 0, microbatch: id, route: self.keys.iter().map(slot).collect() }
    }

    pub fn assign(&mut self, id: u64, step: u32, position: u16) -> Vec<Effect> {
        self.say(Message::Assign(self.assignment(id, step, position)))
    }

    /// What a neighbour sends for an assignment, after an edit.
    pub fn payload(
        &mut self,
        kind: PayloadKind,
        assignment: &Assignment,
        edit: impl FnOnce(&mut Receipt, &mut PayloadHeadEdit),
    ) -> Event {
        let stage = if kind == PayloadKind::Activation { 0 } else { 2 };
        let member = assignment.member(stage).unwrap();
        let block = object(&format!("{kind:?} of {}", assignment.id));
        let operation = operation(kind, member);
        let mut body = Receipt {
            run: self.run.id(),
            mode: self.run.mode,
            epoch: 0,
            sequence: self.chains[stage].next,
            previous: self.chains[stage].last,
            stage: stage as u16,
            operation,
            state: None,
            input_receipt: None,
            input: None,
            output: Some(block.digest),
            loss_q32: None,
            outcome: Outcome::Ok,
        };
        let mut other =
            PayloadHeadEdit { signer: self.keys[stage].clone(), attempt: member.attempt, forge: false };
        edit(&mut body, &mut other);
        self.chains[stage] = Chain::after(&body);
        let mut receipt = Signed::new(body, &other.signer);
        if other.forge {
            receipt.body.sequence += 1;
        }
        self.table.insert(block.digest);
        let head = PayloadHead { kind, assignment: assignment.id, attempt: other.attempt, receipt };
        Event::Payload { head, block }
    }

    pub fn deliver(&mut self, kind: PayloadKind, id: u64, step: u32, position: u16) -> Vec<Effect> {
        let assignment = self.assignment(id, step, position);
        let event = self.payload(kind, &assignment, |_, _| {});
        self.give(event)
    }

    pub fn receipts(&self) -> Vec<Signed<Receipt>> {
        let receipt = |effect: &Effect| match effect {
            Effect::Send(Message::Receipt(receipt)) => Some(receipt.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(receipt).collect()
    }

    pub fn me(&self) -> NodeId {
        self.keys[STAGE].id()
    }

    pub fn exit(&self) -> Option<Result<String, String>> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Exit(with) => Some(with.clone().map_err(|why| why.to_string())),
            _ => None,
        })
    }
}

/// What a test may change about a payload besides its receipt.
pub struct PayloadHeadEdit {
    pub signer: Key,
    pub attempt: u16,
    /// Break the signature.
    pub forge: bool,
}

pub fn notes(effects: &[Effect]) -> String {
    let note = |effect: &Effect| match effect {
        Effect::Note(text) => Some(text.clone()),
        _ => None,
    };
    effects.iter().filter_map(note).collect()
}

pub fn asks(effects: &[Effect], wanted: Verb) -> usize {
    effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Send(Message::Ask(ask)) if ask.verb == wanted))
        .count()
}

fn operation(kind: PayloadKind, member: Member) -> Operation {
    match kind {
        PayloadKind::Activation => Operation::Forward(member),
        PayloadKind::Gradient => Operation::Backward(member),
    }
}
