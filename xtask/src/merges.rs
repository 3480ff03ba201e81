//! What local steps and merges cost in loss: replicas that merge now and then, beside plain training on as many tokens.

use crate::{cargo, target_dir};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

#[derive(clap::Args)]
pub struct Arguments {
    /// Replicas of every stage
    #[arg(long, default_value_t = 2)]
    replicas: u32,
    /// Steps of each replica
    #[arg(long, default_value_t = 400)]
    steps: u32,
    /// Steps between two merges
    #[arg(long, value_name = "N", num_args = 1.., default_values_t = [5, 10, 20, 50])]
    steps_per_merge: Vec<u32>,
    /// Outer steps: rate/momentum
    #[arg(long, value_name = "RATE/SHARE", num_args = 1.., default_values = ["1/0", "0.7/0.5", "1/0.5", "0.7/0.9"])]
    outer: Vec<String>,
    /// Inner learning rates; plain training is tuned over the same
    #[arg(long, value_name = "RATE", num_args = 1.., default_values_t = [0.003])]
    lr: Vec<f64>,
    /// Seed of initial weights and sample order
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// 0.86 million parameters over BPE of 1024 on the default corpus: a run takes two cores some twenty seconds.
const CONFIG: &str = "[model]\ndim = 128\nheads = 4\nkv_heads = 4\nffn = 344\ncontext = 128\nstages = [3]\n\
                      [data]\nsequences = 4\n[inner]\n";
/// Microbatches in a step of a replica.
const MEMBERS: u32 = 2;

/// Prints the table; true if some outer step with at least 20 merges loses 3 % or less against plain training with
/// steps as wide as all replicas' together.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let status = cargo(&["build", "--release", "--quiet", "--package", "cli"]).status()?;
    if !status.success() {
        bail!("iota cannot be built ({status})");
    }
    let place = target_dir()?.join("merges");
    std::fs::create_dir_all(&place)?;
    let Arguments { replicas, steps, seed, .. } = *arguments;
    println!("{replicas} replicas of {steps} steps, seed {seed}; bits per byte on held-out documents\n");
    println!(
        "| who | steps | tokens of a step | inner rate | merges | outer rate, momentum | bits per byte | against the wide | against the narrow |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    // The same tokens in steps as wide as all replicas' together, and in steps as wide as one replica's.
    let mut best = [f64::INFINITY; 2];
    let plain = [("plain, wide", MEMBERS * replicas, steps), ("plain, narrow", MEMBERS, steps * replicas)];
    for ((name, members, steps), best) in plain.into_iter().zip(&mut best) {
        for &lr in &arguments.lr {
            let bits = train(&place, members, steps, lr, seed, &[])?;
            println!("| {name} | {steps} | {} | {lr} | | | {bits:.4} | | |", 512 * members);
            *best = best.min(bits);
        }
    }
    let mut holds = false;
    for &epoch in &arguments.steps_per_merge {
        for outer in &arguments.outer {
            let (rate, momentum) =
                outer.split_once('/').context("--outer: expected RATE/SHARE, such as 0.7/0.9")?;
            for &lr in &arguments.lr {
                let options = [
                    ["--replicas", &replicas.to_string()],
                    ["--steps-per-merge", &epoch.to_string()],
                    ["--outer-lr", rate],
                    ["--outer-momentum", momentum],
                ];
                let bits = train(&place, MEMBERS, steps, lr, seed, &options.concat())?;
                let [wide, narrow] = best.map(|best| 100.0 * (bits / best - 1.0));
                let merges = steps / epoch.max(1);
                holds |= merges >= 20 && wide <= 3.0;
                println!(
                    "| {replicas} replicas, {epoch} steps a merge | {steps} | {} | {lr} | {merges} | {rate}, {momentum} | \
                     {bits:.4} | {wide:+.1} % | {narrow:+.1} % |",
                    512 * MEMBERS * replicas,
                );
            }
        }
    }
    Ok(holds)
}

/// Trains with `iota train`; bits per byte of the held-out documents at its end.
fn train(place: &Path, members: u32, steps: u32, lr: f64, seed: u64, options: &[&str]) -> Result<f64> {
    let runs = place.join("runs");
    if runs.exists() {
        std::fs::remove_dir_all(&runs)?;
    }
    let config = place.join("run.toml");
    std::fs::write(&config, format!("{CONFIG}members = {members}\nlr = {lr}\nlr_final = {}\n", lr / 10.0))?;
    let mut command = Command::new(target_dir()?.join("release/iota"));
    command.args([
        "train",
        "--tokenizer",
        "bpe:1024",
        "--steps",
        &steps.to_string(),
        "--seed",
        &seed.to_string(),
    ]);
    command.arg("--config").arg(&config).arg("--runs").arg(&runs).args(options);
    let output = command.output().with_context(|| format!("{command:?} cannot be started"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let run = std::fs::read_dir(&runs)?.next().context("iota train left no run folder")??.path();
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl"))?;
    let last =
        metrics.lines().rev().find(|line| line.contains("bits_per_byte")).context("no bits per byte")?;
    let value: serde_json::Value = serde_json::from_str(last)?;
    value["bits_per_byte"].as_f64().context("bits_per_byte is no number")
}
