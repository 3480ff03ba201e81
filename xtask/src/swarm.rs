//! What a swarm's processes cost: three stages of one miner each, beside one process on the same run, and beside one process on
//! microbatches of the size that suits it (its default), in turn.

use crate::{cargo, target_dir};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(clap::Args)]
pub struct Arguments {
    /// How often each is run; the ratios are taken round by round, so that a machine's moods cancel
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Inner steps: many, so that the start of seven processes weighs as little as in a real run
    #[arg(long, default_value_t = 200)]
    steps: u32,
}

/// Share of one process's rate that a swarm without audits is wanted to reach.
const WANTED: f64 = 0.85;

/// Prints every round and the median ratio; whether it is what is wanted.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let status = cargo(&["build", "--release", "--quiet", "--package", "cli"]).status()?;
    if !status.success() {
        bail!("iota cannot be built ({status})");
    }
    let place = target_dir()?.join("swarm");
    let mut ratios = vec![];
    println!(
        "| round | swarm, tokens/s | one process, the same run | one process, its own microbatches | ratios |"
    );
    println!("|---|---|---|---|---|");
    for round in 1..=arguments.rounds.max(1) {
        if place.exists() {
            std::fs::remove_dir_all(&place)?;
        }
        let steps = arguments.steps.to_string();
        let swarm = iota(
            &place.join("swarm"),
            &[
                "up",
                "--miners-per-stage",
                "1",
                "--audits",
                "0",
                "--dashboard",
                "off",
                "--epochs",
                "1",
                "--steps",
                &steps,
            ],
        )?;
        let summary: Value = serde_json::from_slice(&std::fs::read(swarm.join("summary.json"))?)?;
        let together =
            summary["tokens_per_second"].as_f64().context("no tokens_per_second in summary.json")?;
        // The same run: its run.toml names its text by digest.
        let config = swarm.join("run.toml");
        let same = alone(&place.join("same"), &["--config", &config.to_string_lossy()])?;
        let own = alone(&place.join("own"), &["--steps", &steps])?;
        let (of_same, of_own) = (together / same, together / own);
        ratios.push(of_same.min(of_own));
        println!("| {round} | {together:.0} | {same:.0} | {own:.0} | {of_same:.2}, {of_own:.2} |");
    }
    ratios.sort_by(f64::total_cmp);
    let middle = ratios.len() - 1;
    let median = (ratios[middle / 2] + ratios[middle.div_ceil(2)]) / 2.0;
    println!("\nmedian of the smaller ratios {median:.2}, wanted at least {WANTED}");
    Ok(median >= WANTED)
}

/// Tokens/s of `iota train`.
fn alone(runs: &Path, arguments: &[&str]) -> Result<f64> {
    let run = iota(runs, &[&["train"], arguments].concat())?;
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl"))?;
    let last = metrics
        .lines()
        .rev()
        .find(|line| line.contains("tokens_per_s"))
        .context("no tokens_per_s in metrics.jsonl")?;
    serde_json::from_str::<Value>(last)?["tokens_per_s"].as_f64().context("tokens_per_s is no number")
}

/// Runs iota into a new folder of runs; the run's folder.
fn iota(runs: &Path, arguments: &[&str]) -> Result<PathBuf> {
    let mut command = Command::new(target_dir()?.join("release/iota"));
    let output = command.args(arguments).arg("--runs").arg(runs).output();
    let output = output.with_context(|| format!("{command:?} cannot be started"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let run = std::fs::read_dir(runs)?.next().context("no run folder was left")??;
    Ok(run.path())
}
