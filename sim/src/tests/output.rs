//! What a run says: the same each time, and how to see it again.

use super::SHORT;
use crate::{Options, SimError, run};

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
        "no scenario \"honset\": there are honest, perturb, perturb_restarted, asked, sparse, poison, diverging, worse, lazy_validator, accuser, mixed, replaced, withhold, wrong_sum, colluding_pair, moments, returner, contribution, outer_step, probation, slow_loris, miner_lost, miner_restarted, orchestrator_restarted, bad_token, churn, turmoil, flaky, full_disks, taken_back, direct, direct_flaky, slow, slow_uplink, narrow_uplink, growing, deserted, stale, stale_restarted, stale_churn, stale_turmoil, stale_perturb"
    );
    let options = Options { stages: 0, ..Options::default() };
    assert!(matches!(run("honest", 1, &options), Err(SimError::Options(_))));
}
