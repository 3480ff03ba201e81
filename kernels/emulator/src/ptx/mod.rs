//! PTX text to a tree: [`lex`] cuts words, [`parse`] reads a module, [`body`] the instructions of a kernel or function,
//! `inline` puts functions in the place of their calls.
//!
//! The tree knows scopes of registers and labels but not what an opcode means: that is the business of
//! [`crate::exec`].

pub mod ast;
pub mod body;
mod inline;
pub mod lex;
pub mod parse;

use std::fmt;

/// Why a module was refused, with the place in the PTX text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PtxError {
    /// Line of the PTX text, counted from 1.
    pub line: u32,
    /// What was found and what was expected.
    pub what: String,
}

impl PtxError {
    /// An error about `line`.
    pub fn new(line: u32, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }

    /// The message followed by the offending line of `source`.
    pub fn quoting(&self, source: &str) -> String {
        let text = source.lines().nth(self.line.saturating_sub(1) as usize).unwrap_or("").trim();
        format!("PTX line {}: {}\n    {text}", self.line, self.what)
    }
}

impl fmt::Display for PtxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for PtxError {}
