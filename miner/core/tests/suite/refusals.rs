//! What a miner does not believe, and how it ends.

use crate::support::{PayloadHeadEdit, World, manifest, notes, orchestrator, run};
use miner_core::{Effect, Event};
use spec::{Digest, Outcome};
use wire::PayloadKind::{Activation, Gradient};
use wire::{Chain, Grant, Key, Merge, Message, ObjectRef, Receipt, Refusal, Signed, Verb, Welcome};

#[test]
fn payloads_are_refused_with_the_reason_and_dropped() {
    type Edit = fn(&mut Receipt, &mut PayloadHeadEdit);
    let edits: [(&str, Edit); 7] = [
        ("has a signature that does not hold", |_, other| other.forge = true),
        ("is not the block that its receipt binds", |receipt, _| receipt.output = Some(Digest([9; 32]))),
        ("belongs to another run", |receipt, _| receipt.run = Digest([9; 32])),
        ("does not come from a neighbouring stage", |receipt, _| receipt.stage = 2),
        ("has a receipt of another assignment", |_, other| other.attempt = 1),
        ("does not come from the neighbour", |_, other| other.signer = Key::from_seed([66; 32])),
        ("does not come from the neighbour", |receipt, _| receipt.epoch = 1),
    ];
    for (why, edit) in edits {
        let mut world = World::opened(run());
        let before = world.table.len();
        world.assign(0, 0, 0);
        let assignment = world.assignment(0, 0, 0);
        let payload = world.payload(Activation, &assignment, edit);
        let effects = world.give(payload);
        assert!(notes(&effects).contains(why), "{why}: {effects:?}");
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Compute { .. })), "{why}: it was used");
        assert_eq!(world.table.len(), before, "{why}: the block is dropped");
        assert!(world.exit().is_none());
    }
}

#[test]
fn a_payload_that_comes_twice_is_dropped_at_every_stage_of_its_use() {
    let mut world = World::opened(run());
    let twice = |effects: &[Effect]| notes(effects).contains("twice") || notes(effects).contains("is over");
    world.assign(0, 0, 0);
    world.deliver(Activation, 0, 0, 0);
    assert!(twice(&world.deliver(Activation, 0, 0, 0)));
    world.deliver(Gradient, 0, 0, 0);
    world.deliver(Gradient, 0, 0, 0);
    world.assign(1, 0, 1);
    world.deliver(Activation, 1, 0, 1);
    world.deliver(Gradient, 1, 0, 1);
    assert!(world.transcript.text().contains("step 0 of 2 members"));
    world.deliver(Activation, 1, 0, 1);
    let forwards =
        world.transcript.text().matches("forward of assignment 1, step 0 position 1, input").count();
    assert_eq!(forwards, 2, "the task and its receipt, once each");
}

#[test]
fn early_payloads_are_bounded() {
    let mut world = World::opened(run());
    for id in 0..20 {
        world.deliver(Activation, id, 0, 0);
    }
    assert!(world.table.len() <= 9, "{} blocks are held", world.table.len());
    assert!(world.transcript.text().contains("too far ahead of its assignment"));
}

#[test]
fn assignments_that_are_not_this_miners_are_ignored() {
    let mut world = World::opened(run());
    let good = world.assignment(0, 0, 0);
    let mut elsewhere = good.clone();
    elsewhere.route.swap(0, 1);
    let mut short = good.clone();
    short.route.pop();
    let mut late = good.clone();
    late.epoch = 5;
    let outside = world.assignment(0, 99, 0);
    for (assignment, why) in [
        (elsewhere, "does not lead through"),
        (short, "does not lead through"),
        (late, "comes too late"),
        (outside, "lies outside the epoch"),
    ] {
        let effects = World::opened(run()).say(Message::Assign(assignment));
        assert!(notes(&effects).contains(why), "{effects:?}");
    }
    world.say(Message::Assign(good.clone()));
    assert!(notes(&world.say(Message::Assign(good))).contains("was given before"));
}

#[test]
fn a_welcome_that_the_invitation_does_not_cover_is_left() {
    let stranger = Key::from_seed([66; 32]);
    let signed_by = |key: &Key| Signed::new(manifest(&run()), key);
    let welcome =
        |run, stage, manifest| Message::Welcome(Welcome { run, stage, manifest, chain: Chain::default() });
    let mut other = run();
    other.seed += 1;
    let mut broken = signed_by(&orchestrator());
    broken.body.epoch = 3;
    let mut unusable = run();
    unusable.model.heads = 3;
    for (message, why) in [
        (welcome(run(), Some(1), signed_by(&stranger)), "the invitation names"),
        (welcome(other, Some(1), signed_by(&orchestrator())), "is of run"),
        (welcome(run(), Some(3), signed_by(&orchestrator())), "seat does not fit"),
        (welcome(run(), None, signed_by(&orchestrator())), "seat does not fit"),
        (welcome(run(), Some(1), broken), "cannot be trusted"),
        (welcome(unusable, Some(1), signed_by(&orchestrator())), "model.heads"),
    ] {
        let mut world = World::new(run());
        world.give(Event::Connected);
        world.say(message);
        let said = world.exit().unwrap().unwrap_err();
        assert!(said.contains(why), "{why:?} is not in {said:?}");
    }
}

#[test]
fn every_end_is_a_sentence() {
    let ends: [(Event, &str); 3] = [
        (Event::Message(Message::Refused(Refusal::Token)), "ask for a new invitation"),
        (Event::Leave, "its owner asked"),
        (Event::Message(Message::Finish { reason: "the run is complete".into() }), "the run is complete"),
    ];
    for (event, sentence) in ends {
        let mut world = World::opened(run());
        world.give(event);
        let (Ok(said) | Err(said)) = world.exit().unwrap();
        assert!(said.contains(sentence), "{sentence:?} is not in {said:?}");
        assert!(world.open().is_empty(), "nothing follows the end");
    }
}

#[test]
fn a_lost_connection_is_made_again_with_growing_patience_and_an_end() {
    let mut world = World::opened(run());
    let lost = || Event::Disconnected { why: "reset".into() };
    let waits = |effects: &[Effect]| -> Vec<u64> {
        let wait = |effect: &Effect| match effect {
            Effect::CallAgain { after_ms } => Some(*after_ms),
            _ => None,
        };
        effects.iter().filter_map(wait).collect()
    };
    let found: Vec<u64> = (0..7).flat_map(|_| waits(&world.give(lost()))).collect();
    assert_eq!(found, [50, 100, 200, 400, 800, 1000, 1000]);
    let back = world.give(Event::Connected);
    let hello = |effect: &Effect| matches!(effect, Effect::Send(Message::Hello(hello)) if hello.resumes);
    assert!(back.iter().any(hello), "{back:?}");
    assert_eq!(waits(&world.give(lost())), [50], "it was up again");
    world.now_ms += 120_000;
    world.give(lost());
    assert!(world.exit().unwrap().unwrap_err().contains("has been gone for 120"));
}

#[test]
fn what_may_have_been_missed_is_said_again() {
    let mut world = World::opened(run());
    world.assign(0, 0, 0);
    world.deliver(Activation, 0, 0, 0);
    let given = world.receipts();
    assert_eq!(given.len(), 1);
    world.give(Event::Disconnected { why: "reset".into() });
    world.give(Event::Connected);
    let effects = world.say(world.welcome());
    assert!(effects.contains(&Effect::Send(Message::Receipt(given[0].clone()))), "{effects:?}");
    let payload =
        |effect: &Effect| matches!(effect, Effect::SendPayload { head, .. } if head.assignment == 0);
    assert!(effects.iter().any(payload), "{effects:?}");
    // Its gradient came, so the activation is known to have arrived.
    world.deliver(Gradient, 0, 0, 0);
    world.give(Event::Disconnected { why: "reset".into() });
    world.give(Event::Connected);
    let Message::Welcome(mut welcome) = world.welcome() else { panic!("a welcome") };
    welcome.chain = Chain::after(&given[0].body);
    let effects = world.say(Message::Welcome(welcome));
    let again = |effect: &&Effect| matches!(effect, Effect::Send(Message::Receipt(_)));
    assert_eq!(effects.iter().filter(again).count(), 1, "the forward's receipt is known: {effects:?}");
    let sent: Vec<_> = effects.iter().filter(|effect| matches!(effect, Effect::SendPayload { .. })).collect();
    assert!(matches!(sent[..], [Effect::SendPayload { head, .. }] if head.kind == Gradient), "{sent:?}");
    assert!(world.exit().is_none());
}

#[test]
fn a_transfer_is_asked_for_again_until_it_failed_too_often() {
    let mut world = World::new(run());
    world.give(Event::Connected);
    world.store_fails = true;
    world.say(world.welcome());
    let said = world.exit().unwrap().unwrap_err();
    assert!(said.contains("could not be moved (timeout)"), "{said}");
    assert_eq!(crate::support::asks(&world.effects, Verb::Get), 5, "asked for once, and four times again");
}

#[test]
fn a_failing_engine_ends_the_miner_and_tells_the_orchestrator() {
    let mut world = World::opened(run());
    let effects = world.give(Event::TaskFailed { ticket: 77, why: "no memory".into() });
    assert!(notes(&effects).contains("task 77 was never given"));
    world.engine_fails = true;
    world.assign(0, 0, 0);
    let effects = world.deliver(Activation, 0, 0, 0);
    let said = world.exit().unwrap().unwrap_err();
    assert_eq!(said, "forward failed on this machine: no memory");
    assert!(effects.contains(&Effect::Send(Message::Leave { reason: said })));
}

#[test]
fn a_refused_grant_and_silence_end_the_miner() {
    let mut world = World::new(run());
    world.give(Event::Connected);
    let at_ms = alarm(&world);
    assert_eq!(at_ms, 30_010);
    world.now_ms = at_ms;
    world.give(Event::Woke);
    assert!(world.exit().unwrap().unwrap_err().contains("did not answer the hello within 30 s"));

    let mut world = World::opened(run());
    world.now_ms = 10_000_000;
    world.give(Event::Woke);
    assert!(world.exit().unwrap().unwrap_err().contains("nothing happened for 900 s"));

    let mut world = World::opened(run());
    let ask = wire::Ask { verb: Verb::Get, object: ObjectRef::of(b"not asked for") };
    let effects = world.say(Message::Grant(Grant { ask, answer: Err("no".into()) }));
    assert!(notes(&effects).contains("was not asked for"));
    assert!(world.exit().is_none());
}

#[test]
fn who_meets_infinity_signs_it_and_does_nothing_more_of_the_epoch() {
    for outcome in [Outcome::NonFinite, Outcome::Unusable] {
        let mut world = World::opened(run());
        world.assign(0, 0, 0);
        world.assign(1, 0, 1);
        world.deliver(Activation, 0, 0, 0);
        world.outcome = outcome;
        world.deliver(Gradient, 0, 0, 0);
        world.outcome = Outcome::Ok;
        world.deliver(Activation, 1, 0, 1);
        world.deliver(Gradient, 1, 0, 1);
        let outcomes: Vec<Outcome> = world.receipts().iter().map(|receipt| receipt.body.outcome).collect();
        assert_eq!(outcomes, [Outcome::Ok, outcome], "and nothing after it");
        assert_eq!(world.exit(), None);
        // What it stands on is shown, though the window has not come to its end.
        let effects = world.say(Message::Draw { epoch: 0, steps: vec![0], more: true });
        let revealed = |effect: &Effect| match effect {
            Effect::Send(Message::Revealed { inputs, .. }) => Some(inputs.len()),
            _ => None,
        };
        assert_eq!(effects.iter().find_map(revealed), Some(2), "activation and gradient: {effects:?}");
        let manifest = Signed::new(manifest(&world.run), &orchestrator());
        let effects = world.say(Message::Adopt { stage: 1, manifest, turn: 1 });
        assert!(effects.contains(&Effect::Send(Message::Ready { epoch: 0, turn: 1 })), "{effects:?}");
        assert!(world.table.len() <= 1, "nothing of the epoch is left: {:?}", world.table);
    }
}

#[test]
fn orders_that_are_not_due_are_ignored() {
    let mut world = World::opened(run());
    let members = vec![world.me()];
    let early = world.say(Message::Merge(Merge { epoch: 0, members, commitment: Digest::default() }));
    assert!(notes(&early).contains("is not due here"), "{early:?}");
    let draw = world.say(Message::Draw { epoch: 0, steps: vec![1], more: false });
    assert!(notes(&draw).contains("which no receipt binds"), "{draw:?}");
    let strange = world.say(Message::Ready { epoch: 0, turn: 1 });
    assert!(notes(&strange).contains("not for a miner"), "{strange:?}");
    assert!(world.exit().is_none());
}

fn alarm(world: &World) -> u64 {
    let at = |effect: &Effect| match effect {
        Effect::WakeAt(at_ms) => Some(*at_ms),
        _ => None,
    };
    world.effects.iter().filter_map(at).next_back().expect("an alarm is set")
}
