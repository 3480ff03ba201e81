//! Trials of nobody lying: honest runs, and who is lost, late or slow.

use super::{SHORT, passes};
use crate::{Options, run};

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
