//! What the rooms share: exact scalar arithmetic, the vector paths, row reductions, shape checks.

pub mod block;
pub mod float_env;
#[cfg(test)]
pub(crate) mod gradient;
pub mod host;
pub(crate) mod parallel;
pub mod r128;
pub mod scalar;
pub(crate) mod scratch;
pub mod shape;
pub mod simd;
pub(crate) mod target;
#[cfg(test)]
mod tests;
pub(crate) mod tile;
