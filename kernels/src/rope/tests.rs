//! What is peculiar to the room.

use super::{Rope, Scaling, backward, forward, frequencies, tables};
use crate::common::gradient::{check, numbers, weigh};

#[test]
fn tables_are_the_nearest_floats() {
    let (seq, head_dim, theta) = (3000, 64, 10_000.0f64);
    let found = tables(seq, head_dim, theta, None);
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
    let angles = tables(seq, head_dim, 100.0, None);
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
    let angles = tables(1, 8, 10_000.0, None);
    let x = numbers(1, 8);
    let mut y = vec![0.0; 8];
    let args = Rope { rows: 1, seq: 1, heads: 1, head_dim: 8, cos: &angles.cos, sin: &angles.sin, x: &x };
    forward(&args, &mut y);
    assert_eq!(x, y);
}

#[test]
fn scaling_slows_slow_pairs_spares_fast_ones_and_is_smooth_between() {
    let (head_dim, theta) = (128, 500_000.0);
    let scaling = Scaling { factor: 8.0, low_frequency: 1.0, high_frequency: 4.0, original_context: 8192.0 };
    let (plain, scaled) = (frequencies(head_dim, theta, None), frequencies(head_dim, theta, Some(&scaling)));
    let mut kinds = [0; 3];
    for (i, (plain, scaled)) in plain.iter().zip(&scaled).enumerate() {
        let exact = theta.powf(-((2 * i) as f64) / head_dim as f64);
        assert!((plain / exact - 1.0).abs() < 1e-14);
        // By wavelengths, as the model's makers put it.
        let wavelength = std::f64::consts::TAU / exact;
        let (expected, kind) = if wavelength < 8192.0 / 4.0 {
            (exact, 0)
        } else if wavelength > 8192.0 / 1.0 {
            (exact / 8.0, 1)
        } else {
            let smooth = (8192.0 / wavelength - 1.0) / (4.0 - 1.0);
            ((1.0 - smooth) * exact / 8.0 + smooth * exact, 2)
        };
        kinds[kind] += 1;
        assert!((scaled / expected - 1.0).abs() < 1e-13, "pair {i}: {scaled}, expected {expected}");
    }
    assert!(kinds.iter().all(|&count| count > 3), "{kinds:?}");
    assert!(scaled.is_sorted_by(|a, b| a > b));
    let none = Scaling { factor: 1.0, ..scaling };
    let same = frequencies(head_dim, theta, Some(&none));
    assert!(same.iter().zip(&plain).all(|(a, b)| (a / b - 1.0).abs() < 1e-15));
}
