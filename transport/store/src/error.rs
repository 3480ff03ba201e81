//! What can go wrong between us and a store.

use spec::Digest;

/// Result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a store operation failed. Every variant names the object it failed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The object is not in the store.
    #[error(
        "object {key} is missing from the store: its writer has not uploaded it, or it was collected; ask for it again"
    )]
    Missing {
        /// Key of the object.
        key: String,
    },
    /// What the store holds under a digest does not have that digest (after one fetch more).
    #[error(
        "object {key} is corrupt: its name says BLAKE3 {expected}, its {found_len} bytes have {found}; delete it and upload it again"
    )]
    Corrupt {
        /// Key of the object.
        key: String,
        /// Digest in the name.
        expected: Digest,
        /// Digest of what was read.
        found: Digest,
        /// Length of what was read, in bytes.
        found_len: u64,
    },
    /// A pointer had another version than the writer expected: somebody else moved it first.
    #[error("pointer {name} was moved by another writer: read it again and decide anew")]
    LostRace {
        /// Name of the pointer.
        name: String,
    },
    /// An object is longer than the reader or the grant allows.
    #[error("object {key} has {found} bytes, more than the {limit} allowed here")]
    TooLarge {
        /// Key of the object.
        key: String,
        /// Bound, in bytes.
        limit: u64,
        /// Length met, in bytes: a lower bound when the reader stopped early.
        found: u64,
    },
    /// The store answered and said no: wrong credentials, expired or altered URL, wrong size, no such bucket.
    #[error("the store refused to {operation} {key} (status {status}): {reason}")]
    Refused {
        /// What was tried: `get`, `put`, `list`, ….
        operation: &'static str,
        /// Key of the object.
        key: String,
        /// HTTP status.
        status: u16,
        /// The store's words.
        reason: String,
    },
    /// The store could not be reached or answered with a failure of its own; retries are spent.
    #[error("the store could not {operation} {key}: {reason}; try again later")]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// Key of the object.
        key: String,
        /// What happened.
        reason: String,
    },
    /// The deadline passed before the store had answered.
    #[error("the store did not {operation} {key} within {after_ms} ms; try again later")]
    Timeout {
        /// What was tried.
        operation: &'static str,
        /// Key of the object.
        key: String,
        /// The deadline, in milliseconds.
        after_ms: u64,
    },
    /// The grant cannot serve this call: its time is over, or it is for another object, size or method.
    #[error("this grant cannot {operation} {key}: {reason}; ask for another grant")]
    BadGrant {
        /// What was tried.
        operation: &'static str,
        /// Key of the object, or what could be read of it.
        key: String,
        /// What does not fit.
        reason: String,
    },
    /// A prefix or pointer name breaks the naming rule.
    #[error(
        "{name:?} cannot name a place in the store: use 1 to 512 of a-z 0-9 . _ - /, without empty, `.` or `..` parts"
    )]
    BadName {
        /// The name as given.
        name: String,
    },
    /// The client cannot be built from this configuration.
    #[error("store configuration: {field} = {found:?}: {reason}")]
    BadConfig {
        /// Field of the configuration.
        field: &'static str,
        /// Its value.
        found: String,
        /// What is expected.
        reason: String,
    },
}

impl Error {
    /// True when the same call may succeed later without anybody repairing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Timeout { .. })
    }

    /// What an HTTP status other than success, not-found and precondition-failed means.
    pub(crate) fn from_status(operation: &'static str, key: &str, status: u16, reason: String) -> Self {
        let key = key.to_owned();
        // Of the conflicts, only the one with another write under way passes by itself.
        let passing = status == 409 && reason.starts_with("ConditionalRequestConflict");
        match status {
            _ if passing || matches!(status, 429 | 500..) => {
                Self::Unavailable { operation, key, reason: format!("status {status}: {reason}") }
            }
            _ => Self::Refused { operation, key, status, reason },
        }
    }
}
