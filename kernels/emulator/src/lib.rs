//! A stand-in libcuda that executes PTX on the CPU.

pub mod exec;
pub mod ptx;
