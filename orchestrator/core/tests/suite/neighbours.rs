//! Direct routes: who is told where whom can be reached, and when.

use crate::support::{World, run};
use orchestrator_core::{Effect, Event, Orchestrator, Report};
use spec::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use wire::neighbours::AS_SEEN;
use wire::{Carried, Machine, Message, Role};

const HEAD: usize = 0;
const TAIL: usize = 1;
const OTHER_HEAD: usize = 2;
const OTHER_TAIL: usize = 3;

fn address(who: usize) -> SocketAddr {
    ([10, 0, 0, who as u8], 4700).into()
}

/// Two stages of two miners each, the first epoch is open. Each said where it can be reached but for the other tail.
fn swarm(direct: bool) -> World {
    let mut run = run();
    run.miners_per_stage = 2;
    let mut world = World::new(run);
    world.config.direct = direct;
    world.core = Orchestrator::new(world.config.clone()).unwrap();
    world.start();
    world.hello(world.validator.id(), Role::Validator, b"token");
    let ids = world.ids();
    for (who, &id) in ids.iter().enumerate() {
        world.hello(id, Role::Miner, b"token");
        if who != OTHER_TAIL {
            let nowhere = ["224.0.0.1:4700", "10.0.0.9:0"].map(|text| text.parse().unwrap());
            let said = vec![AS_SEEN, address(who), nowhere[0], nowhere[1]];
            world.say(id, Message::Reachable(said));
        }
    }
    for &id in &ids {
        world.ready(id, 0);
    }
    world
}

/// The lists that miners were told, by who was told: the neighbours' numbers.
fn told(world: &World, effects: &[Effect]) -> BTreeMap<usize, Vec<usize>> {
    let ids = world.ids();
    let number = |node: NodeId| ids.iter().position(|id| *id == node).unwrap();
    let list = |effect: &Effect| match effect {
        Effect::Send { to, message: Message::Neighbours(list) } => {
            for neighbour in list {
                assert_eq!(neighbour.addresses, [address(number(neighbour.node))]);
            }
            Some((number(*to), list.iter().map(|neighbour| number(neighbour.node)).collect()))
        }
        _ => None,
    };
    effects.iter().filter_map(list).collect()
}

#[test]
fn each_is_told_of_those_beside_it_and_of_its_stage() {
    let world = swarm(true);
    let lists = told(&world, &world.effects);
    // The other tail says nowhere where it can be reached: nobody hears of it, and it of nobody.
    let expected = [(HEAD, vec![TAIL, OTHER_HEAD]), (TAIL, vec![HEAD]), (OTHER_HEAD, vec![HEAD])];
    assert_eq!(lists, expected.into());
    let first = |wanted: fn(&Message) -> bool| {
        let sent = |effect: &Effect| matches!(effect, Effect::Send { message, .. } if wanted(message));
        world.effects.iter().position(sent).unwrap()
    };
    let lists_at = first(|message| matches!(message, Message::Neighbours(list) if !list.is_empty()));
    assert!(lists_at < first(|message| matches!(message, Message::Assign(_))));
    assert!(
        told(&swarm(false), &swarm(false).effects).is_empty(),
        "addresses stay here unless it is asked for"
    );
}

#[test]
fn lists_change_with_a_stand_in_and_are_told_again_to_who_says_again_where_it_is() {
    let mut world = swarm(true);
    let ids = world.ids();
    let effects = world.say(ids[OTHER_TAIL], Message::Reachable(vec![address(OTHER_TAIL)]));
    let now = told(&world, &effects);
    assert_eq!((&now[&OTHER_TAIL], &now[&OTHER_HEAD]), (&vec![OTHER_HEAD, TAIL], &vec![OTHER_TAIL, HEAD]));
    assert!(!now.contains_key(&HEAD), "nothing is new to it: {now:?}");

    world.give(Event::Lost { peer: ids[TAIL], why: "nothing was heard of it".into() });
    world.now_ms += 100;
    let effects = world.give(Event::Woke);
    let now = told(&world, &effects);
    let expected = [
        (HEAD, vec![OTHER_TAIL, OTHER_HEAD]),
        (OTHER_HEAD, vec![OTHER_TAIL, HEAD]),
        (OTHER_TAIL, vec![HEAD, OTHER_HEAD]),
    ];
    assert_eq!(now.get(&HEAD), Some(&expected[0].1));
    assert_eq!(now.get(&OTHER_TAIL), Some(&expected[2].1));
    // It has the list already, unless it says that it may not.
    assert_eq!(now.get(&OTHER_HEAD), None);
    let effects = world.say(ids[OTHER_HEAD], Message::Reachable(vec![address(OTHER_HEAD)]));
    assert_eq!(told(&world, &effects), [(OTHER_HEAD, expected[1].1.clone())].into());
    let mut again = Orchestrator::new(world.config.clone()).unwrap();
    let effects: Vec<_> =
        world.journal.iter().flat_map(|(now_ms, event)| again.handle(*now_ms, event.clone())).collect();
    assert_eq!(effects, world.effects);
    assert_eq!(again.digest(), world.core.digest());
}

#[test]
fn what_nobody_may_say_of_addresses_and_bytes_is_noted_once() {
    let carried = || Message::Carried(Carried { frames: 3, bytes_plain: 30, bytes_sent: 20 });
    let mut world = swarm(true);
    let head = world.ids()[HEAD];
    let effects = world.say(head, Message::Reachable(vec![address(HEAD); 5]));
    assert!(format!("{effects:?}").contains("says 5 addresses, at most 4 are taken"), "{effects:?}");
    assert!(told(&world, &effects).is_empty());
    let report = Effect::Report(Report::Carried { node: head, frames: 3, bytes_plain: 30, bytes_sent: 20 });
    assert_eq!(world.say(head, carried()), std::slice::from_ref(&report));

    let mut relayed = swarm(false);
    let effects = relayed.say(head, carried());
    assert!(!effects.contains(&report) && format!("{effects:?}").contains("not its to say"), "{effects:?}");
}
