//! A world around the orchestrator's core: a store that answers, and miners that are puppets of the test.

use orchestrator_core::{Config, Confirmation, Effect, Ending, Event, Orchestrator, Timeouts};
use spec::{Digest, Member, NodeId, Operation, Outcome, Outer, Run, Window};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use wire::merge::inputs_digest;
use wire::{
    Assignment, AuditOrder, Chain, Finding, Hello, Key, Machine, Manifest, Merged, Message, ObjectRef,
    Receipt, Role, Signed, StageRecord, Transcript, Verdict,
};

pub struct World {
    pub core: Orchestrator,
    pub config: Config,
    pub now_ms: u64,
    pub journal: Vec<(u64, Event)>,
    pub effects: Vec<Effect>,
    pub transcript: Transcript,
    pub puppets: Vec<Puppet>,
    pub validator: Key,
    /// What a second party says of every accusation; `None` if it says nothing.
    pub confirmation: Option<Confirmation>,
    /// Whether the validator says at once of each beginning whether its state is the fresh one.
    pub looks_at_beginnings: bool,
    /// How often each was told to adopt.
    pub turns: BTreeMap<NodeId, u32>,
}

/// A miner whose receipts the test makes.
#[derive(Clone)]
pub struct Puppet {
    pub key: Key,
    pub stage: usize,
    pub chain: Chain,
    pub last: Option<Signed<Receipt>>,
}

pub fn run() -> Run {
    Run::from_toml(include_str!("../../../../engine/spec/tests/tiny.toml")).unwrap()
}

pub fn object(tag: &str) -> ObjectRef {
    ObjectRef::of(tag.as_bytes())
}

/// A secret by which, of an honest epoch of [`run`], the window of step 1 is drawn from both miners and no merge, and by which
/// the validator is not tried with them.
static SECRET: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let is_plain = |secret: &[u8; 32]| {
        let mut world = World::led(config_with(run(), *secret));
        world.start();
        world.everyone_joins();
        world.inner_step(0);
        world.inner_step(1);
        world.merge();
        world.reveal();
        let steps: Vec<u32> = world.effects.iter().flat_map(drawn).map(|(_, window)| window.step).collect();
        let ordered = |effect: &&Effect| matches!(effect, Effect::Send { message: Message::Audit(_), .. });
        // With where each of the two begins.
        steps == [1, 1] && world.effects.iter().filter(ordered).count() == 4
    };
    (0..=u8::MAX).map(|byte| [byte; 32]).find(is_plain).unwrap()
});

pub fn config(run: Run) -> Config {
    config_with(run, *SECRET)
}

fn config_with(run: Run, secret: [u8; 32]) -> Config {
    let key = Key::from_seed([1; 32]);
    let record = |stage| StageRecord {
        weights: object(&format!("weights {stage}")),
        momentum: None,
        miners: Vec::new(),
    };
    let stages = (0..run.model.stage_count()).map(record).collect();
    let first = Manifest { run: run.id(), epoch: 0, previous: Digest::default(), stages, loss_q32: None };
    Config {
        manifest: Signed::new(first, &key),
        run,
        key,
        token: b"token".to_vec(),
        secret,
        validators: 1,
        lanes_at_start: 0,
        mixes_routes: false,
        direct: false,
        timeouts: Timeouts {
            join_ms: 10_000,
            reissue_ms: 100,
            absence_ms: 500,
            seat_grace_ms: 1_000,
            reveal_ms: 4_000,
            uplink_bytes_per_s: 0,
            stall_ms: 5_000,
            lane_patience_percent: 0,
            linger_ms: 4_500,
            confirm_ms: 20_000,
        },
    }
}

impl Puppet {
    /// The next receipt of its chain.
    pub fn receipt(
        &mut self,
        run: &Run,
        operation: Operation,
        edit: impl FnOnce(&mut Receipt),
    ) -> Signed<Receipt> {
        let mut body = Receipt {
            run: run.id(),
            mode: run.mode,
            epoch: 0,
            sequence: self.chain.next,
            previous: self.chain.last,
            stage: u16::try_from(self.stage).unwrap(),
            operation,
            // The first of an epoch binds the state that it began with; no test here goes on to another.
            state: (self.chain.next == 0).then(|| state_before(self.stage, 0).digest),
            input_receipt: None,
            input: None,
            output: None,
            loss_q32: None,
            outcome: Outcome::Ok,
        };
        edit(&mut body);
        self.chain = Chain::after(&body);
        let receipt = Signed::new(body, &self.key);
        self.last = Some(receipt.clone());
        receipt
    }
}

impl World {
    pub fn new(run: Run) -> Self {
        Self::led(config(run))
    }

    fn led(config: Config) -> Self {
        let mut transcript = Transcript::default();
        // The first lane's come first, so that there a puppet's number is its stage.
        let stages = config.run.model.stage_count();
        let puppet = |number| {
            let key = Key::from_seed([10 + number as u8; 32]);
            Puppet { key, stage: number % stages, chain: Chain::default(), last: None }
        };
        let puppets: Vec<Puppet> =
            (0..stages * usize::from(config.run.miners_per_stage)).map(puppet).collect();
        for (number, puppet) in puppets.iter().enumerate() {
            let kind = config.run.model.stage(puppet.stage).unwrap().kind.name();
            let name = if number < stages { kind.to_owned() } else { format!("other {kind}") };
            transcript.name(puppet.key.id(), &name);
        }
        let validator = Key::from_seed([50; 32]);
        transcript.name(validator.id(), "validator");
        let core = Orchestrator::new(config.clone()).unwrap();
        let (journal, effects) = (Vec::new(), Vec::new());
        let confirmation = Some(Confirmation::Proven);
        let (now_ms, looks_at_beginnings) = (0, true);
        Self {
            core,
            config,
            now_ms,
            journal,
            effects,
            transcript,
            puppets,
            validator,
            confirmation,
            looks_at_beginnings,
            turns: BTreeMap::new(),
        }
    }

    /// A world in which everyone is in and the first epoch is open.
    pub fn opened(run: Run) -> Self {
        Self::opened_by(config(run))
    }

    pub fn opened_by(config: Config) -> Self {
        let mut world = Self::led(config);
        world.start();
        world.everyone_joins();
        world
    }

    /// One event; the answer is what the core did about it. The parts of the store and of a
    /// second party are played at once.
    pub fn give(&mut self, event: Event) -> Vec<Effect> {
        self.now_ms += 10;
        self.transcript.event(self.now_ms, &event);
        self.journal.push((self.now_ms, event.clone()));
        let effects = self.core.handle(self.now_ms, event);
        // Whatever a test is about, it goes on from a snapshot after every event.
        self.core = resumed(&self.config, &self.core);
        for effect in &effects {
            self.transcript.effect(effect);
        }
        self.effects.extend(effects.clone());
        let mut all = effects.clone();
        for effect in effects {
            match effect {
                Effect::Send { to, message: Message::Adopt { turn, .. } } => {
                    self.turns.insert(to, turn);
                }
                Effect::Put { object, .. } => all.extend(self.give(Event::Stored { digest: object.digest })),
                Effect::MovePointer { to, .. } => all.extend(self.give(Event::PointerMoved { manifest: to })),
                Effect::Confirm { evidence, .. } => {
                    if let Some(confirmation) = self.confirmation.clone() {
                        all.extend(self.give(Event::Confirmed { evidence, confirmation }));
                    }
                }
                Effect::Send { message: Message::Audit(order), .. }
                    if order.window.is_beginning() && self.looks_at_beginnings =>
                {
                    all.extend(self.look_at(&order));
                }
                _ => {}
            }
        }
        all
    }

    /// The validator's word on where a miner began its epoch.
    pub fn look_at(&mut self, order: &AuditOrder) -> Vec<Effect> {
        let merged = order.receipts.first().and_then(|merge| merge.body.state);
        let fresh = Some(state_before(order.stage.into(), 0).digest);
        let body = &order.start.body;
        let finding = if body.state == fresh || body.state == merged {
            Finding::Equal { operations: 0 }
        } else {
            let [expected, found] = ["the fresh one", "another"].map(Into::into);
            Finding::Unequal { sequence: body.sequence, what: "state".into(), expected, found }
        };
        self.say_verdict(order.miner, order.window, finding)
    }

    pub fn say(&mut self, from: NodeId, message: Message) -> Vec<Effect> {
        self.give(Event::Message { from, message })
    }

    /// A miner stands where an epoch begins, as it was told last.
    pub fn ready(&mut self, from: NodeId, epoch: u32) -> Vec<Effect> {
        let turn = self.turns.get(&from).copied().unwrap_or_default();
        self.say(from, Message::Ready { epoch, turn })
    }

    pub fn start(&mut self) -> Vec<Effect> {
        self.give(Event::Started)
    }

    /// A node that still has what it had is back.
    pub fn hello_again(&mut self, node: NodeId, role: Role) -> Vec<Effect> {
        let hello = Hello { role, token: b"token".to_vec(), software: "iota test".into(), resumes: true };
        self.say(node, Message::Hello(hello))
    }

    pub fn hello(&mut self, from: NodeId, role: Role, token: &[u8]) -> Vec<Effect> {
        let hello = Hello { role, token: token.to_vec(), software: "iota test".into(), resumes: false };
        self.turns.remove(&from);
        self.say(from, Message::Hello(hello))
    }

    pub fn everyone_joins(&mut self) {
        self.hello(self.validator.id(), Role::Validator, b"token");
        for id in self.ids() {
            self.hello(id, Role::Miner, b"token");
        }
        for id in self.ids() {
            self.ready(id, 0);
        }
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.puppets.iter().map(|puppet| puppet.key.id()).collect()
    }

    /// Assignments handed out so far, each once.
    pub fn assignments(&self) -> Vec<Assignment> {
        let head = self.puppets[0].key.id();
        let assigned = |effect: &Effect| match effect {
            Effect::Send { to, message: Message::Assign(assignment) } if *to == head => {
                Some(assignment.clone())
            }
            _ => None,
        };
        self.effects.iter().filter_map(assigned).collect()
    }

    /// Stage `stage` gives its next receipt.
    pub fn works(
        &mut self,
        stage: usize,
        operation: Operation,
        edit: impl FnOnce(&mut Receipt),
    ) -> Vec<Effect> {
        let receipt = self.puppets[stage].receipt(&self.config.run, operation, edit);
        self.say(self.puppets[stage].key.id(), Message::Receipt(receipt))
    }

    /// Forward through every stage; the answer is the last stage's receipts effects.
    pub fn forward(&mut self, assignment: &Assignment) {
        let last = self.puppets.len() - 1;
        for stage in 0..=last {
            let member = assignment.member(stage).unwrap();
            let from = stage.checked_sub(1).map(|stage| self.puppets[stage].last.clone().unwrap());
            self.works(stage, Operation::Forward(member), |receipt| {
                take_input(receipt, from.as_ref());
                receipt.output = (stage < last).then(|| payload(stage, "forward", &member));
                receipt.loss_q32 = (stage == last).then_some(5 << 32);
            });
        }
    }

    /// Backward through every stage.
    pub fn backward(&mut self, assignment: &Assignment) {
        let last = self.puppets.len() - 1;
        for stage in (0..=last).rev() {
            let member = assignment.member(stage).unwrap();
            let from = (stage < last).then(|| self.puppets[stage + 1].last.clone().unwrap());
            self.works(stage, Operation::Backward(member), |receipt| {
                take_input(receipt, from.as_ref());
                receipt.output = (stage > 0).then(|| payload(stage, "backward", &member));
            });
        }
    }

    /// Every stage takes inner step `step`.
    pub fn step(&mut self, step: u32) {
        for stage in 0..self.puppets.len() {
            let of_step =
                |assignment: &Assignment| assignment.member(stage).filter(|member| member.step == step);
            let members: Vec<Member> = self.assignments().iter().filter_map(of_step).collect();
            let state = self.config.run.digests_after(step).then(|| state(stage, step).digest);
            self.works(stage, Operation::Step { step, members }, |receipt| receipt.state = state);
        }
    }

    /// The whole of inner step `step`, done honestly.
    pub fn inner_step(&mut self, step: u32) {
        let due: Vec<Assignment> =
            self.assignments().into_iter().filter(|a| a.route[0].step == step).collect();
        for assignment in &due {
            self.forward(assignment);
            self.backward(assignment);
        }
        self.step(step);
    }

    /// Every stage merges, honestly.
    pub fn merge(&mut self) {
        (0..self.puppets.len()).for_each(|stage| self.merge_stage(stage));
    }

    /// One stage merges.
    pub fn merge_stage(&mut self, stage: usize) {
        let steps = self.config.run.epoch.steps;
        let id = self.puppets[stage].key.id();
        let mut operations = vec![Operation::Apply];
        if self.config.run.outer != Outer::None {
            let blocks = butterfly::blocks(self.config.run.model.stage_parameters(stage));
            let shards = blocks.div_ceil(butterfly::Cut::PAIRS.blocks_max) as u32;
            let reduce = |shard| Operation::Reduce { shard, contributors: vec![id] };
            operations = [Operation::Encode].into_iter().chain((0..shards).map(reduce)).collect();
            operations.push(Operation::Apply);
        }
        let (mut root, mut sums) = (None, Vec::new());
        for operation in operations {
            let name = operation.name();
            let (input, output) = match &operation {
                Operation::Reduce { shard: 0, .. } => (root, object(&format!("{name} {stage}"))),
                Operation::Reduce { shard, .. } => (root, object(&format!("{name} {stage} of {shard}"))),
                Operation::Apply => ((!sums.is_empty()).then(|| inputs_digest(&sums)), new_weights(stage)),
                _ => (None, object(&format!("{name} {stage}"))),
            };
            self.works(stage, operation.clone(), |receipt| {
                receipt.input = input;
                receipt.output = Some(output.digest);
                receipt.state = (name == "apply").then(|| state(stage, steps).digest);
            });
            match operation {
                Operation::Encode => root = Some(inputs_digest(&[output.digest])),
                Operation::Reduce { .. } => sums.push(output.digest),
                _ => {}
            }
        }
        self.merged(stage);
        self.say(id, Message::Kept(new_weights(stage)));
    }

    pub fn merged(&mut self, stage: usize) -> Vec<Effect> {
        let merged = Merged { epoch: 0, weights: new_weights(stage), momentum: Some(object("momentum")) };
        let merged = Signed::new(merged, &self.puppets[stage].key);
        self.say(self.puppets[stage].key.id(), Message::Merged(merged))
    }

    /// Every drawn window is revealed.
    pub fn reveal(&mut self) {
        let drawn: Vec<(NodeId, Window)> = self.effects.iter().flat_map(drawn).collect();
        for (miner, window) in drawn {
            let stage = self.ids().iter().position(|id| *id == miner).unwrap();
            let revealed = self.revealed(stage, window);
            self.say(miner, revealed);
        }
    }

    /// What an honest miner reveals of a window.
    pub fn revealed(&self, stage: usize, window: Window) -> Message {
        let of_step = |a: &Assignment| {
            a.member(stage).filter(|member| (a.epoch, member.step) == (window.epoch, window.step))
        };
        let members: Vec<Member> = self.assignments().iter().filter_map(of_step).collect();
        if window.step >= self.config.run.epoch.steps {
            let sums = (self.config.run.outer != Outer::None).then(|| object(&format!("reduce {stage}")));
            let state = state_before(stage, window.step);
            return Message::Revealed { window, state, inputs: sums.into_iter().collect() };
        }
        let from = if stage == 0 { (1, "backward") } else { (stage - 1, "forward") };
        let input = |member| ObjectRef { digest: payload(from.0, from.1, member), bytes: 100 };
        let inputs = members.iter().map(input).collect();
        Message::Revealed { window, state: state_before(stage, window.step), inputs }
    }

    /// The validator's verdict on a stage's drawn window. Where that is equal, the stage's merge is too, if it is drawn.
    pub fn verdict(&mut self, stage: usize, finding: Finding) -> Vec<Effect> {
        let miner = self.puppets[stage].key.id();
        let of = |(node, window): (NodeId, Window)| (node == miner).then_some(window);
        let window = self.effects.iter().flat_map(drawn).find_map(of).unwrap();
        let merge = self.effects.iter().flat_map(drawn).filter_map(of).find(|w| w.step >= 2);
        let mut effects = Vec::new();
        if let (Some(window), Finding::Equal { .. }) = (merge, &finding) {
            let operations = if self.config.run.outer == Outer::None { 1 } else { 2 };
            effects = self.say_verdict(miner, window, Finding::Equal { operations });
        }
        effects.extend(self.say_verdict(miner, window, finding));
        effects
    }

    pub fn say_verdict(&mut self, miner: NodeId, window: Window, finding: Finding) -> Vec<Effect> {
        let (run, start) = (self.config.run.id(), self.start_of(miner, window));
        let verdict = Verdict { run, miner, window, start, finding };
        let verdict = Signed::new(verdict, &self.validator);
        self.say(self.validator.id(), Message::Verdict(verdict))
    }

    /// The receipt that binds the state before a window.
    pub fn start_of(&self, miner: NodeId, window: Window) -> Digest {
        let binds = |(_, event): &(u64, Event)| match event {
            Event::Message { from, message: Message::Receipt(receipt) } if *from == miner => {
                let body = &receipt.body;
                let binds = body.epoch == window.epoch
                    && match &body.operation {
                        Operation::Step { step, .. } => step.checked_add(1) == Some(window.step),
                        Operation::Forward(_) => {
                            (window.is_beginning() || window.step == 0) && body.state.is_some()
                        }
                        _ => false,
                    };
                binds.then(|| receipt.digest())
            }
            _ => None,
        };
        self.journal.iter().rev().find_map(binds).unwrap_or_default()
    }

    /// Time passes until the core's alarm, again and again, until the run ends; the answer is how.
    pub fn wait_for_the_end(&mut self) -> Ending {
        for _ in 0..20 {
            if let Some(ending) = self.ending() {
                return ending;
            }
            let wake = |effect: &Effect| match effect {
                Effect::WakeAt(at_ms) => Some(*at_ms),
                _ => None,
            };
            let at_ms = self.effects.iter().filter_map(wake).next_back().expect("an alarm is set");
            self.now_ms = self.now_ms.max(at_ms);
            self.give(Event::Woke);
        }
        panic!("no end after 20 alarms");
    }

    pub fn ending(&self) -> Option<Ending> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Finish(ending) => Some(ending.clone()),
            _ => None,
        })
    }
}

/// The windows that an effect draws, and from whom.
pub fn drawn(effect: &Effect) -> Vec<(NodeId, Window)> {
    match effect {
        Effect::Send { to, message: Message::Draw { epoch, steps, .. } } => {
            steps.iter().map(|&step| (*to, Window { epoch: *epoch, step })).collect()
        }
        _ => Vec::new(),
    }
}

fn take_input(receipt: &mut Receipt, from: Option<&Signed<Receipt>>) {
    receipt.input_receipt = from.map(Signed::digest);
    receipt.input = from.and_then(|from| from.body.output);
}

pub fn payload(stage: usize, what: &str, member: &Member) -> Digest {
    object(&format!("{what} {} by {stage}", member.assignment)).digest
}

pub fn state(stage: usize, step: u32) -> ObjectRef {
    object(&format!("state {step} of {stage}"))
}

/// The state that a window beginning with this step starts from.
pub fn state_before(stage: usize, step: u32) -> ObjectRef {
    step.checked_sub(1).map_or_else(|| object(&format!("first state of {stage}")), |step| state(stage, step))
}

pub fn new_weights(stage: usize) -> ObjectRef {
    object(&format!("new weights {stage}"))
}

/// The same core, from the bytes of its snapshot.
pub fn resumed(config: &Config, core: &Orchestrator) -> Orchestrator {
    let snapshot = postcard::from_bytes(&wire::to_bytes(&core.snapshot())).unwrap();
    Orchestrator::restore(config.clone(), snapshot).unwrap()
}

/// The law of the journal: its events give the same effects and the same state again.
pub fn journal_replays_equal(world: &World) {
    let mut again = Orchestrator::new(world.config.clone()).unwrap();
    let effects: Vec<_> =
        world.journal.iter().flat_map(|(now_ms, event)| again.handle(*now_ms, event.clone())).collect();
    assert_eq!(effects, world.effects);
    assert_eq!(again.digest(), world.core.digest());
    let short = world.journal.len() - 1;
    let mut other = Orchestrator::new(world.config.clone()).unwrap();
    for (now_ms, event) in &world.journal[..short] {
        other.handle(*now_ms, event.clone());
    }
    assert_ne!(other.digest(), again.digest(), "the digest must tell states apart");
    snapshots_go_on_alike(world);
}

/// So does the rest of them, from a snapshot after any event.
fn snapshots_go_on_alike(world: &World) {
    let mut core = Orchestrator::new(world.config.clone()).unwrap();
    let mut seen = 0;
    for (at, (now_ms, event)) in world.journal.iter().enumerate() {
        seen += core.handle(*now_ms, event.clone()).len();
        let mut later = resumed(&world.config, &core);
        assert_eq!(later.digest(), core.digest(), "after event {at}");
        let rest = world.journal[at + 1..].iter();
        let effects: Vec<_> = rest.flat_map(|(now_ms, event)| later.handle(*now_ms, event.clone())).collect();
        assert_eq!(effects, world.effects[seen..], "after event {at}");
        assert_eq!(later.digest(), world.core.digest(), "after event {at}");
    }
}
