//! Every wait ends, with a sentence that names who owes what.

use crate::support::{World, config, drawn, run};
use orchestrator_core::{Effect, Ending, Event, Report};
use spec::{Outer, Window};
use wire::{Finding, Message, Role};

#[test]
fn empty_seats_are_named_when_nobody_else_comes() {
    let mut world = World::new(run());
    world.start();
    let head = world.ids()[0];
    world.hello(head, Role::Miner, b"token");
    let why = failure(&mut world);
    for part in [
        "within 10 s",
        "head of stage 0 (head) has not loaded",
        "stage 1 (tail) has 0 of 1",
        "0 of 1 validators",
    ] {
        let part = part.replace("head of", &format!("{} of", head.short()));
        assert!(why.contains(&part), "{part:?} is not in {why:?}");
    }
}

#[test]
fn a_seat_that_is_left_before_the_start_is_free_again() {
    let mut world = World::new(run());
    world.start();
    let [head, tail] = world.ids()[..] else { panic!("two stages") };
    world.hello(head, Role::Miner, b"token");
    world.give(Event::Lost { peer: head, why: "cable".into() });
    world.hello(tail, Role::Miner, b"token");
    assert!(world.transcript.text().contains("tail joined as miner of stage 0"));
}

#[test]
fn a_lost_miner_ends_the_run_unless_it_is_back_in_time() {
    let mut world = World::opened(run());
    let tail = world.ids()[1];
    world.give(Event::Lost { peer: tail, why: "cable".into() });
    world.hello_again(tail, Role::Miner);
    world.now_ms += 2_000;
    world.give(Event::Woke);
    assert_eq!(world.ending(), None, "it was back in time, in the same seat");
    assert!(
        world.transcript.text().ends_with("woke\n         -> wake at 5080 ms\n"),
        "{}",
        world.transcript.text()
    );
    world.give(Event::Lost { peer: tail, why: "cable".into() });
    let why = failure(&mut world);
    assert!(why.contains("(tail) was lost (cable) and did not return within 1 s"), "{why}");
}

#[test]
fn a_lost_validator_ends_the_run_too() {
    let mut world = World::opened(run());
    world.say(world.validator.id(), Message::Leave { reason: "tired".into() });
    let why = failure(&mut world);
    assert!(why.starts_with("validator ") && why.contains("it left: tired"), "{why}");
}

#[test]
fn a_validator_that_is_back_in_time_gets_its_audits_again() {
    let mut world = World::opened(run());
    world.inner_step(0);
    world.inner_step(1);
    world.merge();
    world.reveal();
    let validator = world.validator.id();
    world.give(Event::Lost { peer: validator, why: "cable".into() });
    let back = world.hello(validator, Role::Validator, b"token");
    let audits = back.iter().filter(|effect| effect.to_string().contains("audit epoch 0 step")).count();
    assert_eq!(audits, 2, "{back:?}");
    world.verdict(0, Finding::Equal { operations: 5 });
    world.verdict(1, Finding::Equal { operations: 5 });
    assert_eq!(world.ending(), Some(Ending::Complete));
}

#[test]
fn whoever_does_not_work_is_named_with_what_it_did_last() {
    let mut world = World::opened(run());
    let first = world.assignments()[0].clone();
    world.forward(&first);
    let why = failure(&mut world);
    assert!(why.contains("nothing came for 5 s"), "{why}");
    assert!(why.contains("(tail) owes step 0 of 2 in epoch 0, the last it did was forward"), "{why}");
}

#[test]
fn whoever_does_not_merge_reveal_or_judge_is_named() {
    let mut world = World::opened(run());
    world.inner_step(0);
    world.inner_step(1);
    let why = failure(&mut world);
    assert!(why.contains("owes the merge of epoch 0"), "{why}");

    let mut world = World::opened(run());
    world.inner_step(0);
    world.inner_step(1);
    world.merge();
    let tail = world.ids()[1];
    let of_tail = |(miner, window)| (miner == tail).then_some(window);
    let window = world.effects.iter().flat_map(drawn).find_map(of_tail).unwrap();
    let revealed = world.revealed(1, window);
    world.say(tail, revealed);
    world.verdict(1, Finding::Equal { operations: 5 });
    let why = failure(&mut world);
    assert!(why.contains("stage 0 (head) lost its last miner to a conviction"), "{why}");
    assert!(
        world.transcript.text().contains("(head) was convicted of withholding (epoch 0, window of step 1)")
    );

    let mut world = World::opened(run());
    world.inner_step(0);
    world.inner_step(1);
    world.merge();
    world.reveal();
    let why = failure(&mut world);
    assert!(why.contains("owes a verdict on epoch 0 step 1"), "{why}");
}

#[test]
fn each_window_that_is_revealed_gives_time_for_the_next() {
    let mut everything = run();
    everything.audit.windows = everything.epoch.steps;
    let drawn_from = |who: usize| {
        let mut world = World::opened(everything.clone());
        world.inner_step(0);
        world.inner_step(1);
        world.merge();
        let id = world.ids()[who];
        let of_it = |(miner, window)| (miner == id).then_some(window);
        let windows: Vec<Window> = world.effects.iter().flat_map(drawn).filter_map(of_it).collect();
        assert_eq!(windows.iter().map(|window| window.step).collect::<Vec<_>>(), [0, 1, 2]);
        // The other one is quick.
        windows.iter().for_each(|&window| reveal_and_judge(&mut world, 1 - who, window));
        (world, windows)
    };
    let convicted = |world: &World| world.transcript.text().contains("was convicted of withholding");
    // Nearly as long for each as for one alone.
    let (mut world, windows) = drawn_from(0);
    for &window in &windows {
        world.now_ms += world.config.timeouts.reveal_ms - 100;
        world.give(Event::Woke);
        assert!(!convicted(&world), "{window}");
        reveal_and_judge(&mut world, 0, window);
    }
    assert_eq!(world.ending(), Some(Ending::Complete));
    // Who reveals some and then no more has as long again, and no longer.
    for (revealed, waits_ms) in [(0, 4_000), (1, 7_900), (2, 11_800)] {
        let (mut world, windows) = drawn_from(0);
        let drawn_ms = world.now_ms;
        for &window in &windows[..revealed] {
            world.now_ms += world.config.timeouts.reveal_ms - 100;
            reveal_and_judge(&mut world, 0, window);
        }
        while !convicted(&world) {
            world.now_ms += 100;
            world.give(Event::Woke);
            assert!(world.now_ms - drawn_ms <= waits_ms + 200, "{revealed}");
        }
        assert!(world.now_ms - drawn_ms >= waits_ms - 200, "{revealed}");
    }
}

#[test]
fn a_slow_uplink_has_time_for_the_bytes_of_the_longest_window_and_who_is_silent_no_more() {
    let mut everything = run();
    everything.audit.windows = everything.epoch.steps;
    // A state is five arrays or three, and its head.
    let arrays = if everything.outer == Outer::None { 3 } else { 5 };
    let state_bytes = (64 << 10) + 4 * arrays * everything.model.stage_parameters(0);
    let first = Window { epoch: 0, step: 0 };
    let drawn_from_both = |uplink_bytes_per_s| {
        let mut config = config(everything.clone());
        config.timeouts.uplink_bytes_per_s = uplink_bytes_per_s;
        let mut world = World::opened_by(config);
        world.inner_step(0);
        world.inner_step(1);
        world.merge();
        // The other one is quick.
        for step in 0..=2 {
            reveal_and_judge(&mut world, 1, Window { step, ..first });
        }
        world
    };
    // Until who reveals nothing is convicted.
    let waits_ms = |uplink_bytes_per_s| {
        let mut world = drawn_from_both(uplink_bytes_per_s);
        let drawn_ms = world.now_ms;
        while !world.transcript.text().contains("was convicted of withholding") {
            assert!(world.now_ms < drawn_ms + 600_000 && world.ending().is_none());
            world.now_ms += 90;
            world.give(Event::Woke);
        }
        world.now_ms - drawn_ms
    };
    let alone_ms = waits_ms(0);
    assert!((3_900..4_300).contains(&alone_ms), "{alone_ms}");
    let with_bytes_ms = waits_ms(state_bytes / 60);
    // The payloads of a window are few beside its state.
    assert!((alone_ms + 60_000..alone_ms + 90_000).contains(&with_bytes_ms), "{with_bytes_ms}");
    // Who is done before that is not blamed, and the run does not end meanwhile.
    let mut world = drawn_from_both(state_bytes / 60);
    let drawn_ms = world.now_ms;
    while world.now_ms + 1_000 < drawn_ms + with_bytes_ms {
        world.now_ms += 900;
        world.give(Event::Woke);
    }
    reveal_and_judge(&mut world, 0, first);
}

/// What is drawn of a miner is revealed, and found equal.
fn reveal_and_judge(world: &mut World, who: usize, window: Window) {
    let (revealed, id) = (world.revealed(who, window), world.ids()[who]);
    world.say(id, revealed);
    let operations = match (window.step, &world.config.run.outer) {
        (0 | 1, _) => 5,
        (_, Outer::None) => 1,
        _ => 2,
    };
    let said = world.say_verdict(id, window, Finding::Equal { operations });
    assert!(format!("{said:?}").contains("Audited"), "{said:?}");
}

#[test]
fn where_nobody_can_reveal_nobody_is_convicted() {
    let mut world = World::opened(run());
    world.inner_step(0);
    world.inner_step(1);
    world.merge();
    let why = failure(&mut world);
    assert!(why.contains("owes what its receipts bind of epoch 0 step 1"), "{why}");
    assert!(!world.transcript.text().contains("convicted"), "{}", world.transcript.text());
}

#[test]
fn a_store_that_fails_ends_the_run_with_what_to_do() {
    let mut world = World::opened(run());
    let said = world.give(Event::StoreWaits { what: "put object 01".into(), why: "disk full".into() });
    let text = "the store did not put object 01 yet (disk full): it is asked again".into();
    assert_eq!(said, [Effect::Report(Report::Note { text })]);
    world.give(Event::StoreFailed { what: "put object 01".into(), why: "disk full".into() });
    let Some(Ending::Failed { why }) = world.ending() else { panic!("it goes on") };
    assert!(why.contains("did not put object 01 (disk full)") && why.contains("`iota rollback`"), "{why}");
    assert!(world.give(Event::Woke).is_empty(), "nothing follows the end");
}

fn failure(world: &mut World) -> String {
    match world.wait_for_the_end() {
        Ending::Failed { why } => why,
        other => panic!("expected a failure, found {other}"),
    }
}
