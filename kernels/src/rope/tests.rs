//! What is peculiar to the room.

use super::{Rope, backward, forward, tables};
use crate::common::gradient::{check, numbers, weigh};

#[test]
fn tables_are_the_nearest_floats() {
    let (seq, head_dim, theta) = (3000, 64, 10_000.0f64);
    let found = tables(seq, head_dim, theta);
    let mut apart = 0;
    for at in 0..seq * head_dim / 2 {
        let (position, i) = (at / 32, at % 32);
        let angle = position as f64 * theta.powf(-((2 * i) as f64) / head_dim as f64);
        for (found, exact) in [(found.cos[at], angle.cos()), (found.sin[at], angle.sin())] {
            assert!((f64::from(found) - exact).abs() < 6.1e-8, "position {position}, pair {i}");
            apart += usize::from(found != exact as f32);
        }
    }
    // Where the exact value lies next to a tie, a last bit of f64 may decide.
    assert!(apart * 10_000 < seq * head_dim, "{apart} of {} entries", seq * head_dim);
}

#[test]
fn backward_is_the_derivative() {
    let (rows, seq, heads, head_dim) = (10, 5, 2, 6);
    let angles = tables(seq, head_dim, 100.0);
    let (cos, sin) = (angles.cos.as_slice(), angles.sin.as_slice());
    let (x, dy) = (numbers(1, rows * heads * head_dim), numbers(2, rows * heads * head_dim));
    let mut dx = vec![0.0; x.len()];
    backward(&Rope { rows, seq, heads, head_dim, cos, sin, x: &dy }, &mut dx);
    let objective = |at: &[Vec<f64>]| {
        let mut y = vec![0.0; x.len()];
        for (head, (x, y)) in at[0].chunks(head_dim).zip(y.chunks_mut(head_dim)).enumerate() {
            for i in 0..head_dim / 2 {
                let angle = (head / heads % seq) as f64 * 100f64.powf(-((2 * i) as f64) / head_dim as f64);
                let (a, b) = (x[i], x[i + head_dim / 2]);
                y[i] = a * angle.cos() - b * angle.sin();
                y[i + head_dim / 2] = a * angle.sin() + b * angle.cos();
            }
        }
        weigh(&y, &dy)
    };
    check(objective, &[&x], &[("dx", &dx)], 1e-5);
}

#[test]
fn position_zero_is_left_alone() {
    let angles = tables(1, 8, 10_000.0);
    let x = numbers(1, 8);
    let mut y = vec![0.0; 8];
    let args = Rope { rows: 1, seq: 1, heads: 1, head_dim: 8, cos: &angles.cos, sin: &angles.sin, x: &x };
    forward(&args, &mut y);
    assert_eq!(x, y);
}
