//! The chain of one miner's receipts: each names the number and the digest of the one before.

use crate::receipt::Receipt;
use crate::signed::Signable;
use serde::{Deserialize, Serialize};
use spec::Digest;

/// The end of a chain: what the next receipt must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Chain {
    /// Sequence number of the next receipt.
    pub next: u64,
    /// Digest of the last receipt; zero before the first.
    pub last: Digest,
}

/// A receipt that does not continue its signer's chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The number is another one.
    #[error("receipt {found} came where {expected} was due")]
    Sequence {
        /// The number due.
        expected: u64,
        /// The number found.
        found: u64,
    },
    /// The number is right, the receipt before it is another one.
    #[error("receipt {sequence} follows receipt {found:?}, not the {expected:?} that was given before")]
    Previous {
        /// The receipt's number.
        sequence: u64,
        /// Digest of the receipt given before.
        expected: Digest,
        /// Digest that the receipt names.
        found: Digest,
    },
}

const BROKEN_DOMAIN: &str = "iota chain broken v1";

impl Chain {
    /// What a miner goes on from that was started again: its next receipt says by the one that it names that what the miner
    /// had in memory is gone.
    pub fn broken(&self) -> Self {
        Self { next: self.next, last: Digest(blake3::derive_key(BROKEN_DOMAIN, self.last.as_bytes())) }
    }

    /// The chain that ends with `receipt`.
    pub fn after(receipt: &Receipt) -> Self {
        Self { next: receipt.sequence.saturating_add(1), last: receipt.digest() }
    }

    /// Moves on to `receipt`, if it is the next one.
    ///
    /// # Errors
    /// When it is not; the chain stays as it was.
    pub fn follow(&mut self, receipt: &Receipt) -> Result<(), ChainError> {
        if receipt.sequence != self.next {
            return Err(ChainError::Sequence { expected: self.next, found: receipt.sequence });
        }
        if receipt.previous != self.last {
            let (expected, found) = (self.last, receipt.previous);
            return Err(ChainError::Previous { sequence: receipt.sequence, expected, found });
        }
        *self = Self::after(receipt);
        Ok(())
    }
}
