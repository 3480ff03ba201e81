mod checkers;
mod lies;
mod misfortunes;
mod output;
mod sizes;
mod stale;

use crate::{Options, run};

/// Many seeds are run with few microbatches.
const SHORT: Options = Options { stages: 3, miners: 1, epochs: 2, steps: 4, members: 2, log: false };

fn passes(scenario: &str, seeds: std::ops::Range<u64>, options: &Options) {
    for seed in seeds {
        let report = run(scenario, seed, options).unwrap();
        assert!(report.passed(), "{report}");
    }
}
