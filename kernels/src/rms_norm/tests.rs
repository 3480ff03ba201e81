//! What is peculiar to the room.

use super::{Backward, Forward, GRADIENT_ROWS, backward, cpu, forward};
use crate::{
    SimdPath,
    common::gradient::{check, numbers, weigh},
};

const EPS: f32 = 1e-5;

fn formula(rows: usize, dim: usize, x: &[f64], w: &[f64]) -> Vec<f64> {
    (0..rows * dim)
        .map(|at| {
            let row = &x[at / dim * dim..][..dim];
            let ms = row.iter().map(|x| x * x).sum::<f64>() / dim as f64;
            row[at % dim] / (ms + f64::from(EPS)).sqrt() * w[at % dim]
        })
        .collect()
}

#[test]
fn backward_is_the_derivative() {
    let (rows, dim) = (70, 37);
    let (x, w, dy) = (numbers(1, rows * dim), numbers(2, dim), numbers(3, rows * dim));
    let (mut y, mut r) = (vec![0.0; rows * dim], vec![0.0; rows]);
    forward(&Forward { rows, dim, eps: EPS, x: &x, w: &w }, &mut y, &mut r);
    let (mut dx, mut dw) = (vec![0.0; rows * dim], vec![0.0; dim]);
    backward(&Backward { rows, dim, x: &x, w: &w, r: &r, dy: &dy }, &mut dx, &mut dw);
    let objective = |at: &[Vec<f64>]| weigh(&formula(rows, dim, &at[0], &at[1]), &dy);
    check(objective, &[&x, &w], &[("dx", &dx), ("dw", &dw)], 2e-5);
}

#[test]
fn the_weight_gradient_is_the_same_in_calls_of_whole_blocks() {
    let (rows, dim) = (3 * GRADIENT_ROWS, 20);
    let (x, w, dy, r) = (numbers(1, rows * dim), numbers(2, dim), numbers(3, rows * dim), numbers(4, rows));
    let run = |first: usize, rows: usize, dw: &mut [f32]| {
        let part = first * dim..(first + rows) * dim;
        let args = Backward {
            rows,
            dim,
            x: &x[part.clone()],
            w: &w,
            r: &r[first..first + rows],
            dy: &dy[part.clone()],
        };
        backward(&args, &mut vec![0.0; rows * dim], dw);
    };
    let (mut once, mut twice) = (vec![0.5; dim], vec![0.5; dim]);
    run(0, rows, &mut once);
    run(0, GRADIENT_ROWS, &mut twice);
    run(GRADIENT_ROWS, 2 * GRADIENT_ROWS, &mut twice);
    assert_eq!(once, twice);
}

#[test]
#[should_panic(expected = "slice `r` holds 3 elements, the shape asks for 2")]
fn a_wrong_length_says_which() {
    let x = [0.0; 8];
    forward(&Forward { rows: 2, dim: 4, eps: EPS, x: &x, w: &x[..4] }, &mut [0.0; 8], &mut [0.0; 3]);
}

#[test]
fn adding_the_gradient_has_the_bits_of_the_gradient_and_then_the_sum() {
    let (rows, dim) = (70, 37);
    let [x, dy, before] = [1, 2, 3].map(|seed| numbers(seed, rows * dim));
    let (w, r) = (numbers(4, dim), vec![0.7; rows]);
    let args = Backward { rows, dim, x: &x, w: &w, r: &r, dy: &dy };
    for path in SimdPath::available() {
        let (mut dx, mut dw) = (vec![0.0; rows * dim], vec![0.0; dim]);
        cpu::backward(path, &args, &mut dx, &mut dw);
        let (mut sum, mut dw_of_sum) = (before.clone(), vec![0.0; dim]);
        cpu::backward_add(path, &args, &mut sum, &mut dw_of_sum);
        assert_eq!(dw, dw_of_sum);
        let then: Vec<f32> = before.iter().zip(&dx).map(|(a, b)| a + b).collect();
        assert_eq!(sum, then, "{path:?}");
    }
}
