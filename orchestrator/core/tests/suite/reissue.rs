//! A lost miner's work goes to another of its stage, and the epoch goes on.

use crate::support::{World, journal_replays_equal, payload, run, state};
use orchestrator_core::{Effect, Event, Orchestrator, Report};
use spec::{Member, NodeId, Operation};
use std::collections::BTreeMap;
use wire::{Assignment, Machine, Message, Receipt, Role, Signed};

pub const HEAD: usize = 0;
pub const TAIL: usize = 1;
pub const OTHER_HEAD: usize = 2;
pub const OTHER_TAIL: usize = 3;

/// Two stages of two miners each, the first epoch is open.
fn swarm() -> World {
    let mut run = run();
    run.miners_per_stage = 2;
    World::opened(run)
}

/// The assignments as they stand: the last word on each.
fn assignments(world: &World) -> BTreeMap<u64, Assignment> {
    let word = |effect: &Effect| match effect {
        Effect::Send { message: Message::Assign(assignment) | Message::Amend(assignment), .. } => {
            Some((assignment.id, assignment.clone()))
        }
        _ => None,
    };
    world.effects.iter().filter_map(word).collect()
}

fn member(world: &World, id: u64, stage: usize) -> Member {
    assignments(world)[&id].member(stage).unwrap()
}

pub fn forward(world: &mut World, who: usize, id: u64, from: Option<&Signed<Receipt>>) -> Signed<Receipt> {
    let stage = world.puppets[who].stage;
    let member = member(world, id, stage);
    let from = from.cloned();
    world.works(who, Operation::Forward(member), |receipt| {
        receipt.input_receipt = from.as_ref().map(Signed::digest);
        receipt.input = from.and_then(|from| from.body.output);
        receipt.output = (stage == 0).then(|| payload(who, "forward", &member));
        receipt.loss_q32 = (stage == 1).then_some(5 << 32);
    });
    world.puppets[who].last.clone().unwrap()
}

fn backward(world: &mut World, who: usize, id: u64, from: Option<&Signed<Receipt>>) -> Signed<Receipt> {
    let stage = world.puppets[who].stage;
    let member = member(world, id, stage);
    let from = from.cloned();
    world.works(who, Operation::Backward(member), |receipt| {
        receipt.input_receipt = from.as_ref().map(Signed::digest);
        receipt.input = from.and_then(|from| from.body.output);
        receipt.output = (stage == 1).then(|| payload(who, "backward", &member));
    });
    world.puppets[who].last.clone().unwrap()
}

/// Through both stages and back.
pub fn round_trips<const N: usize>(world: &mut World, [head, tail]: [usize; 2], ids: [u64; N]) {
    for id in ids {
        let there = forward(world, head, id, None);
        forward(world, tail, id, Some(&there));
        back(world, [head, tail], id);
    }
}

/// Back through both stages.
pub fn back(world: &mut World, [head, tail]: [usize; 2], id: u64) {
    let back = backward(world, tail, id, None);
    backward(world, head, id, Some(&back));
}

pub fn step(world: &mut World, who: usize, step: u32, ids: &[u64]) -> Vec<Effect> {
    let stage = world.puppets[who].stage;
    let members: Vec<Member> = ids.iter().map(|&id| member(world, id, stage)).collect();
    let state = world.config.run.digests_after(step).then(|| state(who, step).digest);
    world.works(who, Operation::Step { step, members }, |receipt| receipt.state = state)
}

/// Its connection is gone for longer than it is waited for.
pub fn lose(world: &mut World, node: NodeId) -> Vec<Effect> {
    world.give(Event::Lost { peer: node, why: "nothing was heard of it".into() });
    world.now_ms += 100;
    world.give(Event::Woke)
}

fn reports(effects: &[Effect]) -> Vec<&Report> {
    let said = effects.iter().filter_map(|effect| match effect {
        Effect::Report(report) => Some(report),
        _ => None,
    });
    said.collect()
}

#[test]
fn a_lost_tails_microbatches_go_to_the_other_tail_and_the_epoch_goes_on() {
    let mut world = swarm();
    let tail = world.ids()[TAIL];
    // Microbatches 0 and 1 are step 0 of the first lane, 2 and 3 its step 1; 4 to 7 are the other lane's.
    let there: Vec<_> = [0, 1].map(|id| forward(&mut world, HEAD, id, None)).into();
    forward(&mut world, TAIL, 0, Some(&there[0]));
    let back = backward(&mut world, TAIL, 0, None);
    world.transcript.title("the tail falls silent after one microbatch");
    let effects = lose(&mut world, tail);
    let reissued = reports(&effects);
    assert!(
        matches!(reissued[..], [Report::Note { .. }, Report::Reissued { microbatches: 4, tokens: 0, .. }]),
        "{reissued:?}"
    );
    world.transcript.title("what the lost one sent last is used, what it says now is not heard");
    backward(&mut world, HEAD, 0, Some(&back));
    world.hello_again(tail, Role::Miner);
    let late = forward(&mut world, TAIL, 1, Some(&there[1]));
    assert_eq!(late.signer, tail);
    let text = world.transcript.text();
    let at = text.find("# the tail falls").unwrap();
    insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("reissue", &text[at..]);
    });

    for ids in [[4, 5], [6, 7]] {
        round_trips(&mut world, [OTHER_HEAD, OTHER_TAIL], ids);
        let number = u32::from(ids[0] == 6);
        step(&mut world, OTHER_HEAD, number, &ids);
        step(&mut world, OTHER_TAIL, number, &ids);
    }
    // The other tail's step more: all four of the first lane, though the head steps between them.
    for (id, there) in [0, 1].into_iter().zip(&there) {
        forward(&mut world, OTHER_TAIL, id, Some(there));
        let back = backward(&mut world, OTHER_TAIL, id, None);
        if id == 1 {
            backward(&mut world, HEAD, id, Some(&back));
        }
    }
    step(&mut world, HEAD, 0, &[0, 1]);
    round_trips(&mut world, [HEAD, OTHER_TAIL], [2, 3]);
    step(&mut world, HEAD, 1, &[2, 3]);
    let effects = step(&mut world, OTHER_TAIL, 2, &[0, 1, 2, 3]);
    let merging: Vec<NodeId> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { to, message: Message::Merge(_) } => Some(*to),
            _ => None,
        })
        .collect();
    let ids = world.ids();
    for who in [HEAD, OTHER_HEAD, OTHER_TAIL] {
        assert!(merging.contains(&ids[who]), "{merging:?}");
    }
    assert_eq!(merging.len(), 3, "the lost one does not merge");
    let mut again = Orchestrator::new(world.config.clone()).unwrap();
    let effects: Vec<_> =
        world.journal.iter().flat_map(|(now_ms, event)| again.handle(*now_ms, event.clone())).collect();
    assert_eq!(effects, world.effects);
    assert_eq!(again.digest(), world.core.digest());
    journal_replays_equal(&world);
}

#[test]
fn what_the_lost_one_alone_had_folded_is_said_to_be_lost() {
    let mut world = swarm();
    let tail = world.ids()[TAIL];
    round_trips(&mut world, [HEAD, TAIL], [0, 1]);
    step(&mut world, TAIL, 0, &[0, 1]);
    let tokens = 2 * world.config.run.microbatch_tokens();
    let effects = lose(&mut world, tail);
    let lost = reports(&effects).into_iter().find_map(|report| match report {
        Report::Reissued { microbatches, tokens, .. } => Some((*microbatches, *tokens)),
        _ => None,
    });
    assert_eq!(lost, Some((2, tokens)));
}

#[test]
fn a_stand_ins_step_has_all_its_members_or_is_a_lie() {
    let mut world = swarm();
    let tail = world.ids()[TAIL];
    lose(&mut world, tail);
    for ids in [[4, 5], [6, 7]] {
        round_trips(&mut world, [OTHER_HEAD, OTHER_TAIL], ids);
        let number = u32::from(ids[0] == 6);
        step(&mut world, OTHER_HEAD, number, &ids);
        step(&mut world, OTHER_TAIL, number, &ids);
    }
    round_trips(&mut world, [HEAD, OTHER_TAIL], [0, 1]);
    let effects = step(&mut world, OTHER_TAIL, 2, &[0, 1]);
    let said = format!("{effects:?}");
    assert!(said.contains("does not step on what was folded for step 2"), "{said}");
}

#[test]
fn a_neighbour_that_misquotes_the_lost_one_is_turned_away() {
    let mut world = swarm();
    let [head, tail] = [HEAD, TAIL].map(|who| world.ids()[who]);
    let there = forward(&mut world, HEAD, 0, None);
    forward(&mut world, TAIL, 0, Some(&there));
    let mut back = backward(&mut world, TAIL, 0, None);
    lose(&mut world, tail);
    let said = back.digest();
    back.body.output = Some(spec::Digest([9; 32]));
    let member = member(&world, 0, 0);
    let effects = world.works(HEAD, Operation::Backward(member), |receipt| {
        receipt.input_receipt = Some(said);
        receipt.input = back.body.output;
    });
    let away = |effect: &Effect| matches!(effect, Effect::Disconnect { peer, .. } if *peer == head);
    assert!(effects.iter().any(away), "{effects:?}");
}

#[test]
fn with_nobody_else_in_the_stage_the_lost_one_is_waited_for() {
    let mut world = swarm();
    let [tail, other] = [TAIL, OTHER_TAIL].map(|who| world.ids()[who]);
    lose(&mut world, tail);
    let effects = lose(&mut world, other);
    assert_eq!(reports(&effects), Vec::<&Report>::new(), "nobody is left to take it");
    let back = world.hello_again(other, Role::Miner);
    let amended = |effect: &&Effect| matches!(effect, Effect::Send { to, message: Message::Amend(_) | Message::Assign(_) } if *to == other);
    assert_eq!(back.iter().filter(amended).count(), 8, "its own four microbatches and those it was given");
}

#[test]
fn what_would_make_two_stand_ins_wait_for_one_another_is_struck() {
    let mut world = swarm();
    let ids = world.ids();
    lose(&mut world, ids[TAIL]);
    let there = forward(&mut world, OTHER_HEAD, 4, None);
    forward(&mut world, OTHER_TAIL, 4, Some(&there));
    backward(&mut world, OTHER_TAIL, 4, None);
    // The other tail would do 5 before it came to 0, the head 0 before it came to 5.
    let effects = lose(&mut world, ids[OTHER_HEAD]);
    let lost = 4 * world.config.run.microbatch_tokens();
    match reports(&effects)[..] {
        [Report::Note { .. }, Report::Reissued { microbatches: 0, tokens, why, .. }] => {
            assert!(
                *tokens == lost && why.ends_with("; 4 microbatches in work are struck"),
                "{tokens} {why}"
            );
        }
        ref other => panic!("{other:?}"),
    }
    let struck = |effect: &Effect| match effect {
        Effect::Send { to, message: Message::Strike(assignment) } => Some((*to, assignment.id)),
        _ => None,
    };
    let struck: Vec<_> = effects.iter().filter_map(struck).collect();
    assert_eq!(struck, [4, 5, 6, 7].map(|id| (ids[OTHER_TAIL], id)));

    // What was folded before the word came counts, and the rest is left out.
    step(&mut world, OTHER_TAIL, 0, &[4]);
    step(&mut world, OTHER_TAIL, 1, &[]);
    round_trips(&mut world, [HEAD, OTHER_TAIL], [0, 1]);
    step(&mut world, HEAD, 0, &[0, 1]);
    round_trips(&mut world, [HEAD, OTHER_TAIL], [2, 3]);
    step(&mut world, HEAD, 1, &[2, 3]);
    let effects = step(&mut world, OTHER_TAIL, 2, &[0, 1, 2, 3]);
    let merges = |effect: &&Effect| matches!(effect, Effect::Send { message: Message::Merge(_), .. });
    assert_eq!(effects.iter().filter(merges).count(), 2);
    assert!(!world.effects.iter().any(|e| matches!(e, Effect::Report(Report::Rewound { .. }))));
}

#[test]
fn who_has_done_nothing_yet_is_not_left_without_a_forward_that_says_where_it_began() {
    let mut world = swarm();
    let ids = world.ids();
    lose(&mut world, ids[TAIL]);
    // As above, but the other tail has done nothing: all of its first step would be struck.
    let effects = lose(&mut world, ids[OTHER_HEAD]);
    let struck = |effect: &Effect| matches!(effect, Effect::Send { message: Message::Strike(_), .. });
    assert!(!effects.iter().any(struck), "{effects:?}");
    assert!(
        reports(&effects).iter().any(|said| matches!(said, Report::Rewound { epoch: 0, .. })),
        "{effects:?}"
    );
}
