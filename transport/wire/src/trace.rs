//! The ops of a window one by one, as a miner signs them once it is asked.

use crate::audit::Evidence;
use crate::signed::{Signable, Signed};
use serde::{Deserialize, Serialize};
use spec::Digest;

/// What a miner says of every op from the beginning of a window up to the end of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The run's id.
    pub run: Digest,
    /// The receipt of that operation, by its digest.
    pub receipt: Digest,
    /// Outputs of all ops.
    pub values: u32,
    /// BLAKE3 of their digests, one after another in the order of the window's program.
    pub root: Digest,
}

impl Trace {
    /// The trace that ends with the operation of `receipt`, and the file of its digests.
    pub fn of(run: Digest, receipt: Digest, digests: &[Digest]) -> (Self, Vec<u8>) {
        let bytes: Vec<u8> = digests.iter().flat_map(|digest| digest.0).collect();
        let values = u32::try_from(digests.len()).unwrap_or(u32::MAX);
        (Self { run, receipt, values, root: Digest::of(&bytes) }, bytes)
    }
}

impl Signable for Trace {
    const DOMAIN: &'static str = "iota trace v1";
}

/// A case that is decided by one tile of one op.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TileEvidence {
    /// What was signed of the window, and found.
    pub evidence: Evidence,
    /// What its miner says of the ops.
    pub trace: Signed<Trace>,
    /// The output that is wrong, by its number among all.
    pub value: u32,
    /// The tile of it that is opened.
    pub tile: u32,
}
