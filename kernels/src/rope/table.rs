//! The tables, made once on the host in f64 without a libm.

use super::{Scaling, Tables};
use crate::common::host;

/// Two pi: a frequency's wavelength in tokens is this over it.
const TURN: f64 = std::f64::consts::TAU;

/// The angle of each of the `head_dim / 2` pairs from one position to the next.
///
/// `theta^(-2i/head_dim)` is `exp(-(2i/head_dim) * ln theta)` by [`host`]; scaling is a few f64 operations on it.
///
/// # Panics
/// If `head_dim` is odd or `theta` is not above 1.
pub fn frequencies(head_dim: usize, theta: f64, scaling: Option<&Scaling>) -> Vec<f64> {
    assert!(head_dim.is_multiple_of(2), "rope: head_dim {head_dim} is odd");
    assert!(theta > 1.0 && theta.is_finite(), "rope: theta {theta}, expected a number above 1");
    let ln_theta = host::ln(theta);
    let plain = (0..head_dim / 2).map(|i| host::exp(-((2 * i) as f64 / head_dim as f64) * ln_theta));
    plain.map(|frequency| scaling.map_or(frequency, |scaling| scaled(frequency, scaling))).collect()
}

fn scaled(frequency: f64, scaling: &Scaling) -> f64 {
    let Scaling { factor, low_frequency, high_frequency, original_context } = *scaling;
    // How often the pair turns within the original context.
    let turns = original_context * frequency / TURN;
    if turns < low_frequency {
        return frequency / factor;
    }
    if turns > high_frequency {
        return frequency;
    }
    let smooth = (turns - low_frequency) / (high_frequency - low_frequency);
    (1.0 - smooth) * (frequency / factor) + smooth * frequency
}

/// Cosines and sines of `position * frequency(i)` for `seq` positions and `head_dim / 2` pairs, rounded to f32.
///
/// # Panics
/// As [`frequencies`], and if `seq` exceeds 2^20.
pub fn tables(seq: usize, head_dim: usize, theta: f64, scaling: Option<&Scaling>) -> Tables {
    let half = head_dim / 2;
    let frequencies = frequencies(head_dim, theta, scaling);
    let mut tables = Tables { cos: Vec::with_capacity(seq * half), sin: Vec::with_capacity(seq * half) };
    for position in 0..seq {
        for frequency in &frequencies {
            let (cos, sin) = host::cos_sin(position as f64 * frequency);
            tables.cos.push(cos as f32);
            tables.sin.push(sin as f32);
        }
    }
    tables
}
