//! What is peculiar to the room.

use super::{clip_scale, global_norm, stage_clip, sum_squares};
use crate::common::gradient::numbers;

#[test]
fn the_norm_is_the_norm() {
    let (a, b) = (numbers(1, 10_000), numbers(2, 77));
    let norm = global_norm([sum_squares(&a), sum_squares(&b)]);
    let exact = a.iter().chain(&b).map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    assert!((norm / exact - 1.0).abs() < 1e-6, "{norm} against {exact}");
}

#[test]
fn clip_scales_only_what_is_too_long() {
    assert_eq!(clip_scale(0.5, 1.0), Some(1.0));
    assert_eq!(clip_scale(4.0, 1.0), Some((1.0 / (4.0 + 1e-6)) as f32));
    assert_eq!(clip_scale(0.0, 1.0), Some(1.0));
    assert_eq!(clip_scale(f64::INFINITY, 1.0), None);
    assert_eq!(clip_scale(global_norm([sum_squares(&[f32::NAN])]), 1.0), None);
    assert_eq!(stage_clip(1.0, 25, 100), 0.5);
}
