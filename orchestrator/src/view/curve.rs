//! A curve that never grows: past its bound, neighbours become their mean.

use serde::{Deserialize, Serialize};

/// Points that a curve keeps at most; more say no more on a screen's width.
const POINTS_MAX: usize = 512;

/// Points in ascending x.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    points: Vec<(f64, f64)>,
    /// Given points that a kept one is the mean of; a power of two.
    weight: u32,
    /// What is gathered for the next: sums and count.
    open: (f64, f64, u32),
}

impl Curve {
    /// Adds a point.
    pub fn push(&mut self, x: f64, y: f64) {
        self.weight = self.weight.max(1);
        let (sum_x, sum_y, count) = (self.open.0 + x, self.open.1 + y, self.open.2 + 1);
        if count < self.weight {
            self.open = (sum_x, sum_y, count);
            return;
        }
        self.open = (0.0, 0.0, 0);
        self.points.push((sum_x / f64::from(count), sum_y / f64::from(count)));
        if self.points.len() >= POINTS_MAX {
            self.points = self.points.chunks(2).map(mean).collect();
            self.weight *= 2;
        }
    }

    /// Forgets what lies beyond `x`.
    pub fn cut_after(&mut self, x: f64) {
        self.points.retain(|point| point.0 <= x);
        self.open = (0.0, 0.0, 0);
    }

    /// The points.
    pub fn points(&self) -> &[(f64, f64)] {
        &self.points
    }
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len() as f64;
    let sum = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    (sum.0 / count, sum.1 / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_bounded_and_keeps_its_mean() {
        let mut curve = Curve::default();
        for i in 0..100_000 {
            curve.push(f64::from(i), 2.0 * f64::from(i));
        }
        let points = curve.points();
        assert!((POINTS_MAX / 4..POINTS_MAX).contains(&points.len()), "{}", points.len());
        assert!(points.iter().all(|(x, y)| (y - 2.0 * x).abs() < 1e-6));
        assert!(points.is_sorted_by(|a, b| a.0 < b.0));
        assert!(points[points.len() - 1].0 > 99_000.0);
        curve.cut_after(50_000.0);
        assert!(curve.points().iter().all(|point| point.0 <= 50_000.0));
    }
}
