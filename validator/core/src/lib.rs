//! The validator as a value: check what the receipts bind, have it replayed, compare, say what was found.
//!
//! It never holds a tensor. State and payloads lie in the shell's object table under their digests. The
//! conversation is told in `docs/protocol.md`.

mod beginnings;
mod check;
mod compare;
mod display;
mod effect;
mod event;
mod machine;
mod sums;

pub use check::{Objection, begins_epoch, check, check_beginning};
pub use compare::{compare, compare_beginning};
pub use effect::{Effect, Replay};
pub use event::{Event, Replayed};
pub use machine::Validator;
pub use sums::{Addition, check_merge};
pub use wire::guest::Config;
