//! Text from a model, token by token.
//!
//! While the text fits the model's context, keys and values of earlier tokens are kept and only the new token is computed,
//! to the same bits. Beyond it, positions shift, and the model is evaluated anew on the last `context` tokens: what it says
//! is always what [`evaluate`] says, and the same on every machine.
//!
//! ```text
//! temperature 0:  the token with the highest logit, the lowest id among equals
//! else:           p(i) = exp((logit i - highest) / temperature), f64;   u = uniform number n of the seed's Philox stream;
//!                 the first token whose running sum exceeds u * total, sums ascending
//! ```

use crate::evaluate::{self, EvaluateError};
use crate::model::Past;
use crate::state::StageState;
use kernels::common::host;
use kernels::device::Device;
use kernels::philox::{self, Stream};

/// `purpose` of the streams that tokens are drawn from.
const PURPOSE: u32 = 0x6765_6E31;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token; 1 draws from the model's distribution.
    pub temperature: f64,
    /// Seed of the draws.
    pub seed: u64,
}

/// Appends `count` tokens to `tokens`, calling `each` with every one.
///
/// # Errors
/// The stages are not one model's, or `tokens` is empty or holds a token that the model does not know.
pub fn generate(
    stages: &[&StageState],
    tokens: &mut Vec<u32>,
    count: usize,
    sampling: Sampling,
    mut each: impl FnMut(u32),
) -> Result<(), EvaluateError> {
    // Keys and values of the past are kept on the host.
    let elsewhere = stages.iter().any(|state| !matches!(state.device(), Device::Cpu));
    let copies = if elsewhere {
        stages.iter().map(|state| state.to_read()).collect::<Result<Vec<_>, _>>()?
    } else {
        Vec::new()
    };
    let copied: Vec<&StageState> = copies.iter().collect();
    let stages = if elsewhere { &copied } else { stages };
    let context = stages.first().map_or(1, |head| head.stage().model().context as usize);
    let mut pasts: Vec<Past> = stages.iter().map(|state| Past::new(state.stage())).collect();
    for number in 0..count {
        let logits = if tokens.len() <= context {
            let seen = pasts.first().map_or(0, Past::tokens);
            evaluate::logits_after(stages, &mut pasts, &tokens[seen..])?
        } else {
            evaluate::logits(stages, &tokens[tokens.len() - context..])?
        };
        let token = choose(logits.row(logits.rows() - 1), sampling, number as u64);
        tokens.push(token);
        each(token);
    }
    Ok(())
}

/// The token that follows, as drawn for the `number`-th time.
pub fn choose(logits: &[f32], sampling: Sampling, number: u64) -> u32 {
    let mut likeliest = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[likeliest] {
            likeliest = token;
        }
    }
    if sampling.temperature <= 0.0 {
        return likeliest as u32;
    }
    let highest = f64::from(logits[likeliest]);
    let weight = |logit: &f32| host::exp(((f64::from(*logit) - highest) / sampling.temperature).max(-700.0));
    let weights: Vec<f64> = logits.iter().map(weight).collect();
    let (seed, tensor) = (sampling.seed as u32, (sampling.seed >> 32) as u32);
    let mut uniform = [0.0];
    philox::uniform(&Stream { seed, tensor, step: 0, purpose: PURPOSE }, number, &mut uniform);
    let bound = f64::from(uniform[0]) * weights.iter().sum::<f64>();
    let mut sum = 0.0;
    for (token, weight) in weights.iter().enumerate() {
        sum += weight;
        if sum > bound {
            return token as u32;
        }
    }
    likeliest as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Pipeline, run};

    const GREEDY: Sampling = Sampling { temperature: 0.0, seed: 0 };

    #[test]
    fn draws_follow_the_distribution() {
        // Probabilities 1/7, 2/7, 4/7 at temperature 1.
        let logits = [0.0, 2f32.ln(), 4f32.ln()];
        let mut counts = [0u32; 3];
        for number in 0..7000 {
            counts[choose(&logits, Sampling { temperature: 1.0, seed: 3 }, number) as usize] += 1;
        }
        for (token, expected) in [1000, 2000, 4000].into_iter().enumerate() {
            assert!(counts[token].abs_diff(expected) < 150, "{counts:?}");
        }
        assert_eq!(choose(&[1.0, 3.0, 3.0], GREEDY, 0), 1);
        assert!((0..100).all(|n| choose(&logits, Sampling { temperature: 0.01, seed: 1 }, n) == 2));
    }

    #[test]
    fn a_seed_gives_one_text_and_the_context_slides() {
        let pipeline = Pipeline::new(&run(&[1, 1]));
        let text = |seed| {
            let mut tokens = vec![104, 101];
            let mut seen = vec![];
            let sampling = Sampling { temperature: 1.0, seed };
            generate(&pipeline.references(), &mut tokens, 20, sampling, |token| seen.push(token)).unwrap();
            assert_eq!(tokens[2..], seen);
            seen
        };
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
    }

    #[test]
    fn what_is_kept_of_the_past_shows_in_no_bit() {
        for cut in [&[3][..], &[1, 2]] {
            let pipeline = Pipeline::new(&run(cut));
            let stages = pipeline.references();
            let tokens: Vec<u32> = (0..12).map(|i| i * 37 % 256).collect();
            let whole = evaluate::logits(&stages, &tokens).unwrap();
            // One by one, in pieces, all at once.
            for pieces in [&[1; 12][..], &[5, 1, 6], &[12]] {
                let mut pasts: Vec<Past> = stages.iter().map(|state| Past::new(state.stage())).collect();
                let mut seen = 0;
                for piece in pieces {
                    let next = &tokens[seen..seen + piece];
                    let logits = evaluate::logits_after(&stages, &mut pasts, next).unwrap();
                    for row in 0..*piece {
                        assert!(
                            logits.row(row) == whole.row(seen + row),
                            "{cut:?} {pieces:?}: {}",
                            seen + row
                        );
                    }
                    seen += piece;
                }
                let said = evaluate::logits_after(&stages, &mut pasts, &[1]).unwrap_err().to_string();
                assert!(said.contains("number of tokens is 1, expected 1 to 0"), "{said}");
            }
        }
    }

    #[test]
    fn a_text_is_the_one_of_a_model_that_keeps_nothing() {
        let pipeline = Pipeline::new(&run(&[1, 1]));
        let stages = pipeline.references();
        let sampling = Sampling { temperature: 1.0, seed: 5 };
        let (mut kept, mut plain) = (vec![104, 101], vec![104, 101]);
        generate(&stages, &mut kept, 20, sampling, |_| {}).unwrap();
        for number in 0..20 {
            let window = &plain[plain.len().saturating_sub(12)..];
            let logits = evaluate::logits(&stages, window).unwrap();
            plain.push(choose(logits.row(window.len() - 1), sampling, number));
        }
        assert_eq!(kept, plain);
    }
}
