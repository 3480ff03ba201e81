//! `cargo run --release -p fuzz`: every decoder in turn, for as long as wanted.

use anyhow::{Context, Result};
use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;

/// Feed every decoder with bytes that nobody would send.
#[derive(Parser)]
struct Arguments {
    /// Seconds in all
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only decoders whose names hold this
    #[arg(long, default_value = "")]
    only: String,
    /// Number of the first case
    #[arg(long, default_value_t = 0)]
    from: u64,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut targets = fuzz::targets()?;
    targets.retain(|target| target.name.contains(&arguments.only));
    let count = u32::try_from(targets.len()).ok().filter(|&count| count > 0).context("no such decoder")?;
    let time = Duration::from_secs(arguments.seconds) / count;
    let (mut cases, mut panics) = (0, 0);
    for target in targets {
        match target.run(arguments.from, time) {
            Ok(tally) => {
                println!("{:<24} {:>9} cases, {:>8} taken", target.name, tally.cases, tally.taken);
                cases += tally.cases;
            }
            Err(found) => {
                panics += 1;
                println!(
                    "{}: case {} panics: {}\n{}",
                    target.name,
                    found.number,
                    found.said,
                    hex::encode(found.bytes)
                );
            }
        }
    }
    println!("{cases} cases, {panics} decoders panic");
    Ok(if panics == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
