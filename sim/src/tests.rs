use crate::checkers::{
    CheatIsCaughtWithinN, Checker, End, HonestNeverSlashed, JournalReplaysEqual, LedgerFollowsTheRecord,
    NoDoubleFold, NoMicrobatchUnfinished, Record, SumIsExact, WeightsAgreeAfterMerge,
};
use crate::cores::Recipe;
use crate::scenarios::{Scenario, Setup};
use crate::trace::{Effect, Entry, Event, What};
use crate::world::codes::{Contribution, Sum};
use crate::world::disk::Journal;
use crate::{Options, SimError, run};
use orchestrator_core::Report;
use spec::{Digest, Member, Mode, NodeId, Operation, Outcome, Window};
use wire::{Assignment, Finding, Key, Manifest, Message, ObjectRef, Receipt, Signed, Slot};

/// Nearly all the time goes into signatures, so many seeds are run with few microbatches.
const SHORT: Options = Options { stages: 3, miners: 1, epochs: 2, steps: 4, members: 2, log: false };

fn passes(scenario: &str, seeds: std::ops::Range<u64>, options: &Options) {
    for seed in seeds {
        let report = run(scenario, seed, options).unwrap();
        assert!(report.passed(), "{report}");
    }
}

#[test]
fn honest_runs_complete() {
    passes("honest", 0..25, &SHORT);
    passes("honest", 25..27, &Options::default());
    for stages in [1, 2, 5] {
        passes("honest", 0..3, &Options { stages, ..SHORT });
    }
}

#[test]
fn several_miners_a_stage_merge() {
    for miners in [2, 3, 4, 8] {
        let options = Options { miners, epochs: 3, ..SHORT };
        passes("honest", 0..4, &options);
        let report = run("honest", 5, &options).unwrap();
        let microbatches = 3 * 4 * 2 * usize::from(miners);
        assert_eq!((report.commits, report.losses.len()), (3, microbatches), "{report}");
    }
}

#[test]
fn a_perturbed_value_is_found() {
    passes("perturb", 0..25, &SHORT);
    passes("perturb", 0..12, &Options { miners: 2, epochs: 3, ..SHORT });
    passes("perturb", 0..6, &Options { miners: 3, epochs: 3, ..SHORT });
}

#[test]
fn a_poisoned_payload_is_traced_to_who_made_it() {
    passes("poison", 0..20, &SHORT);
    passes("poison", 0..10, &Options { miners: 2, epochs: 3, ..SHORT });
}

#[test]
fn a_run_that_diverges_ends_with_a_sentence_and_nobody_is_blamed() {
    passes("diverging", 0..4, &SHORT);
    passes("diverging", 0..3, &Options { miners: 2, ..SHORT });
}

#[test]
fn who_makes_losses_higher_stands_out() {
    passes("worse", 0..3, &Options { stages: 2, miners: 3, epochs: 34, steps: 2, members: 1, log: false });
}

#[test]
fn a_validator_that_does_not_replay_is_found_out() {
    passes("lazy_validator", 0..10, &Options { miners: 2, epochs: 4, ..SHORT });
}

#[test]
fn a_validator_that_accuses_the_honest_is_found_out() {
    passes("accuser", 0..8, &SHORT);
    passes("accuser", 0..4, &Options { miners: 3, epochs: 3, ..SHORT });
}

#[test]
fn a_conviction_survives_the_orchestrator() {
    passes("perturb_restarted", 0..15, &Options { miners: 2, epochs: 3, ..SHORT });
    passes("perturb_restarted", 0..10, &SHORT);
}

#[test]
fn a_newcomer_takes_the_seat_of_a_convict() {
    passes("replaced", 0..15, &SHORT);
    passes("replaced", 0..5, &Options { miners: 2, ..SHORT });
}

#[test]
fn who_withholds_is_banned() {
    passes("withhold", 0..10, &SHORT);
    passes("withhold", 0..15, &Options { miners: 2, epochs: 3, ..SHORT });
}

#[test]
fn wrong_sums_are_found_and_the_merge_goes_on() {
    passes("wrong_sum", 0..10, &Options { miners: 2, ..SHORT });
    passes("wrong_sum", 0..20, &Options { miners: 4, ..SHORT });
}

#[test]
fn a_colluding_pair_is_caught_by_a_third_sum() {
    let options = Options { miners: 3, epochs: 3, ..SHORT };
    let reports: Vec<_> = (0..20).map(|seed| run("colluding_pair", seed, &options).unwrap()).collect();
    for report in &reports {
        assert!(report.passed(), "{report}");
    }
    // Both of a pair are convicted in one breath.
    let pairs = reports.iter().filter(|report| report.convicted.len() > 1).count();
    assert!(pairs > 5, "{pairs}");
}

#[test]
fn who_begins_an_epoch_with_other_moments_stands_where_nobody_may() {
    passes("moments", 0..4, &Options { miners: 2, epochs: 3, ..SHORT });
}

#[test]
fn who_comes_back_with_moments_of_its_own_making_is_banned() {
    let options = Options { miners: 2, epochs: 4, ..SHORT };
    let reports: Vec<_> = (0..12).map(|seed| run("returner", seed, &options).unwrap()).collect();
    for report in &reports {
        assert!(report.passed(), "{report}");
    }
    let caught = reports.iter().filter(|report| report.convicted == report.cheats).count();
    assert!(caught >= 8, "{caught}");
}

#[test]
fn who_has_no_room_for_its_state_begins_afresh_and_is_not_blamed() {
    for miners in [1, 2, 3] {
        passes("full_disks", 0..8, &Options { miners, ..SHORT });
    }
}

#[test]
fn whoever_is_taken_back_stands_where_it_stood_or_begins_afresh() {
    for miners in [1, 2] {
        passes("taken_back", 0..10, &Options { miners, epochs: 4, ..SHORT });
    }
}

#[test]
fn a_slow_uplink_that_makes_progress_is_no_withholding() {
    for miners in [1, 2] {
        let options = Options { miners, epochs: 3, ..SHORT };
        let reports: Vec<_> = (0..6).map(|seed| run("slow_uplink", seed, &options).unwrap()).collect();
        for report in &reports {
            assert!(report.passed(), "{report}");
        }
        // Where the slow one is in the middle the windows of an epoch take longer than one may.
        let longest_us = reports.iter().map(|report| report.virtual_us).max();
        assert!(longest_us > Some(120_000_000), "{longest_us:?}");
    }
}

#[test]
fn a_window_that_takes_longer_to_upload_than_one_may_has_time_for_its_bytes() {
    for miners in [1, 2] {
        passes("narrow_uplink", 0..4, &Options { miners, epochs: 2, ..SHORT });
    }
}

#[test]
fn who_brings_other_codes_to_a_merge_is_found_as_often_as_merges_are_drawn() {
    let options = Options { miners: 3, epochs: 4, ..SHORT };
    let reports: Vec<_> = (0..12).map(|seed| run("contribution", seed, &options).unwrap()).collect();
    for report in &reports {
        assert!(report.passed(), "{report}");
    }
    // Each of four merges is drawn with one half.
    let caught = reports.iter().filter(|report| report.convicted == report.cheats).count();
    assert!(caught >= 8, "{caught}");
}

#[test]
fn who_takes_another_outer_step_is_found_at_once() {
    for miners in [1, 2, 3] {
        passes("outer_step", 0..6, &Options { miners, epochs: 3, ..SHORT });
    }
}

#[test]
fn who_comes_uninvited_weighs_nothing_until_it_is_proven() {
    for miners in [1, 2, 3] {
        passes("probation", 0..4, &Options { miners, epochs: 3, ..SHORT });
    }
}

#[test]
fn who_takes_for_ever_is_not_waited_for() {
    passes("slow_loris", 0..3, &Options { miners: 2, epochs: 4, ..SHORT });
}

#[test]
fn lies_are_found_as_often_as_the_audit_rate_says() {
    let options = Options { stages: 1, miners: 2, epochs: 4, steps: 12, members: 1, log: false };
    let reports: Vec<_> = (0..120).map(|seed| run("sparse", seed, &options).unwrap()).collect();
    for report in &reports {
        assert!(report.passed(), "{report}");
    }
    let (rate, table) = crate::detection::detection(&reports, &options).unwrap();
    assert_eq!((rate, table.len()), (1.0 / 6.0, 4));
    for within in table {
        // Three standard deviations of a share of 120 runs.
        let deviation = (within.expected * (1.0 - within.expected) / 120.0).sqrt();
        assert!((within.found - within.expected).abs() < 3.0 * deviation, "{within:?}");
    }
}

#[test]
fn a_stated_share_of_every_cheat_is_banned_and_nobody_else() {
    for seed in 0..6 {
        let report = run("mixed", seed, &Options { miners: 6, epochs: 3, ..SHORT }).unwrap();
        assert!(report.passed(), "{report}");
    }
}

#[test]
fn a_hundred_miners_of_which_three_tenths_cheat_complete_the_run() {
    let options = Options { stages: 10, miners: 10, members: 1, ..SHORT };
    let report = run("mixed", 0, &options).unwrap();
    assert!(report.passed() && report.convicted.len() > 10, "{report}");
}

#[test]
fn a_lost_miner_ends_the_run_with_a_sentence_unless_it_has_a_peer() {
    passes("miner_lost", 0..30, &SHORT);
    passes("miner_lost", 0..30, &Options { miners: 2, ..SHORT });
}

#[test]
fn a_miner_that_is_started_again_goes_on() {
    passes("miner_restarted", 0..30, &SHORT);
    passes("miner_restarted", 0..15, &Options { miners: 2, ..SHORT });
}

#[test]
fn an_orchestrator_that_is_started_again_goes_on_where_it_was() {
    passes("orchestrator_restarted", 0..30, &SHORT);
    passes("orchestrator_restarted", 0..15, &Options { miners: 3, ..SHORT });
}

#[test]
fn miners_come_and_go_and_nothing_is_unfinished_or_folded_twice() {
    for miners in [2, 3] {
        let options = Options { miners, ..SHORT };
        passes("churn", 0..10, &options);
        passes("turmoil", 0..10, &options);
        passes("flaky", 0..10, &options);
    }
}

#[test]
fn direct_routes_that_break_lose_nothing() {
    let mut broken = 0;
    for miners in [1, 2, 3] {
        let options = Options { miners, epochs: 3, ..SHORT };
        for seed in 0..6 {
            let report = run("direct", seed, &options).unwrap();
            assert!(report.passed(), "{report}");
            broken += report.routes_broken;
        }
    }
    for miners in [1, 2, 3] {
        passes("direct_flaky", 0..6, &Options { miners, epochs: 3, ..SHORT });
    }
    assert!(broken > 50, "{broken} routes broke");
}

#[test]
fn a_slow_lane_merges_with_what_it_did() {
    for miners in [1, 2, 5] {
        passes("slow", 0..4, &Options { miners, ..SHORT });
    }
}

#[test]
fn a_swarm_grows_while_it_works() {
    for miners in [1, 3] {
        passes("growing", 0..8, &Options { miners, ..SHORT });
    }
}

#[test]
fn a_stage_without_anybody_gets_a_miner_of_another() {
    let options = Options { miners: 2, ..SHORT };
    let reports: Vec<_> = (0..20).map(|seed| run("deserted", seed, &options).unwrap()).collect();
    for report in &reports {
        assert!(report.passed(), "{report}");
    }
    let moves =
        |report: &&crate::report::Report| report.notes.iter().any(|note| note.contains("moves there"));
    let moved = reports.iter().filter(moves).count();
    assert!(moved > 3, "{moved}");
}

#[test]
fn a_wrong_token_is_turned_away() {
    passes("bad_token", 0..10, &SHORT);
}

#[test]
fn the_same_seed_gives_the_same_log_and_another_does_not() {
    let options = Options { log: true, ..Options::default() };
    let [once, again, other] = [3, 3, 4].map(|seed| run("perturb", seed, &options).unwrap());
    assert!(once.log.len() > 10_000);
    assert_eq!(once.log, again.log);
    assert_eq!(once, again);
    assert_ne!(once.log, other.log);
    assert_ne!(once.digest, other.digest);
}

#[test]
fn what_fails_says_how_to_do_it_again() {
    let mut report = run("honest", 7, &SHORT).unwrap();
    assert!(!report.to_string().contains("again:"));
    let sentence = "of a test".into();
    report.violations.push(crate::Violation { checker: "outcome", at_us: 5, sentence });
    assert!(
        report.to_string().ends_with("again: iota sim --scenario honest --seed 7 --steps 4 --members 2\n"),
        "{report}"
    );
}

#[test]
fn an_unknown_scenario_is_told_what_there_is() {
    let error = run("honset", 1, &Options::default()).unwrap_err();
    assert!(matches!(error, SimError::Scenario { .. }));
    assert_eq!(
        error.to_string(),
        "no scenario \"honset\": there are honest, perturb, perturb_restarted, sparse, poison, diverging, worse, lazy_validator, accuser, mixed, replaced, withhold, wrong_sum, colluding_pair, moments, returner, contribution, outer_step, probation, slow_loris, miner_lost, miner_restarted, orchestrator_restarted, bad_token, churn, turmoil, flaky, full_disks, taken_back, direct, direct_flaky, slow, slow_uplink, narrow_uplink, growing, deserted"
    );
    let options = Options { stages: 0, ..Options::default() };
    assert!(matches!(run("honest", 1, &options), Err(SimError::Options(_))));
}

// Each checker is shown a log that it must object to.

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
    let opened = |weights| {
        let object = ObjectRef { digest: Digest([weights; 32]), bytes: 1 };
        let manifest = Manifest { epoch: 1, ..Manifest::first(Digest::default(), &[object]) };
        let message = Message::Open(Signed::new(manifest, &Key::from_seed([1; 32])));
        effect(Effect::Orchestrator(orchestrator_core::Effect::Send { to: NodeId([1; 32]), message }))
    };
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
        record.journal.append(now_ms, wire::to_bytes(&event));
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
    doctored.journal.append(10, vec![255]);
    assert!(objection(&doctored).unwrap().contains("entry 2 of the journal is no event"));
}
