//! What goes from one epoch to the next: the state that each miner begins with, and whose work weighs nothing.

use crate::support::{World, config, drawn, object, run, state};
use orchestrator_core::{Effect, Orchestrator, Report};
use spec::{Admission, Digest, Operation, Run};
use wire::{Finding, Message, Role};

fn two_epochs() -> Run {
    let mut longer = run();
    longer.epoch.count = 2;
    longer
}

/// A world whose second epoch is open.
fn second_epoch() -> World {
    let mut world = World::opened(two_epochs());
    world.inner_step(0);
    world.inner_step(1);
    world.merge();
    assert_eq!(world.transcript.text().matches("report: epoch 1 opened").count(), 1);
    world
}

/// The head begins the second epoch in this state; what the core did about it.
fn begins(world: &mut World, state: Digest) -> Vec<Effect> {
    let assignments = world.assignments();
    let first = assignments
        .iter()
        .rev()
        .filter(|a| a.epoch == 1)
        .find(|a| a.route[0].position == 0 && a.route[0].step == 0);
    let member = first.unwrap().member(0).unwrap();
    world.works(0, Operation::Forward(member), |receipt| {
        (receipt.epoch, receipt.state) = (1, Some(state));
        receipt.output = Some(object("forward of the second epoch").digest);
    })
}

fn is_convicted(effects: &[Effect]) -> bool {
    let told = format!("{effects:?}");
    effects.iter().any(|effect| matches!(effect, Effect::Report(Report::Convicted { .. })))
        && told.contains("of another state: it begins epoch 1")
}

#[test]
fn an_epoch_begins_in_the_state_that_the_one_before_ended_in() {
    let came_to = state(0, 2).digest;
    assert!(!is_convicted(&begins(&mut second_epoch(), came_to)));
    assert!(is_convicted(&begins(&mut second_epoch(), object("other moments").digest)));
}

#[test]
fn the_chain_of_a_miner_that_was_started_again_says_so() {
    let mut world = second_epoch();
    let [head, tail] = world.ids()[..] else { panic!("two stages") };
    let before = world.puppets[0].chain;
    let effects = world.hello(head, Role::Miner, b"token");
    let welcomed = effects.iter().find_map(|effect| match effect {
        Effect::Send { to, message: Message::Welcome(welcome) } if *to == head => Some(welcome.chain),
        _ => None,
    });
    let chain = welcomed.unwrap();
    assert_eq!((chain.next, chain), (before.next, before.broken()));
    world.puppets[0].chain = chain;
    for miner in [head, tail] {
        world.say(miner, Message::Ready { epoch: 1 });
    }
    // What it had is gone, and everybody sees that: nothing is said of the moments that it has now.
    assert!(!is_convicted(&begins(&mut world, object("fresh moments").digest)));
    // Beginning the same epoch once more, it stands where it stood.
    world.say(tail, Message::Leave { reason: "of a test".into() });
    world.hello(tail, Role::Miner, b"token");
    for miner in [head, tail] {
        world.say(miner, Message::Ready { epoch: 1 });
    }
    assert!(is_convicted(&begins(&mut world, object("other moments").digest)));
}

#[test]
fn who_is_on_probation_weighs_nothing_until_a_window_is_equal() {
    let mut open = two_epochs();
    let tail = World::new(run()).ids()[1];
    open.admission = Admission::Open { founders: vec![tail] };
    let mut world = World::new(open.clone());
    world.core = Orchestrator::new(config(open)).unwrap();
    world.start();
    world.hello(world.validator.id(), Role::Validator, b"");
    let [head, tail] = world.ids()[..] else { panic!("two stages") };
    let notes = format!("{:?}", [world.hello(head, Role::Miner, b""), world.hello(tail, Role::Miner, b"")]);
    assert_eq!(notes.matches("is on probation").count(), 1, "the founder is not: {notes}");
    for miner in [head, tail] {
        world.say(miner, Message::Ready { epoch: 0 });
    }
    world.inner_step(0);
    world.inner_step(1);
    let asked = |effect: &Effect| match effect {
        Effect::Send { to, message: Message::Merge(_) } => Some(*to),
        _ => None,
    };
    assert_eq!(world.effects.iter().filter_map(asked).collect::<Vec<_>>(), [tail]);
    world.merge_stage(1);
    let before = &world.config.manifest.body.stages;
    let after = world.core.manifest().body.clone();
    assert_eq!((after.epoch, after.stages[0].weights), (1, before[0].weights), "nothing is merged into it");
    assert!(after.stages[0].miners.is_empty() && after.stages[1].miners == [tail]);
    let adopts = |effect: &Effect| matches!(effect, Effect::Send { to, message: Message::Adopt { .. } } if *to == head);
    assert!(world.effects.iter().any(adopts));
    // Its window is drawn like anybody's.
    let of_head = |(miner, window)| (miner == head).then_some(window);
    let window = world.effects.iter().flat_map(drawn).find_map(of_head).unwrap();
    let revealed = world.revealed(0, window);
    world.say(head, revealed);
    let said = world.verdict(0, Finding::Equal { operations: 5 });
    assert!(format!("{said:?}").contains("is on probation no longer"), "{said:?}");
    // Coming again it is known.
    world.say(head, Message::Leave { reason: "of a test".into() });
    let again = format!("{:?}", world.hello(head, Role::Miner, b""));
    assert!(!again.contains("is on probation:"), "{again}");
}
