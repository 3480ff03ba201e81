//! The ops of a window one by one, as a miner signs them once it is asked.

use crate::audit::{AuditOrder, Evidence};
use crate::object::ObjectRef;
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
        (Self::named(run, receipt, ObjectRef::of(&bytes)), bytes)
    }

    /// The trace that ends with the operation of `receipt`, whose digests are this file.
    pub fn named(run: Digest, receipt: Digest, digests: ObjectRef) -> Self {
        let values = u32::try_from(digests.bytes / DIGEST_BYTES).unwrap_or(u32::MAX);
        Self { run, receipt, values, root: digests.digest }
    }

    /// The file of its digests.
    pub fn digests(&self) -> ObjectRef {
        ObjectRef { digest: self.root, bytes: DIGEST_BYTES * u64::from(self.values) }
    }
}

/// Bytes of a digest in the file of a trace's digests.
pub const DIGEST_BYTES: u64 = 32;

/// What a convict is asked: what did every op of this window give?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explain {
    /// The window, as a validator was ordered to replay it: what the miner needs lies in the store, where it put it.
    pub order: AuditOrder,
    /// The receipt of the operation for which it was convicted, by its digest.
    pub receipt: Digest,
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
