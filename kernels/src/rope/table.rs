//! The tables, made once on the host in f64 without a libm.

use super::Tables;
use crate::common::host;

/// Cosines and sines of `position * theta^(-2i/head_dim)` for `seq` positions and `head_dim / 2` pairs, rounded to f32.
///
/// `theta^(-2i/head_dim)` is `exp(-(2i/head_dim) * ln theta)` by [`host`]; the angle is one f64 product.
///
/// # Panics
/// If `head_dim` is odd, `theta` is not above 1, or `seq` exceeds 2^20.
pub fn tables(seq: usize, head_dim: usize, theta: f64) -> Tables {
    assert!(head_dim.is_multiple_of(2), "rope: head_dim {head_dim} is odd");
    assert!(theta > 1.0 && theta.is_finite(), "rope: theta {theta}, expected a number above 1");
    let half = head_dim / 2;
    let ln_theta = host::ln(theta);
    let frequencies: Vec<f64> =
        (0..half).map(|i| host::exp(-((2 * i) as f64 / head_dim as f64) * ln_theta)).collect();
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
