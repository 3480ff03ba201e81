//! A world around the validator's core: one honest window of a tail, to be spoilt by the tests.

use spec::{Digest, Member, Operation, Outcome, Run, Window};
use std::collections::BTreeSet;
use validator_core::{Config, Effect, Event, Replay, Replayed, Validator};
use wire::merge::inputs_digest;
use wire::{
    AuditOrder, Chain, Finding, Grant, Key, Machine, Manifest, MergeInputs, Message, ObjectRef, Presigned,
    Receipt, Signed, StageRecord, Transcript, Welcome,
};

pub struct World {
    pub core: Validator,
    pub config: Config,
    pub run: Run,
    pub now_ms: u64,
    pub journal: Vec<(u64, Event)>,
    pub effects: Vec<Effect>,
    pub transcript: Transcript,
    /// The shell's object table.
    pub table: BTreeSet<Digest>,
    /// What the store does not have.
    pub absent: Option<Digest>,
    /// What the replay of the operation at this place gives instead.
    pub replay: fn(usize, Replayed) -> Option<Replayed>,
}

pub fn run() -> Run {
    Run::from_toml(include_str!("../../../../engine/spec/tests/tiny.toml")).unwrap()
}

pub fn object(tag: &str) -> ObjectRef {
    ObjectRef::of(tag.as_bytes())
}

pub fn miner() -> Key {
    Key::from_seed([11; 32])
}

fn orchestrator() -> Key {
    Key::from_seed([1; 32])
}

/// An order as an honest tail and orchestrator make it; `edit` may spoil receipt bodies before they are
/// chained and signed.
pub fn order(edit: impl Fn(usize, &mut Receipt)) -> AuditOrder {
    let members = vec![member(1, 0), member(1, 1)];
    let turn = |&member: &Member| [Operation::Forward(member), Operation::Backward(member)];
    let mut operations: Vec<Operation> = members.iter().flat_map(turn).collect();
    operations.push(Operation::Step { step: 1, members });
    order_of(&run(), 1, operations, edit)
}

/// A member of a step of two.
pub fn member(step: u32, position: u16) -> Member {
    let microbatch = 2 * u64::from(step) + u64::from(position);
    Member { assignment: microbatch, attempt: 0, step, position, microbatch }
}

/// The order of the tail's window that begins with step `first`, of these operations.
pub fn order_of(
    run: &Run,
    first: u32,
    operations: Vec<Operation>,
    edit: impl Fn(usize, &mut Receipt),
) -> AuditOrder {
    let before = Operation::Step { step: first - 1, members: Vec::new() };
    let binds =
        |operation: &Operation| matches!(operation, Operation::Step { step, .. } if run.digests_after(*step));
    let operations: Vec<Operation> = [before].into_iter().chain(operations).collect();
    let forwards = operations.iter().enumerate().filter(|(_, of)| matches!(of, Operation::Forward(_)));
    let inputs = forwards.map(|(at, _)| input(at)).collect();
    let state = object("state");
    let mut chain = Chain { next: 4, last: Digest([4; 32]) };
    let mut receipts: Vec<Signed<Receipt>> = Vec::new();
    for (at, operation) in operations.into_iter().enumerate() {
        let forward = matches!(operation, Operation::Forward(_));
        let input = forward.then(|| input(at));
        let (replayed, bound) = (honest(at, &operation), binds(&operation));
        let mut body = Receipt {
            run: run.id(),
            mode: run.mode,
            epoch: 0,
            sequence: chain.next,
            previous: chain.last,
            stage: 1,
            operation,
            state: if at == 0 { Some(state.digest) } else { replayed.state.filter(|_| bound) },
            input_receipt: input.map(|_| Digest([5; 32])),
            input: input.map(|input| input.digest),
            output: replayed.output,
            loss_q32: replayed.loss_q32,
            outcome: replayed.outcome,
        };
        edit(at, &mut body);
        chain = Chain::after(&body);
        receipts.push(Signed::new(body, &miner()));
    }
    let start = receipts.remove(0);
    AuditOrder {
        miner: miner().id(),
        stage: 1,
        window: Window { epoch: 0, step: first },
        weights: object("weights").digest,
        state,
        start,
        receipts,
        inputs,
        merge: None,
    }
}

/// The order to judge the merge of the same tail, which merges with another: scales, encoding, a sum, the outer step. `edit` as
/// above; the start is number 0.
pub fn merge_order(edit: impl Fn(usize, &mut Receipt)) -> AuditOrder {
    let scales = [object("my scales"), object("other scales")];
    let sums = [object("sum 0"), object("sum 1")];
    let of = |objects: &[ObjectRef]| objects.iter().map(|object| object.digest).collect::<Vec<_>>();
    let reduce = Operation::Reduce { shard: 0, contributors: vec![miner().id()] };
    let operations = [
        Operation::Step { step: 1, members: vec![] },
        Operation::Scale,
        Operation::Encode,
        reduce,
        Operation::Apply,
    ];
    let inputs = [None, None, Some(of(&scales)), Some(vec![Digest([6; 32])]), Some(of(&sums))];
    let (run, state) = (run(), object("state"));
    let mut chain = Chain { next: 9, last: Digest([4; 32]) };
    let mut receipts: Vec<Signed<Receipt>> = Vec::new();
    for (at, (operation, input)) in operations.into_iter().zip(inputs).enumerate() {
        let mut body = Receipt {
            run: run.id(),
            mode: run.mode,
            epoch: 0,
            sequence: chain.next,
            previous: chain.last,
            stage: 1,
            operation: operation.clone(),
            state: match at {
                0 => Some(state.digest),
                4 => Some(object("state after").digest),
                _ => None,
            },
            input_receipt: None,
            input: input.map(|input| inputs_digest(&input)),
            output: (at > 0).then(|| object(&format!("output of {}", operation.name())).digest),
            loss_q32: None,
            outcome: Outcome::Ok,
        };
        edit(at, &mut body);
        chain = Chain::after(&body);
        receipts.push(Signed::new(body, &miner()));
    }
    let anchor = object("weights");
    let merge = MergeInputs { anchor, scales: of(&scales), sums: of(&sums) };
    AuditOrder {
        miner: miner().id(),
        stage: 1,
        window: Window { epoch: 0, step: run.epoch.steps },
        weights: anchor.digest,
        state,
        start: receipts.remove(0),
        receipts,
        inputs: scales.into_iter().chain(sums).collect(),
        merge: Some(merge),
    }
}

/// What a beginning is to be held against.
pub struct Beginning {
    /// The state with which the tail says that it began epoch 1.
    pub state: ObjectRef,
    /// The state that the tail's merge came to, if it is among those who merged.
    pub merged: Option<ObjectRef>,
}

/// The order to look where the tail began epoch 1; `edit` may spoil the bodies of its merge (0) and its first forward (1).
pub fn beginning(of: Beginning, edit: impl Fn(usize, &mut Receipt)) -> AuditOrder {
    let run = run();
    let (weights, momentum) = (object("weights"), object("momentum"));
    let member = Member { assignment: 9, attempt: 0, step: 0, position: 0, microbatch: 9 };
    let sign = |at: usize, (epoch, sequence): (u32, u64), operation, [output, state]: [Option<Digest>; 2]| {
        let forwards = at == 1;
        let mut body = Receipt {
            run: run.id(),
            mode: run.mode,
            epoch,
            sequence,
            previous: Digest([4; 32]),
            stage: 1,
            operation,
            state,
            input_receipt: forwards.then_some(Digest([5; 32])),
            input: Some(Digest([6; 32])),
            output,
            loss_q32: forwards.then_some(5 << 32),
            outcome: Outcome::Ok,
        };
        edit(at, &mut body);
        Signed::new(body, &miner())
    };
    let apply =
        |state: ObjectRef| sign(0, (0, 11), Operation::Apply, [Some(weights.digest), Some(state.digest)]);
    AuditOrder {
        miner: miner().id(),
        stage: 1,
        window: Window::beginning(1),
        weights: weights.digest,
        state: weights,
        start: sign(1, (1, 12), Operation::Forward(member), [None, Some(of.state.digest)]),
        receipts: of.merged.into_iter().map(apply).collect(),
        inputs: vec![momentum],
        merge: None,
    }
}

fn input(at: usize) -> ObjectRef {
    object(&format!("input {at}"))
}

/// What the operation of receipt `at`, the start included, gives.
fn honest(at: usize, operation: &Operation) -> Replayed {
    if let Operation::Scale | Operation::Encode | Operation::Apply = operation {
        let output = Some(object(&format!("output of {}", operation.name())).digest);
        let state = (*operation == Operation::Apply).then(|| object("state after").digest);
        return Replayed { output, state, loss_q32: None, outcome: Outcome::Ok };
    }
    let backward = matches!(operation, Operation::Backward(_));
    let forward = matches!(operation, Operation::Forward(_));
    Replayed {
        output: backward.then(|| object(&format!("output {at}")).digest),
        state: matches!(operation, Operation::Step { .. }).then(|| object("state after").digest),
        loss_q32: forward.then_some(5 << 32),
        outcome: Outcome::Ok,
    }
}

impl World {
    pub fn new() -> Self {
        let key = Key::from_seed([50; 32]);
        let mut transcript = Transcript::default();
        transcript.name(miner().id(), "the tail");
        let config = Config::new(key, orchestrator().id(), b"token".to_vec(), "iota test");
        let core = Validator::new(config.clone());
        Self {
            core,
            config,
            run: run(),
            now_ms: 0,
            journal: Vec::new(),
            effects: Vec::new(),
            transcript,
            table: BTreeSet::new(),
            absent: None,
            replay: |_, honest| Some(honest),
        }
    }

    /// A world in which the validator is in.
    pub fn joined() -> Self {
        let mut world = Self::new();
        world.join();
        world
    }

    pub fn join(&mut self) {
        self.give(Event::Connected);
        let record = |stage| StageRecord { weights: object(stage), momentum: None, miners: Vec::new() };
        let manifest = Manifest {
            run: self.run.id(),
            epoch: 0,
            previous: Digest::default(),
            stages: ["head", "tail"].map(record).into(),
            loss_q32: None,
        };
        let manifest = Signed::new(manifest, &orchestrator());
        self.say(Message::Welcome(Welcome {
            run: self.run.clone(),
            stage: None,
            manifest,
            chain: wire::Chain::default(),
        }));
    }

    pub fn say(&mut self, message: Message) -> Vec<Effect> {
        self.give(Event::Message(message))
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
            Effect::Send(Message::Ask(ask)) => {
                let request = Presigned {
                    verb: ask.verb,
                    url: "http://store".into(),
                    headers: Vec::new(),
                    expires_ms: 0,
                };
                self.say(Message::Grant(Grant { ask, answer: Ok(request) }))
            }
            Effect::Fetch { object, .. } if self.absent == Some(object.digest) => {
                self.give(Event::StoreFailed { digest: object.digest, missing: true, why: "404".into() })
            }
            Effect::Fetch { object, .. } => {
                self.table.insert(object.digest);
                self.give(Event::Fetched { digest: object.digest })
            }
            Effect::Forget(digest) => {
                assert!(self.table.remove(&digest), "forgets what it holds, once");
                Vec::new()
            }
            Effect::Build { weights, momentum, .. } => {
                assert!(
                    [Some(weights), momentum].into_iter().flatten().all(|made| self.table.contains(&made))
                );
                self.give(Event::Built { state: object("fresh").digest })
            }
            Effect::Replay { state, operations, run, anchor, .. } => {
                let inputs = operations.iter().flat_map(|operation| operation.inputs.clone());
                let needed = inputs.chain(anchor).chain([state, run.data.train]);
                assert!(
                    needed.into_iter().all(|digest| self.table.contains(&digest)),
                    "replays what it holds"
                );
                let results: Vec<Replayed> =
                    operations.iter().enumerate().map_while(|(at, o)| self.redo(at, o)).collect();
                let stopped =
                    (results.len() < operations.len()).then(|| "the payload is no payload".to_owned());
                self.give(Event::Replayed { results, stopped })
            }
            _ => Vec::new(),
        }
    }

    fn redo(&self, at: usize, operation: &Replay) -> Option<Replayed> {
        (self.replay)(at, honest(at + 1, &operation.operation))
    }

    /// What the validator says of an order.
    pub fn finding(&mut self, order: AuditOrder) -> Finding {
        let (miner, window) = (order.miner, order.window);
        let effects = self.say(Message::Audit(order));
        let verdict = |effect: &Effect| match effect {
            Effect::Send(Message::Verdict(verdict)) => Some(verdict.verify().unwrap().clone()),
            _ => None,
        };
        let verdict = effects.iter().find_map(verdict).expect("a verdict");
        assert_eq!((verdict.run, verdict.miner, verdict.window), (self.run.id(), miner, window));
        verdict.finding
    }

    pub fn exit(&self) -> Option<Result<String, String>> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Exit(with) => Some(with.clone().map_err(|why| why.to_string())),
            _ => None,
        })
    }
}
