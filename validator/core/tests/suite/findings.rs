//! Every finding, from the contradiction that leads to it; and how a validator ends.

use crate::support::{Beginning, World, beginning, member, merge_order, miner, object, order, order_of, run};
use spec::{Digest, Operation, Outcome};
use validator_core::{Effect, Event, Replayed};
use wire::{AuditOrder, Finding, Key, Message, Receipt, Refusal, Signed};

#[test]
fn an_honest_window_is_equal() {
    assert_eq!(World::joined().finding(order(|_, _| {})), Finding::Equal { operations: 5 });
}

#[test]
fn a_window_is_judged_as_far_as_it_goes() {
    let mut begun = order(|_, _| {});
    begun.receipts.truncate(3);
    assert_eq!(World::joined().finding(begun), Finding::Equal { operations: 3 });
}

#[test]
fn the_first_difference_is_named() {
    type Edit = fn(usize, Replayed) -> Option<Replayed>;
    let edits: [(u64, &str, Edit); 4] = [
        (5, "loss", |at, honest| {
            Some(Replayed { loss_q32: honest.loss_q32.map(|l| l + i64::from(at == 0)), ..honest })
        }),
        (6, "output", |at, mut honest| {
            honest.output = honest.output.filter(|_| at != 1);
            Some(honest)
        }),
        (9, "state", |at, mut honest| {
            honest.state = honest.state.map(|_| Digest([at as u8; 32]));
            Some(honest)
        }),
        (7, "outcome", |at, mut honest| {
            honest.outcome = if at == 2 { Outcome::NonFinite } else { Outcome::Ok };
            Some(honest)
        }),
    ];
    for (wanted, field, edit) in edits {
        let mut world = World::joined();
        world.replay = edit;
        match world.finding(order(|_, _| {})) {
            Finding::Unequal { sequence, what, expected, found } => {
                assert_eq!((sequence, what.as_str()), (wanted, field));
                assert_ne!(expected, found);
            }
            other => panic!("expected a difference in {field}, found {other}"),
        }
    }
}

#[test]
fn a_replay_that_cannot_go_on_is_inconsistent() {
    let mut world = World::joined();
    world.replay = |at, honest| (at < 2).then_some(honest);
    let finding = world.finding(order(|_, _| {})).to_string();
    assert!(
        finding.contains("receipt 7 (forward") && finding.contains("the payload is no payload"),
        "{finding}"
    );
}

#[test]
fn what_the_store_has_not_is_withheld_and_the_next_order_is_taken() {
    let mut world = World::joined();
    let absent = object("input 3").digest;
    world.absent = Some(absent);
    assert_eq!(world.finding(order(|_, _| {})), Finding::Withheld { digest: absent });
    assert_eq!(world.table.len(), 1, "only the token shard is left");
    world.absent = None;
    assert_eq!(world.finding(order(|_, _| {})), Finding::Equal { operations: 5 });
}

#[test]
fn receipts_that_contradict_themselves_are_never_replayed() {
    type Edit = fn(usize, &mut Receipt);
    let edits: [(&str, Edit); 8] = [
        ("receipt 12 came where 8 was due", |at, r| r.sequence += if at == 4 { 4 } else { 0 }),
        ("follows receipt", |at, r| r.previous = if at == 2 { Digest([8; 32]) } else { r.previous }),
        ("another run, mode, epoch or stage", |at, r| r.epoch += u32::from(at == 3)),
        ("not the one that receipt 4 binds", |_, r| r.state = None),
        ("is not among those revealed", |at, r| {
            r.input = r.input.filter(|_| at != 1).or(Some(Digest([7; 32])).filter(|_| at == 1))
        }),
        ("lacks an input", |_, r| r.input = None),
        ("is out of place", |at, r| {
            if at == 5 {
                r.operation = Operation::Step { step: 1, members: Vec::new() };
            }
        }),
        ("is out of place", |at, r| {
            if let (3, Operation::Forward(member)) = (at, &mut r.operation) {
                member.step = 0;
            }
        }),
    ];
    for (why, edit) in edits {
        let mut world = World::joined();
        inconsistent(&mut world, order(edit), why);
        assert!(!world.effects.iter().any(|effect| matches!(effect, Effect::Replay { .. })), "{why}");
    }
}

/// Forwards of the window's next step may stand anywhere before the step in hand is taken, all else in its place.
#[test]
fn forwards_of_a_stale_step_may_stand_before_the_step_before_it() {
    let mut stale = run();
    (stale.inner.staleness, stale.epoch.steps, stale.epoch.digest_every) = (1, 4, 2);
    let (a, b, c, d) = (member(2, 0), member(2, 1), member(3, 0), member(3, 1));
    let step = |step, members: [spec::Member; 2]| Operation::Step { step, members: members.into() };
    let honest = [
        Operation::Forward(a),
        Operation::Forward(b),
        Operation::Forward(c),
        Operation::Backward(a),
        Operation::Forward(d),
        Operation::Backward(b),
        step(2, [a, b]),
        Operation::Backward(c),
        Operation::Backward(d),
        step(3, [c, d]),
    ];
    let judged = |run: &spec::Run, operations: &[Operation]| {
        let order = order_of(run, 2, operations.to_vec(), |_, _| {});
        validator_core::check(run, run.id(), &order)
            .map(|replays| replays.len())
            .map_err(|why| why.to_string())
    };
    assert_eq!(judged(&stale, &honest), Ok(10));
    let mut fresh = stale.clone();
    fresh.inner.staleness = 0;
    let said = judged(&fresh, &honest).unwrap_err();
    assert!(said.contains("receipt 7 (forward") && said.contains("out of place"), "{said}");
    // Its backward comes after that step all the same, and once.
    let mut early = honest.clone();
    early.swap(6, 7);
    assert!(judged(&stale, &early).unwrap_err().contains("(backward"));
    let mixed = [5, 6].into_iter().zip([Operation::Backward(d), step(2, [a, d])]);
    let mut both = honest.clone();
    mixed.for_each(|(at, operation)| both[at] = operation);
    assert!(judged(&stale, &both).unwrap_err().contains("(backward"), "one step of members of two");
    let mut twice = honest.clone();
    twice[7] = Operation::Forward(c);
    assert!(judged(&stale, &twice).unwrap_err().contains("(forward"));
    // Nor do forwards of the next window.
    let mut beyond = honest;
    beyond[4] = Operation::Forward(member(4, 0));
    assert!(judged(&stale, &beyond).unwrap_err().contains("(forward"));
}

#[test]
fn orders_that_are_spoilt_after_signing_are_inconsistent() {
    let honest = || order(|_, _| {});
    let stranger = Key::from_seed([66; 32]);
    let mut resigned = honest();
    let body = resigned.receipts[2].body.clone();
    resigned.receipts[2] = Signed::new(body, &stranger);
    inconsistent(&mut World::joined(), resigned, "not by the miner");
    let mut edited = honest();
    edited.receipts[1].body.output = None;
    inconsistent(&mut World::joined(), edited, "does not hold");
    let mut other_state = honest();
    other_state.state = object("another state");
    inconsistent(&mut World::joined(), other_state, "not the one that receipt 4 binds");
    let mut none = honest();
    none.receipts.clear();
    inconsistent(&mut World::joined(), none, "there is no receipt");
    let mut small = honest();
    small.receipts.drain(2..4);
    inconsistent(&mut World::joined(), small, "came where 7 was due");
    let mut gap = honest();
    gap.receipts.remove(0);
    inconsistent(&mut World::joined(), gap, "receipt 6 came where 5 was due");
    let mut other_window = honest();
    other_window.window.step = 0;
    inconsistent(
        &mut World::joined(),
        other_window,
        "the receipt that binds the state is not the window's first",
    );
    let mut past = honest();
    past.stage = 7;
    inconsistent(&mut World::joined(), past, "past the tail");
    assert_eq!(miner().id(), honest().miner);
}

#[test]
fn trouble_with_the_store_convicts_nobody() {
    let mut world = World::joined();
    world.absent = Some(object("state").digest);
    let state = object("state").digest;
    world.give(Event::StoreFailed { digest: state, missing: false, why: "nobody asked".into() });
    assert!(world.exit().is_none(), "it was not under way");
    let mut world = World::new();
    world.give(Event::Connected);
    world.absent = Some(world.run.data.train);
    world.join();
    let said = world.exit().unwrap().unwrap_err();
    assert!(said.contains("could not be fetched (404)"), "{said}");
    assert!(!world.effects.iter().any(|effect| matches!(effect, Effect::Send(Message::Verdict(_)))));
}

#[test]
fn every_end_is_a_sentence() {
    let ends: [(Event, &str); 3] = [
        (Event::Message(Message::Refused(Refusal::Full)), "every seat for this role is taken"),
        (Event::Leave, "its owner asked"),
        (Event::Message(Message::Finish { reason: "over".into() }), "over"),
    ];
    for (event, sentence) in ends {
        let mut world = World::joined();
        world.give(event);
        let (Ok(said) | Err(said)) = world.exit().unwrap();
        assert!(said.contains(sentence), "{sentence:?} is not in {said:?}");
        assert!(world.give(Event::Woke).is_empty(), "nothing follows the end");
    }
    let mut world = World::new();
    world.give(Event::Connected);
    world.now_ms = 40_000;
    world.give(Event::Woke);
    assert!(world.exit().unwrap().unwrap_err().contains("did not answer the hello"));
}

fn inconsistent(world: &mut World, order: AuditOrder, why: &str) {
    let finding = world.finding(order).to_string();
    assert!(finding.starts_with("inconsistent") && finding.contains(why), "{why:?} is not in {finding:?}");
}

#[test]
fn a_merge_is_judged_from_the_last_step_to_the_state_that_the_next_epoch_begins_with() {
    let mut world = World::joined();
    // What is added up is judged on its own.
    assert_eq!(world.finding(merge_order(|_, _| {})), Finding::Equal { operations: 3 });
    assert_eq!(world.table.len(), 1, "only the token shard is left");
    for (at, name) in [(1, "scale"), (2, "encode"), (4, "apply")] {
        let order = merge_order(|i, r| {
            r.output = r.output.map(|output| if i == at { Digest([9; 32]) } else { output });
        });
        let finding = world.finding(order);
        assert!(matches!(&finding, Finding::Unequal { what, .. } if what == "output"), "{name}: {finding}");
    }
    let moments = merge_order(|at, r| r.state = r.state.map(|s| if at == 4 { Digest([9; 32]) } else { s }));
    let finding = world.finding(moments);
    assert!(matches!(&finding, Finding::Unequal { sequence: 13, what, .. } if what == "state"), "{finding}");
    let told: [(&str, AuditOrder); 5] = [
        ("lacks a state digest", merge_order(|at, r| r.state = r.state.filter(|_| at != 4))),
        ("or reads something else", merge_order(|at, r| r.input = r.input.filter(|_| at != 4))),
        ("or reads something else", {
            let mut order = merge_order(|_, _| {});
            order.merge.as_mut().unwrap().scales.swap(0, 1);
            order
        }),
        ("is not among those revealed", {
            let mut order = merge_order(|_, _| {});
            order.inputs.remove(3);
            order
        }),
        ("does not come to its end", {
            let mut order = merge_order(|_, _| {});
            order.receipts.pop();
            order
        }),
    ];
    for (why, order) in told {
        inconsistent(&mut world, order, why);
    }
}

#[test]
fn an_epoch_begins_in_the_state_of_the_merge_or_in_the_fresh_one() {
    let [fresh, merged, other] = ["fresh", "merged", "other moments"].map(object);
    let equal = Finding::Equal { operations: 0 };
    let mut world = World::joined();
    let builds =
        |world: &World| world.effects.iter().filter(|effect| matches!(effect, Effect::Build { .. })).count();
    for (state, by, holds) in [
        (fresh, None, true),
        (fresh, Some(merged), true),
        (merged, Some(merged), true),
        (merged, None, false),
        (other, Some(merged), false),
        (other, None, false),
    ] {
        let found = world.finding(beginning(Beginning { state, merged: by }, |_, _| {}));
        if holds {
            assert_eq!(found, equal);
        } else {
            let Finding::Unequal { sequence: 12, what, expected, found } = found else { panic!("{found}") };
            assert_eq!(
                (what.as_str(), expected, found),
                ("state", fresh.digest.to_string(), state.digest.to_string())
            );
        }
        // Another miner of the stage costs nothing more.
        assert_eq!(builds(&world), 1);
    }
    assert_eq!(world.table.len(), 1, "the token shard stays, the rest is forgotten");
    // Another momentum makes another state.
    let mut order = beginning(Beginning { state: fresh, merged: None }, |_, _| {});
    order.inputs[0] = object("another momentum");
    assert_eq!((world.finding(order), builds(&world)), (equal, 2));
}

#[test]
fn fresh_states_are_remembered_where_they_were_asked_for_and_the_oldest_forgotten() {
    let mut world = World::joined();
    let builds =
        |world: &World| world.effects.iter().filter(|effect| matches!(effect, Effect::Build { .. })).count();
    let of = |number: u32| {
        let mut order = beginning(Beginning { state: object("fresh"), merged: None }, |_, _| {});
        order.inputs[0] = object(&format!("momentum {number}"));
        order
    };
    let said = world.give(Event::Built { state: object("nobody's").digest });
    assert!(matches!(&said[..], [Effect::Note(note)] if note.contains("not asked for")), "{said:?}");
    let equal = Finding::Equal { operations: 0 };
    for number in 0..=256 {
        assert_eq!(world.finding(of(number)), equal);
    }
    assert_eq!(builds(&world), 257);
    for (number, built) in [(256, 257), (1, 257), (0, 258)] {
        assert_eq!((world.finding(of(number)), builds(&world)), (equal.clone(), built), "{number}");
    }
}

#[test]
fn orders_that_bind_no_beginning_are_inconsistent() {
    let of = || Beginning { state: object("fresh"), merged: Some(object("merged")) };
    type Edit = fn(usize, &mut Receipt);
    let told: [(&str, Edit); 5] = [
        ("does not bind where an epoch begins", |at, r| r.state = r.state.filter(|_| at == 0)),
        ("is not of the merge", |at, r| r.state = r.state.filter(|_| at == 1)),
        ("is not of the merge", |_, r| r.output = r.output.map(|_| Digest([9; 32]))),
        ("is not of the merge", |at, r| r.sequence += if at == 0 { 9 } else { 0 }),
        ("is of another run, mode, epoch or stage", |at, r| r.epoch += u32::from(at == 0)),
    ];
    for (why, edit) in told {
        inconsistent(&mut World::joined(), beginning(of(), edit), why);
    }
    let mut other = beginning(of(), |_, _| {});
    other.start = Signed::new(other.start.body.clone(), &Key::from_seed([66; 32]));
    inconsistent(&mut World::joined(), other, "not by the miner");
}

#[test]
fn what_a_manifest_names_is_nobodys_to_withhold() {
    let mut world = World::joined();
    world.absent = Some(object("momentum").digest);
    let order = beginning(Beginning { state: object("fresh"), merged: None }, |_, _| {});
    world.say(Message::Audit(order));
    let said = world.exit().unwrap().unwrap_err();
    assert!(said.contains("could not be fetched (404)"), "{said}");
    assert!(!world.effects.iter().any(|effect| matches!(effect, Effect::Send(Message::Verdict(_)))));
}
