//! The validator's shell: replay through `engine::work`.

mod replay;
mod shell;

pub use shell::{Options, ValidatorError, run};
