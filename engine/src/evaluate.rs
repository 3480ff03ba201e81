//! Logits and loss of a whole model, given as the states of all its stages.
//!
//! Stages hand over f32 values as they are, without the boundary codec: this is the model that gets exported.

use crate::checkpoint::CheckpointError;
use crate::data::{DataError, TokenShard};
use crate::model::{Goal, Input, Past};
use crate::state::StageState;
use crate::tensor::Tensor;
use kernels::cross_entropy;
use kernels::device::DeviceError;
use kernels::reduce;

/// A model that cannot be evaluated like this.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The tokens cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Not all stages of one run, in order.
    #[error(
        "evaluate: expected stages 0 to {expected} of one run in order, found stage {found} at place {place}"
    )]
    Stages {
        /// Index of the tail.
        expected: usize,
        /// Index of the stage found (the number of stages, if one is missing).
        found: usize,
        /// Where it stood.
        place: usize,
    },
    /// A prompt the model cannot read.
    #[error("evaluate: {what} is {found}, expected {expected}")]
    Prompt {
        /// Length or token.
        what: &'static str,
        /// Its value.
        found: usize,
        /// What would be legal.
        expected: String,
    },
    /// The loss is NaN or infinite.
    #[error("evaluate: the loss over window {window} is not finite")]
    NonFinite {
        /// The window.
        window: u64,
    },
    /// The device that holds a stage has no memory left, or is lost.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A stage cannot be copied to the host.
    #[error(transparent)]
    State(#[from] CheckpointError),
    /// No windows at all.
    #[error("evaluate: no window of the shard was asked for, expected at least one")]
    Nothing,
}

/// Logits of one sequence of 1 to `context` tokens: [tokens, vocab].
///
/// # Errors
/// The stages are not one model's, or the prompt is not readable by it.
pub fn logits(stages: &[&StageState], tokens: &[u32]) -> Result<Tensor, EvaluateError> {
    check_prompt(stages, tokens, 0)?;
    chain(stages, tokens, Goal::Logits)
}

/// Logits of the tokens that follow those in `pasts`, which has one past a stage and holds them too afterwards: to the bit
/// those rows of [`logits`] of the whole sequence. The stages are on the host.
///
/// # Errors
/// As [`logits`], of the whole sequence.
pub fn logits_after(
    stages: &[&StageState],
    pasts: &mut [Past],
    tokens: &[u32],
) -> Result<Tensor, EvaluateError> {
    check_prompt(stages, tokens, pasts.first().map_or(0, Past::tokens))?;
    let mut activation = None;
    for (state, past) in stages.iter().zip(pasts) {
        let input = activation.take().map_or(Input::Tokens(tokens), Input::Activation);
        activation = state.stage.forward_after(state.weights(), input, past)?;
    }
    Ok(activation.unwrap_or_else(|| Tensor::new(&[0], Vec::new())))
}

fn check_prompt(stages: &[&StageState], tokens: &[u32], seen: usize) -> Result<(), EvaluateError> {
    let head = check_stages(stages)?;
    let model = head.stage.model();
    if tokens.is_empty() || seen + tokens.len() > model.context as usize {
        let expected = format!("1 to {}", (model.context as usize).saturating_sub(seen));
        return Err(EvaluateError::Prompt { what: "number of tokens", found: tokens.len(), expected });
    }
    if let Some(&token) = tokens.iter().find(|&&token| token >= model.vocab) {
        let expected = format!("below {}", model.vocab);
        return Err(EvaluateError::Prompt { what: "token", found: token as usize, expected });
    }
    Ok(())
}

/// Mean loss over `windows` of `shard`, in units of 2^-32 nats per token.
///
/// # Errors
/// The stages are not one model's, the shard has no such window, or the loss is not finite.
pub fn loss_q32(
    stages: &[&StageState],
    shard: &TokenShard,
    windows: impl IntoIterator<Item = u64>,
) -> Result<i64, EvaluateError> {
    let run = &check_stages(stages)?.run;
    let mut losses = Vec::new();
    for window in windows {
        let batch = shard.window(run, window)?;
        let of_window = chain(stages, &batch.inputs, Goal::Loss(&batch.targets))?;
        if reduce::first_beyond(of_window.data(), f32::INFINITY).is_some() {
            return Err(EvaluateError::NonFinite { window });
        }
        losses.extend_from_slice(of_window.data());
    }
    cross_entropy::mean_q32(&losses).ok_or(EvaluateError::Nothing)
}

fn check_stages<'a>(stages: &[&'a StageState]) -> Result<&'a StageState, EvaluateError> {
    let count = stages.first().map_or(1, |head| head.stage.model().stage_count());
    for place in 0..count.max(stages.len()) {
        let found = stages.get(place).map_or(count, |state| state.stage.shape().index);
        if found != place || stages[place].run != stages[0].run {
            return Err(EvaluateError::Stages { expected: count - 1, found, place });
        }
    }
    Ok(stages[0])
}

/// The last value of the tail, on the host.
fn chain(stages: &[&StageState], tokens: &[u32], goal: Goal<'_>) -> Result<Tensor, EvaluateError> {
    let mut activation: Option<Tensor> = None;
    for state in stages {
        let input = activation.take().map_or(Input::Tokens(tokens), Input::Activation);
        activation = state.stage.forward(&state.weights, input, goal, tokens.len())?.into_last();
    }
    Ok(activation.map_or_else(|| Ok(Tensor::new(&[0], Vec::new())), Tensor::into_host)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Pipeline, run};

    #[test]
    fn a_later_token_changes_no_earlier_logit() {
        let pipeline = Pipeline::new(&run(&[1, 1, 1]));
        let tokens: Vec<u32> = (0..12).map(|i| i * 17 % 256).collect();
        let before = logits(&pipeline.references(), &tokens).unwrap();
        for t in 0..12 {
            let mut changed = tokens.clone();
            changed[t] = 255 - changed[t];
            let after = logits(&pipeline.references(), &changed).unwrap();
            for position in 0..12 {
                let same = before.row(position) == after.row(position);
                assert_eq!(same, position < t, "token {t} changed, logits at {position}");
            }
            let prefix = logits(&pipeline.references(), &tokens[..=t]).unwrap();
            assert_eq!(prefix.row(t), before.row(t), "a prefix of {t} + 1 tokens");
        }
    }

    #[test]
    fn the_loss_is_the_mean_over_windows_whatever_the_cut() {
        let (whole, cut) = (Pipeline::new(&run(&[3])), Pipeline::new(&run(&[1, 2])));
        let loss = |p: &Pipeline, windows: &[u64]| {
            loss_q32(&p.references(), &p.shard, windows.iter().copied()).map_err(|e| e.to_string())
        };
        let of = |windows: &[u64]| loss(&whole, windows).unwrap();
        assert_eq!(loss(&whole, &[0, 2, 4]), loss(&cut, &[0, 2, 4]));
        assert!((of(&[0, 2, 4]) - (of(&[0]) + of(&[2]) + of(&[4])) / 3).abs() <= 1);
        assert!((of(&[1]) as f64 / 2f64.powi(32) - 256f64.ln()).abs() < 1.0);
        let beyond = whole.shard.windows(12);
        assert!(loss(&whole, &[beyond]).is_err() && loss(&whole, &[]).unwrap_err().contains("no window"));
    }

    #[test]
    fn incomplete_models_and_unreadable_prompts_are_named() {
        let pipeline = Pipeline::new(&run(&[1, 1, 1]));
        let all = pipeline.references();
        let message =
            |stages: &[&StageState], tokens: &[u32]| logits(stages, tokens).unwrap_err().to_string();
        assert!(message(&[all[0], all[2]], &[1]).contains("found stage 2 at place 1"));
        assert!(message(&all[..2], &[1]).contains("found stage 3 at place 2"));
        assert!(message(&[], &[1]).contains("found stage 1 at place 0"));
        assert!(message(&all, &[1; 13]).contains("number of tokens is 13, expected 1 to 12"));
        assert!(message(&all, &[256]).contains("token is 256, expected below 256"));
    }
}
