//! `iota train`: one process pretrains a Llama on text, and can stop and go on at any step.

mod config;
pub mod folder;
pub mod metrics;
mod plot;
mod tensorboard;

use crate::failure::{Failure, Result};
use crate::screen::Screen;
use crate::shards::{self, Shards};
use config::Config;
use engine::cost::StageCost;
use engine::data::TokenShard;
use engine::generate::{Sampling, generate};
use engine::train::{TrainError, Trainer};
use folder::TrainFolder;
use kernels::SimdPath;
use metrics::{Metrics, nats};
use spec::Run;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a run takes that is told nothing else.
const MINUTES_DEFAULT: f64 = 2.0;
/// A checkpoint is written when the last is older than this.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);
/// Time spent to find out how long a step takes.
const PROBE: Duration = Duration::from_secs(2);
/// Windows of the validation shard that are judged at every checkpoint.
const JUDGED_WINDOWS: u64 = 32;
/// Tokens of the sample at the end.
const SAMPLE_TOKENS: usize = 200;

#[derive(clap::Args)]
pub struct Arguments {
    /// TOML with any keys of run.toml; what it leaves out takes the default
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    config: Option<PathBuf>,
    /// Go on with a run from its newest checkpoint
    #[arg(long, value_name = "RUNFOLDER")]
    resume: Option<PathBuf>,
    /// Train on these UTF-8 text files instead of the default corpus
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "resume")]
    text: Vec<PathBuf>,
    /// Cut the model into this many stages
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    stages: Option<u32>,
    /// Length of the run in steps
    #[arg(long, value_name = "N", conflicts_with_all = ["resume", "minutes"])]
    steps: Option<u32>,
    /// Length of the run in minutes on this machine [default: 2]
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
    /// Folder in which the run's folder is made
    #[arg(long, value_name = "FOLDER", default_value = "runs")]
    runs: PathBuf,
}

pub fn run(arguments: Arguments) -> Result<()> {
    crate::model::use_threads(arguments.threads)?;
    if let Some(path) = arguments.simd {
        path.limit();
    }
    let interrupted = watch_interrupt()?;
    let (folder, mut trainer) = match &arguments.resume {
        Some(root) => resume(root)?,
        None => begin(&arguments)?,
    };
    let run = folder.run().clone();
    eprintln!(
        "run {} in {}: Llama of {} parameters in {} stages, {} steps of {} tokens on {} threads",
        run.id().short(),
        folder.root().display(),
        run.model.parameters(),
        run.model.stage_count(),
        run.total_steps(),
        run.microbatch_tokens() * u64::from(run.inner.members),
        rayon::current_num_threads(),
    );
    let validation = folder.shard(run.data.validation)?;
    let mut metrics = Metrics::open(&folder, trainer.progress().steps(&run))?;
    let stop_at = arguments.stop_at.unwrap_or(u64::MAX);
    let stopped = go(&folder, &mut trainer, &mut metrics, &validation, stop_at, &interrupted)?;
    let end = folder.save(&trainer.checkpoint())?;
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
    conclude(&folder, &trainer, &mut metrics, &validation)
}

/// Makes a new run's folder and its trainer; nothing is written before everything is known to be usable.
fn begin(arguments: &Arguments) -> Result<(TrainFolder, Trainer)> {
    let config = Config::read(arguments.config.as_deref())?;
    let shards = shards::prepare(&arguments.text)?;
    let mut run = config.run(shards.data(config.sequences()?))?;
    if let Some(stages) = arguments.stages {
        run.model.stages = config::cut(run.model.blocks(), stages)?;
    }
    if let Some(seed) = arguments.seed {
        run.seed = seed;
    }
    let wrong = |e: &dyn std::fmt::Display| Failure::input(e.to_string());
    run.check().map_err(|e| wrong(&e))?;
    if let Some(steps) = steps_of(arguments, &config, &run, &shards)? {
        set_length(&mut run, &config, steps)?;
    }
    run.check().map_err(|e| wrong(&e))?;
    let shard = TokenShard::from_bytes(shards.train.clone()).map_err(|e| wrong(&e))?;
    let trainer = Trainer::new(&run, shard).map_err(|e| failed(&e))?;
    eprintln!("{} tokens of {}", run.data.train_tokens, shards.source);
    Ok((TrainFolder::create(&arguments.runs, run, &shards)?, trainer))
}

/// The run's length in steps, unless the configuration says it.
fn steps_of(arguments: &Arguments, config: &Config, run: &Run, shards: &Shards) -> Result<Option<u32>> {
    if let Some(steps) = arguments.steps {
        return Ok(Some(steps));
    }
    if arguments.minutes.is_none() && config.sets("epoch", "steps") {
        return Ok(None);
    }
    let minutes = arguments.minutes.unwrap_or(MINUTES_DEFAULT);
    if !(minutes.is_finite() && minutes > 0.0) {
        return Err(Failure::input(format!("--minutes is {minutes}, expected a positive number")));
    }
    let shard = TokenShard::from_bytes(shards.train.clone()).map_err(|e| Failure::input(e.to_string()))?;
    let mut probe = Trainer::new(run, shard).map_err(|e| failed(&e))?;
    // The first step also touches all memory for the first time.
    probe.step().map_err(|e| failed(&e))?;
    let (begin, mut steps) = (Instant::now(), 0);
    while begin.elapsed() < PROBE && probe.step().map_err(|e| failed(&e))?.is_some() {
        steps += 1;
    }
    let seconds_per_step = begin.elapsed().as_secs_f64() / f64::from(steps.max(1));
    Ok(Some((minutes * 60.0 / seconds_per_step).clamp(1.0, 1e9) as u32))
}

fn set_length(run: &mut Run, config: &Config, steps: u32) -> Result<()> {
    let count = run.epoch.count;
    if steps == 0 || !steps.is_multiple_of(count) {
        return Err(Failure::input(format!(
            "--steps is {steps}, expected a positive multiple of epoch.count, which is {count}"
        )));
    }
    run.epoch.steps = steps / count;
    if !config.sets("inner", "warmup_steps") {
        run.inner.warmup_steps = (steps / 20).clamp(1, 100);
    }
    if !config.sets("epoch", "digest_every") {
        run.epoch.digest_every = (run.epoch.steps / 6).max(1);
    }
    Ok(())
}

fn resume(root: &std::path::Path) -> Result<(TrainFolder, Trainer)> {
    let folder = TrainFolder::open(root)?;
    let shard = folder.shard(folder.run().data.train)?;
    let (path, checkpoint) = folder.load(None)?;
    let trainer = Trainer::resume(folder.run(), shard, &checkpoint)
        .map_err(|e| Failure::input(format!("{}: {e}", path.display())))?;
    eprintln!("resuming from {}", path.display());
    Ok((folder, trainer))
}

/// Steps until the run is complete, or told to stop (true).
fn go(
    folder: &TrainFolder,
    trainer: &mut Trainer,
    metrics: &mut Metrics,
    validation: &TokenShard,
    stop_at: u64,
    interrupted: &AtomicBool,
) -> Result<bool> {
    let run = folder.run();
    let total = run.total_steps();
    let first = trainer.progress().steps(run);
    let flops_per_step = flops_per_step(run);
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
            judge(trainer, metrics, validation)?;
            folder.save(&trainer.checkpoint())?;
            metrics.draw(folder)?;
            saved = Instant::now();
        }
        let Some(report) = trainer.step().map_err(|e| failed(&e))? else { break false };
        tokens += report.tokens;
        let seconds = began.elapsed().as_secs_f64();
        let rate = tokens as f64 / seconds;
        metrics.step(&report, rate)?;
        let steps = report.steps_done - first;
        let left = seconds / steps as f64 * (total - report.steps_done) as f64;
        screen.show(report.steps_done, || {
            vec![format!(
                "loss {:.3} nats, {rate:.0} tokens/s, {:.1} GFLOP/s, {left:.0} s left",
                recent(&metrics.losses),
                flops_per_step * steps as f64 / seconds / 1e9,
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
    microbatch as f64 * f64::from(run.inner.members)
}

/// Loss on the first windows of the validation shard, in nats per token and bits per byte.
fn judge(trainer: &Trainer, metrics: &mut Metrics, validation: &TokenShard) -> Result<(f64, f64)> {
    let loss = engine::evaluate::loss_q32(&trainer.stages(), validation, JUDGED_WINDOWS)
        .map_err(|e| Failure::input(format!("validation shard: {e}")))?;
    let run = trainer.run();
    let bits = shards::bits_per_byte(nats(loss));
    metrics.held_out(trainer.progress().steps(run), nats(loss), bits)?;
    Ok((nats(loss), bits))
}

/// The last words: loss, files, a sample.
fn conclude(
    folder: &TrainFolder,
    trainer: &Trainer,
    metrics: &mut Metrics,
    validation: &TokenShard,
) -> Result<()> {
    let (held_out, bits) = judge(trainer, metrics, validation)?;
    metrics.draw(folder)?;
    let tokenizer = folder.run().data.tokenizer;
    let prompt = "The ";
    let mut tokens = shards::encode(tokenizer, prompt)?;
    let sampling = Sampling { temperature: 0.8, seed: folder.run().seed };
    generate(&trainer.stages(), &mut tokens, SAMPLE_TOKENS, sampling, |_| {})
        .map_err(|e| Failure::run(e.to_string()))?;
    let sample = String::from_utf8_lossy(&shards::decode(tokenizer, &tokens)?).into_owned();
    folder::replace(&folder.path("sample.txt"), sample.as_bytes())?;
    println!("loss        {:.3} nats per token in training, {held_out:.3} held out", recent(&metrics.losses));
    println!("held out    {bits:.3} bits per byte");
    for (stage, state) in trainer.stages().iter().enumerate() {
        println!("weights {stage}   {}", state.weights_digest());
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
    Failure::input(error.to_string())
}
