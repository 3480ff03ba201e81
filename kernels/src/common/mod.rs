//! What the rooms share: exact scalar arithmetic, the vector paths, row reductions, shape checks.

pub mod block;
pub mod host;
pub mod r128;
pub mod scalar;
pub mod shape;
pub mod simd;
