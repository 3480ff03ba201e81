//! Objects in the store, and how those without credentials reach them.

use serde::{Deserialize, Serialize};
use spec::{Data, Digest};

/// An object: its BLAKE3 and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// BLAKE3 of the bytes, and the object's name.
    pub digest: Digest,
    /// Length in bytes.
    pub bytes: u64,
}

impl ObjectRef {
    /// The reference of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self { digest: Digest::of(bytes), bytes: bytes.len() as u64 }
    }

    /// The run's training shard.
    pub fn train(data: &Data) -> Self {
        Self { digest: data.train, bytes: data.shard_bytes(data.train_tokens) }
    }

    /// The run's validation shard.
    pub fn validation(data: &Data) -> Self {
        Self { digest: data.validation, bytes: data.shard_bytes(data.validation_tokens) }
    }
}

/// What to do with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verb {
    /// Read it.
    Get,
    /// Write it, once.
    Put,
}

/// A request for a presigned URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// What to do.
    pub verb: Verb,
    /// With which object.
    pub object: ObjectRef,
}

/// A presigned request: one object, one size, a few minutes, write-once.
///
/// Whoever holds it can use it: send it only over an encrypted, authenticated channel.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presigned {
    /// What it allows.
    pub verb: Verb,
    /// Absolute URL, with the signature in its query.
    pub url: String,
    /// Names and values that the signature covers: to be sent exactly as they are.
    pub headers: Vec<(String, String)>,
    /// Milliseconds since the Unix epoch after which the store refuses the request.
    pub expires_ms: u64,
}

impl Presigned {
    /// Key of the object with the bucket in front, as far as the URL tells: its path without the leading
    /// slash.
    pub fn path(&self) -> &str {
        let after_scheme = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        let path = after_scheme.split_once('/').map_or("", |(_, path)| path);
        path.split_once('?').map_or(path, |(path, _)| path)
    }
}

/// Without the query, which is as good as a key.
impl std::fmt::Debug for Presigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presigned")
            .field("verb", &self.verb)
            .field("path", &self.path())
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// What was asked.
    pub ask: Ask,
    /// The request to make, or why not.
    pub answer: Result<Presigned, String>,
}
