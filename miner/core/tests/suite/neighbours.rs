//! Direct routes: where the miner says that it is reached, whom it talks to, and what is lost with a route.

use crate::support::{World, notes, run};
use miner_core::{Effect, Event, Miner};
use spec::NodeId;
use wire::PayloadKind::{Activation, Gradient};
use wire::limits::{ADDRESSES_MAX, NEIGHBOURS_MAX};
use wire::neighbours::AS_SEEN;
use wire::{Message, Neighbour};

/// A miner that takes calls, its first epoch open.
fn reachable() -> World {
    let mut world = World::new(run());
    world.config.reachable = Some(vec![AS_SEEN]);
    world.core = Miner::new(world.config.clone());
    world.join();
    world.open();
    world
}

fn payloads(effects: &[Effect]) -> Vec<(NodeId, u64)> {
    let payload = |effect: &Effect| match effect {
        Effect::SendPayload { to, head, .. } => Some((*to, head.assignment)),
        _ => None,
    };
    effects.iter().filter_map(payload).collect()
}

#[test]
fn it_says_after_every_welcome_where_it_is_reached() {
    let said = |effects: &[Effect]| effects.contains(&Effect::Send(Message::Reachable(vec![AS_SEEN])));
    let mut world = reachable();
    assert!(said(&world.effects));
    world.give(Event::Disconnected { why: "reset".into() });
    assert!(!said(&world.give(Event::Connected)), "not before it is let in");
    assert!(said(&world.say(world.welcome())));
    assert!(!said(&World::opened(run()).effects), "who takes no calls says nothing");
}

#[test]
fn what_a_route_may_have_lost_goes_once_more_to_that_neighbour_alone() {
    let mut world = reachable();
    let [head, tail] = [0, 2].map(|stage| world.keys[stage].id());
    for id in [0, 1] {
        world.assign(id, 0, id as u16);
        world.deliver(Activation, id, 0, id as u16);
    }
    assert_eq!(payloads(&world.give(Event::RouteLost(tail))), [(tail, 0), (tail, 1)]);
    assert_eq!(payloads(&world.give(Event::RouteLost(head))), []);
    // Its gradient came, so the activation is known to have arrived.
    world.deliver(Gradient, 0, 0, 0);
    assert_eq!(payloads(&world.give(Event::RouteLost(tail))), [(tail, 1)]);
    assert_eq!(payloads(&world.give(Event::RouteLost(head))), [(head, 0)]);
}

#[test]
fn neighbours_are_taken_within_bounds_by_who_takes_calls() {
    let neighbour = |number: u8| Neighbour { node: NodeId([number; 32]), addresses: vec![] };
    let mut world = reachable();
    let list: Vec<Neighbour> = (1..=NEIGHBOURS_MAX as u8).map(neighbour).collect();
    let effects = world.say(Message::Neighbours(list.clone()));
    assert!(effects.contains(&Effect::Neighbours(list.clone())), "{effects:?}");
    let too_many = [list.clone(), vec![neighbour(255)]].concat();
    let itself = vec![Neighbour { node: world.me(), addresses: vec![] }];
    let everywhere = vec![AS_SEEN; ADDRESSES_MAX + 1];
    let wide = vec![Neighbour { addresses: everywhere, ..neighbour(1) }];
    for wrong in [too_many, itself, wide] {
        let effects = reachable().say(Message::Neighbours(wrong));
        let taken = effects.iter().any(|effect| matches!(effect, Effect::Neighbours(_)));
        assert!(
            !taken && notes(&effects).contains("expected at most 64 others of 4 addresses"),
            "{effects:?}"
        );
    }
    let effects = World::opened(run()).say(Message::Neighbours(vec![neighbour(1)]));
    assert!(notes(&effects).contains("none for a miner that takes no calls"), "{effects:?}");
}
