//! The engine on a CUDA device held against the engine on the CPU, to the bit.
//!
//! Needs libcuda and NVRTC on the library path before the process starts (`cargo xtask test` sees to it, with the
//! stand-in driver where there is no GPU). A test that lacks one of them prints `not run: …` and passes.

#![allow(clippy::unwrap_used)]

mod agreement;
mod failures;
mod memory;
mod setting;
#[allow(dead_code)] // the kernels' trials use all of it
#[path = "../../../kernels/tests/cuda/support.rs"]
mod support;
