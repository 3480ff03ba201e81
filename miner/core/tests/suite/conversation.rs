//! The whole of a small epoch, as text that a person can read, and the law of the journal.

use crate::support::{World, asks, object, orchestrator, run};
use miner_core::{Effect, Miner, Task};
use spec::{Digest, Operation, Window};
use wire::PayloadKind::{Activation, Gradient};
use wire::{Chain, Machine, Manifest, Merge, Message, Signed, StageRecord, Verb};

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
    world.say(Message::Draw(Window { epoch: 0, step: 1 }));
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
