//! The formula, element by element.

/// As [`super::add`].
pub fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
    for i in 0..y.len() {
        y[i] = a[i] + b[i];
    }
}

/// As [`super::accumulate`].
pub fn accumulate(sum: &mut [f32], x: &[f32]) {
    for i in 0..sum.len() {
        sum[i] += x[i];
    }
}
