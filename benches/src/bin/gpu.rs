//! `cargo xtask gpu`: a CUDA device judged and timed, as a table in markdown.
//!
//! First the conformance set: a device that differs in a bit is not timed. Then every op at shapes of a 1.5B model, by
//! events of the device's own; the share is that of the peak that the device's clocks allow, of arithmetic or of memory,
//! whichever the op would reach first.

use std::process::ExitCode;

use kernels::catalogue::{Case, conformance, find};
use kernels::device::{CudaDevice, DeviceError, Peaks, trials};

/// Launches that are timed.
const ROUNDS: usize = 20;

fn main() -> ExitCode {
    let may_be_emulated = std::env::args().any(|argument| argument == "--emulated");
    match run(may_be_emulated) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

/// Whether the device conforms; an error is why there is nothing to judge.
fn run(may_be_emulated: bool) -> Result<bool, String> {
    let said = |error: DeviceError| format!("no device is measured: {error}");
    let device = CudaDevice::open(0).map_err(said)?;
    let report = device.report().map_err(said)?;
    let emulated = report.name.contains("emulated");
    if emulated && !may_be_emulated {
        return Err(format!(
            "no device is measured: the only one is `{}`, whose times mean nothing; give --emulated to try the command",
            report.name
        ));
    }
    let peaks = device.peaks().map_err(said)?;
    let label = if emulated { " (emulated: times and shares mean nothing)" } else { "" };
    println!("{}{label}, compute capability {}.{}", report.name, report.capability.0, report.capability.1);
    println!(
        "driver for CUDA {}.{}, {} multiprocessors, {:.1} GiB, at most {:.1} TFLOP/s in f32 and {:.0} GB/s\n",
        report.driver.0,
        report.driver.1,
        report.multiprocessors,
        report.memory_bytes as f64 / (1u64 << 30) as f64,
        peaks.flops_per_s / 1e12,
        peaks.bytes_per_s / 1e9
    );
    let deviations = judge(&device)?;
    if !deviations.is_empty() {
        println!("conformance: the device DIFFERS in {}", deviations.join(", "));
        return Ok(false);
    }
    println!("conformance: all {} ops as committed, to the bit\n", trials::TRIALS.len());
    println!("| op | shape | ms, median | lowest | highest | | of the peak |");
    println!("|---|---|---|---|---|---|---|");
    for (name, case) in cases(emulated) {
        let (Some(op), Some(trial)) = (find(name), trials::find(name)) else {
            return Err(format!("no device is measured: there is no op `{name}`"));
        };
        let rounds = if emulated { 3 } else { ROUNDS };
        let timing = trial.time(&device, op, &case, rounds).map_err(said)?;
        println!("{}", row(name, &case, &timing, &peaks));
    }
    Ok(true)
}

/// The ops that differ from the committed hashes.
fn judge(device: &CudaDevice) -> Result<Vec<String>, String> {
    let mut hashes = vec![];
    for trial in trials::TRIALS {
        let Some(op) = find(trial.op) else { continue };
        let failed = std::cell::RefCell::new(None);
        let hash = conformance::hash(op, |case, inputs, outputs| {
            match trial.run(device, 0, 0, case, inputs, outputs) {
                Ok(found) => *outputs = found,
                Err(why) => drop(failed.replace(Some(why))),
            }
        });
        if let Some(why) = failed.into_inner() {
            return Err(format!("no device is measured: {}: {why}", trial.op));
        }
        hashes.push((trial.op, hash));
    }
    Ok(conformance::deviations(&hashes).into_iter().map(|deviation| format!("{deviation:?}")).collect())
}

fn row(name: &str, case: &Case, timing: &trials::Timing, peaks: &Peaks) -> String {
    let mut sorted = timing.rounds_ms.clone();
    sorted.sort_by(f64::total_cmp);
    let (lowest, median, highest) = (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
    let seconds = median / 1e3;
    let (flops, bytes) = (timing.cost.flops as f64, timing.cost.bytes as f64);
    let (rate, share) = if flops / peaks.flops_per_s > bytes / peaks.bytes_per_s {
        (format!("{:.2} TFLOP/s", flops / seconds / 1e12), flops / seconds / peaks.flops_per_s)
    } else {
        (format!("{:.1} GB/s", bytes / seconds / 1e9), bytes / seconds / peaks.bytes_per_s)
    };
    let shape: Vec<String> = case.dims.iter().map(|(name, size)| format!("{name} {size}")).collect();
    format!(
        "| {name} | {} | {median:.3} | {lowest:.3} | {highest:.3} | {rate} | {:.1} % |",
        shape.join(", "),
        100.0 * share
    )
}

/// Shapes of a model of 1.5B parameters: 2048 wide, 16 heads, 4096 tokens; a sixteenth of it where nothing is to be learnt
/// from times.
fn cases(small: bool) -> Vec<(&'static str, Case)> {
    let cut = if small { 16 } else { 1 };
    let (tokens, dim, ffn, vocab) = (4096 / cut, 2048 / cut, 5504 / cut, 32_768 / cut);
    let heads =
        [("batch", 2), ("seq", tokens / 2), ("heads", 16 / cut.min(8)), ("kv_heads", 16 / cut.min(8))];
    let attention = [&heads[..], &[("head_dim", 128)]].concat();
    let rope = [&heads[..3], &[("head_dim", 128)]].concat();
    let rows = |rows| vec![("rows", rows)];
    let product = |n, k| vec![("rows", tokens), ("n", n), ("k", k)];
    let norm = vec![("rows", tokens), ("dim", dim)];
    let parameters = dim * ffn;
    [
        ("matmul.nt", product(dim, dim)),
        ("matmul.nt", product(ffn, dim)),
        ("matmul.nt", product(dim, ffn)),
        ("matmul.nn", product(dim, ffn)),
        ("matmul.tn", vec![("rows", ffn), ("n", dim), ("k", tokens)]),
        ("attention.forward", attention.clone()),
        ("attention.backward", attention),
        ("rms_norm.forward", norm.clone()),
        ("rms_norm.backward", norm),
        ("rope.forward", rope),
        ("swiglu.forward", rows(tokens * ffn)),
        ("swiglu.backward", rows(tokens * ffn)),
        ("residual.add", rows(tokens * dim)),
        ("cross_entropy.forward", vec![("rows", tokens), ("vocab", vocab)]),
        ("embedding.forward", vec![("rows", tokens), ("dim", dim), ("vocab", vocab)]),
        ("embedding.backward", vec![("rows", tokens), ("dim", dim), ("vocab", vocab)]),
        ("adamw.step", vec![("rows", parameters), ("step", 3)]),
        ("reduce.sum_squares", vec![("count", parameters)]),
    ]
    .map(|(name, dims)| (name, Case::new("gpu", &dims)))
    .into()
}
