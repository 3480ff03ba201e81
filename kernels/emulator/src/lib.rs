//! A stand-in libcuda that executes PTX on the CPU.

pub mod api;
pub mod exec;
pub mod ptx;
