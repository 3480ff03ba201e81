//! `iota eval` and `iota generate`: what a model makes of a text, and what it writes.

use crate::failure::{Failure, Result};
use crate::judge::judge;
use crate::model::Choice;
use crate::whole::replace;
use engine::data::{TextTokenizer, TokenShard, Width, shard_bytes};
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
    let tokens = model.tokenizer.encode(text).map_err(|e| wrong(&e))?;
    if tokens.len() <= context as usize {
        let found = tokens.len();
        return Err(wrong(&format!("{found} tokens, expected more than the model's context of {context}")));
    }
    let shard = shard_bytes(&tokens, Width::Four).and_then(TokenShard::from_bytes).map_err(|e| wrong(&e))?;
    let judged = judge(&model.stages(), &model.tokenizer, &shard, u64::MAX).map_err(|e| wrong(&e))?;
    if let Some(path) = &arguments.dump_logits {
        let prompt = &tokens[..context as usize];
        let logits = engine::evaluate::logits(&model.stages(), prompt).map_err(|e| wrong(&e))?;
        let prompt_text = model.tokenizer.decode(prompt).map_err(|e| wrong(&e))?;
        let dump = serde_json::json!({
            "prompt": String::from_utf8_lossy(&prompt_text),
            "token_ids": prompt,
            "last_logits": logits.row(prompt.len() - 1),
            "loss": judged.nats_per_token,
        });
        replace(path, dump.to_string().as_bytes())?;
    }
    println!(
        "{name}: {:.4} nats per token, {:.4} bits per byte",
        judged.nats_per_token, judged.bits_per_byte
    );
    println!(
        "judged {} of {} tokens, {} of {} bytes, in windows of {context}",
        judged.tokens,
        tokens.len(),
        judged.bytes,
        bytes.len()
    );
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
    let wrong = |e: &dyn std::fmt::Display| Failure::input(e.to_string());
    let model = arguments.model.load()?;
    let mut tokens = model.tokenizer.encode(&arguments.prompt).map_err(|e| wrong(&e))?;
    let mut out = std::io::stdout();
    // A reader that closes its end has had enough.
    let mut say = |bytes: &[u8]| drop(out.write_all(bytes).and_then(|()| out.flush()));
    say(arguments.prompt.as_bytes());
    let mut speech = Speech::after(&model.tokenizer, tokens.clone());
    let each = |token| say(speech.hear(token));
    generate(&model.stages(), &mut tokens, arguments.tokens, Sampling { temperature, seed }, each)
        .map_err(|e| wrong(&e))?;
    say(speech.rest());
    println!();
    Ok(())
}

/// The text of tokens as they come: of a character that several tokens make up, nothing is said before its last.
struct Speech<'a> {
    tokenizer: &'a TextTokenizer,
    tokens: Vec<u32>,
    text: Vec<u8>,
    said: usize,
}

impl<'a> Speech<'a> {
    /// What follows `tokens`, which were said already.
    fn after(tokenizer: &'a TextTokenizer, tokens: Vec<u32>) -> Self {
        let mut speech = Self { tokenizer, tokens, text: vec![], said: 0 };
        speech.read();
        speech.said = speech.text.len();
        speech
    }

    /// What is new with this token.
    fn hear(&mut self, token: u32) -> &[u8] {
        self.tokens.push(token);
        self.read();
        let mut whole = &self.text[..];
        // A character that lacks its end is shown by the mark of what cannot be read.
        while let Some(rest) = whole.strip_suffix("\u{fffd}".as_bytes()) {
            whole = rest;
        }
        self.say_up_to(whole.len())
    }

    /// What was still held back.
    fn rest(&mut self) -> &[u8] {
        self.say_up_to(self.text.len())
    }

    fn say_up_to(&mut self, end: usize) -> &[u8] {
        let said = self.said.min(end);
        self.said = self.said.max(end);
        &self.text[said..end]
    }

    fn read(&mut self) {
        // What could be encoded can be decoded.
        self.text = self.tokenizer.decode(&self.tokens).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_said_whole_and_nothing_twice() {
        let (sender, receiver) = std::sync::mpsc::channel();
        sender.send("some text to learn from, some text to learn".to_owned()).unwrap();
        drop(sender);
        let bpe = TextTokenizer::train(270, receiver).unwrap();
        let text = "some 漢字 🦀 text";
        for tokenizer in [&bpe, &TextTokenizer::bytes()] {
            let tokens = tokenizer.encode(text).unwrap();
            let mut speech = Speech::after(tokenizer, tokens[..2].to_vec());
            let begun = speech.said;
            let mut said = vec![];
            for &token in &tokens[2..] {
                let now = speech.hear(token).to_vec();
                assert!(tokenizer.json().is_none() || std::str::from_utf8(&now).is_ok());
                said.extend(now);
            }
            assert_eq!([&text.as_bytes()[..begun], &said, speech.rest()].concat(), text.as_bytes());
        }
        let half = bpe.encode("漢").unwrap();
        let mut speech = Speech::after(&bpe, vec![]);
        assert_eq!(speech.hear(half[0]), b"");
        assert_eq!(speech.rest(), "\u{fffd}".as_bytes());
    }
}
