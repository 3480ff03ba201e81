//! Our training step beside PyTorch's on the same model, in turn, and our matrix products beside the crate `gemm`'s.

use crate::{cargo, peers, target_dir};
use anyhow::{Context, Result, bail};
use std::process::Command;

#[derive(clap::Args)]
pub struct Arguments {
    /// How often each is run; the ratios are taken round by round, so that a machine's moods cancel
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that a run times
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Who trains: ourselves first.
const WHO: [&str; 3] = ["iota", "PyTorch eager", "PyTorch compile"];
const SIZES: [&str; 2] = ["S", "M"];

/// One run.
struct Row {
    tokens_per_s: f64,
    resident_mb: f64,
}

/// Prints both tables; false if a peer could not be run.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let place = target_dir()?.join("peers");
    std::fs::create_dir_all(&place)?;
    let installed = peers::install_torch(&place);
    succeed(cargo(&["build", "--release", "--quiet", "--package", "cli"]))?;
    println!("{}\n", machine());
    println!(
        "| size | | tokens/s, median (lowest, highest) | most memory resident | iota / this, lowest, median, highest |"
    );
    println!("|---|---|---|---|---|");
    for size in SIZES {
        let mut all: [Vec<Row>; 3] = Default::default();
        for _ in 0..arguments.rounds.max(1) {
            for (who, rows) in WHO.iter().zip(&mut all) {
                if *who == WHO[0] {
                    rows.push(row(ours(size, arguments)?)?);
                } else if installed.is_ok() {
                    rows.push(row(theirs(&place, size, who, arguments))?);
                }
            }
        }
        for (who, rows) in WHO.iter().zip(&all) {
            print_rows(size, who, rows, &all[0]);
        }
    }
    if let Err(why) = &installed {
        println!("\nnot run: PyTorch: {why:#}");
    }
    println!();
    succeed(cargo(&["bench", "--quiet", "--package", "benches", "--bench", "gemm"]))?;
    Ok(installed.is_ok())
}

fn ours(size: &str, arguments: &Arguments) -> Result<Command> {
    let mut command = Command::new(target_dir()?.join("release/iota"));
    command.args(["bench", "step", "--json", "--config", size]);
    command.args(["--threads", &arguments.threads.to_string(), "--seconds", &arguments.seconds.to_string()]);
    Ok(command)
}

fn theirs(place: &std::path::Path, size: &str, who: &str, arguments: &Arguments) -> Command {
    let mode = who.rsplit(' ').next().unwrap_or_default();
    let mut command = peers::python(place);
    command.arg(peers::script("train_step.py")).args([size, mode]);
    command.args([arguments.threads.to_string(), arguments.seconds.to_string()]);
    command
}

/// The JSON line that a run prints last.
fn row(mut command: Command) -> Result<Row> {
    let output = command.output().with_context(|| format!("{command:?} cannot be started"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rev().find(|line| line.starts_with('{'));
    let Some(line) = line.filter(|_| output.status.success()) else {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr));
    };
    let values: serde_json::Value = serde_json::from_str(line)?;
    let number = |key: &str| values[key].as_f64().with_context(|| format!("{command:?} printed no {key}"));
    Ok(Row { tokens_per_s: number("tok_s")?, resident_mb: number("rss_mb")? })
}

fn print_rows(size: &str, who: &str, rows: &[Row], ours: &[Row]) {
    if rows.is_empty() {
        return println!("| {size} | {who} | not run | | |");
    }
    let speeds = sorted(rows.iter().map(|row| row.tokens_per_s));
    let ratios = sorted(ours.iter().zip(rows).map(|(ours, row)| ours.tokens_per_s / row.tokens_per_s));
    let resident = rows.iter().map(|row| row.resident_mb).fold(0.0, f64::max);
    let of = |values: &[f64]| {
        let last = values.len() - 1;
        (values[0], (values[last / 2] + values[last.div_ceil(2)]) / 2.0, values[last])
    };
    let ((lowest, median, highest), (least, middle, most)) = (of(&speeds), of(&ratios));
    println!(
        "| {size} | {who} | {median:.0} ({lowest:.0}, {highest:.0}) | {resident:.0} MB | {least:.2}, {middle:.2}, {most:.2} |"
    );
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The processor's name and count.
fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split(':').nth(1).map(|value| value.trim().to_owned())
    };
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let name = field("model name").unwrap_or_else(|| std::env::consts::ARCH.into());
    let family = field("cpu family").map(|family| format!(" (family {family})")).unwrap_or_default();
    format!("{name}{family}, {count} processors")
}

fn succeed(mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?} cannot be started"))?;
    if !status.success() {
        bail!("{command:?} failed ({status})");
    }
    Ok(())
}
