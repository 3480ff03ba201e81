//! `iota verify evidence`: a conviction checked by whoever doubts it, from one file.

use crate::failure::{Failure, Result};
use engine::data::TokenShard;
use spec::{Digest, NodeId};
use std::path::PathBuf;
use std::time::Instant;
use validator::evidence::{Conviction, Expected, FileBytes, Outcome, Report, merge, tile, verify};
use wire::Finding;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Check signatures and digests of an evidence file and do the accused's work again, on the CPU, with no network.
    /// Exit code 0: convicted, 1: not proven, 2: no evidence
    Evidence(Arguments),
}

#[derive(clap::Args)]
pub struct Arguments {
    /// The evidence file
    path: PathBuf,
    /// The run's training shard, where it is too long to travel inside
    #[arg(long, value_name = "FILE")]
    shard: Option<PathBuf>,
    /// Refuse evidence of any run but this
    #[arg(long, value_name = "RUN ID")]
    run: Option<Digest>,
    /// Refuse evidence against anyone but this miner
    #[arg(long, value_name = "KEY")]
    miner: Option<NodeId>,
    /// Refuse verdicts signed by anyone but this validator
    #[arg(long, value_name = "KEY")]
    validator: Option<NodeId>,
    /// Refuse manifests signed by anyone but this orchestrator
    #[arg(long, value_name = "KEY")]
    orchestrator: Option<NodeId>,
}

pub fn run(Command::Evidence(arguments): Command) -> Result<()> {
    let began = Instant::now();
    let Arguments { path, shard, run, miner, validator, orchestrator } = arguments;
    let expected = Expected { run, miner, validator, orchestrator };
    let name = path.display().to_string();
    let wrong = |what: &dyn std::fmt::Display| Failure::input(format!("{name}: refused: {what}"));
    let file = FileBytes::open(&path).map_err(|e| wrong(&format!("cannot be read ({e})")))?;
    let bytes = file.len() as u64;
    if file.starts_with(&merge::MAGIC) {
        let report = merge::verify(&file, &expected).map_err(|e| wrong(&e))?;
        return decide_sum(&name, &report, bytes, began);
    }
    if file.starts_with(&tile::MAGIC) {
        let report = tile::verify(&file, &expected).map_err(|e| wrong(&e))?;
        return decide_tile(&name, &report, bytes, began);
    }
    let shard = shard.map(|path| TokenShard::open(&path)).transpose().map_err(|e| wrong(&e))?;
    let report = verify(&file, shard.as_ref(), &expected).map_err(|e| wrong(&e))?;
    let took = format!("{:.1} MB, decided in {:.2} s", bytes as f64 / 1e6, began.elapsed().as_secs_f64());
    match &report.outcome {
        Outcome::Convicted(conviction) => {
            println!("CONVICTED  miner {} of stage {}", report.miner, report.stage);
            tell(&report, conviction, &took);
            Ok(())
        }
        Outcome::NotProven { .. } if report.window.is_beginning() => Err(Failure::run(format!(
            "{name}: NOT PROVEN: miner {} began epoch {} in a state in which it may; {took}",
            report.miner, report.window.epoch
        ))),
        Outcome::NotProven { operations } => Err(Failure::run(format!(
            "{name}: NOT PROVEN: {operations} operations of miner {} done again, every digest as it signed; {took}",
            report.miner
        ))),
    }
}

/// A sum of a merge that somebody signed.
fn decide_sum(name: &str, report: &merge::SumReport, bytes: u64, began: Instant) -> Result<()> {
    let took = format!("{:.1} MB, decided in {:.2} s", bytes as f64 / 1e6, began.elapsed().as_secs_f64());
    if report.claimed == report.found {
        return Err(Failure::run(format!(
            "{name}: NOT PROVEN: the pieces add up to what miner {} signed; {took}",
            report.miner
        )));
    }
    println!("CONVICTED  miner {} of stage {}", report.miner, report.stage);
    println!("  run        {} ({})", report.run.0, report.run.1);
    println!("  operation  reduce of shard {} in the merge of epoch {}", report.shard, report.epoch);
    println!("  claimed    sum {}", report.claimed);
    println!("  found      sum {}", report.found);
    println!("  evidence   {}, {took}", report.evidence);
    Ok(())
}

/// One tile of one op.
fn decide_tile(name: &str, report: &tile::TileReport, bytes: u64, began: Instant) -> Result<()> {
    let took = format!("{:.3} MB, decided in {:.2} s", bytes as f64 / 1e6, began.elapsed().as_secs_f64());
    let Some(difference) = &report.difference else {
        return Err(Failure::run(format!(
            "{name}: NOT PROVEN: the tile computed again, every bit as miner {} signed it; {took}",
            report.miner
        )));
    };
    let (operation, sequence) = &report.operation;
    println!("CONVICTED  miner {} of stage {}", report.miner, report.stage);
    println!("  run        {} ({})", report.run.id(), report.run.name);
    println!("  window     {}", report.window);
    println!("  operation  {operation}, receipt {sequence}");
    println!(
        "  op         {}, number {} of {}, output {}",
        difference.op, difference.place, report.ops, difference.output
    );
    let (row, col) = difference.at;
    println!("  claimed    {} in row {row} column {col}", difference.claimed);
    println!("  found      {}", difference.found);
    if let Some(distance) = difference.claimed.distance(difference.found) {
        println!("  apart      {distance} units in the last place");
    }
    println!("  evidence   {}, {took}", report.evidence);
    Ok(())
}

fn tell(report: &Report, conviction: &Conviction, took: &str) {
    println!("  run        {} ({})", report.run.id(), report.run.name);
    println!("  window     {}", report.window);
    match (&conviction.operation, &conviction.finding) {
        (Some(operation), Finding::Unequal { sequence, what, expected, found }) => {
            println!("  operation  {operation}, receipt {sequence}");
            println!("  claimed    {what} {found}");
            println!("  found      {what} {expected}");
        }
        (_, finding) => println!("  finding    {}", finding.sentence()),
    }
    if report.window.is_beginning() {
        // All of the fresh state is its word.
        println!("  manifest   of orchestrator {}", report.orchestrator);
    }
    let verdict = if report.said == conviction.finding { "the same".into() } else { report.said.sentence() };
    println!("  verdict    of validator {}: {verdict}", report.validator.short());
    println!("  evidence   {}, {took}", report.evidence);
}
