//! `iota bench step`: how fast one process trains, beside what its processor can do.

use crate::failure::{Failure, Result};
use crate::peak::fma_gflops;
use engine::synthetic::{SIZES, Size, Synthetic, SyntheticError, on_threads};
use std::time::Instant;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Time whole training steps (forward, backward, AdamW) on random tokens
    Step(Arguments),
}

#[derive(clap::Args)]
pub struct Arguments {
    /// Size of the model: S or M
    #[arg(long, default_value = "S")]
    config: String,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Seconds to time, after two steps that are not timed
    #[arg(long, env = "BUDGET", default_value_t = 10.0)]
    seconds: f64,
    /// Print one JSON line
    #[arg(long)]
    json: bool,
}

pub fn run(Command::Step(arguments): Command) -> Result<()> {
    let names = || SIZES.map(|size| size.name).join(" or ");
    let size = Size::named(&arguments.config)
        .ok_or_else(|| Failure::input(format!("--config is {}, expected {}", arguments.config, names())))?;
    if !(1..=1024).contains(&arguments.threads) || !arguments.seconds.is_finite() {
        return Err(Failure::input(format!(
            "--threads is {}, --seconds {}: expected 1 to 1024, and a number",
            arguments.threads, arguments.seconds
        )));
    }
    let row = on_threads(arguments.threads, || measure(&size, &arguments))
        .and_then(|row| row)
        .map_err(|error| Failure::run(error.to_string()))?;
    if arguments.json {
        println!("{row}");
    } else {
        println!(
            "{} on {} threads: {} tokens/s, {} GFLOP/s, {} % of the FMA peak, {} MB, step {} ms {}",
            row["config"],
            row["threads"],
            row["tok_s"],
            row["gflops"],
            row["pct_fma_peak"],
            row["rss_mb"],
            row["step_ms"],
            row["phases_ms"]
        );
    }
    Ok(())
}

/// Timed steps: at least so many, whatever they take, and at most so many.
const STEPS: std::ops::RangeInclusive<usize> = 5..=200;
const WARM_UP: usize = 2;

fn measure(size: &Size, arguments: &Arguments) -> std::result::Result<serde_json::Value, SyntheticError> {
    let mut model = Synthetic::new(size)?;
    let mut peak = fma_gflops();
    let begin = Instant::now();
    let mut loss_first = None;
    for _ in 0..WARM_UP {
        let (loss, _) = step(&mut model)?;
        loss_first.get_or_insert(loss);
    }
    let warm_up = begin.elapsed().as_secs_f64();
    let (mut loss_last, mut phases) = (0.0, [vec![], vec![], vec![]]);
    let (begin, before) = (Instant::now(), Processor::now());
    let mut steps = vec![];
    while steps.len() < *STEPS.end()
        && (steps.len() < *STEPS.start() || begin.elapsed().as_secs_f64() < arguments.seconds)
    {
        let (loss, parts) = step(&mut model)?;
        loss_last = loss;
        steps.push(parts.iter().sum());
        phases.iter_mut().zip(parts).for_each(|(all, part)| all.push(part));
    }
    let (wall, after) = (begin.elapsed().as_secs_f64(), Processor::now());
    peak = peak.max(fma_gflops());

    let (tokens, flops) = (size.tokens() as f64, size.step_flops() as f64);
    let typical = median(&mut steps);
    let (fastest, slowest) = (steps[0], steps[steps.len() - 1]);
    let machine = wall * std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let own = after.own - before.own;
    let [fwd, bwd, opt] = phases.map(|mut phase| round(1e3 * median(&mut phase), 1));
    Ok(serde_json::json!({
        "kind": "train", "peer": "iota", "config": size.name, "mode": "portable", "threads": arguments.threads,
        "steps": steps.len(),
        "tok_s": round(tokens / typical, 1),
        "tok_s_min": round(tokens / slowest, 1),
        "tok_s_max": round(tokens / fastest, 1),
        "gflops": round(flops / typical / 1e9, 1),
        "gflops_best": round(flops / fastest / 1e9, 1),
        "fma_peak_gflops": round(peak, 1),
        "pct_fma_peak": round(100.0 * flops / typical / 1e9 / peak, 1),
        "step_ms": round(1e3 * typical, 1),
        "cpu_s_per_step": round(own / steps.len() as f64, 4),
        "phases_ms": { "fwd": fwd, "bwd": bwd, "opt": opt },
        "warmup_s": round(warm_up, 1),
        "rss_mb": resident_peak_mb(),
        "loss_first": round(loss_first.unwrap_or_default(), 4),
        "loss_last": round(loss_last, 4),
        "other_busy": round(((after.busy - before.busy - own) / machine).max(0.0), 3),
        "steal": round((after.steal - before.steal) / machine, 3),
        "params": model.parameters(),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

/// The loss, and the seconds of forward, backward, update.
fn step(model: &mut Synthetic) -> std::result::Result<(f64, [f64; 3]), SyntheticError> {
    let begin = Instant::now();
    let loss = model.forward()?;
    let forward = begin.elapsed().as_secs_f64();
    model.backward()?;
    let backward = begin.elapsed().as_secs_f64();
    model.update()?;
    let update = begin.elapsed().as_secs_f64();
    Ok((loss, [forward, backward - forward, update - backward]))
}

/// Sorts; the middle one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// Seconds of processor time since the machine started; zeros where the system does not tell.
#[derive(Default)]
struct Processor {
    /// All processes.
    busy: f64,
    /// Taken by the host.
    steal: f64,
    /// This process.
    own: f64,
}

impl Processor {
    fn now() -> Self {
        // Linux reports in hundredths of a second on every architecture.
        const TICKS: f64 = 100.0;
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let numbers = |text: &str| -> Vec<f64> {
            text.split_whitespace().map(|word| word.parse::<f64>().unwrap_or(0.0) / TICKS).collect()
        };
        let machine = numbers(read("/proc/stat").lines().next().unwrap_or_default());
        // The name in parentheses may hold blanks; the fields after it do not.
        let process = numbers(read("/proc/self/stat").rsplit(')').next().unwrap_or_default());
        let (Some(m), Some(p)) = (machine.get(1..9), process.get(11..13)) else { return Self::default() };
        Self { busy: m[0] + m[1] + m[2] + m[5] + m[6], steal: m[7], own: p[0] + p[1] }
    }
}

/// The most memory this process ever held; `null` where the system does not tell.
fn resident_peak_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kb| kb / 1024)
}
