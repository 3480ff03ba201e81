//! What outlives a process: content-addressed objects and a few pointers, on S3.
//!
//! An *object* is written once under `<prefix>/<BLAKE3 of its bytes>`; every read is held against that name, so a
//! missing or corrupt object is an error that names it and never a silent zero. A *pointer* is a small named value
//! that moves only by conditional write: of several writers who saw the same version, one wins and the others get
//! [`Error::LostRace`].
//!
//! [`S3`] is the real store, [`Memory`] its twin for simulations, [`Faulty`] wraps either and misbehaves from a seed;
//! [`conformance::check`] states what all of them owe. Who holds no credentials reads and writes single objects
//! through a [`Presigned`] grant and a [`presigned::Client`].

pub mod conformance;
mod error;
mod faulty;
mod http;
mod key;
mod memory;
pub mod presigned;
pub mod retry;
mod s3;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use spec::Digest;
use wire::{ObjectRef, Presigned};

pub use self::{
    error::{Error, Result},
    faulty::{Faults, Faulty},
    key::object_key,
    memory::Memory,
    s3::{S3, S3Config},
};

/// Longest value of a pointer, in bytes.
pub const MAX_POINTER_LEN: u64 = 64 << 10;

/// Content-addressed objects and conditionally written pointers.
///
/// Every call ends: implementations bound their own retries and waits. Prefixes and pointer names are 1 to 512
/// characters of `a-z 0-9 . _ - /` without empty, `.` or `..` parts, otherwise [`Error::BadName`].
#[async_trait]
pub trait Store: Send + Sync {
    /// Stores `bytes` under `<prefix>/<digest>` and returns the reference once they are durable. Idempotent.
    async fn put(&self, prefix: &str, bytes: Bytes) -> Result<ObjectRef>;

    /// The object `<prefix>/<digest>`, verified. Corrupt bytes are fetched once more before [`Error::Corrupt`].
    async fn get(&self, prefix: &str, digest: &Digest) -> Result<Bytes>;

    /// Whether the object is there; its content is not verified.
    async fn exists(&self, prefix: &str, digest: &Digest) -> Result<bool>;

    /// Removes the object; removing what is not there is no error.
    async fn delete(&self, prefix: &str, digest: &Digest) -> Result<()>;

    /// All content-addressed objects directly under `prefix`, in order of digest; anything else there is skipped.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectRef>>;

    /// The pointer's value and version, `None` while nobody has written it.
    async fn pointer(&self, name: &str) -> Result<Option<Pointer>>;

    /// Moves the pointer from the version that the caller read (`None`: it must not exist yet) to `value`.
    ///
    /// A version is a function of the value, so a value must never return: let it hold a counter.
    ///
    /// # Errors
    /// [`Error::LostRace`] when the pointer has another version by now.
    async fn advance(&self, name: &str, expected: Option<&Version>, value: Bytes) -> Result<Version>;
}

/// A store that can hand out grants for single objects to holders of no credentials.
///
/// Whoever holds a grant can use it: send it over encrypted, authenticated channels only, and never log its URL.
#[async_trait]
pub trait Presign: Store {
    /// A grant to read `<prefix>/<digest>` for `valid` from now, rounded down to whole seconds.
    async fn presign_get(&self, prefix: &str, digest: &Digest, valid: Duration) -> Result<Presigned>;

    /// A grant to write the object, with the length it has, once, to `<prefix>/<digest>`, for `valid` from now.
    async fn presign_put(&self, prefix: &str, object: &ObjectRef, valid: Duration) -> Result<Presigned>;
}

/// What a pointer says now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// The value, as written.
    pub value: Bytes,
    /// To be passed to [`Store::advance`].
    pub version: Version,
}

impl Pointer {
    /// Refuses a value that no reader would accept.
    fn check_len(name: &str, value: &Bytes) -> Result<()> {
        let found = value.len() as u64;
        if found <= MAX_POINTER_LEN {
            return Ok(());
        }
        Err(Error::TooLarge { key: name.to_owned(), limit: MAX_POINTER_LEN, found })
    }
}

/// Opaque version of a pointer (the entity tag, on S3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(String);
