//! Execution: a kernel is decoded once into dense instructions and then run warp by warp.
//!
//! | file | holds |
//! |---|---|
//! | [`lane`] | registers of 32 lanes and the macro behind the opcode table |
//! | [`alu`] | the opcode table |
//! | [`program`] | the decoded form |
//! | `decode` | tree to decoded form |
//! | [`memory`] | spaces, addresses, loads and stores |
//! | `atomic`, `async_copy`, `warp_sync`, `tensor` | the instructions of those names |
//! | `warp` | the interpreter: divergence and reconvergence |
//! | `block` | barriers between warps |
//! | [`check`] | the allocations a checked run may touch |
//! | [`shadow`] | who touched what of shared memory since the last barrier |
//! | [`count`] | instructions, sectors and wavefronts of counted runs |
//! | [`launch`] | blocks in parallel |
//! | [`written`] | a bit for each byte of device memory that was written |
//! | [`fault`] | what went wrong, and where |

pub mod alu;
mod async_copy;
mod atomic;
mod block;
pub mod check;
pub mod count;
mod decode;
pub mod fault;
pub mod lane;
pub mod launch;
pub mod memory;
pub mod program;
pub mod shadow;
mod tensor;
mod warp;
mod warp_sync;
pub mod written;

pub use decode::load;
