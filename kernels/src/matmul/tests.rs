//! What is peculiar to the room.

use super::{GRADIENT_TOKENS, Matmul, cpu, nn, nt, tn};
use crate::{
    SimdPath,
    common::gradient::{check, numbers, weigh},
};

#[test]
fn nn_and_tn_are_the_derivatives_of_nt() {
    // y = x W^T; dx = dy W; dW = dy^T x.
    let (tokens, outputs, inputs) = (9, 21, 13);
    let (x, w, dy) =
        (numbers(1, tokens * inputs), numbers(2, outputs * inputs), numbers(3, tokens * outputs));
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    nn(&Matmul { m: tokens, n: inputs, k: outputs, a: &dy, b: &w }, &mut dx);
    tn(&Matmul { m: outputs, n: inputs, k: tokens, a: &dy, b: &x }, &mut dw);
    let objective = |at: &[Vec<f64>]| {
        let y: Vec<f64> = (0..tokens * outputs)
            .map(|i| {
                (0..inputs).map(|k| at[0][i / outputs * inputs + k] * at[1][i % outputs * inputs + k]).sum()
            })
            .collect();
        weigh(&y, &dy)
    };
    check(objective, &[&x, &w], &[("dx", &dx), ("dw", &dw)], 2e-5);
}

#[test]
fn nt_is_nn_of_the_transpose() {
    let (m, n, k) = (17, 45, 300);
    let (a, b) = (numbers(1, m * k), numbers(2, k * n));
    let transposed: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
    let (mut c, mut d) = (vec![0.0; m * n], vec![0.0; m * n]);
    nn(&Matmul { m, n, k, a: &a, b: &b }, &mut c);
    nt(&Matmul { m, n, k, a: &a, b: &transposed }, &mut d);
    assert_eq!(c, d);
}

#[test]
fn the_weight_gradient_is_the_same_in_calls_of_whole_chunks() {
    let (m, n, k) = (3, 20, 2 * GRADIENT_TOKENS + 5);
    let (a, b) = (numbers(1, k * m), numbers(2, k * n));
    let (mut once, mut twice, mut off) = (vec![0.5; m * n], vec![0.5; m * n], vec![0.5; m * n]);
    let run = |first: usize, end: usize, c: &mut [f32]| {
        let args = Matmul { m, n, k: end - first, a: &a[first * m..end * m], b: &b[first * n..end * n] };
        tn(&args, c);
    };
    run(0, k, &mut once);
    run(0, GRADIENT_TOKENS, &mut twice);
    run(GRADIENT_TOKENS, k, &mut twice);
    assert_eq!(once, twice);
    run(0, 700, &mut off);
    run(700, k, &mut off);
    assert_ne!(once, off, "these numbers cannot tell chunks apart");
}

/// Around the tiles of every path, with one and several blocks of k, over strides that are packed and others, and the
/// empty sum, which is +0 and turns an addend of -0 into +0.
#[test]
fn a_fused_addition_has_the_bits_of_the_product_and_then_the_sum() {
    for (m, n, k) in [(1, 1, 1), (15, 33, 17), (131, 47, 600), (30, 64, 300), (17, 1024, 1024), (3, 5, 0)] {
        let (a, b, mut x) = (numbers(1, m * k), numbers(2, n * k), numbers(3, m * n));
        x[0] = -0.0;
        let args = Matmul { m, n, k, a: &a, b: &b };
        for path in SimdPath::available() {
            let bits = |c: &[f32]| c.iter().map(|c| c.to_bits()).collect::<Vec<_>>();
            let then = |c: Vec<f32>| c.iter().zip(&x).map(|(c, x)| (x + c).to_bits()).collect::<Vec<_>>();
            let mut product = vec![0.0; m * n];
            cpu::nn(path, &args, &mut product);
            let mut fused = x.clone();
            cpu::nn_add(path, &args, &mut fused);
            assert_eq!(bits(&fused), then(product), "nn {m} x {n} x {k} on {path:?}");

            let mut product = vec![0.0; m * n];
            cpu::nt(path, &args, &mut product);
            let mut fused = vec![f32::NAN; m * n];
            cpu::nt_add(path, &args, &x, &mut fused);
            assert_eq!(bits(&fused), then(product), "nt {m} x {n} x {k} on {path:?}");
        }
    }
}
