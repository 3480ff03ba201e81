//! Backward passes against finite differences of the formula in f64.

use crate::philox::{self, Stream};

/// Ordinary numbers for a test.
pub(crate) fn numbers(tensor: u32, n: usize) -> Vec<f32> {
    let mut x = vec![0.0; n];
    philox::normal(&Stream { seed: 11, tensor, step: 0, purpose: 0 }, 0, 1.0, &mut x);
    x
}

/// Holds `gradients` against central differences of `objective` at `inputs`, on up to 60 elements of each input.
#[track_caller]
pub(crate) fn check(
    objective: impl Fn(&[Vec<f64>]) -> f64,
    inputs: &[&[f32]],
    gradients: &[(&str, &[f32])],
    tolerance: f64,
) {
    const STEP: f64 = 1e-5;
    let mut at: Vec<Vec<f64>> = inputs.iter().map(|x| x.iter().map(|v| f64::from(*v)).collect()).collect();
    for (index, (name, gradient)) in gradients.iter().enumerate() {
        assert_eq!(gradient.len(), at[index].len(), "{name}");
        for i in (0..gradient.len()).step_by(gradient.len().div_ceil(60)) {
            let x = at[index][i];
            at[index][i] = x + STEP;
            let above = objective(&at);
            at[index][i] = x - STEP;
            let below = objective(&at);
            at[index][i] = x;
            let (expected, found) = ((above - below) / (2.0 * STEP), f64::from(gradient[i]));
            assert!(
                (expected - found).abs() <= tolerance * (1.0 + expected.abs()),
                "{name}[{i}]: finite difference {expected}, backward {found}"
            );
        }
    }
}

/// The sum of `a * b`: an objective whose gradient of `a` is `b`.
pub(crate) fn weigh(a: &[f64], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum()
}
