//! The whole of a small epoch, as text that a person can read, and the law of the journal.

use crate::support::{World, asks, notes, object, orchestrator, run};
use miner_core::{Effect, Miner, Task};
use spec::{Digest, Operation};
use wire::PayloadKind::{Activation, Gradient};
use wire::{Chain, Key, Machine, Manifest, Merge, Message, Signed, Slot, StageRecord, Verb};

#[test]
fn an_epoch_from_the_hello_to_the_last_draw() {
    let mut world = World::new(run());
    world.transcript.title("hello, seat, weights");
    world.join();
    world.open();
    world.transcript.title("two inner steps");
    steps(&mut world);
    world.transcript.title("merge");
    merge(&mut world);
    world.transcript.title("the window of step 1 is drawn");
    world.say(Message::Draw { epoch: 0, steps: vec![1], more: false });
    world.say(Message::Finish { reason: "the run is complete".into() });
    insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("conversation", world.transcript.text());
    });
    assert_eq!(world.table.len(), 0, "nothing is left in the object table");
    let mut chain = Chain::default();
    for receipt in world.receipts() {
        receipt.verify().unwrap();
        chain.follow(&receipt.body).unwrap();
    }
    let mut again = Miner::new(world.config.clone());
    let effects: Vec<Effect> =
        world.journal.iter().flat_map(|(now_ms, event)| again.handle(*now_ms, event.clone())).collect();
    assert_eq!(effects, world.effects);
    assert_eq!(again.digest(), world.core.digest());
}

#[test]
fn a_lost_neighbours_stand_in_gets_what_was_sent_and_is_heard_instead() {
    let mut world = World::opened(run());
    let other = Key::from_seed([13; 32]);
    world.transcript.name(other.id(), "other tail");
    for id in [0, 1] {
        world.assign(id, 0, id as u16);
        world.deliver(Activation, id, 0, id as u16);
    }
    world.transcript.title("the tail was lost, another does its share in its step 3");
    let amended = |world: &World, id: u64| {
        let mut assignment = world.assignment(id, 0, id as u16);
        assignment.route[2] =
            Slot { miner: other.id(), step: 3, position: id as u16, members: 4, attempt: 1, settled: 3 };
        assignment
    };
    for id in [0, 1] {
        let effects = world.say(Message::Amend(amended(&world, id)));
        let sent = |effect: &Effect| matches!(effect, Effect::SendPayload { to, .. } if *to == other.id());
        assert_eq!(effects.iter().filter(|effect| sent(effect)).count(), 1, "{effects:?}");
    }
    world.transcript.title("both send gradients");
    let late = world.payload(Gradient, &world.assignment(0, 0, 0), |_, _| {});
    assert_eq!(notes(&world.give(late)), "", "it was the neighbour once");
    assert_eq!(operations(&world).len(), 2, "but is not heard any more");
    for id in [0, 1] {
        let assignment = amended(&world, id);
        let from_other = world.payload(Gradient, &assignment, |_, edit| edit.signer = other.clone());
        world.give(from_other);
    }
    assert_eq!(operations(&world)[2..], ["backward 0", "backward 1", "step 0"]);
    world
        .transcript
        .title("it stands in itself, in a step larger than its own; the payload overtakes the word of it");
    let mut own = world.assignment(9, 0, 0);
    own.route[1] = Slot { step: 1, position: 1, members: 2, attempt: 1, ..own.route[1] };
    let early = world.payload(Activation, &own, |_, _| {});
    world.give(early);
    world.say(Message::Amend(own));
    let mut second = world.assignment(2, 1, 0);
    second.route[1].members = 2;
    world.say(Message::Assign(second));
    assert_eq!(operations(&world)[5..], ["forward 1"]);
    let text = world.transcript.text();
    let at = text.find("# the tail was lost").unwrap();
    insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("reissue", &text[at..]);
    });
}

#[test]
fn a_payload_of_a_stand_in_may_overtake_the_word_of_it() {
    let mut world = World::opened(run());
    let other = Key::from_seed([13; 32]);
    world.assign(0, 0, 0);
    let mut amended = world.assignment(0, 0, 0);
    amended.route[0] = Slot { miner: other.id(), step: 1, position: 0, members: 1, attempt: 1, settled: 0 };
    let early = world.payload(Activation, &amended, |_, edit| edit.signer = other.clone());
    assert_eq!(notes(&world.give(early)), "");
    assert!(operations(&world).is_empty());
    world.say(Message::Amend(amended));
    assert_eq!(operations(&world), ["forward 0"]);
}

#[test]
fn what_is_struck_is_left_out_of_its_step_unless_it_is_folded() {
    let mut world = World::opened(run());
    for id in [0, 1] {
        world.assign(id, 0, id as u16);
        world.deliver(Activation, id, 0, id as u16);
    }
    world.say(Message::Strike(world.assignment(0, 0, 0)));
    world.deliver(Gradient, 1, 0, 1);
    assert_eq!(operations(&world), ["forward 0", "forward 1", "backward 1", "step 0"]);
    // It may be all that is heard of an assignment.
    world.say(Message::Strike(world.assignment(2, 1, 0)));
    world.assign(3, 1, 1);
    world.deliver(Activation, 3, 1, 1);
    world.deliver(Gradient, 3, 1, 1);
    assert_eq!(operations(&world)[4..], ["forward 1", "backward 1", "step 1"]);
    assert_eq!(notes(&world.say(Message::Strike(world.assignment(3, 1, 1)))), "", "it is folded");
}

#[test]
fn gradients_are_folded_in_position_order_whatever_comes_first() {
    let mut world = World::opened(run());
    world.assign(0, 0, 0);
    world.assign(1, 0, 1);
    world.deliver(Activation, 1, 0, 1);
    world.deliver(Gradient, 1, 0, 1);
    assert_eq!(operations(&world), ["forward 1"], "position 1 waits for position 0");
    world.deliver(Activation, 0, 0, 0);
    assert_eq!(operations(&world), ["forward 1", "forward 0"]);
    world.deliver(Gradient, 0, 0, 0);
    assert_eq!(operations(&world), ["forward 1", "forward 0", "backward 0", "backward 1", "step 0"]);
}

#[test]
fn no_forward_runs_before_the_step_before_it_is_taken() {
    let mut world = World::opened(run());
    world.assign(0, 0, 0);
    world.assign(2, 1, 0);
    world.deliver(Activation, 2, 1, 0);
    assert!(operations(&world).is_empty(), "its weights are not there yet");
}

#[test]
fn payloads_may_come_before_their_assignment() {
    let mut world = World::opened(run());
    world.deliver(Activation, 0, 0, 0);
    assert!(operations(&world).is_empty());
    world.assign(0, 0, 0);
    assert_eq!(operations(&world), ["forward 0"]);
}

#[test]
fn the_next_epoch_opens_on_the_weights_that_were_merged() {
    let mut longer = run();
    longer.epoch.count = 2;
    let mut world = World::opened(longer);
    steps(&mut world);
    let weights = merge(&mut world);
    let first = crate::support::manifest(&world.run);
    let mut next =
        Manifest { epoch: 1, previous: Signed::new(first.clone(), &orchestrator()).digest(), ..first };
    next.stages[1] = StageRecord { weights: object("others"), ..next.stages[1].clone() };
    let mut other = World::opened(world.run.clone());
    steps(&mut other);
    merge(&mut other);
    other.say(Message::Open(Signed::new(next.clone(), &orchestrator())));
    assert!(other.exit().unwrap().unwrap_err().contains("weights that this miner does not hold"));
    next.stages[1].weights.digest = weights;
    world.say(Message::Open(Signed::new(next, &orchestrator())));
    assert_eq!(world.exit(), None);
    assert_eq!(asks(&world.effects, Verb::Get), 1, "nothing is fetched a second time");
}

fn steps(world: &mut World) {
    for step in 0..2 {
        for position in 0..2 {
            world.assign(u64::from(step) * 2 + u64::from(position), step, position);
        }
    }
    for step in 0..2 {
        for position in 0..2 {
            let id = u64::from(step) * 2 + u64::from(position);
            world.deliver(Activation, id, step, position);
            world.deliver(Gradient, id, step, position);
        }
    }
}

/// Merges; the answer is the digest of the new weights.
fn merge(world: &mut World) -> Digest {
    let members = vec![world.me()];
    let effects = world.say(Message::Merge(Merge { epoch: 0, members, commitment: Digest::default() }));
    let merged = |effect: &Effect| match effect {
        Effect::Send(Message::Merged(merged)) => Some(merged.verify().unwrap().weights),
        _ => None,
    };
    let weights = effects.iter().find_map(merged).expect("it merges");
    let effects = world.say(Message::Keep(weights));
    assert!(effects.contains(&Effect::Send(Message::Kept(weights))), "{effects:?}");
    weights.digest
}

fn operations(world: &World) -> Vec<String> {
    let operation = |effect: &Effect| match effect {
        Effect::Compute { task: Task::Perform { operation, .. }, .. } => Some(match operation {
            Operation::Forward(member) => format!("forward {}", member.position),
            Operation::Backward(member) => format!("backward {}", member.position),
            Operation::Step { step, .. } => format!("step {step}"),
            other => other.name().to_owned(),
        }),
        _ => None,
    };
    world.effects.iter().filter_map(operation).collect()
}
