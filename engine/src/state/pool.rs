//! Memory of files that nobody keeps any more, for those to come.
//!
//! The system zeroes what is new to a process before it can be written, which takes about as long as to copy a state into it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

type Free = Mutex<Vec<Vec<u8>>>;

/// The free memory of a state's files: never more than were kept at one time.
#[derive(Debug, Default)]
pub(crate) struct Pool(Arc<Free>);

impl Pool {
    /// No bytes yet, and room for `len`.
    pub fn lend(&self, len: usize) -> Lent {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        // Files of a state differ by a few digits of their head.
        bytes.reserve(len.next_multiple_of(4096));
        Lent { bytes, pool: Arc::downgrade(&self.0) }
    }
}

/// Bytes whose memory goes back to where it is from when they are dropped, if a state is still there to use it.
#[derive(Debug)]
pub struct Lent {
    bytes: Vec<u8>,
    pool: Weak<Free>,
}

impl Lent {
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            pool.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        }
    }
}
