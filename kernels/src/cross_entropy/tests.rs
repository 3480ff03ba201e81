//! What is peculiar to the room.

use super::{Forward, cpu, forward, mean_q32};
use crate::{
    SimdPath,
    common::gradient::{check, numbers},
};

#[test]
fn the_gradient_is_the_derivative_of_the_loss() {
    let (rows, vocab) = (6, 50);
    let logits = numbers(1, rows * vocab);
    let targets: Vec<u32> = (0..rows as u32).map(|row| row * 7).collect();
    let weight = 1.0 / rows as f32;
    let (mut loss, mut dlogits) = (vec![0.0; rows], vec![0.0; rows * vocab]);
    forward(&Forward { rows, vocab, logits: &logits, targets: &targets, weight }, &mut loss, &mut dlogits);
    let objective = |at: &[Vec<f64>]| {
        at[0]
            .chunks(vocab)
            .zip(&targets)
            .map(|(z, &target)| z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[target as usize])
            .sum::<f64>()
            / rows as f64
    };
    check(objective, &[&logits], &[("dlogits", &dlogits)], 1e-6);
    let exact = objective(&[logits.iter().map(|z| f64::from(*z)).collect()]);
    let mean = mean_q32(&loss).unwrap() as f64 / 2f64.powi(32);
    assert!((mean - exact).abs() < 1e-6);
}

#[test]
fn the_mean_is_the_same_in_any_order() {
    let mut loss: Vec<f32> = numbers(1, 1000).iter().map(|x| x.abs() * 10.0).collect();
    let forward = mean_q32(&loss);
    loss.reverse();
    assert_eq!(forward, mean_q32(&loss));
    loss[3] = f32::INFINITY;
    assert_eq!((mean_q32(&loss), mean_q32(&[])), (None, None));
}

#[test]
fn means_are_exact_in_fixed_point() {
    assert_eq!(mean_q32(&[1.0, 2.0]), Some(3 << 31));
    assert_eq!(mean_q32(&[0.0, 0.0, 2f32.powi(-32)]), Some(0));
    assert_eq!(mean_q32(&[0.0, 2f32.powi(-32)]), Some(1));
    assert_eq!(mean_q32(&[0.0, -2f32.powi(-32)]), Some(0));
    assert_eq!(mean_q32(&[f32::MAX; 3]), Some(i64::MAX));
}

#[test]
fn large_logits_keep_a_finite_loss() {
    let logits = [1e30, -1e30, 0.0];
    let (mut loss, mut dlogits) = ([0.0; 1], [0.0; 3]);
    forward(
        &Forward { rows: 1, vocab: 3, logits: &logits, targets: &[1], weight: 1.0 },
        &mut loss,
        &mut dlogits,
    );
    assert_eq!((loss[0], dlogits), (2e30, [1.0, -1.0, 0.0]));
}

#[test]
fn the_gradient_written_over_the_logits_is_the_gradient() {
    let (rows, vocab, weight) = (5, 4100, 0.2);
    let logits = numbers(1, rows * vocab);
    let targets: Vec<u32> = (0..rows as u32).map(|row| row * 1000).collect();
    let args = Forward { rows, vocab, logits: &logits, targets: &targets, weight };
    for path in SimdPath::available() {
        let (mut loss, mut dlogits) = (vec![0.0; rows], vec![0.0; rows * vocab]);
        cpu::forward(path, &args, &mut loss, &mut dlogits);
        let (mut loss_too, mut values) = (vec![0.0; rows], logits.clone());
        cpu::forward_in_place(path, (vocab, &targets, weight), &mut loss_too, &mut values);
        assert!(loss == loss_too && dlogits == values, "{path:?}");
    }
}
