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
use crate::ops;
use crate::tensor::Values;
use kernels::adamw::{BiasCorrection, Constants, Hyper};
use kernels::common::host;
use kernels::device::DeviceError;
use kernels::reduce;
use spec::{Outcome, Run};

/// A larger norm after clipping counts as not finite.
const CLIPPED_NORM_MAX: f64 = 1e9;

/// A weight below the first, times a factor below the second, that grows by less than the first, is far inside f32.
const WEIGHT_SAFE: f64 = 1e37;
const DECAY_SAFE: f32 = 8.0;

/// Weights and moments of a stage, flat, in canonical order.
#[derive(Debug)]
pub struct Moving<'a> {
    /// Weights.
    pub weights: &'a mut Values,
    /// First moments.
    pub m: &'a mut Values,
    /// Second moments.
    pub v: &'a mut Values,
    /// Room for a copy of the weights, empty or as long as they are.
    pub spare: &'a mut Values,
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
///
/// # Errors
/// The device has no memory left, or is lost; the state is of no use then.
pub fn step(
    run: &Run,
    stage: &Stage,
    (epoch, step): (u32, u32),
    members: usize,
    gradients: &mut Values,
    moving: Moving<'_>,
) -> Result<Outcome, DeviceError> {
    // Of one member there is nothing to divide.
    if members > 1 {
        let share = (1.0 / members as f64) as f32;
        ops::scale(gradients.all_mut(), share)?;
    }
    let norm = ops::norm(stage.layout(), gradients.all())?;
    let model = stage.model();
    let clip =
        reduce::stage_clip(run.inner.clip, model.stage_parameters(stage.shape().index), model.parameters());
    let Some(scale) = reduce::clip_scale(norm, clip) else { return Ok(Outcome::NonFinite) };
    if norm * f64::from(scale) > CLIPPED_NORM_MAX {
        return Ok(Outcome::NonFinite);
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
        && ops::first_beyond(moving.weights.all(), WEIGHT_SAFE as f32)?.is_none();
    let Moving { weights, m, v, spare, .. } = moving;
    if !safe {
        if spare.is_empty() {
            *spare = Values::zeros(&weights.all().device(), weights.len())?;
        }
        ops::copy(weights.all(), spare.all_mut())?;
    }
    ops::adamw(constants, gradients.all(), weights.all_mut(), m.all_mut(), v.all_mut())?;
    if !safe && ops::first_beyond(weights.all(), f32::INFINITY)?.is_some() {
        std::mem::swap(weights, spare);
        return Ok(Outcome::NonFinite);
    }
    Ok(Outcome::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;

    /// What a step moves, on the host.
    struct Moved {
        weights: Values,
        m: Values,
        v: Values,
        spare: Values,
    }

    impl Moved {
        fn from(weights: Vec<f32>) -> Self {
            let zeros = || Values::Host(vec![0.0; weights.len()]);
            Self { m: zeros(), v: zeros(), spare: Values::Host(vec![]), weights: Values::Host(weights) }
        }

        /// One step, all gradients being `gradient`.
        fn step(
            &mut self,
            run: &Run,
            stage: &Stage,
            at: (u32, u32),
            members: usize,
            gradient: f32,
        ) -> Outcome {
            let mut gradients = Values::Host(vec![gradient; self.weights.len()]);
            let Self { weights, m, v, spare } = self;
            let moving = Moving { weights, m, v, spare, bias: &mut BiasCorrection::default() };
            step(run, stage, at, members, &mut gradients, moving).unwrap()
        }
    }

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
            let mut moved = Moved::from(vec![1.0; n]);
            let Values::Host(weights) = &mut moved.weights else { unreachable!("on the host") };
            weights[n - 1] = largest;
            let outcome = moved.step(&run, &stage, (0, 3), 1, 1e-3);
            let weights = moved.weights.host();
            (outcome, weights[0], weights[n - 1], moved.m.host()[0])
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
            let mut moved = Moved::from(vec![0.0; n]);
            let outcome = moved.step(&run, &stage, (0, 0), 2, size);
            (outcome, moved.m.host().to_vec())
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
