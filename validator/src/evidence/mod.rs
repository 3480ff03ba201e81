//! Evidence that anyone can check alone: on a CPU, without a network, believing nobody.
//!
//! A *case* ([`wire::Evidence`]) is what was signed: run, manifest, receipts, verdict. An evidence file is a case with
//! the objects that its receipts bind: the state before the window, the payloads that came in, and the token shard
//! where the stage reads tokens. `docs/formats.md` draws it byte by byte.
//!
//! Where the accused has signed a trace of the window's ops, a smaller file ([`tile`]) is decided by one tile of one op, in seconds.
//!
//! A conviction rests on two things alone: the accused's signatures, and what [`engine::work`] gives when it does the
//! same again; where it is about the beginning of an epoch, on the manifest's word besides, and on no work. The validator's verdict is
//! checked for its signature and quoted, never believed.

mod beginning;
mod case;
mod file;
mod mapped;
pub mod merge;
mod revealed;
pub mod tile;
mod verify;

pub use file::{Objects, PACKED_BYTES_MAX, Packed, Parts, SHARD_BYTES_MAX, needed, pack, unpack};
pub use mapped::FileBytes;
pub use revealed::Revealed;
pub use verify::{Conviction, Expected, Outcome, Report, decide, verify};

/// Why evidence is no evidence: it proves nothing about anybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}, found {found}")]
pub struct Refused {
    /// Which part of the evidence.
    pub field: String,
    /// What it should be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

fn refused(field: impl ToString, expected: impl ToString, found: impl ToString) -> Refused {
    Refused { field: field.to_string(), expected: expected.to_string(), found: found.to_string() }
}

#[cfg(test)]
mod tests;
