//! A trained model as commands take it: a run's folder, or weights files and the run they belong to.

use crate::failure::{Failure, Result};
use crate::shards;
use crate::train::folder::TrainFolder;
use engine::StageState;
use engine::data::TextTokenizer;
use kernels::SimdPath;
use spec::Run;
use std::path::PathBuf;

/// Which model.
#[derive(clap::Args)]
pub struct Choice {
    /// A training run's folder; its newest checkpoint is taken
    #[arg(long, value_name = "FOLDER", required_unless_present = "weights", conflicts_with = "weights")]
    run: Option<PathBuf>,
    /// Another checkpoint of that run
    #[arg(long, value_name = "FOLDER", requires = "run")]
    checkpoint: Option<PathBuf>,
    /// Weights files of all stages, head first, such as those of a swarm
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "config")]
    weights: Vec<PathBuf>,
    /// The run.toml that the weights belong to
    #[arg(long, value_name = "FILE", requires = "weights")]
    config: Option<PathBuf>,
    /// The tokenizer.json that this run.toml names
    #[arg(long, value_name = "FILE", requires = "weights")]
    tokenizer: Option<PathBuf>,
    /// Threads to compute on [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// All stages of a model.
pub struct Model {
    pub run: Run,
    pub tokenizer: TextTokenizer,
    stages: Vec<StageState>,
}

impl Choice {
    /// Reads and checks it.
    pub fn load(&self) -> Result<Model> {
        use_threads(self.threads)?;
        let Some(config) = &self.config else {
            let root = self.run.as_deref().ok_or_else(|| Failure::input("give --run FOLDER"))?;
            let folder = TrainFolder::open(root)?;
            let (path, checkpoint) = folder.load(self.checkpoint.as_deref())?;
            let stages = checkpoint
                .read_stages(folder.run())
                .map_err(|e| Failure::input(format!("{}: {e}", path.display())))?;
            return Ok(Model { run: folder.run().clone(), tokenizer: folder.tokenizer()?, stages });
        };
        let text = std::fs::read_to_string(config)
            .map_err(|e| Failure::input(format!("--config {}: cannot be read ({e})", config.display())))?;
        let run = Run::from_toml(&text).map_err(|e| {
            Failure::input(format!("--config {}: {}", config.display(), e.to_string().replace('\n', " ")))
        })?;
        let (expected, found) = (run.model.stage_count(), self.weights.len());
        if expected != found {
            return Err(Failure::input(format!(
                "--weights: {found} files, expected {expected}, one a stage, head first"
            )));
        }
        let read = |(stage, path): (usize, &PathBuf)| {
            let said =
                |e: &dyn std::fmt::Display| Failure::input(format!("--weights {}: {e}", path.display()));
            let bytes = std::fs::read(path).map_err(|e| said(&e))?;
            StageState::from_weights(&run, stage, &bytes).map_err(|e| said(&e))
        };
        let stages = self.weights.iter().enumerate().map(read).collect::<Result<_>>()?;
        let tokenizer = match (run.data.tokenizer, &self.tokenizer) {
            (spec::Tokenizer::Bytes, _) => TextTokenizer::bytes(),
            (named, Some(path)) => shards::tokenizer_file(named, path)?,
            (spec::Tokenizer::Bpe { file, .. }, None) => {
                return Err(Failure::input(format!(
                    "--config {}: data.tokenizer is the tokenizer.json {file}; give it with --tokenizer",
                    config.display()
                )));
            }
        };
        Ok(Model { run, tokenizer, stages })
    }
}

impl Model {
    /// All stages, head first.
    pub fn stages(&self) -> Vec<&StageState> {
        self.stages.iter().collect()
    }
}

/// The name of a SIMD path as an option says it.
pub fn parse_simd(name: &str) -> std::result::Result<SimdPath, String> {
    let path = match name {
        "portable" => SimdPath::Portable,
        "avx2" => SimdPath::Avx2,
        "avx512" => SimdPath::Avx512,
        _ => return Err("expected portable, avx2 or avx512".into()),
    };
    if path.is_available() { Ok(path) } else { Err("this CPU does not have it; see `iota doctor`".into()) }
}

/// Sets how many threads compute; `None` is every core.
pub fn use_threads(threads: Option<usize>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    if threads == 0 {
        return Err(Failure::input("--threads is 0, expected a positive number"));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|e| Failure::run(format!("{threads} threads cannot be started: {e}")))
}
