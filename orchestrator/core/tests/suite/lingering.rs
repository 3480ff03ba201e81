//! Who has all it needs and does nothing, and who is only waiting.

use crate::reissue::{HEAD, OTHER_HEAD, OTHER_TAIL, TAIL, forward, lose, round_trips, step};
use crate::support::{World, run};
use orchestrator_core::{Effect, Event, Orchestrator, Report};
use spec::NodeId;

/// Two stages of two miners each; the epoch has just opened, and nothing but lingering ends a wait.
fn swarm() -> World {
    let mut run = run();
    run.miners_per_stage = 2;
    let mut world = World::new(run);
    world.config.timeouts.stall_ms = 60_000;
    world.core = Orchestrator::new(world.config.clone()).unwrap();
    world.start();
    world.everyone_joins();
    world
}

/// The other lane does all its steps, one forward of its tail after so long.
fn the_others_are_through(world: &mut World, tail_takes_ms: u64) {
    let there = forward(world, OTHER_HEAD, 4, None);
    world.now_ms += tail_takes_ms;
    forward(world, OTHER_TAIL, 4, Some(&there));
    crate::reissue::back(world, [OTHER_HEAD, OTHER_TAIL], 4);
    round_trips(world, [OTHER_HEAD, OTHER_TAIL], [5]);
    for who in [OTHER_TAIL, OTHER_HEAD] {
        step(world, who, 0, &[4, 5]);
    }
    round_trips(world, [OTHER_HEAD, OTHER_TAIL], [6, 7]);
    for who in [OTHER_TAIL, OTHER_HEAD] {
        step(world, who, 1, &[6, 7]);
    }
}

/// Deadlines are looked at every tenth of a second: what is said at the first of which something is, and when that is.
fn first<T>(world: &mut World, said: impl Fn(&Report) -> Option<T>) -> (T, u64) {
    for _ in 0..200 {
        world.now_ms += 90;
        for effect in world.give(Event::Woke) {
            if let Effect::Report(report) = &effect
                && let Some(found) = said(report)
            {
                return (found, world.now_ms);
            }
        }
    }
    panic!("nothing of the kind in 20 s")
}

fn reissued(report: &Report) -> Option<NodeId> {
    match report {
        Report::Reissued { from, .. } => Some(*from),
        _ => None,
    }
}

/// Who is not waited for, and after how many milliseconds since `since_ms`, to the tenth of a second below.
fn lingerer(world: &mut World, since_ms: u64) -> (usize, u64) {
    let (from, at_ms) = first(world, reissued);
    let who = world.ids().iter().position(|id| *id == from).unwrap();
    (who, (at_ms - since_ms) / 100 * 100)
}

#[test]
fn who_never_begins_is_not_waited_for() {
    let mut world = swarm();
    let opened_ms = world.now_ms;
    the_others_are_through(&mut world, 0);
    assert_eq!(lingerer(&mut world, opened_ms), (HEAD, 4_500));
}

#[test]
fn time_counts_from_when_the_input_came() {
    let mut world = swarm();
    the_others_are_through(&mut world, 0);
    world.now_ms += 3_000;
    let came_ms = world.now_ms;
    for id in [0, 1] {
        forward(&mut world, HEAD, id, None);
    }
    assert_eq!(lingerer(&mut world, came_ms), (TAIL, 4_500));
}

#[test]
fn who_waits_for_another_is_not_blamed() {
    let mut world = swarm();
    the_others_are_through(&mut world, 0);
    let there = [0, 1].map(|id| forward(&mut world, HEAD, id, None));
    world.now_ms += 2_000;
    for (id, there) in (0..).zip(&there) {
        forward(&mut world, TAIL, id, Some(there));
    }
    let since_ms = world.now_ms;
    assert_eq!(lingerer(&mut world, since_ms), (TAIL, 4_500));
}

#[test]
fn where_others_of_the_stage_take_long_it_may_too() {
    let mut world = swarm();
    the_others_are_through(&mut world, 1_000);
    let since_ms = world.now_ms;
    for id in [0, 1] {
        forward(&mut world, HEAD, id, None);
    }
    // Eight times as long as the other tail did nothing at the longest: a little more than a second.
    let (who, after_ms) = lingerer(&mut world, since_ms);
    assert!(who == TAIL && (8_000..9_000).contains(&after_ms), "{who} after {after_ms} ms");
}

#[test]
fn a_stage_is_deserted_once_the_last_of_it_is_gone_for_long() {
    let mut world = swarm();
    let [tail, other_tail] = [TAIL, OTHER_TAIL].map(|who| world.ids()[who]);
    lose(&mut world, tail);
    world.now_ms += 700;
    let since_ms = world.now_ms;
    world.give(Event::Lost { peer: other_tail, why: "nothing was heard of it".into() });
    let moves = |report: &Report| match report {
        Report::Note { text } if text.contains("moves there") => Some(()),
        _ => None,
    };
    let ((), at_ms) = first(&mut world, moves);
    assert_eq!((at_ms - since_ms) / 100 * 100, world.config.timeouts.seat_grace_ms);
}
