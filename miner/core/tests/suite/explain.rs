//! A convict performs its window again, and says what it gave.

use crate::support::{World, asks, notes, object, run};
use miner_core::{Effect, Task};
use spec::{Digest, Window};
use wire::PayloadKind::{Activation, Gradient};
use wire::{AuditOrder, Explain, Message, ObjectRef, Signed, Trace, Verb};

/// The question about the miner's first window, of which it gave two receipts.
fn question(world: &World) -> Explain {
    let receipts = world.receipts();
    let order = AuditOrder {
        miner: world.me(),
        stage: 1,
        window: Window { epoch: 0, step: 0 },
        weights: object("weights 1").digest,
        state: object("state"),
        start: receipts[0].clone(),
        receipts: receipts.clone(),
        inputs: vec![object("activation"), object("gradient")],
        merge: None,
    };
    Explain { receipt: receipts[1].digest(), order }
}

/// A miner in the midst of its work.
fn working() -> World {
    let mut world = World::opened(run());
    world.assign(0, 0, 0);
    world.assign(1, 0, 1);
    world.deliver(Activation, 0, 0, 0);
    world.deliver(Gradient, 0, 0, 0);
    world.deliver(Activation, 1, 0, 1);
    world
}

fn said(effects: &[Effect]) -> Vec<Message> {
    let said = |effect: &Effect| match effect {
        Effect::Send(message @ (Message::Explained(_) | Message::Shown(_) | Message::Leave { .. })) => {
            Some(message.clone())
        }
        _ => None,
    };
    effects.iter().filter_map(said).collect()
}

#[test]
fn a_convict_fetches_its_own_objects_and_answers() {
    let mut world = working();
    let question = question(&world);
    let effects = world.say(Message::Explain(question.clone()));
    assert!(notes(&effects).contains("convicted this miner"), "{effects:?}");
    assert_eq!((asks(&effects, Verb::Get), asks(&effects, Verb::Put)), (3, 1));
    let digests = ObjectRef { digest: object("digests").digest, bytes: 32 * 9 };
    let body = Trace { run: world.run.id(), receipt: question.receipt, values: 9, root: digests.digest };
    let trace = Signed::new(body, &world.config.key);
    assert_eq!(said(&effects), [Message::Explained(trace), Message::Shown(digests)]);
    let output = object("output 7");
    let effects = world.say(Message::Show { value: 7, output });
    assert_eq!(said(&effects), [Message::Shown(output)]);
    // It works no more, whatever still comes.
    let effects = world.deliver(Gradient, 1, 0, 1);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Compute { .. })), "{effects:?}");
    assert_eq!(world.exit(), None);
    let tasks = world
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Compute { task: Task::Explain { .. }, .. }));
    assert_eq!(tasks.count(), 2);
}

#[test]
fn what_is_no_question_is_ignored() {
    let mut world = World::new(run());
    world.give(miner_core::Event::Connected);
    let asked_of = |miner| {
        let mut question = question(&working());
        question.order.miner = miner;
        Message::Explain(question)
    };
    let effects = world.say(asked_of(world.me()));
    assert!(notes(&effects).contains("before it gave a seat"), "{effects:?}");
    let mut world = working();
    let other = world.keys[0].id();
    let effects = world.say(asked_of(other));
    assert!(notes(&effects).contains("what another miner did"), "{effects:?}");
    let effects = world.say(Message::Show { value: 7, output: object("output 7") });
    assert!(notes(&effects).contains("what it cannot know of"), "{effects:?}");
    world.say(asked_of(world.me()));
    let effects = world.say(asked_of(world.me()));
    assert!(notes(&effects).contains("asked twice for"), "{effects:?}");
    assert_eq!(world.exit(), None);
}

#[test]
fn who_cannot_answer_says_so_and_leaves() {
    let leaves = |world: &mut World, why: &str| {
        let question = question(world);
        let effects = world.say(Message::Explain(question));
        let said = said(&effects);
        assert!(matches!(&said[..], [Message::Leave { reason }] if reason.contains(why)), "{why}: {said:?}");
        assert!(world.exit().is_some_and(|exit| exit.is_err()));
    };
    let mut world = working();
    world.engine_fails = true;
    leaves(&mut world, "performing its window again failed on this machine: no memory");
    let mut world = working();
    world.refuses = true;
    leaves(&mut world, "does not let me get");
    let mut world = working();
    world.store_fails = true;
    leaves(&mut world, "could not be moved (timeout)");
    // What it asked for before it heard may be refused: that is no answer's.
    let mut world = working();
    let before = world.say(Message::Draw { epoch: 0, steps: vec![0], more: true });
    assert!(asks(&before, Verb::Put) > 0);
    world.uploads_wait = true;
    let question = question(&world);
    world.say(Message::Explain(question));
    let ask = wire::Ask { verb: Verb::Put, object: ObjectRef { digest: Digest([1; 32]), bytes: 1 } };
    world.say(Message::Grant(wire::Grant { ask, answer: Err("a convict moves its answer alone".into()) }));
    assert_eq!(world.exit(), None);
}
