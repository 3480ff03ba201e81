//! Windows of those who lose their seat, or move to another stage.

use crate::support::{World, config, drawn, object, run};
use orchestrator_core::{Effect, Orchestrator, Report};
use spec::{NodeId, Window};
use wire::{Ask, Finding, Key, Message, ObjectRef, Role, Verb};

/// A world of two heads and a tail, of which the second head and the tail worked in the first epoch; windows of both are drawn.
struct Deserted {
    world: World,
    head: NodeId,
    tail: NodeId,
}

fn first_epoch() -> Deserted {
    let (mut begun, spare) = first_merge();
    begun.world.ready(spare, 1);
    begun
}

/// The same before the second head, which came while the other miners worked, is ready for anything.
fn first_merge() -> (Deserted, NodeId) {
    let mut wide = run();
    (wide.miners_per_stage, wide.epoch.count) = (2, 2);
    let mut world = World::new(run());
    world.config = orchestrator_core::Config { lanes_at_start: 1, ..config(wide) };
    world.core = Orchestrator::new(world.config.clone()).unwrap();
    world.start();
    world.hello(world.validator.id(), Role::Validator, b"token");
    let [head, tail] = world.ids()[..] else { panic!("two stages") };
    let spare = Key::from_seed([60; 32]).id();
    // The spare takes the first seat, and comes late to it.
    world.hello(spare, Role::Miner, b"token");
    world.hello(tail, Role::Miner, b"token");
    world.hello(head, Role::Miner, b"token");
    world.say(spare, Message::Leave { reason: "of a test".into() });
    for miner in [head, tail] {
        world.ready(miner, 0);
    }
    world.hello(spare, Role::Miner, b"token");
    world.inner_step(0);
    world.inner_step(1);
    world.merge();
    assert!(!windows(&world, head).is_empty() && !windows(&world, tail).is_empty());
    (Deserted { world, head, tail }, spare)
}

fn windows(world: &World, of: NodeId) -> Vec<Window> {
    let of_it = |(miner, window)| (miner == of).then_some(window);
    world.effects.iter().flat_map(drawn).filter_map(of_it).collect()
}

/// The tail is gone for good: a head moves to its stage.
fn desert(world: &mut World, tail: NodeId) -> Vec<Effect> {
    world.say(tail, Message::Leave { reason: "of a test".into() });
    world.now_ms += world.config.timeouts.seat_grace_ms;
    world.give(orchestrator_core::Event::Woke)
}

fn told(effects: &[Effect]) -> String {
    let told = effects.iter().filter_map(|effect| match effect {
        Effect::Report(Report::Note { text } | Report::Convicted { why: text, .. }) => Some(text.as_str()),
        _ => None,
    });
    told.collect::<Vec<_>>().join("\n")
}

fn unequal() -> Finding {
    let [expected, found] = ["right", "wrong"].map(|tag| object(tag).digest.to_string());
    Finding::Unequal { sequence: 8, what: "output".into(), expected, found }
}

#[test]
fn what_the_evicted_had_revealed_is_judged_all_the_same() {
    let Deserted { mut world, head, tail } = first_epoch();
    let drawn = windows(&world, tail);
    for &window in &drawn {
        let revealed = world.revealed(1, window);
        world.say(tail, revealed);
    }
    let said = told(&desert(&mut world, tail));
    assert!(said.contains("moves there") && !said.contains("not audited"), "{said}");
    let effects = world.say_verdict(tail, drawn[0], unequal());
    assert!(told(&effects).contains("was convicted"), "{effects:?}");
    let back = |effect: &Effect| matches!(effect, Effect::Report(Report::RolledBack { epoch: 0, .. }));
    assert!(!effects.iter().any(back), "what is drawn from the head is judged first");
    let of_head = windows(&world, head);
    for &window in &of_head {
        let revealed = world.revealed(0, window);
        world.say(head, revealed);
    }
    let equal = Finding::Equal { operations: 5 };
    let judged: Vec<_> =
        of_head.iter().flat_map(|window| world.say_verdict(head, *window, equal.clone())).collect();
    assert!(judged.iter().any(back));
    let refused = world.hello(tail, Role::Miner, b"token");
    assert!(format!("{refused:?}").contains("Banned"), "{refused:?}");
}

#[test]
fn a_stage_that_a_conviction_left_empty_is_refilled_before_everybody_goes_back() {
    let Deserted { mut world, head, tail } = first_epoch();
    for window in windows(&world, tail) {
        let revealed = world.revealed(1, window);
        world.say(tail, revealed);
    }
    let window = windows(&world, tail)[0];
    assert!(told(&world.say_verdict(tail, window, unequal())).contains("was convicted"));
    world.now_ms += world.config.timeouts.absence_ms;
    let said = told(&world.give(orchestrator_core::Event::Woke));
    assert!(said.contains("moves there") && !said.contains("not audited"), "{said}");
    assert!(!windows(&world, head).is_empty() && world.ending().is_none());
}

#[test]
fn what_the_evicted_had_not_revealed_is_lost_by_it() {
    let Deserted { mut world, tail, .. } = first_epoch();
    let drawn = windows(&world, tail).len();
    let said = told(&desert(&mut world, tail));
    assert!(said.contains(&format!("cannot reveal {drawn} drawn windows any more")), "{said}");
    assert!(said.contains("that happened 1 times, 2 are let pass"), "{said}");
}

#[test]
fn who_moves_reveals_what_it_did_in_the_stage_that_it_had() {
    let Deserted { mut world, head, tail } = first_epoch();
    let window = windows(&world, head)[0];
    let Message::Revealed { state, inputs, .. } = world.revealed(0, window) else { panic!("a reveal") };
    let said = told(&desert(&mut world, tail));
    assert!(said.contains(&format!("{} of stage 0 (head) moves there", head.short())), "{said}");
    let grants = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Grant { .. }));
    let mut asks =
        |object: ObjectRef| grants(&world.say(head, Message::Ask(Ask { verb: Verb::Put, object })));
    assert!(asks(state) && inputs.iter().all(|input| asks(*input)));
    let revealed = Message::Revealed { window, state, inputs };
    let effects = world.say(head, revealed);
    let ordered = |effect: &Effect| matches!(effect, Effect::Send { message: Message::Audit(order), .. } if order.stage == 0);
    assert!(effects.iter().any(ordered), "{effects:?}");
    assert!(told(&world.say_verdict(head, window, unequal())).contains("was convicted"));
}

#[test]
fn who_comes_while_others_work_is_not_waited_for() {
    let (Deserted { world, .. }, _) = first_merge();
    let opened = |effect: &&Effect| matches!(effect, Effect::Report(Report::Opened { epoch: 1, .. }));
    assert_eq!(world.effects.iter().filter(opened).count(), 1);
}
