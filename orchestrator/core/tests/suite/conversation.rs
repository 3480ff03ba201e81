//! The whole of a small run, as text that a person can read, and the law of the journal.

use crate::support::{World, journal_replays_equal, new_weights, object, run, state};
use orchestrator_core::{Effect, Ending, Event, Orchestrator};
use spec::{Digest, Operation};
use wire::merge::inputs_digest;
use wire::{Ask, Finding, Key, Machine, Message, ObjectRef, Role, Verb};

/// Of a stage that is merged alone.
const SHARDS: u64 = 3;

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
    world.transcript.title("what else is drawn is judged, and everybody goes back");
    world.verdict(0, Finding::Equal { operations: 5 });
    world.transcript.title("the tail comes again, and somebody else in its place");
    let [head, tail] = world.ids()[..] else { panic!("two stages") };
    world.hello_again(tail, Role::Miner);
    world.ready(head, 0);
    let other = Key::from_seed([77; 32]);
    world.transcript.name(other.id(), "newcomer");
    world.hello(other.id(), Role::Miner, b"token");
    world.ready(other.id(), 0);
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
fn who_merges_a_large_stage_alone_adds_it_up_in_several_shards() {
    let mut large = run();
    (large.model.ffn, large.miners_per_stage) = (1_800_000, 1);
    assert!(matches!(large.outer, spec::Outer::Nesterov { .. }));
    let shards = |stage| large.model.stage_parameters(stage).div_ceil(1 << 24);
    assert_eq!([shards(0), shards(1)], [SHARDS; 2], "{:?}", large.model);
    let mut world = World::opened(large);
    world.inner_step(0);
    world.inner_step(1);
    world.merge_stage(0);
    // One sum is missing.
    let id = world.puppets[1].key.id();
    world.works(1, Operation::Encode, |receipt| receipt.output = Some(object("root").digest));
    let root = Some(inputs_digest(&[object("root").digest]));
    let reduce = |shard| Operation::Reduce { shard, contributors: vec![id] };
    let sum = |shard: u32| object(&format!("sum {shard}")).digest;
    for shard in (0..SHARDS as u32).filter(|shard| *shard != 1) {
        world.works(1, reduce(shard), |receipt| (receipt.input, receipt.output) = (root, Some(sum(shard))));
    }
    let before = world.puppets[1].clone();
    let sums: Vec<Digest> = (0..SHARDS as u32).map(sum).collect();
    let disconnected = |effects: &[Effect]| {
        effects.iter().any(|effect| matches!(effect, Effect::Disconnect { peer, .. } if *peer == id))
    };
    let (mut early, mut past) = (world.core.clone(), world.core.clone());
    let mut puppet = before.clone();
    let apply = puppet.receipt(&world.config.run, Operation::Apply, |receipt| {
        (receipt.input, receipt.output) = (Some(inputs_digest(&sums)), Some(object("weights").digest));
        receipt.state = Some(object("state").digest);
    });
    let said = |receipt| Event::Message { from: id, message: Message::Receipt(receipt) };
    assert!(disconnected(&early.handle(world.now_ms, said(apply))));
    let mut puppet = before;
    let beyond = puppet.receipt(&world.config.run, reduce(SHARDS as u32), |receipt| {
        (receipt.input, receipt.output) = (root, Some(object("sum").digest));
    });
    assert!(disconnected(&past.handle(world.now_ms, said(beyond))));
    let last = world.works(1, reduce(1), |receipt| (receipt.input, receipt.output) = (root, Some(sum(1))));
    assert!(!disconnected(&last));
    let applied = world.works(1, Operation::Apply, |receipt| {
        (receipt.input, receipt.output) = (Some(inputs_digest(&sums)), Some(new_weights(1).digest));
        receipt.state = Some(state(1, 2).digest);
    });
    assert!(!disconnected(&applied));
    world.merged(1);
    world.say(id, Message::Kept(new_weights(1)));
    assert_eq!(world.core.manifest().body.epoch, 1);
    journal_replays_equal(&world);
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
