//! Objects in the store, and how those without credentials reach them.

use serde::{Deserialize, Serialize};
use spec::Digest;

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presigned {
    /// `GET` or `PUT`.
    pub method: String,
    /// The URL with its signature.
    pub url: String,
    /// Headers that were signed and must be sent as they are.
    pub headers: Vec<(String, String)>,
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// What was asked.
    pub ask: Ask,
    /// The request to make, or why not.
    pub answer: Result<Presigned, String>,
}
