//! What checked runs know of device memory: which addresses exist, and which of them were written.

use std::sync::Arc;

use super::lane::LANES;
use super::memory::active;
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

    /// The same of a whole warp at once, whose lanes all lie within `span` bytes from `low`, in this range. Where that
    /// cannot be told at a glance the answer is false, and each lane is to be asked for.
    pub fn touch_span(
        &self,
        at: &[u64; LANES],
        mask: u32,
        bytes: u32,
        span: (u64, u64),
        touch: Touch,
    ) -> bool {
        let Some(written) = &self.written else { return true };
        let (low, len) = span;
        if len > GLANCE_BYTES {
            return false;
        }
        // All of it was written: then so was each part, and nothing is left to note.
        if written.is_whole(low - self.start, len) {
            return true;
        }
        let writes = matches!(touch, Touch::Write | Touch::WriteLater);
        let mut next = low;
        let dense = active(mask).all(|lane| {
            next += u64::from(bytes);
            at[lane] == next - u64::from(bytes)
        });
        if writes && dense {
            written.mark(low - self.start, len);
        }
        writes && dense
    }
}

/// Up to so many bytes a warp's access is judged as one.
const GLANCE_BYTES: u64 = 4096;

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
    /// Whether it changes what is there.
    pub fn writes(self) -> bool {
        self != Self::Read
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
    }
}
