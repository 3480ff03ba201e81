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
