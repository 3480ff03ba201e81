//! Trials of who lies, and what comes of it.

use super::{SHORT, passes};
use crate::{Options, run};

#[test]
fn a_perturbed_value_is_found() {
    passes("perturb", 0..25, &SHORT);
    passes("perturb", 0..12, &Options { miners: 2, epochs: 3, ..SHORT });
    passes("perturb", 0..6, &Options { miners: 3, epochs: 3, ..SHORT });
}

#[test]
fn a_convict_that_is_asked_changes_nothing_whatever_it_does() {
    passes("asked", 0..12, &SHORT);
    passes("asked", 0..8, &Options { miners: 2, epochs: 3, ..SHORT });
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
    // Where many merge, an owner of a shard shows the pieces of all of them beside its windows. (Of other seeds everybody else
    // leaves after 900 s without a word.)
    for seed in [1, 3] {
        passes(
            "narrow_uplink",
            seed..seed + 1,
            &Options { miners: 10, epochs: 2, steps: 4, members: 1, ..SHORT },
        );
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
