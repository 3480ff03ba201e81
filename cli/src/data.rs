//! `iota data prepare`: text files to a tokenizer and two token shards.

pub mod documents;
mod parquet;
pub mod prepare;

use crate::failure::{Failure, Result};
use crate::whole;
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
    let files = Files { files: arguments.files, field: arguments.field };
    let bar = bar()?;
    let outcome =
        whole::folder(out, |folder| prepare::prepare(&files, &arguments.tokenizer, None, folder, &bar));
    bar.finish_and_clear();
    let (prepared, _) = outcome?;
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

/// The bar of a preparation; nothing is shown where there is no terminal.
pub fn bar() -> Result<ProgressBar> {
    let template = "{msg:12} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
    let style = ProgressStyle::with_template(template).map_err(|e| Failure::input(e.to_string()))?;
    Ok(ProgressBar::new(0).with_style(style))
}
