//! The CUDA side held against the CPU side, and the compiler held to the contract.
//!
//! Needs libcuda and NVRTC on the library path before the process starts (`cargo xtask test` sees to it, with the
//! stand-in driver where there is no GPU). A test that lacks one of them prints `not run: …` and passes.

#![allow(clippy::unwrap_used)]

mod agreement;
mod committed;
mod device;
mod failures;
mod faults;
mod fused;
mod ptx;
mod report;
mod support;
mod traffic;
