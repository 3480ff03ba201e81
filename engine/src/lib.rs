//! The learner: tensors, autograd, stages, optimizer, units of work; no network, no clock, no randomness of its own.
//!
//! | module | holds |
//! |---|---|
//! | [`tensor`] | shape and contiguous f32 values, on the host or on a device |
//! | [`ops`] | every op, on the host or on a device |
//! | [`autograd`] | the tape: forward ops, and backward in a fixed order |
//! | [`model`] | parameters in canonical order, the Llama block, the stage |
//! | [`optim`] | learning rate, clip, AdamW over a stage |
//! | [`data`] | token shards, and which tokens a microbatch holds |
//! | [`payload`] | boundary tensors as bytes |
//! | [`contribution`] | what replicas of a stage merge, as bytes |
//! | [`checkpoint`] | weights and full state as files |
//! | [`state`] | what a miner holds of one stage |
//! | [`work`] | [`perform`]: the one function that a miner performs and a validator replays |
//! | [`trace`] | the ops of a window one by one: their digests, and one tile of one of them checked |
//! | [`train`] | a run in one process: all stages, step by step, checkpoints |
//! | [`generate`] | text, token by token |
//! | [`evaluate`] | logits and loss of a whole model |
//! | [`cost`] | FLOPs and bytes of a stage |
//! | [`memory`] | what a stage takes of a CUDA device |
//! | [`synthetic`] | a whole model on random tokens, to be timed |
//! | [`workers`] | which threads compute |

#[cfg(target_endian = "big")]
compile_error!("files and payloads are little-endian and are read and written in place");

pub mod autograd;
pub mod checkpoint;
pub mod contribution;
pub mod cost;
pub mod data;
pub mod evaluate;
pub mod generate;
pub mod memory;
pub mod model;
pub mod ops;
pub mod optim;
pub mod payload;
pub mod state;
pub mod synthetic;
pub mod tensor;
#[cfg(test)]
mod testing;
pub mod trace;
pub mod train;
pub mod work;
pub mod workers;

pub use kernels::device::{CudaDevice, Device, DeviceError};
pub use state::StageState;
pub use work::{Done, WorkError, perform};
