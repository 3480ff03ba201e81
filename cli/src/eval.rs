//! `iota eval` and `iota generate`: what a model makes of a text, and what it writes.

use crate::failure::{Failure, Result};
use crate::model::Choice;
use crate::shards;
use crate::train::folder::replace;
use crate::train::metrics::nats;
use engine::data::{TokenShard, Width, shard_bytes};
use engine::generate::{Sampling, generate};
use std::io::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct EvalArguments {
    #[command(flatten)]
    model: Choice,
    /// UTF-8 text to judge the model by
    file: PathBuf,
    /// Write the logits after the file's first tokens as JSON: prompt, token_ids, last_logits, loss
    #[arg(long, value_name = "FILE")]
    dump_logits: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct GenerateArguments {
    #[command(flatten)]
    model: Choice,
    /// Text to go on from
    #[arg(long)]
    prompt: String,
    /// Tokens to write
    #[arg(long, default_value_t = 200)]
    tokens: usize,
    /// 0 takes the likeliest token, 1 draws from the model's distribution
    #[arg(long, default_value_t = 0.8, allow_negative_numbers = true)]
    temperature: f64,
    /// Seed of the draws: one seed, one text, on every machine
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub fn eval(arguments: EvalArguments) -> Result<()> {
    let name = arguments.file.display().to_string();
    let wrong = |what: &dyn std::fmt::Display| Failure::input(format!("{name}: {what}"));
    let bytes = std::fs::read(&arguments.file).map_err(|e| wrong(&format!("cannot be read ({e})")))?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|e| wrong(&format!("not UTF-8 text (byte {}); convert it first", e.valid_up_to())))?;
    let model = arguments.model.load()?;
    let context = model.run.model.context;
    let tokens = shards::encode(model.run.data.tokenizer, text)?;
    if tokens.len() <= context as usize {
        let found = tokens.len();
        return Err(wrong(&format!("{found} tokens, expected more than the model's context of {context}")));
    }
    let shard = shard_bytes(&tokens, Width::Four).and_then(TokenShard::from_bytes).map_err(|e| wrong(&e))?;
    let loss = engine::evaluate::loss_q32(&model.stages(), &shard, u64::MAX).map_err(|e| wrong(&e))?;
    let judged = shard.windows(context) * u64::from(context);
    let bits = nats(loss) / std::f64::consts::LN_2 * tokens.len() as f64 / bytes.len() as f64;
    if let Some(path) = &arguments.dump_logits {
        let prompt = &tokens[..context as usize];
        let logits = engine::evaluate::logits(&model.stages(), prompt).map_err(|e| wrong(&e))?;
        let prompt_text = shards::decode(model.run.data.tokenizer, prompt)?;
        let dump = serde_json::json!({
            "prompt": String::from_utf8_lossy(&prompt_text),
            "token_ids": prompt,
            "last_logits": logits.row(prompt.len() - 1),
            "loss": nats(loss),
        });
        replace(path, dump.to_string().as_bytes())?;
    }
    println!("{name}: {:.4} nats per token, {bits:.4} bits per byte", nats(loss));
    println!("judged {judged} of {} tokens, windows of {context}", tokens.len());
    Ok(())
}

pub fn write(arguments: GenerateArguments) -> Result<()> {
    let (temperature, seed) = (arguments.temperature, arguments.seed);
    if !(temperature.is_finite() && temperature >= 0.0) {
        return Err(Failure::input(format!("--temperature is {temperature}, expected 0 or more")));
    }
    if arguments.prompt.is_empty() {
        return Err(Failure::input("--prompt is empty, expected at least one letter to go on from"));
    }
    let model = arguments.model.load()?;
    let tokenizer = model.run.data.tokenizer;
    let mut tokens = shards::encode(tokenizer, &arguments.prompt)?;
    let mut out = std::io::stdout();
    // A reader that closes its end has had enough.
    let mut say = |bytes: &[u8]| drop(out.write_all(bytes).and_then(|()| out.flush()));
    say(arguments.prompt.as_bytes());
    // What could be encoded can be decoded.
    let each = |token| say(&shards::decode(tokenizer, &[token]).unwrap_or_default());
    generate(&model.stages(), &mut tokens, arguments.tokens, Sampling { temperature, seed }, each)
        .map_err(|e| Failure::input(e.to_string()))?;
    println!();
    Ok(())
}
