//! The whole of a small run, as text that a person can read, and the law of the journal.

use crate::support::{World, journal_replays_equal, object, run};
use orchestrator_core::{Effect, Ending, Event, Orchestrator};
use wire::{Ask, Finding, Key, Message, ObjectRef, Role, Verb};

#[test]
fn a_run_from_the_first_hello_to_the_last_verdict() {
    let mut world = World::new(run());
    world.transcript.title("everyone joins, fetches and is ready");
    world.start();
    world.everyone_joins();
    let head = world.puppets[0].key.id();
    let ask = |verb, object| Message::Ask(Ask { verb, object });
    world.say(head, ask(Verb::Get, ObjectRef::train(&world.config.run.data)));
    world.say(head, ask(Verb::Get, object("weights 1")));
    world.transcript.title("two inner steps");
    world.inner_step(0);
    world.inner_step(1);
    world.transcript.title("merge, commit, draw");
    world.merge();
    world.transcript.title("audit");
    world.reveal();
    world.verdict(0, Finding::Equal { operations: 5 });
    world.verdict(1, Finding::Equal { operations: 5 });
    assert_eq!(world.ending(), Some(Ending::Complete));
    insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("conversation", world.transcript.text());
    });
    journal_replays_equal(&world);
}

#[test]
fn a_convicted_miner_is_banned_and_the_others_go_back_to_where_it_had_not_lied() {
    let mut world = World::opened(run());
    world.inner_step(0);
    world.inner_step(1);
    world.merge();
    world.reveal();
    let [expected, found] = ["right", "wrong"].map(|tag| object(tag).digest.to_string());
    let finding = Finding::Unequal { sequence: 8, what: "output".into(), expected, found };
    world.transcript.title("the validator finds the tail unequal");
    world.verdict(1, finding);
    world.transcript.title("the tail comes again, and somebody else in its place");
    let [head, tail] = world.ids()[..] else { panic!("two stages") };
    world.hello_again(tail, Role::Miner);
    world.say(head, Message::Ready { epoch: 0 });
    let other = Key::from_seed([77; 32]);
    world.transcript.name(other.id(), "newcomer");
    world.hello(other.id(), Role::Miner, b"token");
    world.say(other.id(), Message::Ready { epoch: 0 });
    assert_eq!(world.ending(), None);
    let text = world.transcript.text();
    let at = text.find("# the validator").unwrap();
    assert_eq!(world.core.manifest(), &world.config.manifest);
    let moved = |effect: &&Effect| matches!(effect, Effect::MovePointer { .. });
    assert_eq!(world.effects.iter().filter(moved).count(), 3, "manifest 0, manifest 1, and back");
    insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("conviction", &text[at..]);
    });
    journal_replays_equal(&world);
}

#[test]
fn several_epochs_follow_one_another_with_audits_beside_them() {
    let mut longer = run();
    longer.epoch.count = 2;
    longer.audit.lag = 0;
    let mut world = World::opened(longer);
    world.inner_step(0);
    world.inner_step(1);
    world.merge();
    let opened = |world: &World| world.transcript.text().matches("report: epoch 1 opened").count();
    assert_eq!(opened(&world), 0, "with lag 0 the next epoch waits for the audits");
    world.reveal();
    world.verdict(1, Finding::Equal { operations: 5 });
    assert_eq!(opened(&world), 0);
    world.verdict(0, Finding::Equal { operations: 5 });
    assert_eq!(opened(&world), 1);
    assert_eq!(world.core.manifest().body.epoch, 1);
    assert_eq!(world.core.manifest().body.previous, world.config.manifest.digest());
    world.give(Event::Stop);
    assert_eq!(world.ending(), Some(Ending::Stopped));
}

#[test]
fn routes_are_mixed_by_what_nobody_knew() {
    let mut wide = run();
    wide.miners_per_stage = 3;
    let mut seen = std::collections::BTreeSet::new();
    for secret in 0..12 {
        let mut world = World::new(wide.clone());
        (world.config.mixes_routes, world.config.secret) = (true, [secret; 32]);
        world.core = Orchestrator::new(world.config.clone()).unwrap();
        world.start();
        world.everyone_joins();
        let ids = world.ids();
        let assigned = |effect: &Effect| match effect {
            Effect::Send { message: Message::Assign(assignment), .. } => Some(
                [0, 1].map(|stage| ids.iter().position(|id| *id == assignment.route[stage].miner).unwrap()),
            ),
            _ => None,
        };
        let routes: std::collections::BTreeSet<[usize; 2]> =
            world.effects.iter().filter_map(assigned).collect();
        let tails: std::collections::BTreeSet<usize> = routes.iter().map(|route| route[1]).collect();
        assert_eq!((routes.len(), tails.len()), (3, 3), "everybody is in one lane: {routes:?}");
        seen.insert(routes);
    }
    assert_eq!(seen.len(), 3, "every turn of the tails comes about: {seen:?}");
}
