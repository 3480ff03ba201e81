//! `iota data prepare`: text files to a tokenizer and two token shards.

pub mod documents;
mod parquet;
pub mod prepare;

use crate::failure::{Failure, Result};
use documents::Files;
use indicatif::{ProgressBar, ProgressStyle};
use prepare::Choice;
use std::path::PathBuf;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Text, JSONL or Parquet files to a tokenizer and token shards for training and validation
    Prepare(Arguments),
}

#[derive(clap::Args)]
pub struct Arguments {
    /// Files: .jsonl holds a document a line, .parquet a document a row, any other file is one document of UTF-8 text
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The new folder
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// `bytes`, `bpe:IDS` to train byte-level BPE, or a tokenizer.json
    #[arg(long, default_value = "bytes")]
    tokenizer: Choice,
    /// Field of a JSONL object, or column of a Parquet table, that holds the text
    #[arg(long, default_value = "text")]
    field: String,
}

pub fn run(command: Command) -> Result<()> {
    let Command::Prepare(arguments) = command;
    let out = &arguments.out;
    if out.exists() {
        return Err(Failure::input(format!("--out {}: exists already; choose a new folder", out.display())));
    }
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(".".as_ref());
    let cannot = |e: std::io::Error| Failure::input(format!("--out {}: cannot be made ({e})", out.display()));
    let files = Files { files: arguments.files, field: arguments.field };
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("{msg:12} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}")
            .map_err(|e| Failure::input(e.to_string()))?,
    );
    std::fs::create_dir_all(parent).map_err(cannot)?;
    // Whole or not at all: made beside its place, and moved in at the end.
    let fresh = tempfile::Builder::new().prefix(".iota-data-").tempdir_in(parent).map_err(cannot)?;
    let outcome = prepare::prepare(&files, &arguments.tokenizer, fresh.path(), &bar);
    bar.finish_and_clear();
    let prepared = outcome?;
    std::fs::rename(fresh.path(), out).map_err(cannot)?;
    // It is no longer where it would be removed.
    let _ = fresh.keep();
    println!("{}: {} ids in the tokenizer", out.display(), prepared.vocab);
    for (name, part) in [("train", &prepared.train), ("validation", &prepared.validation)] {
        println!(
            "  {name:10} {} documents, {} bytes, {} tokens ({:.2} bytes per token), {}",
            part.documents,
            part.bytes,
            part.tokens,
            part.bytes as f64 / part.tokens.max(1) as f64,
            part.digest
        );
    }
    Ok(())
}
