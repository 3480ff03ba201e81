//! `iota train`: one process pretrains a Llama on text, and can stop and go on at any step.

pub mod folder;
pub mod metrics;
mod tensorboard;

use crate::config::{self, Config, Preset};
use crate::failure::{Failure, Result};
use crate::judge::{JUDGED_AT_THE_END, Judgement, judge, sample};
use crate::screen::Screen;
use crate::shards::{Shards, Source};
use crate::{peak, whole};
use engine::cost::StageCost;
use engine::data::{TextTokenizer, TokenShard};
use engine::train::{TrainError, Trainer};
use engine::{Device, WorkError};
use folder::TrainFolder;
use kernels::SimdPath;
use metrics::Metrics;
use spec::{Outer, Run};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A checkpoint is written when the last is older than this.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);
/// Time spent to find out how long a step takes.
const PROBE: Duration = Duration::from_secs(2);
/// Windows of the validation shard that are judged at every checkpoint.
const JUDGED_WINDOWS: u64 = 32;

#[derive(clap::Args)]
pub struct Arguments {
    /// TOML with any keys of run.toml; what it leaves out takes the default
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    config: Option<PathBuf>,
    /// What stands for the default; --config stands over it
    #[arg(long, value_enum, default_value_t, conflicts_with = "resume")]
    preset: Preset,
    /// Go on with a run from its newest checkpoint
    #[arg(long, value_name = "RUNFOLDER", conflicts_with_all = ["text", "data", "tokenizer"])]
    resume: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
    /// Cut the model into this many stages
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    stages: Option<u32>,
    /// Train this many replicas of every stage, each on its own microbatches, merged after every epoch
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    replicas: Option<u16>,
    #[command(flatten)]
    staleness: config::Staleness,
    /// Steps of each replica between two merges; the run has as many epochs as that gives
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    steps_per_merge: Option<u32>,
    /// Rate of the outer step, which a merge ends with [default: 1]
    #[arg(long, value_name = "RATE", conflicts_with = "resume", allow_negative_numbers = true)]
    outer_lr: Option<f32>,
    /// Nesterov momentum of the outer step [default: 0.5]
    #[arg(long, value_name = "SHARE", conflicts_with = "resume", allow_negative_numbers = true)]
    outer_momentum: Option<f32>,
    /// Length of the run in steps of each replica [default: 400]
    #[arg(long, value_name = "N", conflicts_with_all = ["resume", "minutes"])]
    steps: Option<u32>,
    /// Length of the run in minutes on this machine, instead of in steps
    #[arg(long, value_name = "M", conflicts_with = "resume", allow_negative_numbers = true)]
    minutes: Option<f64>,
    /// Seed of initial weights and sample order
    #[arg(long, conflicts_with = "resume")]
    seed: Option<u64>,
    /// Stop with a checkpoint once the run stands at this step
    #[arg(long, value_name = "STEP")]
    stop_at: Option<u64>,
    /// Threads to compute on [default: all cores]; shows in no bit of the result
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Compute with portable, avx2 or avx512 instructions [default: the CPU's best]; shows in no bit either
    #[arg(long, value_name = "PATH", value_parser = crate::model::parse_simd)]
    simd: Option<SimdPath>,
    #[command(flatten)]
    device: crate::device::Arguments,
    /// Folder in which the run's folder is made
    #[arg(long, value_name = "FOLDER", default_value = "runs")]
    runs: PathBuf,
}

pub fn run(arguments: Arguments) -> Result<()> {
    crate::model::use_threads(arguments.threads)?;
    engine::workers::compute_here().map_err(|e| Failure::run(e.to_string()))?;
    let device = arguments.device.open()?;
    if let Some(path) = arguments.simd {
        path.limit();
    }
    let interrupted = watch_interrupt()?;
    let (folder, mut trainer) = match &arguments.resume {
        Some(root) => resume(root, &device)?,
        None => begin(&arguments, &device)?,
    };
    let run = folder.run().clone();
    eprintln!(
        "run {} in {}: Llama of {} parameters in {} stages of {} replicas, {} steps of {} tokens in {} epochs on {} threads",
        run.id().short(),
        folder.root().display(),
        run.model.parameters(),
        run.model.stage_count(),
        run.miners_per_stage,
        run.total_steps(),
        run.microbatch_tokens() * u64::from(run.inner.members) * u64::from(run.miners_per_stage),
        run.epoch.count,
        rayon::current_num_threads(),
    );
    let held_out = HeldOut { shard: folder.shard(run.data.validation)?, tokenizer: folder.tokenizer()? };
    let mut metrics = Metrics::open(&folder, trainer.progress().steps(&run))?;
    let stop_at = arguments.stop_at.unwrap_or(u64::MAX);
    let stopped = go(&folder, &mut trainer, &mut metrics, &held_out, stop_at, &interrupted)?;
    let end = folder.save(&trainer.checkpoint().map_err(|e| failed(&e))?)?;
    metrics.draw(&folder)?;
    println!("checkpoint  {}", end.display());
    if stopped {
        let how = format!("iota train --resume {}", folder.root().display());
        let steps = trainer.progress().steps(&run);
        if interrupted.load(Ordering::Relaxed) {
            return Err(Failure::stopped(format!("interrupted after step {steps}; go on with: {how}")));
        }
        println!("stopped after step {steps}; go on with: {how}");
        return Ok(());
    }
    conclude(&folder, &trainer, &mut metrics, &held_out)
}

/// The text that a run is judged by.
struct HeldOut {
    shard: TokenShard,
    tokenizer: TextTokenizer,
}

/// Makes a new run's folder and its trainer; nothing is written before everything is known to be usable.
fn begin(arguments: &Arguments, device: &Device) -> Result<(TrainFolder, Trainer)> {
    let config = Config::read(arguments.preset, arguments.config.as_deref(), config::one_process)?;
    let shards = arguments.source.shards(config.tokenizer()?.unwrap_or(config::TOKENIZER))?;
    let mut run = config.run(shards.data(config.sequences()?))?;
    if let Some(stages) = arguments.stages {
        run.model.stages = config::cut(run.model.blocks(), stages)?;
    }
    if let Some(seed) = arguments.seed {
        run.seed = seed;
    }
    if let Some(replicas) = arguments.replicas {
        run.miners_per_stage = replicas;
    }
    set_outer(&mut run, arguments);
    arguments.staleness.apply(&mut run);
    config.check(&run)?;
    if let Some(steps) = steps_of(arguments, &config, &run, &shards, device)? {
        set_length(&mut run, &config, steps, arguments.steps_per_merge)?;
    }
    config.check(&run)?;
    let trainer = trainer(&run, &shards, device)?;
    let part = &shards.prepared.train;
    eprintln!(
        "{} tokens ({} documents, {} bytes) of {}",
        part.tokens, part.documents, part.bytes, shards.source
    );
    Ok((TrainFolder::create(&arguments.runs, run, &shards)?, trainer))
}

/// The run's length in steps, unless the configuration says it.
fn steps_of(
    arguments: &Arguments,
    config: &Config,
    run: &Run,
    shards: &Shards,
    device: &Device,
) -> Result<Option<u32>> {
    if let Some(steps) = arguments.steps {
        return Ok(Some(steps));
    }
    let Some(minutes) = arguments.minutes else {
        // The default's, or the file's.
        let chosen = config.sets("epoch", "steps") && arguments.steps_per_merge.is_none();
        return Ok((!chosen).then(|| run.epoch.steps * run.epoch.count));
    };
    if !(minutes.is_finite() && minutes > 0.0) {
        return Err(Failure::input(format!("--minutes is {minutes}, expected a positive number")));
    }
    let mut probe = trainer(run, shards, device)?;
    // The first step also touches all memory for the first time.
    probe.step().map_err(|e| failed(&e))?;
    let (begin, mut steps) = (Instant::now(), 0);
    while begin.elapsed() < PROBE && probe.step().map_err(|e| failed(&e))?.is_some() {
        steps += 1;
    }
    let seconds_per_step = begin.elapsed().as_secs_f64() / f64::from(steps.max(1));
    let steps = (minutes * 60.0 / seconds_per_step).clamp(1.0, 1e9) as u32;
    // Whole epochs.
    let epoch = arguments.steps_per_merge.unwrap_or(1).max(1);
    Ok(Some((steps / epoch).max(1) * epoch))
}

fn trainer(run: &Run, shards: &Shards, device: &Device) -> Result<Trainer> {
    Trainer::new(run, shards.train()?).and_then(|trainer| trainer.to_device(device)).map_err(|e| failed(&e))
}

/// The outer step as the options say it, over what the configuration says.
fn set_outer(run: &mut Run, arguments: &Arguments) {
    let options = [arguments.outer_lr, arguments.outer_momentum];
    if run.outer == Outer::None && (run.miners_per_stage > 1 || options.iter().any(Option::is_some)) {
        run.outer = config::OUTER;
    }
    if let Outer::Nesterov { lr, momentum, .. } = &mut run.outer {
        *lr = arguments.outer_lr.unwrap_or(*lr);
        *momentum = arguments.outer_momentum.unwrap_or(*momentum);
    }
}

/// `steps` inner steps of each replica, in epochs of `steps_per_merge`, else in as many epochs as before.
fn set_length(run: &mut Run, config: &Config, steps: u32, steps_per_merge: Option<u32>) -> Result<()> {
    let (count, named, divisor) = match steps_per_merge {
        Some(epoch) => (steps.checked_div(epoch).unwrap_or(0), "--steps-per-merge", epoch),
        None => (run.epoch.count, "epoch.count", run.epoch.count),
    };
    if steps == 0 || divisor == 0 || !steps.is_multiple_of(divisor) {
        return Err(Failure::input(format!(
            "--steps is {steps}, expected a positive multiple of {named}, which is {divisor}"
        )));
    }
    run.epoch.count = count;
    run.epoch.steps = steps / count;
    config::fit_length(run, config);
    Ok(())
}

fn resume(root: &std::path::Path, device: &Device) -> Result<(TrainFolder, Trainer)> {
    let folder = TrainFolder::open(root)?;
    let shard = folder.shard(folder.run().data.train)?;
    let (path, checkpoint) = folder.load(None)?;
    let trainer = Trainer::resume(folder.run(), shard, &checkpoint)
        .and_then(|trainer| trainer.to_device(device))
        .map_err(|e| Failure::input(format!("{}: {e}", path.display())))?;
    eprintln!("resuming from {}", path.display());
    Ok((folder, trainer))
}

/// Steps until the run is complete, or told to stop (true).
fn go(
    folder: &TrainFolder,
    trainer: &mut Trainer,
    metrics: &mut Metrics,
    held_out: &HeldOut,
    stop_at: u64,
    interrupted: &AtomicBool,
) -> Result<bool> {
    let run = folder.run();
    let total = run.total_steps();
    let first = trainer.progress().steps(run);
    let flops_per_step = flops_per_step(run);
    let peak = 1e9 * peak::fma_gflops();
    let mut screen = Screen::new(total);
    let (began, mut saved, mut tokens) = (Instant::now(), Instant::now(), 0);
    let stopped = loop {
        let done = trainer.progress().steps(run);
        if trainer.is_complete() {
            break false;
        }
        if interrupted.load(Ordering::Relaxed) || done >= stop_at {
            break true;
        }
        if saved.elapsed() >= CHECKPOINT_EVERY {
            note(trainer, metrics, held_out, JUDGED_WINDOWS)?;
            folder.save(&trainer.checkpoint().map_err(|e| failed(&e))?)?;
            metrics.draw(folder)?;
            saved = Instant::now();
        }
        let Some(report) = trainer.step().map_err(|e| failed(&e))? else { break false };
        tokens += report.tokens;
        let seconds = began.elapsed().as_secs_f64();
        let rate = tokens as f64 / seconds;
        let steps = report.steps_done - first;
        let share = flops_per_step * steps as f64 / seconds / peak;
        metrics.step(&report, rate, share)?;
        let left = seconds / steps as f64 * (total - report.steps_done) as f64;
        screen.show(report.steps_done, || {
            vec![format!(
                "loss {:.3} nats, {rate:.0} tokens/s, {:.0} % of the FMA peak, {left:.0} s left",
                recent(&metrics.losses),
                100.0 * share,
            )]
        });
    };
    screen.end();
    Ok(stopped)
}

/// Mean of the last few losses.
fn recent(losses: &[(u64, f64)]) -> f64 {
    let tail = &losses[losses.len().saturating_sub(10)..];
    tail.iter().map(|(_, nats)| nats).sum::<f64>() / tail.len().max(1) as f64
}

fn flops_per_step(run: &Run) -> f64 {
    let microbatch: u64 = (0..run.model.stage_count())
        .filter_map(|stage| StageCost::of(run, stage))
        .map(|cost| cost.forward_flops + cost.backward_flops)
        .sum();
    microbatch as f64 * f64::from(run.inner.members) * f64::from(run.miners_per_stage)
}

/// Judges the model by held-out text, and writes it down.
fn note(trainer: &Trainer, metrics: &mut Metrics, held_out: &HeldOut, windows: u64) -> Result<Judgement> {
    let judged = judge(&trainer.stages(), &held_out.tokenizer, &held_out.shard, windows)
        .map_err(|e| Failure::input(format!("validation shard: {e}")))?;
    metrics.held_out(trainer.progress().steps(trainer.run()), &judged)?;
    Ok(judged)
}

/// The last words: loss, files, a sample.
fn conclude(
    folder: &TrainFolder,
    trainer: &Trainer,
    metrics: &mut Metrics,
    held_out: &HeldOut,
) -> Result<()> {
    let judged = note(trainer, metrics, held_out, JUDGED_AT_THE_END)?;
    metrics.draw(folder)?;
    let sample = sample(&trainer.stages(), &held_out.tokenizer, folder.run().seed)?;
    whole::replace(&folder.path("sample.txt"), sample.as_bytes())?;
    println!(
        "loss        {:.3} nats per token in training, {:.3} held out",
        recent(&metrics.losses),
        judged.nats_per_token
    );
    println!(
        "held out    {:.3} bits per byte ({} tokens, {} bytes)",
        judged.bits_per_byte, judged.tokens, judged.bytes
    );
    for (stage, state) in trainer.stages().iter().enumerate() {
        println!("weights {stage}   {}", state.weights_digest().map_err(|e| Failure::run(e.to_string()))?);
    }
    println!("folder      {}", folder.root().display());
    println!("sample      {}", sample.replace('\n', "\n            "));
    Ok(())
}

/// True once Ctrl-C was pressed; pressed again, it ends the process at once.
fn watch_interrupt() -> Result<Arc<AtomicBool>> {
    let pressed = Arc::new(AtomicBool::new(false));
    let flag = pressed.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::run(format!("signals cannot be watched: {e}")))?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                flag.store(true, Ordering::Relaxed);
                eprintln!("stopping after this step; once more stops at once");
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        });
    });
    Ok(pressed)
}

fn failed(error: &TrainError) -> Failure {
    match error {
        TrainError::Work(WorkError::Device(_)) => Failure::run(error.to_string()),
        _ => Failure::input(error.to_string()),
    }
}
