//! `iota export`: a run's model in the formats of others.

mod gguf;
mod hugging_face;
mod vocabulary;

use crate::failure::{Failure, Result};
use crate::weights::{Weights, weights_of};
use crate::whole;
use engine::StageState;
use std::path::{Path, PathBuf};

/// Tokens of the reference prompt, where the context is not shorter.
const PROMPT_TOKENS: u32 = 24;

#[derive(clap::Args)]
pub struct Arguments {
    /// Format: a directory for Hugging Face's libraries, or a file for llama.cpp
    #[arg(long, value_enum)]
    to: Format,
    /// A run's folder, of a training or of a swarm; its newest weights are taken
    #[arg(long, value_name = "FOLDER")]
    run: PathBuf,
    /// The new folder
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Matrices of the GGUF file
    #[arg(long = "type", value_enum, default_value = "f32")]
    element: gguf::Element,
    /// Also write reference.json: a prompt's token ids and the logits of this engine, to compare with
    #[arg(long)]
    reference: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Hf,
    Gguf,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let weights = weights_of(&arguments.run)?;
    let states = weights.states()?;
    whole::folder(&arguments.out, |folder| {
        match arguments.to {
            Format::Hf => hugging_face::write(&weights, &states, folder)?,
            Format::Gguf => gguf::write(&weights, &states, arguments.element, &folder.join("model.gguf"))?,
        }
        if arguments.reference { write_reference(&weights, &states, folder) } else { Ok(()) }
    })?;
    println!(
        "{}: {} parameters of run {}, {}",
        arguments.out.display(),
        weights.run.model.parameters(),
        weights.run.id().short(),
        weights.source
    );
    Ok(())
}

/// Makes the new folder `out` of a model: the directory that Hugging Face's libraries load.
///
/// # Errors
/// A folder that is there already, or a disk that does not take it.
pub fn to_hugging_face(weights: &Weights, states: &[StageState], out: &Path) -> Result<()> {
    whole::folder(out, |folder| hugging_face::write(weights, states, folder))
}

fn write_reference(weights: &Weights, states: &[StageState], folder: &Path) -> Result<()> {
    let model = &weights.run.model;
    let prompt: Vec<u32> =
        (0..PROMPT_TOKENS.min(model.context)).map(|i| (3 + 17 * i) % model.vocab).collect();
    let references: Vec<&StageState> = states.iter().collect();
    let logits = engine::evaluate::logits(&references, &prompt).map_err(|e| Failure::input(e.to_string()))?;
    let rows: Vec<&[f32]> = (0..prompt.len()).map(|row| logits.row(row)).collect();
    let value = serde_json::json!({ "token_ids": prompt, "logits": rows });
    write_json(&folder.join("reference.json"), &value)
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|e| Failure::input(e.to_string()))?;
    whole::write(path, &text)
}

#[cfg(test)]
mod tests;
