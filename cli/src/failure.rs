//! How a command fails: one sentence and an exit code.

use std::fmt;

/// A command's failure.
#[derive(Debug)]
pub struct Failure {
    /// Exit code: 2 for input that cannot be used, 1 for a run that did not end well.
    pub code: u8,
    sentence: String,
}

/// What commands return.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Input that cannot be used: what, where, expected, found, what to do.
    pub fn input(sentence: impl Into<String>) -> Self {
        Self { code: 2, sentence: sentence.into() }
    }

    /// A run that did not end well.
    pub fn run(sentence: impl Into<String>) -> Self {
        Self { code: 1, sentence: sentence.into() }
    }

    /// Ctrl-C, and how to go on.
    pub fn stopped(sentence: impl Into<String>) -> Self {
        Self { code: 130, sentence: sentence.into() }
    }

    /// Ctrl-C: what was committed stays.
    pub fn interrupted() -> Self {
        Self::stopped("interrupted; what was committed stays in the run's folder")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}
