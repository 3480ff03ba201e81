//! Where a run stood after some of its events: what the journal is gone on from instead of being replayed from its first.
//!
//! ```text
//!  0  32  BLAKE3 of all that follows
//! 32   4  form of the core's state, u32 LE        (orchestrator_core::Snapshot::FORMAT)
//! 36   4  form of the view, u32 LE                (View::FORMAT)
//! 40   -  postcard of Standing
//! ```

use crate::view::View;
use orchestrator_core::Snapshot;
use serde::{Deserialize, Serialize};
use spec::Digest;

const HEAD_LEN: usize = 40;

/// A run between two events of its journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Standing {
    /// Events before it.
    pub sequence: u64,
    /// The chain over them.
    pub chain: Digest,
    /// The core's clock.
    pub now_ms: u64,
    /// What the core remembers.
    pub core: Snapshot,
    /// What is known of the run.
    pub view: View,
}

impl Standing {
    /// As it lies in the journal.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        let mut rest = forms().to_vec();
        rest.extend(postcard::to_stdvec(self)?);
        Ok([&Digest::of(&rest).0[..], &rest].concat())
    }

    /// Reads the one that is said to stand after `sequence` events, the last of which has `chain`.
    ///
    /// # Errors
    /// Why it cannot be gone on from.
    pub(super) fn from_bytes(bytes: &[u8], sequence: u64, chain: Option<Digest>) -> Result<Self, String> {
        let (head, state) = bytes.split_at_checked(HEAD_LEN).ok_or("it is damaged: it ends early")?;
        if Digest::of(&bytes[32..]).0[..] != head[..32] {
            return Err("it is damaged: its BLAKE3 is another".into());
        }
        if head[32..] != forms() {
            return Err("another version wrote it, in another form".into());
        }
        let standing: Self = postcard::from_bytes(state).map_err(|_| "it cannot be decoded")?;
        if (standing.sequence, Some(standing.chain)) != (sequence, chain) {
            return Err("it does not stand after the events before it".into());
        }
        Ok(standing)
    }
}

fn forms() -> [u8; 8] {
    let [core, view] = [Snapshot::FORMAT, View::FORMAT].map(u32::to_le_bytes);
    [core[0], core[1], core[2], core[3], view[0], view[1], view[2], view[3]]
}
