//! AdamW, one step over one tensor.
//!
//! ```text
//! g = gradient * scale
//! m = fma(1-b1, g, b1*m)            v = fma((1-b2)*g, g, b2*v)
//! u = div_rn(m*c1, sqrt_rn(v*c2) + eps)
//! p = fma(-lr, u, p*(1 - lr*wd))
//! ```
//!
//! Everything that is the same for all elements is computed once on the host and travels as [`Constants`]. `1-b1`,
//! `1-b2`, `lr*wd` and `1 - lr*wd` are single f32 operations on the f32 hyperparameters; `c1 = f32(1/(1 - b1^t))` with
//! `b1^t` an f64 running product of `f64(b1)`, one multiplication per step, never a `pow`.

pub mod cases;
pub mod cpu;
pub mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod trials;

use crate::{
    catalogue::Cost,
    common::{shape::expect_len, simd::SimdPath},
};

/// Hyperparameters of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyper {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

/// The running products `b1^t` and `b2^t` after `t` steps; part of the optimizer's state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BiasCorrection {
    /// `b1^t`.
    pub power1: f64,
    /// `b2^t`.
    pub power2: f64,
}

impl Default for BiasCorrection {
    fn default() -> Self {
        Self { power1: 1.0, power2: 1.0 }
    }
}

impl BiasCorrection {
    /// Moves on by one step; call it before the step's [`Constants::new`].
    pub fn advance(&mut self, hyper: &Hyper) {
        self.power1 *= f64::from(hyper.beta1);
        self.power2 *= f64::from(hyper.beta2);
    }

    /// The state after `steps` steps, by the same running products.
    pub fn after(hyper: &Hyper, steps: u64) -> Self {
        let mut state = Self::default();
        for _ in 0..steps {
            state.advance(hyper);
        }
        state
    }
}

/// What every element of a step shares, as the kernels take it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Constants {
    /// Factor of the gradient: the clip scale, 1 for none.
    pub grad_scale: f32,
    /// `b1`.
    pub beta1: f32,
    /// `1 - b1`.
    pub one_minus_beta1: f32,
    /// `b2`.
    pub beta2: f32,
    /// `1 - b2`.
    pub one_minus_beta2: f32,
    /// Bias correction of the first moment.
    pub c1: f32,
    /// Bias correction of the second moment.
    pub c2: f32,
    /// `eps`.
    pub eps: f32,
    /// `-lr`.
    pub minus_lr: f32,
    /// `1 - lr * weight_decay`.
    pub decay: f32,
}

impl Constants {
    /// The constants of the step that `bias` has just been advanced to.
    pub fn new(hyper: &Hyper, bias: &BiasCorrection, grad_scale: f32) -> Self {
        let lr_wd = hyper.lr * hyper.weight_decay;
        Self {
            grad_scale,
            beta1: hyper.beta1,
            one_minus_beta1: 1.0 - hyper.beta1,
            beta2: hyper.beta2,
            one_minus_beta2: 1.0 - hyper.beta2,
            c1: (1.0 / (1.0 - bias.power1)) as f32,
            c2: (1.0 / (1.0 - bias.power2)) as f32,
            eps: hyper.eps,
            minus_lr: -hyper.lr,
            decay: 1.0 - lr_wd,
        }
    }
}

/// Inputs of a step.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// What all elements share.
    pub constants: Constants,
    /// Gradient.
    pub g: &'a [f32],
}

/// Moves the weights `p` and the moments `m`, `v` one step; all four slices are of one length.
pub fn step(args: &Step<'_>, p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    cpu::step(SimdPath::best(), args, p, m, v);
}

/// Cost of a step over `count` weights: g, p, m, v in, p, m, v out.
pub fn cost(count: usize) -> Cost {
    Cost { bytes: 28 * count as u64, flops: 16 * count as u64 }
}

impl Step<'_> {
    #[track_caller]
    fn check(&self, p: &[f32], m: &[f32], v: &[f32]) {
        expect_len("adamw::step", "p", p.len(), self.g.len());
        expect_len("adamw::step", "m", m.len(), self.g.len());
        expect_len("adamw::step", "v", v.len(), self.g.len());
    }
}
