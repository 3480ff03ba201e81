//! Each checker is shown a log that it must object to.

use crate::Options;
use crate::checkers::{
    CheatIsCaughtWithinN, Checker, End, HonestNeverSlashed, JournalReplaysEqual, LedgerFollowsTheRecord,
    NoDoubleFold, NoMicrobatchUnfinished, OnlyConvictsAreAsked, Record, SumIsExact, WeightsAgreeAfterMerge,
};
use crate::cores::Recipe;
use crate::scenarios::{Scenario, Setup};
use crate::trace::{Effect, Entry, Event, What};
use crate::world::codes::{Contribution, Sum};
use crate::world::disk::Journal;
use orchestrator_core::{Confirmation, Report};
use spec::{Digest, Member, Mode, NodeId, Operation, Outcome, Window};
use wire::{Assignment, Finding, Key, Manifest, Message, ObjectRef, Receipt, Signed, Slot};

const END: End<'static> = End { complete: true, records: &[] };

fn effect(effect: Effect) -> Entry {
    Entry { at_us: 1, node: NodeId([1; 32]), what: What::Effect(effect) }
}

fn said(report: Report) -> Entry {
    effect(Effect::Orchestrator(orchestrator_core::Effect::Report(report)))
}

fn assigned(epoch: u32, microbatch: u64) -> Entry {
    let slot = Slot { miner: NodeId([1; 32]), step: 0, position: 0, members: 1, attempt: 0, settled: 0 };
    let assignment = Assignment { id: microbatch, epoch, microbatch, route: vec![slot; 2] };
    let message = Message::Assign(assignment);
    effect(Effect::Orchestrator(orchestrator_core::Effect::Send { to: NodeId([1; 32]), message }))
}

fn folded(stage: u16, microbatch: u64, step: u32) -> Entry {
    let member = Member { assignment: microbatch, attempt: 0, step, position: 0, microbatch };
    receipt(stage, Operation::Step { step, members: vec![member] }, None)
}

fn receipt(stage: u16, operation: Operation, output: Option<Digest>) -> Entry {
    let receipt = Receipt {
        run: Digest::default(),
        mode: Mode::Portable,
        epoch: 0,
        sequence: 0,
        previous: Digest::default(),
        stage,
        operation,
        state: None,
        input_receipt: None,
        input: None,
        output,
        loss_q32: None,
        outcome: Outcome::Ok,
    };
    let message = Message::Receipt(Signed::new(receipt, &Key::from_seed([1; 32])));
    effect(Effect::Miner(miner_core::Effect::Send(message)))
}

fn committed(epoch: u32) -> Entry {
    said(Report::Committed { epoch, manifest: Digest::default(), nats: 1.0 })
}

/// What the checker says of the last entry; those before must pass.
fn objection(checker: &mut dyn Checker, log: &[Entry]) -> Option<String> {
    let (last, before) = log.split_last().unwrap();
    for entry in before {
        checker.observe(entry).unwrap();
    }
    checker.observe(last).err()
}

#[test]
fn no_double_fold_objects() {
    let twice = [assigned(0, 5), folded(0, 5, 0), folded(1, 5, 0), folded(1, 5, 1)];
    let sentence = objection(&mut NoDoubleFold::default(), &twice).unwrap();
    assert!(sentence.contains("stage 1 folded microbatch 5 of epoch 0 twice"), "{sentence}");
    let never = [assigned(0, 5), folded(0, 5, 0), committed(0)];
    let sentence = objection(&mut NoDoubleFold::default(), &never).unwrap();
    assert!(sentence.contains("stage 1 never folded microbatch 5"), "{sentence}");
    assert!(objection(&mut NoDoubleFold::default(), &[committed(0)]).is_some());
    let once = [assigned(0, 5), folded(0, 5, 0), folded(1, 5, 0), committed(0)];
    assert_eq!(objection(&mut NoDoubleFold::default(), &once), None);
}

#[test]
fn no_microbatch_unfinished_objects() {
    let loss = || said(Report::Loss { epoch: 0, step: 0, microbatch: 5, nats: 4.0 });
    let mut checker = NoMicrobatchUnfinished::default();
    assert_eq!(objection(&mut checker, &[assigned(0, 5)]), None);
    assert!(checker.finish(&END).unwrap_err().contains("microbatch 5"));
    assert!(checker.finish(&End { complete: false, ..END }).is_ok());
    assert_eq!(objection(&mut checker, &[loss()]), None);
    assert!(checker.finish(&END).is_ok());
    assert!(objection(&mut checker, &[loss()]).unwrap().contains("2 losses"));
}

#[test]
fn honest_never_slashed_objects() {
    let miner = NodeId([7; 32]);
    let evidence =
        || effect(Effect::Orchestrator(orchestrator_core::Effect::KeepEvidence { miner, bytes: vec![] }));
    let audited =
        |finding| said(Report::Audited { miner, stage: 0, window: Window { epoch: 0, step: 2 }, finding });
    let withheld = Finding::Withheld { digest: Digest::default() };
    assert!(objection(&mut HonestNeverSlashed::default(), &[evidence()]).is_some());
    assert!(objection(&mut HonestNeverSlashed::default(), &[audited(withheld)]).is_some());
    assert_eq!(
        objection(&mut HonestNeverSlashed::default(), &[audited(Finding::Equal { operations: 1 })]),
        None
    );
    assert_eq!(objection(&mut HonestNeverSlashed { cheats: [miner].into() }, &[evidence()]), None);
}

#[test]
fn only_convicts_are_asked_objects() {
    let miner = NodeId([7; 32]);
    let told = |message| effect(Effect::Orchestrator(orchestrator_core::Effect::Send { to: miner, message }));
    let asked = || {
        let [start, state] = [Digest::default(); 2].map(|digest| ObjectRef { digest, bytes: 1 });
        let Message::Receipt(receipt) = message_of(receipt(0, Operation::Apply, None)) else {
            unreachable!()
        };
        let order = wire::AuditOrder {
            miner,
            stage: 0,
            window: Window { epoch: 0, step: 0 },
            weights: start.digest,
            state,
            start: receipt,
            receipts: vec![],
            inputs: vec![],
            merge: None,
        };
        told(Message::Explain(wire::Explain { order, receipt: Digest::default() }))
    };
    let checked = |confirmation| {
        let event = orchestrator_core::Event::Confirmed { evidence: Digest::default(), confirmation };
        Entry { at_us: 1, node: NodeId([1; 32]), what: What::Event(Event::Orchestrator(event)) }
    };
    let convicted =
        || said(Report::Convicted { node: miner, stage: None, evidence: None, why: String::new() });
    let (proven, why) = (Confirmation::Proven, "no memory".to_owned());
    let checker = || OnlyConvictsAreAsked::new([miner].into());
    let due = || vec![checked(proven.clone()), convicted(), asked()];
    assert_eq!(objection(&mut checker(), &due()), None);
    assert!(objection(&mut OnlyConvictsAreAsked::default(), &due()).is_some(), "it does not cheat");
    assert!(objection(&mut checker(), &[checked(proven.clone()), asked()]).is_some(), "it is not convicted");
    let unable = checked(Confirmation::Unable { why });
    assert!(objection(&mut checker(), &[unable, convicted(), asked()]).is_some(), "nobody looked");
    assert!(objection(&mut checker(), &[due(), vec![asked()]].concat()).is_some(), "twice");
    let ready = told(Message::Returned(miner));
    assert!(objection(&mut checker(), &[due(), vec![ready]].concat()).is_some(), "it hears of others");
    let narrowed = || said(Report::Narrowed { node: miner, evidence: Digest::default() });
    assert!(objection(&mut checker(), &[narrowed()]).is_some(), "it was not asked");
    assert_eq!(objection(&mut checker(), &[due(), vec![narrowed()]].concat()), None);
}

/// What a miner says.
fn message_of(entry: Entry) -> Message {
    match entry.what {
        What::Effect(Effect::Miner(miner_core::Effect::Send(message))) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn cheat_is_caught_within_n_objects() {
    let lied = |epoch| Entry { at_us: 1, node: NodeId([7; 32]), what: What::Lied { epoch } };
    let stable = |epoch| said(Report::Stable { epoch });
    let back = |epoch| said(Report::RolledBack { epoch, epochs: 1, steps: 1, tokens: 1, why: String::new() });
    let log = [lied(0), lied(1), stable(0), stable(1)];
    let sentence = objection(&mut CheatIsCaughtWithinN::new(2), &log).unwrap();
    assert!(sentence.contains("lied in 2 epochs that are stable, the last is epoch 1"), "{sentence}");
    assert_eq!(objection(&mut CheatIsCaughtWithinN::new(3), &log), None);
    assert!(objection(&mut CheatIsCaughtWithinN::new(1), &[lied(3), lied(3), stable(3)]).is_some());
    assert_eq!(objection(&mut CheatIsCaughtWithinN::new(1), &[lied(1), back(1), stable(1)]), None);
}

#[test]
fn ledger_follows_the_record_objects() {
    let miner = NodeId([7; 32]);
    let credit = |epoch, folded, struck| {
        let (manifest, head) = (Digest([2; 32]), Digest([3; 32]));
        let (forwards, steps, flops, first, last) = (4, 2, 10 * folded, 0, 9);
        let done = credit::Work {
            miner,
            stage: 0,
            forwards,
            folded,
            steps,
            flops,
            first,
            last,
            head,
            audits_equal: 1,
        };
        let work = vec![done];
        effect(Effect::Orchestrator(orchestrator_core::Effect::Credit { epoch, manifest, work, struck }))
    };
    let committed = |epoch| said(Report::Committed { epoch, manifest: Digest([2; 32]), nats: 4.0 });
    let convicted =
        || said(Report::Convicted { node: miner, stage: None, evidence: None, why: String::new() });
    let checker = LedgerFollowsTheRecord::default;
    let mut good = checker();
    assert_eq!(objection(&mut good, &[committed(0), credit(0, 4, vec![]), committed(1)]), None);
    assert!(good.finish(&END).unwrap_err().contains("epoch 1 is committed and was never entered"));
    assert!(objection(&mut checker(), &[credit(0, 4, vec![])]).unwrap().contains("not committed"));
    let twice = [committed(0), credit(0, 4, vec![]), credit(0, 4, vec![])];
    assert!(objection(&mut checker(), &twice).unwrap().contains("stands there already"));
    assert!(objection(&mut checker(), &[committed(0), credit(0, 0, vec![])]).unwrap().contains("nobody did"));
    let paid = [convicted(), committed(0), credit(0, 4, vec![])];
    assert!(objection(&mut checker(), &paid).unwrap().contains("was convicted and is paid"));
    let struck = vec![credit::Strike { miner, evidence: None }];
    assert_eq!(objection(&mut checker(), &[convicted(), committed(0), credit(0, 4, struck)]), None);
}

#[test]
fn weights_agree_after_merge_objects() {
    let applied = |stage, weights| {
        let entry = receipt(stage, Operation::Apply, Some(Digest([weights; 32])));
        let What::Effect(Effect::Miner(miner_core::Effect::Send(message))) = entry.what else {
            panic!("a receipt is said")
        };
        let from = NodeId([weights; 32]);
        let heard = orchestrator_core::Event::Message { from, message };
        Entry { at_us: 1, node: NodeId([1; 32]), what: What::Event(Event::Orchestrator(heard)) }
    };
    let opened_by = |epoch, weights, miners: &[NodeId]| {
        let object = ObjectRef { digest: Digest([weights; 32]), bytes: 1 };
        let mut manifest = Manifest { epoch, ..Manifest::first(Digest::default(), &[object]) };
        manifest.stages[0].miners = miners.to_vec();
        let message = Message::Open(Signed::new(manifest, &Key::from_seed([1; 32])));
        effect(Effect::Orchestrator(orchestrator_core::Effect::Send { to: NodeId([1; 32]), message }))
    };
    let opened = |weights| opened_by(1, weights, &[]);
    let checker = WeightsAgreeAfterMerge::default;
    assert_eq!(objection(&mut checker(), &[applied(0, 1), applied(1, 2), applied(0, 1), opened(1)]), None);
    assert!(
        objection(&mut checker(), &[applied(0, 1), applied(0, 2)])
            .unwrap()
            .contains("stage 0 merged epoch 0")
    );
    assert!(
        objection(&mut checker(), &[applied(0, 1), opened(2)]).unwrap().contains("epoch 1 opens stage 0")
    );
    // A stage in which nobody merged stays as it was; where somebody did, its weights must have been told.
    assert_eq!(objection(&mut checker(), &[opened_by(0, 4, &[]), opened(4)]), None);
    let untold = [opened_by(0, 4, &[]), opened_by(1, 4, &[NodeId([1; 32])])];
    assert!(objection(&mut checker(), &untold).is_some());
    // A liar's weights count for nothing beside those of others, who still must agree, and for all there is alone.
    let liar = |name| Entry { at_us: 1, node: NodeId([name; 32]), what: What::Lied { epoch: 0 } };
    assert_eq!(objection(&mut checker(), &[liar(3), applied(0, 1), applied(0, 3), opened(1)]), None);
    for of_others in [[applied(0, 1), applied(0, 2)], [applied(0, 1), opened(3)]] {
        let [first, last] = of_others;
        assert!(objection(&mut checker(), &[liar(3), applied(0, 3), first, last]).is_some());
    }
    assert_eq!(objection(&mut checker(), &[liar(3), applied(0, 3), opened(3)]), None);
    // What is said before somebody heard that the epoch begins again is of before.
    let at = |node, message| {
        let heard = orchestrator_core::Event::Message { from: NodeId([node; 32]), message };
        Entry { at_us: 1, node: NodeId([9; 32]), what: What::Event(Event::Orchestrator(heard)) }
    };
    let joined =
        |node| said(Report::Joined { node: NodeId([node; 32]), role: wire::Role::Miner, stage: Some(0) });
    let rewound = || said(Report::Rewound { epoch: 0, steps: 0, tokens: 0, why: "of a test".into() });
    let log = [
        joined(1),
        joined(2),
        rewound(),
        applied(0, 1),
        at(2, Message::Ready { epoch: 0, turn: 1 }),
        applied(0, 2),
        opened(2),
    ];
    assert_eq!(objection(&mut checker(), &log), None);
}

#[test]
fn sum_is_exact_objects() {
    let nodes = [1, 2].map(|name| NodeId([name; 32]));
    let contribution = |weight, codes: &[i8]| Contribution { weight, codes: codes.to_vec() };
    let both = [contribution(2, &[9, 5, -7]), contribution(3, &[9, 1, 4])];
    let encoded = |i: usize| {
        let contribution = both[i].clone();
        Entry { at_us: 1, node: nodes[i], what: What::Encoded { contribution } }
    };
    let reduced = |weight, sums: &[i64]| {
        let sum = wire::to_bytes(&Sum { weight, blocks: 1..3, sums: sums.to_vec() });
        let roots = vec![both[0].root(nodes[0]), both[1].root(nodes[1])];
        Entry { at_us: 2, node: nodes[0], what: What::Reduced { contributors: nodes.to_vec(), roots, sum } }
    };
    let log = |last| [encoded(0), encoded(1), last];
    let objects = |last| objection(&mut SumIsExact::default(), &log(last));
    assert_eq!(objects(reduced(5, &[13, -2])), None);
    assert!(objects(reduced(5, &[13, -1])).unwrap().contains("is not that of its 2 contributors"));
    assert!(objects(reduced(4, &[13, -2])).is_some(), "another weight");
    let absent = [encoded(0), reduced(5, &[13, -2])];
    assert!(objection(&mut SumIsExact::default(), &absent).unwrap().contains("encoded nothing"));
}

#[test]
fn journal_replays_equal_objects() {
    let setup = Setup::new(Scenario::named("honest").unwrap(), 1, &Options::default()).unwrap();
    let recipe = setup.nodes[1].recipe.clone();
    assert!(matches!(recipe, Recipe::Miner(_)));
    let mut core = recipe.build().unwrap();
    let mut record = Record {
        name: "miner-0".into(),
        recipe,
        journal: Journal::default(),
        effects: Vec::new(),
        state: Digest::default(),
    };
    for (now_ms, event) in [(1, miner_core::Event::Connected), (9, miner_core::Event::Leave)] {
        let event = Event::Miner(event);
        record.journal.append(now_ms, &wire::to_bytes(&event));
        record.effects.push(wire::digest_of(&core.handle(now_ms, event)));
    }
    record.state = core.digest();
    let objection = |record: &Record| {
        let records = std::slice::from_ref(record);
        JournalReplaysEqual.finish(&End { complete: true, records }).err()
    };
    assert_eq!(objection(&record), None);

    let mut doctored = record.clone();
    doctored.effects[0] = Digest([9; 32]);
    assert!(objection(&doctored).unwrap().contains("event 0 has other effects"));
    let mut doctored = record.clone();
    doctored.state = Digest([9; 32]);
    assert!(objection(&doctored).unwrap().contains("the state after 2 events"));
    let mut doctored = record.clone();
    doctored.effects.pop();
    assert!(objection(&doctored).unwrap().contains("the journal holds 2 events, 1 were taken in"));
    let mut doctored = record;
    doctored.journal.append(10, &[255]);
    assert!(objection(&doctored).unwrap().contains("entry 2 of the journal is no event"));
}
