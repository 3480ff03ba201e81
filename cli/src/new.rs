//! `iota run new`: text to token shards, initial weights, keys and `run.toml`.

use crate::config::{self, Config, Preset, Staleness};
use crate::failure::{Failure, Result};
use crate::shards::{Shards, Source};
use engine::data::TokenShard;
use engine::state::StageState;
use orchestrator::{RunFolder, Secrets};
use spec::Run;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use wire::{Manifest, ObjectRef, Signed};

/// What a new run is made of.
#[derive(clap::Args, Clone)]
pub struct Recipe {
    /// TOML with any keys of run.toml; what it leaves out takes the default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What stands for the default; --config stands over it
    #[arg(long, value_enum, default_value_t)]
    preset: Preset,
    #[command(flatten)]
    pub source: Source,
    /// Seed of initial weights and sample order [default: 1]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Epochs; each ends in a merge and a commit [default: 10]
    #[arg(long)]
    pub epochs: Option<u32>,
    /// Inner steps of each miner in an epoch [default: 20]
    #[arg(long)]
    pub steps: Option<u32>,
    /// Miners that hold each stage [default: 2]
    #[arg(long)]
    pub miners_per_stage: Option<u16>,
    #[command(flatten)]
    pub staleness: Staleness,
    /// Windows of each miner that are audited per epoch [default: 1]
    #[arg(long)]
    pub audits: Option<u32>,
    /// Take over the keys and secrets of an earlier run, its folder `keys`: the same run again commits the same manifests
    #[arg(long, value_name = "FOLDER")]
    keys: Option<PathBuf>,
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
}

impl NewRun {
    /// The training shard, as it lies in the folder.
    pub fn train_shard(&self) -> Result<TokenShard> {
        let path = self.folder.path(&format!("objects/{}", self.run.data.train));
        TokenShard::open(&path).map_err(|e| Failure::input(format!("{}: {e}", path.display())))
    }
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
    if new.run.audit.windows > 0 {
        println!("{}", config::price_of_audits(&new.run));
    }
    println!("lead it with: iota orchestrator --run {}", arguments.folder.display());
    Ok(())
}

/// Makes the folder of a new run, or leaves nothing behind.
pub fn make(root: &Path, recipe: &Recipe) -> Result<NewRun> {
    let config = Config::read(recipe.preset, recipe.config.as_deref(), config::swarm)?;
    let shards = recipe.source.shards(config.tokenizer()?.unwrap_or(config::TOKENIZER))?;
    let run = describe(recipe, &config, &shards)?;
    let folder = RunFolder::create(root).map_err(|e| Failure::input(e.to_string()))?;
    fill(&folder, &run, &shards, recipe.keys.as_deref())
        .map(|()| NewRun { folder, run, source: shards.source })
        // The folder was empty or not there before.
        .inspect_err(|_| drop(std::fs::remove_dir_all(root)))
}

/// The run that the configuration and the options describe.
fn describe(recipe: &Recipe, config: &Config, shards: &Shards) -> Result<Run> {
    let mut run = config.run(shards.data(config.sequences()?))?;
    let options = recipe.clone();
    run.seed = options.seed.unwrap_or(run.seed);
    run.epoch.count = options.epochs.unwrap_or(run.epoch.count);
    run.epoch.steps = options.steps.unwrap_or(run.epoch.steps);
    run.miners_per_stage = options.miners_per_stage.unwrap_or(run.miners_per_stage);
    run.audit.windows = options.audits.unwrap_or(run.audit.windows);
    options.staleness.apply(&mut run);
    config::fit_microbatches(&mut run, config);
    config::fit_length(&mut run, config);
    config.check(&run)?;
    orchestrator::check_lengths(&run).map_err(|e| Failure::input(e.to_string()))?;
    Ok(run)
}

/// Writes everything of a new run into its folder.
fn fill(folder: &RunFolder, run: &Run, shards: &Shards, keys: Option<&Path>) -> Result<()> {
    match keys {
        Some(keys) => take_over(folder, keys)?,
        None => write_secrets(folder, &Secrets::generate().map_err(|e| Failure::input(e.to_string()))?)?,
    }
    shards.copy(&folder.path("objects"))?;
    write_rest(folder, run)
}

/// What decides of a run besides `run.toml` and the text: who its nodes are, and what is drawn from.
fn take_over(folder: &RunFolder, keys: &Path) -> Result<()> {
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::input(format!(
            "--keys {}: {why}; expected the folder keys of an earlier run",
            keys.display()
        ))
    };
    write_secrets(folder, &Secrets::read(&keys.join("secrets.json")).map_err(|e| wrong(&e))?)?;
    for entry in std::fs::read_dir(keys).map_err(|e| wrong(&e))? {
        let path = entry.map_err(|e| wrong(&e))?.path();
        let (Some(name), Some("key")) = (path.file_stem(), path.extension().and_then(OsStr::to_str)) else {
            continue;
        };
        transport::identity::load(&path).map_err(|e| wrong(&e))?;
        let text = std::fs::read(&path).map_err(|e| wrong(&e))?;
        folder.write(&format!("keys/{}.key", name.to_string_lossy()), &text, true).map_err(|e| wrong(&e))?;
    }
    Ok(())
}

fn write_secrets(folder: &RunFolder, secrets: &Secrets) -> Result<()> {
    let input = |error: &dyn std::fmt::Display| Failure::input(error.to_string());
    let text = serde_json::to_vec_pretty(secrets).map_err(|e| input(&e))?;
    folder.write("keys/secrets.json", &text, true).map_err(|e| input(&e))
}

/// Initial weights, manifest 0, the orchestrator's key, and last `run.toml`, which makes the folder a run's.
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
    folder.write("run.toml", run.to_toml().as_bytes(), false).map_err(|e| input(&e))
}
