//! `iota plan`: what models cost on a fleet, on paper; and what a swarm on this machine will do, foretold.

use crate::config;
use crate::failure::{Failure, Result};
use engine::data::TokenShard;
use engine::train::Trainer;
use plan::{Host, Node, Resource};
use spec::{Data, Digest, Epoch, Inner, Model, Run, Tokenizer};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time spent to find out what this machine achieves in training.
const PROBE: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub struct Arguments {
    /// Price the model of this run.toml, in its stages, instead of the usual sizes
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What a card achieves in training, in TFLOP/s
    #[arg(long, value_name = "TFLOPS", default_value_t = 20.0)]
    tflops: f64,
    /// What a card has, in GiB
    #[arg(long, value_name = "GIB", default_value_t = 16.0)]
    memory: f64,
    /// The lesser of upload and download, in Mbit/s
    #[arg(long, value_name = "MBIT", default_value_t = 100.0)]
    mbit: f64,
    /// Microbatches in an inner step
    #[arg(long, value_name = "N", default_value_t = 32)]
    members: u16,
    /// Sequences of a microbatch
    #[arg(long, value_name = "N", default_value_t = 1)]
    sequences: u32,
}

/// A usual size: dim, heads, kv heads, ffn, context, blocks, and stages that are asked for; 0 takes as few as fit.
struct Size {
    name: &'static str,
    shape: [u32; 6],
    stages: u32,
}

const SIZES: [Size; 4] = [
    Size { name: "1.5B", shape: [2048, 16, 8, 8192, 1024, 24], stages: 3 },
    Size { name: "15B", shape: [5120, 40, 8, 13_824, 2048, 50], stages: 0 },
    Size { name: "50B", shape: [8192, 64, 8, 22_016, 2048, 70], stages: 0 },
    Size { name: "100B", shape: [10_240, 80, 8, 28_672, 2048, 92], stages: 0 },
];
const VOCAB: u32 = 32_768;

pub fn run(arguments: &Arguments) -> Result<()> {
    for (name, value) in
        [("--tflops", arguments.tflops), ("--memory", arguments.memory), ("--mbit", arguments.mbit)]
    {
        if !(value.is_finite() && value > 0.0) {
            return Err(Failure::input(format!("{name} is {value}, expected a positive number")));
        }
    }
    if arguments.members == 0 || arguments.sequences == 0 {
        return Err(Failure::input("--members and --sequences are expected to be positive"));
    }
    println!(
        "cards of {} TFLOP/s achieved, {} GiB, {} Mbit/s; {} microbatches a step of {} sequences; int8 boundaries\n",
        arguments.tflops, arguments.memory, arguments.mbit, arguments.members, arguments.sequences
    );
    println!(
        "| model | parameters | stages | largest stage | fits | tokens/s a lane | step | bubble | compute : link of the slowest | limit |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    if let Some(path) = &arguments.config {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::input(format!("--config {}: cannot be read ({e})", path.display())))?;
        let run = Run::from_toml(&text).map_err(|e| {
            Failure::input(format!("--config {}: {}", path.display(), e.to_string().replace('\n', " ")))
        })?;
        return row(&run.name.clone(), &run, arguments);
    }
    for size in &SIZES {
        let fewest = fewest_stages(size, arguments);
        let mut counts = vec![size.stages, fewest];
        counts.retain(|&count| count > 0);
        counts.dedup();
        for count in counts {
            row(size.name, &sized(size, count, arguments)?, arguments)?;
        }
    }
    Ok(())
}

/// A size in so many stages.
fn sized(size: &Size, stages: u32, arguments: &Arguments) -> Result<Run> {
    let [dim, heads, kv_heads, ffn, context, blocks] = size.shape;
    let digest = Digest::default();
    let tokenizer = Tokenizer::Bpe { file: digest, vocab: VOCAB };
    let data = Data {
        tokenizer,
        train: digest,
        train_tokens: u64::MAX,
        validation: digest,
        validation_tokens: 0,
        sequences: arguments.sequences,
    };
    let base = config::swarm(data.clone());
    let model =
        Model { dim, heads, kv_heads, ffn, context, stages: config::cut(blocks, stages)?, ..base.model };
    Ok(Run { model, data, inner: Inner { members: arguments.members, ..base.inner }, ..base })
}

/// The fewest stages whose largest fits; 0 if not even one block does.
fn fewest_stages(size: &Size, arguments: &Arguments) -> u32 {
    let memory = memory_bytes(arguments);
    let fits = |stages: &u32| sized(size, *stages, arguments).is_ok_and(|run| largest(&run).1 <= memory);
    (1..=size.shape[5]).find(fits).unwrap_or(0)
}

/// The stage that takes the most memory, and how much.
fn largest(run: &Run) -> (usize, u64) {
    let stages = (0..run.model.stage_count()).map(|stage| (stage, plan::memory_bytes(run, stage)));
    stages.max_by_key(|(_, bytes)| *bytes).unwrap_or_default()
}

fn memory_bytes(arguments: &Arguments) -> u64 {
    (arguments.memory * f64::from(1u32 << 30)) as u64
}

fn row(name: &str, run: &Run, arguments: &Arguments) -> Result<()> {
    let node = Node {
        flops_per_s: 1e12 * arguments.tflops,
        memory_bytes: memory_bytes(arguments),
        bandwidth_bytes_per_s: 1e6 / 8.0 * arguments.mbit,
    };
    let forecast = plan::forecast(run, &vec![node; run.model.stage_count()])
        .ok_or_else(|| Failure::input("a model without stages cannot be priced"))?;
    let (stage, bytes) = largest(run);
    let slowest =
        forecast.stages.iter().max_by(|a, b| a.compute_s.max(a.link_s).total_cmp(&b.compute_s.max(b.link_s)));
    let (compute, link) = slowest.map_or((0.0, 0.0), |stage| (stage.compute_s, stage.link_s));
    let tokens = run.microbatch_tokens() as f64 * f64::from(run.inner.members);
    println!(
        "| {name} | {:.2}G | {} | stage {stage}: {bytes} B ({:.1} GiB) | {} | {:.0} | {:.1} s | {:.0} % | {compute:.2} s : {link:.2} s | {} |",
        run.model.parameters() as f64 / 1e9,
        run.model.stage_count(),
        bytes as f64 / f64::from(1u32 << 30),
        if bytes <= node.memory_bytes { "yes" } else { "no" },
        tokens / forecast.step_s,
        forecast.step_s,
        100.0 * forecast.bubble,
        match forecast.limit {
            Resource::Memory => format!("memory of stage {}", forecast.limiting_stage),
            Resource::Compute => format!("compute of stage {}", forecast.limiting_stage),
            Resource::Link => format!("link of stage {}", forecast.limiting_stage),
        },
    );
    Ok(())
}

/// Tokens a second that a swarm of this run will make on this machine, every role of it here.
///
/// # Errors
/// A trial step that fails.
pub fn foretell(run: &Run, shard: TokenShard) -> Result<f64> {
    let failed = |e: engine::train::TrainError| Failure::input(e.to_string());
    // One lane of the run, over whole epochs of nothing but steps.
    let alone = Run {
        miners_per_stage: 1,
        epoch: Epoch { steps: u32::MAX, count: 1, digest_every: u32::MAX - 1 },
        ..run.clone()
    };
    let mut trainer = Trainer::new(&alone, shard).map_err(failed)?;
    // The first step also touches all memory for the first time.
    trainer.step().map_err(failed)?;
    let (began, mut tokens) = (Instant::now(), 0);
    while began.elapsed() < PROBE {
        tokens += trainer.step().map_err(failed)?.map_or(0, |report| report.tokens);
    }
    let tokens_per_s = tokens as f64 / began.elapsed().as_secs_f64();
    Ok(plan::on_one_host(run, &Host { tokens_per_s, cores: cores() }).tokens_per_s)
}

fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| usize::from(cores) as f64)
}
