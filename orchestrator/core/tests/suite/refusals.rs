//! What is not let in, not granted, ignored, or answered by closing the connection.

use crate::support::{World, config, drawn, new_weights, object, payload, run, state, state_before};
use orchestrator_core::{ConfigError, Effect, Ending, Orchestrator, Report};
use spec::{Admission, Digest, Member, NodeId, Operation, Outcome, Window};
use wire::merge::inputs_digest;
use wire::{Ask, Finding, Key, Message, ObjectRef, Receipt, Refusal, Role, Signed, Verb, Verdict};

#[test]
fn hellos_are_refused_with_the_reason() {
    let mut world = World::new(run());
    world.start();
    let stranger = Key::from_seed([77; 32]).id();
    assert_eq!(refusal(&world.hello(stranger, Role::Miner, b"wrong")), Some(Refusal::Token));
    world.everyone_joins();
    assert_eq!(refusal(&world.hello(stranger, Role::Miner, b"token")), Some(Refusal::Full));
    assert_eq!(refusal(&world.hello(stranger, Role::Validator, b"token")), Some(Refusal::Full));
    let head = world.ids()[0];
    assert_eq!(refusal(&world.hello(head, Role::Validator, b"token")), Some(Refusal::Full));
    assert_eq!(refusal(&world.hello(head, Role::Miner, b"token")), None, "it has a seat");

    let mut listed = run();
    listed.admission = Admission::Keys(world.ids());
    let mut world = World::new(listed);
    world.start();
    assert_eq!(refusal(&world.hello(stranger, Role::Miner, b"")), Some(Refusal::Key));
    assert_eq!(refusal(&world.hello(world.ids()[0], Role::Miner, b"")), None);
}

#[test]
fn whoever_speaks_before_a_hello_is_disconnected() {
    let mut world = World::new(run());
    world.start();
    let stranger = Key::from_seed([77; 32]).id();
    let effects = world.ready(stranger, 0);
    assert!(disconnects(&effects, stranger), "{effects:?}");
}

#[test]
fn objects_are_granted_to_those_who_need_them_and_to_nobody_else() {
    let mut world = World::opened(run());
    let (head, validator) = (world.ids()[0], world.validator.id());
    let train = ObjectRef::train(&world.config.run.data);
    let window = Window { epoch: 0, step: 1 };
    let input = |world: &World| match world.revealed(0, window) {
        Message::Revealed { inputs, .. } => inputs[0],
        _ => unreachable!("a revealed message"),
    };
    assert!(granted(&mut world, head, Verb::Get, object("weights 0")));
    assert!(granted(&mut world, head, Verb::Get, train));
    assert!(granted(&mut world, validator, Verb::Get, train));
    assert!(!granted(&mut world, head, Verb::Get, object("weights 1")), "another stage's weights");
    assert!(!granted(&mut world, head, Verb::Get, ObjectRef { bytes: 1, ..train }), "another length");
    assert!(!granted(&mut world, head, Verb::Put, train), "nobody writes the data");
    assert!(!granted(&mut world, head, Verb::Put, new_weights(0)), "before its apply");
    world.inner_step(0);
    world.inner_step(1);
    assert!(!granted(&mut world, head, Verb::Put, state(0, 0)), "before the draw");
    let last = world.puppets.len() - 1;
    for stage in 0..=last {
        for operation in ["encode", "reduce", "apply"] {
            merge_operation(&mut world, stage, operation);
        }
    }
    assert!(!granted(&mut world, head, Verb::Put, new_weights(0)), "before it is asked to keep them");
    world.merged(0);
    assert!(granted(&mut world, head, Verb::Put, new_weights(0)));
    let vast = ObjectRef { bytes: 1 << 40, ..new_weights(0) };
    assert!(!granted(&mut world, head, Verb::Put, vast), "longer than weights can be");
    for stage in 0..=last {
        world.merged(stage);
        world.say(world.puppets[stage].key.id(), Message::Kept(new_weights(stage)));
    }
    assert!(granted(&mut world, head, Verb::Put, state(0, 0)));
    let drawn = input(&world);
    assert!(granted(&mut world, head, Verb::Put, drawn));
    let tail = world.ids()[1];
    assert!(!granted(&mut world, tail, Verb::Put, state(0, 0)), "another miner's state");
    assert!(!granted(&mut world, validator, Verb::Get, state(0, 0)), "before the order");
    world.reveal();
    assert!(granted(&mut world, validator, Verb::Get, state(0, 0)));
    assert!(granted(&mut world, validator, Verb::Get, drawn));
    assert!(!granted(&mut world, validator, Verb::Put, drawn), "validators write nothing");
}

#[test]
fn receipts_that_lie_close_the_connection() {
    // What is edited, given a member of the step after.
    type Edit = fn(&mut Receipt, Member);
    let edits: [(&str, Edit); 9] = [
        ("breaks its chain: receipt 5 came where 0 was due", |r, _| r.sequence = 5),
        ("breaks its chain: receipt 0 follows", |r, _| r.previous = Digest([9; 32])),
        ("belongs to another run", |r, _| r.run = Digest([9; 32])),
        ("belongs to another run, mode or stage", |r, _| r.stage = 1),
        ("lacks a field which a forward of its stage needs: output", |r, _| r.output = None),
        ("has a field which a forward of its stage has not: loss", |r, _| r.loss_q32 = Some(1)),
        ("has a field which a forward of its stage has not: input", |r, _| r.input = Some(Digest([9; 32]))),
        ("does not step on what was folded", |r, _| {
            (r.operation, r.output) = (Operation::Step { step: 0, members: Vec::new() }, None);
            r.state = Some(Digest([9; 32]));
        }),
        ("out of its turn", |r, later| r.operation = Operation::Forward(later)),
    ];
    for (why, edit) in edits {
        let mut world = World::opened(run());
        let [first, _, later, _] = [0, 1, 2, 3].map(|at| world.assignments()[at].member(0).unwrap());
        let effects = world.works(0, Operation::Forward(first), |receipt| {
            receipt.output = Some(payload(0, "forward", &first));
            edit(receipt, later);
        });
        let head = world.ids()[0];
        assert!(disconnects(&effects, head), "{why}: {effects:?}");
        assert!(format!("{effects:?}").contains(why), "{why}: {effects:?}");
    }
}

/// Four steps in windows of two, on weights one step old.
fn stale() -> spec::Run {
    let mut run = run();
    (run.inner.staleness, run.epoch.steps, run.epoch.digest_every) = (1, 4, 2);
    run
}

#[test]
fn forwards_of_a_stale_step_come_before_the_step_and_nothing_else_does() {
    let mut world = World::opened(stale());
    // The step in work, the one whose forwards run, and the one that fills the pipeline after it.
    assert_eq!(world.assignments().len(), 3 * 2);
    for window in [0, 2] {
        let of_step = |world: &World, step: u32| -> Vec<_> {
            world.assignments().into_iter().filter(|a| a.route[0].step == step).collect()
        };
        let [first, second] = [window, window + 1].map(|step| of_step(&world, step));
        first.iter().chain(&second).for_each(|assignment| world.forward(assignment));
        for (step, assignments) in [(window, first), (window + 1, second)] {
            assignments.iter().for_each(|assignment| world.backward(assignment));
            world.step(step);
        }
    }
    let stepped = |effect: &&Effect| matches!(effect, Effect::Report(Report::Stepped { .. }));
    assert_eq!(world.effects.iter().filter(stepped).count(), 4);
    assert!(!world.effects.iter().any(|effect| matches!(effect, Effect::Disconnect { .. })));

    // Assignments that are done, and the operation that is out of its turn after them.
    type Turn = fn(Member) -> Operation;
    let early: [(&str, &[usize], usize, Turn); 4] = [
        ("the epoch's first", &[], 2, Operation::Forward),
        ("of another window", &[0, 1, 2, 3], 4, Operation::Forward),
        ("two steps ahead", &[0], 4, Operation::Forward),
        ("a backward", &[0, 1, 2], 2, Operation::Backward),
    ];
    for (what, done, of, turn) in early {
        let mut world = World::opened(stale());
        let assignments = world.assignments();
        done.iter().for_each(|&at| world.forward(&assignments[at]));
        let effects = world.works(0, turn(assignments[of].member(0).unwrap()), |receipt| {
            let backward = matches!(receipt.operation, Operation::Backward(_));
            receipt.output = (!backward).then_some(Digest([9; 32]));
            [receipt.input, receipt.input_receipt] = [backward.then_some(Digest([9; 32])); 2];
        });
        let head = world.ids()[0];
        assert!(disconnects(&effects, head), "{what}: {effects:?}");
        assert!(format!("{effects:?}").contains("out of its turn"), "{what}: {effects:?}");
    }
}

#[test]
fn a_forged_signature_and_a_second_truth_close_the_connection() {
    let mut world = World::opened(run());
    let member = world.assignments()[0].member(0).unwrap();
    let run = world.config.run.clone();
    let mut puppet = world.puppets[0].clone();
    let output = Some(payload(0, "forward", &member));
    let good = puppet.receipt(&run, Operation::Forward(member), |receipt| receipt.output = output);
    let mut forged = good.clone();
    forged.body.output = Some(Digest([9; 32]));
    let head = world.ids()[0];
    let effects = world.say(head, Message::Receipt(forged.clone()));
    assert!(
        disconnects(&effects, head) && format!("{effects:?}").contains("cannot be trusted"),
        "{effects:?}"
    );

    let mut world = World::opened(run);
    world.say(head, Message::Receipt(good.clone()));
    let repeated = world.say(head, Message::Receipt(good));
    assert!(notes(&repeated).contains("was given before"), "{repeated:?}");
    let other = Signed::new(forged.body, &world.puppets[0].key);
    let effects = world.say(head, Message::Receipt(other));
    assert!(disconnects(&effects, head), "{effects:?}");
    assert!(format!("{effects:?}").contains("was convicted of equivocation"), "{effects:?}");
}

#[test]
fn nothing_is_folded_twice_and_nothing_unassigned_once() {
    let mut world = World::opened(run());
    let first = world.assignments()[0].clone();
    let member = first.member(0).unwrap();
    world.forward(&first);
    let again = world.works(0, Operation::Forward(member), |r| r.output = Some(Digest([8; 32])));
    assert!(notes(&again).contains("a second time"), "{again:?}");
    let unknown = Member { assignment: 999, ..member };
    let effects = world.works(0, Operation::Forward(unknown), |r| r.output = Some(Digest([8; 32])));
    assert!(notes(&effects).contains("assignment 999, which is not its own"), "{effects:?}");
    let silent = world.works(0, Operation::Forward(unknown), |r| r.output = Some(Digest([7; 32])));
    assert_eq!(notes(&silent), "", "said once for each node and kind");
    let losses = |world: &World| world.transcript.text().matches("loss 5.0000\n").count();
    assert_eq!(losses(&world), 2, "one receipt and one report");
}

#[test]
fn who_claims_a_payload_that_was_not_signed_is_turned_away_whoever_comes_first() {
    for producer_first in [true, false] {
        let mut world = World::opened(run());
        let [head, tail] = world.ids()[..] else { panic!("two stages") };
        let assignment = world.assignments()[0].clone();
        let [from, to] = [0, 1].map(|stage| assignment.member(stage).unwrap());
        let made = |r: &mut Receipt| r.output = Some(payload(0, "forward", &from));
        let claimed = |r: &mut Receipt| {
            r.input = Some(Digest([6; 32]));
            r.input_receipt = Some(Digest([7; 32]));
            r.loss_q32 = Some(1);
        };
        let effects = if producer_first {
            world.works(0, Operation::Forward(from), made);
            world.works(1, Operation::Forward(to), claimed)
        } else {
            world.works(1, Operation::Forward(to), claimed);
            world.works(0, Operation::Forward(from), made)
        };
        assert!(disconnects(&effects, tail) && !disconnects(&effects, head), "{effects:?}");
    }
}

#[test]
fn nan_that_nobody_is_to_blame_for_takes_everybody_back_once_and_then_ends_the_run_in_words() {
    let mut world = World::opened(run());
    let ids = world.ids();
    for time in 0..2 {
        let member = world.assignments()[4 * time].member(0).unwrap();
        let begun = world.effects.len();
        world.works(0, Operation::Forward(member), |receipt| {
            receipt.outcome = Outcome::NonFinite;
            receipt.state = Some(state_before(0, 0).digest);
        });
        assert_eq!(
            world.effects[begun..].iter().flat_map(drawn).collect::<Vec<_>>(),
            [(ids[0], Window { epoch: 0, step: 0 })]
        );
        world.say(
            ids[0],
            Message::Revealed {
                window: Window { epoch: 0, step: 0 },
                state: state_before(0, 0),
                inputs: vec![],
            },
        );
        assert_eq!(world.ending(), None, "it is found out first");
        world.verdict(0, Finding::Equal { operations: 1 });
        for &id in &ids {
            world.ready(id, 0);
        }
    }
    let Some(Ending::Failed { why }) = world.ending() else { panic!("it goes on") };
    for part in ["met NaN or infinity in its forward", "nobody was found to lie", "lower inner.lr"] {
        assert!(why.contains(part), "{why}");
    }
}

#[test]
fn a_miner_that_reveals_something_else_is_turned_away() {
    let mut world = World::opened(run());
    world.inner_step(0);
    world.inner_step(1);
    world.merge();
    let head = world.ids()[0];
    let window = Window { epoch: 0, step: 1 };
    let other = Message::Revealed { window, state: state(0, 0), inputs: vec![object("another input")] };
    let effects = world.say(head, other);
    assert!(disconnects(&effects, head), "{effects:?}");
}

#[test]
fn verdicts_count_only_from_the_validator_that_was_asked() {
    let mut world = World::opened(run());
    world.inner_step(0);
    world.inner_step(1);
    world.merge();
    let early = world.verdict(0, Finding::Equal { operations: 5 });
    assert!(notes(&early).contains("was not ordered"), "{early:?}");
    world.reveal();
    let short = world.verdict(0, Finding::Equal { operations: 4 });
    assert!(notes(&short).contains("another number of operations"), "{short:?}");
    let head = world.ids()[0];
    let window = Window { epoch: 0, step: 1 };
    let (run, finding) = (world.config.run.id(), Finding::Withheld { digest: Digest([1; 32]) });
    let verdict = Verdict { run, miner: head, window, start: world.start_of(head, window), finding };
    let forged = Signed::new(verdict, &world.puppets[1].key);
    let effects = world.say(world.validator.id(), Message::Verdict(forged));
    assert!(disconnects(&effects, world.validator.id()), "{effects:?}");
    assert!(world.ending().is_none());
}

#[test]
fn configurations_that_cannot_run_say_why() {
    let check = |edit: fn(&mut orchestrator_core::Config)| {
        let mut config = config(run());
        edit(&mut config);
        Orchestrator::new(config).unwrap_err()
    };
    assert!(check(|c| c.validators = 0).to_string().contains("at least 1, because audit.windows"));
    assert!(matches!(check(|c| c.run.seed += 1), ConfigError::OtherRun { .. }));
    assert!(matches!(check(|c| c.key = Key::from_seed([4; 32])), ConfigError::Signer { .. }));
    assert!(matches!(check(|c| c.manifest.body.epoch = 7), ConfigError::Signature(_)));
    assert!(matches!(check(|c| c.run.inner.lr = -1.0), ConfigError::Run(_)));
}

fn merge_operation(world: &mut World, stage: usize, name: &str) {
    let contributors = vec![world.puppets[stage].key.id()];
    let before = world.puppets[stage].last.clone().filter(|_| name != "encode");
    let before = before.and_then(|before| before.body.output);
    let (operation, output) = match name {
        "encode" => (Operation::Encode, object(&format!("encode {stage}"))),
        "reduce" => (Operation::Reduce { shard: 0, contributors }, object(&format!("reduce {stage}"))),
        _ => (Operation::Apply, new_weights(stage)),
    };
    world.works(stage, operation, |receipt| {
        receipt.input = before.map(|output| inputs_digest(&[output]));
        receipt.output = Some(output.digest);
        receipt.state = (name == "apply").then(|| state(stage, 2).digest);
    });
}

fn granted(world: &mut World, node: NodeId, verb: Verb, object: ObjectRef) -> bool {
    let effects = world.say(node, Message::Ask(Ask { verb, object }));
    let yes = effects.iter().any(|effect| matches!(effect, Effect::Grant { to, .. } if *to == node));
    let no = effects.iter().any(|effect| matches!(effect, Effect::Send { message: Message::Grant(_), .. }));
    assert!(yes != no, "{effects:?}");
    yes
}

fn refusal(effects: &[Effect]) -> Option<Refusal> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { message: Message::Refused(refusal), .. } => Some(refusal.clone()),
        _ => None,
    })
}

fn disconnects(effects: &[Effect], node: NodeId) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Disconnect { peer, .. } if *peer == node))
}

fn notes(effects: &[Effect]) -> String {
    let note = |effect: &Effect| match effect {
        Effect::Report(Report::Note { text }) => Some(text.clone()),
        _ => None,
    };
    effects.iter().filter_map(note).collect()
}
