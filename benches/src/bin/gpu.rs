//! `cargo xtask gpu`: a CUDA device judged and timed, as a table in markdown.
//!
//! First the conformance set: a device that differs in a bit is not timed. Then every op at shapes of a 1.5B model, under criterion, by
//! events of the device's own; the share is that of the peak that the device's clocks allow, of arithmetic or of memory,
//! whichever the op would reach first. Then the stages of a 1.5B model: what they take of a card of 16 GB, and how fast they
//! train on this one.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use engine::Device;
use engine::memory::StageMemory;
use engine::model::Stage;
use engine::synthetic::{Size, SyntheticError, SyntheticStage};

use kernels::catalogue::{Case, Cost, Op, find};
use kernels::device::trials::{self, Trial};
use kernels::device::{CudaDevice, DeviceError, Peaks};
use spec::Outer;

/// Steps of a stage that are timed.
const STEPS: u32 = 3;

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
    let deviations = trials::deviations(&device).map_err(|why| format!("no device is measured: {why}"))?;
    if !deviations.is_empty() {
        let names: Vec<String> = deviations.iter().map(|deviation| format!("{deviation:?}")).collect();
        println!("conformance: the device DIFFERS in {}", names.join(", "));
        return Ok(false);
    }
    let left: Vec<&str> = trials::only_on_cpu().collect();
    println!(
        "conformance: all {} ops as committed, to the bit; {} is the CPU's, and only read here\n",
        trials::TRIALS.len(),
        left.join(", ")
    );
    // Times of an emulated device mean nothing, so few are taken.
    let (warm_up_ms, measured_ms) = if emulated { (1, 1) } else { (100, 500) };
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(warm_up_ms))
        .measurement_time(Duration::from_millis(measured_ms))
        .without_plots();
    let mut rows = vec![];
    for (name, case) in cases(emulated) {
        let (Some(op), Some(trial)) = (find(name), trials::find(name)) else {
            return Err(format!("no device is measured: there is no op `{name}`"));
        };
        let rounds_ms = time(&mut criterion, &device, (op, trial), &case).map_err(said)?;
        rows.push(row(name, &case, op.cost(&case), rounds_ms, &peaks));
    }
    println!("\n| op | shape | ms, median | lowest | highest | | of the peak |");
    println!("|---|---|---|---|---|---|---|");
    println!("{}", rows.join("\n"));
    stages(&device, &peaks, emulated).map_err(|error| format!("no stage is measured: {error}"))?;
    Ok(true)
}

/// 1.52 billion parameters, 4096 tokens a microbatch.
const LARGE: Size =
    Size { name: "1.5B", dim: 2048, blocks: 27, heads: 16, ffn: 5632, vocab: 32_000, seq: 2048, batch: 2 };
/// The same in miniature, to try the command.
const MINIATURE: Size =
    Size { name: "miniature", dim: 64, blocks: 3, heads: 4, ffn: 176, vocab: 256, seq: 64, batch: 2 };
/// Microbatches of a step.
const MEMBERS: u16 = 4;
/// The card that a third of the model is to fit.
const SMALL_CARD_BYTES: u64 = 16_000_000_000;

/// What thirds of a model take of a small card, and their speed on this one.
fn stages(device: &CudaDevice, peaks: &Peaks, emulated: bool) -> Result<(), SyntheticError> {
    // What is imagined costs nothing, so it is the full size also where a miniature is timed.
    let size = if emulated { MINIATURE } else { LARGE };
    let cut = [size.blocks / 3; 3];
    let mut run = SyntheticStage::run(&LARGE, &[LARGE.blocks / 3; 3], MEMBERS)?;
    // Replicas merge: what that keeps is the host's.
    run.outer = Outer::Nesterov { lr: 0.7, momentum: 0.5, bits: 8 };
    let gb = |bytes: u64| bytes as f64 / 1e9;
    println!(
        "\n| third of {} | parameters | of a card of 16 GB, driver included | of its host | tokens/s here{} | MFU |",
        LARGE.name,
        if emulated { ", of a miniature" } else { "" }
    );
    println!("|---|---|---|---|---|---|");
    for (index, name) in ["head", "body", "tail"].into_iter().enumerate() {
        let Some(stage) = Stage::new(&run.model, index) else { continue };
        let fits = match StageMemory::fitting(&run, &stage, &CudaDevice::imagined(SMALL_CARD_BYTES)) {
            Ok(memory) => format!(
                "{:.2} GB; {} | {:.2} GB",
                gb(memory.card_bytes()),
                memory.keeping,
                gb(memory.host_bytes)
            ),
            Err(error) => format!("{error} |"),
        };
        let speed = match timed(&size, &cut, index, device, peaks) {
            Ok((tokens, mfu)) => format!("{tokens:.0} | {:.1} %", 100.0 * mfu),
            // A smaller card than the stage needs is an answer too.
            Err(SyntheticError::Work(error)) => format!("{error} | |"),
            Err(error) => return Err(error),
        };
        println!("| {name} | {} | {fits} | {speed} |", stage.layout().values());
    }
    println!(
        "\nMFU: FLOPs of forward and backward, what is computed again not counted, over the f32 peak above. Of the host: the weights\n\
         of the last merge, the residual and the outer momentum."
    );
    Ok(())
}

/// Tokens a second of a stage, and the share of the peak that its model's FLOPs are.
fn timed(
    size: &Size,
    cut: &[u32],
    index: usize,
    device: &CudaDevice,
    peaks: &Peaks,
) -> Result<(f64, f64), SyntheticError> {
    let mut stage = SyntheticStage::new(size, cut, MEMBERS, index, &Device::Cuda(device.clone()))?;
    // Kernels are loaded and memory is reserved in the first two.
    for _ in 0..2 {
        stage.step()?;
    }
    let began = Instant::now();
    for _ in 0..STEPS {
        stage.step()?;
    }
    let seconds = began.elapsed().as_secs_f64() / f64::from(STEPS);
    let (tokens, flops) = (stage.step_tokens() as f64, stage.step_flops() as f64);
    Ok((tokens / seconds, flops / seconds / peaks.flops_per_s))
}

/// Milliseconds of launches of an op, under criterion, which prints its own summary and compares with the last time.
fn time(
    criterion: &mut Criterion,
    device: &CudaDevice,
    (op, trial): (&dyn Op, &Trial),
    case: &Case,
) -> Result<Vec<f64>, DeviceError> {
    let mut launch = trial.prepare(device, op, case)?;
    let (mut rounds_ms, mut failed) = (vec![], None);
    let mut group = criterion.benchmark_group(format!("gpu {}", op.name()));
    group.bench_function(BenchmarkId::from_parameter(shape(case)), |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total_ms = 0.0;
            for _ in 0..iterations {
                match launch.time_ms() {
                    Ok(ms) => {
                        total_ms += ms;
                        rounds_ms.push(ms);
                    }
                    Err(error) => failed = Some(error),
                }
            }
            // Nothing would make criterion ask again and again.
            Duration::from_secs_f64(total_ms / 1e3).max(Duration::from_nanos(1))
        });
    });
    group.finish();
    failed.map_or(Ok(rounds_ms), Err)
}

fn shape(case: &Case) -> String {
    let sizes: Vec<String> = case.dims.iter().map(|(name, size)| format!("{name} {size}")).collect();
    sizes.join(", ")
}

/// A row of the table, of at least one round.
fn row(name: &str, case: &Case, cost: Cost, mut rounds_ms: Vec<f64>, peaks: &Peaks) -> String {
    rounds_ms.sort_by(f64::total_cmp);
    let (lowest, median, highest) =
        (rounds_ms[0], rounds_ms[rounds_ms.len() / 2], rounds_ms[rounds_ms.len() - 1]);
    let seconds = median / 1e3;
    let (flops, bytes) = (cost.flops as f64, cost.bytes as f64);
    let (rate, share) = if flops / peaks.flops_per_s > bytes / peaks.bytes_per_s {
        (format!("{:.2} TFLOP/s", flops / seconds / 1e12), flops / seconds / peaks.flops_per_s)
    } else {
        (format!("{:.1} GB/s", bytes / seconds / 1e9), bytes / seconds / peaks.bytes_per_s)
    };
    format!(
        "| {name} | {} | {median:.3} | {lowest:.3} | {highest:.3} | {rate} | {:.1} % |",
        shape(case),
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
    let random = vec![("first", 0), ("count", parameters)];
    let activations = vec![("count", tokens * dim), ("bits", 8)];
    let merged = vec![("count", parameters), ("bits", 8)];
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
        ("rope.forward", rope.clone()),
        ("rope.backward", rope),
        ("swiglu.forward", rows(tokens * ffn)),
        ("swiglu.backward", rows(tokens * ffn)),
        ("residual.add", rows(tokens * dim)),
        ("residual.accumulate", rows(tokens * dim)),
        ("cross_entropy.forward", vec![("rows", tokens), ("vocab", vocab)]),
        ("cross_entropy.mean_q32", vec![("count", tokens)]),
        ("embedding.forward", vec![("rows", tokens), ("dim", dim), ("vocab", vocab)]),
        ("embedding.backward", vec![("rows", tokens), ("dim", dim), ("vocab", vocab)]),
        ("adamw.step", vec![("rows", parameters), ("step", 3)]),
        ("reduce.sum_squares", vec![("count", parameters)]),
        ("reduce.scale", rows(parameters)),
        ("reduce.first_beyond", vec![("count", parameters), ("bound", 0)]),
        ("philox.uniform", random.clone()),
        ("philox.normal", random),
        ("codec.bf16", activations.clone()),
        ("codec.int8", activations.clone()),
        ("codec.decode_int8", activations),
        ("merge.exponents", merged.clone()),
        ("merge.contribute", merged.clone()),
        ("merge.accumulate", merged.clone()),
        ("merge.nesterov", merged.clone()),
        ("merge.none", merged),
    ]
    .map(|(name, dims)| (name, Case::new("gpu", &dims)))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_op_with_kernels_is_timed_at_a_shape_of_its_own() {
        for small in [false, true] {
            let cases = cases(small);
            for trial in trials::TRIALS {
                assert!(cases.iter().any(|(name, _)| *name == trial.op), "{} is not timed", trial.op);
            }
            for (name, case) in cases {
                let op = find(name).filter(|_| trials::find(name).is_some());
                // An op panics if it is given other dimensions than its own.
                assert!(op.is_some_and(|op| op.cost(&case).bytes > 0), "{name}");
            }
        }
    }
}
