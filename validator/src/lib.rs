//! The validator's shell: replay through `engine::work`, live for an orchestrator or from evidence for anyone.

mod adversary;
pub mod evidence;
pub mod replay;
mod shell;
mod sums;

pub use adversary::Adversary;
pub use shell::{Options, ValidatorError, run};
