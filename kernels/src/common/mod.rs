//! What the rooms share: exact scalar arithmetic, the vector paths, row reductions, shape checks.

pub mod block;
pub mod float_env;
pub mod host;
pub(crate) mod parallel;
pub mod r128;
pub mod scalar;
pub mod shape;
pub mod simd;
pub(crate) mod tile;
