//! What checked runs keep: which addresses exist, and who touched which shared byte since the last barrier.

use super::fault::{Fault, FaultKind};

/// Ranges of device memory, ascending and disjoint: `(start, end)`.
#[derive(Debug, Clone, Default)]
pub struct Allocations {
    ranges: Vec<(u64, u64)>,
}

impl Allocations {
    /// From ranges in any order.
    pub fn new(mut ranges: Vec<(u64, u64)>) -> Self {
        ranges.sort_unstable();
        Self { ranges }
    }

    /// Whether `bytes` at `address` lie within one allocation. `last` is the caller's memory of the last hit.
    pub fn contains(&self, address: u64, bytes: u64, last: &mut (u64, u64)) -> bool {
        let end = address.saturating_add(bytes);
        if last.0 <= address && end <= last.1 {
            return true;
        }
        let after = self.ranges.partition_point(|range| range.0 <= address);
        match after.checked_sub(1).map(|index| self.ranges[index]) {
            Some(range) if end <= range.1 => {
                *last = range;
                true
            }
            _ => false,
        }
    }

    /// Where `address` lies in relation to the nearest allocation, in words.
    pub fn describe(&self, address: u64) -> String {
        let nearest = self.ranges.iter().min_by_key(|(start, end)| {
            if address < *start { start - address } else { address.saturating_sub(end - 1) }
        });
        match nearest {
            None => "no device memory is allocated".to_string(),
            Some((start, end)) => {
                let size = end - start;
                if address < *start {
                    format!(
                        "{} bytes before the nearest allocation, of {size} bytes at {start:#x}",
                        start - address
                    )
                } else if address >= *end {
                    format!(
                        "{} bytes past the end of the nearest allocation, of {size} bytes at {start:#x}",
                        address - end
                    )
                } else {
                    format!("{} bytes into the allocation of {size} bytes at {start:#x}", address - start)
                }
            }
        }
    }
}

/// How an instruction touches memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// It does both in one, and so never races with its like.
    Atomic,
}

impl Touch {
    fn writes(self) -> bool {
        self != Self::Read
    }
}

/// Who touched each byte of a block's shared memory, by barrier interval.
#[derive(Debug, Default)]
pub struct Shadow {
    bytes: Vec<Byte>,
    interval: u32,
}

/// Warps as bits; `interval` says when, older marks are void.
#[derive(Debug, Clone, Copy, Default)]
struct Byte {
    interval: u32,
    readers: u32,
    writers: u32,
    atomics: u32,
}

impl Shadow {
    /// Forgets everything; there are `bytes` of shared memory.
    pub fn reset(&mut self, bytes: usize) {
        self.bytes.clear();
        self.bytes.resize(bytes, Byte::default());
        self.interval = 1;
    }

    /// A barrier completed.
    pub fn barrier(&mut self) {
        self.interval += 1;
    }

    /// Notes that `lane` of `warp` touches `len` bytes at `offset`.
    ///
    /// # Errors
    /// A race with another warp.
    pub fn touch(
        &mut self,
        offset: usize,
        len: usize,
        warp: u32,
        lane: u32,
        touch: Touch,
    ) -> Result<(), Box<Fault>> {
        let me = 1u32 << (warp & 31);
        let interval = self.interval;
        let end = (offset + len).min(self.bytes.len());
        let Some(touched) = self.bytes.get_mut(offset..end) else { return Ok(()) };
        for (index, byte) in touched.iter_mut().enumerate() {
            if byte.interval != interval {
                *byte = Byte { interval, ..Byte::default() };
            }
            let mine = match touch {
                Touch::Read => &mut byte.readers,
                Touch::Write => &mut byte.writers,
                Touch::Atomic => &mut byte.atomics,
            };
            // A rival since my last touch of this kind would have been the one to be told.
            if *mine & me != 0 {
                continue;
            }
            *mine |= me;
            let rivals = match touch {
                Touch::Read => byte.writers | byte.atomics,
                Touch::Write => byte.writers | byte.readers | byte.atomics,
                Touch::Atomic => byte.writers | byte.readers,
            } & !me;
            if rivals != 0 {
                let other = rivals.trailing_zeros();
                let theirs = if byte.writers & rivals != 0 {
                    "wrote"
                } else if byte.atomics & rivals != 0 {
                    "changed atomically"
                } else {
                    "read"
                };
                let mine = if touch.writes() { "writes" } else { "reads" };
                return Err(Fault::new(
                    FaultKind::SharedRace,
                    Some(lane),
                    format!(
                        "{mine} shared byte {}, which warp {other} {theirs} since the last barrier: \
                         a __syncthreads() between the two is missing",
                        offset + index
                    ),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocation_bounds_are_exact() {
        let table = Allocations::new(vec![(200, 300), (100, 150)]);
        let mut last = (0, 0);
        assert!(table.contains(100, 50, &mut last));
        assert!(!table.contains(100, 51, &mut last));
        assert!(!table.contains(99, 1, &mut last));
        assert!(table.contains(299, 1, &mut last));
        assert!(!table.contains(300, 1, &mut last));
        assert!(!table.contains(u64::MAX, 8, &mut last));
        assert!(table.describe(160).contains("10 bytes past the end"), "{}", table.describe(160));
        assert!(table.describe(90).contains("10 bytes before"), "{}", table.describe(90));
    }

    #[test]
    fn a_race_needs_two_warps_one_write_and_no_barrier() {
        let mut shadow = Shadow::default();
        shadow.reset(8);
        shadow.touch(0, 4, 0, 0, Touch::Write).unwrap();
        shadow.touch(0, 4, 0, 1, Touch::Read).unwrap();
        shadow.touch(4, 4, 1, 0, Touch::Write).unwrap();
        assert_eq!(shadow.touch(0, 4, 1, 0, Touch::Read).unwrap_err().kind, FaultKind::SharedRace);
        shadow.barrier();
        shadow.touch(0, 4, 1, 0, Touch::Read).unwrap();
        shadow.touch(0, 4, 0, 0, Touch::Read).unwrap();
        assert!(shadow.touch(3, 1, 0, 0, Touch::Write).is_err());
        shadow.barrier();
        shadow.touch(0, 4, 1, 0, Touch::Atomic).unwrap();
        shadow.touch(0, 4, 0, 0, Touch::Atomic).unwrap();
        assert!(shadow.touch(0, 4, 0, 0, Touch::Read).is_err());
    }
}
