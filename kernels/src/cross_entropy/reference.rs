//! The formulas, row by row.

use super::{Forward, VOCAB_CHUNK};
use crate::common::{
    host,
    r128::r128,
    scalar::{exp, max, rcp},
};

/// As [`super::forward`].
pub fn forward(args: &Forward<'_>, loss: &mut [f32], dlogits: &mut [f32]) {
    for row in 0..args.rows {
        let z = &args.logits[row * args.vocab..][..args.vocab];
        let dz = &mut dlogits[row * args.vocab..][..args.vocab];
        let target = args.targets[row] as usize;
        let mut m = z[0];
        for i in 1..args.vocab {
            m = max(z[i], m);
        }
        // Zeros of both signs may compete: + 0 makes the maximum independent of the order.
        m += 0.0;
        let mut sum = 0.0;
        for chunk in z.chunks(VOCAB_CHUNK) {
            sum += r128(chunk.len(), |i, acc| acc + exp(chunk[i] - m));
        }
        let inverse = rcp(sum);
        for i in 0..args.vocab {
            let p = exp(z[i] - m) * inverse;
            let y = if i == target { 1.0 } else { 0.0 };
            dz[i] = (p - y) * args.weight;
        }
        loss[row] = row_loss(m, sum, z[target]);
    }
}

/// The loss of a row from its maximum, the sum of its exponentials and the target's logit.
pub fn row_loss(m: f32, sum: f32, z_target: f32) -> f32 {
    ((f64::from(m) - f64::from(z_target)) + host::ln(f64::from(sum))) as f32
}

/// As [`super::mean_q32`].
pub fn mean_q32(loss: &[f32]) -> Option<i64> {
    if loss.is_empty() || loss.iter().any(|l| !l.is_finite()) {
        return None;
    }
    let mut sum = 0i128;
    for &l in loss {
        // A float to integer cast saturates; 2^31 nats are beyond any loss that trains.
        sum += i128::from((f64::from(l) * FIXED_POINT).round_ties_even() as i64);
    }
    let count = loss.len() as i128;
    // A mean of i64 values is one.
    Some((2 * sum + count).div_euclid(2 * count) as i64)
}

/// 2^32: the unit of the fixed-point mean is 2^-32 nats.
const FIXED_POINT: f64 = 4_294_967_296.0;
