//! Which memory of a device is in use, and which waits.
//!
//! A training step takes and gives back the same sizes over and over, so a block that comes back waits for the next one
//! of its size, and after the first steps the driver is asked for none. What is queued on the stream runs in order: a
//! block may be given out again while work that was queued earlier still uses it. Only when the driver has no more are
//! waiting blocks given back to it.

use std::collections::BTreeMap;

/// What an arena holds, in bytes and calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes given out now.
    pub in_use_bytes: u64,
    /// The most that were given out at once.
    pub peak_bytes: u64,
    /// Bytes reserved of the driver: given out or waiting.
    pub reserved_bytes: u64,
    /// The most that were reserved at once: what a card must have.
    pub peak_reserved_bytes: u64,
    /// How often the driver was asked for memory.
    pub reservations: u64,
}

/// Blocks that wait, by size, and the account.
#[derive(Debug, Default)]
pub(super) struct Arena {
    waiting: BTreeMap<usize, Vec<u64>>,
    usage: Usage,
}

impl Arena {
    /// A block of `bytes` that waits; none if there is none.
    pub fn take(&mut self, bytes: usize) -> Option<u64> {
        let address = self.waiting.get_mut(&bytes)?.pop()?;
        self.use_more(bytes);
        Some(address)
    }

    /// A block of `bytes` was reserved of the driver, and is given out.
    pub fn reserved(&mut self, bytes: usize) {
        self.usage.reserved_bytes += bytes as u64;
        self.usage.peak_reserved_bytes = self.usage.peak_reserved_bytes.max(self.usage.reserved_bytes);
        self.usage.reservations += 1;
        self.use_more(bytes);
    }

    /// A block comes back, and waits.
    pub fn give(&mut self, address: u64, bytes: usize) {
        self.usage.in_use_bytes -= bytes as u64;
        self.waiting.entry(bytes).or_default().push(address);
    }

    /// All blocks that wait, to be given back to the driver.
    pub fn drain(&mut self) -> Vec<u64> {
        let mut blocks = Vec::new();
        for (bytes, addresses) in std::mem::take(&mut self.waiting) {
            self.usage.reserved_bytes -= (bytes * addresses.len()) as u64;
            blocks.extend(addresses);
        }
        blocks
    }

    pub fn usage(&self) -> Usage {
        self.usage
    }

    fn use_more(&mut self, bytes: usize) {
        self.usage.in_use_bytes += bytes as u64;
        self.usage.peak_bytes = self.usage.peak_bytes.max(self.usage.in_use_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_for_its_size_and_the_account_holds() {
        let mut arena = Arena::default();
        assert_eq!(arena.take(100), None);
        arena.reserved(100);
        arena.reserved(50);
        arena.give(1, 100);
        assert_eq!((arena.take(99), arena.take(100), arena.take(100)), (None, Some(1), None));
        arena.give(1, 100);
        arena.give(2, 50);
        let usage = arena.usage();
        assert_eq!((usage.in_use_bytes, usage.reserved_bytes, usage.reservations), (0, 150, 2));
        assert_eq!((usage.peak_bytes, usage.peak_reserved_bytes), (150, 150));
        assert_eq!(arena.drain(), [2, 1]);
        assert_eq!((arena.usage().reserved_bytes, arena.usage().peak_reserved_bytes), (0, 150));
        assert_eq!(arena.take(100), None);
    }
}
