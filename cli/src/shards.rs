//! Text to the two token shards of a run: what it trains on, and what it is judged by.

use crate::corpus::{self, Corpus};
use crate::failure::{Failure, Result};
use engine::data::{Width, shard_bytes};
use spec::{Data, Digest, Tokenizer};
use std::path::PathBuf;

/// Of every so many documents, one goes to the validation shard.
const VALIDATION_EVERY: u64 = 20;
/// Stands between two documents.
const SEPARATOR: u8 = 0;

/// Two token shards as the bytes of their files.
pub struct Shards {
    pub train: Vec<u8>,
    pub validation: Vec<u8>,
    train_tokens: u64,
    validation_tokens: u64,
    /// Where the text came from, for the user.
    pub source: String,
}

/// Shards of the user's files, or of the default corpus if there are none.
pub fn prepare(text: &[PathBuf]) -> Result<Shards> {
    let corpus = if text.is_empty() { corpus::default(&cache_folder()?)? } else { corpus::from_files(text)? };
    let (train, validation) = split(&corpus);
    let shard = |bytes: &[u8]| {
        let tokens = engine::data::encode(Tokenizer::Bytes, bytes);
        shard_bytes(&tokens, Width::One).map_err(|e| Failure::input(e.to_string()))
    };
    Ok(Shards {
        train: shard(&train)?,
        validation: shard(&validation)?,
        train_tokens: train.len() as u64,
        validation_tokens: validation.len() as u64,
        source: corpus.source,
    })
}

impl Shards {
    /// What `run.toml` says of them.
    pub fn data(&self, sequences: u32) -> Data {
        Data {
            tokenizer: Tokenizer::Bytes,
            train: Digest::of(&self.train),
            train_tokens: self.train_tokens,
            validation: Digest::of(&self.validation),
            validation_tokens: self.validation_tokens,
            sequences,
        }
    }
}

/// Text to tokens.
pub fn encode(tokenizer: Tokenizer, text: &[u8]) -> Vec<u32> {
    engine::data::encode(tokenizer, text)
}

/// Tokens to text.
pub fn decode(tokenizer: Tokenizer, tokens: &[u32]) -> Vec<u8> {
    engine::data::decode(tokenizer, tokens)
}

/// A loss in nats per token as bits per byte of text.
pub fn bits_per_byte(tokenizer: Tokenizer, nats: f64) -> f64 {
    match tokenizer {
        Tokenizer::Bytes => nats / std::f64::consts::LN_2,
    }
}

/// Training and validation text; a document's place depends on its own content alone.
fn split(corpus: &Corpus) -> (Vec<u8>, Vec<u8>) {
    let (mut train, mut validation) = (vec![], vec![]);
    for document in &corpus.documents {
        let digest = Digest::of(document.as_bytes());
        let draw = u64::from_le_bytes(digest.0[..8].try_into().unwrap_or_default());
        let shard = if draw.is_multiple_of(VALIDATION_EVERY) { &mut validation } else { &mut train };
        shard.extend_from_slice(document.as_bytes());
        shard.push(SEPARATOR);
    }
    // A corpus of one document, or an unlucky draw: the tail of the training text validates.
    if validation.is_empty() || train.is_empty() {
        train.append(&mut validation);
        let at = train.len() - train.len() / VALIDATION_EVERY as usize;
        validation = train.split_off(at);
    }
    (train, validation)
}

/// `IOTA_CACHE`, else the user's cache folder.
fn cache_folder() -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("IOTA_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|folder| folder.join("iota")))
        .or_else(|| from("HOME").map(|folder| folder.join(".cache/iota")))
        .ok_or_else(|| Failure::input("no cache folder: set IOTA_CACHE to a folder that can be written"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_goes_to_one_shard_and_none_is_lost() {
        let documents: Vec<String> = (0..200).map(|i| format!("document {i}")).collect();
        let size: usize = documents.iter().map(|d| d.len() + 1).sum();
        let (train, validation) = split(&Corpus { source: String::new(), documents: documents.clone() });
        assert_eq!(train.len() + validation.len(), size);
        assert!(!validation.is_empty() && validation.len() < size / 5);
        // Adding documents moves none of the old ones.
        let fewer = split(&Corpus { source: String::new(), documents: documents[..100].to_vec() });
        assert!(validation.starts_with(&fewer.1) && train.starts_with(&fewer.0));
    }

    #[test]
    fn one_document_is_cut() {
        let corpus = Corpus { source: String::new(), documents: vec!["x".repeat(10_000)] };
        let (train, validation) = split(&corpus);
        assert_eq!((train.len(), validation.len()), (9_501, 500));
    }
}
