//! The validator as a value: sample, compare, decide, give evidence
