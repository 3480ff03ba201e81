//! Where arithmetic happens: the CPU, or one CUDA device.
//!
//! libcuda and libnvrtc are found at run time, so one binary serves machines with and without a GPU, and building needs
//! neither. A kernel's source is compiled for the device at hand, kept on disk, and launched on the device's stream.
//!
//! | file | holds |
//! |---|---|
//! | `library` | finding libcuda and libnvrtc |
//! | `compile` | CUDA C++ to PTX and CUBIN, under the options of the arithmetic contract |
//! | `cache` | compiled modules on disk |
//! | `committed` | PTX that lies in the repository, for machines without NVRTC |
//! | `resources` | registers, spills and shared memory, as the assembler says them |
//! | `ptx` | what a launcher checks its arguments against |
//! | `cuda` | the device: streams, memory, copies |
//! | `module` | its compiled kernels |
//! | `memory` | what launchers see of its memory |
//! | `arena` | which blocks of it are in use |
//! | `staging` | pinned host memory that copies go through |
//! | `transfer` | copies on a stream of their own, while the device computes |
//! | `measure` | events, and the peaks that clocks allow |
//! | `launch` | one launch: arguments, grid, block |
//! | `trials` | the catalogue's ops on a CUDA device |

mod arena;
pub mod cache;
pub mod committed;
pub mod compile;
mod cuda;
mod error;
mod launch;
pub mod library;
mod measure;
mod memory;
mod module;
pub mod ptx;
mod resources;
mod staging;
mod transfer;
pub mod trials;

pub use arena::Usage;
pub use cuda::{CudaDevice, Report};
pub use error::DeviceError;
pub use launch::{Base, Grid, Launch, count32};
pub use measure::Peaks;
pub use memory::{Buffer, Placed, View, ViewMut};
pub use module::Source;
pub use resources::Resources;
pub use transfer::{Arriving, Leaving};

use crate::{
    adamw, attention, codec, cross_entropy, embedding, matmul, merge, philox, reduce, residual, rms_norm,
    rope, swiglu,
};

/// The kernels of all rooms.
pub static SOURCES: &[Source] = &[
    rms_norm::cuda::SOURCE,
    matmul::cuda::SOURCE,
    attention::cuda::SOURCE,
    adamw::cuda::SOURCE,
    swiglu::cuda::SOURCE,
    rope::cuda::SOURCE,
    embedding::cuda::SOURCE,
    residual::cuda::SOURCE,
    cross_entropy::cuda::SOURCE,
    reduce::cuda::SOURCE,
    philox::cuda::SOURCE,
    codec::cuda::SOURCE,
    merge::cuda::SOURCE,
];

/// Device code that several rooms share, in the order in which it must be compiled.
pub(crate) mod shared {
    /// Vectors, loops, exact scales.
    pub(crate) const VECTOR: &str = include_str!("../common/vector.cuh");
    /// R128; after [`VECTOR`].
    pub(crate) const REDUCE: &str = include_str!("../common/reduce.cuh");
    /// The exponentials and the maximum; after [`VECTOR`].
    pub(crate) const EXP: &str = include_str!("../common/exp.cuh");
    /// The gate of SwiGLU; after [`EXP`].
    pub(crate) const GATE: &str = include_str!("../swiglu/gate.cuh");
    /// Blocks of integers; after [`VECTOR`].
    pub(crate) const BLOCK: &str = include_str!("../common/block.cuh");
}

/// A device that arithmetic can run on.
#[derive(Clone, Debug)]
pub enum Device {
    /// The machine's own cores.
    Cpu,
    /// One CUDA device.
    Cuda(CudaDevice),
}
