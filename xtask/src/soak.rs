//! `cargo xtask soak`: what the tests do for seconds, for hours: many seeds of every misfortune, thousands of miners of which some
//! cheat, many kills, bytes that nobody would send. What came of it is written to `docs/soak.md`.

use crate::{cargo, root};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Scenarios in which somebody is lost, late or slow.
const SCENARIOS: &[&str] = &[
    "miner_lost",
    "miner_restarted",
    "orchestrator_restarted",
    "churn",
    "turmoil",
    "flaky",
    "direct_flaky",
    "slow",
    "growing",
    "deserted",
];

#[derive(clap::Args)]
pub struct Arguments {
    /// Seeds of each scenario in which somebody is lost; 0 leaves them out
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// Miners of each of three stages there
    #[arg(long, default_value_t = 17)]
    miners: u16,
    /// Seeds of swarms of 50 miners, three tenths of which cheat; 0 leaves them out
    #[arg(long, default_value_t = 10_000)]
    small: u64,
    /// Seeds of swarms of 5,000 miners, three tenths of which cheat; 0 leaves them out
    #[arg(long, default_value_t = 50)]
    large: u64,
    /// How often the orchestrator process is killed in one run; 0 leaves the processes out
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// Seconds for which decoders are fed with what nobody would send; 0 leaves them out
    #[arg(long, default_value_t = 1800)]
    fuzz: u64,
}

/// What one part came to.
struct Part {
    name: String,
    asked: u64,
    passed: u64,
    seconds: f64,
    holds: bool,
}

/// Runs everything and writes what came of it; whether all of it holds.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let mut parts = Vec::new();
    for scenario in SCENARIOS {
        let name = format!("{scenario}, {} miners", 3 * u32::from(arguments.miners));
        parts.extend(simulate(name, scenario, arguments.seeds, (3, arguments.miners))?);
    }
    parts.extend(simulate("three tenths cheat, 50 miners".into(), "mixed", arguments.small, (5, 10))?);
    parts.extend(simulate("three tenths cheat, 5,000 miners".into(), "mixed", arguments.large, (100, 50))?);
    if arguments.kills > 0 {
        let trial = "a_killed_orchestrator_goes_on";
        let trial =
            ["test", "--release", "--quiet", "-p", "cli", "--test", "crew", trial, "--", "--nocapture"];
        let mut trial = cargo(&trial);
        trial.env("IOTA_SOAK_KILLS", arguments.kills.to_string());
        parts.push(command("kills of the orchestrator in one run", arguments.kills, &mut trial)?);
    }
    if arguments.fuzz > 0 {
        let seconds = arguments.fuzz.to_string();
        let mut fuzz = cargo(&["run", "--release", "--quiet", "-p", "fuzz", "--", "--seconds", &seconds]);
        parts.push(command("seconds of decoding what nobody would send", arguments.fuzz, &mut fuzz)?);
    }
    let holds = parts.iter().all(|part| part.holds);
    let path = root().join("docs/soak.md");
    std::fs::write(&path, page(&parts)?).with_context(|| path.display().to_string())?;
    println!("{}; see docs/soak.md", if holds { "everything holds" } else { "something does NOT hold" });
    Ok(holds)
}

/// The result, for people.
fn page(parts: &[Part]) -> Result<String> {
    let commit = Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(root()).output()?;
    let mut page = format!(
        "# The last long run\n\nWritten by `cargo xtask soak` at {}: swarms in the simulator, each seed under every checker, and processes. \
         In a swarm of cheats a tenth of all\nminers changes values, a tenth withholds, a tenth signs wrong sums: `honest_never_slashed` \
         and `cheat_is_caught_within_n` look on.\n\n| what | asked | passed | seconds | seconds each | holds |\n|---|---|---|---|---|---|\n",
        String::from_utf8_lossy(&commit.stdout).trim()
    );
    for Part { name, asked, passed, seconds, holds } in parts {
        let each = seconds / (*passed).max(1) as f64;
        let holds = if *holds { "yes" } else { "NO" };
        writeln!(page, "| {name} | {asked} | {passed} | {seconds:.0} | {each:.3} | {holds} |")?;
    }
    Ok(page)
}

fn command(name: &str, asked: u64, command: &mut Command) -> Result<Part> {
    println!("== {asked} {name}");
    let began = Instant::now();
    let holds = command.status()?.success();
    let passed = if holds { asked } else { 0 };
    Ok(Part { name: name.into(), asked, passed, seconds: began.elapsed().as_secs_f64(), holds })
}

/// Runs the seeds of a scenario and says how many passed; the first that does not is shown with its command.
fn simulate(name: String, scenario: &str, seeds: u64, (stages, miners): (u16, u16)) -> Result<Option<Part>> {
    if seeds == 0 {
        return Ok(None);
    }
    let began = Instant::now();
    let base = ["run", "--release", "--quiet", "-p", "cli", "--", "sim", "--scenario", scenario];
    let numbers = [("--seeds", seeds), ("--stages", stages.into()), ("--miners", miners.into())];
    let mut command = cargo(&base);
    for (flag, number) in numbers.into_iter().chain([("--steps", 4), ("--members", 1)]) {
        command.arg(flag).arg(number.to_string());
    }
    let mut child = command.current_dir(root()).stdout(Stdio::piped()).spawn()?;
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
    // The seed that does not pass is told too.
    passed -= u64::from(!holds && passed > 0);
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "== {name}: {passed} seeds in {seconds:.0} s{}",
        if holds { "" } else { ", the next does NOT hold:" }
    );
    if !holds {
        println!("{}", last.join("\n"));
    }
    Ok(Some(Part { name, asked: seeds, passed, seconds, holds }))
}
