//! What a validator finds wrong convicts only once a second party finds it too.

use crate::support::{World, object, run};
use orchestrator_core::{Confirmation, Effect, Ending, Event, Report};
use spec::{Digest, NodeId};
use wire::{Finding, Message, Role};

/// The validator says that the tail's window is wrong; what the core did about it.
fn accused(confirmation: Option<Confirmation>) -> (World, Vec<Effect>) {
    let mut world = World::opened(run());
    world.inner_step(0);
    world.inner_step(1);
    world.merge();
    world.reveal();
    world.confirmation = confirmation;
    let [expected, found] = ["right", "wrong"].map(|tag| object(tag).digest.to_string());
    let finding = Finding::Unequal { sequence: 8, what: "output".into(), expected, found };
    let effects = world.verdict(1, finding);
    (world, effects)
}

fn convicted(effects: &[Effect]) -> Vec<NodeId> {
    let convicted = |effect: &Effect| match effect {
        Effect::Report(Report::Convicted { node, .. }) => Some(*node),
        _ => None,
    };
    effects.iter().filter_map(convicted).collect()
}

fn checked(effects: &[Effect]) -> Vec<Digest> {
    let checked = |effect: &Effect| match effect {
        Effect::Confirm { evidence, case } => {
            assert_eq!(*evidence, Digest::of(case));
            Some(*evidence)
        }
        _ => None,
    };
    effects.iter().filter_map(checked).collect()
}

#[test]
fn nobody_is_convicted_before_the_second_check_and_then_the_accused_is() {
    let (mut world, said) = accused(None);
    let [evidence] = checked(&said)[..] else { panic!("one check: {said:?}") };
    assert!(convicted(&said).is_empty() && !format!("{said:?}").contains("KeepEvidence"), "{said:?}");
    // Somebody else's answer is none.
    let other = Digest::of(b"another case");
    assert!(world.give(Event::Confirmed { evidence: other, confirmation: Confirmation::Proven }).is_empty());
    let said = world.give(Event::Confirmed { evidence, confirmation: Confirmation::Proven });
    assert_eq!(convicted(&said), [world.ids()[1]]);
    let again = world.give(Event::Confirmed { evidence, confirmation: Confirmation::Proven });
    assert!(again.is_empty(), "once: {again:?}");
}

#[test]
fn who_accuses_the_honest_is_banned_and_the_window_goes_to_another() {
    let why = "18 operations done again".into();
    let (mut world, said) = accused(Some(Confirmation::NotProven { why }));
    let accuser = world.validator.id();
    assert_eq!(convicted(&said), [accuser]);
    assert!(world.transcript.text().contains("18 operations done again"));
    assert_eq!(world.ending(), None);
    let refused = world.hello_again(accuser, Role::Validator);
    assert!(format!("{refused:?}").contains("Banned"), "{refused:?}");
    // Another judges the same window and every other.
    world.validator = wire::Key::from_seed([51; 32]);
    let ordered = world.hello(world.validator.id(), Role::Validator, b"token");
    let audits = |effect: &&Effect| matches!(effect, Effect::Send { to, message: Message::Audit(_) } if *to == world.validator.id());
    assert!(ordered.iter().filter(audits).count() >= 2, "{ordered:?}");
    world.verdict(0, Finding::Equal { operations: 5 });
    world.verdict(1, Finding::Equal { operations: 5 });
    assert_eq!(world.ending(), Some(Ending::Complete));
}

#[test]
fn a_case_that_cannot_be_checked_convicts_with_a_note() {
    let why = "it is too long".into();
    let (world, said) = accused(Some(Confirmation::Unable { why }));
    assert_eq!(convicted(&said), [world.ids()[1]]);
    assert!(world.transcript.text().contains("it is too long): the word of validator"));
}

#[test]
fn checks_are_asked_for_again_by_an_orchestrator_that_is_started_again() {
    let (mut world, said) = accused(None);
    assert_eq!(checked(&world.give(Event::Resumed)), checked(&said));
}

#[test]
fn a_check_that_does_not_come_ends_the_run() {
    let (mut world, _) = accused(None);
    world.verdict(0, Finding::Equal { operations: 5 });
    let Ending::Failed { why } = world.wait_for_the_end() else { panic!("it goes on") };
    assert!(why.contains("nothing came for 20 s: this machine owes the check of case"), "{why}");
}
