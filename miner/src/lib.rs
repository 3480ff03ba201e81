//! The miner's shell: the engine on its thread, store and peers around the core.

mod adversary;
mod shell;
mod snapshots;
mod worker;

pub use adversary::{Adversary, performer};
pub use shell::{MinerError, Options, run};
