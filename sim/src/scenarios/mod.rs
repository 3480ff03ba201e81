//! What is simulated: a swarm, what befalls it, and how that must end.

mod lies;
mod misfortunes;
mod setup;
mod stale;

pub use setup::{NodeSetup, Setup, small_run};

use crate::report::Report;
use crate::world::chance::Chance;
use lies::*;
use misfortunes::*;
use orchestrator_core::Ending;
use spec::Run;
use stale::*;
use wire::Finding;

/// A scenario.
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What happens, for people.
    pub about: &'static str,
    /// Turns the honest swarm into this one.
    pub twist: fn(&mut Setup, &mut Chance),
    /// Turns the usual run into this one's.
    pub run: fn(&mut Run),
    /// In so many stable epochs no cheat may have lied.
    pub escapes: u32,
    /// How it must have ended; else what is wrong, in one sentence.
    pub expect: fn(&Report) -> Result<(), String>,
}

impl Scenario {
    /// All of them.
    pub const ALL: [&'static Self; 42] = [
        &HONEST,
        &PERTURB,
        &PERTURB_RESTARTED,
        &ASKED,
        &SPARSE,
        &POISON,
        &DIVERGING,
        &WORSE,
        &LAZY_VALIDATOR,
        &ACCUSER,
        &MIXED,
        &REPLACED,
        &WITHHOLD,
        &WRONG_SUM,
        &COLLUDING_PAIR,
        &MOMENTS,
        &RETURNER,
        &CONTRIBUTION,
        &OUTER_STEP,
        &PROBATION,
        &SLOW_LORIS,
        &MINER_LOST,
        &MINER_RESTARTED,
        &ORCHESTRATOR_RESTARTED,
        &BAD_TOKEN,
        &CHURN,
        &TURMOIL,
        &FLAKY,
        &FULL_DISKS,
        &TAKEN_BACK,
        &DIRECT,
        &DIRECT_FLAKY,
        &SLOW,
        &SLOW_UPLINK,
        &NARROW_UPLINK,
        &GROWING,
        &DESERTED,
        &STALE,
        &STALE_RESTARTED,
        &STALE_CHURN,
        &STALE_TURMOIL,
        &STALE_PERTURB,
    ];

    /// The scenario with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name == name)
    }
}

static HONEST: Scenario = Scenario {
    name: "honest",
    about: "nothing goes wrong: the run completes and every audit finds equal digests",
    run: |_| {},
    escapes: 1,
    twist: |_, _| {},
    expect: complete,
};

fn complete(report: &Report) -> Result<(), String> {
    if report.ending != Some(Ending::Complete) {
        return Err(format!("expected a complete run, found {:?}", report.ending));
    }
    if report.findings.is_empty() {
        return Err("the run is complete, but nothing was audited".into());
    }
    match report.findings.iter().find(|(_, finding)| !matches!(finding, Finding::Equal { .. })) {
        Some((miner, finding)) => Err(format!("{}: {finding:?}, though nobody cheats", miner.short())),
        None => Ok(()),
    }
}
