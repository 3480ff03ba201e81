//! Deadlines, retries and the second look at corrupt bytes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use spec::Digest;

use crate::{Error, Result};

/// What fails this often will not be cured by one attempt more within a call.
const MAX_ATTEMPTS: u32 = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// Between calls, for whoever can wait until somebody has repaired the store.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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

/// Tries again after transient failures for as long as `patience` lasts, which the first attempt begins; each attempt is told
/// how much of it is left. `say` hears of every failure that is waited after, and how long.
///
/// # Errors
/// The last failure.
pub async fn patiently<T, F: Future<Output = Result<T>>>(
    patience: Duration,
    mut attempt: impl FnMut(Duration) -> F,
    mut say: impl FnMut(&Error, Duration),
) -> Result<T> {
    let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        let left = patience.saturating_sub(began.elapsed());
        match attempt(left).await {
            Err(error) if error.is_transient() && began.elapsed() + pause < patience => {
                say(&error, pause);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            outcome => return outcome,
        }
    }
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
