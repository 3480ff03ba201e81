//! The miner's shell: the engine on its thread, store and peers around the core.

mod adversary;
mod answerer;
mod shell;
mod snapshots;
mod worker;

pub use adversary::{Adversary, performer};
pub use answerer::{Answerer, Asked};
pub use shell::{MinerError, Options, run};
