//! What a model makes of held-out text (nats per token, and bits per byte of the text that these tokens stand for), and
//! what it writes.

use crate::failure::{Failure, Result};
use crate::train::metrics::nats;
use engine::StageState;
use engine::data::{TextTokenizer, TokenShard};
use engine::generate::{Sampling, generate};

/// Windows of the validation shard that are judged when a run ends.
pub const JUDGED_AT_THE_END: u64 = 1024;
/// What the sample at the end goes on from, and its tokens.
const PROMPT: &str = "The";
const SAMPLE_TOKENS: usize = 120;

/// A model judged by windows of a shard.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Judgement {
    /// Mean loss.
    pub nats_per_token: f64,
    /// The same for a byte of text: comparable between tokenizers.
    pub bits_per_byte: f64,
    /// Tokens judged.
    pub tokens: u64,
    /// Bytes of text they stand for.
    pub bytes: u64,
}

/// Judges at most `windows` windows, evenly spread over the shard: all of them if it has no more.
///
/// # Errors
/// A shard without a window, tokens that the model does not know, a loss that is not finite.
pub fn judge(
    stages: &[&StageState],
    tokenizer: &TextTokenizer,
    shard: &TokenShard,
    windows: u64,
) -> Result<Judgement> {
    let wrong = |e: &dyn std::fmt::Display| Failure::input(e.to_string());
    let context = stages.first().map_or(1, |head| head.stage().model().context);
    let all = shard.windows(context);
    let spread = spread(all, windows);
    // A shard without a window is told by whoever reads it.
    let asked = || spread.clone().chain((all == 0).then_some(0));
    let loss = engine::evaluate::loss_q32(stages, shard, asked()).map_err(|e| wrong(&e))?;
    let context = u64::from(context);
    let targets = spread.clone().flat_map(|window| window * context + 1..=(window + 1) * context);
    let targets: Vec<u32> = targets.map(|position| shard.token(position)).collect();
    let bytes = tokenizer.text_bytes(&targets).map_err(|e| wrong(&e))?;
    let (tokens, nats_per_token) = (targets.len() as u64, nats(loss));
    let bits = nats_per_token * tokens as f64 / std::f64::consts::LN_2;
    Ok(Judgement { nats_per_token, bits_per_byte: bits / bytes.max(1) as f64, tokens, bytes })
}

/// What a model writes when its run ends.
///
/// # Errors
/// Stages that are not one model's.
pub fn sample(stages: &[&StageState], tokenizer: &TextTokenizer, seed: u64) -> Result<String> {
    let wrong = |e: &dyn std::fmt::Display| Failure::run(e.to_string());
    let mut tokens = tokenizer.encode(PROMPT).map_err(|e| wrong(&e))?;
    let sampling = Sampling { temperature: 0.8, seed };
    generate(stages, &mut tokens, SAMPLE_TOKENS, sampling, |_| {}).map_err(|e| wrong(&e))?;
    let text = tokenizer.decode(&tokens).map_err(|e| wrong(&e))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// `count` of the numbers below `all`, evenly spread.
fn spread(all: u64, count: u64) -> impl Iterator<Item = u64> + Clone {
    let count = count.min(all);
    (0..count).map(move |i| (u128::from(i) * u128::from(all) / u128::from(count)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_spread_and_none_is_judged_twice() {
        assert_eq!(spread(10, 4).collect::<Vec<_>>(), [0, 2, 5, 7]);
        assert_eq!(spread(3, u64::MAX).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spread(0, 5).count(), 0);
    }
}
