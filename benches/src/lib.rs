//! Criterion benches over the catalogue
