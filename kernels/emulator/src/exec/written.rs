//! Which bytes of device memory were ever written: a bit for each.

use std::sync::atomic::{AtomicU64, Ordering};

/// One allocation's bits.
#[derive(Debug)]
pub struct Written {
    words: Box<[AtomicU64]>,
    bytes: u64,
}

/// Bytes of a word of bits.
const SPAN: u64 = 64;

impl Written {
    /// Nothing of `bytes` is written.
    pub fn nothing(bytes: u64) -> Self {
        Self { words: (0..bytes.div_ceil(SPAN)).map(|_| AtomicU64::new(0)).collect(), bytes }
    }

    /// Notes a write.
    pub fn mark(&self, offset: u64, len: u64) {
        self.each_word(offset, len, |word, bits| {
            // Blocks run in parallel; most of what is written was written before.
            if word.load(Ordering::Relaxed) & bits != bits {
                word.fetch_or(bits, Ordering::Relaxed);
            }
            true
        });
    }

    /// Whether every byte was written.
    pub fn is_whole(&self, offset: u64, len: u64) -> bool {
        self.each_word(offset, len, |word, bits| word.load(Ordering::Relaxed) & bits == bits)
    }

    /// Takes over the bits of a copy from `source` (all of it written without one).
    pub fn copy(&self, offset: u64, source: Option<(&Self, u64)>, len: u64) {
        let Some((source, from)) = source.filter(|(source, from)| !source.is_whole(*from, len)) else {
            self.mark(offset, len);
            return;
        };
        let bits: Vec<bool> = (0..len).map(|byte| source.is_whole(from + byte, 1)).collect();
        for (byte, written) in (0..len).zip(bits) {
            if written {
                self.mark(offset + byte, 1);
            } else {
                self.each_word(offset + byte, 1, |word, bits| {
                    word.fetch_and(!bits, Ordering::Relaxed);
                    true
                });
            }
        }
    }

    /// Calls `one` with each word and the bits of it that are meant, until it says no; whether it never did.
    fn each_word(&self, offset: u64, len: u64, mut one: impl FnMut(&AtomicU64, u64) -> bool) -> bool {
        let end = offset.saturating_add(len).min(self.bytes);
        let mut at = offset;
        while at < end {
            let count = (SPAN - at % SPAN).min(end - at);
            let bits = (u64::MAX >> (SPAN - count)) << (at % SPAN);
            if !self.words.get((at / SPAN) as usize).is_some_and(|word| one(word, bits)) {
                return false;
            }
            at += count;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_the_bytes() {
        let written = Written::nothing(200);
        assert!(!written.is_whole(0, 1));
        written.mark(60, 10);
        assert!(written.is_whole(60, 10));
        assert!(!written.is_whole(59, 10) && !written.is_whole(61, 10) && !written.is_whole(70, 1));
        written.mark(0, 200);
        assert!(written.is_whole(0, 200));
    }

    #[test]
    fn a_copy_takes_what_its_source_has() {
        let (from, to) = (Written::nothing(130), Written::nothing(130));
        from.mark(0, 70);
        to.mark(100, 10);
        to.copy(5, Some((&from, 0)), 120);
        assert!(to.is_whole(5, 70) && !to.is_whole(75, 1) && !to.is_whole(100, 1));
        to.copy(5, None, 120);
        assert!(to.is_whole(5, 120) && !to.is_whole(4, 1));
    }
}
