//! After a conviction everybody goes back once, when all that is drawn is judged.

use crate::support::{World, drawn, journal_replays_equal, object, run};
use orchestrator_core::{Effect, Ending, Event, Report};
use spec::{NodeId, Window};
use wire::{Finding, Message, Role};

/// Two epochs, of which the first is committed and the second is open; both windows of the first are revealed.
fn revealed() -> World {
    let mut longer = run();
    longer.epoch.count = 2;
    let mut world = World::opened(longer);
    world.inner_step(0);
    world.inner_step(1);
    world.merge();
    assert!(world.transcript.text().contains("report: epoch 1 opened"));
    world.reveal();
    world
}

fn unequal() -> Finding {
    let [expected, found] = ["right", "wrong"].map(|tag| object(tag).digest.to_string());
    Finding::Unequal { sequence: 8, what: "output".into(), expected, found }
}

/// What was undone so far: from which epoch, and why.
fn undone(world: &World) -> Vec<(u32, String)> {
    let undone = |effect: &Effect| match effect {
        Effect::Report(Report::RolledBack { epoch, why, .. }) => Some((*epoch, why.clone())),
        _ => None,
    };
    world.effects.iter().filter_map(undone).collect()
}

fn adopts(world: &World) -> usize {
    let adopts = |effect: &&Effect| matches!(effect, Effect::Send { message: Message::Adopt { .. }, .. });
    world.effects.iter().filter(adopts).count()
}

#[test]
fn two_who_lied_in_one_epoch_send_everybody_back_once() {
    let mut world = revealed();
    let told = adopts(&world);
    world.verdict(1, unequal());
    assert!(undone(&world).is_empty(), "the head's window is in a validator's hands");
    assert_eq!(adopts(&world), told, "who adopts forgets what is drawn from it");
    // The epoch in hand stands on the lie: nothing of it is taken any more, and no other opens.
    let first = world.assignments().into_iter().find(|a| a.epoch == 1).unwrap();
    let member = first.member(0).unwrap();
    let work = spec::Operation::Forward(member);
    let ignored = world.works(0, work, |receipt| {
        receipt.epoch = 1;
        receipt.state = Some(crate::support::state(0, 2).digest);
        receipt.output = Some(object("of the epoch that ended").digest);
    });
    assert!(format!("{ignored:?}").contains("which is not open; ignored"), "{ignored:?}");
    world.verdict(0, unequal());
    let [(epoch, why)] = &undone(&world)[..] else { panic!("once: {:?}", undone(&world)) };
    assert_eq!(*epoch, 0);
    let tail = world.ids()[1].short();
    assert!(why.starts_with(&format!("miner {tail} of stage 1 (tail) was convicted")), "{why}");
    assert!(why.ends_with("; 1 more were convicted meanwhile"), "{why}");
    assert_eq!(world.core.manifest(), &world.config.manifest);
    journal_replays_equal(&world);
}

#[test]
fn who_owes_a_window_then_is_waited_for_and_convicted_before_anybody_goes_back() {
    let mut world = World::opened(run());
    world.inner_step(0);
    world.inner_step(1);
    world.merge();
    let [head, tail] = world.ids()[..] else { panic!("two stages") };
    let of_tail = |(miner, window)| (miner == tail).then_some(window);
    let window = world.effects.iter().flat_map(drawn).find_map(of_tail).unwrap();
    let revealed = world.revealed(1, window);
    world.say(tail, revealed);
    world.verdict(1, unequal());
    assert!(undone(&world).is_empty());
    let deadline_ms = world.now_ms + 2 * world.config.timeouts.reveal_ms;
    while undone(&world).is_empty() && world.now_ms < deadline_ms {
        world.now_ms += 500;
        world.give(Event::Woke);
    }
    let withholder = |effect: &Effect| matches!(effect, Effect::Report(Report::Convicted { node, why, .. }) if *node == head && why.contains("of withholding"));
    assert!(world.effects.iter().any(withholder));
    assert_eq!(undone(&world).len(), 1);
}

#[test]
fn while_windows_come_in_time_nothing_stands_still() {
    let mut world = World::opened(run());
    world.inner_step(0);
    world.inner_step(1);
    world.merge();
    let [head, tail] = world.ids()[..] else { panic!("two stages") };
    let windows: Vec<(NodeId, Window)> = world.effects.iter().flat_map(drawn).collect();
    let reveal = |world: &mut World, stage: usize, miner: NodeId| {
        let (_, window) = windows.iter().find(|(of, _)| *of == miner).unwrap();
        let revealed = world.revealed(stage, *window);
        world.say(miner, revealed);
    };
    reveal(&mut world, 1, tail);
    world.verdict(1, unequal());
    world.hello(wire::Key::from_seed([77; 32]).id(), Role::Miner, b"token");
    // Together longer than anything but audits may stand still.
    world.now_ms += world.config.timeouts.reveal_ms - 100;
    reveal(&mut world, 0, head);
    world.now_ms += world.config.timeouts.stall_ms - 100;
    world.give(Event::Woke);
    assert_eq!(world.ending(), None);
    world.verdict(0, Finding::Equal { operations: 5 });
    assert_eq!(undone(&world).len(), 1);
}

#[test]
fn a_verdict_that_is_waited_for_and_does_not_come_ends_the_run() {
    let mut world = revealed();
    world.verdict(1, unequal());
    // Somebody takes the seat, so that only the verdict is missing.
    let other = wire::Key::from_seed([77; 32]).id();
    world.hello(other, Role::Miner, b"token");
    let Ending::Failed { why } = world.wait_for_the_end() else { panic!("it goes on") };
    assert!(why.contains("owes a verdict on epoch 0 step 1"), "{why}");
    assert!(undone(&world).is_empty());
}

#[test]
fn who_is_gone_for_good_is_not_waited_for() {
    let mut world = revealed();
    let [head, _] = world.ids()[..] else { panic!("two stages") };
    world.verdict(1, unequal());
    // What the head revealed is judged without it.
    world.give(Event::Lost { peer: head, why: "cable".into() });
    assert!(undone(&world).is_empty());
    world.verdict(0, Finding::Equal { operations: 5 });
    let epochs: Vec<u32> = undone(&world).into_iter().map(|(epoch, _)| epoch).collect();
    assert_eq!(epochs, [0]);
    let ids: Vec<NodeId> = world.ids();
    assert!(world.hello_again(ids[0], Role::Miner).iter().any(
        |effect| matches!(effect, Effect::Send { to, message: Message::Adopt { manifest, .. } } if *to == head && manifest.body.epoch == 0)
    ));
}
