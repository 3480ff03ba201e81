//! The miner as a value: what to compute next, what to send, what to forget.
//!
//! It never holds a tensor. Payloads, states and shards lie in the shell's object table under their
//! digests; the core passes digests about and says when one may be forgotten.

mod effect;
mod event;

pub use effect::{Effect, Task};
pub use event::{Done, Event};
