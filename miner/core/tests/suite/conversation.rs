//! The whole of a small epoch, as text that a person can read, and the law of the journal.

use crate::support::{World, asks, notes, object, orchestrator, run};
use miner_core::{Effect, Event, Miner, Task};
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

/// A world whose miner has merged its first epoch, and the manifest that comes of it: with the miner among those who merged, or not.
fn merged(named: bool) -> (World, Manifest) {
    let mut longer = run();
    longer.epoch.count = 2;
    let mut world = World::opened(longer);
    steps(&mut world);
    let weights = merge(&mut world);
    let first = crate::support::manifest(&world.run);
    let mut next =
        Manifest { epoch: 1, previous: Signed::new(first.clone(), &orchestrator()).digest(), ..first };
    let miners = if named { vec![world.me()] } else { vec![] };
    next.stages[1].weights.digest = weights;
    next.stages[1].miners = miners;
    (world, next)
}

/// Tells the miner to stand where a manifest's epoch begins: which manifest the engine adopts for that, if any, and whether the
/// miner says that it is ready.
fn adopts(world: &mut World, manifest: &Manifest) -> (Option<Digest>, bool) {
    let manifest = Signed::new(manifest.clone(), &orchestrator());
    let effects = world.say(Message::Adopt { stage: 1, manifest: manifest.clone(), turn: 1 });
    let adopted = |effect: &Effect| match effect {
        Effect::Compute { task: Task::Adopt { manifest, .. }, .. } => Some(*manifest),
        _ => None,
    };
    let epoch = manifest.body.epoch;
    (effects.iter().find_map(adopted), effects.contains(&Effect::Send(Message::Ready { epoch, turn: 1 })))
}

#[test]
fn what_a_merge_came_to_is_stood_on_only_by_whom_the_manifest_names() {
    let (mut world, next) = merged(true);
    assert_eq!(adopts(&mut world, &next), (None, true), "it stands there");
    assert_eq!(adopts(&mut world, &next), (None, true), "and still does");
    // Gone by without it: whatever it has besides the weights, nobody takes it on its word.
    let digest = |manifest: &Manifest| Some(Signed::new(manifest.clone(), &orchestrator()).digest());
    let (mut world, next) = merged(false);
    assert_eq!(adopts(&mut world, &next), (digest(&next), true));
    assert_eq!(adopts(&mut world, &next), (None, true), "it adopted just that");
    // The same weights after another manifest are another place.
    let (mut world, next) = merged(true);
    let other = Manifest { previous: Digest::of(b"another"), ..next };
    assert_eq!(adopts(&mut world, &other), (digest(&other), true));
    // Whoever has begun an epoch stands where it began no more.
    let (mut world, next) = merged(true);
    world.say(Message::Open(Signed::new(next.clone(), &orchestrator())));
    assert_eq!(adopts(&mut world, &next), (digest(&next), true));
}

#[test]
fn drawn_windows_are_revealed_one_after_another() {
    let mut world = World::opened(run());
    steps(&mut world);
    merge(&mut world);
    world.uploads_wait = true;
    let asked = |effects: &[Effect]| -> Vec<Digest> {
        let put = |effect: &Effect| match effect {
            Effect::Upload { object, .. } => Some(object.digest),
            _ => None,
        };
        effects.iter().filter_map(put).collect()
    };
    let first = asked(&world.say(Message::Draw { epoch: 0, steps: vec![0, 1], more: false }));
    // State, and activation and gradient of each of two microbatches.
    assert_eq!(first.len(), 5);
    let mut effects = Vec::new();
    for digest in &first {
        assert!(asked(&effects).is_empty(), "the second waits for the whole of the first");
        effects = world.give(Event::Uploaded { digest: *digest });
    }
    let revealed = |effect: &Effect| match effect {
        Effect::Send(Message::Revealed { window, .. }) => Some(window.step),
        _ => None,
    };
    assert_eq!(effects.iter().filter_map(revealed).collect::<Vec<_>>(), [0]);
    let second = asked(&effects);
    assert_eq!(second.len(), 5);
    // A window that is asked of nobody any more holds no other up.
    world.refuses = true;
    world.give(Event::StoreFailed { digest: second[0], why: "expired".into() });
    assert!(world.table.iter().all(|held| !second.contains(held)), "it is forgotten");
    assert_eq!(world.exit(), None);
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

/// Four steps in windows of two, on weights one step old.
fn stale() -> spec::Run {
    let mut run = run();
    (run.inner.staleness, run.epoch.steps, run.epoch.digest_every) = (1, 4, 2);
    run
}

#[test]
fn forwards_of_a_stale_step_run_while_the_step_before_it_waits() {
    let mut world = World::opened(stale());
    for id in 0..6 {
        world.assign(id, id as u32 / 2, id as u16 % 2);
    }
    // Step by step: the epoch's first forward says what the epoch begins with.
    world.deliver(Activation, 2, 1, 0);
    assert_eq!(turns(&world), [""; 0]);
    world.deliver(Activation, 1, 0, 1);
    assert_eq!(turns(&world), ["forward 0.1"]);
    world.deliver(Activation, 0, 0, 0);
    assert_eq!(turns(&world)[1..], ["forward 0.0", "forward 1.0"]);
    // The step after the next is of another window; its weights are not there yet.
    world.deliver(Activation, 4, 2, 0);
    world.deliver(Activation, 3, 1, 1);
    assert_eq!(turns(&world)[3..], ["forward 1.1"]);
    // Whoever comes after in the pipeline may be ahead too.
    world.deliver(Gradient, 2, 1, 0);
    world.deliver(Gradient, 0, 0, 0);
    assert_eq!(turns(&world)[4..], ["backward 0.0"]);
    world.deliver(Gradient, 1, 0, 1);
    assert_eq!(turns(&world)[5..], ["backward 0.1", "step 0", "backward 1.0"]);
    world.deliver(Gradient, 3, 1, 1);
    assert_eq!(turns(&world)[8..], ["backward 1.1", "step 1", "forward 2.0"]);
    let binds = |receipt: &Signed<wire::Receipt>| receipt.body.state.is_some();
    let bound: Vec<_> =
        world.receipts().into_iter().filter(binds).map(|receipt| receipt.body.operation).collect();
    // What the epoch begins with, and the state after the window's last step.
    assert!(matches!(bound[..], [Operation::Forward(_), Operation::Step { step: 1, .. }]), "{bound:?}");
}

#[test]
fn what_is_struck_waits_for_nothing_also_where_it_ran_ahead() {
    let mut world = World::opened(stale());
    for id in 0..4 {
        world.assign(id, id as u32 / 2, id as u16 % 2);
        world.deliver(Activation, id, id as u32 / 2, id as u16 % 2);
    }
    assert_eq!(turns(&world), ["forward 0.0", "forward 0.1", "forward 1.0", "forward 1.1"]);
    world.say(Message::Strike(world.assignment(2, 1, 0)));
    world.deliver(Gradient, 0, 0, 0);
    world.deliver(Gradient, 1, 0, 1);
    world.deliver(Gradient, 3, 1, 1);
    assert_eq!(turns(&world)[4..], ["backward 0.0", "backward 0.1", "step 0", "backward 1.1", "step 1"]);

    let mut world = World::opened(stale());
    for id in 0..3 {
        world.assign(id, id as u32 / 2, id as u16 % 2);
    }
    world.deliver(Activation, 0, 0, 0);
    world.deliver(Activation, 2, 1, 0);
    assert_eq!(turns(&world), ["forward 0.0"]);
    // Its input never comes; those after it need not wait for it.
    world.say(Message::Strike(world.assignment(1, 0, 1)));
    assert_eq!(turns(&world)[1..], ["forward 1.0"]);
}

/// What the engine was given, by step and position.
fn turns(world: &World) -> Vec<String> {
    let turn = |effect: &Effect| match effect {
        Effect::Compute { task: Task::Perform { operation, .. }, .. } => Some(match operation {
            Operation::Forward(member) | Operation::Backward(member) => {
                format!("{} {}.{}", operation.name(), member.step, member.position)
            }
            Operation::Step { step, .. } => format!("step {step}"),
            other => other.name().to_owned(),
        }),
        _ => None,
    };
    world.effects.iter().filter_map(turn).collect()
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
