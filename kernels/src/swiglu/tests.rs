//! What is peculiar to the room.

use super::{Backward, Forward, backward, forward};
use crate::common::gradient::{check, numbers, weigh};

#[test]
fn backward_is_the_derivative() {
    let n = 55;
    let (g, u, dh) = (numbers(1, n), numbers(2, n), numbers(3, n));
    let (mut dg, mut du) = (vec![0.0; n], vec![0.0; n]);
    backward(&Backward { g: &g, u: &u, dh: &dh }, &mut dg, &mut du);
    let objective = |at: &[Vec<f64>]| {
        let h: Vec<f64> = at[0].iter().zip(&at[1]).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
        weigh(&h, &dh)
    };
    check(objective, &[&g, &u], &[("dg", &dg), ("du", &du)], 1e-5);
}

#[test]
fn far_gates_end_in_zero_and_in_the_gate() {
    let g = [-1000.0, 1000.0, -0.0, f32::NEG_INFINITY];
    let mut h = [1.0; 4];
    forward(&Forward { g: &g, u: &[1.0; 4] }, &mut h);
    assert_eq!(&h[..3], &[-0.0, 1000.0, -0.0]);
    assert!(h[3].is_nan(), "-inf * 0 strikes the microbatch");
}
