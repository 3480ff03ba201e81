//! The formula, element by element.

/// As [`super::add`].
pub fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
    for i in 0..y.len() {
        y[i] = a[i] + b[i];
    }
}
