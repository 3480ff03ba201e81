//! What is peculiar to the room.

use super::{BiasCorrection, Constants, Hyper, Step, step};
use crate::common::gradient::numbers;

const HYPER: Hyper = Hyper { lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

#[test]
fn a_hundred_steps_follow_the_textbook() {
    let n = 50;
    let start = numbers(1, n);
    let (mut p, mut m, mut v) = (start.clone(), vec![0.0; n], vec![0.0; n]);
    let mut exact: Vec<[f64; 3]> = start.iter().map(|p| [f64::from(*p), 0.0, 0.0]).collect();
    let mut bias = BiasCorrection::default();
    let [lr, b1, b2, eps, wd] =
        [HYPER.lr, HYPER.beta1, HYPER.beta2, HYPER.eps, HYPER.weight_decay].map(f64::from);
    for t in 1..=100 {
        let g = numbers(1 + t, n);
        bias.advance(&HYPER);
        assert_eq!(bias, BiasCorrection::after(&HYPER, u64::from(t)));
        step(&Step { constants: Constants::new(&HYPER, &bias, 0.5), g: &g }, &mut p, &mut m, &mut v);
        for (state, g) in exact.iter_mut().zip(&g) {
            let g = 0.5 * f64::from(*g);
            state[1] = b1 * state[1] + (1.0 - b1) * g;
            state[2] = b2 * state[2] + (1.0 - b2) * g * g;
            let unbiased = |x: f64, b: f64| x / (1.0 - b.powi(t as i32));
            let u = unbiased(state[1], b1) / (unbiased(state[2], b2).sqrt() + eps);
            state[0] = state[0] * (1.0 - lr * wd) - lr * u;
        }
    }
    for (i, (p, exact)) in p.iter().zip(&exact).enumerate() {
        // The decay, rounded to f32, is a hundred times off by up to 3e-8 of a weight.
        assert!((f64::from(*p) - exact[0]).abs() < 1e-5, "weight {i}: {p} against {}", exact[0]);
    }
}
