//! The engine on a CUDA device held against the engine on the CPU, to the bit.
//!
//! Needs libcuda and NVRTC on the library path before the process starts (`cargo xtask test` sees to it, with the
//! stand-in driver where there is no GPU). A test that lacks one of them prints `not run: …` and passes.

#![allow(clippy::unwrap_used)]

mod agreement;
mod failures;
mod memory;
#[allow(dead_code)] // the kernels' trials use all of it
#[path = "../../../kernels/tests/cuda/support.rs"]
mod support;
#[allow(dead_code)] // the engine's own trials use all of it
#[path = "../../src/testing.rs"]
mod testing;

// What the shared trials name by their place in the engine.
use engine::{contribution, data, state, work};

/// A run cut into `stages`, with a clip within reach.
fn run(stages: &[u32]) -> spec::Run {
    let run = testing::run(stages);
    spec::Run { inner: spec::Inner { clip: 1.0, ..run.inner }, ..run }
}
