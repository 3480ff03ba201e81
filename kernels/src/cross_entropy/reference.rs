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

/// As [`super::mean_loss`].
pub fn mean_loss(loss: &[f32]) -> f32 {
    if loss.is_empty() || loss.iter().any(|l| !l.is_finite()) {
        return f32::NAN;
    }
    let mut sum = 0i64;
    for &l in loss {
        let capped = f64::from(l).clamp(-LOSS_MAX, LOSS_MAX);
        sum += (capped * FIXED_POINT).round_ties_even() as i64;
    }
    (sum as f64 / FIXED_POINT / loss.len() as f64) as f32
}

/// 2^32: the unit of the fixed-point mean is 2^-32 nats.
const FIXED_POINT: f64 = 4_294_967_296.0;
/// A larger loss counts as this much, so that 65536 rows stay within i64.
const LOSS_MAX: f64 = 32_768.0;
