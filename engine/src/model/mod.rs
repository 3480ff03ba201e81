//! The model, a Llama: which parameters a stage holds, how they start, how a stage runs.

mod block;
mod initial;
mod layout;
mod stage;

pub use layout::{BLOCK_ROLES, Entry, Layout, Role};
pub use stage::{Goal, Input, Rotary, Stage};
