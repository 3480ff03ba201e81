//! The miner's shell: the engine on its thread, store and peers around the core.

mod shell;
mod snapshots;
mod worker;

pub use shell::{MinerError, Options, run};
pub use worker::Perturb;
