//! The same swarms on weights that are one step old within a window: forwards of the next step run while one is in work.

use super::lies::PERTURB;
use super::misfortunes::{CHURN, MINER_RESTARTED, TURMOIL};
use super::{HONEST, Scenario};
use spec::Run;

pub(super) static STALE: Scenario = Scenario {
    name: "stale",
    about: "as honest, on weights one step old within windows of three steps",
    run: stale,
    ..HONEST
};

pub(super) static STALE_RESTARTED: Scenario = Scenario {
    name: "stale_restarted",
    about: "as miner_restarted, on weights one step old",
    run: stale,
    ..MINER_RESTARTED
};

pub(super) static STALE_CHURN: Scenario =
    Scenario { name: "stale_churn", about: "as churn, on weights one step old", run: stale, ..CHURN };

pub(super) static STALE_TURMOIL: Scenario =
    Scenario { name: "stale_turmoil", about: "as turmoil, on weights one step old", run: stale, ..TURMOIL };

pub(super) static STALE_PERTURB: Scenario =
    Scenario { name: "stale_perturb", about: "as perturb, on weights one step old", run: stale, ..PERTURB };

fn stale(run: &mut Run) {
    run.inner.staleness = 1;
    run.epoch.digest_every = 3.min(run.epoch.steps);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a trial that cannot go on has failed
mod tests {
    use crate::{Options, run};

    fn passes(scenario: &str, seeds: std::ops::Range<u64>, options: &Options) {
        for seed in seeds {
            let report = run(scenario, seed, options).unwrap();
            assert!(report.passed(), "{report}");
        }
    }

    /// Windows of three steps and one of one.
    const SHORT: Options = Options { stages: 3, miners: 1, epochs: 2, steps: 4, members: 2, log: false };

    #[test]
    fn honest_runs_complete_and_merge() {
        for miners in [1, 2, 4] {
            passes("stale", 0..6, &Options { miners, ..SHORT });
        }
        passes("stale", 6..8, &Options::default());
    }

    #[test]
    fn a_perturbed_value_is_found() {
        passes("stale_perturb", 0..8, &SHORT);
        passes("stale_perturb", 0..6, &Options { miners: 2, epochs: 3, ..SHORT });
    }

    #[test]
    fn miners_come_and_go_and_nothing_is_unfinished_or_folded_twice() {
        passes("stale_restarted", 0..8, &SHORT);
        for miners in [2, 3] {
            let options = Options { miners, steps: 6, ..SHORT };
            passes("stale_restarted", 0..3, &options);
            passes("stale_churn", 0..4, &options);
            passes("stale_turmoil", 0..5, &options);
        }
    }
}
