//! FLOPs and bytes of a stage, from the run alone: what planning needs to know.
//!
//! A fused multiply-add counts as two. Per token, a matrix of `in x out` costs `2 * in * out` forward and twice that
//! backward. Causal attention sees `(context + 1) / 2` keys on average, at `2 * dim` per key and product: two products
//! forward; backward seven, because scores are computed again for keys and for queries.

use crate::model::{Layout, Role};
use spec::{Outer, Run};

/// What one stage costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageCost {
    /// Parameters.
    pub parameters: u64,
    /// FLOPs of one microbatch's forward.
    pub forward_flops: u64,
    /// FLOPs of one microbatch's backward, without recomputation.
    pub backward_flops: u64,
    /// Bytes of the weights.
    pub weights_bytes: u64,
    /// Bytes held while training, without activations: weights, moments, gradient, and, where a step has several members,
    /// its spare; with an outer optimizer also residual, momentum and the weights of the last merge.
    pub state_bytes: u64,
    /// Bytes of the activations kept of one microbatch between forward and backward.
    pub activation_bytes: u64,
    /// Bytes of one boundary payload.
    pub payload_bytes: u64,
}

impl StageCost {
    /// The cost of stage `index`; `None` if the cut has no such stage.
    pub fn of(run: &Run, index: usize) -> Option<Self> {
        let model = &run.model;
        let shape = model.stage(index)?;
        let layout = Layout::new(model, &shape);
        let tokens = run.microbatch_tokens();
        let matrices: u64 = layout
            .entries()
            .iter()
            .filter(|entry| entry.shape.len() == 2 && entry.role != Role::Embedding)
            .map(|entry| entry.range.len() as u64)
            .sum();
        let blocks = u64::from(shape.blocks);
        let dim = u64::from(model.dim);
        let product = blocks * dim * (u64::from(model.context) + 1);
        let parameters = layout.values() as u64;
        let arrays = 4 + u64::from(run.inner.members > 1) + if run.outer == Outer::None { 0 } else { 3 };
        Some(Self {
            parameters,
            forward_flops: tokens * (2 * matrices + 2 * product),
            backward_flops: tokens * (4 * matrices + 7 * product),
            weights_bytes: 4 * parameters,
            state_bytes: 4 * arrays * parameters,
            activation_bytes: 4 * tokens * activation_values(run, index),
            payload_bytes: crate::payload::Expected::of(run, crate::payload::Kind::Activation).encoded_len()
                as u64,
        })
    }
}

/// Values on the tape, per token.
fn activation_values(run: &Run, index: usize) -> u64 {
    let model = &run.model;
    let Some(shape) = model.stage(index) else { return 0 };
    let (dim, ffn, vocab) = (u64::from(model.dim), u64::from(model.ffn), u64::from(model.vocab));
    let kv = u64::from(model.kv_heads * model.head_dim());
    // dim: turned q, attention, h, y. kv: turned k, v. ffn: gate, up. Small: two reciprocal roots, and maximum and sum of
    // every head.
    let block = 4 * dim + 2 * kv + 2 * ffn + 2 + 2 * u64::from(model.heads);
    // The norm's reciprocal root, the gradient of the logits, loss.
    let tail = if shape.kind.judges() { 1 + vocab + 1 } else { 0 };
    dim + u64::from(shape.blocks) * block + tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Goal, Input, Stage};
    use crate::tensor::Tensor;
    use crate::testing::run;

    #[test]
    fn activation_bytes_are_what_the_tape_holds() {
        let run = run(&[1, 2, 1]);
        let rows = run.microbatch_tokens() as usize;
        let tokens = vec![1; rows];
        for index in 0..3 {
            let stage = Stage::new(&run.model, index).unwrap();
            let input = match index {
                0 => Input::Tokens(&tokens),
                _ => Input::Activation(Tensor::new(&[rows, 24], vec![0.0; rows * 24])),
            };
            let tape = stage.forward(&stage.initial_weights(1), input, Goal::Loss(&tokens), 12).unwrap();
            let cost = StageCost::of(&run, index).unwrap();
            assert_eq!(cost.activation_bytes, 4 * tape.values() as u64, "stage {index}");
            assert_eq!(cost.parameters, run.model.stage_parameters(index));
        }
        assert_eq!(StageCost::of(&run, 3), None);
    }

    #[test]
    fn forward_is_near_two_flops_per_weight_and_token() {
        let run = run(&[1, 2, 1]);
        let body = StageCost::of(&run, 1).unwrap();
        let per_token = body.forward_flops as f64 / run.microbatch_tokens() as f64;
        let ratio = per_token / (2.0 * body.parameters as f64);
        assert!((0.99..1.2).contains(&ratio), "{ratio}");
        assert!(body.backward_flops > 2 * body.forward_flops);
    }
}
