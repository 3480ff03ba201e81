//! Text to the two token shards of a run: what it trains on, and what it is judged by.

use crate::corpus::{self, Corpus};
use crate::data::prepare::{self, Choice, Prepared};
use crate::failure::{Failure, Result};
use engine::data::TextTokenizer;
use indicatif::ProgressBar;
use spec::{Data, Tokenizer};
use std::path::PathBuf;

/// Two token shards as the bytes of their files.
pub struct Shards {
    pub train: Vec<u8>,
    pub validation: Vec<u8>,
    prepared: Prepared,
    /// Where the text came from, for the user.
    pub source: String,
}

/// The user's files, or the default corpus if there are none.
pub fn corpus(text: &[PathBuf]) -> Result<Corpus> {
    if text.is_empty() { corpus::default(&cache_folder()?) } else { corpus::from_files(text) }
}

/// Byte-level shards of the user's files, or of the default corpus if there are none.
pub fn prepare(text: &[PathBuf]) -> Result<Shards> {
    let corpus = corpus(text)?;
    let input = |error: std::io::Error| Failure::input(format!("token shards cannot be made: {error}"));
    let place = tempfile::tempdir().map_err(input)?;
    let documents = &corpus.documents[..];
    let prepared = prepare::prepare(documents, &Choice::Bytes, place.path(), &ProgressBar::hidden())?;
    let read = |name: &str| std::fs::read(place.path().join(name)).map_err(input);
    let (train, validation) = (read(prepare::TRAIN)?, read(prepare::VALIDATION)?);
    Ok(Shards { train, validation, prepared, source: corpus.source })
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
}

/// Text to tokens.
pub fn encode(tokenizer: Tokenizer, text: &str) -> Result<Vec<u32>> {
    let tokenizer = byte_level(tokenizer)?;
    tokenizer.encode(text).map_err(|error| Failure::input(error.to_string()))
}

/// Tokens to text.
pub fn decode(tokenizer: Tokenizer, tokens: &[u32]) -> Result<Vec<u8>> {
    let tokenizer = byte_level(tokenizer)?;
    tokenizer.decode(tokens).map_err(|error| Failure::input(error.to_string()))
}

/// A loss in nats per token of a byte-level model as bits per byte of text.
pub fn bits_per_byte(nats: f64) -> f64 {
    nats / std::f64::consts::LN_2
}

/// These commands train and read byte-level models; a run with a tokenizer file is told so.
fn byte_level(tokenizer: Tokenizer) -> Result<TextTokenizer> {
    TextTokenizer::of_run(tokenizer, None).map_err(|error| Failure::input(error.to_string()))
}

/// `IOTA_CACHE`, else the user's cache folder.
fn cache_folder() -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("IOTA_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|folder| folder.join("iota")))
        .or_else(|| from("HOME").map(|folder| folder.join(".cache/iota")))
        .ok_or_else(|| Failure::input("no cache folder: set IOTA_CACHE to a folder that can be written"))
}
