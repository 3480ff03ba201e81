//! The miner as a value: what to compute next, what to send, what to forget.
//!
//! It never holds a tensor. Payloads, states and shards lie in the shell's object table under their
//! digests; the core passes digests about and says when one may be forgotten. The conversation is told in
//! `docs/protocol.md`.

mod again;
mod display;
mod effect;
mod epoch;
mod event;
mod explain;
mod machine;
mod merge;
mod neighbours;
mod objects;
mod payload;
mod reveal;
mod seat;

pub use effect::{Effect, StateAfter, Task};
pub use event::{Done, Event};
pub use machine::Miner;
pub use wire::guest::Config;
