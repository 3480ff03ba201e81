//! The validator's shell: replay through `engine::work`, live for an orchestrator or from evidence for anyone.

pub mod evidence;
pub mod replay;
mod shell;
mod sums;

pub use shell::{Options, ValidatorError, run};
