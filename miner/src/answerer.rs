//! Who says for a convict what every op of its window gave. It is handed in: which ops those are is the matter of whoever decides
//! evidence.

use bytes::Bytes;
use engine::trace::Performer;
use spec::{Digest, Run};
use wire::AuditOrder;

/// What a convict is asked, with all that it revealed of the window.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The run.
    pub run: &'a Run,
    /// The window.
    pub order: &'a AuditOrder,
    /// The receipt up to which, by its digest.
    pub receipt: Digest,
    /// State and payloads, as the order names them.
    pub objects: &'a [Bytes],
    /// The training shard; empty where the stage does not read it.
    pub shard: &'a [u8],
    /// The output that is to be shown, by its number.
    pub show: Option<u32>,
}

/// Performs a window again, and says what its ops gave.
pub trait Answerer: Send + Sync {
    /// The digests of the outputs of all ops, one after another, or the bytes of the one that is to be shown; `performer` performs
    /// as the miner did. It may take as long as the window.
    ///
    /// # Errors
    /// Why there is no answer, in one sentence.
    fn answer(&self, asked: &Asked<'_>, performer: &mut Performer<'_>) -> Result<Vec<u8>, String>;
}
