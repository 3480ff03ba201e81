//! What a convict is asked, what it may answer, and that the window decides where it does not.

use crate::support::{World, journal_replays_equal, object, run};
use orchestrator_core::{Confirmation, Effect, Event, Report};
use spec::{Digest, NodeId, Outcome};
use wire::limits::{SHOWN_BYTES_MAX, TRACE_VALUES_MAX};
use wire::{Ask, Explain, Finding, Key, Machine, Message, ObjectRef, Role, Signed, Trace, Verb};

const TAIL: usize = 1;
/// Outputs of the trace, and the one that is wrong.
const VALUES: u8 = 9;
const WRONG: u32 = 7;

/// A world in which the tail's window is revealed.
fn revealed() -> World {
    let mut world = World::opened(run());
    world.inner_step(0);
    world.inner_step(1);
    world.merge();
    world.reveal();
    world
}

fn unequal(what: &str) -> Finding {
    let [expected, found] = ["right", "wrong"].map(|tag| object(tag).digest.to_string());
    Finding::Unequal { sequence: 8, what: what.into(), expected, found }
}

/// What else is drawn is judged, and everybody goes back.
fn judge_the_head(world: &mut World) {
    world.verdict(0, Finding::Equal { operations: 5 });
}

fn asked(effects: &[Effect]) -> Option<(NodeId, Explain)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { to, message: Message::Explain(explain) } => Some((*to, explain.clone())),
        _ => None,
    })
}

/// A world in which the tail was convicted and is asked, and what it is asked.
fn convicted() -> (World, NodeId, Explain) {
    let mut world = revealed();
    let effects = world.verdict(TAIL, unequal("output"));
    let (convict, explain) = asked(&effects).expect("the convict is asked");
    assert_eq!(convict, world.ids()[TAIL]);
    (world, convict, explain)
}

/// The trace that the tail signs, and the file of its digests.
fn trace(world: &World, receipt: Digest) -> (Signed<Trace>, ObjectRef) {
    let digests: Vec<Digest> = (0..VALUES).map(|value| Digest([value; 32])).collect();
    let (body, file) = Trace::of(world.config.run.id(), receipt, &digests);
    (Signed::new(body, &world.puppets[TAIL].key), ObjectRef::of(&file))
}

fn ask(verb: Verb, object: ObjectRef) -> Message {
    Message::Ask(Ask { verb, object })
}

fn granted(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Grant { .. }))
}

fn hung_up(effects: &[Effect], convict: NodeId) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Disconnect { peer, .. } if *peer == convict))
}

/// The one sentence that says that the window decides.
fn why_not(effects: &[Effect]) -> Option<&str> {
    effects.iter().find_map(|effect| match effect {
        Effect::Report(Report::Note { text }) => {
            text.split_once("is not narrowed down to one tile: ")?.1.strip_suffix("; its window decides")
        }
        _ => None,
    })
}

/// The tail signs its trace and puts it into the store.
fn explain(world: &mut World, convict: NodeId, receipt: Digest) -> Vec<Effect> {
    let (trace, digests) = trace(world, receipt);
    assert!(!granted(&world.say(convict, ask(Verb::Put, digests))), "before it is signed for");
    world.say(convict, Message::Explained(trace));
    assert!(granted(&world.say(convict, ask(Verb::Put, digests))));
    world.say(convict, Message::Shown(digests))
}

#[test]
fn a_convict_that_answers_is_shown_wrong_by_one_tile_and_nobody_waits_for_it() {
    let mut world = revealed();
    world.transcript.title("the validator finds the tail unequal");
    let effects = world.verdict(TAIL, unequal("output"));
    let (convict, question) = asked(&effects).unwrap();
    assert!(!hung_up(&effects, convict));
    let text = world.transcript.text();
    let begin = text.find("# the validator").unwrap();
    world
        .transcript
        .title("the others go on; the tail fetches its own objects, performs the window again, and answers");
    judge_the_head(&mut world);
    world.ready(world.ids()[0], 0);
    for object in question.order.objects().collect::<Vec<_>>() {
        assert!(granted(&world.say(convict, ask(Verb::Get, object))));
    }
    // Said before it heard.
    assert!(world.say(convict, Message::Ready { epoch: 1, turn: 0 }).is_empty());
    assert!(!granted(&world.say(convict, ask(Verb::Get, object("weights 1")))));
    assert!(!granted(&world.say(convict, ask(Verb::Put, object("what another window binds")))));
    explain(&mut world, convict, question.receipt);
    world.transcript.title("the second party names the output; the tail shows it, and hears no more");
    let output = object("what it sent");
    world.give(Event::Compared { miner: convict, doubt: Ok((WRONG, output)) });
    assert!(!granted(&world.say(convict, ask(Verb::Put, object("another")))));
    assert!(granted(&world.say(convict, ask(Verb::Put, output))));
    let effects = world.say(convict, Message::Shown(output));
    assert!(hung_up(&effects, convict), "{effects:?}");
    world.give(Event::Lost { peer: convict, why: "the hub closed it".into() });
    let evidence = Digest([7; 32]);
    let effects = world.give(Event::Narrowed { miner: convict, evidence: Ok(evidence) });
    assert!(effects.contains(&Effect::Report(Report::Narrowed { node: convict, evidence })), "{effects:?}");
    let text = world.transcript.text();
    insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("asked", &text[begin..]);
    });
    journal_replays_equal(&world);
    assert!(world.give(Event::Narrowed { miner: convict, evidence: Ok(evidence) }).is_empty(), "once");
}

#[test]
fn nobody_is_asked_whose_window_alone_can_decide() {
    let convicts = |effects: &[Effect]| {
        effects.iter().any(|effect| matches!(effect, Effect::Report(Report::Convicted { .. })))
    };
    let inconsistent = Finding::Inconsistent { why: "a broken chain".into() };
    let withheld = Finding::Withheld { digest: object("state").digest };
    for finding in [unequal("outcome"), inconsistent, withheld] {
        let mut world = revealed();
        let effects = world.verdict(TAIL, finding.clone());
        assert!(convicts(&effects) && asked(&effects).is_none(), "{finding:?}: {effects:?}");
        assert!(hung_up(&effects, world.ids()[TAIL]));
    }
    // Nor on the word of a validator alone.
    let mut world = revealed();
    world.confirmation = Some(Confirmation::Unable { why: "it is too long".into() });
    let effects = world.verdict(TAIL, unequal("output"));
    assert!(convicts(&effects) && asked(&effects).is_none(), "{effects:?}");
    world = revealed();
    world.confirmation = Some(Confirmation::NotProven { why: "it is right".into() });
    assert!(asked(&world.verdict(TAIL, unequal("output"))).is_none());
    // Nor who is not there.
    let mut world = revealed();
    world.confirmation = None;
    let accused = world.verdict(TAIL, unequal("output"));
    let Some(Effect::Confirm { evidence, .. }) = accused.last().cloned() else { panic!("{accused:?}") };
    let convict = world.ids()[TAIL];
    world.give(Event::Lost { peer: convict, why: "silent".into() });
    let effects = world.give(Event::Confirmed { evidence, confirmation: Confirmation::Proven });
    assert!(convicts(&effects) && asked(&effects).is_none(), "{effects:?}");
}

#[test]
fn a_window_without_numbers_is_not_asked_about() {
    let mut world = World::opened(run());
    let assignments = world.assignments();
    let first = assignments.iter().find(|assignment| assignment.route[0].step == 0).unwrap().clone();
    world.forward(&first);
    // The tail meets what are no numbers, which the inquiry then looks at.
    let member = first.member(TAIL).unwrap();
    world.works(TAIL, spec::Operation::Backward(member), |receipt| receipt.outcome = Outcome::NonFinite);
    world.reveal();
    let window = spec::Window { epoch: 0, step: 0 };
    let convict = world.ids()[TAIL];
    let finding = |what: &str| match unequal(what) {
        Finding::Unequal { what, expected, found, .. } => {
            Finding::Unequal { sequence: 1, what, expected, found }
        }
        other => other,
    };
    let effects = world.say_verdict(convict, window, finding("output"));
    assert!(hung_up(&effects, convict) && asked(&effects).is_none(), "{effects:?}");
}

#[test]
fn what_is_no_answer_leaves_the_window_to_decide_and_changes_nothing_else() {
    type Answer = fn(&mut World, NodeId, Digest) -> Vec<Effect>;
    let answers: [(&str, Answer); 11] = [
        ("it left: no", |world, convict, _| world.say(convict, Message::Leave { reason: "no".into() })),
        ("its trace is not signed by it", |world, convict, receipt| {
            let (trace, _) = trace(world, receipt);
            world.say(convict, Message::Explained(Signed::new(trace.body, &Key::from_seed([66; 32]))))
        }),
        ("or is of something else", |world, convict, receipt| {
            let (mut trace, _) = trace(world, receipt);
            // Under the signature of another statement.
            trace.body.receipt = object("another").digest;
            world.say(convict, Message::Explained(trace))
        }),
        ("or is of something else", |world, convict, _| {
            let (trace, _) = trace(world, object("another").digest);
            world.say(convict, Message::Explained(trace))
        }),
        ("at most 2097152 are looked at", |world, convict, receipt| {
            let (trace, _) = trace(world, receipt);
            let body = Trace { values: TRACE_VALUES_MAX + 1, ..trace.body };
            world.say(convict, Message::Explained(Signed::new(body, &world.puppets[TAIL].key)))
        }),
        ("it explains itself twice", |world, convict, receipt| {
            explain(world, convict, receipt);
            let (trace, _) = trace(world, receipt);
            world.say(convict, Message::Explained(trace))
        }),
        ("it shows what it was not asked for", |world, convict, _| {
            world.say(convict, Message::Shown(object("output")))
        }),
        ("it shows what it was not asked for", |world, convict, receipt| {
            explain(world, convict, receipt);
            world.give(Event::Compared { miner: convict, doubt: Ok((WRONG, object("output"))) });
            world.say(convict, Message::Shown(object("another")))
        }),
        ("the trace has nothing wrong", |world, convict, receipt| {
            explain(world, convict, receipt);
            let doubt = Err("the trace has nothing wrong".into());
            world.give(Event::Compared { miner: convict, doubt })
        }),
        ("longer than one is asked to show", |world, convict, receipt| {
            explain(world, convict, receipt);
            let output = ObjectRef { digest: Digest([1; 32]), bytes: SHOWN_BYTES_MAX + 1 };
            world.give(Event::Compared { miner: convict, doubt: Ok((WRONG, output)) })
        }),
        ("it says too much that it was not asked", |world, convict, _| {
            let stray = || Message::Ready { epoch: 0, turn: 0 };
            // Past the test's world, which takes a snapshot after each.
            let event = || Event::Message { from: convict, message: stray() };
            (0..1100).flat_map(|_| world.core.handle(world.now_ms, event())).collect()
        }),
    ];
    for (why, answer) in answers {
        let (mut world, convict, question) = convicted();
        let manifest = world.core.manifest().clone();
        let effects = answer(&mut world, convict, question.receipt);
        assert!(why_not(&effects).is_some_and(|said| said.contains(why)), "{why}: {effects:?}");
        assert!(hung_up(&effects, convict), "{why}");
        if why.contains("it shows") {
            journal_replays_equal(&world);
        }
        assert!(asked(&effects).is_none() && *world.core.manifest() == manifest, "{why}");
        // From now on it is nobody.
        let refused = world.hello_again(convict, Role::Miner);
        assert!(format!("{refused:?}").contains("Banned"), "{refused:?}");
        let said = world.say(convict, Message::Shown(object("output")));
        assert!(matches!(said[..], [Effect::Disconnect { .. }]), "{why}: {said:?}");
        let late = Event::Compared { miner: convict, doubt: Ok((WRONG, object("output"))) };
        assert!(world.give(late).is_empty(), "{why}");
    }
}

/// Time passes until the core's alarm.
fn wait(world: &mut World) -> Vec<Effect> {
    let wake = |effect: &Effect| match effect {
        Effect::WakeAt(at_ms) => Some(*at_ms),
        _ => None,
    };
    world.now_ms =
        world.effects.iter().filter_map(wake).next_back().expect("an alarm is set").max(world.now_ms);
    world.give(Event::Woke)
}

/// What is said of the question, and how long after it was asked.
fn waits_for_an_answer(world: &mut World, since_ms: u64) -> (String, u64) {
    for _ in 0..20 {
        if let Some(why) = why_not(&wait(world)) {
            return (why.into(), world.now_ms - since_ms);
        }
    }
    panic!("the question does not end");
}

#[test]
fn a_convict_has_the_time_of_its_bytes_and_no_more_than_a_bound() {
    // A world whose other deadlines are far away, and what its convict is asked.
    let asked_at = |uplink_bytes_per_s: u64| {
        let mut world = revealed();
        let timeouts = &mut world.config.timeouts;
        timeouts.uplink_bytes_per_s = uplink_bytes_per_s;
        (timeouts.stall_ms, timeouts.seat_grace_ms, timeouts.join_ms) = (1 << 40, 1 << 40, 1 << 40);
        world.core = crate::support::resumed(&world.config, &world.core);
        let (convict, question) = asked(&world.verdict(TAIL, unequal("output"))).unwrap();
        let since_ms = world.now_ms;
        judge_the_head(&mut world);
        (world, convict, question, since_ms)
    };
    let about = |(why, found_ms): (String, u64), expected_ms: u64| {
        assert_eq!(why, "it did not answer in time");
        assert!(
            (expected_ms..=expected_ms + 20).contains(&found_ms),
            "{found_ms} ms, expected {expected_ms}"
        );
    };
    let reveal_ms = World::new(run()).config.timeouts.reveal_ms;
    for rate in [0, 64] {
        let (mut world, _, question, since_ms) = asked_at(rate);
        let bytes: u64 = question.order.objects().map(|object| object.bytes).sum();
        let transfer_ms = (bytes * 1000).checked_div(rate).unwrap_or_default();
        about(waits_for_an_answer(&mut world, since_ms), reveal_ms + transfer_ms);
    }
    // Digests by the million over a byte a second.
    let (mut world, convict, question, _) = asked_at(1);
    let body = trace(&world, question.receipt).0.body;
    let body = Trace { values: TRACE_VALUES_MAX, ..body };
    world.say(convict, Message::Explained(Signed::new(body, &world.puppets[TAIL].key)));
    let since_ms = world.now_ms;
    about(waits_for_an_answer(&mut world, since_ms), reveal_ms + 600_000);
}

#[test]
fn a_question_ends_with_the_orchestrator_and_with_the_connection() {
    let (mut world, convict, question) = convicted();
    let effects = world.give(Event::Resumed);
    assert_eq!(why_not(&effects), Some("the orchestrator was started again"));
    journal_replays_equal(&world);
    let said = world.say(convict, Message::Explained(trace(&world, question.receipt).0));
    assert!(matches!(said[..], [Effect::Disconnect { .. }]), "{said:?}");
    let (mut world, convict, _) = convicted();
    let effects = world.give(Event::Stop);
    assert_eq!(why_not(&effects), Some("the run ended before its answer was looked at"));
    let finish = |effect: &Effect| matches!(effect, Effect::Send { to, message: Message::Finish { .. } } if *to == convict);
    assert!(effects.iter().any(finish), "{effects:?}");
    let (mut world, convict, _) = convicted();
    let effects = world.give(Event::Lost { peer: convict, why: "silent".into() });
    assert_eq!(why_not(&effects), Some("its connection went before it answered (silent)"));
    journal_replays_equal(&world);
    // It comes again, which is no answer.
    let effects = world.hello_again(convict, Role::Miner);
    assert!(hung_up(&effects, convict) && why_not(&effects).is_none(), "{effects:?}");
}
