//! Packing: panels of a matrix laid out in the order in which the register tile reads them.
//!
//! A panel holds `width` rows of A (or columns of B) as `[k][width]`; a partial panel is padded with zeros, whose
//! products land in tile elements that are thrown away.

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
    pub(super) fn pack(&self, block: Block, out: &mut [f32]) {
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
                    self.transpose(block.first_lane + first, width.min(block.lanes - first), block, out);
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
    fn transpose(&self, first_lane: usize, lanes: usize, block: Block, panel: &mut [f32]) {
        let Block { width, first_k, depth, .. } = block;
        if lanes < width {
            panel.fill(0.0);
        }
        // Few k at a time, so that the part of the panel being written stays in the first-level cache.
        for k in (0..depth).step_by(TRANSPOSE_DEPTH) {
            let part = TRANSPOSE_DEPTH.min(depth - k);
            // Four lanes by four k, through registers; what is left over one by one.
            let squares = if part == TRANSPOSE_DEPTH { lanes / 4 * 4 } else { 0 };
            for lane in (0..squares).step_by(4) {
                let at = (first_lane + lane) * self.k + first_k + k;
                let rows: [&[f32; TRANSPOSE_DEPTH]; 4] =
                    std::array::from_fn(|r| match self.data[at + r * self.k..].first_chunk() {
                        Some(row) => row,
                        None => beyond(TRANSPOSE_DEPTH),
                    });
                for j in 0..TRANSPOSE_DEPTH {
                    let column = rows.map(|row| row[j]);
                    panel[(k + j) * width + lane..][..4].copy_from_slice(&column);
                }
            }
            for lane in squares..lanes {
                let row = &self.data[(first_lane + lane) * self.k + first_k + k..][..part];
                for (j, x) in row.iter().enumerate() {
                    panel[(k + j) * width + lane] = *x;
                }
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

const TRANSPOSE_DEPTH: usize = 16;
