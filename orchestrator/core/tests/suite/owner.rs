//! What the owner commands, and whom its invitations let in.

use crate::support::{World, run};
use orchestrator_core::{Effect, Ending, Event, Report};
use spec::{NodeId, Run};
use wire::{Command, Finding, Hello, Key, Message, Refusal, Role, Terms};

/// Two epochs, the second open, the first stable.
fn in_the_second_epoch() -> World {
    let mut longer: Run = run();
    longer.epoch.count = 2;
    longer.audit.lag = 0;
    let mut world = World::opened(longer);
    world.inner_step(0);
    world.inner_step(1);
    world.merge();
    world.reveal();
    world.verdict(0, Finding::Equal { operations: 5 });
    world.verdict(1, Finding::Equal { operations: 5 });
    assert_eq!(world.core.manifest().body.epoch, 1);
    world
}

fn roll_back(world: &mut World, from: NodeId, to: Option<u32>) -> Vec<Effect> {
    world.say(from, Message::Command(Command::RollBack { to }))
}

fn answer(effects: &[Effect]) -> Option<Result<String, String>> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { message: Message::Answered(answer), .. } => Some(answer.clone()),
        _ => None,
    })
}

#[test]
fn the_owner_takes_everybody_back_to_an_earlier_epoch() {
    let mut world = in_the_second_epoch();
    let owner = world.config.key.id();
    let effects = roll_back(&mut world, owner, Some(0));
    assert_eq!(answer(&effects), Some(Ok("everybody goes back to the opening of epoch 0".into())));
    let tokens = 2 * 2 * world.config.run.microbatch_tokens();
    let undone =
        Report::RolledBack { epoch: 0, epochs: 1, steps: 2, tokens, why: "its owner asked for it".into() };
    assert!(effects.contains(&Effect::Report(undone)), "{effects:?}");
    let first = world.config.manifest.clone();
    assert_eq!(world.core.manifest(), &first);
    for (stage, miner) in (0..).zip(world.ids()) {
        let told =
            Effect::Send { to: miner, message: Message::Adopt { stage, manifest: first.clone(), turn: 1 } };
        assert!(effects.contains(&told), "{effects:?}");
    }
    // From there it goes on.
    let mut opened = Vec::new();
    for miner in world.ids() {
        opened = world.ready(miner, 0);
    }
    assert!(opened.contains(&Effect::Report(Report::Opened { epoch: 0 })), "{opened:?}");
}

#[test]
fn a_run_that_was_stopped_goes_on_from_the_newest_stable_epoch() {
    let mut world = in_the_second_epoch();
    let owner = world.config.key.id();
    world.give(Event::Stop);
    assert_eq!(world.ending(), Some(Ending::Stopped));
    assert_eq!(world.give(Event::Resumed), [], "it has ended");
    let effects = roll_back(&mut world, owner, None);
    assert_eq!(answer(&effects), Some(Ok("everybody goes back to the opening of epoch 1".into())));
    world.give(Event::Resumed);
    world.hello_again(world.validator.id(), Role::Validator);
    for miner in world.ids() {
        let effects = world.hello_again(miner, Role::Miner);
        let adopts = |effect: &Effect| matches!(effect, Effect::Send { message: Message::Adopt { manifest, .. }, .. } if manifest.body.epoch == 1);
        assert!(effects.iter().any(adopts), "{effects:?}");
    }
    let mut opened = Vec::new();
    for miner in world.ids() {
        opened = world.ready(miner, 1);
    }
    assert!(opened.contains(&Effect::Report(Report::Opened { epoch: 1 })), "{opened:?}");
}

#[test]
fn nobody_goes_back_to_where_nothing_stable_is_or_by_a_guests_word() {
    let mut world = in_the_second_epoch();
    let (owner, guest) = (world.config.key.id(), world.ids()[0]);
    let said = answer(&roll_back(&mut world, owner, Some(2))).unwrap().unwrap_err();
    assert!(
        said.starts_with("the opening of epoch 2 is not stable, the newest that is is that of epoch 1"),
        "{said}"
    );
    let effects = roll_back(&mut world, guest, Some(0));
    assert_eq!(answer(&effects), None);
    assert_eq!(world.core.manifest().body.epoch, 1);
    let said = effects.iter().any(
        |effect| matches!(effect, Effect::Report(Report::Note { text }) if text.contains("not its to say")),
    );
    assert!(said, "{effects:?}");
}

#[test]
fn a_run_that_ended_before_it_began_gathers_once_more() {
    let mut world = World::new(run());
    world.start();
    let owner = world.config.key.id();
    let said = answer(&roll_back(&mut world, owner, None)).unwrap().unwrap_err();
    assert_eq!(said, "no epoch has opened yet: there is nothing to go back from");
    assert!(matches!(world.wait_for_the_end(), Ending::Failed { .. }), "nobody comes");
    assert!(answer(&roll_back(&mut world, owner, None)).unwrap().is_ok());
    world.give(Event::Resumed);
    world.everyone_joins();
    let opened = Effect::Report(Report::Opened { epoch: 0 });
    assert!(world.effects.contains(&opened), "{}", world.transcript.text());
}

#[test]
fn invitations_hold_for_their_role_and_their_time() {
    let mut world = World::new(run());
    world.start();
    let (secret, run) = (world.config.secret, world.config.run.id());
    let node = Key::from_seed([77; 32]).id();
    let mut come = |role, terms: Terms, unix_s| {
        let token = terms.token(&secret, &run);
        let hello = Hello { role, token, software: "iota test".into(), resumes: false };
        let effects = world.give(Event::Arrived { from: node, hello, unix_s });
        effects.into_iter().find_map(|effect| match effect {
            Effect::Send { message: Message::Refused(refusal), .. } => Some(refusal),
            _ => None,
        })
    };
    let timed = Terms { role: Some(Role::Miner), expires_s: Some(1_000) };
    assert_eq!(come(Role::Validator, timed, 5), Some(Refusal::OtherRole(Role::Miner)));
    assert_eq!(come(Role::Miner, timed, 1_000), Some(Refusal::Expired));
    assert_eq!(come(Role::Miner, timed, 999), None);
    assert_eq!(come(Role::Miner, timed, 5_000), None, "who has a seat keeps it");
}
