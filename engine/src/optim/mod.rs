//! The inner optimizer over a whole stage: learning rate, clip, AdamW.
//!
//! ```text
//! n    = epoch * steps per epoch + step, counted from 0
//! lr   = peak * (n + 1) / warmup                                           for n < warmup
//!      = final + (peak - final) * (1 + cos(pi * x)) / 2,  x = (n - warmup) / (total - warmup)   after it
//! ```
//!
//! In f64, with the cosine of `kernels::common::host` (own polynomial, no libm), rounded to f32 once.
//!
//! One step on a gradient folded from `members` microbatches: every value times f32(1/members); the norm over the stage's
//! tensors; the factor of the clip, the stage's share being `clip * sqrt(parameters of the stage / of the model)`; then
//! AdamW, whose bias corrections are f64 running products.

use crate::model::Stage;
use crate::tensor::{all_below, all_finite, copy};
use kernels::adamw::{self, BiasCorrection, Constants, Hyper};
use kernels::common::host;
use kernels::reduce;
use rayon::prelude::*;
use spec::{Outcome, Run};

/// Values of one piece of work when a pass over an array is shared among threads; elementwise, so any cut gives the same
/// bits.
const PIECE: usize = 1 << 16;

/// A larger norm after clipping counts as not finite.
const CLIPPED_NORM_MAX: f64 = 1e9;

/// A weight below the first, times a factor below the second, that grows by less than the first, is far inside f32.
const WEIGHT_SAFE: f64 = 1e37;
const DECAY_SAFE: f32 = 8.0;

/// Weights and moments of a stage, flat, in canonical order.
#[derive(Debug)]
pub struct Moving<'a> {
    /// Weights.
    pub weights: &'a mut [f32],
    /// First moments.
    pub m: &'a mut [f32],
    /// Second moments.
    pub v: &'a mut [f32],
    /// Running products of the betas.
    pub bias: &'a mut BiasCorrection,
}

/// The learning rate of inner step `step` of `epoch`.
pub fn learning_rate(run: &Run, epoch: u32, step: u32) -> f32 {
    let (peak, last) = (run.inner.lr, run.inner.lr_final);
    let n = u64::from(epoch) * u64::from(run.epoch.steps) + u64::from(step);
    let warmup = u64::from(run.inner.warmup_steps);
    if n < warmup {
        return (peak * (n + 1) as f64 / warmup as f64) as f32;
    }
    let total = run.total_steps();
    if n >= total {
        return last as f32;
    }
    let x = (n - warmup) as f64 / (total - warmup) as f64;
    let (cos, _) = host::cos_sin(std::f64::consts::PI * x);
    (last + (peak - last) * (1.0 + cos) / 2.0) as f32
}

/// One step. The gradients, sums over `members` microbatches, are left scaled.
///
/// `NonFinite`, with nothing moved, if the clipped norm exceeds 1e9 or is no number. Otherwise |m| <= 1e9 and v <= 1e18 by
/// induction, so moments stay finite for ever. A weight that leaves f32 all the same also makes the outcome `NonFinite`:
/// then the moments have moved and the weights have not.
///
/// A copy of the weights is kept for that only where they could leave: where one is huge already, or a step can be.
pub fn step(
    run: &Run,
    stage: &Stage,
    (epoch, step): (u32, u32),
    members: usize,
    gradients: &mut [f32],
    moving: Moving<'_>,
) -> Outcome {
    // Of one member there is nothing to divide.
    if members > 1 {
        let share = (1.0 / members as f64) as f32;
        gradients.par_chunks_mut(PIECE).for_each(|piece| piece.iter_mut().for_each(|g| *g *= share));
    }
    let entries = stage.layout().entries();
    let squares = entries.iter().map(|entry| reduce::sum_squares(&gradients[entry.range.clone()]));
    let norm = reduce::global_norm(squares);
    let model = stage.model();
    let clip =
        reduce::stage_clip(run.inner.clip, model.stage_parameters(stage.shape().index), model.parameters());
    let Some(scale) = reduce::clip_scale(norm, clip) else { return Outcome::NonFinite };
    if norm * f64::from(scale) > CLIPPED_NORM_MAX {
        return Outcome::NonFinite;
    }
    let hyper = Hyper {
        lr: learning_rate(run, epoch, step),
        beta1: run.inner.beta1,
        beta2: run.inner.beta2,
        eps: run.inner.eps,
        weight_decay: run.inner.weight_decay,
    };
    moving.bias.advance(&hyper);
    let constants = Constants::new(&hyper, moving.bias, scale);
    // |m * c1| over the denominator is at most this, and a weight grows by at most lr times that.
    let farthest = f64::from(hyper.lr) * CLIPPED_NORM_MAX * f64::from(constants.c1) / f64::from(hyper.eps);
    // An `eps` of 0 makes it infinite, or no number: not safe either.
    let safe = farthest < WEIGHT_SAFE
        && constants.decay.abs() < DECAY_SAFE
        && all_below(moving.weights, WEIGHT_SAFE as f32);
    let before = (!safe).then(|| moving.weights.to_vec());
    adamw::step(&adamw::Step { constants, g: gradients }, moving.weights, moving.m, moving.v);
    match before {
        Some(before) if !all_finite(moving.weights) => {
            copy(moving.weights, &before);
            Outcome::NonFinite
        }
        _ => Outcome::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;

    #[test]
    fn the_learning_rate_climbs_then_follows_the_cosine() {
        let run = run(&[1]);
        let (warmup, total) = (2, 40);
        for n in 0..total {
            let found = f64::from(learning_rate(&run, n / 4, n % 4));
            let x = f64::from(n.saturating_sub(warmup)) / f64::from(total - warmup);
            let cosine = 1e-3 + 9e-3 * (1.0 + (std::f64::consts::PI * x).cos()) / 2.0;
            let expected = if n < warmup { 1e-2 * f64::from(n + 1) / 2.0 } else { cosine };
            assert!((found - expected).abs() < 1e-8, "step {n}: {found}, expected {expected}");
        }
        assert_eq!(learning_rate(&run, 10, 0), 1e-3);
    }

    #[test]
    fn a_weight_that_leaves_f32_takes_its_step_back() {
        let mut run = run(&[1]);
        // Weights grow by decay of the wrong sign, and the largest leaves.
        run.inner.weight_decay = -50.0;
        let stage = Stage::new(&run.model, 0).unwrap();
        let n = stage.layout().values();
        let after = |largest: f32| {
            let (mut weights, mut m, mut v) = (vec![1.0; n], vec![0.0; n], vec![0.0; n]);
            weights[n - 1] = largest;
            let mut bias = BiasCorrection::default();
            let moving = Moving { weights: &mut weights, m: &mut m, v: &mut v, bias: &mut bias };
            let outcome = step(&run, &stage, (0, 3), 1, &mut vec![1e-3; n], moving);
            (outcome, weights[0], weights[n - 1], m[0])
        };
        let (outcome, first, last, m) = after(3e38);
        assert_eq!((outcome, first, last), (Outcome::NonFinite, 1.0, 3e38));
        assert!(m != 0.0, "the moments have moved");
        let (outcome, first, last, _) = after(2e37);
        assert!(outcome == Outcome::Ok && first != 1.0 && last.is_finite() && last != 2e37);
    }

    #[test]
    fn a_gradient_beyond_the_clip_moves_as_one_at_the_clip() {
        let mut run = run(&[1]);
        run.inner.clip = 0.5;
        let stage = Stage::new(&run.model, 0).unwrap();
        let n = stage.layout().values();
        let moments = |size: f32| {
            let (mut weights, mut m, mut v) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
            let mut bias = BiasCorrection::default();
            let moving = Moving { weights: &mut weights, m: &mut m, v: &mut v, bias: &mut bias };
            let outcome = step(&run, &stage, (0, 0), 2, &mut vec![size; n], moving);
            (outcome, m)
        };
        let norm = |m: &[f32]| m.iter().map(|&m| f64::from(m) * f64::from(m)).sum::<f64>().sqrt() / 0.1;
        let (outcome, m) = moments(100.0);
        assert_eq!(outcome, Outcome::Ok);
        assert!((norm(&m) - 0.5).abs() < 1e-4, "clipped to {}", norm(&m));
        let (_, m) = moments(1e-4);
        assert!((norm(&m) - 0.5e-4 * (n as f64).sqrt()).abs() < 1e-6, "half the sum of two members");
        let (outcome, m) = moments(f32::INFINITY);
        assert_eq!(outcome, Outcome::NonFinite);
        assert!(m.iter().all(|&m| m == 0.0));
    }
}
