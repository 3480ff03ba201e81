//! What checked runs keep: which addresses exist and which of them were written, and who touched which shared byte since
//! the last barrier.

use std::sync::Arc;

use super::fault::{Fault, FaultKind};
use super::written::Written;

/// Device memory, ascending and disjoint.
#[derive(Debug, Clone, Default)]
pub struct Allocations {
    ranges: Vec<Range>,
}

/// One allocation.
#[derive(Debug, Clone)]
pub struct Range {
    /// Its first address.
    pub start: u64,
    /// The address behind its last.
    pub end: u64,
    /// What of it was written; without it, all of it counts as written.
    pub written: Option<Arc<Written>>,
}

impl Range {
    /// Notes what is written of `bytes` at `address`, which lie in this range; whether all that is read was.
    pub fn touch(&self, address: u64, bytes: u32, touch: Touch) -> bool {
        let Some(written) = &self.written else { return true };
        let (offset, len) = (address - self.start, u64::from(bytes));
        match touch {
            Touch::Write | Touch::WriteLater => {
                written.mark(offset, len);
                true
            }
            Touch::Read | Touch::Atomic => written.is_whole(offset, len),
        }
    }
}

impl Allocations {
    /// From ranges in any order.
    pub fn new(mut ranges: Vec<Range>) -> Self {
        ranges.sort_unstable_by_key(|range| range.start);
        Self { ranges }
    }

    /// The allocation that `bytes` at `address` lie in. `last` is the caller's memory of the last one.
    pub fn find(&self, address: u64, bytes: u32, last: &mut usize) -> Option<&Range> {
        let end = address.saturating_add(u64::from(bytes));
        let holds = |range: &&Range| range.start <= address && end <= range.end;
        if let Some(range) = self.ranges.get(*last).filter(holds) {
            return Some(range);
        }
        let index = self.ranges.partition_point(|range| range.start <= address).checked_sub(1)?;
        let range = self.ranges.get(index).filter(holds)?;
        *last = index;
        Some(range)
    }

    /// Where `address` lies in relation to the nearest allocation, in words.
    pub fn describe(&self, address: u64) -> String {
        let nearest = self.ranges.iter().map(|range| (range.start, range.end)).min_by_key(|(start, end)| {
            if address < *start { start - address } else { address.saturating_sub(end - 1) }
        });
        match nearest {
            None => "no device memory is allocated".to_string(),
            Some((start, end)) => {
                let size = end - start;
                if address < start {
                    format!(
                        "{} bytes before the nearest allocation, of {size} bytes at {start:#x}",
                        start - address
                    )
                } else if address >= end {
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
    /// It writes, but what it writes is not there yet.
    WriteLater,
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
    /// Whether anyone has written it since the block began.
    written: bool,
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
                *byte = Byte { interval, written: byte.written, ..Byte::default() };
            }
            if touch == Touch::Write {
                byte.written = true;
            } else if touch != Touch::WriteLater && !byte.written {
                let what = format!(
                    "reads shared byte {}, which no thread of the block has written yet: it is never written, \
                         or a __syncthreads() or a wait is missing",
                    offset + index
                );
                return Err(Fault::new(FaultKind::UninitialisedRead, Some(lane), what));
            }
            let mine = match touch {
                Touch::Read => &mut byte.readers,
                Touch::Write | Touch::WriteLater => &mut byte.writers,
                Touch::Atomic => &mut byte.atomics,
            };
            // A rival since my last touch of this kind would have been the one to be told.
            if *mine & me != 0 {
                continue;
            }
            *mine |= me;
            let rivals = match touch {
                Touch::Read => byte.writers | byte.atomics,
                Touch::Write | Touch::WriteLater => byte.writers | byte.readers | byte.atomics,
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
        let range = |start, end| Range { start, end, written: None };
        let table = Allocations::new(vec![range(200, 300), range(100, 150)]);
        let mut last = 0;
        let mut contains = |address, bytes| table.find(address, bytes, &mut last).is_some();
        assert!(contains(100, 50) && !contains(100, 51) && !contains(99, 1));
        assert!(contains(299, 1) && !contains(300, 1) && !contains(u64::MAX, 8));
        assert!(table.describe(160).contains("10 bytes past the end"), "{}", table.describe(160));
        assert!(table.describe(90).contains("10 bytes before"), "{}", table.describe(90));
    }

    #[test]
    fn what_nobody_wrote_is_not_read() {
        let written = Some(Arc::new(Written::nothing(100)));
        let range = Range { start: 1000, end: 1100, written };
        assert!(!range.touch(1000, 4, Touch::Read));
        range.touch(1000, 8, Touch::Write);
        assert!(range.touch(1004, 4, Touch::Read));
        assert!(!range.touch(1004, 8, Touch::Atomic));

        let mut shadow = Shadow::default();
        shadow.reset(8);
        let unwritten = shadow.touch(0, 4, 0, 0, Touch::Read).unwrap_err();
        assert_eq!(unwritten.kind, FaultKind::UninitialisedRead);
        shadow.touch(0, 4, 0, 0, Touch::WriteLater).unwrap();
        assert!(shadow.touch(0, 4, 0, 0, Touch::Read).is_err());
        shadow.touch(0, 4, 0, 0, Touch::Write).unwrap();
        shadow.barrier();
        shadow.touch(0, 4, 1, 0, Touch::Read).unwrap();
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
