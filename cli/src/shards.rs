//! The token shards of a run, what it trains on and what it is judged by: made of text, or made before.

use crate::corpus;
use crate::data::prepare::{self, Choice, Prepared};
use crate::failure::{Failure, Result};
use crate::{data, whole};
use engine::data::{TextTokenizer, TokenShard};
use spec::Data;
use std::path::{Path, PathBuf};

/// Where a run's tokens come from.
#[derive(clap::Args, Clone, Default)]
pub struct Source {
    /// Train on these UTF-8 text files instead of the default corpus
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub text: Vec<PathBuf>,
    /// Train on a folder that `iota data prepare` made
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["text", "tokenizer"])]
    pub data: Option<PathBuf>,
    /// `bytes`, `bpe:IDS` to train byte-level BPE, or a tokenizer.json [default: bpe:4096]
    #[arg(long)]
    pub tokenizer: Option<Choice>,
}

/// Two token shards and their tokenizer, as files.
pub struct Shards {
    place: Place,
    /// What they are.
    pub prepared: Prepared,
    /// Where the text came from, for the user.
    pub source: String,
}

enum Place {
    Made(tempfile::TempDir),
    Given(PathBuf),
}

impl Source {
    /// Opens or makes the shards; `tokenizer` is what the user's choice stands over.
    ///
    /// # Errors
    /// A folder that `data prepare` did not make or that was changed since, text that cannot be used, a full disk.
    pub fn shards(&self, tokenizer: Choice) -> Result<Shards> {
        if let Some(folder) = &self.data {
            let prepared = prepare::open(folder)?.0;
            let source = format!("{}", folder.display());
            return Ok(Shards { place: Place::Given(folder.clone()), prepared, source });
        }
        // A tokenizer of the default corpus is kept beside it.
        let (corpus, cache) = if self.text.is_empty() {
            let cache = cache_folder()?;
            (corpus::default(&cache)?, Some(cache))
        } else {
            (corpus::from_files(&self.text)?, None)
        };
        let input = |error: std::io::Error| Failure::input(format!("token shards cannot be made: {error}"));
        let place = tempfile::tempdir().map_err(input)?;
        let choice = self.tokenizer.clone().unwrap_or(tokenizer);
        let bar = data::bar()?;
        let documents = &corpus.documents[..];
        let made = prepare::prepare(documents, &choice, cache.as_deref(), place.path(), &bar);
        bar.finish_and_clear();
        let prepared = made?.0;
        Ok(Shards { place: Place::Made(place), prepared, source: corpus.source })
    }
}

impl Shards {
    /// What `run.toml` says of them.
    pub fn data(&self, sequences: u32) -> Data {
        Data {
            tokenizer: self.prepared.tokenizer,
            train: self.prepared.train.digest,
            train_tokens: self.prepared.train.tokens,
            validation: self.prepared.validation.digest,
            validation_tokens: self.prepared.validation.tokens,
            sequences,
        }
    }

    /// The training shard.
    pub fn train(&self) -> Result<TokenShard> {
        let path = self.path(prepare::TRAIN);
        TokenShard::open(&path).map_err(|e| Failure::input(format!("{}: {e}", path.display())))
    }

    /// Copies the files to `objects`, each under its digest.
    pub fn copy(&self, objects: &Path) -> Result<()> {
        let mut files = vec![
            (self.prepared.train.digest, prepare::TRAIN),
            (self.prepared.validation.digest, prepare::VALIDATION),
        ];
        if let spec::Tokenizer::Bpe { file, .. } = self.prepared.tokenizer {
            files.push((file, prepare::TOKENIZER));
        }
        files
            .into_iter()
            .try_for_each(|(digest, name)| whole::copy(&self.path(name), &objects.join(digest.to_string())))
    }

    fn path(&self, name: &str) -> PathBuf {
        match &self.place {
            Place::Made(folder) => folder.path().join(name),
            Place::Given(folder) => folder.join(name),
        }
    }
}

/// The tokenizer that a run names, from its objects.
pub fn tokenizer(named: spec::Tokenizer, objects: &Path) -> Result<TextTokenizer> {
    let spec::Tokenizer::Bpe { file, .. } = named else { return Ok(TextTokenizer::bytes()) };
    tokenizer_file(named, &objects.join(file.to_string()))
}

/// The tokenizer that a run names, which lies at `path`.
pub fn tokenizer_file(named: spec::Tokenizer, path: &Path) -> Result<TextTokenizer> {
    let json = std::fs::read(path)
        .map_err(|e| Failure::input(format!("{}: cannot be read ({e}); restore it", path.display())))?;
    TextTokenizer::of_run(named, Some(&json)).map_err(|e| Failure::input(format!("{}: {e}", path.display())))
}

/// `IOTA_CACHE`, else the user's cache folder.
fn cache_folder() -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("IOTA_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|folder| folder.join("iota")))
        .or_else(|| from("HOME").map(|folder| folder.join(".cache/iota")))
        .ok_or_else(|| Failure::input("no cache folder: set IOTA_CACHE to a folder that can be written"))
}
