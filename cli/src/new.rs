//! `iota run new`: text to token shards, initial weights, keys and `run.toml`.

use crate::data::prepare::Choice;
use crate::failure::{Failure, Result};
use crate::shards::{Shards, Source};
use engine::state::StageState;
use orchestrator::{RunFolder, Secrets};
use spec::{Admission, Audit, BoundaryCodec, Epoch, Inner, Mode, Model, Outer, Run};
use std::path::PathBuf;
use wire::{Manifest, ObjectRef, Signed};

/// What a new run is made of.
#[derive(clap::Args, Clone)]
pub struct Recipe {
    #[command(flatten)]
    pub source: Source,
    /// Seed of initial weights and sample order
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Epochs; each ends in a commit
    #[arg(long, default_value_t = 1)]
    pub epochs: u32,
    /// Inner steps of each miner in an epoch
    #[arg(long, default_value_t = 500)]
    pub steps: u32,
    /// Miners that hold each stage
    #[arg(long, default_value_t = 1)]
    pub miners_per_stage: u16,
    /// Windows of each miner that are audited per epoch
    #[arg(long, default_value_t = 1)]
    pub audits: u32,
}

#[derive(clap::Args)]
pub struct Arguments {
    /// The new run's folder
    #[arg(long, value_name = "FOLDER")]
    folder: PathBuf,
    #[command(flatten)]
    recipe: Recipe,
}

/// A new run and where its text came from.
pub struct NewRun {
    pub folder: RunFolder,
    pub run: Run,
    pub source: String,
    /// Bytes of text that a token of the training shard stands for.
    pub bytes_per_token: f64,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let new = make(&arguments.folder, &arguments.recipe)?;
    println!(
        "made run {} in {}: {} parameters in {} stages, {} tokens of {}",
        new.run.id().short(),
        arguments.folder.display(),
        new.run.model.parameters(),
        new.run.model.stage_count(),
        new.run.data.train_tokens,
        new.source,
    );
    println!("lead it with: iota orchestrator --run {}", arguments.folder.display());
    Ok(())
}

/// Makes the folder of a new run, or leaves nothing behind.
pub fn make(root: &std::path::Path, recipe: &Recipe) -> Result<NewRun> {
    let shards = recipe.source.shards(Choice::Bytes)?;
    let folder = RunFolder::create(root).map_err(|e| Failure::input(e.to_string()))?;
    let part = &shards.prepared.train;
    let bytes_per_token = part.bytes as f64 / part.tokens.max(1) as f64;
    fill(&folder, recipe, &shards)
        .map(|run| NewRun { folder, run, source: shards.source, bytes_per_token })
        // The folder was empty or not there before.
        .inspect_err(|_| drop(std::fs::remove_dir_all(root)))
}

/// Writes everything of a new run into its folder.
fn fill(folder: &RunFolder, recipe: &Recipe, shards: &Shards) -> Result<Run> {
    let run = tiny(recipe, shards);
    run.check().map_err(|e| Failure::input(e.to_string()))?;
    shards.copy(&folder.path("objects"))?;
    write_rest(folder, &run)?;
    Ok(run)
}

/// Initial weights, manifest 0, keys, and last `run.toml`, which makes the folder a run's.
fn write_rest(folder: &RunFolder, run: &Run) -> Result<()> {
    let input = |error: &dyn std::fmt::Display| Failure::input(error.to_string());
    let key = transport::identity::load_or_create(&folder.key_path("orchestrator")).map_err(|e| input(&e))?;
    let mut weights = vec![];
    for stage in 0..run.model.stage_count() {
        let state = StageState::initial(run, stage).map_err(|e| input(&e))?;
        let bytes = state.weights_bytes().map_err(|e| input(&e))?;
        folder.write_object(&bytes).map_err(|e| input(&e))?;
        weights.push(ObjectRef::of(&bytes));
    }
    let manifest = Signed::new(Manifest::first(run.id(), &weights), &key);
    let digest = folder.write_object(&manifest.to_bytes()).map_err(|e| input(&e))?;
    folder.write("manifest-0", digest.to_string().as_bytes(), false).map_err(|e| input(&e))?;
    let secrets = Secrets::generate().map_err(|e| input(&e))?;
    let text = serde_json::to_vec_pretty(&secrets).map_err(|e| input(&e))?;
    folder.write("keys/secrets.json", &text, true).map_err(|e| input(&e))?;
    folder.write("run.toml", run.to_toml().as_bytes(), false).map_err(|e| input(&e))
}

/// The default run: a Llama of three stages that two cores train in a minute.
fn tiny(recipe: &Recipe, shards: &Shards) -> Run {
    Run {
        name: "tiny".into(),
        mode: Mode::Portable,
        seed: recipe.seed,
        miners_per_stage: recipe.miners_per_stage,
        model: Model {
            dim: 128,
            heads: 4,
            kv_heads: 2,
            ffn: 344,
            vocab: shards.prepared.vocab,
            context: 128,
            norm_eps: 1e-5,
            rope_theta: 10_000.0,
            stages: vec![2, 2, 2],
            rope_scaling: None,
        },
        data: shards.data(4),
        inner: Inner {
            lr: 4e-3,
            lr_final: 4e-4,
            warmup_steps: 10,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
            members: 4,
            staleness: 0,
        },
        // One miner a stage: the outer step takes the merged change as it is.
        outer: Outer::Nesterov { lr: 1.0, momentum: 0.0, bits: 8 },
        epoch: Epoch { steps: recipe.steps, count: recipe.epochs, digest_every: (recipe.steps / 6).max(1) },
        boundary: BoundaryCodec::Int8,
        audit: Audit { windows: recipe.audits, lag: 2 },
        admission: Admission::Invitation,
    }
}
