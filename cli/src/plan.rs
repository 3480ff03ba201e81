//! `iota plan`: what models cost on a fleet, on paper; and what a swarm on this machine will do, foretold.

use crate::config::{self, Staleness};
use crate::failure::{Failure, Result};
use engine::data::TokenShard;
use engine::memory::{DRIVER_BYTES, StageMemory};
use engine::train::Trainer;
use plan::{Host, Node, Resource};
use spec::{Data, Digest, Epoch, Inner, Model, Run, SpecError, Tokenizer};
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
    #[command(flatten)]
    staleness: Staleness,
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
        "cards of {} TFLOP/s achieved, {} GiB, {} Mbit/s; {} microbatches a step of {} sequences; int8 boundaries;\n\
         memory is the engine's own account of a step that computes activations again, with {:.0} GiB for the driver;\n\
         the weights of the last merge, the residual and the outer momentum are the host's\n",
        arguments.tflops,
        arguments.memory,
        arguments.mbit,
        arguments.members,
        arguments.sequences,
        DRIVER_BYTES as f64 / f64::from(1u32 << 30),
    );
    println!(
        "| model | parameters | stages | largest stage | of its host | fits | tokens/s a lane | step | bubble | compute : link of the slowest | limit |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    if let Some(path) = &arguments.config {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::input(format!("--config {}: cannot be read ({e})", path.display())))?;
        let input = |e: SpecError| {
            Failure::input(format!("--config {}: {}", path.display(), e.to_string().replace('\n', " ")))
        };
        let mut run = Run::from_toml(&text).map_err(input)?;
        arguments.staleness.apply(&mut run);
        run.check().map_err(input)?;
        return row(&run.name.clone(), &run, arguments);
    }
    let mut too_large = vec![];
    for size in &SIZES {
        let fewest = fewest_stages(size, arguments);
        if fewest == 0 {
            too_large.push(why_none_fits(size, arguments)?);
        }
        let mut counts = vec![size.stages, fewest];
        counts.retain(|&count| count > 0);
        counts.dedup();
        for count in counts {
            row(size.name, &sized(size, count, arguments)?, arguments)?;
        }
    }
    for why in too_large {
        println!("\n{why}");
    }
    Ok(())
}

/// What of a size that no cut makes small enough is too large, and for which cards it would not be.
fn why_none_fits(size: &Size, arguments: &Arguments) -> Result<String> {
    let blocks = size.shape[5];
    let run = sized(size, blocks, arguments)?;
    let largest = distinct(&run)
        .filter_map(|index| Some((index, StageMemory::least(&run, index)?)))
        .max_by_key(|(_, memory)| memory.card_bytes());
    let Some((index, memory)) = largest else {
        return Err(Failure::input("a model without stages cannot be priced"));
    };
    let beside = match run.model.stage(index).map(|stage| stage.kind) {
        Some(kind) if kind.embeds() => " and the embedding",
        Some(kind) if kind.judges() => " and the classifier",
        _ => "",
    };
    Ok(format!(
        "{}: no cut fits cards of {} GiB. Even of {blocks} stages, one block each, stage {index} (its block{beside}, {:.2}G parameters) takes \
         {:.1} GiB of a card (weights, moments, gradients and the versions kept beside {:.1}, work {:.1}, driver {:.1}) and {:.1} GiB \
         of the host; `--memory {}` would do, or a narrower model.",
        size.name,
        arguments.memory,
        memory.parameters as f64 / 1e9,
        gib(memory.card_bytes()),
        gib(memory.state_bytes),
        gib(memory.reserved_bytes.saturating_sub(memory.state_bytes)),
        gib(DRIVER_BYTES),
        gib(memory.host_bytes),
        gib(memory.card_bytes()).ceil(),
    ))
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1u32 << 30)
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
    let mut run = Run { model, data, inner: Inner { members: arguments.members, ..base.inner }, ..base };
    arguments.staleness.apply(&mut run);
    Ok(run)
}

/// The fewest stages that all fit; 0 if not even one block does. Whoever holds less takes less, so it is found by halving.
fn fewest_stages(size: &Size, arguments: &Arguments) -> u32 {
    let blocks = size.shape[5];
    let fits =
        |stages| sized(size, stages, arguments).is_ok_and(|run| all_fit(&run, memory_bytes(arguments)));
    let (mut too_few, mut enough) = (0, blocks + 1);
    while enough - too_few > 1 {
        let middle = too_few.midpoint(enough);
        if fits(middle) { enough = middle } else { too_few = middle }
    }
    if enough > blocks { 0 } else { enough }
}

fn all_fit(run: &Run, card_bytes: u64) -> bool {
    distinct(run).all(|index| StageMemory::fits(run, index, card_bytes))
}

/// The first stage of each shape: those of one shape take the same memory.
fn distinct(run: &Run) -> impl Iterator<Item = usize> + '_ {
    let shape = |index| run.model.stage(index).map(|stage| (stage.kind, stage.blocks));
    (0..run.model.stage_count()).filter(move |&index| (0..index).all(|before| shape(before) != shape(index)))
}

/// What every stage takes of a card and of its host, activations computed again.
fn stages_bytes(run: &Run) -> Vec<(u64, u64)> {
    let shape = |index| run.model.stage(index).map(|stage| (stage.kind, stage.blocks));
    let firsts = distinct(run).filter_map(|index| {
        let memory = StageMemory::least(run, index)?;
        Some((shape(index), (memory.card_bytes(), memory.host_bytes)))
    });
    let firsts: Vec<_> = firsts.collect();
    let of = |index| firsts.iter().find(|(of, _)| *of == shape(index)).map_or((0, 0), |(_, bytes)| *bytes);
    (0..run.model.stage_count()).map(of).collect()
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
    let memory = stages_bytes(run);
    let (of_cards, of_hosts): (Vec<u64>, Vec<u64>) = memory.into_iter().unzip();
    let forecast = plan::forecast(run, &of_cards, &vec![node; run.model.stage_count()])
        .ok_or_else(|| Failure::input("a model without stages cannot be priced"))?;
    let (stage, bytes) = of_cards.into_iter().enumerate().max_by_key(|(_, bytes)| *bytes).unwrap_or_default();
    let host = of_hosts.into_iter().max().unwrap_or(0);
    let slowest =
        forecast.stages.iter().max_by(|a, b| a.compute_s.max(a.link_s).total_cmp(&b.compute_s.max(b.link_s)));
    let (compute, link) = slowest.map_or((0.0, 0.0), |stage| (stage.compute_s, stage.link_s));
    let tokens = run.microbatch_tokens() as f64 * f64::from(run.inner.members);
    println!(
        "| {name} | {:.2}G | {} | stage {stage}: {bytes} B ({:.1} GiB) | {:.1} GiB | {} | {:.0} | {:.1} s | {:.0} % | {compute:.2} s : {link:.2} s | {} |",
        run.model.parameters() as f64 / 1e9,
        run.model.stage_count(),
        gib(bytes),
        gib(host),
        if bytes <= node.memory_bytes { "yes" } else { "no" },
        tokens / forecast.step_s,
        forecast.step_s,
        100.0 * forecast.bubble.max(0.0) + 0.0,
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
