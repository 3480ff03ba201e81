//! What goes from one epoch to the next: the state that each miner begins with, and whose work weighs nothing.

use crate::support::{World, config, drawn, new_weights, object, run, state, state_before};
use orchestrator_core::{Effect, Event, Orchestrator, Report};
use spec::{Admission, Digest, Operation, Run, Window};
use wire::{Finding, Message, Role, Signed, Verdict};

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

/// What a validator is asked about the beginning of the second epoch: how many receipts of merges are given.
fn asked(effects: &[Effect]) -> Vec<usize> {
    let asked = |effect: &Effect| match effect {
        Effect::Send { message: Message::Audit(order), .. } if order.window == Window::beginning(1) => {
            assert_eq!(order.objects().collect::<Vec<_>>(), [new_weights(0), object("momentum")]);
            Some(order.receipts.len())
        }
        _ => None,
    };
    effects.iter().filter_map(asked).collect()
}

fn is_convicted(effects: &[Effect]) -> bool {
    let told = format!("{effects:?}");
    effects.iter().any(|effect| matches!(effect, Effect::Report(Report::Convicted { .. })))
        && told.contains("of another state (epoch 1, where it begins)")
}

/// The fresh state, as the validator of these trials builds it.
fn fresh() -> Digest {
    state_before(0, 0).digest
}

#[test]
fn the_first_epoch_begins_in_the_fresh_state_and_a_validator_looks() {
    let mut world = World::opened(run());
    world.inner_step(0);
    let asked = |effect: &Effect| match effect {
        Effect::Send { message: Message::Audit(order), .. } => {
            Some((order.miner, order.window, order.receipts.len()))
        }
        _ => None,
    };
    let found: Vec<_> = world.effects.iter().filter_map(asked).collect();
    let expected: Vec<_> = world.ids().into_iter().map(|id| (id, Window::beginning(0), 0)).collect();
    assert_eq!(found, expected);
    // Where nothing is audited nobody is there to look.
    let mut unaudited = run();
    unaudited.audit.windows = 0;
    let mut world = World::opened(unaudited);
    world.inner_step(0);
    assert!(world.effects.iter().filter_map(asked).next().is_none());
}

#[test]
fn an_epoch_begins_in_the_state_that_the_one_before_ended_in_or_in_the_fresh_one() {
    let effects = begins(&mut second_epoch(), state(0, 2).digest);
    assert!(asked(&effects).is_empty() && !is_convicted(&effects), "its own merge says so: {effects:?}");
    let effects = begins(&mut second_epoch(), fresh());
    assert!(asked(&effects) == [1] && !is_convicted(&effects), "{effects:?}");
    let mut world = second_epoch();
    let mut effects = begins(&mut world, object("other moments").digest);
    assert!(asked(&effects) == [1] && is_convicted(&effects), "{effects:?}");
    // What is drawn from the other is judged before anything is undone.
    world.reveal();
    effects.extend(world.verdict(1, Finding::Equal { operations: 5 }));
    let undone = effects
        .iter()
        .any(|effect| matches!(effect, Effect::Report(Report::RolledBack { epoch: 0 | 1, .. })));
    assert!(
        undone && effects.iter().any(|effect| matches!(effect, Effect::KeepEvidence { .. })),
        "{effects:?}"
    );
}

#[test]
fn a_miner_that_was_started_again_stands_where_its_merge_came_to_or_begins_afresh() {
    let restarted = || {
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
            world.ready(miner, 1);
        }
        world
    };
    // The one is what it kept on its disk, the other what it builds from what the manifest names.
    for (state, expected) in [(state(0, 2).digest, 0), (fresh(), 1)] {
        let mut world = restarted();
        let effects = begins(&mut world, state);
        assert_eq!((asked(&effects).len(), is_convicted(&effects)), (expected, false), "{effects:?}");
        // Beginning the same epoch once more, it may stand in either.
        let [head, tail] = world.ids()[..] else { panic!("two stages") };
        world.say(tail, Message::Leave { reason: "of a test".into() });
        world.hello(tail, Role::Miner, b"token");
        for miner in [head, tail] {
            world.ready(miner, 1);
        }
        assert!(!is_convicted(&begins(&mut world, state)));
    }
    // It may not in one that nobody knows, though its chain is broken.
    assert!(is_convicted(&begins(&mut restarted(), object("other moments").digest)));
}

#[test]
fn a_verdict_on_a_beginning_that_was_undone_is_not_taken_for_the_one_on_its_successor() {
    let mut world = second_epoch();
    world.looks_at_beginnings = false;
    let [head, tail] = world.ids()[..] else { panic!("two stages") };
    begins(&mut world, object("other moments").digest);
    let undone = world.start_of(head, Window::beginning(1));
    // The epoch begins again, and the liar with a state that is in order.
    world.say(tail, Message::Leave { reason: "of a test".into() });
    world.hello(tail, Role::Miner, b"token");
    for miner in [head, tail] {
        world.ready(miner, 1);
    }
    assert_eq!(asked(&begins(&mut world, fresh())), [1]);
    let successor = world.start_of(head, Window::beginning(1));
    let mut judge = |start, finding| {
        let (run, window) = (world.config.run.id(), Window::beginning(1));
        let verdict = Verdict { run, miner: head, window, start, finding };
        let verdict = Signed::new(verdict, &world.validator);
        world.say(world.validator.id(), Message::Verdict(verdict))
    };
    let equal = || Finding::Equal { operations: 0 };
    let audited =
        |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Report(Report::Audited { .. })));
    assert!(!audited(&judge(Digest::of(b"no beginning of it"), equal())));
    assert!(audited(&judge(successor, equal())));
    let [expected, found] = ["the fresh one", "another"].map(Into::into);
    assert!(is_convicted(&judge(
        undone,
        Finding::Unequal { sequence: 9, what: "state".into(), expected, found }
    )));
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
        world.ready(miner, 0);
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

#[test]
fn a_readiness_said_before_the_last_word_to_adopt_does_not_count() {
    let mut world = World::new(run());
    world.start();
    world.everyone_joins();
    let [head, tail] = world.ids()[..] else { panic!("two stages") };
    let opens = |effects: &[Effect]| {
        effects.iter().any(|effect| matches!(effect, Effect::Send { message: Message::Open(_), .. }))
    };
    // The tail is started again: the epoch begins again for both.
    world.give(Event::Lost { peer: tail, why: "killed".into() });
    world.hello(tail, Role::Miner, b"token");
    assert_eq!(world.turns.get(&head), Some(&1));
    world.ready(tail, 0);
    // Said when a connection came back, before the head heard that it is to stand there again.
    let stale = world.say(head, Message::Ready { epoch: 0, turn: 0 });
    assert!(!opens(&stale), "{stale:?}");
    assert!(opens(&world.ready(head, 0)));
}
