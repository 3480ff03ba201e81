//! Deadlines, retries and the second look at corrupt bytes.

use std::time::Duration;

use bytes::Bytes;
use spec::Digest;

use crate::{Error, Result};

/// What fails this often will not be cured by one attempt more within a call.
const MAX_ATTEMPTS: u32 = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(50);

/// Fails with [`Error::Timeout`] when `work` takes longer than `deadline`.
pub(crate) async fn within<T>(
    operation: &'static str,
    key: &str,
    deadline: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let late = || Error::Timeout { operation, key: key.to_owned(), after_ms: deadline.as_millis() as u64 };
    tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| Err(late()))
}

/// Tries again after transient failures, with doubling pauses.
pub(crate) async fn retried<T, F: Future<Output = Result<T>>>(mut attempt: impl FnMut() -> F) -> Result<T> {
    let mut pause = FIRST_BACKOFF;
    for _ in 1..MAX_ATTEMPTS {
        match attempt().await {
            Err(error) if error.is_transient() => tokio::time::sleep(pause).await,
            outcome => return outcome,
        }
        pause *= 2;
    }
    attempt().await
}

/// Bytes that have the digest; a mismatch is fetched once more, since it may have happened on the way.
pub(crate) async fn verified<F: Future<Output = Result<Bytes>>>(
    key: &str,
    digest: &Digest,
    mut fetch: impl FnMut() -> F,
) -> Result<Bytes> {
    let first = fetch().await?;
    let found = Digest::of(&first);
    if found == *digest {
        return Ok(first);
    }
    tracing::warn!(key, %found, "object does not match its name; fetching it again");
    let second = fetch().await?;
    let found = Digest::of(&second);
    if found == *digest {
        return Ok(second);
    }
    Err(Error::Corrupt { key: key.to_owned(), expected: *digest, found, found_len: second.len() as u64 })
}
