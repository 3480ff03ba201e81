//! The twin that misbehaves, from a seed.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use spec::Digest;
use wire::{ObjectRef, Presigned};

use crate::{Error, Pointer, Presign, Result, Store, Version, key::object_key, retry::verified};

/// How often a [`Faulty`] store does what; each is a probability of 0 (never) to 1 (always) per call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Faults {
    /// The call fails with [`Error::Unavailable`] and has no effect.
    pub unavailable: f64,
    /// A write takes effect, and fails with [`Error::Unavailable`] all the same: the answer was lost.
    pub answer_lost: f64,
    /// A read finds its object [`Error::Missing`].
    pub missing: f64,
    /// One transfer of an object arrives with one bit turned.
    pub corrupt: f64,
    /// The call takes longer by `delay`.
    pub delayed: f64,
    /// Added to delayed calls.
    pub delay: Duration,
}

impl Faults {
    /// No faults.
    pub const NONE: Self = Self {
        unavailable: 0.0,
        answer_lost: 0.0,
        missing: 0.0,
        corrupt: 0.0,
        delayed: 0.0,
        delay: Duration::ZERO,
    };
}

/// A store around another that fails as [`Faults`] say: the same seed and the same calls in the same order give the
/// same faults.
#[derive(Debug)]
pub struct Faulty<S> {
    inner: S,
    faults: Mutex<Faults>,
    seed: u64,
    draws: AtomicU64,
}

impl<S> Faulty<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, seed: u64, faults: Faults) -> Self {
        Self { inner, faults: Mutex::new(faults), seed, draws: AtomicU64::new(0) }
    }

    /// Changes what happens from now on.
    pub fn set_faults(&self, faults: Faults) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// The store inside, without faults.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next 64 random bits: a hash of seed and counter, so that no other draw shifts them.
    fn draw(&self) -> u64 {
        let count = self.draws.fetch_add(1, Ordering::Relaxed);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(&count.to_le_bytes());
        let mut bits = [0; 8];
        hasher.finalize_xof().fill(&mut bits);
        u64::from_le_bytes(bits)
    }

    /// True with the given probability.
    fn happens(&self, probability: f64) -> bool {
        // 53 bits are what an f64 holds exactly.
        ((self.draw() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    /// What may befall any call before it has an effect.
    async fn before(&self, operation: &'static str, key: &str) -> Result<()> {
        let faults = self.faults();
        if self.happens(faults.delayed) {
            tokio::time::sleep(faults.delay).await;
        }
        if self.happens(faults.unavailable) { Err(injected(operation, key)) } else { Ok(()) }
    }

    /// What may befall a write after it had its effect.
    fn after(&self, operation: &'static str, key: &str) -> Result<()> {
        if self.happens(self.faults().answer_lost) { Err(injected(operation, key)) } else { Ok(()) }
    }

    fn corrupted(&self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() || !self.happens(self.faults().corrupt) {
            return bytes;
        }
        let bit = self.draw() % (bytes.len() as u64 * 8);
        let mut bytes = bytes.to_vec();
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        bytes.into()
    }
}

#[async_trait]
impl<S: Store> Store for Faulty<S> {
    async fn put(&self, prefix: &str, bytes: Bytes) -> Result<ObjectRef> {
        self.before("put", prefix).await?;
        let object = self.inner.put(prefix, bytes).await?;
        self.after("put", prefix)?;
        Ok(object)
    }

    async fn get(&self, prefix: &str, digest: &Digest) -> Result<Bytes> {
        let key = object_key(prefix, digest)?;
        self.before("get", &key).await?;
        if self.happens(self.faults().missing) {
            return Err(Error::Missing { key });
        }
        verified(&key, digest, || async { Ok(self.corrupted(self.inner.get(prefix, digest).await?)) }).await
    }

    async fn exists(&self, prefix: &str, digest: &Digest) -> Result<bool> {
        self.before("find", &object_key(prefix, digest)?).await?;
        Ok(!self.happens(self.faults().missing) && self.inner.exists(prefix, digest).await?)
    }

    async fn delete(&self, prefix: &str, digest: &Digest) -> Result<()> {
        let key = object_key(prefix, digest)?;
        self.before("delete", &key).await?;
        self.inner.delete(prefix, digest).await?;
        self.after("delete", &key)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectRef>> {
        self.before("list", prefix).await?;
        self.inner.list(prefix).await
    }

    async fn pointer(&self, name: &str) -> Result<Option<Pointer>> {
        self.before("get", name).await?;
        self.inner.pointer(name).await
    }

    async fn advance(&self, name: &str, expected: Option<&Version>, value: Bytes) -> Result<Version> {
        self.before("put", name).await?;
        let version = self.inner.advance(name, expected, value).await?;
        self.after("put", name)?;
        Ok(version)
    }
}

#[async_trait]
impl<S: Presign> Presign for Faulty<S> {
    async fn presign_get(&self, prefix: &str, digest: &Digest, valid: Duration) -> Result<Presigned> {
        self.inner.presign_get(prefix, digest, valid).await
    }

    async fn presign_put(&self, prefix: &str, object: &ObjectRef, valid: Duration) -> Result<Presigned> {
        self.inner.presign_put(prefix, object, valid).await
    }
}

fn injected(operation: &'static str, key: &str) -> Error {
    Error::Unavailable { operation, key: key.to_owned(), reason: "a fault was injected".to_owned() }
}
