//! What came of a simulation.

use crate::Options;
use orchestrator_core::Ending;
use serde::Serialize;
use spec::{Digest, NodeId};
use std::collections::BTreeMap;
use std::fmt;
use wire::Finding;

/// What came of one scenario and seed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: &'static str,
    /// The seed.
    pub seed: u64,
    /// How large the swarm was.
    pub options: Options,
    /// How the run ended; `None` if it did not.
    pub ending: Option<Ending>,
    /// Virtual time of the last event, in microseconds.
    pub virtual_us: u64,
    /// Events delivered to cores.
    pub events: u64,
    /// Digest over every event and effect, in order.
    pub digest: Digest,
    /// Mean loss of each microbatch in nats per token, in the order they finished.
    pub losses: Vec<f64>,
    /// Epochs committed.
    pub commits: u32,
    /// What replays found, by whose work.
    pub findings: Vec<(NodeId, Finding)>,
    /// When nodes were killed for the last time, in virtual microseconds.
    pub killed_us: BTreeMap<NodeId, u64>,
    /// How lost miners' work went to others.
    pub reissues: Vec<Reissue>,
    /// Payloads and parts that went past the relay.
    pub direct_frames: u64,
    /// Direct routes that broke under them.
    pub routes_broken: u64,
    /// How often an epoch began again.
    pub rewinds: u32,
    /// How often everybody went back to an earlier manifest.
    pub rollbacks: u32,
    /// Tokens of microbatches whose loss was reported in vain for it.
    pub tokens_undone: u64,
    /// What the orchestrator noted.
    pub notes: Vec<String>,
    /// Whom the orchestrator convicted and banned.
    pub convicted: Vec<NodeId>,
    /// Whom it kept evidence against.
    pub evidence: Vec<NodeId>,
    /// Against whom it has evidence of one tile besides.
    pub narrowed: Vec<NodeId>,
    /// The miners that cheat.
    pub cheats: Vec<NodeId>,
    /// Stable epochs in which a miner lied that was not convicted by then.
    pub escaped: u32,
    /// How each node ended, by its role and number; killed and unfinished ones are missing.
    pub exits: Vec<(String, Result<String, String>)>,
    /// What the checkers object to.
    pub violations: Vec<Violation>,
    /// Every event and effect as text, if it was asked for.
    pub log: String,
}

/// A lost miner's work given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reissue {
    /// How long after it was killed, in virtual microseconds; `None` where it lives and was lost from sight.
    pub after_us: Option<u64>,
    /// Microbatches in work.
    pub microbatches: u64,
    /// Tokens that it had folded and nobody folds again.
    pub tokens: u64,
}

/// What a checker objects to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The checker's name.
    pub checker: &'static str,
    /// When, in virtual microseconds.
    pub at_us: u64,
    /// What, in one sentence.
    pub sentence: String,
}

impl Report {
    /// Whether no checker objects.
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }

    /// The one command that does all this again.
    pub fn command(&self) -> String {
        let (found, usual) = (&self.options, Options::default());
        let mut command = format!("iota sim --scenario {} --seed {}", self.scenario, self.seed);
        for (flag, found, usual) in [
            ("stages", u32::from(found.stages), u32::from(usual.stages)),
            ("miners", u32::from(found.miners), u32::from(usual.miners)),
            ("epochs", found.epochs, usual.epochs),
            ("steps", found.steps, usual.steps),
            ("members", u32::from(found.members), u32::from(usual.members)),
        ] {
            if found != usual {
                command += &format!(" --{flag} {found}");
            }
        }
        command
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ending = match &self.ending {
            None => "no end".into(),
            Some(Ending::Complete) => "complete".into(),
            Some(Ending::Stopped) => "stopped".into(),
            Some(Ending::Failed { why }) => format!("failed: {why}"),
        };
        let (events, commits, seconds) = (self.events, self.commits, self.virtual_us as f64 / 1e6);
        writeln!(
            f,
            "{} seed {}: {ending}; {events} events, {} microbatches, {commits} commits, {} audits in {seconds:.3} virtual s",
            self.scenario,
            self.seed,
            self.losses.len(),
            self.findings.len(),
        )?;
        if self.rollbacks > 0 {
            writeln!(
                f,
                "  {} convicted; back {} times, {} tokens in vain",
                self.convicted.len(),
                self.rollbacks,
                self.tokens_undone
            )?;
        }
        for Violation { checker, at_us, sentence } in &self.violations {
            writeln!(f, "  {checker} at {at_us} us: {sentence}")?;
        }
        if !self.passed() {
            writeln!(f, "  again: {}", self.command())?;
        }
        Ok(())
    }
}
