//! `iota sim`: every role's core in virtual time, from a seed.

use crate::failure::{Failure, Result};
use sim::Options;

#[derive(clap::Args)]
pub struct Arguments {
    /// What happens: honest, perturb, withhold, miner_lost, ... (an unknown one lists all)
    #[arg(long, default_value = "honest")]
    scenario: String,
    /// First seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of seeds, counted up from the first
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Stages
    #[arg(long, default_value_t = Options::default().stages)]
    stages: u16,
    /// Miners that hold each stage
    #[arg(long, default_value_t = Options::default().miners)]
    miners: u16,
    /// Epochs in the run
    #[arg(long, default_value_t = Options::default().epochs)]
    epochs: u32,
    /// Inner steps in an epoch
    #[arg(long, default_value_t = Options::default().steps)]
    steps: u32,
    /// Microbatches in an inner step
    #[arg(long, default_value_t = Options::default().members)]
    members: u16,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let options = Options {
        stages: arguments.stages,
        miners: arguments.miners,
        epochs: arguments.epochs,
        steps: arguments.steps,
        members: arguments.members,
        log: false,
    };
    let mut reports = Vec::new();
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        let report = sim::run(&arguments.scenario, seed, &options)
            .map_err(|error| Failure::input(error.to_string()))?;
        println!("{report}");
        if !report.passed() {
            return Err(Failure::run(format!(
                "seed {seed} breaches its checkers; again with: {}",
                report.command()
            )));
        }
        reports.push(report);
    }
    if arguments.scenario == "sparse" {
        let (rate, table) = sim::detection::detection(&reports, &options)
            .map_err(|error| Failure::input(error.to_string()))?;
        println!("one lie an epoch, p = {rate:.3} of the windows audited");
        println!("epochs  found   1-(1-p)^epochs");
        for within in table {
            println!("{:>6}  {:.3}   {:.3}", within.epochs, within.found, within.expected);
        }
    }
    Ok(())
}
