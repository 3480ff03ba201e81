//! Swarms on weights one step old: windows of three steps and one of one.

use super::{SHORT, passes};
use crate::Options;

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
