//! Packing: panels of a matrix laid out in the order in which the register tile reads them.
//!
//! A panel holds `width` rows of A (or columns of B) as `[k][width]`; a partial panel is padded with zeros, whose
//! products land in tile elements that are thrown away.

use crate::common::simd::Simd;

/// How the elements of an operand lie, seen as (lane, k): lane is a row of A or a column of B.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Element (lane, k) at `lane * stride + k`: a lane is contiguous in k.
    LaneMajor,
    /// Element (lane, k) at `k * stride + lane`: lanes are contiguous.
    KMajor,
}

/// One operand.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub(super) data: &'a [f32],
    pub(super) layout: Layout,
    /// Lanes in all.
    pub(super) lanes: usize,
    /// k in all.
    pub(super) k: usize,
}

/// A block to pack: which lanes in panels of which width, and which k.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) first_lane: usize,
    pub(super) lanes: usize,
    pub(super) width: usize,
    pub(super) first_k: usize,
    pub(super) depth: usize,
}

impl Block {
    /// Values of the packed block.
    pub(super) fn values(&self) -> usize {
        self.lanes.next_multiple_of(self.width) * self.depth
    }
}

impl Operand<'_> {
    /// Packs a block: panel after panel.
    #[inline(always)]
    pub(super) fn pack<S: Simd>(&self, s: S, block: Block, out: &mut [f32]) {
        let out = &mut out[..block.values()];
        match (self.layout, block.width) {
            // Widths known when this is compiled: a few vector moves, where a call of memmove costs more than it moves.
            (Layout::KMajor, 14) => self.copy::<14>(block, out),
            (Layout::KMajor, 16) => self.copy::<16>(block, out),
            (Layout::KMajor, 32) => self.copy::<32>(block, out),
            (Layout::KMajor, 6) => self.copy::<6>(block, out),
            (Layout::KMajor, width) => panic!("no path has panels of {width}"),
            (Layout::LaneMajor, width) => {
                for (panel, out) in out.chunks_exact_mut(width * block.depth).enumerate() {
                    let first = panel * width;
                    self.transpose(s, block.first_lane + first, width.min(block.lanes - first), block, out);
                }
            }
        }
    }

    /// Row after row of the operand, so that it is read in the order in which it lies.
    #[inline(always)]
    fn copy<const WIDTH: usize>(&self, block: Block, out: &mut [f32]) {
        let panel_values = WIDTH * block.depth;
        for k in 0..block.depth {
            let row = &self.data[(block.first_k + k) * self.lanes + block.first_lane..][..block.lanes];
            let (whole, rest) = row.as_chunks::<WIDTH>();
            let mut at = k * WIDTH;
            for values in whole {
                *first_of(&mut out[at..]) = *values;
                at += panel_values;
            }
            if !rest.is_empty() {
                let place: &mut [f32; WIDTH] = first_of(&mut out[at..]);
                place[..rest.len()].copy_from_slice(rest);
                place[rest.len()..].fill(0.0);
            }
        }
    }

    /// One panel of lanes that are contiguous in k.
    #[inline(always)]
    fn transpose<S: Simd>(&self, s: S, first_lane: usize, lanes: usize, block: Block, panel: &mut [f32]) {
        let Block { width, first_k, depth, .. } = block;
        if lanes < width {
            panel.fill(0.0);
        }
        let element = |lane: usize, k: usize| (first_lane + lane) * self.k + first_k + k;
        // Squares through registers, k by k, so that what a square writes beyond a narrow panel's row is overwritten by
        // the next one; so the last k are left to the loop below, as are lanes of no whole square.
        let squares_k =
            if width.is_multiple_of(S::LANES) { depth } else { depth.saturating_sub(1) } / S::LANES;
        let squares = if lanes == width && first_lane + lanes.next_multiple_of(S::LANES) <= self.lanes {
            lanes.div_ceil(S::LANES)
        } else {
            lanes / S::LANES
        };
        for k in (0..squares_k * S::LANES).step_by(S::LANES) {
            for lane in (0..squares * S::LANES).step_by(S::LANES) {
                let (from, to) = (element(lane, k), k * width + lane);
                assert!(from + (S::LANES - 1) * self.k + S::LANES <= self.data.len());
                assert!(to + (S::LANES - 1) * width + S::LANES <= panel.len());
                // SAFETY: the asserts above bound the square on both sides.
                unsafe { s.transpose(self.data[from..].as_ptr(), self.k, panel[to..].as_mut_ptr(), width) };
            }
        }
        let done = (squares * S::LANES).min(lanes);
        for lane in 0..lanes {
            let first = if lane < done { squares_k * S::LANES } else { 0 };
            let row = &self.data[element(lane, 0)..][..depth];
            for (k, x) in row.iter().enumerate().skip(first) {
                panel[k * width + lane] = *x;
            }
        }
    }
}

/// The first N values of a slice that has them.
#[inline(always)]
fn first_of<const N: usize>(values: &mut [f32]) -> &mut [f32; N] {
    match values.first_chunk_mut() {
        Some(chunk) => chunk,
        None => beyond(N),
    }
}

#[cold]
fn beyond(wanted: usize) -> ! {
    panic!("a panel reaches beyond its operand: {wanted} values wanted");
}
