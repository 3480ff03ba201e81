//! `cargo xtask soak`: what the tests do for seconds, for hours: many seeds of every misfortune, many kills, bytes that nobody would send.

use crate::{cargo, root};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

/// Scenarios in which somebody is lost.
const SCENARIOS: &[&str] =
    &["miner_lost", "miner_restarted", "orchestrator_restarted", "churn", "turmoil", "flaky"];

#[derive(clap::Args)]
pub struct Arguments {
    /// Seeds of each scenario; 0 leaves the simulator out
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// Miners of each of three stages
    #[arg(long, default_value_t = 17)]
    miners: u16,
    /// How often the orchestrator process is killed in one run; 0 leaves the processes out
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// Seconds for which decoders are fed with what nobody would send; 0 leaves them out
    #[arg(long, default_value_t = 1800)]
    fuzz: u64,
}

/// Runs everything; whether all of it holds.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let (seeds, miners) = (arguments.seeds.to_string(), arguments.miners.to_string());
    let mut holds = true;
    for scenario in SCENARIOS.iter().filter(|_| arguments.seeds > 0) {
        let sizes = ["--miners", &miners, "--steps", "4", "--members", "1"];
        let base = ["run", "--release", "--quiet", "-p", "cli", "--", "sim", "--scenario", scenario];
        let arguments: Vec<&str> = base.into_iter().chain(["--seeds", &seeds]).chain(sizes).collect();
        holds &= simulate(scenario, &arguments)?;
    }
    if arguments.kills > 0 {
        let trial = "a_killed_orchestrator_goes_on";
        let trial =
            ["test", "--release", "--quiet", "-p", "cli", "--test", "crew", trial, "--", "--nocapture"];
        println!("== {} kills of the orchestrator in one run", arguments.kills);
        holds &= cargo(&trial).env("IOTA_SOAK_KILLS", arguments.kills.to_string()).status()?.success();
    }
    if arguments.fuzz > 0 {
        let seconds = arguments.fuzz.to_string();
        println!("== decoders, {seconds} s");
        let fuzz = ["run", "--release", "--quiet", "-p", "fuzz", "--", "--seconds", &seconds];
        holds &= cargo(&fuzz).status()?.success();
    }
    println!("{}", if holds { "everything holds" } else { "something does NOT hold" });
    Ok(holds)
}

/// Runs the seeds of a scenario and says how many passed; the first that does not is shown with its command.
fn simulate(scenario: &str, arguments: &[&str]) -> Result<bool> {
    let began = Instant::now();
    let mut child = cargo(arguments).current_dir(root()).stdout(Stdio::piped()).spawn()?;
    let output = BufReader::new(child.stdout.take().context("the simulator's output is not there")?);
    let (mut passed, mut last) = (0_u64, Vec::new());
    for line in output.lines() {
        let line = line?;
        if line.starts_with(scenario) {
            passed += 1;
            last.clear();
        }
        last.push(line);
    }
    let holds = child.wait()?.success();
    println!(
        "== {scenario}: {passed} seeds in {} s{}",
        began.elapsed().as_secs(),
        if holds { "" } else { ", the last does NOT hold:" }
    );
    if !holds {
        println!("{}", last.join("\n"));
    }
    Ok(holds)
}
