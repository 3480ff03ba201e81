//! Who touched what of a block's shared memory since the last barrier.
//!
//! A cell stands for a word until a kernel touches something narrower, then for a byte. Most accesses find that their warp
//! has done the same to the same cells since the last barrier; that is one comparison a cell.

use super::check::Touch;
use super::fault::{Fault, FaultKind};
use super::lane::LANES;
use super::memory::active;

/// Marks of all cells.
#[derive(Debug)]
pub struct Shadow {
    cells: Vec<Cell>,
    /// A cell stands for 2^shift bytes.
    shift: u32,
    /// Counts barriers, of all blocks that this shadow has served.
    interval: u32,
    /// The interval that the block began with; older marks are another block's.
    began: u32,
}

/// Marks of one interval; older ones are void.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(16))]
struct Cell {
    /// The interval, and [`WRITTEN`] if anyone has written here since the block began.
    stamp: u32,
    /// Warps as bits: those that read, that wrote, that changed it atomically.
    marks: [u32; 3],
}

const WRITTEN: u32 = 1 << 31;
const WORD_SHIFT: u32 = 2;
const READ: usize = 0;
const WRITE: usize = 1;
const ATOMIC: usize = 2;

impl Default for Shadow {
    fn default() -> Self {
        Self { cells: vec![], shift: WORD_SHIFT, interval: 0, began: 0 }
    }
}

impl Shadow {
    /// A block begins, with `bytes` of shared memory that nobody has touched.
    pub fn reset(&mut self, bytes: usize) {
        self.interval += 1;
        self.began = self.interval;
        let cells = bytes.div_ceil(1 << self.shift);
        if cells != self.cells.len() || self.interval > WRITTEN / 2 {
            (self.interval, self.began) = (1, 1);
            self.cells.clear();
            self.cells.resize(cells, Cell::default());
        }
    }

    /// A barrier completed.
    pub fn barrier(&mut self) {
        self.interval += 1;
    }

    /// Notes that lanes of `warp` touch `len` bytes each, a power of two and aligned to it, at the offsets in `at`.
    ///
    /// # Errors
    /// A race with another warp, or a read of what nobody wrote.
    #[inline]
    pub fn touch(
        &mut self,
        at: &[u64; LANES],
        mask: u32,
        len: u32,
        warp: u32,
        touch: Touch,
    ) -> Result<(), Box<Fault>> {
        if len < 1 << self.shift {
            self.refine();
        }
        let me = 1u32 << (warp & 31);
        let kind = kind_of(touch);
        let settled = self.interval | WRITTEN;
        let count = (len >> self.shift) as usize;
        // Neighbours often read one address.
        let mut last = u64::MAX;
        for lane in active(mask) {
            if at[lane] == last {
                continue;
            }
            last = at[lane];
            let first = (last >> self.shift) as usize;
            let Some(cells) = self.cells.get_mut(first..first.saturating_add(count)) else { continue };
            if cells.iter().all(|cell| cell.stamp == settled && cell.marks[kind] & me != 0) {
                continue;
            }
            for (index, cell) in cells.iter_mut().enumerate() {
                if let Err((kind, why)) = cell.mark(self.interval, self.began, me, touch) {
                    let what =
                        format!("{} shared byte {}, {why}", verb(touch), (first + index) << self.shift);
                    return Err(Fault::new(kind, Some(lane as u32), what));
                }
            }
        }
        Ok(())
    }

    /// From words to bytes.
    #[cold]
    fn refine(&mut self) {
        let bytes = 1 << self.shift;
        self.cells = self.cells.iter().flat_map(|cell| std::iter::repeat_n(*cell, bytes)).collect();
        self.shift = 0;
    }
}

impl Cell {
    fn mark(&mut self, interval: u32, began: u32, me: u32, touch: Touch) -> Result<(), (FaultKind, String)> {
        let since = self.stamp & !WRITTEN;
        if since != interval {
            let written = if since < began { 0 } else { self.stamp & WRITTEN };
            *self = Self { stamp: interval | written, marks: [0; 3] };
        }
        if touch == Touch::Write {
            self.stamp |= WRITTEN;
        } else if touch != Touch::WriteLater && self.stamp & WRITTEN == 0 {
            let why = "which no thread of the block has written yet: it is never written, \
                       or a __syncthreads() or a wait is missing";
            return Err((FaultKind::UninitialisedRead, why.to_owned()));
        }
        let kind = kind_of(touch);
        // A rival since my last touch of this kind would have been the one to be told.
        if self.marks[kind] & me != 0 {
            return Ok(());
        }
        self.marks[kind] |= me;
        let others = match kind {
            READ => self.marks[WRITE] | self.marks[ATOMIC],
            WRITE => self.marks[WRITE] | self.marks[READ] | self.marks[ATOMIC],
            _ => self.marks[WRITE] | self.marks[READ],
        };
        let rivals = others & !me;
        if rivals == 0 {
            return Ok(());
        }
        let other = rivals.trailing_zeros();
        let theirs = if self.marks[WRITE] & rivals != 0 {
            "wrote"
        } else if self.marks[ATOMIC] & rivals != 0 {
            "changed atomically"
        } else {
            "read"
        };
        let why = format!(
            "which warp {other} {theirs} since the last barrier: a __syncthreads() between the two is missing"
        );
        Err((FaultKind::SharedRace, why))
    }
}

fn kind_of(touch: Touch) -> usize {
    match touch {
        Touch::Read => READ,
        Touch::Write | Touch::WriteLater => WRITE,
        Touch::Atomic => ATOMIC,
    }
}

fn verb(touch: Touch) -> &'static str {
    if touch.writes() { "writes" } else { "reads" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One lane of a block of `bytes`.
    struct One(Shadow);

    impl One {
        fn of(bytes: usize) -> Self {
            let mut shadow = Shadow::default();
            shadow.reset(bytes);
            Self(shadow)
        }

        fn touch(&mut self, offset: u64, len: u32, warp: u32, touch: Touch) -> Result<(), FaultKind> {
            self.0.touch(&[offset; LANES], 1, len, warp, touch).map_err(|fault| fault.kind)
        }
    }

    #[test]
    fn what_nobody_wrote_is_not_read() {
        let mut shadow = One::of(8);
        assert_eq!(shadow.touch(0, 4, 0, Touch::Read), Err(FaultKind::UninitialisedRead));
        shadow.touch(0, 4, 0, Touch::WriteLater).unwrap();
        assert!(shadow.touch(0, 4, 0, Touch::Read).is_err());
        shadow.touch(0, 4, 0, Touch::Write).unwrap();
        shadow.0.barrier();
        shadow.touch(0, 4, 1, Touch::Read).unwrap();
        assert!(shadow.touch(0, 8, 1, Touch::Read).is_err());
        shadow.0.reset(8);
        assert!(shadow.touch(0, 4, 1, Touch::Read).is_err(), "what another block wrote is not there");
    }

    #[test]
    fn a_race_needs_two_warps_one_write_and_no_barrier() {
        let mut shadow = One::of(8);
        shadow.touch(0, 4, 0, Touch::Write).unwrap();
        shadow.touch(0, 4, 0, Touch::Read).unwrap();
        shadow.touch(4, 4, 1, Touch::Write).unwrap();
        assert_eq!(shadow.touch(0, 4, 1, Touch::Read), Err(FaultKind::SharedRace));
        shadow.0.barrier();
        shadow.touch(0, 4, 1, Touch::Read).unwrap();
        shadow.touch(0, 4, 0, Touch::Read).unwrap();
        assert!(shadow.touch(3, 1, 0, Touch::Write).is_err());
        shadow.0.barrier();
        shadow.touch(0, 4, 1, Touch::Atomic).unwrap();
        shadow.touch(0, 4, 0, Touch::Atomic).unwrap();
        assert!(shadow.touch(0, 4, 0, Touch::Read).is_err());
    }

    #[test]
    fn neighbours_in_a_word_do_not_race() {
        let mut shadow = One::of(8);
        shadow.touch(0, 4, 0, Touch::Write).unwrap();
        shadow.0.barrier();
        shadow.touch(0, 2, 0, Touch::Write).unwrap();
        shadow.touch(2, 2, 1, Touch::Write).unwrap();
        assert_eq!(shadow.touch(1, 1, 1, Touch::Read), Err(FaultKind::SharedRace));
        assert_eq!(shadow.touch(0, 4, 1, Touch::Write), Err(FaultKind::SharedRace));
    }

    #[test]
    fn every_lane_is_looked_at() {
        let mut shadow = Shadow::default();
        shadow.reset(1024);
        let rows: [u64; LANES] = std::array::from_fn(|lane| 16 * lane as u64);
        shadow.touch(&rows, u32::MAX, 16, 0, Touch::Write).unwrap();
        let mut far = [0; LANES];
        far[31] = 512;
        let fault = shadow.touch(&far, u32::MAX, 16, 0, Touch::Read).unwrap_err();
        assert_eq!((fault.kind, fault.lane), (FaultKind::UninitialisedRead, Some(31)));
        shadow.touch(&rows, u32::MAX, 16, 0, Touch::Read).unwrap();
        let fault = shadow.touch(&rows, 1 << 20, 16, 1, Touch::Read).unwrap_err();
        assert_eq!((fault.kind, fault.lane), (FaultKind::SharedRace, Some(20)));
    }
}
