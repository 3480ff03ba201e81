//! Two audits, as text that a person can read, and the law of the journal.

use crate::support::{World, object, order};
use validator_core::{Effect, Validator};
use wire::{Machine, Message};

#[test]
fn two_audits_from_the_hello_to_the_end() {
    let mut world = World::new();
    world.transcript.title("hello, token shard");
    world.join();
    world.transcript.title("an honest window");
    world.say(Message::Audit(order(|_, _| {})));
    world.transcript.title("a window whose second backward gives another gradient");
    world.replay = |at, mut replayed| {
        if at == 3 {
            replayed.output = Some(object("what it should be").digest);
        }
        Some(replayed)
    };
    world.say(Message::Audit(order(|_, _| {})));
    world.say(Message::Finish { reason: "the run is complete".into() });
    insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("conversation", world.transcript.text());
    });
    assert_eq!(world.table.len(), 1, "the token shard stays, the rest is forgotten");
    let mut again = Validator::new(world.config.clone());
    let effects: Vec<Effect> =
        world.journal.iter().flat_map(|(now_ms, event)| again.handle(*now_ms, event.clone())).collect();
    assert_eq!(effects, world.effects);
    assert_eq!(again.digest(), world.core.digest());
}
