//! Every pure core in virtual time from one seed, under named checkers.
//!
//! [`run`] builds a swarm (one orchestrator, miners for each stage, one validator), delivers what happens
//! in the order of a virtual clock, and performs what the cores want done: the [`world`] has a network with
//! latency and jitter, an object store in memory, an arithmetic that is a hash, and faults. Everything that
//! varies is drawn from the seed, so the same scenario and seed give the same log to the byte.
//! [`checkers`] look at every event and effect; what they object to is in the [`Report`], with the one
//! command that replays it.
//!
//! What is deliberately absent: sockets, threads, wall time, tensors. The cores are the shipped ones.

pub mod checkers;
pub mod cores;
pub mod detection;
pub mod replay;
pub mod report;
pub mod scenarios;
pub mod trace;
pub mod world;

pub use report::{Report, Violation};

use scenarios::Scenario;
use serde::Serialize;
use wire::Remembering;
use world::World;

/// All nodes live in one thread: each statement is signed once, and what was signed here is known to hold. Enough for a
/// thousand miners; with more, what was signed long ago is signed and verified again.
const SIGNATURES_REMEMBERED: usize = 1 << 20;

/// How large a swarm is run, and what of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Options {
    /// Stages.
    pub stages: u16,
    /// Miners that hold each stage.
    pub miners: u16,
    /// Epochs in the run.
    pub epochs: u32,
    /// Inner steps in an epoch.
    pub steps: u32,
    /// Microbatches in an inner step.
    pub members: u16,
    /// Keep the log as text.
    pub log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { stages: 3, miners: 1, epochs: 2, steps: 6, members: 4, log: false }
    }
}

/// A simulation that cannot be started.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SimError {
    /// There is no such scenario.
    #[error("no scenario {found:?}: there are {known}")]
    Scenario {
        /// What was asked for.
        found: String,
        /// What there is.
        known: String,
    },
    /// The swarm asked for makes no legal run.
    #[error("these options make no run: {0}")]
    Options(#[from] spec::SpecError),
    /// The orchestrator does not take the run.
    #[error("these options make no swarm: {0}")]
    Swarm(#[from] orchestrator_core::ConfigError),
}

/// Runs a scenario from a seed to its end.
///
/// # Errors
/// An unknown scenario, or options that make no legal run. What goes wrong in the swarm is in the report.
pub fn run(scenario: &str, seed: u64, options: &Options) -> Result<Report, SimError> {
    let scenario = named(scenario)?;
    let _memory = Remembering::new(SIGNATURES_REMEMBERED);
    let mut report = World::new(scenario, seed, options)?.run();
    if let Err(sentence) = (scenario.expect)(&report) {
        report.violations.push(Violation { checker: "outcome", at_us: report.virtual_us, sentence });
    }
    Ok(report)
}

/// What the orchestrator of such a run is told, with its clock, and how it is configured: for whoever needs a journal.
///
/// # Errors
/// As for [`run`].
pub fn journal(
    scenario: &str,
    seed: u64,
    options: &Options,
) -> Result<(orchestrator_core::Config, Vec<(u64, orchestrator_core::Event)>), SimError> {
    let _memory = Remembering::new(SIGNATURES_REMEMBERED);
    Ok(World::new(named(scenario)?, seed, options)?.journal())
}

fn named(scenario: &str) -> Result<&'static Scenario, SimError> {
    Scenario::named(scenario).ok_or_else(|| SimError::Scenario {
        found: scenario.to_owned(),
        known: Scenario::ALL.map(|known| known.name).join(", "),
    })
}

#[cfg(test)]
mod tests;
